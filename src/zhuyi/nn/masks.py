"""Masks. One rule in the whole package: boolean, and True means "may attend" (or "a real token")."""

import functools

import torch
from torch import Tensor

from zhuyi.nn.eager import is_eager

LONGEST_KEPT = 256


def padding_mask(real: Tensor | None) -> Tensor | None:
    """Every query may attend the real tokens, whichever head it belongs to.

    Shape: real (B, S), True = a real token; returns (B, 1, 1, S), or None for None (all are real).
    """
    return None if real is None else real[:, None, None, :]


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """Row t may attend the columns 0..t.

    Shape: returns (T, T).
    """
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The same mask as numbers to add to logits: 0 where allowed, the least finite number where not.

    Not minus infinity, whose softmax over a whole row is not a number.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def causal_bias(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`additive(causal_mask(length))`; short ones are made once, and not to be written to: each layer asks for one."""
    is_kept = is_eager() and length <= LONGEST_KEPT  # otherwise lengths and tensors are not what they seem
    make = _kept_causal_bias if is_kept else _causal_bias
    return make(length, dtype, device)


def _causal_bias(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # whoever asks first, it serves training too
        return additive(causal_mask(length, device), dtype)


_kept_causal_bias = functools.lru_cache(maxsize=8)(_causal_bias)
