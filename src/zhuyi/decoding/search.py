"""The one loop that writes sequences: greedy, sampling and beam search are rules inside it."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from zhuyi.decoding.filters import Filter, Finisher, Foreseeing, MinimumLength
from zhuyi.decoding.reductions import log_normalizer
from zhuyi.decoding.requests import Event, Hypothesis, Request
from zhuyi.decoding.rows import Rows
from zhuyi.decoding.scores import AllScores, ListedScores, Lister, Scores

MOST_STEPS = 16  # at once: while they are done nobody can come, leave or ask for anything else


class State(Protocol):
    """A decoder's memory and cache; any call may reuse the storage of the state it is given."""

    def select(self, rows: Tensor) -> Self:
        """Keep these rows, in this order; a row may stand several times or not at all."""
        ...

    def join(self, other: Self) -> Self:
        """Append the rows of another state."""
        ...


@dataclass(slots=True)
class Choice:
    """What a rule decided for one step.

    Args:
        tokens: (R,) what each row writes next.
        log_probs: (R,) the rows' log-probabilities, the new token included; -inf: the row is not in use.
        parents: (R,) the row that each row continues, or None where each continues itself.
        ended: (row, log-probability) of each hypothesis that wrote the end sign, by its row before this step.
        stopped: positions of the requests that need no further step.
        token_list: `tokens` on the host, where the rule streams.
    """

    tokens: Tensor
    log_probs: Tensor
    parents: Tensor | None = None
    ended: list[tuple[int, float]] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    token_list: list[int] = field(default_factory=list)


class Records(Protocol):
    """What a rule remembers about the requests in flight, one entry a request."""

    def select(self, positions: Sequence[int]) -> Self:
        """Keep the entries of these requests."""
        ...

    def join(self, other: Self) -> Self:
        """Append the entries of other requests."""
        ...


class Rule(Protocol):
    """How scores become next tokens and parents."""

    @property
    def width(self) -> int:
        """Rows a request."""
        ...

    @property
    def streams(self) -> bool:
        """Whether a token once written stays written."""
        ...

    @property
    def scores(self) -> bool:
        """Whether `choose` needs the rows' normalizers."""
        ...

    @property
    def looks_at(self) -> int | None:
        """How many of each row's largest logits `choose` looks at; None: all. Who looks at one always takes it."""
        ...

    def start(self, requests: Sequence[Request], device: torch.device) -> Any:
        """Make the records of new requests."""
        ...

    def choose(self, scores: Scores, rows: Rows, records: Any, eos_id: int) -> Choice:
        """Decide one step."""
        ...

    def score(self, log_prob: float, length: int) -> float:
        """Return what a hypothesis of `length` tokens, end sign included, is ranked by."""
        ...

    def conclude(self, found: list[tuple[int, Hypothesis]]) -> tuple[Hypothesis, ...]:
        """Order a request's hypotheses, each with its row's place among the request's rows."""
        ...


