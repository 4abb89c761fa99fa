"""Forecasts within the limits of what is measured, and how likely a reading goes above one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.forecast import Forecast
from rnnforecast.data.panel import Doubles
from rnnforecast.data.past import Past
from rnnforecast.data.quantiles import share_below
from rnnforecast.data.stamps import format_stamp
from rnnforecast.errors import UsageError

_HALF = 0.5

Range = tuple[float, float]


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
    """When it is that high."""


def within(
    forecast: Forecast, bounds: Mapping[str, Range], targets: tuple[str, ...] = ()
) -> Forecast:
    """Return the forecast with all its quantiles inside the bounds of their series.

    `targets` are names that stand for all series: a long table's column. Raises `UsageError` for a
    name that is neither.
    """
    if not bounds:
        return forecast
    low, high = (x[:, None, None] for x in _ends(forecast, bounds, targets))
    return replace(
        forecast, values=np.clip(forecast.values, low, high, dtype=forecast.values.dtype)
    )


def outside(
    forecast: Forecast, past: Past, bounds: Mapping[str, Range], targets: tuple[str, ...] = ()
) -> NDArray[np.bool_]:
    """`(origin,)`: whose newest reading lies outside of its bounds; raises as `within` does.

    `past` has the same origins as the forecast.
    """
    low, high = _ends(forecast, bounds, targets)
    newest = past.history(1)[:, 0] + past.base
    return (newest < low) | (newest > high)


def _ends(
    forecast: Forecast, bounds: Mapping[str, Range], targets: tuple[str, ...]
) -> tuple[Doubles, Doubles]:
    """Return the lowest and the highest value of each series, `(origin,)`, infinite where free."""
    low, high = np.full(len(forecast.names), -np.inf), np.full(len(forecast.names), np.inf)
    for name, ends in bounds.items():
        own = _named(forecast, name, targets, option="bounds")
        low[own], high[own] = ends
    return low, high


def exceeding(
    forecast: Forecast,
    limits: Mapping[str, float],
    bounds: Mapping[str, Range],
    targets: tuple[str, ...] = (),
) -> tuple[Forecast, tuple[Exceedance, ...]]:
    """Add the probability that each reading is above its series' limit; NaN where there is none.

    The forecast should hold all trained quantiles, within the bounds: above one nothing can be.
    """
    if not limits:
        return forecast, ()
    chances = np.full(forecast.values.shape[:2], np.nan)
    limit_of = np.full(len(forecast.names), np.nan)
    for name, limit in limits.items():
        own = _named(forecast, name, targets, option="exceed")
        limit_of[own] = limit
        chances[own] = 1 - share_below(forecast.values[own], forecast.quantiles, limit)
    low, high = _ends(forecast, bounds, targets)
    chances[limit_of >= high] = 0.0
    chances[limit_of < low] = 1.0
    found = replace(forecast, p_exceed=chances)
    limited = np.flatnonzero(np.isfinite(limit_of))
    return found, tuple(_exceedance(found, int(i), float(limit_of[i])) for i in limited)


def _exceedance(forecast: Forecast, origin: int, limit: float) -> Exceedance:
    assert forecast.p_exceed is not None
    chances = forecast.p_exceed[origin]
    above = np.flatnonzero(chances > _HALF)
    stamps = [format_stamp(int(us), forecast.tz) for us in forecast.times_us[origin]]
    most = int(np.argmax(chances))
    first = stamps[above[0]] if len(above) else None
    return Exceedance(forecast.names[origin], limit, first, float(chances[most]), stamps[most])


def _named(
    forecast: Forecast, name: str, targets: tuple[str, ...], *, option: str
) -> NDArray[np.bool_]:
    """`(origin,)`: which series a name means. Raises `UsageError` for one that means none."""
    if name in forecast.names:
        return np.array([one == name for one in forecast.names])
    if name in targets:
        return np.ones(len(forecast.names), bool)
    known = (*targets, *dict.fromkeys(forecast.names))
    near = get_close_matches(name, known, n=1)
    raise UsageError(
        f"--{option} names {name!r}, which is not forecast",
        hint=f"the nearest is {near[0]!r}" if near else f"such as {known[0]!r}",
    )
