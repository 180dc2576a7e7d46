"""The normal form of text, and the cutting of text into sentences and clauses."""

import builtins
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zhuyi.data import normalization
from zhuyi.data.normalization import (
    contains_han,
    count_han,
    normalize,
    simplify,
    split_clauses,
    split_sentences,
)
from zhuyi.errors import InputError

# Texts of the characters that the rules speak of meet far more of the rules than random Unicode does.
PROSE = st.text("你好蟒かカ々aBé19 \t\n\u3000,.!?:;()，。！？：；（）、\"'“”‘’《》·—…-`*​\u0301\u3099\x00\ud800ﾞ")
DENSE = st.text("你a .,…。(（) ")
ANY_TEXT = st.one_of(st.text(st.characters(codec=None, exclude_categories=())), PROSE, DENSE)


@given(ANY_TEXT)
@example("か \u3099")
@example("((你))")
@example("好. .")
@example("好. . . x")
@example("好.。。")
@example("……。。。")
@example("x! （你")
def test_normalizing_twice_is_normalizing_once(text):
    once = normalize(text)
    assert normalize(once) == once


@given(ANY_TEXT)
def test_the_normal_form_is_writable_and_has_no_controls_and_only_single_spaces(text):
    normal = normalize(text)
    normal.encode("utf-8")
    assert not [char for char in normal if unicodedata.category(char) == "Cc"]
    assert " ".join(normal.split()) == normal


def test_every_character_alone_is_stable():
    characters = (chr(code) for code in range(sys.maxunicode + 1))
    normal = {normalize(char) for char in characters if unicodedata.category(char) not in ("Cn", "Co")}
    assert [text for text in normal if normalize(text) != text] == []


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Ａ１　ｘ", "A1 x"),
        ("ﬁne", "fine"),
        ("ｱｶﾞ", "アガ"),
        ("５％＋￥３", "5%+¥3"),
        ("㎏ ℃ Ⅳ", "kg °C IV"),
        ("1½ m² 1º ™ ①", "1½ m² 1º ™ ①"),  # here the form carries the meaning
        ("don´t", "don´t"),
        ("e\u0301", "é"),
        ("\ufeffa\u200bb\u00adc\ud800d\x07e\x00", "abcde"),
        (" a\t\tb\r\nc\u2028d\x85e\xa0f ", "a b c d e f"),
        ("", ""),
        ("\u200b \x00", ""),
        ("⽔", "水"),  # a Kangxi radical
    ],
)
def test_forms_controls_and_spaces(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("你好，世界。（好！？：；）", "你好，世界。（好！？：；）"),
        ("你好,世界.", "你好，世界。"),
        ("你好!好吗?我说:好;好", "你好！好吗？我说：好；好"),
        ("你好﹐世界︒", "你好，世界。"),  # small and vertical forms
        ("3.14是圆周率, 10:30见.", "3.14是圆周率，10:30见。"),
        ("价格1,000元", "价格1,000元"),
        ("U.S.总统", "U.S.总统"),
        ("见http://a.b/c?d=e,f吧", "见http://a.b/c?d=e,f吧"),
        ("他是Tom﹖", "他是Tom？"),
        ("Tom:你好", "Tom：你好"),
        ("好..", "好……"),
        ("例子::", "例子::"),
        ("达•芬奇", "达·芬奇"),
        ("打开文件.py", "打开文件.py"),
        ("Tom,你好", "Tom，你好"),
        ("你好,Tom", "你好，Tom"),
        ('他说:"好".', '他说："好"。'),
        ("他说“hello”, 然后走了", "他说“hello”，然后走了"),
        ("等等...", "等等……"),
        ("...好", "……好"),
        ("好...! 不", "好……！不"),
        ("好。。。", "好……"),
        ("真的……", "真的……"),
        ("参数 ... 的", "参数 ... 的"),
        ("好?!", "好？！"),
        ("“他”《书》·——…", "“他”《书》·——…"),
        ("python(蟒蛇)", "python（蟒蛇）"),
        ("蟒蛇(python)", "蟒蛇（python）"),
        ("蟒蛇 (a, b) 好", "蟒蛇（a, b）好"),
        ("（abc) 你", "（abc）你"),
        ("调用foo(a, b)吧", "调用foo(a, b)吧"),
        ("你好:)", "你好:)"),
        ("你 好 吗 abc def 好", "你好吗 abc def 好"),
        ("你 “好” 吗", "你“好”吗"),
        ("好， Python 好", "好，Python 好"),
        ("これ は です!", "これはです！"),
    ],
)
def test_chinese_keeps_and_gets_full_width_punctuation(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Hello，world！", "Hello, world!"),
        ("1，000：30。", "1,000:30."),
        ("（a）；b？", "(a); b?"),
        ("“hi” ‘yo’ it’s…", "\"hi\" 'yo' it's..."),
        ("a……", "a..."),
        ("The word 面条, (noodles), is Chinese.", "The word 面条, (noodles), is Chinese."),
        ("안녕，친구", "안녕, 친구"),
    ],
)
def test_other_text_gets_ascii_punctuation(text, normal):
    assert normalize(text) == normal


