"""Languages: their codes and names, and whether a text can be in the language that a model reads."""

import difflib
import re
from collections.abc import Sequence

from zhuyi.data.normalization import contains_han, count_han
from zhuyi.errors import InputError

# What a run calls zh is simplified Chinese, by whatever name a client asks for it.
ALIASES = {name: "zh" for name in ("zh-hans", "zh-cn", "zh-sg", "zh-hans-cn", "zh-hans-sg", "cmn", "cmn-hans")}
NAMES = {
    "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan",
    "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "eo": "Esperanto",
    "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "ga": "Irish", "gl": "Galician", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian",
    "hy": "Armenian", "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian",
    "kk": "Kazakh", "km": "Khmer", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian",
    "mn": "Mongolian", "ms": "Malay", "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian",
    "sq": "Albanian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu",
    "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek",
    "vi": "Vietnamese", "zh": "Chinese", "zh-hant": "Chinese (traditional)",
}  # fmt: skip
_CODE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,8})*")
# Of countries, where their language has another and no language has this one.
_COUNTRIES = {"cn": "zh", "cz": "cs", "dk": "da", "gr": "el", "jp": "ja"}
_OWN_NAMES = {
    "中文": "zh",
    "汉语": "zh",
    "英文": "en",
    "英语": "en",
    "mandarin": "zh",
    "deutsch": "de",
    "日文": "ja",
    "日语": "ja",
}
_LETTERS = re.compile(r"[^\W\d_]")
# Fewer letters than these are a name or a unit in any language.
_FEWEST_LETTERS = 4


def canonical(code: str) -> str:
    """A language's code as runs name it."""
    code = code.strip().replace("_", "-").lower()
    return ALIASES.get(code, code)


def name_of(code: str) -> str:
    """A language's name in English; its code, where it is none of the known ones."""
    return NAMES.get(canonical(code), code)


def check_code(code: str, where: str) -> None:
    """Refuse what is no language's code: two or three letters, and after a hyphen whatever BCP 47 has there.

    Args:   where: the option or key that it was given by.
    Raises: InputError: with the code that was likely meant.
    """
    plain = code.strip().lower().replace("_", "-")
    if _CODE.fullmatch(plain) and plain not in _COUNTRIES:
        return
    codes = _OWN_NAMES | {name.lower(): code for code, name in NAMES.items()}
    near = difflib.get_close_matches(plain, codes, n=1, cutoff=0.8)
    meant = _COUNTRIES.get(plain) or (codes[near[0]] if near else None)
    hint = f"did you mean {meant}?" if meant else "such codes are zh, en, de, fr, ja, or zh-Hant, pt-BR"
    raise InputError(f"{where} {code[:40]}: no language code, which has two or three letters (BCP 47); {hint}")


def cannot_be_in(texts: Sequence[str], language: str) -> str:
    """What most of some texts show against their being in a language, as the end of a sentence; empty where nothing.

    A Chinese character counts as three letters. By their script alone, which is certain and costs nothing: a library
    that tells English from German takes half a second to begin, and errs on a word or two.
    """
    first = canonical(language).split("-")[0]
    if first in ("ja", "ko"):
        return ""
    letters = [(text, count) for text in texts if (count := len(_LETTERS.findall(text)))]
    if first in ("zh", "cmn", "yue", "lzh"):
        what, against = "has no Chinese characters", [n >= _FEWEST_LETTERS and not contains_han(t) for t, n in letters]
    else:
        what, against = "is in Chinese characters", [4 * count_han(text) > count for text, count in letters]
    return what if 2 * sum(against) > len(against) else ""
