"""What each head does in numbers: how far and widely it looks, and how much at itself, the first, the one before."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from zhuyi.predict import PictureMaps, SensorMaps
from zhuyi.visualize.place_maps import places
from zhuyi.visualize.view import AnyMaps


@dataclass(frozen=True)
class HeadFigures:
    """One head's numbers, each the mean over all that look; None where a place has no such thing.

    Args:   distance: from what looks to what is looked at: tokens, patches of a picture, steps of time.
            entropy: of a row's weights, in nats: 0 looks at one alone, log(n) at n alike.
            itself, first, previous: shares of the weights. In a decoder `itself` is the token that it has just read;
            of a picture `first` is the class token.
    """

    place: str
    layer: int
    head: int
    distance: float | None
    entropy: float
    itself: float | None
    first: float | None
    previous: float | None


def head_figures(maps: AnyMaps) -> list[HeadFigures]:
    """Every head's figures, place by place and layer by layer."""
    if isinstance(maps, SensorMaps):
        return list(_of_sensors(maps))
    prefix = maps.num_prefix_tokens if isinstance(maps, PictureMaps) else 0
    found: list[HeadFigures] = []
    for place in places(maps):
        for layer, weights in enumerate(place.layers, 1):
            distances = None
            if isinstance(maps, PictureMaps):
                distances = _between_patches(maps.grid)
            elif place.place != "cross":
                distances = _between_tokens(*weights.shape[1:])
            found += _figures(
                place.place, layer, weights, distances, prefix, has_order=not isinstance(maps, PictureMaps)
            )
    return found


def _of_sensors(maps: SensorMaps) -> Iterator[HeadFigures]:
    """Sensors have no order; a step to come is as far from one of the history as it comes after it."""
    for layer, weights in enumerate(maps.spatial, 1):
        for each in _figures("spatial", layer, weights, 1 - np.eye(weights.shape[1]), 0, has_order=False):
            yield HeadFigures(each.place, each.layer, each.head, None, each.entropy, each.itself, None, None)
    heads = maps.transform.mean(axis=0)  # (H, Q, P)
    future, past = heads.shape[1:]
    distances = np.arange(past, past + future)[:, None] - np.arange(past)
    for head, weights in enumerate(heads, 1):
        distance = float((weights * distances).sum(axis=1).mean())
        yield HeadFigures("transform", 1, head, distance, _entropy(maps.transform[:, head - 1]), None, None, None)


def _between_tokens(rows: int, columns: int) -> np.ndarray:
    """Row t is the token of column t, behind what was there before anything was written. Shape: returns (T, S)."""
    return np.abs(np.arange(columns - rows, columns)[:, None] - np.arange(columns))


def _between_patches(grid: tuple[int, int]) -> np.ndarray:
    """Shape: returns (patches, patches)."""
    at = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, 2)
    return np.linalg.norm(at[:, None] - at[None], axis=-1)


def _figures(
    place: str, layer: int, weights: np.ndarray, distances: np.ndarray | None, prefix: int, *, has_order: bool
) -> Iterator[HeadFigures]:
    """Shape: weights (H, T, S); distances of all rows and columns behind the `prefix`."""
    for head, each in enumerate(weights, 1):
        first = float(each[:, 0].mean()) if has_order or prefix else None
        if distances is None:
            yield HeadFigures(place, layer, head, None, _entropy(each), None, first, None)
            continue
        inner = each[prefix:, prefix:]
        shares = inner / np.maximum(inner.sum(axis=1, keepdims=True), 1e-12)
        itself = float(inner[distances == 0].mean())
        rows, columns = inner.shape
        before = np.arange(columns - rows, columns) - 1
        looks_back = before >= 0
        previous = float(inner[looks_back, before[looks_back]].mean()) if has_order and looks_back.any() else None
        distance = float((shares * distances).sum(axis=1).mean())
        yield HeadFigures(place, layer, head, distance, _entropy(each), itself, first, previous)


def _entropy(weights: np.ndarray) -> float:
    """Of each row, in nats. Shape: weights (..., S)."""
    positive = np.where(weights > 0, weights, 1.0).astype(np.float64)
    return float(-(positive * np.log(positive)).sum(axis=-1).mean())


COLUMNS = ("place", "layer", "head", "distance", "entropy", "itself", "first", "previous")


def as_table(figures: list[HeadFigures]) -> str:
    """A line a head, columns of equal width, a dash where there is nothing."""
    rows = [COLUMNS, *(tuple(_cell(value) for value in asdict(each).values()) for each in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
