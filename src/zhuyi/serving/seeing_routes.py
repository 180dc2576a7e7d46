"""Labels of texts and pictures, and where the runs look: /v1/classify and /v1/attention."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

from zhuyi.errors import InputError
from zhuyi.predict import Classification, PictureMaps, TextMaps
from zhuyi.serving.answers import ERRORS, JsonAnswer
from zhuyi.serving.choosing import chosen
from zhuyi.serving.engine import Engine
from zhuyi.serving.fields import Name, StrictForm
from zhuyi.serving.health import EngineHere
from zhuyi.serving.limits import check_texts, check_width
from zhuyi.serving.own_forms import AttentionForm, ClassifyForm
from zhuyi.serving.refusals import WrongOption
from zhuyi.serving.request_bodies import request_values
from zhuyi.serving.runs import ServedRun
from zhuyi.serving.uploads import read_picture
from zhuyi.visualize.attention_page import page_data
from zhuyi.visualize.picture_overlay import draw_overlay, over_patches, rollout

PICTURES, TEXTS = "image-classification", "text-classification"

router = APIRouter(prefix="/v1", tags=["zhuyi"], responses=ERRORS)

SomeForm = TypeVar("SomeForm", bound=BaseModel)


class PictureForm(StrictForm):
    """What is said beside a picture."""

    run: Name = ""
    overlay: bool = False


class OverlayForm(StrictForm):
    """Which map of a picture is wanted."""

    run: Name = ""
    layer: Annotated[int, Field(ge=1, le=1000)] | None = None
    head: Annotated[int, Field(ge=1, le=1000)] | None = None
    rollout: bool = False


def _described(texts: type[BaseModel], pictures: type[BaseModel]) -> dict[str, Any]:
    """A body that is JSON, or a form with a file."""
    form = pictures.model_json_schema()
    form["properties"]["file"] = {"type": "string", "format": "binary", "description": "A picture."}
    form["required"] = ["file"]
    schemas = {"application/json": _inlined(texts.model_json_schema()), "multipart/form-data": form}
    return {"requestBody": {"required": True, "content": {kind: {"schema": each} for kind, each in schemas.items()}}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    assert "$defs" not in schema, "a part of the form has a name of its own, which is not known there"
    return schema


@router.post("/classify", response_model=None, openapi_extra=_described(ClassifyForm, PictureForm))
async def classify(request: Request, engine: EngineHere) -> Response:
    """Label texts, sent as JSON; or a picture, sent as a form's file, with where the run looked in it if wanted."""
    if not _is_form(request):
        form = _valid(ClassifyForm, await request_values(request))
        run = chosen(engine, form.run, "classify", task=TEXTS)
        return JsonAnswer({"run": run.name, "classifications": await _labels(engine, run, form)})
    async with _with_file(request, PictureForm) as (file, about):
        run = chosen(engine, about.run, "classify", task=PICTURES)
        picture = await read_picture(file, engine.settings, run.predictor.config.data.shape)
    if about.overlay:
        maps: PictureMaps = await engine.call(run, lambda: run.predictor.attention(picture), cost=1)
        found = _as_json(maps.answer) | {"overlay": await asyncio.to_thread(_overlay, maps)}
    else:
        (answer,) = await engine.batched(run, "picture", [picture], run.predictor.classify, cost=1)
        found = _as_json(answer)
    return JsonAnswer({"run": run.name, "classifications": [found]})


async def _labels(engine: Engine, run: ServedRun, form: ClassifyForm) -> list[dict[str, Any]]:
    texts, seconds, classifier = form.texts, form.seconds, run.predictor
    size = sum(map(len, texts)) + sum(map(len, seconds or ()))
    check_texts(len(texts), size, engine.settings)
    if seconds is not None and len(seconds) != len(texts):
        raise InputError(f"{len(texts)} texts but {len(seconds)} second texts; give one for each")
    if seconds is None:
        found = await engine.batched(run, "texts", texts, classifier.classify, cost=size)
    else:
        couples = list(zip(texts, seconds, strict=True))
        found = await engine.batched(
            run,
            "pairs",
            couples,
            lambda items: classifier.classify([text for text, _ in items], [second for _, second in items]),
            cost=size,
        )
    return [_as_json(each) for each in found]


