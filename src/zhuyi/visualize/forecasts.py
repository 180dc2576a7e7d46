"""Forecasts as curves: what sensors measured, what is forecast, and the truth where it is known."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zhuyi.data.traffic import show
from zhuyi.errors import InputError
from zhuyi.predict import Forecast
from zhuyi.visualize import figures
from zhuyi.visualize.fonts import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, MOST_PANELS = 3, 24
PANEL = (4.2, 2.5)  # inches
COLOURS = {"history": "#8b939e", "forecast": "#1f4e8c", "truth": "#c8511b"}


def draw_forecast(forecast: Forecast, path: str | Path, *, sensors: Sequence[str] = ()) -> None:
    """Draw a panel for each sensor into one PNG.

    Args:   sensors: their names; those that changed most in the history where none are named.
    Raises: InputError: there is no such sensor, or too many are named, or the extra `plot` is not installed.
    """
    shown = [_number(forecast.sensors, name) for name in sensors] or liveliest(forecast.history)
    if len(shown) > MOST_PANELS:
        raise InputError(f"{len(shown)} sensors are more than a picture has room for; name at most {MOST_PANELS}")
    with figures.style():
        from matplotlib.figure import Figure

        columns = min(COLUMNS, len(shown))
        rows = math.ceil(len(shown) / columns)
        figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
        figure.suptitle(f"Forecast from {show(forecast.begin)}", fontsize=12)
        for place, sensor in enumerate(shown):
            axes = figure.add_subplot(rows, columns, place + 1)
            _draw_sensor(axes, forecast, sensor)
            if place == 0:
                axes.legend(frameon=False, fontsize=8)
        figures.save(figure, path)


def liveliest(history: np.ndarray) -> list[int]:
    """The sensors whose measurements differ most, the one that differs most first.

    Shape: history (P, N).
    """
    measured = np.isfinite(history)
    spread = np.where(measured, history, -np.inf).max(axis=0) - np.where(measured, history, np.inf).min(axis=0)
    spread[~measured.any(axis=0)] = -1
    return np.argsort(-spread, kind="stable")[: 2 * COLUMNS].tolist()


def _number(sensors: Sequence[str], name: str) -> int:
    if name not in sensors:
        raise InputError(f"there is no sensor '{name}'; the run has {', '.join(sensors[:3])}, ...")
    return list(sensors).index(name)


def _draw_sensor(axes: "Axes", forecast: Forecast, sensor: int) -> None:
    past, future = len(forecast.history), len(forecast.values)
    before, after = np.arange(1 - past, 1), np.arange(1, future + 1)
    step = forecast.step_minutes
    history, values, truth = (each[:, sensor] for each in (forecast.history, forecast.values, forecast.truth))
    last = history[-1:] if np.isfinite(history[-1:]).all() else history[:0]
    joined = np.concatenate((before[len(before) - len(last) :], after)) * step
    if np.isfinite(truth).any():
        axes.plot(joined, np.concatenate((last, truth)), color=COLOURS["truth"], linewidth=1.3, label="truth")
    axes.plot(before * step, history, color=COLOURS["history"], linewidth=1.3, label="history")
    axes.plot(joined, np.concatenate((last, values)), color=COLOURS["forecast"], linewidth=1.8, label="forecast")
    axes.axvline(0, color=figures.FAINT, linewidth=0.8)
    axes.set_title(drawable(forecast.sensors[sensor]), loc="left")
    axes.set_xlabel("minutes from the last step known")
    axes.grid(color="#e8eaee", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02, y=0.15)
