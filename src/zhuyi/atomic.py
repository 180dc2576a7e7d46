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


def replacing_named(path: str | Path) -> contextlib.AbstractContextManager[Path]:
    """The same for a file that a person named: where that is a symbolic link, what it leads to is replaced.

    Raises: InputError: as `check_file`.
    """
    check_file(Path(path))
    return replacing(_behind_links(Path(path)))


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Fill the folder this gives; on success it becomes `out` at once, on failure nothing is left of it.

    Folders above `out` that are missing are made.

    Raises: InputError: `out` exists and is not an empty folder, or something above it is no folder.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists already; give a new folder by --out, or remove that one")
    missing = [folder for folder in out.parents if not folder.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{out} cannot be written: {out.parent} is no folder; give another --out") from None
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
        for folder in missing:
            with contextlib.suppress(OSError):  # not empty: `out` is there, or somebody else's
                folder.rmdir()


def check_file(path: Path, *sources: str | Path | None) -> None:
    """Say before any work is done that its file could not be written.

    Args:   sources: what is read for it, and not to be lost if it is a file; it may be a text, or None.
    Raises: InputError: there is no folder for it, it is one itself, a device, a pipe, where standard output goes, or
            what is read.
    """
    if path.exists() and any(s is not None and os.path.exists(s) and path.samefile(s) for s in sources):
        raise InputError(f"{path} is what is read: it would be lost; give another name for what is written")
    if path.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder; give a file's name")
    if path.exists() and (not path.is_file() or _is_standard_output(path)):
        what = "standard output" if _is_standard_output(path) else "no regular file"
        raise InputError(f"{path} cannot be written: it is {what}; give another name, or - for standard output")
    folder = _behind_links(path).parent
    if not folder.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {folder}; make it first")


def _is_standard_output(path: Path) -> bool:
    """Whether what is there is what standard output goes to, a regular file it may be: /dev/stdout leads there too."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # it is closed
        return False


def _behind_links(path: Path) -> Path:
    """What a symbolic link leads to in the end, there or not; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def sync(path: Path) -> None:
    """Have a file or a folder reach the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder, and needs no sync of one
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
