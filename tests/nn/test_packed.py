"""Packed affine maps against their formulas; a row's result depends on nothing beside it."""

import copy
import ctypes

import pytest
import torch
from tests.conftest import TINY
from torch import Tensor, nn

from zhuyi.machine import has_bfloat16_instructions
from zhuyi.models.transformer import Transformer
from zhuyi.nn import attention, kernels
from zhuyi.nn.packed import Bfloat16Linear, Int8Linear, pack, quantize_rows


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(params=["ours", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways that a product may go."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "_load", lambda: (None, ""))
    elif kernels.library_for(torch.empty(1)) is None:
        pytest.skip(f"no compiled kernels here: {kernels.status()}")
    return str(request.param)


def quantised(x: Tensor) -> Tensor:
    """Rows rounded to 255 steps, in float64."""
    step = x.double().abs().amax(dim=-1, keepdim=True) / 127
    return (x.double() / step.clamp_min(1e-300)).round() * step


@pytest.mark.parametrize("width", [1, 15, 37])
def test_a_row_is_rounded_to_steps_of_its_own(width: int) -> None:
    x = torch.randn(4, 3, width) * 10 ** torch.randn(4, 3, 1)
    x[1, 1] = 0
    int8, peaks = quantize_rows(x)
    assert ((int8 * peaks / 127 - x).abs() <= peaks / 254 * 1.001).all()
    assert int(int8.abs().max()) == 127


@pytest.mark.parametrize("rows", [(1,), (9,), (2, 3), (40,)])
@pytest.mark.parametrize(("d_in", "d_out"), [(7, 5), (64, 96), (130, 70)])
def test_int8_is_the_product_of_what_was_rounded(way: str, rows: tuple[int, ...], d_in: int, d_out: int) -> None:
    torch.manual_seed(0)  # a number half-way between two steps goes either way
    weight, bias = torch.randn(d_out, d_in) * 10 ** torch.randn(d_out, 1), torch.randn(d_out)
    x = torch.randn(*rows, d_in)
    expected = quantised(x) @ quantised(weight).T
    for added in (bias, None):
        found = Int8Linear(weight, added)(x)
        assert found.dtype == torch.float32
        wanted = expected if added is None else expected + added
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_int8_rows_do_not_see_each_other(way: str) -> None:
    linear = Int8Linear(torch.randn(33, 20), torch.randn(33))
    x = torch.randn(12, 20)
    x[3] *= 1e4
    x[5] = 0
    together = linear(x)
    for row, expected in zip(x, together, strict=True):
        torch.testing.assert_close(linear(row[None])[0], expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
    torch.testing.assert_close(together[5], linear.bias)
    assert together.isfinite().all()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("rows", [3, 12])
def test_what_is_no_number_is_not_hidden_in_int8(way: str, wrong: float, rows: int) -> None:
    """And stays where it is."""
    linear, x = Int8Linear(torch.randn(33, 20), torch.randn(33)), torch.randn(rows, 20)
    x[2, 1] = wrong
    assert not linear(x)[2].isfinite().any()
    assert linear(x)[:2].isfinite().all()


def test_int8_error_is_that_of_eight_bits() -> None:
    weight, x = torch.randn(40, 512), torch.randn(16, 512)
    expected = x @ weight.T
    assert float((Int8Linear(weight, None)(x) - expected).norm() / expected.norm()) < 0.015


def test_a_column_of_zeros_in_int8() -> None:
    weight = torch.zeros(3, 4)
    assert not Int8Linear(weight, None)(torch.randn(2, 4)).any()


@pytest.mark.parametrize("bias", [True, False])
def test_bfloat16_is_torchs_own(bias: bool) -> None:
    weight, added = torch.randn(24, 40), torch.randn(24) if bias else None
    x = torch.randn(2, 5, 40).bfloat16()
    expected = torch.nn.functional.linear(x, weight.bfloat16(), None if added is None else added.bfloat16())
    torch.testing.assert_close(Bfloat16Linear(weight, added)(x), expected, rtol=0.02, atol=0.05)


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.1), ("bfloat16", 0.1)])
def test_a_packed_model_is_nearly_the_model(precision: str, most: float) -> None:
    model = Transformer(TINY["transformer"].configs["paper"]).eval()
    packed = pack(copy.deepcopy(model), precision)
    assert not [name for name, part in packed.named_modules() if isinstance(part, torch.nn.Linear)]
    vocab = model.config.source_vocab_size
    src, tgt = torch.randint(4, vocab, (3, 6)), torch.randint(4, model.config.target_vocab_size, (3, 5))
    expected = model(src, tgt)
    error = float((packed(src, tgt).float() - expected).norm() / expected.norm())
    assert 0 < error < most


def test_pointers_stay_valid() -> None:
    """A packed map holds what its kernel is pointed at, whatever its maker forgets."""
    if not isinstance(kernels.library_for(torch.empty(1)), ctypes.CDLL):
        pytest.skip(f"no compiled kernels here: {kernels.status()}")
    weight = torch.randn(64, 64)
    linear = Int8Linear(weight, torch.randn(64))
    x = torch.randn(2, 64)
    expected = linear(x).clone()
    del weight
    _ = [torch.randn(64, 64) for _ in range(100)]
    assert torch.equal(linear(x), expected)


@pytest.mark.parametrize("length", [attention.WIDE_MAX_LENGTH, attention.WIDE_MAX_LENGTH + 1])
def test_long_attention_beside_int8_is_in_bfloat16(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    torch.manual_seed(0)
    module, x = pack(nn.Sequential(attention.SelfAttention(32, 2, 16)), "int8")[0], torch.randn(2, length, 32)
    found, alone = module(x), module(x[1:])
    monkeypatch.setattr(attention, "WIDE_MAX_LENGTH", 10**9)
    expected = module(x)
    is_wide = length > 512 and has_bfloat16_instructions()
    assert torch.equal(found, expected) is not is_wide
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 0.01
    torch.testing.assert_close(alone, found[1:], rtol=1e-5, atol=1e-6)  # whatever else is in the batch
