"""Beam search for texts that must contain given terms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch

from zhuyi.decoding.beam_search import Beam, BeamRecords, moved
from zhuyi.decoding.requests import Hypothesis, Request
from zhuyi.decoding.rows import Rows
from zhuyi.decoding.scores import Scores
from zhuyi.decoding.search import Choice
from zhuyi.decoding.terms import DEAD, Terms


@dataclass
class _Records:
    beam: BeamRecords
    terms: list[Terms]
    states: list[list[int]]  # each row's

    def select(self, positions: Sequence[int]) -> Self:
        chosen = [self.terms[position] for position in positions], [self.states[position] for position in positions]
        return type(self)(self.beam.select(positions), *chosen)

    def join(self, other: Self) -> Self:
        return type(self)(self.beam.join(other.beam), self.terms + other.terms, self.states + other.states)


class _Candidate(NamedTuple):
    log_prob: float
    row: int
    token: int
    state: int = 0


@dataclass(frozen=True)
class TermBeam:
    """A beam whose every hypothesis has its request's `terms`; without any it is `beam` itself.

    Each row's likeliest continuations compete, and all that begin a term or go on with one. The rows are shared out
    among banks, the hypotheses that have written equally many tokens of terms: each bank with candidates gets one row
    after the other, its likeliest first. What could not write its terms in the steps that are left is dropped, and
    none ends before it has them.

    Args:   beam: gives the rows, the length rule, the stop rule and the number of hypotheses.
    Source: Post and Vilar 2018 ("Fast lexically constrained decoding with dynamic beam allocation"), sections 3.2 and
            3.3. Theirs counts banks without candidates in and moves the rows of those to others afterwards; ours
            follows terms by `Terms`, several readings at once, where theirs follows one.
    """

    beam: Beam

    streams: ClassVar[bool] = False
    scores: ClassVar[bool] = True
    looks_at: ClassVar[None] = None

    @property
    def width(self) -> int:
        """Rows a request."""
        return self.beam.size

    def start(self, requests: Sequence[Request], device: torch.device) -> _Records:
        """Make the records of new requests: one open hypothesis each."""
        terms = [request.terms or Terms(()) for request in requests]
        return _Records(self.beam.start(requests, device), terms, [[0] * self.width for _ in requests])

    def choose(self, scores: Scores, rows: Rows, records: _Records, eos_id: int) -> Choice:
        """Decide one step."""
        chosen: list[_Candidate] = []
        ended: list[tuple[int, float]] = []
        for position, found in enumerate(self._candidates(scores, records)):
            length, limit = rows.member_lengths[position], rows.members[position].max_new_tokens
            terms = records.terms[position]
            banks, ends = self._banks(found, terms, limit - length - 2, eos_id)
            ended += [
                (row, log_prob)
                for log_prob, row, _, _ in ends
                if self.beam.ends(records.beam, position, log_prob, length + 1)
            ]
            open_ones = _share_out(banks, self.width)
            unused = _Candidate(-torch.inf, position * self.width, eos_id)
            open_ones += [unused] * (self.width - len(open_ones))
            records.states[position] = [candidate.state for candidate in open_ones]
            chosen += open_ones
        device = scores.logits.device
        log_probs = torch.tensor([candidate.log_prob for candidate in chosen], device=device)
        records.beam.log_probs = log_probs.view(-1, self.width)
        return Choice(
            tokens=torch.tensor([candidate.token for candidate in chosen], device=device),
            log_probs=log_probs,
            parents=moved(torch.tensor([candidate.row for candidate in chosen], device=device)),
            ended=ended,
            stopped=self.beam.stopped(records.beam),
        )

    def score(self, log_prob: float, length: int) -> float:
        """Return the log-probability over the length rule's divisor."""
        return self.beam.score(log_prob, length)

    def conclude(self, found: list[tuple[int, Hypothesis]]) -> tuple[Hypothesis, ...]:
        """Return the `n_best` of different tokens, best first."""
        return self.beam.conclude(found)

    def _candidates(self, scores: Scores, records: _Records) -> list[list[_Candidate]]:
        """Each request's continuations with the states that they come from, best first."""
        assert scores.normalizer is not None
        width, logits = self.width, scores.logits
        before = records.beam.log_probs.flatten()
        offsets = before - scores.normalizer  # (R,)
        values, ids = scores.top(width + 1)
        log_probs, tokens, open_rows = (values + offsets[:, None]).tolist(), ids.tolist(), before.tolist()
        states = [state for each in records.states for state in each]
        wanted = [
            (row, token)
            for row, state in enumerate(states)
            if open_rows[row] != -torch.inf
            for token in set(records.terms[row // width].wanted(state)).difference(tokens[row])
        ]
        found: list[list[_Candidate]] = [[] for _ in records.terms]
        for row, (of_row, row_tokens) in enumerate(zip(log_probs, tokens, strict=True)):
            pairs = zip(of_row, row_tokens, strict=True)
            found[row // width] += [_Candidate(p, row, token, states[row]) for p, token in pairs]
        if wanted:
            where = torch.tensor(wanted, device=logits.device)
            more = (logits[where[:, 0], where[:, 1]] + offsets[where[:, 0]]).tolist()
            for (row, token), log_prob in zip(wanted, more, strict=True):
                found[row // width].append(_Candidate(log_prob, row, token, states[row]))
        return [sorted(each, key=lambda c: (-c.log_prob, c.row, c.token)) for each in found]

    def _banks(
        self, found: list[_Candidate], terms: Terms, room: int, eos_id: int
    ) -> tuple[dict[int, list[_Candidate]], list[_Candidate]]:
        """Open continuations by how many tokens they lack, each group best first; and those that end.

        Args:   room: steps that remain after this one, the end sign's left out.
        """
        banks: dict[int, list[_Candidate]] = {}
        ends: list[_Candidate] = []
        complete = 0  # candidates that have their terms, those that end too
        for candidate in found:
            log_prob, row, token, state = candidate
            if log_prob == -torch.inf:
                break
            if token == eos_id:
                if terms.needed(state) == 0:
                    complete += 1
                    ends += [candidate] if complete <= self.width else []
                continue
            following = terms.step(state, token)
            if following == DEAD:
                continue
            needed = terms.needed(following)
            complete += needed == 0
            if needed == 0 or needed <= room:
                banks.setdefault(needed, []).append(_Candidate(log_prob, row, token, following))
        return banks, ends


def _share_out(banks: dict[int, list[_Candidate]], count: int) -> list[_Candidate]:
    """The best of each bank in turn, those that lack least first; all together best first."""
    chosen: list[_Candidate] = []
    rank = 0
    while len(chosen) < count and any(rank < len(bank) for bank in banks.values()):
        chosen += [banks[needed][rank] for needed in sorted(banks) if rank < len(banks[needed])]
        rank += 1
    return sorted(chosen[:count], key=lambda candidate: -candidate.log_prob)
