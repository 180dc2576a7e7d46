"""What tasks that label have in common, whatever is labelled: scores and samples of the validation part."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zhuyi.metrics.classification_scores import classification_scores


class LabelledBatches(Protocol):
    """The batches of one split; each has `labels`, (B,)."""

    def __len__(self) -> int: ...

    def order(self, epoch: int, *, shuffle: bool = True) -> Sequence[np.ndarray]: ...

    def load(self, rows: np.ndarray) -> Any: ...

    def lines(self, rows: np.ndarray) -> Sequence[str]: ...


def label_scores(
    batches: LabelledBatches, logits_of: Callable[[Any], Tensor], num_labels: int, device: torch.device
) -> dict[str, Any]:
    """`valid_loss`, `accuracy` and `macro_f1` of all batches.

    Args: logits_of: of a batch on the device, (B, num_labels).
    """
    total, found, expected = 0.0, list[int](), list[int]()
    for rows in batches.order(0, shuffle=False):
        batch = batches.load(rows).to(device)
        logits = logits_of(batch)
        total += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
        found += logits.argmax(dim=-1).tolist()
        expected += batch.labels.tolist()
    return {"valid_loss": total / len(expected), **classification_scores(found, expected, num_labels)}


def label_samples(
    batches: LabelledBatches,
    logits_of: Callable[[Any], Tensor],
    labels: Sequence[str],
    device: torch.device,
    count: int,
) -> list[tuple[str, str, str]]:
    """What stands for a row, its likeliest label and the true one, of some rows, the same each time."""
    rows = np.array([len(batches) * i // count for i in range(count)])
    batch = batches.load(rows).to(device)
    probs = logits_of(batch).softmax(dim=-1)
    return [
        (line, f"{labels[int(row.argmax())]} ({float(row.max()):.0%})", labels[label])
        for line, row, label in zip(batches.lines(rows), probs, batch.labels.tolist(), strict=True)
    ]
