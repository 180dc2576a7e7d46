"""Texts with made-up maps, and pictures read back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from zhuyi.predict import TextMaps
from zhuyi.visualize import figures

SOURCE = ("我们", "在", "公园", "看见", "了", "▁You", "T", "ube", "▁", "猫", "，", "</s>")
TARGET = ("▁We", "▁saw", "▁a", "▁cat", ".", "</s>")


def random_maps(
    source: tuple[str, ...] = SOURCE,
    target: tuple[str, ...] = TARGET,
    *,
    layers: tuple[int, int] = (3, 2),
    heads: int = 5,
    seed: int = 1,
) -> TextMaps:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"encoder.{}.self": (len(source), len(source))}
    sizes |= {"decoder.{}.self": (len(target), len(target)), "decoder.{}.cross": (len(target), len(source))}
    maps = {
        name.format(layer): torch.randn(heads, *size, generator=generator).mul(2).softmax(dim=-1)
        for name, size in sizes.items()
        for layer in range(layers[name.startswith("decoder")])
    }
    return TextMaps(source, target, maps, ("<s>", *target[:-1]))


@pytest.fixture
def make_maps() -> Callable[..., TextMaps]:
    return random_maps


@pytest.fixture
def text_maps() -> TextMaps:
    return random_maps()


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer pixels, which take less time to draw; the layout is in inches."""
    monkeypatch.setattr(figures, "DOTS_PER_INCH", 50)


def read_picture(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return imread(path)[:, :, :3]


@pytest.fixture
def read() -> Callable[[Path], np.ndarray]:
    """The pixels of a PNG, (height, width, 3) from 0 to 1."""
    return read_picture


@pytest.fixture(params=["matplotlib", "pylopdf_fonts_zh_cn"])
def missing_package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A part of the extra `plot` that is not installed."""
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == request.param]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, request.param, None)
    return request.param
