"""The rest of a decoder's step, written down once and then done by one call: no Python between its operations.

What a step does is said once, by the modules themselves. They are called with a value that computes nothing and notes
what is asked of it; whatever it does not know of ends the recording, and the step is then done by the modules, as ever.
"""

import ctypes
import math
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.nn.kernels import FLOAT, LONG, POINTER, Cached, Int8Weights, Layers, checked

LINEAR, NORMALIZE, ADD, ACTIVATE, ATTEND_PAST, ATTEND_MEMORY, ATTEND_EACH_OTHER, EMBED = range(8)
RELU, GELU_TANH, SILU, GELU = range(4)
TOKENS, POSITIONS = range(2)
BEGINNING, RESULT = 0, 1  # the first values of a program; those between them and the result follow


class NotRecordableError(Exception):
    """A step asks for something that programs do not have."""


@dataclass(frozen=True)
class Operation:
    """One line of a program: value `to`, of so many numbers a row, from values `source` and perhaps `other`."""

    kind: int
    source: int
    to: int
    width: int
    other: int = -1
    detail: int = 0
    weights: Int8Weights | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    epsilon: float = 0.0
    least: float = -math.inf
    factor: float = 1.0


# What else `F.embedding` may be told, with no difference to what it returns.
_LEAVE_VALUES = {
    *(("padding_idx", None), ("max_norm", None), ("norm_type", 2.0)),
    *(("scale_grad_by_freq", False), ("sparse", False)),
}


class RecordedIds:
    """A step's tokens, or their positions: all that is known to be done with them is to look them up in a table."""

    def __init__(self, operations: list[Operation], of: int) -> None:
        self._operations, self._of = operations, of

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: Sequence[Any] = (), options: dict[str, Any] | None = None
    ) -> "Recorded":
        if function is not F.embedding or len(arguments) != 2 or not _LEAVE_VALUES.issuperset((options or {}).items()):
            raise NotRecordableError(str(function))
        ids, table = arguments
        return ids.embed(table)

    def embed(self, table: Tensor) -> "Recorded":
        if table.dtype is not torch.float32 or not table.is_contiguous():
            raise NotRecordableError("a table of another type")
        return Recorded(self._operations, BEGINNING, 0)._then(EMBED, table.shape[1], detail=self._of, scale=table)


