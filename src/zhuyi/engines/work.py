"""What a worker is told, what it does, and what it may answer, wherever it runs.

Light to import: a new process is to know of Ctrl-C before it spends seconds on torch.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zhuyi import __version__
from zhuyi.errors import InputError


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know before its first window.

    Args:   run: the run's folder.
            run_hashes: of the run's files, so that no two workers translate by different weights.
            options: of the translation, as `Translator.stream` takes them.
            threads, device: a worker's, by where it runs.
    """

    run: str
    run_hashes: Mapping[str, str]
    precision: str | None
    options: Mapping[str, Any]
    as_json: bool
    threads: int = 1
    device: str = "cpu"
    version: str = __version__


class WorkerFailed(RuntimeError):
    """A worker died or raised what nobody foresaw; the message is one line."""


# What comes back of a worker: it is ready, lines of output, or what went wrong.
Outcome = list[str] | WorkerFailed | InputError | None


class Workers(Protocol):
    """`count` places, numbered from 0, where windows are translated, one at a time each."""

    count: int

    def start(self, place: int) -> None:
        """Begin, or begin again, a worker at a place; it reports None when it is ready."""

    def send(self, place: int, texts: list[str]) -> None:
        """Give a ready worker a window; it reports the lines."""

    def receive(self) -> tuple[int, Outcome]:
        """Wait for the next report, of any place."""


class Worker:
    """A translator in a process of its own: windows in, lines out."""

    def __init__(self, job: Job) -> None:
        import torch

        from zhuyi.predict import load
        from zhuyi.run_folder import RunFolder

        if job.version != __version__:
            raise InputError(f"a worker has zhuyi {__version__}, the command {job.version}; install one everywhere")
        torch.set_num_threads(job.threads)
        self._job = job
        self._translator = load(job.run, job.precision, job.device, command="translate")
        if file_hashes(RunFolder(job.run).needed_files()) != job.run_hashes:
            raise InputError(f"{job.run}: its files have changed since the command began; start it again")

    def translate(self, texts: list[str]) -> list[str]:
        """The lines of output of a window."""
        from zhuyi.streams import output_line

        found = self._translator.stream(texts, **self._job.options)
        return [output_line(each, self._job.as_json, self._job.options["n_best"]) for each in found]


def file_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of each file, by its name."""
    hashes = {}
    for path in paths:
        with open(path, "rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def one_line(error: BaseException) -> str:
    """An exception in one line, whatever it has in its message."""
    return " ".join(f"{type(error).__name__}: {error}".split())
