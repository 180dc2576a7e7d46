"""What a client is told that is not answered: one line, in the form that its protocol has for it."""

from typing import Any

from starlette.responses import JSONResponse

from zhuyi.serving.refusals import Refusal

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


def refusal_answer(path: str, refusal: Refusal) -> JSONResponse:
    """What a client is told whose request is not done."""
    headers = {}
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return error_answer(path, refusal.status, str(refusal), refusal.code, headers=headers)
