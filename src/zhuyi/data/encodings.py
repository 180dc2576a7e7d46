"""Text that is not UTF-8: refused by file and line, with the encoding that it is likely in."""

import re
import shlex

from zhuyi.errors import InputError

# What Chinese files that are not UTF-8 are in; where both read equally well, the first.
_CANDIDATES = ("gb18030", "big5")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_HIGH = re.compile(r"[^\x00-\x7f]")
# What else reads well in the first, by the share of its own signs, and from how many on: Chinese ones may be hangul.
_OTHERS = (("euc_kr", re.compile("[가-힣]"), 0.95, 8), ("euc_jp", re.compile("[ぁ-ヿ]"), 0.3, 1))
# Text that is read in the wrong one of the two has few of its signs among the most used ones of either.
_LEAST_SHARE = 0.8


def likely_encoding(line: bytes) -> str | None:
    """The encoding that bytes which are not UTF-8 read well in, as iconv names it; None where none stands out."""
    if line.startswith(_UTF16_MARKS):
        return "utf-16"
    if any(_is_of(line, *other) for other in _OTHERS):
        return None
    shares = {name: _share_of_frequent(line, name) for name in _CANDIDATES}
    best = max(_CANDIDATES, key=shares.__getitem__)
    return best if shares[best] >= _LEAST_SHARE else None


def not_utf8(path: str | None, number: int, line: bytes) -> InputError:
    """What to raise for a line, counted from 1, that is not UTF-8.

    Args: path: a file, gzipped if its name ends in .gz; None: standard input.
    """
    name, unpack, file = ("standard input", "", "") if path is None else (path, "", f" {shlex.quote(path)}")
    if name.endswith(".gz"):
        unpack, file = f"gunzip -c{file} | ", ""
    found = likely_encoding(line)
    if found is None:
        return InputError(
            f"{name}: line {number} is not UTF-8; convert the text first ({unpack}iconv -f ENCODING -t utf-8{file}) "
            f"or leave out what cannot be read ({unpack}iconv -c -f utf-8 -t utf-8{file})"
        )
    return InputError(
        f"{name}: line {number} is not UTF-8, and reads well as {found}; convert the text first: "
        f"{unpack}iconv -f {found} -t utf-8{file}"
    )


def _is_of(line: bytes, encoding: str, own: re.Pattern[str], share: float, least: int) -> bool:
    try:
        signs = _HIGH.findall(line.decode(encoding))
    except UnicodeDecodeError:
        return False
    return len(signs) >= least and len(own.findall("".join(signs))) >= share * len(signs)


def _share_of_frequent(line: bytes, encoding: str) -> float:
    """Of what is not ASCII, how much is punctuation or among the encoding's most used characters."""
    try:
        signs = _HIGH.findall(line.decode(encoding))
    except UnicodeDecodeError:
        return 0.0
    frequent = sum(_is_frequent(sign, encoding) for sign in signs)
    return frequent / len(signs) if frequent > 1 else 0.0  # a single one is as likely a degree sign and a C


def _is_frequent(sign: str, encoding: str) -> bool:
    """Both standards put their most used characters first, and punctuation before these."""
    code = sign.encode(encoding)
    last = 0xD7 if encoding == "gb18030" else 0xC6
    return len(code) == 2 and 0xA1 <= code[0] <= last and (encoding == "big5" or code[1] >= 0xA1)
