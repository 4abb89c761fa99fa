"""Covariates: what stands beside the readings, on the same grid, as flat arrays of features.

Apart from `panel`, which holds what is forecast. A numeric column is one feature; a text column is
one for each of its values, and one for all others. Nothing here reads files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Features(NamedTuple):
    """The covariates of some windows, NaN where unknown."""

    known: Floats
    """`(window, feature, lookback + horizon)`: known ahead, over history and horizon."""
    past: Floats
    """`(window, feature, lookback)`: known up to now."""
    static: Floats
    """`(window, feature)`: the same at all times."""


@dataclass(frozen=True)
class Covariates:
    """What stands beside a panel's readings.

    Row t of series s has the features `values[:, begin[s] + t]`, where that place belongs to the
    series; there may be more of them after its last reading than before.
    """

    values: Floats
    """`(feature, place)`, those known ahead first; NaN where unknown."""
    n_known: int
    """So many features are known ahead, the rest only up to now."""
    static: Floats
    """`(series, feature)`."""
    names: tuple[str, ...]
    """What each feature is called: those known ahead, known up to now, static."""
    begin: Integers
    """`(series,)`: the place of each series' first row."""
    low: Integers
    """`(series,)`: the first place that belongs to the series."""
    high: Integers
    """`(series,)`: the first place that no longer does."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many features are known ahead, known up to now, and static."""
        return self.n_known, len(self.values) - self.n_known, self.static.shape[1]

    def select(self, series: Integers) -> Covariates:
        """Return the covariates of these series, in this order."""
        return replace(
            self,
            static=self.static[series],
            begin=self.begin[series],
            low=self.low[series],
            high=self.high[series],
        )

    def moved(self, rows: Integers) -> Covariates:
        """Return the covariates of a panel that begins so many rows later, `(series,)`."""
        return replace(self, begin=self.begin + rows)

    def features(self, series: Integers, row: Integers, *, lookback: int, horizon: int) -> Features:
        """Gather the covariates around these rows, `(window,)`: lead 1 lies at `row`."""
        first = self.begin[series] + row - lookback
        low, high = self.low[series], self.high[series]

        def around(values: Floats, width: int) -> Floats:
            places = first[:, None] + np.arange(width)
            inside = (places >= low[:, None]) & (places < high[:, None])
            found = values[:, np.where(inside, places, 0)]
            found[:, ~inside] = np.nan
            return found.transpose(1, 0, 2)

        return Features(
            around(self.values[: self.n_known], lookback + horizon),
            around(self.values[self.n_known :], lookback),
            self.static[series],
        )
