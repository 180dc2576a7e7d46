"""Recurrent layers against their equations and torch's own, attention against its formulas, the state against lists."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zhuyi.nn import dropout as dropout_module
from zhuyi.nn.recurrent import (
    AdditiveAttention,
    Annotations,
    MultiplicativeAttention,
    Recurrent,
    RecurrentState,
    reverse,
)

TOLERANCE = {"rtol": 0, "atol": 1e-12}
CELLS: list[Any] = ["rnn", "lstm", "gru"]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def stack(cell: Any, *, layers: int = 2, bidirectional: bool = False, dropout: float = 0.0) -> Recurrent:
    torch.manual_seed(1)
    return Recurrent(cell, 3, 5, layers, bidirectional=bidirectional, dropout=dropout).double()


# Cells.


def step(cell: str, weights: dict[str, Tensor], x: Tensor, past: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """One step of one layer as the docstring has it; (D,) vectors."""
    wx = weights["weight_ih"] @ x + weights["bias_ih"]
    uh = weights["weight_hh"] @ past[0] + weights["bias_hh"]
    if cell == "rnn":
        return (torch.tanh(wx + uh),)
    if cell == "lstm":
        i, f, g, o = (wx + uh).chunk(4)
        c = torch.sigmoid(f) * past[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    (wr, wz, wn), (ur, uz, un) = wx.chunk(3), uh.chunk(3)
    r, z = torch.sigmoid(wr + ur), torch.sigmoid(wz + uz)
    return ((1 - z) * torch.tanh(wn + r * un) + z * past[0],)


def weights_of(layer: nn.Module, suffix: str = "_l0") -> dict[str, Tensor]:
    return {
        name.removesuffix(suffix): weight
        for name, weight in layer.named_parameters()
        if name.endswith(suffix) and name.endswith("_reverse") == suffix.endswith("_reverse")
    }


def read(
    model: Recurrent, x: Tensor, suffixes: tuple[str, ...], hidden: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """One row, (T, d_in): outputs (T, D) and the last states, by the equations alone."""
    last: list[Tensor] = []
    count = 2 if model.cell == "lstm" else 1
    for number, layer in enumerate(model.layers):
        sides, ends = [], []
        for suffix in suffixes:
            past = tuple(torch.zeros(5, dtype=torch.float64) for _ in range(count))
            if hidden is not None:
                past = tuple(hidden[number * count : (number + 1) * count])
            outputs = []
            for token in x.flip(0) if suffix.endswith("_reverse") else x:
                past = step(model.cell, weights_of(layer, suffix), token, past)
                outputs.append(past[0])
            found = torch.stack(outputs)
            sides.append(found.flip(0) if suffix.endswith("_reverse") else found)
            ends.append(past)
        x = torch.cat(sides, dim=1)
        last += [torch.cat([end[i] for end in ends]) for i in range(count)]
    return x, last


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_stack_is_its_equations_row_by_row(cell: Any, bidirectional: bool) -> None:
    model = stack(cell, layers=3, bidirectional=bidirectional)
    x, lengths = numbers(4, 7, 3), [7, 2, 5, 1]
    suffixes = ("_l0", "_l0_reverse") if bidirectional else ("_l0",)
    for given_lengths in (lengths, None):
        outputs, hidden = model(x, None, given_lengths)
        assert hidden.shape == (model.num_tensors, 4, model.d_out)
        for row, length in enumerate(given_lengths or [7] * 4):
            expected, last = read(model, x[row, :length], suffixes)
            torch.testing.assert_close(outputs[row, :length], expected, **TOLERANCE)
            torch.testing.assert_close(hidden[:, row], torch.stack(last), **TOLERANCE)
            assert not outputs[row, length:].any()


@torch.no_grad()
@pytest.mark.parametrize("cell", CELLS)
def test_it_goes_on_from_hidden_states_all_at_once_and_step_by_step(cell: Any) -> None:
    model = stack(cell, layers=3)
    x, first = numbers(4, 6, 3), numbers(model.num_tensors, 4, 5, seed=1)
    outputs, last = model(x, first)
    hidden = first
    for t in range(6):
        y, hidden = model.advance(x[:, t], hidden)
        torch.testing.assert_close(y, outputs[:, t], **TOLERANCE)
        torch.testing.assert_close(model.top(hidden), y, **TOLERANCE)
    torch.testing.assert_close(hidden, last, **TOLERANCE)
    for row in range(4):
        expected, _ = read(model, x[row], ("_l0",), first[:, row])
        torch.testing.assert_close(outputs[row], expected, **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("cell", CELLS)
def test_steps_are_those_of_torchs_cells(cell: Any) -> None:
    model = stack(cell, layers=1)
    theirs = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[cell](3, 5).double()
    theirs.load_state_dict(weights_of(model.layers[0]))
    hidden = numbers(model.num_tensors, 4, 5, seed=1)
    past = tuple(hidden) if cell == "lstm" else hidden[0]
    for t in range(5):
        x = numbers(4, 3, seed=t)
        y, hidden = model.advance(x, hidden)
        past = theirs(x, past)
        torch.testing.assert_close(y, past[0] if cell == "lstm" else past, **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("cell", CELLS)
def test_a_stack_is_torchs_stack(cell: Any) -> None:
    model = stack(cell, layers=3, bidirectional=True)
    module = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
    theirs = module(3, 5, num_layers=3, bidirectional=True, batch_first=True).double()
    theirs.load_state_dict(
        {
            name.replace("_l0", f"_l{i}"): weight
            for i, layer in enumerate(model.layers)
            for name, weight in layer.state_dict().items()
        }
    )
    x = numbers(4, 7, 3)
    torch.testing.assert_close(model(x)[0], theirs(x)[0], **TOLERANCE)


@pytest.mark.parametrize("cell", CELLS)
def test_dropout_is_between_layers_alone(cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def record(x: Tensor, rate: float) -> Tensor:
        assert rate == 0.3
        shapes.append(tuple(x.shape))
        return torch.full_like(x, 2.0)

    monkeypatch.setattr(dropout_module, "keep_mask", record)
    model = stack(cell, layers=3, dropout=0.3)
    x = numbers(2, 4, 3)
    outputs, _ = model(x)
    assert shapes == [(2, 4, 5)] * 2
    model(x, None, [4, 2])
    assert shapes[2:] == [(6, 5)] * 2  # the padding is left out
    hidden = numbers(model.num_tensors, 2, 5) * 0
    for t in range(4):
        y, hidden = model.advance(x[:, t], hidden)
        torch.testing.assert_close(y, outputs[:, t], **TOLERANCE)
    shapes.clear()
    model.eval()(x)
    assert not shapes


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_reverse_turns_what_is_real(lengths: list[int]) -> None:
    ids = torch.arange(len(lengths) * 6).view(-1, 6)
    found = reverse(ids, lengths)
    for row, length in enumerate(lengths):
        assert found[row].tolist() == [*ids[row, :length].tolist()[::-1], *ids[row, length:].tolist()]
    x = torch.stack([ids, -ids], dim=-1)
    assert torch.equal(reverse(x, lengths)[..., 1], -found)
    assert torch.equal(reverse(found, lengths), ids)
    assert torch.equal(reverse(x, None), x.flip(1))


# Attention, formula by formula.


def scores(attention: Any, query: Tensor, value: Tensor) -> Tensor:
    """Of one query (D,) and one annotation (A,)."""
    if isinstance(attention, AdditiveAttention):
        hidden = torch.tanh(attention.w_a.weight @ query + attention.u_a.weight @ value)
        return sum((v * h for v, h in zip(attention.v_a, hidden, strict=True)), torch.zeros(()))
    weight = getattr(attention.w_a, "weight", None)  # (A, D): transposed, Luong's W_a
    return query @ value if weight is None else query @ (weight.T @ value)


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["additive", "dot", "general"])
def test_attention_is_its_formula(kind: Any, masked: bool, attention_path: str) -> None:
    torch.manual_seed(2)
    d_value = 5 if kind == "dot" else 7
    attention: Any = (
        AdditiveAttention(5, d_value) if kind == "additive" else MultiplicativeAttention(5, d_value, kind)
    ).double()
    query, values = numbers(3, 4, 5), numbers(3, 6, d_value, seed=1)
    lengths = [6, 2, 0] if masked else [6, 6, 6]
    annotations = attention.annotations(values, lengths if masked else None)
    wanted = {} if kind == "additive" else {"need_weights": True}
    context, weights = attention(query, annotations, **wanted)
    for row, length in enumerate(lengths):
        assert not weights[row, :, length:].any()
        for t in range(4):
            powers = torch.stack(
                [torch.exp(scores(attention, query[row, t], value)) for value in values[row, :length]]
                or [torch.ones((), dtype=torch.float64)]
            )
            expected = powers / powers.sum()
            torch.testing.assert_close(weights[row, t, :length], expected[:length], **TOLERANCE)
            summed = sum((w * v for w, v in zip(expected, values[row, :length], strict=False)), torch.zeros(d_value))
            torch.testing.assert_close(context[row, t], summed.double(), **TOLERANCE)
    if kind != "additive":
        without = attention(query, annotations)
        assert without[1] is None
        torch.testing.assert_close(without[0], context, **TOLERANCE)


# The state.


@dataclass
class Row:
    """What one row must remember."""

    words: Tensor  # (S, A) of its source
    hidden: Tensor  # (K, D)
    position: int = 0


class Play:
    """A state beside its rows in plain lists."""

    def __init__(self, lengths: list[int], *, keys: bool = True, masked: bool = True) -> None:
        longest = max(lengths, default=1)
        values = torch.randn(len(lengths), longest, 3, dtype=torch.float64)
        hidden = torch.randn(2, len(lengths), 5, dtype=torch.float64)
        self.rows = [Row(values[i, :length].clone(), hidden[:, i].clone()) for i, length in enumerate(lengths)]
        annotations = Annotations(values, 2 * values[..., :2] if keys else None, lengths if masked else None)
        self.has_keys = keys
        self.state = RecurrentState(hidden, annotations)

    def check(self) -> None:
        state, annotations = self.state, self.state.annotations
        assert annotations is not None
        assert annotations.count * state.width == len(self.rows)
        assert state.positions.tolist() == [row.position for row in self.rows]
        assert annotations.values.shape[1] == max((len(row.words) for row in self.rows), default=0)
        for i, row in enumerate(self.rows):
            assert torch.equal(state.hidden[:, i], row.hidden)
            source = i // state.width
            real = slice(None) if annotations.mask is None else annotations.mask[source, 0]
            assert torch.equal(annotations.values[source][real], row.words)
            assert torch.equal(annotations.keys[source][real], 2 * row.words[:, :2] if self.has_keys else row.words)

    def step(self) -> "Play":
        self.state.hidden = self.state.hidden + 1
        self.state.positions += 1
        self.rows = [Row(row.words, row.hidden + 1, row.position + 1) for row in self.rows]
        return self

    def select(self, rows: list[int]) -> "Play":
        self.state = self.state.select(torch.tensor(rows, dtype=torch.long))
        self.rows = [self.rows[row] for row in rows]
        self.check()
        return self

    def join(self, other: "Play") -> "Play":
        self.state = self.state.join(other.state)
        self.rows += other.rows
        self.check()
        return self


@given(st.data())
def test_any_sequence_of_calls(data: st.DataObject) -> None:
    torch.manual_seed(0)
    keys = data.draw(st.booleans())

    def fresh() -> Play:
        lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        return Play(lengths, keys=keys, masked=len(set(lengths)) > 1 or data.draw(st.booleans()))

    def act(play: Play, action: str) -> None:
        count = len(play.rows)
        match action:
            case "step":
                play.step()
            case "widen":
                width = data.draw(st.integers(1, 3))
                play.select([i for i in range(count) for _ in range(width)])
            case "select":
                play.select(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6)))

    play = fresh()
    play.check()
    for action in data.draw(st.lists(st.sampled_from(("step", "widen", "select", "join")), min_size=4, max_size=9)):
        if action == "join":
            other = fresh()
            for each in data.draw(st.lists(st.sampled_from(("step", "widen", "select")), max_size=3)):
                act(other, each)
            play.join(other)
        else:
            act(play, action)
        if len(play.rows) > 12:
            play.select(list(range(6)))


def pointers(play: Play) -> tuple[int, int]:
    annotations = play.state.annotations
    assert annotations is not None
    return annotations.values.data_ptr(), annotations.keys.data_ptr()


def test_a_beam_shares_its_source_and_nothing_of_it_is_copied() -> None:
    play = Play([4, 2, 3])
    before = pointers(play)
    play.select([0, 0, 1, 1, 2, 2]).step()
    assert play.state.width == 2
    play.select([1, 1, 3, 2, 4, 4]).step()
    assert pointers(play) == before
    play.select([1, 0, 5, 4])  # the second beam is done: the third takes its place
    assert pointers(play) == before
    assert play.state.width == 2
    play.select([3, 2])  # the first is done
    assert pointers(play) == before
    play.select([1, 0, 0, 1])  # a wider beam
    assert play.state.width == 4
    assert pointers(play) == before


@pytest.mark.parametrize(
    ("rows", "width"),
    [([2, 3, 0, 1], 2), ([0, 2, 1, 3], 1), ([0, 0, 1, 2], 1), ([3], 1), ([0, 1, 1, 0, 2, 3], 2), ([2, 2, 3, 2], 4)],
)
def test_rows_take_their_source_along(rows: list[int], width: int) -> None:
    play = Play([4, 2]).select([0, 0, 1, 1]).step().select(rows)
    assert play.state.width == width


@pytest.mark.parametrize(("mine", "others"), [(2, 3), (1, 2), (2, 2), (4, 2)])
def test_beams_of_any_width_join(mine: int, others: int) -> None:
    play, other = Play([4, 2]), Play([3])
    play.select([row for row in range(2) for _ in range(mine)]).step()
    other.select([0] * others).step().step()
    play.join(other)
    play.select([*range(2 * mine), 2 * mine])


def test_all_rows_may_leave_and_others_come() -> None:
    play, other = Play([2, 3]), Play([4])
    play.step().select([]).join(other.step()).select([0, 0])
    assert len(play.rows) == 2


def test_a_state_without_annotations() -> None:
    states = [RecurrentState(torch.full((2, rows, 5), float(rows)), None) for rows in (2, 3)]
    states[0].positions += 1
    joined = states[0].select(torch.tensor([0, 0, 1, 1])).join(states[1]).select(torch.tensor([4, 1]))
    assert joined.annotations is None
    assert joined.positions.tolist() == [0, 1]
    assert joined.hidden[0, :, 0].tolist() == [3.0, 2.0]


def test_sources_without_padding_need_no_mask() -> None:
    play = Play([5, 2, 2])
    assert play.state.annotations is not None
    assert play.state.annotations.mask is not None
    play.select([2, 1])
    assert play.state.annotations.mask is None


def test_a_copy_is_written_to_alone() -> None:
    values = numbers(3, 4, 2)
    given_to = Annotations(values, None, [4, 3, 2])
    mine = given_to.copy()
    mine.select([2, 1])
    assert torch.equal(values, numbers(3, 4, 2))
    assert given_to.lengths == [4, 3, 2]
    assert torch.equal(mine.values[0], values[2, :3])
