"""What every model promises. What applies to one is asked of its type: has it a step, has it a source mask?"""

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zhuyi.models import MODELS
from zhuyi.nn import attention
from zhuyi.nn.maps import Maps
from zhuyi.run_folder import RunFolder, named_weights, read_tensors, set_weights

pytestmark = pytest.mark.usefixtures("attention_path")

TOLERANCE = {"rtol": 0, "atol": 1e-10}  # float64


# What a model is, asked of its type.


def mask_names(model: nn.Module) -> dict[str, str]:
    """The inputs that have a mask, and its name: `src` has `src_mask`, the only `ids` has `mask`."""
    parameters = inspect.signature(type(model).forward).parameters
    found = {name: f"{name}_mask" for name in parameters if f"{name}_mask" in parameters}
    return found | ({"ids": "mask"} if {"ids", "mask"} <= parameters.keys() else {})


def written_name(model: nn.Module) -> str:
    """The input that a model which writes goes on writing; the test is skipped for one that does not."""
    if not hasattr(type(model), "step"):
        pytest.skip("writes nothing")
    return "tgt" if "tgt" in inspect.signature(type(model).forward).parameters else "ids"


def recording_call(model: nn.Module) -> Callable[..., Tensor]:
    """The call that takes `maps`; the test is skipped where there is no attention to show."""
    for name in ("forward", "decoder_states"):
        method = getattr(model, name, None)
        if method is not None and "maps" in inspect.signature(method).parameters:
            return method
    pytest.skip("has no attention to show")


# Rows of the inputs.


