"""What the engine's thread does for a run: searches that requests share, and calls."""

import time
from collections import deque
from collections.abc import Hashable, Iterator
from typing import Any, Protocol

from zhuyi.serving.jobs import (
    END,
    BatchedJob,
    CallJob,
    GenerationJob,
    Job,
    Outbox,
    PiecewiseJob,
    TranslationJob,
)
from zhuyi.serving.runs import ServedRun
from zhuyi.serving.searching import Continuing, Searching, Translating, shared
from zhuyi.serving.settings import ServeSettings

READ_SECONDS = 0.02  # for texts that come in, between two steps of a search
MOST_ITEMS = 64  # of one call over several requests


class Work(Protocol):
    """Some requests of one run that are worked on together, a step at a time."""

    run: ServedRun
    used_seconds: float

    @property
    def active(self) -> bool: ...

    @property
    def rows(self) -> int: ...

    def add(self, job: Any) -> None: ...

    def step(self) -> int:
        """Go on by what takes a moment; how many tokens were written to the end."""
        ...

    def leave(self, job: Any) -> None:
        """Free what is done for a job."""
        ...


def work_for(job: Job, settings: ServeSettings, outbox: Outbox) -> "Work":
    """What does such jobs."""
    if isinstance(job, TranslationJob):
        return SearchWork(Translating(job.run, job.options, settings.batch_tokens), job.run, settings, outbox)
    if isinstance(job, GenerationJob):
        return SearchWork(Continuing(job.run, job.decode), job.run, settings, outbox)
    return CallWork(job.run, settings, outbox)


def kind_of_work(job: Job) -> Hashable:
    """Jobs that may be worked on together have the same."""
    if isinstance(job, TranslationJob):
        return job.run.name, job.options
    if isinstance(job, GenerationJob):
        return job.run.name, shared(job.decode)
    return job.run.name


