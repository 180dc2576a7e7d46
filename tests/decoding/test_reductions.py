from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhuyi.decoding.reductions import log_normalizer, top
from zhuyi.nn import kernels


@pytest.fixture(autouse=True, params=["kernels", "torch"], scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """By the compiled kernels, where there are any, and by torch's operations."""
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        if request.param == "torch":
            patch.setattr(kernels, "_load", lambda: (None, ""))
        elif kernels.library_for(torch.empty(1)) is None:
            pytest.skip(f"no compiled kernels here: {kernels.status()}")
        yield


shapes = st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 19, 20, 81, 399, 400, 1009, 8000]))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, seed=st.integers(0, 1000), count=st.integers(1, 12), holes=st.floats(0, 0.99))
def test_top_is_topk(shape, seed, count, holes):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator)
    logits[torch.rand(shape, generator=generator) < holes] = -torch.inf
    count = min(count, shape[1])
    values, ids = top(logits, count)
    assert torch.equal(values, logits.topk(count, -1).values)
    assert torch.equal(logits.gather(1, ids), values)
    assert all(len(set(row)) == count for row in ids.tolist())


def test_top_of_equal_numbers_names_different_places():
    _, ids = top(torch.zeros(2, 4001), 9)
    assert all(len(set(row)) == 9 for row in ids.tolist())


@settings(max_examples=60, deadline=None)
@given(
    shape=shapes,
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
    shift=st.sampled_from([0.0, -90.0, 90.0, 3e4]),
)
def test_log_normalizer_is_logsumexp(shape, seed, scale, shift):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale + shift
    expected = logits.double().logsumexp(-1)
    assert torch.allclose(log_normalizer(logits).double(), expected, rtol=1e-6, atol=2e-6)


def test_log_normalizer_takes_more_rows_than_fit_the_cache():
    logits = torch.randn(70, 8000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(log_normalizer(logits), logits.logsumexp(-1), atol=1e-5)


def test_log_normalizer_of_impossible_tokens():
    logits = torch.tensor([[0.0, -torch.inf, 0.0], [-torch.inf, 90.0, -torch.inf]])
    assert log_normalizer(logits).tolist() == pytest.approx([0.6931472, 90.0])


def test_numbers_that_are_none_are_not_hidden():
    logits = torch.zeros(2, 4001)
    logits[1, 1234] = torch.nan
    assert log_normalizer(logits).isnan().tolist() == [False, True]
    assert top(logits, 3)[0].isnan().any(dim=1).tolist() == [False, True]
