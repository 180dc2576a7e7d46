"""A request's body, read whole within limits: of size, of time, and of how deep a JSON nests."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from zhuyi.serving.refusals import Malformed, QueueFull, TooLarge, TooSlow

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MOST_BRACKETS = 200_000  # arrays and objects of a JSON
# What is too large is still taken in, and thrown away, up to so many times the limit: a client that is cut off while
# it sends does not read why.
PATIENCE = 4
ROOM_SECONDS = 1  # after which others' bodies may have gone
# Possessive, and through the end where a string has none: each byte is looked at once, whatever the body.
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[{\]}]")


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


def check_json(body: bytes, max_depth: int) -> None:
    """Refuse a JSON whose arrays and objects lie too deep in one another, or are too many, before it is parsed.

    Raises: Malformed
    """
    if b"\0" in body:
        raise Malformed("the JSON is not in UTF-8")
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return
    bare = _JSON_STRING.sub(b"", body)
    if bare.count(b"[") + bare.count(b"{") > MOST_BRACKETS:
        raise Malformed(f"the JSON has more than the {MOST_BRACKETS:,} arrays and objects allowed")
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in (b"[", b"{") else -1
        if depth > max_depth:
            raise Malformed(f"the JSON is nested deeper than the {max_depth} levels allowed")
        if depth < 0:  # no parser goes beyond
            return
