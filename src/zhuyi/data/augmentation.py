"""Pictures changed a little each time they are shown, which is how few of them teach much."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_ASPECT = 3 / 4  # of a crop, and its inverse (Szegedy et al. 2015)
ERASED = (0.02, 0.33)  # shares of the area (Zhong et al. 2020, section 5)
LEAST_ERASED_ASPECT = 0.3


@dataclass(frozen=True)
class Augmentation:
    """What is done to the pictures of training alone; the defaults do nothing.

    Args:   flip: left and right change places in half of them.
            shift: pixels, of the picture as the model reads it, that it moves at most each way.
            crop: a part of at least this share of the area is shown in the whole's place; 1 is always the whole.
            erase: the share of pictures in which a rectangle is painted over.
            mixup: alpha of the distribution Beta(alpha, alpha) by which a picture is mixed with the next one; 0: none.
    """

    flip: bool = False
    shift: int = 0
    crop: float = 1.0
    erase: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(f"shift must not be negative, got {self.shift}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is a share of the area in (0, 1], got {self.crop}")
        if not 0 <= self.erase <= 1:
            raise ValueError(f"erase is a share of the pictures in [0, 1], got {self.erase}")
        if not 0 <= self.mixup < float("inf"):
            raise ValueError(f"mixup must not be negative, got {self.mixup}")

    @property
    def reframes(self) -> bool:
        """Whether another part of a picture is shown than its middle."""
        return self.flip or self.shift > 0 or self.crop < 1


def reframe(images: Tensor, size: int, config: Augmentation, rng: np.random.Generator) -> Tensor:
    """Crop, shift and flip at random, by one resampling.

    Shape:  images (B, C, S, S); returns (B, C, size, size).
    Source: crop: Szegedy et al. 2015, section 6.
    """
    count, stored = len(images), images.shape[-1]
    draw = rng.random((6, count))
    if config.crop < 1:
        area = config.crop + (1 - config.crop) * draw[0]
        aspect = np.exp(np.log(LEAST_ASPECT) * (2 * draw[1] - 1))
        width, height = np.sqrt(area * aspect).clip(max=1), np.sqrt(area / aspect).clip(max=1)
    else:
        width = height = np.full(count, size / stored)
    reach = 2 * config.shift / size
    steps = 2 * config.shift + 1
    # In the coordinates of what is read: -1 and 1 are its edges.
    x = (1 - width) * (2 * draw[2] - 1) + width * (np.floor(steps * draw[4]) / max(1, steps - 1) * 2 - 1) * reach
    y = (1 - height) * (2 * draw[3] - 1) + height * (np.floor(steps * draw[5]) / max(1, steps - 1) * 2 - 1) * reach
    if config.flip:
        width = np.where(rng.random(count) < 0.5, -width, width)
    zeros = np.zeros(count)
    theta = np.stack([np.stack([width, zeros, x], 1), np.stack([zeros, height, y], 1)], 1)  # (B, 2, 3)
    grid = F.affine_grid(torch.from_numpy(theta).to(images.dtype), [count, 1, size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def middle(images: Tensor, size: int) -> Tensor:
    """The square in the middle of pictures. Shape: images (B, C, S, S); returns (B, C, size, size)."""
    start = (images.shape[-1] - size) // 2
    return images[:, :, start : start + size, start : start + size]


def erase(images: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Set a rectangle of a share of the pictures to zero, their mean.

    Shape:  images (B, C, H, W), normalised; returns the same.
    Source: Zhong et al. 2020, algorithm 1. Departure: a rectangle longer than the picture is cut to it, where the
            paper draws anew.
    """
    count, (height, width) = len(images), images.shape[-2:]
    draw = rng.random((5, count))
    area = (ERASED[0] + (ERASED[1] - ERASED[0]) * draw[0]) * height * width
    aspect = np.exp(np.log(LEAST_ERASED_ASPECT) * (2 * draw[1] - 1))
    tall, wide = np.sqrt(area * aspect).clip(1, height), np.sqrt(area / aspect).clip(1, width)
    top, left = draw[2] * (height - tall), draw[3] * (width - wide)
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    in_rows = (rows >= top[:, None]) & (rows <= (top + tall)[:, None])  # (B, H)
    in_columns = (columns >= left[:, None]) & (columns <= (left + wide)[:, None])  # (B, W)
    erased = in_rows[:, :, None] & in_columns[:, None, :] & (draw[4] < share)[:, None, None]
    return images.masked_fill(torch.from_numpy(erased)[:, None], 0.0)


def mix(images: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Lay each picture over the next one of the batch; the share that it keeps counts for the labels too.

    Shape:  images (B, C, H, W); returns the same and the shares (B,).
    Source: Zhang et al. 2018, eq. 1; a share for each picture.
    """
    shares = torch.from_numpy(rng.beta(alpha, alpha, len(images))).to(images.dtype)
    kept = shares[:, None, None, None]
    return images * kept + images.roll(-1, 0) * (1 - kept), shares
