"""What may not be written: filters change a step's logits before the rule sees them.

A filter may set logits to -inf (never all of a row's) or lower them. Hypotheses are ranked by the logits that
the filters leave over the normalizer that the model gave: a filter that only forbids leaves every
log-probability the model's own.
"""

import sys
from collections.abc import Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from zhuyi.decoding.guards import MAX_PERIOD, MAX_REPEATS, repeats, trim_repetition
from zhuyi.decoding.requests import Request
from zhuyi.decoding.rows import Rows


class Filter(Protocol):
    """Changes logits in place."""

    def __call__(self, logits: Tensor, rows: Rows) -> None:
        """Change one step's logits. Shape: logits (R, V)."""
        ...


@runtime_checkable
class Finisher(Protocol):
    """A filter that also has a word in what is handed out."""

    def finish(self, tokens: list[int], request: Request) -> tuple[list[int], tuple[str, ...]]:
        """Return a hypothesis's tokens as they are to be handed out, and flags."""
        ...


class Foreseen(NamedTuple):
    """What a filter will do: for so many steps forbid these ids in every row, and nothing else."""

    steps: int
    barred: tuple[int, ...] = ()


FOR_EVER = sys.maxsize


@runtime_checkable
class Foreseeing(Protocol):
    """A filter that can say what it will do."""

    def foresee(self, rows: Rows) -> Foreseen | None:
        """From the coming step on; None where that cannot be said of every row at once."""
        ...


class Suppress:
    """Never write these ids."""

    def __init__(self, ids: Iterable[int]) -> None:
        chosen = set(ids)
        self._foreseen = Foreseen(FOR_EVER, tuple(sorted(chosen)))
        starts = sorted(token for token in chosen if token - 1 not in chosen)
        ends = sorted(token + 1 for token in chosen if token + 1 not in chosen)
        self._runs = [slice(*run) for run in zip(starts, ends, strict=True)]  # hundreds of signs are often neighbours

    def __call__(self, logits: Tensor, rows: Rows) -> None:
        """Forbid the ids."""
        for run in self._runs:
            logits[:, run] = -torch.inf

    def foresee(self, rows: Rows) -> Foreseen:
        """As `Foreseeing`."""
        return self._foreseen


class MinimumLength:
    """Forbid the end sign before each request's `min_new_tokens`."""

    def __init__(self, eos_id: int) -> None:
        self._eos_id = eos_id

    def __call__(self, logits: Tensor, rows: Rows) -> None:
        """Forbid the end sign in rows that are too short."""
        if rows.minimum is not None:
            logits[:, self._eos_id].masked_fill_(rows.lengths < rows.minimum, -torch.inf)

    def foresee(self, rows: Rows) -> Foreseen | None:
        """As `Foreseeing`."""
        if rows.minimum is None:
            return Foreseen(FOR_EVER)
        lacking = [r.min_new_tokens - length for r, length in zip(rows.members, rows.member_lengths, strict=True)]
        if max(lacking) <= 0:
            return Foreseen(FOR_EVER)
        return Foreseen(min(lacking), (self._eos_id,)) if min(lacking) > 0 else None


