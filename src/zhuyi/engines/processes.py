"""Workers as processes of this machine."""

import contextlib
import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType
from typing import Any

from zhuyi.engines.work import Job, Outcome, Worker, WorkerFailed, one_line
from zhuyi.errors import InputError


class ProcessWorkers:
    """`count` spawned processes, each with a pipe to it; to be used in a `with`, whose end ends them.

    Spawned rather than forked, since a forked torch has the parent's locks but not its threads.
    """

    def __init__(self, job: Job, count: int, *, num_gpus: int = 0) -> None:
        self.count = count
        self._job = job
        self._num_gpus = num_gpus
        self._processes: dict[int, Any] = {}
        self._pipes: dict[int, Connection] = {}

    def __enter__(self) -> "ProcessWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place in list(self._processes):
            self._end(place)

    def start(self, place: int) -> None:
        self._end(place)
        device = f"cuda:{place % self._num_gpus}" if self._num_gpus else "cpu"
        here, there = Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
        process.start()
        there.close()  # so that the process's death is the end of the pipe
        self._processes[place], self._pipes[place] = process, here
        # Over the pipe rather than among the arguments: to read a search rule is to import torch.
        self._send(place, replace(self._job, device=device))

    def send(self, place: int, texts: list[str]) -> None:
        self._send(place, texts)

    def receive(self) -> tuple[int, Outcome]:
        ready = wait(list(self._pipes.values()))
        place = next(place for place, pipe in self._pipes.items() if pipe in ready)
        try:
            return place, self._pipes[place].recv()
        except (EOFError, OSError):
            return place, WorkerFailed(f"the worker's process {self._how_it_ended(place)}")

    def _send(self, place: int, what: Any) -> None:
        with contextlib.suppress(OSError):  # it has died, which `receive` will say
            self._pipes[place].send(what)

    def _how_it_ended(self, place: int) -> str:
        process = self._processes[place]
        process.join(timeout=10)  # the pipe ends a moment before the process does
        code = process.exitcode
        if code is not None and code < 0:
            killer = " (was memory short?)" if -code == signal.SIGKILL else ""
            return f"was killed by {signal.Signals(-code).name}{killer}"
        return f"ended with status {code}"

    def _end(self, place: int) -> None:
        if pipe := self._pipes.pop(place, None):
            pipe.close()
        if process := self._processes.pop(place, None):
            process.kill()
            process.join()
            process.close()


def serve(pipe: Connection) -> None:
    """Live as a worker: the job first, then windows until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us all, and the parent ends us
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    worker: Worker | None = None
    with contextlib.suppress(EOFError, OSError):  # the parent has closed the pipe or died
        while True:
            told = pipe.recv()
            try:
                if worker is None:
                    worker, answer = Worker(told), None
                else:
                    answer = worker.translate(told)
            except InputError as error:
                pipe.send(error)
            except Exception as error:
                pipe.send(WorkerFailed(one_line(error)))
            else:
                pipe.send(answer)


def _die_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)  # in the middle of a window too, whose lines nobody would read
