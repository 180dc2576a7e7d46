"""Pictures with labels from folders, idx files and arrays: read to one size, and each one left out is named."""

import gzip
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np

from zhuyi.data.pairs import DAMAGED, NO_PICTURE, TOO_LARGE, TOO_SMALL, UNOPENED, UNSCALED, CleaningReport
from zhuyi.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

# What is opened: nothing that another program would have to be called for.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
LEAST_SIDE = 4  # pixels; a page's invisible picture has one
# A few kilobytes can unpack to as many as memory holds, and each core reads a picture of its own.
MOST_PIXELS = 50_000_000
MOST_OF_16_BITS = 2**16 - 1

Fit = Literal["crop", "stretch"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class BadPicture(InputError):
    """A picture that cannot be read; `reason` is one of the report's."""

    def __init__(
        self, name: str, reason: str, found: str, advice: str = "leave it out, or save it again as a JPEG or PNG"
    ) -> None:
        super().__init__(f"{name}: {reason} ({found}); {advice}")
        self.reason = reason


class Picture(NamedTuple):
    """A picture's name for people, its label, and where it is: a file, or its pixels (H, W) or (H, W, C) in uint8."""

    name: str
    label: str
    source: "str | np.ndarray"


@dataclass(frozen=True)
class Shape:
    """What every picture becomes: a square of pixels.

    Args:   size: of its sides.
            channels: 1 is grey, 3 red, green and blue.
            fit: how another rectangle becomes a square: its middle is cut out (`crop`), or its sides are pulled to the
            same length (`stretch`).
            resample: how pixels are found that are not there.
    """

    size: int
    channels: int
    fit: Fit = "crop"
    resample: Resample = "bilinear"


def list_pictures(sources: Sequence[str], labels: Sequence[str], report: CleaningReport) -> list[Picture]:
    """The pictures of all sources; nothing of a file is read but what lies in arrays.

    Args:   sources: folders with a sub-folder a class, "IMAGES,LABELS" in the idx form (`.gz` or not), or a `.npz` of
            two arrays, `images` (N, H, W) or (N, H, W, C) in uint8 and `labels` (N,).
            labels: the names of numbered ones, where they are given.
    Raises: InputError: there is no such source, it has another form, or no picture is in it.
    """
    found: list[Picture] = []
    for source in sources:
        if Path(source).is_dir():
            found += _in_folder(Path(source), report)
        elif source.endswith(".npz"):
            found += _in_npz(source, labels)
        elif "," in source:
            found += _in_idx(source, labels)
        else:
            what = "" if Path(source).exists() else "there is no such folder; "
            raise InputError(
                f"{source}: {what}expected a folder with a sub-folder a class, IMAGES,LABELS in the idx form, or a .npz"
            )
    if not found:
        raise InputError(f"no picture in {' '.join(sources)}: {report.summary()}")
    return found


def files_of(sources: Sequence[str]) -> list[str]:
    """The files that sources stand for: of a folder all below it that can be opened.

    Raises: InputError: there is no such folder or file.
    """
    found = []
    for source in sources:
        if Path(source).is_dir():
            found += [path for path in _walk(source) if _can_open(path)]
        else:
            found.append(source)
    return found


def pictures_below(folder: str) -> list[str]:
    """All files below a folder whose names end as pictures' do, in the order of their names."""
    return [path for path in _walk(folder) if path.lower().endswith(ENDINGS)]


def _can_open(path: str) -> bool:
    """Whether it is a file and may be read: a link may lead nowhere, or to a pipe, at which reading waits for ever."""
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(files) if not name.startswith("."))


