"""The kernels of training against torch's operations, forwards and backwards, and what is drawn by a seed."""

import ctypes
import math
from collections.abc import Callable
from itertools import combinations
from unittest import mock

import pytest
import torch
from torch import Tensor

from zhuyi.nn import attention, kernels
from zhuyi.nn.activations import ACTIVATIONS
from zhuyi.nn.attention import attend
from zhuyi.nn.dropout import dropout
from zhuyi.nn.kernels.training import Dropout, Softmax, softmax_rows
from zhuyi.nn.masks import additive, causal_bias

DRAWS = 1_000_003


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def library() -> ctypes.CDLL:
    found = kernels.library_of_numbers(torch.empty(1))
    if found is None:
        pytest.skip(f"no compiled kernels here: {kernels.status()}")
    return found


def both_ways(weights: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    (found,) = torch.autograd.grad(weights, x, grad)
    return weights.detach(), found


@pytest.mark.parametrize("columns", [1, 5, 16, 26, 70])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 1, 0), (1, 1, 7, 0), (2, 3, 7, 0), None])
def test_softmax_of_scaled_logits_with_a_bias(
    library: ctypes.CDLL, columns: int, shape: tuple[int, ...] | None
) -> None:
    x, grad = torch.randn(2, 3, 7, columns), torch.randn(2, 3, 7, columns)
    bias = None if shape is None else torch.randn([size or columns for size in shape])
    x.requires_grad_()
    plain = torch.softmax(0.3 * x + (0.0 if bias is None else bias), dim=-1)
    found, expected = (both_ways(weights, x, grad) for weights in (Softmax.apply(library, x, 0.3, bias), plain))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=1e-6)


def test_softmax_in_bfloat16_is_rounded_at_its_end(library: ctypes.CDLL) -> None:
    x = (3 * torch.randn(2, 2, 5, 37)).bfloat16().requires_grad_()
    grad = torch.randn(2, 2, 5, 37).bfloat16()
    exact = x.detach().double().requires_grad_()
    found = both_ways(Softmax.apply(library, x, 0.5, None), x, grad)
    expected = both_ways(torch.softmax(0.5 * exact, dim=-1), exact, grad.double())
    torch.testing.assert_close(found[0].double(), expected[0], rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(found[1].double(), expected[1], rtol=2**-6, atol=2e-3)


def test_what_is_masked_is_exactly_nothing(library: ctypes.CDLL) -> None:
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    weights = Softmax.apply(library, x, 1.0, causal_bias(6, torch.float32, torch.device("cpu")))
    assert bool((weights.triu(1) == 0).all())
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 2, 6))
    (grad,) = torch.autograd.grad(weights, x, torch.randn_like(weights))
    assert bool((grad.triu(1) == 0).all())


def test_a_row_that_sees_nothing_is_finite(library: ctypes.CDLL) -> None:
    nothing = additive(torch.zeros(1, 1, 1, 4, dtype=torch.bool), torch.float32)
    for x in (-torch.rand(1, 1, 3, 4), torch.full((1, 1, 3, 4), -3e38)):
        weights = Softmax.apply(library, x.requires_grad_(), 1.0, nothing)
        torch.testing.assert_close(weights, torch.full((1, 1, 3, 4), 0.25))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax_in_its_own_place_with_normalizers(library: ctypes.CDLL, dtype: torch.dtype) -> None:
    x = (4 * torch.randn(9, 333)).to(dtype)
    exact, normalizers = x.double(), torch.empty(9)
    softmax_rows(library, x, x, normalizers=normalizers)
    torch.testing.assert_close(
        x.double(), exact.softmax(dim=-1), rtol=2**-8 if dtype is torch.bfloat16 else 1e-5, atol=1e-7
    )
    torch.testing.assert_close(normalizers.double(), exact.logsumexp(dim=-1), rtol=1e-6, atol=1e-5)


