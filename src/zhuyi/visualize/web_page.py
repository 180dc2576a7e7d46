"""A page of ours as one HTML file that needs nothing else: no server, no network, no installed font."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from zhuyi.errors import InputError
from zhuyi.visualize.fonts import font_subset

_WEB = files("zhuyi.visualize") / "web"
_IMPORT = re.compile(r'"zhuyi/([a-z_]+\.js)"')
_INLINE_MODULE = re.compile(r'<script type="module">(.*?)</script>', re.DOTALL)
_POLICY = (
    "default-src 'none'; script-src data: {hashes}; style-src 'unsafe-inline'; font-src data:; img-src data:; "
    "require-trusted-types-for 'script'; trusted-types 'none'; base-uri 'none'; form-action 'none'"
)
_IMPORT_MAP = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)
_SERVED_POLICY = (
    "default-src 'none'; script-src 'self' {hashes}; style-src 'self'; connect-src 'self'; font-src 'self'; "
    "img-src 'self' blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Of a page that a server sends and that runs nothing.
STILL_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def self_contained(template: str, modules: Sequence[str], data: Any) -> str:
    """Fill a page's template with all that it needs.

    The template has the places @POLICY@, @STYLE@ and @MODULES@ in its head, and @DATA@ in a script element of type
    `application/json`. Its inline modules, and none but they, may run; they import shared modules by `zhuyi/NAME.js`.
    Chinese has its glyphs in the file where the extra `plot` is installed; elsewhere the reader's own fonts are used.

    Args:   modules: names of files in `visualize/web`; what they import comes along.
            data: what JSON can hold, of any origin.
    """
    sources = _with_imports([*modules, *_IMPORT.findall(template)])
    imports = {f"zhuyi/{name}": _data_address(source) for name, source in sources.items()}
    import_map = json.dumps({"imports": imports})
    hashes = " ".join(map(_hash, [import_map, *_INLINE_MODULE.findall(template)]))
    shown = "".join([template, *sources.values(), json.dumps(data, ensure_ascii=False)])
    style = f"<style>\n{_font(shown)}\n{read_asset('style.css')}</style>"
    page = (
        template.replace("@POLICY@", _meta(_POLICY.format(hashes=hashes)))
        .replace("@STYLE@", style)
        .replace("@MODULES@", f'<script type="importmap">{import_map}</script>')
    )
    # The data come last: what they hold is never taken for a place to fill. `<` cannot end the script element.
    return page.replace("@DATA@", json.dumps(data).replace("<", "\\u003c"))


def served(template: str) -> tuple[str, str]:
    """The same page as a server sends it that has the shared files under `/page/`, and the policy to send with it.

    Its @DATA@ are null: it asks for them.
    """
    import_map = json.dumps({"imports": {"zhuyi/": "/page/"}})
    styles = "".join(f'<link rel="stylesheet" href="/page/{name}">' for name in ("style.css", "chinese.css"))
    page = (
        template.replace("@POLICY@", "")
        .replace("@STYLE@", styles)
        .replace("@MODULES@", f'<script type="importmap">{import_map}</script>')
        .replace("@DATA@", "null")
    )
    return page, served_policy(page)


def served_policy(page: str) -> str:
    """What a browser may do on a page that a server sends: run its modules, ask its server, and nothing else."""
    scripts = [*_IMPORT_MAP.findall(page), *_INLINE_MODULE.findall(page)]
    return _SERVED_POLICY.format(hashes=" ".join(map(_hash, scripts)))


def read_asset(name: str) -> str:
    """The text of a file that all pages share."""
    return (_WEB / name).read_text(encoding="utf-8")


def _with_imports(names: Sequence[str]) -> dict[str, str]:
    """The sources of modules and of all that these import, by name."""
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = read_asset(name)
            waiting += _IMPORT.findall(found[name])
    return dict(sorted(found.items()))


def _data_address(source: str) -> str:
    return "data:text/javascript;base64," + base64.b64encode(source.encode("utf-8")).decode("ascii")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}'"


def _meta(policy: str) -> str:
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'


def _font(text: str) -> str:
    """A style rule that holds the glyphs of the text's Chinese; none without the extra `plot`."""
    wanted = "".join(sorted({c for c in text if ord(c) > 0x2000 and not 0xD800 <= ord(c) < 0xE000}))
    try:
        packed = base64.b64encode(font_subset(wanted)).decode("ascii")
    except InputError:
        return ""
    return f'@font-face {{ font-family: "page Chinese"; src: url("data:font/woff;base64,{packed}") format("woff"); }}'
