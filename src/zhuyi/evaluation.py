"""A run's scores on data of its task, and the likelihood of given translations."""

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zhuyi.atomic import replacing
from zhuyi.data.audio import SAMPLE_RATE_HZ
from zhuyi.data.corpus import Corpus, write_corpus
from zhuyi.data.images import list_pictures
from zhuyi.data.labelled_texts import read_all_texts
from zhuyi.data.pairs import CleaningReport, Pair, read_pairs, refuse_another_encoding
from zhuyi.data.recordings import read_recordings
from zhuyi.data.speech_examples import join_recordings
from zhuyi.errors import InputError
from zhuyi.metrics.classification_scores import classification_scores
from zhuyi.metrics.speech_scores import speech_scores
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.predict import Classifier, Forecaster, Generator, PictureClassifier, Transcriber, Translator, WordFiller
from zhuyi.tasks.encoder_data import read_simplified
from zhuyi.tasks.forecasting import forecast_errors, horizon_scores, windows_of
from zhuyi.tasks.image_classification import picture_probabilities
from zhuyi.tasks.language_modelling import score_text
from zhuyi.tasks.masked_language_modelling import ROW_COLUMNS, MaskedBatches, encode_masked, masked_word_scores
from zhuyi.tasks.mixture import MixtureConfig, MixturePart
from zhuyi.tasks.pair_data import PairDataConfig
from zhuyi.tasks.picture_data import PICTURES_A_CHUNK, read_pictures
from zhuyi.tasks.text_classification import number_of

SCORED_TOGETHER = 256


@dataclass(frozen=True)
class Wanted:
    """What `zhuyi evaluate` was asked for.

    Args:   files: what to score on; the run's own test files where None.
            columns: of pairs, source and target; of labelled texts, label, text and perhaps a second text.
            beam, alpha, lowercase: of translations; None or False where not given.
            output: where what the model answers is written too, one a line; of pictures behind the file's name.
            task, prefix: of a run that does several tasks, as `Translator` takes them.
            joined: of recordings, so many are scored as one, with pauses between; None where not given.
            start: of a table without times in `files`, the time of its first row; None where not given.
    """

    files: Sequence[str] | None = None
    columns: tuple[int, ...] | None = None
    beam: int | None = None
    alpha: float | None = None
    lowercase: bool = False
    output: Path | None = None
    task: str | None = None
    prefix: str | None = None
    joined: int | None = None
    start: str | None = None

    def refuse(self, *names: str) -> None:
        """Raise InputError where one of these was given, which the run's task has no use for."""
        for name in names:
            if getattr(self, name) not in (None, False):
                raise InputError(f"--{name} is not for runs of this task; leave it out")


def evaluate_run(predictor: Any, wanted: Wanted, warn: Callable[[str], None] = lambda message: None) -> dict[str, Any]:
    """Score a loaded run as its task is scored.

    Raises: InputError: no data to score on, or an option that is not for the task.
    """
    if predictor.config.task != "speech-recognition":
        wanted.refuse("joined")
    if predictor.config.task != "forecasting":
        wanted.refuse("start")
    return EVALUATIONS[predictor.config.task](predictor, wanted, warn)


def _evaluate_translations(
    translator: Translator, wanted: Wanted, warn: Callable[[str], None], data: PairDataConfig | None = None
) -> dict[str, Any]:
    return evaluate_pairs(
        translator,
        wanted.files,
        data=data,
        options={"task": wanted.task, "prefix": wanted.prefix},
        columns=(wanted.columns or (1, 2)) if wanted.files else None,
        beam=wanted.beam,
        alpha=wanted.alpha,
        lowercase=wanted.lowercase,
        output=wanted.output,
        warn=warn,
    )


