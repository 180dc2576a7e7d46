"""Attention maps as one HTML file, to point at words and see where they look."""

import base64
import struct
import zlib
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from zhuyi.atomic import replacing_named
from zhuyi.data.audio import SAMPLE_RATE_HZ
from zhuyi.predict import PictureMaps, SoundMaps, TextMaps
from zhuyi.visualize.place_maps import PlaceMaps, choose_place, places
from zhuyi.visualize.web_page import self_contained

WAVE_POINTS = 1000
Shown = TextMaps | SoundMaps | PictureMaps


def write_page(
    maps: Shown,
    path: str | Path,
    *,
    place: str = "",
    layer: int | None = None,
    head: int | None = None,
    rolled: bool = False,
) -> None:
    """Write the page: point at a word and see where it looks, in each layer and head.

    Args:   place, layer, head, rolled: what the page shows first, as in `draw_maps`.
    Raises: InputError: there is no such place, layer or head.
    """
    data = page_data(maps, place=place, layer=layer, head=head, rolled=rolled)
    template = files("zhuyi.visualize").joinpath("attention_page.html").read_text(encoding="utf-8")
    page = self_contained(template, ["attention.js", "language.js"], data)
    with replacing_named(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def page_data(
    maps: Shown, *, place: str = "", layer: int | None = None, head: int | None = None, rolled: bool = False
) -> dict[str, Any]:
    """What `attentionExplorer` of `web/attention.js` shows, as JSON can hold it; a weight is a byte, weight * 255.

    How an answer came about is told where the maps tell it (`attention(..., steps=True)`).

    Args:   place, layer, head, rolled: what is shown first, as in `draw_maps`.
    Raises: InputError: there is no such place, layer or head.
    """
    found = places(maps)
    chosen = choose_place(found, place, rolled=rolled)
    chosen.head(layer, head)
    number = -1 if rolled else (layer or len(chosen.layers)) - 1
    data: dict[str, Any] = {
        "first": {"place": chosen.place, "layer": number, "head": (head or 0) - 1},
        "places": [_place(each) for each in found],
        "weights": _packed([weights for each in found for weights in _weights(each)]),
    }
    if isinstance(maps, TextMaps):
        beam = [[_rounded(asdict(each)) for each in step] for step in maps.beam]
        sides = (maps.source_tokens, maps.target_tokens, maps.read_tokens)
        return data | _texts(*sides) | {"likely": _likely(maps.likely), "beam": beam}
    if isinstance(maps, SoundMaps):
        sides = ((), maps.tokens, maps.read_tokens)
        return data | _texts(*sides) | {"likely": _likely(maps.likely), "sound": _sound(maps.samples)}
    return data | _texts((), (), ()) | {"picture": _picture(maps)}


def _place(maps: PlaceMaps) -> dict[str, Any]:
    heads, rows, columns = maps.layers[0].shape
    sizes = {"layers": len(maps.layers), "heads": heads, "rows": rows, "columns": columns}
    return {"place": maps.place, **sizes, "rollout": _has_rollout(maps)}


def _has_rollout(maps: PlaceMaps) -> bool:
    # A text's decoder reads as many tokens as it writes; after a prefix, rows and columns are not the same tokens.
    return maps.place != "cross" and len(maps.layers) > 1 and maps.layers[0].shape[1] == maps.layers[0].shape[2]


def _weights(maps: PlaceMaps) -> list[np.ndarray]:
    return [*maps.layers, *([maps.rollout()] if _has_rollout(maps) else [])]


def _packed(weights: list[np.ndarray]) -> str:
    as_bytes = b"".join(np.rint(each * 255).astype(np.uint8).tobytes() for each in weights)
    return base64.b64encode(zlib.compress(as_bytes, 9)).decode("ascii")


def _texts(source: tuple[str, ...], target: tuple[str, ...], read: tuple[str, ...]) -> dict[str, list[str]]:
    return {"source": list(source), "target": list(target), "read": list(read)}


def _likely(steps: tuple[tuple[tuple[str, float], ...], ...]) -> list[list[list[Any]]]:
    return [[[token, round(probability, 5)] for token, probability in step] for step in steps]


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def _sound(samples: np.ndarray) -> dict[str, Any]:
    """The wave as the lowest and the highest sample of each of many stretches, from -100 to 100."""
    parts = np.array_split(samples, min(WAVE_POINTS, len(samples)))
    loudest = float(np.abs(samples).max()) or 1.0
    wave = [[round(float(100 * edge / loudest)) for edge in (part.min(), part.max())] for part in parts]
    return {"seconds": len(samples) / SAMPLE_RATE_HZ, "frameSeconds": 0.02, "wave": wave}


def _picture(maps: PictureMaps) -> dict[str, Any]:
    address = "data:image/png;base64," + base64.b64encode(_png(maps.pixels)).decode("ascii")
    answer = {"label": maps.answer.label, "probability": round(maps.answer.probability, 5)}
    grid = {"rows": maps.grid[0], "columns": maps.grid[1], "prefix": maps.num_prefix_tokens}
    return {"address": address, **grid, "answer": answer}


def _png(pixels: np.ndarray) -> bytes:
    """A PNG of grey or coloured pixels, unfiltered: no need of another package. Shape: (S, S, C) uint8."""
    height, width, channels = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
