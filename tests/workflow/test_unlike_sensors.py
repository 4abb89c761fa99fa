"""Sensors that have nothing in common share a table: none is the worse for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rnnforecast
from rnnforecast.config.training import BacktestConfig, Config, WindowConfig

N_ROWS, HORIZON, WINDOWS = 3_000, 24, 25
MOST = 1.05
"""Error beside others, in units of that alone, at most."""


def sensors() -> pd.DataFrame:
    """Return a walk, a daily, a weekly, a noisy and a growing sensor, hourly."""
    rng = np.random.default_rng(5)
    hours = np.arange(N_ROWS)
    day = np.sin(2 * np.pi * hours / 24) + 0.5 * np.sin(4 * np.pi * hours / 24 + 1)
    is_weekend = hours // 24 % 7 >= 5
    growth = np.exp(hours / N_ROWS)
    noise = rng.standard_normal((4, N_ROWS))
    values = {
        "walk": 1_000 + np.cumsum(rng.standard_normal(N_ROWS)),
        "daily": 20 + 5 * day + noise[0],
        "weekly": np.where(is_weekend, 100, 300 + 80 * day) + 10 * noise[1],
        "noise": noise[2],
        "growing": growth * (50 + 20 * day) + noise[3],
    }
    return pd.DataFrame({"time": pd.date_range("2024-01-01", periods=N_ROWS, freq="h"), **values})


def errors(table: pd.DataFrame, folder: Path) -> pd.Series:
    """Return the mean absolute error of each series over the last windows."""
    config = Config(window=WindowConfig(horizon=str(HORIZON)))
    ends = BacktestConfig(windows=WINDOWS, baselines=("naive",))
    output = folder / "backtest.parquet"
    rnnforecast.backtest(table, config=config, ends=ends, output=output)
    rows = pd.read_parquet(output).query("method == 'network'")
    return (rows["actual"] - rows["forecast"]).abs().groupby(rows["series"]).mean()


@pytest.mark.slow
def test_each_of_unlike_sensors_is_forecast_as_well_as_alone(tmp_path: Path) -> None:
    table = sensors()
    together = errors(table, tmp_path)
    assert len(together) == 5
    for name, error in together.items():
        (alone,) = errors(table[["time", name]], tmp_path)
        assert error <= MOST * alone, (name, error, alone)
