"""Covariates: what stands beside the readings, on the same grid, as flat arrays of features.

Apart from `panel`, which holds what is forecast. A numeric column is one feature; a text column is
one for each of its values, and one for all others. Nothing here reads files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.ranks import Ranks, filled

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
class Track:
    """Features of many series, each on a stretch of its own, or all on one that they share.

    Row t of series s is `values[:, begin[s] + t]` where that place belongs to the series; rows may
    lie before and after those of its readings.
    """

    values: Floats
    """`(feature, place)`, NaN where unknown."""
    names: tuple[str, ...]
    begin: Integers
    """`(series,)`: the place of each series' first row."""
    low: Integers
    """`(series,)`: the first place that belongs to the series."""
    high: Integers
    """`(series,)`: the first place that no longer does."""

    def is_apart(self) -> bool:
        """Tell whether each series has a stretch of its own."""
        return bool((self.high - self.low).sum() <= self.values.shape[1])

    def select(self, series: Integers) -> Track:
        """Return the tracks of these series, in this order."""
        begin, low, high = (x[series] for x in (self.begin, self.low, self.high))
        return replace(self, begin=begin, low=low, high=high)

    def moved(self, rows: Integers) -> Track:
        """Return the tracks of a panel that begins so many rows later, `(series,)`."""
        return replace(self, begin=self.begin + rows)

    def rows(self, n_rows: Integers) -> NDArray[np.bool_]:
        """Tell which places, `(place,)`, hold a series' first rows, or come before: `(series,)`."""
        n_places = self.values.shape[1]
        edges = np.zeros(n_places + 1, np.int64)
        np.add.at(edges, self.low, 1)
        np.add.at(edges, np.clip(self.begin + n_rows, self.low, self.high), -1)
        return np.cumsum(edges)[:n_places] > 0

    def fetched(self, chosen: Integers, here: NDArray[np.bool_], ranks: Ranks) -> Track:
        """Return the track with the rows of these few series only, on all ranks."""
        if not self.is_apart():
            return self
        sizes = filled(ranks, self.high - self.low, here)
        before = filled(ranks, self.begin - self.low, here)
        width, rows = len(self.values), []
        for series in chosen.tolist():
            own = np.zeros((width, sizes[series]), np.float32)
            if here[series]:
                own = self.values[:, self.low[series] : self.high[series]]
            rows.append(filled(ranks, own, np.full(width, here[series])))
        low = np.zeros_like(self.low)
        low[chosen] = np.cumsum(sizes[chosen]) - sizes[chosen]
        high = low.copy()
        high[chosen] += sizes[chosen]
        return replace(self, values=np.concatenate(rows, 1), begin=low + before, low=low, high=high)

    def gather(self, series: Integers, first: Integers, width: int) -> Floats:
        """Return `width` rows from these on, `(window, feature, width)`; NaN where there is none.

        `series` and `first` are `(window,)`; rows before a series' first one count down from -1.
        """
        places = (self.begin[series] + first)[:, None] + np.arange(width)
        inside = (places >= self.low[series, None]) & (places < self.high[series, None])
        found: Floats
        if inside.all():
            found = self.values[:, places]
        else:
            found = self.values[:, np.where(inside, places, 0)]
            found[:, ~inside] = np.nan
        return found.transpose(1, 0, 2)


@dataclass(frozen=True)
class Covariates:
    """What stands beside a panel's readings."""

    known: tuple[Track, ...]
    """What is known ahead: columns of the table, and what the calendar says."""
    past: Track
    """What is known up to now."""
    static: Floats
    """`(series, feature)`: what stays the same."""
    static_names: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many features are known ahead, known up to now, and static."""
        n_known = sum(len(track.values) for track in self.known)
        return n_known, len(self.past.values), self.static.shape[1]

    @property
    def known_names(self) -> tuple[str, ...]:
        """What each feature that is known ahead is called."""
        return tuple(name for track in self.known for name in track.names)

    def select(self, series: Integers) -> Covariates:
        """Return the covariates of these series, in this order."""
        return Covariates(
            known=tuple(track.select(series) for track in self.known),
            past=self.past.select(series),
            static=self.static[series],
            static_names=self.static_names,
        )

    def fetched(self, chosen: Integers, here: NDArray[np.bool_], ranks: Ranks) -> Covariates:
        """Return those of these few series, `(series,)`, on all ranks; the numbers stay."""
        return replace(
            self,
            known=tuple(track.fetched(chosen, here, ranks) for track in self.known),
            past=self.past.fetched(chosen, here, ranks),
            static=filled(ranks, self.static, here),
        )

    def moved(self, rows: Integers) -> Covariates:
        """Return the covariates of a panel that begins so many rows later, `(series,)`."""
        known = tuple(track.moved(rows) for track in self.known)
        return replace(self, known=known, past=self.past.moved(rows))

    def until(self, rows: Integers) -> Covariates:
        """Return the same, but what is known up to now is unknown after those rows, `(series,)`."""
        values = np.where(self.past.rows(rows), self.past.values, np.float32(np.nan))
        return replace(self, past=replace(self.past, values=values))

    def features(self, series: Integers, row: Integers, *, lookback: int, horizon: int) -> Features:
        """Gather the covariates around these rows, `(window,)`: lead 1 lies at `row`.

        What is not known ahead ends before it.
        """
        first = row - lookback
        known = [track.gather(series, first, lookback + horizon) for track in self.known]
        return Features(
            known=known[0] if len(known) == 1 else np.concatenate(known, axis=1),
            past=self.past.gather(series, first, lookback),
            static=self.static[series],
        )


def covariates_of(
    columns: dict[str, list[Floats]],
    names: dict[str, tuple[str, ...]],
    offsets: Integers,
    n_targets: int,
) -> Covariates:
    """Put columns by role, `(place,)` or of static ones `(series,)`, together for a panel.

    The targets of a wide table share them.
    """
    begin, high = np.tile(offsets[:-1], n_targets), np.tile(offsets[1:], n_targets)

    def track(role: str) -> Track:
        values = np.array(columns[role], np.float32).reshape(-1, int(offsets[-1]))
        return Track(values, names[role], begin, low=begin, high=high)

    static = np.array(columns["static"], np.float32).reshape(-1, len(offsets) - 1)
    every = np.tile(static.T, (n_targets, 1))
    return Covariates((track("known"),), track("past"), every, names["static"])
