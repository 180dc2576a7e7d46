"""What of a picture is looked at, against the sums written out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from zhuyi.errors import InputError
from zhuyi.predict import Classification, PictureMaps
from zhuyi.visualize.picture_overlay import draw_overlay, over_patches
from zhuyi.visualize.place_maps import places
from zhuyi.visualize.rollout import rollout

GRID = (2, 3)


def some_maps(prefix: int, layers: int = 11) -> PictureMaps:
    tokens = prefix + 6
    generator = torch.Generator().manual_seed(0)
    maps = {
        f"encoder.{i}.self": torch.rand(3, tokens, tokens, generator=generator).softmax(-1)
        for i in reversed(range(layers))
    }
    answer = Classification("cat", 0.9, {"cat": 0.9, "dog": 0.1})
    return PictureMaps(np.zeros((8, 12, 1), np.uint8), maps, GRID, prefix, answer)


def test_layers_come_in_their_order() -> None:
    maps = some_maps(1)
    for number, weights in enumerate(places(maps)[0].layers):
        np.testing.assert_array_equal(weights, maps.maps[f"encoder.{number}.self"])


def test_patches_are_what_the_class_token_looks_at_or_all_look_at() -> None:
    weights = np.arange(64.0).reshape(8, 8)
    np.testing.assert_array_equal(over_patches(weights, some_maps(2)), weights[0, 2:].reshape(2, 3))
    weights = np.arange(36.0).reshape(6, 6)
    np.testing.assert_array_equal(over_patches(weights, some_maps(0)), weights.mean(axis=0).reshape(2, 3))


def test_rollout_follows_every_way_through_the_layers() -> None:
    """The sum over all ways from a token of the output to one of the input, written out."""
    layers = [weights[:, :4, :4] for weights in places(some_maps(1, layers=2))[0].layers]
    layers = [weights / weights.sum(axis=-1, keepdims=True) for weights in layers]
    steps = [(weights.sum(axis=0) / 3 + np.eye(4)) / 2 for weights in layers]
    expected = np.zeros((4, 4))
    for out in range(4):
        for between in range(4):
            for start in range(4):
                expected[out, start] += steps[1][out, between] * steps[0][between, start]
    np.testing.assert_allclose(rollout(layers), expected, rtol=1e-6)
    np.testing.assert_allclose(rollout(layers).sum(axis=-1), np.ones(4), rtol=1e-6)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no layer 12; the model has 11"):
        draw_overlay(some_maps(1), tmp_path / "x.png", layer=12)
    with pytest.raises(InputError, match="no head 4; the model has 3"):
        draw_overlay(some_maps(1), tmp_path / "x.png", head=4)
