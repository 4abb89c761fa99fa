"""Scores of issued forecasts on the readings that are known since; drift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.windows import Past
from rnnforecast.evaluate.baselines import SeasonalNaive, seasonal_differences
from rnnforecast.evaluate.comparison import MIN_ERROR, NETWORK, REFERENCE_FIELDS, reference_table

DRIFTED = 4.0
"""Deviations off the error reference above which a series is flagged."""
_ISSUE = "issue"
_BLOCK_ROWS = 1 << 18
"""Issued values that are scored at once, unless a single series has more: they take 150 MB."""
IN_SAMPLE = "in_sample"
"""Column that tells whether the version had learnt from readings after those of the forecast."""
_REFERENCE_COLUMNS = [f"usual_{name}" for name in REFERENCE_FIELDS]


def issue_table(
    forecast: Forecast,
    past: Past,
    *,
    season: int,
    version: str,
    error_reference: Any,
    in_sample: bool = False,
) -> pa.Table:
    """Return the ledger's rows of a forecast, one a value, with all that scoring needs later.

    `past` is what the forecast saw, one origin a series; the forecast must hold q10 and q90. The
    error reference is that of the version's manifest. A score then needs no model. The forecast is
    `in_sample` where the version has learnt from readings after those that the forecast saw.
    """
    horizon, names = forecast.horizon, forecast.names
    low, high = (forecast.quantiles.index(level) for level in (0.1, 0.9))
    naive = SeasonalNaive(season).predict(past, horizon, (0.5,)).point
    scale = seasonal_differences(past, season).mean_absolute
    code = np.repeat(np.arange(len(names), dtype=np.int32), horizon)
    source = forecast.source or (NETWORK,) * len(names)

    def by_row(values: Sequence[str]) -> pa.Array:
        texts = pa.array(values, pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(code), texts).dictionary_decode()

    columns = {
        "series": by_row(names),
        "cutoff": forecast.axis.stamps(np.repeat(forecast.cutoff_us, horizon)),
        "timestamp": forecast.axis.stamps(forecast.times_us),
        "lead": np.tile(np.arange(1, horizon + 1, dtype=np.int32), len(names)),
        "forecast": forecast.point.ravel().astype(np.float64),
        "q10": forecast.values[:, :, low].ravel().astype(np.float64),
        "q90": forecast.values[:, :, high].ravel().astype(np.float64),
        "source": by_row(source),
        "version": pa.repeat(version, len(code)),
        "seasonal_naive": naive.ravel().astype(np.float64),
        "scale": np.repeat(scale, horizon),
    }
    statistics = reference_table(error_reference, names)  # (series, field)
    for number, name in enumerate(_REFERENCE_COLUMNS):
        columns[name] = np.repeat(statistics[:, number], horizon)
    columns[IN_SAMPLE] = pa.repeat(in_sample, len(code))
    is_shown = pa.array(forecast.axis.exists(forecast.times_us.ravel(), forecast.step_us))
    return pa.table(columns).filter(is_shown)


SCORED_COLUMNS = (
    *("series", "cutoff", "timestamp", "lead", "forecast", "q10", "q90", "seasonal_naive", "scale"),
    *(IN_SAMPLE, *_REFERENCE_COLUMNS),
)
"""What scoring reads of a ledger. Parts of an older rnnforecast lack some of them."""


@dataclass(frozen=True)
class Score:
    """Accuracy of the forecasts of one group."""

    series: str | None
    lead: int | None
    day: str | None
    n: int
    mae: float | None
    skill: float | None
    """Percent by which the MASE is below that of the seasonal naive forecast."""
    coverage_80: float | None
    drift: float | None
    """Deviations by which the newest forecasts are off the error reference; None where unknown."""
    flag: str | None
    """What has drifted: coverage, skill, error, or several of them."""


def score_issues(
    table: pa.Table, past: Past, *, since_us: int | None, by: Sequence[str]
) -> list[Score]:
    """Score the rows of a ledger whose readings are known, in groups, in the order of the series.

    `past` has one origin a series, which sees all readings that count. Rows of readings before
    `since_us` do not.
    """
    if not len(table):
        return []
    for name in set(_REFERENCE_COLUMNS) - set(table.column_names):  # of an older rnnforecast
        table = table.append_column(name, pa.nulls(len(table), pa.float64()))
    series = table["series"]
    if not pa.types.is_dictionary(series.type):
        series = series.dictionary_encode()
    number = table.schema.get_field_index("series")
    table = table.set_column(number, "series", series.unify_dictionaries())
    longest = pc.max(table["lead"]).as_py()

    keys, scores = list(by), []
    for block in _series_blocks(table) if "series" in keys else [table]:
        rows = _match_readings(block, past).assign(horizon=longest)
        if since_us is not None:
            rows = rows[rows["time_us"] >= since_us]
        if "day" in keys:
            stamps = past.axis.local(rows["time_us"].to_numpy())
            rows = rows.assign(day=stamps.strftime("%Y-%m-%d").to_numpy())
        groups = rows.groupby(keys, sort=True, observed=True) if keys else [((), rows)]
        scores += [
            _score(dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=True)), part)
            for key, part in groups
            if len(part)
        ]

    order = {name: number for number, name in enumerate(dict.fromkeys(past.names))}
    return sorted(scores, key=lambda score: order.get(score.series or "", 0))


def _series_blocks(table: pa.Table) -> Iterator[pa.Table]:
    """Yield the rows of some series after those of others: a score of series needs no more at once.

    The column of series must be a dictionary, the same in all of its chunks.
    """
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in table["series"].chunks])
    n_rows = np.cumsum(np.bincount(codes))
    first = 0
    while first < len(n_rows):
        n_before = n_rows[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(n_rows, n_before + _BLOCK_ROWS, "right")))
        is_whole = last - first == len(n_rows)
        yield table if is_whole else table.filter(pa.array((codes >= first) & (codes < last)))
        first = last


def _match_readings(table: pa.Table, past: Past) -> pd.DataFrame:
    """Return the last issue of each forecast value whose reading is known, with its errors."""
    numbers = ("lead", "forecast", "q10", "q90", _ISSUE, "seasonal_naive", "scale")
    rows = pd.DataFrame(
        {
            "series": table["series"].to_pandas(),
            "cutoff": past.axis.from_utc(_microseconds(table["cutoff"])),
            "time_us": past.axis.from_utc(_microseconds(table["timestamp"])),
            **{name: table[name].to_numpy() for name in (*numbers, *_REFERENCE_COLUMNS)},
        }
    )
    if not rows[_ISSUE].is_monotonic_increasing:
        rows = rows.sort_values(_ISSUE, kind="stable")
    rows = rows.drop_duplicates(["series", "cutoff", "time_us"], keep="last")

    origin_of = {name: number for number, name in enumerate(past.names)}
    origin_of_name = np.array([origin_of.get(x, -1) for x in rows["series"].cat.categories], int)
    origins = origin_of_name[rows["series"].cat.codes.to_numpy()]
    rows["actual"] = past.at(origins, rows["time_us"].to_numpy())
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


def _score(key: dict[str, Any], rows: pd.DataFrame) -> Score:
    errors = rows.groupby("series", observed=True)[["scaled", "naive"]].mean().dropna()
    mase, naive_mase = errors["scaled"].mean(), errors["naive"].mean()
    drift = {} if "lead" in key else _drift(rows)  # the reference is of whole horizons
    drift = {name: x for name, x in drift.items() if np.isfinite(x)}

    return Score(
        series=None if "series" not in key else str(key["series"]),
        lead=None if "lead" not in key else int(key["lead"]),
        day=None if "day" not in key else str(key["day"]),
        n=len(rows),
        mae=float(rows["error"].mean()),
        skill=float(100 * (1 - mase / naive_mase)) if naive_mase > 0 else None,
        coverage_80=float(rows["inside"].mean()),
        drift=max([0.0, *drift.values()]) if drift else None,
        flag=", ".join(name for name, x in drift.items() if x > DRIFTED) or None,
    )


def _drift(rows: pd.DataFrame) -> dict[str, float]:
    """Return by how many deviations the newest forecasts are off the reference; NaN if unknown.

    The units are forecasts, a series and a cutoff each. A forecast with few known readings yet
    differs more by chance. Skill and errors count only where they are worse. Forecasts of the same
    times, of other cutoffs or series, err together: they count as one.
    """
    names = ["inside", "scaled", "naive", "horizon", *_REFERENCE_COLUMNS]
    groups = rows.groupby(["cutoff", "series"], observed=True)
    windows = groups[names].mean().dropna()
    n = groups.size().loc[windows.index].to_numpy()
    means = {name.removeprefix("usual_"): windows[name].to_numpy() for name in names}

    few, share = means["horizon"] / n, means["coverage"]
    by_chance = share * (1 - share) / n
    excess = means["scaled"] - means["ratio"] * means["naive"]
    growth = np.log(np.maximum(means["scaled"], MIN_ERROR)) - means["log_error"]
    n_together = len(rows) / max(rows["time_us"].nunique(), 1)

    def deviations(differences: Doubles, variances: Doubles) -> Doubles:
        """Return by how many deviations the newest 1, 2, ... differences together are off 0.

        So a strange day is seen on the next, and a month that is a little strange at its end.
        """
        sums, spread = np.cumsum(differences[::-1]), np.cumsum(variances[::-1])
        n_newest, n_blocks = np.arange(1, len(sums) + 1), means["stretches"][::-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            # no number of forecasts says more than as many as the reference has time blocks
            factor = np.minimum(n_newest, n_together) + n_newest / n_blocks
            scores: Doubles = sums / np.sqrt(spread * factor)
        return scores[np.isfinite(scores)]

    coverage = deviations(means["inside"] - share, means["coverage_sd"] ** 2 + by_chance)
    skill = deviations(excess, means["excess_sd"] ** 2 * few)
    error = deviations(growth, means["log_error_sd"] ** 2 * few)
    return {
        "coverage": float(max(np.abs(coverage), default=np.nan)),
        "skill": float(max(skill, default=np.nan)),
        "error": float(max(error, default=np.nan)),
    }
