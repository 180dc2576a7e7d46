"""The page's other rooms in a real browser, each before a tiny run of its task."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.browser import a_while, expect, expect_value, pixels, wait_for_other_pixels
from tests.serving.rooms import Rooms, drop, only, picture_file, sound_file, table_file
from tests.serving.tiny_runs import FORECAST_STEPS, SENSORS

from zhuyi.predict.transcriber import as_srt, as_vtt
from zhuyi.tasks.transcripts import Segment, Transcription

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_couplets_hang_beside_each_other(room: Rooms) -> None:
    room.page.route("**/v1/runs", lambda route: only(route, "zh-en", constraint="couplet"))
    page = room("couplets")
    expect(page.locator("#tasks a")).to_have_text(["Couplets"])
    page.get_by_role("textbox").fill("三五七")
    best, other = page.locator(".alternative").nth(0), page.locator(".alternative").nth(1)
    other.wait_for()
    expect(page.locator(".upper")).to_have_text("三五七")
    expect(page.locator(".lower")).to_have_text(best.inner_text())
    other.click()
    expect(page.locator(".lower")).to_have_text(other.inner_text())


def test_a_text_is_continued_and_ends_by_the_button(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("generate")
    page.locator("#room-generate select").first.select_option(label="writer")
    page.get_by_label("Beginning").fill("abc")
    page.locator("summary").first.click()
    page.get_by_label("Seed").fill("4")
    page.get_by_label("Longest, in tokens").fill("7")
    page.get_by_role("button", name="Write on").click()
    page.get_by_text("It reached the length").wait_for()
    (wanted,) = own_runs["writer"].generate(["abc"], seed=4, max_new_tokens=7)
    expect(page.locator(".output")).to_have_js_property("textContent", "abc" + wanted.text)
    page.get_by_label("Longest, in tokens").fill("2000")
    page.get_by_label("Temperature").fill("0")  # by which this run never ends
    page.evaluate(
        """() => {
            const room = document.querySelector("#room-generate");
            const stop = [...room.querySelectorAll("button")].find((each) => each.textContent === "Stop");
            new MutationObserver((_, observer) => {
                if (stop.disabled || room.querySelector(".output").textContent.length < 20) return;
                observer.disconnect();
                stop.click();
            }).observe(room, { childList: true, characterData: true, subtree: true });
        }"""
    )  # by the page itself: all could be written before this process looks
    page.get_by_role("button", name="Write on").click()
    page.get_by_text("Stopped.").wait_for()
    written = page.locator(".output").text_content()
    assert len(written or "") >= 20
    a_while(page)
    assert page.locator(".output").text_content() == written


def test_a_chat_streams_and_is_remembered(room: Rooms) -> None:
    page = room("chat")
    page.evaluate("""() => {
        window.grown = 0;
        new MutationObserver((all) => { for (const each of all) if (each.target.tagName === "P") window.grown += 1; })
            .observe(document.querySelector(".talk"), { childList: true, subtree: true });
    }""")
    page.locator("#room-chat summary").click()
    page.get_by_label("Seed").fill("4")
    page.get_by_label("Your message").fill("abc")
    page.get_by_label("Your message").press("Enter")
    answer = page.locator(".talk li.model:not([aria-busy=true]) p")
    expect(answer).to_have_text([re.compile(r"\S")])
    assert page.evaluate("window.grown") > 2
    page.get_by_label("Your message").fill("def")
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_role("button", name="Send").click()
    assert [each["content"] for each in asked.value.post_data_json["messages"]] == [
        "abc",
        answer.first.text_content(),
        "def",
    ]
    expect(answer).to_have_count(2)
    page.get_by_role("button", name="Begin anew").click()
    expect(page.locator(".talk li")).to_have_count(0)


def test_words_are_filled_in(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("fill")
    page.get_by_label("Text").fill("三五")
    page.get_by_text("Put a gap where").wait_for()
    page.get_by_role("button", name="Put a gap here").click()
    (wanted,) = own_runs["filler"].fill("三五[MASK]", top=8)
    expect(page.locator(".bars th")).to_have_text([each.word for each in wanted])


def test_texts_are_labelled(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("label")
    page.get_by_label("Texts, one a line").fill("三五\nseven")
    wanted = own_runs["labels"].classify(["三五", "seven"])
    expect(page.locator(".verdict strong")).to_have_text([each.label for each in wanted])
    shares = [float(text.split()[1].rstrip("%")) / 100 for text in page.locator(".verdict").all_inner_texts()]
    assert shares == pytest.approx([each.probability for each in wanted], abs=0.006)
    page.get_by_text("Where the model looks").click()
    page.locator(".map canvas").first.wait_for()


def test_texts_are_compared(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("alike")
    page.locator("select").first.select_option("filler")
    page.get_by_label("Texts, one a line").fill("三五\nseven")
    vectors = own_runs["filler"].embed(["三五", "seven"])
    cells = page.locator(".alike td.number")
    wanted = pytest.approx((vectors @ vectors.T).ravel(), abs=0.006)
    expect_value(lambda: [float(text) for text in cells.all_inner_texts()], wanted)


def test_a_picture_is_dropped_and_looked_into(room: Rooms, own_runs: dict[str, Any], tmp_path: Path) -> None:
    page = room("picture")
    drop(page, "picture.png", "image/png", picture_file())
    (tmp_path / "picture.png").write_bytes(picture_file())
    (wanted,) = own_runs["pictures"].classify([tmp_path / "picture.png"])
    expect(page.locator(".verdict strong")).to_have_text(wanted.label)
    expect(page.locator(".overlay-view > .hint")).to_contain_text("%")  # said once it is drawn
    expect(page.get_by_label("Head")).to_be_visible()
    mean = pixels(page, "canvas.overlay")
    page.get_by_label("Layer").select_option("all")
    wait_for_other_pixels(page, "canvas.overlay", mean)
    expect(page.get_by_label("Head")).to_be_hidden()


def test_a_drawing_is_labelled_by_pointer_and_by_keys(room: Rooms) -> None:
    page = room("picture")
    canvas = page.locator("canvas.draw")
    empty = pixels(page, "canvas.draw")
    with page.expect_response("**/v1/classify"):
        canvas.hover(position={"x": 50, "y": 50})
        page.mouse.down()
        canvas.hover(position={"x": 200, "y": 120})
        page.mouse.up()
    page.locator(".verdict strong").wait_for()
    assert pixels(page, "canvas.draw") != empty
    page.get_by_role("button", name="Wipe").click()
    expect_value(lambda: pixels(page, "canvas.draw"), empty)
    expect(page.locator(".verdict")).to_be_hidden()
    with page.expect_response("**/v1/classify"):
        for key in ("Space", "ArrowDown", "ArrowDown", "Space"):
            canvas.press(key)
    wait_for_other_pixels(page, "canvas.draw", empty)


def test_a_recording_that_is_chosen_is_written_down(room: Rooms, own_runs: dict[str, Any], tmp_path: Path) -> None:
    page = room("transcribe")
    path = tmp_path / "talk.wav"
    path.write_bytes(sound_file())
    page.locator("#room-transcribe input[type=file]").set_input_files(path)
    (wanted,) = own_runs["ears"].transcribe([path])
    assert wanted.text
    expect(page.locator("[aria-label=Transcription] .text")).to_have_text(wanted.text)
    wait_for_other_pixels(page, "canvas.waves", blank(page))
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as srt").click()
    assert saved.value.suggested_filename == "talk.srt"
    assert Path(saved.value.path()).read_text(encoding="utf-8").count("-->") == len(wanted.segments)


def test_a_recording_is_made_and_sent_as_a_wav(room: Rooms) -> None:
    page = room("transcribe")
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_text("Recording …").wait_for()
    page.wait_for_function("() => document.querySelector('meter').value > 0")  # something is heard
    a_while(page)
    with page.expect_response("**/v1/audio/transcriptions") as answer:
        page.get_by_role("button", name="Stop and transcribe").click()
    assert answer.value.status == 200
    sent = answer.value.request.post_data_buffer or b""
    assert b'filename="recording.wav"' in sent
    assert b"RIFF" in sent


def test_who_refuses_the_microphone_is_told_what_else_can_be_done(room: Rooms) -> None:
    room.page.add_init_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError'))"
    )
    page = room("transcribe")
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_text("choose a file instead").wait_for()
    expect(page.get_by_role("button", name="Record", exact=True)).to_be_visible()


def test_subtitles_are_those_of_the_command_line(room: Rooms) -> None:
    segments = (Segment(0.0, 1.2346, "a < b & c"), Segment(59.9996, 3725.5, "你好"))
    found = Transcription(4000.0, segments)
    given = [{"start": each.start, "end": each.end, "text": each.text} for each in segments]
    page = room("translate")
    code = """async (given) => {
        const { asSrt, asVtt } = await import("zhuyi/subtitles.js");
        return [asSrt(given), asVtt(given)];
    }"""
    assert page.evaluate(code, given) == [as_srt(found), as_vtt(found)]


def test_a_table_is_forecast_and_drawn(room: Rooms, own_runs: dict[str, Any], tmp_path: Path) -> None:
    page = room("forecast")
    expect(page.locator(".hint").first).to_contain_text(f"3 sensors ({', '.join(SENSORS)})")
    drop(page, "recent.csv", "text/csv", table_file())
    page.locator(".curves canvas").first.wait_for()
    (tmp_path / "recent.csv").write_bytes(table_file())
    wanted = own_runs["roads"].forecast(tmp_path / "recent.csv")
    page.locator("summary", has_text="The forecast as a table").click()
    cells = page.locator(".numbers td")
    values = pytest.approx(wanted.values.ravel(), rel=1e-3)
    expect_value(lambda: [float(text) for text in cells.all_inner_texts()], values)
    expect(page.locator(".numbers tbody tr")).to_have_count(FORECAST_STEPS)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").click()
    assert Path(saved.value.path()).read_text(encoding="utf-8") == wanted.as_csv()
    page.get_by_label("Sensors to draw").select_option([SENSORS[0], SENSORS[2]])
    page.locator(".curves .legend button").nth(3).wait_for()


def blank(page: "Page") -> str:
    return str(
        page.evaluate("() => Object.assign(document.createElement('canvas'), {width: 800, height: 72}).toDataURL()")
    )
