"""A year of daily runs over real readings, compressed: what went wrong is seen, and answered.

`make thorough` runs all of it, CI the eight months in which something goes wrong.

Stale days, a sensor that hangs, one that is gone, one whose level shifts; a ledger that says the
same as a backtest from the same cutoffs; a challenger that wins after the shift.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rnnforecast
from rnnforecast.config.commands import RunConfig
from rnnforecast.config.training import BacktestConfig, Config, NetworkConfig, TrainConfig
from rnnforecast.jobs.ledger import list_parts, read_parts, score_job
from rnnforecast.jobs.log import RunResult
from rnnforecast.jobs.run import run
from tests.thorough import THOROUGHLY

DATA = Path(os.environ.get("RNNFORECAST_DATA", "missing"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA / "ETTh1.csv").is_file(), reason="RNNFORECAST_DATA is not set"),
]
FIRST, LAST = ("2017-06-26", "2018-06-25") if THOROUGHLY > 1 else ("2017-08-15", "2018-04-15")
STALE = ("2017-09-10", "2017-09-13")
STUCK = ("2017-10-05", "2017-10-10")
GONE = ("2017-12-01", "2017-12-20")
SHIFT, SHIFTED = "2018-02-01", 25.0
JOB = """
[data]
source = "year.csv"
[model]
path = "model"
[forecast]
output = "out/{as_of}.csv"
fallback = ["seasonal-naive", "naive"]
[fresh]
max_age = "24h"
[ledger]
path = "ledger"
[log]
file = "run.log"
[keep]
forecasts = 30
[retrain]
every = "84d"
when = "drift"
promote_if = "0.5%"
"""


def within(times: pd.Series, span: tuple[str, str]) -> pd.Series:
    return (times >= span[0]) & (times < span[1])


@dataclass(frozen=True)
class Year:
    """The folder, and what every day came to."""

    place: Path
    days: dict[str, RunResult]

    def between(self, first: str, last: str) -> list[RunResult]:
        return [day for moment, day in self.days.items() if first <= moment <= last]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Year:
    place = tmp_path_factory.mktemp("year")
    readings = pd.read_csv(DATA / "ETTh1.csv", usecols=["date", "HUFL", "HULL", "LUFL", "OT"])
    times = pd.to_datetime(readings["date"])
    # two months: a challenger has more to learn from
    readings[within(times, ("2017-04-25", "2017-06-25"))].to_csv(place / "first.csv", index=False)
    readings.loc[within(times, STUCK), "HULL"] = readings.loc[times == STUCK[0], "HULL"].iloc[0]
    readings.loc[within(times, GONE), "LUFL"] = np.nan
    readings.loc[times >= SHIFT, "OT"] += SHIFTED
    readings[~within(times, STALE)].to_csv(place / "year.csv", index=False)
    (place / "job.toml").write_text(JOB)
    # of another width, so that it does not begin with the built-in weights, which know of shifts
    config = Config(network=NetworkConfig(hidden=16), training=TrainConfig(epochs=4, threads=2))
    rnnforecast.train(
        place / "first.csv",
        model=place / "model",
        horizon=24,
        lookback=168,
        config=config,
        report=False,
    )
    cycles = run(place / "job.toml", config=RunConfig(from_=FIRST, to=LAST, every="1d"))
    moments = pd.date_range(FIRST, LAST, freq="1D").strftime("%Y-%m-%d")
    return Year(place, dict(zip(moments, cycles, strict=True)))


def test_every_day_is_published_but_stale_ones(year: Year) -> None:
    assert len(year.days) == len(pd.date_range(FIRST, LAST))
    stale = [moment for moment, day in year.days.items() if day.status == "stale"]
    assert stale == ["2017-09-11", "2017-09-12"]
    assert {day.exit_code for day in year.between(*stale)} == {5}
    others = [day for moment, day in year.days.items() if moment not in stale]
    assert {day.status for day in others} == {"published"}
    assert len(list((year.place / "out").glob("*.csv"))) == 30
    assert len(list_parts(year.place / "ledger")) == len(year.days) - len(stale)


def test_a_sensor_that_is_gone_is_forecast_by_a_fallback_and_marked(year: Year) -> None:
    partial = [moment for moment, day in year.days.items() if day.exit_code == 3]
    assert partial
    assert all("2017-12-01" < moment < "2018-01-01" for moment in partial)
    table = read_parts(list_parts(year.place / "ledger")).to_pandas()
    fallback = table[table["source"] != "network"]
    assert set(fallback["series"]) == {"LUFL"}
    assert fallback["cutoff"].between("2017-12-01", "2018-01-01").all()


def test_the_shift_is_flagged_within_three_days(year: Year) -> None:
    days = year.between("2018-02-02", "2018-02-04")
    assert any("OT" in day.post_publish.flagged for day in days)
    before = year.between("2018-01-10", "2018-01-31")
    assert not any("OT" in day.post_publish.flagged for day in before)


def test_a_challenger_is_promoted_after_the_shift(year: Year) -> None:
    after = [
        d.post_publish.retrain for d in year.between("2018-02-02", LAST) if d.post_publish.retrain
    ]
    promoted = [challenge for challenge in after if challenge["promoted"]]
    assert promoted
    for challenge in promoted:
        assert challenge["mase"] <= 0.995 * challenge["active_mase"]
    model = rnnforecast.load(year.place / "model")
    assert model.version == promoted[-1]["challenger"]
    assert model.artifact.parent == promoted[-1]["active"]


def test_score_gives_the_errors_of_backtests_from_the_same_cutoffs(year: Year) -> None:
    table = read_parts(list_parts(year.place / "ledger")).to_pandas()
    backtests = []
    for version in table["version"].unique():
        name = year.place / f"{version}.parquet"
        model = rnnforecast.load(year.place / "model", version=version)
        first = table[table["version"] == version]["cutoff"].min() + pd.Timedelta("1h")
        ends = BacktestConfig(validation_end=first.isoformat(), stride=24, baselines=())
        rnnforecast.backtest(year.place / "year.csv", model=model, ends=ends, output=name)
        rows = pd.read_parquet(name)
        backtests.append(rows[rows["method"] == "network"].assign(version=version))
    keys = ["version", "series", "cutoff", "lead"]
    issued = table[table["source"] == "network"]
    both = issued.merge(pd.concat(backtests), on=keys, suffixes=("", "_backtest"))
    both = both[both["actual"].notna()]
    assert len(both) > 80 * len(year.days)
    size = both.groupby("series")["actual"].transform("std")
    assert (np.abs(both["forecast"] - both["forecast_backtest"]) < 1e-4 * size).all()
    errors = (both["actual"] - both["forecast_backtest"]).abs().groupby(both["series"]).mean()
    scored = {one.series: one for one in score_job(year.place / "job.toml").scores}
    for series in errors.index.drop("LUFL"):  # whose fallback no backtest knows
        assert scored[series].mae == pytest.approx(errors[series], rel=1e-4)
