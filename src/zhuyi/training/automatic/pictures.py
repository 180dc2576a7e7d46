"""A recipe for labelled pictures."""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from zhuyi.data.images import BadPicture, Picture, list_pictures, look
from zhuyi.data.pairs import CleaningReport
from zhuyi.errors import InputError
from zhuyi.run_folder import RunFolder
from zhuyi.training.automatic.given import Given
from zhuyi.training.automatic.learning_on import LEARNING_RATE_TIMES_WIDTH


@dataclass(frozen=True)
class PictureSize:
    """A ViT, up to how many labelled pictures it suits, and how it is trained from random weights."""

    up_to_pictures: float
    d_model: int
    num_heads: int
    num_layers: int
    stochastic_depth: float
    learning_rate: float
    epochs: int


PICTURE_SIZES = (
    PictureSize(3_000, 64, 4, 4, 0.0, 1e-3, 100),
    PictureSize(30_000, 128, 4, 6, 0.1, 1e-3, 60),
    PictureSize(300_000, 192, 6, 8, 0.1, 8e-4, 30),
    PictureSize(float("inf"), 384, 6, 12, 0.1, 5e-4, 20),
)
# Without a GPU larger ones would take days; so many patches a side tell most things apart.
LARGEST_SIDE, LARGEST_SIDE_ON_GPU = 64, 128
PATCHES_A_SIDE = 8
PICTURES_TOGETHER = 64
EPOCHS_OF_PICTURES_FROM_INIT = 10


def recipe_for_pictures(given: Given) -> tuple[dict[str, Any], list[str]]:
    """What makes a classifier of pictures, as plain values, and why each choice was made."""
    report = CleaningReport(things="files")
    pictures = list_pictures(given.files["train"], (), report)
    sides, channels = _looked_at(pictures)
    size = next(size for size in PICTURE_SIZES if len(pictures) <= size.up_to_pictures)
    rate, epochs = size.learning_rate, size.epochs
    if given.init:
        begun = RunFolder(given.init).read_config()
        if begun.model.name != "vit":
            raise InputError(f"{given.init} is a run of {begun.task}; to label pictures begin with one that does so")
        kept = ("image_size", "channels", "fit", "resample", "crop_share", "mean", "std")
        data = {key: value for key, value in asdict(begun.data).items() if key in kept}
        side, patch, moves = begun.data.image_size, begun.model.patch_size, {"flip": channels == 3, "crop": 0.6}
        rate, epochs = LEARNING_RATE_TIMES_WIDTH / begun.model.d_model, EPOCHS_OF_PICTURES_FROM_INIT
        why = f"begins with {given.init}, whose pictures are of {side} pixels"
    else:
        most = LARGEST_SIDE_ON_GPU if torch.cuda.is_available() else LARGEST_SIDE
        is_native = len(set(sides)) == 1 and sides[0] <= most
        side, patch = _patching(min(most, sorted(sides)[len(sides) // 2]))
        data = {"image_size": side, "channels": channels}
        moves = {"shift": max(1, side // 14)} if is_native else {"flip": channels == 3, "crop": 0.4}
        if not is_native:
            data["crop_share"] = 0.875
        why = f"{size.num_layers} layers of width {size.d_model} for {len(pictures):,} pictures"
    together = min(PICTURES_TOGETHER, max(8, len(pictures) // 20))
    steps = max(1, len(pictures) // together)  # an epoch
    evaluate = max(20, epochs * steps // 20)
    model = {
        "name": "vit",
        "patch_size": patch,
        "d_model": size.d_model,
        "num_heads": size.num_heads,
        "d_ff": 2 * size.d_model,
        "num_layers": size.num_layers,
        "dropout": 0.1,
        "stochastic_depth": size.stochastic_depth,
        "pooling": "mean",
    }
    values = {
        "task": "image-classification",
        "model": model,
        "data": {
            **{split: list(files) for split, files in given.files.items() if files},
            "valid_size": max(10, min(1000, len(pictures) // 10)),
            **data,
            "augmentation": moves,
        },
        "train": {
            "max_steps": epochs * steps,
            "batch_tokens": together,
            "learning_rate": rate,
            "schedule": "cosine",
            "warmup_steps": epochs * steps // 20,
            "betas": [0.9, 0.99],
            "epsilon": 1e-8,
            "weight_decay": 0.05,
            "label_smoothing": 0.1,
            "eval_every_steps": evaluate,
            "save_every_steps": evaluate,
            "average": "last",
            "average_checkpoints": 3,
        },
    }
    return values, [
        *([report.summary()] if report.dropped else []),
        why,
        f"pictures of {side} x {side}, {'in colours' if channels == 3 else 'in grey'}, patches of {patch} x {patch}",
        f"in training: {', '.join(f'{key} {value}' for key, value in moves.items())}; grey pictures, which may be of "
        "letters, are not flipped",
        f"batches of {together} pictures; {epochs} epochs of {steps:,} steps",
    ]


def _looked_at(pictures: Sequence[Picture]) -> tuple[list[int], int]:
    """The shorter side of each picture that can be read, and the channels of the most colourful one.

    Raises: InputError: none can be read.
    """
    sides, channels = [], 1
    for picture in pictures:
        with contextlib.suppress(BadPicture):
            shape, own = look(picture.source, picture.name)
            sides.append(min(shape))
            channels = max(channels, own)
    if not sides:
        raise InputError(f"none of {len(pictures):,} pictures can be read, {pictures[0].name} for one; give others")
    return sides, channels


def _patching(side: int) -> tuple[int, int]:
    """The side of a picture and of a patch: the picture's own where 5 to 8 patches fit into it, else a little less."""
    for count in range(PATCHES_A_SIDE, PATCHES_A_SIDE - 4, -1):
        if side % count == 0:
            return side, side // count
    side = max(PATCHES_A_SIDE, side - side % PATCHES_A_SIDE)
    return side, side // PATCHES_A_SIDE
