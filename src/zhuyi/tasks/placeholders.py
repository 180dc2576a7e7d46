"""What in a text is no language: placeholders, URLs, e-mail addresses, tags and entities, found by their form."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

# `name` and `number` stand for words, and are glued to what touches them; a `tag` or an `entity` stands between words;
# a `break` ends a line.
Kind = Literal["name", "number", "tag", "entity", "break"]


@dataclass(frozen=True)
class Kept:
    """A stretch of a text that its translation has as it is."""

    start: int
    end: int
    kind: Kind


# The bounds keep hostile texts from costing more than a look at each character.
_VALUE = r"""(?:"[^"<]{0,2000}+"|'[^'<]{0,2000}+'|[^\s"'=<>`]{1,2000}+)"""
_ATTRIBUTE = rf"\s{{1,9}}[A-Za-z_:@][\w:.-]{{0,60}}+(?:\s{{0,9}}=\s{{0,9}}{_VALUE})?"
_TAG = rf"</?(?P<element>[A-Za-z][A-Za-z0-9:-]{{0,40}}+)(?:{_ATTRIBUTE}){{0,30}}+\s{{0,9}}/?>|<!--.{{0,500}}?-->"
_ENTITY = r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});"
_URL = (
    r"(?:https?|ftp|file)://[!#-'*-;=?-Z\[\]_a-z~()]+|(?<![A-Za-z0-9_.@-])www\.[a-zA-Z0-9-]+\.[!#-'*-;=?-Z\[\]_a-z~()]+"
)
_EMAIL = r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}+@[A-Za-z0-9-]{1,63}+(?:\.[A-Za-z0-9-]{1,63}+)+"
_INSIDE = r"[A-Za-z0-9_.$@#:!+*/|\[\]'\" -]{0,80}"
_BRACES = (
    rf"\$?\{{\{{{_INSIDE}\}}\}}|\$\([A-Za-z_][\w.]{{0,60}}+\)|\{{\s?\w{{1,40}}+\s?,\s?"
    r"(?:plural|select|selectordinal|number|date|time)\b(?:[^{}]|\{(?:[^{}]|\{[^{}]{0,200}\}){0,300}\}){0,2000}\}"
    r"|[$#%]?\{(?:[\w@$][\w.$@#:!+*/|\[\]'\"%<>^=,-]{0,80})?\}"
)
_DOLLAR = r"(?<![A-Za-z0-9_$])\$[A-Za-z_][A-Za-z0-9_]{0,60}+(?!\$)|(?<![A-Za-z0-9_])%[A-Z][A-Z0-9_]{1,40}%"
_WIDTH = r"%(?:\([\w.]{1,60}\)|[0-9]{1,2}\$)?[-+0#]{0,4}[0-9*]{0,4}(?:\.[0-9*]{0,3})?"
_NUMBER_FORMAT = rf"{_WIDTH}(?:hh|h|ll|l|L|q|j|z|t)?[diuoxXeEfFgG](?![A-Za-z])(?:%%)?"
_FORMAT = rf"{_WIDTH}[scraSpn@](?![A-Za-z])"
_SIGNS = re.compile(r"[{}%$<&@]|://|www\.")
_AT_ONCE = 2000
# With what stands before it, of a bounded length, so that a look for the next one takes a moment in any text.
_NEXT = re.compile(
    f"(?P<before>.{{0,{_AT_ONCE}}}?)(?:(?P<tag>{_TAG})|(?P<url>{_URL})|(?P<email>{_EMAIL})|(?P<braces>{_BRACES})|(?P<number>{_NUMBER_FORMAT})"
    f"|(?P<format>{_FORMAT})|(?P<entity>{_ENTITY})|(?P<dollar>{_DOLLAR}))",
    re.DOTALL,
)
_COUNT = re.compile(
    r"\W*(?:n|nn|num|number|count|total|amount|minutes|seconds|hours|days|years|percent|age)\W*\Z", re.I
)
# What is part of a name that a placeholder stands in: file_{n}.txt, {host}:{port}, {amount}%.
_GLUED_BEFORE = re.compile(r"[A-Za-z0-9_@#$/\\.+=~-]*\Z")
_GLUED_AFTER = re.compile(r"[A-Za-z0-9_@#$/\\.:+=~%-]*[A-Za-z0-9_/\\%$]")
_BETWEEN = re.compile(r"[-_/\\.:@#+=~]?\Z")
_BREAKS = frozenset({
    "br", "p", "div", "li", "ul", "ol", "hr", "tr", "td", "th", "table", "tbody", "thead", "h1", "h2", "h3", "h4",
    "h5", "h6", "section", "article", "header", "footer", "blockquote", "body", "html", "head", "title", "option",
})  # fmt: skip


def may_keep(text: str) -> bool:
    """Whether a text has any of the signs that what is kept has."""
    return _SIGNS.search(text) is not None


def find_kept(text: str) -> list[Kept]:
    """Find what is kept, in order, in a line of text; neighbours that belong together are one."""
    return find_kept_within(text, 0, len(text)) if may_keep(text) else []


def find_kept_within(text: str, begin: int, end: int) -> list[Kept]:
    """Find what is kept of a text from a place where nothing goes on, and begins before another, wherever it ends."""
    found: list[Kept] = []
    for kept in _found(text, begin, end):
        last = found[-1] if found else None
        words = ("name", "number")
        if last and last.kind in words and kept.kind in words and _BETWEEN.match(text, last.end, kept.start):
            found[-1] = Kept(last.start, kept.end, "name")
        elif last and kept.start < last.end:  # swallowed by what the other is glued to
            found[-1] = Kept(last.start, max(last.end, kept.end), last.kind)
        elif kept.start >= end:
            break
        else:
            found.append(kept)
    return found


def _found(text: str, begin: int, enough: int) -> Iterator[Kept]:
    """What is kept, and perhaps belongs to its neighbours; past a place, as far as each may touch the one before."""
    here = before = begin
    while here <= enough:
        match = _NEXT.match(text, here)
        if match is None:
            here += _AT_ONCE + 1
            continue
        start, end = match.end("before"), match.end()
        raw, enough, here = text[start:end], max(enough, end), end
        group = match.lastgroup if match.lastgroup != "element" else "tag"
        kind: Kind = "name"
        if group == "tag":
            kind = "break" if (match["element"] or "").lower() in _BREAKS else "tag"
        elif group == "entity":
            kind = "entity"
        elif group == "url":
            end = start + len(_without_marks(raw))
        elif group == "braces":
            start -= len(_glued(text[max(before, start - 80) : start]))
            after = _GLUED_AFTER.match(text, end, min(len(text), end + 80))
            end = after.end() if after else end
            kind = "number" if _COUNT.match(raw) and text[start:end].strip("%$") == raw else "name"
        elif group == "number":
            kind = "number"
        before = end
        yield Kept(start, end, kind)


def _glued(before: str) -> str:
    """What of the text before a placeholder is the beginning of the same name."""
    match = _GLUED_BEFORE.search(before)
    return match[0].lstrip(".") if match else ""


def _without_marks(url: str) -> str:
    """A URL without the punctuation of the sentence it stands in."""
    end, unopened = len(url), url.count(")") - url.count("(")  # counted once: a text may be nothing but brackets
    while end:
        if url[end - 1] == ")" and unopened > 0:
            unopened -= 1
        elif url[end - 1] not in ".,;:!?'\"*":
            break
        end -= 1
    return url[:end]
