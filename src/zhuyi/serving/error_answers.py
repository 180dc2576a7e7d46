"""What a client is told that is not answered: one line, in the form that its protocol has for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from zhuyi.errors import InputError
from zhuyi.serving.refusals import Refusal, WrongOption
from zhuyi.serving.request_bodies import plain

LONGEST_MESSAGE = 400
_TYPES = frozenset(("str", "int", "float", "bool", "none"))

# Their clients look for the message itself under "error".
LIBRETRANSLATE = frozenset(("/translate", "/translate_file", "/detect", "/languages", "/suggest", "/frontend/settings"))


def error_body(
    path: str, status: int, message: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """The body of an answer that says what is wrong."""
    if path.rstrip("/") in LIBRETRANSLATE:
        return {"error": message}
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def error_answer(
    path: str,
    status: int,
    message: str,
    code: str | None = None,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An answer that says what is wrong."""
    return JSONResponse(error_body(path, status, message, code, param), status, headers)


def invalid_answer(path: str, problems: Sequence[Mapping[str, Any]]) -> JSONResponse:
    """What a client is told whose values are not those of a form: the first that is wrong, which is not sent back.

    Of a value that may be of several types, what is wrong furthest inside it.
    """
    places = [_place(problem) for problem in problems]
    inside = [k for k, place in enumerate(places) if place[: len(places[0])] == places[0]]
    found = max(inside, key=lambda k: len(places[k]))
    place = places[found]
    message = plain(": ".join(filter(None, (".".join(place), _what(problems[found])))), most=LONGEST_MESSAGE)
    return error_answer(path, 400, message, "invalid_request", plain(place[0]) if place else None)


def answer_errors(app: FastAPI) -> None:
    """Let an application tell in these words what its routes raise."""
    app.add_exception_handler(InputError, _input_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


async def _input_error(request: Request, error: Exception) -> JSONResponse:
    option = error.option if isinstance(error, WrongOption) else None
    return error_answer(request.url.path, 400, str(error), "invalid_input", option)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return invalid_answer(request.url.path, error.errors())


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return error_answer(request.url.path, error.status_code, str(error.detail), headers=dict(error.headers or {}))


def _place(problem: Mapping[str, Any]) -> list[str]:
    """The keys and indices that lead to a value, without the types that were tried on the way."""
    if problem["type"] == "json_invalid":
        return []
    way = problem["loc"][1:]
    unknown = len(way) - 1 if problem["type"] == "extra_forbidden" else None
    return [str(part) for k, part in enumerate(way) if k == unknown or _is_key(part)]


def _is_key(part: str | int) -> bool:
    return isinstance(part, int) or (part.isidentifier() and part not in _TYPES)


def _what(problem: Mapping[str, Any]) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return "is no option here"
        case "missing":
            return "is missing"
    return str(problem["msg"]).removeprefix("Value error, ")


def refusal_answer(path: str, refusal: Refusal) -> JSONResponse:
    """What a client is told whose request is not done."""
    headers = {}
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return error_answer(path, refusal.status, str(refusal), refusal.code, headers=headers)
