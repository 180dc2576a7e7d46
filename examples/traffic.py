"""A forecasting run beside what anybody would try first: the last value, the usual value, a linear model.

    python examples/traffic.py runs/los-loop [--out table.md]
    python examples/traffic.py --recipe recipes/forecasting_los-loop_gman.toml        # the simple forecasts alone

All are made for the run's own test part, window by window, and scored as `zhuyi evaluate` scores. A linear model's
penalty is the one of a few that does best on the validation part.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zhuyi import load
from zhuyi.config import read_recipe
from zhuyi.data.traffic import FIRST_WEEKDAY, MINUTES_A_DAY
from zhuyi.errors import InputError
from zhuyi.metrics.forecast_errors import ForecastErrors
from zhuyi.predict import Forecaster
from zhuyi.tasks.forecasting import SensorDataConfig, Windows, forecast_errors, split_tables

PENALTIES = (1.0, 100.0, 1_000.0, 10_000.0)
FIRST_OF_WEEKEND = 5
TOGETHER = 64
# Zhao et al. 2020, table 1, T-GCN on Los-loop: RMSE and MAE, the mean over all steps up to each horizon; trained on the
# first 80 % of the week and scored on the rest, without a validation part.
T_GCN = {15: (5.1264, 3.1802), 30: (6.0598, 3.7466), 45: (6.7065, 4.1158), 60: (7.2677, 4.6021)}
LOS_LOOP = ("773869", 207)  # its first sensor, and how many there are

Forecast = Callable[[Windows, np.ndarray], np.ndarray]


def main() -> None:
    """Score each and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", help="a run of forecasting")
    parser.add_argument("--recipe", type=Path, help="its data, where there is no run")
    parser.add_argument("--out", type=Path, help="where the table goes too")
    arguments = parser.parse_args()
    if (arguments.run is None) == (arguments.recipe is None):
        parser.error("give a run, or --recipe")
    try:
        text = compare(arguments.run, arguments.recipe)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def compare(run: str | None, recipe: Path | None) -> str:
    """The table of all errors, in Markdown."""
    # On the processor, where the windows are.
    forecaster: Forecaster | None = load(run, device="cpu") if run else None
    config: SensorDataConfig = forecaster.config.data if forecaster else read_recipe(recipe or "").data
    tables = split_tables(config)
    windows = {split: Windows(table, config, batch_tokens=1, seed=0) for split, table in tables.items()}
    step_minutes = tables["train"].step_minutes
    baselines: dict[str, Forecast] = {
        "last value": last_value,
        "usual value at that time of day": usual(windows["train"], by_kind_of_day=False),
        "the same, working days and weekends apart": usual(windows["train"], by_kind_of_day=True),
        "linear, each sensor from its own history": best_linear(windows, alone=True),
        "linear, each sensor from all": best_linear(windows, alone=False),
    }
    rows = {name: errors_of(forecast, windows["test"]) for name, forecast in baselines.items()}
    if forecaster:
        rows[f"{forecaster.config.model.name}"] = forecast_errors(forecaster.model, windows["test"])
    steps = config.reported_steps
    lines = [
        _row("MAE / RMSE / MAPE", [f"{step * step_minutes} min" for step in steps]),
        _row("---", ["---"] * len(steps)),
    ]
    for name, errors in rows.items():
        cells = [errors.scores(step) for step in steps]
        lines.append(_row(name, [f"{c['mae']:.2f} / {c['rmse']:.2f} / {c['mape']:.1f} %" for c in cells]))
    sensors = tables["train"].sensors
    if forecaster and (sensors[0], len(sensors)) == LOS_LOOP:
        lines += ["", *_beside_t_gcn(forecaster, windows["test"], steps, step_minutes)]
    return "\n".join(lines)


