"""Forecast and the Forecaster protocol; interpolated quantiles; calibration by offsets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.config.training import BAND, quantile_name
from rnnforecast.data.arrays import Doubles, Floats, Integers, take_names
from rnnforecast.data.axis import ELAPSED_UTC, TimeAxis, timestamp_array
from rnnforecast.data.windows import Past, Values, add_base
from rnnforecast.errors import UsageError
from rnnforecast.spec import QUANTILES

_error_function = np.vectorize(math.erf, otypes=[np.float64])
_MEDIAN = QUANTILES.index(0.5)
TAIL_PAIRS = tuple((low, len(QUANTILES) - 1 - low) for low in range(_MEDIAN))
"""Indices of two quantiles with equal tails, `(low, high)`, the widest band first."""


@dataclass(frozen=True)
class Forecast:
    """Quantiles of the readings after each origin's cutoff, in the units of the readings."""

    values: Values
    """`(origin, horizon, quantile)`, finite, not decreasing along the quantiles."""
    quantiles: tuple[float, ...]
    names: tuple[str, ...]
    """`(origin,)`: the series of each origin."""
    cutoff_us: Integers
    """`(origin,)`: the last time that the forecast may use, in microseconds on the axis."""
    step_us: int
    axis: TimeAxis = ELAPSED_UTC
    source: tuple[str, ...] | None = None
    """`(origin,)`: the method that made the forecast; None where no fallback was allowed."""
    uncalibrated: Values | None = None
    """The values before calibration; None where there was none."""
    p_exceed: NDArray[np.float64] | None = None
    """`(origin, horizon)`: the probability of a reading above a limit; NaN where there is none."""

    @classmethod
    def of_past(cls, past: Past, values: Floats, quantiles: Sequence[float]) -> Forecast:
        """Return the forecast of a Past's origins; `values` are still less the base."""
        return cls(
            values=add_base(values, past),
            quantiles=tuple(quantiles),
            names=take_names(past.names, past.series),
            cutoff_us=past.cutoff_time,
            step_us=past.step_us,
            axis=past.axis,
        )

    @property
    def horizon(self) -> int:
        """Steps ahead."""
        return int(self.values.shape[1])

    @property
    def point(self) -> Values:
        """The medians, `(origin, horizon)`."""
        median: Values = self.values[:, :, self.quantiles.index(0.5)]
        return median

    @property
    def times_us(self) -> Integers:
        """`(origin, horizon)`: the time of each step, in microseconds on the axis."""
        leads = np.arange(1, self.horizon + 1, dtype=np.int64)
        return self.cutoff_us[:, None] + leads * self.step_us

    @cached_property
    def stamp_rows(self) -> tuple[Integers, Integers]:
        """The stamps of all steps, `(stamp,)`: number of the step in `(origin, horizon)`, and UTC.

        They are ordered by origin, then by time. A step has no stamp where clocks skip it, and two
        where they show it twice.
        """
        rows, times = self.axis.stamp_rows(self.times_us.ravel(), self.step_us)
        order = np.lexsort((times, rows // self.horizon))
        return rows[order], times[order]

    def apply(self, function: Callable[[Values], Values]) -> Forecast:
        """Return the forecast with other values: those before calibration are changed alike."""
        raw = self.uncalibrated
        changed, uncalibrated = function(self.values), None if raw is None else function(raw)
        return replace(self, values=changed, uncalibrated=uncalibrated)

    def subset(self, origins: NDArray[np.bool_]) -> Forecast:
        """Return the forecast of some of the origins."""
        return replace(
            self.apply(lambda values: values[origins]),
            names=take_names(self.names, origins),
            cutoff_us=self.cutoff_us[origins],
            source=self.source and take_names(self.source, origins),
            p_exceed=None if self.p_exceed is None else self.p_exceed[origins],
        )

    def only(self, quantiles: Sequence[float]) -> Forecast:
        """Return the forecast with only these quantiles, which it must have."""
        index = [self.quantiles.index(level) for level in quantiles]
        return replace(self.apply(lambda values: values[:, :, index]), quantiles=tuple(quantiles))

    def to_arrow(self, quantiles: Sequence[float] | None = None) -> pa.Table:
        """Return one row for each origin and stamp: series, timestamp, forecast, the quantiles.

        Rows are ordered by origin, then by time: those of `stamp_rows`. The quantiles must be among
        those of the forecast; by default all but the median, which is the column `forecast`.
        """
        if quantiles is None:
            quantiles = [q for q in self.quantiles if q != 0.5]

        rows, times = self.stamp_rows
        codes = pa.array((rows // self.horizon).astype(np.int32))
        columns: dict[str, pa.Array] = {
            "series": _decode(codes, self.names),
            "timestamp": timestamp_array(times, self.axis.tz),
        }
        values = self.values if self.values.dtype == np.float32 else _rounded(self.values)
        columns["forecast"] = pa.array(values[:, :, self.quantiles.index(0.5)].ravel()[rows])
        for quantile in quantiles:
            index = self.quantiles.index(quantile)
            columns[quantile_name(quantile)] = pa.array(values[:, :, index].ravel()[rows])

        if self.p_exceed is not None:
            columns["p_exceed"] = pa.array(self.p_exceed.round(6).ravel()[rows], from_pandas=True)
        if self.source is not None:
            columns["source"] = _decode(codes, self.source)
        return pa.table(columns)

    def to_wide(self) -> pa.Table:
        """Return one row for each stamp, in the order of time: timestamp, and a column a series.

        The columns are point forecasts, null where a series has none for a stamp. Raises
        `UsageError` where a series has the name of the first column.
        """
        if "timestamp" in self.names:
            raise UsageError("a series is named 'timestamp', like the first column of --wide")
        table = self.to_arrow(())
        stamps, rows = np.unique(self.stamp_rows[1], return_inverse=True)
        columns: dict[str, pa.Array] = {"timestamp": timestamp_array(stamps, self.axis.tz)}
        origins, points = self.stamp_rows[0] // self.horizon, table["forecast"].to_numpy()
        begins = np.searchsorted(origins, np.arange(len(self.names) + 1))
        for name, begin, end in zip(self.names, begins[:-1], begins[1:], strict=True):
            column = np.full(len(stamps), np.nan, points.dtype)
            column[rows[begin:end]] = points[begin:end]
            columns[name] = pa.array(column, from_pandas=True)
        return pa.table(columns)


class Forecaster(Protocol):
    """Anything that forecasts: a network, calibrated or not, or a baseline.

    They are `RNNForecaster`, `Calibrated`, `ExpertForecaster`, `SeasonalNaive` and `RidgeOnLags`.
    """

    def predict(
        self, past: Past, horizon: int, quantiles: Sequence[float]
    ) -> Forecast:  # pragma: no cover
        """Forecast `horizon` steps after each cutoff; `quantiles` must contain 0.5."""
        ...


class RollingForecaster(Forecaster, Protocol):
    """A forecaster that also forecasts from earlier cutoffs, at little cost."""

    def predict_earlier(
        self, past: Past, horizon: int, n: int
    ) -> tuple[Values, Integers]:  # pragma: no cover
        """Forecast the `QUANTILES` from n earlier cutoffs, `(origin, n, horizon, quantile)`.

        Returns also how many rows before those of `past` they lie, `(n,)`.
        """
        ...


def _rounded(values: Values) -> Values:
    """Round doubles, `(origin, ...)`, to a millionth of the range of each origin's forecast.

    They are float32 plus a base in double precision, and would be written with 16 digits.
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    span, size = np.ptp(flat, axis=1, keepdims=True), np.abs(flat).max(1, keepdims=True)
    digits = 6 - np.floor(np.log10(np.where(span > 0, span, 1.0)))
    # A double has 15 decimal digits that can be trusted.
    possible = 15 - np.ceil(np.log10(np.where(size > 0, size, 1.0)))
    unit = 10.0 ** np.clip(np.minimum(digits, possible), 0, 15)
    rounded: Values = (np.rint(flat * unit) / unit).reshape(values.shape)
    return rounded


def _decode(codes: pa.Array, names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string())).dictionary_decode()


def interpolate_quantiles(
    values: Values, trained: Sequence[float], levels: Sequence[float]
) -> Values:
    """Interpolate quantiles, `(origin, horizon, quantile)`, from the trained levels to others.

    Interpolation is linear in normal scores: monotone, and exact for normally distributed readings.
    Linear in the levels, q95 would lie too far out.
    """
    known, z = normal_scores(trained), normal_scores(levels)
    upper = np.clip(np.searchsorted(known, z), 1, len(known) - 1)
    share = ((z - known[upper - 1]) / (known[upper] - known[upper - 1])).astype(np.float32)
    low, high = values[..., upper - 1], values[..., upper]
    between: Values = np.where(share == 1, high, low + (high - low) * share)
    return between


def normal_scores(levels: Sequence[float]) -> Doubles:
    """Return the quantiles of the standard normal distribution at these levels, `(level,)`."""
    return np.array([NormalDist().inv_cdf(level) for level in levels])


def to_normal_scores(values: Values, levels: Sequence[float], readings: Values) -> Doubles:
    """Return the normal scores of readings, `(origin, horizon)`, within forecast quantiles.

    A reading at q10 has the score -1.28, at q90 1.28. A reading that equals several quantiles has
    the highest of their scores; where all quantiles are equal, the score is infinite: positive at
    and above their value, negative below. NaN stays NaN.
    """
    z, quantiles = normal_scores(levels), values.astype(np.float64)
    n_below = (quantiles <= readings[..., None]).sum(-1)
    upper = np.clip(n_below, 1, len(levels) - 1)[..., None]
    low, high = (np.take_along_axis(quantiles, index, -1)[..., 0] for index in (upper - 1, upper))
    begin, end = z[upper[..., 0] - 1], z[upper[..., 0]]
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = begin + (readings - low) / (high - low) * (end - begin)

    is_flat = high <= low
    scores = np.where(is_flat, np.where(n_below > 0, np.inf, -np.inf), scores)
    is_missing = ~np.isfinite(readings) | np.isnan(quantiles).any(-1)
    return np.where(is_missing, np.nan, scores)


def probability_below(values: Values, levels: Sequence[float], limit: float) -> Doubles:
    """Return the probability, `(origin, horizon)`, of a reading at or below a limit."""
    scores = to_normal_scores(values, levels, np.full(values.shape[:2], limit))
    below: Doubles = 0.5 * (1 + _error_function(scores / np.sqrt(2)))
    return below


@dataclass(frozen=True)
class Calibration:
    """Conformal offsets of the quantiles: by lead for all series, and an addition per series."""

    lead_ends: tuple[int, ...]
    """The last lead of each group of leads; the very last is the horizon."""
    by_lead: Floats
    """`(group, pair)`, in widths of the forecast's own band."""
    by_series: Floats
    """`(series, pair)`, in the order of the names that the network knows."""
    n_windows: int
    """Number of windows that the offsets were fitted to."""
    n_stretches: int
    """Number of separate stretches of time, each at least a horizon long, that hold them."""

    def apply(self, values: Values, entries: Integers) -> Values:
        """Return calibrated quantiles, `(origin, horizon, quantile)` at the trained levels.

        `entries`, `(origin,)`, are the numbers of the series in the network, from 1 on; 0 is a
        series that it does not know, which gets the offsets by lead only. The median stays,
        quantiles do not cross, and NaN stays NaN.
        """
        widths = band_widths(values)
        group = np.searchsorted(self.lead_ends, np.arange(1, values.shape[1] + 1))
        additions = np.vstack([np.zeros((1, len(TAIL_PAIRS)), np.float32), self.by_series])[entries]

        moved, median = values.copy(), values[:, :, _MEDIAN]
        for pair, (low, high) in enumerate(TAIL_PAIRS):
            distance = (self.by_lead[group, pair] + additions[:, pair, None]) * widths
            moved[:, :, low] = np.minimum(values[:, :, low] - distance, median)
            moved[:, :, high] = np.maximum(values[:, :, high] + distance, median)
        moved.sort(axis=-1)
        return moved

    def to_json(self) -> dict[str, Any]:
        """Return the part of the manifest; `by_series` is stored with the names of the series."""
        return {
            "method": "conformalised quantile regression",
            "lead_ends": list(self.lead_ends),
            "by_lead": self.by_lead.tolist(),
            "n_windows": self.n_windows,
            "n_stretches": self.n_stretches,
        }

    @classmethod
    def from_json(cls, payload: dict[str, Any], by_series: Floats) -> Calibration:
        """Read what `to_json` returned. Raises `ValueError`, `KeyError` or `TypeError`."""
        with np.errstate(over="ignore"):  # an overflow gives infinity, which is refused below
            by_lead = np.array(payload["by_lead"], np.float32)
        n_windows, n_stretches = payload["n_windows"], payload["n_stretches"]
        calibration = cls(tuple(payload["lead_ends"]), by_lead, by_series, n_windows, n_stretches)

        ends = calibration.lead_ends
        if not all(type(n) is int for n in (*ends, n_windows, n_stretches)):
            raise TypeError("the calibration has fractional counts")
        if not ends or list(ends) != sorted(set(ends)) or ends[0] < 1:
            raise ValueError(f"the groups of leads end at {ends}")
        shapes = (by_lead.shape, by_series.shape[1:])
        if shapes != ((len(ends), len(TAIL_PAIRS)), (len(TAIL_PAIRS),)):
            raise ValueError("the calibration is not for these quantiles")
        if not (np.isfinite(by_lead).all() and np.isfinite(by_series).all()):
            raise ValueError("the calibration is not finite")
        return calibration


def band_widths(values: Values) -> Values:
    """Return the width of each forecast's 80 % band, `(origin, horizon)`."""
    low, high = (QUANTILES.index(level) for level in BAND)
    widths: Values = values[:, :, high] - values[:, :, low]
    return widths
