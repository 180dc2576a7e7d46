"""Dropout, drawn cheaper than by a uniform number each: by the kernels, or four elements at a time."""

import torch
from torch import Tensor, nn

from zhuyi.nn import kernels
from zhuyi.nn.kernels import training as kernels_to_train


def threshold_of(rate: float) -> int:
    """Of 65,536, how many are dropped: never all, of which no factor would restore the mean."""
    return min(round(rate * 65536), 65535)


def keep_mask(x: Tensor, rate: float) -> Tensor:
    """Zeros for the share `rate` and 1 / (1 - rate) for the rest, in the shape and type of `x`.

    Each element takes 16 random bits, so the rate is rounded to 1 / 65,536 (and the factor with it).
    """
    threshold = threshold_of(rate)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    draws.random_(-(2**63), None)  # all 64 bits: four elements a draw
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    return (bits >= threshold - 32768).to(x.dtype).mul_(65536 / (65536 - threshold))


def dropout(x: Tensor, rate: float) -> Tensor:
    """Set the share `rate` of `x` to zero and scale the rest, so that the mean stays; `x` itself at rate 0.

    Source: Srivastava et al. 2014.
    """
    if rate == 0.0:
        return x
    if x.device.type != "cpu":
        return nn.functional.dropout(x, rate)
    if (library := kernels.library_of_numbers(x)) is not None:
        seed = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None))
        return kernels_to_train.Dropout.apply(library, x, seed, threshold_of(rate))
    return x * keep_mask(x, rate)


class Dropout(nn.Module):
    """`dropout` while training, nothing otherwise."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"a dropout rate lies in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate if self.training else 0.0)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
