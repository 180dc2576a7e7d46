"""The likeliest sequence, looked for among the `size` best beginnings."""

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from zhuyi.decoding.requests import Hypothesis, Request
from zhuyi.decoding.rows import Rows
from zhuyi.decoding.scores import Scores
from zhuyi.decoding.search import Choice


@dataclass
class BeamRecords:
    """What a beam remembers, by request."""

    log_probs: Tensor  # (B, size): of the open hypotheses, best first; -inf: none here
    ended: list[list[float]]  # each request's scores of ended hypotheses, best last, as many as can still matter
    shrink: list[float]  # log_prob * shrink is the best score that an open hypothesis can reach

    def select(self, positions: Sequence[int]) -> Self:
        return type(self)(
            self.log_probs[list(positions)],
            [self.ended[position] for position in positions],
            [self.shrink[position] for position in positions],
        )

    def join(self, other: Self) -> Self:
        log_probs = torch.cat([self.log_probs, other.log_probs])
        return type(self)(log_probs, self.ended + other.ended, self.shrink + other.shrink)


@dataclass(frozen=True)
class Beam:
    """Keep the `size` likeliest beginnings of each request.

    Of a step's `2 * size` best continuations, those that end are finished where they stand among the first
    `size`, and the best of the others stay open. Hypotheses cut at `max_new_tokens` compete with finished
    ones by their score, as in Hugging Face transformers; the flag "length" tells them.

    Args:
        size: rows a request.
        length_rule: what a log-probability is divided by; `length` counts the end sign where there is one, as
            transformers does. "gnmt": ((5 + length) / 6) ** alpha (Wu et al. 2016, eq. 14, without coverage);
            "power": length ** alpha; "none": 1.
        alpha: at least 0.
        stop: "exact" goes on until no open hypothesis can beat the `n_best`-th finished one at any length up
            to `max_new_tokens` (transformers' `early_stopping="never"`): the best is never lost, provided
            that no filter raises logits. "first" stops when `size` are finished (`early_stopping=True`).
        n_best: hypotheses to report.
    Raises: ValueError: a value out of its range.
    """

    size: int
    length_rule: Literal["gnmt", "power", "none"] = "gnmt"
    alpha: float = 0.6
    stop: Literal["exact", "first"] = "exact"
    n_best: int = 1

    streams: ClassVar[bool] = False
    scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"beam size is {self.size}; it must be at least 1")
        if not 1 <= self.n_best <= self.size:
            raise ValueError(f"n_best is {self.n_best}; it must be from 1 to the beam size, {self.size}")
        if self.length_rule not in ("gnmt", "power", "none"):
            raise ValueError(f"length_rule is {self.length_rule!r}; it must be 'gnmt', 'power' or 'none'")
        if self.stop not in ("exact", "first"):
            raise ValueError(f"stop is {self.stop!r}; it must be 'exact' or 'first'")
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha is {self.alpha}; it must be at least 0")

    @property
    def width(self) -> int:
        """Rows a request."""
        return self.size

    def start(self, requests: Sequence[Request], device: torch.device) -> BeamRecords:
        """Make the records of new requests: one open hypothesis each."""
        log_probs = torch.full((len(requests), self.size), -torch.inf, device=device)
        log_probs[:, 0] = 0.0
        # Log-probabilities only fall and divisors only grow: no open hypothesis can score better than with
        # its present log-probability at the greatest length.
        shrink = [1.0 / self._divisor(request.max_new_tokens) for request in requests]
        return BeamRecords(log_probs, [[] for _ in requests], shrink)

    @property
    def looks_at(self) -> int:
        """Of one row's continuations at most `size` can stay open and one can end."""
        return self.size + 1

    def choose(self, scores: Scores, rows: Rows, records: BeamRecords, eos_id: int) -> Choice:
        """Decide one step."""
        log_probs, ids, parents = self._candidates(scores, records)
        ends = ids == eos_id  # (B, 2 * size)
        ended: list[tuple[int, float]] = []
        if bool(ends.any()):
            ended = self._end(log_probs, parents, ends, rows, records)
            # The open ones first, each group still in order.
            order = ends.to(torch.uint8).sort(dim=1, stable=True).indices[:, : self.size]
            log_probs = log_probs.masked_fill(ends, -torch.inf).gather(1, order)
            ids, parents = ids.gather(1, order), parents.gather(1, order)
        records.log_probs = log_probs[:, : self.size].contiguous()
        return Choice(
            tokens=ids[:, : self.size].flatten(),
            log_probs=records.log_probs.flatten(),
            parents=moved(parents[:, : self.size].flatten()),
            ended=ended,
            stopped=self.stopped(records),
        )

    def score(self, log_prob: float, length: int) -> float:
        """Return the log-probability over the length rule's divisor."""
        return log_prob / self._divisor(length)

    def conclude(self, found: list[tuple[int, Hypothesis]]) -> tuple[Hypothesis, ...]:
        """Return the `n_best` of different tokens, best first."""
        best: dict[tuple[tuple[int, ...], bool], Hypothesis] = {}
        for _, hypothesis in sorted(found, key=lambda entry: -entry[1].score):
            best.setdefault((hypothesis.tokens, hypothesis.finished), hypothesis)
        return tuple(best.values())[: self.n_best]

    def _divisor(self, length: int) -> float:
        if self.length_rule == "gnmt":
            return ((5.0 + length) / 6.0) ** self.alpha
        if self.length_rule == "power":
            return float(max(1, length)) ** self.alpha
        return 1.0

    def _candidates(self, scores: Scores, records: BeamRecords) -> tuple[Tensor, Tensor, Tensor]:
        """Find the best continuations of each request. Shape: returns (B, 2 * size) thrice, best first."""
        assert scores.normalizer is not None
        size = self.size
        values, ids = scores.top(self.looks_at)  # (R, per_row)
        rows, per_row = values.shape
        values = values + (records.log_probs.flatten() - scores.normalizer)[:, None]
        log_probs, places = values.view(-1, size * per_row).topk(min(2 * size, size * per_row), 1)
        first_rows = torch.arange(0, rows, size, device=values.device)[:, None]
        parents = places.div(per_row, rounding_mode="floor") + first_rows
        return log_probs, ids.view(-1, size * per_row).gather(1, places), parents

    def _end(
        self, log_probs: Tensor, parents: Tensor, ends: Tensor, rows: Rows, records: BeamRecords
    ) -> list[tuple[int, float]]:
        """Pick the hypotheses that end here and matter."""
        size = self.size
        positions, places = ends[:, :size].nonzero(as_tuple=True)
        lengths = rows.member_lengths
        chosen = zip(
            positions.tolist(),
            parents[positions, places].tolist(),
            log_probs[positions, places].tolist(),
            strict=True,
        )
        return [
            (parent, log_prob)
            for position, parent, log_prob in chosen
            if self.ends(records, position, log_prob, lengths[position] + 1)
        ]

    def ends(self, records: BeamRecords, position: int, log_prob: float, length: int) -> bool:
        """Note that a hypothesis ends, and say whether it can still matter."""
        scores, kept = records.ended[position], self.n_best if self.stop == "exact" else self.size
        score = self.score(log_prob, length)
        if log_prob == -torch.inf or (len(scores) >= kept and score <= scores[0]):
            return False
        insort(scores, score)
        del scores[:-kept]
        return True

    def stopped(self, records: BeamRecords) -> list[int]:
        """Positions of the requests that need no further step."""
        best = records.log_probs[:, 0].tolist()
        enough = self.n_best if self.stop == "exact" else self.size
        return [
            position
            for position, (scores, log_prob) in enumerate(zip(records.ended, best, strict=True))
            if log_prob == -torch.inf
            or (len(scores) >= enough and (self.stop == "first" or log_prob * records.shrink[position] <= scores[0]))
        ]


def moved(parents: Tensor) -> Tensor | None:
    """Return None where every row continues itself."""
    return None if torch.equal(parents, torch.arange(len(parents), device=parents.device)) else parents
