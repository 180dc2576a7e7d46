"""Finished windows of a big file's translation: on disk as soon as they are done, so that none is done twice."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zhuyi.atomic import replacing, replacing_named
from zhuyi.errors import InputError

_MANIFEST = "manifest.json"


class ShardFolder:
    """`OUTPUT.shards`: a file for each finished window, whole or not there, and a manifest that says of what.

    Args: origin: everything that the output follows from, ready for JSON.
    """

    def __init__(self, output: Path, origin: Mapping[str, Any]) -> None:
        self.path = output.with_name(f"{output.name}.shards")
        self._output = output
        self._origin = dict(origin)

    def open(self) -> int:
        """Make the folder, or find it again; how many shards are finished.

        Raises: InputError: its shards are of another origin, or it is not a folder of ours.
        """
        manifest = self.path / _MANIFEST
        try:
            self.path.mkdir(exist_ok=True)
            if manifest.exists() and self._count():
                self._check(json.loads(manifest.read_text(encoding="utf-8")))
            elif any(path.name != _MANIFEST and path.suffix != ".unfinished" for path in self.path.iterdir()):
                raise InputError(f"{self.path} is in the way and not a folder of finished shards; move it away")
            else:
                with replacing(manifest) as path:
                    path.write_text(json.dumps(self._origin, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot keep finished shards in {self.path}: {error.strerror or error}") from None
        return self._count()

    def _check(self, found: Mapping[str, Any]) -> None:
        other = sorted(key for key in {**self._origin, **found} if self._origin.get(key) != found.get(key))
        if other:
            raise InputError(
                f"{self.path} holds finished shards of another translation (other: {', '.join(other)}); "
                "repeat the command they are of, or remove the folder to start over"
            )

    def has(self, number: int) -> bool:
        return self._shard(number).exists()

    def write(self, number: int, lines: list[str]) -> None:
        with replacing(self._shard(number)) as path:
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="replace", newline="\n")

    def join(self) -> None:
        """Make the output of all the shards, in order, and remove the folder."""
        with replacing_named(self._output) as path, path.open("wb") as output:
            for number in range(self._count()):
                with self._shard(number).open("rb") as shard:
                    shutil.copyfileobj(shard, output)
        self._remove()

    def remove_if_empty(self) -> None:
        """Leave no folder behind that holds nothing finished."""
        if not self._count():
            self._remove()

    def _remove(self) -> None:
        # The manifest goes last: what a kill leaves in between is still known as a folder of ours.
        for path in sorted(self.path.iterdir(), key=lambda path: path.name == _MANIFEST):
            path.unlink()
        self.path.rmdir()

    def _count(self) -> int:
        return sum(1 for _ in self.path.glob("*.txt"))

    def _shard(self, number: int) -> Path:
        return self.path / f"{number:08d}.txt"
