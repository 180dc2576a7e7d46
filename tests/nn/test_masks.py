"""One rule: boolean, and True means "may attend" (or "a real token")."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from zhuyi.nn.attention import attend
from zhuyi.nn.masks import LONGEST_KEPT, additive, causal_bias, causal_mask, padding_mask


@given(st.integers(0, 12))
def test_causal_mask_shows_the_past_and_the_present(length: int) -> None:
    mask = causal_mask(length)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[column <= row for column in range(length)] for row in range(length)]


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4))
def test_padding_mask_shows_every_head_and_query_the_real_tokens(rows: list[list[bool]]) -> None:
    real = torch.tensor(rows)
    mask = padding_mask(real)
    assert mask is not None
    assert mask.dtype == torch.bool
    assert mask.shape == (len(rows), 1, 1, 3)
    seen = mask.expand(len(rows), 2, 5, 3)
    for row, wanted in enumerate(rows):
        assert seen[row].tolist() == [[wanted] * 5] * 2


def test_no_padding_is_no_mask() -> None:
    assert padding_mask(None) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_additive_is_the_same_mask_in_numbers(dtype: torch.dtype) -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    numbers = additive(mask, dtype)
    assert numbers.dtype == dtype
    assert not numbers[mask].any()
    assert bool((numbers[~mask] == torch.finfo(dtype).min).all())
    weights = (numbers + torch.tensor([[0.5, 3.0, 0.5], [-1.0, 0.0, 1.0]], dtype=dtype)).softmax(dim=-1)
    assert weights[0].tolist() == [0.5, 0.0, 0.5]
    assert bool(weights[1].isfinite().all())


def test_true_is_what_attention_may_attend() -> None:
    real = torch.tensor([[True, False, True, True], [False, True, False, False]])
    x = torch.randn(2, 1, 4, 6)
    for mask in (padding_mask(real), causal_mask(4)):
        weights = attend(x, x, x, mask=mask, need_weights=True)[1]
        assert weights is not None
        assert mask is not None
        assert torch.equal(weights > 0, mask.expand_as(weights))


@pytest.mark.parametrize("length", [1, 7, LONGEST_KEPT, LONGEST_KEPT + 1])
def test_a_causal_bias_serves_training_whoever_asked_first(length: int) -> None:
    device = torch.device("cpu")
    with torch.inference_mode():
        first = causal_bias(length, torch.float32, device)
    assert torch.equal(first, additive(causal_mask(length), torch.float32))
    assert (causal_bias(length, torch.float32, device) is first) == (length <= LONGEST_KEPT)
    logits = torch.zeros(length, length, requires_grad=True)
    (logits * 1).add_(first).softmax(-1).square().sum().backward()
    assert logits.grad is not None
    assert causal_bias(length, torch.bfloat16, device).dtype is torch.bfloat16


def test_what_follows_shapes_alone_leaves_nothing_behind() -> None:
    with FakeTensorMode():
        assert causal_bias(9, torch.float32, torch.device("cpu")).shape == (9, 9)
    assert type(causal_bias(9, torch.float32, torch.device("cpu"))) is torch.Tensor
    with FakeTensorMode():
        assert type(causal_bias(9, torch.float32, torch.device("cpu"))) is not torch.Tensor
