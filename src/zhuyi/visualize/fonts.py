"""A font that has Chinese, from the package that holds it, so that no machine needs one installed."""

import io
from functools import cache
from pathlib import Path

from zhuyi.errors import InputError

LATIN_FAMILY = "DejaVu Sans"  # comes with matplotlib
CHINESE_FAMILY = "Noto Sans SC"


def missing_extra(error: ImportError) -> InputError:
    """The error for a picture that the installed packages cannot draw."""
    return InputError(f'drawing needs the package {error.name}, which is not here: pip install "zhuyi[plot]"')


def chinese_font() -> Path:
    """The file of Noto Sans SC.

    Raises: InputError: the extra `plot` is not installed.
    """
    try:
        from pylopdf_fonts_zh_cn import sans_path
    except ImportError as error:
        raise missing_extra(error) from error
    return Path(sans_path())


def font_subset(text: str) -> bytes:
    """A WOFF file of the Chinese font with the glyphs of some characters alone: some hundred bytes each.

    Raises: InputError: the extra `plot` is not installed.
    """
    font_file = chinese_font()
    try:
        from fontTools.subset import Options, Subsetter, load_font, save_font
    except ImportError as error:
        raise missing_extra(error) from error
    options = Options(flavor="woff", hinting=False, layout_features=[], notdef_outline=True)
    options.recalc_timestamp = False
    subsetter = Subsetter(options)
    subsetter.populate(text=text)
    packed = io.BytesIO()
    with load_font(str(font_file), options) as font:
        subsetter.subset(font)
        save_font(font, packed, options)
    return packed.getvalue()


@cache
def _glyphs() -> frozenset[int]:
    """The characters that the two families can draw."""
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    files = findfont(LATIN_FAMILY), chinese_font()
    return frozenset(code for file in files for code in FT2Font(str(file)).get_charmap())


def drawable(text: str) -> str:
    """The text with each character that no font has (an emoji, a control character) as its code point, U+1FAE0."""
    return "".join(c if c == " " or (c.isprintable() and ord(c) in _glyphs()) else f"U+{ord(c):04X}" for c in text)
