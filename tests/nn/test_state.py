"""The decoder's state against plain lists of what each row was told, over any sequence of calls."""

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zhuyi.nn.attention import attend
from zhuyi.nn.state import CAPACITY_BLOCK, DecoderState

LAYERS, HEADS, HEAD_DIM = 2, 3, 5


@dataclass
class Row:
    """What one row must remember: keys and values of each layer and position, and which memory it reads."""

    memory: Tensor
    past: list[Tensor] = field(default_factory=list)  # (L, 2, H, d) each


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


class Play:
    """A state beside its rows in plain lists."""

    def __init__(self, lengths: list[int], *, masked: bool = True) -> None:
        """One row and one memory for each length."""
        longest = max(lengths, default=1)
        real = torch.arange(longest) < torch.tensor(lengths)[:, None]
        memory = numbers(LAYERS, 2, len(lengths), HEADS, longest, HEAD_DIM)
        self.rows = [Row(memory[:, :, i, :, :length].clone()) for i, length in enumerate(lengths)]
        self.state = DecoderState(
            torch.zeros(LAYERS, 2, len(lengths), HEADS, 0, 1, HEAD_DIM, dtype=torch.float64),
            memory,
            real if masked else None,
        )

    def write(self, num_tokens: int = 1) -> None:
        """Store `num_tokens` more a row and look at everything that a layer would then see."""
        starts = [len(row.past) for row in self.rows]
        positions = self.state.begin(num_tokens)
        assert positions.shape == (self.state.groups, self.state.width * num_tokens)
        expected = [[start + t for t in range(num_tokens)] for start in starts]
        assert positions.reshape(-1, num_tokens).tolist() == expected
        new = numbers(LAYERS, 2, len(self.rows), num_tokens, HEADS, HEAD_DIM)
        for i, row in enumerate(self.rows):
            row.past += [new[:, :, i, t] for t in range(num_tokens)]
        # As a layer has them: the rows of a group side by side, as if they were positions.
        grouped = new.reshape(LAYERS, 2, self.state.groups, -1, HEADS, HEAD_DIM).transpose(3, 4)
        for layer in range(LAYERS):
            for part, seen in enumerate(self.state.remember(layer, *grouped[layer])):
                self._check_past(layer, part, seen, starts, num_tokens)
        self.check()

    def _check_past(self, layer: int, part: int, seen: Tensor, starts: list[int], num_tokens: int) -> None:
        groups, width, bias = self.state.groups, self.state.width, self.state.past_bias
        if bias is None:
            assert num_tokens == width == 1
            bias = torch.zeros(groups, 1, 1, seen.shape[2], dtype=torch.float64)
        assert bias.shape == (groups, 1, width * num_tokens, seen.shape[2])
        assert bool(((bias == 0) | (bias == torch.finfo(torch.float64).min)).all())
        visible = bias.reshape(len(self.rows), num_tokens, -1) == 0
        offsets = self.state.offsets.repeat_interleave(width, dim=1)  # (T, columns * W)
        for i, row in enumerate(self.rows):
            for t in range(num_tokens):
                expected = torch.stack([past[layer, part] for past in row.past[: starts[i] + t + 1]], dim=1)
                assert torch.equal(seen[i // width][:, visible[i, t]], expected)
                assert offsets[t, visible[i, t]].tolist() == list(range(-starts[i] - t, 1))

    def check(self) -> None:
        """Positions, and each row's memory as its group finds it."""
        state = self.state
        assert state.rows == len(self.rows)
        assert state.positions.tolist() == [len(row.past) for row in self.rows]
        for layer in range(LAYERS):
            keys, values, bias = state.memory_of(layer)
            assert keys.shape == values.shape == (state.groups, HEADS, keys.shape[2], HEAD_DIM)
            bias = torch.zeros(state.groups, 1, 1, keys.shape[2]) if bias is None else bias
            for i, row in enumerate(self.rows):
                group = i // state.width
                for part, memory in enumerate((keys, values)):
                    assert torch.equal(memory[group][:, bias[group, 0, 0] == 0], row.memory[layer, part])

    def select(self, rows: list[int]) -> None:
        self.state = self.state.select(torch.tensor(rows, dtype=torch.long))
        self.rows = [Row(self.rows[i].memory, list(self.rows[i].past)) for i in rows]
        self.check()

    def join(self, other: "Play") -> None:
        self.state = self.state.join(other.state)
        self.rows += other.rows
        self.check()

    def forget_after(self, positions: list[int]) -> None:
        self.state.forget_after(torch.tensor(positions, dtype=torch.long))
        for row, position in zip(self.rows, positions, strict=True):
            del row.past[position:]
        self.check()


def pointers(state: DecoderState) -> tuple[int, int]:
    assert state.memory is not None
    return state.cache.data_ptr(), state.memory.data_ptr()


@given(st.data())
def test_any_sequence_of_calls(data: st.DataObject) -> None:
    torch.manual_seed(0)
    lengths = st.lists(st.integers(1, 4), min_size=1, max_size=3)

    def fresh() -> Play:
        found = data.draw(lengths)
        return Play(found, masked=len(set(found)) > 1 or data.draw(st.booleans()))

    def act(play: Play, action: str) -> None:
        rows = len(play.rows)
        match action:
            case "write":
                play.write(data.draw(st.integers(1, 3)))
            case "widen":
                width = data.draw(st.integers(1, 3))
                play.select([i for i in range(rows) for _ in range(width)])
            case "select":
                play.select(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=6)))
            case "forget":
                play.forget_after([data.draw(st.integers(0, len(row.past))) for row in play.rows])

    actions = ("write", "widen", "select", "forget")
    play = fresh()
    for action in data.draw(st.lists(st.sampled_from((*actions, "join")), min_size=4, max_size=9)):
        if action == "join":
            other = fresh()
            for each in data.draw(st.lists(st.sampled_from(actions), max_size=3)):
                act(other, each)
            play.join(other)
        else:
            act(play, action)
        if len(play.rows) > 12:
            play.select(list(range(6)))
    play.write()


