"""Every row once, within the budget, little padding, and the same order in every process."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zhuyi.data.batches import largest, order, pad
from zhuyi.data.special_tokens import PAD_ID

lengths_of_pairs = st.integers(0, 200).flatmap(lambda n: arrays(np.int32, (n, 2), elements=st.integers(1, 90)))
budgets = st.integers(1, 600)
DATA = Path("../shared/data")


def cost(lengths: np.ndarray, rows: np.ndarray) -> int:
    """Return the padded size of a batch."""
    return len(rows) * int(lengths[rows].max())


@settings(max_examples=50, deadline=None)
@given(lengths_of_pairs, budgets, st.integers(0, 2**40), st.integers(0, 99), st.booleans(), st.sampled_from([1, 3, 8]))
def test_every_row_once_and_the_budget_kept(lengths, batch_tokens, seed, epoch, shuffle, multiple_of):
    settings = {"batch_tokens": batch_tokens, "seed": seed, "epoch": epoch}
    batches = order(lengths, **settings, shuffle=shuffle, multiple_of=multiple_of)
    rows = np.concatenate([np.zeros(0, np.int64), *batches])
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or cost(lengths, batch) <= batch_tokens
        assert len(batch) > 0
    again = order(lengths, **settings, shuffle=shuffle, multiple_of=multiple_of)
    assert [b.tolist() for b in batches] == [b.tolist() for b in again]


def test_epochs_and_seeds_differ_and_leave_the_global_state_alone():
    lengths = np.random.default_rng(0).integers(3, 40, (500, 2))
    before = np.random.get_state()[1].tolist()
    orders = [
        [b.tolist() for b in order(lengths, batch_tokens=300, seed=seed, epoch=epoch)]
        for seed, epoch in [(1, 0), (1, 1), (2, 0), (0, 1)]
    ]
    assert np.random.get_state()[1].tolist() == before
    for i in range(4):
        assert all(orders[i] != orders[j] for j in range(i))
    # Another epoch is not only the same batches in another order.
    assert {frozenset(b) for b in orders[0]} != {frozenset(b) for b in orders[1]}


def test_the_budget_is_kept_to_the_token_in_many_batches():
    lengths = np.random.default_rng(0).integers(1, 60, (20_000, 2))
    for batch_tokens in (61, 150, 333):
        batches = order(lengths, batch_tokens=batch_tokens, seed=1, epoch=0)
        assert max(cost(lengths, batch) for batch in batches) <= batch_tokens


def test_batches_come_in_random_order():
    lengths = np.random.default_rng(0).integers(3, 40, 5000)
    longest = [int(lengths[batch].max()) for batch in order(lengths, batch_tokens=300, seed=1, epoch=0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_without_shuffle_the_batches_go_from_short_to_long():
    lengths = np.random.default_rng(0).integers(3, 40, 500)
    batches = order(lengths, batch_tokens=300, seed=1, epoch=0, shuffle=False)
    longest = [int(lengths[b].max()) for b in batches]
    assert longest == sorted(longest)


def test_batches_are_a_multiple_where_they_can_be():
    lengths = np.full(1003, 10)
    sizes = sorted(len(b) for b in order(lengths, batch_tokens=300, seed=1, epoch=0, multiple_of=8))
    assert sizes == [19] + [24] * 41


def test_a_row_beyond_the_budget_is_a_batch_by_itself():
    lengths = np.array([5, 1000, 5, 5])
    batches = order(lengths, batch_tokens=20, seed=3, epoch=0)
    assert sorted(sorted(b.tolist()) for b in batches) == [[0, 2, 3], [1]]


@settings(max_examples=50, deadline=None)
@given(lengths_of_pairs.filter(len), budgets, st.integers(0, 5))
def test_no_batch_costs_much_more_than_the_largest(lengths, batch_tokens, epoch):
    tried = largest(lengths, batch_tokens)
    assert len(set(tried.tolist())) == len(tried) > 0
    assert len(tried) == 1 or cost(lengths, tried) <= batch_tokens
    for batch in order(lengths, batch_tokens=batch_tokens, seed=0, epoch=epoch):
        assert 0.9 * cost(lengths, batch) <= cost(lengths, tried)


def test_the_largest_batch_has_the_longest_rows_where_several_fill_the_budget():
    assert sorted(largest(np.array([10] * 50 + [50, 49]), 100).tolist()) == [50, 51]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(3, 9), max_size=7), max_size=5))
def test_pad(rows):
    ids, mask = pad([np.array(row, np.int32) for row in rows])
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows), default=0))
    assert ids.dtype == np.int64 and mask.dtype == bool
    for row, row_ids, row_mask in zip(rows, ids, mask, strict=True):
        assert row_ids[row_mask].tolist() == row
        assert row_mask.tolist() == [True] * len(row) + [False] * (len(row_ids) - len(row))
        assert (row_ids[~row_mask] == PAD_ID).all()


def _tatoeba() -> np.ndarray:
    with gzip.open(DATA / "tatoeba-zh-en/train.tsv.gz", "rt", encoding="utf-8") as file:
        pairs = [line.split("\t") for line in file]
    # Near enough to subwords: two characters or one word each, and the end sign.
    return np.array([[len(zh) // 2 + 2, len(en.split()) + 3] for zh, en, *_ in pairs])


def _multi30k() -> np.ndarray:
    sides = []
    for language in ("en", "de"):
        with gzip.open(DATA / f"multi30k-en-de/train.{language}.gz", "rt", encoding="utf-8") as file:
            sides.append([len(line.split()) + 3 for line in file])
    return np.array(sides).T


@pytest.mark.parametrize("read", [_tatoeba, _multi30k])
@pytest.mark.parametrize("batch_tokens", [1024, 4096])
def test_padding_of_real_data_is_under_a_tenth(read, batch_tokens):
    if not DATA.exists():
        pytest.skip(f"needs {DATA}")
    lengths = read()
    for epoch in range(3):
        batches = order(lengths, batch_tokens=batch_tokens, seed=1, epoch=epoch)
        padded = sum(len(batch) * int(lengths[batch].max(axis=0).sum()) for batch in batches)
        assert lengths.sum() > 0.9 * padded
        # Full batches too: what the budget pays for is used.
        assert len(batches) < 1.1 * lengths.max(axis=1).sum() / batch_tokens + 1


def test_one_side_needs_no_padding_where_lengths_are_plenty():
    lengths = np.random.default_rng(0).integers(3, 40, 20_000)
    batches = order(lengths, batch_tokens=1000, seed=1, epoch=0)
    assert lengths.sum() > 0.98 * sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert [b.tolist() for b in batches] == [
        b.tolist() for b in order(lengths[:, None], batch_tokens=1000, seed=1, epoch=0)
    ]


def test_rows_do_not_always_meet_the_same_rows():
    lengths = np.random.default_rng(0).integers(3, 9, (4000, 2))
    first, second = ({frozenset(b.tolist()) for b in order(lengths, batch_tokens=400, seed=1, epoch=e)} for e in (0, 1))
    assert len(first & second) < 0.1 * len(first)
