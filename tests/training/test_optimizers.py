"""Adam on master weights: in which precision gradients are added up, and what a step moves."""

import copy

import pytest
import torch
from torch import Tensor, nn

from zhuyi.config import TrainConfig
from zhuyi.training.optimizers import MasterAdam

# Each too small for the next sum in bfloat16, whose next number after 1 is 1 + 2^-7.
GRADIENTS = [1.0, 2**-9, 2**-9, 2**-9, 2**-9]


def adam_and_copy(**settings: float) -> tuple[MasterAdam, nn.Module, nn.Module]:
    torch.manual_seed(1)
    model = nn.Linear(3, 5)
    compute = copy.deepcopy(model).bfloat16()
    return MasterAdam(model, compute, TrainConfig(max_steps=1, **settings)), model, compute  # type: ignore[arg-type]


def leave(module: nn.Module, value: float, *, without: str = "") -> None:
    """What a backward pass does: gradients are added to those that are there."""
    for name, parameter in module.named_parameters():
        if name != without:
            found = torch.full_like(parameter, value)
            parameter.grad = found if parameter.grad is None else parameter.grad + found


def test_micro_batches_are_added_up_in_the_masters_precision() -> None:
    adam, _, compute = adam_and_copy()
    for step in range(2):  # the second begins from nothing again
        for number, value in enumerate(GRADIENTS):
            leave(compute, value)
            if number < len(GRADIENTS) - 1:
                adam.add_gradients()
        norm = adam.step(1e-3, 1.0, 0.0)
        assert norm == pytest.approx(20**0.5 * (1 + 2**-7), rel=1e-6), step


def test_gradients_given_by_the_way_are_not_counted_twice() -> None:
    """As several processes do it, some parameters at a time."""
    adam, _, compute = adam_and_copy()
    leave(compute, GRADIENTS[0])
    adam.add_gradients()
    leave(compute, 0.5)
    for parameter in compute.parameters():
        assert parameter.grad is not None
        (total,) = adam.add_last([parameter], [parameter.grad])
        assert total.dtype is torch.float32
        total.mul_(4.0)
    assert adam.step(1e-3, 1.0, 0.0) == pytest.approx(20**0.5 * 6, rel=1e-6)


def test_a_weight_without_a_gradient_counts_as_one_with_none() -> None:
    adam, model, compute = adam_and_copy()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    leave(compute, 1.0, without="bias")
    adam.add_gradients()
    leave(compute, 1.0, without="bias")
    assert adam.step(1e-3, 1.0, 0.0) == pytest.approx(15**0.5 * 2, rel=1e-6)
    weight, bias = model.parameters()
    assert not torch.equal(weight, before[0]) and torch.equal(bias, before[1])


def test_gradients_that_were_tried_are_forgotten() -> None:
    adam, _, compute = adam_and_copy()
    leave(compute, 7.0)
    adam.add_gradients()
    leave(compute, 7.0)
    adam.zero_grad()
    leave(compute, 1.0)
    assert adam.step(1e-3, 1.0, 0.0) == pytest.approx(20**0.5, rel=1e-6)


def test_the_copy_follows_the_masters() -> None:
    adam, model, compute = adam_and_copy()
    leave(compute, 1.0)
    adam.step(0.1, 1.0, 0.0)
    pairs: list[tuple[Tensor, Tensor]] = list(zip(model.parameters(), compute.parameters(), strict=True))
    assert all(torch.equal(master.bfloat16(), copied) for master, copied in pairs)
