"""Sums and maxima over the vocabulary, which is most of what a step costs beside the model.

On a CPU torch's own `topk` and `logsumexp` walk a large vocabulary several times slower than memory would
allow: `topk` looks at every number, where the maxima of blocks tell that nearly all blocks can be skipped;
`logsumexp` writes copies as large as the logits, where a few rows at a time stay in the processor's cache.
"""

import torch
from torch import Tensor

_BLOCK = 128
_CHUNK_NUMBERS = 1 << 17


def log_normalizer(logits: Tensor) -> Tensor:
    """Compute log sum exp of each row.

    Shape: logits (R, V), float32; returns (R,).
    """
    rows, vocab_size = logits.shape
    count = max(1, _CHUNK_NUMBERS // vocab_size)
    if logits.device.type != "cpu" or rows <= count:
        return torch.logsumexp(logits, -1)
    return torch.cat([torch.logsumexp(chunk, -1) for chunk in logits.split(count)])


def top(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the `count` largest of each row, largest first, and where they stand.

    Shape: logits (R, V); returns (R, count) twice.
    """
    rows, vocab_size = logits.shape
    num_blocks = vocab_size // _BLOCK
    if logits.device.type != "cpu" or num_blocks < 4 * count:
        return logits.topk(count, -1)
    split = num_blocks * _BLOCK
    blocks = logits[:, :split].unflatten(1, (num_blocks, _BLOCK))  # (R, num_blocks, _BLOCK)
    # The largest numbers of all lie in the blocks of the largest maxima, or in the remainder.
    chosen = blocks.amax(-1).topk(count, -1).indices  # (R, count)
    offsets = torch.arange(_BLOCK, device=logits.device)
    ids = (chosen[:, :, None] * _BLOCK + offsets).flatten(1)  # (R, count * _BLOCK)
    if split < vocab_size:
        rest = torch.arange(split, vocab_size, device=logits.device).expand(rows, -1)
        ids = torch.cat([ids, rest], 1)
    values, places = logits.gather(1, ids).topk(count, -1)
    return values, ids.gather(1, places)
