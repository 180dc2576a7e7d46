"""Error rates: edits over what is expected, and what is invented where nothing is said."""

import pytest

from zhuyi.metrics.speech_scores import speech_scores

pytest.importorskip("jiwer", reason="needs the extra audio")


def test_rates_are_of_all_words_and_characters() -> None:
    scores = speech_scores(["one two", "tree", "four"], ["one two three", "three", "four"])
    assert scores["wer"] == pytest.approx(2 / 5)
    assert scores["cer"] == pytest.approx((6 + 1) / (13 + 5 + 4))


def test_words_where_nothing_is_said_are_errors() -> None:
    assert speech_scores(["one", "two words"], ["one", ""])["wer"] == 2
    assert speech_scores(["", "one"], ["", "one"]) == {"wer": 0, "cer": 0}
    assert speech_scores(["", ""], ["", ""]) == {"wer": 0, "cer": 0}
    assert speech_scores(["a"], [""])["wer"] == 1
