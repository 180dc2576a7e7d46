"""Equation 2, position by position."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zhuyi.nn.activations import ACTIVATIONS, Activation
from zhuyi.nn.feedforward import FeedForward
from zhuyi.nn.linear import Linear

FORMULAS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x * (x > 0),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu-tanh": lambda x: x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + torch.exp(-x)),
}


def random_network(activation: Activation, dropout: float = 0.0) -> FeedForward:
    torch.manual_seed(0)
    network = FeedForward(5, 13, activation=activation, dropout=dropout).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    return network


@pytest.mark.parametrize("activation", list(FORMULAS))
def test_is_equation_2(activation: Activation) -> None:
    network = random_network(activation)
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    for row, column in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        hidden = FORMULAS[activation](network.w_1.weight @ x[row, column] + network.w_1.bias)
        expected = network.w_2.weight @ hidden + network.w_2.bias
        torch.testing.assert_close(network(x)[row, column], expected)


def test_gated_and_without_biases() -> None:
    """Shazeer 2020, eq. 6: the rows of `w_1` are W above V."""
    torch.manual_seed(0)
    network = FeedForward(5, 13, activation="gelu-tanh", bias=False, gated=True).double()
    assert network.w_1.bias is None and network.w_2.bias is None
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    w, v = network.w_1.weight.detach().split(13)
    expected = (FORMULAS["gelu-tanh"](x @ w.T) * (x @ v.T)) @ network.w_2.weight.T
    torch.testing.assert_close(network(x), expected)
    bound = math.sqrt(6 / (5 + 13))
    assert all(0.9 * bound < float(each.abs().max()) <= bound for each in (w, v))  # each drawn as if it stood alone


def test_every_activation_is_tested() -> None:
    assert ACTIVATIONS.keys() == FORMULAS.keys()


def test_dropout_of_the_hidden_layer_only_while_training() -> None:
    network = random_network("relu", dropout=0.5)
    x = torch.randn(1, 5, dtype=torch.float64).expand(200, 5)
    dropped = network(x).detach()
    # 2^13 hidden layers are possible, and b_2 alone only if all of one are gone.
    assert len(dropped.unique(dim=0)) > 20
    network.eval()
    assert len(network(x).detach().unique(dim=0)) == 1
    torch.testing.assert_close(random_network("relu").double()(x), network(x))


@pytest.mark.parametrize("matrices", [1, 3])
def test_linear_begins_by_glorots_rule(matrices: int) -> None:
    torch.manual_seed(0)
    linear = Linear(50, 40 * matrices, matrices=matrices)
    assert not linear.bias.any()
    bound = math.sqrt(6 / (50 + 40))
    for matrix in linear.weight.detach().chunk(matrices):
        assert 0.98 * bound < float(matrix.abs().max()) <= bound
        assert abs(float(matrix.std()) * math.sqrt(3) / bound - 1) < 0.05
        assert abs(float(matrix.mean())) < 4 * bound / math.sqrt(3 * 2000)
