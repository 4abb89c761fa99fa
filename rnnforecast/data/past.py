"""Past: what a forecaster may see of a panel. Change the future, and nothing it hands out moves.

It cannot return a reading after its cutoffs. The truth is another object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.covariates import Features
from rnnforecast.data.panel import Doubles, Floats, Integers, Panel
from rnnforecast.data.ranks import Ranks, filled
from rnnforecast.data.windows import TrainingWindows, gather

_TABLE_VALUES = 1 << 20
_EQUAL_ROWS = 32
"""Origins with fewer rows than this share tables, however unlike their numbers are."""

_Number = TypeVar("_Number", bound=np.generic)
Values = NDArray[np.floating[Any]]
"""Of a forecast: float32, or doubles where float32 would blur them."""


@dataclass(frozen=True)
class Past:
    """Many origins at once: for each a series, and the number of its rows that may be seen."""

    _panel: Panel
    series: Integers
    """`(origin,)`: which series."""
    cutoff: Integers
    """`(origin,)`: how many rows of the series, from its first, lie before the cutoff."""

    @property
    def n_origins(self) -> int:
        """How many origins there are."""
        return len(self.series)

    @property
    def step_us(self) -> int:
        """The grid's step in microseconds."""
        return self._panel.step_us

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the panel's series, whether an origin names them or not."""
        return self._panel.names

    @property
    def base(self) -> Doubles:
        """`(origin,)`: what was subtracted from the readings that the origin sees."""
        return self._panel.base[self.series]

    @property
    def n_rows(self) -> int:
        """How many rows the panel has, missing readings included."""
        return self._panel.n_rows

    @property
    def ranks(self) -> Ranks:
        """Who holds the panel together."""
        return self._panel.ranks

    @property
    def here(self) -> NDArray[np.bool_]:
        """`(origin,)`: whose readings this process has. What is said of them, it says alone."""
        return self._panel.here[self.series]

    def filled(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return figures of origins, `(origin, ...)`, each from the rank that has its readings."""
        return filled(self.ranks, values, self.here)

    @property
    def first_us(self) -> int:
        """Time of the panel's first row, in microseconds."""
        return int(self._panel.start.min())

    @property
    def next_step(self) -> Integers:
        """`(origin,)`: where lead 1 lies on the grid that begins in 1970. Seasons count from it."""
        return self._panel.first_step[self.series] + self.cutoff

    @property
    def cutoff_time(self) -> Integers:
        """`(origin,)`: time of the last row that may be seen, in microseconds."""
        return self._panel.time_at(self.series, self.cutoff - 1)

    def history(self, n: int) -> Floats:
        """Return the last n rows before each cutoff, `(origin, n)`; NaN before the first row."""
        first = self._panel.begins(self.series)
        end = first + self.cutoff
        return gather(self._panel.target, end - n, n, low=first, high=end)

    @property
    def n_features(self) -> tuple[int, int, int]:
        """How many features are known ahead, known up to now, and static."""
        covariates = self._panel.covariates
        return (0, 0, 0) if covariates is None else covariates.sizes

    @property
    def known_names(self) -> tuple[str, ...]:
        """What the features that are known ahead are called."""
        covariates = self._panel.covariates
        return () if covariates is None else covariates.known_names

    def features(self, lookback: int, horizon: int) -> Features | None:
        """Return the covariates around each cutoff; those of after it only where known ahead."""
        covariates = self._panel.covariates
        if covariates is None:
            return None
        return covariates.features(self.series, self.cutoff, lookback=lookback, horizon=horizon)

    def share_seen(self, n: int) -> NDArray[np.float64]:
        """`(origin,)`: the share of the last n rows before each cutoff that hold a reading."""
        share: NDArray[np.float64] = np.isfinite(self.history(n)).mean(1)
        return share

    def longest_gap(self, n: int) -> Integers:
        """`(origin,)`: most rows in a row without a reading, of the last n before each cutoff.

        Rows before a series' first one are no gap.
        """
        rows = np.arange(n)
        is_own = rows >= n - self.cutoff[:, None]
        last = np.where(np.isfinite(self.history(n)) | ~is_own, rows, -1)
        longest: Integers = (rows - np.maximum.accumulate(last, axis=1)).max(1)
        return longest

    def readings(self, origin: int, newest: int | None = None) -> Floats:
        """Return all that one origin may see, `(row,)`, or its newest rows, wherever they are."""
        end = int(self.cutoff[origin])
        begin = 0 if newest is None else max(0, end - newest)
        return self._panel.of(int(self.series[origin]), begin, end)

    def fingerprint(self) -> str:
        """Return a SHA-256 of what all origins together may see, and where they stand.

        What is known ahead counts as seen, however far it reaches.
        """
        furthest = np.zeros(self._panel.n_series, np.int64)
        np.maximum.at(furthest, self.series, self.cutoff)
        digest = hashlib.sha256(self._panel.seen(furthest).fingerprint().encode())
        for array in (self.series, self.cutoff):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def at(self, origins: Integers, times_us: Integers) -> Doubles:
        """Return what origins saw at these times, `(reading,)` each, in the sensor's own units.

        NaN for a time that lies after the cutoff, before the first row, or between two steps, and
        for an origin -1.
        """
        found = np.full(len(origins), np.nan)
        if not self.n_origins:
            return found
        series, cutoff = self.series[origins], self.cutoff[origins]
        row, rest = np.divmod(times_us - self._panel.start[series], self.step_us)
        there = (origins >= 0) & (rest == 0) & (row >= 0) & (row < cutoff)
        place = self._panel.offsets[series[there]] + row[there]
        found[there] = self._panel.target[place].astype(np.float64) + self.base[origins[there]]
        return found

    def tables(self) -> Iterator[tuple[Integers, Floats]]:
        """Give all that the origins may see, as tables: their origins, and `(origin, row)`.

        Row 0 is the first of the series; after the cutoff is NaN. Origins that see about as much
        share a table, so that many short series cost what their readings cost. Origins that see
        nothing are in tables without a row; those of series that are elsewhere are in none.
        """
        order = np.argsort(self.cutoff, kind="stable")
        order = order[self.here[order]]
        lengths = self.cutoff[order]
        begin = 0
        while begin < len(order):
            alike = max(_EQUAL_ROWS, 2 * int(lengths[begin]))
            end = int(np.searchsorted(lengths, alike, side="right"))
            n_values = np.arange(1, end - begin + 1) * lengths[begin:end]
            end = begin + max(1, int(np.searchsorted(n_values, _TABLE_VALUES, side="right")))
            origins, width = order[begin:end], int(lengths[end - 1])
            low = self._panel.begins(self.series[origins])
            high = low + self.cutoff[origins]
            yield origins, gather(self._panel.target, low, width, low=low, high=high)
            begin = end

    @property
    def n_seen(self) -> Integers:
        """`(origin,)`: how many readings each origin may see."""
        counts = np.zeros(self.n_origins, np.int64)
        for origins, readings in self.tables():
            counts[origins] = np.isfinite(readings).sum(1)
        return self.filled(counts)

    def windows(
        self, lookback: int, horizon: int, *, targets_after: Past | None = None
    ) -> TrainingWindows:
        """Return the windows to learn from: all that end before the cutoffs, one origin a series.

        With `targets_after`, their targets lie after its cutoffs; their histories may not.
        """
        return TrainingWindows.before(
            self._panel,
            self.series,
            self.cutoff,
            lookback=lookback,
            horizon=horizon,
            targets_from=None if targets_after is None else targets_after.cutoff,
        )

    def subset(self, origins: Integers | NDArray[np.bool_] | slice) -> Past:
        """Return a Past of some of the origins."""
        return replace(self, series=self.series[origins], cutoff=self.cutoff[origins])

    def panel_seen(self) -> Panel:
        """Return the panel as it ends at the cutoffs; there must be one origin for each series."""
        return self._panel.select(self.series).before(self.cutoff)

    def alone(self, origin: int) -> Past:
        """Return one origin over a panel of its own that ends at the cutoff."""
        panel = self._panel.select(self.series[origin : origin + 1])
        return past_of(panel.before(self.cutoff[origin : origin + 1]))


def past_of(panel: Panel, cutoff: Integers | None = None) -> Past:
    """Make a Past with one origin a series; by default it sees all of the panel."""
    every = np.arange(panel.n_series, dtype=np.int64)
    return Past(panel, series=every, cutoff=panel.lengths if cutoff is None else cutoff)


def in_own_units(values: Floats, past: Past) -> Values:
    """Add each origin's base to what was forecast, `(origin, ...)`; doubles where there is one."""
    base = past.base
    if not base.any():
        return values
    return values + base.reshape(-1, *[1] * (values.ndim - 1))
