"""Which tokens are one word: by spaces, by WordPiece's sign, by a dictionary of Chinese."""

import pytest
import tokenizers

from zhuyi.data.tokenizers import Signs, Tokenizer, TokenizerConfig, train_tokenizer
from zhuyi.data.whole_words import chinese_segmenter, word_numbers


def groups(labels: list[str], **options: object) -> list[str]:
    """The words as strings, of their tokens joined by +."""
    numbers = word_numbers(labels, **options)  # type: ignore[arg-type]
    words: dict[int, list[str]] = {}
    for number, label in zip(numbers, labels, strict=True):
        words.setdefault(number, []).append(label)
    assert list(words) == list(range(len(words)))
    return ["+".join(word) for word in words.values()]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["▁un", "believ", "able", "▁day", "."], ["▁un+believ+able", "▁day", "."]),
        (["▁don", "'", "t", "▁2", "0", "▁a"], ["▁don", "'", "t", "▁2", "0", "▁a"]),
        (["▁", "h", "i", "▁", "y", "o", "!"], ["▁", "h+i", "▁", "y+o", "!"]),  # single characters
        (["今天", "天", "气", "ok", "好"], ["今天", "天", "气", "ok", "好"]),
        ([], []),
    ],
)
def test_pieces_of_a_word_go_together(labels: list[str], expected: list[str]) -> None:
    assert groups(labels) == expected


def test_wordpiece_says_what_goes_on() -> None:
    labels = ["the", "cat", "un", "##believ", "##able", ".", "今", "天"]
    assert groups(labels, wordpiece=True) == ["the", "cat", "un+##believ+##able", ".", "今", "天"]


def test_headings_of_markdown_do_not_make_a_tokenizer_wordpiece() -> None:
    """A piece such as ### is of the text; only the kind of the tokenizer tells."""
    text = ["### one", "### two", "#### three"] * 9
    for kind, size in (("byte-bpe", 270), ("bpe", 40), ("unigram", 40), ("character", 40)):
        tokenizer = train_tokenizer(text, TokenizerConfig(kind, size))  # type: ignore[arg-type]
        assert not tokenizer.is_wordpiece
        if kind == "byte-bpe":
            assert any(piece.startswith("##") and len(piece) > 2 for piece in tokenizer.pieces)
    vocabulary = {piece: i for i, piece in enumerate(["[UNK]", "un", "##able", "</s>"])}
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    assert Tokenizer(library, Signs(0, 0, 3, 0)).is_wordpiece


def test_a_segmenter_joins_characters_to_words() -> None:
    words = {"今天天气真好": ["今天", "天气", "真好"], "很好": ["很好"]}
    labels = ["今", "天", "天气", "真", "好", "，", "很", "好", "▁ok"]
    assert groups(labels, segmenter=words.__getitem__) == ["今+天", "天气", "真+好", "，", "很+好", "▁ok"]


def test_a_token_that_reaches_across_a_word_goes_with_both() -> None:
    assert groups(["今", "天天", "气"], segmenter=lambda text: ["今天", "天气"]) == ["今+天天+气"]


def test_the_real_segmenter_knows_words() -> None:
    pytest.importorskip("rjieba", reason="needs the extra text")
    assert groups(list("酒店服务很好"), segmenter=chinese_segmenter())[:2] == ["酒+店", "服+务"]
