"""The plain and the fused path of `attend`, forward and backward, by length: which is faster where.

    python benchmarks/attention.py

Prints milliseconds (the median of several turns, the paths in turn) and the ratio; `PLAIN_PATH_MAX_LOGITS` in
zhuyi/nn/attention.py is read off this table.
"""

import statistics
import time

import torch
from torch import Tensor

from zhuyi.nn import attention

TOKENS, HEADS, HEAD_DIM, TURNS = 4096, 4, 64, 7
LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)


def main() -> None:
    """Print a table for each number format and for training and inference."""
    for dtype in (torch.bfloat16, torch.float32):
        for training in (True, False):
            print(f"\n{dtype}, {'forward and backward' if training else 'forward'}, {TOKENS} tokens in all, ms")
            print(f"{'length':>7} {'plain':>8} {'fused':>8} {'fused / plain':>14}")
            for length in LENGTHS:
                plain, fused = measure(length, dtype, training)
                print(f"{length:7} {plain:8.2f} {fused:8.2f} {fused / plain:14.2f}")


def measure(length: int, dtype: torch.dtype, training: bool) -> tuple[float, float]:
    """Median milliseconds of the plain and of the fused path, taken in turn."""
    shape = (TOKENS // length, HEADS, length, HEAD_DIM)
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=training) for _ in range(3))
    mask = torch.ones(shape[0], 1, 1, length, dtype=torch.bool)
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(TURNS + 1):
        for path in times:
            attention.PLAIN_PATH_MAX_LOGITS = 10**12 if path == 0 else -1
            milliseconds = once(q, k, v, mask, training)
            if turn:  # the first turn makes kernels
                times[path].append(milliseconds)
    return statistics.median(times[0]), statistics.median(times[1])


def once(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, training: bool) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    output, _ = attention.attend(q, k, v, mask=mask)
    if training:
        output.backward(output)
    return 1e3 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