@router.post(
    "/attention",
    response_model=None,
    openapi_extra=_described(AttentionForm, OverlayForm),
    responses={200: {"content": {"application/json": {}, "image/png": {}}}},
)
async def attention(request: Request, engine: EngineHere) -> Response:
    """Where a run looks: of a text the maps that the page's explorer shows; of a picture a drawing, as PNG."""
    if not _is_form(request):
        form = _valid(AttentionForm, await request_values(request))
        run = chosen(engine, form.run, "attention")
        check_texts(1, len(form.text) + len(form.target or ""), engine.settings)
        check_width("beam", form.beam or 1, engine.settings)
        maps: TextMaps = await engine.call(run, lambda: _maps(run, form), cost=len(form.text))
        return JsonAnswer(await asyncio.to_thread(page_data, maps))
    async with _with_file(request, OverlayForm) as (file, about):
        run = chosen(engine, about.run, "attention", task=PICTURES)
        picture = await read_picture(file, engine.settings, run.predictor.config.data.shape)
    drawn = await engine.call(run, lambda: _drawn(run.predictor.attention(picture), about), cost=1)
    return Response(drawn, media_type="image/png")


def _maps(run: ServedRun, form: AttentionForm) -> TextMaps:
    predictor = run.predictor
    if "translate" in run.abilities:
        found: TextMaps = predictor.attention(
            form.text, form.target, beam=form.beam, task=form.task, prefix=form.prefix, steps=form.steps
        )
        return found
    for name in ("task", "prefix", "beam"):
        if getattr(form, name) is not None:
            raise WrongOption(
                name, f"{name}: is for runs that translate, and {run.name} is a run of {run.task}; leave it out"
            )
    if form.steps:
        raise WrongOption(
            "steps", f"steps: are told by runs that translate, and {run.name} is a run of {run.task}; leave it out"
        )
    if run.task in ("speech-recognition", "forecasting", PICTURES):
        what = "send a picture as a form's file" if run.task == PICTURES else "`zhuyi attention` draws its maps"
        raise InputError(f"{run.name} is a run of {run.task}, which reads no text: {what}")
    if form.target is not None and run.task != "language-modelling":
        raise WrongOption("target", f"target: {run.name} writes nothing; leave it out")
    found = predictor.attention(form.text + (form.target or ""))
    return found


def _drawn(maps: PictureMaps, about: OverlayForm) -> bytes:
    with TemporaryDirectory(prefix="zhuyi-") as folder:
        path = Path(folder) / "overlay.png"
        draw_overlay(maps, path, layer=about.layer, head=about.head, rolled=about.rollout)
        return path.read_bytes()


def _overlay(maps: PictureMaps) -> dict[str, Any]:
    """The picture as the model read it, and how much it looked at each patch: of each layer, of each head."""
    from PIL import Image

    pixels = maps.pixels[:, :, 0] if maps.pixels.shape[2] == 1 else maps.pixels
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    layers = [maps.maps[f"encoder.{number}.self"].numpy() for number in range(len(maps.maps))]
    return {
        "grid": list(maps.grid),
        "picture": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii"),
        "layers": [[_shares(weights, maps) for weights in heads] for heads in layers],
        "rollout": _shares(rollout(layers), maps),
    }


def _shares(weights: np.ndarray, maps: PictureMaps) -> list[float]:
    return [round(float(x), 5) for x in over_patches(weights, maps).ravel()]


def _as_json(found: Classification) -> dict[str, Any]:
    return {
        "label": found.label,
        "probability": found.probability,
        "probabilities": found.probabilities,
        "flags": list(found.flags),
    }


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("multipart/form-data")


def _valid(form: type[SomeForm], values: dict[str, Any]) -> SomeForm:
    try:
        return form.model_validate(values)
    except ValidationError as error:
        problems = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(problems) from None


@asynccontextmanager
async def _with_file(request: Request, form: type[SomeForm]) -> AsyncIterator[tuple[UploadFile, SomeForm]]:
    """A form's file and the rest of it."""
    async with request.form(max_files=1, max_fields=50) as sent:
        values: dict[str, Any] = dict(sent.multi_items())
        file = values.pop("file", None)
        if file is None or isinstance(file, str):
            raise WrongOption("file", "file: the form has none; send a picture as its file")
        yield file, _valid(form, values)
