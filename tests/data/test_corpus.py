"""What is written comes back, from a file mapped into memory; a broken file is named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhuyi.data import corpus as corpus_module
from zhuyi.data.corpus import Corpus, Encoded, encode_corpus, write_corpus
from zhuyi.errors import InputError

COLUMNS = {"source": "ids", "target": "ids", "text": "text"}
ids = st.lists(st.integers(0, 2**31 - 1), max_size=9)
rows_of_three = st.lists(st.tuples(ids, ids, st.text(st.characters(exclude_categories=["Cs"]), max_size=9)), max_size=30)


@given(rows_of_three, st.integers(1, 12))
@settings(max_examples=50)
def test_rows_come_back(tmp_path_factory, rows, rows_per_batch):
    path = tmp_path_factory.mktemp("corpus") / "a.arrow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "ROWS_PER_BATCH", rows_per_batch)
        assert write_corpus(path, COLUMNS, iter(rows)) == len(rows)
        corpus = Corpus.open(path)
        assert len(corpus) == len(rows)
        for i, (source, target, text) in enumerate(rows):
            assert corpus.ids("source", i).tolist() == source
            assert corpus.ids("target", i).tolist() == target
            assert corpus.text("text", i) == text
        assert corpus.lengths("target").tolist() == [len(row[1]) for row in rows]
        assert corpus.lengths("target").dtype == np.int32
        with pytest.raises(IndexError):
            corpus.ids("source", len(rows))
        with pytest.raises(IndexError):
            corpus.text("text", -1)
