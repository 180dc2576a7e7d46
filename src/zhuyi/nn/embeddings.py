"""Token embeddings: section 3.4 of "Attention Is All You Need"."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenEmbedding(nn.Module):
    """A row of a table for each id, scaled by sqrt(D) so that positions do not drown it.

    Shape:  ids (...) integers; returns (..., D).
    Args:   scaled: False leaves the row as it is, as BERT and GPT do.
    Source: Vaswani et al. 2017, section 3.4.
    """

    def __init__(self, vocab_size: int, d_model: int, *, scaled: bool = True) -> None:
        super().__init__()
        self.scale = math.sqrt(d_model) if scaled else 1.0
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        nn.init.normal_(self.weight, std=d_model**-0.5)  # scaled, the entries have variance 1

    def forward(self, ids: Tensor) -> Tensor:
        x = F.embedding(ids, self.weight)
        return x if self.scale == 1.0 else x * self.scale


class OutputProjection(nn.Module):
    """Hidden states to logits; `weight` may be the very table of an embedding (tied).

    Shape: x (..., D); returns (..., V).
    """

    def __init__(self, weight: nn.Parameter, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = weight
        self.bias = nn.Parameter(torch.zeros(weight.shape[0])) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)
