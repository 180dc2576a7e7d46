"""Forecasting: windows, loss, training and going on with it, a run's forecasts, and the command line."""

import csv
import io
import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import train_tiny, write_recipe, zhuyi

from zhuyi import load
from zhuyi.config import RunConfig, parse_config
from zhuyi.data.road_graph import read_edges
from zhuyi.data.traffic import SensorTable, read_table, show, to_minutes
from zhuyi.errors import InputError
from zhuyi.evaluation import Wanted, evaluate_run
from zhuyi.predict import Forecaster
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.forecasting import ForecastingTask, SensorDataConfig, WindowBatch, Windows, split_tables
from zhuyi.training import automatic, start
from zhuyi.visualize import View, draw

SENSORS, ROWS, STEP = 7, 300, 20
BEGIN = datetime(2024, 1, 4, 22, 0)
SETTINGS = {
    "max_steps": 24, "batch_tokens": 11 * SENSORS * 6, "learning_rate": 0.01, "schedule": "constant",
    "warmup_steps": 4, "precision": "float32", "eval_every_steps": 12, "save_every_steps": 12, "clip_norm": 5.0,
}  # fmt: skip


def measurements(rows: int = ROWS, *, gaps: bool = True) -> np.ndarray:
    """A wave of a day that runs from sensor to sensor, with noise, blanks and half a day of nothing."""
    rng = np.random.default_rng(0)
    at = np.arange(rows)[:, None] * STEP / 1440 + np.arange(SENSORS) / SENSORS
    values = 50 + 10 * np.sin(2 * np.pi * at) + rng.normal(size=(rows, SENSORS))
    if gaps:
        values[rng.random(values.shape) < 0.03] = np.nan
        values[100:136] = np.nan
    return values


def write_table(path: Path, values: np.ndarray, begin: datetime = BEGIN) -> Path:
    rows = [[begin + timedelta(minutes=STEP * i), *("" if np.isnan(x) else f"{x:.3f}" for x in row)] for i, row in
            enumerate(values)]  # fmt: skip
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["time", *(f"s{n}" for n in range(SENSORS))], *rows])
    return path


def values_for(table: Path, data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return {
        "task": "forecasting",
        "model": {"name": "gman", "d_model": 10, "num_heads": 2, "num_layers": 1, "days": "none", "dropout": 0.1},
        "data": {"train": [str(table)], "history_steps": 6, "forecast_steps": 4, "slots_a_day": 12, **(data or {})},
        "train": {**SETTINGS, **settings},
    }


@pytest.fixture(scope="module")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("sensors") / "speeds.csv", measurements())


