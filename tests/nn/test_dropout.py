"""Dropout: its rate, its mean, its seed, and nothing outside training."""

import math

import pytest
import torch

from zhuyi.nn.dropout import Dropout, dropout, keep_mask

DRAWS = 1_000_003  # not a multiple of the four elements that one draw serves


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_rate_is_exact_within_chance(rate: float) -> None:
    torch.manual_seed(0)
    dropped = (keep_mask(torch.empty(DRAWS), rate) == 0).double()
    sigma = math.sqrt(rate * (1 - rate) / DRAWS)
    assert abs(float(dropped.mean()) - rate) < 4 * sigma + 2**-17  # the rate is rounded to 1 / 65,536
    for lane in range(4):  # the places in one draw
        assert abs(float(dropped[lane::4].mean()) - rate) < 8 * sigma + 2**-17


@pytest.mark.parametrize("distance", [1, 2, 3, 4])
def test_neighbours_are_independent(distance: int) -> None:
    torch.manual_seed(1)
    dropped = (keep_mask(torch.empty(DRAWS), 0.5) == 0).double() - 0.5
    correlation = float((dropped[distance:] * dropped[:-distance]).mean()) * 4
    assert abs(correlation) < 4 / math.sqrt(DRAWS)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_mean_is_kept(rate: float) -> None:
    torch.manual_seed(2)
    x = dropout(torch.full((1000, 1000), 3.0), rate)
    assert abs(float(x.double().mean()) / 3 - 1) < 4 * math.sqrt(rate / (1 - rate) / 1e6)
    values = x.unique().tolist()
    assert values == pytest.approx([0.0, 3 / (1 - rate)], rel=1e-4)


def test_same_seed_same_draws() -> None:
    x = torch.ones(7, 9)
    torch.manual_seed(5)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(5)
    assert torch.equal(dropout(x, 0.5), first)
    assert torch.equal(dropout(x, 0.5), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 1, 7), (0, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_any_shape_and_type(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.ones(shape, dtype=dtype)
    dropped = dropout(x, 0.5)
    assert dropped.shape == shape
    assert dropped.dtype == dtype
    assert bool(((dropped == 0) | (dropped == 2)).all())


def test_gradient_passes_where_the_value_did() -> None:
    torch.manual_seed(0)
    x = torch.randn(100, requires_grad=True)
    dropped = dropout(x, 0.25)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, (dropped != 0) * (4 / 3))


def test_a_view_that_is_not_contiguous_is_dropped_element_by_element() -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(60, 70).T[::2], 0.5)
    assert dropped.shape == (35, 60)
    assert 0.4 < float((dropped == 0).double().mean()) < 0.6


def test_nothing_at_rate_zero_and_outside_training() -> None:
    x = torch.randn(50)
    assert dropout(x, 0.0) is x
    module = Dropout(0.5)
    assert not torch.equal(module(x), x)
    assert module.eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("by_kernels", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_highest_rate_keeps_one_in_65_536(
    dtype: torch.dtype, by_kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_kernels:
        monkeypatch.setattr("zhuyi.nn.kernels.library_of_numbers", lambda x: None)
    torch.manual_seed(0)
    x = torch.ones(DRAWS, dtype=dtype, requires_grad=True)
    dropped = dropout(x, math.nextafter(1.0, 0.0))
    assert dropped.unique().tolist() == [0.0, 65536.0]
    assert 2 <= int((dropped != 0).sum()) <= 40  # 15.3 are expected
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, dropped)
    assert torch.equal(dropout(x, 2**-18), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"lies in \[0, 1\), got"):
        Dropout(rate)
