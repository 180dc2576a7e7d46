"""Affine maps whose weights are packed once for many products: in bfloat16, or in int8.

torch's kernels for this are an older interface, so they are called in this file alone.
"""

import torch
from torch import Tensor, nn

from zhuyi.machine import has_int8_instructions
from zhuyi.nn import kernels
from zhuyi.nn.embeddings import OutputProjection
from zhuyi.nn.linear import Linear

LARGEST = 127
# Products of more rows than a few, and of so many multiplications, go to oneDNN, which knows the matrix unit of newer
# processors but takes some 25 us a call, whatever its size; with few rows, reading the weights is what takes the time.
FEW_ROWS = 8
MANY_MULTIPLICATIONS = 10_000_000


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
        int8 = (weight / self.scales[:, None]).round_().to(torch.int8)
        self.d_out, self.d_in = weight.shape
        self.bias = None if bias is None else bias.float().contiguous()
        self.zeros = torch.zeros(self.d_out, dtype=torch.long)
        # Without these instructions oneDNN halves the weights' precision; then torch's own integer product serves.
        exact = has_int8_instructions()
        self.for_many = torch.ops.onednn.qlinear_prepack(int8, None) if exact else int8.T
        self.for_few = kernels.Int8Weights(int8, self.scales, self.bias) if exact else None

    def forward(self, x: Tensor) -> Tensor:
        rows, x = x.numel() // self.d_in, x.contiguous()
        library = kernels.library_for(x)
        if library is None or self.for_few is None:
            int8, peaks = kernels.quantize_rows(x)
            y = self._product(int8).mul_(peaks)
            return y if self.bias is None else y.add_(self.bias)
        if rows <= FEW_ROWS or rows * self.d_in * self.d_out < MANY_MULTIPLICATIONS:
            return self.for_few.product(library, x)
        int8, peaks = kernels.quantized_rows(library, x)
        return kernels.scale_rows(library, self._product(int8), peaks, self.bias)

    def _product(self, int8: Tensor) -> Tensor:
        """Shape: int8 (..., K); returns (..., N) float32, still to be multiplied by the rows' peaks."""
        if self.for_few is None:
            sums = torch._int_mm(int8.flatten(0, -2), self.for_many).unflatten(0, int8.shape[:-1])
            return sums * (self.scales / LARGEST)
        return torch.ops.onednn.qlinear_pointwise(
            int8, 1 / LARGEST, 0, self.for_many, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )


def pack(model: nn.Module, precision: str) -> nn.Module:
    """Replace a model's affine maps by packed ones, for use on a CPU without gradients.

    Args: precision: `bfloat16`, in which everything else is then too, or `int8`, beside which it is float32.
    """
    if precision == "bfloat16":
        model.bfloat16()
    packed = Bfloat16Linear if precision == "bfloat16" else Int8Linear
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Linear | OutputProjection):
                bias = None if isinstance(child, OutputProjection) or child.bias is None else child.bias.detach()
                setattr(module, name, packed(child.weight.detach(), bias))
    return model
