"""Affine maps whose weights are packed once for many products: in bfloat16, or in int8."""

import torch
from torch import Tensor, nn

from zhuyi.nn import kernels
from zhuyi.nn.embeddings import OutputProjection
from zhuyi.nn.kernels.program import Recorded
from zhuyi.nn.linear import Linear

LARGEST = 127


def can_pack_bfloat16() -> bool:
    """Whether this build of torch has the library that packs."""
    return torch.backends.mkldnn.is_available()


class Bfloat16Linear(nn.Module):
    """y = x W^T + b in bfloat16, W kept in the layout that the processor's products want.

    Shape: x (..., K) bfloat16, weight (N, K); returns (..., N).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16().contiguous(), None)
        self.bias = None if bias is None else bias.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Int8Linear(nn.Module):
    """y = x W^T + b with W in int8, one scale a row of W, and x quantised to int8 by one scale a row of x.

    A row's scale follows from its own largest number, so its result does not depend on the rows beside it. Products are
    summed in int32, exactly; everything else is float32.

    Shape: x (..., K) float32, weight (N, K); returns (..., N).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.float()
        self.scales = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST  # (N,)
        self.int8 = (weight / self.scales[:, None]).round_().to(torch.int8)
        self.bias = None if bias is None else bias.float().contiguous()
        self.packed = kernels.Int8Weights(self.int8, self.scales, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Recorded):
            return x.linear(self.packed)
        library = kernels.library_for(x)
        if library is not None:
            return self.packed.product(library, x.contiguous())
        int8, peaks = quantize_rows(x)
        sums = torch._int_mm(int8.flatten(0, -2), self.int8.T).unflatten(0, x.shape[:-1])
        y = sums * (self.scales / LARGEST) * peaks
        return y if self.bias is None else y.add_(self.bias)


def is_int8(module: nn.Module) -> bool:
    """Whether an affine map's weights are packed in int8; what it takes is float32 then."""
    return isinstance(module, Int8Linear)


def kept_type(module: nn.Module, like: Tensor) -> torch.dtype:
    """In what a model keeps keys and values, `module` being one of its affine maps.

    Beside int8's products, which round more, in bfloat16, half as much to read; else as they come, as `like`.
    """
    return torch.bfloat16 if is_int8(module) else like.dtype


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as signed bytes, and each row's largest number, which stands for 127.

    Shape: x (..., K); returns (..., K) int8 and (..., 1).
    """
    peaks = x.abs().amax(dim=-1, keepdim=True)
    factors = torch.where(peaks > 0, LARGEST / peaks, 0)
    return (x * factors).round_().to(torch.int8), peaks


def pack(model: nn.Module, precision: str) -> nn.Module:
    """Replace a model's affine maps by packed ones, for use on a CPU without gradients.

    Args: precision: `bfloat16`, in which everything else is then too, or `int8`, beside which it is float32, but for
        keys and values that a state keeps.
    """
    if precision == "bfloat16":
        model.bfloat16()
    packed = Bfloat16Linear if precision == "bfloat16" else Int8Linear
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Linear | OutputProjection):
                bias = child.whole_bias() if isinstance(child, Linear) else child.bias
                setattr(module, name, packed(child.weight.detach(), None if bias is None else bias.detach()))
    return model
