"""Where a model listens as it writes each word: the sound's frames against the words, below its wave."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zhuyi.data.audio import SAMPLE_RATE_HZ
from zhuyi.predict import SoundMaps
from zhuyi.visualize import figures
from zhuyi.visualize.attention_maps import COLOURS, token_labels
from zhuyi.visualize.place_maps import choose_place, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

INCHES_A_SECOND, NARROWEST, WIDEST = 2.0, 5.0, 14.0
WAVE, ROW, SHORTEST, SMALL_ROW = 0.9, 0.26, 0.8, 0.11
GAP, TITLE = 0.12, 0.32
HEADS_A_ROW = 4
WAVE_POINTS = 2000


def draw_sound_maps(maps: SoundMaps, path: str | Path, *, layer: int | None = None, head: int | None = None) -> None:
    """Draw one layer's maps into a PNG: the wave, below it a row for each word, and each head by itself.

    Args:   layer: from 1; None is the last.
            head: from 1; None draws the mean of the heads, and below it each head.
    Raises: InputError: there is no such layer or head, or the extra `plot` is not installed.
    """
    cross = choose_place(places(maps), "cross")
    main, heads = cross.head(layer, head), cross.layer(layer)
    of_head = f"mean of {len(heads)} heads" if head is None and len(heads) > 1 else f"head {head or 1} of {len(heads)}"
    title = (
        f"Encoder-decoder attention, layer {layer or len(cross.layers)} of {len(cross.layers)}, {of_head}\n"
        "a row: where the decoder listens as it writes this token"
    )
    with figures.style():
        _draw(maps, main, heads if head is None and len(heads) > 1 else heads[:0], title, path)


def _draw(maps: SoundMaps, main: np.ndarray, heads: np.ndarray, title: str, path: str | Path) -> None:
    """Lay the axes out in inches, from the wave downwards."""
    from matplotlib.figure import Figure

    seconds = len(maps.samples) / SAMPLE_RATE_HZ
    width = min(WIDEST, max(NARROWEST, INCHES_A_SECOND * seconds))
    height = max(SHORTEST, ROW * len(maps.tokens))
    figure = Figure(figsize=(1, 1))  # so that a share of the figure is an inch
    wave = figure.add_axes((0, height + GAP, width, WAVE))
    _draw_wave(wave, maps.samples, seconds)
    wave.set_title(title, loc="left", pad=10, linespacing=1.5)
    axes = figure.add_axes((0, 0, width, height))
    drawn = _draw_map(axes, main, seconds, float(main.max()))
    axes.set_yticks(range(len(maps.tokens)), token_labels(maps.tokens), fontsize=8)
    axes.set_xlabel("seconds")
    bar = figure.colorbar(drawn, cax=figure.add_axes((width + GAP, 0, GAP, height)))
    bar.outline.set_visible(False)
    bar.ax.locator_params(nbins=5)
    bar.ax.tick_params(labelsize=8, color=figures.FAINT)
    columns = min(HEADS_A_ROW, len(heads)) or 1
    wide, tall = (width - (columns - 1) * GAP) / columns, max(SHORTEST, SMALL_ROW * len(maps.tokens))
    for number, weights in enumerate(heads):
        row, column = divmod(number, columns)
        bottom = -2 * TITLE - (row + 1) * (tall + TITLE)
        small = figure.add_axes((column * (wide + GAP), bottom, wide, tall))
        _draw_map(small, weights, seconds, float(heads.max()))
        small.set(xticks=[], yticks=[])
        small.set_title(f"head {number + 1}", fontsize=8, pad=3)
    figures.save(figure, path)


def _draw_wave(axes: "Axes", samples: np.ndarray, seconds: float) -> None:
    """The lowest and the highest sample of each of some thousand stretches."""
    parts = np.array_split(samples, min(WAVE_POINTS, len(samples)))
    times = np.linspace(0, seconds, len(parts))
    axes.fill_between(times, [part.min() for part in parts], [part.max() for part in parts], color=figures.INK, lw=0.3)
    axes.set(xlim=(0, seconds), xticks=[], yticks=[])


def _draw_map(axes: "Axes", weights: np.ndarray, seconds: float, top: float) -> "AxesImage":
    # A column is 20 ms, of which the last may be filled up with silence.
    extent = (0.0, weights.shape[1] / 50, len(weights) - 0.5, -0.5)
    drawn = axes.imshow(weights, cmap=COLOURS, vmin=0, vmax=top or 1.0, aspect="auto", extent=extent)
    axes.set_xlim(0, seconds)
    axes.tick_params(length=0)
    return drawn
