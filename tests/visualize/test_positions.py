from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from zhuyi.nn.positions import LearnedPositions, sinusoidal
from zhuyi.visualize.positions import draw_positions


def test_the_picture_follows_the_table(tmp_path: Path, read: Callable[[Path], np.ndarray]) -> None:
    draw_positions(sinusoidal(32, 16), tmp_path / "sinusoidal.png", title="Positions")
    torch.manual_seed(1)
    draw_positions(LearnedPositions(32, 16).table, tmp_path / "learned.png", title="Positions")
    pictures = [read(tmp_path / name) for name in ("sinusoidal.png", "learned.png")]
    height, width = (min(p.shape[axis] for p in pictures) for axis in (0, 1))
    first, second = (p[:height, :width] for p in pictures)
    changed = np.abs(first - second).max(axis=-1) > 0.1
    halves = changed[: height // 2, : width // 2], changed[: height // 2, width // 2 :], changed[height // 2 :]
    assert [part.mean() > share for part, share in zip(halves, (0.2, 0.2, 0.02), strict=True)] == [True] * 3


@pytest.mark.parametrize("shape", [(1, 1), (300, 5)])
def test_any_size_can_be_drawn(shape: tuple[int, int], tmp_path: Path) -> None:
    draw_positions(torch.zeros(shape, dtype=torch.bfloat16), tmp_path / "positions.png", title="Zeros")
    assert (tmp_path / "positions.png").stat().st_size > 5_000
