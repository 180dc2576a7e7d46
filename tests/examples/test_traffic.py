"""The simple forecasts that a run is compared with."""

import importlib.util
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from zhuyi.data.traffic import SensorTable, to_minutes
from zhuyi.tasks.forecasting import SensorDataConfig, Windows

SCRIPT = Path(__file__).parents[2] / "examples" / "traffic.py"
CONFIG = SensorDataConfig(history_steps=4, forecast_steps=3)
BEGIN = to_minutes("2024-03-01 00:00", "")  # a Friday


@pytest.fixture(scope="module")
def traffic() -> ModuleType:
    spec = importlib.util.spec_from_file_location("traffic_example", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def windows(values: np.ndarray, begin: int = BEGIN) -> Windows:
    names = tuple(f"s{n}" for n in range(values.shape[1]))
    return Windows(SensorTable(names, begin, 180, values.astype(np.float32)), CONFIG, 1, 0)


def test_the_last_value_is_the_last_that_was_measured(traffic: ModuleType) -> None:
    values = np.arange(14.0).reshape(7, 2) + 1
    values[2:4, 1] = np.nan
    found = traffic.last_value(windows(values), np.array([0]))
    assert found.tolist() == [[[7.0, 4.0]] * 3]


def test_the_usual_value_is_a_mean_of_the_same_times(traffic: ModuleType) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(50, 9, (5 * 8, 2))  # from Friday to Tuesday, every three hours
    values[rng.random(values.shape) < 0.1] = np.nan
    train, test = windows(values), windows(rng.normal(50, 9, (16, 2)), BEGIN + 5 * 1440)  # Wednesday
    rows = np.arange(len(test))
    for by_kind, days in ((False, [0, 1, 2, 3, 4]), (True, [0, 3, 4])):
        found = traffic.usual(train, by_kind_of_day=by_kind)(test, rows)
        for row in rows:
            for step in range(3):
                slot = (row + 4 + step) % 8
                expected = np.nanmean([values[8 * day + slot] for day in days], axis=0)
                np.testing.assert_allclose(found[row, step], expected, rtol=1e-5)


def test_a_linear_model_finds_what_is_linear(traffic: ModuleType) -> None:
    """Each sensor goes on by its own last two values, or by those of its neighbour."""
    rng = np.random.default_rng(0)
    for alone in (True, False):
        values = rng.normal(size=(400, 3))
        for t in range(2, 400):
            source = values[t - 1] if alone else np.roll(values[t - 1], 1)
            values[t] = 0.9 * source - 0.2 * values[t - 2] * alone + 0.3 * rng.normal(size=3)
        parts = {"train": windows(values[:250]), "valid": windows(values[250:320]), "test": windows(values[320:])}
        own, every = (
            traffic.errors_of(traffic.best_linear(parts, alone=each), parts["test"]).scores(1)["rmse"]
            for each in (True, False)
        )
        if alone:
            assert own == pytest.approx(0.3, rel=0.15)
        else:
            assert every == pytest.approx(0.3, rel=0.15)
            assert own > 1.3 * every  # what comes back to it after three steps


def test_it_prints_a_table(
    traffic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"{datetime(2024, 3, 1) + timedelta(hours=3 * i)},{','.join(map(str, rng.normal(50, 9, 2)))}" for i in range(90)
    ]
    (tmp_path / "speeds.csv").write_text("\n".join(["time,a,b", *rows]), encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(
        f'task = "forecasting"\n[model]\nname = "gman"\n[data]\ntrain = ["{tmp_path / "speeds.csv"}"]\n'
        "history_steps = 4\nforecast_steps = 3\n[train]\nmax_steps = 1\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(
        sys, "argv", ["traffic.py", "--recipe", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "table.md")]
    )
    traffic.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines == (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| MAE / RMSE / MAPE | 180 min | 360 min | 540 min |"
    assert len(lines) == 7


def test_a_run_is_scored_on_the_processor_whatever_else_is_there(
    traffic: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    class Stop(Exception):
        pass

    def load(run: str, device: str | None = None) -> None:
        asked.append(device)
        raise Stop

    monkeypatch.setattr(traffic, "load", load)
    with pytest.raises(Stop):
        traffic.compare("runs/los-loop", None)
    assert asked == ["cpu"]
