"""Times within texts: the rules are those of transformers, and what they cut out is found again."""

from typing import Any

import pytest
import torch

from zhuyi.data.speech_signs import SpeechSigns
from zhuyi.decoding import FOR_EVER, Request, Rows
from zhuyi.tasks.times import SuppressFirst, TimeRules, read_times

SIGNS = SpeechSigns(start=10, end=9, languages={}, no_times=11, first_time=12)  # ids 12 .. 31 are times
VOCAB = 32


def rows_of(written: list[list[int]]) -> Rows:
    rows = Rows(1, torch.device("cpu"))
    rows.join([Request(i, (), 50) for i in range(len(written))])
    for column in zip(*written, strict=True):
        rows.append(torch.tensor(column))
    return rows


@pytest.mark.peers
def test_rules_are_those_of_transformers() -> None:
    processors = pytest.importorskip("transformers.generation.logits_process", reason="needs the extra peers")

    class Config:
        no_timestamps_token_id, eos_token_id, bos_token_id, max_initial_timestamp_index = 11, 9, 9, 5

    config: Any = Config()
    theirs = processors.WhisperTimeStampLogitsProcessor(config, begin_index=3)
    generator = torch.Generator().manual_seed(0)
    for length in (0, 1, 2, 3, 5):
        for _ in range(40):
            texts = torch.randint(0, 9, (4, length), generator=generator)
            is_time = torch.rand(4, length, generator=generator) < 0.5
            times = torch.sort(torch.randint(12, 31, (4, length), generator=generator), dim=1).values
            written = torch.where(is_time, times, texts)
            logits = 3 * torch.randn(4, VOCAB, generator=generator)
            expected = theirs(torch.cat([torch.full((4, 3), 10), written], dim=1), logits.clone())
            TimeRules(SIGNS, 0.1)(logits, rows_of(written.tolist()))
            assert torch.equal(logits, expected)


def test_a_text_begins_with_an_early_time_and_goes_forward() -> None:
    rules = TimeRules(SIGNS, 0.1)
    logits = torch.zeros(1, VOCAB)
    rules(logits, rows_of([[]]))
    assert logits[0].isfinite().nonzero()[:, 0].tolist() == list(range(12, 18))
    logits = torch.zeros(1, VOCAB)
    logits[0, :9] = 9.0  # words are likely
    rules(logits, rows_of([[14, 3]]))
    assert logits[0, 12:15].isneginf().all() and logits[0, 15:].isfinite().all()
    logits = torch.zeros(1, VOCAB)
    rules(logits, rows_of([[14, 3, 16]]))  # its second, or the end
    assert logits[0].isfinite().nonzero()[:, 0].tolist()[:1] in ([9], [16])
    assert logits[0, :9].isneginf().all() and logits[0, 12:16].isneginf().all()


def test_likely_times_together_beat_one_word() -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, 3] = 1.0
    TimeRules(SIGNS, 1.0)(logits, rows_of([[12, 3]]))
    assert logits[0, :12].isneginf().all()


def test_what_no_text_begins_with() -> None:
    logits = torch.zeros(1, VOCAB)
    SuppressFirst([3, 4])(logits, rows_of([[]]))
    assert logits.isneginf().nonzero()[:, 1].tolist() == [3, 4]
    logits = torch.zeros(1, VOCAB)
    SuppressFirst([3, 4])(logits, rows_of([[1]]))
    assert logits.isfinite().all()


def test_it_is_known_ahead_where_all_or_none_begin() -> None:
    """In a batch of both it is not."""
    rows = rows_of([[], []])
    assert SuppressFirst([3, 4]).foresee(rows) == (1, (3, 4))
    rows.append(torch.tensor([1, 1]))
    assert SuppressFirst([3, 4]).foresee(rows) == (FOR_EVER, ())
    rows.join([Request(2, (), 50)])
    assert SuppressFirst([3, 4]).foresee(rows) is None
    assert SuppressFirst([]).foresee(rows) == (FOR_EVER, ())


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        ([12, 1, 2, 14, 14, 3, 17], [(0.0, 0.04, (1, 2)), (0.04, 0.1, (3,))]),
        ([13, 1], [(0.02, 0.2, (1,))]),  # no second time: up to the end
        ([12, 1, 31], [(0.0, 0.2, (1,))]),  # none beyond the sound
        ([1, 2], [(0.0, 0.2, (1, 2))]),
        ([12, 12], []),
    ],
)
def test_segments_between_times(tokens: list[int], found: list[Any]) -> None:
    segments = list(read_times(tokens, SIGNS, 0.2))
    assert [words for _, _, words in segments] == [words for _, _, words in found]
    for (start, end, _), (first, last, _) in zip(segments, found, strict=True):
        assert (start, end) == pytest.approx((first, last))