class Search:
    """Requests in flight, one step at a time; they come and go between steps.

    Args:
        begin: takes requests, returns a state and each row's last known token, one row a request.
        step: takes tokens (R,) and a state, returns logits (R, V), which are then the search's to overwrite,
            and the state.
        rule: `Greedy`, `Sampling` or `Beam`.
        eos_id: the end sign.
        filters: called in turn on each step's logits; `MinimumLength` is always among them.
        stream: whether to report single tokens, where the rule can.
        renormalize: score by probabilities among what the filters leave, not among all that the model has.
        may_list: whether a state that is a `Lister` may find the largest logits in the place of `step`, where rule and
            filters need no more.
    """

    def __init__(
        self,
        begin: Callable[[Sequence[Request]], tuple[Any, Tensor]],
        step: Callable[[Tensor, Any], tuple[Tensor, Any]],
        rule: Rule,
        *,
        eos_id: int,
        filters: Sequence[Filter] = (),
        stream: bool = True,
        renormalize: bool = False,
        may_list: bool = False,
    ) -> None:
        self._begin, self._step, self._rule, self._eos_id = begin, step, rule, eos_id
        self._filters = (MinimumLength(eos_id), *filters)
        self._finishers = tuple(entry for entry in filters if isinstance(entry, Finisher))
        self._foreseeing = tuple(entry for entry in self._filters if isinstance(entry, Foreseeing))
        self._stream = stream and rule.streams
        self._renormalize = renormalize
        self._may_list = may_list and len(self._foreseeing) == len(self._filters)
        self._ready: list[Event] = []
        self._found: list[list[tuple[int, Hypothesis]]] = []
        self._rows: Rows | None = None
        self._state: Any = None
        self._records: Any = None
        self._lists = False
        self._tokens = torch.empty(0)

    @property
    def active(self) -> int:
        """Requests in flight."""
        return len(self._found) + len(self._ready)

    @property
    def rows(self) -> int:
        """Rows in the batch."""
        return len(self._found) * self.width

    @property
    def width(self) -> int:
        """Rows a request."""
        return self._rule.width

    @torch.inference_mode()
    def admit(self, requests: Sequence[Request]) -> None:
        """Take requests into the batch.

        Raises: ValueError: two requests in flight would have the same id.
        """
        ids = {event.id for event in self._ready} | {member.id for member in self._members}
        for request in requests:
            if request.id in ids:
                raise ValueError(f"request {request.id} is in flight already; ids must differ")
            ids.add(request.id)
        writing = [request for request in requests if request.max_new_tokens > 0]
        if writing:
            self._admit_rows(writing)
        cut = Hypothesis((), 0.0, 0.0, False, ("length",))
        nothing = self._rule.conclude([(place, cut) for place in range(self.width)])
        self._ready += [Event(r.id, hypotheses=nothing) for r in requests if r.max_new_tokens == 0]

    def _admit_rows(self, requests: list[Request]) -> None:
        state, tokens = self._begin(requests)
        if self.width > 1:
            index = torch.arange(len(requests), device=tokens.device).repeat_interleave(self.width)
            state, tokens = state.select(index), tokens[index]
        records = self._rule.start(requests, tokens.device)
        if self._rows is None:
            self._rows = Rows(self.width, tokens.device)
            self._state, self._tokens, self._records = state, tokens, records
            self._lists = self._may_list and isinstance(state, Lister)
        else:
            self._state, self._tokens = self._state.join(state), torch.cat([self._tokens, tokens])
            self._records = self._records.join(records)
        self._rows.join(requests)
        self._found += [[] for _ in requests]

    @torch.inference_mode()
    def advance(self) -> list[Event]:
        """Write one token of every request in flight, or several where nothing can come between, and report them."""
        events, self._ready = self._ready, []
        if self._rows is None:
            return events
        for scores in self._steps():
            rows = self._rows
            assert rows is not None  # only a last step lets anyone go
            choice = self._rule.choose(scores, rows, self._records, self._eos_id)
            if self._stream:
                events += self._stream_events(choice)
            self._collect(choice)
            done = self._close(choice)
            events += [Event(rows.members[i].id, hypotheses=self._rule.conclude(self._found[i])) for i in done]
            self._continue(choice, done)
        return events

    def _steps(self) -> Sequence[Scores]:
        """Advance the decoder; what it finds, step by step."""
        rows = self._rows
        assert rows is not None
        if listed := self._listed(rows):
            return listed
        logits, self._state = self._step(self._tokens, self._state)
        logits = logits.float()
        normalizer = log_normalizer(logits) if self._rule.scores and not self._renormalize else None
        for entry in self._filters:
            entry(logits, rows)
        if self._rule.scores and self._renormalize:
            normalizer = log_normalizer(logits)
        return [AllScores(logits, normalizer)]

    def _listed(self, rows: Rows) -> Sequence[Scores]:
        """As `_steps`, without all logits, where neither the rule nor the filters need them; else nothing."""
        count = self._rule.looks_at
        if count is None or not self._lists:
            return ()
        steps = MOST_STEPS if count == 1 and not self._stream else 1
        steps = min(steps, rows.least_left)
        barred: tuple[int, ...] = ()
        for entry in self._foreseeing:
            foreseen = entry.foresee(rows)
            if foreseen is None:
                return ()
            steps, barred = min(steps, foreseen.steps), barred + foreseen.barred
        if steps < 1:
            return ()
        found = self._state.list_largest(
            self._tokens, steps=steps, count=count, end=self._eos_id, barred=barred, sums_barred=self._renormalize
        )
        if found is None:
            return ()
        normalizers = found.normalizers if self._rule.scores else [None] * len(found.values)
        return [ListedScores(*each) for each in zip(found.values, found.ids, normalizers, strict=True)]

    @torch.inference_mode()
    def drop(self, ids: Collection[int]) -> None:
        """Forget requests; ids that are not in flight are ignored."""
        ids = set(ids)
        self._ready = [event for event in self._ready if event.id not in ids]
        kept = [position for position, member in enumerate(self._members) if member.id not in ids]
        if len(kept) < len(self._members):
            self._keep(kept, None)

    @property
    def _members(self) -> list[Request]:
        return [] if self._rows is None else self._rows.members

    def _stream_events(self, choice: Choice) -> list[Event]:
        assert self._rows is not None
        width, members = self.width, self._rows.members
        return [
            Event(members[row // width].id, token, row % width)
            for row, token in enumerate(choice.token_list)
            if token != self._eos_id
        ]

    def _collect(self, choice: Choice) -> None:
        """Keep the hypotheses that ended by the end sign."""
        assert self._rows is not None
        for row, log_prob in choice.ended:
            self._add(row, self._rows.written(row), log_prob, finished=True)

    def _close(self, choice: Choice) -> list[int]:
        """Cut what has reached `max_new_tokens`; return the positions of the requests that are complete."""
        rows, width = self._rows, self.width
        assert rows is not None
        stopped = set(choice.stopped)
        limited = [position for position in rows.at_limit() if position not in stopped]
        for position in limited:
            span = slice(position * width, (position + 1) * width)
            parents = range(span.start, span.stop) if choice.parents is None else choice.parents[span].tolist()
            tokens, log_probs = choice.tokens[span].tolist(), choice.log_probs[span].tolist()
            for place, (parent, token, log_prob) in enumerate(zip(parents, tokens, log_probs, strict=True)):
                if log_prob != -torch.inf:
                    self._add(span.start + place, [*rows.written(parent), token], log_prob, finished=False)
        done = sorted(stopped.union(limited))
        for position in done:
            if not self._found[position]:  # the filters left no way on
                written = tuple(rows.written(position * width))
                self._found[position].append((0, Hypothesis(written, -torch.inf, -torch.inf, False, ("stuck",))))
        return done

    def _add(self, row: int, tokens: list[int], log_prob: float, *, finished: bool) -> None:
        assert self._rows is not None
        position, place = divmod(row, self.width)
        score = self._rule.score(log_prob, len(tokens) + finished)
        flags: tuple[str, ...] = () if finished else ("length",)
        for finisher in self._finishers:
            tokens, more = finisher.finish(tokens, self._rows.members[position])
            flags += more
        self._found[position].append((place, Hypothesis(tuple(tokens), score, log_prob, finished, flags)))

    def _continue(self, choice: Choice, done: list[int]) -> None:
        """Bring rows, state and records to where the next step begins."""
        assert self._rows is not None
        self._tokens = choice.tokens
        if done:
            complete = set(done)
            kept = [position for position in range(len(self._found)) if position not in complete]
            self._keep(kept, choice.parents)
        elif choice.parents is not None:
            self._state = self._state.select(choice.parents)
            self._rows.reorder(choice.parents)
        if self._rows is not None:
            self._rows.append(self._tokens)

    def _keep(self, positions: list[int], parents: Tensor | None) -> None:
        """Let requests leave, and rows continue their parents, by one selection."""
        assert self._rows is not None
        positions = _with_holes_filled(positions)
        self._found = [self._found[position] for position in positions]
        if not positions:
            self._rows = self._state = self._records = None
            return
        device, width = self._tokens.device, self.width
        rows = torch.tensor([p * width + place for p in positions for place in range(width)], device=device)
        self._tokens = self._tokens[rows]
        sources = rows if parents is None else parents[rows]
        self._state = self._state.select(sources)
        self._rows.keep(positions, sources)
        self._records = self._records.select(positions)


def _with_holes_filled(positions: list[int]) -> list[int]:
    """The same positions, the last of them where others have left, so that few have to move."""
    count = len(positions)
    staying = {position for position in positions if position < count}
    moving = (position for position in positions if position >= count)
    return [place if place in staying else next(moving) for place in range(count)]


def run(
    search: Search, requests: Iterable[Request], *, max_rows: int, admit_rows: int | None = None
) -> Iterator[Event]:
    """Drive a search over any number of requests, taking the next ones in as others finish.

    Args:
        search: where the requests go; it may have others in flight.
        requests: taken one group after the other, as rows become free.
        max_rows: rows the batch may have.
        admit_rows: how many rows must be free before the next requests are taken in together (a quarter of
            `max_rows` by default): encoding them one by one would cost more than idle rows do.
    Raises: ValueError: a single request needs more than `max_rows`.
    """
    if max_rows < search.width:
        raise ValueError(f"max_rows is {max_rows}, but one request alone takes {search.width} rows")
    group = max(search.width, max_rows // 4 if admit_rows is None else admit_rows)
    waiting, exhausted = iter(requests), False
    while True:
        free = max_rows - search.rows
        if not exhausted and (free >= group or not search.active):
            count = max(1, free // search.width)
            admitted = list(islice(waiting, count))
            exhausted = len(admitted) < count
            search.admit(admitted)
        if not search.active:
            return
        yield from search.advance()
