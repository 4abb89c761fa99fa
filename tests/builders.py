"""Builders that every test may use: panels, tasks, series, files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from rnnforecast.data.arrays import offsets_from_lengths
from rnnforecast.data.panel import Panel
from rnnforecast.data.season import find_seasons, most_common
from rnnforecast.data.windows import Past
from rnnforecast.spec import MemberSpec, NetworkSpec

HOUR_US = 3_600_000_000
START_US = 1_704_067_200_000_000  # 2024-01-01 00:00
SMALL_JOB = """
[data]
source = "data.csv"
[model]
path = "model"
[forecast]
output = "out/{as_of}.csv"
"""
ONE_FILE_JOB = SMALL_JOB.replace("{as_of}", "forecast")
"""Each run writes the same file."""
JOB = f"""{ONE_FILE_JOB}fallback = ["seasonal-naive", "naive"]
[ledger]
path = "ledger"
[log]
file = "run.log"
[metrics]
textfile = "job.prom"
"""
"""A job with a ledger, a log and metrics. Each run writes the same file."""


@contextmanager
def another_user() -> Iterator[None]:
    """Act as a user without rights; needs root."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def make_panel(*series: object, step_us: int = HOUR_US, start_us: int = START_US) -> Panel:
    """Make a panel of these readings, one array a series, named s0, s1, ..."""
    arrays = [np.asarray(readings, np.float32) for readings in series]
    lengths = np.array([len(a) for a in arrays], np.int64)
    return Panel(
        target=np.concatenate(arrays) if arrays else np.empty(0, np.float32),
        offsets=offsets_from_lengths(lengths),
        start=np.full(len(arrays), start_us, np.int64),
        names=tuple(f"s{i}" for i in range(len(arrays))),
        step_us=step_us,
        base=np.zeros(len(arrays)),
        first_us=start_us,
    )


def make_spec(
    lookback: int = 32,
    horizon: int = 6,
    season: int = 8,
    n_series: int = 1,
    *,
    segment: int = 4,
    members: tuple[MemberSpec, ...] | None = None,
) -> NetworkSpec:
    """Make the spec of these members; by default of a small one."""
    members = members or (MemberSpec("gru", hidden=4, layers=1, segment=segment),)
    return NetworkSpec(lookback, horizon, season, n_series, members)


def main_season(past: Past) -> int:
    """Return the main season of most readings, in steps; 1 where most have none."""
    return most_common(find_seasons(past), past.n_seen)


def wave(n: int, *, season: int = 24, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Make n readings with a season and noise, around 20."""
    rng = np.random.default_rng(seed)
    t = np.arange(n)
    readings = 20 + 5 * np.sin(2 * np.pi * t / season) + noise * rng.standard_normal(n)
    return readings.astype(np.float32)


def random_walk(n: int, *, seed: int = 0) -> np.ndarray:
    """Make n steps of a random walk."""
    return np.random.default_rng(seed).standard_normal(n).cumsum().astype(np.float32)


def write_wide(
    path: Path, *, freq: str = "1h", start: str = "2024-01-01", **columns: object
) -> Path:
    """Write a wide CSV with a `timestamp` column and these sensors."""
    length = len(next(iter(columns.values())))  # type: ignore[arg-type]
    stamps = pd.date_range(start, periods=length, freq=freq)
    pd.DataFrame({"timestamp": stamps, **columns}).to_csv(path, index=False)
    return path
