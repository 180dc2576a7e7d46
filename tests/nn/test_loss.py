"""The loss that never holds all logits, against torch's that does."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zhuyi.nn import kernels
from zhuyi.nn import loss as loss_module
from zhuyi.nn.loss import projected_cross_entropy

CHUNKS = (1, 2, 3, 5, 11, 12)  # of 11 rows: one by one, uneven, just all, more than all


def inputs(rows: int = 11, d_model: int = 5, vocab_size: int = 7, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, d_model, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocab_size, d_model, generator=generator, dtype=torch.float64, requires_grad=True)
    return x, weight, torch.randint(vocab_size, (rows,), generator=generator)


def torchs(x: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(x @ weight.T, targets, reduction="sum", label_smoothing=smoothing)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_is_torchs_with_its_gradients(smoothing: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "ROWS_A_CHUNK", chunk)
    x, weight, targets = inputs()
    loss, nll = projected_cross_entropy(x, weight, targets, smoothing=smoothing)
    expected = torchs(x, weight, targets, smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(nll, torchs(x, weight, targets, 0.0), rtol=1e-12, atol=0)
    wanted = torch.autograd.grad(3.7 * expected, (x, weight))
    for found, gradient in zip(torch.autograd.grad(3.7 * loss, (x, weight)), wanted, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_with_a_bias_it_is_torchs_too(smoothing: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "ROWS_A_CHUNK", chunk)
    x, weight, targets = inputs()
    bias = torch.randn(7, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    loss, nll = projected_cross_entropy(x, weight, targets, bias=bias, smoothing=smoothing)
    logits = x @ weight.T + bias
    expected = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(nll, F.cross_entropy(logits, targets, reduction="sum"), rtol=1e-12, atol=0)
    wanted = torch.autograd.grad(2.5 * expected, (x, weight, bias))
    for found, gradient in zip(torch.autograd.grad(2.5 * loss, (x, weight, bias)), wanted, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-12)


@given(st.integers(0, 9), st.integers(1, 4), st.integers(1, 6), st.floats(0.0, 1.0), st.integers(0, 99))
def test_any_sizes(rows: int, d_model: int, vocab_size: int, smoothing: float, seed: int) -> None:
    x, weight, targets = inputs(rows, d_model, vocab_size, seed)
    loss, nll = projected_cross_entropy(x, weight, targets, smoothing=smoothing)
    torch.testing.assert_close(loss, torchs(x, weight, targets, smoothing), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(nll, torchs(x, weight, targets, 0.0), rtol=1e-10, atol=1e-12)
    loss.backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert weight.grad is not None
    if rows == 0:
        assert not weight.grad.any()


@pytest.mark.parametrize("chunk", [1, 4, 12])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_is_the_finite_difference(smoothing: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "ROWS_A_CHUNK", chunk)
    x, weight, targets = inputs()

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        return projected_cross_entropy(x, weight, targets, smoothing=smoothing)[0]

    assert torch.autograd.gradcheck(loss, (x, weight))


@pytest.mark.parametrize("wanted", ["x", "weight"])
def test_gradient_of_one_side_alone(wanted: str) -> None:
    x, weight, targets = inputs()
    torchs(x, weight, targets, 0.1).backward()
    expected = {"x": x.grad, "weight": weight.grad}[wanted]
    x, weight = (side.detach().requires_grad_(name == wanted) for name, side in (("x", x), ("weight", weight)))
    projected_cross_entropy(x, weight, targets, smoothing=0.1)[0].backward()
    assert (x.grad is None) == (wanted == "weight")
    assert (weight.grad is None) == (wanted == "x")
    torch.testing.assert_close({"x": x.grad, "weight": weight.grad}[wanted], expected)


def test_a_second_derivative_is_refused() -> None:
    x, weight, targets = inputs()
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(projected_cross_entropy(x, weight, targets)[0], x, create_graph=True)


def test_gradients_add_up_over_calls_and_backward_passes() -> None:
    x, weight, targets = inputs()
    loss = projected_cross_entropy(x, weight, targets, smoothing=0.1)[0]
    loss.backward(retain_graph=True)
    assert x.grad is not None
    assert weight.grad is not None
    once = x.grad.clone(), weight.grad.clone()
    loss.backward(retain_graph=True)
    loss.backward()
    projected_cross_entropy(x, weight, targets, smoothing=0.1)[0].backward()
    torch.testing.assert_close((x.grad, weight.grad), (4 * once[0], 4 * once[1]))


def test_the_negative_log_likelihood_carries_no_gradient() -> None:
    loss, nll = projected_cross_entropy(*inputs(), smoothing=0.1)
    assert loss.requires_grad
    assert not nll.requires_grad
    assert loss.dtype == nll.dtype == torch.float64
    assert loss.shape == nll.shape == ()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_found_where_none_is_wanted(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backward products are two thirds of the work; an evaluation must not pay for them."""
    x, weight, targets = inputs()
    expected = projected_cross_entropy(x, weight, targets, smoothing=0.1)
    asked: list[tuple[bool, ...]] = []
    forward = loss_module._ProjectedCrossEntropy.forward

    def watched(ctx: Any, *args: Any) -> Any:
        asked.append(ctx.needs_input_grad[:3])
        return forward(ctx, *args)

    monkeypatch.setattr(loss_module._ProjectedCrossEntropy, "forward", staticmethod(watched))
    with mode():
        found = projected_cross_entropy(x, weight, targets, smoothing=0.1)
    assert asked == [(False, False, False)]
    torch.testing.assert_close(found, (expected[0].detach(), expected[1]))


