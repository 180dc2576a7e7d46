"""The engine: one thread that owns all models, and what the server's event loop may ask of it.

The thread goes from one run's work to another's, a step at a time: requests come into a search and leave it between
steps, however many others are in it. The loop's side awaits answers; who stops to wait frees what was done for it.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Sequence
from typing import Any, Self

import torch

from zhuyi.decoding.config import GenerationConfig
from zhuyi.machine import give_back_freed_memory
from zhuyi.predict import Translation
from zhuyi.serving.jobs import (
    BatchedJob,
    CallJob,
    End,
    GenerationJob,
    Job,
    Outbox,
    PiecewiseJob,
    TranslateOptions,
    TranslationJob,
)
from zhuyi.serving.limits import check_generation, check_translation
from zhuyi.serving.metrics import Metrics
from zhuyi.serving.refusals import Draining, EngineStopped, NotReady, QueueFull, TookTooLong, UnknownRun
from zhuyi.serving.runs import RunToServe, ServedRun
from zhuyi.serving.settings import ServeSettings
from zhuyi.serving.work import Work, kind_of_work, work_for
from zhuyi.tasks.continuation import Chunk
from zhuyi.tasks.glossary import Glossary

logger = logging.getLogger("zhuyi.serving")

LONGEST_RETRY_SECONDS = 60
TRIM_SECONDS = 30.0  # between two times that freed memory is given back


class Engine:
    """Loaded runs and the thread that works with them; the coroutines are for any event loop.

    Every call raises, before it waits: InputError (more than one request may ask for), NotReady (still loading),
    Draining, EngineStopped, QueueFull; and as it waits TookTooLong, or whatever the work itself raised. A call whose
    task is cancelled is dropped from its batch.
    """

    def __init__(self, runs: Sequence[RunToServe], settings: ServeSettings) -> None:
        self.settings = settings
        self.metrics = Metrics(len(runs))
        self.failure: Exception | None = None  # why it is not, and never will be, ready
        self._wanted = list(runs)
        self._runs: dict[str, ServedRun] = {}
        self._thread = threading.Thread(target=self._live, name="zhuyi-engine", daemon=True)
        self._change = threading.Condition()  # held for moments, and never while anything else is called
        self._arrived: list[Job] = []
        self._gone: list[Job] = []
        self._in_system = 0
        self._cost = 0
        self._ready = self._draining = self._stopping = False
        # The thread's own:
        self._outbox = Outbox()
        self._works: dict[Hashable, Work] = {}
        self._where: dict[Job, Work] = {}
        self._used_seconds: dict[str, float] = {}
        self._pace_seconds = 0.1  # between two requests' ends, while there is work
        self._last_end = self._last_trim = time.monotonic()

    # What anyone may ask.

    @property
    def runs(self) -> dict[str, ServedRun]:
        """The runs that are loaded, by name, in the order of the command line."""
        return dict(self._runs)

    @property
    def wanted(self) -> list[str]:
        """The names of all runs that are to be loaded."""
        return [run.name for run in self._wanted]

    @property
    def is_ready(self) -> bool:
        """All runs are loaded, the thread lives, and requests are taken."""
        return self._ready and self.is_alive and not self._draining

    @property
    def is_alive(self) -> bool:
        """The thread works, or has not begun to."""
        return self.failure is None and not self._stopping and (self._thread.is_alive() or self._thread.ident is None)

    @property
    def in_system(self) -> int:
        """Requests that wait or run."""
        return self._in_system

    def run(self, name: str) -> ServedRun:
        """A loaded run.

        Raises: UnknownRun: there is none of that name.
        """
        if name not in self._runs:
            raise UnknownRun(name, tuple(self._runs))
        return self._runs[name]

    def start(self) -> None:
        """Begin to load the runs, and then to work."""
        self._thread.start()

    def drain(self) -> None:
        """Take no more requests; those that are here come to their ends."""
        self._draining = True

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """End the thread; whoever still waits is told."""
        with self._change:
            self._draining = self._stopping = True
            self._change.notify_all()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    async def translate(
        self,
        run: ServedRun,
        texts: Sequence[str],
        options: TranslateOptions | None = None,
        glossaries: Sequence[Glossary | None] = (),
    ) -> list[Translation]:
        """Translate texts in one batch with those of others; as many come back, in the same order.

        Args:   glossaries: of each text, as `Translator.read_glossary` gives them; none at all where empty.
        """
        options = options or TranslateOptions()
        check_translation(texts, options, self.settings)
        if not texts:
            return []
        cost = sum(map(len, texts))
        job = TranslationJob(run, cost, texts=texts, options=options, glossaries=glossaries)
        (found,) = await self._all_of(job)
        return list(found)

    def generate(
        self,
        run: ServedRun,
        prompts: Sequence[str | Sequence[int]],
        decode: GenerationConfig,
        *,
        samples: int = 1,
        seed: int = 1,
    ) -> "ChunkStream":
        """Continue prompts, texts or ids; chunks come as they are written. The call itself refuses, before the stream.

        Args:   decode: made by `Generator.decode_config`.
        """
        check_generation(prompts, decode, samples, self.settings)
        cost = len(prompts) * samples * decode.max_new_tokens + sum(map(len, prompts))
        job = GenerationJob(run, cost, prompts=prompts, decode=decode, samples=samples, seed=seed)
        return ChunkStream(Ticket(self, job))

    async def call(self, run: ServedRun, function: Callable[[], Any], *, cost: int) -> Any:
        """Call a function in the engine's thread, between the steps of others; for what takes less than a second.

        Args:   cost: about how many characters, tokens or the like it is.
        """
        (found,) = await self._all_of(CallJob(run, cost, function=function))
        return found

    async def batched(
        self,
        run: ServedRun,
        kind: Hashable,
        items: Sequence[Any],
        function: Callable[[list[Any]], Sequence[Any]],
        *,
        cost: int,
    ) -> list[Any]:
        """Call a function of a list in the engine's thread, with the items of all requests of one kind that wait.

        Args:   kind: what must be equal for one function to serve both: its name and its options.
                function: gives an answer for each item, in order.
        """
        (found,) = await self._all_of(BatchedJob(run, cost, kind=kind, items=items, function=function))
        return list(found)

    async def piecewise(self, run: ServedRun, function: Callable[[], Generator[None, None, Any]], *, cost: int) -> Any:
        """What a generator returns, run in the engine's thread; at each of its `yield`s others get their turn."""
        (found,) = await self._all_of(PiecewiseJob(run, cost, function=function))
        return found

    async def _all_of(self, job: Job) -> list[Any]:
        ticket = Ticket(self, job)
        try:
            return [answer async for answer in ticket]
        finally:
            ticket.leave()

    # Between the two sides.

    def accept(self, job: Job) -> None:
        """Let a job in, or refuse it."""
        with self._change:  # what is let in is seen by the thread, even by one that is about to end
            if not self.is_alive:
                raise EngineStopped
            if self._draining:
                raise Draining
            if not self._ready:
                raise NotReady
            full = self._in_system >= self.settings.queue_size
            if full or (self._in_system and self._cost + job.cost > self.settings.queue_cost):
                raise QueueFull(self.retry_after_seconds)
            self._in_system += 1
            self._cost += job.cost
            self._arrived.append(job)
            self._change.notify_all()

    def release(self, job: Job) -> None:
        """A job whose answers nobody waits for any longer, because they came or because those who asked left."""
        with self._change:
            self._in_system -= 1
            self._cost -= job.cost
            self._gone.append(job)
            self._change.notify_all()

    @property
    def retry_after_seconds(self) -> int:
        """When those who are here now should be done, by the pace of the last ones."""
        return max(1, min(LONGEST_RETRY_SECONDS, math.ceil(self._in_system * self._pace_seconds)))

    # The thread.

    def _live(self) -> None:
        try:
            for wanted in self._wanted:
                run = wanted.load()
                self._runs[run.name] = run
                self.metrics.loaded_runs.set(len(self._runs))
            self._ready = True
            with torch.inference_mode():
                while not self._stopping:
                    self._wait()
                    self._turn()
        except Exception as error:
            self.failure = error
            logger.exception("the engine has stopped")
        finally:
            with self._change:
                self._ready, self._stopping = False, True
                arrived, self._arrived = self._arrived, []
            for job in [*self._where, *arrived]:
                self._outbox.put(job, EngineStopped())
            self._outbox.flush()

    def _wait(self) -> None:
        """Until there is something to do; take in who has come, let go who has gone."""
        idle = not any(work.active for work in self._works.values())
        if idle:
            self._rest()
        if time.monotonic() - self._last_trim > TRIM_SECONDS:
            give_back_freed_memory()
            self._last_trim = time.monotonic()
        with self._change:
            if idle:
                self._change.wait_for(lambda: self._arrived or self._gone or self._stopping)
                self._last_end = time.monotonic()
            arrived, self._arrived = self._arrived, []
            gone, self._gone = self._gone, []
        for job in arrived:
            try:
                self._where[job] = self._work_of(job)
            except Exception as error:
                self._outbox.put(job, error)
            else:
                self._where[job].add(job)
        for job in gone:
            if job in self._where:
                self._where.pop(job).leave(job)
                self._note_end()

    def _work_of(self, job: Job) -> Work:
        kind = kind_of_work(job)
        if kind not in self._works:
            work = work_for(job, self.settings, self._outbox)
            others = (each.used_seconds for each in self._works.values() if each.run.name == job.run.name)
            work.used_seconds = min(others, default=0.0)  # who is new does not go before all others
            self._works[kind] = work
        return self._works[kind]

    def _turn(self) -> None:
        """A step of the run that has had the least time, and there of the work that has had the least."""
        active = {kind: work for kind, work in self._works.items() if work.active}
        for work in self._works.values():
            if not work.active:
                self.metrics.rows.labels(work.run.name).set(0)
        self._works = active  # what is idle is closed, its search with it
        if not active:
            self._outbox.flush()
            return
        names = {work.run.name for work in active.values()}
        # Who was away comes back without the time that it did not use.
        least = min((self._used_seconds[name] for name in names if name in self._used_seconds), default=0.0)
        self._used_seconds = {name: self._used_seconds.get(name, least) for name in names}
        chosen = min(names, key=lambda name: self._used_seconds[name])
        work = min((each for each in active.values() if each.run.name == chosen), key=lambda each: each.used_seconds)
        begun = time.perf_counter()
        tokens = work.step()
        self._outbox.flush()
        seconds = time.perf_counter() - begun
        work.used_seconds += seconds
        self._used_seconds[chosen] += seconds
        self.metrics.tokens.labels(chosen).inc(tokens)
        self.metrics.rows.labels(chosen).set(sum(each.rows for each in active.values() if each.run.name == chosen))

    def _rest(self) -> None:
        """There is nothing to do."""
        self._works.clear()
        self._used_seconds.clear()
        for name in self._runs:
            self.metrics.rows.labels(name).set(0)

    def _note_end(self) -> None:
        now = time.monotonic()
        interval = min(now - self._last_end, LONGEST_RETRY_SECONDS) if self._where else self._pace_seconds
        self._pace_seconds += 0.1 * (interval - self._pace_seconds)
        self._last_end = now


class Ticket:
    """A place in the engine, and the answers as they come; left once, by whoever stops to wait."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine, self._job = engine, job
        self._left = True
        engine.accept(job)
        self._left = False
        self._deadline = job.loop.time() + engine.settings.request_seconds

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        job = self._job
        try:
            async with asyncio.timeout_at(self._deadline):
                answer = await job.answers.get()
        except TimeoutError:
            self.leave()
            raise TookTooLong(self._engine.settings.request_seconds) from None
        except BaseException:
            self.leave()
            raise
        if isinstance(answer, End | BaseException):
            self.leave()
            raise StopAsyncIteration if isinstance(answer, End) else answer
        return answer

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._engine.release(self._job)


class ChunkStream(AsyncIterator[Chunk]):
    """Chunks of continuations; who stops before the end calls `aclose`, and the work ends."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket

    async def __anext__(self) -> Chunk:
        chunk: Chunk = await anext(self._ticket)
        return chunk

    async def aclose(self) -> None:
        self._ticket.leave()

    def __del__(self) -> None:
        self._ticket.leave()
