"""Text without pairs: files to documents, and documents to one long row of ids on disk."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from zhuyi.atomic import replacing
from zhuyi.data.pairs import ELSEWHERE, CleaningReport, read_lines
from zhuyi.data.splitting import hash_key
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.errors import InputError

Documents = Literal["file", "paragraph", "line"]

# Long documents are tokenised in pieces of about so many characters, on all cores and in bounded memory.
PIECE_CHARACTERS = 65_536
PIECES_A_BATCH = 1024
ID_TYPE = np.dtype("<i4")
FLAG_TYPE = np.dtype("<u1")


class Piece(NamedTuple):
    """A part of a document.

    Args:   ends: whether the document ends with it.
            is_learned: whether a model is to learn to write it; else it only reads it.
    """

    text: str
    ends: bool = True
    is_learned: bool = True


def read_documents(
    files: Sequence[str],
    documents: Documents,
    *,
    apart: Collection[int] = (),
    report: CleaningReport | None = None,
) -> Iterator[Piece]:
    r"""Read the documents of text files in pieces, whose texts joined are the document's.

    A document is a whole file, a paragraph (lines up to an empty one) or a line that is not empty. Lines end at "\n", a
    "\r" before it is dropped; every line of a file counts as ended.

    Args:   apart: `hash_key` of what no line may be; such lines are left out.
            report: where they are counted.
    Raises: InputError: a file cannot be read, or is not UTF-8.
    """
    for file in files:
        lines = _lines_apart(file, apart, report or CleaningReport()) if apart else read_lines(file)
        if documents == "line":
            yield from (Piece(line) for line in lines if line.strip())
        elif documents == "paragraph":
            yield from _paragraphs(lines)
        else:
            yield from _whole(lines)


def _lines_apart(file: str, apart: Collection[int], report: CleaningReport) -> Iterator[str]:
    """The lines of a file but for those that stand elsewhere; empty ones are not counted."""
    for number, line in enumerate(read_lines(file), 1):
        is_empty = not line.strip()
        report.total += not is_empty
        if not is_empty and hash_key(line) in apart:
            report.drop(ELSEWHERE, (file, number))
            continue
        report.kept += not is_empty
        yield line


def _paragraphs(lines: Iterable[str]) -> Iterator[Piece]:
    held: list[str] = []
    for line in lines:
        if line.strip():
            held.append(line)
        elif held:
            yield Piece("\n".join(held))
            held = []
    if held:
        yield Piece("\n".join(held))


def _whole(lines: Iterable[str]) -> Iterator[Piece]:
    """Cut where a line end stands between two words: no tokenizer here takes it together with either of them."""
    held: list[str] = []
    size = 0
    for line in lines:
        if size >= PIECE_CHARACTERS and line[:1].strip() and held[-1][-2:-1].strip():
            yield Piece("".join(held), ends=False)
            held, size = [], 0
        held.append(line + "\n")
        size += len(line) + 1
    if held:
        yield Piece("".join(held))


def split_at(pieces: Iterable[Piece], characters: int, *, within_documents: bool) -> Iterator[tuple[bool, Piece]]:
    """Tell of each piece whether it lies before the place after so many characters.

    Args:   within_documents: a document may be cut there; else the one that reaches across the place lies before it.
    """
    seen, is_before = 0, characters > 0
    for piece in pieces:
        room = characters - seen
        seen += len(piece.text)
        if not within_documents:
            yield is_before, piece
            is_before = is_before and not (piece.ends and seen >= characters)
            continue
        if room > 0:
            yield True, piece._replace(text=piece.text[:room], ends=piece.ends or room <= len(piece.text))
        if room < len(piece.text):
            yield False, piece._replace(text=piece.text[max(0, room) :])


@dataclass(frozen=True)
class TextCounts:
    """What was written: how many documents, characters and ids."""

    documents: int
    characters: int
    tokens: int


def encode_documents(
    path: Path, pieces: Iterable[Piece], tokenizer: Tokenizer, flags: Path | None = None
) -> TextCounts:
    """Tokenise documents on all cores into a file of ids: the end sign, then each document and the end sign.

    So every document stands between two signs, and what begins one is what ends another.

    Args:   flags: where to write a byte for each id: whether a model is to learn to write it.
    """
    documents = characters = tokens = 0
    stream = iter(pieces)
    with ExitStack() as stack:
        # The last one opened appears first: where there are ids there are flags.
        file = stack.enter_context(stack.enter_context(replacing(path)).open("wb"))
        flag_file = stack.enter_context(stack.enter_context(replacing(flags)).open("wb")) if flags else None
        file.write(np.array([tokenizer.signs.eos], ID_TYPE).tobytes())
        if flag_file:
            flag_file.write(np.array([0], FLAG_TYPE).tobytes())
        while batch := list(islice(stream, PIECES_A_BATCH)):
            for piece, ids in zip(batch, tokenizer.encode_batch([piece.text for piece in batch]), strict=True):
                kept = ids if piece.ends else ids[:-1]
                file.write(np.array(kept, ID_TYPE).tobytes())
                if flag_file:
                    flag_file.write(np.full(len(kept), piece.is_learned, FLAG_TYPE).tobytes())
                documents += piece.ends
                characters += len(piece.text)
                tokens += len(kept)
    return TextCounts(documents, characters, tokens)


def open_ids(path: Path) -> np.ndarray:
    """Map what `encode_documents` wrote into memory.

    Shape:  returns (N,) int32, read-only.
    Raises: InputError: there is no such file, or it was cut short.
    """
    return _map(path, ID_TYPE)


def open_flags(path: Path) -> np.ndarray:
    """The same for its flags. Shape: returns (N,) uint8, read-only."""
    return _map(path, FLAG_TYPE)


def _map(path: Path, kind: np.dtype) -> np.ndarray:
    try:
        return np.memmap(path, kind, "r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no whole file of ids ({error}); delete it, and it is made again") from error
