"""Scores of forecasts that were issued, on the readings that have come since; drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.timestamps import stamp_array
from rnnforecast.data.windows import Past
from rnnforecast.evaluate.baselines import SeasonalNaive, seasonal_differences
from rnnforecast.evaluate.comparison import FIELDS, NETWORK, SMALLEST, usual_from

DRIFTED = 4.0
"""Deviations off what was usual from which a series is flagged."""
_ORDER = "issue"
_DAY_US = 86_400_000_000


def issue_table(
    forecast: Forecast, past: Past, *, season: int, version: str, usual: Any
) -> pa.Table:
    """Return what the ledger keeps of a forecast: a row for each value, with what it is held by.

    `past` is what the forecast saw, one origin a series; the forecast must hold q10 and q90.
    `usual` is what the version's manifest says of how forecasts differ.
    """
    horizon, names = forecast.horizon, forecast.names
    low, high = (forecast.quantiles.index(level) for level in (0.1, 0.9))
    naive = SeasonalNaive(season).predict(past, horizon, (0.5,)).point
    scale = seasonal_differences(past, season).mean_absolute
    code = np.repeat(np.arange(len(names), dtype=np.int32), horizon)
    source = forecast.source or (NETWORK,) * len(names)

    def texts(values: Sequence[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(code), pa.array(values, pa.string()))

    columns = {
        "series": texts(names).dictionary_decode(),
        "cutoff": stamp_array(np.repeat(forecast.cutoff_us, horizon), forecast.tz),
        "timestamp": stamp_array(forecast.times_us, forecast.tz),
        "lead": np.tile(np.arange(1, horizon + 1, dtype=np.int32), len(names)),
        "forecast": forecast.point.ravel().astype(np.float64),
        "q10": forecast.values[:, :, low].ravel().astype(np.float64),
        "q90": forecast.values[:, :, high].ravel().astype(np.float64),
        "source": texts(source).dictionary_decode(),
        "version": pa.repeat(version, len(code)),
        "seasonal_naive": naive.ravel().astype(np.float64),
        "scale": np.repeat(scale, horizon),
    }
    figures = usual_from(usual, names)
    for place, name in enumerate(FIELDS):
        columns[f"usual_{name}"] = np.repeat(figures[:, place], horizon)
    return pa.table(columns)


@dataclass(frozen=True)
class Score:
    """How good the forecasts of one group were."""

    series: str | None
    lead: int | None
    day: str | None
    n: int
    mae: float | None
    skill: float | None
    """Percent by which the MASE is below that of the seasonal naive forecast."""
    coverage_80: float | None
    drift: float | None
    """How far the newest forecasts are off what was usual, in deviations; None where unknown."""
    flag: str | None
    """What has left its band: coverage, skill, error, or several of them."""


def score_issues(
    table: pa.Table, past: Past, tz: str | None, *, since_us: int | None, by: Sequence[str]
) -> list[Score]:
    """Score the rows of a ledger whose readings have come, in groups, in the order of the series.

    `past` has one origin a series, which sees all readings that count. Rows of readings before
    `since_us` do not.
    """
    rows = _with_readings(table, past)
    if since_us is not None:
        rows = rows[rows["time_us"] >= since_us]
    if not len(rows):
        return []
    keys = [{"series": "series", "lead": "lead", "day": "day"}[name] for name in by]
    if "day" in keys:
        rows = rows.assign(day=_days(rows["time_us"].to_numpy(), tz))
    groups = rows.groupby(keys, sort=True, observed=True) if keys else [((), rows)]
    order = {name: place for place, name in enumerate(dict.fromkeys(past.names))}
    scores = [
        _score(dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=True)), part)
        for key, part in groups
    ]
    return sorted(scores, key=lambda one: order.get(one.series or "", 0))


def _with_readings(table: pa.Table, past: Past) -> pd.DataFrame:
    """Return the last issue of each forecast value whose reading is there, with that reading."""
    usual = [f"usual_{name}" for name in FIELDS]
    for name in set(usual) - set(table.column_names):  # issued by an older rnnforecast
        table = table.append_column(name, pa.nulls(len(table), pa.float64()))
    rows = pd.DataFrame(
        {
            "series": table["series"].to_pandas(),
            "cutoff": _microseconds(table["cutoff"]),
            "time_us": _microseconds(table["timestamp"]),
            **{n: table[n].to_numpy() for n in ("lead", "forecast", "q10", "q90", _ORDER)},
            **{n: table[n].to_numpy() for n in ("seasonal_naive", "scale")},
            **{n: table[n].to_numpy() for n in usual},
        }
    )
    rows = rows.sort_values(_ORDER, kind="stable")
    rows = rows.drop_duplicates(["series", "cutoff", "time_us"], keep="last")
    place = {name: number for number, name in enumerate(past.names)}
    origins = rows["series"].map(place).fillna(-1).to_numpy().astype(np.int64)
    rows["actual"] = past.at(origins, rows["time_us"].to_numpy())
    rows["horizon"] = rows["lead"].max()
    rows = rows[np.isfinite(rows["actual"])]
    scale = rows["scale"].where(rows["scale"] > 0)
    scored: pd.DataFrame = rows.assign(
        error=(rows["actual"] - rows["forecast"]).abs(),
        scaled=(rows["actual"] - rows["forecast"]).abs() / scale,
        naive=(rows["actual"] - rows["seasonal_naive"]).abs() / scale,
        inside=((rows["q10"] <= rows["actual"]) & (rows["actual"] <= rows["q90"])).astype(float),
    )
    return scored


def _microseconds(column: pa.ChunkedArray) -> Integers:
    times: Integers = column.cast(pa.int64()).to_numpy()
    return times


def _days(times_us: Integers, tz: str | None) -> NDArray[Any]:
    """Return the day that each time lies in, where the sensor is, as text."""
    stamps = pd.DatetimeIndex(times_us.view("datetime64[us]"))
    if tz is not None:
        stamps = stamps.tz_localize("UTC").tz_convert(tz)
    days: NDArray[Any] = stamps.strftime("%Y-%m-%d").to_numpy()
    return days


def _score(key: dict[str, Any], rows: pd.DataFrame) -> Score:
    errors = rows.groupby("series", observed=True)[["scaled", "naive"]].mean().dropna()
    own, naive = errors["scaled"].mean(), errors["naive"].mean()
    off = {} if "lead" in key else _off_usual(rows)  # what is usual is known of whole horizons
    off = {name: x for name, x in off.items() if np.isfinite(x)}
    return Score(
        series=None if "series" not in key else str(key["series"]),
        lead=None if "lead" not in key else int(key["lead"]),
        day=None if "day" not in key else str(key["day"]),
        n=len(rows),
        mae=float(rows["error"].mean()),
        skill=float(100 * (1 - own / naive)) if naive > 0 else None,
        coverage_80=float(rows["inside"].mean()),
        drift=max([0.0, *off.values()]) if off else None,
        flag=", ".join(name for name, x in off.items() if x > DRIFTED) or None,
    )


def _off_usual(rows: pd.DataFrame) -> dict[str, float]:
    """Return by how many deviations the newest forecasts are off what was usual; NaN if unknown.

    The units are forecasts, a series and a cutoff each. Of one that few readings have come of yet,
    figures are the surer to differ by chance. Skill and errors count only where they are worse.
    Forecasts of the same times, of other cutoffs or series, err together: they count as one.
    """
    names = ["inside", "scaled", "naive", "horizon", *(f"usual_{name}" for name in FIELDS)]
    windows = rows.groupby(["cutoff", "series"], observed=True)[names].mean().dropna()
    n = rows.groupby(["cutoff", "series"], observed=True).size().loc[windows.index].to_numpy()
    found = {name.removeprefix("usual_"): windows[name].to_numpy() for name in names}
    few, share = found["horizon"] / n, found["coverage"]
    excess = found["scaled"] - found["ratio"] * found["naive"]
    growth = np.log(np.maximum(found["scaled"], SMALLEST)) - found["log_error"]
    by_chance = share * (1 - share) / n
    together = len(rows) / max(rows["time_us"].nunique(), 1)

    def off(differences: Doubles, variances: Doubles) -> Doubles:
        return _standing_out(
            differences, variances, known_from=found["stretches"], together=together
        )

    coverage = off(found["inside"] - share, found["coverage_sd"] ** 2 + by_chance)
    skill = off(excess, found["excess_sd"] ** 2 * few)
    error = off(growth, found["log_error_sd"] ** 2 * few)
    return {
        "coverage": float(max(np.abs(coverage), default=np.nan)),
        "skill": float(max(skill, default=np.nan)),
        "error": float(max(error, default=np.nan)),
    }


def _standing_out(
    differences: Doubles, variances: Doubles, *, known_from: Doubles, together: float
) -> Doubles:
    """By how many deviations the newest 1, 2, ... differences are off 0 together.

    So a day that is strange is seen on the next, and a month that is a little strange at its end.
    What was usual is known from some stretches of time: no number of forecasts says more than so
    many of them. Of all differences `together` ones each differ as one.
    """
    sums, spread = np.cumsum(differences[::-1]), np.cumsum(variances[::-1])
    n = np.arange(1, len(sums) + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Doubles = sums / np.sqrt(spread * (np.minimum(n, together) + n / known_from[::-1]))
    return found[np.isfinite(found)]
