"""Positions, which attention alone cannot see: sinusoidal or learned."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoidal(max_len: int, d_model: int) -> Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i/D)), PE(pos, 2i+1) = cos(pos / 10000^(2i/D)).

    Shape:  returns (max_len, D); an odd D ends with a sine.
    Source: Vaswani et al. 2017, section 3.5.
    """
    pos = torch.arange(max_len, dtype=torch.float64)[:, None]
    frequency = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float64) * (-math.log(10000.0) / d_model))
    table = torch.empty(max_len, d_model, dtype=torch.float64)
    table[:, 0::2] = torch.sin(pos * frequency)
    table[:, 1::2] = torch.cos(pos * frequency)[:, : d_model // 2]
    return table.float()


class SinusoidalPositions(nn.Module):
    """The fixed table, added to embeddings."""

    table: Tensor

    def __init__(self, max_len: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoidal(max_len, d_model), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        return F.embedding(positions, self.table)


class LearnedPositions(nn.Module):
    """A trained vector a position."""

    def __init__(self, max_len: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(max_len, d_model))
        nn.init.normal_(self.table, std=d_model**-0.5)

    def forward(self, positions: Tensor) -> Tensor:
        return F.embedding(positions, self.table)
