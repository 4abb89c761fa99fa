"""Forecast, and the Forecaster protocol: what a forecaster returns for a `Past`.

The network and the baselines are Forecasters; they meet here and know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.config import quantile_name
from rnnforecast.data.panel import Integers, pick
from rnnforecast.data.past import Past, Values
from rnnforecast.data.stamps import stamp_array

if TYPE_CHECKING:
    import pandas as pd


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
