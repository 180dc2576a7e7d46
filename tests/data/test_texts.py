"""Text without pairs: documents from files, and their ids on disk."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.data import texts
from zhuyi.data.dialogues import check_template, read_dialogues
from zhuyi.data.pairs import CleaningReport
from zhuyi.data.splitting import hash_key
from zhuyi.data.texts import Piece, encode_documents, open_flags, open_ids, read_documents, split_at
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from zhuyi.errors import InputError

TEXT = "One  two\n\tthree.\n\n四五\r\n六\n\n \n\nlast"


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    return str(tmp_path / "text.txt")


@pytest.fixture(scope="module", params=["byte-bpe", "character"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer([TEXT], TokenizerConfig(request.param, 300, verbatim=True))


@pytest.mark.parametrize(
    ("documents", "found"),
    [
        ("file", ["One  two\n\tthree.\n\n四五\n六\n\n \n\nlast\n"]),
        ("paragraph", ["One  two\n\tthree.", "四五\n六", "last"]),
        ("line", ["One  two", "\tthree.", "四五", "六", "last"]),
    ],
)
def test_documents(file: str, tmp_path: Path, documents: texts.Documents, found: list[str]) -> None:
    assert list(read_documents([file], documents)) == [Piece(text) for text in found]
    with gzip.open(tmp_path / "text.txt.gz", "wb") as packed:
        packed.write(TEXT.encode())
    both = read_documents([file, str(tmp_path / "text.txt.gz")], documents)
    assert [piece.text for piece in both] == found * 2


def test_a_long_document_comes_in_pieces(file: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = read_documents([file], "file")
    monkeypatch.setattr(texts, "PIECE_CHARACTERS", 3)
    pieces = list(read_documents([file], "file"))
    assert [piece.ends for piece in pieces] == [False, True]
    assert "".join(piece.text for piece in pieces) == whole.text
    assert not any(piece.text[0].isspace() for piece in pieces)
    ids = [tokenizer.encode(piece.text)[:-1] for piece in pieces]
    assert [i for part in ids for i in part] == tokenizer.encode(whole.text)[:-1]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.txt"):
        list(read_documents([str(tmp_path / "gone.txt")], "line"))


@given(
    st.lists(st.tuples(st.text("ab", min_size=1, max_size=5), st.booleans()), min_size=1, max_size=8),
    st.integers(0, 40),
)
def test_a_split_cuts_at_the_place_or_behind_the_document(parts: list[tuple[str, bool]], place: int) -> None:
    pieces = [Piece(text, ends) for text, ends in parts[:-1]] + [Piece(parts[-1][0])]
    whole = "".join(piece.text for piece in pieces)
    for within in (True, False):
        found = list(split_at(pieces, place, within_documents=within))
        assert [is_before for is_before, _ in found] == sorted((each for each, _ in found), reverse=True)
        before = [piece for is_before, piece in found if is_before]
        assert "".join(piece.text for _, piece in found) == whole
        text = "".join(piece.text for piece in before)
        if within:
            assert text == whole[:place]
        else:
            ends = np.cumsum([len(piece.text) for piece in pieces])[[piece.ends for piece in pieces]]
            assert len(text) == min((end for end in ends if end >= place), default=len(whole)) * (place > 0)
        assert not before or before[-1].ends


def test_ids_on_disk(tokenizer: Tokenizer, tmp_path: Path) -> None:
    pieces = [Piece("One ", ends=False, is_learned=False), Piece("two"), Piece("四五")]
    counts = encode_documents(tmp_path / "x.ids", pieces, tokenizer, tmp_path / "x.flags")
    ids, flags = open_ids(tmp_path / "x.ids"), open_flags(tmp_path / "x.flags")
    one, two, three = (tokenizer.encode(piece.text) for piece in pieces)
    assert ids.tolist() == [2, *one[:-1], *two, *three]
    assert flags.tolist() == [0] * len(one) + [1] * (len(two) + len(three))
    assert (counts.documents, counts.characters, counts.tokens) == (2, 9, len(ids) - 1)
    encode_documents(tmp_path / "y.ids", pieces, tokenizer)
    assert (tmp_path / "y.ids").read_bytes() == (tmp_path / "x.ids").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.flags", "x.ids", "y.ids"]


def test_a_broken_file_of_ids_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ids").write_bytes(b"12345")
    with pytest.raises(InputError, match="no whole file of ids"):
        open_ids(tmp_path / "x.ids")
    with pytest.raises(InputError, match="no whole file of ids"):
        open_ids(tmp_path / "gone.ids")


def test_of_a_dialogue_the_answer_alone_is_learned(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("你好？\t你好！\n\nno tab\n 一 \t\n再见\t 好的 \n", encoding="utf-8")
    report = CleaningReport()
    found = list(read_dialogues([str(tmp_path / "pairs.tsv")], "Q: {question}\nA: ", report=report))
    assert found == [
        Piece("Q: 你好？\nA: ", ends=False, is_learned=False),
        Piece("你好！"),
        Piece("Q: 再见\nA: ", ends=False, is_learned=False),
        Piece("好的"),
    ]
    assert (report.total, report.kept) == (5, 2)
    assert report.dropped == {"missing column": 2, "empty side": 1}


@pytest.mark.parametrize("documents", ["file", "paragraph", "line"])
def test_lines_that_stand_elsewhere_are_left_out(documents: texts.Documents, tmp_path: Path) -> None:
    """By the same comparison as pairs: case, punctuation and spaces make no difference."""
    (tmp_path / "t.txt").write_text("One two.\nthree\n\nONE, TWO!\nfour\n", encoding="utf-8")
    report = CleaningReport(things="lines")
    apart = {hash_key("one two"), hash_key("")}
    found = "".join(p.text for p in read_documents([str(tmp_path / "t.txt")], documents, apart=apart, report=report))
    assert found.replace("\n", "") == "threefour"
    assert report.summary().startswith("2 of 4 lines kept\n  2 left out: in validation or test data")


@pytest.mark.parametrize("template", ["", "Q: A: ", "{question} {question}"])
def test_a_template_has_one_place_for_the_question(template: str) -> None:
    with pytest.raises(ValueError, match="once"):
        check_template(template)
