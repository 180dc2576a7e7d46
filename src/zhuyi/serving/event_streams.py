"""Answers sent as they come, as server-sent events; who stops to listen ends the work."""

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send

from zhuyi.errors import InputError
from zhuyi.serving.error_answers import error_body
from zhuyi.serving.refusals import Refusal, WrongOption

logger = logging.getLogger("zhuyi.serving")
DONE = b"data: [DONE]\n\n"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """Events of a generator, which is closed however the sending ends."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=HEADERS)
        self._events = events

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            await self._events.aclose()


def event(value: Mapping[str, Any]) -> bytes:
    """A JSON as one event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


async def begun(values: AsyncIterator[Mapping[str, Any]], path: str) -> EventStream:
    """The stream of some JSON objects, from the first one on: what goes wrong before it is an answer by itself."""
    first = await anext(values, None)

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            if first is not None:
                yield event(first)
            async for value in values:
                yield event(value)
            yield DONE
        except (Refusal, InputError) as error:
            status, code = (error.status, error.code) if isinstance(error, Refusal) else (400, "invalid_input")
            option = error.option if isinstance(error, WrongOption) else None
            yield event(error_body(path, status, str(error), code, option))
        except Exception:
            logger.exception("%s failed as it was streamed", path)
            yield event(error_body(path, 500, "something went wrong in the server; its log says what", "server_error"))
        finally:
            if isinstance(values, AsyncGenerator):
                await values.aclose()

    return EventStream(events())
