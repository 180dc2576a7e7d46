"""Which number format is fastest where."""

import torch


def choose_precision(device: torch.device) -> str:
    """`bfloat16` where the hardware multiplies faster in it than in float32, else `float32`.

    Asked of the hardware's instructions, never of a timing: the same machine gives the same answer.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if has_bfloat16_instructions() else "float32"


def has_bfloat16_instructions() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX; on Arm, BF16)."""
    return bool(torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.ops.mkldnn._is_mkldnn_bf16_supported())
