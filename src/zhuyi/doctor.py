"""What `zhuyi doctor` says: what this machine is, what would be chosen on it, and what it can do at most."""

import platform
import time
from collections.abc import Callable
from typing import Any

import torch

from zhuyi.machine import (
    choose_precision,
    choose_translation_precision,
    has_bfloat16_instructions,
    has_int8_instructions,
    memory_gib,
    num_cores,
)
from zhuyi.nn import kernels

MEGABYTES_READ = 256  # more than caches hold, on most machines
MATRIX_SIZE = 2048


def examine() -> dict[str, Any]:
    """The machine's facts, what would be chosen on it, and its limits, measured now (some seconds)."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    device = torch.device("cuda" if gpus else "cpu")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16_instructions": has_bfloat16_instructions(),
        "int8_instructions": has_int8_instructions(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory_gib(), 1),
        "gpus": gpus,
        "device": str(device),
        "training_precision": choose_precision(device),
        "translation_precision": choose_translation_precision(device),
        "compiled_kernels": kernels.status(),
        **measured_limits(),
    }


def measured_limits() -> dict[str, float]:
    """The processor's limits that translation and training run into: the best of some tries each."""
    memory = torch.ones(MEGABYTES_READ * 2**18)  # of four bytes each
    limits = {"memory_gb_per_second": memory.nbytes / _best_seconds(memory.sum) / 1e9}
    operations = 2 * MATRIX_SIZE**3
    square = torch.randn(MATRIX_SIZE, MATRIX_SIZE)
    limits["float32_gflops"] = operations / _best_seconds(lambda: square @ square) / 1e9
    if has_bfloat16_instructions():
        half = square.bfloat16()
        limits["bfloat16_gflops"] = operations / _best_seconds(lambda: half @ half) / 1e9
    if has_int8_instructions():
        int8 = square.clamp(-1, 1).mul(127).to(torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(int8, None)
        ones, zeros = torch.ones(MATRIX_SIZE), torch.zeros(MATRIX_SIZE, dtype=torch.long)

        def product() -> torch.Tensor:
            return torch.ops.onednn.qlinear_pointwise(
                int8, 1.0, 0, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
            )

        limits["int8_gops"] = operations / _best_seconds(product) / 1e9
    return {name: round(limit, 1) for name, limit in limits.items()}


def _best_seconds(act: Callable[[], Any], tries: int = 5) -> float:
    act()
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
