"""Scaled dot-product and multi-head attention: sections 3.2.1 to 3.2.3 of "Attention Is All You Need"."""

import ctypes
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.machine import has_bfloat16_instructions
from zhuyi.nn import kernels
from zhuyi.nn.dropout import dropout as drop
from zhuyi.nn.eager import is_eager
from zhuyi.nn.kernels.program import Recorded
from zhuyi.nn.kernels.training import Softmax
from zhuyi.nn.linear import Linear
from zhuyi.nn.maps import Maps
from zhuyi.nn.masks import additive, causal_bias, causal_mask
from zhuyi.nn.packed import is_int8

# On a CPU the fused kernel's backward pass costs several times the plain formula's while the (T, S) logits of
# a head still fit its caches; beyond this many logits a head it wins, and it never holds the T x S matrix.
# Measured by benchmarks/attention.py.
PLAIN_PATH_MAX_LOGITS = 128 * 128
# With the kernels' softmax, up to so many times as many: both ways of 4 x 8 heads of 512 x 512 take 30 ms against 66 in
# bfloat16, those of 8 x 4 heads of 256 x 256 23 against 25 in float32. Measured by the same, with --only learning.
LEARNING_FACTOR = {torch.bfloat16: 16, torch.float32: 4}
# The compiled kernel takes one query at a time: for sentences, not for long texts.
KERNEL_MAX_LENGTH = 128
# Beside int8 products, attention in float32 over more would take most of the time: it is done in bfloat16, which rounds
# no more than int8 does.
WIDE_MAX_LENGTH = 512


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
    causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Average `v`, weighted by how well `q` matches `k`: softmax(q k^T / sqrt(d)) v.

    Shape:  q (..., T, d), k (..., S, d), v (..., S, e); mask and bias broadcast to (..., T, S).
            Returns output (..., T, e) and, where asked for, weights (..., T, S).
    Args:   mask: True where attending is allowed; a row that may attend nothing gives zeros.
            bias: added to the logits before the softmax.
            scale: factor of the logits instead of 1 / sqrt(d).
            dropout: share of the weights set to zero; 0 outside training.
            need_weights: also return the weights, as they were before dropout.
            causal: row t sees columns 0..t only (T = S); saves building a T x T mask.
    Raises: ValueError: mask is not boolean or does not broadcast, or causal with T != S.
    Source: Vaswani et al. 2017, eq. 1. Departure: the weights' dropout is in the authors' code, not in the paper.
    """
    _check(q, k, mask, causal)
    if mask is not None:
        mask = torch.atleast_2d(mask)  # the fused kernel takes no mask of one dimension
        if causal:  # as one mask: what it allows and what causality allows may have nothing in common
            mask, causal = mask & causal_mask(q.shape[-2], q.device), False
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if need_weights or _plain_is_faster(q, k, bias):
        output, weights = _attend_plain(q, k, v, mask, bias, scale, dropout, causal)
    else:
        output, weights = _attend_fused(q, k, v, mask, bias, scale, dropout, causal), None
    # A softmax over nothing is undefined; here it is zero, on both paths.
    if mask is not None and not _leaves_something(mask):
        may_attend = mask.any(dim=-1, keepdim=True)
        output = output * may_attend
        weights = weights * may_attend if weights is not None else None
    return output, weights if need_weights else None


def _attend_plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
    dropout: float,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    if (library := _library_to_learn(q, k, bias)) is not None:
        rule = causal_bias(q.shape[-2], q.dtype, q.device) if causal else None
        rule = rule if mask is None else additive(mask, q.dtype)
        logits = (q @ k.transpose(-2, -1)).to(q.dtype)  # (B, H, T, S); autocast may have made them narrower
        weights = Softmax.apply(library, logits, scale, rule)
        return drop(weights, dropout) @ v, weights
    logits = (q * scale) @ k.transpose(-2, -1)  # (..., T, S)
    if bias is not None:
        logits = logits + bias
    # Adding in place costs nothing in the backward pass, where filling would cost a pass over T x S.
    if mask is not None:
        logits = logits.add_(additive(mask, logits.dtype))
    if causal:
        logits = logits.add_(causal_bias(q.shape[-2], logits.dtype, q.device))
    weights = torch.softmax(logits, dim=-1)
    return drop(weights, dropout) @ v, weights  # (..., T, e)


def _attend_fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
    dropout: float,
    causal: bool,
) -> Tensor:
    if bias is not None:
        if causal:  # the kernel takes one or the other
            mask, causal = causal_mask(q.shape[-2], q.device), False
        mask = torch.atleast_2d(bias) if mask is None else bias + additive(mask, q.dtype)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, scale=scale)


def _leaves_something(mask: Tensor) -> bool:
    """Whether every row may attend something, as far as that is known without waiting for a GPU or a graph's run."""
    return mask.device.type == "cpu" and is_eager() and bool(mask.any(dim=-1).all())


def _library_to_learn(q: Tensor, k: Tensor, bias: Tensor | None) -> ctypes.CDLL | None:
    """The kernels whose softmax is the plain path's; a bias could want a gradient of its own."""
    return kernels.library_to_train(q) if bias is None and q.dim() == k.dim() == 4 else None


def _plain_is_faster(q: Tensor, k: Tensor, bias: Tensor | None) -> bool:
    factor = 1 if _library_to_learn(q, k, bias) is None else LEARNING_FACTOR[q.dtype]
    return q.device.type == "cpu" and q.shape[-2] * k.shape[-2] <= factor * PLAIN_PATH_MAX_LOGITS