def test_cache_grows_by_blocks_and_keeps_the_past() -> None:
    play = Play([2, 1])
    play.forget_after([0, 0])
    sizes = set()
    for _ in range(5 * CAPACITY_BLOCK):
        play.write()
        assert play.state.cache.shape[4] % CAPACITY_BLOCK == 0
        sizes.add(play.state.cache.shape[4])
    assert len(sizes) < 5  # not a copy a block
    other = Play([3])
    other.write()
    play.join(other)
    play.write()


def test_a_cache_of_short_rows_stays_small_for_ever() -> None:
    """Requests come and go, and the column that all write to goes on."""
    play = Play([2, 1])
    for _ in range(4 * CAPACITY_BLOCK):
        play.write()
        if len(play.rows[0].past) >= 3:
            play.select([1])
            play.join(Play([4]))
    assert play.state.cache.shape[4] == CAPACITY_BLOCK


def test_rows_of_different_age_fill_a_block_to_its_end() -> None:
    play = Play([2, 1, 1])
    play.write(CAPACITY_BLOCK)
    play.forget_after([CAPACITY_BLOCK, CAPACITY_BLOCK - 1, 0])
    for _ in range(3):
        play.write()


def test_a_beam_shares_one_memory_and_its_hypotheses_change_places_without_a_copy() -> None:
    play = Play([4, 2, 3])
    memory = pointers(play.state)[1]
    play.select([0, 0, 1, 1, 2, 2])
    play.write()
    before = pointers(play.state)
    play.select([1, 1, 3, 2, 4, 4])
    play.write()
    assert pointers(play.state) == before
    assert before[1] == memory
    play.select([1, 0, 5, 4])  # the second beam is done: the third takes its place
    play.write()
    assert pointers(play.state) == before
    other = Play([1])
    other.select([0, 0])
    play.join(other)  # into the place that is free
    play.write()
    assert pointers(play.state) == before


@pytest.mark.parametrize(
    "rows",
    [
        [2, 3, 0, 1],  # whole beams change places
        [0, 2, 1, 3],  # interleaved: every row its own memory
        [0, 0, 1, 2],  # beams of unequal size
        [3],
        [0, 2],
        [0, 1, 2, 3, 0, 1],
        [2, 2, 2, 2],
    ],
)
def test_rows_take_their_memory_along(rows: list[int]) -> None:
    play = Play([4, 2])
    play.select([0, 0, 1, 1])
    play.write()
    play.select(rows)
    play.write()


def test_beams_of_different_width_join() -> None:
    for first, second in ((2, 3), (1, 2), (2, 2)):
        play, other = Play([4, 2]), Play([3])
        play.select([i for i in range(2) for _ in range(first)])
        for _ in range(3):
            play.write()
        other.select([0] * second)
        other.write()
        play.join(other)
        play.write()
        play.select([*range(2 * first), 2 * first])
        play.write()


@pytest.mark.parametrize(("mine", "others"), [(True, False), (False, True), (False, False)])
def test_memories_without_a_mask_join_those_with_one(mine: bool, others: bool) -> None:
    for lengths in ([3, 3], [5, 5]):
        play, other = Play([3, 3], masked=mine), Play(lengths, masked=others)
        play.join(other)
        play.write()
        assert (play.state.memory_of(0)[2] is None) == (lengths == [3, 3])


def test_a_memory_is_no_longer_than_its_longest_source() -> None:
    play = Play([5, 2])
    play.select([1])
    assert play.state.memory_of(0)[0].shape[2] == 2
    assert play.state.memory_of(0)[2] is None
    play.write()


