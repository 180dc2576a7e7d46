"""A glossary: what words of a source are to become in its translation."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from zhuyi.data.pairs import read_lines
from zhuyi.errors import InputError
from zhuyi.tasks.terms import joins

# What people have between columns in place of the tab.
_OTHER_SEPARATOR = re.compile(r"->|=>|[→=,:;，：；]")


@dataclass(frozen=True)
class Entry:
    """Words, and what they must become.

    Args:   source: as it stands in a text, in whole words where its script has them; without capitals it is found
            whatever the capitals. Empty: the entry is of every text.
            targets: any one of them; one that is `source` itself: it is not translated.
    Raises: InputError: there is no target, or an empty one.
    """

    source: str
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.targets or not all(target.strip() for target in self.targets):
            raise InputError(f"the glossary's entry '{self.source}' has an empty translation; leave the entry out")


@dataclass(frozen=True)
class Match:
    """Where an entry stands in a text."""

    start: int
    end: int
    entry: Entry


class Glossary:
    """Entries, found in a text from left to right, the longest first.

    Args:   entries: of equal sources the later one counts, those of every text apart.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        self.always = tuple(dict.fromkeys(entry for entry in entries if not entry.source))
        self._by_beginning: dict[str, dict[str, Entry]] = {}
        for entry in entries:
            if entry.source:
                self._by_beginning.setdefault(_lower(entry.source[:2]), {})[entry.source] = entry
        for beginning, found in self._by_beginning.items():
            self._by_beginning[beginning] = dict(sorted(found.items(), key=lambda item: (-len(item[0]), item[0])))
        self._entries = tuple(entries)
        self.longest = max((len(entry.source) for entry in entries), default=0)

    def reading(self, read: Callable[[str], str]) -> Self:
        """The same glossary, for texts that are read so."""
        return type(self)(Entry(read(entry.source), entry.targets) for entry in self._entries)

    def __repr__(self) -> str:
        return f"Glossary({self._entries!r})"

    def matches(self, text: str, taken: Sequence[tuple[int, int]] = ()) -> Iterator[Match]:
        """Where the entries stand, none in another.

        Args:   taken: stretches that belong to something else, in order.
        """
        lowered, here, owners = _lower(text), 0, iter((*taken, (len(text), len(text))))
        start, end = next(owners)
        while here < len(text):
            while here >= end and end < len(text):
                start, end = next(owners)
            if start <= here < end:
                here = end
                continue
            found = self._match(text, lowered, here, start if start >= here else len(text))
            if found:
                yield found
            here = found.end if found else here + 1

    def _match(self, text: str, lowered: str, start: int, limit: int) -> Match | None:
        """The longest entry that begins here."""
        if start and joins(text[start]) and joins(text[start - 1]):
            return None
        for beginning in (lowered[start : start + 2], lowered[start]):
            for source, entry in self._by_beginning.get(beginning, {}).items():
                end = start + len(source)
                if end > limit or not (lowered if source == _lower(source) else text).startswith(source, start):
                    continue
                if end == len(text) or not (joins(text[end - 1]) and joins(text[end])):
                    return Match(start, end, entry)
        return None


# Source to target, or to several of which any one will do.
GlossaryLike = Glossary | Mapping[str, str | Sequence[str]]


def read_glossary(path: str | Path) -> Glossary:
    """Read a file of entries: one a line, `source<TAB>target`, or the source alone for what is not translated.

    Several targets have `|` between them. Empty lines and lines that begin with `#` are left out; columns after the
    second too.

    Raises: InputError: there is no such file, or a line is no entry or has another sign for the tab; it names both.
    """
    entries: list[Entry] = []
    any_tab = False
    wrong: tuple[int, str] | None = None
    for number, line in enumerate(read_lines(str(path)), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        any_tab = any_tab or "\t" in line
        if wrong is None and (sign := _sign_between_words(line)):
            wrong = number, sign
        source, *columns = (column.strip() for column in line.removeprefix("\ufeff").split("\t"))
        targets = tuple(target.strip() for target in (columns[0] if columns else source).split("|"))
        if not source or not all(targets):
            what = "an empty target" if source else "no source"
            raise InputError(
                f"{path}, line {number}: {what}; expected source<TAB>target (several targets with | between them), "
                "or the source alone for what is not to be translated"
            )
        entries.append(Entry(source, (source,) if not columns else targets))
    if wrong and not any_tab:
        raise InputError(
            f"{path}, line {wrong[0]}: '{wrong[1]}' between two words, and no tab in the file; expected "
            "source<TAB>target; if the whole line is not to be translated, write it on both sides of a tab"
        )
    return Glossary(entries)


def _sign_between_words(line: str) -> str | None:
    """The first sign that other tables have between columns, if words stand on both sides (not so in `12:30`)."""
    sign = _OTHER_SEPARATOR.search(line)
    if sign is None:
        return None
    before, after = line[: sign.start()].rstrip(), line[sign.end() :].lstrip()
    return sign[0] if before[-1:].isalpha() and after[:1].isalpha() else None


def make_glossary(entries: GlossaryLike) -> Glossary:
    """A glossary of what a caller has; an empty source is of every text."""
    if isinstance(entries, Glossary):
        return entries
    pairs = ((source, (each,) if isinstance(each, str) else tuple(each)) for source, each in entries.items())
    return Glossary(Entry(source, targets) for source, targets in pairs)


def _lower(text: str) -> str:
    """Small letters, as many as there were letters."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
