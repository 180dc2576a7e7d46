"""Cross-entropy with label smoothing over a large vocabulary, never holding all its logits."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zhuyi.nn import kernels
from zhuyi.nn.kernels.training import softmax_rows

# Rows of logits held at once: 1,024 x 8,000 in bfloat16 are 16 MB, near the size of a processor's last cache.
ROWS_A_CHUNK = 1024
# And fewer where the vocabulary is so large that they would be more logits than this, 128 MB in float32. Of 32,000
# words 1,024 and 512 rows take the same time, 256 a fifth more: the gradient of the table is added to once a chunk.
LOGITS_A_CHUNK = 2**25
# Zero rows fill a chunk up to a multiple of this: the number of real tokens differs from batch to batch, and the first
# product of each new shape waits some milliseconds for its kernel to be made.
ROW_MULTIPLE = 128


class _ProjectedCrossEntropy(torch.autograd.Function):
    """The gradients are found beside the loss, chunk by chunk, so that no logits need be kept or made twice.

    With z = x W^T + b, p = softmax(z) and t the target, of one row: d loss / d z = p - (1 - s) onehot(t) - s / V. The
    last term is the same for every row and word: it is added to the products p W and p^T x, never to the V columns.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        wide = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
        grad_x = torch.empty_like(x) if needs_x else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and needs_bias else None
        mean_weight = weight.mean(dim=0, dtype=wide)  # (D,): its product with x is the mean of the logits
        loss, nll = x.new_zeros((), dtype=torch.float64), x.new_zeros((), dtype=torch.float64)
        rows = rows_a_chunk(weight.shape[0])
        for start in range(0, x.shape[0], rows):
            end = min(start + rows, x.shape[0])
            chunk, wanted = x[start:end], targets[start:end, None]
            filled = F.pad(chunk, (0, 0, 0, -(end - start) % ROW_MULTIPLE))
            logits = F.linear(filled, weight, bias)  # (C, V), of which the first end - start rows count
            of_target = logits[: end - start].gather(1, wanted)[:, 0].to(wide)
            probs, normalizer = _softmax(logits, of_target, wanted, wide)
            surprise = (normalizer - of_target).sum(dtype=torch.float64)
            nll += surprise
            loss += (1 - smoothing) * surprise
            if smoothing:
                mean_logit = chunk.to(wide) @ mean_weight + (0.0 if bias is None else bias.mean(dtype=wide))
                loss += smoothing * (normalizer - mean_logit).sum(dtype=torch.float64)
            if not (needs_x or needs_weight or needs_bias):
                continue
            # Not scatter_add_ or scatter_, which copy all of a bfloat16 tensor twice.
            probs[torch.arange(end - start, device=x.device), targets[start:end]] += smoothing - 1
            if grad_x is not None:
                grad_x[start:end] = (probs @ weight)[: end - start] - smoothing * mean_weight.to(x.dtype)
            if grad_weight is not None:
                grad_weight += probs.T @ filled  # the filling's rows of x are zero
            if grad_bias is not None:
                grad_bias += probs[: end - start].sum(dim=0, dtype=wide) - (end - start) * smoothing / weight.shape[0]
        if grad_weight is not None and smoothing:
            grad_weight -= smoothing / weight.shape[0] * x.sum(dim=0, dtype=wide)
        of_table = None if grad_weight is None else grad_weight.to(weight.dtype)
        ctx.save_for_backward(grad_x, of_table, None if grad_bias is None else grad_bias.to(weight.dtype))
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("this loss has no second derivative; compute it by torch.nn.functional.cross_entropy")
        factor = float(grads[0])
        found = [grad if grad is None or factor == 1.0 else grad * factor for grad in ctx.saved_tensors]
        return *found, None, None


def rows_a_chunk(vocab_size: int) -> int:
    """How many rows of logits are held at once; those of one filling at least."""
    fitting = LOGITS_A_CHUNK // vocab_size // ROW_MULTIPLE * ROW_MULTIPLE
    return min(ROWS_A_CHUNK, max(ROW_MULTIPLE, fitting))


def _softmax(logits: Tensor, of_target: Tensor, wanted: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """Probabilities in the logits' type, and the log of their normalizer in the wide one.

    Where there are no kernels, in bfloat16 the normalizer is read off the target's probability, which is good to
    1 / 256: enough to watch a training by, at half the cost of a pass in float32.

    Shape: logits (C, V), of_target (R,) and wanted (R, 1) of the first R rows; returns (C, V) and (R,).
    """
    real = wanted.shape[0]
    if (library := kernels.library_of_numbers(logits)) is not None:
        normalizers = logits.new_empty(logits.shape[0], dtype=torch.float32)
        softmax_rows(library, logits, logits, normalizers=normalizers)
        return logits, normalizers[:real]
    if logits.dtype == wide:
        normalizer = logits.logsumexp(dim=-1)
        return logits.sub_(normalizer[:, None]).exp_(), normalizer[:real]
    probs = logits.softmax(dim=-1)
    return probs, of_target - probs[:real].gather(1, wanted)[:, 0].to(wide).clamp_min_(1e-38).log_()


def projected_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, *, bias: Tensor | None = None, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of softmax(x W^T + b) against smoothed targets, summed, and the plain negative log-likelihood.

    Shape:  x (N, D) hidden states, weight (V, D), bias (V,), targets (N,); returns two scalars in float64: the loss
            to minimise, and the sum of -log p(target) without smoothing, which carries no gradient.
    Source: Szegedy et al. 2016, section 7: a target's probability is 1 - smoothing, and `smoothing` is spread
            evenly over the whole vocabulary.
    """
    if not torch.is_grad_enabled():  # a Function is told what requires gradients, not whether they are wanted
        x, weight, bias = x.detach(), weight.detach(), None if bias is None else bias.detach()
    loss, nll = _ProjectedCrossEntropy.apply(x, weight, bias, targets, smoothing)
    return loss, nll
