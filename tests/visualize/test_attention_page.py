import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.visualize.test_web_page import Page

from zhuyi.errors import InputError
from zhuyi.predict import TextMaps
from zhuyi.visualize.attention_page import page_data, write_page

MakeMaps = Callable[..., TextMaps]


def unpacked(data: dict[str, Any]) -> list[np.ndarray]:
    """Each place's weights, (layers, heads, rows, columns)."""
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(data["weights"])), np.uint8) / 255
    found = []
    for place in data["places"]:
        shape = tuple(place[name] for name in ("layers", "heads", "rows", "columns"))
        block, numbers = np.split(numbers, [np.prod(shape)])
        found.append(block.reshape(shape))
    assert numbers.size == 0
    return found


def test_the_weights_are_in_it(text_maps: TextMaps) -> None:
    data = page_data(text_maps)
    assert [place["place"] for place in data["places"]] == ["encoder", "decoder", "cross"]
    for name, block in zip(("encoder.{}.self", "decoder.{}.self", "decoder.{}.cross"), unpacked(data), strict=True):
        for layer, weights in enumerate(block):
            np.testing.assert_allclose(weights, text_maps.maps[name.format(layer)].numpy(), atol=0.5001 / 255)
    assert (data["source"], data["target"]) == (list(text_maps.source_tokens), list(text_maps.target_tokens))
    assert data["read"] == list(text_maps.read_tokens)


def test_what_is_shown_first(text_maps: TextMaps) -> None:
    assert page_data(text_maps)["first"] == {"place": "cross", "layer": 1, "head": -1}
    chosen = page_data(text_maps, place="encoder", layer=1, head=5)["first"]
    assert chosen == {"place": "encoder", "layer": 0, "head": 4}


@pytest.mark.parametrize("first", [{"place": "x"}, {"layer": 3}, {"head": 6}])
def test_what_does_not_exist_is_an_error(first: dict[str, Any], text_maps: TextMaps, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_page(text_maps, tmp_path / "map.html", **first)
    assert list(tmp_path.iterdir()) == []


def test_the_page_holds_the_data(text_maps: TextMaps, tmp_path: Path) -> None:
    write_page(text_maps, tmp_path / "map.html", layer=1)
    page = Page((tmp_path / "map.html").read_text(encoding="utf-8"))
    assert json.loads(page.script("application/json")) == page_data(text_maps, layer=1)


@pytest.mark.parametrize(("layers", "heads", "limit"), [((4, 3), 4, 1_000_000), ((6, 6), 8, 2_000_000)])
def test_a_hundred_tokens_are_a_small_file(
    layers: tuple[int, int], heads: int, limit: int, make_maps: MakeMaps, tmp_path: Path
) -> None:
    """Of the shipped models' size, and of base: weights drawn at random are harder to pack than any model's."""
    write_page(make_maps(("猫",) * 100, ("▁cat",) * 100, layers=layers, heads=heads), tmp_path / "map.html")
    assert (tmp_path / "map.html").stat().st_size < limit
