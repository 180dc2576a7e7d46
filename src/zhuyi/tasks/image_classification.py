"""Image classification: loss and scores of labelled pictures, and labels as every user gets them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.data.augmentation import middle
from zhuyi.tasks.announcing import Announce
from zhuyi.tasks.labelling import label_samples, label_scores
from zhuyi.tasks.picture_data import (
    PictureBatch,
    PictureBatches,
    PictureDataConfig,
    StoredPictures,
    as_numbers,
    normalized,
    prepare_pictures,
)
from zhuyi.tasks.text_classification import find_labels


class PictureModel(Protocol):
    """What image classification asks of a model."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def __call__(self, images: Tensor) -> Tensor: ...


class ImageClassificationTask:
    """What training needs of image classification: batches, loss, scores and samples."""

    def __init__(
        self, config: PictureDataConfig, pictures: Mapping[str, StoredPictures], batch_tokens: int, seed: int
    ) -> None:
        self.config = config
        self._batches = {
            split: PictureBatches(each, config, batch_tokens, seed, augment=split == "train")
            for split, each in pictures.items()
        }

    @classmethod
    def prepare(
        cls,
        config: PictureDataConfig,
        decode: None,
        folder: Path,
        batch_tokens: int,
        seed: int,
        announce: Announce,
        *,
        begun: bool = False,
    ) -> "ImageClassificationTask":
        """Read the run's pictures, or open what was read; only open it where training has `begun`."""
        config, pictures = prepare_pictures(config, folder, seed, announce, begun=begun)
        labels = config.labels or find_labels(iter(pictures["train"].labels), "pictures", len(pictures["train"]))
        announce(f"{len(labels)} labels: {', '.join(labels[:10])}{', ...' * (len(labels) > 10)}")
        return cls(replace(config, labels=labels), pictures, batch_tokens, seed)

    def derived_sizes(self) -> dict[str, dict[str, Any]]:
        """What of the configuration follows from the data, by section."""
        config = self.config
        model = {"num_labels": len(config.labels), "image_size": config.image_size, "num_channels": config.channels}
        names = ("labels", "image_size", "channels", "mean", "std")
        return {"model": model, "data": {name: getattr(config, name) for name in names}}

    def batches(self, split: str) -> PictureBatches:
        return self._batches[split]

    def loss(self, model: PictureModel, batch: PictureBatch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor, int]:
        """The summed loss to minimise, the summed negative log-likelihood, and how many pictures they are of."""
        logits = wide_logits(model, batch.images)
        nll = _mixed_cross_entropy(logits, batch, 0.0)
        loss = _mixed_cross_entropy(logits, batch, smoothing) if smoothing else nll
        return loss, nll.detach(), len(batch.labels)

    @torch.inference_mode()
    def evaluate(self, model: PictureModel) -> dict[str, Any]:
        """`valid_loss`, `accuracy` and `macro_f1` of the validation pictures."""
        device = next(model.parameters()).device
        return label_scores(
            self._batches["valid"], lambda batch: wide_logits(model, batch.images), len(self.config.labels), device
        )

    @torch.inference_mode()
    def samples(self, model: PictureModel, count: int = 2) -> list[tuple[str, str, str]]:
        """Name, likeliest label and true one of some validation pictures, the same each time."""
        batches, device = self._batches["valid"], next(model.parameters()).device
        return label_samples(batches, lambda batch: wide_logits(model, batch.images), self.config.labels, device, count)


def wide_logits(model: PictureModel, images: Tensor) -> Tensor:
    """The labels' logits in float32 or wider. Shape: images (B, C, H, W); returns (B, num_labels)."""
    logits = model(images)
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _mixed_cross_entropy(logits: Tensor, batch: PictureBatch, smoothing: float) -> Tensor:
    if batch.shares is None:
        return F.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=smoothing)
    own, other = (
        F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        for labels in (batch.labels, batch.labels.roll(-1))
    )
    return (own * batch.shares + other * (1 - batch.shares)).sum()


@torch.inference_mode()
def picture_probabilities(model: PictureModel, pixels: np.ndarray, config: PictureDataConfig) -> np.ndarray:
    """The one way from pictures as they are stored to the labels' probabilities.

    Shape: pixels (B, S, S, C) uint8; returns (B, num_labels).
    """
    images = normalized(middle(as_numbers(pixels), config.image_size), config)
    images = images.to(next(iter(model.parameters())).device)
    return wide_logits(model, images).softmax(dim=-1).double().cpu().numpy()


# From files to what is stored.
