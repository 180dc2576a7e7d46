"""Pairs of sentences from files: read as a stream, cleaned, and every line left out counted and named."""

import gzip
import io
import json
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b, file_digest
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from zhuyi.data.encodings import not_utf8
from zhuyi.data.normalization import contains_han, count_han, normalize, simplify
from zhuyi.errors import InputError

STANDARD_INPUT = "-"
BAD_UTF8, BAD_JSON, BAD_CSV, MISSING_COLUMN = "not UTF-8", "bad JSON", "a quote left open", "missing column"
EMPTY_SIDE, TOO_LONG, LENGTH_RATIO, DUPLICATE = "empty side", "too long", "length ratio", "duplicate"
WRONG_ENCODING, EMPTY_TEXT = "of another encoding", "empty text or label"
ELSEWHERE = "in validation or test data"
UNREADABLE_SOUND, NO_TEXT = "not readable as sound", "no text for it"
NO_PICTURE, DAMAGED = "not a picture", "cut short or damaged"
TOO_SMALL, TOO_LARGE = "too small", "too large"
UNOPENED, UNSCALED = "cannot be opened", "of numbers without a known range"
REASONS = (
    BAD_UTF8,
    WRONG_ENCODING,
    BAD_JSON,
    BAD_CSV,
    MISSING_COLUMN,
    EMPTY_SIDE,
    EMPTY_TEXT,
    TOO_LONG,
    LENGTH_RATIO,
    DUPLICATE,
    ELSEWHERE,
    UNREADABLE_SOUND,
    NO_TEXT,
    NO_PICTURE,
    DAMAGED,
    TOO_SMALL,
    TOO_LARGE,
    UNOPENED,
    UNSCALED,
)

_MAX_EXAMPLES = 20
# Below this many Latin letters' worth a ratio says nothing: "好。" is rightly "That sounds good to me."
_MIN_LENGTH_FOR_RATIO = 50
_LETTERS_PER_HAN = 3
_UTF8_BOM = b"\xef\xbb\xbf"


class Pair(NamedTuple):
    """A sentence, its translation, and the file and line (from 1) where they stand."""

    source: str
    target: str
    origin: tuple[str, int]


@dataclass(frozen=True)
class CleaningRules:
    """What a pair must be to be kept.

    Args: max_chars: of either side, normalised.
          max_ratio: of the two lengths, a Chinese character counted as three letters; short pairs are exempt.
          deduplicate: keep the first of pairs that are equal after normalisation.
          simplify: turn traditional Chinese characters into simplified ones.
    """

    max_chars: int = 1000
    max_ratio: float = 9.0
    deduplicate: bool = True
    simplify: bool = False


