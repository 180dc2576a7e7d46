"""The likeliest token, always."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from zhuyi.decoding.requests import Hypothesis, Request
from zhuyi.decoding.rows import Rows
from zhuyi.decoding.scores import Scores
from zhuyi.decoding.search import Choice


@dataclass
class _Records:
    log_probs: Tensor  # (B,)

    def select(self, positions: Sequence[int]) -> Self:
        return type(self)(self.log_probs[list(positions)])

    def join(self, other: Self) -> Self:
        return type(self)(torch.cat([self.log_probs, other.log_probs]))


@dataclass(frozen=True)
class Greedy:
    """Write the likeliest token.

    Args: scores: False spares the sum over the vocabulary, where all logits are there; hypotheses then have the
        log-probability NaN.
    """

    scores: bool = True
    width: int = 1
    streams: bool = True
    looks_at: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.width != 1:
            raise ValueError(f"greedy search has one row a request, not {self.width}")

    def start(self, requests: Sequence[Request], device: torch.device) -> _Records:
        """Make the records of new requests."""
        return _Records(torch.full((len(requests),), 0.0 if self.scores else torch.nan, device=device))

    def choose(self, scores: Scores, rows: Rows, records: _Records, eos_id: int) -> Choice:
        """Decide one step."""
        values, ids = scores.top(1)
        tokens = ids[:, 0]
        if scores.normalizer is not None:
            records.log_probs = records.log_probs + (values[:, 0] - scores.normalizer)
        token_list = tokens.tolist()
        choice = Choice(tokens, records.log_probs, token_list=token_list)
        if eos_id in token_list:
            log_probs = records.log_probs.tolist()
            choice.stopped = [row for row, token in enumerate(token_list) if token == eos_id]
            choice.ended = [(row, log_probs[row]) for row in choice.stopped]
        return choice

    def score(self, log_prob: float, length: int) -> float:
        """Return the log-probability: there is nothing to rank against."""
        return log_prob

    def conclude(self, found: list[tuple[int, Hypothesis]]) -> tuple[Hypothesis, ...]:
        """Return the one hypothesis."""
        return tuple(hypothesis for _, hypothesis in found)
