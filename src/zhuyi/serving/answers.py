"""What the routes under /v1 answer: JSON, and what is wrong."""

from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse


class Trouble(BaseModel):
    """What is wrong, in one line."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    code: str | None = None
    param: str | None = Field(None, description="The option that is meant.")


class Problem(BaseModel):
    """An answer that is none."""

    error: Trouble


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Something in the request is wrong, or not supported."},
    404: {"model": Problem, "description": "There is no such run."},
    429: {"model": Problem, "description": "Too many requests; `Retry-After` says when to come again."},
    503: {"model": Problem, "description": "The runs are being loaded, or the server is about to end."},
}


class JsonAnswer(JSONResponse):
    """JSON in which everything is a character: half of one in a run's own words is written as U+FFFD."""

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return super().render(_whole(content))


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list | tuple) else value
