"""Post-processing of forecasts: fallbacks, bounds, exceedance probabilities."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.arrays import HALF_TURN, Doubles, take_names
from rnnforecast.data.forecast import Forecast, Forecaster, probability_below
from rnnforecast.data.windows import MIN_OBSERVED_SHARE, Past, Values
from rnnforecast.errors import UsageError
from rnnforecast.evaluate.baselines import SeasonalNaive, naive, seasonal_differences
from rnnforecast.evaluate.comparison import NETWORK
from rnnforecast.events import Listener, WarningEvent
from rnnforecast.tables.schema import target_of

_SHORT = "fewer than half of {} readings available"
_LATELY = 4
"""Newest rows in which half of the least history is asked for, as a multiple of it."""
_LIKELY = 0.5
"""Probability above which an exceedance is more likely than not."""
Range = tuple[float, float]


@dataclass(frozen=True)
class FallbackForecast:
    """A forecast, and the series that have none or a degraded one."""

    forecast: Forecast
    left_out: tuple[str, ...]
    """Series without a forecast: no method has readings to start from."""
    short_history: tuple[str, ...]
    """Series that the network forecasts from less than half of the least history."""
    fallback: tuple[str, ...]
    """Series that a fallback forecasts: the forecast's `source` names it."""
    past: Past
    """The readings that the forecast was made from, in the order of its series."""


@dataclass(frozen=True)
class Fallback:
    """When a network's forecast is used, and what replaces it where it is not."""

    lookback: int
    least_history: int
    """Rows of which half should have been read lately."""
    season: int
    methods: tuple[str, ...] = ()
    """Names of methods, of which the first that can forecast a series is used; a series that
    none can forecast is left out."""
    max_gap: int | None = None
    """The most rows of a look-back that may be missing in a row."""

    def lacks_history(self, past: Past) -> NDArray[np.bool_]:
        """`(origin,)`: whether an origin has too few readings for the network.

        With methods to fall back to, less than half of `least_history` is too little; without,
        only an empty look-back. A gap longer than `max_gap` is too long in both cases.
        """
        lacks: NDArray[np.bool_] = past.observed_share(self.lookback) == 0
        if self.methods:
            lacks = lacks | self.is_short(past)
        if self.max_gap is not None:
            lacks = lacks | (past.longest_gap(self.lookback) > self.max_gap)
        return lacks

    def is_short(self, past: Past) -> NDArray[np.bool_]:
        """`(origin,)`: whether less than half of `least_history` was read lately.

        That may be a while ago: an outage is no reason to forecast less well.
        """
        n_rows = min(self.lookback, _LATELY * self.least_history)
        n_read = past.observed_share(n_rows) * n_rows
        is_short: NDArray[np.bool_] = n_read < MIN_OBSERVED_SHARE * self.least_history
        return is_short


