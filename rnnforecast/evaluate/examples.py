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

_SHARES = {"best": 0.0, "typical": 0.5, "worst": 1.0}
"""Where each kind lies, from the best to the worst."""
_MOST_TRIED = 60
"""At most so many windows of a series are forecast again."""
_PART = 10_000
"""So many windows are looked through at a time."""


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
    without an error do not count, nor windows in which nothing was seen or nothing came.
    """
    errors = tallies[method].mase_by_series()
    if beside is not None:
        others = tallies[beside].mase_by_series()
        errors = errors / np.where(others > 0, others, np.nan)
    known = np.flatnonzero(np.isfinite(errors) & (origins.counts > 0))
    if not len(known):
        return ()
    order = known[np.argsort(errors[known], kind="stable")]
    if len(order) < len(_SHARES):
        wanted = [(kind, "window", int(order[0]), share) for kind, share in _SHARES.items()]
    else:
        wanted = [
            (kind, "series", int(order[round(share * (len(order) - 1))]), 0.5)
            for kind, share in _SHARES.items()
        ]
    chosen = sorted({series for _, _, series, _ in wanted})
    origins, truth = origins.fetched(chosen), truth.fetched(chosen)
    tried = {
        series: _Tried.of(forecaster, past, truth)
        for series in chosen
        if (past := _told(origins, truth, series, lookback)).series.size
    }
    return tuple(
        tried[series].example(kind, of, share)
        for kind, of, series, share in wanted
        if series in tried
    )


def _told(origins: Origins, truth: Truth, series: int, lookback: int) -> Past:
    """Return windows of a series in which something was seen and something came, evenly spread."""
    counts = np.where(np.arange(len(origins.counts)) == series, origins.counts, 0)
    own = replace(origins, counts=counts, every=1)
    told = [
        (part.share_seen(lookback) > 0) & np.isfinite(truth.after(part)).any(1)
        for part in own.parts(_PART)
    ]
    number = np.flatnonzero(np.concatenate(told))
    (every,) = own.parts(len(own))
    return every.subset(number[:: max(1, -(-len(number) // _MOST_TRIED))])


@dataclass(frozen=True)
class _Tried:
    """Windows of one series, forecast again."""

    past: Past
    forecast: Forecast
    actual: Values
    error: Doubles
    """`(window,)`: mean absolute error."""

    @classmethod
    def of(cls, forecaster: Forecaster, past: Past, truth: Truth) -> _Tried:
        forecast = forecaster.predict(past, truth.horizon, QUANTILES)
        actual = truth.after(past)
        error: Doubles = np.nanmean(np.abs(actual - forecast.point).astype(np.float64), axis=1)
        return cls(past, forecast, actual, error)

    def example(self, kind: str, of: str, share: float) -> Example:
        """Return the window so far from the best to the worst."""
        order = np.argsort(self.error, kind="stable")
        place = order[round(share * (len(order) - 1))]
        alone = np.arange(len(order)) == place
        return Example(
            kind, of, self.past.subset(alone), self.forecast.subset(alone), self.actual[alone]
        )
