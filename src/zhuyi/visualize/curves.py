"""The curves of a training, from the rows of its `metrics.jsonl`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhuyi.metrics import HIGHER_IS_BETTER, LOWER_IS_BETTER
from zhuyi.visualize import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Panels of these keys first; every other number in the rows is a score with a panel of its own.
PANELS = {
    "loss, nats a token": ("train_loss", "valid_loss"),
    "learning rate": ("learning_rate",),
    "tokens a second": ("tokens_per_second",),
}
ERRORS = "mean absolute error"
LABELS = {"train_loss": "training", "valid_loss": "validation"}
COLOURS = ("#8fb4de", "#1f4e8c")
COLUMNS = 2

Curve = tuple[list[float], list[float]]


def draw_curves(metrics: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw losses, scores, learning rate and speed over the steps into one PNG; without rows there is none.

    Raises: InputError: the extra `plot` is not installed.
    """
    panels = _panels(metrics)
    if not panels:
        return
    with figures.style():
        from matplotlib.figure import Figure

        rows = math.ceil(len(panels) / COLUMNS)
        figure = Figure(figsize=(5.2 * COLUMNS, 3.0 * rows), layout="constrained")
        for number, (title, curves) in enumerate(panels.items(), 1):
            _draw_panel(figure.add_subplot(rows, COLUMNS, number), title, curves)
        figures.save(figure, path)


def _panels(metrics: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """The curves of each panel that has any: losses, then scores, then rate and speed."""
    known = {"step", "minutes", *(key for keys in PANELS.values() for key in keys)}
    scores = {key: (key,) for row in metrics for key in row if key not in known}
    (loss, *others) = PANELS.items()
    if any("mae" in row for row in metrics):  # a forecast's loss is no likelihood
        loss = (ERRORS, loss[1])
    panels = {}
    for title, keys in [loss, *scores.items(), *others]:
        curves = {key: curve for key in keys if (curve := _curve(metrics, key))[0]}
        if curves:
            panels[title] = curves
    return panels


def _curve(metrics: Sequence[Mapping[str, Any]], key: str) -> Curve:
    points = [(row["step"], row[key]) for row in metrics if "step" in row and _is_number(row.get(key))]
    return [float(step) for step, _ in points], [float(value) for _, value in points]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _draw_panel(axes: "Axes", title: str, curves: dict[str, Curve]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for (key, (steps, values)), colour in zip(
        curves.items(), COLOURS if len(curves) > 1 else COLOURS[1:], strict=False
    ):
        marker = "o" if len(steps) <= 40 else None
        axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, markersize=3, label=LABELS.get(key, key))
        _mark_best(axes, key, steps, values)
    axes.set_title(title, loc="left")
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.grid(color="#e8eaee", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.03, y=0.12)
    if len(curves) > 1:
        axes.legend(frameon=False)


def _mark_best(axes: "Axes", key: str, steps: list[float], values: list[float]) -> None:
    if key in LOWER_IS_BETTER:
        best = values.index(min(values))
    elif key in HIGHER_IS_BETTER:
        best = values.index(max(values))
    else:
        return
    axes.plot(steps[best], values[best], "o", color="#c8511b", markersize=5, zorder=3)
    label = axes.annotate(
        _short(values[best]),
        (steps[best], values[best]),
        xytext=(0, -7 if key in LOWER_IS_BETTER else 6),
        textcoords="offset points",
        ha="center",
        va="top" if key in LOWER_IS_BETTER else "bottom",
        color="#c8511b",
    )
    label.set_in_layout(False)  # or every panel would shift as the best moves


def _short(value: float) -> str:
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2e}".replace("e-0", "e-") if 0 < size < 0.001 else f"{value:.4g}"
