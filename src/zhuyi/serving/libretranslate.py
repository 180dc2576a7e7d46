"""LibreTranslate's protocol: its fields, its status codes and its words, for whatever speaks it already."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from zhuyi.decoding import is_translatable
from zhuyi.run_names import of_traditional
from zhuyi.serving.engine import Engine
from zhuyi.serving.health import EngineHere
from zhuyi.serving.html_translation import translate_html
from zhuyi.serving.jobs import TranslateOptions
from zhuyi.serving.languages import AUTO, Detected, Detector, codes, pairs, shown
from zhuyi.serving.refusals import NotReady
from zhuyi.serving.request_bodies import plain, request_values
from zhuyi.serving.runs import ServedRun
from zhuyi.tasks.languages import canonical, name_of

FORMATS = ("text", "html")
FRONTEND_TIMEOUT_MILLISECONDS = 500
GUESS = "en"  # what they answer where nothing tells a language


class LibreTranslateProblem(BaseModel):
    """What is wrong, in one line."""

    error: str


class Language(BaseModel):
    """A language, and those that it is translated into."""

    code: str = Field(examples=["zh-Hans"])
    name: str = Field(examples=["Chinese"])
    targets: list[str] = Field(examples=[["en", "zh-Hans"]])


class Detection(BaseModel):
    """A language that a text may be in."""

    confidence: float = Field(ge=0, le=100, examples=[97.4])
    language: str = Field(examples=["en"])


class Translated(BaseModel):
    """The translation; lists, where a list of texts was sent."""

    translatedText: str | list[str] = Field(examples=["你好。"])
    alternatives: list[str] | list[list[str]] | None = Field(None, description="Where `alternatives` were asked for.")
    detectedLanguage: Detection | list[Detection] | None = Field(None, description="Where `source` is `auto`.")


class TranslateForm(BaseModel):
    """What is to be translated."""

    q: str | list[str] = Field(description="A text, or several.", examples=["Good morning."])
    source: str = Field(description="A language's code, or `auto`.", examples=["en"])
    target: str = Field(description="A language's code.", examples=["zh-Hans"])
    format: Literal["text", "html"] = Field("text", description="In `html` tags are kept.")
    alternatives: int = Field(0, ge=0, description="How many other translations to give, of texts.")
    api_key: str = Field("", description="Where the server wants one and none is in the head.")


class DetectForm(BaseModel):
    """What language is looked for in."""

    q: str | list[str] = Field(description="A text, or several.", examples=["Good morning."])
    api_key: str = Field("", description="Where the server wants one and none is in the head.")


def _documented(form: type[BaseModel]) -> dict[str, Any]:
    """A body's description, for the forms in which it may come."""
    schema = form.model_json_schema()
    kinds = ("application/json", "application/x-www-form-urlencoded")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": LibreTranslateProblem, "description": "Something in the request is wrong, or not supported."},
    429: {"model": LibreTranslateProblem, "description": "Too many requests; `Retry-After` says when to come again."},
}

router = APIRouter(tags=["LibreTranslate"], responses=ERRORS)


@dataclass(frozen=True)
class Offer:
    """What the loaded runs can translate.

    Args:   pairs: the runs, by their languages.
    """

    pairs: Mapping[tuple[str, str], ServedRun]
    detector: Detector

    @property
    def languages(self) -> list[str]:
        return codes(self.pairs)

    @property
    def unknown(self) -> Detected:
        """The answer where nothing tells a language."""
        sources = [source for source, _ in self.pairs]
        return Detected(GUESS if GUESS in sources or not sources else sources[0], 0.0)

    def targets(self, source: str) -> list[str]:
        """What a language is translated into; itself, as LibreTranslate has it, too."""
        return sorted({source, *(target for other, target in self.pairs if other == source)})


def offer(request: Request, engine: EngineHere) -> Offer:
    """What is offered, found once for all requests.

    Raises: NotReady: not all runs are loaded.
    """
    state = request.app.state
    if not hasattr(state, "libretranslate_offer"):
        if not engine.is_ready:
            raise NotReady
        of_runs = pairs(engine.runs.values())
        state.libretranslate_offer = Offer(of_runs, Detector(list(dict.fromkeys(source for source, _ in of_runs))))
    found: Offer = state.libretranslate_offer
    return found


OfferHere = Annotated[Offer, Depends(offer)]


@router.get("/languages", response_model=list[Language])
async def languages(offer: OfferHere) -> list[dict[str, Any]]:
    """The languages of the loaded runs."""
    return [
        {"code": shown(code), "name": name_of(code), "targets": [shown(target) for target in offer.targets(code)]}
        for code in offer.languages
    ]


@router.post("/detect", response_model=list[Detection], openapi_extra=_documented(DetectForm))
async def detect(request: Request, engine: EngineHere, offer: OfferHere) -> list[dict[str, Any]]:
    """Which language a text is in, of those that can be translated; the likeliest first."""
    texts = _texts(await request_values(request), engine)[0]
    found = await asyncio.to_thread(offer.detector.detect, texts)
    return [_as_json(each) for each in found or [offer.unknown]]


