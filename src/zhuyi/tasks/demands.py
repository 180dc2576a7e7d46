"""What a sentence's translation must hold, and how what stood in for something else becomes that again."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import Term, occurrences
from zhuyi.tasks.tag_placement import Link, Span, place

Range = tuple[int, int]
NEAR, REACH = 12, 400  # how far to look for where a text goes on as it was before normalisation
DEEPEST = 24  # tags within tags; what lies deeper stands alone


@dataclass(frozen=True)
class Fill:
    """A text that is no language: the search writes `stand_in`, the tokens of `term`, in its place."""

    term: Term
    stand_in: str
    text: str


@dataclass(frozen=True)
class Mark:
    """Markup between words, in front of the character `place` of a source.

    Args:   element: of a tag, its name; "" where it stands alone.
            closes: an end tag.
            is_space: it stands where the model reads a space.
    """

    place: int
    text: str
    element: str = ""
    closes: bool = False
    is_space: bool = False


@dataclass(frozen=True)
class Demands:
    """What a sentence's translation must hold.

    Args:   terms: what must be written, once for each time.
            fills: in the source's order; their terms are among `terms`.
            source: what the model reads, where there are marks.
            marks: in the source's order.
            lead, trail: what goes before and after the translation.
            is_glued: whether what follows in the text touches it.
            lost: what of the fills could not be written, and goes behind the translation.
    """

    terms: tuple[Term, ...] = ()
    fills: tuple[Fill, ...] = ()
    source: str = ""
    marks: tuple[Mark, ...] = ()
    lead: str = ""
    trail: str = ""
    is_glued: bool = False
    lost: tuple[str, ...] = ()

    def text(self, tokens: Sequence[int], tokenizer: Tokenizer, link: Callable[[list[Range]], list[Link]]) -> str:
        """The text of an answer.

        Args:   link: finds what came from where, for the stretches of text of `tokens`.
        """
        text, ranges = self._filled(tokens, tokenizer)
        if self.marks:
            terms = [(ranges[start][0], ranges[end - 1][1]) for start, end, _ in occurrences(tokens, self.terms)]
            text = place(self.source, _spans(self.marks), text, link(ranges), whole=terms)
            for space in (mark.text for mark in self.marks if mark.is_space):
                text = text.replace(f" {space}", space).replace(f"{space} ", space)
        return self.lead + " ".join((text, *self.lost)) + self.trail

    def _filled(self, tokens: Sequence[int], tokenizer: Tokenizer) -> tuple[str, list[Range]]:
        """The text with everything in the place of what stood in for it, and the stretch of each token."""
        pieces = split_text(tokens, tokenizer)
        waiting: dict[Term, list[Fill]] = {}
        for fill in self.fills:
            waiting.setdefault(fill.term, []).append(fill)
        found = {start: (end, term) for start, end, term in occurrences(tokens, waiting)}
        text, ranges, here = "", list[Range](), 0
        while here < len(tokens):
            end, term = found.get(here, (here + 1, None))
            piece = "".join(pieces[here:end])
            if term is not None and waiting[term]:
                fill = waiting[term].pop(0)
                spaces = piece[: len(piece) - len(piece.lstrip())]
                in_its_place = fill.stand_in in piece
                piece = piece.replace(fill.stand_in, fill.text, 1) if in_its_place else spaces + fill.text
            stretch = len(text) + len(piece) - len(piece.lstrip()), len(text) + len(piece)
            ranges += [stretch] * (end - here)
            text, here = text + piece, end
        return text, ranges


def split_text(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """What each token adds to the text; together they are the text."""
    ends = [0]
    for count in range(1, len(ids) + 1):
        ends.append(max(ends[-1], len(tokenizer.decode(ids[:count]))))
    text = tokenizer.decode(ids)
    ends[-1] = max(ends[-1], len(text))
    return [text[begin:end] for begin, end in pairwise(ends)]


def token_ranges(ids: Sequence[int], tokenizer: Tokenizer, text: str) -> list[Range]:
    """The stretches of a text that its tokens were read from, whatever normalisation has made of it."""
    pieces = split_text(ids, tokenizer)
    read = "".join(pieces)
    places = list(range(len(text) + 1))
    if read != text:
        places = _places(read, text)
    ranges, here = [], 0
    for piece in pieces:
        begin, here = here + len(piece) - len(piece.lstrip()), here + len(piece)
        ranges.append((places[begin], places[here]))
    return ranges


def _places(read: str, text: str) -> list[int]:
    """Where each character of one text stands in the other, as far as they are the same; in time linear in them."""
    places = [0] * (len(read) + 1)
    here = there = 0
    while here < len(read):
        begun = there
        if read[here : here + 1] == text[there : there + 1]:
            skipped, there = 1, there + 1
        elif read[here].isspace():
            skipped = 1
        elif _is_silent(text[there : there + 1]):
            skipped, there = 0, there + 1
        else:
            skipped, others = _to_the_same(read[here : here + REACH], text[there : there + REACH])
            there += others
        for i in range(skipped):
            places[here + i] = min(begun + i, there, len(text))
        here += skipped
    places[-1] = len(text)
    return places


def _is_silent(character: str) -> bool:
    """White space, signs of control and accents, of which normalisation leaves out any number."""
    return bool(character) and unicodedata.category(character)[0] in "ZCM"


def _to_the_same(read: str, text: str) -> tuple[int, int]:
    """How many characters of each to pass by, to where they go on alike: as few as possible."""
    for both in range(1, NEAR):
        for few in sorted(range(both + 1), key=lambda few: abs(2 * few - both)):
            if few < len(read) and read[few : few + 2] == text[both - few : both - few + 2]:
                return few, both - few
    found = text.find(read[:2])  # what the tokenizer does not know is not there
    return (0, found) if found > 0 else (1, min(1, len(text)))


def _spans(marks: Sequence[Mark]) -> list[Span]:
    """Elements, where a tag has its end tag and is not too deep within others, and single marks."""
    spans: list[Span] = []
    opened: list[tuple[int, str]] = []  # numbers of spans, elements
    for mark in marks:
        match = next((i for i in reversed(range(len(opened))) if opened[i][1] == mark.element), None)
        if mark.closes and match is not None:
            number = opened[match][0]
            for unclosed, _ in opened[match + 1 :]:
                spans[unclosed].end = spans[unclosed].start
            del opened[match:]
            spans[number].end, spans[number].close = mark.place, mark.text
            continue
        parent = opened[-1][0] if opened else -1
        spans.append(Span(mark.place, mark.place, mark.text, parent=parent))
        if mark.element and not mark.closes and len(opened) < DEEPEST:
            opened.append((len(spans) - 1, mark.element))
    return _reparented(spans)


def _reparented(spans: list[Span]) -> list[Span]:
    """Nothing stands in what turned out to have no end."""
    for span in spans:
        while span.parent >= 0 and not spans[span.parent].close:
            span.parent = spans[span.parent].parent
    return spans
