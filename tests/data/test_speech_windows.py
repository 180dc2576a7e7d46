"""Long recordings are cut where nobody speaks; silence and what is too steady for speech are told apart."""

from typing import Any

import numpy as np
import pytest

from zhuyi.data.speech_windows import Pauses, Stretch, cut_at_seam, cut_into_stretches

RATE = 16000


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose level swings four times a second, as syllables do."""
    rng, length = np.random.default_rng(seed), int(seconds * RATE)
    swing = 0.05 + np.abs(np.sin(2 * np.pi * 2 * np.arange(length) / RATE))
    return (0.2 * swing * rng.standard_normal(length)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


def seconds(stretch: Stretch) -> tuple[float, float]:
    return stretch.start / RATE, stretch.end / RATE


def test_silence_and_nothing() -> None:
    assert cut_into_stretches(silence(60.0), 4.0, Pauses()) == [Stretch(0, 60 * RATE, "silence")]
    assert cut_into_stretches(silence(0.0), 4.0, Pauses()) == []
    faint = 1e-4 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    assert [each.quiet for each in cut_into_stretches(faint, 4.0, Pauses())] == ["silence"]
    assert [each.quiet for each in cut_into_stretches(faint, 4.0, Pauses(quiet_db=-100.0))] == ["steady"]


@pytest.mark.parametrize("kind", ["white", "brown", "tone"])
def test_steady_sounds_are_no_speech(kind: str) -> None:
    rng, length = np.random.default_rng(0), 60 * RATE
    sound = {
        "white": 0.1 * rng.standard_normal(length),
        "brown": np.convolve(0.02 * rng.standard_normal(length), 0.995 ** np.arange(2000), "same"),
        "tone": 0.2 * np.sin(2 * np.pi * 440 * np.arange(length) / RATE),
    }[kind].astype(np.float32)
    found = cut_into_stretches(sound, 4.0, Pauses())
    assert {each.quiet for each in found} == {"steady"}
    assert not any(each.quiet for each in cut_into_stretches(speech(60.0), 4.0, Pauses()))


def test_a_word_in_a_long_noise_is_speech() -> None:
    noise = (0.01 * np.random.default_rng(0).standard_normal(4 * RATE)).astype(np.float32)
    assert [each.quiet for each in cut_into_stretches(noise, 4.0, Pauses())] == ["steady"]
    noise[2 * RATE : 2 * RATE + 4800] += speech(0.3)  # less than a tenth of it
    assert [each.quiet for each in cut_into_stretches(noise, 4.0, Pauses())] == [""]


def test_a_pause_is_where_it_is_cut() -> None:
    sound = np.concatenate([speech(2.0), silence(0.4), speech(2.0, 1), silence(2.0), speech(1.0, 2)])
    found = cut_into_stretches(sound, 3.0, Pauses())
    loud = [each for each in found if not each.quiet]
    assert [each.overlap for each in found] == [0] * len(found)
    assert seconds(loud[0])[0] == 0 and 2.0 <= seconds(loud[0])[1] <= 2.4  # in the pause
    assert seconds(loud[2]) == pytest.approx((6.3, 7.4), abs=0.11)
    assert [each.quiet for each in found] == ["", "", "silence", ""]
    assert len([each for each in cut_into_stretches(sound, 3.0, Pauses(pause_seconds=0.3)) if not each.quiet]) == 3


def test_a_recording_of_many_spans_is_smoothed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    convolve = np.convolve

    def counted(levels: np.ndarray, *others: Any) -> np.ndarray:
        seen.append(len(levels))
        return convolve(levels, *others)

    monkeypatch.setattr(np, "convolve", counted)
    sound = np.concatenate([part for seed in range(10) for part in (speech(1.5, seed), silence(1.5))])
    cut_into_stretches(sound, 4.0, Pauses())
    assert seen.count(len(sound) // 320) == 1


def test_everything_loud_is_in_a_stretch_that_fits() -> None:
    rng = np.random.default_rng(3)
    for seed in range(10):
        parts = []
        for part in range(8):
            parts += [speech(rng.uniform(0.3, 7), seed * 10 + part), silence(rng.uniform(0, 1.5))]
        sound = np.concatenate(parts)
        found = cut_into_stretches(sound, 2.5, Pauses())
        covered = np.zeros(len(sound), bool)
        for before, each in zip([None, *found], found, strict=False):
            assert each.end - each.start <= 2.5 * RATE or each.quiet == "silence"
            assert before is None or each.start >= before.end - each.overlap
            covered[each.start : each.end] |= not each.quiet
        assert np.abs(sound[~covered]).max(initial=0.0) < 0.2  # at most a soft end


def test_where_there_is_no_pause_stretches_overlap() -> None:
    rng = np.random.default_rng(0)
    level = 1 + 0.5 * np.sin(2 * np.pi * 40 * np.arange(10 * RATE) / RATE)  # swings too fast for a pause
    sound = (0.1 * level * rng.standard_normal(10 * RATE)).astype(np.float32)
    found = cut_into_stretches(sound, 4.0, Pauses(steady_db=0.0))
    assert [seconds(each) for each in found] == [(0, 4), (3.2, 7.2), (6.4, 10)]
    assert [each.overlap for each in found] == [0, 0.8 * RATE, 0.8 * RATE]


@pytest.mark.parametrize(
    ("before", "after", "left", "right"),
    [
        ("one two three four five", "four five six", "one two three four five", "six"),
        ("one two three fo", "three four five", "one two three", "four five"),  # the cut word is the second's
        ("One, two, Three", "three four", "One, two, Three", "four"),
        ("one two three.", "Three, four", "one two three.", "four"),
        ("一二三四", "三四五", "一二三四", "五"),
        ("one", "two", "one", "two"),
        ("a b c d the e f g h", "t u v w x the z", "a b c d the e f g", "u v w x the z"),  # a word that comes anywhere
        ("一二三四五六七八九十", "甲乙丙丁戊己庚辛壬癸", "一二三四五六七八", "丙丁戊己庚辛壬癸"),
        ("", "two", "", "two"),
    ],
)
def test_texts_that_overlap_are_cut_behind_what_they_share(before: str, after: str, left: str, right: str) -> None:
    assert cut_at_seam(before, after, 0.2) == (left, right)
