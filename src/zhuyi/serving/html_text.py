"""HTML for translation: what of it is text, a sentence or a paragraph at a time, and its markup put around the answers.

A stretch of text ends at whatever is no inline element. Its inline tags are put around those words of the translation
that the words between them became (`zhuyi.tasks.tag_placement`): each exactly once, nested as they were.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby

from zhuyi.serving.html_tokens import SPACE, Kind, Token, cut, read_text
from zhuyi.tasks.placeholders import find_kept
from zhuyi.tasks.tag_placement import Link, Span, place

# Elements that a sentence goes on through, and of these the ones that have no end tag.
INLINE = frozenset({
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "data", "del", "dfn", "em", "font", "i", "img",
    "ins", "label", "mark", "q", "s", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u",
    "wbr",
})  # fmt: skip
ALONE = frozenset({"img", "wbr"})
# What is in these is no prose; those of the second row stand within sentences.
NOT_PROSE = frozenset({
    "script", "style", "template", "noscript", "textarea", "pre", "svg", "math", "object", "iframe", "xmp",
    "noembed", "noframes",
})  # fmt: skip
KEPT_WORDS = frozenset({"code", "kbd", "samp", "var"})
VOID = frozenset({
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track",
    "wbr",
})  # fmt: skip
# Deeper, and more in one sentence, than anybody has tags: there each piece between two is translated by itself.
DEEPEST, MOST = 24, 100
LONGEST_KEPT = 60  # characters of an untranslated element that are shown to the model as a word of the sentence


@dataclass
class Stretch:
    """A text with the markup inside it; `lead` and `trail` are the white space around it.

    Args:   keep: what the translation should have as it is, to be found again.
    """

    text: str = ""
    lead: str = ""
    trail: str = ""
    spans: list[Span] = field(default_factory=list)

    @property
    def keep(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(span.kept for span in self.spans if span.kept))

    def add(self, raw: str) -> None:
        """More text, whose white space counts once, as HTML has it."""
        if not self.text:
            rest = raw.lstrip(SPACE)
            self.lead = self.lead or raw[: len(raw) - len(rest)]
            raw = rest
        self.trail = raw[len(raw.rstrip(SPACE)) :]
        new = re.sub(f"[{SPACE}]+", " ", read_text(raw))
        self.text += new.removeprefix(" ") if self.text.endswith(" ") else new

    def close(self) -> "Stretch":
        """The stretch without space at its end, which no tag goes around."""
        self.text = self.text.removesuffix(" ")
        for span in self.spans:
            span.start, span.end = min(span.start, len(self.text)), min(span.end, len(self.text))
        return self

    def rendered(self, translation: str, links: Sequence[Link]) -> str:
        """The markup around a translation of the text.

        Args:   links: which stretches of the translation came from which of the text; the more, the better placed.
        """
        as_html = functools.partial(escape, quote=False)
        whole = [(kept.start, kept.end) for kept in find_kept(translation)]
        return self.lead + place(self.text, self.spans, translation, links, as_html, whole=whole) + self.trail


Part = str | Stretch


def stretches(html: str) -> list[Part]:
    """HTML as what stays, and what is to be translated, in order."""
    parts: list[Part] = []
    for is_inline, tokens in groupby(_units(html), lambda unit: unit.is_inline):
        run = list(tokens)
        if not is_inline:
            parts += [unit.raw for unit in run]
        elif _is_nested(run):
            parts += _stretch(run)
        else:
            for unit in run:
                parts += _stretch([unit]) if _is_text(unit) else [unit.raw]
    return parts


def join(parts: Sequence[Part], translations: Sequence[tuple[str, Sequence[Link]]]) -> str:
    """HTML again, of parts and a translation with its links for each stretch among them."""
    found = iter(translations)
    return "".join(part if isinstance(part, str) else part.rendered(*next(found)) for part in parts)


@dataclass(frozen=True)
class _Unit:
    """A token, or in its place the whole of an element that is not translated, and the words in it."""

    raw: str
    is_inline: bool
    token: Token | None = None
    words: str = ""


def _units(html: str) -> list[_Unit]:
    units: list[_Unit] = []
    kept: list[Token] = []
    depth = 0
    for token in cut(html):
        if kept:
            kept.append(token)
            depth += (token.name == kept[0].name) * ((token.kind is Kind.OPEN) - (token.kind is Kind.CLOSE))
            if depth == 0:
                units.append(_whole(kept))
                kept = []
        elif token.kind is Kind.OPEN and token.name not in VOID and _is_kept(token):
            kept, depth = [token], 1
        else:
            units.append(_Unit(token.raw, _is_inline(token), token))
    if kept:  # without an end: it goes to the text's
        units.append(_Unit("".join(token.raw for token in kept), False))
    return units


def _whole(tokens: Sequence[Token]) -> _Unit:
    raw = "".join(token.raw for token in tokens)
    words = read_text("".join(token.raw for token in tokens if token.kind is Kind.TEXT))
    return _Unit(raw, tokens[0].name in INLINE | KEPT_WORDS, None, words)


def _is_kept(token: Token) -> bool:
    classes = token.attributes.get("class", "").split()
    is_marked = token.attributes.get("translate", "").lower() == "no" or "notranslate" in classes
    return is_marked or token.name in NOT_PROSE | KEPT_WORDS


def _is_inline(token: Token) -> bool:
    if token.kind is Kind.OTHER:
        return token.raw.startswith("<!--") and token.raw.endswith("-->")
    return token.kind is Kind.TEXT or token.name in INLINE


def _is_text(unit: _Unit) -> bool:
    return unit.token is not None and unit.token.kind is Kind.TEXT


def _is_nested(units: Sequence[_Unit]) -> bool:
    """Whether every tag has its other one, each inside of one another, none too deep and not too many."""
    open_names: list[str] = []
    if sum(not _is_text(unit) for unit in units) > 2 * MOST:
        return False
    for token in (unit.token for unit in units if unit.token is not None):
        if token.name in ALONE:
            if token.kind is Kind.CLOSE:
                return False
        elif token.kind is Kind.OPEN:
            open_names.append(token.name)
            if len(open_names) > DEEPEST:
                return False
        elif token.kind is Kind.CLOSE and (not open_names or open_names.pop() != token.name):
            return False
    return not open_names


def _stretch(units: Sequence[_Unit]) -> list[Part]:
    """One stretch of well-nested units, or their markup alone where no text is among them."""
    found, open_spans = Stretch(), list[int]()
    for unit in units:
        token, parent, here = unit.token, open_spans[-1] if open_spans else -1, len(found.text)
        if token is not None and token.kind is Kind.TEXT:
            found.add(token.raw)
        elif token is None:
            words = " ".join(unit.words.split())
            if 0 < len(words) <= LONGEST_KEPT:
                found.add(unit.words.replace("&", "&amp;"))
                found.spans.append(Span(here, len(found.text), unit.raw, parent=parent, kept=words))
            else:
                found.spans.append(Span(here, here, unit.raw, parent=parent))
        elif token.kind is Kind.CLOSE:
            span = found.spans[open_spans.pop()]
            span.end, span.close = here, token.raw
        else:
            found.spans.append(Span(here, here, token.raw, parent=parent))
            if token.kind is Kind.OPEN and token.name not in ALONE:
                open_spans.append(len(found.spans) - 1)
    if not found.close().text:
        return [unit.raw for unit in units]
    return [found]
