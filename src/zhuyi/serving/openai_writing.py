"""Completions and chat in OpenAI's protocol."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from zhuyi.decoding.config import GenerationConfig
from zhuyi.errors import InputError
from zhuyi.predict import Conversation, Generator, Translation
from zhuyi.serving.answers import ERRORS, JsonAnswer
from zhuyi.serving.choosing import chosen
from zhuyi.serving.engine import Engine
from zhuyi.serving.event_streams import begun
from zhuyi.serving.health import EngineHere
from zhuyi.serving.jobs import TranslateOptions
from zhuyi.serving.limits import check_generation, check_width
from zhuyi.serving.openai_forms import ChatForm, CompletionForm, Writing
from zhuyi.serving.refusals import WrongOption
from zhuyi.serving.runs import ServedRun
from zhuyi.tasks.continuation import Chunk

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERRORS)


@dataclass
class Wanted:
    """What is to be written, and how the protocol tells it.

    Args:   prompts: as ids.
            before: what stands before each choice's text.
            is_chat: a chat's answers have another form than a completion's.
    """

    form: Writing
    run: ServedRun
    prompts: list[list[int]]
    decode: GenerationConfig
    seed: int
    before: list[str]
    is_chat: bool
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def samples(self) -> int:
        return self.form.n or 1

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        options = self.form.stream_options
        return options is not None and bool(options.include_usage)

    def usage(self, written: int) -> dict[str, int]:
        prompt = sum(map(len, self.prompts))
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def answer(self, texts: Sequence[str], reasons: Sequence[str], tokens: int) -> dict[str, Any]:
        """The protocol's object of whole answers."""
        choices = [self._choice(i, text, reason) for i, (text, reason) in enumerate(zip(texts, reasons, strict=True))]
        return self._around(choices, "chat.completion") | {"usage": self.usage(tokens)}

    def event(self, *choices: dict[str, Any]) -> dict[str, Any]:
        """The protocol's object of a stream."""
        return self._around(list(choices), "chat.completion.chunk") | ({"usage": None} if self.with_usage else {})

    def last_event(self, tokens: int) -> dict[str, Any]:
        """The one that tells the usage."""
        return self.event() | {"usage": self.usage(tokens)}

    def _around(self, choices: list[dict[str, Any]], of_chat: str) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.id}",
            "object": of_chat if self.is_chat else "text_completion",
            "created": self.created,
            "model": self.run.name,
            "choices": choices,
        }

    def _choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        rest = {"index": index, "logprobs": None, "finish_reason": reason}
        if self.is_chat:
            return rest | {"message": {"role": "assistant", "content": text, "refusal": None}}
        return rest | {"text": text}

    def piece(self, index: int, text: str, reason: str | None, *, is_first: bool) -> dict[str, Any]:
        """A little of one answer."""
        rest = {"index": index, "logprobs": None, "finish_reason": reason}
        if not self.is_chat:
            return rest | {"text": text}
        delta: dict[str, Any] = {"role": "assistant"} if is_first else {}
        return rest | {"delta": delta | ({"content": text} if text or is_first else {})}


@router.post("/completions", response_model=None)
async def completions(form: CompletionForm, engine: EngineHere) -> Response:
    """Continue a text, or several, by a language model's run; with `stream` as it is written."""
    if form.model in engine.runs and "translate" in (asked := engine.run(form.model)).abilities:
        raise InputError(
            f"{asked.name} is a run of {asked.task}, which cannot generate; ask /v1/chat/completions or /v1/translate"
        )
    run = chosen(engine, form.model, "generate")
    decode = _decode(run, form, form.max_tokens)
    given = form.prompt
    prompts: list[Any] = [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)
    check_generation(prompts, decode, form.n or 1, engine.settings)  # before they are turned into ids
    ids, texts = await asyncio.to_thread(_read, run.predictor, prompts)
    before = [text for text in texts for _ in range(form.n or 1)] if form.echo else [""] * len(prompts) * (form.n or 1)
    return await _written(engine, Wanted(form, run, ids, decode, _seed(form), before, is_chat=False), "/v1/completions")


@router.post("/chat/completions", response_model=None)
async def chat(form: ChatForm, engine: EngineHere) -> Response:
    """Answer a conversation: by a run that was trained on dialogues; or a user's last message by its translation."""
    run = chosen(engine, form.model, "generate", "translate")
    try:
        turns = form.turns
    except ValueError as error:
        raise WrongOption("messages", str(error)) from None
    texts = [message.text for message in form.messages]
    if run.task != "language-modelling":
        return await _translated(engine, run, form, texts[-1])
    decode = _decode(run, form, form.limit)
    check_generation(["".join(texts)], decode, form.n or 1, engine.settings)
    conversation = Conversation(run.predictor, decode)
    conversation.turns = turns
    prompt = await asyncio.to_thread(conversation.context, texts[-1])
    seed = _seed(form) + len(turns)  # as `zhuyi chat` has come to there
    wanted = Wanted(form, run, [prompt], decode, seed, [""] * (form.n or 1), is_chat=True)
    return await _written(engine, wanted, "/v1/chat/completions")