def alone(model: nn.Module, inputs: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One row without its padding and without masks."""
    masks = mask_names(model)
    found = {}
    for name, value in inputs.items():
        if name not in masks.values():
            real = inputs[masks[name]][row] if name in masks else slice(None)
            found[name] = value[row][real][None]
    return found


def real_outputs(model: nn.Module, inputs: dict[str, Tensor], output: Tensor, row: int) -> Tensor:
    """A row's outputs at its real positions: those of what is written, or of the only sequence read."""
    masks = mask_names(model)
    for name in ("tgt", "ids"):
        if name in masks and output.dim() == 3:
            return output[row, : inputs[name].shape[1]][inputs[masks[name]][row]]
    return output[row]


def forward(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs)


def test_every_model_is_tested(tiny_models: dict[str, Any]) -> None:
    assert tiny_models.keys() == MODELS.keys()


def test_published_sizes_are_configs_of_the_model() -> None:
    for name, architecture in MODELS.items():
        assert architecture.config().name == name
        for config in architecture.sizes.values():
            assert isinstance(config, architecture.config)


def test_shape_and_finite(case: Any) -> None:
    output = forward(case.model, case.inputs)
    assert bool(output.isfinite().all())
    rows = next(iter(case.inputs.values())).shape[0]
    assert output.shape[0] == rows
    if hasattr(type(case.model), "step"):
        written = case.inputs[written_name(case.model)]
        assert output.shape == (*written.shape, case.model.output_projection.weight.shape[0])


def test_bfloat16_gives_bfloat16_near_by(case: Any) -> None:
    expected = forward(case.model, case.inputs)
    inputs = {name: x.bfloat16() if x.is_floating_point() else x for name, x in case.inputs.items()}
    found = forward(case.model.bfloat16(), inputs)
    assert found.dtype == torch.bfloat16
    assert float((found.double() - expected).norm() / expected.norm()) < 0.05


def test_loss_reaches_every_parameter(case: Any) -> None:
    case.model.train()
    loss = case.loss(case.model, case.inputs)
    assert bool(loss.isfinite())
    loss.backward()
    for name, parameter in case.model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


def test_save_and_load_is_identical(case: Any, build_model: Callable[..., nn.Module], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_weights(named_weights(case.model))
    other = build_model(case.name, case.config, seed=4)
    expected = forward(case.model, case.inputs)
    assert not torch.allclose(forward(other, case.inputs), expected)
    set_weights(other, read_tensors(folder.weights_path), folder.weights_path)
    assert torch.equal(forward(other, case.inputs), expected)
    again = build_model(case.name, case.config, seed=5)
    again.load_state_dict(case.model.state_dict())
    assert torch.equal(forward(again, case.inputs), expected)


def test_evaluation_is_repeatable_and_leaves_its_inputs(case: Any) -> None:
    before = {name: value.clone() for name, value in case.inputs.items()}
    assert torch.equal(forward(case.model, case.inputs), forward(case.model, case.inputs))
    for name, value in case.inputs.items():
        assert torch.equal(value, before[name])


def test_padding_changes_no_real_position(case: Any) -> None:
    """What stands in the padding does not matter, nor how much of it there is."""
    masks = mask_names(case.model)
    if not masks:
        pytest.skip("has no mask")
    expected = forward(case.model, case.inputs)
    for name, mask_name in masks.items():
        value, mask = case.inputs[name], case.inputs[mask_name]
        other = torch.where(mask, value, (value + 5) % 11)
        more = torch.cat([other, other[:, :2]], dim=1), torch.cat([mask, torch.zeros_like(mask[:, :2])], dim=1)
        for changed in ({name: other}, {name: more[0], mask_name: more[1]}):
            output = forward(case.model, case.inputs | changed)
            for row in range(len(value)):
                torch.testing.assert_close(
                    real_outputs(case.model, case.inputs | changed, output, row),
                    real_outputs(case.model, case.inputs, expected, row),
                    **TOLERANCE,
                )


def test_real_positions_matter(case: Any) -> None:
    """The masks of the test above hide the padding and nothing else."""
    expected = forward(case.model, case.inputs)
    for name, mask_name in mask_names(case.model).items():
        mask = case.inputs[mask_name]
        for row in range(len(mask)):
            last = int(mask[row].sum()) - 1
            changed = case.inputs[name].clone()
            changed[row, last] = (changed[row, last] + 1) % 11
            output = forward(case.model, case.inputs | {name: changed})
            found = real_outputs(case.model, case.inputs, output, row)
            assert not torch.allclose(found[-1], real_outputs(case.model, case.inputs, expected, row)[-1])


def test_a_row_alone_is_the_row_in_a_batch(case: Any) -> None:
    output = forward(case.model, case.inputs)
    for row in range(len(output)):
        lone = forward(case.model, alone(case.model, case.inputs, row))[0]
        torch.testing.assert_close(real_outputs(case.model, case.inputs, output, row), lone, **TOLERANCE)


def test_the_future_does_not_leak(case: Any) -> None:
    name = written_name(case.model)
    written = case.inputs[name]
    expected = forward(case.model, case.inputs)
    for t in range(written.shape[1]):
        changed = written.clone()
        changed[:, t:] = (changed[:, t:] + 3) % 11
        output = forward(case.model, case.inputs | {name: changed})
        torch.testing.assert_close(output[:, :t], expected[:, :t], **TOLERANCE)
        assert not torch.allclose(output[:, t], expected[:, t])


# Writing: every step's logits against the whole sequence computed again, each row alone.


@dataclass
class Writing:
    """Rows in flight beside plain lists of what each has read.

    Args:   histories: what the next step's tokens will be appended to.
            sources: which row of the inputs each row answers.
    """

    model: Any
    inputs: dict[str, Tensor]
    state: Any
    sources: list[int]
    histories: list[list[int]]
    pending: list[int]
    draws: random.Random = field(default_factory=lambda: random.Random(0))

    @classmethod
    def start(
        cls, model: Any, inputs: dict[str, Tensor], sources: list[int], prefixes: list[list[int]], masked: bool = True
    ) -> "Writing":
        """Begin one row for each of `sources`, by a prefix each, of unequal lengths if they are masked."""
        longest = max(len(prefix) for prefix in prefixes)
        mask = torch.tensor([[t < len(prefix) for t in range(longest)] for prefix in prefixes])
        ids = torch.tensor([prefix + [7] * (longest - len(prefix)) for prefix in prefixes])
        memory = None
        if hasattr(type(model), "encode"):
            names = inspect.signature(type(model).encode).parameters
            memory = model.encode(**{name: x[sources] for name, x in inputs.items() if name in names})
        state = model.start(memory, ids, mask) if masked else model.start(memory, ids)
        return cls(model, inputs, state, sources, [p[:-1] for p in prefixes], [p[-1] for p in prefixes])

    def step(self, count: int = 1) -> "Writing":
        name = written_name(self.model)
        for _ in range(count):
            logits, self.state = self.model.step(torch.tensor(self.pending), self.state)
            self.histories = [[*history, token] for history, token in zip(self.histories, self.pending, strict=True)]
            for row, (source, history) in enumerate(zip(self.sources, self.histories, strict=True)):
                whole = self.model(**alone(self.model, self.inputs, source) | {name: torch.tensor([history])})
                torch.testing.assert_close(logits[row], whole[0, -1], **TOLERANCE)
            self.pending = [self.draws.randrange(11) for _ in self.pending]
        return self

    def select(self, rows: list[int]) -> "Writing":
        self.state = self.state.select(torch.tensor(rows))
        self.sources, self.histories, self.pending = (
            [values[row] for row in rows] for values in (self.sources, self.histories, self.pending)
        )
        return self

    def join(self, other: "Writing") -> "Writing":
        self.state = self.state.join(other.state)
        self.sources, self.histories = self.sources + other.sources, self.histories + other.histories
        self.pending += other.pending
        return self


@torch.no_grad()
def test_step_by_step_is_all_at_once(case: Any) -> None:
    name = written_name(case.model)
    written = case.inputs[name]
    expected = forward(case.model, case.inputs)
    memory = None
    if hasattr(type(case.model), "encode"):
        names = inspect.signature(type(case.model).encode).parameters
        memory = case.model.encode(**{key: value for key, value in case.inputs.items() if key in names})
    for length in (1, 2, 4):  # of the prefix
        state = case.model.start(memory, written[:, :length])
        for t in range(length - 1, written.shape[1]):
            logits, state = case.model.step(written[:, t], state)
            real = case.inputs[mask_names(case.model)[name]][:, t]  # what stands where a mask hides it is not said
            torch.testing.assert_close(logits[real], expected[real, t], **TOLERANCE)


@torch.no_grad()
def test_long_texts_outgrow_every_block(case: Any) -> None:
    written_name(case.model)
    Writing.start(case.model, case.inputs, [0, 1], [[1], [1]]).step(17).select([1, 1, 0]).step(17)


@torch.no_grad()
def test_prefixes_of_unequal_length(case: Any) -> None:
    written_name(case.model)
    prefixes = [[1, 4, 2], [1], [1, 5, 6, 3, 9]]
    Writing.start(case.model, case.inputs, [0, 1, 2], prefixes).step(3).select([2, 0]).step(2)
    Writing.start(case.model, case.inputs, [2, 1], [[1, 4], [1, 5]], masked=False).step(2)
    Writing.start(case.model, case.inputs, [1], [[1, 2, 3]]).step(2)


@torch.no_grad()
def test_beams_change_places_finish_and_meet_others(case: Any) -> None:
    written_name(case.model)
    rows = Writing.start(case.model, case.inputs, [0, 1, 2], [[1]] * 3)
    rows.select([0, 0, 1, 1, 2, 2]).step(2)  # the rows of a beam share one memory
    rows.select([1, 0, 2, 2, 5, 4]).step(2)
    rows.select([1, 0, 5, 5]).step(2)  # the second beam is done
    others = Writing.start(case.model, case.inputs, [1, 0], [[1, 3], [1, 8]]).select([0, 0, 1, 1]).step()
    rows.join(others).step(2)
    rows.select([2, 3, 1, 0, 4, 4, 6, 7]).step()
    rows.join(Writing.start(case.model, case.inputs, [2], [[1]])).step(2)  # a beam of one beside beams of two
    rows.select([8, 0, 3]).step(2)


@torch.no_grad()
def test_memories_of_unequal_length_join(case: Any) -> None:
    """Each encoded with no more padding than it needs, or with none and no mask."""
    written_name(case.model)
    lone = [alone(case.model, case.inputs, row) for row in range(3)]
    encoded = [Writing.start(case.model, inputs, [0], [[1]]) for inputs in lone]
    for row, writing in enumerate(encoded):
        writing.inputs, writing.sources = case.inputs, [row]
    encoded[2].step(2)
    encoded[1].join(encoded[2]).step().join(encoded[0]).step(2).select([2, 0, 1]).step()


@pytest.mark.parametrize("name", list(MODELS))
def test_any_sequence_of_steps_selections_and_joins(
    name: str, tiny_models: dict[str, Any], build_model: Callable[..., nn.Module]
) -> None:
    tiny = tiny_models[name]
    config = next(iter(tiny.configs.values()))
    model, inputs = build_model(name, config), tiny.inputs(config)
    written_name(model)
    count = len(next(iter(inputs.values())))

    def fresh(data: st.DataObject) -> Writing:
        sources = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=2))
        prefix = st.lists(st.integers(0, 10), min_size=1, max_size=3)
        writing = Writing.start(model, inputs, sources, [data.draw(prefix) for _ in sources])
        width = data.draw(st.integers(1, 2))
        return writing.select([row for row in range(len(sources)) for _ in range(width)])

    @settings(max_examples=15)
    @given(st.data())
    def play(data: st.DataObject) -> None:
        writing = fresh(data).step()
        for action in data.draw(st.lists(st.sampled_from(["select", "join"]), max_size=3)):
            if action == "join":
                writing.join(fresh(data))
            else:
                rows = st.integers(0, len(writing.sources) - 1)
                writing.select(data.draw(st.lists(rows, min_size=1, max_size=4)))
            writing.step()

    with torch.no_grad():
        play()


