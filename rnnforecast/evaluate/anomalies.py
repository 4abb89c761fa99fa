"""Readings that left their band: each held against a forecast that had not seen it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rnnforecast.config.training import BAND, QUANTILES
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.forecast import Forecaster, scores_of
from rnnforecast.data.panel import Panel
from rnnforecast.data.split import Origins
from rnnforecast.data.timestamps import stamp_array
from rnnforecast.data.windows import Past
from rnnforecast.evaluate.backtest import PART_VALUES, Truth
from rnnforecast.events import Listener, Progressed, ignore

_MOST = 100.0
"""Nothing is more surprising: a reading off a band without width would be so without end."""
_LOW, _HIGH = (QUANTILES.index(level) for level in BAND)


@dataclass(frozen=True)
class Anomalies:
    """The readings that were found, series by series and in time, and how many were judged."""

    names: tuple[str, ...]
    """Of all series of the table."""
    series: Integers
    """`(anomaly,)`: number of the series."""
    times_us: Integers
    actual: Doubles
    low: Doubles
    high: Doubles
    """q10 and q90, `(anomaly,)`, in the sensor's unit."""
    surprise: Doubles
    step_us: int
    n_judged: int = 0
    tz: str | None = None

    @classmethod
    def none(cls, panel: Panel) -> Anomalies:
        """Return what was found in a table without anomalies."""
        whole, real = np.empty(0, np.int64), np.empty(0)
        return cls(panel.names, whole, whole, real, real, real, real, panel.step_us)

    @classmethod
    def joined(cls, parts: list[Anomalies], n_judged: int) -> Anomalies:
        """Put together what was found in parts of a table."""
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("series", "times_us", "actual", "low", "high", "surprise")
        }
        return replace(parts[0], n_judged=n_judged, **columns)

    def to_arrow(self) -> pa.Table:
        """Return a row for each: series, timestamp, actual, q10, q90, surprise."""
        return pa.table(
            {
                "series": pa.array([self.names[i] for i in self.series], pa.string()),
                "timestamp": stamp_array(self.times_us, self.tz),
                "actual": pa.array(self.actual),
                "q10": pa.array(self.low),
                "q90": pa.array(self.high),
                "surprise": pa.array(self.surprise.round(3)),
            }
        )


@dataclass(frozen=True)
class Episode:
    """Anomalies of one series that lie near each other."""

    series: str
    begin_us: int
    end_us: int
    count: int
    surprise: float
    """The highest."""


def find_anomalies(
    forecaster: Forecaster,
    panel: Panel,
    *,
    lookback: int,
    stride: int,
    at_least: float,
    since_us: int | None = None,
    listener: Listener = ignore,
) -> Anomalies:
    """List the readings outside q10..q90 that are at least so surprising.

    Not judged are missing readings, those before a whole look-back or before `since_us`, and those
    after a look-back without any reading.
    """
    origins = _origins(panel, lookback=lookback, stride=stride, since_us=since_us)
    truth, listed = Truth(panel, stride), [Anomalies.none(panel)]
    size = max(1, PART_VALUES // (lookback + stride * len(QUANTILES)))
    n_judged, done = 0, 0
    for every in origins.parts(size):
        done += every.n_origins
        part = every.subset(every.share_seen(lookback) > 0)
        if part.n_origins:
            actual = truth.after(part).astype(np.float64)
            if since_us is not None:
                actual[_times_after(part, stride) < since_us] = np.nan
            n_judged += int(np.isfinite(actual).sum())
            listed.append(_judge(forecaster, part, actual, listed[0], at_least=at_least))
        listener(Progressed("judging readings", done, len(origins)))
    return Anomalies.joined(listed, n_judged)


def _judge(
    forecaster: Forecaster, part: Past, actual: Doubles, none: Anomalies, *, at_least: float
) -> Anomalies:
    """Hold readings, `(origin, stride)`, against the forecasts of their origins."""
    stride = actual.shape[1]
    quantiles = forecaster.predict(part, stride, QUANTILES).values
    low, high = quantiles[:, :, _LOW], quantiles[:, :, _HIGH]
    surprise = np.minimum(np.abs(scores_of(quantiles, QUANTILES, actual)), _MOST)
    flagged = ((actual < low) | (actual > high)) & (surprise >= at_least)
    series = np.broadcast_to(part.series[:, None], actual.shape)
    return replace(
        none,
        series=series[flagged],
        times_us=_times_after(part, stride)[flagged],
        actual=actual[flagged],
        low=low[flagged].astype(np.float64),
        high=high[flagged].astype(np.float64),
        surprise=surprise[flagged],
    )


def _times_after(part: Past, stride: int) -> Integers:
    """`(origin, stride)`: the times that each origin forecasts, in microseconds."""
    return part.cutoff_time[:, None] + np.arange(1, stride + 1) * part.step_us


def episodes(found: Anomalies, *, apart: int) -> list[Episode]:
    """Put together the anomalies of a series that lie less than `apart` steps from each other.

    The most surprising come first.
    """
    listed = list(_episodes(found, apart * found.step_us))
    return sorted(listed, key=lambda one: -one.surprise)


def _episodes(found: Anomalies, apart_us: int) -> Iterator[Episode]:
    if not len(found.series):
        return
    is_new = (np.diff(found.series) != 0) | (np.diff(found.times_us) >= apart_us)
    for rows in np.split(np.arange(len(found.series)), np.flatnonzero(is_new) + 1):
        yield Episode(
            found.names[found.series[rows[0]]],
            int(found.times_us[rows[0]]),
            int(found.times_us[rows[-1]]),
            len(rows),
            float(found.surprise[rows].max()),
        )


def _origins(panel: Panel, *, lookback: int, stride: int, since_us: int | None) -> Origins:
    """Return origins a stride apart, the last one a stride before the end of each series."""
    earliest = np.full(panel.n_series, lookback)
    if since_us is not None:
        earliest = np.maximum(earliest, panel.rows_before(since_us) - stride + 1)
    counts = np.maximum((panel.lengths - earliest) // stride, 0)
    return Origins(panel, panel.lengths - counts * stride, counts, stride)
