"""What a person does who watches trainings, in a browser."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.browser import Complaints, box_of, drawn, expect, expect_value
from tests.serving.watched import append_raw, as_line, evaluated, new_run, watching, written

from zhuyi.run_folder import RunFolder
from zhuyi.serving.watched_runs import Watch, write_watch_page

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

HOSTILE = "<img src=x onerror=alert(1)></script>"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = new_run(tmp_path / "run")
    for step in (10, 20, 30):
        evaluated(found, step)
    return found


@contextmanager
def followed(page: "Page", path: Path) -> Iterator[None]:
    """The page follows a run; it is left before its server goes, which it would complain of."""
    with watching([path]) as address:
        page.goto(address)
        yield
        page.goto("about:blank")


@pytest.fixture
def watched(page: "Page", folder: RunFolder) -> "Iterator[Page]":
    with followed(page, folder.path):
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


def fact(page: "Page", name: str) -> "Locator":
    return page.locator(".runs dl div", has=page.locator("dt", has_text=name)).first.locator("dd")


def chart(page: "Page", key: str) -> "Locator":
    return page.locator(f"[data-chart={key}]")


def expect_step(page: "Page", step: int) -> None:
    expect(fact(page, "step")).to_have_text(str(step))


def wait_until_looked(page: "Page") -> None:
    """Wait until the page has taken in all that is there: another look begins when one that began now has ended."""
    page.wait_for_function(
        """(now) => performance.getEntriesByType("resource")
            .filter(({ name, startTime }) => name.includes("/news?") && startTime > now).length > 1""",
        arg=page.evaluate("performance.now()"),
    )


def rows_of(page: "Page", key: str) -> list[list[str]]:
    """A chart's numbers, as its table has them now."""
    table = chart(page, key).locator("details")
    if table.get_attribute("open") is None:
        table.locator("summary").click()
    rows: list[list[str]] = table.locator("tr").evaluate_all(
        "(rows) => rows.map(({ cells }) => [...cells].map((cell) => cell.textContent))"
    )
    return rows


def test_a_run_that_grows_while_it_is_watched(watched: "Page", folder: RunFolder) -> None:
    expect_step(watched, 30)
    expect(watched.locator(".runs")).to_contain_text("bleu, best")
    expect(watched.locator("#state")).to_have_text("live")
    expect_value(lambda: rows_of(watched, "bleu"), [["step", "bleu"], ["10", "6"], ["20", "12"], ["30", "18"]])
    expect(watched.locator(".samples .text")).to_have_text("I love step 30 .")
    append_raw(folder.metrics_path, '{"step": 40, "bl')
    wait_until_looked(watched)
    expect_step(watched, 30)  # half a line is waited for
    append_raw(folder.metrics_path, 'eu": 24, "minutes": 4}\n')
    expect_step(watched, 40)
    expect_value(lambda: rows_of(watched, "bleu")[-1:], [["40", "24"]])
    evaluated(folder, 50)
    expect_step(watched, 50)
    expect(watched.locator(".samples .text")).to_have_text("I love step 50 .")  # the slider stood at the end
    folder.cut_history(20)  # resumed from an earlier checkpoint
    evaluated(folder, 25)
    expect_step(watched, 25)
    expect_value(lambda: [row[0] for row in rows_of(watched, "bleu")], ["step", "10", "20", "25"])


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
    with followed(page, folder.path):
        page.get_by_text("perhaps stopped").wait_for()
        expect(page.locator(".runs dt", has_text="left")).to_have_count(0)
        written_seconds_ago(120)
        page.locator(".runs dt", has_text="left").wait_for()
        expect(page.get_by_text("perhaps stopped")).to_have_count(0)


def test_a_server_that_goes_is_told(page: "Page", folder: RunFolder, complaints: Complaints) -> None:
    complaints.meant.append("ERR_")  # the browser's, of a server that has gone
    with watching([folder.path]) as address:
        page.goto(address)
        page.locator(".runs dl").wait_for()
    expect(page.locator("#state.bad")).to_contain_text("does not answer")
    expect_step(page, 30)


def test_the_slider_goes_through_the_evaluations(watched: "Page", folder: RunFolder) -> None:
    slider, told = watched.locator(".player input"), watched.locator(".player output")
    slider.focus()
    watched.keyboard.press("Home")
    expect(told).to_have_text("step 10")
    expect(watched.locator(".samples .text")).to_have_text("I love step 10 .")
    expect(watched.locator(".samples .text u")).to_have_text(["I", "love", "."])
    evaluated(folder, 40)
    expect(slider).to_have_attribute("max", "3")
    expect(told).to_have_text("step 10")  # a reader is not carried away
    watched.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "step 20")
    watched.get_by_role("button", name="later").click()
    expect(told).to_have_text("step 30")
    watched.get_by_text("all evaluations").click()
    lines = [f"{step}I love step {step} ." for step in (10, 20, 30, 40)]
    expect(watched.locator(".history li")).to_have_text(["我爱你。", *lines])
    watched.get_by_role("button", name="play").click()
    expect(told).to_have_text("step 40")


