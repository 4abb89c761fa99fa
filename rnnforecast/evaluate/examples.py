"""Held-out windows to look at: of the best, a typical and the worst series, none of them chosen.

The window of a series is the one whose error is its median, so that nobody sees a lucky one. Of a
single series they are its best, its median and its worst window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rnnforecast.config import QUANTILES
from rnnforecast.data.forecast import Forecast, Forecaster
from rnnforecast.data.origins import Origins
from rnnforecast.data.panel import Doubles
from rnnforecast.data.past import Past, Values
from rnnforecast.evaluate.backtest import Truth
from rnnforecast.evaluate.tally import Tally

_KINDS = ("best", "typical", "worst")
_MOST_TRIED = 60
"""At most so many windows of a series are forecast again."""


@dataclass(frozen=True)
class Example:
    """One window: what was seen, what was forecast, what came."""

    kind: str
    """best, typical or worst."""
    of: str
    """What it is the best or the worst of: series or window."""
    past: Past
    """One origin."""
    forecast: Forecast
    actual: Values
    """`(1, horizon)`."""


def examples(
    forecaster: Forecaster,
    origins: Origins,
    truth: Truth,
    tallies: Mapping[str, Tally],
    *,
    method: str,
    beside: str | None,
    lookback: int,
) -> tuple[Example, ...]:
    """Return windows of the series that `method` forecasts best, as usual, and worst.

    Series are compared by its MASE over that of `beside`, or as it is where there is none. Series
    without a window or without an error do not count.
    """
    errors = tallies[method].mase_by_series()
    if beside is not None:
        others = tallies[beside].mase_by_series()
        errors = errors / np.where(others > 0, others, np.nan)
    known = np.flatnonzero(np.isfinite(errors) & (origins.counts > 0))
    if not len(known):
        return ()
    order = known[np.argsort(errors[known], kind="stable")]
    if len(order) < len(_KINDS):
        tried = _Tried.of(forecaster, origins, truth, series=int(order[0]), lookback=lookback)
        return tuple(
            tried.example(kind, "window", share)
            for kind, share in zip(_KINDS, (0.0, 0.5, 1.0), strict=True)
        )
    picked = (order[0], order[len(order) // 2], order[-1])
    return tuple(
        _Tried.of(forecaster, origins, truth, series=int(series), lookback=lookback).example(
            kind, "series", 0.5
        )
        for kind, series in zip(_KINDS, picked, strict=True)
    )


@dataclass(frozen=True)
class _Tried:
    """Windows of one series, forecast again."""

    past: Past
    forecast: Forecast
    actual: Values
    error: Doubles
    """`(window,)`: mean absolute error, infinite where there is none."""

    @classmethod
    def of(
        cls, forecaster: Forecaster, origins: Origins, truth: Truth, *, series: int, lookback: int
    ) -> _Tried:
        counts = np.where(np.arange(len(origins.counts)) == series, origins.counts, 0)
        own = replace(origins, counts=counts, every=1).thinned(_MOST_TRIED)
        past = next(own.parts(len(own)))
        past = past.subset(past.share_seen(lookback) > 0)
        forecast = forecaster.predict(past, truth.horizon, QUANTILES)
        actual = truth.after(past)
        off = np.abs(actual - forecast.point).astype(np.float64)
        n_known = np.isfinite(off).sum(1)
        error = np.where(n_known > 0, np.nansum(off, axis=1) / np.maximum(n_known, 1), np.inf)
        return cls(past, forecast, actual, error)

    def example(self, kind: str, of: str, share: float) -> Example:
        """Return the window so far from the best to the worst."""
        known = np.argsort(self.error, kind="stable")[: int(np.isfinite(self.error).sum())]
        place = known[round(share * (len(known) - 1))]
        alone = np.arange(len(self.error)) == place
        return Example(
            kind, of, self.past.subset(alone), self.forecast.subset(alone), self.actual[alone]
        )
