"""Fan: one series as a picture shows it, readings first, then a forecast that opens like a fan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rnnforecast.data.forecast import Forecast
from rnnforecast.data.panel import Doubles, Integers
from rnnforecast.data.past import Past, Values

_HORIZONS_BACK = 3
_FEWEST_BACK = 24


@dataclass(frozen=True)
class Fan:
    """Readings and forecast of one series; times are microseconds since 1970."""

    name: str
    times_us: Integers
    """`(row,)`: when readings were due, a step apart."""
    readings: Doubles
    """`(row,)`, NaN where one is missing."""
    ahead_us: Integers
    """`(lead,)`."""
    values: Doubles
    """`(lead, quantile)`; NaN where nothing was forecast."""
    quantiles: tuple[float, ...]
    """Ascending, with the median."""
    actual: Doubles | None = None
    """`(lead,)`: what came, NaN where it is not known; None where nothing is."""
    tz: str | None = None

    @property
    def point(self) -> Doubles:
        """The median, `(lead,)`."""
        median: Doubles = self.values[:, self.quantiles.index(0.5)]
        return median

    @property
    def bands(self) -> list[tuple[float, Doubles, Doubles]]:
        """The share that lies between two quantiles with equal tails, and both, widest first."""
        found = []
        for place, level in enumerate(self.quantiles):
            partner = next((q for q in self.quantiles if abs(q + level - 1) < 1e-9), None)
            if level < 0.5 and partner is not None:
                upper = self.values[:, self.quantiles.index(partner)]
                found.append((partner - level, self.values[:, place], upper))
        return found

    def latest(self, n_rows: int) -> Fan:
        """Return the fan with at most so many of its newest readings."""
        first = max(0, len(self.times_us) - n_rows)
        return replace(self, times_us=self.times_us[first:], readings=self.readings[first:])

    def only(self, levels: tuple[float, ...]) -> Fan:
        """Return the fan with those of its quantiles that are among these levels."""
        at = [place for place, level in enumerate(self.quantiles) if level in levels]
        return replace(
            self, values=self.values[:, at], quantiles=tuple(self.quantiles[i] for i in at)
        )


def rows_back(horizon: int) -> int:
    """Return how many readings before a forecast of so many steps are worth a look."""
    return max(_FEWEST_BACK, _HORIZONS_BACK * horizon)


def fans_of(
    past: Past, forecast: Forecast, *, n_rows: int, actual: Values | None = None
) -> list[Fan]:
    """Return a fan for each origin of a forecast, with its last `n_rows` readings.

    The origins of both must be the same; `actual` is `(origin, lead)`. Rows before the first
    reading of a series are left out.
    """
    history = past.history(n_rows).astype(np.float64) + past.base[:, None]
    times = forecast.cutoff_us[:, None] + np.arange(1 - n_rows, 1) * forecast.step_us
    begins = [int(np.argmax(row)) if row.any() else n_rows for row in np.isfinite(history)]
    return [
        Fan(
            forecast.names[i],
            times[i, begin:],
            history[i, begin:],
            forecast.times_us[i],
            forecast.values[i].astype(np.float64),
            forecast.quantiles,
            None if actual is None else actual[i].astype(np.float64),
            forecast.tz,
        )
        for i, begin in enumerate(begins)
    ]
