"""Labelled pictures, from files to what is stored, and from there to batches."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zhuyi.atomic import replacing
from zhuyi.data import batches as batching
from zhuyi.data.augmentation import Augmentation, erase, middle, mix, reframe
from zhuyi.data.images import (
    BadPicture,
    Fit,
    Picture,
    Resample,
    Shape,
    files_of,
    list_pictures,
    look,
    open_picture,
    to_pixels,
)
from zhuyi.data.origins import forget_unless, origin_of
from zhuyi.data.pairs import CleaningReport
from zhuyi.data.splitting import split_off
from zhuyi.errors import InputError
from zhuyi.machine import num_cores
from zhuyi.tasks.announcing import Announce
from zhuyi.tasks.text_classification import number_of

PICTURES_A_CHUNK = 256


@dataclass(frozen=True)
class PictureDataConfig:
    """Where labelled pictures come from and how they become numbers.

    Args:   train, valid, test: folders with a sub-folder a class, IMAGES,LABELS in the idx form, or `.npz` files.
            labels: their names, in the model's order; found in the data where empty.
            valid_size: pictures held out of `train` where no `valid` is given, of each label its share.
            image_size: pixels of a side, as the model reads them; the pictures' own where 0 and all have one.
            channels: 1 (grey) or 3 (colours); 0: grey where all pictures are.
            fit, resample: see `zhuyi.data.images.Shape`.
            crop_share: the part of a side that the model reads, of the middle; training may read other parts.
            mean, std: taken off and divided by, of each channel of numbers from 0 to 1; the training pictures' own
            where empty.
    """

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    valid_size: int = 1000
    image_size: int = 0
    channels: int = 0
    fit: Fit = "crop"
    resample: Resample = "bilinear"
    crop_share: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.valid_size < 1:
            raise ValueError(f"valid_size must be at least 1, got {self.valid_size}")
        if self.image_size < 0:
            raise ValueError(f"image_size must be at least 0, got {self.image_size}")
        if self.channels not in (0, 1, 3):
            raise ValueError(f"channels is 1 (grey), 3 (colours) or 0 (as the pictures are), got {self.channels}")
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"crop_share lies in (0, 1], got {self.crop_share}")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels has a name twice: {', '.join(self.labels)}")
        for name in ("mean", "std"):
            if self.channels and len(getattr(self, name)) not in (0, self.channels):
                raise ValueError(f"{name} has {len(getattr(self, name))} numbers for {self.channels} channels")
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std must be above 0, got {min(self.std)}")

    @property
    def shape(self) -> Shape:
        """What a picture is stored as: a little more than the model reads, where a part of it is read."""
        return Shape(round(self.image_size / self.crop_share), self.channels, self.fit, self.resample)

    def describe(self) -> str:
        """The data in a line, for people."""
        return f"{', '.join(self.train)}: {' | '.join(self.labels)}"


@dataclass(frozen=True)
class PictureBatch:
    """Some pictures and their labels' numbers.

    Args:   shares: how much of each picture is there, where the rest is the next one's; None: all of it.
    Shape:  images (B, C, H, W), labels (B,), shares (B,).
    """

    images: Tensor
    labels: Tensor
    shares: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """A picture counts as one."""
        return len(self.labels)

    def to(self, device: torch.device) -> "PictureBatch":
        shares = None if self.shares is None else self.shares.to(device)
        return PictureBatch(self.images.to(device), self.labels.to(device), shares)


@dataclass(frozen=True)
class StoredPictures:
    """The pictures of one split, in a file.

    Shape: pixels (M, S, S, C) uint8, of which `rows` (N,) are the split's, in the order of names and labels.
    """

    pixels: np.ndarray
    rows: np.ndarray
    names: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.rows)


class PictureBatches:
    """The batches of one split; what is done to a picture is drawn from seed, epoch and the batch's first picture.

    A row of an epoch is known by one number, epoch * rows + row, so that a batch can be loaded by these alone. A
    picture counts as one token.
    """

    def __init__(
        self, pictures: StoredPictures, config: PictureDataConfig, batch_tokens: int, seed: int, *, augment: bool
    ) -> None:
        self.pictures, self.config = pictures, config
        numbers = {name: number for number, name in enumerate(config.labels)}
        named = zip(pictures.labels, pictures.names, strict=True)
        self._labels = np.array([number_of(label, numbers, (name, 0)) for label, name in named], np.int64)
        self._lengths = np.ones(len(pictures), np.int32)
        self._augmentation = config.augmentation if augment else Augmentation()
        self._moves = augment and (config.augmentation.reframes or config.crop_share < 1)
        self._batch_tokens, self._seed = batch_tokens, seed

    def __len__(self) -> int:
        return len(self.pictures)

    def order(self, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
        """The rows of each batch: a pure function of the data, the seed and the epoch."""
        batches = batching.order(
            self._lengths, batch_tokens=self._batch_tokens, seed=self._seed, epoch=epoch, shuffle=shuffle
        )
        return [batch + epoch * len(self) for batch in batches]

    def largest(self) -> np.ndarray:
        """The rows of the batch that costs most memory."""
        return batching.largest(self._lengths, self._batch_tokens)

    def load(self, rows: np.ndarray) -> PictureBatch:
        epochs, places = np.divmod(rows, len(self))
        config, augmentation = self.config, self._augmentation
        entropy = np.random.SeedSequence([self._seed, int(epochs[0]), int(places[0])])
        rng = np.random.Generator(np.random.Philox(entropy))
        images = as_numbers(self.pictures.pixels[self.pictures.rows[places]])  # (B, C, S, S)
        if self._moves:
            images = reframe(images, config.image_size, augmentation, rng)
        images = normalized(middle(images, config.image_size), config)
        if augmentation.erase:
            images = erase(images, augmentation.erase, rng)
        shares = None
        if augmentation.mixup:
            images, shares = mix(images, augmentation.mixup, rng)
        return PictureBatch(images, torch.from_numpy(self._labels[places]), shares)

    def lines(self, rows: np.ndarray) -> list[str]:
        """The names of a batch's pictures, to show a person."""
        return [self.pictures.names[row % len(self)] for row in rows.tolist()]


