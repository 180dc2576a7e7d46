"""The decoder's state against plain lists of what each row was told, over any sequence of calls."""

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

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
        self.rows = [Row(memory[:, :, i, :, :length]) for i, length in enumerate(lengths)]
        self.state = DecoderState(
            torch.zeros(LAYERS, 2, len(lengths), HEADS, 0, HEAD_DIM, dtype=torch.float64),
            torch.zeros(len(lengths), dtype=torch.long),
            [(k, v) for k, v in memory],
            real[:, None, None] if masked else None,
        )

    def write(self, num_tokens: int = 1) -> None:
        """Store `num_tokens` more a row and look at everything that a layer would then see."""
        starts = [len(row.past) for row in self.rows]
        positions = self.state.begin(num_tokens)
        assert positions.tolist() == [[start + t for t in range(num_tokens)] for start in starts]
        new = numbers(LAYERS, 2, len(self.rows), HEADS, num_tokens, HEAD_DIM)
        for i, row in enumerate(self.rows):
            row.past += [new[:, :, i, :, t] for t in range(num_tokens)]
        for layer in range(LAYERS):
            for part, seen in enumerate(self.state.remember(layer, *new[layer])):
                self._check_past(layer, part, seen, starts, num_tokens)
        self.check()

    def _check_past(self, layer: int, part: int, seen: Tensor, starts: list[int], num_tokens: int) -> None:
        mask = self.state.past_mask
        if mask is None:
            assert num_tokens == 1
            mask = torch.ones(len(self.rows), 1, 1, seen.shape[2], dtype=torch.bool)
        assert mask.shape == (len(self.rows), 1, num_tokens, seen.shape[2])
        for i, row in enumerate(self.rows):
            for t in range(num_tokens):
                visible = seen[i][:, mask[i, 0, t]]  # (H, position, d)
                expected = torch.stack([past[layer, part] for past in row.past[: starts[i] + t + 1]], dim=1)
                assert torch.equal(visible, expected)

    def check(self) -> None:
        """Positions, and each row's memory as its group finds it."""
        state = self.state
        assert state.rows == len(self.rows)
        assert state.positions.tolist() == [len(row.past) for row in self.rows]
        if not self.rows:
            return
        num_memories = state.memory[0][0].shape[0]
        assert len(self.rows) % num_memories == 0
        for i, row in enumerate(self.rows):
            group = i // (len(self.rows) // num_memories)
            for layer in range(LAYERS):
                for part, memory in enumerate(state.memory[layer]):
                    seen = memory[group]
                    if state.memory_mask is not None:
                        seen = seen[:, state.memory_mask[group, 0, 0]]
                    assert torch.equal(seen, row.memory[layer, part])

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


def pointers(state: DecoderState) -> list[int]:
    return [x.data_ptr() for pair in state.memory for x in pair]


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
    for _ in range(2 * CAPACITY_BLOCK + 1):
        play.write()
        assert play.state.cache.shape[4] % CAPACITY_BLOCK == 0
    assert play.state.cache.shape[4] == 3 * CAPACITY_BLOCK
    other = Play([3])
    other.write()
    play.join(other)
    play.write()


def test_rows_of_different_age_fill_a_block_to_its_end() -> None:
    play = Play([2, 1, 1])
    play.write(CAPACITY_BLOCK)
    play.forget_after([CAPACITY_BLOCK, CAPACITY_BLOCK - 1, 0])
    for _ in range(3):
        play.write()


def test_a_beam_shares_one_memory_and_select_never_copies_it() -> None:
    play = Play([4, 2, 3])
    before = pointers(play.state)
    play.select([0, 0, 1, 1, 2, 2])
    play.write()
    play.select([1, 1, 3, 2, 4, 4])  # hypotheses change places within their beams
    play.write()
    assert pointers(play.state) == before
    play.select([0, 1, 4, 5])  # the second beam is done
    assert play.state.memory[0][0].shape[0] == 2
    play.write()
    before = pointers(play.state)
    play.select([0, 2])  # one hypothesis a beam is left
    assert pointers(play.state) == before
    play.write()


@pytest.mark.parametrize(
    "rows",
    [
        [2, 3, 0, 1],  # whole beams change places
        [0, 2, 1, 3],  # interleaved: every row its own memory
        [0, 0, 1, 2],  # beams of unequal size
        [3],
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
        play.write(3)
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
        assert (play.state.memory_mask is None) == (not mine and not others and lengths == [3, 3])


def test_all_rows_may_leave_and_others_come() -> None:
    play, other = Play([2, 3]), Play([4])
    play.write()
    play.select([])
    other.write(2)
    play.join(other)
    play.write()
    assert len(play.rows) == 1


def test_rows_of_one_age_need_no_mask() -> None:
    play = Play([2, 1])
    play.write()
    assert play.state.past_mask is None
    play.write(2)
    assert play.state.past_mask is not None
    play.write()
    assert play.state.past_mask is None
    play.forget_after([1, 2])
    play.write()
    assert play.state.past_mask is not None
    play.select([1, 1])
    play.write()
    assert play.state.past_mask is None


def test_a_state_without_memory() -> None:
    """A decoder-only model's."""
    states = [DecoderState(torch.zeros(1, 2, n, 1, 0, 1), torch.zeros(n, dtype=torch.long)) for n in (2, 3)]
    for i, state in enumerate(states):
        for step in range(i + 1):
            state.begin(1)
            state.remember(0, torch.full((state.rows, 1, 1, 1), step + 1.0), torch.zeros(state.rows, 1, 1, 1))
    joined = states[0].join(states[1]).select(torch.tensor([4, 0]))
    assert joined.positions.tolist() == [2, 1]
    assert not joined.memory
    joined.begin(1)
    keys, _ = joined.remember(0, torch.full((2, 1, 1, 1), 9.0), torch.zeros(2, 1, 1, 1))
    assert joined.past_mask is not None
    assert [keys[i, 0, joined.past_mask[i, 0, 0], 0].tolist() for i in range(2)] == [[1, 2, 9], [1, 9]]
