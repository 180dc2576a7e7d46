"""Weights under the names of published checkpoints: what the maps of all models do alike.

A weight of ours stands for one of theirs, or for several, whose rows it has under one another.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def take(left: dict[str, Tensor], theirs: Sequence[str], ours: str) -> Tensor:
    """Take one of our weights out of what is left of a checkpoint.

    Raises: ValueError: a part of it is not there.
    """
    if missing := [part for part in theirs if part not in left]:
        raise ValueError(f"the checkpoint has no {missing[0]}, which is {ours} here")
    return torch.cat([left.pop(part) for part in theirs])


def drop_copy(left: dict[str, Tensor], name: str, weight: Tensor) -> None:
    """Drop a weight of that name that is another written again, as a tied table is."""
    if name in left and torch.equal(left[name], weight):
        del left[name]


def refuse_rest(left: dict[str, Tensor]) -> None:
    """Raise ValueError where a weight of the checkpoint has not been taken."""
    if left:
        raise ValueError(f"the checkpoint has {min(left)}, for which the model has no place")


def parts(weight: Tensor, theirs: Sequence[str]) -> dict[str, Tensor]:
    """One of our weights under their names."""
    return {part: rows.contiguous() for part, rows in zip(theirs, weight.chunk(len(theirs)), strict=True)}
