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

    def program_of(*arguments: Any) -> program.Program | None:
        recorded.append(program.program_of(*arguments))
        return recorded[-1]

    monkeypatch.setattr(state, "program_of", program_of)
    found = play(model)
    monkeypatch.setattr(state, "program_of", lambda module, name, record: None)
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
    """What attends nothing, by its program."""
    recorded = program.record_layers(lambda y: step(y, None), x.shape[-1])
    assert recorded is not None
    rows = x.flatten(0, 1)
    return recorded.run_sequences(library, rows, torch.tensor([0, len(rows)]))


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
        assert program.record_layers(lambda x, step=step: step(x, None), 5) is None  # type: ignore[misc]


def test_a_step_of_other_precision_goes_through_the_modules() -> None:
    model = Transformer(TransformerConfig(**SIZES)).eval().requires_grad_(False)
    playing = model.start(model.encode(torch.tensor([[3, 4, 5]])), torch.ones(1, 1, dtype=torch.long))
    logits, playing = model.step(torch.tensor([1]), playing)
    expected = model(torch.tensor([[3, 4, 5]]), torch.tensor([[1]]))[:, 0]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert isinstance(playing, DecoderState)


def packed_model(vocab_size: int, **more: Any) -> Transformer:
    torch.manual_seed(4)
    config = TransformerConfig(**{**SIZES, "source_vocab_size": vocab_size, "target_vocab_size": vocab_size, **more})
    model = Transformer(config).eval().requires_grad_(False)
    pack(model, "int8")
    return model


def begun(model: Transformer, groups: int, width: int) -> tuple[DecoderState, Tensor]:
    """A state of some sources that has taken its first step, and the tokens of the next one."""
    torch.manual_seed(6)
    sources = torch.randint(3, model.config.source_vocab_size, (groups, 7))
    playing = model.start(model.encode(sources), torch.ones(groups, 1, dtype=torch.long))
    if width > 1:
        playing = playing.select(torch.arange(groups).repeat_interleave(width))
    tokens = torch.randint(3, model.config.target_vocab_size, (groups * width,))
    model.step(tokens, playing)
    return playing, tokens.flip(0)


@pytest.mark.parametrize("vocab_size", [37, 1000])
@pytest.mark.parametrize(
    ("groups", "width", "count"), [(1, 1, 1), (7, 1, 3), (17, 1, 12), (40, 1, 1), (3, 4, 5), (9, 5, 6)]
)
def test_the_largest_are_those_of_the_logits(
    library: ctypes.CDLL, vocab_size: int, groups: int, width: int, count: int
) -> None:
    """Few rows and many, of one thread's share of the vocabulary and several; with ids barred and without."""
    model = packed_model(vocab_size, output_bias=True)
    model.output_projection.bias.copy_(10 * torch.randn(vocab_size))
    (mine, tokens), (other, _) = begun(model, groups, width), begun(model, groups, width)
    for barred, sums_barred in (((), False), ((0, 1, 5), False), ((2,), True), (tuple(range(20)), True)):
        logits, other = model.step(tokens, other)
        chosen = logits.clone()
        chosen[:, list(barred)] = -torch.inf
        options = {"barred": barred, "sums_barred": sums_barred, "end": -1}
        found = mine.list_largest(tokens, steps=1, count=count, **options)
        assert found is not None
        best = chosen.topk(count, -1)
        torch.testing.assert_close(found.values[0], best.values, rtol=0, atol=0)
        torch.testing.assert_close(found.ids[0], best.indices, rtol=0, atol=0)
        normalizers = (chosen if sums_barred else logits).double().logsumexp(-1).float()
        torch.testing.assert_close(found.normalizers[0], normalizers, rtol=1e-6, atol=3e-6)
        tokens = best.indices[:, 0]


def test_far_larger_logits_late_in_a_row_are_summed_too(library: ctypes.CDLL) -> None:
    """From the smallest to the largest, hundreds apart, and the other way round; what is barred is largest of all."""
    model = packed_model(300, output_bias=True)
    for bias in (torch.linspace(-300, 300, 300), torch.linspace(300, -300, 300)):
        model.output_projection.bias.copy_(bias)
        (mine, tokens), (other, _) = begun(model, 2, 1), begun(model, 2, 1)
        logits, _ = model.step(tokens, other)
        last = int(bias.argmax())
        found = mine.list_largest(tokens, steps=1, count=1, end=-1, barred=(last,), sums_barred=False)
        assert found is not None
        torch.testing.assert_close(found.normalizers[0], logits.logsumexp(-1), rtol=1e-6, atol=0)
        assert last not in found.ids


@pytest.mark.parametrize("rows", [1, 9, 33])
def test_steps_at_once_are_steps_one_by_one_until_one_ends(library: ctypes.CDLL, rows: int) -> None:
    model = packed_model(37)
    (mine, tokens), (other, _) = begun(model, rows, 1), begun(model, rows, 1)
    alone = tokens
    expected = []
    for _ in range(20):
        logits, other = model.step(alone, other)
        alone = logits.argmax(-1)
        expected.append(alone)
    end = int(expected[7][0])
    ends = next(i for i, each in enumerate(expected) if end in each.tolist())
    options = {"count": 1, "barred": (), "sums_barred": False}
    found = mine.list_largest(tokens, steps=20, end=end, **options)
    assert found is not None
    assert found.ids[:, :, 0].tolist() == [each.tolist() for each in expected[: ends + 1]]
    assert mine.positions.tolist() == [ends + 2] * rows  # and the state goes on from there
    found = mine.list_largest(found.ids[-1, :, 0], steps=19 - ends, end=-1, **options)
    assert found is not None
    assert found.ids[:, :, 0].tolist() == [each.tolist() for each in expected[ends + 1 :]]


