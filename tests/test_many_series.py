"""Many short series cost what their readings cost: no Python runs once for each of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
import pyarrow as pa
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.output import write_table
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.windows import make_past
from rnnforecast.evaluate.backtest import deviations
from rnnforecast.evaluate.baselines import SeasonalNaive
from rnnforecast.evaluate.postprocess import Fallback, predict_with_fallback
from rnnforecast.events import ignore
from rnnforecast.sources.source import open_source
from rnnforecast.spec import QUANTILES
from rnnforecast.tables.grid import read_panel
from rnnforecast.tables.match import TrainingStats, warn_unusual_series
from rnnforecast.tables.schema import infer_schema
from tests.builders import HOUR_US

N_READINGS, SHORT = 300_000, 60
LOOKBACK, HORIZON = 24, 12
EARLY_US = 631_152_000_000_000  # 1990, so that the longest series ends before today


def table(lengths: np.ndarray, *, holes: bool = True) -> pa.Table:
    """Make a long table of hourly readings; each series begins at an hour of its own."""
    rng = np.random.default_rng(0)
    n = int(lengths.sum())
    series = np.repeat(np.arange(len(lengths)), lengths)
    begin = np.cumsum(lengths) - lengths
    hour = np.arange(n) - np.repeat(begin - rng.integers(0, 50, len(lengths)), lengths)
    value = 20 + np.sin(2 * np.pi * hour / 24) + rng.standard_normal(n)
    if holes:
        value[rng.random(n) < 0.02] = np.nan
    stamps = (EARLY_US + HOUR_US * hour).view("datetime64[us]")
    names = pa.array([f"s{i}" for i in range(len(lengths))])
    return pa.table({"ts": stamps, "id": names.take(pa.array(series)), "v": value})


def prepare_and_forecast(source: pa.Table, path: Path, horizon: int) -> None:
    """Do all that is done to readings but the network's part."""
    config = DataConfig(series="id", valid_range=("v=:23.5",))
    opened = open_source(source, config, ignore)
    panel, _ = read_panel(opened, infer_schema(opened, config, ignore), config, ignore)
    past = make_past(panel)
    scaling = fit_scaling(past)
    deviations(past)
    known = TrainingStats(panel.names, panel.base, scaling.center, scaling.scale, scaling.reach)
    warn_unusual_series(past, known, ignore, lookback=LOOKBACK, horizon=HORIZON)
    windows = past.windows(LOOKBACK, HORIZON)
    windows.gather(windows.spread(4096))
    prediction = predict_with_fallback(
        SeasonalNaive(24),
        past,
        horizon,
        QUANTILES,
        Fallback(LOOKBACK, 48, 24, ("seasonal-naive", "naive")),
    )
    assert len(prediction.forecast.names) > 0.9 * panel.n_series
    write_table(prediction.forecast.to_arrow((0.1, 0.9)), str(path))


def seconds(work: Callable[[], None]) -> float:
    """How much processor time it takes, at best."""
    took = []
    for _ in range(3):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return min(took)


@pytest.mark.parametrize("ragged", [False, True])
def test_thousands_of_short_series_take_little_longer_than_one_long_one(
    ragged: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    n_series = N_READINGS // SHORT
    lengths = np.full(n_series, SHORT)
    if ragged:
        lengths = np.random.default_rng(1).integers(1, 2 * SHORT, n_series)
    many, one = table(lengths), table(np.array([lengths.sum()]))

    long = seconds(lambda: prepare_and_forecast(one, tmp_path / "a.csv", n_series * HORIZON))
    short = seconds(lambda: prepare_and_forecast(many, tmp_path / "b.csv", HORIZON))

    assert short < 3 * long
    lines = (tmp_path / "b.csv").read_bytes().count(b"\n")
    assert lines > 0.9 * n_series * HORIZON


def n_calls(work: Callable[[], None]) -> int:
    """Count the calls of Python functions."""
    count = 0

    def watch(_frame: FrameType, event: str, _what: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_no_function_is_called_once_for_each_series(tmp_path: Path) -> None:
    few, many = (table(np.tile([SHORT, 3, 40, SHORT], n)) for n in (100, 1000))
    prepare_and_forecast(few, tmp_path / "warm.csv", HORIZON)

    calls = [
        n_calls(lambda source=source: prepare_and_forecast(source, tmp_path / "f.csv", HORIZON))
        for source in (few, many)
    ]

    assert calls[1] - calls[0] < 360  # a tenth of the series that came