# Attention maps.


def test_maps_change_nothing_beyond_rounding(case: Any) -> None:
    call = recording_call(case.model)
    with torch.no_grad():
        torch.testing.assert_close(call(**case.inputs, maps=Maps()), call(**case.inputs), **TOLERANCE)
        case.model.float()
        found, expected = call(**case.inputs, maps=Maps()), call(**case.inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_weights_sum_to_one_or_to_zero_where_nothing_may_be_attended(case: Any) -> None:
    """A row that is padding through and through gives zeros and no NaN, and disturbs no other."""
    call = recording_call(case.model)
    read = [name for name in mask_names(case.model) if name != "tgt"]
    inputs = dict(case.inputs)
    for name in read:
        mask = inputs[mask_names(case.model)[name]].clone()
        mask[1] = False
        inputs[mask_names(case.model)[name]] = mask
    maps, before = Maps(), Maps()
    with torch.no_grad():
        output = call(**inputs, maps=maps)
        expected = call(**case.inputs, maps=before)
        torch.testing.assert_close(call(**inputs), output, **TOLERANCE)
    assert bool(output.isfinite().all())
    torch.testing.assert_close(output[[0, 2]], expected[[0, 2]], **TOLERANCE)
    if not before.weights:
        pytest.skip("has no attention to show")
    zeros = 0
    for weights in maps.weights.values():
        assert bool((weights >= 0).all())
        sums = weights.sum(dim=-1)
        assert bool(((sums - 1).abs().lt(1e-10) | (sums == 0)).all())
        assert not (sums[[0, 2]] == 0).any()
        zeros += int((sums[1] == 0).sum())
    assert bool(zeros) == bool(read)
    for weights in before.weights.values():
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]), **TOLERANCE)


def test_nothing_is_kept_on_the_module(case: Any) -> None:
    """No cache, mask or map stays behind: the state and the recorder are passed and returned."""

    def contents() -> dict[tuple[str, str], Any]:
        modules = case.model.named_modules()
        return {(name, key): value for name, module in modules for key, value in vars(module).items()}

    before = contents()
    forward(case.model, case.inputs)
    if hasattr(type(case.model), "step"):
        with torch.no_grad():
            Writing.start(case.model, case.inputs, [0, 1], [[1], [1, 2]]).step(2)
    after = contents()
    assert after.keys() == before.keys()
    assert all(after[place] is before[place] for place in before)


def test_path_in_use(attention_path: str) -> None:
    """The fixture truly chooses the path."""
    q = torch.zeros(1, 1, 2, 2)
    assert attention._plain_is_faster(q, q, None) is (attention_path == "plain")
