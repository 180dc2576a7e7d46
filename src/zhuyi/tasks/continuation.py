"""A text continued token by token: windows that slide, streams of whole characters, stop strings."""

import zlib
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zhuyi.data.batches import pad
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import Event, Filter, Greedy, NoRepeatNgram, RepetitionPenalty, Request, Sampling, Search, Suppress
from zhuyi.decoding.config import GenerationConfig

INCOMPLETE = "\ufffd"  # what the bytes of half a character are decoded to
# A stream is decoded together with so many tokens before it: what a piece says may depend on the last ones.
CONTEXT_TOKENS = 8


@dataclass(frozen=True)
class Prompt:
    """What a text begins with, as ids; there is one at least.

    Args:   samples: how many continuations of it.
    """

    ids: list[int]
    samples: int = 1


@dataclass(frozen=True)
class Written:
    """One continuation.

    Args:   text: without the prompt, and without the stop string that ended it.
            tokens: the pieces, those of a stop string included.
            log_prob: the model's, of all tokens, end sign included; None where a stop string ended the text.
            flags: `length` (it reached `max_new_tokens`), `stop` (a stop string), `window` (its beginning was forgotten
            on the way).
    """

    text: str
    tokens: tuple[str, ...]
    log_prob: float | None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """A little more of one continuation, or with `written` its end.

    Args:   prompt, sample: whose, by their numbers from 0.
            text: what is new and certain to stay: whole characters, and no beginning of a stop string.
    """

    prompt: int
    sample: int
    text: str
    written: Written | None = None


@dataclass(frozen=True)
class Piece:
    """What a step adds to a text: its key, what is new, and `written` once it has come to its end."""

    key: Any
    text: str
    written: Written | None = None


class Decoder(Protocol):
    """The contract of a decoder that has no memory."""

    @property
    def max_len(self) -> int: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def start(self, memory: None, prefix: Tensor, prefix_mask: Tensor | None = None) -> Any: ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]: ...