def _in_folder(folder: Path, report: CleaningReport) -> Iterator[Picture]:
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise InputError(f"{folder}: no folder inside; expected one a class, such as {folder / 'cat' / 'a.jpg'}")
    for label in classes:
        for path in _walk(str(folder / label)):
            if path.lower().endswith(ENDINGS) and _can_open(path):
                yield Picture(path, label, path)
            elif path.lower().endswith(ENDINGS):
                report.total += 1
                report.drop(UNOPENED, (path, 0))
            elif os.path.basename(path).lower() not in ("thumbs.db", "desktop.ini"):
                report.total += 1
                report.drop(NO_PICTURE, (path, 0))


def _in_npz(path: str, labels: Sequence[str]) -> Iterator[Picture]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            if missing := {"images", "labels"} - set(arrays.files):
                raise InputError(
                    f"{path}: no array '{min(missing)}' in it, but {', '.join(arrays.files) or 'none'}; expected "
                    "images (N, H, W) or (N, H, W, C) in uint8 and labels (N,)"
                )
            return _in_arrays(path, arrays["images"], arrays["labels"], labels)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not readable as a .npz of plain arrays ({' '.join(str(error).split())})") from None


def _in_idx(source: str, labels: Sequence[str]) -> Iterator[Picture]:
    images_path, _, labels_path = source.partition(",")
    return _in_arrays(images_path, read_idx(images_path), read_idx(labels_path), labels)


def _in_arrays(path: str, images: np.ndarray, numbers: np.ndarray, labels: Sequence[str]) -> Iterator[Picture]:
    is_picture = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if images.dtype != np.uint8 or not is_picture:
        raise InputError(
            f"{path}: images of {images.dtype} and shape {images.shape}; expected uint8 (N, H, W) or (N, H, W, 1 or 3)"
        )
    if numbers.shape != images.shape[:1]:
        raise InputError(f"{path}: {len(images):,} pictures, but labels of shape {numbers.shape}; expected one each")
    if labels and numbers.dtype.kind in "iu":
        if not 0 <= int(numbers.min(initial=0)) <= int(numbers.max(initial=0)) < len(labels):
            raise InputError(
                f"{path}: labels from {numbers.min()} to {numbers.max()}, but data.labels names {len(labels)} from 0"
            )
        names = [labels[number] for number in numbers]
    else:
        names = [str(label) for label in numbers]
    rows = zip(names, images, strict=True)
    return (Picture(f"{path}, picture {row}", label, pixels) for row, (label, pixels) in enumerate(rows, 1))


_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str) -> np.ndarray:
    """An array in the form that MNIST came in, gzipped if its name ends in .gz.

    Raises: InputError: no such file, another form, or fewer numbers than it says.
    """
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}; check the file") from None
    zeros, kind, dims = struct.unpack(">HBB", data[:4]) if len(data) >= 4 else (1, 0, 0)
    if zeros or kind not in _IDX_TYPES or len(data) < 4 + 4 * dims:
        raise InputError(f"{path}: not in the idx form, which begins with two zeros, a type and the number of sides")
    sides = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
    form = np.dtype(_IDX_TYPES[kind])
    wanted, there = int(np.prod(sides)) * form.itemsize, len(data) - 4 - 4 * dims
    if wanted != there:
        raise InputError(f"{path}: sides {sides} want {wanted:,} bytes, but {there:,} are there; fetch it again")
    return np.frombuffer(data, form, offset=4 + 4 * dims).astype(form.newbyteorder("="), copy=False).reshape(sides)


