"""What each head does, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from zhuyi.predict import PictureMaps, SensorMaps, SoundMaps, TextMaps
from zhuyi.predict.classifier import Classification
from zhuyi.visualize.head_figures import HeadFigures, as_table, head_figures


def eye(size: int, shift: int = 0) -> np.ndarray:
    """Every row looks at itself, or at so many before it, the first ones at the first."""
    weights = np.zeros((size, size))
    weights[np.arange(size), np.maximum(np.arange(size) - shift, 0)] = 1
    return weights


def tensor(*heads: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.stack(heads), dtype=torch.float32)


def check(found: HeadFigures, **expected: float | None) -> None:
    for name, value in expected.items():
        assert getattr(found, name) == (None if value is None else pytest.approx(value, abs=1e-6)), name


def test_a_text_s_heads() -> None:
    even = np.full((4, 4), 0.25)
    cross = np.full((3, 4), 0.25)
    maps = {
        "encoder.0.self": tensor(eye(4), even),
        "decoder.0.self": tensor(eye(3, 1), eye(3)),
        "decoder.0.cross": tensor(cross, cross),
    }
    found = head_figures(TextMaps(("a", "b", "c", "d"), ("x", "y", "z"), maps, ("<s>", "x", "y")))
    assert [(each.place, each.layer, each.head) for each in found] == [
        (place, 1, head) for place in ("encoder", "decoder", "cross") for head in (1, 2)
    ]
    check(found[0], distance=0, entropy=0, itself=1, first=0.25, previous=0)
    # Of 4 tokens the mean distance of all pairs is 20 / 16.
    check(found[1], distance=1.25, entropy=math.log(4), itself=0.25, first=0.25, previous=0.25)
    check(found[2], distance=2 / 3, itself=1 / 3, first=2 / 3, previous=1)
    check(found[4], distance=None, entropy=math.log(4), itself=None, first=0.25, previous=None)


def test_what_a_prefix_before_the_text_does_not_shift() -> None:
    # Two signs are read before the first token is written: row 0 has just read column 1.
    weights = np.zeros((3, 4))
    weights[np.arange(3), np.arange(3) + 1] = 1
    before = np.roll(weights, -1, axis=1)
    found = head_figures(
        SoundMaps(np.zeros(9), ("a", "b", "</s>"), {"decoder.0.self": tensor(weights, before)}, ("s", "t", "a", "b"))
    )
    check(found[0], distance=0, itself=1, first=0, previous=0)
    check(found[1], distance=1, itself=0, first=1 / 3, previous=1)


def test_a_picture_s_distances_are_between_patches() -> None:
    # A class token before 2 x 2 patches; every patch looks half at the class token, half at the patch across.
    weights = np.zeros((5, 5))
    weights[0, 0] = 1
    for patch, across in ((1, 4), (2, 3), (3, 2), (4, 1)):
        weights[patch, 0] = weights[patch, across] = 0.5
    answer = Classification("cat", 1.0, {"cat": 1.0})
    picture = PictureMaps(np.zeros((4, 4, 1), np.uint8), {"encoder.0.self": tensor(weights)}, (2, 2), 1, answer)
    check(head_figures(picture)[0], distance=math.sqrt(2), itself=0, first=0.6, previous=None)
    bare = PictureMaps(np.zeros((4, 4, 1), np.uint8), {"encoder.0.self": tensor(eye(4))}, (2, 2), 0, answer)
    check(head_figures(bare)[0], distance=0, itself=1, first=None, previous=None)


def test_sensors_have_no_order() -> None:
    transform = np.zeros((2, 1, 2, 3))
    transform[:, 0, 0, 2] = transform[:, 0, 1, 0] = 1  # one step back, and four
    maps = SensorMaps(("a", "b"), 0, 5, np.zeros((2, 2)), [np.stack([eye(2), np.full((2, 2), 0.5)])], transform)
    found = head_figures(maps)
    assert [(each.place, each.head) for each in found] == [("spatial", 1), ("spatial", 2), ("transform", 1)]
    check(found[0], distance=None, itself=1, entropy=0, first=None)
    check(found[1], itself=0.5, entropy=math.log(2))
    check(found[2], distance=2.5, entropy=0, itself=None, first=None, previous=None)


def test_the_table_is_as_wide_as_its_cells() -> None:
    lines = as_table([HeadFigures("cross", 1, 2, None, 0.5, None, 0.25, None)]).splitlines()
    assert lines[0].split() == ["place", "layer", "head", "distance", "entropy", "itself", "first", "previous"]
    assert lines[1].split() == ["cross", "1", "2", "-", "0.500", "-", "0.250", "-"]
    assert len(lines[0]) == len(lines[1])