def test_inputs_are_left_as_they_were() -> None:
    x, weight, targets = inputs()
    before = [y.detach().clone() for y in (x, weight, targets)]
    projected_cross_entropy(x, weight, targets, smoothing=0.1)[0].backward()
    for y, old in zip((x, weight, targets), before, strict=True):
        assert torch.equal(y.detach(), old)


@pytest.fixture(params=["kernels", "torch"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernels, where there are any, and by torch's operations."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "_load", lambda: (None, "off"))


@pytest.mark.usefixtures("arithmetic")
def test_extreme_logits_stay_finite() -> None:
    x = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True)
    loss, nll = projected_cross_entropy(x, weight, torch.tensor([1, 1]), smoothing=0.1)
    assert float(nll) == pytest.approx(2e4)  # the first row's target has probability e^-20000, the second's 1
    loss.backward()
    assert x.grad is not None
    assert weight.grad is not None
    assert bool(x.grad.isfinite().all() and weight.grad.isfinite().all())


@pytest.mark.usefixtures("arithmetic")
def test_bfloat16_is_near_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(300, 32, generator=generator), torch.randn(500, 32, generator=generator) / 32**0.5
    targets = torch.randint(500, (300,), generator=generator)
    x, weight = (y.bfloat16().float().requires_grad_() for y in (x, weight))
    exact, exact_nll = projected_cross_entropy(x, weight, targets, smoothing=0.1)
    exact.backward()
    x16, weight16 = (y.detach().bfloat16().requires_grad_() for y in (x, weight))
    loss, nll = projected_cross_entropy(x16, weight16, targets, smoothing=0.1)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=2e-3)
    assert float(nll) == pytest.approx(float(exact_nll), rel=2e-3)
    for found, wanted in ((x16.grad, x.grad), (weight16.grad, weight.grad)):
        assert found is not None
        assert wanted is not None
        assert found.dtype == torch.bfloat16
        assert float((found.float() - wanted).norm() / wanted.norm()) < 0.01


@pytest.mark.parametrize(
    ("vocab_size", "rows"), [(7, 1024), (8_000, 1024), (32_768, 1024), (50_257, 640), (250_002, 128), (2_000_000, 128)]
)
def test_a_larger_vocabulary_has_fewer_rows_at_a_time(vocab_size: int, rows: int) -> None:
    assert loss_module.rows_a_chunk(vocab_size) == rows


def test_the_loss_holds_no_more_rows_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    linear = F.linear

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        held.append(x.shape[0])
        return linear(x, weight, bias)

    monkeypatch.setattr(loss_module, "LOGITS_A_CHUNK", 256 * 7)
    monkeypatch.setattr(loss_module.F, "linear", watched)
    x, weight, targets = inputs(700)
    loss, _ = projected_cross_entropy(x, weight, targets)
    assert held == [256, 256, 256]
    monkeypatch.undo()
    torch.testing.assert_close(loss, torchs(x, weight, targets, 0.0), rtol=1e-12, atol=0)
