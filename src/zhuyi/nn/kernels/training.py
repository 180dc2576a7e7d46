"""What the kernels of `training.c` do, with its way back: one pass over memory in place of several."""

import ctypes
from typing import Any, ClassVar

import torch
from torch import Tensor

from zhuyi.nn.kernels import LONG, POINTER, checked


class GeluTanh(torch.autograd.Function):
    """`F.gelu(x, approximate="tanh")`, computed together with its slope, so that the way back is one product."""

    @staticmethod
    def forward(ctx: Any, library: ctypes.CDLL, x: Tensor) -> Tensor:
        x = x.contiguous()
        out, slopes = torch.empty_like(x), torch.empty_like(x)
        library.gelu_tanh_with_slope(x.data_ptr(), x.numel(), _is_narrow(x), out.data_ptr(), slopes.data_ptr())
        ctx.save_for_backward(slopes)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        if torch.is_grad_enabled():
            raise RuntimeError("the kernels give no second derivative of gelu-tanh; set ZHUYI_KERNELS=0")
        (slopes,) = ctx.saved_tensors
        return None, grad * slopes


class Dropout(torch.autograd.Function):
    """`x` with a share of its elements zero and the others scaled; the way back draws the same again, by its seed.

    Args: threshold: of 65,536, how many are dropped.
    """

    @staticmethod
    def forward(ctx: Any, library: ctypes.CDLL, x: Tensor, seed: int, threshold: int) -> Tensor:
        ctx.drawn = library, seed, threshold
        return _dropped(library, x, seed, threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
        library, seed, threshold = ctx.drawn
        if torch.is_grad_enabled():  # a way back from here is wanted too
            ones = torch.ones(grad.shape, dtype=grad.dtype)
            return None, grad * _dropped(library, ones, seed, threshold), None, None
        return None, _dropped(library, grad, seed, threshold), None, None


class Softmax(torch.autograd.Function):
    """softmax(scale * x + bias) over the last dimension; the bias has no gradient.

    Shape: x (B, H, T, S), bias broadcastable to it; returns the same.
    """

    @staticmethod
    def forward(ctx: Any, library: ctypes.CDLL, x: Tensor, scale: float, bias: Tensor | None) -> Tensor:
        weights = torch.empty_like(x, memory_format=torch.contiguous_format)
        softmax_rows(library, x, weights, scale, bias)
        ctx.save_for_backward(weights)
        ctx.known = library, scale
        return weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
        (weights,), (library, scale) = ctx.saved_tensors, ctx.known
        if torch.is_grad_enabled():
            return None, scale * weights * (grad - (weights * grad).sum(dim=-1, keepdim=True)), None, None
        grad = grad.contiguous()
        out, columns = torch.empty_like(weights), weights.shape[-1]
        sizes = (weights.shape[:-1].numel(), columns, _is_narrow(weights), scale)
        library.softmax_rows_backward(weights.data_ptr(), grad.data_ptr(), *sizes, out.data_ptr())
        return None, out, None, None


class _Bias(ctypes.Structure):
    _fields_: ClassVar = [
        ("numbers", POINTER),
        ("rows", LONG),
        ("columns", LONG),
        ("strides", LONG * 3),
    ]


def softmax_rows(
    library: ctypes.CDLL,
    x: Tensor,
    out: Tensor,
    scale: float = 1.0,
    bias: Tensor | None = None,
    normalizers: Tensor | None = None,
) -> None:
    """Write softmax(scale * x + bias) over the last dimension to `out`, which may be `x`.

    Shape: x, out (..., S), with a bias (B, H, T, S), out contiguous; bias broadcastable to x, in its type; normalizers
           (...,) float32 or None, where the log of each row's normalizer goes.
    """
    x, columns = x.contiguous(), x.shape[-1]
    numbers = _Bias(None, 1, 1, (0, 0, 0))
    if bias is not None:
        bias = bias.expand(*bias.shape[:-1], columns).contiguous().expand(x.shape)
        numbers = _Bias(bias.data_ptr(), *x.shape[1:3], tuple(bias.stride()[:3]))
    sizes = (x.shape[:-1].numel(), columns, _is_narrow(x), scale)
    given = None if normalizers is None else normalizers.data_ptr()
    checked(library.softmax_rows(x.data_ptr(), *sizes, ctypes.addressof(numbers), out.data_ptr(), given))


def _dropped(library: ctypes.CDLL, x: Tensor, seed: int, threshold: int) -> Tensor:
    x = x.contiguous()
    out, factor = torch.empty_like(x), 65536 / (65536 - threshold)
    library.drop_out(x.data_ptr(), x.numel(), _is_narrow(x), seed, threshold, factor, out.data_ptr())
    return out


def _is_narrow(x: Tensor) -> bool:
    return x.dtype is torch.bfloat16