@dataclass
class CleaningReport:
    """How many lines (or files) were read and kept, and which ones were left out for which reason.

    Args: things: what a line holds, in the plural.
    """

    total: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    things: str = "pairs"

    def drop(self, reason: str, origin: tuple[str, int | str]) -> None:
        """Count a line, or a file of a folder, left out, and name it if it is among the first of its reason."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _MAX_EXAMPLES:
            examples.append(f"{origin[0]}:{origin[1]}" if origin[1] else origin[0])

    def summary(self) -> str:
        """Say it in a few plain lines."""
        lines = [f"{self.kept:,} of {self.total:,} {self.things} kept"]
        for reason in sorted(self.dropped, key=REASONS.index):
            named = ", ".join(self.examples[reason][:3])
            more = ", ..." if self.dropped[reason] > 3 else ""
            lines.append(f"  {self.dropped[reason]:,} left out: {reason} ({named}{more})")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """Give what a program may read, ready for JSON."""
        return {"total": self.total, "kept": self.kept, "dropped": self.dropped, "examples": self.examples}


def read_pairs(source: str, *, columns: tuple[int, ...] = (1, 2), report: CleaningReport) -> Iterator[Pair]:
    r"""Read pairs as they stand; lines that cannot be read are counted in the report and skipped.

    Lines end at "\n" alone, so a form feed or U+2028 inside a sentence does not shift two aligned files.

    Args:   source: a file of tab-separated columns, or JSON lines (`.jsonl`, keys `source` and `target`), or
            two aligned files "SOURCE_FILE,TARGET_FILE", any of them gzipped (`.gz`); or "-" for tab-separated
            standard input.
            columns: which columns, from 1, hold source and target; JSON lines and two files have two columns.
    Raises: InputError: no such file, a broken .gz, aligned files of unequal length, a column that cannot be.
    """
    if len(columns) != 2 or min(columns) < 1:
        raise InputError(
            f"columns {','.join(map(str, columns))}: of pairs there are two, source and target, counted from 1, as in "
            "--columns 2,1"
        )
    paths = _split_aligned(source)
    is_json = source.removesuffix(".gz").endswith(".jsonl")
    if (len(paths) == 2 or is_json) and max(columns) > 2:
        raise InputError(
            f"columns {columns[0]},{columns[1]} of {source}: there are only a source and a target; expected 1,2 or 2,1"
        )
    if len(paths) == 2:
        return _read_aligned(paths[0], paths[1], columns, report)
    return _read_rows(source, _json_columns if is_json else _tab_columns, columns, report)


def clean_pairs(
    sources: Sequence[str],
    rules: CleaningRules,
    *,
    columns: tuple[int, ...] = (1, 2),
    report: CleaningReport,
) -> Iterator[Pair]:
    """Read pairs from all the sources, normalise both sides and leave out what the rules refuse.

    Raises: InputError: nothing was left, or as `read_pairs`.
    """
    seen: set[int] = set()
    for source in sources:
        for pair in read_pairs(source, columns=columns, report=report):
            clean = Pair(_clean(pair.source, rules), _clean(pair.target, rules), pair.origin)
            reason = _reason_to_drop(clean, rules) or (rules.deduplicate and _is_duplicate(clean, seen) and DUPLICATE)
            if reason:
                report.drop(reason, pair.origin)
                continue
            report.kept += 1
            yield clean
    if not report.kept:
        raise InputError(_nothing_kept(sources, report))


def refuse_another_encoding(sources: Sequence[str], report: CleaningReport) -> None:
    """Say what the sources are likely in.

    Raises: InputError: not one of their lines was UTF-8.
    """
    if report.total and report.dropped.get(BAD_UTF8) == report.total and STANDARD_INPUT not in sources:
        path, _, number = report.examples[BAD_UTF8][0].rpartition(":")
        raise not_utf8(path, int(number), next(islice(byte_lines(path), int(number) - 1, None)))


def fingerprint(sources: Sequence[str]) -> list[tuple[str, int, str]]:
    """Tell apart any two states of the sources' files: name, size and a hash of the content.

    All of it is read, at a gigabyte a second, which is little beside cleaning it: neither a clock nor a part of a file
    says for certain that nothing has changed.

    Raises: InputError: a file cannot be read.
    """
    return [_file_fingerprint(path) for source in sources for path in _split_aligned(source)]


def _file_fingerprint(path: str) -> tuple[str, int, str]:
    try:
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{path} can be read only once, and training reads its data again; save it to a file")
            digest = file_digest(file, lambda: blake2b(digest_size=16))
            return path, file.tell(), digest.hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> InputError:
    # Where recipes look for data sets, which are nobody's to hand on.
    where = "; its recipe's header says whose it is: get it there" if path.startswith("data/") else ""
    return InputError(f"cannot read {path}: {error.strerror or error}; check the path{where}")


def read_lines(path: str) -> Iterator[str]:
    r"""Read a text, one string for each line ended by "\n".

    Args:   path: a file, gzipped if its name ends in .gz, or "-" for standard input.
    Raises: InputError: no such file, a broken .gz, or a line that is not UTF-8; it says what the text is likely in.
    """
    for number, line in enumerate(byte_lines(path), 1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError:
            raise not_utf8(None if path == STANDARD_INPUT else path, number, line) from None


def _clean(text: str, rules: CleaningRules) -> str:
    text = normalize(text)
    return simplify(text) if rules.simplify and contains_han(text) else text


def _reason_to_drop(pair: Pair, rules: CleaningRules) -> str | None:
    if not pair.source or not pair.target:
        return EMPTY_SIDE
    if max(len(pair.source), len(pair.target)) > rules.max_chars:
        return TOO_LONG
    shorter, longer = sorted((_weighted_length(pair.source), _weighted_length(pair.target)))
    if longer > _MIN_LENGTH_FOR_RATIO and longer > rules.max_ratio * shorter:
        return LENGTH_RATIO
    return None


def _weighted_length(text: str) -> int:
    return len(text) + (_LETTERS_PER_HAN - 1) * count_han(text)


def _is_duplicate(pair: Pair, seen: set[int]) -> bool:
    """Say whether the pair was seen before, and remember it by eight bytes rather than by its text."""
    digest = blake2b(f"{pair.source}\n{pair.target}".encode(), digest_size=8).digest()
    size = len(seen)
    seen.add(int.from_bytes(digest, "little"))
    return len(seen) == size


def _nothing_kept(sources: Sequence[str], report: CleaningReport) -> str:
    where = " ".join(sources)
    expected = "expected UTF-8 lines SOURCE<TAB>TARGET, JSON lines, or two aligned files"
    if not report.total:
        return f"no pairs in {where}: no lines at all; {expected}"
    refuse_another_encoding(sources, report)
    reasons = "; ".join(
        f"{reason}: {count}, e.g. {report.examples[reason][0]}" for reason, count in report.dropped.items()
    )
    return f"no pairs in {where}: all {report.total} lines left out ({reasons}); {expected}"


def _split_aligned(source: str) -> list[str]:
    """Split "SOURCE_FILE,TARGET_FILE" at the comma that gives two files, unless the whole is one name."""
    if source == STANDARD_INPUT or "," not in source or Path(source).exists():
        return [source]
    splits = [[source[:i], source[i + 1 :]] for i, char in enumerate(source) if char == ","]
    for paths in splits:
        if all(Path(path).exists() for path in paths):
            return paths
    return splits[0]


def _read_rows(
    path: str, to_columns: Callable[[str], list[str]], columns: tuple[int, ...], report: CleaningReport
) -> Iterator[Pair]:
    first, second = columns[0] - 1, columns[1] - 1
    for number, line in enumerate(byte_lines(path), 1):
        origin = (path, number)
        report.total += 1
        try:
            row = to_columns(line.decode("utf-8"))
            yield Pair(row[first], row[second], origin)
        except UnicodeDecodeError:
            report.drop(BAD_UTF8, origin)
        except (ValueError, RecursionError):
            report.drop(BAD_JSON, origin)
        except LookupError:
            report.drop(MISSING_COLUMN, origin)


def _tab_columns(line: str) -> list[str]:
    return line.split("\t")


def _json_columns(line: str) -> list[str]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not an object")
    pair = [row["source"], row["target"]]
    if not all(isinstance(side, str) for side in pair):
        raise ValueError("not strings")
    return pair


def _read_aligned(
    source_path: str, target_path: str, columns: tuple[int, ...], report: CleaningReport
) -> Iterator[Pair]:
    sources, targets = byte_lines(source_path), byte_lines(target_path)
    number = 0
    for source_line in sources:
        target_line = next(targets, None)
        if target_line is None:
            raise _unequal(source_path, number + 1 + _count(sources), target_path, number)
        number += 1
        report.total += 1
        try:
            path = source_path
            source = source_line.decode("utf-8")
            path = target_path
            sides = (source, target_line.decode("utf-8"))
        except UnicodeDecodeError:
            report.drop(BAD_UTF8, (path, number))
            continue
        yield Pair(sides[columns[0] - 1], sides[columns[1] - 1], (source_path, number))
    if left_over := _count(targets):
        raise _unequal(source_path, number, target_path, number + left_over)


def _count(lines: Iterator[bytes]) -> int:
    return sum(1 for _ in lines)


def _unequal(source_path: str, source_lines: int, target_path: str, target_lines: int) -> InputError:
    return InputError(
        f"{source_path} has {source_lines} lines but {target_path} has {target_lines}: "
        "aligned files need one line in each for every pair; check for a lost or doubled line"
    )


def byte_lines(path: str) -> Iterator[bytes]:
    r"""Yield each line without its end ("\n" alone) and without a byte order mark, naming the line where a file breaks.

    Raises: InputError: no such file, or a broken .gz.
    """
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, 1):
                if number == 1:
                    line = line.removeprefix(_UTF8_BOM)
                yield line.removesuffix(b"\n").removesuffix(b"\r")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path} is damaged or cut short after line {number} ({error}): expected a whole .gz file; fetch it again"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    if path == STANDARD_INPUT:
        # A reader of its own, where there is something to read below: at its end the interpreter closes sys.stdin and
        # dies if a thread is still waiting there for a line.
        raw = getattr(sys.stdin.buffer, "raw", None)
        yield sys.stdin.buffer if raw is None else io.BufferedReader(raw)
        return
    with open(path, "rb") as file:
        if not path.endswith(".gz"):
            yield file
            return
        with gzip.open(file) as unpacked:
            yield unpacked  # type: ignore[misc]  # GzipFile reads as a binary stream does
