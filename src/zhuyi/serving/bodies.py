"""A request's body, read whole within limits: of size, of time, and of how deep a JSON nests."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from zhuyi.serving.refusals import Malformed, TooLarge, TooSlow

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MOST_BRACKETS = 200_000  # arrays and objects of a JSON
# What is too large is still taken in, and thrown away, up to so many times the limit: a client that is cut off while
# it sends does not read why.
PATIENCE = 4
_JSON_PART = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


class ClientGone(Exception):
    """Nobody is there any longer to be answered."""


async def read_body(receive: Receive, declared: int, limit: int, chunk_seconds: float, seconds: float) -> bytes:
    """All of a body.

    Args:   declared: its length by the head; 0 where it does not say.
            chunk_seconds, seconds: within which each part, and all of them, must come.
    Raises: TooLarge, TooSlow, ClientGone.
    """
    chunks: list[bytes] = []
    size, is_large = 0, declared > limit
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + chunk_seconds)):
                message = await receive()
        except TimeoutError:
            raise TooSlow(f"the request's body did not come within {chunk_seconds:g} s") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        is_large = is_large or size > limit
        if is_large:
            chunks.clear()
        else:
            chunks.append(chunk)
        if not message.get("more_body", False) or size > PATIENCE * limit:
            break
    if is_large:
        raise TooLarge(f"the request's body is larger than the {limit:,} bytes allowed")
    return b"".join(chunks)


def check_json(body: bytes, max_depth: int) -> None:
    """Refuse a JSON whose arrays and objects lie too deep in one another, or are too many, before it is parsed.

    Raises: Malformed
    """
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return
    depth = count = 0
    for part in _JSON_PART.finditer(body):
        sign = part[0][:1]
        if sign in (b"[", b"{"):
            depth, count = depth + 1, count + 1
            if depth > max_depth:
                raise Malformed(f"the JSON is nested deeper than the {max_depth} levels allowed")
            if count > MOST_BRACKETS:
                raise Malformed(f"the JSON has more than the {MOST_BRACKETS:,} arrays and objects allowed")
        elif sign in (b"]", b"}"):
            depth -= 1