class Recorded:
    """A value of a step: it knows its width alone, and writes down what it is asked for.

    Modules and torch's functions take it in a tensor's place. The step's state is asked for attention through
    `attend_past` and `attend_memory`.
    """

    def __init__(self, operations: list[Operation], number: int, width: int) -> None:
        self._operations, self._number, self.width = operations, number, width

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: Sequence[Any] = (), options: dict[str, Any] | None = None
    ) -> "Recorded":
        known = FUNCTIONS.get(function)
        if known is None:
            raise NotRecordableError(str(function))
        return known(*arguments, **(options or {}))

    def linear(self, weights: Int8Weights) -> "Recorded":
        return self._then(LINEAR, weights.d_out, weights=weights)

    def attend_past(self, layer: int) -> "Recorded":
        return self._then(ATTEND_PAST, self.width // 3, detail=layer)

    def attend_memory(self, layer: int) -> "Recorded":
        return self._then(ATTEND_MEMORY, self.width, detail=layer)

    def attend_each_other(self, num_heads: int) -> "Recorded":
        return self._then(ATTEND_EACH_OTHER, self.width // 3, detail=num_heads)

    def flatten(self, first: int, last: int) -> "Recorded":
        """Rows side by side or one below the other are the same rows."""
        return self

    def __add__(self, other: "Recorded") -> "Recorded":
        if not isinstance(other, Recorded):
            raise NotRecordableError("a sum with what is not part of the step")
        return self._then(ADD, self.width, other=other._number)

    def __mul__(self, factor: float) -> "Recorded":
        last = self._operations[-1] if self._operations else None
        if last is None or last.kind != EMBED or last.to != self._number or not isinstance(factor, float):
            raise NotRecordableError("a product with a number of what is not looked up")
        return self._then(
            EMBED, self.width, source=last.source, detail=last.detail, scale=last.scale, factor=last.factor * factor
        )

    def activate(self, activation: int) -> "Recorded":
        return self._then(ACTIVATE, self.width, detail=activation)

    def normalize(self, scale: Tensor, shift: Tensor, epsilon: float) -> "Recorded":
        options: dict[str, Any] = {"scale": scale, "shift": shift, "epsilon": epsilon}
        last = self._operations[-1] if self._operations else None
        if last is not None and last.kind == ADD and last.to == self._number:
            # Together with the sum that it is of, which is kept for whoever else needs it.
            return self._then(NORMALIZE, self.width, source=last.source, other=last.other, **options)
        return self._then(NORMALIZE, self.width, **options)

    def _then(self, kind: int, width: int, *, source: int | None = None, **details: Any) -> "Recorded":
        to = RESULT + 1 + len(self._operations)
        source = self._number if source is None else source
        self._operations.append(Operation(kind, source, to, width, **details))
        return Recorded(self._operations, to, width)


def _layer_norm(
    x: Recorded, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Recorded:
    if weight is None or bias is None or tuple(shape) != (x.width,):
        raise NotRecordableError("layer norm without weights")
    return x.normalize(weight, bias, eps)


def _relu(x: Recorded, inplace: bool = False) -> Recorded:
    return x.activate(RELU)


def _silu(x: Recorded, inplace: bool = False) -> Recorded:
    return x.activate(SILU)


def _gelu(x: Recorded, approximate: str = "none") -> Recorded:
    return x.activate(GELU_TANH if approximate == "tanh" else GELU)


FUNCTIONS: dict[Any, Callable[..., Recorded]] = {
    F.layer_norm: _layer_norm,
    F.relu: _relu,
    torch.relu: _relu,
    F.silu: _silu,
    F.gelu: _gelu,
}


class RecordedState:
    """What a step asks of its state, in the state's place while it is recorded."""

    def attend_past(self, layer: int, qkv: Recorded) -> Recorded:
        return qkv.attend_past(layer)

    def attend_memory(self, layer: int, q: Recorded) -> Recorded:
        return q.attend_memory(layer)


class _Operation(ctypes.Structure):
    _fields_: ClassVar = [
        *((name, LONG) for name in ("kind", "source", "other", "to", "width", "detail")),
        *((name, POINTER) for name in ("weights", "scale", "shift")),
        *((name, FLOAT) for name in ("epsilon", "least", "factor")),
    ]


class _Program(ctypes.Structure):
    _fields_: ClassVar = [
        ("operations", POINTER),
        ("num_operations", LONG),
        ("widths", POINTER),
        ("num_values", LONG),
        ("most_filled", LONG),
        ("num_ids", 2 * LONG),
    ]


class _Listing(ctypes.Structure):
    _fields_: ClassVar = [
        *((name, LONG) for name in ("steps", "count", "end")),
        ("bars", POINTER),
        ("sums_barred", LONG),
        *((name, POINTER) for name in ("values", "columns", "normalizers")),
    ]


class Listed(NamedTuple):
    """Of some steps' logits each row's largest, largest first, where they stand, and log sum exp of all.

    Shape: values and ids (steps, R, count), normalizers (steps, R).
    """

    values: Tensor
    ids: Tensor
    normalizers: Tensor


class Program:
    """Operations in the form in which the kernels read them."""

    def __init__(self, operations: Sequence[Operation], width: int) -> None:
        kept, widths = _with_values_reused(_fused(_needed(operations)), width)
        # What is pointed at: a parameter may be given other memory, and the old would be let go.
        self._kept = [[x.detach() for x in (each.scale, each.shift) if x is not None] for each in kept]
        self._weights = [each.weights for each in kept]
        self._operations = (_Operation * len(kept))(*map(_as_structure, kept))
        self._widths = (LONG * len(widths))(*widths)
        most_filled = max((each.weights.filled_in for each in kept if each.weights is not None), default=0)
        tables = [(each.detail, len(each.scale)) for each in kept if each.kind == EMBED and each.scale is not None]
        num_ids = [min((size for of, size in tables if of == ids), default=sys.maxsize) for ids in (TOKENS, POSITIONS)]
        self._program = _Program(
            ctypes.addressof(self._operations),
            len(kept),
            ctypes.addressof(self._widths),
            len(widths),
            most_filled,
            (LONG * 2)(*num_ids),
        )
        self._address = ctypes.addressof(self._program)
        self._out = widths[RESULT]
        self._ends_with_product = kept[-1].kind == LINEAR

    def run(
        self, library: ctypes.CDLL, tokens: Tensor, positions: Sequence[int], past: Cached, memory: Cached | None
    ) -> Tensor:
        """One step of each row's newest token at its position.

        Shape:  tokens (R,); returns (R, width of the result).
        Raises: IndexError: a token or a position is not in the tables.
        """
        rows = len(positions)
        tokens = tokens.long().contiguous().view(rows)
        out, places = torch.empty(rows, self._out), array("q", positions)
        source = NO_LAYERS if memory is None else memory.layers
        found = library.run_program(
            self._address, rows, tokens.data_ptr(), places.buffer_info()[0], past.layers, source, out.data_ptr()
        )
        checked(found)
        return out

    def can_list(self, library: ctypes.CDLL, count: int) -> bool:
        """Whether `list_largest` can find so many of a row."""
        return self._ends_with_product and count <= min(library.most_noted(), self._out)

    @property
    def num_positions(self) -> int:
        """How many positions there are."""
        return int(self._program.num_ids[POSITIONS])

    @property
    def width(self) -> int:
        """How many numbers a row of the result has."""
        return self._out

    def list_largest(
        self,
        library: ctypes.CDLL,
        tokens: Tensor,
        positions: Sequence[int],
        past: Cached,
        memory: Cached | None,
        *,
        steps: int,
        count: int,
        end: int,
        bars: Tensor | None,
        sums_barred: bool,
    ) -> Listed:
        """Steps in each of which a row goes on with the largest of its last result, which is nowhere written down.

        Args:   steps: at most; after that in which any row has written `end` none is done.
                bars: (V,), added before the largest are chosen, and `sums_barred` before all are summed up.
        Shape:  tokens (R,).
        Raises: IndexError: as `run`.
        """
        rows = len(positions)
        tokens = tokens.long().contiguous().view(rows)
        values, normalizers = torch.empty(steps, rows, count), torch.empty(steps, rows)
        ids, places = torch.empty(steps, rows, count, dtype=torch.int64), array("q", positions)
        pointers = (x.data_ptr() for x in (values, ids, normalizers))
        listing = _Listing(steps, count, end, None if bars is None else bars.data_ptr(), sums_barred, *pointers)
        done = checked(
            library.list_largest(
                self._address,
                rows,
                tokens.data_ptr(),
                places.buffer_info()[0],
                past.layers,
                NO_LAYERS if memory is None else memory.layers,
                ctypes.addressof(listing),
            )
        )
        return Listed(values[:done], ids[:done], normalizers[:done])

    def run_sequences(self, library: ctypes.CDLL, x: Tensor, starts: Tensor) -> Tensor:
        """Of sequences one behind the other, sequence i the rows from starts[i] to starts[i + 1].

        Shape: x (rows, D); starts (sequences + 1,) int64; returns (rows, width of the result).
        """
        x = x.contiguous()
        out = x.new_empty(x.shape[0], self._out)
        count, threads = len(starts) - 1, torch.get_num_threads()
        checked(library.run_sequences(self._address, starts.data_ptr(), count, threads, x.data_ptr(), out.data_ptr()))
        return out


NO_LAYERS = Layers()


@dataclass(frozen=True)
class _Known:
    """What has been recorded of a module, of which modules and tensors it then was, and where the tensors lay."""

    modules: list[ref[nn.Module]]
    places: list[int]
    program: Program | None

    def is_of(self, modules: list[nn.Module]) -> bool:
        """Whether they still are what they were."""
        same = len(modules) == len(self.modules) and all(x() is y for x, y in zip(self.modules, modules, strict=True))
        return same and _places(modules) == self.places


_known: WeakKeyDictionary[nn.Module, dict[str, _Known]] = WeakKeyDictionary()


def program_of(module: nn.Module, name: str, record: Callable[[], Program | None]) -> Program | None:
    """What `record` makes of a module's steps or layers, once for as long as all inside it are the same."""
    of_module, modules = _known.setdefault(module, {}), list(module.modules())
    known = of_module.get(name)
    if known is None or not known.is_of(modules):
        known = of_module[name] = _Known([ref(each) for each in modules], _places(modules), record())
    return known.program


def _places(modules: list[nn.Module]) -> list[int]:
    inside = (x for each in modules for kind in (each._parameters, each._buffers) for x in kind.values())
    return [x.data_ptr() for x in inside if x is not None]


def record_layers(layers: Callable[[Any], Any], width: int) -> Program | None:
    """What `layers(x)` does, x (..., width); None where it is more than programs have."""
    return _record(lambda operations: layers(Recorded(operations, BEGINNING, width)), width)


def record_step(step: Callable[[Any, Any, Any], Any]) -> Program | None:
    """What `step(tokens, positions, state)` does; None where it is more than programs have."""

    def take(operations: list[Operation]) -> Any:
        return step(RecordedIds(operations, TOKENS), RecordedIds(operations, POSITIONS), RecordedState())

    return _record(take, 0)


def _record(take: Callable[[list[Operation]], Any], width: int) -> Program | None:
    operations: list[Operation] = []
    try:
        result = take(operations)
    except (NotRecordableError, AttributeError, TypeError):
        return None
    if not operations or not isinstance(result, Recorded) or operations[-1].to != result._number:
        return None
    return Program(operations, width)


def _needed(operations: Sequence[Operation]) -> list[Operation]:
    """Without what nothing is made of."""
    used = {operations[-1].to}
    kept = []
    for operation in reversed(operations):
        if operation.to in used:
            used |= {operation.source, operation.other}
            kept.append(operation)
    return kept[::-1]


def _fused(operations: Sequence[Operation]) -> list[Operation]:
    """With the products that are only looked at where they are positive cut there at once."""
    uses = Counter(value for each in operations for value in (each.source, each.other))
    kept: list[Operation] = []
    for each in operations:
        last = kept[-1] if kept else None
        is_cut = each.kind == ACTIVATE and each.detail == RELU
        if last is not None and is_cut and last.kind == LINEAR and last.to == each.source and uses[last.to] == 1:
            kept[-1] = replace(last, to=each.to, least=0.0)
        else:
            kept.append(each)
    return kept


def _with_values_reused(operations: Sequence[Operation], width: int) -> tuple[list[Operation], list[int]]:
    """The same operations with few values, so that they stay in the cache, and the values' widths."""
    last_use = {value: i for i, each in enumerate(operations) for value in (each.source, each.other)}
    places, widths, free = {BEGINNING: BEGINNING}, [width, operations[-1].width], list[int]()
    kept = []
    for i, each in enumerate(operations):
        fitting = [place for place in free if widths[place] == each.width]
        if i == len(operations) - 1:
            places[each.to] = RESULT
        elif fitting:
            places[each.to] = fitting[0]
            free.remove(fitting[0])
        else:
            places[each.to] = len(widths)
            widths.append(each.width)
        other = places[each.other] if each.other >= 0 else -1
        kept.append(replace(each, source=places[each.source], other=other, to=places[each.to]))
        free += {places[v] for v in (each.source, each.other) if v > RESULT and last_use[v] == i}
    return kept, widths


def _as_structure(operation: Operation) -> _Operation:
    return _Operation(
        operation.kind,
        operation.source,
        operation.other,
        operation.to,
        operation.width,
        operation.detail,
        None if operation.weights is None else operation.weights.address,
        *(None if x is None else x.data_ptr() for x in (operation.scale, operation.shift)),
        operation.epsilon,
        operation.least,
        operation.factor,
    )
