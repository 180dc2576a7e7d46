"""Where the tags of a text go in its translation: around the words that the words between them became."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zhuyi.data.normalization import contains_han


class Link(NamedTuple):
    """A stretch of the source from `source` to `source_end`, and the stretch of the target that came from it."""

    source: int
    source_end: int
    target: int
    target_end: int


@dataclass
class Span:
    """An element, from where to where in its text; or, from a place to the same place, markup without text.

    Args:   open, close: its tags, or all of what is not translated in `open`.
            parent: the number of the element that it stands in; -1 where there is none.
            kept: the words that stand in the text for what is not translated.
    """

    start: int
    end: int
    open: str
    close: str = ""
    parent: int = -1
    kept: str = ""


Range = tuple[int, int]


def place(
    source: str,
    spans: Sequence[Span],
    target: str,
    links: Sequence[Link],
    written: Callable[[str], str] = str,
    *,
    whole: Sequence[Range] = (),
) -> str:
    """The target with every tag of the spans once, nested as in the source.

    Args:   written: how what stands between tags is written.
            whole: stretches of the target that no tag goes into.
    """
    children: dict[int, list[int]] = {}
    for number, span in enumerate(spans):
        children.setdefault(span.parent, []).append(number)
    if source == target:
        links = [Link(i, i + 1, i, i + 1) for i in range(len(source))]
    else:
        links = sorted(links or _by_proportion(source, target), key=lambda link: link.target)

    whole = _joined(whole)
    held = _held(spans, target, whole)

    def inside_of(parent: int, within: Range, of: Range) -> str:
        """What stands inside of an element; `of` is its range of the source."""
        numbers = children.get(parent, [])
        wanted = [_wanted(spans[number], source, target, within, of, links, held.get(number)) for number in numbers]
        wanted = [_around(each, whole) for each in wanted]
        ranges = _apart(wanted, within, [number in held for number in numbers])
        found, here = "", within[0]
        for number, (begin, end) in sorted(zip(numbers, ranges, strict=True), key=lambda each: (each[1][0], each[0])):
            span, begin = spans[number], max(begin, here)
            inside = "" if span.kept else inside_of(number, (begin, max(begin, end)), (span.start, span.end))
            found += written(target[here:begin]) + span.open + inside + span.close
            here = max(begin, end)
        return found + written(target[here : within[1]])

    return inside_of(-1, (0, len(target)), (0, len(source)))


def _held(spans: Sequence[Span], target: str, whole: Sequence[Range]) -> dict[int, Range]:
    """Where the words stand that are not translated, each once; and what the elements around them must go around."""
    found: dict[int, Range] = {}
    read: dict[str, int] = {}
    for number, span in enumerate(spans):
        begin = target.find(span.kept, read.get(span.kept, 0)) if span.kept else -1
        while begin >= 0 and _around((begin, begin + len(span.kept)), whole) != (begin, begin + len(span.kept)):
            begin = target.find(span.kept, begin + 1)
        if begin < 0:
            continue
        end = read[span.kept] = begin + len(span.kept)
        while number >= 0:
            low, high = found.get(number, (begin, end))
            found[number] = min(low, begin), max(high, end)
            number = spans[number].parent
    return found


def _wanted(
    span: Span, source: str, target: str, within: Range, of: Range, links: Sequence[Link], held: Range | None
) -> Range:
    """The stretch of the target that a span would like to go around.

    Args:   held: what it must go around.
    """
    if span.kept and held:
        return held
    if span.start == span.end or span.kept:
        at = _after(span.start, within, links)
        if source[: span.start].endswith(" ") and target[at : within[1]].startswith(" "):
            at += 1
        return at, at
    if source[span.start : span.end].strip() == source[slice(*of)].strip():
        return within
    hits = [
        within[0] <= link.target
        and link.target_end <= within[1]
        and link.source < span.end
        and link.source_end > span.start
        for link in links
    ]
    runs = list(_runs(hits))
    if not runs and held:
        return held
    if not runs:
        at = _after(span.start, within, links)
        return at, at
    first, last = max(runs, key=lambda run: links[run[1]].target_end - links[run[0]].target)
    begin, end = links[first].target, max(link.target_end for link in links[first : last + 1])
    return (min(begin, held[0]), max(end, held[1])) if held else (begin, end)


def _runs(hits: Sequence[bool]) -> Iterator[Range]:
    """Hits in a row, by their first and last number; one miss between two does not part them."""
    first = last = -1
    for number, hit in enumerate(hits):
        if not hit:
            continue
        if first >= 0 and number - last > 2:
            yield first, last
            first = -1
        first, last = (number if first < 0 else first), number
    if first >= 0:
        yield first, last


def _after(start: int, within: Range, links: Sequence[Link]) -> int:
    """Where in the target what stands at a place of the source goes: behind what came from the words before it."""
    before = [link for link in links if link.source_end <= start and within[0] <= link.target_end <= within[1]]
    if before:
        return max(before, key=lambda link: (link.source_end, link.target_end)).target_end
    return within[0]


def _joined(ranges: Sequence[Range]) -> list[Range]:
    """The stretches in order, those that overlap as one."""
    found: list[Range] = []
    for begin, end in sorted(ranges):
        if found and begin < found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def _around(wanted: Range, whole: Sequence[Range]) -> Range:
    """A range that holds all or nothing of each stretch, in order, that must stay whole; a place goes behind it."""
    begin, end = wanted
    for low, high in (_at(whole, begin), _at(whole, end)):
        if begin == end:
            return high, high
        begin, end = min(begin, low), max(end, high)
    return begin, end


def _at(whole: Sequence[Range], place: int) -> Range:
    """The stretch that a place is inside of; where there is none, the place."""
    before = bisect_left(whole, (place, 0)) - 1
    return whole[before] if before >= 0 and place < whole[before][1] else (place, place)


def _apart(wanted: Sequence[Range], within: Range, are_held: Sequence[bool]) -> list[Range]:
    """Ranges that do not overlap, close to those that were wanted: those held have theirs first, then short ones."""
    taken: list[Range] = []
    found = list(wanted)
    sizes = [end - begin for begin, end in wanted]
    for number in sorted(range(len(wanted)), key=lambda i: (not are_held[i], not sizes[i], sizes[i])):
        begin, end = (min(max(x, within[0]), within[1]) for x in wanted[number])
        gaps = list(_gaps(taken, within))
        low, high = max(gaps, key=lambda gap: (min(end, gap[1]) - max(begin, gap[0]), gap[0] - gap[1]))
        begin = min(max(begin, low), high)
        found[number] = begin, max(begin, min(end, high))
        if found[number][0] < found[number][1]:
            taken.append(found[number])
    return found


def _gaps(taken: Sequence[Range], within: Range) -> Iterator[Range]:
    """What of a range is free, empty stretches between neighbours included."""
    here = within[0]
    for begin, end in sorted(taken):
        yield here, begin
        here = end
    yield here, within[1]


def _by_proportion(source: str, target: str) -> list[Link]:
    """Words to words by their place alone, where nobody knows better."""
    words, others = _words(source), _words(target)
    return [
        Link(*words[min(len(words) - 1, (2 * i + 1) * len(words) // (2 * len(others)))], *word)
        for i, word in enumerate(others)
        if words
    ]


def _words(text: str) -> list[Range]:
    """Stretches without space; each Chinese character by itself."""
    found: list[Range] = []
    for place, character in enumerate(text):
        if character.isspace():
            continue
        goes_on = found and found[-1][1] == place and not contains_han(text[place - 1 : place + 1])
        if goes_on:
            found[-1] = found[-1][0], place + 1
        else:
            found.append((place, place + 1))
    return found