def pillow() -> Any:
    """The library that reads pictures.

    Raises: InputError: the extra `image` is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise InputError('pictures need the package pillow: pip install "zhuyi[image]"') from None
    Image.init()  # or it knows fewer forms than `FORMATS` names
    return Image


def open_picture(
    source: "str | BinaryIO | np.ndarray | Image", name: str, *, most_pixels: int | None = None
) -> "Image":
    """A picture as it is to be seen, in grey (mode L) or in colours (RGB), what is transparent over white.

    Args:   most_pixels: what has more is refused before it is unpacked.
    Raises: BadPicture: there is no such file, or it is no picture, is damaged, or is of a size that cannot be.
    """
    library = pillow()
    if isinstance(source, np.ndarray):
        return library.fromarray(source[:, :, 0] if source.ndim == 3 and source.shape[2] == 1 else source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd but readable notes in files
            if isinstance(source, library.Image):
                return _upright(source, name, most_pixels)
            with library.open(source, formats=FORMATS) as image:
                return _upright(image, name, most_pixels)
    except library.UnidentifiedImageError:
        raise BadPicture(name, NO_PICTURE, f"none of {', '.join(FORMATS)}") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise BadPicture(name, UNOPENED, error.strerror or "no such file", "check the path") from None
    except library.DecompressionBombError as error:
        raise BadPicture(name, TOO_LARGE, " ".join(str(error).split())) from None
    except BadPicture:
        raise
    except Exception as error:  # readers of broken files raise whatever comes
        raise BadPicture(name, DAMAGED, " ".join(str(error).split()) or type(error).__name__) from None


def look(source: "str | np.ndarray", name: str) -> tuple[tuple[int, int], int]:
    """A picture's width and height and its channels, 1 or 3, from the first bytes of its file.

    Raises: BadPicture: as `open_picture`, as far as these bytes tell.
    """
    if isinstance(source, np.ndarray):
        return (source.shape[1], source.shape[0]), 3 if source.ndim == 3 and source.shape[2] == 3 else 1
    library = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with library.open(source, formats=FORMATS) as image:
                _check_size(image.size, name)
                return image.size, 1 if image.mode in ("1", "L", "LA", "I", "F") or image.mode[:2] == "I;" else 3
    except library.UnidentifiedImageError:
        raise BadPicture(name, NO_PICTURE, f"none of {', '.join(FORMATS)}") from None
    except library.DecompressionBombError as error:
        raise BadPicture(name, TOO_LARGE, " ".join(str(error).split())) from None
    except BadPicture:
        raise
    except Exception as error:
        raise BadPicture(name, DAMAGED, " ".join(str(error).split()) or type(error).__name__) from None


def to_pixels(image: "Image", shape: Shape) -> np.ndarray:
    """A picture as a square. Shape: returns (size, size, channels) uint8."""
    library = pillow()
    image = image.convert("L" if shape.channels == 1 else "RGB")
    if image.size != (shape.size, shape.size):
        box = None
        if shape.fit == "crop":
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            box = (left, top, left + side, top + side)
        image = image.resize(
            (shape.size, shape.size), library.Resampling[shape.resample.upper()], box=box, reducing_gap=None
        )
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _check_size(size: tuple[int, int], name: str, most_pixels: int | None = None) -> None:
    width, height = size
    if min(size) < LEAST_SIDE:
        raise BadPicture(name, TOO_SMALL, f"{width} x {height} pixels; at least {LEAST_SIDE} x {LEAST_SIDE} are wanted")
    if width * height > (most := most_pixels or MOST_PIXELS):
        raise BadPicture(name, TOO_LARGE, f"{width} x {height} pixels; at most {most:,} are read")


def _upright(image: "Image", name: str, most_pixels: int | None) -> "Image":
    """In grey or colours, turned as the camera noted."""
    from PIL import ImageOps

    library = pillow()
    _check_size(image.size, name, most_pixels)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise BadPicture(name, UNSCALED, "its pixels are floats")
    if image.mode[:1] == "I":
        return library.fromarray(_in_8_bits(np.asarray(image), name))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = library.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _in_8_bits(wide: np.ndarray, name: str) -> np.ndarray:
    """Pixels of 16 bits, perhaps in a wider type, of which pillow would cut off what is above 255."""
    least, most = int(wide.min()), int(wide.max())
    if least < 0 or most > MOST_OF_16_BITS:
        raise BadPicture(name, UNSCALED, f"its pixels go from {least} to {most}, beyond 16 bits")
    wide = wide.astype(np.uint16, copy=False)
    return (wide // 257 + (wide % 257 > 128)).astype(np.uint8)