def test_a_source_without_a_real_token_gives_zeros() -> None:
    memory = numbers(1, 2, 2, HEADS, 3, HEAD_DIM)
    state = DecoderState(
        torch.zeros(1, 2, 2, HEADS, 0, 1, HEAD_DIM, dtype=torch.float64),
        memory.clone(),
        torch.tensor([[True, True, False], [False, False, False]]),
    )
    q = numbers(2, HEADS, 1, HEAD_DIM)
    keys, values, bias = state.memory_of(0)
    output, _ = attend(q, keys, values, bias=bias)
    expected, _ = attend(q[:1], memory[0, 0, :1, :, :2], memory[0, 1, :1, :, :2])
    torch.testing.assert_close(output[:1], expected)
    assert not output[1].any()


def test_all_rows_may_leave_and_others_come() -> None:
    play, other = Play([2, 3]), Play([4])
    play.write()
    play.select([])
    other.write(2)
    play.join(other)
    play.write()
    assert len(play.rows) == 1


def test_rows_of_one_age_need_no_bias() -> None:
    play = Play([2, 1])
    play.write()
    assert play.state.past_bias is None
    play.write(2)
    assert play.state.past_bias is not None
    play.write()
    assert play.state.past_bias is None
    play.forget_after([1, 2])
    play.write()
    assert play.state.past_bias is not None
    play.select([1, 0])
    play.select([0])
    play.write()
    assert play.state.past_bias is None


def test_a_state_without_memory() -> None:
    """A decoder-only model's."""
    states = [DecoderState(torch.zeros(1, 2, n, 1, 0, 1, 1)) for n in (2, 3)]
    for i, state in enumerate(states):
        for step in range(i + 1):
            state.begin(1)
            state.remember(0, torch.full((state.rows, 1, 1, 1), step + 1.0), torch.zeros(state.rows, 1, 1, 1))
    joined = states[0].join(states[1]).select(torch.tensor([4, 0]))
    assert joined.positions.tolist() == [2, 1]
    assert joined.memory is None
    joined.begin(1)
    keys, _ = joined.remember(0, torch.full((2, 1, 1, 1), 9.0), torch.zeros(2, 1, 1, 1))
    assert joined.past_bias is not None
    assert [keys[i, 0, joined.past_bias[i, 0, 0] == 0, 0].tolist() for i in range(2)] == [[1, 2, 9], [1, 9]]


def test_a_beam_wider_than_a_byte_counts() -> None:
    play = Play([2])
    play.select([0] * 300)
    play.write()
    play.select([299, *range(299)])
    play.write()


@pytest.mark.parametrize("width", [1, 3])
def test_a_bias_and_a_scale_of_its_own(width: int) -> None:
    """Each row attends its own past, as `attend` does over a plain list of it."""
    torch.manual_seed(0)
    table, memory = numbers(HEADS, 40), numbers(1, 2, 2, HEADS, 4, HEAD_DIM)  # by how far back a key lies
    state = DecoderState(torch.zeros(1, 2, 2, HEADS, 0, 1, HEAD_DIM, dtype=torch.float64), memory, scale=0.9)
    pasts: list[list[Tensor]] = [[] for _ in range(2)]

    def step(num_tokens: int) -> None:
        state.begin(num_tokens)
        state.bias_past(table[:, (-state.offsets).clamp_min(0)])
        qkv = numbers(state.groups, state.width * num_tokens, 3 * HEADS * HEAD_DIM)
        found = state.attend_past(0, qkv).reshape(state.rows, num_tokens, HEADS, HEAD_DIM)
        sources = state.attend_memory(0, qkv[..., : HEADS * HEAD_DIM]).reshape(found.shape)
        for row, new in enumerate(qkv.reshape(state.rows, num_tokens, 3, HEADS, HEAD_DIM)):
            for t, (query, key, value) in enumerate(new):
                pasts[row].append(torch.stack([key, value]))
                keys, values = torch.stack(pasts[row], dim=2)  # (H, T, d) each
                bias = table[:, : len(pasts[row])].flip(1)[:, None]
                expected = attend(query[:, None], keys, values, bias=bias, scale=0.9)[0]
                torch.testing.assert_close(found[row, t], expected[:, 0])
                expected = attend(query[:, None], *memory[0, :, row // state.width], scale=0.9)[0]
                torch.testing.assert_close(sources[row, t], expected[:, 0])

    step(3)
    state.forget_after(torch.tensor([3, 1]))
    del pasts[1][1:]
    state.select(torch.arange(2).repeat_interleave(width))
    pasts[:] = [list(past) for past in pasts for _ in range(width)]
    step(1)
    state.select(torch.arange(2 * width).view(2, width).flip(1).flatten())
    pasts[:] = [pasts[group * width + place] for group in range(2) for place in reversed(range(width))]
    step(1)


def test_a_steps_bias_ends_with_the_step() -> None:
    state = DecoderState(torch.zeros(1, 2, 1, 1, 0, 1, 2))
    state.begin(1)
    state.bias_past(torch.full((1, 1, 1), 5.0))
    assert state.past_bias is not None
    state.begin(1)
    assert state.past_bias is None
