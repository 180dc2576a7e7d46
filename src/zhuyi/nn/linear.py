"""The affine map, with the initial weights that Transformers are trained from."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """y = x W^T + b, W drawn by Glorot's uniform rule, b zero.

    Args:   matrices: how many equal matrices are stacked in the rows of W; each is drawn as if it stood alone,
            so that a fused projection starts as its parts would.
            biased: which of them have a bias, where not all have; `bias` then holds theirs alone.
    Source: Glorot and Bengio 2010, eq. 16.
    """

    def __init__(
        self, d_in: int, d_out: int, *, bias: bool = True, matrices: int = 1, biased: Sequence[bool] | None = None
    ) -> None:
        self.matrices = matrices
        self.biased = None if biased is None or all(biased) else tuple(biased)
        super().__init__(d_in, d_out, bias=bias)
        if bias and self.biased is not None:
            self.bias = nn.Parameter(torch.zeros(d_out // matrices * sum(self.biased)))

    def reset_parameters(self) -> None:
        with torch.no_grad():
            for matrix in self.weight.chunk(self.matrices):
                nn.init.xavier_uniform_(matrix)
            if self.bias is not None:
                self.bias.zero_()

    def whole_bias(self) -> Tensor | None:
        """A number for each row of W, zero where its matrix has no bias; None where none has."""
        if self.bias is None or self.biased is None:
            return self.bias
        own = iter(self.bias.chunk(sum(self.biased)))
        none = self.bias.new_zeros(self.out_features // self.matrices)
        return torch.cat([next(own) if has else none for has in self.biased])

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.whole_bias())
