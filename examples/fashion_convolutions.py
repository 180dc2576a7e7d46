"""A small convolutional network beside ViT on Fashion-MNIST: the same pictures, augmentation, steps and optimizer.

    python examples/fashion_convolutions.py                       # as long as the recipe says, or
    python examples/fashion_convolutions.py --minutes 40          # no longer than ViT took

Cut off by --minutes, the learning rate has not fallen to its end. Its last weights are tested, where a run's are the
mean of some checkpoints, and it always computes in bfloat16. Otherwise it reads
recipes/image-classification_fashion-mnist_vit-small.toml, so that the network alone differs: two blocks of convolutions
over 28 x 28 and 14 x 14, and a third over 7 x 7, each of two convolutions of 3 x 3 with batch
normalisation, then the mean over the picture and one affine map. It prints one JSON object with the test accuracy.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from zhuyi.config import read_recipe
from zhuyi.errors import InputError
from zhuyi.tasks.image_classification import ImageClassificationTask
from zhuyi.tasks.picture_data import PictureBatches, prepare_pictures
from zhuyi.training.loop import seed_step
from zhuyi.training.schedules import learning_rate

RECIPE = Path("recipes/image-classification_fashion-mnist_vit-small.toml")
WIDTHS = (32, 64, 128)  # 0.3 M parameters, and about as many operations a picture as the recipe's ViT


class Convolutions(nn.Module):
    """Three blocks of two convolutions, each half as large as the one before, and a classifier of their mean."""

    def __init__(self, num_channels: int, num_labels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((num_channels, *WIDTHS), WIDTHS, strict=False):
            layers += [*_block(before, width), *_block(width, width), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers[:-1])
        self.classifier = nn.Linear(WIDTHS[-1], num_labels)

    def forward(self, images: Tensor) -> Tensor:
        """Shape: images (B, C, H, W); returns (B, num_labels)."""
        return self.classifier(self.layers(images).mean(dim=(2, 3)))


def _block(before: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=math.inf, help="cut training off here, if sooner")
    parser.add_argument("--steps", type=int, help="in place of the recipe's")
    parser.add_argument("--out", type=Path, default=Path("runs/fashion-convolutions"), help="where pictures are cached")
    options = parser.parse_args()
    config = read_recipe(RECIPE)
    settings = replace(config.train, max_steps=options.steps or config.train.max_steps)
    data, pictures = prepare_pictures(config.data, options.out / "data", settings.seed, print, begun=False)
    task = ImageClassificationTask(data, pictures, settings.batch_tokens, settings.seed)
    torch.manual_seed(settings.seed)
    model = Convolutions(data.channels, len(data.labels))
    started = time.monotonic()
    steps = train(model, task, settings, started, options.minutes)
    minutes = (time.monotonic() - started) / 60
    tested = replace(data, train=data.test, valid=data.test)
    _, test = prepare_pictures(tested, options.out / "test", settings.seed, print, begun=False)
    scores = {
        "test_accuracy": round(accuracy(model, PictureBatches(test["train"], data, 500, 0, augment=False)), 4),
        "valid_accuracy": round(accuracy(model, task.batches("valid")), 4),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "minutes": round(minutes, 1),
    }
    print(json.dumps(scores))


def train(model: nn.Module, task: ImageClassificationTask, settings: object, started: float, minutes: float) -> int:
    """The recipe's steps, at the recipe's learning rates, in bfloat16; returns how many."""
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=settings.betas, eps=settings.epsilon, weight_decay=settings.weight_decay
    )
    batches, step, epoch = task.batches("train"), 0, 0
    while step < settings.max_steps:
        for rows in batches.order(epoch):
            step += 1
            seed_step(settings.seed, step, 0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step, 1)
            with torch.autocast("cpu", torch.bfloat16):
                loss, _, count = task.loss(model, batches.load(rows), smoothing=settings.label_smoothing)
            (loss / count).backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            if step >= settings.max_steps or time.monotonic() - started > 60 * minutes:
                return step
        epoch += 1
        print(f"epoch {epoch}: accuracy {accuracy(model, batches=task.batches('valid')):.4f}", flush=True)
    return step


@torch.inference_mode()
def accuracy(model: nn.Module, batches: PictureBatches) -> float:
    """The share of pictures that are labelled right."""
    model.eval()
    right = 0
    for rows in batches.order(0, shuffle=False):
        batch = batches.load(rows)
        right += int((model(batch.images).argmax(dim=-1) == batch.labels).sum())
    model.train()
    return right / len(batches)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