def test_what_is_not_a_number_spoils_its_row_alone(library: ctypes.CDLL) -> None:
    x = torch.randn(3, 40)
    x[1, 39] = math.nan
    out = torch.empty_like(x)
    softmax_rows(library, x, out)
    assert out.isnan().any(dim=-1).tolist() == [False, True, False]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_learns_as_by_torchs_operations(monkeypatch: pytest.MonkeyPatch, masked: bool, causal: bool) -> None:
    q, k, v = (torch.randn(2, 3, 6, 5, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    mask[0, 0, 0, 4:] = False
    if masked:
        mask[1] = False  # nothing to see at all

    def learned() -> list[Tensor]:
        output, _ = attend(q, k, v, mask=mask, causal=causal)
        return [output.detach(), *torch.autograd.grad(output.square().sum(), (q, k, v))]

    found = learned()
    monkeypatch.setattr(kernels, "_load", lambda: (None, "off"))
    for mine, theirs in zip(found, learned(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_that_do_not_lie_side_by_side(library: ctypes.CDLL) -> None:
    x = torch.randn(2, 3, 7, 5).transpose(-2, -1).requires_grad_()
    for grad in (torch.randn(2, 3, 1, 1).expand(2, 3, 5, 7), torch.randn(2, 3, 7, 5).transpose(-2, -1)):
        plain = torch.softmax(0.3 * x, dim=-1)
        found, expected = (both_ways(weights, x, grad) for weights in (Softmax.apply(library, x, 0.3, None), plain))
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_the_way_back_has_a_way_back_too(library: ctypes.CDLL, rate: float) -> None:
    x, direction = torch.randn(2, 1, 3, 4, requires_grad=True), torch.randn(2, 1, 3, 4)
    torch.manual_seed(5)
    kept = dropout(torch.ones(2, 1, 3, 3, requires_grad=True), rate).detach()

    def slope(weights: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        (found,) = torch.autograd.grad((drop(weights) @ x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(found, x, direction)[0]

    torch.manual_seed(5)
    mine = slope(Softmax.apply(library, x @ x.transpose(-2, -1), 0.7, None), lambda weights: dropout(weights, rate))
    theirs = slope(torch.softmax(0.7 * (x @ x.transpose(-2, -1)), dim=-1), lambda weights: weights * kept)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_second_derivative_that_is_missing_is_not_zero(library: ctypes.CDLL) -> None:
    x = torch.randn(6, 5, requires_grad=True)
    with pytest.raises(RuntimeError, match="ZHUYI_KERNELS=0"):
        torch.autograd.grad(ACTIVATIONS["gelu-tanh"](x).sum(), x, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [False, True])
def test_logits_that_are_narrower_than_queries(dtype: torch.dtype, causal: bool) -> None:
    q, k, v = (torch.randn(2, 3, 6, 5, requires_grad=True) for _ in range(3))
    mask = None if causal else torch.tensor([[True] * 6, [True] * 3 + [False] * 3])[:, None, None]
    expected = torch.autograd.grad(attend(q, k, v, mask=mask, causal=causal)[0].sum(), (q, k, v))
    with torch.autocast("cpu", dtype):
        output = attend(q, k, v, mask=mask, causal=causal)[0]
    assert output.dtype == dtype
    for mine, theirs in zip(torch.autograd.grad(output.sum(), (q, k, v)), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("length", "dtype", "learns", "biased", "is_plain"),
    [
        (128, torch.float32, False, True, True),
        (129, torch.float32, False, False, False),
        (256, torch.float32, True, False, True),
        (256, torch.float32, True, True, False),
        (257, torch.float32, True, False, False),
        (512, torch.bfloat16, True, False, True),
        (513, torch.bfloat16, True, False, False),
    ],
)
def test_the_plain_formula_goes_further_where_the_kernels_learn(
    library: ctypes.CDLL, length: int, dtype: torch.dtype, learns: bool, biased: bool, is_plain: bool
) -> None:
    q = torch.randn(1, 1, length, 2, dtype=dtype, requires_grad=learns)
    bias = torch.zeros(length, dtype=dtype) if biased else None
    with mock.patch.object(attention, "_attend_fused", wraps=attention._attend_fused) as fused:
        attend(q, q, q, bias=bias)
    assert fused.called is not is_plain


def test_keys_of_more_dimensions_than_queries() -> None:
    q, k = torch.randn(2, 3, 6, 5, requires_grad=True), torch.randn(4, 2, 3, 6, 5, requires_grad=True)
    found, _ = attend(q, k, k, causal=True)
    for one, keys in zip(found, k, strict=True):
        torch.testing.assert_close(one, attend(q, keys, keys, causal=True)[0])


@pytest.mark.parametrize(("rows", "columns"), [(0, 6), (6, 0), (0, 0)])
def test_there_may_be_nothing(rows: int, columns: int) -> None:
    q = torch.randn(2, 3, rows, 5, requires_grad=True)
    k, v = (torch.randn(2, 3, columns, 5, requires_grad=True) for _ in range(2))
    output, _ = attend(q, k, v, mask=torch.ones(2, 1, 1, columns, dtype=torch.bool), dropout=0.5)
    assert output.shape == (2, 3, rows, 5)
    assert not output.any()
    for found in torch.autograd.grad(output.sum(), (q, k, v)):
        assert not found.any()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_by_the_kernels_has_its_rate_in_every_lane(library: ctypes.CDLL, rate: float) -> None:
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(DRAWS, requires_grad=True), rate) == 0).double()
    sigma = math.sqrt(rate * (1 - rate) / DRAWS)
    assert abs(float(dropped.mean()) - rate) < 4 * sigma + 2**-17
    for lane in range(32):
        assert abs(float(dropped[lane::32].mean()) - rate) < 5 * math.sqrt(32) * sigma + 2**-17


@pytest.mark.parametrize("distance", [1, 2, 16, 17, 32, 512, 4096])
def test_neighbours_are_independent_by_the_kernels(library: ctypes.CDLL, distance: int) -> None:
    torch.manual_seed(1)
    dropped = (dropout(torch.ones(DRAWS, requires_grad=True), 0.5) == 0).double() - 0.5
    correlation = float((dropped[distance:] * dropped[:-distance]).mean()) * 4
    assert abs(correlation) < 4 / math.sqrt(DRAWS)


def test_two_seeds_have_nothing_in_common(library: ctypes.CDLL) -> None:
    torch.manual_seed(2)
    first, second = ((dropout(torch.ones(DRAWS, requires_grad=True), 0.5) == 0).double() - 0.5 for _ in range(2))
    assert abs(float((first * second).mean()) * 4) < 4 / math.sqrt(DRAWS)


def test_every_bit_of_a_seed_counts(library: ctypes.CDLL) -> None:
    ones = torch.ones(DRAWS)
    draws = [(Dropout.apply(library, ones, seed, 2**15) == 0).double() - 0.5 for seed in (0, 1, 2**31, 2**32, 2**62)]
    for first, second in combinations(draws, 2):
        for shift in (0, 16, 32):  # nor are another's draws the same, some places further
            correlation = float((first[shift:] * second[: DRAWS - shift]).mean()) * 4
            assert abs(correlation) < 5 / math.sqrt(DRAWS)


def test_the_way_back_draws_the_same_again(library: ctypes.CDLL) -> None:
    torch.manual_seed(3)
    x = torch.randn(50, 33, requires_grad=True)
    dropped = dropout(x, 0.25)
    (grad,) = torch.autograd.grad(dropped.sum(), x)
    torch.testing.assert_close(grad, (dropped != 0) / 0.75)
    torch.testing.assert_close(dropped, grad * x)


def test_draws_do_not_hang_on_whether_a_gradient_is_wanted(library: ctypes.CDLL) -> None:
    """Layers that are computed again on the way back are computed without one first."""
    x, found = torch.ones(5_000), []
    for learns in (False, True):
        torch.manual_seed(4)
        found.append(dropout(x.requires_grad_(learns), 0.5).detach())
    assert torch.equal(*found)


def test_draws_do_not_hang_on_the_number_of_threads(library: ctypes.CDLL) -> None:
    x, threads, found = torch.ones(70_000, requires_grad=True), torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        torch.manual_seed(4)
        found.append(dropout(x, 0.5).detach())
    torch.set_num_threads(threads)
    assert torch.equal(*found)
