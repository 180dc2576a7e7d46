"""The line charts of our pages, in a browser: their axes, their points, what is read off them."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.browser import drawn, expect

from zhuyi.visualize.web_page import read_asset, self_contained

if TYPE_CHECKING:
    from playwright.sync_api import Page

TEMPLATE = """<!doctype html><html lang="en"><head><meta charset="utf-8">@POLICY@ @STYLE@ @MODULES@</head>
<body><div id="chart"></div><script type="application/json" id="data">@DATA@</script>
<script type="module">
import * as axes from "zhuyi/axes.js";
import { lineChart, nearest } from "zhuyi/curves.js";
const chart = lineChart(document.getElementById("chart"), JSON.parse(document.getElementById("data").textContent));
Object.assign(window, { axes, chart, nearest });
</script></body></html>"""


# The curves' canvas is copied, since the browser warns who reads a canvas that it draws on.
COPY = """
const canvas = document.querySelector("canvas"), copy = document.createElement("canvas");
[copy.width, copy.height] = [canvas.width, canvas.height];
const context = copy.getContext("2d", { willReadFrequently: true });
context.drawImage(canvas, 0, 0);
const { data } = context.getImageData(0, 0, copy.width, copy.height);
"""


@pytest.fixture
def opened(page: "Page", tmp_path: Path) -> "Page":
    """A page with a chart of nothing, and the modules in its window."""
    (tmp_path / "chart.html").write_text(self_contained(TEMPLATE, ["curves.js"], {"series": []}), encoding="utf-8")
    page.goto((tmp_path / "chart.html").as_uri())
    page.wait_for_function("() => window.chart && document.querySelector('.plot').hasAttribute('aria-label')")
    return page


def draw(page: "Page", **options: Any) -> None:
    page.evaluate("options => chart.update(options)", options)
    drawn(page)


def inked(page: "Page") -> int:
    """Pixels of the curves' canvas that anything is painted on."""
    return page.evaluate(
        f"() => {{ {COPY} return data.reduce((count, byte, i) => count + (i % 4 === 3 && byte > 0), 0); }}"
    )


@pytest.mark.parametrize(
    ("low", "high", "kind", "ticks"),
    [
        (0, 100, "linear", ["0", "20", "40", "60", "80", "100"]),
        (-0.3, 0.4, "linear", ["−0.3", "−0.2", "−0.1", "0", "0.1", "0.2", "0.3", "0.4"]),
        (1200, 81000, "linear", ["20,000", "40,000", "60,000", "80,000"]),
        (3e-6, 9e-6, "linear", ["3e-6", "4e-6", "5e-6", "6e-6", "7e-6", "8e-6", "9e-6"]),
        (5, 5, "linear", ["4.6", "4.8", "5", "5.2", "5.4"]),
        (0.01, 100, "log", ["0.01", "0.1", "1", "10", "100"]),
        (1.1, 30, "log", ["2", "5", "10", "20"]),
        (1.2, 1.8, "log", ["1.2", "1.3", "1.4", "1.5", "1.6", "1.7", "1.8"]),
        (1e-9, 1e9, "log", ["1e-9", "1e-6", "0.001", "1", "1,000", "1,000,000", "1e9"]),
        (1338537600000, 1338552000000, "time", ["08:00", "09:00", "10:00", "11:00", "12:00"]),
        (1338501600000, 1338588000000, "time", ["06-01", "06:00", "12:00", "18:00"]),
    ],
)
def test_ticks_are_round(opened: "Page", low: float, high: float, kind: str, ticks: list[str]) -> None:
    found = opened.evaluate("([low, high, kind]) => axes.axis(low, high, kind, 5, false).ticks", [low, high, kind])
    assert [text for _, text in found] == ticks
    places = opened.evaluate(
        """([low, high, kind]) => {
        const { ticks, place } = axes.axis(low, high, kind, 5, false);
        return ticks.map(([number]) => place(number)); }""",
        [low, high, kind],
    )
    assert places == sorted(places) and all(-1e-9 <= place <= 1 + 1e-9 for place in places)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (-2.5, "−2.5"), (0.00012345, "1.23e-4"), (1234.5678, "1,235"), (12.34567, "12.35"), (3e7, "3e7")],
)
def test_numbers_are_short(opened: "Page", number: float, text: str) -> None:
    assert opened.evaluate("number => axes.written(number)", number) == text


def test_the_nearest_point(opened: "Page") -> None:
    found = opened.evaluate(
        "[[], [5], [1, 4, 9, 16]].map((xs) => [0, 2.4, 2.6, 12, 13, 99].map((x) => nearest(xs, x)))"
    )
    assert found == [[None] * 6, [5] * 6, [1, 1, 4, 9, 16, 16]]


