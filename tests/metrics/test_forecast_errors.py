"""Errors of forecasts against their formulas, and what does not count."""

import math

import numpy as np
import pytest

from zhuyi.metrics.forecast_errors import ForecastErrors


def test_errors_are_their_formulas_in_any_number_of_parts() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(50, 9, (7, 3, 5)).astype(np.float32)
    forecast = truth + rng.normal(1, 2, truth.shape).astype(np.float32)
    truth[rng.random(truth.shape) < 0.2] = np.nan
    truth[2, 1, 3] = 0.0
    errors = ForecastErrors(3)
    errors.add(forecast[:4], truth[:4])
    errors.add(forecast[4:], truth[4:])
    for step, of in ((None, slice(None)), (1, slice(0, 1)), (3, slice(2, 3))):
        pairs = [
            (float(f), float(t))
            for f, t in zip(forecast[:, of].ravel(), truth[:, of].ravel(), strict=True)
            if not math.isnan(t)
        ]
        found = errors.scores(step)
        assert found["mae"] == pytest.approx(sum(abs(f - t) for f, t in pairs) / len(pairs), rel=1e-6)
        assert found["rmse"] == pytest.approx(math.sqrt(sum((f - t) ** 2 for f, t in pairs) / len(pairs)), rel=1e-6)
        shares = [abs(f - t) / abs(t) for f, t in pairs if t]
        assert found["mape"] == pytest.approx(100 * sum(shares) / len(shares), rel=1e-6)


def test_nothing_measured_gives_no_number() -> None:
    errors = ForecastErrors(2)
    truth = np.full((1, 2, 3), np.nan)
    truth[0, 1] = 4.0
    errors.add(np.full((1, 2, 3), 5.0), truth)
    assert all(math.isnan(value) for value in errors.scores(1).values())
    assert errors.scores(2) == {"mae": 1.0, "rmse": 1.0, "mape": 25.0}
    assert errors.scores() == errors.scores(2)
