"""Texts from files, with a label or without: read as a stream, and every line left out counted and named."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

from zhuyi.data.pairs import (
    BAD_CSV,
    BAD_JSON,
    BAD_UTF8,
    EMPTY_TEXT,
    MISSING_COLUMN,
    WRONG_ENCODING,
    CleaningReport,
    byte_lines,
    refuse_another_encoding,
)
from zhuyi.errors import InputError

Form = Literal["auto", "tsv", "csv", "jsonl", "spaced", "lines"]
Header = Literal["auto", "yes", "no"]

# A first row with one of these in it names the columns; `header` says so for any other.
HEADER_NAMES = frozenset(["label", "labels", "class", "category", "text", "sentence", "review", "标签", "类别", "文本"])
# The inside of a quoted field of CSV, where a quote stands twice; what has no end here goes on in the next line.
_QUOTED = re.compile(r'"((?:[^"]|"")*+)"')
MOST_LINES = 1000  # of a quoted field: one that goes on for longer was never closed


class LabelledText(NamedTuple):
    """A text, the one that follows it in a pair (else empty), its label (else empty), and its file and line."""

    text: str
    second: str
    label: str
    origin: tuple[str, int]


@dataclass(frozen=True)
class Layout:
    """How a file holds texts.

    Args:   form: `tsv` (a field that is quoted as in CSV loses its quotes), `csv`, `jsonl` (keys label, text, second),
            `spaced` (a label, a space, the text) or `lines` (texts alone); `auto` goes by the file's name, else by its
            first line.
            columns: from 1, of the text and, in pairs, of the second one; of `jsonl`, whose keys say it, only how many.
            label: the column of the label; 0 where there is none.
            header: whether the first row names the columns; `auto`: where it holds a usual name such as `label`.
    """

    form: Form
    columns: tuple[int, ...]
    label: int
    header: Header
    encoding: str


def read_texts(path: str, layout: Layout, report: CleaningReport) -> Iterator[LabelledText]:
    """Read a file's texts as they stand; lines that cannot be used are counted in the report and skipped.

    Args:   path: a file, gzipped if its name ends in .gz.
    Raises: InputError: no such file, or a broken .gz.
    """
    wanted = (*layout.columns, *([layout.label] if layout.label else []))
    for number, row in _rows(path, layout, report):
        origin = (path, number)
        report.total += 1
        if row is None:
            continue
        if max(wanted) > len(row):
            report.drop(MISSING_COLUMN, origin)
            continue
        text, second = ([row[column - 1].strip() for column in layout.columns] + [""])[:2]
        label = row[layout.label - 1].strip() if layout.label else ""
        if not text or (layout.label and not label):
            report.drop(EMPTY_TEXT, origin)
            continue
        report.kept += 1
        yield LabelledText(text, second, label, origin)


def read_all_texts(paths: Sequence[str], layout: Layout, report: CleaningReport) -> Iterator[LabelledText]:
    """The texts of all files.

    Raises: InputError: nothing was left, or as `read_texts`.
    """
    for path in paths:
        yield from read_texts(path, layout, report)
    if not report.kept:
        refuse_another_encoding(paths, report)
        expected = "LABEL<TAB>TEXT, LABEL,TEXT or LABEL TEXT" if layout.label else "a text"
        raise InputError(f"no text in {' '.join(paths)}: {report.summary()}; expected {expected} a line")


def _rows(path: str, layout: Layout, report: CleaningReport) -> Iterator[tuple[int, list[str] | None]]:
    """Each row's fields with its line's number, from 1, the header left out; None in place of a broken one."""
    lines = _decoded(path, layout.encoding, report)
    first = list(islice(lines, 1))
    lines = chain(first, lines)
    form = _form(path, layout, first[0][1] or "" if first else "")
    if form == "csv":
        rows = _csv_rows(path, lines, report)
    elif form == "jsonl":
        rows = ((number, _json_fields(line, layout, (path, number), report)) for number, line in lines)
    else:
        split = {"tsv": _tab_fields, "spaced": lambda line: line.split(" ", 1), "lines": lambda line: [line]}[form]
        rows = ((number, None if line is None else split(line)) for number, line in lines)
    if form in ("tsv", "csv"):
        rows = _without_header(rows, layout.header)
    return rows


def _form(path: str, layout: Layout, first: str) -> str:
    if layout.form != "auto":
        return layout.form
    name = path.removesuffix(".gz")
    for form in ("csv", "tsv", "jsonl"):
        if name.endswith(f".{form}"):
            return form
    if "\t" in first:
        return "tsv"
    return "spaced" if layout.label else "lines"


def _decoded(path: str, encoding: str, report: CleaningReport) -> Iterator[tuple[int, str | None]]:
    for number, line in enumerate(byte_lines(path), 1):
        try:
            yield number, line.decode(encoding)
        except UnicodeDecodeError:
            report.drop(BAD_UTF8 if encoding == "utf-8" else WRONG_ENCODING, (path, number))
            yield number, None


def _csv_rows(
    path: str, lines: Iterator[tuple[int, str | None]], report: CleaningReport
) -> Iterator[tuple[int, list[str] | None]]:
    """Rows of comma-separated fields, which may go over several lines inside of quotes, by their first line's number.

    A quote that is never closed costs its own line alone: what follows is read as if that were not there.
    """
    waiting: list[tuple[int, str | None]] = []  # lines that were read on the search for a quote's end
    while first := next(iter(waiting), None) or next(lines, None):
        number, line = first
        waiting = waiting[1:]
        if not line:
            if line is None:  # counted already
                yield number, None
            continue
        fields, taken = _csv_fields(line, is_whole=True), 0
        if fields is None:
            fields, taken = _over_lines(line, waiting, lines)
        if fields is None:
            report.drop(BAD_CSV, (path, number))
        waiting = waiting[taken:]
        yield number, fields


def _over_lines(
    line: str, waiting: list[tuple[int, str | None]], lines: Iterator[tuple[int, str | None]]
) -> tuple[list[str] | None, int]:
    """The fields of a row whose quote goes on in the next lines, and how many those are; None and 0 if it has no end.

    Args:   waiting: lines that were read already; more are put there as they are needed.
    """
    record = [line]
    for taken in range(MOST_LINES):
        if taken == len(waiting):
            waiting += islice(lines, 1)
        more = waiting[taken][1] if taken < len(waiting) else None
        if more is None:
            break
        record.append(more)
        if more.count('"') % 2:  # else nothing can end here
            fields = _csv_fields("\n".join(record), is_whole=False)
            return fields, 0 if fields is None else taken + 1
    return None, 0


def _csv_fields(record: str, *, is_whole: bool) -> list[str] | None:
    """The fields of a record; None where a quote has no end in it.

    Args:   is_whole: it is one line, in which something may follow the end of a quote; over lines that is no end, but
            the beginning of another one.
    """
    fields, place = list[str](), 0
    while True:
        quoted = _QUOTED.match(record, place)
        if quoted is None and record.startswith('"', place):
            return None
        end = record.find(",", quoted.end() if quoted else place)
        end = len(record) if end < 0 else end
        if quoted and end > quoted.end() and not is_whole:
            return None
        inside = quoted[1].replace('""', '"') if quoted else ""
        fields.append(inside + record[quoted.end() if quoted else place : end])
        if end == len(record):
            return fields
        place = end + 1


def _json_fields(line: str | None, layout: Layout, origin: tuple[str, int], report: CleaningReport) -> list[str] | None:
    """The values of an object, each in the column that the layout has it in."""
    if line is None:
        return None
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    keys = dict(zip(layout.columns, ("text", "second"), strict=False)) | {layout.label: "label"}
    if not isinstance(values, dict) or any(isinstance(values.get(key), (list, dict)) for key in keys.values()):
        report.drop(BAD_JSON, origin)
        return None
    return [_as_text(values.get(keys.get(column, ""))) for column in range(1, max(keys) + 1)]


def _as_text(value: Any) -> str:
    """A value of JSON as it is written there, without quotes; nothing where there is none."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _tab_fields(line: str) -> list[str]:
    return [_unquoted(field) for field in line.split("\t")]


def _unquoted(field: str) -> str:
    """A field without the quotes of CSV, if it has them: a text may well begin with a quotation."""
    inside = field[1:-1]
    is_quoted = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if is_quoted else field


def _without_header(
    rows: Iterator[tuple[int, list[str] | None]], header: Header
) -> Iterator[tuple[int, list[str] | None]]:
    for first in islice(rows, 1):
        names = {field.strip().casefold() for field in first[1] or ()}
        if header == "no" or (header == "auto" and not names & HEADER_NAMES):
            yield first
    yield from rows
