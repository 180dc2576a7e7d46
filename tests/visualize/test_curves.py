from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zhuyi.errors import InputError
from zhuyi.visualize.curves import ERRORS, _panels, draw_curves

Read = Callable[[Path], np.ndarray]


def rows(count: int = 12, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "step": 100 * n,
            "minutes": 0.5 * n,
            "train_loss": 7 / n,
            "valid_loss": 7 / n + 0.1,
            "learning_rate": 1e-4 * n,
            "tokens_per_second": 5000 + 10 * n,
            "bleu": 3.0 * n,
            **more,
        }
        for n in range(1, count + 1)
    ]


def test_the_picture_follows_the_numbers(tmp_path: Path, read: Read) -> None:
    before, after = tmp_path / "before.png", tmp_path / "after.png"
    draw_curves(rows(), before)
    turned = [{**row, "valid_loss": other["valid_loss"]} for row, other in zip(rows(), rows()[::-1], strict=True)]
    draw_curves(turned, after)
    assert read(before).shape == read(after).shape
    changed = np.abs(read(before) - read(after)).max(axis=-1) > 0.2
    height, width = changed.shape
    assert changed[: height // 2, : width // 2].any()
    assert not changed[:, width * 11 // 20 :].any()  # the other panels tell of other numbers


def test_each_other_score_has_a_panel(tmp_path: Path, read: Read) -> None:
    """Four panels in two rows; the fifth begins a third row."""
    draw_curves(rows(), tmp_path / "four.png")
    draw_curves(rows(accuracy=0.5), tmp_path / "five.png")
    four, five = read(tmp_path / "four.png"), read(tmp_path / "five.png")
    assert five.shape[0] == pytest.approx(four.shape[0] * 1.5, rel=0.05)


@pytest.mark.parametrize(
    "metrics",
    [
        rows(1),
        rows(200),
        rows(note="text", flag=True, nothing=None),
        [{"step": 1, "train_loss": 2.0}],
        [{"step": 1, "valid_loss": float("nan"), "train_loss": 2.0}, {"step": 2, "valid_loss": float("inf")}],
        [{"step": 1, "train_loss": 0.0}, {"step": 10**7, "train_loss": 1e9}, {"unknown": 1}],
    ],
    ids=["one row", "many rows", "other values", "one key", "not finite", "extremes"],
)
def test_whatever_stands_in_the_rows(metrics: list[dict[str, Any]], tmp_path: Path, read: Read) -> None:
    draw_curves(metrics, tmp_path / "curves.png")
    assert read(tmp_path / "curves.png").std() > 0.01


@pytest.mark.parametrize("metrics", [[], [{"step": 1}], [{"bleu": 3.0}], [{"step": 1, "bleu": float("nan")}]])
def test_nothing_to_draw_draws_nothing(metrics: list[dict[str, Any]], tmp_path: Path) -> None:
    draw_curves(metrics, tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_a_forecasts_loss_is_an_error() -> None:
    rows = [{"step": 1, "train_loss": 2.5, "valid_loss": 3.0, "mae": 3.0}]
    assert next(iter(_panels(rows))) == ERRORS
    assert ERRORS not in _panels([{"step": 1, "train_loss": 2.5}])


def test_without_the_extra_nothing_is_written(missing_package: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf'{missing_package}.*pip install "zhuyi\[plot\]"'):
        draw_curves(rows(), tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_the_old_picture_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    path = tmp_path / "curves.png"
    draw_curves(rows(), path)
    old = path.read_bytes()

    def fail(self: Figure, to: Path, **settings: Any) -> None:
        to.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_curves(rows(3), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
