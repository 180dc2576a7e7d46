import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.errors import InputError
from zhuyi.visualize import figures
from zhuyi.visualize.fonts import chinese_font, drawable, font_subset

PUNCTUATION = "，。！？：；（）、《》“”‘’…—￥"


def gb_2312() -> str:
    cells = (bytes([row, cell]) for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF))
    return b"".join(cells).decode("gb2312", errors="ignore")


def test_the_font_has_all_characters_of_gb_2312() -> None:
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(chinese_font()))
    assert len(gb_2312()) == 6763
    assert [c for c in gb_2312() + PUNCTUATION if font.get_char_index(ord(c)) == 0] == []


def test_a_subset_holds_what_is_asked_and_little_else() -> None:
    from fontTools.ttLib import TTFont

    packed = font_subset("注意力，猫")
    with TTFont(io.BytesIO(packed)) as font:
        assert {chr(code) for code in font.getBestCmap()} == set("注意力，猫")
    assert packed[:4] == b"wOFF"
    assert len(packed) < 5000


def test_a_subset_is_the_same_each_time() -> None:
    assert font_subset("注意") == font_subset("注意")


@pytest.mark.parametrize("package", ["pylopdf_fonts_zh_cn", "fontTools.subset"])
def test_a_missing_extra_says_how_to_install_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r'pip install "zhuyi\[plot\]"'):
        font_subset("注意")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("你好, world. $x_1$ 請 é あ", "你好, world. $x_1$ 請 é あ"),
        ("a🫠b", "aU+1FAE0b"),
        ("line\nend\t", "lineU+000AendU+0009"),
        ("\ud83d", "U+D83D"),
        ("\u200b", "U+200B"),
    ],
)
def test_what_no_font_has_is_shown_by_its_code(text: str, shown: str) -> None:
    assert drawable(text) == shown


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_what_is_drawable_stays_so(text: str) -> None:
    assert drawable(drawable(text)) == drawable(text)


def test_matplotlib_is_left_as_it_was() -> None:
    import matplotlib
    from matplotlib.font_manager import fontManager

    settings, fonts = dict(matplotlib.rcParams), list(fontManager.ttflist)
    with pytest.raises(KeyError), figures.style():
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans", "Noto Sans SC"]
        raise KeyError
    assert dict(matplotlib.rcParams) == settings
    assert fontManager.ttflist == fonts


def test_a_user_s_style_does_not_reach_the_pictures() -> None:
    import matplotlib

    with matplotlib.rc_context({"figure.facecolor": "black"}), figures.style():
        assert matplotlib.rcParams["figure.facecolor"] == "white"
