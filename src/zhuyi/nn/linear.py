"""The affine map, with the initial weights that Transformers are trained from."""

import torch
from torch import nn


class Linear(nn.Linear):
    """y = x W^T + b, W drawn by Glorot's uniform rule, b zero.

    Args:   matrices: how many equal matrices are stacked in the rows of W; each is drawn as if it stood alone,
            so that a fused projection starts as its parts would.
    Source: Glorot and Bengio 2010, eq. 16.
    """

    def __init__(self, d_in: int, d_out: int, *, bias: bool = True, matrices: int = 1) -> None:
        self.matrices = matrices
        super().__init__(d_in, d_out, bias=bias)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            for matrix in self.weight.chunk(self.matrices):
                nn.init.xavier_uniform_(matrix)
            if self.bias is not None:
                self.bias.zero_()
