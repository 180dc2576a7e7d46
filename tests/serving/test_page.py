"""The page in a real browser, before a server of tiny runs: translation, languages, refusals, and who uses it."""

import contextlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from tests.browser import Complaints, drawn, expect, expect_value, noted
from tests.serving.rooms import NAMELESS, NUMBERS, OTHERS, PALE, ROOMS, Rooms, ask_something, label_of, only

from zhuyi.serving.page_files import page_files

if TYPE_CHECKING:
    from playwright.sync_api import Route


def test_only_what_can_be_done_is_offered(room: Rooms) -> None:
    page = room("translate")
    links = page.locator("#tasks a")
    expect(links).to_have_count(len(ROOMS))
    assert [link.get_attribute("href") for link in links.all()] == [f"#{name}" for name in ROOMS]
    expect(page.locator(".swap")).to_be_visible()
    page.route("**/v1/runs", lambda route: only(route, "en-zh"))
    page.reload()
    expect(links).to_have_text(["Translate"])
    page.locator(".swap").wait_for(state="attached")
    expect(page.locator(".swap")).to_be_hidden()  # there is no way back


def test_a_text_is_translated_as_it_is_typed(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("translate")
    page.locator("select").first.select_option(label=label_of(page, "zh-en"))
    page.locator("#source").press_sequentially(NUMBERS)
    (wanted,) = own_runs["zh-en"].translate([NUMBERS], n_best=4)
    expect(page.locator("#target p")).to_have_text([wanted.text])
    choices = page.locator(".alternative")
    expect(choices).to_have_text([wanted.text, *(text for text, _ in wanted.alternatives)])
    choices.nth(1).click()
    expect(page.locator("#target")).to_have_text(wanted.alternatives[0][0])
    expect(page.locator(".alternative[aria-pressed=true]")).to_have_text([wanted.alternatives[0][0]])
    expect(page.locator(":focus")).to_have_text(wanted.alternatives[0][0])


def test_each_line_is_a_text_and_the_caret_says_which_is_looked_into(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("translate")
    page.locator("select").first.select_option(label=label_of(page, "zh-en"))
    page.locator("#source").fill(f"{NUMBERS}\n\n{OTHERS}")
    first, second = (each.text for each in own_runs["zh-en"].translate([NUMBERS, OTHERS]))
    expect(page.locator("#target p")).to_have_text([first, "", second])
    expect(page.locator(".best h3")).to_have_text("Alternatives of line 3")
    page.locator("#source").press("ArrowUp")
    page.locator("#source").press("ArrowUp")
    page.get_by_text("Alternatives of line 1").wait_for()
    page.locator(".strip[data-side=source] .token", has_text="零").wait_for()


def test_pointing_at_a_word_shows_where_it_looks(room: Rooms) -> None:
    page = room("translate")
    page.locator("select").first.select_option(label=label_of(page, "zh-en"))
    page.locator("#source").fill(NUMBERS)
    page.locator(".strip[data-side=target] .token").nth(1).hover()
    page.locator(".strip[data-side=source] .token", has_text="%").first.wait_for()
    expect(page.locator(".told")).to_contain_text("looks at")
    page.get_by_role("button", name="Hide attention").click()
    expect(page.locator(".attention")).to_be_hidden()
    page.get_by_role("button", name="Show attention").click()
    page.locator(".strip[data-side=target] .token").first.wait_for()


def test_an_answer_that_is_late_is_not_shown(room: Rooms) -> None:
    page = room("translate")
    held: list[Route] = []

    def answer(route: "Route") -> None:
        text = route.request.post_data_json["texts"][0]
        if text == "old":
            held.append(route)
        else:
            route.fulfill(json={"translations": [{"text": "newest", "score": 0, "alternatives": [], "flags": []}]})

    page.route("**/v1/translate", answer)
    with page.expect_request("**/v1/translate"):
        page.locator("#source").fill("old")
    with page.expect_event("requestfailed") as given_up:
        page.locator("#source").fill("new")
    assert given_up.value.post_data_json["texts"] == ["old"]
    expect(page.locator("#target")).to_have_text("newest")
    said = noted(page.locator("#target"))
    (late,) = held
    with contextlib.suppress(Exception):  # the page has given it up
        late.fulfill(json={"translations": [{"text": "stale", "score": 0, "alternatives": [], "flags": []}]})
    page.evaluate("fetch('v1/runs').then((answer) => answer.text())")  # an answer that comes after it
    drawn(page)
    assert said() == ["newest"]


def test_terms_are_kept_to(room: Rooms) -> None:
    page = room("translate")
    page.locator("select").first.select_option(label=label_of(page, "zh-en"))
    page.locator("summary", has_text="Terms").click()
    page.get_by_label("How words are to be translated").fill("零 = seven\n\n五\nfoo bar =\nbaz\t\n= seven")
    with page.expect_request("**/v1/translate") as asked:
        page.locator("#source").fill(NUMBERS)
    assert asked.value.post_data_json["glossary"] == [["零", "seven"], ["五", "五"]]
    page.locator("#target p", has_text="seven").wait_for()


def test_the_languages_change_places(room: Rooms) -> None:
    page = room("translate")
    page.locator("select").first.select_option(label=label_of(page, "zh-en"))
    page.locator("#source").fill(NUMBERS)
    page.locator(".alternative").first.wait_for()
    written = page.locator("#target").text_content()
    assert written
    with page.expect_response("**/v1/translate") as answer:
        page.get_by_role("button", name="Swap languages").click()
    assert answer.value.request.post_data_json["run"] == "en-zh"
    expect(page.locator("#source")).to_have_value(written)
    expect(page.locator("#source")).to_have_attribute("lang", "en")


def test_the_page_speaks_chinese_and_remembers_it(room: Rooms) -> None:
    page = room("translate")
    page.locator("#source").fill(NUMBERS)
    page.locator(".alternative").first.wait_for()
    page.get_by_role("button", name="中文").click()
    expect(page.locator("#tasks a").first).to_have_text("翻译")
    expect(page.locator(".best h3")).to_have_text("其他译法")
    expect(page.locator("#source")).to_have_attribute("aria-label", "要翻译的文本")
    expect(page.get_by_role("button", name="交换语言")).to_have_text("⇄")
    expect_value(page.title, "翻译 · 注意 zhuyi")
    page.reload()
    expect(page.locator("h2").first).to_have_text("翻译")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")


def test_a_busy_server_is_asked_again(room: Rooms, complaints: Complaints) -> None:
    complaints.meant.append("status of 429")
    page = room("translate")
    refused: list[str] = []

    def answer(route: "Route") -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": {"message": "full"}})

    page.route("**/v1/translate", answer)
    said = noted(page.locator(".target-head .status"))
    page.locator("#source").fill(NUMBERS)
    page.locator(".alternative").first.wait_for()
    assert "The server is busy; asking again in 1 s …" in said()


def test_a_key_is_asked_for_and_kept_for_this_tab(room: Rooms, complaints: Complaints) -> None:
    complaints.meant.append("status of 401")

    def answer(route: "Route") -> None:
        if route.request.headers.get("authorization") == "Bearer right":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": {"message": "no key"}})

    page = room.page
    page.route("**/v1/*", answer)
    page.goto(room.address)
    for key in ("wrong", "right"):
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Use it").click()
        if key == "wrong":
            page.get_by_text("does not know that key").wait_for()
    page.locator("#room-translate").wait_for()
    page.reload()
    page.locator("#room-translate").wait_for()
    expect(page.locator("dialog")).to_have_count(0)
    assert page.evaluate("[sessionStorage.length, Object.values(localStorage).includes('right')]") == [1, False]


def test_refusals_are_told_in_the_readers_language(room: Rooms, complaints: Complaints) -> None:
    complaints.meant += ["status of 400", "ERR_FAILED"]
    page = room("label")
    page.route("**/v1/classify", lambda route: route.fulfill(status=400, json={"error": {"message": "<b>too odd</b>"}}))
    page.get_by_label("Texts, one a line").fill("三")
    page.get_by_text("The server cannot do that: <b>too odd</b>").wait_for()
    page.get_by_role("button", name="中文").click()
    page.get_by_text("服务器无法完成：<b>too odd</b>").wait_for()
    page.route("**/v1/classify", lambda route: route.abort())
    page.locator("textarea").first.fill("四")
    page.get_by_text("服务器没有回应").wait_for()


def test_nothing_overflows_a_phone(room: Rooms) -> None:
    room.page.set_viewport_size({"width": 360, "height": 740})
    for name in ROOMS:
        ask_something(room(name), name)
        expect_value(lambda: max(360, room.page.evaluate("document.documentElement.scrollWidth")), 360)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_stands_out(room: Rooms, theme: str) -> None:
    room.page.emulate_media(color_scheme=theme)
    for name in ROOMS:
        ask_something(room(name), name)
        expect(room.page.locator("html")).to_have_attribute("data-theme", theme)
        expect_value(lambda: room.page.evaluate(NAMELESS), [])
        expect_value(lambda: room.page.evaluate(PALE), [])


def test_keys_alone_reach_what_there_is(room: Rooms) -> None:
    page = room("translate")
    expect(page.locator("#source")).to_be_focused()
    page.evaluate(
        """() => {
            window.reached = [];
            addEventListener("hashchange", () => { window.arrived = true; });  // after the page's own listener
            addEventListener("focusin", ({ target }) => reached.push(target.id || target.className || target.tagName));
        }"""
    )
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => window.arrived")
    expect(page.locator("#main")).to_be_focused()
    page.evaluate("reached.length = 0")
    for _ in range(12):
        page.keyboard.press("Tab")
    wanted = {"source", "look", "plain swap", "SUMMARY"}
    expect_value(lambda: wanted & set(page.evaluate("reached")), wanted)
    page.locator("#tasks a", has_text="Chat").press("Enter")
    page.locator("#room-chat").wait_for()
    expect(page.locator("#main")).to_be_focused()
    expect(page.locator("#tasks a[aria-current=page]")).to_have_text(["Chat"])
    page.go_back()
    page.locator("#room-translate").wait_for()


def test_both_languages_have_the_same_words_and_every_word_that_is_used(room: Rooms) -> None:
    page = room("translate")
    code = """async () => {
        const [{ english }, { chinese }] = [await import("zhuyi/words_en.js"), await import("zhuyi/words_zh.js")];
        return [Object.keys(english), Object.keys(chinese)];
    }"""
    english, chinese = page.evaluate(code)
    assert english == chinese
    used = set()
    for code in (file.content.decode() for name, file in page_files().items() if name.endswith(".js")):
        if '"zhuyi/words.js"' in code or '"zhuyi/elements.js"' in code:
            used |= set(re.findall(r'\b(?:text|label|hint|tip): "([\w-]+)"', code))
            used |= set(re.findall(r'\b(?:show|busy|field|fold|button|t)\("([\w-]+)"', code))
    assert len(used) > 80
    assert used <= set(english)
