"""What the runs can do, in our own words: /v1/translate and its neighbours, which the page uses."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Form, UploadFile
from starlette.responses import Response

from zhuyi.decoding import Sampling
from zhuyi.errors import InputError
from zhuyi.predict import Candidate, Forecast, Translation
from zhuyi.run_names import of_traditional
from zhuyi.serving.answers import ERRORS, JsonAnswer
from zhuyi.serving.choosing import chosen, loaded
from zhuyi.serving.engine import Engine
from zhuyi.serving.health import EngineHere
from zhuyi.serving.html_translation import translate_html
from zhuyi.serving.jobs import TranslateOptions
from zhuyi.serving.languages import pairs
from zhuyi.serving.limits import check_texts
from zhuyi.serving.own_forms import FillForm, TranslateForm
from zhuyi.serving.run_facts import facts
from zhuyi.serving.runs import ServedRun
from zhuyi.serving.uploads import kept_table
from zhuyi.serving.word_links import aligned
from zhuyi.tasks.glossary import Entry, Glossary
from zhuyi.tasks.languages import canonical, name_of

router = APIRouter(prefix="/v1", tags=["zhuyi"], responses=ERRORS)


@router.get("/runs", response_model=None)
async def runs(engine: EngineHere) -> Response:
    """What is loaded, and what each run can do."""
    return JsonAnswer({"runs": [facts(run) for run in loaded(engine)]})


@router.post("/translate", response_model=None)
async def translate(form: TranslateForm, engine: EngineHere) -> Response:
    """Translate texts: with other translations, scores, flags, a glossary, and which word came from which."""
    run = _translator(engine, form)
    options = TranslateOptions(
        beam=form.beam,
        n_best=form.n_best,
        alpha=form.alpha,
        rule=_rule(form),
        seed=1 if form.sample is None else form.sample.seed,
        task=form.task,
        prefix=form.prefix,
        constraint=form.constraint,
        same_length=form.same_length,
        placeholders=form.placeholders,
    )
    if form.format == "html":
        if form.n_best > 1 or form.alignment or form.glossary or form.keep:
            raise InputError('format html goes without n_best, alignment, glossary and keep; mark by translate="no"')
        pages = await translate_html(engine, run, form.texts, options)
        return JsonAnswer({"run": run.name, "translations": [{"text": page} for page in pages]})
    glossary = _glossary(run, form)
    found = await engine.translate(run, form.texts, options, [glossary] * len(form.texts) if glossary else ())
    answers = [_as_json(each) for each in found]
    if form.alignment:
        couples = [(text, each.text) for text, each in zip(form.texts, found, strict=True)]
        for answer, each in zip(answers, await aligned(engine, run, couples, options), strict=True):
            answer["alignment"] = None if each is None else str(each)
            answer["source_words"] = None if each is None else list(each.source)
            answer["target_words"] = None if each is None else list(each.target)
    return JsonAnswer({"run": run.name, "translations": answers})


def _translator(engine: Engine, form: TranslateForm) -> ServedRun:
    if form.run or not (form.source or form.target):
        return chosen(engine, form.run, "translate")
    pair = canonical(form.source), canonical(form.target)
    run = pairs(loaded(engine)).get(pair)
    if run is None:
        hint = of_traditional(pair[0]) or of_traditional(pair[1])
        raise InputError(f"no run here translates from {name_of(pair[0])!r} to {name_of(pair[1])!r}{hint}")
    return run


def _rule(form: TranslateForm) -> Sampling | None:
    if form.sample is None:
        return None
    sample = form.sample
    return Sampling(sample.temperature, top_k=sample.top_k, top_p=sample.top_p, samples=form.n_best)


def _glossary(run: ServedRun, form: TranslateForm) -> Glossary | None:
    entries = [Entry(entry.source, entry.targets) for entry in form.glossary]
    entries += [Entry(word, (word,)) for word in form.keep]
    if not entries:
        return None
    found: Glossary = run.predictor.read_glossary(Glossary(entries))
    return found


def _as_json(found: Translation) -> dict[str, Any]:
    return {
        "text": found.text,
        "score": found.score,
        "tokens": list(found.tokens),
        "alternatives": [{"text": text, "score": score} for text, score in found.alternatives],
        "flags": list(found.flags),
    }


@router.post("/fill", response_model=None)
async def fill(form: FillForm, engine: EngineHere) -> Response:
    """Find words for the gaps of a text."""
    run = chosen(engine, form.run, "fill")
    check_texts(1, len(form.text), engine.settings)
    found: list[list[Candidate]] = await engine.call(
        run, lambda: run.predictor.fill(form.text, top=form.top), cost=len(form.text)
    )
    gaps = [[{"word": c.word, "probability": c.probability, "text": c.text} for c in gap] for gap in found]
    return JsonAnswer({"run": run.name, "gaps": gaps})


@router.post("/forecast", response_model=None)
async def forecast(
    engine: EngineHere,
    file: Annotated[UploadFile, File(description="A table of what was measured of late: CSV, CSV in .gz, Parquet.")],
    run: Annotated[str, Form(max_length=200, description="Which run; the first that can where not given.")] = "",
    steps: Annotated[int | None, Form(ge=1, le=100_000, description="All of the run's where not given.")] = None,
    start: Annotated[
        str, Form(max_length=40, description="The time of the first row, without a column of times.")
    ] = "",
    begin: Annotated[str, Form(max_length=40, description="The first time to forecast; else what follows.")] = "",
) -> Response:
    """Forecast what sensors will measure."""
    served = chosen(engine, run, "forecast")
    forecaster = served.predictor
    async with kept_table(file) as path:
        table = await asyncio.to_thread(forecaster.read, path, start=start)
        cost = len(forecaster.sensors) * forecaster.config.data.history_steps
        found = await engine.call(served, lambda: forecaster.forecast(table, steps, begin=begin), cost=cost)
    return JsonAnswer({"run": served.name} | _forecast_json(found))


def _forecast_json(found: Forecast) -> dict[str, Any]:
    return {
        "sensors": list(found.sensors),
        "step_minutes": found.step_minutes,
        "history_times": found.history_times(),
        "history": _rows(found.history),
        "times": found.times(),
        "values": _rows(found.values),
        "truth": _rows(found.truth),
        "csv": found.as_csv(),
    }


def _rows(values: np.ndarray) -> Sequence[Sequence[float | None]]:
    """Numbers as JSON has them; null was not measured, or has not come yet."""
    return [[float(x) if np.isfinite(x) else None for x in row] for row in values]
