"""What every request passes before anything is done for it, and the watch over whether its client is still there."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response

from zhuyi.serving.bodies import BodyRoom, ClientGone, Receive, check_json, read_body
from zhuyi.serving.engine import Engine
from zhuyi.serving.error_answers import LIBRETRANSLATE, error_answer, refusal_answer
from zhuyi.serving.keys import KeyRing, RateLimit
from zhuyi.serving.metrics import METHODS
from zhuyi.serving.refusals import Forbidden, Malformed, Refusal, TookTooLong, TooManyRequests, Unauthorized
from zhuyi.serving.request_bodies import MOST_FIELDS
from zhuyi.serving.settings import ServeSettings

logger = logging.getLogger("zhuyi.serving")

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What needs no key: it says nothing, and does nothing.
OPEN = frozenset(("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/favicon.ico"))
OPEN_FOLDER = "/page/"
LOOPBACK_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")  # whatever else it says, it may be read as JSON
BODIES_AT_ONCE = 16  # of the largest size, in memory
GRACE_SECONDS = 5.0  # after which a request that did not keep its own limit is cut off


class Answer:
    """Sends an answer, and knows how far it is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.is_complete = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_complete = True
        await self._send(message)


class Border:
    """Host, origin, key, rate and body of each request; a client that leaves takes its request with it."""

    def __init__(self, app: App, engine: Engine, settings: ServeSettings, keys: KeyRing | None = None) -> None:
        self._app, self._engine, self._settings = app, engine, settings
        self._keys = keys
        self._rate = RateLimit(settings.requests_per_minute)
        self._room = BodyRoom(BODIES_AT_ONCE * settings.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer, path, begun = Answer(send), scope["path"], time.perf_counter()
        response: Response | None = None
        try:
            await self._pass(scope, receive, answer)
        except ClientGone:
            answer.status = answer.status or 499
        except Refusal as refusal:
            self._engine.metrics.refused.labels(refusal.code).inc()
            response = refusal_answer(path, refusal)
        except Exception:
            logger.exception("%s %s failed", scope["method"], path)
            response = error_answer(path, 500, "something went wrong in the server; its log says what", "server_error")
        if response is not None and not answer.status:
            response.headers["Connection"] = "close"  # the body may not have been read
            await response(scope, receive, answer)
        self._count(scope, answer.status, time.perf_counter() - begun)

    async def _pass(self, scope: Scope, receive: Receive, answer: Answer) -> None:
        headers, settings = Headers(scope=scope), self._settings
        check_host(headers, settings)
        is_open = scope["path"] in OPEN or scope["path"].startswith(OPEN_FOLDER) or scope["method"] == "OPTIONS"
        key = _key_of(headers, scope)
        # The key of who speaks LibreTranslate may be in the body; that of all others is looked at first.
        in_body = not key and scope["path"] in LIBRETRANSLATE
        if not is_open and not in_body:
            self._let_in(scope, key)
        declared = headers.get("content-length", "")
        length = int(declared) if declared.isdecimal() and declared.isascii() else 0
        body = await read_body(
            receive, length, settings.max_body_bytes, settings.read_seconds, settings.request_seconds, self._room
        )
        try:
            is_form = headers.get("content-type", "").lower().startswith(FORMS)
            if not is_form:
                await check_json(body, settings.max_json_depth)
            if not is_open and in_body:
                self._let_in(scope, _key_in(body, is_form=is_form))
            await self._run(scope, body, receive, answer)
        finally:
            self._room.give_back(len(body))

    async def _run(self, scope: Scope, body: bytes, receive: Receive, answer: Answer) -> None:
        """Run the application, until it ends or its client leaves or its time is over."""
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        watch = asyncio.ensure_future(_gone(receive))

        async def replay() -> MutableMapping[str, Any]:
            if messages:
                return messages.pop()
            await asyncio.wait({watch})
            return {"type": "http.disconnect"}

        work = asyncio.ensure_future(self._app(scope, replay, answer))
        seconds = self._settings.request_seconds + GRACE_SECONDS
        try:
            await asyncio.wait({work, watch}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            is_over = not work.done() and not watch.done()
            if not work.done() and answer.is_complete:  # what comes after an answer, a moment's work
                await asyncio.wait({work}, timeout=GRACE_SECONDS)
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                raise TookTooLong(seconds) if is_over else ClientGone
            work.result()
        finally:
            work.cancel()
            watch.cancel()

    def _let_in(self, scope: Scope, key: str) -> None:
        visitor = (scope.get("client") or ("", 0))[0]
        if self._keys is not None:
            if not key:
                raise Unauthorized("this server wants a key: send it as `Authorization: Bearer KEY`")
            owner = self._keys.owner(key)
            if owner is None:
                raise Unauthorized("the key is not one of this server's")
            visitor = f"key {owner}"
        if seconds := self._rate.take(visitor):
            raise TooManyRequests(self._rate.per_minute, seconds)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        # The path itself is whatever anyone asks for; the routes are few.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._engine.metrics.requests.labels(route, method, str(status)).inc()
        self._engine.metrics.seconds.labels(route).observe(seconds)


def check_host(headers: Headers, settings: ServeSettings) -> None:
    """Refuse what a page of another server has a browser do here, by its own name or under one of ours.

    Raises: Refusal: it is such a request.
    """
    host = _host_of(headers.get("host", ""))
    known = LOOPBACK_HOSTS | {name.lower() for name in (settings.host, *settings.allowed_hosts)}
    if (settings.is_loopback or settings.allowed_hosts) and host not in known:
        raise Forbidden(f"this server does not answer to the name {host!r}; allow it by --allow-host")
    origin = headers.get("origin")
    if origin is None or origin in settings.allowed_origins:
        return
    if urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise Forbidden(f"pages of {origin} may not use this server; allow them by --allow-origin")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _host_of(header: str) -> str:
    """A Host header without the port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        raise Malformed("the Host header cannot be read") from None


def _key_of(headers: Headers, scope: Scope) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return headers.get("x-api-key") or query.get("api_key", [""])[0]


def _key_in(body: bytes, *, is_form: bool) -> str:
    """The `api_key` of a form or a JSON."""
    try:
        if is_form:
            return parse_qs(body.decode("utf-8"), max_num_fields=MOST_FIELDS).get("api_key", [""])[0]
        values = json.loads(body)
        return str(values.get("api_key") or "") if isinstance(values, dict) else ""
    except (ValueError, RecursionError):
        return ""
