"""Rolling-origin evaluation: what forecasters say at many origins, against what came.

Past and truth are separate objects: forecasters get a `Past`, which cannot return a later reading,
and the truth stays here. Because a private field can always be reached, a few forecasts are made
again from a table that ends at their cutoff, and must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from rnnforecast.config import QUANTILES
from rnnforecast.data.forecast import Forecast, Forecaster
from rnnforecast.data.origins import Origins
from rnnforecast.data.panel import Doubles, Integers, Panel
from rnnforecast.data.past import Past, Values, in_own_units
from rnnforecast.data.ranks import all_say
from rnnforecast.data.windows import gather
from rnnforecast.evaluate.baselines import seasonal_differences
from rnnforecast.evaluate.tally import UNCALIBRATED, Tally, Windows
from rnnforecast.events import Listener, Progressed, ignore

PART_VALUES = 1 << 22
_MAX_BLOCKS = 200
_MAX_BLOCK_VALUES = 1 << 22
_N_AUDITED = 3
_AUDIT_TOLERANCE = 1e-3
_BLUR = 1e-4
"""A forecast without spread may differ by so much of its level, times the tolerance."""


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
