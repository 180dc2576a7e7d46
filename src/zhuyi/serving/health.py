"""Whether the server lives and is ready, and what it counts."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from zhuyi.serving.engine import Engine
from zhuyi.serving.metrics import CONTENT_TYPE

router = APIRouter(tags=["state"])


def engine_of(request: Request) -> Engine:
    """The engine that answers a request."""
    engine: Engine = request.app.state.engine
    return engine


# What a route's function writes to be given the engine.
EngineHere = Annotated[Engine, Depends(engine_of)]


@router.get("/healthz", responses={503: {"description": "The engine has stopped."}})
async def healthz(engine: EngineHere) -> JSONResponse:
    """Whether the server lives."""
    return JSONResponse({"status": "ok" if engine.is_alive else "stopped"}, 200 if engine.is_alive else 503)


@router.get("/readyz", responses={503: {"description": "Not all runs are loaded, or no more requests are taken."}})
async def readyz(engine: EngineHere) -> JSONResponse:
    """Whether all runs are loaded and requests are taken."""
    state: dict[str, Any] = {"ready": engine.is_ready, "loaded": list(engine.runs), "wanted": engine.wanted}
    return JSONResponse(state, 200 if engine.is_ready else 503, {} if engine.is_ready else {"Retry-After": "2"})


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(engine: EngineHere) -> Response:
    """What the server counts, for Prometheus."""
    engine.metrics.waiting.set(engine.in_system)
    return Response(engine.metrics.text(), media_type=CONTENT_TYPE)