def _check(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> None:
    rows, columns = q.shape[-2], k.shape[-2]
    if causal and rows != columns:
        raise ValueError(f"causal attention needs as many queries as keys, got T = {rows} and S = {columns}")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, True where attending is allowed; got {mask.dtype}")
    wanted = (*q.shape[:-2], rows, columns)
    fits = mask.dim() <= len(wanted) and all(
        m in (1, w) for m, w in zip(reversed(mask.shape), reversed(wanted), strict=False)
    )
    if not fits:
        raise ValueError(f"mask of shape {tuple(mask.shape)} does not broadcast to the logits' {wanted}")


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Cut the last dimension into heads.

    Shape: x (..., T, H*d); returns (..., H, T, d).
    """
    return x.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """Concatenate the heads again.

    Shape: x (..., H, T, d); returns (..., T, H*d).
    """
    return x.transpose(-3, -2).flatten(-2)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence over itself; in a decoder, masked so that no position sees a later one.

    W_Q, W_K and W_V of all heads are the rows of one matrix, `w_qkv`, so that the three projections are one product.

    Shape:  x (B, T, D), mask and position_bias broadcastable to (B, H, T, T); returns (B, T, D).
    Args:   scale: factor of the logits instead of 1 / sqrt(d).
            key_bias: whether keys have a bias, where queries and values have.
            position_bias: added to the logits.
    Source: Vaswani et al. 2017, sections 3.2.2 and 3.2.3. Departure: the projections may have biases, as in most
            later implementations.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        head_dim: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        key_bias: bool = True,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.scale = scale
        self.w_qkv = Linear(d_model, 3 * num_heads * head_dim, bias=bias, matrices=3, biased=(True, key_bias, True))
        self.w_o = Linear(num_heads * head_dim, d_model, bias=bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        position_bias: Tensor | None = None,
        maps: Maps | None = None,
        name: str = "",
    ) -> Tensor:
        qkv = self.w_qkv(x)  # (B, T, 3 * H * d)
        for_kernel = maps is None and not causal and position_bias is None and self.scale is None
        if for_kernel and isinstance(qkv, Recorded):
            return self.w_o(qkv.attend_each_other(self.num_heads))
        if for_kernel and (heads := self._attend_by_kernel(qkv, mask)) is not None:
            return self.w_o(heads)
        if maps is None and qkv.shape[1] > WIDE_MAX_LENGTH and is_int8(self.w_qkv) and has_bfloat16_instructions():
            qkv = qkv.bfloat16()
        q, k, v = (split_heads(part, self.num_heads) for part in qkv.chunk(3, dim=-1))  # each (B, H, T, d)
        return _multi_head(self, q, k, v, mask, position_bias, causal, maps, name)

    def _attend_by_kernel(self, qkv: Tensor, mask: Tensor | None) -> Tensor | None:
        """The heads side by side, to the bit the same whatever else is in the batch; None where there is no kernel.

        torch's products differ in the last bit with the batch's shape, which int8's rounding of what follows would
        make much of.

        Shape: qkv (B, T, 3 * H * d); returns (B, T, H * d).
        """
        rows, length = qkv.shape[:2]
        is_padding = mask is None or (mask.dim() == 4 and mask.shape[1:3] == (1, 1))
        library = kernels.library_for(qkv) if is_padding and length <= KERNEL_MAX_LENGTH else None
        if library is None:
            return None
        bias = None if mask is None else additive(mask, qkv.dtype)[:, 0, 0].expand(rows, -1).contiguous()
        return kernels.attend_each_other(library, qkv, self.num_heads, bias)


class CrossAttention(nn.Module):
    """Encoder-decoder attention: queries from the decoder, keys and values from the encoder's output.

    W_K and W_V are the rows of one matrix, `w_kv`: a text's memory is projected once, whatever its answer's length.

    Shape:  x (B, T, D), memory (B, S, D), mask broadcastable to (B, H, T, S); returns (B, T, D).
    Args:   key_bias: whether keys have a bias, where queries and values have.
            scale: factor of the logits instead of 1 / sqrt(d).
    Source: Vaswani et al. 2017, section 3.2.3.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        head_dim: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        key_bias: bool = True,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.scale = scale
        self.w_q = Linear(d_model, num_heads * head_dim, bias=bias)
        self.w_kv = Linear(d_model, 2 * num_heads * head_dim, bias=bias, matrices=2, biased=(key_bias, True))
        self.w_o = Linear(num_heads * head_dim, d_model, bias=bias)

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output.

        Shape: memory (B, S, D); returns two (B, H, S, d).
        """
        k, v = self.w_kv(memory).chunk(2, dim=-1)
        return split_heads(k, self.num_heads), split_heads(v, self.num_heads)

    def forward(
        self, x: Tensor, memory: Tensor, mask: Tensor | None = None, *, maps: Maps | None = None, name: str = ""
    ) -> Tensor:
        k, v = self.project_memory(memory)  # (B, H, S, d)
        q = split_heads(self.w_q(x), self.num_heads)  # (B, H, T, d)
        return _multi_head(self, q, k, v, mask, None, False, maps, name)


def _multi_head(
    module: SelfAttention | CrossAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    causal: bool,
    maps: Maps | None,
    name: str,
) -> Tensor:
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_H) W_O."""
    rate = module.dropout if module.training else 0.0
    need_weights = maps is not None
    heads, weights = attend(
        q, k, v, mask=mask, bias=bias, scale=module.scale, dropout=rate, need_weights=need_weights, causal=causal
    )
    if maps is not None and weights is not None:
        maps.add(name, weights)
    return module.w_o(merge_heads(heads.float() if is_int8(module.w_o) else heads))  # (B, T, D)
