"""The kernels, `kernels.c` and `training.c`: compiled at first need, kept in the user's cache, else None.

What is compiled depends on this package's own source alone, never on a run. torch's operations do the same arithmetic
where there is no compiler or the processor lacks the instructions.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from zhuyi.machine import has_int8_instructions
from zhuyi.nn.eager import is_eager

SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.c", "training.c"))
SHARED = tuple(Path(__file__).with_name(name) for name in ("numbers.h", "products.h", "attention.h"))
POINTER, LONG, FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float


class Layers(ctypes.Structure):
    """A cache and where its layers lie, in bytes from one to the next, and from a layer's keys to its values."""

    _fields_: ClassVar = [("cached", POINTER), ("start", POINTER), ("layer", LONG), ("part", LONG)]


_P, _L = (POINTER,), (LONG,)
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "int8_linear": _P + _P + _L + _P,
    "attend_cached": 2 * _P + _L + 3 * _P,
    "attend_past": 5 * _P,
    "attend_sequences": _P + 4 * _L + 2 * _P,
    "add_norm": 2 * _P + 2 * _L + 2 * _P + (FLOAT,) + _P,
    "move_groups": 3 * _P + _L,
    "log_normalizers": _P + 2 * _L + _P,
    "largest": _P + 3 * _L + 2 * _P,
    "run_program": _P + _L + 2 * _P + 2 * (Layers,) + _P,
    "most_noted": (),
    "list_largest": _P + _L + 2 * _P + 2 * (Layers,) + _P,
    "run_sequences": 2 * _P + 2 * _L + 2 * _P,
    "gelu_tanh_with_slope": _P + 2 * _L + 2 * _P,
    "softmax_rows": _P + 3 * _L + (FLOAT,) + 3 * _P,
    "softmax_rows_backward": 2 * _P + 3 * _L + (FLOAT,) + _P,
    "drop_out": _P + 4 * _L + (FLOAT,) + _P,
}
_RESULTS = {
    **dict.fromkeys(("int8_linear", "run_program", "run_sequences", "softmax_rows"), ctypes.c_int),  # for `checked`
    **dict.fromkeys(("most_noted", "list_largest"), LONG),
}


def library_for(*tensors: Tensor) -> ctypes.CDLL | None:
    """The kernels, where they can take these: float32 on the CPU, no gradient wanted, eager."""
    if torch.is_grad_enabled() or not is_eager():
        return None
    for x in tensors:
        if type(x) not in (Tensor, torch.nn.Parameter) or x.dtype is not torch.float32 or x.device.type != "cpu":
            return None
    return _load()[0]


def library_of_numbers(x: Tensor) -> ctypes.CDLL | None:
    """The kernels that know both, where they can take this: float32 or bfloat16 on the CPU, eager."""
    if type(x) is not Tensor or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return None
    return _load()[0] if is_eager() else None


def library_to_train(x: Tensor) -> ctypes.CDLL | None:
    """Those of training, where the gradient of `x` is wanted."""
    return library_of_numbers(x) if type(x) is Tensor and x.requires_grad and torch.is_grad_enabled() else None


def status() -> str:
    """One line for `zhuyi doctor`."""
    return _load()[1]


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("ZHUYI_KERNELS") == "0":
        return None, "off (ZHUYI_KERNELS=0)"
    if not has_int8_instructions() or platform.system() != "Linux":
        return None, "not for this processor and system (AVX512-VNNI, Linux)"
    compiler = shlex.split(os.environ.get("CC", "")) or _found("gcc") or _found("clang") or _found("cc")
    if not compiler:
        return None, "no C compiler"
    try:
        path = _cache_folder() / f"kernels-{_key(compiler)}.so"
        library = _open(path) or _compiled(compiler, path)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
        return None, " ".join(["cannot be compiled", *last])
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return None, f"cannot be compiled: {error}"
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, _RESULTS.get(name)
    if library.has_matrix_unit() and not torch.cpu._init_amx():  # compiled for it, but the system will not lend it
        return None, "the system does not let this process use the processor's matrix unit"
    return library, f"compiled ({path})"


def _found(name: str) -> list[str]:
    path = shutil.which(name)
    return [path] if path else []


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zhuyi"


