"""Attention maps of one text and its answer, and a picture of those of one layer."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zhuyi.data.tokenizers import SPACE
from zhuyi.predict import SoundMaps, TextMaps
from zhuyi.predict.alignment import continues, is_chinese
from zhuyi.visualize import figures
from zhuyi.visualize.fonts import drawable
from zhuyi.visualize.place_maps import choose_place, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_TITLES = {
    "encoder": "Encoder self-attention",
    "decoder": "Decoder self-attention",
    "cross": "Encoder-decoder attention",
}
_READINGS = {
    "encoder": "a row: where this token of the text looks",
    "decoder": "a row: where the decoder looks back as it writes this token",
    "cross": "a row: where the decoder looks in the source as it writes this token",
}

MAX_LABELS = 120
WIDEST_CELL, NARROWEST_CELL = 0.36, 0.235  # inches; a label of 8 points needs the latter
SHORTEST_SIDE, LONGEST_HEAD = 2.4, 3.2
ABOVE_HEAD, BETWEEN_HEADS = 0.3, 0.15
COLOURS = "Blues"


def draw_maps(
    maps: TextMaps | SoundMaps,
    path: str | Path,
    *,
    place: str = "",
    layer: int | None = None,
    head: int | None = None,
    rolled: bool = False,
) -> None:
    """Draw one layer's maps into a PNG, a row for each token that looks, a column for each that is looked at.

    Args:   place: encoder, decoder or cross; empty: cross, or the only one that there is.
            layer: from 1; None is the last.
            head: from 1; None draws the mean of the heads, and beside it each head.
            rolled: the rollout of all layers and heads alone, of self-attention.
    Raises: InputError: there is no such place, layer or head, or the extra `plot` is not installed.
    """
    chosen = choose_place(places(maps), place, rolled=rolled)
    if rolled:
        main, heads, what = chosen.rollout(), np.empty(0), f"rollout of {len(chosen.layers)} layers"
        reading = "a row: which tokens of the input are in this token's state, if attention alone moved them"
    else:
        main, heads = chosen.head(layer, head), chosen.layer(layer)
        of_head = "mean of {} heads" if head is None and len(heads) > 1 else f"head {head or 1} of {{}}"
        what = f"layer {layer or len(chosen.layers)} of {len(chosen.layers)}, {of_head.format(len(heads))}"
        heads = heads if head is None and len(heads) > 1 else heads[:0]
        reading = _READINGS[chosen.place]
    with figures.style():
        labels = token_labels(chosen.rows), token_labels(chosen.columns)
        _draw(main, heads, *labels, f"{_TITLES[chosen.place]}, {what}\n{reading}", path)


def token_labels(tokens: Sequence[str]) -> list[str]:
    """Tokens as they can be read on an axis: words as they are, what continues a word with a hyphen before it.

    A tokenizer marks the beginnings instead; but almost every token of a text is one, and a mark on each hides them.
    """
    marked = any(len(token) > 1 and token.startswith(SPACE) for token in tokens)  # single characters are not
    before = ["", *tokens]
    return [
        ("-" if marked and continues(token, previous) else "") + _readable(token)
        for token, previous in zip(tokens, before, strict=False)
    ]


def _readable(token: str) -> str:
    text = token.replace(SPACE, " ").replace("\n", "⏎")  # a model of characters writes spaces and line breaks too
    return "␣" * len(text) if text.strip(" ") == "" else drawable(text.strip(" "))


def _draw(
    main: np.ndarray, heads: np.ndarray, rows: list[str], columns: list[str], title: str, path: str | Path
) -> None:
    """Lay the axes out in inches; labels stand outside of them, where the crop of the saved file finds them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))  # so that a share of the figure is an inch
    width, height = _side(len(columns)), _side(len(rows))
    axes = figure.add_axes((0, 0, width, height))
    drawn = _draw_map(axes, main)
    _label(axes, rows, columns)
    axes.set_title(title, loc="left", pad=12, linespacing=1.5)
    _draw_scale(drawn, width, 0, height)
    _draw_heads(figure, heads, width, height)
    figures.save(figure, path)


def _side(tokens: int) -> float:
    """Inches for so many tokens: generous for few, never too narrow for a label."""
    shown = min(tokens, MAX_LABELS)
    cell = WIDEST_CELL - (WIDEST_CELL - NARROWEST_CELL) * min(1.0, shown / 60)
    return max(SHORTEST_SIDE, cell * shown)


def _draw_map(axes: "Axes", weights: np.ndarray, top: float | None = None) -> "AxesImage":
    top = float(weights.max()) if top is None else top
    drawn = axes.imshow(weights, cmap=COLOURS, vmin=0, vmax=top or 1.0, aspect="auto")
    axes.tick_params(length=0)
    return drawn


def _draw_scale(drawn: "AxesImage", left: float, bottom: float, height: float) -> None:
    figure = drawn.axes.figure
    bar = figure.colorbar(drawn, cax=figure.add_axes((left + 0.12, bottom, 0.12, height)))
    bar.outline.set_visible(False)
    bar.ax.locator_params(nbins=6)
    bar.ax.tick_params(labelsize=8, color=figures.FAINT)


def _label(axes: "Axes", rows: list[str], columns: list[str]) -> None:
    every_row, every_column = (math.ceil(len(tokens) / MAX_LABELS) for tokens in (rows, columns))
    axes.set_yticks(range(0, len(rows), every_row), rows[::every_row], fontsize=8)
    axes.xaxis.tick_top()
    upright = ["\n".join(token) if is_chinese(token) else token for token in columns]
    axes.set_xticks(range(0, len(columns), every_column), upright[::every_column], fontsize=8)
    for text, token in zip(axes.get_xticklabels(), columns[::every_column], strict=True):
        text.set_rotation(0 if is_chinese(token) or len(token) == 1 else 90)
        text.set_linespacing(1.0)


def _draw_heads(figure: "Figure", heads: np.ndarray, width: float, height: float) -> None:
    """Small pictures of the single heads, right of the large one and on one scale of their own."""
    if not len(heads):
        return
    columns = _grid_columns(len(heads), height)
    tall = _head_height(len(heads), columns, height)
    wide = min(LONGEST_HEAD, tall * width / height)
    for number, weights in enumerate(heads):
        row, column = divmod(number, columns)
        left, bottom = width + 1.0 + column * (wide + BETWEEN_HEADS), height - tall - row * (tall + ABOVE_HEAD)
        axes = figure.add_axes((left, bottom, wide, tall))
        drawn = _draw_map(axes, weights, float(heads.max()))
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"head {number + 1}", fontsize=8, pad=3)
    _draw_scale(drawn, width + 1.0 + columns * (wide + BETWEEN_HEADS) - BETWEEN_HEADS, height - tall, tall)


def _grid_columns(heads: int, height: float) -> int:
    """How many columns make the small pictures largest, all of them together no wider than the large one."""
    fitting = [n for n in range(1, heads + 1) if n * _head_height(heads, n, height) <= height]
    return max(fitting or [1], key=lambda columns: _head_height(heads, columns, height))


def _head_height(heads: int, columns: int, height: float) -> float:
    rows = math.ceil(heads / columns)
    return min(LONGEST_HEAD, (height - ABOVE_HEAD * (rows - 1)) / rows)
