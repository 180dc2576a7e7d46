"""What this machine is: cores, memory, instructions, accelerators. Facts alone, never a timing."""

import ctypes
import os
import platform
from pathlib import Path

import torch


def num_cores() -> int:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float:
    """The memory there is in all (of the container, where it is limited), whatever of it is free now."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else 8 * 2**30
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, float(text))
    return total / 2**30


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free for the next ones.

    glibc gives large pieces back to the system at once and takes them anew, cleared page by page: with batches of
    changing shapes that is a third of the time of a translation. Elsewhere nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # of malloc.h
    library = ctypes.CDLL(None)
    for option, size in ((mmap_threshold, 32 * 2**20), (trim_threshold, 2**30), (top_pad, 64 * 2**20)):
        library.mallopt(option, size)


def give_back_freed_memory() -> None:
    """Let the C library give to the system what it has kept and nobody uses.

    Among pieces of many sizes fewer and fewer of those kept fit: a training of texts of 10 to 190 tokens held 0.9 GiB
    at first and six times that an hour later.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory_gib(device: torch.device) -> float:
    """The most memory that this process has held so far: the GPU's on a GPU, else the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def has_bfloat16_instructions() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX; on Arm, BF16)."""
    return (
        torch.backends.mkldnn.is_available()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and bool(
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
            if platform.machine().lower() in ("x86_64", "amd64")
            else True
        )
    )


def has_int8_instructions() -> bool:
    """Whether this processor multiplies int8 in hardware, wide and exactly (AVX512-VNNI)."""
    return platform.machine().lower() in ("x86_64", "amd64") and bool(
        torch.cpu._is_avx512_supported() and torch.cpu._is_vnni_supported()
    )


def choose_precision(device: torch.device) -> str:
    """`bfloat16` where the hardware multiplies faster in it than in float32, else `float32`."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if has_bfloat16_instructions() else "float32"


def choose_translation_precision(device: torch.device) -> str:
    """The fastest precision to translate in: `int8` where the processor multiplies it, else as for training."""
    if device.type == "cpu" and has_int8_instructions():
        return "int8"
    return choose_precision(device)