class RepetitionGuard:
    """End a row that repeats the same few tokens again and again, as far as its request's input does not.

    A row is looked at when its own length is a multiple of `every`, so as not to depend on its batch. Requests with a
    form are let be: how long they are and what they repeat is laid down. Of terms that must be written none is lost.

    Args:
        max_period: the longest group of tokens looked for.
        max_repeats: how often a group may stand in a row; groups of one or two tokens twice as often.
    """

    def __init__(
        self, eos_id: int, max_period: int = MAX_PERIOD, max_repeats: int = MAX_REPEATS, every: int = 4
    ) -> None:
        if max_period < 1 or max_repeats < 2 or every < 1:
            raise ValueError(
                "max_period and every must be at least 1 and max_repeats at least 2, "
                f"got {max_period}, {every} and {max_repeats}"
            )
        self._eos_id, self._max_period, self._max_repeats = eos_id, max_period, max_repeats
        self._every = every
        self._window = max_period * (max_repeats - 1) + 1
        columns = [
            self._window - 1 - period * times for period in range(1, max_period + 1) for times in range(1, max_repeats)
        ]
        self._columns = torch.tensor(columns)  # (max_period * (max_repeats - 1),)

    def __call__(self, logits: Tensor, rows: Rows) -> None:
        """Leave only the end sign to rows that loop."""
        lengths = rows.member_lengths
        if self._due(lengths) > 0:
            return
        for row in self._suspects(rows):
            if lengths[row // rows.width] % self._every == 0:
                end = logits[row, self._eos_id].clone()
                written, request = rows.written(row), rows.requests[row]
                may_end = end != -torch.inf and (request.terms is None or request.terms.accepts(written))
                if may_end and self.finish(written, request)[1]:
                    logits[row] = -torch.inf
                    logits[row, self._eos_id] = end

    def foresee(self, rows: Rows) -> Foreseen | None:
        """As `Foreseeing`."""
        lengths = rows.member_lengths
        steps = self._due(lengths)
        if steps == 0:
            if any(lengths[row // rows.width] % self._every == 0 for row in self._suspects(rows)):
                return None
            steps = 1 + self._due([length + 1 for length in lengths])
        return Foreseen(steps)

    def _due(self, lengths: list[int]) -> int:
        """In how many steps a row will be looked at; 0: now."""
        every, least = self._every, self._max_repeats
        return min(-(-max(least, length) // every) * every - length for length in set(lengths))

    def finish(self, tokens: list[int], request: Request) -> tuple[list[int], tuple[str, ...]]:
        """Cut a looped tail to one period."""
        if request.form is not None:
            return tokens, ()
        trimmed, looped = trim_repetition(tokens, self._max_period, self._max_repeats)
        if looped and request.repeating:  # seldom: so it is not counted before
            allowed = repeats(request.repeating)
            trimmed, looped = trim_repetition(tokens, self._max_period, self._max_repeats, allowed_repeats=allowed)
        if request.terms is not None and not request.terms.accepts(trimmed):
            return tokens, ()
        return trimmed, ("repetition",) if looped else ()

    def _suspects(self, rows: Rows) -> list[int]:
        """Find rows whose newest token stands at every period before: all that loop, and few others."""
        window = rows.tail(self._window)
        if self._columns.device != window.device:
            self._columns = self._columns.to(window.device)
        same = window.index_select(1, self._columns) == window[:, -1:]
        looks_looped = same.view(-1, self._max_period, self._max_repeats - 1).all(-1).any(-1)  # (R,)
        return looks_looped.nonzero()[:, 0].tolist()


class RepetitionPenalty:
    """Make less likely what stands in the text or the context already: divide positive logits, multiply others.

    Source: Keskar et al. 2019, section 4.1; the case of logits below zero is from later implementations.
    """

    def __init__(self, penalty: float) -> None:
        if not 0 < penalty < float("inf"):
            raise ValueError(f"the penalty is {penalty}; it must be above 0 (1: none)")
        self._penalty = penalty

    def __call__(self, logits: Tensor, rows: Rows) -> None:
        """Weaken what is there already."""
        for row, request in enumerate(rows.requests):
            there = logits.new_tensor(sorted({*request.context, *rows.written(row)}), dtype=torch.int64)
            values = logits[row, there]
            logits[row, there] = torch.where(values > 0, values / self._penalty, values * self._penalty)


class NoRepeatNgram:
    """Let no sequence of `size` tokens come twice, the context counted.

    Args:   eos_id: excepted, so that there always is a way on.
    Source: Paulus et al. 2018, section 2.5, for three tokens.
    """

    def __init__(self, size: int, eos_id: int | None = None) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; it must be at least 1")
        self._size, self._eos_id = size, eos_id

    def __call__(self, logits: Tensor, rows: Rows) -> None:
        """Forbid what would end a sequence that was there before."""
        for row, request in enumerate(rows.requests):
            tokens = torch.tensor([*request.context, *rows.written(row)], device=logits.device)
            if len(tokens) < self._size:
                continue
            sequences = tokens.unfold(0, self._size, 1)  # (N, size)
            newest = tokens[len(tokens) - self._size + 1 :]
            found = sequences[(sequences[:, :-1] == newest).all(dim=1), -1]
            if self._eos_id is not None:
                found = found[found != self._eos_id]
            logits[row, found] = -torch.inf


class KeepForm:
    """Hold each request that has a `Form` to it; the others are let be.

    What the form bars is barred as far as something is left to choose, and so is what stands already where choices
    must be distinct: no row gets stuck. A hypothesis that has gone beyond its form has the flag "relaxed".

    Args:   choices: the ids that may be chosen where the form fixes none; at least one, and not the end sign.
    """

    def __init__(self, eos_id: int, choices: Iterable[int]) -> None:
        self._eos_id, self._choices = eos_id, frozenset(choices)
        if not self._choices or eos_id in self._choices:
            raise ValueError(f"choices: expected at least one id and not the end sign {eos_id}, got {self._choices}")
        self._ids = torch.tensor(sorted(self._choices))

    def __call__(self, logits: Tensor, rows: Rows) -> None:
        """Leave to each row what its form allows at its next position."""
        laid_down: list[tuple[int, int]] = []  # row, token
        repeated: list[tuple[int, int]] = []  # row, how many tokens ago it wrote the one that stands here again
        free: list[int] = []
        for place, (request, length) in enumerate(zip(rows.members, rows.member_lengths, strict=True)):
            form, members = request.form, range(place * rows.width, (place + 1) * rows.width)
            if form is None:
                continue
            token = self._eos_id if length >= len(form.fixed) else form.fixed[length]
            if token is not None:
                laid_down += [(row, token) for row in members]
            elif form.same_as[length] < length:
                repeated += [(row, length - form.same_as[length]) for row in members]
            else:
                free += members
        if laid_down:
            _leave_only(logits, *torch.tensor(laid_down, device=logits.device).T)
        if repeated:
            row, ago = torch.tensor(repeated, device=logits.device).T
            _leave_only(logits, row, rows.tokens[row, rows.tokens.shape[1] - ago])
        if free:
            self._bar(logits, free, rows)

    def finish(self, tokens: list[int], request: Request) -> tuple[list[int], tuple[str, ...]]:
        """Say where the form could not be kept."""
        if request.form is None:
            return tokens, ()
        form = request.form
        chosen = [tokens[i] for i in range(len(tokens)) if form.fixed[i] is None and form.same_as[i] == i]
        kept = self._choices.difference(form.barred).issuperset(chosen)
        if form.distinct:
            kept = kept and len(set(chosen)) == len(chosen)
        return tokens, () if kept else ("relaxed",)

    def _bar(self, logits: Tensor, chosen: list[int], rows: Rows) -> None:
        """Forbid what may not be chosen. Shape: C rows of R."""
        device = logits.device
        forms = [form for row in chosen if (form := rows.requests[row].form) is not None]
        longest = max(len(form.barred) for form in forms)
        padded = [form.barred + (self._eos_id,) * (longest - len(form.barred)) for form in forms]
        written = rows.tokens[chosen]  # (C, T)
        distinct = torch.tensor([form.distinct for form in forms], device=device)[:, None]
        # The end sign is barred anyway, so it fills places.
        written = written.masked_fill((written < 0) | ~distinct, self._eos_id)
        never = torch.ones(logits.shape[1], dtype=torch.bool, device=device)
        never[self._ids.to(device)] = False
        mask = never.repeat(len(chosen), 1)  # (C, V)
        for ids in (torch.tensor(padded, dtype=torch.int64, device=device), written):
            narrower = mask.scatter(1, ids, True)
            mask = torch.where(narrower.all(1, keepdim=True), mask, narrower)
        logits[chosen] = logits[chosen].masked_fill(mask, -torch.inf)


def _leave_only(logits: Tensor, rows: Tensor, tokens: Tensor) -> None:
    """Forbid all but one token of these rows."""
    kept = logits[rows, tokens]
    logits[rows] = -torch.inf
    logits[rows, tokens] = kept
