"""What a request brings, as plain values."""

import json
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.exceptions import HTTPException

SHOWN_CHARACTERS = 40
MOST_FIELDS = 2000


def plain(value: object, *, most: int = SHOWN_CHARACTERS) -> str:
    """What a client sent as a message may repeat it: in valid characters, one line, and no more than so many.

    Args:   most: 0: all, and as many lines as there are.
    """
    text = str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not most:
        return text
    text = " ".join(text.split())
    return text if len(text) <= most else text[:most] + "..."


async def request_values(request: Request) -> dict[str, Any]:
    """A JSON object; or a form's values and the query string's, where a name that comes several times has a list.

    Line ends of forms become one character.
    Raises: HTTPException: 400, the body is neither.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        try:
            values = json.loads(await request.body())
        except (ValueError, RecursionError):
            raise HTTPException(400, "Invalid JSON format") from None
        if not isinstance(values, dict):
            raise HTTPException(400, "Invalid JSON format")
        return values
    found: dict[str, Any] = {}
    for name, value in [*request.query_params.multi_items(), *await _form_values(request, kind)]:
        text = "\n".join(str(value).splitlines())
        if name in found:
            earlier = found[name]
            found[name] = [*earlier, text] if isinstance(earlier, list) else [earlier, text]
        else:
            found[name] = text
    return found


async def _form_values(request: Request, kind: str) -> list[tuple[str, str]]:
    if kind == "application/x-www-form-urlencoded":
        # `curl -d q=你好` sends UTF-8 as it is, which Starlette takes for Latin-1.
        try:
            body = (await request.body()).decode("utf-8", "replace")
            return parse_qsl(body, keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError:
            raise HTTPException(400, f"the form has more than {MOST_FIELDS:,} values") from None
    async with request.form(max_files=0, max_fields=MOST_FIELDS) as form:
        return [(name, str(value)) for name, value in form.multi_items()]
