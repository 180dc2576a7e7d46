"""Which words belong together."""

import numpy as np
import pytest
import torch

from zhuyi.errors import InputError
from zhuyi.predict import TextMaps
from zhuyi.predict.alignment import align, word_tokens

SOURCE = ("我", "昨天", "买", "了", "书", "</s>")
TARGET = ("▁Yes", "ter", "day", "▁I", "▁", "bought", ".", "</s>")


def maps_with(weights: np.ndarray, layers: int = 1) -> TextMaps:
    """Of the last layer two heads, whose mean is `weights`; of the others none that says anything."""
    tensor = torch.tensor(weights, dtype=torch.float32)
    last = torch.stack([tensor * 0.5, tensor * 1.5])
    maps = {f"decoder.{i}.cross": torch.full_like(last, 0.1) for i in range(layers)}
    return TextMaps(SOURCE, TARGET, maps | {f"decoder.{layers - 1}.cross": last})


@pytest.fixture
def weights() -> np.ndarray:
    found = np.full((len(TARGET), len(SOURCE)), 0.01)
    for target, source in ((0, 1), (1, 1), (2, 0), (3, 0), (4, 4), (5, 2), (6, 2), (7, 5)):
        found[target, source] = 0.6
    found[5, 2] = 0.7
    found[:, 5] = 0.8  # most of it goes to the end sign, which says nothing
    return found


def test_words_are_aligned(weights: np.ndarray) -> None:
    found = align(maps_with(weights))
    assert found.source == ("我", "昨天", "买", "了", "书")
    assert found.target == ("Yesterday", "I", "bought", ".")
    assert str(found) == "0-1 1-0 2-2 2-3"


def test_a_word_has_what_all_its_tokens_have() -> None:
    weights = torch.tensor([[[0.3, 0.3, 0.4, 0.0], [0.0, 0.0, 0.0, 1.0]]])
    maps = TextMaps(("▁to", "day", "▁rain", "</s>"), ("雨", "</s>"), {"decoder.0.cross": weights})
    assert str(align(maps)) == "0-0"
    assert str(align(maps, words=False)) == "2-0"


def test_only_what_holds_from_both_sides(weights: np.ndarray) -> None:
    assert str(align(maps_with(weights), mutual=True)) == "0-1 1-0 2-2"


def test_tokens_are_aligned(weights: np.ndarray) -> None:
    found = align(maps_with(weights), words=False)
    assert found.target == ("Yes", "ter", "day", "I", "▁", "bought", ".")
    assert str(found) == "0-2 0-3 1-0 1-1 2-5 2-6 4-4"


def test_the_last_layer_unless_another_is_named(weights: np.ndarray) -> None:
    maps = maps_with(weights, layers=3)
    assert str(align(maps)) == "0-1 1-0 2-2 2-3"
    assert str(align(maps, layer=1)) == "0-0 0-1 0-2 0-3"  # all alike: the first
    assert align(maps, head=2) == align(maps)
    for wrong, message in (({"layer": 4}, "no layer 4"), ({"head": 3}, "no head 3"), ({"layer": 0}, "no layer 0")):
        with pytest.raises(InputError, match=message):
            align(maps, **wrong)


def test_a_model_that_looks_at_no_other_text_aligns_nothing() -> None:
    with pytest.raises(InputError, match="looks from one text into another"):
        align(TextMaps(("a",), ("b",), {"encoder.0.self": torch.ones(1, 1, 1)}))


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("▁We", "▁saw", "▁3", "0", "▁cats", "!"), [[0], [1], [2, 3], [4], [5]]),
        (("t", "w", "o", "▁", "o", "n", "e", "."), [[0, 1, 2], [4, 5, 6], [7]]),
        (("我们", "在", "家", "，"), [[0], [1], [2], [3]]),
        (("▁You", "T", "ube", "上", "的"), [[0, 1, 2], [3], [4]]),
        (("▁", "▁"), []),
    ],
)
def test_words_are_what_no_space_divides(tokens: tuple[str, ...], words: list[list[int]]) -> None:
    assert word_tokens(tokens) == words
