import base64
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zhuyi.errors import InputError
from zhuyi.predict import TextMaps
from zhuyi.visualize.attention_page import write_page

MakeMaps = Callable[..., TextMaps]
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\"'`${x}&lt;&amp;",
    "@FONT@",
    "@DATA@",
    "\ud83d",
    "\u2028\n\0",
    "<img src=x onerror=alert(1)>",
    "</s>",
)


class Page(html.parser.HTMLParser):
    """The elements of a page and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data


def written(text_maps: TextMaps, folder: Path, **first: Any) -> tuple[str, Page, dict[str, Any]]:
    path = folder / "map.html"
    write_page(text_maps, path, **first)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    return text, page, json.loads(page.scripts[0])


def test_the_weights_are_in_it(text_maps: TextMaps, tmp_path: Path) -> None:
    _, _, data = written(text_maps, tmp_path)
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(data["weights"])), np.uint8) / 255
    sides = {"encoder": (12, 12), "decoder": (6, 6), "cross": (6, 12)}
    names = {"encoder": "encoder.{}.self", "decoder": "decoder.{}.self", "cross": "decoder.{}.cross"}
    for place in data["places"]:
        for layer in range(place["layers"]):
            shape = (place["heads"], *sides[place["place"]])
            found, numbers = np.split(numbers, [np.prod(shape)])
            expected = text_maps.maps[names[place["place"]].format(layer)].numpy()
            np.testing.assert_allclose(found.reshape(shape), expected, atol=0.5001 / 255)
    assert [place["place"] for place in data["places"]] == ["encoder", "decoder", "cross"]
    assert numbers.size == 0


def test_what_is_shown_first(text_maps: TextMaps, tmp_path: Path) -> None:
    assert written(text_maps, tmp_path)[2]["first"] == {"place": "cross", "layer": 1, "head": -1}
    chosen = written(text_maps, tmp_path, place="encoder", layer=1, head=5)[2]["first"]
    assert chosen == {"place": "encoder", "layer": 0, "head": 4}


@pytest.mark.parametrize("first", [{"place": "x"}, {"layer": 3}, {"head": 6}])
def test_what_does_not_exist_is_an_error(first: dict[str, Any], text_maps: TextMaps, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_page(text_maps, tmp_path / "map.html", **first)
    assert list(tmp_path.iterdir()) == []


def test_no_token_gets_out_of_the_data(make_maps: MakeMaps, tmp_path: Path) -> None:
    text, page, data = written(make_maps(HOSTILE, HOSTILE[::-1]), tmp_path)
    plain_text, plain, _ = written(make_maps(), tmp_path)
    assert (data["source"], data["target"]) == (list(HOSTILE), list(HOSTILE[::-1]))
    assert page.tags == plain.tags
    assert page.scripts[1] == plain.scripts[1]
    assert text.count("</script") == plain_text.count("</script") == 2
    assert "<!--" not in text


def test_it_asks_for_nothing_from_outside(text_maps: TextMaps, tmp_path: Path) -> None:
    text, page, _ = written(text_maps, tmp_path)
    addresses = [a[name] for _, a in page.tags for name in ("src", "href", "action", "data") if name in a]
    addresses += re.findall(r"url\(['\"]?([^'\")]*)", text)
    assert addresses
    assert all(address is not None and address.startswith("data:") for address in addresses)
    assert not re.search(r"https?:|\bimport\b|fetch\(|XMLHttpRequest", text)
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_chinese_has_its_glyphs_in_the_file(text_maps: TextMaps, tmp_path: Path) -> None:
    import io

    from fontTools.ttLib import TTFont

    text, page, _ = written(text_maps, tmp_path)
    (packed,) = re.findall(r"data:font/woff;base64,([^\"]+)", text)
    with TTFont(io.BytesIO(base64.b64decode(packed))) as font:
        has = set(font.getBestCmap())
    wanted = {c for c in "".join(text_maps.source_tokens) + page.scripts[1] if "\u4e00" <= c <= "\u9fff" or c in "，。"}
    assert len(wanted) > 50
    assert {c for c in wanted if ord(c) not in has} == set()


def test_without_the_extra_the_reader_s_fonts_are_used(
    text_maps: TextMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "pylopdf_fonts_zh_cn"):
        monkeypatch.setitem(sys.modules, name, None)
    text, _, data = written(text_maps, tmp_path)
    assert "@font-face" not in text
    assert "@FONT@" not in text
    assert data["source"] == list(text_maps.source_tokens)


def test_a_hundred_tokens_fit_in_a_megabyte(make_maps: MakeMaps, tmp_path: Path) -> None:
    write_page(make_maps(("猫",) * 100, ("▁cat",) * 100, layers=(4, 4), heads=4), tmp_path / "map.html")
    assert (tmp_path / "map.html").stat().st_size < 1_000_000


# What a reader does; each line of the result is what the page then says.
ACTIONS = """
<script>
const wait = () => new Promise((go) => setTimeout(go, 50));
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
addEventListener("error", (event) => say("error", event.message));
const said = [];
const say = (what, value) => said.push([what, value]);
const shares = () => [...document.querySelectorAll(".token small")].map((node) => node.textContent);
(async () => {
  while (!document.querySelector(".token")) await wait();
  say("labels", [...element("rows").children].map((chip) => chip.firstChild.textContent));
  element("rows").children[1].click();
  say("forward", shares());
  say("told", element("told").textContent);
  element("rows").children[1].click();
  element("columns").children[2].click();
  say("backward", shares());
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  say("let go", shares().join(""));
  document.querySelector("[name=head][value='2']").click();
  document.querySelector("[name=place][value='decoder']").click();
  element("rows").children[3].click();
  say("head", shares());
  element("rows").children[3].click();
  element("rows").children[0].focus();
  press("ArrowRight");
  press("ArrowDown");
  const focused = document.activeElement;
  say("focus", [focused.parentElement.id, [...focused.parentElement.children].indexOf(focused)]);
  let missing = false;
  for (const language of [1, 2]) {
    element("language").click();
    say("language", [document.documentElement.lang, document.querySelector("h1").textContent]);
    const named = [...document.querySelectorAll("[data-text], button, legend, .choice span, h2")];
    missing ||= named.some((node) => !node.textContent || node.textContent.includes("undefined"));
  }
  say("canvas", [element("map").width, element("map").height]);
  say("missing", missing);
  const result = document.body.appendChild(document.createElement("pre"));
  result.id = "result";
  result.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(said))));
})();
</script></body>
"""


def in_a_browser(path: Path) -> list[tuple[str, Any]]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    acting = path.with_name("acting.html")
    acting.write_text(path.read_text(encoding="utf-8").replace("</body>", ACTIONS), encoding="utf-8")
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    profile = f"--user-data-dir={path.parent / 'profile'}"
    options = ["--headless", "--disable-gpu", "--lang=en-US", profile, "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run([browser, *root, *options, acting.as_uri()], capture_output=True, text=True, timeout=200)
    found = re.search(r'<pre id="result">([^<]+)', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(base64.b64decode(found[1]).decode("utf-8"))


def percent(share: float) -> str:
    return "" if share < 0.005 else f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"


def test_in_a_browser(make_maps: MakeMaps, tmp_path: Path) -> None:
    tokens = ("▁We", *HOSTILE)
    text_maps = make_maps(tokens, tokens[:5], layers=(2, 2), heads=3)
    write_page(text_maps, tmp_path / "map.html")
    said = in_a_browser(tmp_path / "map.html")
    results = dict(said)
    assert "error" not in results
    assert results["labels"] == ["We", *tokens[1:5]]

    heads = np.rint(text_maps.maps["decoder.1.cross"].numpy() * 255) / 255
    assert_shares(results["forward"], [None] * 5 + list(heads.mean(axis=0)[1]))
    assert_shares(results["backward"], list(heads.mean(axis=0)[:, 2]) + [None] * 10)
    assert results["let go"] == ""
    head = np.rint(text_maps.maps["decoder.1.self"].numpy() * 255) / 255
    assert_shares(results["head"], [None] * 5 + list(head[2, 3]))
    assert results["told"].startswith(f"{tokens[1]} looks at: ")
    assert results["focus"] == ["columns", 1]
    assert [value for what, value in said if what == "language"] == [
        ["zh-CN", "它在看哪里：注意力"],
        ["en", "Where it looks: attention"],
    ]
    assert min(results["canvas"]) > 50
    assert results["missing"] is False


def assert_shares(shown: list[str], expected: list[float | None]) -> None:
    """Percentages as shown, which stand beside the true ones as near as their last digit."""
    assert len(shown) == len(expected)
    for text, share in zip(shown, expected, strict=True):
        if share is None or not text:
            assert not text
            assert share is None or share < 0.0051
        else:
            assert float(text.rstrip("%")) / 100 == pytest.approx(share, abs=0.0051)