def test_attention_sharpens(watched: "Page") -> None:
    watched.get_by_text("as a list").click()
    lines = watched.locator(".looks li")
    expect(lines.nth(1)).to_have_text("love → 爱 47%")  # 0.7 of a quarter, and 0.3
    watched.locator(".player input").focus()
    watched.keyboard.press("Home")
    expect(lines.nth(1)).to_have_text("love → 爱 33%")
    watched.locator(".looks .spread summary").click()
    expect(watched.locator(".looks .spread td")).to_have_count(3)
    spread = [float(cell) for cell in watched.locator(".looks .spread td").all_inner_texts()]
    assert spread == sorted(spread, reverse=True) and 2 < spread[-1] < spread[0] < 4
    sheet = watched.locator(".looks canvas").first
    box = box_of(sheet)
    sheet.hover(position={"x": box["width"] - 8, "y": box["height"] - 8})
    expect(watched.locator(".looks .told")).to_have_text(re.compile("^</s> → </s> 3"))


def test_a_chart_is_read_by_keys_and_picks_an_evaluation(watched: "Page") -> None:
    plot = chart(watched, "loss").locator(".plot")
    expect(plot).to_have_attribute("aria-label", re.compile("validation: 3 points, from 3.9 to 3.3"))
    plot.focus()
    watched.keyboard.press("Home")
    expect(plot).to_have_attribute("aria-valuetext", "step 10, training 3.7, validation 3.9")
    watched.keyboard.press("ArrowRight")
    expect(plot.locator(".read")).to_have_text("step 20 training 3.4 validation 3.6", use_inner_text=True)
    watched.keyboard.press("Enter")
    expect(watched.locator(".player output")).to_have_text("step 20")
    watched.keyboard.press("Escape")
    expect(plot.locator(".read")).to_be_hidden()


def test_runs_are_compared(exported: "Page") -> None:
    legend = chart(exported, "loss").locator(".legend button")
    names = ["one · training", "one · validation", "two · training", "two · validation"]
    expect(legend).to_have_text(names)
    expect_value(lambda: rows_of(exported, "bleu")[-2:], [["30", "18", "30"], ["40", "–", "40"]])
    exported.get_by_role("checkbox", name="show one").uncheck()
    expect(legend).to_have_text(names[2:])
    exported.get_by_role("checkbox", name="show one").check()
    expect(legend).to_have_text(names)
    legend.first.click()
    expect(legend.first).to_have_attribute("aria-pressed", "false")
    exported.locator(".choices").get_by_text("minutes").click()
    expect_value(lambda: [row[0] for row in rows_of(exported, "bleu")], ["minutes", "1", "2", "3", "4"])
    exported.locator(".choices").get_by_text("two", exact=True).click()
    expect(exported.locator(".samples .text")).to_have_text(HOSTILE)
    exported.locator(".choices").get_by_text("one", exact=True).click()
    expect(exported.locator(".samples .text")).to_have_text("I love step 30 .")


def test_in_chinese_in_the_dark_on_a_phone(exported: "Page") -> None:
    exported.set_viewport_size({"width": 375, "height": 800})
    exported.locator("#language").click()
    exported.locator("#theme").click()
    expect(exported.locator("h1")).to_have_text("观看训练")
    expect(exported.locator("#state")).to_contain_text("截至")
    expect(exported.locator(".player output")).to_have_text("第 30 步")
    expect(exported.locator(".samples dt")).to_have_text(["原文", "模型", "参考"])
    expect(chart(exported, "loss").locator(".plot")).to_have_attribute("aria-label", re.compile("折线图"))
    drawn(exported)
    expect_value(lambda: max(375, exported.evaluate("document.documentElement.scrollWidth")), 375)
    said = exported.locator("button, legend, dt, h2, h3, summary, .hint").all_inner_texts()
    english = {text for text in said if text.isascii() and text.strip() and not set(text) <= set("‹›0123456789 ")}
    assert english - {"English", "bleu", "chrf", "one", "two"} == set()


def test_a_run_that_has_not_begun(page: "Page", tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    with followed(page, folder.path):
        page.get_by_text("Nothing yet").wait_for()
        folder.append_metrics({"step": 5, "minutes": 1.0, "valid_loss": 2.0})  # by a version that noted no samples
        page.get_by_text("This run has noted no samples.").wait_for()
        expect(page.get_by_text("Nothing yet")).to_be_hidden()
        expect_step(page, 5)
        append_raw(folder.samples_path, as_line({"step": 5, "samples": [], "cross_attention": {"weights": "!"}}))
        append_raw(
            folder.samples_path,
            as_line({"step": 6, **written("x"), "cross_attention": {"source": [], "target": ["a"], "weights": "AAAA"}}),
        )
        page.locator(".samples .text").wait_for()
        page.get_by_text("cannot unpack").wait_for()
