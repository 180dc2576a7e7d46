"""One normal form of text for both sides and all languages; cutting a text into sentences and clauses."""

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator

from zhuyi.errors import InputError

_HAN = "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
# The voicing marks U+3099 and U+309A compose with what stands before them: were a space removed before one,
# a second pass would compose it and the normal form would not be stable.
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30ff\u31f0-\u31ff\u3100-\u312f\u31a0-\u31bf"
_LETTER = _HAN + _KANA
_WIDE_PUNCTUATION = "，。！？：；（）、《》〈〉「」『』【】〔〕〖〗"
_QUOTES_AND_DASHES = "“”‘’…—·"
_CJK = _LETTER + _WIDE_PUNCTUATION + _QUOTES_AND_DASHES

_WIDEN = str.maketrans(",.!?:;()", "，。！？：；（）")
_NARROW = str.maketrans(dict(zip("，。！？：；（）、“”„‟‘’‚‛", ",.!?:;(),\"\"\"\"''''", strict=True)))

# What has no width or no meaning of its own: soft hyphen, joiners, direction marks, BOM, annotation, tags.
_INVISIBLE = "\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
# \x1c-\x1f are controls too, but Python counts them as white space, and so do we.
_CONTROLS = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff"


def _expand(char_class: str) -> Iterator[int]:
    """Yield the code points of the inside of a character class."""
    for match in re.finditer("(.)-(.)|(.)", char_class, re.DOTALL):
        first, last, alone = match.groups()
        yield from (ord(alone),) if alone else range(ord(first), ord(last) + 1)


def _fold(char: str) -> str:
    """Take away what is only a form of a character: its width, its ligature, its font.

    Superscripts, fractions and circled numbers stay, for there the form carries meaning: NFKC makes "1½" of
    one and a half read as eleven halves.
    """
    kind, *parts = unicodedata.decomposition(char).split() or ("",)
    if not kind or kind in ("<super>", "<sub>", "<fraction>", "<circle>"):
        return char
    if not kind.startswith("<"):
        parts.insert(0, kind)
    elif parts[0] == "0020" and len(parts) > 1:  # a spacing accent; "don´t" must not become two words
        return char
    folded = "".join(_fold(chr(int(part, 16))) for part in parts)
    return folded.translate(_WIDEN) if kind in ("<small>", "<vertical>") else folded


def _folding_table() -> dict[int, str | None]:
    table: dict[int, str | None] = {}
    with_forms = "\xa0-\u33ff\ua640-\uabff\uf900-\uffef\U00010780-\U000107bf\U0001d400-\U0001f2ff\U0001fbf0-\U0001fbf9"
    for code in _expand(with_forms):
        folded = _fold(chr(code))
        if unicodedata.normalize("NFD", folded) != unicodedata.normalize("NFD", chr(code)):
            table[code] = folded
    for kept in "，！？：；（）…":  # these depend on the language of the text, see `_narrow` and `_widen`
        del table[ord(kept)]
    table.update(dict.fromkeys(_expand(_INVISIBLE + _CONTROLS)))
    return table


_TABLE = _folding_table()
_MAX_LENGTH_TO_TRUST = 1000
_ASCII_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
_ANY_HAN = re.compile(f"[{_HAN}]")
_ANY_LETTER = re.compile(f"[{_LETTER}]")
_LATIN_WORD = re.compile("[A-Za-z\xc0-\u024f]+")
_NEEDS_NARROWING = re.compile(f"[{''.join(map(chr, _NARROW))}…]")
_MERGED_WORDS = re.compile(r"[，。！？：；、](?=[^\W\d_])")
_NEEDS_WIDENING = re.compile(r"[,.!?:;()（）•]|。{3}|…{3}")
_BRACKET = re.compile("[()（）]")
_MARKS = re.compile(r"[,.!?:;]+")
_DOTS = re.compile(r"\.{2,}")
_BULLET_IN_NAME = re.compile(f"(?<=[{_LETTER}])•(?=[{_LETTER}])")
_ELLIPSIS = re.compile("。{3,}")
_LONG_ELLIPSIS = re.compile("…{3,}")
_LOOSE_SPACE = re.compile(f"(?<=[{_CJK}]) (?=[{_CJK}])|(?<=[{_WIDE_PUNCTUATION}]) | (?=[{_WIDE_PUNCTUATION}])")


