"""Activations with their slopes against torch's, forwards and backwards."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zhuyi.nn import kernels
from zhuyi.nn.activations import ACTIVATIONS

OF_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}
gelu_tanh = ACTIVATIONS["gelu-tanh"]
# From zero to where nothing is left of them, an odd number in an odd shape.
PLACES = torch.cat([torch.linspace(-12, 12, 991), torch.tensor([0.0, -0.0, -40.0, 40.0, 1e-20, -3e4, 3e4])])


def both_ways(activation: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = activation(x)
    y.backward(grad)
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("name", OF_TORCH)
def test_forwards_and_backwards_as_torchs(name: str) -> None:
    grad = torch.randn(PLACES.shape, generator=torch.Generator().manual_seed(1))
    found, expected = (both_ways(each[name], PLACES, grad) for each in (ACTIVATIONS, OF_TORCH))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_rounded_once_a_value() -> None:
    """The slope, too, is kept in bfloat16: two roundings on the way back in place of torch's one."""
    x, grad = PLACES.bfloat16(), torch.ones(PLACES.shape, dtype=torch.bfloat16)
    y, slope = both_ways(gelu_tanh, x, grad)
    exact_y, exact_slope = both_ways(OF_TORCH["gelu-tanh"], x.double(), grad.double())
    assert y.dtype == slope.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact_y, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=2**-8, atol=2e-6)


def test_what_is_not_a_number_stays_so() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.tensor([1.0, float("nan"), -1.0], dtype=dtype)
        y, slope = both_ways(gelu_tanh, x, torch.ones_like(x))
        assert y.isnan().tolist() == slope.isnan().tolist() == [False, True, False]


def test_numbers_between_others_and_other_types_are_taken_too() -> None:
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    for form in (x.T, x[:, ::2], x.double(), x.half()):
        grad = torch.ones_like(form)
        found, expected = (both_ways(each, form, grad) for each in (gelu_tanh, OF_TORCH["gelu-tanh"]))
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_kernels_are_for_training_alone() -> None:
    x = torch.randn(3)
    assert gelu_tanh(x).grad_fn is None
    x.requires_grad_()
    if kernels.library_to_train(x) is None:
        pytest.skip(f"no compiled kernels here: {kernels.status()}")
    assert type(gelu_tanh(x).grad_fn).__name__ == "GeluTanhBackward"
    with torch.no_grad():
        assert kernels.library_to_train(x) is None