@given(st.text("你a (（)）,.!“ "))
def test_brackets_stay_as_balanced_as_they_were(text):
    def narrow(chars: str) -> str:
        return chars.replace("（", "(").replace("）", ")").replace(" ", "")

    def brackets(chars: str) -> str:
        return "".join(char for char in narrow(chars) if char in "()")

    normal = normalize(text)
    assert brackets(normal) == brackets(text)
    open_widths = []
    for char in normal:
        if char in "(（":
            open_widths.append(char)
        elif char in ")）" and open_widths:
            opening = open_widths.pop()
            assert not contains_han(normal) or (opening == "（") == (char == "）") or "a" in normal


@pytest.mark.parametrize(
    "unit",
    [
        "(",
        ")",
        "(你",
        ",",
        ". ",
        "“ ",
        "。.",
        "…",
        "!",
        "\u0316\u0301",
        "\u0958" + "\u0301" * 40,
        " ",
        "\n",
        '"',
        "1.",
        "你,",
        ",a ",
    ],
)
def test_long_hostile_lines_come_through(unit):
    """A quadratic step in any rule would make this test hang."""
    run = unit * (100_000 // len(unit))
    for text in ("你" + run + "x", "ä" + run):
        normal = normalize(text)
        assert normalize(normal) == normal
        assert "".join(split_sentences(text)) == "".join(split_clauses(text)) == text


def test_han_is_told_from_other_writing():
    assert contains_han("a𠀀") and contains_han("々")
    assert not contains_han("かな한글，。a")
    assert count_han("a你b好c") == 2 and count_han("abc") == 0


def test_traditional_becomes_simplified():
    pytest.importorskip("opencc", reason="opencc (extra 'text') is not installed")
    assert simplify("漢語學習 abc") == "汉语学习 abc"


def test_simplify_without_opencc_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def without_opencc(name, *args, **kwargs):
        if name == "opencc":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    normalization._traditional_to_simplified.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_opencc)
    with pytest.raises(InputError, match=r"pip install zhuyi\[text\]"):
        simplify("漢")


@given(ANY_TEXT)
def test_pieces_joined_are_the_text(text):
    for split in (split_sentences, split_clauses):
        pieces = split(text)
        assert "".join(pieces) == text
        assert all(pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("他来了。他走了！是吗？", ["他来了。", "他走了！", "是吗？"]),
        ("他说：“好！”我走了。", ["他说：“好！”", "我走了。"]),
        ("真的？！不……是的", ["真的？！", "不……是的"]),
        ("He came. He left! Did he? Yes", ["He came. ", "He left! ", "Did he? ", "Yes"]),
        ('"Go." She left.', ['"Go." ', "She left."]),
        ("Mr. Smith met Dr. Wu, e.g. J. K. Rowling.", ["Mr. Smith met Dr. Wu, e.g. J. K. Rowling."]),
        ("Pi is 3.14. See a.b/c?d=1!x", ["Pi is 3.14. ", "See a.b/c?d=1!x"]),
        ("It was 1990. Then 1991.", ["It was 1990. ", "Then 1991."]),
        ("1. First.\n2. Second.", ["1. First.\n", "2. Second."]),
        ("e.g.\nx", ["e.g.\n", "x"]),
        ("one \n\n two", ["one \n\n ", "two"]),
        ("a != b, wait... no. Über", ["a != b, wait... no. ", "Über"]),
        ("Really!你好", ["Really!", "你好"]),
        ("", []),
        ("  ", ["  "]),
    ],
)
def test_sentences(text, pieces):
    assert split_sentences(text) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("你好，我来；他、她：走", ["你好，", "我来；", "他、", "她：", "走"]),
        ("One, two; three: 1,000 at 10:30", ["One, ", "two; ", "three: ", "1,000 at 10:30"]),
        ("“好，”他说", ["“好，”", "他说"]),
        ("", []),
    ],
)
def test_clauses(text, pieces):
    assert split_clauses(text) == pieces


def test_an_abbreviation_among_chinese_ends_no_sentence() -> None:
    assert split_sentences("今天Mr. Li来了！他很好。") == ["今天Mr. Li来了！", "他很好。"]
