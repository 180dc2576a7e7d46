"""What a person does who watches trainings, in a browser."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.serving.watched import append_raw, as_line, evaluated, new_run, watching, written

from zhuyi.run_folder import RunFolder
from zhuyi.serving.watched_runs import Watch, write_watch_page

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

HOSTILE = "<img src=x onerror=alert(1)></script>"
SOON = 15_000  # milliseconds within which a page that looks every other second has seen it


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = new_run(tmp_path / "run")
    for step in (10, 20, 30):
        evaluated(found, step)
    return found


@pytest.fixture
def watched(page: "Page", folder: RunFolder) -> "Iterator[Page]":
    with watching([folder.path]) as address:
        page.goto(address)
        page.locator(".runs dl").wait_for()
        yield page


@pytest.fixture
def exported(page: "Page", tmp_path: Path) -> "Page":
    """Two runs from disk, with the network off."""
    for name, steps in (("one", (10, 20, 30)), ("two", (10, 20, 30, 40))):
        folder = new_run(tmp_path / "runs" / name)
        for step in steps:
            evaluated(folder, step, bleu=step if name == "two" else None)
    append_raw(folder.samples_path, as_line({"step": 50, **written(HOSTILE)}))
    write_watch_page(Watch([tmp_path / "runs"]), tmp_path / "page.html")
    page.context.set_offline(True)
    page.goto((tmp_path / "page.html").as_uri())
    page.locator(".runs dl").first.wait_for()
    return page


def fact(page: "Page", name: str) -> str:
    return page.locator(".runs dl div", has=page.locator("dt", has_text=name)).first.locator("dd").inner_text()


def chart(page: "Page", key: str) -> "Locator":
    return page.locator(f"[data-chart={key}]")


def wait_for_step(page: "Page", step: int) -> None:
    page.wait_for_function(
        "step => document.querySelector('.runs dd').textContent === step", arg=str(step), timeout=SOON
    )


def rows_of(page: "Page", key: str) -> list[list[str]]:
    """A chart's numbers, as its table has them."""
    table = chart(page, key).locator("details")
    if table.get_attribute("open") is None:
        table.locator("summary").click()
    return [row.locator("th, td").all_inner_texts() for row in table.locator("tr").all()]


def test_a_run_that_grows_while_it_is_watched(watched: "Page", folder: RunFolder) -> None:
    assert fact(watched, "step") == "30" and "bleu, best" in watched.locator(".runs").inner_text()
    assert watched.locator("#state").inner_text() == "live"
    assert rows_of(watched, "bleu") == [["step", "bleu"], ["10", "6"], ["20", "12"], ["30", "18"]]
    assert watched.locator(".samples .text").inner_text() == "I love step 30 ."
    append_raw(folder.metrics_path, '{"step": 40, "bl')
    with watched.expect_response("**/news?*"):
        pass
    assert fact(watched, "step") == "30"  # half a line is waited for
    append_raw(folder.metrics_path, 'eu": 24, "minutes": 4}\n')
    wait_for_step(watched, 40)
    assert rows_of(watched, "bleu")[-1] == ["40", "24"]
    evaluated(folder, 50)
    wait_for_step(watched, 50)
    assert watched.locator(".samples .text").inner_text() == "I love step 50 ."  # the slider stood at the end
    folder.cut_history(20)  # resumed from an earlier checkpoint
    evaluated(folder, 25)
    wait_for_step(watched, 25)
    assert [row[0] for row in rows_of(watched, "bleu")] == ["step", "10", "20", "25"]


def test_a_training_that_was_stopped_is_not_said_to_go_on(page: "Page", folder: RunFolder, tmp_path: Path) -> None:
    def written_seconds_ago(seconds: float) -> None:
        for path in (folder.metrics_path, folder.samples_path):
            os.utime(path, (time.time() - seconds,) * 2)

    def export() -> str:
        write_watch_page(Watch([folder.path]), tmp_path / "page.html")
        page.goto((tmp_path / "page.html").as_uri())
        page.locator(".runs dl").wait_for()
        return page.locator(".runs").inner_text()

    assert "not finished" in (told := export()) and "left" not in told
    written_seconds_ago(240)  # more than three minutes, when evaluations are one apart
    assert "no news for 4 min: perhaps stopped" in (told := export()) and "left" not in told
    with watching([folder.path]) as address:
        page.goto(address)
        page.get_by_text("perhaps stopped").wait_for()
        assert page.locator(".runs dt", has_text="left").count() == 0
        written_seconds_ago(120)
        page.locator(".runs dt", has_text="left").wait_for(timeout=SOON)
        assert not page.get_by_text("perhaps stopped").is_visible()


def test_a_server_that_goes_and_comes_is_told(page: "Page", folder: RunFolder, complaints: list[str]) -> None:
    with watching([folder.path]) as address:
        page.goto(address)
        page.locator(".runs dl").wait_for()
    page.locator("#state.bad").wait_for(timeout=SOON)
    assert "does not answer" in page.locator("#state").inner_text() and fact(page, "step") == "30"
    complaints.clear()  # the browser's, of a server that has gone


