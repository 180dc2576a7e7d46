import base64
import hashlib
import html.parser
import io
import json
import re
import sys
from typing import Any

import pytest

from zhuyi.visualize.web_page import read_asset, self_contained

TEMPLATE = """<!doctype html><head>@POLICY@@STYLE@@MODULES@</head><body><h1>看</h1>
<script type="application/json" id="data">@DATA@</script>
<script type="module">
import { theme } from "zhuyi/language.js";
</script></body>"""
HOSTILE = [
    "</script><script>alert(1)</script>", "<!--<script>", "\"'`${x}&lt;&amp;", "@STYLE@", "@DATA@", "@MODULES@",
    "\ud83d", "\u2028\n\0", "<img src=x onerror=alert(1)>", "</s>",
]  # fmt: skip


class Page(html.parser.HTMLParser):
    """The elements of a page and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)

    def script(self, kind: str) -> str:
        """The only script of a type."""
        (found,) = [text for each, text in self.scripts if each == kind]
        return found

    def policy(self) -> dict[str, list[str]]:
        (policy,) = [a["content"] for _, a in self.tags if a.get("http-equiv") == "Content-Security-Policy"]
        rules = [rule.split() for rule in (policy or "").split(";")]
        return {rule[0]: rule[1:] for rule in rules}


@pytest.fixture(scope="module")
def plain() -> str:
    return self_contained(TEMPLATE, ["attention.js"], {"a": ["b"] * len(HOSTILE)})


def sources(page: Page) -> dict[str, str]:
    imports = json.loads(page.script("importmap"))["imports"]
    prefix = "data:text/javascript;base64,"
    assert all(address.startswith(prefix) for address in imports.values())
    return {name: base64.b64decode(address.removeprefix(prefix)).decode("utf-8") for name, address in imports.items()}


def test_modules_come_with_all_that_they_import(plain: str) -> None:
    found = sources(Page(plain))
    assert {"zhuyi/attention.js", "zhuyi/language.js", "zhuyi/heat_map.js"} <= found.keys()
    for name, source in found.items():
        assert source == read_asset(name.removeprefix("zhuyi/"))
        assert set(re.findall(r'^import .* from "([^"]+)"|^import "([^"]+)"', source, re.M)) <= {(n, "") for n in found}


def test_only_the_scripts_of_the_template_may_run(plain: str) -> None:
    page = Page(plain)
    rules = page.policy()
    assert rules["default-src"] == ["'none'"]
    assert "connect-src" not in rules and rules["require-trusted-types-for"] == ["'script'"]
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in page.scripts
        if kind in ("module", "importmap")
    }
    assert set(rules["script-src"]) == {"data:", *hashes}


def test_nothing_gets_out_of_the_data(plain: str) -> None:
    text = self_contained(TEMPLATE, ["attention.js"], {"a": HOSTILE})
    page, expected = Page(text), Page(plain)
    assert json.loads(page.script("application/json")) == {"a": HOSTILE}
    assert page.tags == expected.tags
    assert [s for s in page.scripts if s[0] != "application/json"] == [
        s for s in expected.scripts if s[0] != "application/json"
    ]
    assert text.count("</script") == plain.count("</script") == 3
    assert "<!--" not in text


def test_it_asks_for_nothing_from_outside(plain: str) -> None:
    page = Page(plain)
    addresses = [a[name] for _, a in page.tags for name in ("src", "href", "action", "data") if name in a]
    addresses += re.findall(r"url\(['\"]?([^'\")]*)", plain)
    assert addresses
    assert all(address is not None and address.startswith("data:") for address in addresses)
    for source in [plain, *sources(page).values()]:
        assert not re.search(r"https?:|fetch\(|XMLHttpRequest|innerHTML|eval\(", source)


def test_chinese_has_its_glyphs_in_the_file() -> None:
    from fontTools.ttLib import TTFont

    text = self_contained(TEMPLATE, ["language.js"], {"tokens": ["公园", "，"]})
    (packed,) = re.findall(r"data:font/woff;base64,([^\"]+)", text)
    with TTFont(io.BytesIO(base64.b64decode(packed))) as font:
        has = set(font.getBestCmap())
    assert {ord(c) for c in "看中文浅色深公园，"} <= has
    assert len(has) < 100


def test_without_the_extra_the_reader_s_fonts_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "pylopdf_fonts_zh_cn"):
        monkeypatch.setitem(sys.modules, name, None)
    data: dict[str, Any] = {"tokens": ["公园"]}
    text = self_contained(TEMPLATE, ["language.js"], data)
    assert "@font-face" not in text
    assert not re.search("@[A-Z]+@", text)
    assert json.loads(Page(text).script("application/json")) == data
