"""The activations of feed-forward networks."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from zhuyi.nn import kernels

# `gelu-tanh` is the formula by which the first GELUs were computed, near the exact one.
Activation = Literal["relu", "gelu", "gelu-tanh", "silu"]


class _GeluTanh(torch.autograd.Function):
    """Computed together with its slope, so that the way back is one product; torch's are twice as long together."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        activated, slope = kernels.gelu_tanh_with_slope(x)
        ctx.save_for_backward(slope)
        return activated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return grad * slope


def gelu_tanh(x: Tensor) -> Tensor:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))). Source: Hendrycks and Gimpel 2016."""
    return _GeluTanh.apply(x) if kernels.can_note_slopes(x) else F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu-tanh": gelu_tanh,
    "silu": F.silu,
}