def test_nothing_is_said_to_be_nothing(opened: "Page") -> None:
    plot = opened.locator(".plot")
    expect(plot).to_have_attribute("aria-label", "Nothing to draw yet.")
    assert inked(opened) > 0
    draw(opened, empty="No forecast", series=[{"name": "a", "points": [[1, None], [2, None]]}])
    expect(plot).to_have_attribute("aria-label", "No forecast")
    draw(opened, series=[{"name": "a", "points": [[1, 2]]}])
    expect(plot).to_have_attribute("aria-label", re.compile("1 points, from 2 to 2"))
    draw(opened, logY=True, series=[{"name": "a", "points": [[1, 0], [2, -1]]}])
    expect(plot).to_have_attribute("aria-label", "No forecast")


def test_gaps_are_left_open_and_points_put_in_order(opened: "Page") -> None:
    whole = [[x, 1] for x in range(100)]
    draw(opened, series=[{"name": "a", "points": whole}])
    full = inked(opened)
    draw(opened, series=[{"name": "a", "points": [[x, None if 20 <= x < 80 else 1] for x, _ in reversed(whole)]}])
    assert inked(opened) < full - 300
    plot = opened.locator(".plot")
    plot.focus()
    opened.keyboard.press("Home")
    opened.keyboard.press("PageDown")
    for _ in range(20):
        opened.keyboard.press("ArrowRight")
    expect(plot).to_have_attribute("aria-valuetext", "x 80, a 1")


def test_ten_thousand_points_are_drawn_within_their_extremes(opened: "Page") -> None:
    rng = np.random.default_rng(1)
    values = rng.random(10_000) * 0.01
    values[5_000] = 1.0  # a single point that must be seen
    points = list(enumerate(values.tolist()))
    draw(opened, series=[{"name": "a", "points": points}])
    rows = opened.evaluate(
        f"""() => {{ {COPY} const found = new Set();
        for (let i = 0; i < data.length; i += 4) {{
          if (data[i + 3] > 99 && data[i + 2] > data[i] + 60) found.add(Math.floor(i / 4 / copy.width));
        }}
        return [...found]; }}"""
    )
    assert min(rows) < 40 and max(rows) > 200 and len(rows) > 200  # from the top to the bottom, and all between
    draw(opened, series=[{"name": name, "points": points} for name in "abc"])
    opened.locator(".plot").hover()
    expect(opened.locator(".read")).to_be_visible()
    expect(opened.locator(".read div")).to_have_count(3)


def test_a_legend_hides_and_a_table_tells(opened: "Page") -> None:
    series = [{"name": f"run {i}", "dashed": i % 2 == 1, "points": [[x, x + i] for x in range(500)]} for i in range(9)]
    draw(opened, series=series, xLabel="step", yLabel="loss")
    buttons = opened.locator(".legend button")
    expect(buttons).to_have_count(9)
    looks = {
        json.dumps(look)
        for look in buttons.evaluate_all(
            """all => all.map((each) => each.querySelector("line"))
            .map((line) => [line.style.stroke, line.getAttribute("stroke-dasharray")])"""
        )
    }
    assert len(looks) == 9
    buttons.nth(8).click()
    opened.wait_for_function("() => !document.querySelector('.plot').getAttribute('aria-label').includes('run 8')")
    opened.get_by_text("as a table").click()
    expect(opened.locator("thead th")).to_have_text(["step", *(f"run {i}" for i in range(9))])
    expect(opened.locator("tbody tr")).to_have_count(200)
    expect(opened.locator(".rows")).to_contain_text("200 of 500 rows")
    expect(opened.locator("tbody tr").last.locator("th, td")).to_have_text(["499", *(f"{499 + i}" for i in range(9))])


def test_a_chart_fits_its_container_and_goes(opened: "Page") -> None:
    draw(opened, series=[{"name": "a", "points": [[0, 1], [1, 2]]}])
    for width in (320, 900):
        opened.set_viewport_size({"width": width, "height": 700})
        opened.wait_for_function(
            """() => { const [canvas, plot] = ["canvas", ".plot"].map((name) => document.querySelector(name));
            return Math.abs(canvas.clientWidth - plot.clientWidth) < 2; }"""
        )
    opened.evaluate("chart.destroy()")
    expect(opened.locator("#chart")).to_have_js_property("innerHTML", "")


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "all three": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(np.maximum(TO_XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [0, 1])
def test_series_are_told_apart_by_whoever_sees_fewer_colours(theme: int) -> None:
    block = re.findall(r":root[^{]*\{(.*?)\}", read_asset("style.css"), re.DOTALL)[theme]
    colours = re.findall(r"--series-\d: (#\w{6})", block)
    (card,) = re.findall(r"--card: (#\w{6})", block)
    assert len(colours) == 6
    ground = float(TO_XYZ[1] @ linear(card))
    for colour in colours:
        light = sorted((ground, float(TO_XYZ[1] @ linear(colour))))
        assert (light[1] + 0.05) / (light[0] + 0.05) > 3
    for matrix in VISION.values():
        seen = [lab(np.asarray(matrix) @ linear(colour)) for colour in colours]
        assert min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]) > 20
