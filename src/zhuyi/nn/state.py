"""What a Transformer decoder remembers between steps: keys and values of the past, a position a row, the memory."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from zhuyi.nn import kernels
from zhuyi.nn.attention import attend, merge_heads, split_heads
from zhuyi.nn.kernels.program import Listed, Program, program_of, record_step
from zhuyi.nn.masks import additive

WIDEST = 256  # places are told apart by a byte; the rows of a wider beam are groups of their own
CAPACITY_BLOCK = 16  # the cache grows by blocks, to twice what is needed: few copies, whatever the length


class DecoderState:
    """The key-value cache of `R` rows in `G` groups of `W`; the rows of a group (a beam) share one memory.

    Keys and values stay where they were written. When the rows of a beam change places, only `origins`, which says
    in whose place each row's past lies, is reordered; a row attends its whole group's cache through a mask. Groups
    that leave are filled up by the last ones, groups that come take the free places.

    All rows write to the same column, whatever their own positions: a row at position p has its past in the p newest
    columns. Rows begun at different times may so advance together.

    For inference: steps write into the cache that earlier ones have looked at.

    Shape: cache (L, 2, G or more, H, C, W, d), keys before values; memory (L, 2, G or more, H, S or more, d), or None;
    Args:  cache: with no columns yet and W = 1; it may be narrower than what is computed in, and so may the memory.
           memory: every layer's keys and values of each group's source.
           memory_mask: (G, S), True where the source is real; None: everywhere.
           scale: factor of the logits instead of 1 / sqrt(d).
           dtype: in what a step computes; None: the cache's.
    Raises: ValueError: cache or memory are neither of that type nor bfloat16.
    """

    def __init__(
        self,
        cache: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        scale: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.cache = cache
        self.memory = memory
        self._scale = scale
        self._dtype = dtype or cache.dtype
        for kept in (cache, *(() if memory is None else (memory,))):
            if kept.dtype not in (self._dtype, torch.bfloat16):
                raise ValueError(f"keys and values are kept in {self._dtype} or bfloat16, not in {kept.dtype}")
        self._is_biased = False  # the running step has a bias of its own
        self._positions = torch.empty(0)  # of the running step's tokens
        self._starts: Tensor | None = None  # of each group the first of the columns that anyone needs; None: all 0
        # Found when a step's first layer asks for them.
        self._past_bias: tuple[Tensor | None] | None = None
        self._cached: kernels.Cached | None = None
        self._program: tuple[Program | None] | None = None  # of a step, known from the first one on
        self._barred: tuple[tuple[int, ...], Tensor | None] | None = None
        self._lengths = [0] * cache.shape[2]  # of each group: how many tokens its rows have consumed
        self._origins = torch.zeros(cache.shape[2], 1, 0, dtype=torch.uint8, device=cache.device)  # (G.., W, C)
        self._end = 0  # the column to be written next
        self._written = 0  # columns that the running step writes
        self._real = None if memory is None else _real(memory_mask, memory, self._dtype)
        self._memory_columns = 0
        self._memory_bias: Tensor | None = None
        self._cached_memory: tuple[int, kernels.Cached] | None = None  # for so many queries a group
        self._note_memory()

    def consume(
        self, prefix: Tensor, prefix_mask: Tensor | None, advance: Callable[[Tensor], Tensor]
    ) -> "DecoderState":
        """Take in all but the last token of each row's prefix.

        Shape: prefix (R, P), right-padded where prefix_mask (R, P) is False.
        Args:  advance: brings ids (R, T) through the model's layers, which write into this state.
        """
        length = prefix.shape[1]
        if length > 1:
            advance(prefix[:, :-1])
            lengths = prefix_mask.sum(dim=1) if prefix_mask is not None else torch.full_like(prefix[:, 0], length)
            self.forget_after(lengths - 1)
        return self

    @property
    def width(self) -> int:
        """Rows a group."""
        return self.cache.shape[5]

    @property
    def groups(self) -> int:
        return len(self._lengths)

    @property
    def rows(self) -> int:
        return self.groups * self.width

    @property
    def positions(self) -> Tensor:
        """How many tokens each row has consumed. Shape: (R,)."""
        return torch.tensor(self._lengths, device=self.cache.device).repeat_interleave(self.width)

    def begin(self, num_tokens: int) -> Tensor:
        """Make room for `num_tokens` more a row.

        Shape: returns their positions (G, W * num_tokens); of W and num_tokens one is 1.
        """
        if num_tokens > 1 and self.width > 1:
            self._ungroup(range(self.rows))
        lengths = torch.tensor(self._lengths, dtype=torch.long, device=self.cache.device)[:, None]
        self._make_room(num_tokens)
        self._extend(num_tokens)
        if self.width > 1:
            self._positions = lengths.expand(-1, self.width)
        else:
            self._positions = lengths + torch.arange(num_tokens, device=self.cache.device)
        return self._positions

    @property
    def offsets(self) -> Tensor:
        """Where each column of the past lies, seen from each token of the running step: its own is 0, the last one -1.

        The same for all rows, since they all write to the same column.

        Shape: (T, columns); what lies after a token is positive, and is not attended.
        """
        columns = torch.arange(self._longest, device=self.cache.device)
        return columns - columns[-self._written :, None]

    def bias_past(self, bias: Tensor) -> None:
        """Add to the running step's logits over the past, in every layer.

        Shape: bias (H, T, columns), as `offsets`.
        """
        bias, found = bias.repeat_interleave(self.width, dim=-1), self.past_bias  # (H, T, columns * W)
        self._past_bias = (bias if found is None else bias + found,)
        self._is_biased = True

    @property
    def past_bias(self) -> Tensor | None:
        """What to add to a step's logits, so that each new token attends its own row's past alone.

        Shape: broadcasts to (G, H, W * T, columns * W), or None.
        """
        if self._past_bias is None:
            self._past_bias = (self._find_past_bias(),)
        return self._past_bias[0]

    def remember(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new keys and values of a layer and give back all of them so far.

        Shape: k, v (G, H, W * T, d); returns two (G, H, columns * W, d).
        """
        new = slice(self._end - self._written, self._end)
        past = slice(self._first, self._end)
        both = []
        for part, x in zip(self.cache[layer], (k, v), strict=True):
            mine = part[: self.groups]  # (G, H, C, W, d)
            mine[:, :, new] = x.unflatten(2, (self._written, self.width))
            both.append(mine[:, :, past].flatten(2, 3).to(self._dtype))
        return both[0], both[1]

    def memory_of(self, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values of the memory, and what to add to the logits.

        Shape: returns two (G, H, S, d), and (G, 1, 1, S) or None.
        """
        assert self.memory is not None
        keys, values = self.memory[layer, :, : self.groups, :, : self._memory_columns].to(self._dtype)
        return keys, values, self._memory_bias

    def run(self, module: nn.Module, step: Callable[[Tensor, Tensor, Any], Tensor], tokens: Tensor) -> Tensor:
        """One more token a row: `step(tokens, positions, state)`, by one call of the kernels where they can.

        Args:   module: whose step it is; each has one.
                step: takes tokens and positions (G, W); must be the same in every step of a state.
        Shape:  tokens (R,); returns (R, ...).
        """
        library = self._library()
        if library is not None and self._program is None:
            self._program = (program_of(module, "step", lambda: record_step(step)),)
        program = self._program[0] if self._program is not None else None
        if library is None or program is None:
            return step(tokens.view(self.groups, self.width), self.begin(1), self)
        positions = self._row_positions()
        self._make_room(1)
        self._extend(1)
        return program.run(library, tokens, positions, self._past(), self._source_of_step())

    def list_largest(
        self, tokens: Tensor, *, steps: int, count: int, end: int, barred: tuple[int, ...], sums_barred: bool
    ) -> Listed | None:
        """Steps in each of which a row goes on with the likeliest token, as `run` would do them, and what they find.

        None where that cannot be: the kernels are not there for it, or `run` has not been called yet.

        Args:   steps: at most; one where rows have company, and none beyond the last position.
                end: after the step in which a row has written it none is done.
                count: how many of each row's largest logits are wanted.
                barred: what may not be written; where `sums_barred` it does not count among the probabilities either.
        Shape:  tokens (R,).
        """
        library = self._library()
        program = self._program[0] if self._program is not None else None
        if library is None or program is None or not program.can_list(library, count):
            return None
        positions = self._row_positions()
        steps = max(1, min(steps, program.num_positions - self._longest)) if self.width == 1 else 1
        self._make_room(steps)
        self._extend(1)
        found = program.list_largest(
            library,
            tokens,
            positions,
            self._past(),
            self._source_of_step(),
            steps=steps,
            count=count,
            end=end,
            bars=self._bars(barred, program.width),
            sums_barred=sums_barred,
        )
        if len(found.values) > 1:
            self._extend(len(found.values) - 1)
            self._written = 1
        return found

    def attend_past(self, layer: int, qkv: Tensor) -> Tensor:
        """Store a layer's new keys and values, and let each query attend its own row's past and itself.

        Shape: qkv (G, W * T, 3 * H * d); returns the heads side by side, (G, W * T, H * d).
        """
        library = kernels.library_for(qkv) if self._written == 1 and self._is_plain else None
        if library is not None:
            return self._past().attend_past(library, layer, qkv)
        q, k, v = (split_heads(x, self.cache.shape[3]) for x in qkv.chunk(3, dim=-1))  # (G, H, W * T, d)
        keys, values = self.remember(layer, k, v)  # (G, H, columns * W, d)
        return merge_heads(attend(q, keys, values, bias=self.past_bias, scale=self._scale)[0])

    def attend_memory(self, layer: int, q: Tensor) -> Tensor:
        """Let each query attend its group's source.

        Shape: q (G, W * T, H * d); returns the same.
        """
        assert self.memory is not None
        library = kernels.library_for(q) if self._scale is None else None
        if library is None:
            keys, values, bias = self.memory_of(layer)
            queries = split_heads(q, self.cache.shape[3])  # (G, H, W * T, d)
            return merge_heads(attend(queries, keys, values, bias=bias, scale=self._scale)[0])
        return self._source(q.shape[1]).attend(library, layer, q)

    def forget_after(self, positions: Tensor) -> None:
        """Set each row back to a position: what was stored from there on is forgotten."""
        kept = positions.tolist()
        if self.width > 1:
            self._ungroup(range(self.rows))
        starts = [self._end - length for length in self._lengths]
        self._lengths = kept
        ends = {start + length for start, length in zip(starts, kept, strict=True)}
        if len(ends) < 2:
            self._end = ends.pop() if ends else 0
            return
        # Rows that end at different columns are moved to end at one.
        longest = max(kept, default=0)
        columns = torch.tensor(starts)[:, None] + torch.tensor(kept)[:, None] - longest + torch.arange(longest)
        columns = columns.clamp_min(0).to(self.cache.device)  # (G, longest)
        moved = self.cache[:, :, : self.groups].take_along_dim(columns[None, None, :, None, :, None, None], 4)
        self.cache, self._end = moved, longest
        self._origins = self._origins.new_zeros(self.groups, 1, longest)

    def select(self, rows: Tensor) -> "DecoderState":
        """Keep these rows, in this order; a row may be named many times. The old state is spent.

        No memory is copied but that of groups which move, and no cache unless rows leave their group.
        """
        width, groups = self.width, self.groups
        wanted = rows.tolist()
        if width == 1:
            runs = [(row, len(list(run))) for row, run in groupby(wanted)]
            together = {count for _, count in runs}
            if len(together) == 1 and 1 < (count := together.pop()) <= WIDEST:
                self._select_groups([row for row, _ in runs])
                self._widen(count)
            else:
                self._select_groups(wanted)
            return self
        sources = [row // width for row in wanted[::width]]
        if len(wanted) % width or any(row // width != sources[i // width] for i, row in enumerate(wanted)):
            self._ungroup(wanted)
            return self
        origins = self._origins[:groups].flatten(0, 1)[rows].unflatten(0, (len(sources), width))
        self._select_groups(sources)
        self._origins[: self.groups] = origins
        return self

    def join(self, other: "DecoderState") -> "DecoderState":
        """Append the rows of another state. Both are spent."""
        if self.width != other.width:
            for state in (self, other):
                state._ungroup(range(state.rows))
        mine, longest = self.groups, other._longest
        total = mine + other.groups
        if self._end < longest or total > self.cache.shape[2]:
            self._resize(max(total, self.cache.shape[2]), max(self._longest, longest))
        columns, theirs = slice(self._end - longest, self._end), slice(other._first, other._end)
        self.cache[:, :, mine:total, :, columns] = other.cache[:, :, : other.groups, :, theirs]
        self._origins[mine:total, :, columns] = other._origins[: other.groups, :, theirs]
        self._lengths = self._lengths + other._lengths
        self._join_memory(other, mine, total)
        return self

    @property
    def _is_plain(self) -> bool:
        """Whether the kernels know of all that attention is asked for."""
        return self._scale is None and not self._is_biased

    @property
    def _longest(self) -> int:
        return max(self._lengths, default=0)

    @property
    def _first(self) -> int:
        """The first column that any row needs."""
        return self._end - self._longest

    def _library(self) -> ctypes.CDLL | None:
        """The kernels, where they can do a whole step."""
        is_theirs = self._dtype is torch.float32 and self.cache.device.type == "cpu"
        return kernels.library_for() if is_theirs and self._scale is None else None

    def _row_positions(self) -> list[int]:
        """Those of the tokens that come next, one a row."""
        return self._lengths if self.width == 1 else [p for p in self._lengths for _ in range(self.width)]

    def _bars(self, barred: tuple[int, ...], width: int) -> Tensor | None:
        """What to add to logits so that nobody chooses these ids; made anew when they change."""
        if self._barred is None or self._barred[0] != barred:
            bars = torch.zeros(width) if barred else None
            if bars is not None:
                bars[[i for i in barred if 0 <= i < width]] = -torch.inf
            self._barred = barred, bars
        return self._barred[1]

    def _extend(self, num_tokens: int) -> None:
        """Take columns for so many tokens more, for which there is room."""
        self._end += num_tokens
        self._written = num_tokens
        self._lengths = [length + num_tokens for length in self._lengths]
        if self.width > 1:
            self._origins[: self.groups, :, self._end - 1] = torch.arange(self.width, device=self.cache.device)
        longest = self._longest
        ragged = min(self._lengths, default=0) != longest
        self._starts = (
            torch.tensor([longest - length for length in self._lengths], dtype=torch.int32, device=self.cache.device)
            if ragged
            else None
        )
        self._past_bias = self._cached = None
        self._is_biased = False

    def _source_of_step(self) -> kernels.Cached | None:
        return None if self.memory is None else self._source(self.width)

    def _past(self) -> kernels.Cached:
        """The past as the kernels read it, the running step's column included."""
        if self._cached is None:
            past = self.cache[:, :, : self.groups, :, self._first : self._end]
            origins = self._origins[:, :, self._first :] if self.width > 1 else None
            self._cached = kernels.Cached(past, self.width, origins, self._starts)
        return self._cached

    def _source(self, queries: int) -> kernels.Cached:
        """The memory as the kernels read it, for so many queries a group."""
        assert self.memory is not None
        if self._cached_memory is None or self._cached_memory[0] != queries:
            memory = self.memory[:, :, : self.groups, :, : self._memory_columns].unsqueeze(5)  # one place a column
            bias = None if self._memory_bias is None else self._memory_bias[:, 0, 0]
            self._cached_memory = queries, kernels.Cached(memory, queries, bias=bias)
        return self._cached_memory[1]

    def _find_past_bias(self) -> Tensor | None:
        if self.width == 1 and self._written == 1 and self._starts is None:
            return None
        columns = torch.arange(self._longest, device=self.cache.device)
        starts = columns.new_zeros(self.groups) if self._starts is None else self._starts
        allowed = columns >= starts[:, None, None]  # (G, 1, columns)
        if self.width > 1:
            places = torch.arange(self.width, device=self.cache.device)
            origins = self._origins[: self.groups, :, self._first : self._end, None]
            # (G, W, columns, W): in whose place the row's past lies.
            allowed = (allowed[..., None] & (origins == places)).flatten(2)
        else:
            allowed = allowed & (columns - starts[:, None, None] <= self._positions[:, :, None])  # (G, T, columns)
        return additive(allowed, self._dtype)[:, None]

    def _make_room(self, num_tokens: int) -> None:
        needed, capacity = self._longest + num_tokens, self.cache.shape[4]
        if self._end + num_tokens <= capacity:
            return
        if 2 * needed > capacity:
            self._resize(self.cache.shape[2], self._longest, -(-2 * needed // CAPACITY_BLOCK) * CAPACITY_BLOCK)
            return
        past, start = slice(self._first, self._end), slice(0, self._longest)  # far apart: no overlap
        self.cache[:, :, :, :, start] = self.cache[:, :, :, :, past]
        self._origins[:, :, start] = self._origins[:, :, past]
        self._end = self._longest

    def _resize(self, groups: int, end: int, columns: int = 0) -> None:
        """Move to a cache of so many groups (and at least so many columns), where the past ends at `end`."""
        old, origins, past = self.cache, self._origins, slice(self._first, self._end)
        columns = max(columns, end, old.shape[4])
        self.cache = old.new_zeros(*old.shape[:2], groups, old.shape[3], columns, *old.shape[5:])
        self._origins = origins.new_zeros(groups, self.width, columns)
        there = slice(end - self._longest, end)
        self.cache[:, :, : self.groups, :, there] = old[:, :, : self.groups, :, past]
        self._origins[: self.groups, :, there] = origins[: self.groups, :, past]
        self._end = end

    def _widen(self, count: int) -> None:
        """Make a beam of every row: its past stays where it is, in the first row's place."""
        self.cache = torch.nn.functional.pad(self.cache, (0, 0, 0, count - 1))
        self._origins = self._origins.new_zeros(self.cache.shape[2], count, self.cache.shape[4])

    def _ungroup(self, rows: Sequence[int]) -> None:
        """Keep these rows, each as a group of its own."""
        width = self.width
        groups = torch.tensor([row // width for row in rows], dtype=torch.long, device=self.cache.device)
        places = torch.tensor([row % width for row in rows], dtype=torch.long, device=self.cache.device)
        past = slice(self._first, self._end)
        origins = self._origins[groups, places, past].long()  # (R, columns)
        cache = self.cache[:, :, groups, :, past]  # (L, 2, R, H, columns, W, d)
        self.cache = cache.take_along_dim(origins[None, None, :, None, :, None, None], 5)
        self._lengths = [self._lengths[row // width] for row in rows]
        self._end = self.cache.shape[4]
        self._origins = self._origins.new_zeros(len(rows), 1, self._end)
        if self.memory is not None and groups.tolist() != list(range(self.memory.shape[2])):
            self._gather_memory(groups)

    def _select_groups(self, wanted: list[int]) -> None:
        """Keep these groups, in this order."""
        moves = [(place, group) for place, group in enumerate(wanted) if place != group]
        if not moves and len(wanted) == self.groups:
            return
        in_place = len(wanted) <= self.groups and {place for place, _ in moves}.isdisjoint(wanted)
        self._lengths = [self._lengths[group] for group in wanted]
        if in_place and moves:
            to, source = torch.tensor(moves, device=self.cache.device).T.contiguous()
            _move(self.cache, slice(self._first, self._end), to, source)
            self._origins[to] = self._origins[source]
            if self.memory is not None and self._real is not None:
                _move(self.memory, slice(0, self._memory_columns), to, source)
                self._real.biases[to] = self._real.biases[source]
        if in_place and self._real is not None:
            self._real.ends = [self._real.ends[group] for group in wanted]
        if not in_place:
            index = torch.tensor(wanted, dtype=torch.long, device=self.cache.device)
            self.cache, self._origins = self.cache[:, :, index], self._origins[index]
            if self.memory is not None:
                self._gather_memory(index)
        self._note_memory()

    def _gather_memory(self, groups: Tensor) -> None:
        assert self.memory is not None and self._real is not None
        self.memory, self._real.biases = self.memory[:, :, groups], self._real.biases[groups]
        self._real.ends = [self._real.ends[group] for group in groups.tolist()]
        self._note_memory()

    def _join_memory(self, other: "DecoderState", mine: int, total: int) -> None:
        if self.memory is None or self._real is None or other.memory is None or other._real is None:
            return
        columns, least = max(self.memory.shape[4], other._memory_columns), torch.finfo(self._dtype).min
        if total > self.memory.shape[2] or columns > self.memory.shape[4]:
            old, biases = self.memory, self._real.biases
            groups = max(total, old.shape[2])
            self.memory = old.new_zeros(*old.shape[:2], groups, old.shape[3], columns, old.shape[5])
            self.memory[:, :, :mine, :, : old.shape[4]] = old[:, :, :mine]
            self._real.biases = biases.new_full((groups, columns), least)
            self._real.biases[:mine, : biases.shape[1]] = biases[:mine]
        theirs = slice(0, other._memory_columns)
        self.memory[:, :, mine:total, :, theirs] = other.memory[:, :, : other.groups, :, theirs]
        self._real.biases[mine:total] = least
        self._real.biases[mine:total, theirs] = other._real.biases[: other.groups, theirs]
        self._real.ends = self._real.ends + other._real.ends
        self._real.has_holes = self._real.has_holes or other._real.has_holes
        self._note_memory()

    def _note_memory(self) -> None:
        """Derive what changes only with the groups: the columns that any source needs, and their bias."""
        if self.memory is None or self._real is None:
            return
        self._cached_memory = None
        ends = self._real.ends
        empty = [group for group, end in enumerate(ends) if end == 0]
        if empty:
            self.memory[:, 1, empty] = 0.0  # who may attend nothing finds zeros
        self._memory_columns = columns = max(ends, default=0)
        is_whole = not self._real.has_holes and min(ends, default=0) == columns
        self._memory_bias = None if is_whole else self._real.biases[: self.groups, None, None, :columns]


def empty_cache(
    like: Tensor, num_layers: int, rows: int, num_heads: int, head_dim: int, dtype: torch.dtype | None = None
) -> Tensor:
    """A cache with no columns yet, on `like`'s device and, where no other is given, of its type."""
    return like.new_zeros(num_layers, 2, rows, num_heads, 0, 1, head_dim, dtype=dtype)


def stack_layers(pairs: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype | None = None) -> Tensor:
    """Every layer's keys and values in one, for a state's memory: each is copied once.

    Shape: pairs of (G, H, S, d); returns (L, 2, G, H, S, d).
    """
    keys = pairs[0][0]
    stacked = keys.new_empty(len(pairs), 2, *keys.shape, dtype=dtype)
    for layer, pair in zip(stacked, pairs, strict=True):
        for part, x in zip(layer, pair, strict=True):
            part.copy_(x)
    return stacked


def _move(x: Tensor, columns: slice, to: Tensor, source: Tensor) -> None:
    """Write some groups' columns over those of others. Shape: x (L, 2, G, H, C, ...)."""
    library = kernels.library_of_numbers(x) if x.is_contiguous() and not torch.is_grad_enabled() else None
    if library is not None:
        kernels.move_groups(library, x, columns, to, source)
    else:
        x[:, :, to, :, columns] = x[:, :, source, :, columns]


@dataclass
class _Real:
    """Which columns of the memory are real.

    Args:   biases: (G or more, S or more), added to logits: 0 where real, least elsewhere.
            ends: of each group, how many columns there are up to its last real one.
            has_holes: whether a group has padding between or before real columns.
    """

    biases: Tensor
    ends: list[int]
    has_holes: bool


def _real(mask: Tensor | None, memory: Tensor, dtype: torch.dtype) -> _Real:
    groups, columns = memory.shape[2], memory.shape[4]
    if mask is None or not columns:
        return _Real(memory.new_zeros(groups, columns, dtype=dtype), [columns] * groups, False)
    counts, ends = mask.sum(1), (mask * torch.arange(1, columns + 1, device=mask.device)).amax(1)
    return _Real(additive(mask, dtype), ends.tolist(), bool((counts < ends).any()))