def contains_han(text: str) -> bool:
    """Say whether a Chinese character stands in the text."""
    return _ANY_HAN.search(text) is not None


def count_han(text: str) -> int:
    """Count the Chinese characters of the text."""
    return 0 if text.isascii() else len(_ANY_HAN.findall(text))


def normalize(text: str) -> str:
    """Give the one form of a text that tokenizers, caches and comparisons see; twice is as once.

    White space of any kind becomes one space; controls, zero-width characters and lone surrogates go;
    compatibility forms become plain. Chinese text has full-width punctuation and no space between its
    characters, other text has ASCII punctuation and straight quotes.
    """
    if text.isascii():
        if _ASCII_CONTROL.search(text):
            text = _ASCII_CONTROL.sub("", text)
        return " ".join(text.split())
    text = " ".join(_compose(text.translate(_TABLE)).split())
    if not _ANY_LETTER.search(text):
        return _narrow(text) if _NEEDS_NARROWING.search(text) else text
    text = _close_up(text)
    if _NEEDS_WIDENING.search(text) and _is_mostly_cjk(text):
        text = _LONG_ELLIPSIS.sub("……", _ELLIPSIS.sub("……", _close_up(_widen(text))))
    return text


def _compose(text: str) -> str:
    """Join letters and accents; in a long text no letter has more than 30 (Unicode's stream-safe format).

    The library takes a time quadratic in the length of a run of accents: 16 seconds for a hundred thousand.
    """
    if len(text) <= _MAX_LENGTH_TO_TRUST:
        return unicodedata.normalize("NFC", text)
    return _limit_accents(unicodedata.normalize("NFC", _limit_accents(text)))


def _limit_accents(text: str) -> str:
    runs = itertools.groupby(text, key=lambda char: unicodedata.combining(char) > 0)
    return "".join("".join(itertools.islice(run, 30 if is_accent else None)) for is_accent, run in runs)


def _is_mostly_cjk(text: str) -> bool:
    """Tell a Chinese text with foreign words from a foreign text with a Chinese word."""
    return len(_ANY_LETTER.findall(text)) >= len(_LATIN_WORD.findall(text))


def _narrow(text: str) -> str:
    text = _MERGED_WORDS.sub(r"\g<0> ", text)
    return re.sub("…+", "...", text).translate(_NARROW)


def _widen(text: str) -> str:
    if _BRACKET.search(text):
        text = _widen_brackets(text)
    if _MARKS.search(text):
        text = _widen_marks(text)
    if "•" in text:
        text = _BULLET_IN_NAME.sub("·", text)
    return text


def _close_up(text: str) -> str:
    return _LOOSE_SPACE.sub("", text) if " " in text else text


def _widen_brackets(text: str) -> str:
    """Give both brackets of a pair the full width where one has it or Chinese touches one of them."""
    chars, open_at = list(text), list[int]()
    for match in _BRACKET.finditer(text):
        i = match.start()
        if text[i] in "(（":
            open_at.append(i)
        elif open_at:
            start = open_at.pop()
            # Only letters decide, which widening never changes, so that a second pass decides alike.
            neighbours = text[max(0, start - 2) : start].rstrip()[-1:] + text[start + 1] + text[i - 1]
            if _ANY_LETTER.search(neighbours) or text[start] == "（" or text[i] == "）":
                chars[start], chars[i] = "（", "）"
    return "".join(chars)


_BEFORE = re.compile(f"[{_CJK}]")
_AFTER = re.compile(f"[ \"'{_CJK}]|\\Z")


def _widen_marks(text: str) -> str:
    """Give ASCII marks between Chinese characters the full width, and dots there the Chinese ellipsis."""
    pieces: list[str] = []
    done = 0
    before = ""  # the last character before the marks that is neither a space nor a straight quote, as written out
    for match in _MARKS.finditer(text):
        marks, start, end = match[0], match.start(), match.end()
        between = text[done:start]
        before = between.rstrip(" \"'")[-1:] or before
        left = _BEFORE.match(before) is not None
        touches_left = start > 0 and between[-1:] == before and _ANY_LETTER.match(before) is not None
        touches_right = _ANY_LETTER.match(text, end) is not None
        if marks.strip(".") == "" and len(marks) > 1:
            wide = touches_left or touches_right
        elif left and _AFTER.match(text, end):
            wide = marks != "::"  # reST's sign for a literal block
        elif len(marks) == 1:
            wide = (marks in ",;!?" and (touches_left or touches_right)) or (
                marks == ":" and touches_right and start > 0
            )
        else:
            wide = False
        if wide:
            marks = _DOTS.sub("……", marks).translate(_WIDEN)
        pieces += between, marks
        before, done = marks[-1], end
    pieces.append(text[done:])
    return "".join(pieces)


