"""The activations of feed-forward networks."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from zhuyi.nn import kernels
from zhuyi.nn.kernels.training import GeluTanh

# `gelu-tanh` is the formula by which the first GELUs were computed, near the exact one.
Activation = Literal["relu", "gelu", "gelu-tanh", "silu"]


def gelu_tanh(x: Tensor) -> Tensor:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))). Source: Hendrycks and Gimpel 2016."""
    library = kernels.library_to_train(x)
    return F.gelu(x, approximate="tanh") if library is None else GeluTanh.apply(library, x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu-tanh": gelu_tanh,
    "silu": F.silu,
}