def _decode(run: ServedRun, form: Writing, limit: int | None) -> GenerationConfig:
    decode: GenerationConfig = run.predictor.decode_config(max_new_tokens=limit, **form.options())
    return decode


def _seed(form: Writing) -> int:
    return secrets.randbits(31) if form.seed is None else form.seed


def _read(generator: Generator, prompts: Sequence[str | list[int]]) -> tuple[list[list[int]], list[str]]:
    """Each prompt's ids, and its text."""
    tokenizer = generator.tokenizer
    for prompt in prompts:
        if not isinstance(prompt, str) and max(prompt) >= tokenizer.vocab_size:
            raise WrongOption(
                "prompt", f"prompt: {max(prompt)} is no id of this run, which has {tokenizer.vocab_size:,}"
            )
    ids = [generator.begin(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    return ids, [prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in prompts]


async def _written(engine: Engine, wanted: Wanted, path: str) -> Response:
    chunks = engine.generate(wanted.run, wanted.prompts, wanted.decode, samples=wanted.samples, seed=wanted.seed)
    if wanted.form.stream:
        return await begun(_pieces(wanted, chunks), path)
    texts, reasons, tokens = list(wanted.before), [""] * len(wanted.before), 0
    async for chunk in chunks:
        index = chunk.prompt * wanted.samples + chunk.sample
        texts[index] += chunk.text
        if chunk.written is not None:
            reasons[index], tokens = _reason(chunk), tokens + len(chunk.written.tokens)
    return JsonAnswer(wanted.answer(texts, reasons, tokens))


async def _pieces(wanted: Wanted, chunks: Any) -> AsyncGenerator[dict[str, Any], None]:
    """The stream's objects."""
    fresh, tokens = set(range(len(wanted.before))), 0
    try:
        async for chunk in chunks:
            index = chunk.prompt * wanted.samples + chunk.sample
            is_first = index in fresh
            fresh.discard(index)
            reason = None if chunk.written is None else _reason(chunk)
            tokens += 0 if chunk.written is None else len(chunk.written.tokens)
            text = (wanted.before[index] if is_first else "") + chunk.text
            yield wanted.event(wanted.piece(index, text, reason, is_first=is_first))
        if wanted.with_usage:
            yield wanted.last_event(tokens)
    finally:
        await chunks.aclose()


def _reason(chunk: Chunk) -> str:
    assert chunk.written is not None
    return "length" if "length" in chunk.written.flags else "stop"


async def _translated(engine: Engine, run: ServedRun, form: ChatForm, text: str) -> Response:
    """A chat's answer that is a translation: the other messages do not change it, and nothing is drawn."""
    for name in (*form.options(), "max_tokens", "max_completion_tokens"):
        value = getattr(form, name)
        if value is not None and not (name in ("temperature", "top_k", "min_p") and value == 0):
            raise WrongOption(
                name, f"{name}: is not supported by {run.name}, a run of {run.task}, which searches; leave it out"
            )
    samples = form.n or 1
    check_width("n", samples, engine.settings)
    (found,) = await engine.translate(run, [text], TranslateOptions(n_best=samples))
    ids = await asyncio.to_thread(run.predictor.source_tokenizer.encode, text)
    wanted = Wanted(form, run, [ids], GenerationConfig(), 0, [""] * samples, is_chat=True)
    texts = [found.text, *(each for each, _ in found.alternatives)]
    return await _told(wanted, texts, _tokens(run.predictor.target_tokenizer.encode, found, texts))


def _tokens(encode: Callable[[str], list[int]], found: Translation, texts: Sequence[str]) -> int:
    return len(found.tokens) + sum(len(encode(text)) - 1 for text in texts[1:])


async def _told(wanted: Wanted, texts: Sequence[str], tokens: int) -> Response:
    """Answers that are there already, whole or as a stream."""
    if not wanted.form.stream:
        return JsonAnswer(wanted.answer(texts, ["stop"] * len(texts), tokens))

    async def pieces() -> AsyncGenerator[dict[str, Any], None]:
        for i, text in enumerate(texts):
            yield wanted.event(wanted.piece(i, text, None, is_first=True))
            yield wanted.event(wanted.piece(i, "", "stop", is_first=False))
        if wanted.with_usage:
            yield wanted.last_event(tokens)

    return await begun(pieces(), "/v1/chat/completions")
