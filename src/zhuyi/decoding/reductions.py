"""Sums and maxima over the vocabulary, which is most of what a step costs beside the model.

On a CPU torch's own `topk` and `logsumexp` take several times what memory would allow: `topk` looks at every
number, where the maxima of blocks tell that nearly all blocks can be skipped; `logsumexp` writes copies as
large as the logits, where a few rows at a time stay in the processor's cache.
"""

import torch
from torch import Tensor

from zhuyi.nn import kernels

_FEW = 64  # so many at most are kept in order while the kernel looks at the rest
_BLOCK = 20  # numbers to a block; from 10 to 40 makes no difference
_CHUNK = 1 << 17  # numbers that fit a core's cache
_SAFE = 60.0  # far from where exp leaves float32, whichever way, even for the sum's smaller parts


def log_normalizer(logits: Tensor) -> Tensor:
    """Compute log sum exp of each row.

    Shape: logits (R, V), float32; returns (R,).
    """
    if (library := kernels.library_for(logits)) is not None:
        return kernels.log_normalizers(library, logits)
    if logits.device.type != "cpu":
        return torch.logsumexp(logits, -1)
    rows, vocab_size = logits.shape
    count = max(1, min(rows, _CHUNK * torch.get_num_threads() // vocab_size))
    buffer, sums = logits.new_empty(count, vocab_size), logits.new_empty(rows)
    for chunk, total in zip(logits.split(count), sums.split(count), strict=True):
        torch.sum(torch.exp(chunk, out=buffer[: len(chunk)]), -1, out=total)
    sums.log_()
    # Logits are seldom so large that their maximum must be taken off first.
    return sums if float(sums.abs().max()) < _SAFE else torch.logsumexp(logits, -1)


def top(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the `count` largest of each row, largest first, and where they stand.

    Shape: logits (R, V); returns (R, count) twice.
    """
    rows, vocab_size = logits.shape
    library = kernels.library_for(logits) if count <= _FEW else None
    if library is not None:
        return kernels.largest(library, logits, count)
    num_blocks = vocab_size // _BLOCK
    if logits.device.type != "cpu" or num_blocks < 4 * count:
        return logits.topk(count, -1)
    # Block j holds the numbers j, j + num_blocks, ...: so the maxima of all blocks are taken side by side.
    split = num_blocks * _BLOCK
    maxima = logits[:, :split].unflatten(1, (_BLOCK, num_blocks)).amax(1)  # (R, num_blocks)
    # The largest numbers of all lie in the blocks of the largest maxima, or in the remainder.
    chosen = maxima.topk(count, -1, sorted=False).indices
    ids = (chosen[:, :, None] + torch.arange(0, split, num_blocks)).flatten(1)  # (R, count * _BLOCK)
    if split < vocab_size:
        ids = torch.cat([ids, torch.arange(split, vocab_size).expand(rows, -1)], 1)
    values, places = logits.gather(1, ids).topk(count, -1)
    return values, ids.gather(1, places)
