"""What a Transformer decoder remembers between steps: keys and values of the past, a position a row, the memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

CAPACITY_BLOCK = 16  # the cache grows by blocks: a few copies of a short cache, no long tail of unused columns


class DecoderState:
    """The key-value cache of `R` rows over `M` memories; the rows of one memory (a beam) stand side by side.

    Every row has its own position, so that rows begun at different times may advance together.

    Shape: cache (L, 2, R, H, C, d); positions (R,); memory: a layer's keys and values (M, H, S, d);
           memory_mask (M, 1, 1, S) or None; past_mask (R, 1, T, columns in use) or None, valid during a step.
    """

    def __init__(
        self,
        cache: Tensor,
        positions: Tensor,
        memory: Sequence[tuple[Tensor, Tensor]] = (),
        memory_mask: Tensor | None = None,
    ) -> None:
        self.cache = cache
        self.positions = positions
        self.memory = list(memory)
        self.memory_mask = memory_mask
        self.past_mask: Tensor | None = None
        self._columns = 0
        self._slots: Tensor | int = 0
        self._note_positions()

    @property
    def rows(self) -> int:
        return self.positions.shape[0]

    def begin(self, num_tokens: int) -> Tensor:
        """Make room for `num_tokens` more a row.

        Shape: returns their positions (R, num_tokens).
        """
        new = self.positions[:, None] + torch.arange(num_tokens, device=self.positions.device)  # (R, T)
        self._columns = self._longest + num_tokens
        self._grow(self._columns)
        if self._uniform and num_tokens == 1:
            self._slots, self.past_mask = self._longest, None
        else:
            self._slots = new
            columns = torch.arange(self._columns, device=new.device)
            self.past_mask = (columns <= new[:, :, None])[:, None]  # (R, 1, T, columns)
        self.positions = self.positions + num_tokens
        self._longest += num_tokens
        return new

    def remember(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new keys and values of a layer and give back all of them so far.

        Shape: k, v (R, H, T, d); returns two (R, H, columns, d).
        """
        keys, values = self.cache[layer, 0], self.cache[layer, 1]
        if isinstance(self._slots, int):
            keys[:, :, self._slots] = k[:, :, 0]
            values[:, :, self._slots] = v[:, :, 0]
        else:
            row = torch.arange(self.rows, device=k.device)[:, None]
            keys[row, :, self._slots] = k.transpose(1, 2)  # (R, T, H, d)
            values[row, :, self._slots] = v.transpose(1, 2)
        return keys[:, :, : self._columns], values[:, :, : self._columns]

    def forget_after(self, positions: Tensor) -> None:
        """Set each row back to a position: what was stored from there on will be overwritten."""
        self.positions = positions
        self._note_positions()

    def select(self, rows: Tensor) -> "DecoderState":
        """Keep these rows, in this order; a row may be named many times. The old state is spent.

        The memory is not copied unless rows of some memory are gone for good.
        """
        self._select_memory(rows)
        self.cache = self.cache.index_select(2, rows)
        self.positions = self.positions.index_select(0, rows)
        self._note_positions()
        return self

    def join(self, other: "DecoderState") -> "DecoderState":
        """Append the rows of another state. Both are spent."""
        for state in (self, other):
            state._grow(max(self.cache.shape[4], other.cache.shape[4]))
        if self.memory and self.rows * other.memory[0][0].shape[0] != other.rows * self.memory[0][0].shape[0]:
            self._one_memory_a_row()
            other._one_memory_a_row()
        self.cache = torch.cat([self.cache, other.cache], dim=2)
        self.positions = torch.cat([self.positions, other.positions])
        self._join_memory(other)
        self._note_positions()
        return self

    def _note_positions(self) -> None:
        self._longest = int(self.positions.max()) if self.rows else 0
        self._uniform = self.rows == 0 or int(self.positions.min()) == self._longest

    def _grow(self, columns: int) -> None:
        capacity = self.cache.shape[4]
        if columns > capacity:
            more = -(-columns // CAPACITY_BLOCK) * CAPACITY_BLOCK - capacity
            self.cache = torch.nn.functional.pad(self.cache, (0, 0, 0, more))

    def _select_memory(self, rows: Tensor) -> None:
        if not self.memory:
            return
        num_memories = self.memory[0][0].shape[0]
        wanted = rows // max(1, self.rows // max(1, num_memories))  # the memory of each row kept
        kept, counts = torch.unique_consecutive(wanted, return_counts=True)
        if len(counts) and int(counts.min()) != int(counts.max()):
            kept = wanted  # groups of unequal size: one memory a row
        if len(kept) != num_memories or not torch.equal(kept, torch.arange(num_memories, device=rows.device)):
            self._gather_memory(kept)

    def _gather_memory(self, kept: Tensor) -> None:
        self.memory = [(k.index_select(0, kept), v.index_select(0, kept)) for k, v in self.memory]
        self.memory_mask = None if self.memory_mask is None else self.memory_mask.index_select(0, kept)

    def _one_memory_a_row(self) -> None:
        num_memories = self.memory[0][0].shape[0]
        self._gather_memory(
            torch.arange(num_memories, device=self.positions.device).repeat_interleave(
                self.rows // max(1, num_memories)
            )
        )

    def _join_memory(self, other: "DecoderState") -> None:
        if not self.memory:
            return
        lengths = self.memory[0][0].shape[2], other.memory[0][0].shape[2]
        if self.memory_mask is not None or other.memory_mask is not None or lengths[0] != lengths[1]:
            masks = [
                _pad(state._explicit_mask().mT, max(lengths)).mT  # False where there is nothing
                for state in (self, other)
            ]
            self.memory_mask = torch.cat(masks)
        self.memory = [
            (
                torch.cat([_pad(k1, max(lengths)), _pad(k2, max(lengths))]),
                torch.cat([_pad(v1, max(lengths)), _pad(v2, max(lengths))]),
            )
            for (k1, v1), (k2, v2) in zip(self.memory, other.memory, strict=True)
        ]

    def _explicit_mask(self) -> Tensor:
        if self.memory_mask is not None:
            return self.memory_mask
        keys = self.memory[0][0]
        return torch.ones(keys.shape[0], 1, 1, keys.shape[2], dtype=torch.bool, device=keys.device)


def _pad(x: Tensor, length: int) -> Tensor:
    """Zeros behind the last but one dimension, up to `length`."""
    return torch.nn.functional.pad(x, (0, 0, 0, length - x.shape[-2]))
