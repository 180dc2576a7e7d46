"""Codes of languages, and texts that cannot be in one."""

import pytest

from zhuyi.errors import InputError
from zhuyi.tasks.languages import cannot_be_in, canonical, check_code, name_of


@pytest.mark.parametrize("code", ["zh", "en", "yue", "src", "zh-Hant", "pt_BR", "sr-Latn-RS", "ZH-CN", "de-1996"])
def test_codes(code: str) -> None:
    check_code(code, "--source")


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("chinese", "did you mean zh?"),
        ("Chinees", "did you mean zh?"),
        ("英文", "did you mean en?"),
        ("cn", "did you mean zh?"),
        ("jp", "did you mean ja?"),
        ("klingonish", "such codes are zh, en, de, fr, ja, or zh-Hant, pt-BR"),
        ("z", "such codes are"),
        ("zh-", "did you mean|such codes are"),
    ],
)
def test_what_is_no_code_is_refused_with_a_hint(code: str, hint: str) -> None:
    with pytest.raises(InputError, match=rf"^--source {code}: no language code, .*({hint})"):
        check_code(code, "--source")


def test_names_of_codes() -> None:
    assert [canonical(code) for code in ("zh_CN", "ZH-Hans", "zh-TW", "en")] == ["zh", "zh", "zh-tw", "en"]
    assert (name_of("zh-CN"), name_of("xx")) == ("Chinese", "xx")


@pytest.mark.parametrize(
    ("texts", "language", "what"),
    [
        (["Hello"], "zh", "has no Chinese characters"),
        (["Hello", "你好", "Good morning"], "zh-Hans", "has no Chinese characters"),
        (["你好"], "en", "is in Chinese characters"),
        (["我的iPhone坏了"], "en", "is in Chinese characters"),
        (["你好，Tom"], "zh", ""),
        (["OK", "3 km", "!!!"], "zh", ""),
        (["Hello", "你好"], "zh", ""),
        (["The sign 木 means wood"], "en", ""),
        (["Hello"], "en", ""),
        (["Hello"], "de", ""),
        (["漢字"], "ja", ""),
        ([], "zh", ""),
        ([""], "en", ""),
    ],
)
def test_a_script_that_the_language_has_not(texts: list[str], language: str, what: str) -> None:
    assert cannot_be_in(texts, language) == what
