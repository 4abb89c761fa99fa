"""Forecast and the Forecaster protocol; quantiles, and the offsets that calibrate them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.config.training import BAND, QUANTILES, quantile_name
from rnnforecast.data.arrays import Doubles, Floats, Integers, pick
from rnnforecast.data.timestamps import stamp_array
from rnnforecast.data.windows import Past, Values

_error_function = np.vectorize(math.erf, otypes=[np.float64])
_MEDIAN = QUANTILES.index(0.5)
PAIRS = tuple((low, len(QUANTILES) - 1 - low) for low in range(_MEDIAN))
"""Places of the levels with equal tails, the widest first."""


@dataclass(frozen=True)
class Forecast:
    """Quantiles of the readings after each origin's cutoff, in the sensor's own units."""

    values: Values
    """`(origin, horizon, quantile)`, finite, not decreasing along the quantiles."""
    quantiles: tuple[float, ...]
    names: tuple[str, ...]
    """`(origin,)`: the series of each origin."""
    cutoff_us: Integers
    """`(origin,)`: the last time that the forecast could see, microseconds since 1970."""
    step_us: int
    tz: str | None = None
    source: tuple[str, ...] | None = None
    """`(origin,)`: which method made it, where there was a fallback."""
    uncalibrated: Values | None = None
    """The values before their quantiles were moved, where they were."""
    p_exceed: NDArray[np.float64] | None = None
    """`(origin, horizon)`: the probability of a reading above a limit; NaN where there is none."""

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
        """`(origin, horizon)`: the time of each step, in microseconds."""
        leads = np.arange(1, self.horizon + 1, dtype=np.int64)
        return self.cutoff_us[:, None] + leads * self.step_us

    def subset(self, origins: NDArray[np.bool_]) -> Forecast:
        """Return the forecast of some of the origins."""
        return replace(
            self,
            values=self.values[origins],
            names=pick(self.names, origins),
            cutoff_us=self.cutoff_us[origins],
            source=self.source and pick(self.source, origins),
            uncalibrated=None if self.uncalibrated is None else self.uncalibrated[origins],
            p_exceed=None if self.p_exceed is None else self.p_exceed[origins],
        )

    def only(self, quantiles: Sequence[float]) -> Forecast:
        """Return the forecast with these of its quantiles."""
        at = [self.quantiles.index(level) for level in quantiles]
        before = None if self.uncalibrated is None else self.uncalibrated[:, :, at]
        kept = self.values[:, :, at]
        return replace(self, values=kept, quantiles=tuple(quantiles), uncalibrated=before)

    def to_arrow(self, quantiles: Sequence[float] | None = None) -> pa.Table:
        """Return one row for each origin and step: series, timestamp, forecast, the quantiles.

        The order is that of the origins, then time. The quantiles must be some of the forecast's;
        by default they are all of them but the median, which `forecast` is.
        """
        if quantiles is None:
            quantiles = [q for q in self.quantiles if q != 0.5]
        codes = pa.array(np.repeat(np.arange(len(self.names), dtype=np.int32), self.horizon))
        columns: dict[str, pa.Array] = {
            "series": _decode(codes, self.names),
            "timestamp": stamp_array(self.times_us, self.tz),
        }
        values = self.values if self.values.dtype == np.float32 else _sensible(self.values)
        columns["forecast"] = pa.array(values[:, :, self.quantiles.index(0.5)].ravel())
        for quantile in quantiles:
            at = self.quantiles.index(quantile)
            columns[quantile_name(quantile)] = pa.array(values[:, :, at].ravel())
        if self.p_exceed is not None:
            columns["p_exceed"] = pa.array(self.p_exceed.round(6).ravel(), from_pandas=True)
        if self.source is not None:
            columns["source"] = _decode(codes, self.source)
        return pa.table(columns)

    def to_pandas(self, quantiles: Sequence[float] | None = None) -> pd.DataFrame:
        """Return the same as a pandas table."""
        table: pd.DataFrame = self.to_arrow(quantiles).to_pandas()
        return table


class Forecaster(Protocol):
    """Anything that forecasts. `fit` stands beside it: a classmethod that learns and makes one."""

    def predict(
        self, past: Past, horizon: int, quantiles: Sequence[float]
    ) -> Forecast:  # pragma: no cover
        """Forecast `horizon` steps after each cutoff; `quantiles` must hold 0.5."""
        ...


def _sensible(values: Values) -> Values:
    """Round doubles, `(origin, ...)`, to a millionth of what each origin's forecast spans.

    They come from float32; without this, every sum with a base would show its 16 digits.
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    span, size = np.ptp(flat, axis=1, keepdims=True), np.abs(flat).max(1, keepdims=True)
    digits = 6 - np.floor(np.log10(np.where(span > 0, span, 1.0)))
    possible = 15 - np.ceil(np.log10(np.where(size > 0, size, 1.0)))
    unit = 10.0 ** np.clip(np.minimum(digits, possible), 0, 15)
    rounded: Values = (np.rint(flat * unit) / unit).reshape(values.shape)
    return rounded


def _decode(codes: pa.Array, names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string())).dictionary_decode()


