"""Readings outside of their band: each compared with a forecast made before it was known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rnnforecast.config.training import BAND
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.axis import ELAPSED_UTC, TimeAxis
from rnnforecast.data.forecast import Forecaster, normal_scores, to_normal_scores
from rnnforecast.data.panel import Panel
from rnnforecast.data.split import Origins
from rnnforecast.data.windows import Past, Values
from rnnforecast.evaluate.backtest import PART_VALUES, Truth
from rnnforecast.events import Listener, ProgressEvent, ignore
from rnnforecast.spec import QUANTILES

_MAX_SURPRISE = 100.0
"""A reading off a band without width would be infinitely surprising."""
_LOW, _MEDIAN, _HIGH = (QUANTILES.index(level) for level in (BAND[0], 0.5, BAND[1]))


@dataclass(frozen=True)
class Anomalies:
    """Anomalous readings by series and time, and the number of readings that were judged."""

    names: tuple[str, ...]
    """The names of all series of the panel."""
    series: Integers
    """`(anomaly,)`: index of the series in `names`."""
    times_us: Integers
    actual: Doubles
    low: Doubles
    high: Doubles
    """q10 and q90, `(anomaly,)`, in the sensor's unit."""
    surprise: Doubles
    step_us: int
    n_judged: int = 0
    axis: TimeAxis = ELAPSED_UTC

    @classmethod
    def empty(cls, panel: Panel) -> Anomalies:
        """Return no anomalies, of a panel."""
        i, x = np.empty(0, np.int64), np.empty(0)
        return cls(panel.names, i, i, x, x, x, x, panel.step_us, axis=panel.axis)

    @property
    def anomalous_names(self) -> tuple[str, ...]:
        """The names of the series that have anomalies."""
        return tuple(self.names[i] for i in np.unique(self.series))

    def with_names(self, renamed: Mapping[str, str]) -> Anomalies:
        """Return the anomalies with other names of series."""
        return replace(self, names=tuple(renamed.get(name, name) for name in self.names))

    def to_arrow(self) -> pa.Table:
        """Return one row an anomaly: series, timestamp, actual, q10, q90, surprise."""
        return pa.table(
            {
                "series": pa.array([self.names[i] for i in self.series], pa.string()),
                "timestamp": self.axis.stamps(self.times_us),
                "actual": pa.array(self.actual),
                "q10": pa.array(self.low),
                "q90": pa.array(self.high),
                "surprise": pa.array(self.surprise.round(3)),
            }
        )


@dataclass(frozen=True)
class Episode:
    """Anomalies of one series that are close in time."""

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
    """Return the readings outside q10..q90 whose surprise is at least `at_least`.

    Surprise is the distance to the median in normal scores, see `_surprise`. Readings are not
    judged where they are missing, before a whole look-back or before `since_us`, or after a
    look-back without any reading.
    """
    origins = _origins(panel, lookback=lookback, stride=stride, since_us=since_us)
    truth, empty = Truth(panel, stride), Anomalies.empty(panel)
    part_size = max(1, PART_VALUES // (lookback + stride * len(QUANTILES)))
    parts, n_judged, n_done = [empty], 0, 0
    for past in origins.parts(part_size):
        n_done += past.n_origins
        part = past.subset(past.observed_share(lookback) > 0)
        if part.n_origins:
            actual = truth.after(part).astype(np.float64)
            if since_us is not None:
                actual[_times_after(part, stride) < since_us] = np.nan
            n_judged += int(np.isfinite(actual).sum())
            parts.append(_judge(forecaster, part, actual, empty, at_least=at_least))
        listener(ProgressEvent("judging readings", n_done, len(origins)))

    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("series", "times_us", "actual", "low", "high", "surprise")
    }
    return replace(empty, n_judged=n_judged, **columns)


def _origins(panel: Panel, *, lookback: int, stride: int, since_us: int | None) -> Origins:
    """Return origins a stride apart, the last one a stride before the end of each series."""
    earliest = np.full(panel.n_series, lookback)
    if since_us is not None:
        earliest = np.maximum(earliest, panel.rows_before(since_us) - stride + 1)
    counts = np.maximum((panel.lengths - earliest) // stride, 0)
    return Origins(panel, panel.lengths - counts * stride, counts, stride)


def _judge(
    forecaster: Forecaster, part: Past, actual: Doubles, empty: Anomalies, *, at_least: float
) -> Anomalies:
    """Compare readings, `(origin, stride)`, with the forecasts of their origins."""
    stride = actual.shape[1]
    forecast = forecaster.predict(part, stride, QUANTILES)
    quantiles = forecast.values
    low, high = quantiles[:, :, _LOW], quantiles[:, :, _HIGH]
    surprise = _surprise(quantiles, actual)
    if forecast.uncalibrated is not None:
        # A few quiet days of calibration must not make what follows surprising.
        surprise = np.minimum(surprise, _surprise(forecast.uncalibrated, actual))
    flagged = ((actual < low) | (actual > high)) & (surprise >= at_least)
    series = np.broadcast_to(part.series[:, None], actual.shape)

    return replace(
        empty,
        series=series[flagged],
        times_us=_times_after(part, stride)[flagged],
        actual=actual[flagged],
        low=low[flagged].astype(np.float64),
        high=high[flagged].astype(np.float64),
        surprise=surprise[flagged],
    )


def _surprise(quantiles: Values, readings: Doubles) -> Doubles:
    """Return the distance of readings, `(origin, lead)`, to the median, in normal scores.

    Beyond the outermost quantiles it grows with the distance to the median: the slope between the
    last two of them rests on the few readings that lay there.
    """
    scores = np.abs(to_normal_scores(quantiles, QUANTILES, readings))
    low, median, high = (quantiles[:, :, place].astype(np.float64) for place in (0, _MEDIAN, -1))
    edge = np.where(readings < median, low, high)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = normal_scores(QUANTILES)[-1] * (readings - median) / (edge - median)
    is_beyond = (readings < low) | (readings > high)
    return np.minimum(np.where(is_beyond, beyond, scores), _MAX_SURPRISE)


def _times_after(part: Past, stride: int) -> Integers:
    """`(origin, stride)`: the times that each origin forecasts, in microseconds."""
    return part.cutoff_time[:, None] + np.arange(1, stride + 1) * part.step_us


def episodes(anomalies: Anomalies, *, max_gap: int) -> list[Episode]:
    """Group the anomalies of each series; those `max_gap` steps apart or more are two episodes.

    The most surprising episodes come first.
    """
    series, times_us = anomalies.series, anomalies.times_us
    if not len(series):
        return []

    is_new = (np.diff(series) != 0) | (np.diff(times_us) >= max_gap * anomalies.step_us)
    groups = np.split(np.arange(len(series)), np.flatnonzero(is_new) + 1)
    grouped = [
        Episode(
            anomalies.names[series[rows[0]]],
            int(times_us[rows[0]]),
            int(times_us[rows[-1]]),
            len(rows),
            float(anomalies.surprise[rows].max()),
        )
        for rows in groups
    ]
    return sorted(grouped, key=lambda episode: -episode.surprise)
