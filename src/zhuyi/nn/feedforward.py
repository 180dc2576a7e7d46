"""The position-wise feed-forward network: section 3.3 of "Attention Is All You Need"."""

from torch import Tensor, nn

from zhuyi.nn.activations import ACTIVATIONS, Activation
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.linear import Linear


class FeedForward(nn.Module):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2, or with another activation.

    Shape:  x (..., D); returns (..., D).
    Args:   gated: (activation(x W) * x V) W_2 instead, W and V being the rows of one matrix, `w_1`.
    Source: Vaswani et al. 2017, eq. 2; `gated`: Shazeer 2020, eq. 6.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
        bias: bool = True,
        gated: bool = False,
    ) -> None:
        super().__init__()
        matrices = 2 if gated else 1
        self.gated = gated
        self.w_1 = Linear(d_model, matrices * d_ff, bias=bias, matrices=matrices)
        self.w_2 = Linear(d_ff, d_model, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.w_1(x)  # (..., F), or (..., 2 * F)
        if self.gated:
            gate, hidden = hidden.chunk(2, dim=-1)
            return self.w_2(self.dropout(self.activation(gate) * hidden))
        return self.w_2(self.dropout(self.activation(hidden)))