def predict_with_fallback(
    network: Forecaster,
    past: Past,
    horizon: int,
    quantiles: Sequence[float],
    rule: Fallback,
    *,
    unknown: NDArray[np.bool_] | None = None,
    extra_forecasters: Mapping[str, Forecaster] | None = None,
) -> FallbackForecast:
    """Forecast every origin by the network, or by the first fallback that can.

    Origins that are not forecast are left out. The network's forecast is not used where it is not
    finite, where history is lacking, nor where covariates ahead are `unknown`, `(origin,)`.
    `extra_forecasters` are the fallbacks that are no naive method, by name.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # readings that float32 cannot square
        forecast = network.predict(past, horizon, quantiles)
    is_short = rule.is_short(past)
    lacks = rule.lacks_history(past)
    if unknown is not None:
        lacks = lacks | unknown
    lacks = lacks | ~np.isfinite(forecast.values).all((1, 2))

    values = np.where(lacks[:, None, None], np.float32(np.nan), forecast.values)
    forecast = replace(forecast, values=values)
    if rule.methods:
        methods = {
            "naive": naive(),
            "seasonal-naive": SeasonalNaive(rule.season),
            **(extra_forecasters or {}),
        }
        forecast = _fill(forecast, past, {name: methods[name] for name in rule.methods})

    is_forecast = np.asarray(np.isfinite(forecast.values).all((1, 2)))
    names = forecast.names
    return FallbackForecast(
        forecast.subset(is_forecast),
        left_out=take_names(names, ~is_forecast),
        short_history=take_names(names, is_short & is_forecast & ~lacks),
        fallback=take_names(names, lacks & is_forecast),
        past=past.subset(is_forecast),
    )


def _fill(forecast: Forecast, past: Past, methods: Mapping[str, Forecaster]) -> Forecast:
    """Replace the origins whose forecast is NaN by the first method that can forecast them.

    A method needs two readings, from which it has the width of its band; the seasonal one needs
    them a season apart. An origin that no method can forecast stays NaN. `source` names the method
    of each origin.
    """
    values = forecast.values.copy()
    source = np.zeros(past.n_origins, np.int64)
    for number, method in enumerate(methods.values(), start=1):
        missing = np.flatnonzero(np.isnan(values).any((1, 2)))
        if not len(missing):
            break
        part = past.subset(missing)
        fallback = method.predict(part, forecast.horizon, forecast.quantiles)
        season = method.season if isinstance(method, SeasonalNaive) else 1
        has_band = np.isfinite(seasonal_differences(part, season).mean_square)
        usable = has_band & np.isfinite(fallback.values).all((1, 2))
        values[missing[usable]] = fallback.values[usable]
        source[missing[usable]] = number

    names = (NETWORK, *(name.replace("-", "_") for name in methods))
    return replace(forecast, values=values, source=take_names(names, source))


def warnings_of(result: FallbackForecast, *, least_history: int) -> list[WarningEvent]:
    """Return a warning for each kind of degraded series that there is."""
    kinds = {
        "left-out": (result.left_out, "too few readings to forecast, skipped"),
        "short-history": (result.short_history, _SHORT.format(least_history)),
        "fallback": (result.fallback, "forecast by a fallback method"),
    }
    return [
        WarningEvent.for_names(code, text, names) for code, (names, text) in kinds.items() if names
    ]


def warn_of_short_history(past: Past, listener: Listener, rule: Fallback) -> None:
    """Warn of series that a network would forecast from a short history, or not at all."""
    lacks = past.observed_share(rule.lookback) == 0
    for code, text, is_affected in (
        ("left-out", "no readings to forecast from", lacks),
        ("short-history", _SHORT.format(rule.least_history), rule.is_short(past) & ~lacks),
    ):
        names = take_names(past.names, is_affected)
        if names:
            listener(WarningEvent.for_names(code, text, names))


@dataclass(frozen=True)
class Exceedance:
    """When a series is likely above its limit."""

    series: str
    limit: float
    first: str | None
    """The first time at which that is more likely than not; None where it never is."""
    highest: float
    """The highest probability."""
    at: str
    """The time of the highest probability."""


def wrap_directions(
    forecast: Forecast,
    angles: Collection[str],
    targets: tuple[str, ...] = (),
    *,
    signed: Collection[str] = (),
) -> Forecast:
    """Return the forecast with medians of directions from 0 to 360 degrees, or -180 to 180.

    `angles` are series, or of the `targets` of a long table, and so are the `signed` ones of them,
    which go from -180. Quantiles move with their median, so that they do not cross: around north
    they may be below 0, or above 360.
    """
    if not angles:
        return forecast

    def is_of(chosen: Collection[str]) -> NDArray[np.bool_]:
        whole = [target for target in targets if target in chosen]
        return np.array(
            [
                name in chosen
                or (len(targets) == len(whole) > 0)
                or any(name.endswith(f"/{target}") for target in whole)
                for name in forecast.names
            ],
            np.bool_,
        )

    is_angle, low = is_of(angles), np.where(is_of(signed), -HALF_TURN, 0.0)
    if not is_angle.any():
        return forecast
    turns = np.floor((forecast.point - low[:, None]) / (2 * HALF_TURN)) * is_angle[:, None]

    def turned(values: Values) -> Values:
        moved: Values = (values - 2 * HALF_TURN * turns[:, :, None]).astype(values.dtype)
        return moved

    return forecast.apply(turned)


def clip_to_bounds(
    forecast: Forecast,
    bounds: Mapping[str, Range],
    targets: tuple[str, ...] = (),
    default: tuple[Doubles, Doubles] | None = None,
) -> Forecast:
    """Return the forecast with all quantiles clipped to the bounds of their series.

    `targets` are names that stand for all series of a long table's column. `default`, `(origin,)`
    each, are the lower and upper bounds of series that are not named. Raises `UsageError` for a
    name that is neither.
    """
    if not bounds and default is None:
        return forecast
    low, high = (x[:, None, None] for x in _limits(forecast, bounds, targets, default))
    return replace(
        forecast, values=np.clip(forecast.values, low, high, dtype=forecast.values.dtype)
    )


def is_outside_bounds(
    forecast: Forecast, past: Past, bounds: Mapping[str, Range], targets: tuple[str, ...] = ()
) -> NDArray[np.bool_]:
    """`(origin,)`: whether the newest reading lies outside of its bounds.

    `past` has the same origins as the forecast. Raises as `clip_to_bounds` does.
    """
    low, high = _limits(forecast, bounds, targets)
    newest = past.history(1)[:, 0] + past.base
    return (newest < low) | (newest > high)


def add_exceedance(
    forecast: Forecast,
    limits: Mapping[str, float],
    bounds: Mapping[str, Range],
    targets: tuple[str, ...] = (),
    default: tuple[Doubles, Doubles] | None = None,
) -> tuple[Forecast, tuple[Exceedance, ...]]:
    """Add the probability that each reading is above its series' limit; NaN without a limit.

    The forecast should hold all trained quantiles, within the bounds, which are those of
    `clip_to_bounds`. The probability is 0 for a limit at the upper bound or above, and 1 for one
    below the lower bound.
    """
    if not limits:
        return forecast, ()

    probabilities = np.full(forecast.values.shape[:2], np.nan)
    limit_of = np.full(len(forecast.names), np.nan)
    for name, limit in limits.items():
        rows = _rows_named(forecast, name, targets, option="exceed")
        limit_of[rows] = limit
        below = probability_below(forecast.values[rows], forecast.quantiles, limit)
        probabilities[rows] = 1 - below
    low, high = _limits(forecast, bounds, targets, default)
    probabilities[limit_of >= high] = 0.0
    probabilities[limit_of < low] = 1.0

    forecast = replace(forecast, p_exceed=probabilities)
    exceedances = []
    for row in np.flatnonzero(np.isfinite(limit_of)):
        likely = np.flatnonzero(probabilities[row] > _LIKELY)
        times = [forecast.axis.format(int(us)) for us in forecast.times_us[row]]
        peak = int(np.argmax(probabilities[row]))
        exceedances.append(
            Exceedance(
                forecast.names[row],
                float(limit_of[row]),
                times[likely[0]] if len(likely) else None,
                float(probabilities[row, peak]),
                times[peak],
            )
        )
    return forecast, tuple(exceedances)


def _limits(
    forecast: Forecast,
    bounds: Mapping[str, Range],
    targets: tuple[str, ...],
    default: tuple[Doubles, Doubles] | None = None,
) -> tuple[Doubles, Doubles]:
    """Return the lower and upper bound of each series, `(origin,)`; infinite without bounds."""
    low, high = np.full(len(forecast.names), -np.inf), np.full(len(forecast.names), np.inf)
    if default is not None:
        low, high = (bound.copy() for bound in default)
    for name, (lower, upper) in bounds.items():
        rows = _rows_named(forecast, name, targets, option="bounds")
        low[rows], high[rows] = lower, upper
    return low, high


def _rows_named(
    forecast: Forecast, name: str, targets: tuple[str, ...], *, option: str
) -> NDArray[np.bool_]:
    """`(origin,)`: whether a name means the series. Raises `UsageError` for one that means none."""
    if name in forecast.names:
        return np.array([series == name for series in forecast.names])
    if name in targets:
        is_only = len(targets) == 1
        return np.array(
            [is_only or target_of(series, targets) == name for series in forecast.names]
        )
    known = (*targets, *dict.fromkeys(forecast.names))
    nearest = get_close_matches(name, known, n=1)
    raise UsageError(
        f"--{option} names {name!r}, but it is not forecast",
        hint=f"did you mean {nearest[0]!r}?" if nearest else f"use e.g. {known[0]!r}",
    )
