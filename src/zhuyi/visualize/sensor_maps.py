"""Where a sensor looks: at which other sensors, and how far back in time."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zhuyi.data.traffic import show
from zhuyi.errors import InputError
from zhuyi.predict import SensorMaps
from zhuyi.visualize import figures
from zhuyi.visualize.fonts import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 8  # sensors whose names stand in the map
SMALLEST, LARGEST = 8, 260  # areas of a dot, in points
COLOURS = "Blues"
CHOSEN = "#c8511b"


def draw_sensor_maps(
    maps: SensorMaps, path: str | Path, *, sensor: str = "", layer: int | None = None, head: int | None = None
) -> None:
    """Draw a map of the sensors that one looks at, and from each step to come the steps that it looks back to.

    Args:   sensor: its name; the one that all others together look at most where empty.
            layer: from 1; None is the last.
            head: from 1; None is the mean of all.
    Raises: InputError: there is no such sensor, layer or head, or the extra `plot` is not installed.
    """
    weights = _heads(maps.spatial[_counted(layer, len(maps.spatial), "layer")], head)  # (N, N)
    if sensor and sensor not in maps.sensors:
        raise InputError(f"there is no sensor '{sensor}'; the run has {', '.join(maps.sensors[:3])}, ...")
    chosen = list(maps.sensors).index(sensor) if sensor else int(weights.sum(axis=0).argmax())
    name = drawable(maps.sensors[chosen])
    with figures.style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12.5, 5.6), layout="constrained")
        grid = figure.add_gridspec(1, 2, width_ratios=(1.25, 1))
        figure.suptitle(f"Sensor {name}, forecast from {show(maps.begin)}", fontsize=12)
        _draw_map(figure.add_subplot(grid[0, 0]), maps, weights[chosen], chosen)
        _draw_lags(figure.add_subplot(grid[0, 1]), maps, _heads(maps.transform[chosen], head))
        figures.save(figure, path)


def _counted(number: int | None, count: int, what: str) -> int:
    if number is not None and not 1 <= number <= count:
        raise InputError(f"there is no {what} {number}; there {'is one' if count == 1 else f'are {count}'}, from 1")
    return count - 1 if number is None else number - 1


def _heads(weights: np.ndarray, head: int | None) -> np.ndarray:
    """One head's, or the mean of all. Shape: (H, ...) to (...)."""
    return weights.mean(axis=0) if head is None else weights[_counted(head, len(weights), "head")]


def _draw_map(axes: "Axes", maps: SensorMaps, weights: np.ndarray, chosen: int) -> None:
    x, y = maps.places.T
    shares = weights / (weights.max() or 1.0)
    order = np.argsort(weights, kind="stable")  # the darkest on top
    drawn = axes.scatter(
        x[order], y[order], s=(SMALLEST + (LARGEST - SMALLEST) * shares)[order], c=weights[order], cmap=COLOURS,
        edgecolors=figures.FAINT, linewidths=0.5, vmin=0,
    )  # fmt: skip
    axes.scatter(x[chosen], y[chosen], s=90, marker="x", color=CHOSEN, linewidths=2, zorder=3)
    for sensor in order[::-1][:NAMED]:
        label = f"{drawable(maps.sensors[sensor])}  {weights[sensor]:.1%}"
        is_right = x[sensor] > x.min() + 0.75 * np.ptp(x)  # its label goes to the left, or it would leave the map
        axes.annotate(
            label, (x[sensor], y[sensor]), xytext=(-6 if is_right else 6, 5), textcoords="offset points", fontsize=7.5,
            ha="right" if is_right else "left",
        )  # fmt: skip
    axes.set_title("the sensors it looks at (it is the cross); near each other: alike by their vectors", loc="left")
    axes.set(xticks=[], yticks=[])
    axes.margins(0.08)
    axes.figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.02).outline.set_visible(False)


def _draw_lags(axes: "Axes", maps: SensorMaps, weights: np.ndarray) -> None:
    future, past = weights.shape
    drawn = axes.imshow(weights, cmap=COLOURS, vmin=0, aspect="auto")
    back = [f"{maps.step_minutes * (step - past + 1)}" for step in range(past)]
    ahead = [f"+{maps.step_minutes * (step + 1)}" for step in range(future)]
    for set_ticks, labels in ((axes.set_xticks, back), (axes.set_yticks, ahead)):
        every = -(-len(labels) // 12)
        set_ticks(range(0, len(labels), every), labels[::every])
    axes.set_title("the steps it looks back to", loc="left")
    axes.set(xlabel="minutes of the history", ylabel="minutes ahead")
    axes.figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02).outline.set_visible(False)
