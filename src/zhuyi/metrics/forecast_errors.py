"""How far forecasts are from what was measured, step by step ahead; what was not measured counts for nothing."""

import numpy as np


class ForecastErrors:
    """Sums over any number of forecasts, from which the mean errors follow exactly.

    MAE is the mean of |forecast - truth|, RMSE the root of the mean of its square, MAPE the mean of its share of
    |truth| in per cent, without truths of 0.

    Source: Zheng et al. 2020, section "Experimental Settings": a truth that was not measured is left out.
    """

    def __init__(self, steps: int) -> None:
        self._sums = np.zeros((4, steps))  # of errors, squares, shares; and how many shares there are
        self._counts = np.zeros(steps)

    def add(self, forecast: np.ndarray, truth: np.ndarray) -> None:
        """Count in some forecasts.

        Shape: both (B, Q, N); a truth of NaN was not measured.
        """
        measured = ~np.isnan(truth)
        errors = np.where(measured, np.abs(forecast.astype(np.float64) - truth), 0.0)
        has_share = measured & (truth != 0)
        shares = np.divide(errors, np.abs(truth), out=np.zeros_like(errors), where=has_share)
        self._sums += np.stack([x.sum(axis=(0, 2)) for x in (errors, errors**2, shares, has_share)])
        self._counts += measured.sum(axis=(0, 2))

    def scores(self, step: int | None = None) -> dict[str, float]:
        """`mae`, `rmse` and `mape` so many steps ahead, from 1, or of all; NaN where nothing was measured."""
        of = slice(None) if step is None else slice(step - 1, step)
        count = self._counts[of].sum()
        errors, squares, shares, has_share = self._sums[:, of].sum(axis=1)
        with np.errstate(invalid="ignore"):
            mae, mse, share = np.array([errors, squares, shares]) / np.array([count, count, has_share])
        return {"mae": float(mae), "rmse": float(np.sqrt(mse)), "mape": 100 * float(share)}
