"""A recipe for tables of sensors."""

import copy
from dataclasses import dataclass
from typing import Any

import torch

from zhuyi.config import apply_change, parse_config
from zhuyi.data.traffic import MINUTES_A_DAY
from zhuyi.machine import memory_gib
from zhuyi.tasks.forecasting import SensorDataConfig, split_tables
from zhuyi.training.automatic.given import Given


@dataclass(frozen=True)
class SensorSize:
    """A model of sensors, up to how many windows it suits, and how it is trained."""

    up_to_windows: float
    d_model: int
    num_heads: int
    num_layers: int
    dropout: float
    epochs: int


SENSOR_SIZES = (
    SensorSize(4_000, 32, 4, 1, 0.1, 40),
    SensorSize(20_000, 64, 8, 1, 0.1, 20),
    SensorSize(float("inf"), 64, 8, 2, 0.1, 12),
)
# Of more sensors the attention between all pairs is most of the work.
MOST_SENSORS_IN_PAIRS = 500
WINDOWS_TOGETHER = 16
# A training step holds about so much for each sensor, step and number of its state, in each block.
BYTES_A_NUMBER = 240
# So many days show every day of the week thrice, and every part of a day often enough to tell one from the next.
DAYS_FOR_A_WEEK = 21
COARSE_SLOTS_A_DAY = 48


def recipe_for_sensors(given: Given) -> tuple[dict[str, Any], list[str]]:
    """What makes a forecaster, as plain values, and why each choice was made."""
    values: dict[str, Any] = {
        "task": "forecasting",
        "model": {"name": "gman"},
        "data": {split: list(files) for split, files in given.files.items() if files},
        "train": {"max_epochs": 1},
    }
    asked = copy.deepcopy(values)
    for change in given.changes:
        apply_change(asked, change)
    data: SensorDataConfig = parse_config(asked, "the options given").data
    train = split_tables(data)["train"]
    sensors, days = len(train.sensors), len(train) * train.step_minutes / MINUTES_A_DAY
    longest = max(data.history_steps, data.forecast_steps)
    windows = max(1, len(train) - data.history_steps - data.forecast_steps)
    size = next(size for size in SENSOR_SIZES if windows <= size.up_to_windows)
    groups = round(sensors / (2 * sensors) ** (1 / 3)) if sensors > MOST_SENSORS_IN_PAIRS else 0
    a_window = sensors * (data.history_steps + data.forecast_steps) * size.d_model * (1 + size.num_layers)
    together = max(1, min(WINDOWS_TOGETHER, int(memory_gib() * 2**30 / 4 / (a_window * BYTES_A_NUMBER))))
    steps = max(1, windows // together)
    is_long = days >= DAYS_FOR_A_WEEK
    values["model"] |= {
        "d_model": size.d_model,
        "num_heads": size.num_heads,
        "num_layers": size.num_layers,
        "num_groups": groups,
        "days": "week" if is_long else "workday",
        "output_layers": True,
        "dropout": size.dropout,
    }
    values["data"] |= {} if is_long else {"slots_a_day": COARSE_SLOTS_A_DAY}
    values["train"] = {
        "max_steps": size.epochs * steps,
        "batch_tokens": together * sensors * longest,
        "learning_rate": 2e-3,
        "final_learning_rate": 2e-5,
        "schedule": "cosine",
        "warmup_steps": min(200, steps),
        "betas": [0.9, 0.999],
        "epsilon": 1e-8,
        "weight_decay": 0.01,
        "clip_norm": 5.0,
        "label_smoothing": 0.0,
        "precision": "auto" if torch.cuda.is_available() else "float32",
        "eval_every_steps": steps,
        "save_every_steps": steps,
        "patience": 10,
        "average_checkpoints": 3,
    }
    between = f"in {groups} groups drawn at random" if groups else "between all pairs"
    return values, [
        f"{sensors:,} sensors every {train.step_minutes} minutes, {days:.1f} days of them to train on",
        f"{size.num_layers} + {size.num_layers} blocks of width {size.d_model}, dropout {size.dropout}: for "
        f"{windows:,} windows; spatial attention {between}",
        "the day as one of seven, cut at every step"
        if is_long
        else f"the day as a working day or not, cut into {COARSE_SLOTS_A_DAY}: no more can be learned of few days",
        f"batches of {together} windows; {size.epochs} epochs of {steps:,} steps, fewer if 10 bring no lower error",
    ]
