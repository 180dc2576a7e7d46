import base64
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.visualize.test_web_page import Page

from zhuyi.errors import InputError
from zhuyi.predict import PictureMaps, SoundMaps, TextMaps
from zhuyi.predict.classifier import Classification
from zhuyi.predict.writing_steps import HeldText
from zhuyi.visualize.attention_page import page_data, write_page
from zhuyi.visualize.rollout import rollout

MakeMaps = Callable[..., TextMaps]


def unpacked(data: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Each place's weights, (layers, heads, rows, columns), and its rollout, (rows, columns)."""
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(data["weights"])), np.uint8) / 255
    found = []
    for place in data["places"]:
        shape = tuple(place[name] for name in ("layers", "heads", "rows", "columns"))
        block, numbers = np.split(numbers, [np.prod(shape)])
        rolled, numbers = np.split(numbers, [np.prod(shape[2:])]) if place["rollout"] else (None, numbers)
        found.append((block.reshape(shape), None if rolled is None else rolled.reshape(shape[2:])))
    assert numbers.size == 0
    return found


def test_the_weights_are_in_it(text_maps: TextMaps) -> None:
    data = page_data(text_maps)
    assert [place["place"] for place in data["places"]] == ["encoder", "decoder", "cross"]
    names = ("encoder.{}.self", "decoder.{}.self", "decoder.{}.cross")
    for name, (block, rolled) in zip(names, unpacked(data), strict=True):
        layers = [text_maps.maps[name.format(layer)].numpy() for layer in range(len(block))]
        np.testing.assert_allclose(block, layers, atol=0.5001 / 255)
        assert (rolled is None) == (name == "decoder.{}.cross")
        if rolled is not None:
            np.testing.assert_allclose(rolled, rollout(layers), atol=0.5001 / 255)
    assert (data["source"], data["target"]) == (list(text_maps.source_tokens), list(text_maps.target_tokens))
    assert data["read"] == list(text_maps.read_tokens)


def test_what_is_shown_first(text_maps: TextMaps) -> None:
    assert page_data(text_maps)["first"] == {"place": "cross", "layer": 1, "head": -1}
    chosen = page_data(text_maps, place="encoder", layer=1, head=5)["first"]
    assert chosen == {"place": "encoder", "layer": 0, "head": 4}


def test_how_it_came_about_is_told_where_the_maps_tell_it(text_maps: TextMaps) -> None:
    assert page_data(text_maps)["beam"] == page_data(text_maps)["likely"] == []
    held = (HeldText(0, "▁We", -0.12345678, -0.2, "open", True), HeldText(0, "</s>", -3.0, -2.5, "finished", False))
    data = page_data(replace(text_maps, beam=(held,), likely=((("▁We", 0.87654321), ("▁I", 0.1)),)))
    assert data["likely"] == [[["▁We", 0.87654], ["▁I", 0.1]]]
    assert data["beam"] == [
        [
            {"parent": 0, "token": "▁We", "log_prob": -0.1235, "score": -0.2, "state": "open", "leads": True},
            {"parent": 0, "token": "</s>", "log_prob": -3.0, "score": -2.5, "state": "finished", "leads": False},
        ]
    ]


def test_a_sound_has_its_wave_and_no_encoder() -> None:
    samples = np.sin(np.arange(16_000 * 2) / 20).astype(np.float32) / 2
    generator = torch.Generator().manual_seed(1)
    sizes = {"encoder.0.self": (100, 100), "decoder.0.self": (3, 5), "decoder.0.cross": (3, 100)}
    maps = {name: torch.rand(2, *size, generator=generator) for name, size in sizes.items()}
    maps |= {name.replace("0", "1"): weights for name, weights in maps.items()}
    data = page_data(SoundMaps(samples, ("▁a", "▁b", "</s>"), maps, ("<s>", "<|en|>", "<t>", "▁a", "▁b")))
    assert [(place["place"], place["rows"], place["columns"]) for place in data["places"]] == [
        ("decoder", 3, 5),
        ("cross", 3, 100),
    ]
    assert not any(place["rollout"] for place in data["places"])
    np.testing.assert_allclose(unpacked(data)[1][0][0], maps["decoder.0.cross"], atol=0.5001 / 255)
    assert data["sound"]["seconds"] == 2
    wave = np.array(data["sound"]["wave"])
    assert wave.shape == (1000, 2) and wave.max() == 100 and wave.min() == -100


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_comes_along(channels: int) -> None:
    from PIL import Image

    pixels = np.random.default_rng(1).integers(0, 256, (6, 6, channels)).astype(np.uint8)
    maps = {f"encoder.{i}.self": torch.rand(2, 5, 5) for i in range(2)}
    answer = Classification("cat", 0.75, {"cat": 0.75, "dog": 0.25})
    data = page_data(PictureMaps(pixels, maps, (2, 2), 1, answer), layer=1)
    picture = data["picture"]
    assert (picture["rows"], picture["columns"], picture["prefix"]) == (2, 2, 1)
    assert picture["answer"] == {"label": "cat", "probability": 0.75}
    packed = base64.b64decode(picture["address"].removeprefix("data:image/png;base64,"))
    read = np.asarray(Image.open(io.BytesIO(packed)))
    assert np.array_equal(read.reshape(pixels.shape), pixels)
    assert data["first"] == {"place": "encoder", "layer": 0, "head": -1}


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
