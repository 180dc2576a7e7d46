"""An image classification run in memory: pictures to labels with probabilities, and to where the model looked."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from zhuyi.config import RunConfig
from zhuyi.data.augmentation import middle
from zhuyi.data.images import open_picture, to_pixels
from zhuyi.errors import InputError
from zhuyi.machine import num_cores
from zhuyi.nn.maps import Maps
from zhuyi.predict.classifier import Classification
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.image_classification import picture_probabilities
from zhuyi.tasks.picture_data import as_numbers, normalized

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES_TOGETHER = 64


@dataclass(frozen=True, eq=False)
class PictureMaps:
    """Where each token of a picture looked.

    Args:   maps: by place, such as `encoder.0.self`; the tokens are `num_prefix_tokens` of the model's own, then the
            patches of a `grid` of rows and columns.
            answer: what the model took the picture for.
    Shape:  pixels (S, S, C) uint8, as the model read them; maps (H, T, T).
    """

    pixels: np.ndarray
    maps: dict[str, Tensor]
    grid: tuple[int, int]
    num_prefix_tokens: int
    answer: Classification


class PictureClassifier:
    """An image classification run in memory: `model` is the module, `config` what it was made from."""

    def __init__(self, model: Any, config: RunConfig, precision: str = "float32") -> None:
        self.model: Any = model
        self.config = config
        self.precision = precision

    @classmethod
    def from_folder(cls, model: nn.Module, config: RunConfig, folder: RunFolder, precision: str) -> Self:
        """Everything is in model and config."""
        return cls(model, config, precision)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels' names, in the model's order."""
        return tuple(self.config.data.labels)

    def classify(self, pictures: "Sequence[str | Path | Image | np.ndarray]") -> list[Classification]:
        """Label pictures; as many answers come back, in the same order.

        Args:   pictures: files, pillow's images, or pixels (H, W) or (H, W, 3) in uint8.
        Raises: InputError: one of them cannot be read, or the run has no labels.
        """
        if isinstance(pictures, str | Path):
            raise InputError("a list of pictures was wanted; for one write [picture]")
        answers = []
        for answer in self.stream(pictures):
            if isinstance(answer, InputError):
                raise answer
            answers.append(answer)
        return answers

    def stream(self, pictures: "Iterable[str | Path | Image | np.ndarray]") -> Iterator[Classification | InputError]:
        """As `classify`, in memory bounded by a few pictures; what cannot be read is answered by the error.

        Raises: InputError: the run has no labels.
        """
        self._check_labels()
        rest = iter(enumerate(pictures, 1))
        with ThreadPoolExecutor(num_cores()) as pool:
            while chunk := list(islice(rest, PICTURES_TOGETHER)):
                read = list(pool.map(lambda numbered: self._read(*numbered), chunk))
                good = [pixels for pixels in read if isinstance(pixels, np.ndarray)]
                answers = iter(self._answers(np.stack(good)) if good else ())
                for found in read:
                    yield found if isinstance(found, InputError) else next(answers)

    def attention(self, picture: "str | Path | Image | np.ndarray") -> PictureMaps:
        """Where the model looked in a picture.

        Raises: InputError: it cannot be read, or the run has no labels.
        """
        self._check_labels()
        found = self._read(1, picture)
        if isinstance(found, InputError):
            raise found
        config, maps = self.config.data, Maps()
        images = middle(as_numbers(found[None]), config.image_size)
        with torch.inference_mode():
            self.model(normalized(images, config).to(next(self.model.parameters()).device), maps)
        side = config.image_size // self.config.model.patch_size
        return PictureMaps(
            (images[0].permute(1, 2, 0) * 255).round().byte().numpy(),
            {name: weights[0].float().cpu() for name, weights in maps.weights.items()},
            (side, side),
            self.config.model.num_prefix_tokens,
            self._answers(found[None])[0],
        )

    def _read(self, number: int, picture: "str | Path | Image | np.ndarray") -> np.ndarray | InputError:
        """The pixels of one picture as they are stored."""
        if isinstance(picture, Path):
            picture = str(picture)
        name = picture if isinstance(picture, str) else f"picture {number}"
        try:
            return to_pixels(open_picture(picture, name), self.config.data.shape)
        except InputError as error:
            return error

    def _answers(self, pixels: np.ndarray) -> list[Classification]:
        """Shape: pixels (B, S, S, C) uint8."""
        return [
            Classification(
                self.labels[int(probs.argmax())],
                float(probs.max()),
                dict(zip(self.labels, probs.tolist(), strict=True)),
            )
            for probs in picture_probabilities(self.model, pixels, self.config.data)
        ]

    def _check_labels(self) -> None:
        if not self.labels:
            raise InputError(
                "this run has no labels: it is a published model's body; train it on pictures of yours with "
                "`zhuyi train --task image-classification --train FOLDER --init RUN --out OTHER`"
            )
