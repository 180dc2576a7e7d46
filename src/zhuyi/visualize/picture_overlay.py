"""Attention over a picture: how much each patch was looked at, laid over it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zhuyi.errors import InputError
from zhuyi.predict import PictureMaps
from zhuyi.visualize import figures
from zhuyi.visualize.place_maps import choose_place, places
from zhuyi.visualize.rollout import rollout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGE, SMALL = 3.0, 1.35  # inches of a panel's side
HEADS_A_ROW = 8
GAP, TITLE = 0.2, 0.32
COLOURS = "inferno"
OPACITY = 0.65


def over_patches(weights: np.ndarray, maps: PictureMaps) -> np.ndarray:
    """How much what is classified looks at each patch: the class token's row, or, without one, the mean of all rows.

    Shape: weights (T, T); returns the grid's (rows, columns).
    """
    row = weights[0] if maps.num_prefix_tokens else weights.mean(axis=0)
    return row[maps.num_prefix_tokens :].reshape(maps.grid)


def draw_overlay(
    maps: PictureMaps, path: str | Path, *, layer: int | None = None, head: int | None = None, rolled: bool = False
) -> None:
    """Draw a picture and beside it what was looked at: the heads' mean, the rollout, and each head.

    Args:   layer: from 1; None is the last.
            head: from 1; that head alone in the place of mean, rollout and heads.
            rolled: the rollout alone, which is of all layers and heads.
    Raises: InputError: there is no such layer or head, or the extra `plot` is not installed.
    """
    layers = choose_place(places(maps)).layers
    number = _checked("layer", layer, len(layers))
    heads = layers[number - 1]
    of_layer = f"layer {number} of {len(layers)}"
    if head is not None:
        chosen = _checked("head", head, len(heads))
        panels = [(f"{of_layer}, head {chosen} of {len(heads)}", over_patches(heads[chosen - 1], maps))]
    else:
        mean = (f"{of_layer}, mean of {len(heads)} heads", over_patches(heads.mean(axis=0), maps))
        panels = [*([] if rolled else [mean]), ("rollout of all layers", over_patches(rollout(layers), maps))]
    small = [] if head is not None or rolled else [over_patches(weights, maps) for weights in heads]
    with figures.style():
        _draw(maps, panels, small, path)


def _checked(what: str, number: int | None, count: int) -> int:
    if number is not None and not 1 <= number <= count:
        raise InputError(f"there is no {what} {number}; the model has {count}, counted from 1")
    return count if number is None else number


def _draw(maps: PictureMaps, panels: list[tuple[str, np.ndarray]], heads: list[np.ndarray], path: str | Path) -> None:
    """Lay the panels out in inches: the picture, the large ones beside it, and each head below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))  # so that a share of the figure is an inch
    label = f"{maps.answer.label} ({maps.answer.probability:.0%})"
    _show(figure.add_axes((0, 0, LARGE, LARGE)), maps, None, label)
    for place, (title, weights) in enumerate(panels, 1):
        _show(figure.add_axes((place * (LARGE + GAP), 0, LARGE, LARGE)), maps, weights, title)
    columns = min(HEADS_A_ROW, len(heads), math.floor(((1 + len(panels)) * (LARGE + GAP) + GAP) / (SMALL + GAP)))
    for number, weights in enumerate(heads):
        row, column = divmod(number, columns)
        bottom = -TITLE - (row + 1) * (SMALL + TITLE)
        axes = figure.add_axes((column * (SMALL + GAP), bottom, SMALL, SMALL))
        _show(axes, maps, weights, f"head {number + 1}", size=8)
    figures.save(figure, path)


def _show(axes: "Axes", maps: PictureMaps, weights: np.ndarray | None, title: str, size: int = 9) -> None:
    pixels, side = maps.pixels, maps.pixels.shape[0]
    shown = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    extent = (0.0, float(side), float(side), 0.0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="nearest")
    if weights is not None:
        # The most looked-at patch is brightest, whatever its share: where, not how much, is what is to be seen.
        axes.imshow(
            weights, cmap=COLOURS, vmin=0, vmax=weights.max() or 1.0, alpha=OPACITY, extent=extent,
            interpolation="nearest",
        )  # fmt: skip
        if size > 8:
            title += f"\nmost {weights.max():.0%} on a patch, {weights.sum():.0%} on all"
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=size, loc="left", pad=4)
