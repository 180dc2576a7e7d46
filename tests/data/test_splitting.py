"""The held-out part shares no sentence with the rest, and does not depend on the order of the pairs."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.data.splitting import comparison_key, hash_key, split_off

CORPORA = st.lists(st.tuples(st.integers(0, 40), st.integers(100, 160)), max_size=60)
SIZES, SEEDS = st.integers(0, 20), st.integers(0, 5)


def keys(pairs):
    table = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def held_out_set(pairs, size, seed):
    held_out = split_off(*keys(pairs), size, seed)
    return {pair for pair, out in zip(pairs, held_out, strict=True) if out}


def groups(pairs):
    """Find the connected components the slow way."""
    found = []
    for source, target in pairs:
        touching = [group for group in found if any(s == source or t == target for s, t in group)]
        found = [group for group in found if group not in touching]
        found.append([(source, target), *(pair for group in touching for pair in group)])
    return found


@given(CORPORA, SIZES, SEEDS)
def test_no_key_of_either_side_is_on_both_sides(pairs, size, seed):
    held_out = split_off(*keys(pairs), size, seed)
    for side in keys(pairs):
        assert not set(side[held_out]) & set(side[~held_out])


@given(CORPORA, SIZES, SEEDS)
def test_the_size_is_the_most_that_whole_groups_smallest_first_can_give(pairs, size, seed):
    room, expected = min(size, len(pairs) // 5), 0
    for group_size in sorted(map(len, groups(pairs))):
        if expected + group_size > room:
            break
        expected += group_size
    assert split_off(*keys(pairs), size, seed).sum() == expected


@given(CORPORA, SIZES, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_does_not_matter(pairs, size, seed, random):
    shuffled = random.sample(pairs, len(pairs))
    assert held_out_set(shuffled, size, seed) == held_out_set(pairs, size, seed)


def test_a_long_chain_stays_whole():
    chain = [(i // 2, (i + 1) // 2) for i in range(1001)]
    alone = [(10_000 + i, 10_000 + i) for i in range(5000)]
    held_out = split_off(*keys(alone + chain), 1200, seed=1)
    assert held_out.sum() == 1200 and not held_out[5000:].any()
    held_out = split_off(*keys(alone[:200] + chain), 10**9, seed=1)
    assert held_out.sum() == 200 and not held_out[200:].any()


def test_the_seed_and_the_keys_decide_which_pairs():
    pairs = [(i, i) for i in range(1000)]
    first, second = held_out_set(pairs, 100, 1), held_out_set(pairs, 100, 2)
    assert len(first) == len(second) == 100
    assert len(first & second) < 40  # 10 by chance
    assert np.std([source for source, _ in first]) > 200  # from all over


def test_pairs_added_elsewhere_barely_move_the_choice():
    pairs = [(i, i) for i in range(1000)]
    assert len(held_out_set(pairs, 100, 1) & held_out_set([*pairs, (5000, 5000)], 100, 1)) >= 99


def test_another_process_chooses_the_same():
    script = (
        "import numpy as np; from zhuyi.data.splitting import hash_key, split_off;"
        "keys = np.array([hash_key(f'Sentence {i}.') for i in range(50)], dtype=np.uint64);"
        "print(split_off(keys, keys, 10, seed=7).nonzero()[0].tolist())"
    )
    results = {
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout for _ in "12"
    }
    assert results == {"[2, 11, 13, 19, 21, 25, 28, 32, 35, 41]\n"}


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        split_off(np.zeros(3, np.uint64), np.zeros(2, np.uint64), 1, 0)
    with pytest.raises(ValueError, match="-1"):
        split_off(np.zeros(3, np.uint64), np.zeros(3, np.uint64), -1, 0)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Hello, World!", "hello world"),
        ("你好，世界。", "你好 世界"),
        ("ＡＢＣ", "abc"),
        ("It’s fine", "its fine"),
        ("Straße", "STRASSE"),
        ("don_t", "dont"),
    ],
)
def test_case_punctuation_and_spaces_do_not_count(text, same):
    assert comparison_key(text) == comparison_key(same)
    assert hash_key(text) == hash_key(same)


@pytest.mark.parametrize(
    ("text", "other"),
    [("1+1", "1-1"), ("好+1", "好-1"), ("???", "!"), ("कि", "की"), ("😀", "😢"), ("a", "b")],
)
def test_what_carries_meaning_counts(text, other):
    assert comparison_key(text) != comparison_key(other)
    assert hash_key(text) != hash_key(other)


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_a_key_is_its_own_key_and_fits_64_bits(text):
    assert comparison_key(comparison_key(text)) == comparison_key(text)
    assert 0 <= hash_key(text) < 2**64
