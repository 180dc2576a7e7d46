"""A request's body, read whole within limits: of size, of time, and of how deep a JSON nests."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from zhuyi.serving.refusals import Malformed, QueueFull, TooLarge, TooSlow

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# Of a JSON: values, arrays and objects included; and names, of which each that no form has makes a report by itself.
MOST_VALUES, MOST_NAMES = 200_000, 10_000
LARGE = 2**16  # bytes of a JSON that others are served beside
# What is too large is still taken in, and thrown away, up to so many times the limit: a client that is cut off while
# it sends does not read why.
PATIENCE = 4
ROOM_SECONDS = 1  # after which others' bodies may have gone
_BESIDE_STRUCTURE = bytes(set(range(256)) - set(b"[]{},:"))
_BRACKETS = bytes.maketrans(b"{}", b"[]")


class ClientGone(Exception):
    """Nobody is there any longer to be answered."""


class BodyRoom:
    """The bytes of all requests' bodies that are in memory at once, those that are still coming included."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, size: int) -> None:
        """Raises: QueueFull: there is not so much room."""
        if size > self._left:
            raise QueueFull(ROOM_SECONDS)
        self._left -= size

    def give_back(self, size: int) -> None:
        self._left += size


async def read_body(
    receive: Receive, declared: int, limit: int, chunk_seconds: float, seconds: float, room: BodyRoom
) -> bytes:
    """All of a body, which whoever asked for it gives back to the room.

    Args:   declared: its length by the head; 0 where it does not say.
            chunk_seconds, seconds: within which each part, and all of them, must come.
    Raises: TooLarge, TooSlow, ClientGone, QueueFull.
    """
    chunks: list[bytes] = []
    size, held, is_large = 0, 0, declared > limit
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        while True:
            message = await _next(receive, deadline, chunk_seconds)
            chunk = message.get("body", b"")
            size += len(chunk)
            is_large = is_large or size > limit
            if is_large:
                chunks.clear()
            else:
                room.take(len(chunk))
                held += len(chunk)
                chunks.append(chunk)
            if not message.get("more_body", False) or size > PATIENCE * limit:
                break
        if is_large:
            raise TooLarge(f"the request's body is larger than the {limit:,} bytes allowed")
    except BaseException:
        room.give_back(held)
        raise
    return b"".join(chunks)


async def _next(receive: Receive, deadline: float, chunk_seconds: float) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + chunk_seconds)):
            message = await receive()
    except TimeoutError:
        raise TooSlow(f"the request's body did not come within {chunk_seconds:g} s") from None
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


async def check_json(body: bytes, max_depth: int) -> None:
    """Refuse a JSON whose arrays and objects lie too deep in one another, or of too many values, before it is parsed.

    Raises: Malformed
    """
    if len(body) > LARGE:
        await asyncio.to_thread(_check_json, body, max_depth)
    else:
        _check_json(body, max_depth)


def _check_json(body: bytes, max_depth: int) -> None:
    """Look at each byte a few times, whatever they are, and by calls that each take a moment: they hold up all else."""
    if b"\0" in body:
        raise Malformed("the JSON is not in UTF-8")
    bare = b"".join(_without_escapes(body)) if b"\\" in body else body
    if bare.count(b'"') > 4 * MOST_VALUES:
        raise _too_many(MOST_VALUES, "values")
    bare = b"".join(bare.split(b'"')[::2]).translate(None, _BESIDE_STRUCTURE)
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > MOST_VALUES:
        raise _too_many(MOST_VALUES, "values")
    _check_depth(bare.translate(_BRACKETS, b",:"), max_depth)
    if bare.count(b":") > MOST_NAMES:
        raise _too_many(MOST_NAMES, "names")


def _without_escapes(body: bytes) -> Iterator[bytes]:
    """The pieces of a JSON without what looks like a string's end: two backslashes, then each quote behind one."""
    held = b""
    for start in range(0, len(body), LARGE):
        piece = held + body[start : start + LARGE]
        is_within = (len(piece) - len(piece.rstrip(b"\\"))) % 2 > 0
        held = piece[len(piece) - is_within :]
        yield piece[: len(piece) - is_within].replace(rb"\\", b"").replace(rb"\"", b"")


def _too_many(most: int, what: str) -> Malformed:
    return Malformed(f"the JSON has more than the {most:,} {what} allowed")


def _check_depth(brackets: bytes, max_depth: int) -> None:
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket == ord("[") else -1
        if depth > max_depth:
            raise Malformed(f"the JSON is nested deeper than the {max_depth} levels allowed")
        if depth < 0:  # no parser goes beyond
            return
