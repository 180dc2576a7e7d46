"""GMAN against its formulas, computed number by number in loops; groups, gaps and batch normalisation."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zhuyi.errors import InputError
from zhuyi.models.gman import PUBLISHED_SIZES, Gman, GmanConfig
from zhuyi.nn.maps import Maps
from zhuyi.run_folder import RunFolder, named_weights, set_weights

SMALL = GmanConfig(d_model=6, num_heads=2, num_layers=2, num_sensors=5, slots_a_day=7, d_embedding=4, mean=3.0, std=2.0)
CODE = replace(
    SMALL, embedding="given", causal=False, values_read_embedding=True, output_layers=True, batch_norm=True,
    output_dropout=0.1, gaps="value",
)  # fmt: skip
CASES = {
    "paper": SMALL,
    "code": CODE,
    "code-metr": replace(CODE, causal=True, num_layers=1, days="none"),
    "workday": replace(SMALL, days="workday", output_layers=True, dropout=0.2),
    "groups": replace(SMALL, num_groups=2, num_layers=1),
    "groups-code": replace(CODE, num_groups=3, num_layers=1),
}
BATCH, HISTORY, HORIZON = 2, 4, 3


def built(config: GmanConfig, seed: int = 0) -> Gman:
    """In evaluation, with weights, biases and running means that all differ from what they begin with."""
    torch.manual_seed(seed)
    model = Gman(config).double().eval()
    with torch.no_grad():
        for name, tensor in named_weights(model).items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor), alpha=0.3)
    return model


def inputs(config: GmanConfig, *, gaps: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    history = 3 + 2 * torch.randn(BATCH, HISTORY, config.num_sensors, generator=generator, dtype=torch.float64)
    if gaps:
        history[0, 0, 1] = history[0, :, 3] = history[1, 2, :] = history[1, 1, 4] = torch.nan
    slots = torch.tensor([[3], [6]]) + torch.arange(HISTORY + HORIZON)
    days = torch.tensor([[4], [6]]) + slots // config.slots_a_day
    return history, torch.stack((days % 7, slots % config.slots_a_day), dim=-1)


class Formulas:
    """The paper's equations over lists of numbers; `weights` are the model's, by their names."""

    def __init__(self, config: GmanConfig, weights: dict[str, np.ndarray]) -> None:
        self.c, self.weights = config, weights

    def affine(self, name: str, x: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        matrix = self.weights[f"{name}.weight"][rows]
        bias = self.weights[f"{name}.bias"][rows] if f"{name}.bias" in self.weights else np.zeros(len(matrix))
        return np.array(
            [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(matrix, bias, strict=True)]
        )

    def f(self, name: str, x: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        """Equation 1."""
        y = self.affine(f"{name}.linear", x, rows)
        if self.c.batch_norm:
            mean, variance = (self.weights[f"{name}.norm.running_{each}"][rows] for each in ("mean", "var"))
            gamma, beta = (self.weights[f"{name}.norm.{each}"][rows] for each in ("weight", "bias"))
            y = gamma * (y - mean) / np.sqrt(variance + 1e-3) + beta
        return np.array([max(0.0, v) for v in y])

    def two_layers(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.affine(f"{name}.last", self.f(f"{name}.first", x))

    def output(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.two_layers(f"{name}.output", x) if self.c.output_layers else x

    def third(self, number: int) -> slice:
        return slice(number * self.c.d_model, (number + 1) * self.c.d_model)

    def heads(self, q: np.ndarray, keys: list[np.ndarray], values: list[np.ndarray]) -> np.ndarray:
        """Equations 5 to 7 (8 to 10, 13 to 15) of one query; zeros where there is no key."""
        size, found = self.c.d_model // self.c.num_heads, []
        if not keys:
            return np.zeros(self.c.d_model)
        for head in range(self.c.num_heads):
            own = slice(head * size, (head + 1) * size)
            scores = [sum(q[own] * k[own]) / math.sqrt(size) for k in keys]
            total = sum(math.exp(s) for s in scores)
            found.append(sum(math.exp(s) / total * v[own] for s, v in zip(scores, values, strict=True)))
        return np.concatenate(found)

    def qkv(self, name: str, h: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        both = np.concatenate((h, e))
        q, k = (self.f(f"{name}.w_qk", both, self.third(i)) for i in range(2))
        return q, k, self.f(f"{name}.w_v", both if self.c.values_read_embedding else h)

    def embedding(self, times: np.ndarray) -> np.ndarray:
        found = np.empty((len(times), self.c.num_sensors, self.c.d_model))
        for t, (day, slot) in enumerate(times):
            hot = [float(slot == i) for i in range(self.c.slots_a_day)]
            week = {
                "week": [float(day == i) for i in range(7)],
                "workday": [float(day < 5), float(day >= 5)],
                "none": [],
            }
            of_time = self.two_layers("embedding.of_time", np.array(week[self.c.days] + hot))
            for n in range(self.c.num_sensors):
                found[t, n] = of_time + self.two_layers("embedding.of_sensor", self.weights["embedding.table"][n])
        return found

    def spatial(self, name: str, h: np.ndarray, e: np.ndarray, seen: np.ndarray) -> np.ndarray:
        found = np.empty_like(h)
        for t in range(len(h)):
            qkv = [self.qkv(f"{name}.projections", h[t, n], e[t, n]) for n in range(h.shape[1])]
            shown = [n for n in range(h.shape[1]) if seen[t, n]]
            for n, (q, _, _) in enumerate(qkv):
                found[t, n] = self.output(name, self.heads(q, [qkv[m][1] for m in shown], [qkv[m][2] for m in shown]))
        return found

    def grouped(self, name: str, h: np.ndarray, e: np.ndarray, seen: np.ndarray, groups: list[list[int]]) -> np.ndarray:
        found = np.empty_like(h)
        for t in range(len(h)):
            qkv = [self.qkv(f"{name}.within", h[t, n], e[t, n]) for n in range(h.shape[1])]
            local: dict[int, np.ndarray] = {}
            for group in groups:
                shown = [n for n in group if seen[t, n]]
                for n in group:
                    local[n] = self.heads(qkv[n][0], [qkv[m][1] for m in shown], [qkv[m][2] for m in shown])
            largest = [np.max([local[n] for n in group], axis=0) for group in groups]
            of_groups = [[self.f(f"{name}.between", each, self.third(i)) for i in range(3)] for each in largest]
            shown = [g for g, group in enumerate(groups) if any(seen[t, n] for n in group)]
            for g, group in enumerate(groups):
                keys, values = ([of_groups[m][i] for m in shown] for i in (1, 2))
                for n in group:
                    found[t, n] = self.output(name, local[n] + self.heads(of_groups[g][0], keys, values))
        return found

    def temporal(self, name: str, h: np.ndarray, e: np.ndarray, seen: np.ndarray) -> np.ndarray:
        found = np.empty_like(h)
        for n in range(h.shape[1]):
            qkv = [self.qkv(f"{name}.projections", h[t, n], e[t, n]) for t in range(len(h))]
            for t, (q, _, _) in enumerate(qkv):
                shown = [s for s in range(t + 1 if self.c.causal else len(h)) if seen[s, n]]
                found[t, n] = self.output(name, self.heads(q, [qkv[s][1] for s in shown], [qkv[s][2] for s in shown]))
        return found

    def block(self, name: str, h: np.ndarray, e: np.ndarray, seen: np.ndarray, groups: Any) -> np.ndarray:
        of_times = self.temporal(f"{name}.temporal", h, e, seen)
        if groups is None:
            of_sensors = self.spatial(f"{name}.spatial", h, e, seen)
        else:
            of_sensors = self.grouped(f"{name}.spatial", h, e, seen, groups)
        found = np.empty_like(h)
        for place in np.ndindex(h.shape[:2]):  # equations 11 and 12
            s, t = of_sensors[place], of_times[place]
            logits = self.affine(f"{name}.fusion.w_1", s) + self.affine(f"{name}.fusion.w_2", t)
            z = np.array([1 / (1 + math.exp(-v)) for v in logits])
            found[place] = h[place] + self.output(f"{name}.fusion", z * s + (1 - z) * t)
        return found

    def forecast(self, history: np.ndarray, times: np.ndarray, groups: Any) -> np.ndarray:
        seen = ~np.isnan(history) if self.c.gaps == "mask" else np.ones(history.shape, bool)
        filled = np.nan_to_num(history, nan=self.c.mean if self.c.gaps == "mask" else 0.0)
        h = np.array(
            [[self.two_layers("input", np.array([(v - self.c.mean) / self.c.std])) for v in row] for row in filled]
        )
        e = self.embedding(times)
        past, future = e[: len(history)], e[len(history) :]
        for layer in range(self.c.num_layers):
            h = self.block(f"encoder_blocks.{layer}", h, past, seen, groups)
        name, x = "transform_attention", np.empty_like(future)
        for n in range(h.shape[1]):
            shown = [t for t in range(len(h)) if seen[t, n]]
            keys = [self.f(f"{name}.w_k", past[t, n]) for t in shown]
            values = [self.f(f"{name}.w_v", h[t, n]) for t in shown]
            for t in range(len(future)):
                x[t, n] = self.output(name, self.heads(self.f(f"{name}.w_q", future[t, n]), keys, values))
        for layer in range(self.c.num_layers):
            x = self.block(f"decoder_blocks.{layer}", x, future, np.ones(x.shape[:2], bool), groups)
        y = np.array([[self.two_layers("output", v)[0] for v in row] for row in x])
        return y * self.c.std + self.c.mean


def groups_of(model: Gman) -> list[list[int]] | None:
    """Who is in which group, as the module has it: checked by the test after next."""
    if not model.config.num_groups:
        return None
    spatial = model.encoder_blocks[0].spatial
    rows = spatial.members.view_as(spatial.is_filled)
    return [row[filled].tolist() for row, filled in zip(rows, spatial.is_filled, strict=True)]


@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "gaps"])
@pytest.mark.parametrize("case", list(CASES))
def test_it_is_the_papers_formulas(case: str, gaps: bool) -> None:
    config = CASES[case]
    model = built(config)
    history, times = inputs(config, gaps=gaps)
    with torch.no_grad():
        found = model(history, times).numpy()
    slow = Formulas(config, {name: tensor.numpy() for name, tensor in named_weights(model).items()})
    for row in range(BATCH):
        expected = slow.forecast(history[row].numpy(), times[row].numpy(), groups_of(model))
        assert np.ptp(expected) > 0.1  # it says something
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-10)
    with torch.no_grad():
        narrow = model.float()(history.float(), times).double().numpy()
    np.testing.assert_allclose(narrow, found, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("sensors", "groups"), [(5, 2), (11, 3), (207, 26), (7, 7), (4, 1)])
def test_every_sensor_is_in_one_group(sensors: int, groups: int) -> None:
    model = Gman(replace(SMALL, num_sensors=sensors, num_groups=groups, num_layers=1))
    found = groups_of(model)
    assert found is not None
    assert sorted(n for group in found for n in group) == list(range(sensors))
    assert max(map(len, found)) - min(map(len, found)) <= 1
    spatial = model.decoder_blocks[0].spatial
    assert spatial.members[spatial.places].tolist() == list(range(sensors))
    assert bool(spatial.is_filled.flatten()[spatial.places].all())
    if sensors > 10:  # drawn, not in order
        assert found[0] != sorted(found[0])


def test_a_group_of_all_is_attention_between_all_pairs_beside_itself() -> None:
    """With one group, what groups tell each other is one vector for all: the maps within are those of all pairs."""
    model = built(replace(SMALL, num_groups=1, num_layers=1))
    plain = built(replace(SMALL, num_layers=1))
    weights = {name.replace(".within.", ".projections."): x for name, x in named_weights(model).items()}
    set_weights(plain, {name: x for name, x in weights.items() if ".between." not in name}, Path("groups"))
    history, times = inputs(SMALL)
    maps, expected = Maps(), Maps()
    with torch.no_grad():
        model(history, times, maps=maps)
        plain(history, times, maps=expected)
    order = model.encoder_blocks[0].spatial.members
    theirs = expected.weights["encoder.0.spatial"][..., order, :][..., order]
    torch.testing.assert_close(maps.weights["encoder.0.spatial.within"], theirs, rtol=0, atol=1e-12)


def test_a_sensor_that_measured_nothing_might_as_well_not_be_there() -> None:
    """Masked as a key at every place, it is no part of what the others' encoder gives."""
    model, fewer = built(replace(SMALL, num_layers=1)), built(replace(SMALL, num_layers=1, num_sensors=4))
    others = [0, 1, 2, 4]
    weights = named_weights(model)
    set_weights(fewer, weights | {"embedding.table": weights["embedding.table"][others]}, Path("fewer"))
    history, times = inputs(SMALL)
    history[:, :, 3] = torch.nan
    maps, expected = Maps(), Maps()
    with torch.no_grad():
        assert bool(model(history, times, maps=maps).isfinite().all())
        fewer(history[..., others], times, maps=expected)
        assert bool(model(torch.full_like(history, torch.nan), times).isfinite().all())
    assert not bool(maps.weights["encoder.0.spatial"][..., 3].any())
    theirs = maps.weights["encoder.0.spatial"][..., others, :][..., others]
    torch.testing.assert_close(theirs, expected.weights["encoder.0.spatial"], rtol=0, atol=1e-12)