def as_numbers(pixels: np.ndarray) -> Tensor:
    """From 0 to 1. Shape: pixels (B, H, W, C) uint8; returns (B, C, H, W)."""
    return torch.tensor(pixels).permute(0, 3, 1, 2).float().div_(255)


def normalized(images: Tensor, config: PictureDataConfig) -> Tensor:
    """Numbers from 0 to 1 as the model reads them. Shape: images (B, C, H, W); returns the same."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    return (images - mean) / std


def prepare_pictures(
    config: PictureDataConfig, folder: Path, seed: int, announce: Announce, *, begun: bool
) -> tuple[PictureDataConfig, dict[str, StoredPictures]]:
    """The pictures of both splits, read once, and the config with what they say of sizes and numbers.

    Args:   begun: training has begun on what is there: it is used whatever has become of the files since.
    Raises: InputError: no file, no picture in it, pictures of many sizes where none is wanted, or too few to hold out.
    """
    cache = folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    if not config.train:
        raise InputError("no training data: set data.train or give --train FOLDER")
    note = cache / "read-from.json"
    if begun and note.exists():
        origin = note.read_text(encoding="utf-8")
    else:
        kept = replace(config, test=(), mean=(), std=(), augmentation=Augmentation())
        origin = origin_of([asdict(kept), seed], files_of((*config.train, *config.valid)), note, begun=False)
    made = [cache / name for name in ("cleaning.json", "train.json", "valid.json", "train.npy", "valid.npy")]
    forget_unless(note, origin, made)
    if not (cache / "cleaning.json").exists():
        _read(config, cache, seed, announce)
    found = json.loads((cache / "cleaning.json").read_text(encoding="utf-8"))
    config = replace(config, image_size=found["image_size"], channels=found["channels"])
    pictures = {split: open_stored(cache, split) for split in ("train", "valid")}
    if not config.mean or not config.std:
        mean, std = moments(pictures["train"])
        config = replace(config, mean=config.mean or mean, std=config.std or std)
    return config, pictures


def open_stored(cache: Path, split: str) -> StoredPictures:
    """What `_read` has left of a split."""
    values = json.loads((cache / f"{split}.json").read_text(encoding="utf-8"))
    pixels = np.load(cache / values["file"], mmap_mode="r", allow_pickle=False)
    return StoredPictures(pixels, np.array(values["rows"], np.int64), values["names"], values["labels"])


def moments(pictures: StoredPictures) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of each channel's numbers, from 0 to 1."""
    counts = np.zeros((pictures.pixels.shape[-1], 256), np.int64)
    for start in range(0, len(pictures), PICTURES_A_CHUNK):
        chunk = pictures.pixels[pictures.rows[start : start + PICTURES_A_CHUNK]]
        for channel, row in enumerate(counts):
            row += np.bincount(chunk[..., channel].ravel(), minlength=256)
    shares, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.round(4).tolist()), tuple(std.clip(1e-3).round(4).tolist())


def _read(config: PictureDataConfig, cache: Path, seed: int, announce: Announce) -> None:
    """Store the pictures of both splits, then the report, whose presence says that both are there."""
    report = CleaningReport(things="pictures")
    pictures = list_pictures(config.train, config.labels, report)
    config = sized(config, pictures)
    everything = _store(pictures, config, cache / "train.npy", report)
    announce(report.summary())
    if config.valid:
        valid_report = CleaningReport(things="pictures")
        listed = list_pictures(config.valid, config.labels, valid_report)
        held_out, held_in = _store(listed, config, cache / "valid.npy", valid_report), "valid.npy"
        announce(f"validation: {valid_report.summary()}")
        split = {"train": (everything, "train.npy"), "valid": (held_out, held_in)}
    else:
        chosen = _hold_out(everything, config.valid_size, seed)
        announce(f"held out {int(chosen.sum()):,} pictures for validation; none of them is in the rest")
        split = {
            name: (_some(everything, which), "train.npy") for name, which in (("train", ~chosen), ("valid", chosen))
        }
    for name, (stored, file) in split.items():
        values = {"file": file, "rows": stored.rows.tolist(), "names": stored.names, "labels": stored.labels}
        with replacing(cache / f"{name}.json") as path:
            path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    found = {**report.as_dict(), "image_size": config.image_size, "channels": config.channels}
    with replacing(cache / "cleaning.json") as path:
        path.write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")