def at_levels(values: Values, trained: Sequence[float], wanted: Sequence[float]) -> Values:
    """Pick or interpolate quantiles, `(origin, horizon, quantile)`, among the trained ones.

    Between two of them a quantile lies as far along as on a normal distribution: monotone, and
    exact where the readings are normal. A straight line between levels would put q95 too far out.
    """
    known, z = normal_scores(trained), normal_scores(wanted)
    upper = np.clip(np.searchsorted(known, z), 1, len(known) - 1)
    share = ((z - known[upper - 1]) / (known[upper] - known[upper - 1])).astype(np.float32)
    low, high = values[..., upper - 1], values[..., upper]
    between: Values = np.where(share == 1, high, low + (high - low) * share)
    return between


def normal_scores(levels: Sequence[float]) -> Doubles:
    """Return the quantiles of a standard normal distribution."""
    return np.array([NormalDist().inv_cdf(level) for level in levels])


def scores_of(values: Values, levels: Sequence[float], readings: Values) -> Doubles:
    """Return how far readings, `(origin, horizon)`, lie off the median, as normal scores.

    -1.28 and 1.28 are q10 and q90. A reading that equals several quantiles has the highest of their
    scores; where all are equal it is infinite, above and at the value. NaN stays NaN.
    """
    z, quantiles = normal_scores(levels), values.astype(np.float64)
    n_below = (quantiles <= readings[..., None]).sum(-1)
    upper = np.clip(n_below, 1, len(levels) - 1)[..., None]
    low, high = (np.take_along_axis(quantiles, at, -1)[..., 0] for at in (upper - 1, upper))
    begin, end = z[upper[..., 0] - 1], z[upper[..., 0]]
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = begin + (readings - low) / (high - low) * (end - begin)
    flat = high <= low
    scores = np.where(flat, np.where(n_below > 0, np.inf, -np.inf), scores)
    missing = ~np.isfinite(readings) | np.isnan(quantiles).any(-1)
    return np.where(missing, np.nan, scores)


def share_below(values: Values, levels: Sequence[float], limit: float) -> Doubles:
    """`(origin, horizon)`: the probability that a reading is at or below a limit."""
    scores = scores_of(values, levels, np.full(values.shape[:2], limit))
    below: Doubles = 0.5 * (1 + _error_function(scores / np.sqrt(2)))
    return below


@dataclass(frozen=True)
class Calibration:
    """Moves by lead, the same for all series, and what each series adds to them."""

    lead_ends: tuple[int, ...]
    """The last lead of each group of leads; the last of all is the horizon."""
    by_lead: Floats
    """`(group, pair)`, in widths of the forecast's own band."""
    by_series: Floats
    """`(series, pair)`, in the order of the names that the network knows."""
    n_windows: int
    """How many windows they rest on."""
    n_stretches: int
    """How many stretches of time, each at least a horizon long, these lie in."""

    def apply(self, values: Values, entries: Integers) -> Values:
        """Return moved quantiles, `(origin, horizon, quantile)` at the trained levels.

        `entries`, `(origin,)`, number the series from 1 on; 0 is one that the network does not
        know, which moves as all do. The median stays, quantiles do not cross, NaN stays NaN.
        """
        widths = band_widths(values)
        group = np.searchsorted(self.lead_ends, np.arange(1, values.shape[1] + 1))
        own = np.vstack([np.zeros((1, len(PAIRS)), np.float32), self.by_series])[entries]
        moved, median = values.copy(), values[:, :, _MEDIAN]
        for pair, (low, high) in enumerate(PAIRS):
            distance = (self.by_lead[group, pair] + own[:, pair, None]) * widths
            moved[:, :, low] = np.minimum(values[:, :, low] - distance, median)
            moved[:, :, high] = np.maximum(values[:, :, high] + distance, median)
        moved.sort(axis=-1)
        return moved

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest says; `by_series` stands with the names."""
        return {
            "method": "conformalised quantile regression",
            "lead_ends": list(self.lead_ends),
            "by_lead": self.by_lead.tolist(),
            "n_windows": self.n_windows,
            "n_stretches": self.n_stretches,
        }

    @classmethod
    def from_json(cls, said: dict[str, Any], by_series: Floats) -> Calibration:
        """Read it again. Raises `ValueError`, `KeyError` or `TypeError` for what is none."""
        with np.errstate(over="ignore"):  # it is looked at below
            by_lead = np.array(said["by_lead"], np.float32)
        n_windows, n_stretches = said["n_windows"], said["n_stretches"]
        found = cls(tuple(said["lead_ends"]), by_lead, by_series, n_windows, n_stretches)
        ends = found.lead_ends
        if not all(type(n) is int for n in (*ends, found.n_windows, found.n_stretches)):
            raise TypeError("the calibration counts in fractions")
        if not ends or list(ends) != sorted(set(ends)) or ends[0] < 1:
            raise ValueError(f"the groups of leads end at {ends}")
        shapes = (found.by_lead.shape, by_series.shape[1:])
        if shapes != ((len(ends), len(PAIRS)), (len(PAIRS),)):
            raise ValueError("the calibration is not for these quantiles")
        if not (np.isfinite(found.by_lead).all() and np.isfinite(by_series).all()):
            raise ValueError("the calibration is not finite")
        return found


def band_widths(values: Values) -> Values:
    """Return the width of each forecast's 80 % band, `(origin, horizon)`."""
    low, high = (QUANTILES.index(level) for level in BAND)
    widths: Values = values[:, :, high] - values[:, :, low]
    return widths
