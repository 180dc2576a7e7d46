"""Signs around texts, what is cut of those too long, and rows side by side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import number_pairs

from zhuyi.data.encoder_rows import encode_rows, encoder_row, encoder_vocab_size, mask_id, to_tensors, token_ids
from zhuyi.data.special_tokens import BOS_ID, EOS_ID
from zhuyi.data.tokenizers import Signs, Tokenizer, TokenizerConfig, train_tokenizer

TEXTS = [side for pair in number_pairs(30) for side in pair]
TOKENIZER = train_tokenizer(TEXTS, TokenizerConfig(kind="unigram", vocab_size=90))


def test_a_text_stands_between_signs() -> None:
    row = encoder_row(TOKENIZER, [7, 8], None, 10)
    assert (row.ids, row.first, row.is_cut) == ([BOS_ID, 7, 8, EOS_ID], 4, False)
    row = encoder_row(TOKENIZER, [7, 8, 9], None, 4)
    assert (row.ids, row.first, row.is_cut) == ([BOS_ID, 7, 8, EOS_ID], 4, True)


def test_of_a_pair_the_second_ends_by_a_sign_too() -> None:
    row = encoder_row(TOKENIZER, [7, 8], [9], 10)
    assert (row.ids, row.first, row.is_cut) == ([BOS_ID, 7, 8, EOS_ID, 9, EOS_ID], 4, False)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(4, 30))
def test_of_a_long_pair_the_longer_text_gives_way(first: int, second: int, max_len: int) -> None:
    a, b = list(range(10, 10 + first)), list(range(50, 50 + second))
    row = encoder_row(TOKENIZER, a, b, max_len)
    kept = [i for i in row.ids if i >= 10]
    kept_a, kept_b = [i for i in kept if i < 50], [i for i in kept if i >= 50]
    assert kept_a == a[: len(kept_a)] and kept_b == b[: len(kept_b)]
    assert len(row.ids) == min(max_len, first + second + 3)
    assert row.is_cut is (first + second + 3 > max_len)
    assert row.first == len(kept_a) + 2
    if row.is_cut:  # the shorter one is whole, or both have nearly the same
        assert min(first, second) == min(len(kept_a), len(kept_b)) or abs(len(kept_a) - len(kept_b)) <= 1


def test_texts_are_encoded_as_alone() -> None:
    for text, ids in zip(TEXTS, token_ids(TOKENIZER, TEXTS), strict=True):
        assert [*ids, EOS_ID] == TOKENIZER.encode(text)
    rows = encode_rows(TOKENIZER, TEXTS[:2], TEXTS[2:4], 100)
    first, second = (TOKENIZER.encode(text) for text in (TEXTS[1], TEXTS[3]))
    assert rows[1].ids == [BOS_ID, *first, *second]


def test_the_mask_is_the_next_id_or_the_imported_sign() -> None:
    assert mask_id(TOKENIZER) == TOKENIZER.vocab_size
    assert encoder_vocab_size(TOKENIZER) == TOKENIZER.vocab_size + 1
    imported = Tokenizer(TOKENIZER._library, Signs(mask=5))
    assert mask_id(imported) == 5
    assert encoder_vocab_size(imported) == TOKENIZER.vocab_size
    assert 5 in imported.signs.all()


def test_rows_side_by_side() -> None:
    ids, mask, segments = to_tensors([np.array([1, 7, 2, 8, 2]), np.array([1, 9, 2])], [3, 3])
    assert ids.tolist() == [[1, 7, 2, 8, 2], [1, 9, 2, 0, 0]]
    assert mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert segments.tolist() == [[0, 0, 0, 1, 1], [0] * 5]


def test_an_imported_tokenizers_own_begin_sign_is_not_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = token_ids(TOKENIZER, TEXTS[:2])
    encode = TOKENIZER.encode_batch
    monkeypatch.setattr(TOKENIZER, "encode_batch", lambda texts, normalized: [[BOS_ID, *ids] for ids in encode(texts)])
    assert token_ids(TOKENIZER, TEXTS[:2]) == expected