def sized(config: PictureDataConfig, pictures: Sequence[Picture]) -> PictureDataConfig:
    """The config with the size and the channels that the pictures themselves have, where it leaves them open.

    Raises: InputError: they have more than one size, or none of them can be read.
    """
    if config.image_size and config.channels:
        return config
    sizes, most_channels = set[tuple[int, int]](), 1
    for picture in pictures:
        try:
            size, channels = look(picture.source, picture.name)
        except BadPicture:
            continue
        sizes.add(size)
        most_channels = max(most_channels, channels)
    sides = {side for size in sizes for side in size}
    if not config.image_size and len(sides) != 1:
        found = f"from {min(sides)} to {max(sides)} pixels a side" if sides else "of no size, as none can be read"
        raise InputError(
            f"the pictures are {found}; set data.image_size to the side that all are brought to, a multiple of "
            "model.patch_size"
        )
    side = config.image_size or round(min(sides) * config.crop_share)
    return replace(config, image_size=side, channels=config.channels or most_channels)


def _store(
    pictures: Sequence[Picture], config: PictureDataConfig, path: Path, report: CleaningReport
) -> StoredPictures:
    """Read pictures on all cores into one file; those that cannot be read leave their rows of it empty."""
    shape = config.shape
    good: list[int] = []
    with replacing(path) as unfinished:
        sides = (len(pictures), shape.size, shape.size, shape.channels)
        pixels = np.lib.format.open_memmap(unfinished, "w+", np.uint8, sides)
        for row, found in read_pictures(pictures, shape, report):
            pixels[row] = found
            good.append(row)
        pixels.flush()
        del pixels
    names, labels = ([getattr(pictures[row], key) for row in good] for key in ("name", "label"))
    return StoredPictures(np.load(path, mmap_mode="r", allow_pickle=False), np.array(good, np.int64), names, labels)


def read_pictures(
    pictures: Sequence[Picture], shape: Shape, report: CleaningReport
) -> Iterator[tuple[int, np.ndarray]]:
    """The number and the pixels of each picture that can be read, on all cores; others are counted in the report.

    Shape:  pixels (size, size, channels) uint8.
    Raises: InputError: none can be read.
    """
    with ThreadPoolExecutor(num_cores()) as pool:
        for start in range(0, len(pictures), PICTURES_A_CHUNK):
            chunk = pictures[start : start + PICTURES_A_CHUNK]
            for row, found in enumerate(pool.map(lambda picture: _read_one(picture, shape), chunk), start):
                report.total += 1
                if isinstance(found, BadPicture):
                    report.drop(found.reason, (pictures[row].name, 0))
                else:
                    report.kept += 1
                    yield row, found
    if not report.kept:
        raise InputError(f"no picture can be read: {report.summary()}")


def _read_one(picture: Picture, shape: Shape) -> np.ndarray | BadPicture:
    try:
        return to_pixels(open_picture(picture.source, picture.name), shape)
    except BadPicture as error:
        return error


def _hold_out(pictures: StoredPictures, size: int, seed: int) -> np.ndarray:
    """Choose pictures for validation, of each label its share, such that equal ones of a label stay together.

    Shape:  returns (N,), True = held out.
    Raises: InputError: there are too few.
    """
    keys = np.array(
        [
            int.from_bytes(blake2b(pictures.pixels[row].tobytes(), digest_size=8).digest(), "little")
            for row in pictures.rows
        ],
        np.uint64,
    )
    labels = np.array(pictures.labels)
    chosen = np.zeros(len(labels), np.bool_)
    for label in sorted(set(pictures.labels)):
        of_label = np.flatnonzero(labels == label)
        share = max(1, round(size * len(of_label) / len(labels)))
        chosen[of_label] = split_off(keys[of_label], keys[of_label], share, seed)
    if not chosen.any():
        raise InputError(
            f"{len(labels):,} pictures are too few to hold some out for validation; give more, or pictures of their "
            "own by --valid FOLDER"
        )
    return chosen


def _some(pictures: StoredPictures, which: np.ndarray) -> StoredPictures:
    places = np.flatnonzero(which).tolist()
    names, labels = ([values[i] for i in places] for values in (pictures.names, pictures.labels))
    return StoredPictures(pictures.pixels, pictures.rows[places], names, labels)
