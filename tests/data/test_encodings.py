"""Which encoding a line is likely in."""

import pytest

from zhuyi.data.encodings import likely_encoding, not_utf8


@pytest.mark.parametrize("encoding", ["gb18030", "big5"])
@pytest.mark.parametrize("text", ["你好", "他說：「今天天氣很好。」", "我明天去北京，你去不去？", "<p>人口 3.5</p>"])
def test_chinese_encodings_are_told_apart(text: str, encoding: str) -> None:
    assert likely_encoding(text.encode(encoding)) == encoding


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Müller, déjà vu", "cp1252"), ("30°C", "latin-1"), ("café noir", "latin-1"), ("“Hello” – it’s", "cp1252"),
     ("Привет", "cp1251"), ("日本語です", "shift_jis"), ("日本語です", "euc_jp"),
     ("안녕하세요, 오늘 날씨가 좋아요", "euc_kr")],
)  # fmt: skip
def test_others_are_not_guessed(text: str, encoding: str) -> None:
    assert likely_encoding(text.encode(encoding)) is None


def test_a_text_of_rare_characters_may_be_anything() -> None:
    assert likely_encoding("你好𠀀𠀁𠀂𠀃𠀄".encode("gb18030")) is None


def test_utf_8_that_was_cut_is_no_other_encoding() -> None:
    assert likely_encoding("今天天气很好，我们去公园".encode()[:-1]) is None
    assert likely_encoding(b"good \xff") is None


def test_utf_16_is_known_by_its_mark() -> None:
    assert likely_encoding("你好".encode("utf-16")) == "utf-16"


def test_a_files_name_is_quoted_in_what_to_do() -> None:
    assert str(not_utf8("my book.txt", 3, "你好".encode("gb18030"))).endswith("iconv -f gb18030 -t utf-8 'my book.txt'")