@router.get("/frontend/settings")
async def frontend_settings(engine: EngineHere, offer: OfferHere) -> dict[str, Any]:
    """What LibreTranslate's own page asks for."""
    target = next((target for _, target in offer.pairs), "en")
    return {
        "apiKeys": engine.settings.api_keys is not None,
        "charLimit": engine.settings.max_text_characters,
        "filesTranslation": False,
        "frontendTimeout": FRONTEND_TIMEOUT_MILLISECONDS,
        "keyRequired": engine.settings.api_keys is not None,
        "language": {
            "source": {"code": AUTO, "name": "Auto Detect"},
            "target": {"code": shown(target), "name": name_of(target)},
        },
        "suggestions": False,
        "supportedFilesFormat": [],
    }


@router.post(
    "/translate",
    response_model=Translated,
    response_model_exclude_none=True,
    openapi_extra=_documented(TranslateForm),
)
async def translate(request: Request, engine: EngineHere, offer: OfferHere) -> dict[str, Any]:
    """Translate a text, or several; as JSON, as a form, or in the query string."""
    values = await request_values(request)
    texts, is_list = _texts(values, engine)
    given = _language(values, "source"), _language(values, "target")
    alternatives = _alternatives(values, engine)
    source, detected = await _source(given[0], texts, offer)
    for code in (source, given[1]):
        if code not in offer.languages:
            raise HTTPException(400, f"{plain(code)} is not supported{of_traditional(code)}")
    form = values.get("format") or "text"
    if form not in FORMATS:
        raise HTTPException(400, f"{plain(form)} format is not supported")
    found = await _translated(engine, offer, texts, (source, given[1]), form, alternatives)
    answer: dict[str, Any] = {"translatedText": [text for text, _ in found]}
    if given[0] == AUTO:
        answer["detectedLanguage"] = [_as_json(detected)] * len(texts)
    if alternatives:
        answer["alternatives"] = [others for _, others in found]
    return answer if is_list else {name: of_all[0] for name, of_all in answer.items()}


async def _translated(
    engine: Engine, offer: Offer, texts: Sequence[str], pair: tuple[str, str], form: str, alternatives: int
) -> list[tuple[str, list[str]]]:
    """Each text's translation, and other ones."""
    if pair[0] == pair[1] or not any(map(is_translatable, texts)):
        return [(text, []) for text in texts]
    run = offer.pairs.get(pair)
    if run is None:
        names = [f"{name_of(code)} ({shown(code)})" for code in pair]
        raise HTTPException(400, f"{names[1]} is not available as a target language from {names[0]}")
    if form == "html":
        return [(page, []) for page in await translate_html(engine, run, texts, TranslateOptions())]
    found = await engine.translate(run, texts, TranslateOptions(n_best=alternatives + 1))
    return [
        (each.text, [text for text in dict.fromkeys(text for text, _ in each.alternatives) if text != each.text])
        for each in found
    ]


async def _source(given: str, texts: Sequence[str], offer: Offer) -> tuple[str, Detected]:
    """The language to translate from, and how sure that is."""
    if given != AUTO:
        return given, Detected(given, 100.0)
    found = await asyncio.to_thread(offer.detector.detect, texts)
    detected = found[0] if found else offer.unknown
    return detected.language, detected


def _as_json(detected: Detected) -> dict[str, Any]:
    return {"confidence": detected.confidence, "language": shown(detected.language)}


def _texts(values: Mapping[str, Any], engine: Engine) -> tuple[list[str], bool]:
    """The texts, and whether they came as a list."""
    q = values.get("q")
    if not q:
        raise HTTPException(400, "Invalid request: missing q parameter")
    texts = q if isinstance(q, list) else [q]
    if not all(isinstance(text, str) for text in texts):
        raise HTTPException(400, "Invalid request: q parameter is not a text or a list of texts")
    if any(text != plain(text, most=0) for text in texts):
        raise HTTPException(400, "Invalid request: q parameter has half a character (an unpaired surrogate)")
    settings = engine.settings
    for size, limit in ((len(texts), settings.max_texts), (sum(map(len, texts)), settings.max_text_characters)):
        if size > limit:
            raise HTTPException(400, f"Invalid request: request ({size}) exceeds text limit ({limit})")
    return texts, isinstance(q, list)


def _language(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not value:
        raise HTTPException(400, f"Invalid request: missing {name} parameter")
    if not isinstance(value, str):
        raise HTTPException(400, f"Invalid request: {name} parameter is not a language's code")
    return canonical(value)


def _alternatives(values: Mapping[str, Any], engine: Engine) -> int:
    value, most = values.get("alternatives") or 0, engine.settings.max_beam - 1
    is_number = isinstance(value, int) or (isinstance(value, str) and value.isascii() and value.strip("-").isdigit())
    if not is_number or len(str(value)) > 9:
        raise HTTPException(400, "Invalid request: alternatives parameter is not a number")
    if int(value) > most:
        raise HTTPException(400, f"Invalid request: alternatives parameter must be <= {most}")
    return max(0, int(value))
