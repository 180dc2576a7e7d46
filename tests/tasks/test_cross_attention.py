"""Where a model in training looks: which pair, which layer, how it is written down."""

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import random_run

import zhuyi
from zhuyi.nn.maps import Maps
from zhuyi.tasks.cross_attention import CrossAttention, narrowed, of_last_layer, row_to_look_at
from zhuyi.tasks.translation import TranslationTask


def test_the_pair_is_of_a_sentences_length() -> None:
    assert row_to_look_at(np.array([[2, 3], [9, 14], [14, 2], [90, 14]])) == 1
    assert row_to_look_at(np.array([[2, 48]])) == 0
    assert row_to_look_at(np.array([[49, 2], [300, 300]])) is None


def test_the_heads_of_the_last_layer_are_averaged() -> None:
    maps, weights = Maps(), torch.rand(2, 3, 4, 5)
    assert of_last_layer(maps) is None
    maps.add("decoder.10.cross", weights)
    for name in ("decoder.9.cross", "decoder.10.self", "encoder.11.self"):
        maps.add(name, torch.zeros(2, 3, 4, 5))
    assert torch.equal(of_last_layer(maps), weights[0].mean(dim=0))


@pytest.mark.parametrize(("together", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [3, 7, 5]), (5, [15]), (9, [15])])
def test_columns_are_added_up(together: int, expected: list[int]) -> None:
    assert narrowed(torch.tensor([[1.0, 2, 3, 4, 5]]), together).tolist() == [expected]


def test_a_weight_is_a_byte() -> None:
    weights = torch.tensor([[0.0, 1.0, 0.5], [0.2, 0.001, 0.002]])
    values = CrossAttention(("一", "二", "。"), ("one", "."), weights).as_values()
    assert values["source"] == ["一", "二", "。"] and values["target"] == ["one", "."]
    assert list(zlib.decompress(base64.b64decode(values["weights"]))) == [0, 255, 128, 51, 0, 1]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("transformer", {}), ("seq2seq", {"attention": "dot"}), ("seq2seq", {"attention": "none"})],
)
def test_a_task_looks_as_its_users_see_it(tmp_path: Path, name: str, sizes: dict[str, Any]) -> None:
    run = random_run(tmp_path, model=name, **sizes)
    translator = zhuyi.load(tmp_path)
    config = run.read_config()
    task = TranslationTask.prepare(config.data, config.decode, tmp_path, 64, 1, lambda _: None)
    looked = task.cross_attention(translator.model)
    if sizes == {"attention": "none"}:
        assert looked is None
        return
    maps = translator.attention("".join(looked.source[:-1]), target="".join(looked.target[:-1]).replace("▁", " "))
    assert maps.source_tokens == looked.source and maps.target_tokens == looked.target
    last = max(name for name in maps.maps if name.endswith("cross"))
    assert torch.allclose(maps.maps[last].mean(dim=0), looked.weights, atol=1e-6)
    assert looked.weights.shape == (len(looked.target), len(looked.source))
    again = task.cross_attention(translator.model)
    assert torch.equal(looked.weights, again.weights)
