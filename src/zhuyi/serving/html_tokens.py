"""HTML cut into text and markup, in time linear in its length, whatever it is.

The standard library's parser takes minutes for 100,000 characters of `<a <a <a` (measured, Python 3.11): each tag that
never ends is looked for from its beginning anew. Here what has no end ends with the text, and is seen once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from html import unescape

SPACE = " \t\n\r\f"
# What stands inside these is no markup, up to their own end tag (HTML standard, section 13.2.5.1 and following).
RAW = frozenset({"script", "style", "xmp", "iframe", "noembed", "noframes", "textarea", "title"})


class Kind(Enum):
    """What a token is; OTHER is a comment, a declaration, or a tag that the text ends in."""

    TEXT = 1
    OPEN = 2
    CLOSE = 3
    OTHER = 4


@dataclass(frozen=True)
class Token:
    """A stretch of HTML as it stands; all tokens in a row are the text.

    Args:   name: of a tag, in small letters.
            attributes: of an open tag, by names in small letters.
    """

    kind: Kind
    raw: str
    name: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


def read_text(raw: str) -> str:
    """What a stretch of HTML without markup says."""
    try:
        return unescape(raw)
    except ValueError:  # &#99999...; of more digits than Python reads
        return raw


def cut(html: str) -> Iterator[Token]:
    """The tokens of HTML, well-formed or not."""
    begun, place, lowered = 0, 0, ""
    while (place := html.find("<", place)) >= 0:
        token = _markup(html, place)
        if token is None:
            place += 1
            continue
        if begun < place:
            yield Token(Kind.TEXT, html[begun:place])
        yield token
        begun = place = place + len(token.raw)
        if token.kind is Kind.OPEN and token.name in RAW:
            lowered = lowered or html.translate(_SMALL)
            place = _raw_end(lowered, token.name, begun)
            if begun < place:
                yield Token(Kind.TEXT, html[begun:place])
                begun = place
    if begun < len(html):
        yield Token(Kind.TEXT, html[begun:])


# str.lower may change a text's length.
_SMALL = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _raw_end(lowered: str, name: str, place: int) -> int:
    """Where the end tag of such an element begins; the end of the text where there is none."""
    tag = "</" + name
    while (place := lowered.find(tag, place)) >= 0:
        if lowered[place + len(tag) : place + len(tag) + 1] in (*SPACE, "/", ">"):
            return place
        place += len(tag)
    return len(lowered)


def _markup(html: str, place: int) -> Token | None:
    """The markup that begins at a `<`, or None where that is a character of the text."""
    after = html[place + 1 : place + 2]
    if after.isascii() and after.isalpha():
        return _tag(html, place, place + 1)
    if after == "/":
        letter = html[place + 2 : place + 3]
        if letter.isascii() and letter.isalpha():
            return _tag(html, place, place + 2)
        return _through(html, place, ">") if letter else None
    if html.startswith("<!--", place):
        if html.startswith((">", "->"), place + 4):
            return _through(html, place, ">")
        return _through(html, place, "-->", place + 4)
    return _through(html, place, ">") if after in ("!", "?") and after else None


def _through(html: str, place: int, mark: str, begin: int = 0) -> Token:
    end = html.find(mark, begin or place)
    return Token(Kind.OTHER, html[place:] if end < 0 else html[place : end + len(mark)])


def _tag(html: str, place: int, begin: int) -> Token:
    """The tag whose name begins at `begin`; the rest of the text where it has no end."""
    end = _until(html, begin, SPACE + "/>")
    name, attributes = html[begin:end].translate(_SMALL), dict[str, str]()
    while end < len(html):
        if html[end] == ">":
            kind = Kind.OPEN if begin == place + 1 else Kind.CLOSE
            return Token(kind, html[place : end + 1], name, attributes)
        if html[end] in SPACE + "/":
            end += 1
            continue
        key_end = _until(html, end + 1, SPACE + "/>=")
        key, (value, end) = html[end:key_end].translate(_SMALL), _value(html, key_end)
        attributes.setdefault(key, value)
    return Token(Kind.OTHER, html[place:])


def _value(html: str, place: int) -> tuple[str, int]:
    """An attribute's value, of which the name ends at `place`, and where it ends."""
    sign = _past_space(html, place)
    if html[sign : sign + 1] != "=":
        return "", sign
    begin = _past_space(html, sign + 1)
    if (quote := html[begin : begin + 1]) in ('"', "'") and quote:
        end = html.find(quote, begin + 1)
        return ("", len(html)) if end < 0 else (read_text(html[begin + 1 : end]), end + 1)
    end = _until(html, begin, SPACE + ">")
    return read_text(html[begin:end]), end


def _until(html: str, place: int, marks: str) -> int:
    while place < len(html) and html[place] not in marks:
        place += 1
    return place


def _past_space(html: str, place: int) -> int:
    while place < len(html) and html[place] in SPACE:
        place += 1
    return place