def test_the_slider_goes_through_the_evaluations(watched: "Page", folder: RunFolder) -> None:
    slider = watched.locator(".player input")
    slider.focus()
    watched.keyboard.press("Home")
    assert watched.locator(".player output").inner_text() == "step 10"
    assert watched.locator(".samples .text").inner_text() == "I love step 10 ."
    assert watched.locator(".samples .text u").all_inner_texts() == ["I", "love", "."]
    evaluated(folder, 40)
    wait_for_step(watched, 40)
    assert watched.locator(".player output").inner_text() == "step 10"  # a reader is not carried away
    watched.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "step 20"
    watched.get_by_role("button", name="later").click()
    watched.get_by_text("all evaluations").click()
    watched.locator(".history li").nth(4).wait_for()
    lines = watched.locator(".history li").all_inner_texts()
    assert lines[0] == "我爱你。" and [line.split("\n")[-1][-4:-2] for line in lines[1:]] == ["10", "20", "30", "40"]
    watched.get_by_role("button", name="play").click()
    watched.wait_for_function("() => document.querySelector('.player output').textContent === 'step 40'", timeout=SOON)


def test_attention_sharpens(watched: "Page") -> None:
    watched.get_by_text("as a list").click()
    lines = watched.locator(".looks li")
    lines.nth(1).wait_for()
    assert lines.all_inner_texts()[1] == "love → 爱 47%"  # 0.7 of a quarter, and 0.3
    watched.locator(".player input").focus()
    watched.keyboard.press("Home")
    watched.wait_for_function("() => document.querySelector('.looks li:nth-child(2)').textContent === 'love → 爱 33%'")
    watched.locator(".looks .spread summary").click()
    watched.locator(".looks .spread td").nth(2).wait_for()
    spread = [float(cell) for cell in watched.locator(".looks .spread td").all_inner_texts()]
    assert spread == sorted(spread, reverse=True) and 2 < spread[-1] < spread[0] < 4
    box = watched.locator(".looks canvas").first.bounding_box()
    assert box is not None
    watched.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] - 8)
    watched.wait_for_function("() => document.querySelector('.looks .told').textContent.startsWith('</s> → </s> 3')")


def test_a_chart_is_read_by_keys_and_picks_an_evaluation(watched: "Page") -> None:
    plot = chart(watched, "loss").locator(".plot")
    assert "2 points" not in (label := plot.get_attribute("aria-label") or "") and "from 3.9 to 3.3" in label
    plot.focus()
    watched.keyboard.press("Home")
    assert plot.get_attribute("aria-valuetext") == "step 10, training 3.7, validation 3.9"
    watched.keyboard.press("ArrowRight")
    assert plot.locator(".read").inner_text().split() == ["step", "20", "training", "3.4", "validation", "3.6"]
    watched.keyboard.press("Enter")
    assert watched.locator(".player output").inner_text() == "step 20"
    watched.keyboard.press("Escape")
    assert not plot.locator(".read").is_visible()


def test_runs_are_compared(exported: "Page") -> None:
    legend = chart(exported, "loss").locator(".legend button")
    assert legend.all_inner_texts() == ["one · training", "one · validation", "two · training", "two · validation"]
    assert rows_of(exported, "bleu")[-2:] == [["30", "18", "30"], ["40", "–", "40"]]
    exported.get_by_role("checkbox", name="show one").uncheck()
    exported.wait_for_function("() => document.querySelectorAll('[data-chart=loss] .legend button').length === 2")
    exported.get_by_role("checkbox", name="show one").check()
    legend.first.click()
    assert legend.first.get_attribute("aria-pressed") == "false"
    exported.locator(".choices").get_by_text("minutes").click()
    assert rows_of(exported, "bleu")[0][0] == "minutes" and rows_of(exported, "bleu")[1][0] == "1"
    exported.locator(".choices").get_by_text("two", exact=True).click()
    assert exported.locator(".samples .text").inner_text() == HOSTILE
    exported.locator(".choices").get_by_text("one", exact=True).click()
    assert exported.locator(".samples .text").inner_text() == "I love step 30 ."


def test_in_chinese_in_the_dark_on_a_phone(exported: "Page") -> None:
    exported.set_viewport_size({"width": 375, "height": 800})
    exported.locator("#language").click()
    exported.locator("#theme").click()
    assert exported.locator("h1").inner_text() == "观看训练" and "截至" in exported.locator("#state").inner_text()
    assert exported.locator(".player output").inner_text() == "第 30 步"
    assert exported.locator(".samples dt").all_inner_texts()[:3] == ["原文", "模型", "参考"]
    assert exported.evaluate("document.documentElement.scrollWidth") <= 375
    plot = chart(exported, "loss").locator(".plot")
    assert "折线图" in (plot.get_attribute("aria-label") or "")
    english = [
        text
        for text in exported.locator("button, legend, dt, h2, h3, summary, .hint").all_inner_texts()
        if text.isascii() and text.strip() and not set(text) <= set("‹›0123456789 ")
    ]
    assert [text for text in english if text not in ("English", "bleu", "chrf", "one", "two")] == []


def test_a_run_that_has_not_begun(page: "Page", tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    with watching([tmp_path / "run"]) as address:
        page.goto(address)
        page.get_by_text("Nothing yet").wait_for()
        folder.append_metrics({"step": 5, "minutes": 1.0, "valid_loss": 2.0})  # by a version that noted no samples
        page.get_by_text("This run has noted no samples.").wait_for(timeout=SOON)
        assert not page.get_by_text("Nothing yet").is_visible() and fact(page, "step") == "5"
        append_raw(folder.samples_path, as_line({"step": 5, "samples": [], "cross_attention": {"weights": "!"}}))
        append_raw(
            folder.samples_path,
            as_line({"step": 6, **written("x"), "cross_attention": {"source": [], "target": ["a"], "weights": "AAAA"}}),
        )
        page.locator(".samples .text").wait_for(timeout=SOON)
        page.get_by_text("cannot unpack").wait_for()
