"""Forms and query strings as plain values."""

import asyncio
from typing import Any

import pytest
from fastapi import Request
from starlette.exceptions import HTTPException

from zhuyi.serving.request_bodies import request_values


def values(body: bytes, kind: str = "application/x-www-form-urlencoded", query: bytes = b"") -> dict[str, Any]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": query}
    return asyncio.run(request_values(Request(scope, receive)))


def test_a_form_is_utf_8_whether_or_not_it_is_escaped() -> None:
    assert values("q=你好+é&source=zh".encode()) == {"q": "你好 é", "source": "zh"}
    assert values(b"q=%E4%BD%A0%C3%A9%0D%0Ax&e=") == {"q": "你é\nx", "e": ""}
    assert values(b"q=a&q=b", query=b"q=%E4%BD%A0&z=1") == {"q": ["你", "a", "b"], "z": "1"}
    assert values(b"q=\xff") == {"q": "\ufffd"}
    parts = '--x\r\nContent-Disposition: form-data; name="q"\r\n\r\n你好\r\n--x--\r\n'.encode()
    assert values(parts, "multipart/form-data; boundary=x") == {"q": "你好"}


def test_a_form_of_too_many_values_is_refused() -> None:
    with pytest.raises(HTTPException, match="2,000"):
        values(b"a=1&" * 3000)
