"""A line taken apart: in pieces that each take a moment to look through, between breaks, and without its markup."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from zhuyi.data.normalization import split_clauses, split_sentences
from zhuyi.tasks.demands import Mark
from zhuyi.tasks.glossary import Glossary
from zhuyi.tasks.placeholders import Kept, find_kept_within, may_keep
from zhuyi.tasks.terms import joined

# Characters of a line that are looked through at once: a moment's work, between the steps of others' searches.
LONGEST_PIECE = 2000
_WORD = re.compile(r"\S*+\s*+")
_TAG_NAME = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]*)")
_ALONE = frozenset(("img", "wbr", "input", "embed", "source"))
_SPACES = frozenset(("&nbsp;", "&#160;", "&ensp;", "&emsp;", "&thinsp;"))


def line_pieces(line: str, glossary: Glossary | None, *, placeholders: bool) -> Iterator[tuple[str, list[Kept]]]:
    """A line whole, or a long one in pieces, each with what is kept in it.

    They end where no sentence goes on, or else no clause or no word; never within what is kept or an entry of the
    glossary: one that holds such a thing may be longer than others.
    """
    here, may_hold = 0, placeholders and may_keep(line)
    while here < len(line):
        end, kept = len(line), list[Kept]()
        if may_hold or glossary is not None:
            end, kept = _next_piece(line, here, glossary, may_hold)
        yield line[here:end], [Kept(each.start - here, each.end - here, each.kind) for each in kept]
        here = end


def _next_piece(line: str, here: int, glossary: Glossary | None, may_hold: bool) -> tuple[int, list[Kept]]:
    """Where the piece that begins here ends, and what is kept in it.

    Of the text that is looked at, the second half is there to see what goes on; where it holds no end, twice as much
    is looked at.
    """
    size, kept = 2 * LONGEST_PIECE, list[Kept]()
    while True:
        known = kept[-1].end if kept else here
        if may_hold and known < min(here + size, len(line)):
            kept += find_kept_within(line, known, min(here + size, len(line)))
        if here + size >= len(line):
            return len(line), kept
        whole = [(each.start, each.end) for each in kept]
        seen = max(here + size, whole[-1][1] if whole else 0)
        terms = [] if glossary is None else _terms(line, here, seen, kept, glossary)
        text = line[here : here + size]
        for split in (split_sentences, split_clauses, _WORD.findall, joined, list):
            for length in sorted(accumulate(map(len, split(text))), reverse=True):
                end = here + length
                if 0 < length <= size // 2 and not _is_within(whole, end) and not _is_within(terms, end):
                    return end, kept[: bisect_right(whole, (end, 0))]
        size *= 2


def _terms(line: str, begin: int, end: int, kept: Sequence[Kept], glossary: Glossary) -> list[tuple[int, int]]:
    """Where the entries of a glossary stand in a stretch of a line; its last letters may be of one that goes on."""
    terms, start = list[tuple[int, int]](), begin
    within = [Kept(each.start - begin, each.end - begin, each.kind) for each in kept]
    for text, kept_here, after in between_breaks(line[begin:end], within):
        bare, taken, marks = without_marks(text, kept_here)
        places = [mark.place + mark.is_space for mark in marks]
        shifts = [0, *accumulate(len(mark.text) - mark.is_space for mark in marks)]
        sure = len(bare) if after else max(0, len(bare) - glossary.longest)
        for match in glossary.matches(bare, [place[:2] for place in taken]):
            if match.start < sure:
                first, last = (place + shifts[bisect_right(places, place)] for place in (match.start, match.end - 1))
                terms.append((start + first, start + last + 1))
        if not after:
            terms.append((start + sure + shifts[bisect_right(places, sure)], end))
        start += len(text) + len(after)
    return terms


def _is_within(stretches: Sequence[tuple[int, int]], place: int) -> bool:
    """Whether a place lies inside one of some stretches, which are in order."""
    before = bisect_left(stretches, (place, 0)) - 1
    return before >= 0 and place < stretches[before][1]


def between_breaks(line: str, kept: Sequence[Kept]) -> Iterator[tuple[str, list[Kept], str]]:
    """Stretches of a line, with what is kept in each, and the break after it."""
    start, within = 0, list[Kept]()
    for each in kept:
        if each.kind == "break":
            yield line[start : each.start], within, line[each.start : each.end]
            start, within = each.end, []
        else:
            within.append(Kept(each.start - start, each.end - start, each.kind))
    yield line[start:], within, ""


def without_marks(text: str, kept: Sequence[Kept]) -> tuple[str, list[tuple[int, int, str]], list[Mark]]:
    """A text without markup: where its placeholders are, and where its marks were."""
    bare, taken, marks, here = "", list[tuple[int, int, str]](), list[Mark](), 0
    for each in kept:
        bare += text[here : each.start]
        raw, here = text[each.start : each.end], each.end
        if each.kind in ("name", "number"):
            taken.append((len(bare), len(bare) + len(raw), each.kind))
            bare += raw
            continue
        marks.append(_mark(len(bare), raw))
        if raw.lower() in _SPACES and not (bare[-1:].isspace() or text[here : here + 1].isspace()):
            marks[-1] = replace(marks[-1], is_space=True)
            bare += " "
    return bare + text[here:], taken, marks


def _mark(place: int, raw: str) -> Mark:
    tag = _TAG_NAME.match(raw)
    is_alone = tag is None or raw.endswith("/>") or tag[2].lower() in _ALONE
    return Mark(place, raw) if tag is None or is_alone else Mark(place, raw, tag[2].lower(), tag[1] == "/")
