"""What covariates are worth: the error with them over the error without, three seeds.

    RNNFORECAST_DATA=... python benchmarks/covariates.py [--seeds 0,1,2] [CASE ...]

A CASE is a part of the name of some.

Beijing's particles (PM2.5), a day ahead, with the weather known up to now. A made-up reading that a
setpoint known ahead drives, at once, with a lag, and along a curve. And covariates that are noise,
which should change nothing: beside a random walk, and beside ETTh1's oil temperature. Everything is
as by default but what the rows say; the test part is that of a plain `backtest`, every step an
origin.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import rnnforecast

WEATHER = ("DEWP", "TEMP", "PRES", "cbwd", "Iws", "Is", "Ir")
N_STEPS = 6000
Case = tuple[pd.DataFrame, rnnforecast.DataConfig]


def beijing() -> Case:
    """Return the hourly particles with the weather."""
    path = Path(os.environ["RNNFORECAST_DATA"]) / "beijing_pm25.csv"
    table = pd.read_csv(path)
    table.insert(0, "time", pd.to_datetime(table[["year", "month", "day", "hour"]]))
    table = table[["time", "pm2.5", *WEATHER]]
    return table, rnnforecast.DataConfig(time="time", target=("pm2.5",), past=WEATHER)


def driven(effect: Callable[[np.ndarray], np.ndarray]) -> Case:
    """Return a reading with a day's pattern and lasting noise, and a setpoint that drives it."""
    rng = np.random.default_rng(0)
    levels = rng.normal(50, 10, N_STEPS)
    setpoint = np.repeat(levels, rng.integers(3, 12, N_STEPS))[:N_STEPS]
    noise = lasting(rng.normal(size=N_STEPS), 0.9)
    pattern = 3 * np.sin(2 * np.pi * np.arange(N_STEPS) / 24)
    table = hourly(y=effect(setpoint) + pattern + noise, setpoint=setpoint)
    return table, rnnforecast.DataConfig(known=("setpoint",))


def noisy(table: pd.DataFrame, role: str) -> Case:
    """Add five columns of noise to a table, as covariates of this role."""
    rng = np.random.default_rng(1)
    names = tuple(f"noise{i}" for i in range(5))
    noise = pd.DataFrame(rng.normal(size=(len(table), 5)), columns=names, index=table.index)
    return pd.concat([table, noise], axis=1), rnnforecast.DataConfig(**{role: names})


def random_walk() -> pd.DataFrame:
    """Return a random walk with a day's pattern."""
    rng = np.random.default_rng(2)
    pattern = 3 * np.sin(2 * np.pi * np.arange(N_STEPS) / 24)
    return hourly(y=rng.normal(size=N_STEPS).cumsum() + pattern)


def oil_temperature() -> pd.DataFrame:
    """Return one sensor of ETTh1."""
    path = Path(os.environ["RNNFORECAST_DATA"]) / "ETTh1.csv"
    return pd.read_csv(path, parse_dates=["date"])[["date", "OT"]]


def hourly(**columns: np.ndarray) -> pd.DataFrame:
    """Give columns an hourly time."""
    stamps = pd.date_range("2024-01-01", periods=N_STEPS, freq="h")
    return pd.DataFrame({"time": stamps, **columns})


def lasting(values: np.ndarray, share: float) -> np.ndarray:
    """Let a share of each value be left at the next step."""
    result = values.copy()
    for i in range(1, len(values)):
        result[i] += share * result[i - 1]
    return result


CASES: dict[str, Callable[[], Case]] = {
    "Beijing PM2.5, weather up to now": beijing,
    "setpoint, at once": lambda: driven(lambda x: 0.8 * x),
    "setpoint, with a lag": lambda: driven(lambda x: lasting(0.15 * x, 0.85)),
    "setpoint, along a curve": lambda: driven(lambda x: 0.05 * (x - 50) ** 2),
    "noise known ahead, random walk": lambda: noisy(random_walk(), "known"),
    "noise up to now, random walk": lambda: noisy(random_walk(), "past"),
    "noise known ahead, ETTh1 OT": lambda: noisy(oil_temperature(), "known"),
    "noise up to now, ETTh1 OT": lambda: noisy(oil_temperature(), "past"),
}


def error(table: pd.DataFrame, config: rnnforecast.DataConfig, seed: int) -> tuple[float, float]:
    """Return MAE and WQL of a backtest a day ahead."""
    result = rnnforecast.backtest(
        table,
        horizon=24,
        config=rnnforecast.Config(data=config, training=rnnforecast.TrainConfig(seed=seed)),
        ends=rnnforecast.BacktestConfig(stride=1, baselines=()),
    )
    own = result.metrics["network"]
    return float(own["mae"] or 0), float(own["wql"] or 0)


def main() -> None:
    """Print one row a case: the medians over the seeds, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("cases", nargs="*", default=[""])
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    print("| case | MAE without | with | ratio | WQL ratio | seconds without | with |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, make in CASES.items():
        if not any(part in name for part in given.cases):
            continue
        table, config = make()
        beside = [*config.known, *config.past]
        plain = rnnforecast.DataConfig(time=config.time, target=config.target)
        medians, seconds = [], []
        for readings, how in ((table.drop(columns=beside), plain), (table, config)):
            started = time.monotonic()
            medians.append(np.median([error(readings, how, seed) for seed in seeds], axis=0))
            seconds.append((time.monotonic() - started) / len(seeds))
        (mae, wql), (mae_with, wql_with) = medians
        print(
            f"| {name} | {mae:.3f} | {mae_with:.3f} | {mae_with / mae:.3f} | {wql_with / wql:.3f} "
            f"| {seconds[0]:.0f} | {seconds[1]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
