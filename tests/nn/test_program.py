"""A recorded step against the modules that it was recorded from."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.models import transformer
from zhuyi.models.transformer import Transformer, TransformerConfig
from zhuyi.nn import kernels, state
from zhuyi.nn.kernels import program
from zhuyi.nn.packed import Int8Linear, pack
from zhuyi.nn.state import DecoderState

SIZES: dict[str, Any] = {
    "d_model": 26,
    "num_heads": 2,
    "d_ff": 41,
    "num_encoder_layers": 1,
    "num_decoder_layers": 3,
    "source_vocab_size": 37,
    "target_vocab_size": 37,
}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture
def library() -> ctypes.CDLL:
    found = kernels.library_for(torch.empty(1))
    if found is None:
        pytest.skip(f"no compiled kernels here: {kernels.status()}")
    return found


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "gelu-tanh"])
def test_a_program_writes_what_the_modules_write(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, norm_first: bool, activation: str
) -> None:
    """Beams that change places and sources that leave, by the program and, where nothing can be recorded, without.

    Keys and values are kept as they come: to round them would make much of the last bit, in which both ways differ.
    """
    monkeypatch.setattr(transformer, "kept_type", lambda module, like: like.dtype)
    torch.manual_seed(2)
    config = TransformerConfig(**SIZES, norm_first=norm_first, activation=activation)  # type: ignore[arg-type]
    model = Transformer(config).eval().requires_grad_(False)
    pack(model, "int8")
    recorded: list[program.Program | None] = []

    def record(*arguments: Any) -> program.Program | None:
        recorded.append(program.record(*arguments))
        return recorded[-1]

    monkeypatch.setattr(state, "record", record)
    found = play(model)
    monkeypatch.setattr(state, "record", lambda step, width: None)
    expected = play(model)
    assert [each is not None for each in recorded] == [True]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def play(model: Transformer) -> list[Tensor]:
    """Logits of some steps of three sources, later two, in beams of four."""
    generator = torch.Generator().manual_seed(5)
    src = torch.randint(3, 37, (3, 6), generator=generator)
    mask = torch.arange(6) < torch.tensor([[6], [2], [5]])
    playing = model.start(model.encode(src, mask), torch.ones(3, 1, dtype=torch.long))
    outputs = []
    for step in range(25):
        tokens = torch.randint(3, 37, (playing.rows,), generator=generator)
        logits, playing = model.step(tokens, playing)
        outputs.append(logits)
        if step == 1:
            playing = playing.select(torch.arange(3).repeat_interleave(4))
        elif step == 9:
            playing = playing.select(torch.tensor([8, 8, 9, 11, 3, 0, 1, 1]))
    return outputs


def run(library: ctypes.CDLL, step: Callable[[Any, Any], Any], x: Tensor) -> Tensor:
    """A step that attends nothing, by its program."""
    recorded = program.record(step, x.shape[-1])
    assert recorded is not None
    nothing = kernels.Cached(torch.zeros(1, 2, 1, 1, 1, 1, 1), 1)
    return recorded.run(library, x, nothing, None)


def test_values_outlive_their_reuse(library: ctypes.CDLL) -> None:
    """What is needed late is not written over by what has come since."""
    x = torch.randn(3, 2, 19)

    def step(y: Any, state: Any) -> Any:
        early = F.relu(y)
        z = early
        for _ in range(5):
            z = z + F.silu(z)
        return (z + early) + (y + z)

    torch.testing.assert_close(run(library, step, x), step(x, None).flatten(0, 1), rtol=1e-5, atol=1e-5)


def test_activations(library: ctypes.CDLL) -> None:
    x = torch.cat([torch.linspace(-100, 100, 501), torch.tensor([0.0, torch.nan, -torch.inf, torch.inf])])[None, None]
    for function in (F.relu, F.silu, F.gelu, lambda y: F.gelu(y, approximate="tanh")):
        found, expected = run(library, lambda y, _, f=function: f(y), x)[0], function(x)[0, 0]
        usable = ~(expected.isnan() | x[0, 0].isinf())
        torch.testing.assert_close(found[usable], expected[usable], rtol=2e-6, atol=2e-6)
        assert found[502].isnan()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_no_number_passes_where_all_below_zero_is_cut(library: ctypes.CDLL, wrong: float) -> None:
    linear, x = Int8Linear(torch.randn(5, 8), None), torch.randn(1, 4, 8)
    x[0, 2, 3] = wrong
    found = run(library, lambda y, _: F.relu(linear(y)), x)
    assert found[2].isnan().all()
    assert found[[0, 1, 3]].isfinite().all()


def test_norms_alone_and_of_sums(library: ctypes.CDLL) -> None:
    norm, x = nn.LayerNorm(33), 3 * torch.randn(2, 2, 33) + 1
    norm.weight.normal_()
    norm.bias.normal_()

    def step(y: Any, state: Any) -> Any:
        z = norm(y)
        return norm(y + z) + z

    torch.testing.assert_close(run(library, step, x), step(x, None).flatten(0, 1), rtol=1e-4, atol=1e-4)


def test_what_is_not_known_is_not_recorded() -> None:
    linear = Int8Linear(torch.randn(5, 5), None)
    for step in (
        lambda x, state: torch.sin(x),
        lambda x, state: x * 2,
        lambda x, state: linear(x) + 1,
        lambda x, state: F.layer_norm(x, (5,)),
        lambda x, state: nn.Linear(5, 5)(x),
        lambda x, state: x,
        lambda x, state: (linear(x), linear(x))[0],  # the last operation is not the result
    ):
        assert program.record(step, 5) is None


def test_a_step_of_other_precision_goes_through_the_modules() -> None:
    model = Transformer(TransformerConfig(**SIZES)).eval().requires_grad_(False)
    playing = model.start(model.encode(torch.tensor([[3, 4, 5]])), torch.ones(1, 1, dtype=torch.long))
    logits, playing = model.step(torch.tensor([1]), playing)
    expected = model(torch.tensor([[3, 4, 5]]), torch.tensor([[1]]))[:, 0]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert isinstance(playing, DecoderState)
