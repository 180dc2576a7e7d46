"""What a graph, a transform or shapes alone are made of: the same attention, and no kernels."""

import warnings

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from zhuyi.nn import kernels
from zhuyi.nn.activations import ACTIVATIONS
from zhuyi.nn.attention import attend
from zhuyi.nn.eager import is_eager

SOME = torch.tensor([[True, True, False, True], [True, False, False, False]])[:, None, None]
NONE = torch.zeros(2, 1, 1, 4, dtype=torch.bool)


def attended(x: Tensor, mask: Tensor) -> Tensor:
    return attend(x, x, x, mask=mask)[0]


def test_a_graph_made_with_rows_that_see_something_knows_those_that_do_not() -> None:
    x = torch.randn(2, 3, 4, 5)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing tells of each shape that it keeps
        graphs = make_fx(attended)(x, SOME), torch.jit.trace(attended, (x, SOME))
    for graph in graphs:
        torch.testing.assert_close(graph(x, SOME), attended(x, SOME))
        assert not graph(x, NONE).any()


def test_functions_are_transformed_as_they_were_without_kernels() -> None:
    x = torch.randn(2, 3, 4, 5)

    def loss(x: Tensor) -> Tensor:
        return ACTIVATIONS["gelu-tanh"](attend(x, x, x, mask=SOME)[0]).square().sum()

    own = x.clone().requires_grad_()
    loss(own).backward()
    torch.testing.assert_close(grad(loss)(x), own.grad)
    with torch.no_grad():
        together = vmap(lambda x: attend(x, x, x, causal=True)[0])(x[None])
    torch.testing.assert_close(together[0], attend(x, x, x, causal=True)[0])


def test_where_kernels_are_for() -> None:
    found = []

    def look(x: Tensor) -> Tensor:
        found.append((is_eager(), kernels.library_of_numbers(x), kernels.library_to_train(x)))
        return x.sum()

    grad(look)(torch.randn(3))
    vmap(look)(torch.randn(3, 2))
    with FakeTensorMode(allow_non_fake_inputs=True):
        look(torch.randn(3, requires_grad=True))
    assert found == [(False, None, None)] * 3
    assert is_eager()
