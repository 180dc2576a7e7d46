"""Recordings and what is said in them: from a table, a folder or a tar, each that cannot be used counted and named."""

import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from zhuyi.data.audio import ENDINGS, check_installed, read_audio
from zhuyi.data.pairs import NO_TEXT, UNREADABLE_SOUND, CleaningReport, read_pairs
from zhuyi.errors import InputError

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Recording:
    """One recording; an empty text says that there is no speech in it.

    Args:   name: its path, or its name inside a tar.
            samples: (N,) float32, 16,000 a second.
    """

    name: str
    text: str
    samples: np.ndarray


@dataclass(frozen=True)
class Names:
    """What a recording's name says, where a folder or a tar has names alone.

    Args:   chosen: a regular expression; only names that it is found in are read.
            text: a regular expression whose first group, found in the name, is the text; empty: the text is in a file
            beside the recording, of the same name but for its ending in .txt.
            words: what such a text stands for: `0` for zero, say.
    """

    chosen: str = ""
    text: str = ""
    words: Mapping[str, str] = field(default_factory=dict)

    def text_of(self, name: str, beside: Callable[[], str | None]) -> str | None:
        """The text, or None where there is none."""
        if not self.text:
            return beside()
        found = re.search(self.text, name)
        return self.words.get(found[1], found[1]) if found else None


def read_recordings(
    sources: Sequence[str], names: Names, report: CleaningReport, columns: tuple[int, ...] = (1, 2)
) -> Iterator[Recording]:
    """The recordings of all sources, in order; those that cannot be used are counted in the report and skipped.

    Args:   sources: folders, tars, or tables `path<TAB>text` whose paths begin where the table lies.
            columns: of the tables, from 1.
    Raises: InputError: no such source, nothing in it that could be used, or the extra `audio` is not installed.
    """
    check_installed()
    if not sources:
        raise InputError("no recordings: give a table of path<TAB>text, a folder or a tar")
    for source in sources:
        if os.path.isdir(source):
            yield from _of_folder(Path(source), names, report)
        elif source.endswith(TARS):
            yield from _of_tar(source, names, report)
        else:
            yield from _of_table(source, names, report, columns)
    if not report.kept:
        raise InputError(f"{' '.join(sources)}: no recording that could be used. {report.summary()}")


def files_of(sources: Sequence[str], columns: tuple[int, ...] = (1, 2)) -> list[str]:
    """Every file that the sources' recordings are made from, to tell one state of them from another."""
    found: list[str] = []
    for source in sources:
        if os.path.isdir(source):
            found += [str(path) for path in _files(Path(source), (*ENDINGS, ".txt"))]
            continue
        found.append(source)
        if not source.endswith(TARS):
            pairs = read_pairs(source, columns=columns, report=CleaningReport())
            found += [path for pair in pairs if os.path.isfile(path := _beside(source, pair.source))]
    return found


def sound_files(folder: str) -> list[str]:
    """The recordings below a folder, in the order of their names."""
    return [str(path) for path in _files(Path(folder), ENDINGS)]


def _of_table(source: str, names: Names, report: CleaningReport, columns: tuple[int, ...]) -> Iterator[Recording]:
    for pair in read_pairs(source, columns=columns, report=report):
        if not re.search(names.chosen, pair.source):
            report.total -= 1
            continue
        read = partial(read_audio, _beside(source, pair.source))
        yield from _usable(pair.source, pair.target.strip(), read, pair.origin, report)


def _of_folder(folder: Path, names: Names, report: CleaningReport) -> Iterator[Recording]:
    for path in _files(folder, ENDINGS):
        name = path.relative_to(folder).as_posix()
        if re.search(names.chosen, name):
            report.total += 1
            text = names.text_of(name, partial(_text_in, path.with_suffix(".txt")))
            yield from _usable(name, text, partial(read_audio, path), (str(folder), name), report)


def _of_tar(source: str, names: Names, report: CleaningReport) -> Iterator[Recording]:
    texts = {} if names.text else {name: _decoded(content) for name, content in _members(source, (".txt",))}
    for name, content in _members(source, ENDINGS):
        if re.search(names.chosen, name):
            report.total += 1
            text = names.text_of(name, partial(texts.get, str(PurePosixPath(name).with_suffix(".txt"))))
            read = partial(read_audio, f"{source}:{name}", content)
            yield from _usable(name, text, read, (source, name), report)


def _usable(
    name: str, text: str | None, read: Callable[[], np.ndarray], origin: tuple[str, int | str], report: CleaningReport
) -> Iterator[Recording]:
    """The recording, unless it lacks a text or cannot be read."""
    if text is None:
        report.drop(NO_TEXT, origin)
        return
    try:
        samples = read()
    except InputError:
        report.drop(UNREADABLE_SOUND, origin)
        return
    report.kept += 1
    yield Recording(name, text, samples)


def _beside(table: str, path: str) -> str:
    """A path in a table begins where the table lies."""
    return os.path.join(os.path.dirname(table), path)


def _files(folder: Path, endings: Sequence[str]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())


def _members(source: str, endings: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Names and contents, read in one go and never unpacked to the disk."""
    try:
        with tarfile.open(source, "r|*") as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(tuple(endings)):
                    file: IO[bytes] | None = tar.extractfile(member)
                    assert file is not None
                    yield str(PurePosixPath(member.name)), file.read()  # `tar -C folder .` writes ./a.wav
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{source}: not a tar that can be read ({reason}); check the path, or copy it again") from None


def _text_in(path: Path) -> str | None:
    try:
        return _decoded(path.read_bytes())
    except OSError:
        return None


def _decoded(content: bytes) -> str | None:
    try:
        return " ".join(content.decode("utf-8-sig").split())
    except UnicodeDecodeError:
        return None