class Gathering:
    """Jobs that come, and are let into a search together after a bounded wait.

    What goes wrong in a search of several is tried again for each alone, so that one request's fault is its own.
    """

    def __init__(self, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._arrived: deque[tuple[float, Any]] = deque()
        self._alone: deque[Any] = deque()

    def __len__(self) -> int:
        return len(self._arrived) + len(self._alone)

    def add(self, job: Any) -> None:
        self._arrived.append((time.monotonic(), job))

    def again_alone(self, jobs: list[Any]) -> None:
        self._alone.extend(jobs)

    def take(self, *, idle: bool) -> list[Any]:
        """Those who may go in now."""
        if self._alone:
            return [self._alone.popleft()] if idle else []
        if not self._arrived or not (idle or time.monotonic() - self._arrived[0][0] >= self._wait_seconds):
            return []
        taken = [job for _, job in self._arrived]
        self._arrived.clear()
        return taken

    def leave(self, job: Any) -> None:
        self._arrived = deque(entry for entry in self._arrived if entry[1] is not job)
        self._alone = deque(other for other in self._alone if other is not job)


class SearchWork:
    """Texts of several requests in one search."""

    def __init__(self, searching: Searching, run: ServedRun, settings: ServeSettings, outbox: Outbox) -> None:
        self.run, self._searching, self._outbox = run, searching, outbox
        self.used_seconds = 0.0
        self._gathering = Gathering(settings.batch_wait_seconds)
        self._inside: dict[Any, None] = {}
        self._coming: dict[Any, Iterator[None]] = {}  # of those inside, what is still to be read
        self._search: Any = None

    @property
    def active(self) -> bool:
        return bool(self._inside or len(self._gathering))

    @property
    def rows(self) -> int:
        return self._search.rows if self._search else 0

    def add(self, job: Any) -> None:
        self._gathering.add(job)

    def leave(self, job: Any) -> None:
        self._gathering.leave(job)
        self._coming.pop(job, None)
        if job in self._inside:
            del self._inside[job]
            try:
                if self._search is not None:
                    self._searching.drop(self._search, job)
            except Exception as error:
                self._start_over(error)

    def step(self) -> int:
        for job in self._gathering.take(idle=not self._inside):
            self._inside[job] = None
            self._coming[job] = self._admitted(job)
        self._read()
        if len(self._inside) == len(self._coming):  # they go in together
            return 0
        try:
            found = self._searching.advance(self._search)
        except Exception as error:
            self._start_over(error)
            return 0
        for each in found:
            if each.answer is not None:
                self._outbox.put(each.job, each.answer)
            if each.is_last:
                del self._inside[each.job]
                self._coming.pop(each.job, None)
                self._outbox.put(each.job, END)
        return sum(each.tokens for each in found)

    def _admitted(self, job: Any) -> Iterator[None]:
        self._search = self._search or self._searching.open()
        yield from self._searching.admit(self._search, job)

    def _read(self) -> None:
        """Go on with who is coming in, in turns, for a moment: a long text holds nobody up."""
        end = time.monotonic() + READ_SECONDS
        while self._coming:
            job, pieces = next(iter(self._coming.items()))
            del self._coming[job]
            try:
                next(pieces)
            except StopIteration:
                pass
            except Exception as error:
                self.leave(job)
                self._outbox.put(job, error)
            else:
                self._coming[job] = pieces
            if time.monotonic() >= end:
                return

    def _start_over(self, error: Exception) -> None:
        """Nobody knows what a search is in that raised; and what has been sent cannot be taken back."""
        jobs, self._inside, self._coming, self._search = list(self._inside), {}, {}, None
        again = [job for job in jobs if not job.has_begun] if len(jobs) > 1 else []
        for job in jobs:
            if job not in again:
                self._outbox.put(job, error)
        self._gathering.again_alone(again)


class CallWork:
    """Calls of one run, one after the other."""

    def __init__(self, run: ServedRun, settings: ServeSettings, outbox: Outbox) -> None:
        self.run, self._settings, self._outbox = run, settings, outbox
        self.used_seconds = 0.0
        self._waiting: deque[Any] = deque()

    @property
    def active(self) -> bool:
        return bool(self._waiting)

    @property
    def rows(self) -> int:
        return 0

    def add(self, job: Job) -> None:
        self._waiting.append(job)

    def leave(self, job: Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        if isinstance(job, PiecewiseJob) and job.pieces is not None:
            job.pieces.close()

    def step(self) -> int:
        job = self._waiting[0]
        if isinstance(job, BatchedJob):
            return self._call_together(self._alike(job))
        self._waiting.popleft()
        try:
            if isinstance(job, CallJob):
                self._end(job, job.function())
            else:
                self._go_on(job)
        except Exception as error:
            self._outbox.put(job, error)
        return 0 if job in self._waiting else job.cost

    def _go_on(self, job: PiecewiseJob) -> None:
        """Do one piece; the next one is done after the other requests of this run."""
        if job.pieces is None:
            assert job.function is not None
            job.pieces = job.function()
        try:
            next(job.pieces)
        except StopIteration as end:
            self._end(job, end.value)
        else:
            self._waiting.append(job)

    def _alike(self, first: BatchedJob) -> list[BatchedJob]:
        """Take what may be done by one call with the first."""
        together: list[BatchedJob] = []
        items = cost = 0
        for job in list(self._waiting):
            if not isinstance(job, BatchedJob) or job.kind != first.kind:
                continue
            items, cost = items + len(job.items), cost + job.cost
            if together and (items > MOST_ITEMS or cost > self._settings.batch_tokens):
                break
            together.append(job)
            self._waiting.remove(job)
        return together

    def _call_together(self, jobs: list[BatchedJob]) -> int:
        try:
            found = list(jobs[0].function([item for job in jobs for item in job.items]))
        except Exception as error:
            if len(jobs) == 1:
                self._outbox.put(jobs[0], error)
            else:  # whose fault it is shows when each is alone
                for job in jobs:
                    self._call_together([job])
            return 0
        for job in jobs:
            own, found = found[: len(job.items)], found[len(job.items) :]
            self._end(job, own)
        return sum(job.cost for job in jobs)

    def _end(self, job: Job, answer: Any) -> None:
        self._outbox.put(job, answer)
        self._outbox.put(job, END)
