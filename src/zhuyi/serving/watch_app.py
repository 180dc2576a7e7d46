"""Watching trainings: a server of the page that follows them."""

import contextlib
import json
from threading import Lock

import uvicorn
from fastapi import FastAPI, Response
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from zhuyi.serving import page_files
from zhuyi.serving.border import check_host
from zhuyi.serving.error_answers import answer_errors, refusal_answer
from zhuyi.serving.listening import address_of, http_config, listening_socket
from zhuyi.serving.refusals import Refusal, WrongOption
from zhuyi.serving.settings import ServeSettings
from zhuyi.serving.watched_runs import Watch, template
from zhuyi.visualize.web_page import served

KNOWN = TypeAdapter(dict[str, dict[str, tuple[int, int]]])


class KnownHosts:
    """Turns away what pages of other servers have a browser ask here."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                check_host(Headers(scope=scope), self._settings)
            except Refusal as refusal:
                await refusal_answer(scope["path"], refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def create_watch_app(watch: Watch, settings: ServeSettings) -> FastAPI:
    """The page at `/`, what it is made of under `/page/`, and at `/news` what a page lacks that knows so much."""
    app = FastAPI(title="zhuyi watch", openapi_url=None)
    app.state.settings = settings
    answer_errors(app)
    app.add_middleware(KnownHosts, settings=settings)
    page, policy = served(template())
    one_at_a_time = Lock()  # requests run in threads, and a look moves the followers on

    @app.api_route("/", methods=["GET", "HEAD"])
    def whole_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})

    app.add_api_route("/page/{name}", page_files.part, methods=["GET", "HEAD"])

    @app.get("/news")
    def news(known: str = "{}") -> Response:
        try:
            asked = KNOWN.validate_json(known)
        except ValidationError:
            raise WrongOption("known", "known is not of the form {run: {kind: [generation, count]}}") from None
        with one_at_a_time:
            found = json.dumps(watch.news(asked), allow_nan=False)
        return Response(found, media_type="application/json")

    return app


def serve_watch(watch: Watch, settings: ServeSettings) -> None:
    """Serve until Ctrl-C; the address goes to standard output.

    Raises: InputError: nothing can listen there.
    """
    with listening_socket(settings) as listening, contextlib.suppress(KeyboardInterrupt):
        print(address_of(listening), flush=True)
        uvicorn.Server(http_config(create_watch_app(watch, settings), settings)).run(sockets=[listening])