@pytest.fixture(scope="module")
def edges_file(table_file: Path) -> Path:
    path = table_file.parent / "edges.csv"
    roads = [(n, (n + 1) % SENSORS) for n in range(SENSORS)]
    both = roads + [(b, a) for a, b in roads]
    path.write_text("from,to\n" + "".join(f"s{a},s{b}\n" for a, b in both), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(table_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forecasting") / "run"
    train_tiny(parse_config(values_for(table_file), "test"), path)
    return path


@pytest.fixture(scope="module")
def forecaster(run: Path) -> Forecaster:
    return load(run)


# Windows.


def test_tables_are_split_in_time(table_file: Path) -> None:
    config = SensorDataConfig(train=(str(table_file),))
    tables = split_tables(config)
    assert [len(tables[split]) for split in ("train", "valid", "test")] == [210, 30, 60]
    joined = np.concatenate([tables[split].values for split in ("train", "valid", "test")])
    np.testing.assert_array_equal(joined, read_table(str(table_file), config.layout).values)
    assert show(tables["test"].start) == show(to_minutes(BEGIN, "") + 240 * STEP)
    files = replace(config, valid=(str(table_file),), test=(str(table_file),))
    assert {split: len(table) for split, table in split_tables(files).items()} == dict.fromkeys(tables, 300)
    tested = split_tables(replace(config, test=(str(table_file),)))
    assert {split: len(table) for split, table in tested.items()} == {"train": 270, "valid": 30, "test": 300}


def test_windows_are_all_that_hold_something(table_file: Path) -> None:
    config = SensorDataConfig(train=(str(table_file),), history_steps=6, forecast_steps=4)
    table = read_table(str(table_file), config.layout)
    windows = Windows(table, config, batch_tokens=11 * SENSORS * 6, seed=1)
    missing = np.isnan(table.values).all(axis=1)
    expected = [i for i in range(ROWS - 9) if not missing[i : i + 6].all() and not missing[i + 6 : i + 10].all()]
    assert windows.starts.tolist() == expected
    assert len(expected) < ROWS - 9  # the half day without measurements has none
    order = windows.order(0)
    assert sorted(np.concatenate(order).tolist()) == list(range(len(windows)))
    assert max(map(len, order)) == len(windows.largest()) == 11
    assert [x.tolist() for x in order] != [x.tolist() for x in windows.order(1)]
    batch = windows.load(np.array([3, 200]))
    begin = windows.starts[200]
    np.testing.assert_array_equal(batch.history[1], table.values[begin : begin + 6])
    np.testing.assert_array_equal(batch.target[1], table.values[begin + 6 : begin + 10])
    times = [BEGIN + timedelta(minutes=STEP * int(begin + i)) for i in range(10)]
    assert batch.times[1].tolist() == [[t.weekday(), (60 * t.hour + t.minute) // STEP] for t in times]
    assert windows.lines(np.array([200])) == [f"forecast from {times[6]:%Y-%m-%d %H:%M}"]
    assert batch.num_tokens == int(np.isfinite(batch.target.numpy()).sum())


def test_loss_is_the_masked_sum(table_file: Path) -> None:
    task = object.__new__(ForecastingTask)
    target = torch.tensor([[[1.0, torch.nan], [4.0, 5.0]]])
    batch = WindowBatch(torch.zeros(1, 3, 2), torch.zeros(1, 5, 2, dtype=torch.long), target)
    forecast = torch.tensor([[[2.5, 9.0], [4.0, 3.0]]], requires_grad=True)
    loss, nll, count = task.loss(lambda history, times: forecast, batch, smoothing=0.3)  # type: ignore[arg-type]
    assert (float(loss.detach()), float(nll), count) == (3.5, 3.5, 3)
    loss.backward()
    assert forecast.grad is not None
    assert forecast.grad.tolist() == [[[1.0, 0.0], [0.0, -1.0]]]


# Training.


def test_a_run_has_what_follows_from_the_data(run: Path, table_file: Path) -> None:
    config = RunFolder(run).read_config()
    train = split_tables(config.data)["train"].values
    model = config.model
    assert (model.num_sensors, model.slots_a_day, model.embedding) == (SENSORS, 12, "learned")
    assert (model.mean, model.std) == (pytest.approx(np.nanmean(train)), pytest.approx(np.nanstd(train), rel=1e-5))
    assert (config.data.step_minutes, config.data.sensors) == (STEP, tuple(f"s{n}" for n in range(SENSORS)))
    assert config.train.monitor == "mae"
    rows = RunFolder(run).read_metrics()
    assert [row["step"] for row in rows] == [12, 24]
    assert rows[-1]["valid_loss"] == rows[-1]["mae"] < 8.0  # a mean for all sensors and times is 6.4 off


@pytest.mark.parametrize("batch_norm", [False, True])
def test_going_on_is_as_if_never_stopped(batch_norm: bool, table_file: Path, run: Path, tmp_path: Path) -> None:
    half, whole = values_for(table_file, max_steps=12), values_for(table_file)
    if batch_norm:
        half["model"]["batch_norm"] = whole["model"]["batch_norm"] = True
        run = tmp_path / "whole"
        train_tiny(parse_config(whole, "test"), run)
    train_tiny(parse_config(half, "test"), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    config = folder.read_config()
    folder.write_config(replace(config, train=replace(config.train, max_steps=24)))
    _, log = train_tiny(config, tmp_path / "run", resume=True)
    assert any("Resuming after step 12" in line for line in log.said)
    found, expected = (RunFolder(path).read_checkpoint(24).weights for path in (tmp_path / "run", run))
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("options", [{"embedding": "given"}, {"batch_norm": True, "num_groups": 2}])
def test_vectors_of_edges_and_means_of_batches_are_kept(
    options: dict[str, Any], table_file: Path, edges_file: Path, tmp_path: Path
) -> None:
    values = values_for(table_file, {"edges": str(edges_file), "vector_width": 6}, max_steps=4)
    values["train"] |= {"eval_every_steps": 2, "save_every_steps": 2}
    values["model"] |= options
    pytest.importorskip("gensim")
    train_tiny(parse_config(values, "test"), tmp_path / "run")
    config = RunFolder(tmp_path / "run").read_config()
    assert (config.model.embedding, config.model.d_embedding) == ("given", 6)
    vectors = np.load(tmp_path / "run" / "cache" / "vectors.npy")
    model = load(tmp_path / "run").model
    np.testing.assert_array_equal(model.embedding.table.numpy(), vectors)
    np.testing.assert_allclose((vectors**2).mean(axis=1), 1, rtol=1e-5)  # of one length, however long they were
    assert len(read_edges(str(edges_file), config.data.sensors).weights) == 2 * SENSORS
    if options.get("batch_norm"):
        kept = RunFolder(tmp_path / "run").read_checkpoint_weights(4)
        assert bool(kept["input.first.norm.running_mean"].any())


def test_training_learns_better_than_the_last_value(table_file: Path, tmp_path: Path) -> None:
    values = values_for(table_file, max_steps=120, eval_every_steps=60, save_every_steps=60)
    values["model"] |= {"dropout": 0.0, "values_read_embedding": True, "output_layers": True}
    train_tiny(parse_config(values, "test"), tmp_path / "run")
    found = evaluate_run(load(tmp_path / "run"), Wanted())
    table = split_tables(RunFolder(tmp_path / "run").read_config().data)["test"].values
    last = np.nanmean(np.abs(table[4:] - table[:-4]))  # four steps ahead
    assert found["mae_80min"] < 0.8 * last


# Use.


def test_scores_are_those_of_the_forecasts(forecaster: Forecaster, table_file: Path) -> None:
    """Forecast by forecast through the front door."""
    scores = evaluate_run(forecaster, Wanted())
    config = forecaster.config.data
    test = split_tables(config)["test"]
    pairs: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {1: [], 4: []}
    for row in range(6, len(test) - 3):
        found = forecaster.forecast(test, begin=show(test.minutes()[row]))
        for step, each in pairs.items():
            each.append((found.values[step - 1], found.truth[step - 1]))
    for step, minutes in ((1, 20), (4, 80)):
        values, truth = (np.array(each) for each in zip(*pairs[step], strict=True))
        assert scores[f"mae_{minutes}min"] == pytest.approx(np.nanmean(np.abs(values - truth)), abs=1e-3)
        assert scores[f"rmse_{minutes}min"] == pytest.approx(np.sqrt(np.nanmean((values - truth) ** 2)), abs=1e-3)
        assert scores[f"mape_{minutes}min"] == pytest.approx(100 * np.nanmean(np.abs(values / truth - 1)), abs=1e-2)
    assert scores["windows"] == len(pairs[1])
    whole = evaluate_run(forecaster, Wanted(files=[str(table_file)]))
    assert whole["windows"] > 4 * scores["windows"]


def test_tables_without_times_are_used_by_their_beginning(
    forecaster: Forecaster, table_file: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.csv"
    lines = table_file.read_text(encoding="utf-8").splitlines()
    bare.write_text("\n".join(line.partition(",")[2] for line in lines), encoding="utf-8")
    expected = evaluate_run(forecaster, Wanted(files=[str(table_file)]))
    found = evaluate_run(forecaster, Wanted(files=[str(bare)], start=f"{BEGIN}"))
    assert found["mae"] == expected["mae"] and found["windows"] == expected["windows"]
    with pytest.raises(InputError, match=r"bare.csv: no column of times .*--start"):
        evaluate_run(forecaster, Wanted(files=[str(bare)]))
    with pytest.raises(InputError, match="--start is for a table given by --test FILE"):
        evaluate_run(forecaster, Wanted(start=f"{BEGIN}"))
    draw(forecaster, str(bare), tmp_path / "map.png", View(start=f"{BEGIN}"))
    with pytest.raises(InputError, match="--place does not apply to a run of forecasting"):
        draw(forecaster, str(bare), tmp_path / "map.png", View(place="cross", start=f"{BEGIN}"))
    assert (tmp_path / "map.png").stat().st_size > 5_000


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("options", [{}, {"embedding": "given", "batch_norm": True}])
def test_packed_weights_forecast_nearly_the_same(
    options: dict[str, Any], precision: str, run: Path, table_file: Path, tmp_path: Path
) -> None:
    if options:
        values = values_for(table_file, {"vectors": str(write_vectors(tmp_path / "vectors.txt"))}, max_steps=2)
        values["model"] |= options
        run = tmp_path / "run"
        train_tiny(parse_config(values, "test"), run)
    wide, packed = load(run), load(run, precision)
    expected = wide.forecast(table_file).values
    # Of a wave 10 high.
    np.testing.assert_allclose(packed.forecast(table_file).values, expected, atol=0.5)
    assert evaluate_run(packed, Wanted())["mae"] == pytest.approx(evaluate_run(wide, Wanted())["mae"], abs=0.2)
    assert packed.attention(table_file).spatial[0].shape == (2, SENSORS, SENSORS)


def test_a_forecast_is_a_table_of_the_form_that_is_read(
    forecaster: Forecaster, table_file: Path, tmp_path: Path
) -> None:
    end = BEGIN + timedelta(minutes=STEP * ROWS)
    found = forecaster.forecast(table_file, 3)
    assert found.times() == [f"{end + timedelta(minutes=STEP * i):%Y-%m-%d %H:%M}" for i in range(3)]
    assert np.isnan(found.truth).all()
    found.write(tmp_path / "forecast.csv")
    table = read_table(str(tmp_path / "forecast.csv"), forecaster.config.data.layout)
    np.testing.assert_allclose(table.values, found.values, rtol=1e-5)
    earlier = forecaster.forecast(table_file, begin=f"{BEGIN + timedelta(minutes=STEP * 298)}")
    np.testing.assert_array_equal(earlier.truth[:2], forecaster.read(table_file).values[298:])
    assert np.isnan(earlier.truth[2:]).all()
    assert earlier.unmeasured == ()
    np.testing.assert_array_equal(earlier.history, forecaster.read(table_file).values[292:298])


def test_sensors_that_have_measured_nothing_are_named(forecaster: Forecaster, table_file: Path) -> None:
    table = forecaster.read(table_file)
    values = table.values.copy()
    values[-6:, 2] = np.nan
    assert forecaster.forecast(replace(table, values=values)).unmeasured == (table.sensors[2],)
    values[-1, 2] = 50.0
    assert forecaster.forecast(replace(table, values=values)).unmeasured == ()


def test_forecasts_that_cannot_be_made_are_refused(forecaster: Forecaster, table_file: Path, tmp_path: Path) -> None:
    short = write_table(tmp_path / "short.csv", measurements(5))
    with pytest.raises(InputError, match="5 steps of history are there, and the run reads 6"):
        forecaster.forecast(short)
    with pytest.raises(InputError, match="5 steps are asked for, and the run was trained for 1 to 4"):
        forecaster.forecast(table_file, 5)
    for begin in ("2024-01-04T23:40", "2024-01-07T00:10", "2034-01-01"):
        with pytest.raises(
            InputError, match=f"no forecast can begin at {begin}: .*from 2024-01-05 00:00 to 2024-01-09"
        ):
            forecaster.forecast(table_file, begin=begin)
    begin = BEGIN + timedelta(minutes=STEP * 107)
    with pytest.raises(InputError, match=f"nothing was measured in the 6 steps before {begin:%Y-%m-%d %H:%M}"):
        forecaster.forecast(table_file, begin=f"{begin}")
    lines = (tmp_path / "short.csv").read_text().splitlines()
    (tmp_path / "less.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines), encoding="utf-8")
    with pytest.raises(InputError, match=r"less.csv: no column for the sensor 's6'"):
        forecaster.forecast(tmp_path / "less.csv")


def test_a_sensor_that_has_gone_silent_spoils_no_other(forecaster: Forecaster) -> None:
    table = SensorTable(forecaster.sensors, 0, STEP, measurements(40, gaps=False).astype(np.float32))
    expected = forecaster.forecast(table).values
    silent = table.values.copy()
    silent[:, 2] = np.nan
    found = forecaster.forecast(replace(table, values=silent)).values
    assert np.isfinite(found).all()
    others = [0, 1, 3, 4, 5, 6]
    assert np.abs(found - expected)[:, others].max() < 0.5 * np.abs(expected - expected.mean()).max()


@pytest.mark.parametrize("groups", [0, 3])
def test_attention_of_sensors(groups: int, table_file: Path, tmp_path: Path) -> None:
    values = values_for(table_file, max_steps=1, eval_every_steps=1, save_every_steps=1)
    values["model"]["num_groups"] = groups
    train_tiny(parse_config(values, "test"), tmp_path / "run")
    forecaster = load(tmp_path / "run")
    maps = forecaster.attention(table_file)
    assert [x.shape for x in maps.spatial] == [(2, SENSORS, SENSORS)]
    np.testing.assert_allclose(maps.spatial[0].sum(axis=-1), 1, atol=1e-4)
    assert maps.transform.shape == (SENSORS, 2, 4, 6)
    assert maps.places.shape == (SENSORS, 2)
    if groups:  # to the members of its own group, more than a share of what goes to groups
        spatial = forecaster.model.encoder_blocks[0].spatial
        members = spatial.members.view_as(spatial.is_filled)
        own = members[0][spatial.is_filled[0]].numpy()
        others = np.setdiff1d(np.arange(SENSORS), own)
        assert maps.spatial[0][:, own[:, None], own].sum(axis=-1).min() > 0.5
        assert maps.spatial[0][:, own[:, None], others].sum(axis=-1).max() < 0.5


# Without a recipe, and by the command line.


def test_a_recipe_is_made_from_the_tables_counts(
    table_file: Path, edges_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic.sensors, "memory_gib", lambda: 8.0)
    files = {"train": [str(table_file)], "valid": [], "test": []}
    said: list[str] = []
    changes = ["data.history_steps=6", "data.forecast_steps=4", "train.max_steps=7"]
    config = start.choose_config(
        None, RunFolder(tmp_path / "run"), False, changes, "forecasting", ("", ""), files, None, said.append,
        edges=str(edges_file),
    )  # fmt: skip
    assert (config.task, config.data.edges, config.data.history_steps) == ("forecasting", str(edges_file), 6)
    assert (config.model.d_model, config.model.days, config.data.slots_a_day) == (32, "workday", 48)
    assert (config.model.num_groups, config.train.max_steps) == (0, 7)
    assert "7 sensors every 20 minutes" in said[0]
    monkeypatch.setattr(automatic.sensors, "MOST_SENSORS_IN_PAIRS", 6)
    values, _ = automatic.AUTOMATIC["forecasting"](automatic.Given(files))
    assert values["model"]["num_groups"] == round(SENSORS / (2 * SENSORS) ** (1 / 3))
    with pytest.raises(InputError, match=r"bare.csv: no column of times"):
        (tmp_path / "bare.csv").write_text("a,b\n1,2\n", encoding="utf-8")
        automatic.AUTOMATIC["forecasting"](automatic.Given({**files, "train": [str(tmp_path / "bare.csv")]}))


def test_a_run_learns_on_from_a_later_table(run: Path, tmp_path: Path) -> None:
    later = write_table(tmp_path / "later.csv", measurements() + 3, datetime(2024, 2, 1))
    files = {"train": [str(later)], "valid": [], "test": []}
    config = start.choose_config(
        None, RunFolder(tmp_path / "on"), False, ["train.max_steps=1"], None, ("", ""), files, None, print,
        init=str(run),
    )  # fmt: skip
    begun = RunFolder(run).read_config()
    assert config.data == replace(begun.data, train=(str(later),))
    assert config.train.batch_tokens == begun.train.batch_tokens
    train_tiny(config, tmp_path / "on")
    model = RunFolder(tmp_path / "on").read_config().model
    assert model.mean > begun.model.mean + 1
    assert replace(model, mean=0.0, std=0.0) == begun.model.body()


def test_learning_on_does_not_take_the_old_tables_beginning(run: Path, table_file: Path) -> None:
    begun = RunFolder(run).read_config()
    begun = replace(begun, data=replace(begun.data, start="2024-01-04 22:00"))
    files = {"train": [str(table_file)], "valid": [], "test": []}
    values, _ = automatic.recipe_to_learn_on(begun, str(run), automatic.Given(files))
    assert (values["data"]["start"], values["data"]["step_minutes"]) == ("", STEP)


def write_vectors(path: Path) -> Path:
    vectors = np.random.default_rng(1).normal(size=(SENSORS, 6))
    rows = [" ".join([f"s{n}", *(f"{x:.4f}" for x in row)]) for n, row in enumerate(vectors)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_given_vectors_come_with_the_weights(table_file: Path, tmp_path: Path) -> None:
    vectors = write_vectors(tmp_path / "vectors.txt")
    first = RunFolder(tmp_path / "first")
    train_tiny(parse_config(values_for(table_file, {"vectors": str(vectors)}, max_steps=1), "test"), first.path)
    vectors.unlink()
    files = {"train": [str(table_file)], "valid": [], "test": []}

    def chosen(name: str, *changes: str, **options: Any) -> RunConfig:
        return start.choose_config(
            None, RunFolder(tmp_path / name), False, ["train.max_steps=1", *changes], None, ("", ""), files, None,
            print, init=str(first.path), **options,
        )  # fmt: skip

    config = chosen("on")
    assert (config.model.embedding, config.data.vectors) == ("given", "")
    train_tiny(config, tmp_path / "on")
    on = RunFolder(tmp_path / "on")
    np.testing.assert_array_equal(on.read_weights()["embedding.table"], first.read_weights()["embedding.table"])
    assert on.read_config().model.embedding == "given"
    with pytest.raises(InputError, match=r"brings its sensors' vectors along; leave data.edges \(--edges\)"):
        train_tiny(chosen("edges", edges="edges.csv"), tmp_path / "edges")


def test_a_recipe_takes_anothers_sensors_in_their_order(run: Path, table_file: Path, tmp_path: Path) -> None:
    rows = [line.split(",") for line in table_file.read_text(encoding="utf-8").splitlines()]
    turned = tmp_path / "turned.csv"
    turned.write_text("\n".join(",".join([row[0], *row[:0:-1]]) for row in rows), encoding="utf-8")
    train_tiny(parse_config(values_for(turned, max_steps=1), "test"), tmp_path / "on")  # leaves tables in its order
    for name in ("config.json", "model.safetensors", "metrics.jsonl"):
        (tmp_path / "on" / name).unlink()
    shutil.rmtree(tmp_path / "on" / "checkpoints")
    train_tiny(parse_config(values_for(turned, max_steps=1, init=str(run)), "test"), tmp_path / "on")
    sensors = tuple(f"s{n}" for n in range(SENSORS))
    assert RunFolder(tmp_path / "on").read_config().data.sensors == sensors
    stored = np.load(tmp_path / "on" / "cache" / "train.npy")
    np.testing.assert_array_equal(stored, split_tables(SensorDataConfig(train=(str(table_file),)))["train"].values)
    values = values_for(turned, {"sensors": list(sensors[::-1])}, max_steps=1, init=str(run))
    with pytest.raises(InputError, match=r"data.sensors are not its 7 sensors in its order"):
        train_tiny(parse_config(values, "test"), tmp_path / "refused")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": "e.csv", "vectors": "v.txt"}, "edges and vectors both say"),
        ({"valid_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
        ({"valid_share": 0.0}, "valid_share is 0 and there is no valid file"),
        ({"history_steps": 0}, "history_steps must be at least 1"),
        ({"start": "2024-01-01", "time_column": "when"}, "start is for tables without a column of times"),
    ],
)
def test_wrong_options_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SensorDataConfig(**change)


def test_a_table_too_short_is_refused_by_name(tmp_path: Path) -> None:
    short = write_table(tmp_path / "short.csv", measurements(40))
    with pytest.raises(InputError, match=r"short.csv: its 4 steps of valid hold no window of 6 \+ 4 steps"):
        train_tiny(parse_config(values_for(short), "test"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_reported_horizons() -> None:
    assert SensorDataConfig().reported_steps == [3, 6, 9, 12]
    assert SensorDataConfig(forecast_steps=2).reported_steps == [1, 2]
    assert SensorDataConfig(forecast_steps=7).reported_steps == [2, 4, 6, 7]


@pytest.mark.slow
def test_the_verbs_in_processes_of_their_own(table_file: Path, edges_file: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", values_for(table_file, max_steps=4))
    run = tmp_path / "run"
    done = zhuyi("train", recipe, "--out", run, "--edges", edges_file)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mae"] > 0
    assert load(run).config.model.embedding == "given"
    done = zhuyi("evaluate", run, "--json")
    assert {"mae_20min", "rmse_40min", "mape_80min"} <= json.loads(done.stdout).keys()
    done = zhuyi("forecast", run, "--input", table_file, "--steps", "2")
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert (len(rows), len(rows[0]), rows[1][0]) == (3, SENSORS + 1, "2024-01-09 02:00")
    out, plot = tmp_path / "forecast.csv", tmp_path / "forecast.png"
    done = zhuyi("forecast", run, "--input", table_file, "--begin", "2024-01-08 12:00", "--out", out, "--plot", plot)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert out.read_text().count("\n") == 5
    assert plot.read_bytes().startswith(b"\x89PNG")
    done = zhuyi("attention", run, table_file, "--sensor", "s3", "--out", tmp_path / "map.png")
    assert done.returncode == 0, done.stderr
    done = zhuyi("forecast", run, "--input", edges_file)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "edges.csv" in done.stderr
