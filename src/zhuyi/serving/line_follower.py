"""A file that grows by lines of JSON, read as it grows."""

import json
import os
import stat
from pathlib import Path
from typing import Any

SEEN = 256  # bytes before the place come to, by which a file is known again


class LineFollower:
    """The JSON objects in a file's whole lines; each look reads the bytes that are new.

    The file may be missing, half written, cut back or another one than before: then it is read anew.

    Args:   rows: the objects, in order.
            generation: counts up whenever rows that were there no longer are.
            changed: when the file was last written, in seconds since 1970; 0 where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.generation = 0
        self.changed = 0.0
        self._place = 0
        self._seen = b""
        self._status: tuple[int, ...] = ()

    def look(self) -> None:
        """Take in what has come."""
        try:
            found = os.stat(self.path)
            if not stat.S_ISREG(found.st_mode):  # a pipe of that name would hold us for ever
                raise FileNotFoundError
            status = (found.st_size, found.st_mtime_ns, found.st_ino)
            if status == self._status:
                return
            self._read()
            self._status, self.changed = status, found.st_mtime
        except OSError:
            self._forget()
            self.changed = 0.0

    def _read(self) -> None:
        with open(self.path, "rb") as file:
            file.seek(self._place - len(self._seen))
            if file.read(len(self._seen)) != self._seen:
                self._forget()
                file.seek(0)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.rows += [row for line in whole.splitlines() if (row := _object(line)) is not None]
        self._place += len(whole)
        self._seen = (self._seen + whole)[-SEEN:]

    def _forget(self) -> None:
        self.generation += bool(self.rows)
        self.rows, self._place, self._seen, self._status = [], 0, b"", ()


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
