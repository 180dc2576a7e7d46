"""Attention maps as one HTML file that needs nothing else: no server, no network, no installed font."""

import base64
import json
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from zhuyi.atomic import replacing
from zhuyi.errors import InputError
from zhuyi.predict import TextMaps
from zhuyi.visualize.attention_maps import choose_place, places
from zhuyi.visualize.fonts import font_subset


def write_page(
    text_maps: TextMaps,
    path: str | Path,
    *,
    place: str = "",
    layer: int | None = None,
    head: int | None = None,
) -> None:
    """Write the page: choose a place, a layer and heads, point at a token and see where it looks.

    A weight is one byte, weight * 255 rounded. Chinese has its glyphs in the file where the extra `plot` is installed;
    elsewhere the reader's own fonts are used.

    Args:   place, layer, head: what the page shows first, as in `draw_maps`.
    Raises: InputError: there is no such place, layer or head.
    """
    chosen = choose_place(text_maps, place)
    chosen.head(layer, head)
    first = {"place": chosen.place, "layer": (layer or len(chosen.layers)) - 1, "head": (head or 0) - 1}
    template = files("zhuyi.visualize").joinpath("attention_page.html").read_text(encoding="utf-8")
    font = _font(template + "".join([*text_maps.source_tokens, *text_maps.target_tokens, *text_maps.read_tokens]))
    # The data come last: what they hold is never taken for a place to fill.
    page = template.replace("@FONT@", font).replace("@DATA@", _data(text_maps, first))
    with replacing(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def _data(text_maps: TextMaps, first: dict[str, Any]) -> str:
    """JSON that is safe inside a script element, whatever the tokens are."""
    found = places(text_maps)
    weights = [np.rint(heads * 255).astype(np.uint8).tobytes() for maps in found for heads in maps.layers]
    data = {
        "first": first,
        "places": [{"place": m.place, "layers": len(m.layers), "heads": len(m.layers[0])} for m in found],
        "source": text_maps.source_tokens,
        "target": text_maps.target_tokens,
        "read": text_maps.read_tokens,
        "weights": base64.b64encode(zlib.compress(b"".join(weights), 9)).decode("ascii"),
    }
    return json.dumps(data).replace("<", "\\u003c")


def _font(text: str) -> str:
    """A style rule that holds the glyphs of the text's Chinese; none without the extra `plot`."""
    wanted = "".join(sorted({c for c in text if ord(c) > 0x2000 and not 0xD800 <= ord(c) < 0xE000}))
    try:
        packed = base64.b64encode(font_subset(wanted)).decode("ascii")
    except InputError:
        return ""
    return f'@font-face {{ font-family: "page Chinese"; src: url("data:font/woff;base64,{packed}") format("woff"); }}'
