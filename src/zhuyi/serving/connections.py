"""Connections that do not let others wait: a head that does not come, an answer that is not taken."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, which by itself waits for a head, and for a reader, as long as they please.

    Both have the `read_seconds` of the application's settings.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seconds: float = self.config.app.state.settings.read_seconds  # type: ignore[union-attr]
        self._head_timer: asyncio.TimerHandle | None = None
        self._take_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_within_request:
            self._head_timer = _stopped(self._head_timer)
        else:
            self._await_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._take_timer = self.loop.call_later(self._seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._take_timer = _stopped(self._take_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer, self._take_timer = _stopped(self._head_timer), _stopped(self._take_timer)
        super().connection_lost(exc)

    @property
    def _is_within_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        """From a head's first byte on; what comes after it gives no more time."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._seconds, self._give_up)

    def _give_up(self) -> None:
        self._head_timer = None
        if not self._is_within_request:
            self.transport.abort()


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """No timer any longer."""
    if timer is not None:
        timer.cancel()
    return None
