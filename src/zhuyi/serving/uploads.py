"""Files that clients send: read within limits, in memory, or in a folder that goes when the request does."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from fastapi import UploadFile

from zhuyi.data.audio import read_audio
from zhuyi.data.images import Shape, open_picture, to_pixels
from zhuyi.errors import InputError
from zhuyi.serving.request_bodies import plain
from zhuyi.serving.settings import MEBIBYTE, ServeSettings

LARGEST_TABLE = 64 * MEBIBYTE  # unpacked
LONGEST_HEADER = MEBIBYTE
MOST_CELLS = 20_000_000
LARGEST_TEXTS = 2**31  # bytes that a column of texts could unpack to

Unpacked = TypeVar("Unpacked")
# A picture of the largest size takes hundreds of megabytes while it is read: two at once, and the others wait.
_unpacking = ThreadPoolExecutor(2, "zhuyi-unpacking")


async def _unpack(function: Callable[[], Unpacked]) -> Unpacked:
    return await asyncio.get_running_loop().run_in_executor(_unpacking, function)


def name_of(file: UploadFile) -> str:
    """What messages call it: never taken for a path."""
    return plain(file.filename or "the file")


async def read_picture(file: UploadFile, settings: ServeSettings, shape: Shape) -> np.ndarray:
    """A picture as a run reads it, no larger while it waits; its own size is looked at before anything is unpacked.

    Raises: InputError: it is none, is damaged or too large.
    """
    content = BytesIO(await file.read())
    name, most = name_of(file), settings.max_picture_pixels
    return await _unpack(lambda: to_pixels(open_picture(content, name, most_pixels=most), shape))


async def read_sound(file: UploadFile, settings: ServeSettings) -> np.ndarray:
    """A recording's samples, of which no more seconds are unpacked than allowed. Shape: (N,).

    Raises: InputError: it is none, is damaged or too long.
    """
    content = await file.read()
    return await _unpack(lambda: read_audio(name_of(file), content, max_seconds=settings.max_audio_seconds))


@asynccontextmanager
async def kept_table(file: UploadFile) -> AsyncIterator[Path]:
    """A table in a file by itself, as long as it is needed; messages about it have the client's name for it.

    Raises: InputError: it is of no form that is read, or unpacks to too much.
    """
    content, name = await file.read(), name_of(file)
    with TemporaryDirectory(prefix="zhuyi-") as folder:
        path = Path(folder) / ("table.parquet" if content[:4] == b"PAR1" else "table.csv")
        try:
            await _unpack(lambda: _keep(content, path))
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None


def _keep(content: bytes, path: Path) -> None:
    if path.suffix == ".parquet":
        path.write_bytes(content)
        _check_parquet(path)
        return
    if content[:2] == b"\x1f\x8b":
        content = _unpacked(content, path)
    if b"\0" in content:
        raise InputError(f"{path}: no table; expected CSV or Parquet")
    if len(content.partition(b"\n")[0]) > LONGEST_HEADER:
        raise InputError(f"{path}: its first line has more than {LONGEST_HEADER:,} bytes; expected the sensors' names")
    path.write_bytes(content)


def _unpacked(content: bytes, path: Path) -> bytes:
    """What a .gz holds, as far as that is not too much."""
    try:
        with gzip.GzipFile(fileobj=BytesIO(content)) as packed:
            found = packed.read(LARGEST_TABLE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: a damaged .gz file ({error}); send it again") from None
    if len(found) > LARGEST_TABLE:
        raise InputError(f"{path}: unpacks to more than {LARGEST_TABLE // MEBIBYTE} MiB; send its last rows alone")
    return found


def _check_parquet(path: Path) -> None:
    """Refuse a file that may unpack to too much: a run of equal values takes a few bytes, however long it is."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            about = file.metadata
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file ({str(error).splitlines()[0][:100]})") from None
    if about.num_rows * about.num_columns > MOST_CELLS:
        raise InputError(
            f"{path}: {about.num_rows:,} rows of {about.num_columns:,} columns are more than {MOST_CELLS:,} values; "
            "send its last rows alone"
        )
    for group in range(about.num_row_groups):
        for number in range(about.num_columns):
            column = about.row_group(group).column(number)
            is_text = column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
            if is_text and about.num_rows * column.total_uncompressed_size > LARGEST_TEXTS:
                raise InputError(
                    f"{path}: the texts of the column '{plain(column.path_in_schema)}' may be too long; "
                    "keep times as timestamps, or send its last rows alone"
                )
