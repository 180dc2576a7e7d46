"""Positional encodings as a picture: what is added to the token at each place."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zhuyi.config import RunConfig
from zhuyi.errors import InputError
from zhuyi.models.t5 import RelativePositions
from zhuyi.visualize import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = 5
SHOWN_POSITIONS = 128
SHOWN_DISTANCE = 64


def draw_model_positions(model: Any, config: RunConfig, path: str | Path, side: str) -> None:
    """Draw a model's positions: a table that is added to the tokens, or what distances add to attention's logits.

    Args:   side: `source`, what an encoder reads, or `target`; of a model with one stack they are the same.
    Raises: InputError: it has none, or the extra `plot` is not installed.
    """
    if hasattr(model, "positions"):  # of one stack
        draw_positions(model.positions.table[:SHOWN_POSITIONS], path, title="Learned positions")
        return
    names = ("source_positions", "encoder_positions") if side == "source" else ("target_positions", "decoder_positions")
    found = next((getattr(model, name) for name in names if hasattr(model, name)), None)
    if found is None:
        raise InputError(f"the model {config.model.name} has no positions to draw")
    if isinstance(found, RelativePositions):
        draw_distances(found, path, title=f"Relative positions of the {side}")
        return
    is_learned = getattr(found, "table", found) in set(model.parameters())
    title = f"Learned positions of the {side}" if is_learned else "Sinusoidal positions"
    draw_positions(getattr(found, "table", found)[:SHOWN_POSITIONS], path, title=title)


def draw_distances(positions: RelativePositions, path: str | Path, *, title: str) -> None:
    """Draw what the distance from a token that looks to one that is looked at adds to the logits, head by head.

    Raises: InputError: the extra `plot` is not installed.
    """
    device = positions.table.device
    offsets = torch.arange(-SHOWN_DISTANCE, SHOWN_DISTANCE + 1 if positions.ahead else 1, device=device)
    added = positions(offsets[None])[:, 0].detach().float().cpu().numpy()  # (H, offsets)
    with figures.style():
        from matplotlib import colormaps
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.5, 5), layout="constrained")
        axes = figure.add_subplot()
        for head, shade in enumerate(np.linspace(0.05, 0.9, len(added))):
            axes.plot(offsets.cpu(), added[head], color=colormaps["viridis"](shade), label=f"head {head + 1}")
        axes.set_title(title, loc="left")
        axes.set(xlabel="distance in tokens: before (negative) and behind", ylabel="added to the logit")
        axes.grid(color="#e8eaee", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
        figures.save(figure, path)


def draw_positions(table: Tensor, path: str | Path, *, title: str) -> None:
    """Draw a table of positions: all of it, a few of its dimensions, and how alike each two positions are.

    Shape:  table (T, D).
    Raises: InputError: the extra `plot` is not installed.
    """
    values = table.detach().float().cpu().numpy()  # (T, D)
    with figures.style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12.5, 8.2), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=(1.25, 1))
        figure.suptitle(f"{title}: {values.shape[0]} positions, {values.shape[1]} dimensions", fontsize=12)
        _draw_matrix(figure.add_subplot(grid[0, 0]), values, "the table", "dimension")
        _draw_matrix(figure.add_subplot(grid[0, 1]), values @ values.T, "dot products of positions", "position")
        _draw_dimensions(figure.add_subplot(grid[1, :]), values)
        figures.save(figure, path)


def _draw_matrix(axes: "Axes", values: np.ndarray, title: str, columns: str) -> None:
    limit = float(np.abs(values).max()) or 1.0
    drawn = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_title(title, loc="left")
    axes.set(xlabel=columns, ylabel="position")
    axes.figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02).outline.set_visible(False)


def _draw_dimensions(axes: "Axes", values: np.ndarray) -> None:
    """Dimensions spread evenly, so that fast and slow waves stand side by side."""
    from matplotlib import colormaps

    dimensions = np.unique(np.linspace(0, values.shape[1] * 3 // 4, CURVES).astype(int).clip(0, values.shape[1] - 1))
    for dimension, shade in zip(dimensions, np.linspace(0.05, 0.9, len(dimensions)), strict=True):
        axes.plot(
            values[:, dimension], color=colormaps["viridis"](shade), linewidth=1.5, label=f"dimension {dimension}"
        )
    axes.set_title("some dimensions of it", loc="left")
    axes.set(xlabel="position", ylabel="value")
    axes.grid(color="#e8eaee", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=CURVES, borderaxespad=0.2)
