"""What a reader does with the attention page, in a browser."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
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


def shares(page: "Page", side: str) -> list[str]:
    return chips(page, side).locator("small").all_inner_texts()


def seen(text_maps: TextMaps, name: str) -> np.ndarray:
    return seen_in(text_maps.maps[name])


def seen_in(weights: torch.Tensor) -> np.ndarray:
    """Weights as the page has them, a byte each."""
    return np.rint(weights.numpy() * 255) / 255


def assert_shares(shown: list[str], expected: list[float]) -> None:
    """Percentages as shown, which stand beside the true ones as near as their last digit."""
    assert len(shown) == len(expected)
    for text, share in zip(shown, expected, strict=True):
        if text:
            assert float(text.rstrip("%")) / 100 == pytest.approx(share, abs=0.0051)
        else:
            assert share < 0.0051


def test_pointing_at_a_word_of_the_answer(opened: "Page", text_maps: TextMaps) -> None:
    assert chips(opened, "source").all_inner_texts()[0] == "猫"
    assert [text.removesuffix("\n") for text in chips(opened, "target").all_inner_texts()][:3] == [
        "<s>",
        "We",
        HOSTILE[1],
    ]
    chips(opened, "target").nth(2).hover()
    cross, decoder = seen(text_maps, "decoder.1.cross").mean(axis=0), seen(text_maps, "decoder.1.self").mean(axis=0)
    told = opened.locator(".told p")
    told.first.wait_for()
    assert_shares(shares(opened, "source"), list(cross[1]))
    assert_shares(shares(opened, "target"), [*decoder[1], 0])  # the last token is never read
    assert told.all_inner_texts()[0].startswith(f"Writing {HOSTILE[1]}, the model looks at: ")
    opened.locator("h1").hover()
    told.first.wait_for(state="detached")
    assert "".join(shares(opened, "source")) == ""


def test_both_directions_of_a_word_of_the_text(opened: "Page", text_maps: TextMaps) -> None:
    cross, encoder = seen(text_maps, "decoder.1.cross").mean(axis=0), seen(text_maps, "encoder.2.self").mean(axis=0)
    chips(opened, "source").nth(3).click()
    assert_shares(shares(opened, "target"), [0, *cross[:, 3]])
    assert_shares(shares(opened, "source"), list(encoder[3]))
    opened.get_by_role("group", name="within one text").get_by_text("is looked at by").click()
    assert_shares(shares(opened, "source"), list(encoder[:, 3]))
    opened.keyboard.press("Escape")
    assert "".join(shares(opened, "source") + shares(opened, "target")) == ""


def test_a_layer_and_a_head(opened: "Page", text_maps: TextMaps) -> None:
    panel = opened.locator(".map[data-place=decoder]")
    panel.get_by_role("group", name="layer").get_by_text("1", exact=True).click()
    panel.get_by_role("group", name="head").get_by_text("3", exact=True).click()
    chips(opened, "target").nth(4).click()
    assert_shares(shares(opened, "target"), [*seen(text_maps, "decoder.0.self")[2, 3], 0])
    # The other maps keep theirs.
    assert_shares(shares(opened, "source"), list(seen(text_maps, "decoder.1.cross").mean(axis=0)[3]))


def test_pointing_into_a_map(opened: "Page", text_maps: TextMaps) -> None:
    sheet = opened.locator(".map[data-place=encoder] .scroll canvas")
    sheet.scroll_into_view_if_needed()
    box = sheet.bounding_box()
    assert box is not None
    # The last row and the last column end where the picture ends.
    sheet.hover(position={"x": box["width"] - 5, "y": box["height"] - 5})
    tip = opened.locator(".tip")
    tip.wait_for()
    weight = seen(text_maps, "encoder.2.self").mean(axis=0)[-1, -1]
    shown = f"{weight:.0%}" if weight >= 0.0995 else f"{weight:.1%}"
    assert tip.inner_text() == f"</s> → </s> {shown}"
    opened.locator(".map[data-place=encoder] .mark").first.wait_for()
    assert opened.locator(".map[data-place=encoder] .mark:visible").count() == 2


def test_the_keyboard_reaches_every_word(opened: "Page") -> None:
    chips(opened, "source").first.focus()
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowDown")
    assert opened.evaluate("document.activeElement.title") == TARGET[1]  # after the sign that is read first
    assert opened.locator(".told p").count() == 2
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    opened.keyboard.press("End")
    assert opened.evaluate("document.activeElement.title") == "</s>"


def test_the_other_language_and_light(opened: "Page") -> None:
    def paints() -> str:
        return opened.locator(".map .scroll canvas").first.evaluate("canvas => canvas.toDataURL()")

    assert (opened.evaluate("document.documentElement.lang"), opened.locator("h1").inner_text()) == (
        "en",
        "Where it looks: attention",
    )
    light = paints()
    opened.get_by_role("button", name="中文").click()
    assert opened.evaluate("document.documentElement.lang") == "zh-CN"
    assert opened.locator("h1").inner_text() == "它在看哪里：注意力"
    assert opened.locator(".map h3").all_inner_texts() == ["原文看自身", "译文回看前文", "译文看原文"]
    opened.get_by_role("button", name="深色").click()
    assert paints() != light
    said = opened.locator("button, legend, h1, h2, h3, summary, .hint, .choices span").all_inner_texts()
    assert not [text for text in said if "undefined" in text]
    opened.reload()  # remembered
    opened.locator(".map canvas").first.wait_for()
    assert opened.evaluate("[document.documentElement.lang, document.documentElement.dataset.theme]") == [
        "zh-CN",
        "dark",
    ]


def test_on_a_phone_one_map_at_a_time(opened: "Page") -> None:
    assert opened.locator(".map:visible").count() == 3
    opened.set_viewport_size({"width": 390, "height": 800})
    assert opened.locator(".map:visible").evaluate_all("all => all.map(each => each.dataset.place)") == ["cross"]
    opened.get_by_role("group", name="map").get_by_text("Text to itself").click()
    assert opened.locator(".map:visible").evaluate_all("all => all.map(each => each.dataset.place)") == ["encoder"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened.locator(".map:visible .scroll canvas").bounding_box()["width"] > 100


def test_only_what_was_asked_for_runs(opened: "Page", complaints: list[str]) -> None:
    refused = """() => {
        const script = document.createElement("script");
        try { script.textContent = "window.ran = 1"; document.body.append(script); } catch { return "refused"; }
    }"""
    assert opened.evaluate(refused) == "refused"
    assert opened.evaluate("window.ran") is None
    assert complaints
    complaints.clear()


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
    write_page(replace(maps, beam=BEAM, likely=LIKELY), tmp_path / "map.html")
    page.goto((tmp_path / "map.html").as_uri())
    player = page.locator(".player")
    player.wait_for()
    assert player.locator("output").inner_text() == "the whole answer"
    player.get_by_role("slider").fill("2")
    assert player.locator("output").inner_text() == "Step 2 of 3: saw"
    rows = player.locator("tbody tr")
    assert rows.locator("td.words").all_inner_texts() == [
        "We sawleads to the answer",
        "Ifinished",
        "We seegiven up",
    ]
    assert rows.locator("td.number").all_inner_texts()[:2] == ["−0.70", "−0.35"]
    assert player.locator("li").all_inner_texts() == ["see\n50%", "saw\n25%"]
    assert player.locator("li.written").count() == 1
    # What is still to come is faint, and the word being written is the one that is pointed at.
    assert page.locator(".token.unwritten").all_inner_texts() == ["</s>"]
    assert page.locator(".told p").first.inner_text().startswith("Writing saw, the model looks at: ")
    player.get_by_role("button", name="Step back").click()
    assert player.locator("output").inner_text() == "Step 1 of 3: We"
    player.get_by_role("button", name="Play").click()
    assert player.get_by_role("button", name="Pause").count() == 1
    player.locator("output", has_text="Step 3").wait_for()
    player.get_by_role("button", name="Play").wait_for()
    page.keyboard.press("Escape")
    assert player.locator("output").inner_text() == "the whole answer"
    assert page.locator(".token.unwritten").count() == 0


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
    assert [text.strip() for text in chips(page, "target").all_inner_texts()] == [
        "<s>",
        "<|en|>",
        "<t>",
        "low",
        "sun",
        "</s>",
    ]
    chips(page, "target").nth(4).click()
    cross = seen_in(maps["decoder.1.cross"]).mean(axis=0)[1]
    best = int(cross.argmax())
    assert (
        page.locator(".told p")
        .first.inner_text()
        .startswith(f"Writing sun, the model listens to: {best * 0.02:.2f} s ")
    )
    assert_shares(shares(page, "target"), [*seen_in(maps["decoder.1.self"]).mean(axis=0)[1], 0])
    page.keyboard.press("Escape")
    wave = page.locator(".wave canvas")
    box = wave.bounding_box()
    assert box is not None
    wave.hover(position={"x": box["width"] * (best + 0.5) / 50, "y": 20})
    page.locator(".told p", has_text=f"What is heard at {best * 0.02:.2f} s is listened to for: ").wait_for()
    assert_shares(shares(page, "target"), [0, 0, 0, *seen_in(maps["decoder.1.cross"]).mean(axis=0)[:, best]])


def test_a_picture(page: "Page", tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    maps = {f"encoder.{i}.self": torch.randn(2, 10, 10, generator=generator).softmax(dim=-1) for i in range(2)}
    answer = Classification("cat", 0.75, {"cat": 0.75, "dog": 0.25})
    pixels = np.random.default_rng(1).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    write_page(PictureMaps(pixels, maps, (3, 3), 1, answer), tmp_path / "map.html")
    page.goto((tmp_path / "map.html").as_uri())
    frame = page.locator(".frame canvas")
    frame.wait_for()
    assert page.locator(".strip h3").inner_text() == "Picture: cat (75%)"
    told = page.locator(".told p")
    told.first.wait_for()
    assert told.first.inner_text().startswith("The class token looks at: ")
    box = frame.bounding_box()
    assert box is not None
    frame.hover(position={"x": box["width"] * 0.5, "y": box["height"] * 0.9})
    page.locator(".told p", has_text="The patch in row 3, column 2 looks at: ").wait_for()
    frame.focus()
    page.keyboard.press("ArrowDown")
    page.locator(".told p", has_text="The patch in row 2, column 1 looks at: ").wait_for()
