"""What the tests of the page share: its rooms, files to give it, and what it is checked for in all of them."""

import io
import json
import re
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.browser import drawn, expect
from tests.serving.tiny_runs import HISTORY_STEPS, SENSORS, STEP_MINUTES

import zhuyi
from zhuyi.data.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

ROOMS = ["translate", "chat", "generate", "fill", "label", "alike", "picture", "transcribe", "forecast"]
NUMBERS, OTHERS = "零五。", "二八八。"  # to which the tiny run has something to say


class Rooms:
    """Goes to a room of the page."""

    def __init__(self, page: "Page", address: str) -> None:
        self.page, self.address = page, address

    def __call__(self, name: str) -> "Page":
        self.page.goto(f"{self.address}/#{name}")
        self.page.locator(f"#room-{name}").wait_for()
        return self.page


@pytest.fixture
def room(page: "Page", address: str) -> Rooms:
    return Rooms(page, address)


@pytest.fixture(scope="session")
def own_runs(run_folders: list[Path]) -> dict[str, Any]:
    """The runs themselves, as the command line uses them."""
    return {folder.name: zhuyi.load(folder, "float32") for folder in run_folders}


def sound_file() -> bytes:
    """Two seconds of noise that is louder in the middle."""
    samples = np.random.default_rng(5).normal(size=2 * SAMPLE_RATE_HZ) * np.hanning(2 * SAMPLE_RATE_HZ) * 8000
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, SAMPLE_RATE_HZ, len(samples), "NONE", ""))
        written.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def table_file() -> bytes:
    hours = STEP_MINUTES // 60
    rows = [
        f"2024-01-01 {hours * i:02}:00," + ",".join(str(40 + 3 * i + k) for k in range(3)) for i in range(HISTORY_STEPS)
    ]
    return "\n".join([f"time,{','.join(SENSORS)}", *rows, ""]).encode()


def picture_file() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (8, 8, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def only(route: "Route", *names: str, **changed: Any) -> None:
    """Answer as if the server had these runs alone."""
    runs = json.loads(route.fetch().text())["runs"]
    route.fulfill(json={"runs": [each | changed for each in runs if each["id"] in names]})


def label_of(page: "Page", name: str) -> str:
    found = page.locator("select option").filter(has_text=re.compile(f"{name}$"))
    expect(found).to_have_count(1)
    return found.inner_text()


def drop(page: "Page", name: str, media_type: str, content: bytes) -> None:
    page.evaluate(
        """([name, type, content]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(content)], name, { type }));
            const place = [...document.querySelectorAll(".drop")].find((each) => each.checkVisibility());
            place.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
        }""",
        [name, media_type, list(content)],
    )


def ask_something(page: "Page", name: str) -> None:
    """Have the room show its longest."""
    place = page.locator(f"#room-{name}")
    if name == "translate":
        place.locator("#source").fill(NUMBERS)
        place.locator(".strip .token").first.wait_for()
    elif name == "forecast":
        drop(page, "recent.csv", "text/csv", table_file())
        place.locator(".curves canvas").first.wait_for()
    elif name == "picture":
        drop(page, "picture.png", "image/png", picture_file())
        expect(place.locator(".overlay-view > .hint")).to_contain_text("%")
    elif name == "label":
        place.locator("textarea").first.fill("wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww\n三")
        place.locator(".verdict").first.wait_for()
    drawn(page)


# Controls and regions without an accessible name, by the commonest ways to give one. A heading names a plain section,
# and a canvas without a role is drawn for what stands beside it.
NAMELESS = """() => {
    const selector = "button, input, select, textarea, a, canvas[role], audio, meter, summary, [role=region]";
    return [...document.querySelectorAll(selector)].filter((each) => {
        if (!each.checkVisibility() || each.closest("[aria-hidden=true]")) return false;
        const given = each.getAttribute("aria-label") || each.labels?.[0]?.textContent || each.title;
        const bears = ["BUTTON", "A", "SUMMARY"].includes(each.tagName) && each.textContent;
        return !(given || bears || "").trim();
    }).map((each) => each.outerHTML.slice(0, 120));
}"""

# Texts whose contrast to what lies behind them is below 4.5, or below 3 where they are large (WCAG 2.2, 1.4.3). Colours
# are read off a canvas, whichever way they are written.
PALE = """() => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    const brush = canvas.getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        brush.clearRect(0, 0, 1, 1);
        brush.fillStyle = colour;
        brush.fillRect(0, 0, 1, 1);
        return [...brush.getImageData(0, 0, 1, 1).data];
    };
    const over = (top, below) => top.slice(0, 3).map((x, i) => (x * top[3] + below[i] * (255 - top[3])) / 255);
    const behind = (each) => {
        const all = [];
        for (let at = each; at; at = at.parentElement) all.unshift(rgba(getComputedStyle(at).backgroundColor));
        return all.reduce((below, top) => over(top, below), [255, 255, 255]);
    };
    const straight = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => sum + part * straight(rgb[i] / 255), 0);
    const isText = (node) => node.nodeType === 3 && node.data.trim();
    const says = (each) => each.placeholder || [...each.childNodes].some(isText);
    const isRead = (each) => says(each) && each.checkVisibility({ opacityProperty: true }) && !each.disabled
        && !each.matches("option, .only-read-aloud, .skip");
    const pale = (each) => {
        const look = getComputedStyle(each, each.placeholder && !each.value ? "::placeholder" : null);
        const ground = behind(each);
        const [dim, bright] = [light(over(rgba(look.color), ground)), light(ground)].sort((a, b) => a - b);
        const size = parseFloat(look.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && Number(look.fontWeight) >= 700);
        return (bright + 0.05) / (dim + 0.05) < (isLarge ? 3 : 4.5);
    };
    return [...document.querySelectorAll("body *")].filter((each) => isRead(each) && pale(each)).map((each) =>
        `${each.outerHTML.slice(0, 90)} ${getComputedStyle(each).color}`);
}"""
