"""An encoder's layers by one call, against the same layers one after the other."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zhuyi.nn import kernels, sequences
from zhuyi.nn.blocks import EncoderLayer, LayerConfig
from zhuyi.nn.kernels import program
from zhuyi.nn.maps import Maps
from zhuyi.nn.masks import padding_mask
from zhuyi.nn.packed import pack

D = 40


@pytest.fixture(autouse=True)
def with_kernels_and_without_gradients():
    with torch.inference_mode():
        if kernels.library_for(torch.empty(1)) is None:
            pytest.skip(f"no compiled kernels here: {kernels.status()}")
        yield


class Layers(nn.ModuleList):
    def forward(self, x: Tensor, mask: Tensor | None, maps: Maps | None) -> Tensor:
        for i, layer in enumerate(self):
            x = layer(x, mask, maps, str(i))
        return x


def make_layers(*, norm_first: bool = False, precision: str = "int8") -> Layers:
    torch.manual_seed(1)
    config = LayerConfig(D, 4, 10, 70, 0.1, 0.0, 0.0, "gelu", norm_first)
    layers = Layers(EncoderLayer(config) for _ in range(3)).eval().requires_grad_(False)
    if precision != "float32":
        pack(layers, precision)
    return layers


def masks_of(kind: str, rows: int, length: int) -> Tensor | None:
    if kind == "none":
        return None
    generator = torch.Generator().manual_seed(3)
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)
    return mask.flip(1) if kind == "left" else mask


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", ["none", "right", "left"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (70, 23), (2, 300)])  # the third and fourth in several parts
def test_real_positions_are_as_the_layers_make_them(
    monkeypatch: pytest.MonkeyPatch, norm_first: bool, kind: str, shape: tuple[int, int]
) -> None:
    layers = make_layers(norm_first=norm_first)
    x, mask = torch.randn(*shape, D), masks_of(kind, *shape)
    ran = 0
    by_kernels = program.Program.run_sequences

    def counted(*arguments: Any) -> Tensor:
        nonlocal ran
        ran += 1
        return by_kernels(*arguments)

    monkeypatch.setattr(program.Program, "run_sequences", counted)
    found = sequences.run_layers(layers, layers, x, mask)
    expected = layers(x, padding_mask(mask), None)
    assert ran == 1
    real = torch.ones(shape, dtype=torch.bool) if mask is None else mask
    # A sum's last bit may turn a byte of the next product.
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=0.1)
    assert (found[real] - expected[real]).abs().mean() < 5e-3
    assert not found[~real].any()


def test_a_row_of_padding_alone_and_no_rows_at_all() -> None:
    layers = make_layers()
    x = torch.randn(3, 5, D)
    mask = torch.tensor([5, 0, 2])[:, None] > torch.arange(5)
    found = sequences.run_layers(layers, layers, x, mask)
    assert not found[1].any()
    torch.testing.assert_close(found[2, :2], sequences.run_layers(layers, layers, x[2:, :2], None)[0])
    assert sequences.run_layers(layers, layers, x[:0], None).shape == (0, 5, D)
    assert sequences.run_layers(layers, layers, x[:0], mask[:0]).shape == (0, 5, D)


def test_a_sequence_is_to_the_bit_the_same_whatever_is_beside_it() -> None:
    layers = make_layers()
    x, mask = torch.randn(60, 20, D), masks_of("right", 60, 20)
    assert mask is not None
    together = sequences.run_layers(layers, layers, x, mask)
    for row in (0, 31, 59):
        real = int(mask[row].sum())
        alone = sequences.run_layers(layers, layers, x[row : row + 1, :real], None)
        assert torch.equal(together[row, :real], alone[0])


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_pictures_and_what_cannot_be_recorded_are_left_to_the_layers(precision: str) -> None:
    layers = make_layers(precision=precision)
    x, mask = torch.randn(2, 6, D), masks_of("right", 2, 6)
    maps = Maps() if precision == "int8" else None
    found = sequences.run_layers(layers, layers, x, mask, maps)
    assert torch.equal(found, layers(x, padding_mask(mask), None)) or maps is not None
    if maps is not None:
        assert list(maps.weights) == ["0.self", "1.self", "2.self"]


def test_parameters_may_be_given_other_memory() -> None:
    layers = make_layers()
    x = torch.randn(2, 6, D)
    before = sequences.run_layers(layers, layers, x, None)
    layers.double().float()  # the same numbers elsewhere
    holes = [torch.full((D,), 1e9) for _ in range(50)]  # in the place of the old ones
    assert torch.equal(sequences.run_layers(layers, layers, x, None), before)
    del holes
    doubled = {
        name: 2 * value for name, value in layers.named_parameters() if name.startswith("2.feed_forward_residual")
    }
    layers.load_state_dict({**layers.state_dict(), **doubled}, assign=True)
    torch.testing.assert_close(sequences.run_layers(layers, layers, x, None), 2 * before)


def test_any_number_of_threads_gives_the_same() -> None:
    """In processes of their own: some of torch's libraries keep the first number that they are told."""
    code = """
import hashlib, sys, torch
sys.path.insert(0, sys.argv[1])
from test_sequences import make_layers, masks_of, sequences
with torch.inference_mode():
    torch.manual_seed(7)
    layers = make_layers()
    many = sequences.run_layers(layers, layers, torch.randn(90, 17, 40), masks_of("right", 90, 17))
    one = sequences.run_layers(layers, layers, torch.randn(1, 250, 40), None)
    found = torch.cat([many.flatten(), one.flatten()])
print(hashlib.sha256(found.numpy().tobytes()).hexdigest())
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(outputs) == 1
