"""Rolling-origin evaluation: forecasts from many cutoffs, the truth, example windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.forecast import Forecast, Forecaster
from rnnforecast.data.limits import Limits, with_limits
from rnnforecast.data.panel import Panel
from rnnforecast.data.split import Origins
from rnnforecast.data.windows import Past, Values, add_base, gather
from rnnforecast.evaluate.baselines import seasonal_differences
from rnnforecast.evaluate.comparison import NETWORK
from rnnforecast.evaluate.metrics import UNCALIBRATED, MetricAccumulator, WindowContext
from rnnforecast.events import Listener, ProgressEvent, ignore
from rnnforecast.parallel import all_gather_object
from rnnforecast.spec import QUANTILES

PART_VALUES = 1 << 22
"""Values, of look-backs and quantiles, that are held at a time."""
_MAX_BLOCKS = 200
_MAX_BLOCK_VALUES = 1 << 22
"""Time blocks times series: sums are kept for each pair."""
_N_AUDITED = 3
"""Origins of each part that are forecast again without the readings after their cutoff."""
_AUDIT_TOLERANCE = 1e-3
_BLUR = 1e-4
"""Share of its level by which a forecast without spread may differ, times the tolerance."""
_POSITIONS = {"best": 0.0, "typical": 0.5, "worst": 1.0}
"""Position of each kind of example in the order from the best to the worst."""
_MAX_CANDIDATES = 60
"""Windows of a series that are forecast again to choose an example."""
_CANDIDATE_PART = 10_000
"""Windows that are checked for readings at a time."""


class LeakageError(Exception):
    """A forecaster has used readings after its cutoff."""


class Sink(Protocol):
    """Takes the single forecasts of a backtest."""

    def write(self, method: str, forecast: Forecast, actual: Values) -> None:
        """Write some windows of one method, and their actuals, `(window, horizon)`."""


@dataclass(frozen=True)
class Truth:
    """The readings after the cutoffs. No forecaster gets it."""

    _panel: Panel
    horizon: int

    def after(self, origins: Past) -> Values:
        """Return the readings of each horizon, `(origin, horizon)`; NaN where there is none."""
        first = self._panel.begins(origins.series) + origins.cutoff
        end = self._panel.offsets[origins.series + 1]
        readings = gather(self._panel.target, first, self.horizon, low=first, high=end)
        return add_base(readings, origins)

    def gather_from_ranks(self, series: Sequence[int]) -> Truth:
        """Return the truth of a few series, whose readings other ranks may hold."""
        return replace(self, _panel=self._panel.gather_from_ranks(series))


@dataclass(frozen=True)
class Round:
    """Origins, and forecasters that were trained on readings before the first of them at most."""

    origins: Origins
    forecasters: Mapping[str, Forecaster]

    @classmethod
    def limited(
        cls, origins: Origins, forecasters: Mapping[str, Forecaster], limits: Limits | None
    ) -> Round:
        """Return a round in which all methods stay inside of the limits that readings rest on."""
        return cls(origins, {name: with_limits(f, limits) for name, f in forecasters.items()})


@dataclass(frozen=True)
class ErrorUnits:
    """Units that errors are measured in."""

    season: int
    deviation: Doubles
    """`(series,)`: standard deviation before the train part ends."""


def evaluate(
    rounds: Sequence[Round],
    truth: Truth,
    units: ErrorUnits,
    *,
    lookback: int,
    sink: Sink | None = None,
    listener: Listener = ignore,
) -> dict[str, MetricAccumulator]:
    """Score every method on the same origins: those that all methods of a round can forecast.

    A calibrated network is also scored without its calibration, as `UNCALIBRATED`. Each rank scores
    the origins of the series that it holds. Raises `LeakageError` for a forecast that changes when
    later readings are taken away.
    """
    n_series = len(rounds[0].origins.names)
    blocks = _TimeBlocks.of(rounds, truth.horizon)
    sums = {
        name: MetricAccumulator(n_series, truth.horizon, blocks.n) for name in rounds[0].forecasters
    }
    n_total, n_done = sum(len(round_.origins) for round_ in rounds), 0
    part_size = max(1, PART_VALUES // (lookback + truth.horizon * len(QUANTILES)))

    for round_ in rounds:
        for part in round_.origins.parts(part_size):
            n_done += part.n_origins
            past, forecasts = _forecast_part(round_, part, truth.horizon, lookback)
            if not forecasts:
                continue
            actual = truth.after(past)
            windows = WindowContext(
                past.series,
                scale=seasonal_differences(past, units.season).mean_absolute,
                deviation=units.deviation[past.series],
                block=blocks.number_of(past),
            )
            for name, forecast in forecasts.items():
                sums[name].add(actual, forecast, windows)
                if name == NETWORK and forecast.uncalibrated is not None:
                    raw = sums.setdefault(UNCALIBRATED, sums[name].empty())
                    raw.add(actual, replace(forecast, values=forecast.uncalibrated), windows)
                if sink is not None:
                    sink.write(name, forecast, actual)
            listener(ProgressEvent("trying origins", n_done, n_total))
    listener(ProgressEvent("trying origins", n_total, n_total))

    # a rank without origins does not know which methods were scored uncalibrated
    ranks = rounds[0].origins.ranks
    methods = dict.fromkeys(
        name for names in all_gather_object(ranks, list(sums)) for name in names
    )
    empty = next(iter(sums.values())).empty()
    return {name: sums.get(name, empty).all_reduce(ranks) for name in methods}


def _forecast_part(
    round_: Round, part: Past, horizon: int, lookback: int
) -> tuple[Past, dict[str, Forecast]]:
    """Forecast the origins that every method can; return these origins too."""
    part = part.subset(part.is_local)
    part = part.subset(part.observed_share(lookback) > 0)
    if not part.n_origins:
        return part, {}

    methods = round_.forecasters
    forecasts = {name: f.predict(part, horizon, QUANTILES) for name, f in methods.items()}
    for name, forecast in forecasts.items():
        _audit(methods[name], part, forecast)

    is_forecast = np.all([np.isfinite(f.values).all((1, 2)) for f in forecasts.values()], axis=0)
    if is_forecast.all():
        return part, forecasts
    if not is_forecast.any():
        return part, {}
    part = part.subset(is_forecast)
    return part, {name: forecast.subset(is_forecast) for name, forecast in forecasts.items()}


def _audit(forecaster: Forecaster, part: Past, forecast: Forecast) -> None:
    """Forecast a few origins again, from panels that end at their cutoffs.

    A `Past` hands out no later reading, but private fields are a convention only.
    """
    for origin in np.unique(np.linspace(0, part.n_origins - 1, _N_AUDITED).astype(int)):
        cut_off = part.alone(int(origin))
        again = forecaster.predict(cut_off, forecast.horizon, QUANTILES).values[0]
        values = forecast.values[origin].astype(np.float64)
        if np.isnan(values).any() and np.isnan(again).any():
            continue
        size = np.ptp(values) + _BLUR * np.abs(values).max()
        if not np.allclose(again, values, rtol=0, atol=_AUDIT_TOLERANCE * size):
            raise LeakageError(
                f"the forecast of {forecast.names[origin]!r} changes when the readings after its "
                "cutoff are taken away"
            )


def deviations(past: Past) -> Doubles:
    """`(origin,)`: standard deviation of all readings before each cutoff; NaN without readings."""
    result = np.full(past.n_origins, np.nan)
    for origins, readings in past.tables():
        has_readings = np.isfinite(readings).any(1)
        values = readings[has_readings].astype(np.float64)
        result[origins[has_readings]] = np.nanstd(values, axis=1)
    return past.filled(result)


@dataclass(frozen=True)
class _TimeBlocks:
    """Equal blocks of time, each at least a horizon long: a window reaches into one more."""

    first_us: int
    length_us: int
    n: int

    @classmethod
    def of(cls, rounds: Sequence[Round], horizon: int) -> _TimeBlocks:
        ranges = [round_.origins.time_range for round_ in rounds if len(round_.origins)]
        step_us = rounds[0].origins.step_us
        if not ranges:
            return cls(0, step_us, 1)

        first, last = min(r[0] for r in ranges), max(r[1] for r in ranges)
        n_series = len(rounds[0].origins.names)
        max_blocks = max(1, min(_MAX_BLOCKS, _MAX_BLOCK_VALUES // n_series))
        span = last - first + step_us
        length = max(horizon * step_us, -(-span // max_blocks))
        return cls(first, length, -(-span // length))

    def number_of(self, past: Past) -> Integers:
        """Return the block that each cutoff lies in, `(origin,)`."""
        return (past.cutoff_time + past.step_us - self.first_us) // self.length_us


@dataclass(frozen=True)
class Example:
    """One window: its history, its forecast and the actuals."""

    kind: str
    """best, typical or worst."""
    of: str
    """What it is the best or the worst of: series or window."""
    past: Past
    """One origin."""
    forecast: Forecast
    actual: Values
    """`(1, horizon)`."""


def select_examples(
    forecaster: Forecaster,
    origins: Origins,
    truth: Truth,
    sums: Mapping[str, MetricAccumulator],
    *,
    method: str,
    baseline: str | None,
    lookback: int,
) -> tuple[Example, ...]:
    """Return windows of the series that `method` forecasts best, typically and worst.

    Series are ranked by their MASE over that of the baseline, or by their MASE without a baseline.
    Of less than three series they are the best, a typical and the worst window of one.
    Series without an error do not count, nor windows without a reading in look-back or horizon.
    """
    errors = sums[method].mase_by_series()
    if baseline is not None:
        baseline_errors = sums[baseline].mase_by_series()
        errors = errors / np.where(baseline_errors > 0, baseline_errors, np.nan)
    known = np.flatnonzero(np.isfinite(errors) & (origins.counts > 0))
    if not len(known):
        return ()

    # (kind, subject, series, position of the window in the order of the series' windows)
    ranked = known[np.argsort(errors[known], kind="stable")]
    if len(ranked) < len(_POSITIONS):
        choices = [(kind, "window", int(ranked[0]), at) for kind, at in _POSITIONS.items()]
    else:
        choices = [
            (kind, "series", int(ranked[round(at * (len(ranked) - 1))]), 0.5)
            for kind, at in _POSITIONS.items()
        ]

    chosen = sorted({series for _, _, series, _ in choices})
    origins, truth = origins.gather_from_ranks(chosen), truth.gather_from_ranks(chosen)
    candidates = {s: _Candidates.of(forecaster, origins, truth, s, lookback) for s in chosen}
    return tuple(
        of_series.example(kind, subject, position)
        for kind, subject, series, position in choices
        if (of_series := candidates[series]) is not None
    )


@dataclass(frozen=True)
class _Candidates:
    """Windows of one series with readings in look-back and horizon, evenly spread."""

    past: Past
    forecast: Forecast
    actual: Values
    error: Doubles
    """`(window,)`: mean absolute error."""

    @classmethod
    def of(
        cls, forecaster: Forecaster, origins: Origins, truth: Truth, series: int, lookback: int
    ) -> _Candidates | None:
        """Forecast the windows of a series again; None where none has readings and a forecast."""
        counts = np.where(np.arange(len(origins.counts)) == series, origins.counts, 0)
        of_series = replace(origins, counts=counts, every=1)
        is_usable = [
            (part.observed_share(lookback) > 0) & np.isfinite(truth.after(part)).any(1)
            for part in of_series.parts(_CANDIDATE_PART)
        ]
        usable = np.flatnonzero(np.concatenate(is_usable))
        if not len(usable):
            return None

        (past,) = of_series.parts(len(of_series))
        past = past.subset(usable[:: max(1, -(-len(usable) // _MAX_CANDIDATES))])
        forecast = forecaster.predict(past, truth.horizon, QUANTILES)
        is_forecast = np.asarray(np.isfinite(forecast.values).all((1, 2)))
        if not is_forecast.any():
            return None
        past, forecast = past.subset(is_forecast), forecast.subset(is_forecast)
        actual = truth.after(past)
        error: Doubles = np.nanmean(np.abs(actual - forecast.point).astype(np.float64), axis=1)
        return cls(past, forecast, actual, error)

    def example(self, kind: str, subject: str, position: float) -> Example:
        """Return the window at a position, 0 to 1, in the order from the best to the worst."""
        order = np.argsort(self.error, kind="stable")
        number = order[round(position * (len(order) - 1))]
        window = np.arange(len(order)) == number
        return Example(
            kind,
            subject,
            self.past.subset(window),
            self.forecast.subset(window),
            self.actual[window],
        )
