import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.decoding import is_translatable, max_output_tokens, repeats, trim_repetition

prefixes = st.lists(st.integers(100, 109), max_size=6)


@given(prefix=prefixes, period=st.integers(3, 8), times=st.integers(4, 9), over=st.integers(0, 7))
def test_a_loop_is_cut_to_one_period(prefix, period, times, over):
    group = list(range(period))
    looped = group * times + group[: over % period]
    assert trim_repetition(prefix + looped) == (prefix + group, True)


@given(prefix=prefixes, period=st.integers(1, 8))
def test_a_loop_begins_where_it_is_said_to(prefix, period):
    group, limit = list(range(period)), 8 if period <= 2 else 4
    assert trim_repetition(prefix + group * (limit - 1)) == (prefix + group * (limit - 1), False)
    assert trim_repetition(prefix + group * limit) == (prefix + group, True)
    assert trim_repetition(prefix + group * (limit + 3), allowed_repeats=4)[1] is False
    assert trim_repetition(prefix + group * (limit + 4), allowed_repeats=4) == (prefix + group, True)


def test_only_the_tail_counts():
    tokens = [5] * 50 + [1, 2, 3]
    assert trim_repetition(tokens) == (tokens, False)
    assert trim_repetition([]) == ([], False)
    assert trim_repetition(list(range(9)) * 9) == (list(range(9)) * 9, False)


@pytest.mark.parametrize(
    ("tokens", "count"),
    [
        ([], 0),
        ([1], 0),
        ([1, 2, 3], 0),
        ([1, 1], 2),
        ([9, 1, 1, 1, 9], 3),
        ([1, 2, 1, 2, 1], 2),
        ([1, 2, 1, 2, 1, 2], 3),
    ],
)
def test_repeats_are_counted(tokens, count):
    assert repeats(tokens) == count


@given(prefix=prefixes, period=st.integers(1, 8), times=st.integers(2, 9))
def test_what_the_input_repeats_the_output_may(prefix, period, times):
    tokens = prefix + list(range(period)) * times
    assert repeats(tokens) >= times
    assert trim_repetition(tokens, allowed_repeats=repeats(tokens)) == (tokens, False)


def test_output_is_bounded_by_the_input_and_by_the_positions():
    assert max_output_tokens(0, 100) == 10
    assert max_output_tokens(7, 100) == 24
    assert max_output_tokens(70, 100) == 100
    assert max_output_tokens(70, 0) == 1


@pytest.mark.parametrize("text", ["你好。", "a", "7", "Ⅷ", "…я", "👍 ok", "é", "e\u0301", "한", "١", "〇", "々"])
def test_words_and_numbers_are_translatable(text):
    assert is_translatable(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\u3000\t\n",
        "。！？",
        "...",
        "（）",
        "👍",
        "👩‍👩‍👧",
        "🇨🇳",
        "1️⃣",
        "€ + ±",
        "\ufeff",
        "\x00\x07",
        "\u200b",
        "\ud800",
    ],
)
def test_signs_alone_are_not(text):
    assert not is_translatable(text)
