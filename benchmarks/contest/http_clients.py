"""Clients of `zhuyi serve` that cost little themselves, for they share the machine with the server."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What came back for a text.

    Args:   text: its number in the pool.
            ended: on the clock of `time.monotonic`.
    """

    text: int
    status: int
    seconds: float
    ended: float
    body: dict[str, Any]
    retry_after: str = ""


@dataclass
class Connection:
    """One client, who keeps its connection."""

    address: str
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, init=False)

    async def ask(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, str], bytes]:
        """A request's status, headers and body."""
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        if self._streams is None:
            self._streams = await asyncio.open_connection(parts.hostname, parts.port)
        reader, writer = self._streams
        content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        await writer.drain()
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        found = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), headers, found

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def translate_for(address: str, texts: Sequence[str], order: Sequence[int], seconds: float) -> list[Answer]:
    """One client who translates one text after the other, until its time is over."""
    connection, answers = Connection(address), []
    last = time.monotonic() + seconds
    number = 0
    while time.monotonic() < last:
        text = order[number % len(order)]
        number += 1
        begun = time.monotonic()
        status, headers, body = await connection.ask("/v1/translate", {"texts": [texts[text]]})
        ended = time.monotonic()
        answers.append(Answer(text, status, ended - begun, ended, json.loads(body), headers.get("retry-after", "")))
    connection.close()
    return answers


async def crowd(
    address: str, texts: Sequence[str], orders: Sequence[Sequence[int]], seconds: float
) -> list[list[Answer]]:
    """So many clients at once as there are orders of texts."""
    return await asyncio.gather(*(translate_for(address, texts, order, seconds) for order in orders))
