"""Forecasts against what was measured."""

import time
from collections.abc import Callable
from typing import Any

from zhuyi.evaluation.wanted import Wanted
from zhuyi.predict import Forecaster
from zhuyi.tasks.forecasting import forecast_errors, horizon_scores, windows_of


def evaluate_forecasts(forecaster: Forecaster, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`mae`, `rmse` and `mape` of all steps ahead, and of some, as `mae_15min`."""
    wanted.refuse("columns", "beam", "alpha", "lowercase", "output", "task", "prefix")
    config = forecaster.config
    windows = windows_of(wanted.files or (), config.data, config.train.batch_tokens, wanted.start or "")
    started = time.perf_counter()
    scores = horizon_scores(forecast_errors(forecaster.model, windows), config.data)
    seconds = time.perf_counter() - started
    return {
        **{name: round(score, 4) for name, score in scores.items()},
        "windows": len(windows),
        "windows_per_second": round(len(windows) / seconds, 1),
    }