class TextStream:
    """Text out of tokens that come one by one: whole characters alone, and nothing of a stop string."""

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = (), stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._ids = list(before[-CONTEXT_TOKENS:])
        self._shown = len(tokenizer.decode(self._ids).rstrip(INCOMPLETE))
        self._first, self._read = 0, len(self._ids)
        self._held = ""  # decoded, but perhaps the beginning of a stop string
        self.stopped = False

    def add(self, token: int) -> str:
        """What is certain after one token more."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids[self._first :])
        if text.endswith(INCOMPLETE) or len(text) <= self._shown:
            return ""
        new = text[self._shown :]
        # From here on what came before this piece is no longer needed to read on.
        self._first, self._read = self._read, len(self._ids)
        self._shown = len(self._tokenizer.decode(self._ids[self._first :]))
        return self._release(new)

    def end(self) -> str:
        """The rest; half a character at the end is left out."""
        text = self._tokenizer.decode(self._ids[self._first :]).rstrip(INCOMPLETE)
        rest = self._release(text[self._shown :]) + ("" if self.stopped else self._held)
        self._held = ""
        return rest

    def _release(self, new: str) -> str:
        if not self._stop or self.stopped:
            return "" if self.stopped else new
        text = self._held + new
        ends = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        held = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text begin a stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


@dataclass
class _Sample:
    """One continuation on its way.

    Args:   before: the prompt, all of it.
            window: what the model has before it, prompt and text so far, as far as it reaches.
            room: tokens that may still be written.
    """

    key: Hashable
    number: int
    before: Sequence[int]
    room: int
    seed: int
    stream: TextStream
    window: list[int] = field(init=False)
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    log_prob: float = 0.0
    windows: int = 0

    def __post_init__(self) -> None:
        self.window = list(self.before)

    def request(self, id_: int, max_len: int) -> Request:
        """The next request: up to the end of the model's positions at most.

        When those are full, the later half of the window is read again from position 0, and writing goes on from there.
        """
        if len(self.window) > max_len or self.windows:
            self.window = self.window[-max(1, max_len // 2) :]
        self.windows += 1
        count = min(self.room, max_len - len(self.window) + 1)
        window = tuple(self.window)
        seed = _seed(self.seed, self.number, self.windows, window)
        # What the model has forgotten, the rules against repetition have not.
        return Request(id_, window, count, seed=seed, context=(*self.before, *self.tokens))

    def written(self, tokenizer: Tokenizer, forgot: bool, *flags: str) -> Written:
        log_prob = None if self.stream.stopped else self.log_prob
        pieces = tuple(tokenizer.labels[token] for token in self.tokens)
        return Written(self.text, pieces, log_prob, (*flags, *(("window",) if forgot else ())))


class ContinuationSearch:
    """Texts on their way to being continued; they come and go between steps.

    A text draws by its own prompt, the sample's number and the seed, whatever is written beside it.

    Args:   config: `max_new_tokens` and `stop` are each text's own, and not looked at here.
    """

    def __init__(self, model: Decoder, tokenizer: Tokenizer, config: GenerationConfig) -> None:
        self._tokenizer, self._max_len, self._batch_rows = tokenizer, model.max_len, config.batch_rows
        self._search = open_search(model, tokenizer, config)
        self._waiting: deque[_Sample] = deque()
        self._in_flight: dict[int, _Sample] = {}
        self._next_id = 0

    @property
    def active(self) -> int:
        """Texts that have not come to their ends."""
        return len(self._in_flight) + len(self._waiting)

    @property
    def rows(self) -> int:
        """Rows in the batch."""
        return self._search.rows

    @property
    def room(self) -> int:
        """How many texts more would be begun with at the next step."""
        free = self._batch_rows - self._search.rows
        return max(0, free - len(self._waiting)) if self._is_worth_filling(free) else 0

    def admit(
        self,
        key: Hashable,
        ids: Sequence[int],
        *,
        sample: int = 0,
        seed: int = 1,
        max_new_tokens: int = 256,
        stop: Sequence[str] = (),
    ) -> None:
        """Take in a prompt's ids, of which there is one at least."""
        stream = TextStream(self._tokenizer, ids, stop)
        self._waiting.append(_Sample(key, sample, ids, max_new_tokens, seed, stream))

    def advance(self) -> list[Piece]:
        """Write one token of every text in the batch; what is new and certain to stay."""
        free = self._batch_rows - self._search.rows
        if self._waiting and self._is_worth_filling(free):
            self._begin([self._waiting.popleft() for _ in range(min(free, len(self._waiting)))])
        pieces: list[Piece] = []
        again: list[_Sample] = []  # their window is full
        for event in self._search.advance():
            sample = self._in_flight.get(event.id)
            if sample is None:  # it has met its stop string already
                continue
            pieces += _take(sample, event, self._tokenizer)
            if event.hypotheses is not None:
                del self._in_flight[event.id]
                if not event.hypotheses[0].finished and sample.room > 0:
                    again.append(sample)
            elif sample.stream.stopped:
                del self._in_flight[event.id]
                self._search.drop([event.id])
        self._waiting.extendleft(reversed(again))
        return pieces

    def drop(self, keys: Collection[Hashable]) -> None:
        """Forget texts; keys that are not on their way are ignored."""
        keys = set(keys)
        self._waiting = deque(sample for sample in self._waiting if sample.key not in keys)
        gone = [id_ for id_, sample in self._in_flight.items() if sample.key in keys]
        for id_ in gone:
            del self._in_flight[id_]
        self._search.drop(gone)

    def _is_worth_filling(self, free: int) -> bool:
        """Reading prompts one by one would cost more than idle rows do."""
        return free >= max(1, self._batch_rows // 4) or not self._search.active

    def _begin(self, samples: Sequence[_Sample]) -> None:
        begun = dict(enumerate(samples, self._next_id))
        self._next_id += len(samples)
        self._in_flight |= begun
        self._search.admit([sample.request(id_, self._max_len) for id_, sample in begun.items()])


@torch.inference_mode()
def continue_texts(
    model: Decoder, tokenizer: Tokenizer, prompts: Iterable[Prompt], config: GenerationConfig, *, seed: int = 1
) -> Iterator[Chunk]:
    """Continue any number of texts; each is reported piece by piece, then whole, as they come to their ends."""
    search = ContinuationSearch(model, tokenizer, config)
    fresh = ((number, i, prompt.ids) for number, prompt in enumerate(prompts) for i in range(prompt.samples))
    while True:
        for number, i, ids in islice(fresh, search.room):
            search.admit((number, i), ids, sample=i, seed=seed, max_new_tokens=config.max_new_tokens, stop=config.stop)
        if not search.active:
            return
        for piece in search.advance():
            number, i = piece.key
            if piece.text:
                yield Chunk(number, i, piece.text)
            if piece.written:
                yield Chunk(number, i, "", piece.written)


def _take(sample: _Sample, event: Event, tokenizer: Tokenizer) -> Iterator[Piece]:
    """Add an event to its text, and report what is new."""
    if event.hypotheses is None:
        assert event.token is not None
        sample.tokens.append(event.token)
        sample.window.append(event.token)
        sample.room -= 1
        new, end = sample.stream.add(event.token), sample.stream.stopped
        flags: tuple[str, ...] = ("stop",)
    else:
        (found,) = event.hypotheses
        sample.log_prob += found.log_prob
        end = found.finished or sample.room <= 0
        new = sample.stream.end() if end else ""
        flags = () if found.finished else ("stop",) if sample.stream.stopped else ("length",)
    sample.text += new
    if new or end:
        written = sample.written(tokenizer, sample.windows > 1, *flags) if end else None
        yield Piece(sample.key, new, written)


def open_search(model: Decoder, tokenizer: Tokenizer, config: GenerationConfig) -> Search:
    """The search that every continuation goes through; its requests' inputs are the ids so far."""
    device = next(model.parameters()).device
    signs = tokenizer.signs
    filters: list[Filter] = [Suppress(signs.all() - {signs.eos})]
    if config.repetition_penalty != 1.0:
        filters.append(RepetitionPenalty(config.repetition_penalty))
    if config.no_repeat_ngram:
        filters.append(NoRepeatNgram(config.no_repeat_ngram, signs.eos))
    rule = (
        Sampling(temperature=config.temperature, top_k=config.top_k, top_p=config.top_p, min_p=config.min_p)
        if config.temperature
        else Greedy()
    )
    return Search(
        lambda requests: begin(model, requests, device),
        model.step,
        rule,
        eos_id=signs.eos,
        filters=filters,
        may_list=True,
    )


def begin(model: Decoder, requests: Sequence[Request], device: torch.device) -> tuple[Any, Tensor]:
    """The state of requests whose inputs are the ids so far, and each one's last id."""
    ids, mask = (torch.from_numpy(x).to(device) for x in pad([np.array(request.inputs) for request in requests]))
    last = mask.sum(dim=1) - 1
    return model.start(None, ids, mask), ids.gather(1, last[:, None])[:, 0]


def _seed(*what: object) -> int:
    return zlib.crc32(repr(what).encode())