def _evaluate_tasks(translator: Translator, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`valid_loss`, `bleu` and `chrf` of each task that has test pairs, and their means; of one task all there is."""
    config: MixtureConfig = translator.config.data
    parts = {part.name: part for part in config.mixture if part.name in config.prefixes}
    if wanted.task is not None:
        translator.prefix(wanted.task)  # refuses one that is not there
    if wanted.files or wanted.task is not None:
        part = _part_meant(list(parts.values()), wanted)
        return _evaluate_task(translator, wanted, warn, config.pairs_of(part) if part else PairDataConfig())[0]
    tested = [name for name, part in parts.items() if part.test]
    if not tested:
        raise InputError("the run has no test pairs of its own; give some by --pairs FILE")
    if wanted.output or wanted.prefix is not None:
        raise InputError(f"--output and --prefix are for one task; choose it by --task {' or '.join(tested)}")
    found = {
        name: _evaluate_task(translator, replace(wanted, task=name), warn, config.pairs_of(parts[name]))
        for name in tested
    }
    tokens = sum(count for _, count in found.values())
    scores: dict[str, Any] = {
        "valid_loss": round(sum(each["valid_loss"] * count for each, count in found.values()) / max(1, tokens), 4)
    }
    scores |= {f"valid_loss_{name}": each["valid_loss"] for name, (each, _) in found.items()}
    for key in ("bleu", "chrf"):
        scores[key] = round(sum(each[key] for each, _ in found.values()) / len(found), 4)
        scores |= {f"{key}_{name}": each[key] for name, (each, _) in found.items()}
    return scores | {f"signature_{name}": each["signature"] for name, (each, _) in found.items()}


def _part_meant(parts: Sequence[MixturePart], wanted: Wanted) -> MixturePart | None:
    """The part by its name, the only one, or the one of the prefix that was given."""
    if wanted.task is not None:
        parts = [part for part in parts if part.name == wanted.task]
    elif len(parts) > 1:
        parts = [part for part in parts if part.prefix == wanted.prefix]
    return parts[0] if len(parts) == 1 else None


def _evaluate_task(
    translator: Translator, wanted: Wanted, warn: Callable[[str], None], data: PairDataConfig
) -> tuple[dict[str, Any], int]:
    """The scores of one task, and how many tokens its `valid_loss` is the mean of."""
    scores = _evaluate_translations(translator, wanted, warn, data)
    options: dict[str, Any] = {"task": wanted.task, "prefix": wanted.prefix}
    files, columns = list(wanted.files or data.test), wanted.columns or (data.columns if not wanted.files else (1, 2))
    read = (pair for file in files for pair in read_pairs(file, columns=columns, report=CleaningReport()))
    pairs = [(pair.source, pair.target) for pair in read if translator.reaches(pair.source, pair.target, **options)]
    found = translator.score(pairs, **options)
    tokens = sum(each.tokens for each in found)
    return {"valid_loss": round(-sum(each.log_prob for each in found) / max(1, tokens), 4), **scores}, tokens


def _evaluate_labels(classifier: Classifier, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`valid_loss` (of these texts), `accuracy` and `macro_f1`."""
    wanted.refuse("beam", "alpha", "lowercase", "task", "prefix")
    data = classifier.config.data
    layout = data.layout
    if wanted.columns:
        if len(wanted.columns) not in (2, 3) or len(wanted.columns) < len(data.columns):
            raise InputError(
                f"--columns {','.join(map(str, wanted.columns))}: expected those of label"
                + (", text and second text, such as 1,2,3" if len(data.columns) == 3 else " and text, such as 1,2")
            )
        layout = replace(layout, label=wanted.columns[0], columns=wanted.columns[1:])
    files = _files(wanted, data.test)
    report = CleaningReport(things="texts")
    kept = list(read_all_texts(files, layout, report))
    if report.dropped:
        warn(report.summary())
    numbers = {name: number for number, name in enumerate(classifier.labels)}
    expected = [number_of(each.label, numbers, each.origin) for each in kept]
    started = time.perf_counter()
    is_pairs = len(layout.columns) == 2
    found = classifier.classify([each.text for each in kept], [each.second for each in kept] if is_pairs else None)
    seconds = time.perf_counter() - started
    if wanted.output:
        _write_lines(wanted.output, (each.label for each in found))
    return {
        "valid_loss": _mean_loss([found[i].probabilities[each.label] for i, each in enumerate(kept)]),
        **classification_scores([numbers[each.label] for each in found], expected, len(numbers)),
        "texts": len(kept),
        "texts_per_second": round(len(kept) / seconds, 1),
    }


def _mean_loss(probabilities: Sequence[float]) -> float:
    """The mean negative log-likelihood of what had these probabilities; nothing is less likely than a number can be."""
    return -sum(math.log(max(each, sys.float_info.min)) for each in probabilities) / max(1, len(probabilities))


def _evaluate_pictures(classifier: PictureClassifier, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`valid_loss` (of these pictures), `accuracy` and `macro_f1`."""
    wanted.refuse("columns", "beam", "alpha", "lowercase", "task", "prefix")
    data, labels = classifier.config.data, classifier.labels
    report = CleaningReport(things="pictures")
    pictures = list_pictures(_files(wanted, data.test), labels, report)
    numbers = {name: number for number, name in enumerate(labels)}
    names, expected, found, probabilities = list[str](), list[int](), list[int](), list[float]()
    started = time.perf_counter()
    stream = read_pictures(pictures, data.shape, report)
    while chunk := list(islice(stream, PICTURES_A_CHUNK)):
        labelled = [number_of(pictures[row].label, numbers, (pictures[row].name, 0)) for row, _ in chunk]
        probs = picture_probabilities(classifier.model, np.stack([pixels for _, pixels in chunk]), data)
        names += [pictures[row].name for row, _ in chunk]
        expected += labelled
        probabilities += probs[np.arange(len(chunk)), labelled].tolist()
        found += probs.argmax(axis=1).tolist()
    seconds = time.perf_counter() - started
    if report.dropped:
        warn(report.summary())
    if wanted.output:
        _write_lines(wanted.output, (f"{name}\t{labels[each]}" for name, each in zip(names, found, strict=True)))
    return {
        "valid_loss": _mean_loss(probabilities),
        **classification_scores(found, expected, len(labels)),
        "pictures": len(found),
        "pictures_per_second": round(len(found) / seconds, 1),
    }


def _evaluate_forecasts(forecaster: Forecaster, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`mae`, `rmse` and `mape` of all steps ahead, and of some, as `mae_15min`."""
    wanted.refuse("columns", "beam", "alpha", "lowercase", "output", "task", "prefix")
    config = forecaster.config
    windows = windows_of(wanted.files or (), config.data, config.train.batch_tokens, wanted.start or "")
    started = time.perf_counter()
    scores = horizon_scores(forecast_errors(forecaster.model, windows), config.data)
    seconds = time.perf_counter() - started
    return {
        **{name: round(score, 4) for name, score in scores.items()},
        "windows": len(windows),
        "windows_per_second": round(len(windows) / seconds, 1),
    }


def _evaluate_speech(transcriber: Transcriber, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`wer` and `cer` of recordings, and how many seconds of them are transcribed in one."""
    wanted.refuse("alpha", "task", "prefix")
    data = transcriber.config.data
    report = CleaningReport(things="recordings")
    names = data.names("test") if not wanted.files else replace(data.names("test"), chosen="")
    files = _files(wanted, data.files("test"))
    read = [(each.samples, each.text) for each in read_recordings(files, names, report, wanted.columns or data.columns)]
    if report.dropped:
        warn(report.summary())
    if wanted.joined:
        read = join_recordings(read, wanted.joined)
    started = time.perf_counter()
    found = [each.text for each in transcriber.stream((samples for samples, _ in read), beam=wanted.beam, times=False)]
    seconds = time.perf_counter() - started
    if wanted.output:
        _write_lines(wanted.output, (" ".join(text.split()) for text in found))
    expected = [text for _, text in read]
    if wanted.lowercase:
        found, expected = [text.lower() for text in found], [text.lower() for text in expected]
    scores = {name: round(rate, 5) for name, rate in speech_scores(found, expected).items()}
    heard = sum(len(samples) for samples, _ in read) / SAMPLE_RATE_HZ
    return {**scores, "recordings": len(read), "seconds": round(heard, 1), "times_real_time": round(heard / seconds, 1)}


def _evaluate_masked_words(filler: WordFiller, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`valid_loss` and `accuracy` of words taken away, drawn as the run's seed draws them."""
    wanted.refuse("columns", "beam", "alpha", "lowercase", "output", "task", "prefix")
    filler.check_head()
    data = filler.config.data
    report = CleaningReport(things="texts")
    texts = read_simplified(_files(wanted, data.test), data.layout, data.simplify, report)
    rows = encode_masked(data, filler.tokenizer, [(each.text, each.second, "") for each in texts])
    if report.dropped:
        warn(report.summary())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "test.arrow")
        count = write_corpus(path, ROW_COLUMNS, rows)
        train = filler.config.train
        batches = MaskedBatches(Corpus.open(path), filler.tokenizer, data.mask_share, train.batch_tokens, train.seed)
        with torch.inference_mode():
            scores = masked_word_scores(filler.model, batches)
    return {**scores, "rows": count}


def _files(wanted: Wanted, own: Sequence[str]) -> list[str]:
    files = list(wanted.files or own)
    if not files:
        raise InputError("the run has no test data of its own; give some by --test FILE")
    return files


def _evaluate_text(generator: Generator, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`valid_loss` (of this text), `perplexity`, and where all of it is learned `bits_per_character`."""
    wanted.refuse("columns", "beam", "alpha", "lowercase", "output", "task", "prefix")
    config = generator.config.data
    files = list(wanted.files or config.test)
    if not files:
        raise InputError("the run has no test text of its own; give some by --test FILE")
    started = time.perf_counter()
    report = CleaningReport()
    scores, tokens = score_text(generator.model, generator.tokenizer, config, files, report)
    if report.dropped:
        warn(report.summary())
    return {**scores, "tokens": tokens, "tokens_per_second": round(tokens / (time.perf_counter() - started), 1)}


EVALUATIONS: dict[str, Callable[[Any, Wanted, Callable[[str], None]], dict[str, Any]]] = {
    "translation": _evaluate_translations,
    "text-to-text": _evaluate_tasks,
    "language-modelling": _evaluate_text,
    "masked-language-modelling": _evaluate_masked_words,
    "text-classification": _evaluate_labels,
    "image-classification": _evaluate_pictures,
    "forecasting": _evaluate_forecasts,
    "speech-recognition": _evaluate_speech,
}


def evaluate_pairs(
    translator: Translator,
    pairs: Sequence[str] | None,
    *,
    data: PairDataConfig | None = None,
    options: Mapping[str, Any] | None = None,
    columns: tuple[int, ...] | None = None,
    beam: int | None = None,
    alpha: float | None = None,
    lowercase: bool = False,
    output: Path | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Translate the sources and score the result against the targets, both as they stand in the files.

    Args:   pairs: files of pairs; the run's own test set where None.
            data: whose test set, columns and target language count; the run's own where None.
            options: `task` or `prefix`, as `Translator.stream` takes them.
            columns: of those files; the run's own where None.
            lowercase: score without regard to case; the signature says so.
            output: where the translations are written too, one a line.
    Raises: InputError: there is no test set, or no pair in it.
    """
    data = data or translator.config.data
    files = list(pairs or data.test)
    if not files:
        raise InputError("the run has no test pairs of its own; give some by --pairs FILE")
    report = CleaningReport()
    kept = [pair for file in files for pair in read_pairs(file, columns=columns or data.columns, report=report)]
    refuse_another_encoding(files, report)
    if report.dropped:
        warn(report.summary())
    if not kept:
        raise InputError(f"{', '.join(files)}: no pair to score")
    started = time.perf_counter()
    sources = (pair.source for pair in kept)
    found = list(translator.stream(sources, beam=beam, alpha=alpha, **(options or {})))
    seconds = time.perf_counter() - started
    if output:
        _write_lines(output, (each.text for each in found))
    return {
        **translation_scores(
            [each.text for each in found], [pair.target for pair in kept], data.target, lowercase=lowercase
        ),
        "sentences": len(kept),
        "beam": translator.decode_config(beam=beam).beam,
        "tokens_per_second": round(sum(len(each.tokens) + 1 for each in found) / seconds, 1),
    }


def _write_lines(output: Path, lines: Iterable[str]) -> None:
    with replacing(output) as path:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="replace", newline="\n")


def score_lines(
    translator: Translator,
    pairs: str,
    columns: tuple[int, ...],
    as_json: bool,
    warn: Callable[[str], None],
    options: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """A line for each line of pairs: log-probability and perplexity, or nothing where the line holds no pair.

    Args:   options: `task` or `prefix`, as `Translator.score` takes them.
    """
    report = CleaningReport()
    stream = read_pairs(pairs, columns=columns, report=report)
    written = 0
    while group := list(islice(stream, SCORED_TOGETHER)):
        for pair, line in zip(group, _score_group(translator, group, as_json, warn, options or {}), strict=True):
            for _ in range(pair.origin[1] - written - 1):  # lines that held no pair
                yield ""
            yield line
            written = pair.origin[1]
    refuse_another_encoding([pairs], report)
    for _ in range(report.total - written):
        yield ""
    if report.dropped:
        warn(report.summary())


def _score_group(
    translator: Translator,
    group: Sequence[Pair],
    as_json: bool,
    warn: Callable[[str], None],
    options: Mapping[str, Any],
) -> Iterator[str]:
    fitting = [pair for pair in group if translator.reaches(pair.source, pair.target, **options)]
    scores = iter(translator.score([(pair.source, pair.target) for pair in fitting], **options))
    for pair in group:
        if pair not in fitting:
            file, line = pair.origin
            warn(f"{file}:{line}: longer than the model's {translator.model.max_len} tokens; not scored")
            yield ""
            continue
        score = next(scores)
        log_prob, perplexity = round(score.log_prob, 5), round(score.perplexity, 5)
        values = {"log_prob": log_prob, "perplexity": perplexity, "tokens": score.tokens}
        yield json.dumps(values) if as_json else f"{log_prob:.5f}\t{perplexity:.5f}"
