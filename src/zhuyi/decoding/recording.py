"""What a search held after each step, for those who want to see it decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from zhuyi.decoding.requests import Hypothesis, Request
from zhuyi.decoding.rows import Rows
from zhuyi.decoding.scores import Scores
from zhuyi.decoding.search import Choice, Rule


@dataclass(frozen=True, slots=True)
class Beginning:
    """A hypothesis as a step left it.

    Args:   parent: which one of the step before it continues; 0 at the first step.
            token: what it continues it by.
            state: `open`, `finished` by the end sign, or `cut` at the request's last step.
    """

    parent: int
    token: int
    log_prob: float
    score: float
    state: Literal["open", "finished", "cut"]


class Recorded:
    """A rule that decides as another one does, and keeps what was held after each step.

    Args:   steps: of each request by its id, in the order of the steps, the open ones before those that ended.
    """

    def __init__(self, rule: Rule) -> None:
        self.steps: dict[int, list[tuple[Beginning, ...]]] = {}
        self._rule = rule
        self._places: dict[int, dict[int, int]] = {}  # of each request, a row's place among the beginnings

    @property
    def width(self) -> int:
        """Rows a request."""
        return self._rule.width

    @property
    def streams(self) -> bool:
        """Whether a token once written stays written."""
        return self._rule.streams

    @property
    def scores(self) -> bool:
        """Whether `choose` needs the rows' normalizers."""
        return self._rule.scores

    @property
    def looks_at(self) -> int | None:
        """How many of each row's largest logits `choose` looks at."""
        return self._rule.looks_at

    def start(self, requests: Sequence[Request], device: torch.device) -> Any:
        """Make the records of new requests."""
        for request in requests:
            self.steps[request.id], self._places[request.id] = [], {0: 0}
        return self._rule.start(requests, device)

    def choose(self, scores: Scores, rows: Rows, records: Any, eos_id: int) -> Choice:
        """Decide one step."""
        choice = self._rule.choose(scores, rows, records, eos_id)
        for position in range(len(rows.members)):
            self._note(position, choice, rows, eos_id)
        return choice

    def score(self, log_prob: float, length: int) -> float:
        """Return what a hypothesis of `length` tokens, end sign included, is ranked by."""
        return self._rule.score(log_prob, length)

    def conclude(self, found: list[tuple[int, Hypothesis]]) -> tuple[Hypothesis, ...]:
        """Order a request's hypotheses."""
        return self._rule.conclude(found)

    def _note(self, position: int, choice: Choice, rows: Rows, eos_id: int) -> None:
        request, length = rows.members[position], rows.member_lengths[position] + 1
        first = position * self.width
        span = slice(first, first + self.width)
        parents = range(first, first + self.width) if choice.parents is None else choice.parents[span].tolist()
        before, after = self._places[request.id], dict[int, int]()
        is_last = length >= request.max_new_tokens
        step: list[Beginning] = []
        for row, (parent, token, log_prob) in enumerate(
            zip(parents, choice.tokens[span].tolist(), choice.log_probs[span].tolist(), strict=True)
        ):
            if log_prob == -torch.inf:
                continue
            after[row] = len(step)
            score = self._rule.score(log_prob, length)
            step.append(Beginning(before[parent - first], token, log_prob, score, "cut" if is_last else "open"))
        for row, log_prob in choice.ended:
            if first <= row < span.stop:
                score = self._rule.score(log_prob, length)
                step.append(Beginning(before[row - first], eos_id, log_prob, score, "finished"))
        self.steps[request.id].append(tuple(step))
        self._places[request.id] = after


def way_to_the_best(steps: Sequence[Sequence[Beginning]]) -> list[int]:
    """Of each step the number of the beginning that leads to the best hypothesis, as far as that one reaches."""
    ends = [
        (beginning.score, number, place)
        for number, step in enumerate(steps)
        for place, beginning in enumerate(step)
        if beginning.state != "open"
    ]
    if not ends:
        return []
    _, number, place = max(ends, key=lambda end: end[0])
    way = [place]
    for step in reversed(steps[1 : number + 1]):
        way.append(step[way[-1]].parent)
    return way[::-1]
