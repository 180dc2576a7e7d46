"""Files that appear whole or not at all, whenever the process is killed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from zhuyi.errors import InputError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write to the path this gives; on success it takes the place of `path` at once, on failure nothing changes."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)  # what a kill left; a link that somebody laid there would lead elsewhere
    try:
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
        sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Fill the folder this gives; on success it becomes `out` at once, on failure nothing is left of it.

    Raises: InputError: `out` exists and is not an empty folder, or its parent does not exist.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists already; give a new folder by --out, or remove that one")
    if not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: there is no folder {out.parent}; make it first")
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def sync(path: Path) -> None:
    """Have a file or a folder reach the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder, and needs no sync of one
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
