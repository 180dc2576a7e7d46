"""A small recurrent decoder that keeps to the decoder contract and notices when the search does not."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from zhuyi.decoding import Event, Hypothesis, Request, Search

EOS_ID = 2


class SpentError(AssertionError):
    """A state was used after it had been given away."""


class ToyState:
    def __init__(self, memory: Tensor, hidden: Tensor, groups: Tensor) -> None:
        self.memory, self.hidden, self.groups = memory, hidden, groups
        self.spent = False

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.spent:
            raise SpentError
        self.spent = True
        return self.memory, self.hidden, self.groups

    def select(self, rows: Tensor) -> "ToyState":
        memory, hidden, groups = self.take()
        return ToyState(memory[rows], hidden[rows], groups[rows])

    def join(self, other: "ToyState") -> "ToyState":
        mine, others = self.take(), other.take()
        return ToyState(*(torch.cat(pair) for pair in zip(mine, others, strict=True)))


class ToyDecoder:
    """Float64 inside, so that the batch's shape changes next to nothing."""

    def __init__(self, vocab_size: int, seed: int = 0, *, end_bias: float = 0.0, sharpness: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        size = 7
        self.vocab_size = vocab_size
        self.recurrent, self.embedding = draw(size, size), draw(vocab_size, size)
        self.output = draw(size, vocab_size) * sharpness / math.sqrt(size)
        self.bias = torch.zeros(vocab_size, dtype=torch.float64)
        self.bias[EOS_ID] = end_bias
        self.rows_seen: list[int] = []
        self.begun: list[int] = []
        self.known: dict[tuple[int, tuple[int, ...]], list[float]] = {}

    def begin(self, requests: Sequence[Request]) -> tuple[ToyState, Tensor]:
        self.begun.append(len(requests))
        memory = torch.stack(
            [
                torch.randn(7, generator=torch.Generator().manual_seed(request.inputs), dtype=torch.float64)
                for request in requests
            ]
        )
        groups = torch.tensor([request.id for request in requests])
        return ToyState(memory, torch.zeros_like(memory), groups), torch.ones(len(requests), dtype=torch.int64)

    def step(self, tokens: Tensor, state: ToyState) -> tuple[Tensor, ToyState]:
        memory, hidden, groups = state.take()
        assert tokens.shape == (len(memory),)
        assert tokens.dtype == torch.int64
        self.rows_seen.append(len(tokens))
        hidden = torch.tanh(hidden @ self.recurrent + self.embedding[tokens] + memory)
        logits = hidden @ self.output + self.bias
        return logits.float(), ToyState(memory, hidden, groups)

    def log_probs(self, request: Request, tokens: Sequence[int]) -> Tensor:
        """Teacher forcing: the distribution after each prefix of `tokens`, (len(tokens) + 1, V)."""
        state, last = self.begin([request])
        rows = []
        for token in [*tokens, None]:
            logits, state = self.step(last, state)
            rows.append(logits[0].double().log_softmax(-1))
            last = torch.tensor([0 if token is None else token])
        return torch.stack(rows)

    def next_log_probs(self, request: Request, prefix: tuple[int, ...]) -> list[float]:
        """Teacher forcing: the distribution after a prefix, remembered."""
        key = (request.inputs, prefix)
        if key not in self.known:
            self.known[key] = self.log_probs(request, prefix)[-1].tolist()
        return self.known[key]

    def score(self, request: Request, hypothesis: Hypothesis) -> float:
        """Teacher forcing: the log-probability of a hypothesis."""
        tokens = [*hypothesis.tokens, EOS_ID] if hypothesis.finished else [*hypothesis.tokens]
        table = self.log_probs(request, tokens)
        return sum(float(table[i, token]) for i, token in enumerate(tokens))


def drain(search: Search) -> list[Event]:
    """Advance until nothing is in flight."""
    events = []
    while search.active:
        events += search.advance()
    return events


def results(events: Sequence[Event]) -> dict[int, tuple[Hypothesis, ...]]:
    """Collect what was finished, and check that nothing was finished twice."""
    ended = [event for event in events if event.hypotheses is not None]
    assert len({event.id for event in ended}) == len(ended)
    return {event.id: event.hypotheses for event in ended if event.hypotheses is not None}


class Toys:
    """What the tests of this folder share."""

    eos_id = EOS_ID
    Decoder = ToyDecoder
    drain: Callable[[Search], list[Event]] = staticmethod(drain)
    results: Callable[[Sequence[Event]], dict[int, tuple[Hypothesis, ...]]] = staticmethod(results)

    @staticmethod
    def search(decoder: ToyDecoder, rule, **options) -> Search:
        return Search(decoder.begin, decoder.step, rule, eos_id=EOS_ID, **options)

    @staticmethod
    def alone(decoder: ToyDecoder, rule, request: Request, **options) -> tuple[Hypothesis, ...]:
        search = Toys.search(decoder, rule, **options)
        search.admit([request])
        return results(drain(search))[request.id]


@pytest.fixture(scope="session")
def toys() -> type[Toys]:
    return Toys
