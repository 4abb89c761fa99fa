"""Fans for the tests of pictures."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np

from rnnforecast.report.plots import Fan
from rnnforecast.spec import QUANTILES
from tests.builders import HOUR_US, START_US, wave


def make_fan(
    name: str = "flow",
    *,
    n_rows: int = 96,
    horizon: int = 24,
    quantiles: tuple[float, ...] = QUANTILES,
    has_actual: bool = True,
    tz: str | None = None,
    seed: int = 0,
) -> Fan:
    """Make a fan of hourly readings; those from the 40th to the 59th are missing, but for one."""
    readings = wave(n_rows + horizon, seed=seed).astype(np.float64)
    readings[40:60] = np.nan
    if n_rows > 50:
        readings[50] = 21.0
    times = START_US + np.arange(n_rows + horizon) * HOUR_US
    spread = np.linspace(0.5, 2.0, horizon)[:, None]
    scores = np.array([NormalDist().inv_cdf(level) for level in quantiles])
    return Fan(
        name,
        times[:n_rows],
        readings[:n_rows],
        times[n_rows:],
        20 + spread * scores,
        quantiles,
        readings[n_rows:] if has_actual else None,
        tz,
    )


def without_readings(fan: Fan) -> Fan:
    """The fan of a forecast alone."""
    return replace(fan, times_us=fan.times_us[:0], readings=fan.readings[:0])
