"""A cache of examples on disk, memory-mapped: bigger than memory allowed, each row reached at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa

from zhuyi.atomic import replacing
from zhuyi.errors import InputError

ROWS_PER_BATCH = 16_384

_TYPES = {"ids": pa.list_(pa.int32()), "text": pa.large_string()}


class Encoder(Protocol):
    """What `encode_corpus` asks of a tokenizer."""

    def encode_batch(self, texts: Sequence[str], *, normalized: bool = False) -> list[list[int]]:
        """Return the ids of each text."""
        ...


@dataclass(frozen=True)
class Encoded:
    """How many pairs `encode_corpus` wrote, and how many it dropped as too long."""

    kept: int
    too_long: int


def write_corpus(
    path: str | Path,
    columns: Mapping[str, Literal["ids", "text"]],
    rows: Iterable[Sequence[Sequence[int] | str]],
) -> int:
    """Write rows of ids and texts, one value a column, whole or not at all; return how many there were."""
    schema = pa.schema([pa.field(name, _TYPES[kind], nullable=False) for name, kind in columns.items()])
    rows, count = iter(rows), 0
    with replacing(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        while chunk := list(islice(rows, ROWS_PER_BATCH)):
            values = zip(*chunk, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            count += len(chunk)
    return count


def encode_corpus(
    path: str | Path,
    pairs: Iterable[tuple[str, str]],
    source: Encoder,
    target: Encoder,
    *,
    max_len: int,
    normalized: bool = False,
    chunk_lines: int = 10_000,
) -> Encoded:
    """Tokenise pairs on all cores into a corpus of their ids and texts.

    Args:   max_len: a pair with a side of more ids than this, the end sign counted, is dropped.
    """
    too_long = 0

    def rows() -> Iterator[Sequence[Sequence[int] | str]]:
        nonlocal too_long
        stream = iter(pairs)
        while chunk := list(islice(stream, chunk_lines)):
            source_ids = source.encode_batch([pair[0] for pair in chunk], normalized=normalized)
            target_ids = target.encode_batch([pair[1] for pair in chunk], normalized=normalized)
            for pair, *ids in zip(chunk, source_ids, target_ids, strict=True):
                if max(map(len, ids)) > max_len:
                    too_long += 1
                else:
                    yield *ids, *pair

    columns: dict[str, Literal["ids", "text"]] = {
        "source": "ids",
        "target": "ids",
        "source_text": "text",  # references, samples and reports want the words
        "target_text": "text",
    }
    kept = write_corpus(path, columns, rows())
    return Encoded(kept, too_long)


class Corpus:
    """The rows that `write_corpus` wrote; nothing is read before it is asked for."""

    def __init__(self, reader: pa.ipc.RecordBatchFileReader) -> None:
        """Wrap an open file; see `open`."""
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self.columns: list[str] = reader.schema.names
        self._views: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
        self._length = sum(batch.num_rows for batch in self._batches)

    @classmethod
    def open(cls, path: str | Path) -> "Corpus":
        """Map a file into memory.

        Raises: InputError: there is no such file, or it was cut short or is of another form.
        """
        try:
            return cls(pa.ipc.open_file(pa.memory_map(str(path))))
        except (OSError, pa.ArrowInvalid) as error:
            message = f"{path} is no whole corpus ({error}); delete it, and it is made again"
            raise InputError(message) from error

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    def ids(self, column: str, row: int) -> np.ndarray:
        """Return a row's ids, a read-only view of the file.

        Shape:  (T,) int32.
        """
        if not 0 <= row < self._length:
            raise IndexError(f"row {row} of {self._length}")
        batch, place = divmod(row, ROWS_PER_BATCH)
        offsets, values = self._view(column, batch)
        return values[offsets[place] : offsets[place + 1]]

    def text(self, column: str, row: int) -> str:
        """Return a row's text."""
        if not 0 <= row < self._length:
            raise IndexError(f"row {row} of {self._length}")
        batch, place = divmod(row, ROWS_PER_BATCH)
        return self._batches[batch].column(column)[place].as_py()

    def texts(self, column: str) -> Iterator[str]:
        """Go through all texts of a column."""
        return (self.text(column, row) for row in range(len(self)))

    def lengths(self, column: str) -> np.ndarray:
        """Return the number of ids of every row, by the offsets alone.

        Shape:  (N,) int32.
        """
        counts = [np.diff(self._view(column, batch)[0]) for batch in range(len(self._batches))]
        return np.concatenate([np.zeros(0, np.int32), *counts])

    def _view(self, column: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
        if (column, batch) not in self._views:
            array = self._batches[batch].column(column)
            self._views[column, batch] = (array.offsets.to_numpy(), array.values.to_numpy())
        return self._views[column, batch]