@functools.cache
def _traditional_to_simplified() -> Callable[[str], str]:
    try:
        from opencc import OpenCC
    except ImportError:
        raise InputError(
            "turning traditional into simplified characters needs the package opencc, which is not here: "
            "pip install zhuyi[text]"
        ) from None
    convert: Callable[[str], str] = OpenCC("t2s").convert
    return convert


def simplify(text: str) -> str:
    """Turn traditional Chinese characters into simplified ones.

    Raises: InputError: opencc is not installed.
    """
    return _traditional_to_simplified()(text)


_CLOSERS = "\"'”’」』）)】》〉\\]"
# Each alternative starts where its run of characters starts and never gives any back (`++`): a line of a
# hundred thousand dots is read once, not once from every dot.
_SENTENCE_END = re.compile(
    f"(?<![.。！？!?…])(?P<marks>[.。！？!?…]++)(?P<closers>[{_CLOSERS}]*+)(?P<space>\\s*+)|(?<!\\s)[^\\S\n]*+\n\\s*+"
)
_LAST_WORD = re.compile(rf"(?:(?![{_CJK}])[\w.])+\Z")
_STARTS_SENTENCE = re.compile(f"[\"'“‘(\\d{_CJK}]")
_STARTS_CHINESE = re.compile(f"[{_LETTER}“‘「『]")
# Only those that seldom end a sentence: "etc." and "p.m." often do, and "no." mostly is the word.
_ABBREVIATIONS = re.compile(
    r"mr|mrs|ms|dr|prof|st|sr|jr|vs|fig|eq|vol|pp|cf|approx|dept|gen|gov|inc|ltd|corp|e\.g|i\.e|u\.[sk]"
    r"|jan|feb|aug|sept?|oct|nov|dec|bzw|ca|z\.b|d\.h|nr",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(f"(?:[，、；：]+[{_CLOSERS}]*|(?<![,;:])[,;:]++[{_CLOSERS}]*+(?=\\s))\\s*")


def split_sentences(text: str) -> list[str]:
    """Cut a text after each sentence and each line break; the pieces, joined, are the text."""
    pieces: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if _ends_sentence(match, start):
            pieces.append(text[start : match.end()])
            start = match.end()
    return [*pieces, text[start:]] if start < len(text) else pieces


def _ends_sentence(match: re.Match[str], start: int) -> bool:
    """Say whether these marks end the sentence begun at `start`: "." needs a space and a new beginning."""
    marks, closers, space = match["marks"], match["closers"], match["space"]
    if marks is None or "\n" in space:
        return True
    text, end = match.string, match.end()
    if marks.strip(".") == "":
        begins = text[end : end + 1].isupper() or _STARTS_SENTENCE.match(text, end) is not None
        return bool(space) and begins and _is_full_stop(text, start, match.start())
    if space or any(mark in marks for mark in "。！？"):
        return True
    # "走!他" is two sentences; "a!=b" and "……" within one are not.
    return not closers and marks[-1] in "!?" and _STARTS_CHINESE.match(text, end) is not None


def _is_full_stop(text: str, start: int, dot: int) -> bool:
    """Say whether the dot ends a sentence, not an abbreviation, an initial or a list number."""
    word = _LAST_WORD.search(text, max(start, dot - 20), dot)
    if word is None:
        return True
    is_list_number = word[0].isdigit() and not text[start : word.start()].strip()
    is_initial = len(word[0]) == 1 and word[0].isupper()
    return not (is_list_number or is_initial or _ABBREVIATIONS.fullmatch(word[0]))


def split_clauses(text: str) -> list[str]:
    """Cut a text after each comma, semicolon and colon between clauses; the pieces, joined, are the text."""
    ends = [match.end() for match in _CLAUSE_END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]
