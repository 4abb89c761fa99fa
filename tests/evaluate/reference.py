"""Metrics of all windows at once: what running sums must give, however the windows are cut."""

from __future__ import annotations

import numpy as np

from rnnforecast.evaluate.metrics import (
    finite_mean,
    percentage_errors,
    pinball_losses,
    scaled_errors,
)

Array = np.ndarray


def mae(actual: Array, forecast: Array) -> float | None:
    """Mean absolute error, in the sensor's unit."""
    return finite_mean(np.abs(actual - forecast))


def rmse(actual: Array, forecast: Array) -> float | None:
    """Root of the mean squared error, in the sensor's unit."""
    squared = finite_mean((actual - forecast) ** 2)
    return None if squared is None else float(np.sqrt(squared))


def smape(actual: Array, forecast: Array) -> float | None:
    """Symmetric mean absolute percentage error, 0 to 200."""
    return finite_mean(percentage_errors(actual, forecast))


def mase(actual: Array, forecast: Array, *, scale: Array, series: Array) -> float | None:
    """Mean over series of the absolute error over each window's scale, `(window,)`."""
    errors = scaled_errors(actual, forecast, scale)
    by_series = [finite_mean(errors[series == s]) for s in np.unique(series)]
    return finite_mean(np.array(by_series, np.float64))


def scaled_mae(actual: Array, forecast: Array, *, deviation: Array) -> float | None:
    """Mean absolute error in standard deviations of each series, `(window,)`."""
    return finite_mean(scaled_errors(actual, forecast, deviation))


def scaled_mse(actual: Array, forecast: Array, *, deviation: Array) -> float | None:
    """Mean squared error in variances of each series."""
    return finite_mean(scaled_errors(actual, forecast, deviation) ** 2)


def wql(actual: Array, quantiles: Array, levels: Array) -> float | None:
    """Mean over levels of twice the summed pinball loss over the summed absolute actuals."""
    total = np.nansum(np.abs(actual))
    if not np.isfinite(actual).any() or total == 0:
        return None
    losses = pinball_losses(actual, quantiles, levels)
    return float(np.mean(2 * np.nansum(losses, axis=(0, 1)) / total))


def coverage(actual: Array, low: Array, high: Array) -> float | None:
    """Share of the actuals inside `[low, high]`."""
    inside = ((actual >= low) & (actual <= high)).astype(np.float64)
    return finite_mean(np.where(np.isfinite(actual), inside, np.nan))
