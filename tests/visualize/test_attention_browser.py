"""What a reader does with the attention page, in a browser."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.browser import (
    Complaints,
    box_of,
    drawn,
    expect,
    expect_value,
    noted,
    pixels,
    wait_for_other_pixels,
)
from tests.visualize.conftest import random_maps

from zhuyi.predict import PictureMaps, SoundMaps, TextMaps
from zhuyi.predict.classifier import Classification
from zhuyi.predict.writing_steps import HeldText
from zhuyi.visualize.attention_page import write_page

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

HOSTILE = ("▁We", "</script><script>alert(1)</script>", "<!--<script>", "\"'`${x}&lt;&amp;", "@FONT@", "</s>")
SOURCE, TARGET = ("猫", *HOSTILE), HOSTILE


@pytest.fixture(scope="module")
def text_maps() -> TextMaps:
    return random_maps(SOURCE, TARGET, layers=(3, 2), heads=3)


@pytest.fixture(scope="module")
def page_file(text_maps: TextMaps, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "map.html"
    write_page(text_maps, path)
    return path


@pytest.fixture
def opened(page: "Page", page_file: Path) -> "Page":
    """The page of both texts, from disk, with the network off."""
    page.context.set_offline(True)
    page.goto(page_file.as_uri())
    page.locator(".map canvas").first.wait_for()
    return page


def chips(page: "Page", side: str) -> "Locator":
    return page.locator(f".strip[data-side={side}] .token")


def expect_shares(page: "Page", side: str, wanted: Sequence[float]) -> None:
    """Percentages beside the tokens, as near to the true ones as their last digit; of as good as nothing, none."""
    small = chips(page, side).locator("small")
    expect_value(
        lambda: [float(text.rstrip("%") or 0) / 100 for text in small.all_inner_texts()],
        pytest.approx(wanted, abs=0.0051),
    )


def expect_no_shares(page: "Page", side: str) -> None:
    small = chips(page, side).locator("small")
    expect(small).to_have_text([""] * small.count())


def seen(text_maps: TextMaps, name: str) -> np.ndarray:
    return seen_in(text_maps.maps[name])


def seen_in(weights: torch.Tensor) -> np.ndarray:
    """Weights as the page has them, a byte each."""
    return np.rint(weights.numpy() * 255) / 255


def test_pointing_at_a_word_of_the_answer(opened: "Page", text_maps: TextMaps) -> None:
    expect(chips(opened, "source")).to_have_text(["猫", "We", *HOSTILE[1:]])
    expect(chips(opened, "target")).to_have_text(["<s>", "We", *HOSTILE[1:]])
    chips(opened, "target").nth(2).hover()
    cross, decoder = seen(text_maps, "decoder.1.cross").mean(axis=0), seen(text_maps, "decoder.1.self").mean(axis=0)
    told = opened.locator(".told p")
    expect(told.first).to_contain_text(f"Writing {HOSTILE[1]}, the model looks at: ")
    expect_shares(opened, "source", cross[1])
    expect_shares(opened, "target", [*decoder[1], 0])  # the last token is never read
    opened.locator("h1").hover()
    expect(told).to_have_count(0)
    expect_no_shares(opened, "source")


def test_both_directions_of_a_word_of_the_text(opened: "Page", text_maps: TextMaps) -> None:
    cross, encoder = seen(text_maps, "decoder.1.cross").mean(axis=0), seen(text_maps, "encoder.2.self").mean(axis=0)
    chips(opened, "source").nth(3).click()
    expect_shares(opened, "target", [0, *cross[:, 3]])
    expect_shares(opened, "source", encoder[3])
    opened.get_by_role("group", name="within one text").get_by_text("is looked at by").click()
    expect_shares(opened, "source", encoder[:, 3])
    opened.keyboard.press("Escape")
    expect_no_shares(opened, "source")
    expect_no_shares(opened, "target")


def test_a_layer_and_a_head(opened: "Page", text_maps: TextMaps) -> None:
    panel = opened.locator(".map[data-place=decoder]")
    panel.get_by_role("group", name="layer").get_by_text("1", exact=True).click()
    panel.get_by_role("group", name="head").get_by_text("3", exact=True).click()
    chips(opened, "target").nth(4).click()
    expect_shares(opened, "target", [*seen(text_maps, "decoder.0.self")[2, 3], 0])
    # The other maps keep theirs.
    expect_shares(opened, "source", seen(text_maps, "decoder.1.cross").mean(axis=0)[3])


def test_pointing_into_a_map(opened: "Page", text_maps: TextMaps) -> None:
    sheet = opened.locator(".map[data-place=encoder] .scroll canvas")
    box = box_of(sheet)
    # The last row and the last column end where the picture ends.
    sheet.hover(position={"x": box["width"] - 5, "y": box["height"] - 5})
    weight = seen(text_maps, "encoder.2.self").mean(axis=0)[-1, -1]
    shown = f"{weight:.0%}" if weight >= 0.0995 else f"{weight:.1%}"
    expect(opened.locator(".tip")).to_have_text(f"</s> → </s> {shown}")
    expect(opened.locator(".tip")).to_be_visible()
    expect(opened.locator(".map[data-place=encoder] .mark:visible")).to_have_count(2)


def test_the_keyboard_reaches_every_word(opened: "Page") -> None:
    chips(opened, "source").first.focus()
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowDown")
    focused = opened.locator(":focus")
    expect(focused).to_have_attribute("title", TARGET[1])  # after the sign that is read first
    expect(opened.locator(".told p")).to_have_count(2)
    expect(focused).to_have_attribute("aria-pressed", "false")
    opened.keyboard.press("Enter")
    expect(focused).to_have_attribute("aria-pressed", "true")
    opened.keyboard.press("End")
    expect(focused).to_have_attribute("title", "</s>")


def test_the_other_language_and_light(opened: "Page") -> None:
    page = opened.locator("html")
    sheet = ".map[data-place=encoder] .scroll canvas"
    expect(page).to_have_attribute("lang", "en")
    expect(opened.locator("h1")).to_have_text("Where it looks: attention")
    opened.get_by_role("button", name="中文").click()
    expect(page).to_have_attribute("lang", "zh-CN")
    expect(opened.locator("h1")).to_have_text("它在看哪里：注意力")
    expect(opened.locator(".map h3")).to_have_text(["原文看自身", "译文回看前文", "译文看原文"])
    drawn(opened)
    light = pixels(opened, sheet)
    opened.get_by_role("button", name="深色").click()
    wait_for_other_pixels(opened, sheet, light)
    said = opened.locator("button, legend, h1, h2, h3, summary, .hint, .choices span").all_inner_texts()
    assert not [text for text in said if "undefined" in text]
    opened.reload()  # remembered
    opened.locator(".map canvas").first.wait_for()
    expect(page).to_have_attribute("lang", "zh-CN")
    expect(page).to_have_attribute("data-theme", "dark")


def test_on_a_phone_one_map_at_a_time(opened: "Page") -> None:
    maps = opened.locator(".map:visible")
    expect(maps).to_have_count(3)
    opened.set_viewport_size({"width": 390, "height": 800})
    expect(maps).to_have_count(1)
    expect(maps).to_have_attribute("data-place", "cross")
    opened.get_by_role("group", name="map").get_by_text("Text to itself").click()
    expect(maps).to_have_count(1)
    expect(maps).to_have_attribute("data-place", "encoder")
    drawn(opened)
    expect_value(lambda: max(390, opened.evaluate("document.documentElement.scrollWidth")), 390)
    assert box_of(maps.locator(".scroll canvas"))["width"] > 100


def test_only_what_was_asked_for_runs(opened: "Page", complaints: Complaints) -> None:
    complaints.meant.append("TrustedScript")
    refused = """() => {
        const script = document.createElement("script");
        try { script.textContent = "window.ran = 1"; document.body.append(script); } catch { return "refused"; }
    }"""
    with opened.expect_console_message(lambda said: "TrustedScript" in said.text):
        assert opened.evaluate(refused) == "refused"
    assert opened.evaluate("window.ran") is None


# How it was written.


def held(parent: int, token: str, log_prob: float, state: str = "open", leads: bool = False) -> HeldText:
    return HeldText(parent, token, log_prob, log_prob / 2, state, leads)  # type: ignore[arg-type]


BEAM = (
    (held(0, "▁We", -0.5, leads=True), held(0, "▁I", -1.0)),
    (held(0, "▁saw", -0.7, leads=True), held(0, "▁see", -1.5), held(1, "</s>", -1.2, "finished")),
    (held(0, "</s>", -0.8, "finished", leads=True),),
)
LIKELY = ((("▁We", 0.9), ("▁I", 0.06)), (("▁see", 0.5), ("▁saw", 0.25)), (("</s>", 0.99),))


def test_the_decoding_is_played(page: "Page", tmp_path: Path) -> None:
    maps = random_maps(("猫", "</s>"), ("▁We", "▁saw", "</s>"), layers=(2, 2), heads=2)
    words = ["We", "saw", "</s>"]
    write_page(replace(maps, beam=BEAM, likely=LIKELY), tmp_path / "map.html")
    page.goto((tmp_path / "map.html").as_uri())
    player = page.locator(".player")
    status, play = player.locator("output"), player.locator("button.main")
    expect(status).to_have_text("the whole answer")
    player.get_by_role("slider").fill("2")
    expect(status).to_have_text("Step 2 of 3: saw")
    rows = player.locator("tbody tr")
    expect(rows.locator("td.words")).to_have_text(["We sawleads to the answer", "Ifinished", "We seegiven up"])
    expect(rows.first.locator("td.number")).to_have_text(["−0.70", "−0.35"])
    expect(player.locator("li")).to_have_text(["see 50%", "saw 25%"], use_inner_text=True)
    expect(player.locator("li.written")).to_have_count(1)
    # What is still to come is faint, and the word being written is the one that is pointed at.
    expect(page.locator(".token.unwritten")).to_have_text(["</s>"])
    expect(page.locator(".told p").first).to_have_text(re.compile("^Writing saw, the model looks at: "))
    player.get_by_role("button", name="Step back").click()
    expect(status).to_have_text("Step 1 of 3: We")
    said = noted(player.locator(".bar"))
    play.click()
    played = [("Play", "1 of 3: We"), *(("Pause", f"{step} of 3: {word}") for step, word in enumerate(words, 1))]
    played.append(("Play", "3 of 3: </s>"))
    expect_value(said, [f"Step back{name}Step onStep {step}" for name, step in played])
    page.keyboard.press("Escape")
    expect(status).to_have_text("the whole answer")
    expect(page.locator(".token.unwritten")).to_have_count(0)


# A sound and a picture.


def test_a_sound(page: "Page", tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    sizes = {"decoder.{}.self": (3, 5), "decoder.{}.cross": (3, 50)}
    maps = {
        name.format(layer): torch.randn(2, *size, generator=generator).mul(3).softmax(dim=-1)
        for name, size in sizes.items()
        for layer in range(2)
    }
    samples = np.sin(np.arange(16_000) / 20).astype(np.float32)
    read = ("<s>", "<|en|>", "<t>", "▁low", "▁sun")
    write_page(SoundMaps(samples, ("▁low", "▁sun", "</s>"), maps, read), tmp_path / "map.html")
    page.goto((tmp_path / "map.html").as_uri())
    page.locator(".wave canvas").wait_for()
    expect(chips(page, "target")).to_have_text(["<s>", "<|en|>", "<t>", "low", "sun", "</s>"])
    chips(page, "target").nth(4).click()
    cross = seen_in(maps["decoder.1.cross"]).mean(axis=0)[1]
    best = int(cross.argmax())
    told = page.locator(".told p")
    expect(told.first).to_contain_text(f"Writing sun, the model listens to: {best * 0.02:.2f} s ")
    expect_shares(page, "target", [*seen_in(maps["decoder.1.self"]).mean(axis=0)[1], 0])
    page.keyboard.press("Escape")
    expect(told).to_have_count(0)
    wave = page.locator(".wave canvas")
    box = box_of(wave)
    wave.hover(position={"x": box["width"] * (best + 0.5) / 50, "y": 20})
    expect(told).to_contain_text([f"What is heard at {best * 0.02:.2f} s is listened to for: "])
    expect_shares(page, "target", [0, 0, 0, *seen_in(maps["decoder.1.cross"]).mean(axis=0)[:, best]])


def test_a_picture(page: "Page", tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    maps = {f"encoder.{i}.self": torch.randn(2, 10, 10, generator=generator).softmax(dim=-1) for i in range(2)}
    answer = Classification("cat", 0.75, {"cat": 0.75, "dog": 0.25})
    pixels = np.random.default_rng(1).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    write_page(PictureMaps(pixels, maps, (3, 3), 1, answer), tmp_path / "map.html")
    page.goto((tmp_path / "map.html").as_uri())
    frame = page.locator(".frame canvas")
    frame.wait_for()
    expect(page.locator(".strip h3")).to_have_text("Picture: cat (75%)")
    told = page.locator(".told p")
    expect(told).to_contain_text(["The class token looks at: "])
    page.wait_for_function("() => document.querySelector('.frame img').complete")  # by which the frame has its size
    box = box_of(frame)
    frame.hover(position={"x": box["width"] * 0.5, "y": box["height"] * 0.9})
    expect(told).to_contain_text(["The patch in row 3, column 2 looks at: "])
    page.locator("h1").hover()
    frame.focus()
    page.keyboard.press("ArrowDown")
    expect(told).to_contain_text(["The patch in row 2, column 1 looks at: "])
