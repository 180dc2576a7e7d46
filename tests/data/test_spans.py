"""Span corruption: what is taken away and what stays make up the text again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.data.spans import corrupt, corrupted_lengths, count_spans, longest_within

FIRST, EOS = 9999, 2


def draw(length: int, seed: int = 0, share: float = 0.15, mean_span: float = 3.0) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(seed)
    ids = np.arange(10, 10 + length, dtype=np.int32)
    read, written = corrupt(ids, rng, share=share, mean_span=mean_span, first_sentinel=FIRST, eos_id=EOS)
    return read.tolist(), written.tolist()


def put_together(read: list[int], written: list[int]) -> list[int]:
    """Each sign of what is read replaced by what follows the same sign in what is written."""
    found: list[int] = []
    for token in read[:-1]:
        if token > 5000:
            start = written.index(token) + 1
            found += written[start : written.index(token - 1)]
        else:
            found.append(token)
    return found


@given(st.integers(2, 300), st.integers(0, 1000), st.sampled_from([0.05, 0.15, 0.5, 0.9]), st.sampled_from([1, 3, 10]))
def test_both_sides_make_up_the_text(length: int, seed: int, share: float, mean_span: float) -> None:
    read, written = draw(length, seed, share, mean_span)
    assert (len(read), len(written)) == corrupted_lengths(length, share, mean_span)
    assert put_together(read, written) == list(range(10, 10 + length))
    _, spans = count_spans(length, share, mean_span)
    signs = [FIRST - i for i in range(spans)]
    assert [token for token in read if token > 5000] == signs
    assert [token for token in written if token > 5000] == [*signs, FIRST - spans]
    assert read[-1] == written[-1] == EOS
    assert read[0] == 10  # a text begins with what stays


def test_the_papers_share_and_length() -> None:
    """15 % in stretches of 3: of 568 tokens 85 in 28, which leaves 512 to read and makes 115 to write."""
    assert count_spans(568, 0.15, 3.0) == (85, 28)
    assert corrupted_lengths(568, 0.15, 3.0) == (512, 115)
    assert longest_within(512, 0.15, 3.0) == 568
    assert longest_within(2, 0.15, 3.0) == 0


@pytest.mark.parametrize("max_len", [5, 9, 64, 100])
def test_nothing_longer_fits(max_len: int) -> None:
    longest = longest_within(max_len, 0.15, 3.0)
    assert max(corrupted_lengths(longest, 0.15, 3.0)) <= max_len < max(corrupted_lengths(longest + 1, 0.15, 3.0))


def test_every_way_to_cut_is_as_likely() -> None:
    """Of 6 tokens 3 in 2 stretches: two places for either cut, four ways, each alike."""
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(2000):
        read, _ = draw(6, seed, 0.5, 1.5)
        counts[tuple(read)] = counts.get(tuple(read), 0) + 1
    assert len(counts) == 4
    assert all(400 < count < 600 for count in counts.values())


def test_the_same_draws_the_same() -> None:
    assert draw(100, 3) == draw(100, 3) != draw(100, 4)
