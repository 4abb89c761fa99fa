"""What happens to a forecast before it is written: fallbacks, bounds, exceedance probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, pick
from rnnforecast.data.forecast import Forecast, Forecaster, share_below
from rnnforecast.data.timestamps import format_stamp
from rnnforecast.data.windows import SEEN_SHARE, Past
from rnnforecast.errors import UsageError
from rnnforecast.evaluate.baselines import SeasonalNaive, naive, seasonal_differences
from rnnforecast.evaluate.comparison import NETWORK
from rnnforecast.events import Listener, Warned

_SHORT = "less than half of {} readings to go by"
_HALF = 0.5
Range = tuple[float, float]


@dataclass(frozen=True)
class Prediction:
    """A forecast, and which series are not in it or did not get what they should have."""

    forecast: Forecast
    left_out: tuple[str, ...]
    """Without a forecast: no method has anything to go by."""
    shortened: tuple[str, ...]
    """Forecast by the network from less than half of a look-back."""
    replaced: tuple[str, ...]
    """Forecast by a fallback, as the forecast's `source` says."""
    past: Past
    """What was seen of the series that are forecast, in their order."""
    exceedances: tuple[Exceedance, ...] = ()
    """When series with a limit are likely above it."""
    warnings: tuple[Warned, ...] = ()

    def to_arrow(self, quantiles: Sequence[float] | None = None) -> pa.Table:
        """Return the forecast's rows: see `Forecast.to_arrow`."""
        return self.forecast.to_arrow(quantiles)

    def to_pandas(self, quantiles: Sequence[float] | None = None) -> pd.DataFrame:
        """Return the same as a pandas table."""
        return self.forecast.to_pandas(quantiles)

    @property
    def n_degraded(self) -> int:
        """How many series did not get the forecast that they should have."""
        return len(self.left_out) + len(self.shortened) + len(self.replaced)

    @property
    def is_partial(self) -> bool:
        """Whether there are any."""
        return self.n_degraded > 0


@dataclass(frozen=True)
class Fallback:
    """When a network's forecast counts, and what stands in for it where it does not."""

    lookback: int
    season: int
    methods: tuple[str, ...] = ()
    """Names of naive methods, the first that can forecast a series; none: it is left out."""
    max_gap: int | None = None
    """So many rows of a look-back may be missing in a row."""

    def lacks_history(self, past: Past) -> NDArray[np.bool_]:
        """`(origin,)`: which origins show too little for the network.

        Where methods stand by, that is less than half of a look-back; else the network does what it
        can, and only an empty look-back is too little, or one with a longer gap.
        """
        seen = past.share_seen(self.lookback)
        lacking: NDArray[np.bool_] = seen < SEEN_SHARE if self.methods else seen == 0
        if self.max_gap is not None:
            lacking = lacking | (past.longest_gap(self.lookback) > self.max_gap)
        return lacking


def predict_or_fall_back(
    network: Forecaster,
    past: Past,
    horizon: int,
    quantiles: Sequence[float],
    rule: Fallback,
    *,
    unknown: NDArray[np.bool_] | None = None,
) -> Prediction:
    """Forecast every origin that can be; the network gives no numbers for those that it cannot.

    Nor does it count for those, `(origin,)`, of which something ahead is `unknown` to it.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # readings that float32 cannot square
        forecast = network.predict(past, horizon, quantiles)
    short = past.share_seen(rule.lookback) < SEEN_SHARE
    lacking = rule.lacks_history(past)
    if unknown is not None:
        lacking = lacking | unknown
    lacking = lacking | ~np.isfinite(forecast.values).all((1, 2))
    values = np.where(lacking[:, None, None], np.float32(np.nan), forecast.values)
    forecast = replace(forecast, values=values)
    if rule.methods:
        forecast = _fill(forecast, past, rule.methods, season=rule.season)
    kept = np.asarray(np.isfinite(forecast.values).all((1, 2)))
    names = forecast.names
    return Prediction(
        forecast.subset(kept),
        left_out=pick(names, ~kept),
        shortened=pick(names, short & kept & ~lacking),
        replaced=pick(names, lacking & kept),
        past=past.subset(kept),
    )


def warnings_of(prediction: Prediction, *, lookback: int) -> list[Warned]:
    """Say what is not as it should be, a warning for each kind."""
    kinds = {
        "left-out": (prediction.left_out, "too little to forecast from, left out"),
        "shortened": (prediction.shortened, _SHORT.format(lookback)),
        "fallback": (prediction.replaced, "forecast by a fallback"),
    }
    return [Warned.naming(code, what, names) for code, (names, what) in kinds.items() if names]


def warn_of_short(past: Past, listener: Listener, *, lookback: int) -> None:
    """Say which series a network would forecast from a shortened history, or not at all."""
    seen = past.share_seen(lookback)
    for code, what, which in (
        ("left-out", "no reading to forecast from", seen == 0),
        ("shortened", _SHORT.format(lookback), (seen > 0) & (seen < SEEN_SHARE)),
    ):
        names = pick(past.names, which)
        if names:
            listener(Warned.naming(code, what, names))


def _fill(forecast: Forecast, past: Past, methods: tuple[str, ...], *, season: int) -> Forecast:
    """Replace the origins whose forecast is NaN by the first method that can forecast them.

    A method needs a past that shows how wide its band is: two readings a season apart. One that no
    method can forecast keeps NaN. `source` names the method of each origin.
    """
    values = forecast.values.copy()
    source = np.zeros(past.n_origins, np.int64)
    for number, method in enumerate(methods, start=1):
        open_rows = np.flatnonzero(np.isnan(values).any((1, 2)))
        if not len(open_rows):
            break
        baseline = naive() if method == "naive" else SeasonalNaive(season)
        part = past.subset(open_rows)
        other = baseline.predict(part, forecast.horizon, forecast.quantiles)
        has_band = np.isfinite(seasonal_differences(part, baseline.season).mean_square)
        usable = has_band & np.isfinite(other.values).all((1, 2))
        values[open_rows[usable]] = other.values[usable]
        source[open_rows[usable]] = number
    names = (NETWORK, *(method.replace("-", "_") for method in methods))
    return replace(forecast, values=values, source=pick(names, source))


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