def _beside_t_gcn(forecaster: Forecaster, windows: Windows, steps: list[int], step_minutes: int) -> list[str]:
    """Means over all steps up to each horizon, as T-GCN's authors give them."""
    found = []
    for step in steps:
        up_to = ForecastErrors(1)
        for rows in np.array_split(np.arange(len(windows)), -(-len(windows) // TOGETHER)):
            batch = windows.load(rows)
            forecast = _run(forecaster)(windows, rows)[:, :step]
            truth = batch.target.numpy()[:, :step]
            up_to.add(*(x.reshape(len(rows), 1, -1) for x in (forecast, truth)))
        found.append(up_to.scores())
    minutes = [step * step_minutes for step in steps]
    return [
        _row("MAE / RMSE, mean up to", [f"{each} min" for each in minutes]),
        _row("---", ["---"] * len(steps)),
        _row(forecaster.config.model.name, [f"{each['mae']:.2f} / {each['rmse']:.2f}" for each in found]),
        _row("T-GCN as published", [f"{T_GCN[m][1]:.2f} / {T_GCN[m][0]:.2f}" if m in T_GCN else "" for m in minutes]),
    ]


def _run(forecaster: Forecaster) -> Forecast:
    import torch

    def forecast(windows: Windows, rows: np.ndarray) -> np.ndarray:
        batch = windows.load(rows)
        with torch.inference_mode():
            return forecaster.model(batch.history, batch.times).float().numpy()

    return forecast


def _row(name: str, cells: list[str]) -> str:
    return f"| {' | '.join([name, *cells])} |"


def errors_of(forecast: Forecast, windows: Windows) -> ForecastErrors:
    """The errors of all windows."""
    errors = ForecastErrors(windows.forecast_steps)
    for rows in np.array_split(np.arange(len(windows)), -(-len(windows) // TOGETHER)):
        errors.add(forecast(windows, rows), windows.load(rows).target.numpy())
    return errors


def last_value(windows: Windows, rows: np.ndarray) -> np.ndarray:
    """What each sensor measured last, in the history; of a silent one, the mean of all others."""
    history = windows.load(rows).history.numpy()  # (B, P, N)
    found = history[:, 0].copy()
    for step in history.transpose(1, 0, 2):
        found = np.where(np.isnan(step), found, step)
    found = np.where(np.isnan(found), np.nanmean(history, axis=(1, 2))[:, None], found)
    return np.repeat(found[:, None], windows.forecast_steps, axis=1)


def usual(train: Windows, *, by_kind_of_day: bool) -> Forecast:
    """The mean of what a sensor measured at that time of day, in the part to train on."""

    def place(windows: Windows, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        day, of_day = np.divmod(windows.table.start + windows.table.step_minutes * steps, MINUTES_A_DAY)
        is_weekend = (day + FIRST_WEEKDAY) % 7 >= FIRST_OF_WEEKEND
        return (is_weekend & by_kind_of_day).astype(int), of_day // windows.table.step_minutes

    values = train.table.values
    slots = -(-MINUTES_A_DAY // train.table.step_minutes)
    sums, counts = np.zeros((2, slots, values.shape[1])), np.zeros((2, slots, values.shape[1]))
    np.add.at(sums, place(train, np.arange(len(values))), np.nan_to_num(values))
    np.add.at(counts, place(train, np.arange(len(values))), ~np.isnan(values))
    overall = np.nanmean(values, axis=0)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), overall)

    def forecast(windows: Windows, rows: np.ndarray) -> np.ndarray:
        ahead = np.arange(windows.history_steps, windows.history_steps + windows.forecast_steps)
        return means[place(windows, windows.starts[rows][:, None] + ahead)]  # (B, Q, N)

    return forecast


def best_linear(windows: dict[str, Windows], *, alone: bool) -> Forecast:
    """Ridge regression from the history to each step ahead, with the best of some penalties.

    Args:   alone: each sensor from its own history; else from those of all sensors.
    """
    train = windows["train"]
    batch = train.load(np.arange(len(train)))
    mean, std = np.nanmean(train.table.values), np.nanstd(train.table.values)
    history, target = (np.nan_to_num((x.numpy() - mean) / std) for x in (batch.history, batch.target))

    def fit(penalty: float) -> Forecast:
        weights = [
            _ridge(_columns(history[..., one]), _columns(target[..., one]), penalty)
            for one in _sensors(history.shape[2], alone)
        ]

        def forecast(windows: Windows, rows: np.ndarray) -> np.ndarray:
            seen = np.nan_to_num((windows.load(rows).history.numpy() - mean) / std)
            found = np.empty((len(rows), windows.forecast_steps, seen.shape[2]))
            for one, matrix in zip(_sensors(seen.shape[2], alone), weights, strict=True):
                found[..., one] = (_with_one(_columns(seen[..., one])) @ matrix).reshape(found[..., one].shape)
            return found * std + mean

        return forecast

    fitted = [fit(penalty) for penalty in PENALTIES]
    return min(fitted, key=lambda each: errors_of(each, windows["valid"]).scores()["mae"])


def _sensors(count: int, alone: bool) -> list[list[int]]:
    return [[number] for number in range(count)] if alone else [list(range(count))]


def _columns(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate((x, np.ones((len(x), 1))), axis=1)


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """The weights that minimise |X W - Y|^2 + penalty |W|^2, X with a column of ones."""
    x = _with_one(x.astype(np.float64))
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)


if __name__ == "__main__":
    main()
