"""Models, embeddings and transcriptions in OpenAI's protocol."""

import asyncio
import base64
import math
import zlib
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, File, Form, UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from zhuyi.errors import InputError
from zhuyi.predict.text_encoder import EncoderRun
from zhuyi.predict.transcriber import as_srt, as_text, as_vtt
from zhuyi.serving.answers import ERRORS, JsonAnswer
from zhuyi.serving.choosing import chosen, loaded
from zhuyi.serving.health import EngineHere
from zhuyi.serving.limits import check_texts
from zhuyi.serving.openai_forms import EmbeddingForm
from zhuyi.serving.refusals import WrongOption
from zhuyi.serving.request_bodies import plain
from zhuyi.serving.runs import ServedRun
from zhuyi.serving.uploads import read_sound
from zhuyi.tasks.transcripts import Transcription

OWNER = "zhuyi"
TOKENS_A_SECOND = 25  # about what a second of sound costs, beside the tokens of texts

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERRORS)


def _as_model(run: ServedRun) -> dict[str, Any]:
    return {"id": run.name, "object": "model", "created": run.created, "owned_by": OWNER}


@router.get("/models", response_model=None)
async def models(engine: EngineHere) -> Response:
    """The loaded runs."""
    return JsonAnswer({"object": "list", "data": [_as_model(run) for run in loaded(engine)]})


@router.get("/models/{name:path}", response_model=None)
async def model(name: str, engine: EngineHere) -> Response:
    """A loaded run."""
    return JsonAnswer(_as_model(chosen(engine, name)))


@router.post("/embeddings", response_model=None)
async def embeddings(form: EmbeddingForm, engine: EngineHere) -> Response:
    """Texts as vectors of length 1, whose products tell how alike the texts are."""
    run = chosen(engine, form.model, "embed")
    texts = [form.input] if isinstance(form.input, str) else form.input
    encoder: EncoderRun = run.predictor
    width = encoder.model.config.d_model
    if form.dimensions not in (None, width):
        raise WrongOption(
            "dimensions", f"dimensions: {form.dimensions} is not what {run.name} has, which is {width}; leave it out"
        )
    check_texts(len(texts), sum(map(len, texts)), engine.settings)
    rows = await asyncio.to_thread(encoder.rows, texts)
    if cut := [number for number, row in enumerate(rows, 1) if row.is_cut]:
        raise InputError(
            f"input {cut[0]} is longer than the {encoder.max_len} tokens that {run.name} reads; shorten it"
        )
    tokens = sum(len(row.ids) for row in rows)
    found = await engine.batched(run, "embed", texts, lambda items: list(encoder.embed(items)), cost=tokens)
    data = [
        {"object": "embedding", "index": i, "embedding": _written(vector, form.encoding_format == "base64")}
        for i, vector in enumerate(found)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JsonAnswer({"object": "list", "data": data, "model": run.name, "usage": usage})


def _written(vector: np.ndarray, as_base64: bool) -> list[float] | str:
    if as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return [float(x) for x in vector]


Named = Annotated[str, Form(max_length=200)]


@router.post("/audio/transcriptions", response_model=None)
async def transcriptions(
    request: Request,
    engine: EngineHere,
    file: Annotated[UploadFile, File(description="A recording: WAV, FLAC, Ogg, Opus, MP3, AIFF, AU, CAF.")],
    model: Named,
    language: Annotated[str, Form(max_length=20, description="A code; what the run hears where not given.")] = "",
    response_format: Annotated[Literal["json", "text", "srt", "verbose_json", "vtt"], Form()] = "json",
    temperature: Annotated[float, Form(ge=0, le=1, description="0, and nothing else, is what is done.")] = 0.0,
    prompt: Annotated[str, Form(max_length=1000, description="Not supported.")] = "",
) -> Response:
    """What is said in a recording."""
    run = chosen(engine, model, "transcribe")
    await _refuse_unknown(request, response_format)
    if temperature:
        raise WrongOption("temperature", "temperature is not supported by transcriptions, which search; leave it out")
    if prompt:
        raise WrongOption("prompt", "prompt is not supported by transcriptions; leave it out")
    samples = await read_sound(file, engine.settings)
    transcriber = run.predictor
    found: Transcription = await engine.piecewise(
        run,
        lambda: transcriber.by_steps(samples, language=language.lower() or None),
        cost=int(len(samples) / 16_000 * TOKENS_A_SECOND),
    )
    if response_format == "json":
        seconds = {"type": "duration", "seconds": math.ceil(found.seconds)}
        return JsonAnswer({"text": as_text(found), "usage": seconds})
    if response_format == "verbose_json":
        return JsonAnswer(_verbose(found, transcriber.tokenizer.encode))
    text = {"text": lambda: as_text(found) + "\n", "srt": lambda: as_srt(found), "vtt": lambda: as_vtt(found)}
    return PlainTextResponse(text[response_format]())


KNOWN = {"file", "model", "language", "response_format", "temperature", "prompt", "api_key"}


async def _refuse_unknown(request: Request, response_format: str) -> None:
    """Refuse by its name what the protocol has and nothing here does."""
    for name, value in (await request.form()).multi_items():
        name = name.removesuffix("[]")
        is_done = (
            name in KNOWN
            or (name == "timestamp_granularities" and value == "segment" and response_format == "verbose_json")
            or (name == "stream" and str(value).lower() in ("false", "0"))
        )
        if not is_done:
            raise WrongOption(plain(name), f"{plain(name)} is not supported by transcriptions; leave it out")


def _verbose(found: Transcription, encode: Any) -> dict[str, Any]:
    segments = [
        {
            "id": number,
            "seek": 0,
            "start": round(each.start, 3),
            "end": round(each.end, 3),
            "text": each.text,
            "tokens": encode(each.text)[:-1],
            "temperature": each.temperature,
            "avg_logprob": round(each.log_prob, 5) if math.isfinite(each.log_prob) else -1e9,
            "compression_ratio": round(len(each.text.encode()) / max(1, len(zlib.compress(each.text.encode()))), 3),
            "no_speech_prob": round(each.no_speech, 5),
            "flags": list(each.flags),
        }
        for number, each in enumerate(found.segments)
    ]
    return {
        "task": "transcribe",
        "language": found.language,
        "duration": round(found.seconds, 3),
        "text": as_text(found),
        "segments": segments,
        "usage": {"type": "duration", "seconds": math.ceil(found.seconds)},
    }
