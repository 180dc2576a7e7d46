"""The forms in which a transcription is written."""

import json

from zhuyi.predict.transcriber import as_json, as_srt, as_text, as_vtt
from zhuyi.tasks.transcription import Passage, Segment, Transcription

FOUND = Transcription(
    3725.5,
    (Segment(0.25, 1.5, "one & <two>", -0.123456), Segment(3661.0006, 3725.4999, "three", flags=("joined",))),
    "en",
    (Passage(1.5, 3661.0, "silence"),),
)


def test_text() -> None:
    assert as_text(FOUND) == "one & <two> three" and as_text(Transcription(1.0)) == ""


def test_subrip() -> None:
    assert as_srt(FOUND) == (
        "1\n00:00:00,250 --> 00:00:01,500\none & <two>\n\n2\n01:01:01,001 --> 01:02:05,500\nthree\n"
    )


def test_webvtt() -> None:
    assert as_vtt(FOUND) == (
        "WEBVTT\n\n00:00:00.250 --> 00:00:01.500\none &amp; &lt;two&gt;\n\n01:01:01.001 --> 01:02:05.500\nthree\n"
    )
    assert as_vtt(Transcription(1.0)) == "WEBVTT\n"


def test_json() -> None:
    values = json.loads(as_json(FOUND, "a.wav"))
    assert (values["file"], values["text"], values["language"]) == ("a.wav", "one & <two> three", "en")
    assert values["segments"][0]["log_prob"] == -0.12346 and values["segments"][1]["flags"] == ["joined"]
    assert values["without_speech"] == [{"start": 1.5, "end": 3661.0, "reason": "silence"}]
    assert "file" not in json.loads(as_json(FOUND))