def _open(path: Path) -> ctypes.CDLL | None:
    """What was compiled before; None where there is nothing, or nothing that works here.

    Raises: OSError: others could have put it there.
    """
    if not path.exists():
        return None
    for each in (path.parent, path):
        found = each.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(f"{each} can be written to by others than its user")
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _key(compiler: list[str]) -> str:
    """What the compiled file follows from: source, compiler, processor, torch (whose threads it shares)."""
    processor = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    flags = [line for line in processor.splitlines() if line.startswith(("flags", "model name"))]
    sources = (source.read_text(encoding="utf-8") for source in (*SOURCES, *SHARED))
    parts = (*sources, *compiler, *flags, torch.__version__)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _compiled(compiler: list[str], path: Path) -> ctypes.CDLL:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        linked = Path(folder) / "kernels.so"
        options = ("-O3", "-march=native", "-fopenmp", "-fPIC")
        parts = {source: str(Path(folder) / f"{source.stem}.o") for source in SOURCES}
        for command in (
            *([*compiler, *options, "-c", str(source), "-o", part] for source, part in parts.items()),
            # Linked without an OpenMP library of its own: torch's, already in the process, serves both.
            [*compiler, "-shared", *parts.values(), "-o", str(linked)],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        linked.chmod(0o700)
        os.replace(linked, path)
    return ctypes.CDLL(str(path))


class _Weights(ctypes.Structure):
    _fields_: ClassVar = [(name, LONG) for name in ("k", "k_filled", "n")] + [
        (name, POINTER) for name in ("packed", "scales", "offsets", "bias")
    ]


class Int8Weights:
    """Weights in the order in which `int8_linear` reads them.

    Args: int8 (N, K); scales (N,); bias (N,) or None.
    """

    def __init__(self, int8: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        d_out, d_in = int8.shape
        filled_out, filled_in = -(-d_out // 64) * 64, -(-d_in // 64) * 64
        filled = int8.new_zeros(filled_out, filled_in)
        filled[:d_out, :d_in] = int8
        blocks = filled.view(filled_out // 64, 64, filled_in // 4, 4).transpose(1, 2)
        self.d_out, self.filled_in = d_out, filled_in
        self._d_in = d_in
        # torch's memory begins at multiples of 64 bytes, as the kernel wants.
        self._tensors = blocks.contiguous(), scales, -128 * filled.sum(dim=1, dtype=torch.int32), bias
        self._weights = _Weights(d_in, filled_in, d_out, *map(_pointer, self._tensors))
        self.address = ctypes.addressof(self._weights)

    def product(self, library: ctypes.CDLL, x: Tensor) -> Tensor:
        """Shape: x (..., K), contiguous; returns (..., N)."""
        y = x.new_empty(*x.shape[:-1], self.d_out)
        checked(library.int8_linear(self.address, x.data_ptr(), x.numel() // self._d_in, y.data_ptr()))
        return y


def checked(found: int) -> int:
    """What a kernel has returned.

    Raises: MemoryError: it found none.
            IndexError: it was given an id that its tables do not have.
    """
    if found == 0:
        raise MemoryError("no memory for a row; take fewer at once (decode.batch_rows, train.batch_tokens)")
    if found < 0:
        raise IndexError("a token or a position lies outside of its table")
    return found


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


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


def log_normalizers(library: ctypes.CDLL, x: Tensor) -> Tensor:
    """Log sum exp of each row.

    Shape: x (R, V); returns (R,).
    """
    x = x.contiguous()
    out = x.new_empty(x.shape[0])
    library.log_normalizers(x.data_ptr(), *x.shape, out.data_ptr())
    return out


def largest(library: ctypes.CDLL, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row, largest first, and where they stand; of equal ones the first.

    Shape: x (R, V), V at least `count`; returns (R, count) twice.
    """
    x = x.contiguous()
    values = x.new_empty(x.shape[0], count)
    places = torch.empty(values.shape, dtype=torch.int64)
    library.largest(x.data_ptr(), *x.shape, count, values.data_ptr(), places.data_ptr())
    return values, places


class _Part(ctypes.Structure):
    _fields_: ClassVar = [
        ("x", POINTER),
        *((name, LONG) for name in ("layers", "layer_stride", "group_stride", "heads", "head_stride", "bytes")),
    ]


def move_groups(library: ctypes.CDLL, x: Tensor, columns: slice, to: Tensor, source: Tensor) -> None:
    """Write some groups' columns over those of others; none is both.

    Shape: x (L, 2, G, H, C, ...), contiguous; to, source (N,) int64.
    """
    part = x[0, 0, 0, 0, columns]
    layers, size = x.shape[0] * x.shape[1], x.element_size()
    strides = [stride * size for stride in x.stride()]
    moved = _Part(part.data_ptr(), layers, strides[1], strides[2], x.shape[3], strides[3], part.numel() * size)
    library.move_groups(ctypes.addressof(moved), to.data_ptr(), source.data_ptr(), len(to))


class _Cached(ctypes.Structure):
    _fields_: ClassVar = [
        *((name, LONG) for name in ("groups", "heads", "width", "d", "narrow")),
        *((name, LONG) for name in ("group_stride", "head_stride", "columns", "places")),
        ("origins", POINTER),
        *((name, LONG) for name in ("origins_group", "origins_row")),
        *((name, POINTER) for name in ("starts", "bias")),
        ("bias_group", LONG),
        ("scale", FLOAT),
    ]


class Cached:
    """Every layer's keys and values, and which of them each query attends: what a step's calls have in common.

    Query w of group g attends column c at place origins[g, w, c].

    Args:   cache: (L, 2, G, H, C, P, d), a view, float32 or bfloat16; a layer's keys, then its values.
            width: W, queries a group.
            origins: (G, W, C) bytes; None: place 0.
            starts: (G,) int32, the first column that a group's queries attend; None: 0.
            bias: (G, C), added to the logits; its columns lie side by side.
    Raises: ValueError: a cache of another type.
    """

    def __init__(
        self,
        cache: Tensor,
        width: int,
        origins: Tensor | None = None,
        starts: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        if cache.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"the kernels read float32 and bfloat16, not {cache.dtype}")
        groups, heads, columns, places, head_dim = cache.shape[2:]
        self._kept = cache, origins, starts, bias  # what is pointed at
        self._out = groups, width, heads * head_dim
        layer, part = (cache.element_size() * stride for stride in cache.stride()[:2])
        self._cached = _Cached(
            groups,
            heads,
            width,
            head_dim,
            cache.dtype is torch.bfloat16,
            *cache.stride()[2:4],
            columns,
            places,
            _pointer(origins),
            *((0, 0) if origins is None else origins.stride()[:2]),
            _pointer(starts),
            _pointer(bias),
            0 if bias is None else bias.stride(0),
            head_dim**-0.5,
        )
        self.layers = Layers(ctypes.addressof(self._cached), cache.data_ptr(), layer, part)

    def attend(self, library: ctypes.CDLL, layer: int, q: Tensor) -> Tensor:
        """Let queries attend a layer.

        Shape: q (G, W, H * d), contiguous; returns the same.
        """
        out = q.new_empty(self._out)
        library.attend_cached(self.layers.cached, q.data_ptr(), self._out[2], *self._layer(layer), out.data_ptr())
        return out

    def attend_past(self, library: ctypes.CDLL, layer: int, qkv: Tensor) -> Tensor:
        """Write each row's key and value to its own place in the last column, then let it attend.

        Shape: qkv (G, W, 3 * H * d), contiguous; returns (G, W, H * d).
        """
        out = qkv.new_empty(self._out)
        library.attend_past(self.layers.cached, qkv.data_ptr(), *self._layer(layer), out.data_ptr())
        return out

    def _layer(self, layer: int) -> tuple[int, int]:
        """Where a layer's keys and its values begin."""
        keys = (self.layers.start or 0) + layer * self.layers.layer  # None: there is nothing
        return keys, keys + self.layers.part


def attend_each_other(library: ctypes.CDLL, qkv: Tensor, num_heads: int, bias: Tensor | None) -> Tensor:
    """Let all of a sequence's queries attend all of its keys, from where one projection has put them.

    Shape: qkv (B, T, 3 * H * d), bias (B, T) or None; returns (B, T, H * d).
    """
    qkv = qkv.contiguous()
    rows, length, width = qkv.shape
    out = qkv.new_empty(rows, length, width // 3)
    library.attend_sequences(
        qkv.data_ptr(), rows, length, num_heads, width // 3 // num_heads, _pointer(bias), out.data_ptr()
    )
    return out
