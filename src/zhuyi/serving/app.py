"""The application: the engine behind HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

from zhuyi import __version__
from zhuyi.serving import (
    docs_page,
    health,
    libretranslate,
    openai_routes,
    openai_writing,
    own_routes,
    page_files,
    seeing_routes,
)
from zhuyi.serving.border import Border
from zhuyi.serving.engine import Engine
from zhuyi.serving.error_answers import answer_errors, refusal_answer
from zhuyi.serving.keys import KeyRing
from zhuyi.serving.refusals import Refusal
from zhuyi.serving.settings import ServeSettings

ROUTERS = (
    health.router,
    libretranslate.router,
    openai_writing.router,
    openai_routes.router,
    own_routes.router,
    seeing_routes.router,
    page_files.router,
    docs_page.router,
)


class Application(FastAPI):
    """A FastAPI whose document does not tell of 422, which nothing here answers."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            for methods in document["paths"].values():
                for about in methods.values():
                    about["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                document.get("components", {}).get("schemas", {}).pop(name, None)
        found: dict[str, Any] = super().openapi()
        return found


def create_app(engine: Engine, settings: ServeSettings) -> FastAPI:
    """The application of an engine, which it starts and ends.

    Routes get the engine by a parameter `engine: EngineHere`; what they raise as `InputError` is told to the client
    as 400, a `Refusal` by its status, anything else as 500 in one line.
    Raises: InputError: the settings' keys cannot be read.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await asyncio.to_thread(engine.stop)

    app = Application(title="zhuyi", version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    app.state.engine, app.state.settings = engine, settings
    for router in ROUTERS:
        app.include_router(router)
    answer_errors(app)
    app.add_exception_handler(Refusal, _refusal)
    keys = None if settings.api_keys is None else KeyRing(settings.api_keys)
    app.add_middleware(Border, engine=engine, settings=settings, keys=keys)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    request.app.state.engine.metrics.refused.labels(error.code).inc()
    return refusal_answer(request.url.path, error)
