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
rows_of_three = st.lists(
    st.tuples(ids, ids, st.text(st.characters(exclude_categories=["Cs"]), max_size=9)), max_size=30
)


@given(rows_of_three, st.integers(1, 12))
@settings(max_examples=30, deadline=None)
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


def test_ids_are_views_of_the_file(tmp_path):
    write_corpus(tmp_path / "a.arrow", {"source": "ids"}, [([1, 2, 3],), ([4],)])
    corpus = Corpus.open(tmp_path / "a.arrow")
    first, again = corpus.ids("source", 0), corpus.ids("source", 0)
    assert first.dtype == np.int32
    assert np.shares_memory(first, again)
    assert not first.flags.owndata and not first.flags.writeable


def test_the_same_rows_make_the_same_bytes_and_leave_nothing_else(tmp_path):
    rows = [([i, i + 1], [7] * (i % 5), "字" * (i % 3)) for i in range(100)]
    for name in "ab":
        write_corpus(tmp_path / name, COLUMNS, iter(rows))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.arrow"
    write_corpus(path, {"source": "ids"}, [([1],)])
    before = path.read_bytes()

    def rows():
        yield ([2],)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_corpus(path, {"source": "ids"}, rows())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path, share):
    path = tmp_path / "a.arrow"
    write_corpus(path, {"source": "ids"}, (([i] * 9,) for i in range(1000)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"a\.arrow is no whole corpus"):
        Corpus.open(path)


@pytest.mark.parametrize("content", [None, b"no arrow file, but some text that is long enough to be one"])
def test_a_file_of_another_form_is_named(tmp_path, content):
    path = tmp_path / "a.arrow"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.arrow is no whole corpus"):
        Corpus.open(path)


class Letters:
    """A tokenizer whose ids are the code points."""

    def encode_batch(self, texts, *, normalized=False):
        return [[ord(letter) for letter in (text if normalized else text.lower())] + [2] for text in texts]


@pytest.mark.parametrize("chunk_lines", [1, 3, 100])
def test_encode_corpus_keeps_the_order_and_drops_what_is_too_long(tmp_path, chunk_lines):
    pairs = [("Ab", "x"), ("", ""), ("abcd", "x"), ("x", "abcd"), ("abc", "xyz")]
    encoded = encode_corpus(
        tmp_path / "a", iter(pairs), Letters(), Letters(), max_len=4, normalized=True, chunk_lines=chunk_lines
    )
    assert encoded == Encoded(kept=3, too_long=2)
    corpus = Corpus.open(tmp_path / "a")
    assert [corpus.ids("source", i).tolist() for i in range(3)] == [[65, 98, 2], [2], [97, 98, 99, 2]]
    assert [corpus.text("target_text", i) for i in range(3)] == ["x", "", "xyz"]
    assert corpus.lengths("target").tolist() == [2, 1, 4]


def test_encode_corpus_normalises_unless_told_otherwise(tmp_path):
    encode_corpus(tmp_path / "a", [("A", "B")], Letters(), Letters(), max_len=4)
    assert Corpus.open(tmp_path / "a").ids("source", 0).tolist() == [97, 2]
