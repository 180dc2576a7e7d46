"""An encoder's layers over padded sequences, without the padding, by one call of the kernels where they can."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zhuyi.nn import kernels
from zhuyi.nn.kernels.program import program_of, record_layers
from zhuyi.nn.maps import Maps
from zhuyi.nn.masks import padding_mask

# The kernel takes one query at a time: its keys and values should stay in a core's cache.
LONGEST = 512


def run_layers(
    module: nn.Module,
    layers: Callable[[Any, Tensor | None, Maps | None], Any],
    x: Tensor,
    mask: Tensor | None,
    maps: Maps | None = None,
) -> Tensor:
    """`layers(x, mask, maps)`, whose rows know of each other by self-attention alone.

    Where the kernels do it, what comes out at padding is zero; else it is whatever the layers made of it.

    Args:   module: whose they are; each has one such stack of layers.
            layers: takes (B, S, D) and a mask that broadcasts to (B, H, S, S).
    Shape:  x (B, S, D), mask (B, S), True where a token is real, or None: everywhere; returns (B, S, ...).
    """
    rows, length, width = x.shape
    library = kernels.library_for(x) if maps is None and length <= LONGEST else None
    program = None
    if library is not None:
        program = program_of(module, "layers", lambda: record_layers(lambda y: layers(y, None, None), width))
    if library is None or program is None:
        return layers(x, padding_mask(mask), maps)
    if mask is None:
        starts = torch.arange(rows + 1) * length
        return program.run_sequences(library, x.flatten(0, 1), starts).unflatten(0, (rows, length))
    starts = torch.zeros(rows + 1, dtype=torch.int64)
    torch.cumsum(mask.sum(1), 0, out=starts[1:])
    real = program.run_sequences(library, x[mask], starts)
    y = x.new_zeros(rows, length, real.shape[-1])
    y[mask] = real
    return y
