"""Cross-entropy with label smoothing over a large vocabulary, never holding all its logits."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows of logits held at once: 512 x 8,000 float32 are 16 MB, near the size of a processor's last cache.
ROWS_A_CHUNK = 512


class _ProjectedCrossEntropy(torch.autograd.Function):
    """The gradients are found beside the loss, chunk by chunk, so that no logits need be kept or made twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        grad_x = torch.empty_like(x) if needs_x else None
        grad_weight = torch.zeros_like(weight, dtype=_accumulator(weight.dtype)) if needs_weight else None
        loss, nll = x.new_zeros((), dtype=torch.float64), x.new_zeros((), dtype=torch.float64)
        vocab_size = weight.shape[0]
        for start in range(0, x.shape[0], ROWS_A_CHUNK):
            chunk, wanted = x[start : start + ROWS_A_CHUNK], targets[start : start + ROWS_A_CHUNK, None]
            log_probs = F.log_softmax(F.linear(chunk, weight), dim=-1, dtype=_accumulator(x.dtype))  # (C, V)
            of_target = log_probs.gather(1, wanted).sum(dtype=torch.float64)
            nll -= of_target
            loss -= (1 - smoothing) * of_target
            if smoothing:
                loss -= smoothing / vocab_size * log_probs.sum(dtype=torch.float64)
            if grad_x is None and grad_weight is None:
                continue
            # d loss / d logits = softmax - smoothed target
            grad = log_probs.exp_()
            if smoothing:
                grad.sub_(smoothing / vocab_size)
            grad.scatter_add_(1, wanted, grad.new_full(wanted.shape, smoothing - 1))
            grad = grad.to(x.dtype)
            if grad_x is not None:
                torch.mm(grad, weight, out=grad_x[start : start + ROWS_A_CHUNK])
            if grad_weight is not None:
                grad_weight += grad.T @ chunk
        ctx.save_for_backward(grad_x, None if grad_weight is None else grad_weight.to(weight.dtype))
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        factor = float(grads[0])
        return (
            None if grad_x is None else grad_x * factor if factor != 1.0 else grad_x,
            None if grad_weight is None else grad_weight * factor if factor != 1.0 else grad_weight,
            None,
            None,
        )


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def projected_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, *, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of softmax(x W^T) against smoothed targets, summed, and the plain negative log-likelihood.

    Shape:  x (N, D) hidden states, weight (V, D), targets (N,); returns two scalars in float64: the loss to
            minimise, and the sum of -log p(target) without smoothing, which carries no gradient.
    Source: Szegedy et al. 2016, section 7: a target's probability is 1 - smoothing, and `smoothing` is spread
            evenly over the whole vocabulary.
    """
    loss, nll = _ProjectedCrossEntropy.apply(x, weight, targets, smoothing)
    return loss, nll
