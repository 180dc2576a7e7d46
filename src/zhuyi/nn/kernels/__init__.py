"""The kernels of `kernels.c`: compiled at first need, kept in the user's cache folder, None where they cannot be had.

What is compiled depends on this package's own source alone, never on a run. torch's operations do the same arithmetic
where there is no compiler or the processor lacks the instructions.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from zhuyi.machine import has_int8_instructions

SOURCE = Path(__file__).with_name("kernels.c")
_POINTER, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
_P, _L = (_POINTER,), (_LONG,)
_ARGUMENTS = {
    "int8_linear": _P + 3 * _L + 4 * _P + _L + 3 * _P,
    "quantize_rows": _P + 2 * _L + 2 * _P,
    "scale_rows": _P + 2 * _L + 2 * _P,
    "attend_cached": _P + _L + 2 * _P + 8 * _L + _P + 2 * _L + 2 * _P + (_FLOAT,) + _P,
    "add_norm": 2 * _P + 2 * _L + 2 * _P + (_FLOAT,) + _P,
}


def library_for(x: Tensor) -> ctypes.CDLL | None:
    """The kernels, where they can take `x`: float32 on the CPU, and no gradient wanted."""
    if x.dtype is not torch.float32 or x.device.type != "cpu" or torch.is_grad_enabled():
        return None
    return _load()[0]


def status() -> str:
    """One line for `zhuyi doctor`."""
    return _load()[1]


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("ZHUYI_KERNELS") == "0":
        return None, "off (ZHUYI_KERNELS=0)"
    if not has_int8_instructions() or platform.system() != "Linux":
        return None, "not for this processor and system (AVX512-VNNI, Linux)"
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if compiler is None:
        return None, "no C compiler"
    path = _cache_folder() / f"kernels-{_key(compiler)}.so"
    try:
        if not path.exists():
            _compile(compiler, path)
        library = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"cannot be compiled ({' '.join(str(error).split())[:200]})"
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library, f"compiled ({path})"


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zhuyi"


def _key(compiler: str) -> str:
    """What the compiled file follows from: source, compiler, processor, torch (whose threads it shares)."""
    processor = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    flags = [line for line in processor.splitlines() if line.startswith(("flags", "model name"))]
    parts = (SOURCE.read_text(encoding="utf-8"), compiler, *flags, torch.__version__)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        compiled, linked = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
        options = ("-O3", "-march=native", "-fopenmp", "-fPIC")
        for command in (
            [compiler, *options, "-c", str(SOURCE), "-o", str(compiled)],
            # Linked without an OpenMP library of its own: torch's, already in the process, serves both.
            [compiler, "-shared", str(compiled), "-o", str(linked)],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        os.replace(linked, path)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as signed bytes, and each row's largest number, which stands for 127; by torch's operations.

    Shape: x (..., K); returns (..., K) int8 and (..., 1).
    """
    peaks = x.abs().amax(dim=-1, keepdim=True)
    factors = torch.where(peaks > 0, 127 / peaks, 0)
    return (x * factors).round_().to(torch.int8), peaks


def quantized_rows(library: ctypes.CDLL, x: Tensor) -> tuple[Tensor, Tensor]:
    """As `quantize_rows`, in one pass."""
    width = x.shape[-1]
    out, peaks = torch.empty(x.shape, dtype=torch.int8), torch.empty(*x.shape[:-1], 1)
    library.quantize_rows(x.data_ptr(), x.numel() // width, width, out.data_ptr(), peaks.data_ptr())
    return out, peaks


def scale_rows(library: ctypes.CDLL, y: Tensor, peaks: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply each row by its peak and add the bias, in place.

    Shape: y (..., N), peaks (..., 1), bias (N,).
    """
    width = y.shape[-1]
    pointer = None if bias is None else bias.data_ptr()
    library.scale_rows(y.data_ptr(), y.numel() // width, width, peaks.data_ptr(), pointer)
    return y


class Int8Weights:
    """Weights in the order in which `int8_linear` reads them.

    Args: int8 (N, K); scales (N,); bias (N,) or None.
    """

    def __init__(self, int8: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        d_out, d_in = int8.shape
        filled_out, self._filled_in = -(-d_out // 64) * 64, -(-d_in // 64) * 64
        filled = int8.new_zeros(filled_out, self._filled_in)
        filled[:d_out, :d_in] = int8
        blocks = filled.view(filled_out // 16, 16, self._filled_in // 4, 4).transpose(1, 2)
        self._d_out, self._d_in = d_out, d_in
        self._packed = blocks.contiguous()  # torch's memory begins at multiples of 64 bytes, as the kernel wants
        self._scales, self._bias = scales, bias
        self._offsets = 128 * int8.sum(dim=1, dtype=torch.int32)

    def product(self, library: ctypes.CDLL, x: Tensor) -> Tensor:
        """Shape: x (..., K), contiguous; returns (..., N)."""
        rows = x.numel() // self._d_in
        y = torch.empty(*x.shape[:-1], self._d_out)
        room = torch.empty(rows * (self._filled_in + 4), dtype=torch.uint8)  # quantised rows, then their peaks
        room_pointer = room.data_ptr()
        library.int8_linear(
            x.data_ptr(),
            rows,
            self._d_in,
            self._filled_in,
            self._packed.data_ptr(),
            self._scales.data_ptr(),
            self._offsets.data_ptr(),
            None if self._bias is None else self._bias.data_ptr(),
            self._d_out,
            room_pointer,
            room_pointer + rows * self._filled_in,
            y.data_ptr(),
        )
        return y


def add_norm(library: ctypes.CDLL, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """LayerNorm(x + y).

    Shape: x, y (..., D); returns (..., D).
    """
    x, y = x.contiguous(), y.contiguous()
    out, width = torch.empty_like(x), x.shape[-1]
    library.add_norm(
        x.data_ptr(),
        y.data_ptr(),
        x.numel() // width,
        width,
        weight.data_ptr(),
        bias.data_ptr(),
        epsilon,
        out.data_ptr(),
    )
    return out


def attend_cached(
    library: ctypes.CDLL,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    origins: Tensor | None = None,
    starts: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T * scale + bias) v of single queries, where query w attends column c at place origins[g, w, c].

    Shape:  q (G, H, W, d), a view of rows of projections; keys, values (G, H, C, P, d); origins (G, W, C) bytes; starts
            (G,) int32, the first column that a group's queries attend; bias (G, C). Returns (G, W, H * d).
    """
    groups, heads, width, head_dim = q.shape
    columns, places = keys.shape[2:4]
    out = torch.empty(groups, width, heads * head_dim)
    library.attend_cached(
        q.data_ptr(),
        q.stride(0) // width,  # between rows; a dimension of one says nothing
        keys.data_ptr(),
        values.data_ptr(),
        keys.stride(0),
        keys.stride(1),
        groups,
        heads,
        width,
        columns,
        places,
        head_dim,
        None if origins is None else origins.data_ptr(),
        0 if origins is None else origins.stride(0),
        0 if origins is None else origins.stride(1),
        None if starts is None else starts.data_ptr(),
        None if bias is None else bias.data_ptr(),
        scale,
        out.data_ptr(),
    )
    return out
