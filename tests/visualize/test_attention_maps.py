import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.errors import InputError
from zhuyi.predict import TextMaps
from zhuyi.visualize import figures
from zhuyi.visualize.attention_maps import draw_maps, token_labels
from zhuyi.visualize.fonts import drawable
from zhuyi.visualize.place_maps import choose_place, places

MakeMaps = Callable[..., TextMaps]
Read = Callable[[Path], np.ndarray]


def test_places_have_their_tokens(text_maps: TextMaps) -> None:
    source, target = list(text_maps.source_tokens), list(text_maps.target_tokens)
    encoder, decoder, cross = places(text_maps)
    assert (encoder.place, encoder.rows, encoder.columns, len(encoder.layers)) == ("encoder", source, source, 3)
    assert (decoder.place, decoder.rows, len(decoder.layers)) == ("decoder", target, 2)
    assert decoder.columns == ["<s>", *target[:-1]]
    assert (cross.place, cross.rows, cross.columns, len(cross.layers)) == ("cross", target, source, 2)


def test_the_tenth_layer_comes_after_the_second(make_maps: MakeMaps) -> None:
    text_maps = make_maps(layers=(12, 1), heads=1)
    shuffled = dict(sorted(text_maps.maps.items()))
    shuffled_maps = TextMaps(text_maps.source_tokens, text_maps.target_tokens, shuffled)
    layers = choose_place(places(shuffled_maps), "encoder").layers
    assert [np.array_equal(layer, text_maps.maps[f"encoder.{i}.self"]) for i, layer in enumerate(layers)] == [True] * 12


def test_layers_and_heads_count_from_1(text_maps: TextMaps) -> None:
    encoder = choose_place(places(text_maps), "encoder")
    first = text_maps.maps["encoder.0.self"].numpy()
    np.testing.assert_array_equal(encoder.layer(1), first)
    np.testing.assert_array_equal(encoder.layer(None), text_maps.maps["encoder.2.self"])
    np.testing.assert_array_equal(encoder.head(1, 5), first[4])
    np.testing.assert_allclose(encoder.head(1, None), sum(first) / 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"place": "encoder", "layer": 4}, "no layer 4 in the encoder; it has 3"),
        ({"layer": 0}, "no layer 0 in the cross; it has 2"),
        ({"layer": -1}, "no layer -1"),
        ({"head": 6}, "no head 6 in the cross; a layer has 5"),
        ({"head": 0}, "no head 0"),
        ({"place": "corss"}, "'corss'; choose from encoder, decoder, cross"),
    ],
)
def test_what_does_not_exist_is_named(chosen: dict, message: str, text_maps: TextMaps, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        draw_maps(text_maps, tmp_path / "map.png", **chosen)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tokens", "labels"),
    [
        (["▁trans", "lat", "ion", "▁of", "▁it", ".", "</s>"], ["trans", "-lat", "-ion", "of", "it", ".", "</s>"]),
        (["▁don't", "▁5", "0", "%"], ["don't", "5", "-0", "%"]),
        (["看", "▁You", "T", "▁", "上", "</s>"], ["看", "You", "-T", "␣", "上", "</s>"]),
        (["<s>", "▁O", "K"], ["<s>", "O", "-K"]),
        (["c", "a", "t", "▁", "s"], ["c", "a", "t", "␣", "s"]),
        (["a🫠", "$x$"], ["aU+1FAE0", "$x$"]),
        (["", "▁▁"], ["", "␣␣"]),
        (["a", " ", "\n", "b"], ["a", "␣", "⏎", "b"]),
        ([], []),
    ],
)
def test_labels_read_like_the_text(tokens: list[str], labels: list[str]) -> None:
    assert token_labels(tokens) == labels


@given(st.lists(st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from("▁猫a"), max_size=5)))
def test_any_token_has_a_label_that_can_be_drawn(tokens: list[str]) -> None:
    labels = token_labels(tokens)
    assert len(labels) == len(tokens)
    assert [drawable(label) for label in labels] == labels


@pytest.mark.parametrize("place", ["encoder", "decoder", "cross"])
def test_a_picture_follows_the_weights(place: str, make_maps: MakeMaps, tmp_path: Path, read: Read) -> None:
    first, again, other = (tmp_path / name for name in ("first.png", "again.png", "other.png"))
    draw_maps(make_maps(seed=1), first, place=place)
    draw_maps(make_maps(seed=1), again, place=place)
    draw_maps(make_maps(seed=2), other, place=place)
    assert first.read_bytes() == again.read_bytes()
    changed = np.abs(read(first) - read(other)).max(axis=-1) > 0.1 if read(first).shape == read(other).shape else 1
    assert np.mean(changed) > 0.1
    assert min(read(first).shape[:2]) > 100


def test_rows_look_and_columns_are_looked_at(tmp_path: Path, read: Read) -> None:
    """One head that looks from row 0 at column 3, and one from row 2 at column 0: the dark cells lie so."""
    weights = torch.zeros(2, 3, 4)
    weights[0, 0, 3] = weights[1, 2, 0] = 1
    text_maps = TextMaps(tuple("甲乙丙丁"), tuple("abc"), {"decoder.0.cross": weights})
    pictures = []
    for head in (1, 2):
        draw_maps(text_maps, tmp_path / "map.png", head=head)
        pictures.append(read(tmp_path / "map.png").sum(axis=-1))
    # The titles differ by a digit: a row of pixels counts where many do.
    darker = [np.argwhere(here < there - 1) for here, there in (pictures, pictures[::-1])]
    (top, right), (bottom, left) = (np.median(cells, axis=0) for cells in darker)
    assert top < bottom
    assert left < right


def test_chinese_has_glyphs_and_nothing_is_a_formula(tmp_path: Path, make_maps: MakeMaps) -> None:
    """A missing glyph is a warning, and warnings are errors; a bad formula is an error too."""
    tokens = ("我们", "請", "，", "“", "</s>", "$_$", "\\frac", "🫠", "a\nb", "ﷺ", "한", "▁", "")
    draw_maps(make_maps(tokens, tokens, layers=(1, 1), heads=1), tmp_path / "map.png")


@pytest.mark.parametrize(("source", "target"), [(2, 2), (2, 60), (60, 2), (130, 30)])
def test_sizes_grow_with_the_tokens(source: int, target: int, make_maps: MakeMaps, tmp_path: Path, read: Read) -> None:
    draw_maps(make_maps(("猫",) * source, ("▁cat",) * target, layers=(1, 1)), tmp_path / "map.png", head=1)
    height, width = read(tmp_path / "map.png").shape[:2]
    room = 0.2 * figures.DOTS_PER_INCH  # a label of 8 points is a ninth of an inch high
    assert width > min(source, 120) * room
    assert height > min(target, 120) * room


def test_without_the_extra_nothing_is_written(missing_package: str, text_maps: TextMaps, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf'{missing_package}.*pip install "zhuyi\[plot\]"'):
        draw_maps(text_maps, tmp_path / "map.png")
    assert list(tmp_path.iterdir()) == []


def test_pyplot_and_its_global_state_are_not_used(
    text_maps: TextMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    draw_maps(text_maps, tmp_path / "map.png", head=1)