def test_ids_out_of_their_tables_are_refused(library: ctypes.CDLL) -> None:
    model = packed_model(37, max_len=8)
    for wrong in (37, -1):
        playing, _ = begun(model, 2, 1)
        with pytest.raises(IndexError):
            model.step(torch.tensor([3, wrong]), playing)
    for tokens in (torch.tensor([3]), torch.tensor([3, 4, 5])):
        playing, _ = begun(model, 2, 1)
        with pytest.raises(RuntimeError, match="shape"):
            model.step(tokens, playing)


def test_no_step_goes_beyond_the_last_position(library: ctypes.CDLL) -> None:
    playing, tokens = begun(packed_model(37, max_len=8), 2, 1)
    options = {"count": 1, "end": -1, "barred": (), "sums_barred": False}
    found = playing.list_largest(tokens, steps=16, **options)
    assert found is not None and len(found.ids) == 7
    with pytest.raises(IndexError):
        playing.list_largest(tokens, steps=1, **options)


def test_a_beam_takes_one_step_at_once(library: ctypes.CDLL) -> None:
    playing, tokens = begun(packed_model(37), 2, 3)
    found = playing.list_largest(tokens.int(), steps=4, count=1, end=-1, barred=(), sums_barred=False)
    assert found is not None and len(found.ids) == 1


def test_ids_that_are_not_in_the_vocabulary_need_not_be_barred(library: ctypes.CDLL) -> None:
    (mine, tokens), (other, _) = begun(packed_model(37), 2, 1), begun(packed_model(37), 2, 1)
    found = mine.list_largest(tokens, steps=1, count=12, end=-1, barred=(-1, 37, 99), sums_barred=False)
    logits, _ = packed_model(37).step(tokens, other)
    assert found is not None
    torch.testing.assert_close(found.values[0], logits.topk(12, -1).values, rtol=0, atol=0)


def test_more_than_can_be_listed_is_left_to_others(library: ctypes.CDLL) -> None:
    playing, tokens = begun(packed_model(37), 2, 1)
    assert playing.list_largest(tokens, steps=1, count=13, end=-1, barred=(), sums_barred=False) is None
    few, tokens = begun(packed_model(5), 2, 1)
    assert few.list_largest(tokens % 5, steps=1, count=6, end=-1, barred=(), sums_barred=False) is None


def test_a_program_is_recorded_once_a_model(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again where anything inside has been replaced: each change shows in the logits."""
    model, recorded = packed_model(37), []

    def count(step: Any) -> Any:
        recorded.append(program.record_step(step))
        return recorded[-1]

    monkeypatch.setattr(state, "record_step", count)
    logits = [next_logits(model) for _ in range(3)]
    assert len(recorded) == 1
    other = packed_model(37)

    def norm() -> None:
        model.decoder_layers[0].self_residual.norm = nn.LayerNorm(26, bias=True).requires_grad_(False)
        model.decoder_layers[0].self_residual.norm.weight.fill_(2.0)

    def projection() -> None:
        model.output_projection = Int8Linear(torch.randn(37, 26), None)

    def table() -> None:
        model.target_positions.table = 2 * model.target_positions.table

    def embedding() -> None:
        model.target_embedding.weight = nn.Parameter(-other.target_embedding.weight, requires_grad=False)

    for number, change in enumerate((norm, projection, table, embedding)):
        change()
        logits.append(next_logits(model))
        assert len(recorded) == number + 2
        assert (logits[-1] - logits[-2]).abs().max() > 0.1
        monkeypatch.setattr(state, "program_of", lambda module, name, record: None)
        torch.testing.assert_close(next_logits(model), logits[-1], rtol=0.1, atol=0.1)
        monkeypatch.setattr(state, "program_of", program.program_of)


def next_logits(model: Transformer) -> Tensor:
    playing, tokens = begun(model, 2, 1)
    logits, _ = model.step(tokens, playing)
    return logits


def test_a_model_may_be_packed_after_its_first_use(library: ctypes.CDLL) -> None:
    torch.manual_seed(4)
    model = Transformer(TransformerConfig(**SIZES)).eval().requires_grad_(False)
    playing, tokens = begun(model, 2, 1)
    assert playing.list_largest(tokens, steps=1, count=1, end=-1, barred=(), sums_barred=False) is None
    pack(model, "int8")
    playing, tokens = begun(model, 2, 1)
    assert playing.list_largest(tokens, steps=1, count=1, end=-1, barred=(), sums_barred=False) is not None


def test_a_scaled_row_of_a_table_and_the_row_itself(library: ctypes.CDLL) -> None:
    table, linear = torch.randn(9, 6), Int8Linear(torch.randn(4, 6), None)

    def step(tokens: Any, positions: Any, state: Any) -> Any:
        row = F.embedding(tokens, table)
        return linear(row * 2.0 + row)

    recorded, nothing = program.record_step(step), kernels.Cached(torch.zeros(1, 2, 1, 1, 1, 1, 1), 1)
    assert recorded is not None
    tokens = torch.tensor([3, 0, 8])
    found = recorded.run(library, tokens, [0, 0, 0], nothing, None)
    torch.testing.assert_close(found, step(tokens, None, None), rtol=1e-4, atol=1e-4)
    assert program.record_step(lambda tokens, *_: linear(F.embedding(tokens, table, max_norm=1.0))) is None
    assert program.record_step(lambda tokens, *_: linear(F.embedding(tokens, table.double()))) is None
