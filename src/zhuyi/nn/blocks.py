"""Residual connections and the encoder's and decoder's layers: sections 3.1 and 5.4 of "Attention Is All You Need"."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from zhuyi.nn import kernels
from zhuyi.nn.activations import Activation
from zhuyi.nn.attention import CrossAttention, SelfAttention
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.feedforward import FeedForward
from zhuyi.nn.maps import Maps
from zhuyi.nn.norm import NORMS, Norm
from zhuyi.nn.state import DecoderState


@dataclass(frozen=True)
class LayerConfig:
    """What an encoder's and a decoder's layer have in common.

    Args:   bias: whether affine maps have one.
            key_bias: whether attention's keys do, where the other maps do.
            gated: of the feed-forward network.
            attention_scale: factor of the logits instead of 1 / sqrt(head_dim).
    """

    d_model: int
    num_heads: int
    head_dim: int
    d_ff: int
    dropout: float
    attention_dropout: float
    feed_forward_dropout: float
    activation: Activation
    norm_first: bool
    norm_epsilon: float = 1e-5
    norm: Norm = "layer"
    bias: bool = True
    key_bias: bool = True
    gated: bool = False
    attention_scale: float | None = None


class Residual(nn.Module):
    """LayerNorm(x + Dropout(Sublayer(x))), or, with `norm_first`, x + Dropout(Sublayer(LayerNorm(x))).

    Shape:  x (B, T, D); returns (B, T, D).
    Source: Vaswani et al. 2017, sections 3.1 and 5.4; `norm_first`: Xiong et al. 2020, figure 1b.
    """

    def __init__(
        self, d_model: int, dropout: float, norm_first: bool, norm_epsilon: float = 1e-5, norm: Norm = "layer"
    ) -> None:
        super().__init__()
        self.norm = NORMS[norm](d_model, eps=norm_epsilon)
        self.dropout = Dropout(dropout)
        self.norm_first = norm_first

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.norm_first:
            return x + self.dropout(sublayer(self.norm(x)))
        y = self.dropout(sublayer(x))
        norm = self.norm
        if isinstance(norm, nn.LayerNorm) and (library := kernels.library_for(x, y, norm.weight)) is not None:
            return kernels.add_norm(library, x, y, norm.weight, norm.bias, norm.eps)
        return norm(x + y)


def _self_attention(c: LayerConfig) -> SelfAttention:
    return SelfAttention(
        c.d_model,
        c.num_heads,
        c.head_dim,
        dropout=c.attention_dropout,
        bias=c.bias,
        key_bias=c.key_bias,
        scale=c.attention_scale,
    )


def _cross_attention(c: LayerConfig) -> CrossAttention:
    return CrossAttention(
        c.d_model,
        c.num_heads,
        c.head_dim,
        dropout=c.attention_dropout,
        bias=c.bias,
        key_bias=c.key_bias,
        scale=c.attention_scale,
    )


def _feed_forward(c: LayerConfig) -> FeedForward:
    return FeedForward(
        c.d_model, c.d_ff, activation=c.activation, dropout=c.feed_forward_dropout, bias=c.bias, gated=c.gated
    )


def _residual(c: LayerConfig) -> Residual:
    return Residual(c.d_model, c.dropout, c.norm_first, c.norm_epsilon, c.norm)


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network, each inside a residual connection.

    Shape: x (B, S, D), mask (B, 1, 1, S) or None, position_bias (1, H, S, S) or None; returns (B, S, D).
    """

    def __init__(self, c: LayerConfig) -> None:
        super().__init__()
        self.self_attention = _self_attention(c)
        self.feed_forward = _feed_forward(c)
        self.self_residual = _residual(c)
        self.feed_forward_residual = _residual(c)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        maps: Maps | None = None,
        name: str = "",
        position_bias: Tensor | None = None,
    ) -> Tensor:
        def self_attention(y: Tensor) -> Tensor:
            return self.self_attention(y, mask, position_bias=position_bias, maps=maps, name=f"{name}.self")

        x = self.self_residual(x, self_attention)
        return self.feed_forward_residual(x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Masked self-attention, encoder-decoder attention and the feed-forward network, each inside a residual connection.

    Shape: x (B, T, D), memory (B, S, D) or None, memory_mask (B, 1, 1, S) or None, position_bias (1, H, T, T) or None,
           mask (B, 1, 1, T) or None; returns (B, T, D).
    Args:  cross: False leaves encoder-decoder attention out: of a decoder without an encoder.
    """

    cross_attention: CrossAttention  # both absent without `cross`
    cross_residual: Residual

    def __init__(self, c: LayerConfig, *, cross: bool = True) -> None:
        super().__init__()
        self.has_cross = cross
        self.self_attention = _self_attention(c)
        if cross:
            self.cross_attention = _cross_attention(c)
        self.feed_forward = _feed_forward(c)
        self.self_residual = _residual(c)
        if cross:
            self.cross_residual = _residual(c)
        self.feed_forward_residual = _residual(c)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None,
        memory_mask: Tensor | None,
        maps: Maps | None = None,
        name: str = "",
        position_bias: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        def self_attention(y: Tensor) -> Tensor:
            # With padding on the right, causality alone keeps real positions from it.
            return self.self_attention(
                y, mask, causal=True, position_bias=position_bias, maps=maps, name=f"{name}.self"
            )

        x = self.self_residual(x, self_attention)
        if self.has_cross:
            assert memory is not None
            x = self.cross_residual(
                x, lambda y: self.cross_attention(y, memory, memory_mask, maps=maps, name=f"{name}.cross")
            )
        return self.feed_forward_residual(x, self.feed_forward)

    def advance(self, x: Tensor, state: DecoderState, layer: int) -> Tensor:
        """The same for the newest token(s) of each row, whose past is in `state`.

        The rows of a beam stand side by side as if they were positions: they share cache and memory.

        Shape: x (G, W * T, D) with T = 1 in a step; returns the same.
        """

        def self_attention(y: Tensor) -> Tensor:
            return self.self_attention.w_o(state.attend_past(layer, self.self_attention.w_qkv(y)))

        def cross_attention(y: Tensor) -> Tensor:
            return self.cross_attention.w_o(state.attend_memory(layer, self.cross_attention.w_q(y)))

        x = self.self_residual(x, self_attention)
        if self.has_cross:
            x = self.cross_residual(x, cross_attention)
        return self.feed_forward_residual(x, self.feed_forward)
