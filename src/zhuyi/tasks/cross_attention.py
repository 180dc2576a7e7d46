"""Where a model in training looks in one validation source, small enough to note at every evaluation."""

import base64
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from zhuyi.nn.maps import Maps
from zhuyi.tasks.pair_data import PairBatch
from zhuyi.tasks.text_to_text_model import TextToTextModel

WANTED_TOKENS = 14  # enough to see an alignment in, few enough to read
MOST_ROWS, MOST_COLUMNS = 48, 96


@dataclass(frozen=True, eq=False)
class CrossAttention:
    """Where a decoder's last layer looks as it writes a source's own target: the mean of its heads.

    The target is the reference, not what the model writes, so that the maps of a whole training are of the same words.

    Args:   source, target: what is written beside columns and rows.
    Shape:  weights (T, S), T at most MOST_ROWS, S at most MOST_COLUMNS.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: Tensor

    def as_values(self) -> dict[str, Any]:
        """What JSON can hold: a weight is a byte, weight * 255 rounded; row after row, deflated, base64."""
        packed = np.rint(self.weights.float().cpu().numpy() * 255).astype(np.uint8).tobytes()
        weights = base64.b64encode(zlib.compress(packed, 9)).decode("ascii")
        return {"source": list(self.source), "target": list(self.target), "weights": weights}


class Pairs(Protocol):
    """Batches of pairs. Shape: lengths (N, 2), tokens of either side of each row."""

    lengths: np.ndarray

    def load(self, rows: np.ndarray) -> PairBatch: ...


@torch.inference_mode()
def of_pairs(
    model: TextToTextModel, pairs: Pairs, source_label: Callable[[int], str], target_label: Callable[[int], str]
) -> CrossAttention | None:
    """Of one pair, the same each time; None where all are too long, or the model looks at no source."""
    row = row_to_look_at(pairs.lengths)
    if row is None:
        return None
    batch, maps = pairs.load(np.array([row])).to(next(model.parameters()).device), Maps()
    model.decoder_states(batch.src, batch.tgt, maps=maps)
    weights = of_last_layer(maps)
    if weights is None:
        return None
    labels = [
        tuple(map(label, ids[0].tolist())) for label, ids in ((source_label, batch.src), (target_label, batch.expected))
    ]
    return CrossAttention(labels[0], labels[1], weights)


def of_last_layer(maps: Maps) -> Tensor | None:
    """The mean of the heads of a decoder's last layer, of a batch's first row; None where it looks at no source.

    Shape: returns (T, S).
    """
    found = {int(match[1]): name for name in maps.weights if (match := re.fullmatch(r"decoder\.(\d+)\.cross", name))}
    return maps.weights[found[max(found)]][0].mean(dim=0) if found else None


def row_to_look_at(lengths: np.ndarray) -> int | None:
    """The row whose longer side is nearest to a sentence's length, the first of such; None where all are too long.

    Shape: lengths (N, 2), tokens of either side.
    """
    longest = np.asarray(lengths).max(axis=1)
    row = int(np.abs(longest - WANTED_TOKENS).argmin())
    return row if longest[row] <= MOST_ROWS else None


def narrowed(weights: Tensor, together: int) -> Tensor:
    """So many neighbouring columns added up to one; rows keep their sums.

    Shape: weights (T, S); returns (T, ceil(S / together)).
    """
    padded = torch.nn.functional.pad(weights, (0, -weights.shape[1] % together))
    return padded.unflatten(1, (-1, together)).sum(dim=2)
