"""The forms in which a transcription is written."""

import json
import math

import numpy as np
import pytest

from zhuyi.errors import InputError
from zhuyi.predict.transcriber import _samples, as_json, as_srt, as_text, as_vtt
from zhuyi.tasks.transcripts import Passage, Segment, Transcription

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


def test_json_has_no_infinity() -> None:
    line = as_json(Transcription(1.0, (Segment(0.0, 1.0, "one", -math.inf),)))
    assert "Infinity" not in line and json.loads(line)["segments"][0]["log_prob"] is None


def test_arrays_are_one_row_of_finite_samples() -> None:
    assert _samples(np.array([0.5, -1.0])).dtype == np.float32
    assert _samples(np.array([16384, -32768], np.int16)).tolist() == [0.5, -1.0]
    for wrong in (np.zeros((2, 16)), np.zeros(16, complex), np.zeros(16, np.uint8), np.array(["a"])):
        with pytest.raises(InputError, match="is no recording"):
            _samples(wrong)
    with pytest.raises(InputError, match="no finite numbers"):
        _samples(np.array([0.0, np.nan]))
