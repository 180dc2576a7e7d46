"""The page in a real browser, before a server of tiny runs: translation, languages, refusals, and who uses it."""

import contextlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from tests.serving.rooms import NAMELESS, NUMBERS, OTHERS, PALE, ROOMS, Rooms, ask_something, label_of, only

from zhuyi.serving.page_files import page_files

if TYPE_CHECKING:
    from playwright.sync_api import Route


def test_only_what_can_be_done_is_offered(room: Rooms) -> None:
    page = room("translate")
    assert [link.get_attribute("href") for link in page.locator("#tasks a").all()] == [f"#{name}" for name in ROOMS]
    page.route("**/v1/runs", lambda route: only(route, "en-zh"))
    page.reload()
    page.locator("#room-translate").wait_for()
    assert page.locator("#tasks a").all_inner_texts() == ["Translate"]
    assert page.locator(".swap").is_hidden()  # there is no way back


def test_a_text_is_translated_as_it_is_typed(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("translate")
    page.locator("select").first.select_option(label=label_of(page, "zh-en"))
    page.locator("#source").press_sequentially(NUMBERS)
    (wanted,) = own_runs["zh-en"].translate([NUMBERS], n_best=4)
    page.locator("#target p", has_text=wanted.text).wait_for()
    choices = page.locator(".alternative")
    assert choices.all_text_contents() == [wanted.text, *(text for text, _ in wanted.alternatives)]
    choices.nth(1).click()
    assert page.locator("#target").text_content() == wanted.alternatives[0][0]
    assert page.locator(".alternative[aria-pressed=true]").all_text_contents() == [wanted.alternatives[0][0]]
    assert page.evaluate("document.activeElement.textContent") == wanted.alternatives[0][0]


def test_each_line_is_a_text_and_the_caret_says_which_is_looked_into(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("translate")
    page.locator("select").first.select_option(label=label_of(page, "zh-en"))
    page.locator("#source").fill(f"{NUMBERS}\n\n{OTHERS}")
    first, second = (each.text for each in own_runs["zh-en"].translate([NUMBERS, OTHERS]))
    page.locator("#target p:last-child", has_text=second).wait_for()
    assert page.locator("#target p").all_text_contents() == [first, "", second]
    assert page.locator(".best h3").inner_text() == "Alternatives of line 3"
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
    assert "looks at" in page.locator(".told").inner_text()
    page.get_by_role("button", name="Hide attention").click()
    assert page.locator(".attention").is_hidden()
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
    page.get_by_text("newest").wait_for()
    with contextlib.suppress(Exception):  # the page has given it up
        held[0].fulfill(json={"translations": [{"text": "stale", "score": 0, "alternatives": [], "flags": []}]})
    page.wait_for_timeout(100)
    assert page.locator("#target").text_content() == "newest"


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
    with page.expect_response("**/v1/translate") as answer:
        page.get_by_role("button", name="Swap languages").click()
    assert answer.value.request.post_data_json["run"] == "en-zh"
    assert page.locator("#source").input_value() == written
    assert page.locator("#source").get_attribute("lang") == "en"


def test_the_page_speaks_chinese_and_remembers_it(room: Rooms) -> None:
    page = room("translate")
    page.locator("#source").fill(NUMBERS)
    page.locator(".alternative").first.wait_for()
    page.get_by_role("button", name="中文").click()
    assert page.locator("#tasks a").first.inner_text() == "翻译"
    assert page.locator(".best h3").inner_text() == "其他译法"
    assert page.locator("#source").get_attribute("aria-label") == "要翻译的文本"
    assert page.get_by_role("button", name="交换语言").inner_text() == "⇄"
    assert page.title() == "翻译 · 注意 zhuyi"
    page.reload()
    page.locator("#room-translate").wait_for()
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert page.locator("h2").first.inner_text() == "翻译"


def test_a_busy_server_is_asked_again(room: Rooms, complaints: list[str]) -> None:
    page = room("translate")
    refused: list[str] = []

    def answer(route: "Route") -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": {"message": "full"}})

    page.route("**/v1/translate", answer)
    page.locator("#source").fill(NUMBERS)
    page.get_by_text("The server is busy; asking again in 1 s").wait_for()
    page.locator(".alternative").first.wait_for()
    complaints[:] = [line for line in complaints if "429" not in line]


def test_a_key_is_asked_for_and_kept_for_this_tab(room: Rooms, complaints: list[str]) -> None:
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
    assert page.locator("dialog").count() == 0
    assert page.evaluate("[sessionStorage.length, Object.values(localStorage).includes('right')]") == [1, False]
    complaints[:] = [line for line in complaints if "401" not in line]


def test_refusals_are_told_in_the_readers_language(room: Rooms, complaints: list[str]) -> None:
    page = room("label")
    page.route("**/v1/classify", lambda route: route.fulfill(status=400, json={"error": {"message": "<b>too odd</b>"}}))
    page.get_by_label("Texts, one a line").fill("三")
    page.get_by_text("The server cannot do that: <b>too odd</b>").wait_for()
    page.get_by_role("button", name="中文").click()
    page.get_by_text("服务器无法完成：<b>too odd</b>").wait_for()
    page.route("**/v1/classify", lambda route: route.abort())
    page.locator("textarea").first.fill("四")
    page.get_by_text("服务器没有回应").wait_for()
    complaints[:] = [line for line in complaints if "400" not in line and "ERR_FAILED" not in line]


def test_nothing_overflows_a_phone(room: Rooms) -> None:
    room.page.set_viewport_size({"width": 360, "height": 740})
    for name in ROOMS:
        page = room(name)
        ask_something(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_stands_out(room: Rooms, theme: str) -> None:
    room.page.emulate_media(color_scheme=theme)
    for name in ROOMS:
        page = room(name)
        ask_something(page, name)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        assert page.evaluate(NAMELESS) == [], name
        assert page.evaluate(PALE) == [], name


def test_keys_alone_reach_what_there_is(room: Rooms) -> None:
    page = room("translate")
    assert page.evaluate("document.activeElement.id") == "source"
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    reached = set()
    for _ in range(12):
        reached.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
            )
        )
        page.keyboard.press("Tab")
    assert {"source", "look", "plain swap", "SUMMARY"} <= reached
    page.locator("#tasks a", has_text="Chat").press("Enter")
    page.locator("#room-chat").wait_for()
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.locator("#tasks a[aria-current=page]").all_inner_texts() == ["Chat"]
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
