"""The rows of a search's batch: whose they are and what they have written so far."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zhuyi.decoding.requests import Request

NO_TOKEN = -1
_FIRST_CAPACITY = 64


class Rows:
    """Requests in batch order, `width` rows each, with the tokens of every row.

    All rows share the columns of one buffer and end at the same column, whenever they were admitted: a new
    token is one column for all, and a window of the newest tokens is a slice.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.width = width
        self.members: list[Request] = []
        self._starts: list[int] = []
        self._end = 0
        self._buffer = torch.full((0, _FIRST_CAPACITY), NO_TOKEN, dtype=torch.int64, device=device)
        self._spare = self._buffer
        self._lengths: Tensor | None = None
        self._refresh()

    @property
    def requests(self) -> tuple[Request, ...]:
        """The request of each row."""
        return self._requests

    @property
    def tokens(self) -> Tensor:
        """What each row has written, aligned at the right, `NO_TOKEN` where a row is shorter than others.

        A row not in use (of a beam that has fewer beginnings than rows, or a sample that has ended) may hold
        anything.

        Shape: (R, T), T the length of the longest row. A view: neither to be written to nor kept.
        """
        return self._buffer[:, self._end - max(self.member_lengths, default=0) : self._end]

    @property
    def lengths(self) -> Tensor:
        """How many tokens each row has written. Shape: (R,)."""
        if self._lengths is None:
            starts = [start for start in self._starts for _ in range(self.width)]
            self._lengths = self._end - torch.tensor(starts, dtype=torch.int64, device=self._buffer.device)
        return self._lengths

    @property
    def member_lengths(self) -> list[int]:
        """How many tokens each request has written, known without asking the device."""
        return [self._end - start for start in self._starts]

    @property
    def minimum(self) -> Tensor | None:
        """Each row's `min_new_tokens`, or None where nobody has any. Shape: (R,)."""
        return self._minimum

    def tail(self, count: int) -> Tensor:
        """Return the newest `count` columns of `tokens`, filled with `NO_TOKEN` where a row has fewer.

        Shape: returns (R, count).
        """
        if self._end >= count:
            return self._buffer[:, self._end - count : self._end]
        return torch.nn.functional.pad(self._buffer[:, : self._end], (count - self._end, 0), value=NO_TOKEN)

    def written(self, row: int) -> list[int]:
        """Return the tokens of one row."""
        return self._buffer[row, self._starts[row // self.width] : self._end].tolist()

    def join(self, requests: Sequence[Request]) -> None:
        """Append the rows of new requests, which have written nothing yet."""
        fresh = self._buffer.new_full((len(requests) * self.width, self._buffer.shape[1]), NO_TOKEN)
        self._buffer = torch.cat([self._buffer, fresh])
        self.members += requests
        self._starts += [self._end] * len(requests)
        self._refresh()

    def reorder(self, parents: Tensor) -> None:
        """Let every row continue another row of the same request."""
        if self._spare.shape != self._buffer.shape:
            self._spare = torch.empty_like(self._buffer)
        self._spare = torch.index_select(self._buffer, 0, parents, out=self._spare)
        self._buffer, self._spare = self._spare, self._buffer

    def append(self, tokens: Tensor) -> None:
        """Give every row its next token."""
        if self._end == self._buffer.shape[1]:
            self._make_room()
        self._buffer[:, self._end] = tokens
        self._end += 1
        self._lengths = None

    def keep(self, positions: Sequence[int], rows: Tensor) -> None:
        """Keep the requests at `positions`, whose rows continue the old rows `rows`."""
        self._buffer = self._buffer[rows]
        self.members = [self.members[position] for position in positions]
        self._starts = [self._starts[position] for position in positions]
        self._refresh()

    @property
    def least_left(self) -> int:
        """How many tokens the request that is nearest to its `max_new_tokens` may still write."""
        return self._first_limit - self._end

    def at_limit(self) -> list[int]:
        """Return the positions of the requests for which the next token is the last one."""
        if self._end + 1 < self._first_limit:
            return []
        return [
            position
            for position, (request, start) in enumerate(zip(self.members, self._starts, strict=True))
            if self._end + 1 - start >= request.max_new_tokens
        ]

    def _make_room(self) -> None:
        capacity = self._buffer.shape[1]
        past = min(self._starts, default=self._end)
        if 2 * (self._end - past) > capacity:
            capacity *= 2
        buffer = self._buffer.new_full((self._buffer.shape[0], capacity), NO_TOKEN)
        buffer[:, : self._end - past] = self._buffer[:, past : self._end]
        self._buffer = buffer
        self._starts = [start - past for start in self._starts]
        self._end -= past
        self._refresh()

    def _refresh(self) -> None:
        """Derive what changes only with the members."""
        device, width = self._buffer.device, self.width
        self._requests = tuple(request for request in self.members for _ in range(width))
        self._lengths = None
        minimum = [request.min_new_tokens for request in self.members]
        self._minimum = torch.tensor(minimum, device=device).repeat_interleave(width) if any(minimum) else None
        limits = zip(self.members, self._starts, strict=True)
        self._first_limit = min((start + request.max_new_tokens for request, start in limits), default=0)
