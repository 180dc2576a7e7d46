"""A process that dies at any of its file operations, without a process of its own."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any


class Killed(BaseException):
    """Stands for `kill -9`: from here on nothing reaches the disk, not even what a `finally` wants to do."""


class Death:
    """Counts what is done to files below a folder, and dies before the operation with the given number."""

    WRITING = frozenset({"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"})

    def __init__(self) -> None:
        self.folder: str | None = None
        self.at = self.count = 0
        self.die: Callable[[], None] = _raise
        sys.addaudithook(self._see)  # for good: an audit hook cannot be taken away

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or event not in self.WRITING:
            return
        if event == "open" and not str(arguments[0]).startswith(self.folder):  # a module read on first use, say
            return
        self.count += 1
        if self.count >= self.at:
            self.die()

    @contextmanager
    def before(self, operation: int, folder: Path) -> Iterator[None]:
        self.folder, self.at, self.count = str(folder), operation, 0
        try:
            yield
        finally:
            self.folder = None


def _raise() -> None:
    raise Killed


DEATH = Death()


def kill_everywhere(
    folder: Path, write: Callable[[], Any], look: Callable[[bool], None], operations: Iterable[int] | None = None
) -> int:
    """Call `write` again and again, killed one operation later each time, until it gets through.

    Args:   look: called after each, with whether it got through.
            operations: at which to kill; each of them where not given.
    Returns: how often it was killed.
    """
    for kills, operation in enumerate(operations or count(1)):
        try:
            with DEATH.before(operation, folder):
                write()
        except Killed:
            look(False)
        else:
            look(True)
            return kills
    raise AssertionError("it never got through")
