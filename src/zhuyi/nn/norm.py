"""Normalisation of each hidden state by itself: with its mean taken off, or by its size alone."""

from collections.abc import Callable
from typing import Literal

from torch import nn

Norm = Literal["layer", "rms"]
# `rms`: x / sqrt(mean(x^2) + epsilon) * weight, no mean and no bias (Zhang and Sennrich 2019, eq. 4).
NORMS: dict[str, Callable[..., nn.Module]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
