"""Rolling-origin evaluation: forecasts from many cutoffs, the truth, example windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from rnnforecast.config.training import QUANTILES
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.forecast import Forecast, Forecaster
from rnnforecast.data.panel import Panel
from rnnforecast.data.split import Origins
from rnnforecast.data.windows import Past, Values, gather, in_own_units
from rnnforecast.evaluate.baselines import seasonal_differences
from rnnforecast.evaluate.metrics import UNCALIBRATED, Tally, Windows
from rnnforecast.events import Listener, Progressed, ignore
from rnnforecast.parallel import all_say

PART_VALUES = 1 << 22
_MAX_BLOCKS = 200
_MAX_BLOCK_VALUES = 1 << 22
_N_AUDITED = 3
_AUDIT_TOLERANCE = 1e-3
_BLUR = 1e-4
"""A forecast without spread may differ by so much of its level, times the tolerance."""
_SHARES = {"best": 0.0, "typical": 0.5, "worst": 1.0}
"""Where each kind lies, from the best to the worst."""
_MOST_TRIED = 60
"""At most so many windows of a series are forecast again."""
_PART = 10_000
"""So many windows are looked through at a time."""


class LeakageError(Exception):
    """A forecaster has used readings after its cutoff."""


class Sink(Protocol):
    """Where single forecasts go."""

    def write(self, method: str, forecast: Forecast, actual: Values) -> None:
        """Take some windows of one method, and their actuals, `(window, horizon)`."""


@dataclass(frozen=True)
class Truth:
    """What came after the cutoffs: nobody who forecasts holds one."""

    _panel: Panel
    horizon: int

    def after(self, origins: Past) -> Values:
        """Return the readings of each horizon, `(origin, horizon)`; NaN where there is none."""
        first = self._panel.begins(origins.series) + origins.cutoff
        end = self._panel.offsets[origins.series + 1]
        readings = gather(self._panel.target, first, self.horizon, low=first, high=end)
        return in_own_units(readings, origins)

    def fetched(self, series: Sequence[int]) -> Truth:
        """Return that of a few series, which may be elsewhere."""
        return replace(self, _panel=self._panel.fetched(series))


@dataclass(frozen=True)
class Round:
    """Origins, and the forecasters that may have learnt from what lies before the first of them."""

    origins: Origins
    forecasters: Mapping[str, Forecaster]


@dataclass(frozen=True)
class Units:
    """What errors are measured in."""

    season: int
    deviation: Doubles
    """`(series,)`: standard deviation before the train part ends."""


def evaluate(
    rounds: Sequence[Round],
    truth: Truth,
    units: Units,
    *,
    lookback: int,
    sink: Sink | None = None,
    listener: Listener = ignore,
) -> dict[str, Tally]:
    """Score every method on the same origins: those that all methods of a round can forecast.

    What one would be without its calibration is scored, too, as `UNCALIBRATED`. Of ranks each
    scores the origins of the series that it has. Raises `LeakageError` for a forecast that changes
    when later readings are taken away.
    """
    blocks = _Blocks.of(rounds, truth.horizon)
    n_series = len(rounds[0].origins.names)
    tallies = {name: Tally(n_series, truth.horizon, blocks.n) for name in rounds[0].forecasters}
    total, done = sum(len(one.origins) for one in rounds), 0
    size = max(1, PART_VALUES // (lookback + truth.horizon * len(QUANTILES)))
    for one in rounds:
        for part in one.origins.parts(size):
            done += part.n_origins
            forecasts = _forecasts_of(one, part, truth.horizon, lookback)
            if forecasts is None:
                continue
            part, made = forecasts  # noqa: PLW2901
            actual = truth.after(part)
            scale = seasonal_differences(part, units.season).mean_absolute
            deviation, block = units.deviation[part.series], blocks.number_of(part)
            windows = Windows(part.series, scale, deviation, block)
            for name, forecast in made.items():
                tallies[name].add(actual, forecast, windows)
                if forecast.uncalibrated is not None:
                    raw = tallies.setdefault(UNCALIBRATED, tallies[name].empty())
                    raw.add(actual, replace(forecast, values=forecast.uncalibrated), windows)
                if sink is not None:
                    sink.write(name, forecast, actual)
            listener(Progressed("trying origins", done, total))
    listener(Progressed("trying origins", total, total))
    ranks = rounds[0].origins.ranks
    names = dict.fromkeys(name for said in all_say(ranks, list(tallies)) for name in said)
    empty = next(iter(tallies.values())).empty()
    return {name: tallies.get(name, empty).total(ranks) for name in names}


def _forecasts_of(
    one: Round, part: Past, horizon: int, lookback: int
) -> tuple[Past, dict[str, Forecast]] | None:
    """Forecast the origins that every method can; None where there are none."""
    part = part.subset(part.here)
    part = part.subset(part.share_seen(lookback) > 0)
    if not part.n_origins:
        return None
    made = {name: f.predict(part, horizon, QUANTILES) for name, f in one.forecasters.items()}
    for name, forecast in made.items():
        _audit(one.forecasters[name], part, forecast)
    can = np.all([np.isfinite(f.values).all((1, 2)) for f in made.values()], axis=0)
    if can.all():
        return part, made
    if not can.any():
        return None
    return part.subset(can), {name: forecast.subset(can) for name, forecast in made.items()}


def deviations(past: Past) -> Doubles:
    """`(origin,)`: the standard deviation of all that each origin may see; NaN where nothing is."""
    found = np.full(past.n_origins, np.nan)
    for origins, readings in past.tables():
        there = np.isfinite(readings).any(1)
        found[origins[there]] = np.nanstd(readings[there].astype(np.float64), axis=1)
    return past.filled(found)


@dataclass(frozen=True)
class _Blocks:
    """Equal stretches of time, each at least a horizon long: a window reaches into one more."""

    first_us: int
    length_us: int
    n: int

    @classmethod
    def of(cls, rounds: Sequence[Round], horizon: int) -> _Blocks:
        ranges = [r.origins.time_range for r in rounds if len(r.origins)]
        step_us = rounds[0].origins.step_us
        if not ranges:
            return cls(0, step_us, 1)
        first, last = min(r[0] for r in ranges), max(r[1] for r in ranges)
        n_series = len(rounds[0].origins.names)
        at_most = max(1, min(_MAX_BLOCKS, _MAX_BLOCK_VALUES // n_series))
        span = last - first + step_us
        length = max(horizon * step_us, -(-span // at_most))
        return cls(first, length, -(-span // length))

    def number_of(self, part: Past) -> Integers:
        """Return the block that each cutoff lies in, `(origin,)`."""
        return (part.cutoff_time + part.step_us - self.first_us) // self.length_us


def _audit(forecaster: Forecaster, part: Past, forecast: Forecast) -> None:
    """Forecast a few origins again, from panels that end at their cutoffs."""
    for origin in np.unique(np.linspace(0, part.n_origins - 1, _N_AUDITED).astype(int)):
        alone = forecaster.predict(part.alone(int(origin)), forecast.horizon, QUANTILES).values[0]
        values = forecast.values[origin].astype(np.float64)
        if np.isnan(values).any() and np.isnan(alone).any():
            continue
        size = np.ptp(values) + _BLUR * np.abs(values).max()
        if not np.allclose(alone, values, rtol=0, atol=_AUDIT_TOLERANCE * size):
            raise LeakageError(
                f"the forecast of {forecast.names[origin]!r} changes when the readings after its "
                "cutoff are taken away"
            )


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