def test_later_steps_are_not_seen_where_causal() -> None:
    maps = Maps()
    history, times = inputs(SMALL)
    with torch.no_grad():
        built(SMALL)(history, times, maps=maps)
    assert set(maps.weights) == {
        "transform",
        *(f"{side}.{i}.{kind}" for side in ("encoder", "decoder") for i in (0, 1) for kind in ("spatial", "temporal")),
    }
    shape = (BATCH, HISTORY, SMALL.num_heads, SMALL.num_sensors, SMALL.num_sensors)
    assert maps.weights["encoder.0.spatial"].shape == shape
    assert maps.weights["transform"].shape == (BATCH, SMALL.num_sensors, SMALL.num_heads, HORIZON, HISTORY)
    for name, weights in maps.weights.items():
        if name.endswith("temporal"):
            assert not bool(weights.triu(1).any())
            assert bool(weights.tril().gt(0).sum(dim=-1).eq(torch.arange(1, weights.shape[-1] + 1)).all())


def test_batch_normalisation_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Gman(CODE).train()
    history, times = (each.float() if each.is_floating_point() else each for each in inputs(CODE))
    before = model.input.first.norm.running_mean.clone()
    model(history, times)
    assert not torch.equal(model.input.first.norm.running_mean, before)
    folder = RunFolder(tmp_path)
    folder.write_weights(named_weights(model))
    other = Gman(CODE)
    set_weights(other, folder.read_weights(), folder.weights_path)
    with torch.no_grad():
        assert torch.equal(other.eval()(history, times), model.eval()(history, times))
    assert "embedding.table" in folder.read_weights()  # given, not learned
    assert "embedding.table" not in dict(model.named_parameters())


def test_batch_normalisation_in_16_bits_is_refused_in_training() -> None:
    model = Gman(CODE).bfloat16()
    history, times = inputs(CODE)
    with torch.no_grad():
        model.eval()(history.float(), times)
    with pytest.raises(InputError, match="float32"):
        model.train()(history.float(), times)


def test_published_sizes_differ_where_the_sources_do() -> None:
    paper, pems, metr = (PUBLISHED_SIZES[name] for name in ("paper", "code-pems", "code-metr"))
    assert (paper.num_layers, pems.num_layers, metr.num_layers) == (3, 1, 5)
    assert (paper.causal, pems.causal, metr.causal) == (True, False, True)
    assert (paper.batch_norm, pems.batch_norm, metr.batch_norm) == (False, True, True)
    assert (paper.output_dropout, pems.output_dropout, metr.output_dropout) == (0.0, 0.0, 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 10, "num_heads": 3}, "d_model = 10 is not divisible by num_heads = 3"),
        ({"num_sensors": 5, "num_groups": 6}, "num_groups = 6 is more than the 5 sensors"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"std": -1.0}, "std must be at least 0"),
    ],
)
def test_wrong_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GmanConfig(**changes)
