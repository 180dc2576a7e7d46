"""The files of the page at `/`: its own, and what it shares with the pages that `zhuyi` writes."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse

from zhuyi.errors import InputError
from zhuyi.visualize.fonts import chinese_font
from zhuyi.visualize.web_page import served_policy

INDEX = "index.html"
TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
FOLDERS = (("zhuyi.serving", "page"), ("zhuyi.visualize", "web"))
FONT = "chinese.otf"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class PageFile:
    """A file as it is sent."""

    content: bytes
    media_type: str
    tag: str


@cache
def page_files() -> dict[str, PageFile]:
    """All but the page itself, by name: what is not among them is not sent, whatever a path says."""
    found: dict[str, PageFile] = {}
    for package, folder in FOLDERS:
        for file in files(package).joinpath(folder).iterdir():
            ending = file.name.rpartition(".")[2]
            if ending in TYPES:
                assert file.name not in found, f"two files of the page are called {file.name}"
                found[file.name] = _file(file.read_bytes(), TYPES[ending])
    return found


@cache
def index() -> PageFile:
    """The page itself."""
    return _file(files("zhuyi.serving").joinpath("page", INDEX).read_bytes(), "text/html")


def _file(content: bytes, media_type: str) -> PageFile:
    return PageFile(content, f"{media_type}; charset=utf-8", f'"{hashlib.sha256(content).hexdigest()[:20]}"')


@cache
def content_policy() -> str:
    """What a browser may do on the page."""
    return served_policy(index().content.decode("utf-8"))


@router.api_route("/", methods=["GET", "HEAD"])
def page(request: Request) -> Response:
    """The page."""
    headers = {
        "Content-Security-Policy": content_policy(),
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    }
    return _sent(index(), request, headers)


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
def part(name: str, request: Request) -> Response:
    """One of its modules, styles or pictures; or the Chinese font, for a reader whose machine has none."""
    if name == FONT:
        try:
            return FileResponse(chinese_font(), media_type="font/otf", headers={"Cache-Control": "max-age=604800"})
        except InputError as error:  # the extra `plot` is not installed
            raise HTTPException(404, str(error)) from None
    if name not in page_files():
        raise HTTPException(404, "the page has no such file")
    return _sent(page_files()[name], request, {})


def _sent(file: PageFile, request: Request, headers: dict[str, str]) -> Response:
    """A file, or that the browser has it already."""
    headers |= {"ETag": file.tag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    if file.tag in re.split(r"\s*,\s*", request.headers.get("If-None-Match", "")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
