"""What all pictures share: their style, and how they reach the disk."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zhuyi.atomic import replacing_named
from zhuyi.visualize.fonts import CHINESE_FAMILY, LATIN_FAMILY, chinese_font, missing_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 130
INK, FAINT = "#22272e", "#c9ced6"
STYLE = {
    "font.family": [LATIN_FAMILY, CHINESE_FAMILY],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a token may be a dollar sign
}

# matplotlib's settings belong to the process; two threads that change and restore them would mix them up.
_LOCK = threading.Lock()


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw and save inside this: it gives Chinese a font, and leaves matplotlib as it was.

    Raises: InputError: the extra `plot` is not installed.
    """
    try:
        from matplotlib import style as styles
        from matplotlib.font_manager import fontManager
    except ImportError as error:
        raise missing_extra(error) from error
    with _LOCK, styles.context(["default", STYLE]):
        known = list(fontManager.ttflist)
        fontManager.addfont(chinese_font())
        try:
            yield
        finally:
            fontManager.ttflist[:] = known


def save(figure: "Figure", path: str | Path) -> None:
    """Write a PNG, cropped to what is drawn, whole or not at all."""
    with replacing_named(path) as unfinished:
        figure.savefig(
            unfinished,
            format="png",
            dpi=DOTS_PER_INCH,
            bbox_inches="tight",
            pad_inches=0.2,
            metadata={"Software": None},
        )
