"""Attention maps as one HTML file, to point at words and see where they look."""

import base64
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from zhuyi.atomic import replacing
from zhuyi.predict import TextMaps
from zhuyi.visualize.attention_maps import choose_place, places
from zhuyi.visualize.web_page import self_contained


def write_page(
    text_maps: TextMaps,
    path: str | Path,
    *,
    place: str = "",
    layer: int | None = None,
    head: int | None = None,
) -> None:
    """Write the page: point at a word and see where it looks, in each layer and head.

    Args:   place, layer, head: what the page shows first, as in `draw_maps`.
    Raises: InputError: there is no such place, layer or head.
    """
    data = page_data(text_maps, place=place, layer=layer, head=head)
    template = files("zhuyi.visualize").joinpath("attention_page.html").read_text(encoding="utf-8")
    page = self_contained(template, ["attention.js", "language.js"], data)
    with replacing(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def page_data(
    text_maps: TextMaps, *, place: str = "", layer: int | None = None, head: int | None = None
) -> dict[str, Any]:
    """What `attentionExplorer` of `web/attention.js` shows, as JSON can hold it; a weight is a byte, weight * 255.

    Args:   place, layer, head: what is shown first, as in `draw_maps`.
    Raises: InputError: there is no such place, layer or head.
    """
    chosen = choose_place(text_maps, place)
    chosen.head(layer, head)
    found = places(text_maps)
    weights = [np.rint(heads * 255).astype(np.uint8).tobytes() for maps in found for heads in maps.layers]
    return {
        "first": {"place": chosen.place, "layer": (layer or len(chosen.layers)) - 1, "head": (head or 0) - 1},
        "places": [
            {"place": m.place, "layers": len(m.layers), "heads": len(m.layers[0]), "rows": m.layers[0].shape[1],
             "columns": m.layers[0].shape[2], "rollout": False}
            for m in found
        ],
        "source": list(text_maps.source_tokens),
        "target": list(text_maps.target_tokens),
        "read": list(text_maps.read_tokens),
        "weights": base64.b64encode(zlib.compress(b"".join(weights), 9)).decode("ascii"),
    }  # fmt: skip
