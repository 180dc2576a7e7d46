"""The page's other rooms in a real browser, each before a tiny run of its task."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.serving.rooms import Rooms, drop, only, picture_file, pixels, sound_file, table_file
from tests.serving.tiny_runs import FORECAST_STEPS, SENSORS

from zhuyi.predict.transcriber import as_srt, as_vtt
from zhuyi.tasks.transcripts import Segment, Transcription

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_couplets_hang_beside_each_other(room: Rooms) -> None:
    room.page.route("**/v1/runs", lambda route: only(route, "zh-en", constraint="couplet"))
    page = room("couplets")
    assert page.locator("#tasks a").all_inner_texts() == ["Couplets"]
    page.get_by_role("textbox").fill("三五七")
    page.locator(".alternative").first.wait_for()
    assert page.locator(".upper").inner_text() == "三五七"
    page.locator(".alternative").nth(1).click()
    assert page.locator(".lower").inner_text().strip() == page.locator(".alternative").nth(1).inner_text().strip()


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
    assert page.locator(".output").text_content() == "abc" + wanted.text
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
    page.wait_for_timeout(150)
    assert page.locator(".output").text_content() == written


def test_a_chat_streams_and_is_remembered(room: Rooms) -> None:
    page = room("chat")
    page.evaluate("""() => {
        window.grown = 0;
        new MutationObserver((all) => { for (const each of all) if (each.target.tagName === "P") window.grown += 1; })
            .observe(document.querySelector(".talk"), { childList: true, subtree: true });
    }""")
    page.get_by_label("Your message").fill("abc")
    page.get_by_label("Your message").press("Enter")
    answer = page.locator(".talk li.model:not([aria-busy=true]) p")
    answer.wait_for()
    assert answer.inner_text()
    assert page.evaluate("window.grown") > 2
    page.get_by_label("Your message").fill("def")
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_role("button", name="Send").click()
    assert [each["content"] for each in asked.value.post_data_json["messages"]] == [
        "abc",
        answer.first.text_content(),
        "def",
    ]
    page.locator(".talk li.model:not([aria-busy=true])").nth(1).wait_for()
    page.get_by_role("button", name="Begin anew").click()
    assert page.locator(".talk li").count() == 0


def test_words_are_filled_in(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("fill")
    page.get_by_label("Text").fill("三五")
    page.get_by_text("Put a gap where").wait_for()
    page.get_by_role("button", name="Put a gap here").click()
    page.locator(".bars th").first.wait_for()
    (wanted,) = own_runs["filler"].fill("三五[MASK]", top=8)
    assert page.locator(".bars th").all_inner_texts() == [each.word for each in wanted]


def test_texts_are_labelled(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("label")
    page.get_by_label("Texts, one a line").fill("三五\nseven")
    page.locator(".verdict").nth(1).wait_for()
    wanted = own_runs["labels"].classify(["三五", "seven"])
    shown = [text.split() for text in page.locator(".verdict").all_inner_texts()]
    assert [label for label, _ in shown] == [each.label for each in wanted]
    assert float(shown[0][1].rstrip("%")) / 100 == pytest.approx(wanted[0].probability, abs=0.006)
    page.get_by_text("Where the model looks").click()
    page.locator(".map canvas").first.wait_for()


def test_texts_are_compared(room: Rooms, own_runs: dict[str, Any]) -> None:
    page = room("alike")
    page.locator("select").first.select_option("filler")
    page.get_by_label("Texts, one a line").fill("三五\nseven")
    page.locator(".alike").wait_for()
    vectors = own_runs["filler"].embed(["三五", "seven"])
    cells = [float(text) for text in page.locator(".alike td.number").all_inner_texts()]
    assert cells == pytest.approx((vectors @ vectors.T).ravel(), abs=0.006)


def test_a_picture_is_dropped_and_looked_into(room: Rooms, own_runs: dict[str, Any], tmp_path: Path) -> None:
    page = room("picture")
    drop(page, "picture.png", "image/png", picture_file())
    page.locator(".verdict strong").wait_for()
    (tmp_path / "picture.png").write_bytes(picture_file())
    (wanted,) = own_runs["pictures"].classify([tmp_path / "picture.png"])
    assert page.locator(".verdict strong").inner_text() == wanted.label
    page.locator("canvas.overlay").wait_for()
    mean = pixels(page, "canvas.overlay")
    page.get_by_label("Layer").select_option("all")
    assert pixels(page, "canvas.overlay") != mean
    assert page.get_by_label("Head").is_hidden()


def test_a_drawing_is_labelled_by_pointer_and_by_keys(room: Rooms) -> None:
    page = room("picture")
    canvas = page.locator("canvas.draw")
    empty = pixels(page, "canvas.draw")
    box = canvas.bounding_box()
    assert box is not None
    with page.expect_response("**/v1/classify"):
        page.mouse.move(box["x"] + 50, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + 120, steps=3)
        page.mouse.up()
    page.locator(".verdict strong").wait_for()
    page.get_by_role("button", name="Wipe").click()
    assert pixels(page, "canvas.draw") == empty
    assert page.locator(".verdict").is_hidden()
    with page.expect_response("**/v1/classify"):
        for key in ("Space", "ArrowDown", "ArrowDown", "Space"):
            canvas.press(key)
    assert pixels(page, "canvas.draw") != empty


def test_a_recording_that_is_chosen_is_written_down(room: Rooms, own_runs: dict[str, Any], tmp_path: Path) -> None:
    page = room("transcribe")
    path = tmp_path / "talk.wav"
    path.write_bytes(sound_file())
    page.locator("#room-transcribe input[type=file]").set_input_files(path)
    page.locator(".segments li, .faint").first.wait_for()
    (wanted,) = own_runs["ears"].transcribe([path])
    assert wanted.text
    assert page.locator("[aria-label=Transcription] .text").inner_text().strip() == wanted.text.strip()
    assert pixels(page, "canvas.waves") != blank(page)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as srt").click()
    assert saved.value.suggested_filename == "talk.srt"
    assert Path(saved.value.path()).read_text(encoding="utf-8").count("-->") == len(wanted.segments)


def test_a_recording_is_made_and_sent_as_a_wav(room: Rooms) -> None:
    page = room("transcribe")
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_text("Recording …").wait_for()
    page.wait_for_timeout(300)
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
    assert page.get_by_role("button", name="Record", exact=True).is_visible()


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
    assert f"3 sensors ({', '.join(SENSORS)})" in page.locator(".hint").first.inner_text()
    drop(page, "recent.csv", "text/csv", table_file())
    page.locator(".curves canvas").first.wait_for()
    (tmp_path / "recent.csv").write_bytes(table_file())
    wanted = own_runs["roads"].forecast(tmp_path / "recent.csv")
    page.locator("summary", has_text="The forecast as a table").click()
    cells = [float(text) for text in page.locator(".numbers td").all_inner_texts()]
    assert cells == pytest.approx(wanted.values.ravel(), rel=1e-3)
    assert page.locator(".numbers tbody tr").count() == FORECAST_STEPS
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").click()
    assert Path(saved.value.path()).read_text(encoding="utf-8") == wanted.as_csv()
    page.get_by_label("Sensors to draw").select_option([SENSORS[0], SENSORS[2]])
    page.locator(".curves .legend button").nth(3).wait_for()


def blank(page: "Page") -> str:
    return str(
        page.evaluate("() => Object.assign(document.createElement('canvas'), {width: 800, height: 72}).toDataURL()")
    )
