"""Panel and Covariates: many series on one grid, as flat arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, offsets_of, pick, stretches
from rnnforecast.parallel import ALONE, Ranks, filled, joined

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Shared:
    """Where the readings of a panel are that several ranks hold together, each some series."""

    ranks: Ranks
    here: NDArray[np.bool_]
    """`(series,)`: whose readings this rank has."""
    lengths: Integers
    """`(series,)`: rows of each series, wherever they are."""


@dataclass(frozen=True)
class Panel:
    """Many series, one after the other, each on a grid of the same step.

    Row t of series s is `target[offsets[s] + t]`, read at `start[s] + t * step_us`. Of a panel that
    ranks share, each knows of all series where they stand, and has the rows of its own: `offsets`
    are those of what is here, where series that are elsewhere have no row.
    """

    target: Floats
    """`(row,)`, readings less the base of their series; NaN where a reading is missing."""
    offsets: Integers
    """`(series + 1,)`: where each series begins in `target`, and the end of the last."""
    start: Integers
    """`(series,)`: time of each series' first row, microseconds since 1970, UTC or wall clock."""
    names: tuple[str, ...]
    step_us: int
    base: Doubles
    """`(series,)`, in the sensor's own units: 0, but for readings that float32 would blur."""
    first_us: int
    """Time of the table's first row, also where it held no reading: row numbers count from it."""
    covariates: Covariates | None = None
    """What stands beside the readings; it may reach beyond them."""
    shared: Shared | None = None
    """Who has which series, where that is not this process alone."""

    @property
    def ranks(self) -> Ranks:
        """Who holds the panel together."""
        return ALONE if self.shared is None else self.shared.ranks

    @property
    def here(self) -> NDArray[np.bool_]:
        """`(series,)`: whose readings this process has."""
        return np.ones(self.n_series, np.bool_) if self.shared is None else self.shared.here

    @property
    def n_readings(self) -> int:
        """How many readings there are, missing ones not counted."""
        seen = np.array([np.count_nonzero(np.isfinite(self.target))], np.int64)
        return int(self.ranks.total(seen)[0])

    @property
    def n_rows(self) -> int:
        """How many rows there are, missing readings included."""
        return int(self.lengths.sum())

    @property
    def n_series(self) -> int:
        """How many series there are."""
        return len(self.names)

    @property
    def lengths(self) -> Integers:
        """`(series,)`: rows of each series, missing ones included."""
        return np.diff(self.offsets) if self.shared is None else self.shared.lengths

    @property
    def end_us(self) -> int:
        """The first time after all rows."""
        return int((self.start + self.lengths * self.step_us).max())

    @property
    def first_step(self) -> Integers:
        """`(series,)`: number of the first row on the grid that begins in 1970."""
        return self.start // self.step_us

    def of(self, series: int, begin: int = 0, end: int | None = None) -> Floats:
        """Return rows of one series, `(row,)`, by default all: a view, unless they are elsewhere.

        All ranks ask for the same.
        """
        end = int(self.lengths[series]) if end is None else end
        first = self.offsets[series]
        if self.shared is None:
            return self.target[first + begin : first + end]
        here = np.full(max(end - begin, 0), self.shared.here[series])
        own = self.target[first + begin : first + end] if here.any() else np.zeros(len(here), "f4")
        return filled(self.ranks, own, here)

    def time_at(self, series: Integers, row: Integers) -> Integers:
        """Return the times, in microseconds, of these rows of these series; rows may lie ahead."""
        return self.start[series] + row * self.step_us

    def rows_before(self, time_us: int) -> Integers:
        """`(series,)`: how many rows of each series lie before a time."""
        ahead = -((self.start - time_us) // self.step_us)  # rounded up
        return np.clip(ahead, 0, self.lengths)

    def before(self, rows: Integers) -> Panel:
        """Return a panel of the first rows of each series, `(series,)` of them."""
        begin = self.offsets[:-1]
        stored = np.where(self.here, rows, 0)
        target = stretches(self.target, begin, begin + stored)
        shared = self.shared and replace(self.shared, lengths=rows)
        return replace(self, target=target, offsets=offsets_of(stored), shared=shared)

    def seen(self, rows: Integers) -> Panel:
        """Return the first rows of each series; beside them stays only what is known ahead."""
        panel = self if np.array_equal(rows, self.lengths) else self.before(rows)
        return replace(panel, covariates=self.covariates and self.covariates.until(rows))

    def select(self, series: Integers) -> Panel:
        """Return a panel of these series, in this order."""
        if np.array_equal(series, np.arange(self.n_series)):
            return self
        shared = self.shared and replace(
            self.shared, here=self.shared.here[series], lengths=self.shared.lengths[series]
        )
        return replace(
            self,
            target=stretches(self.target, self.offsets[series], self.offsets[series + 1]),
            offsets=offsets_of(np.diff(self.offsets)[series]),
            start=self.start[series],
            names=pick(self.names, series),
            base=self.base[series],
            covariates=self.covariates and self.covariates.select(series),
            shared=shared,
        )

    def fetched(self, series: Sequence[int]) -> Panel:
        """Return a panel with the rows of these few series here, on all ranks, and of no other.

        Their numbers stay.
        """
        if self.shared is None:
            return self
        here = np.zeros(self.n_series, np.bool_)
        here[list(series)] = True
        chosen = np.flatnonzero(here)
        rows = [self.of(number) for number in chosen.tolist()]
        beside = self.covariates and self.covariates.fetched(chosen, self.here, self.ranks)
        return replace(
            self,
            target=np.concatenate([np.zeros(0, np.float32), *rows]),
            offsets=offsets_of(np.where(here, self.lengths, 0)),
            covariates=beside,
            shared=Shared(ALONE, here, self.lengths),
        )

    def blocks(self, n_rows: int) -> Iterator[tuple[int, Panel]]:
        """Give the series in parts of about so many rows, views each, with the first one's number.

        What needs several numbers a row then needs them for one part at a time.
        """
        first = 0
        while first < self.n_series:
            wanted = self.offsets[first] + n_rows
            last = max(first + 1, int(np.searchsorted(self.offsets, wanted, side="right")) - 1)
            begin, end = self.offsets[first], self.offsets[last]
            yield (
                first,
                replace(
                    self,
                    target=self.target[begin:end],
                    offsets=self.offsets[first : last + 1] - begin,
                    start=self.start[first:last],
                    names=self.names[first:last],
                    base=self.base[first:last],
                    covariates=None,
                ),
            )
            first = last

    def fingerprint(self) -> str:
        """Return a SHA-256 of what the readings say, whatever file format they came in.

        That of a panel that ranks share does not depend on how many there are.
        """
        if self.shared is not None:
            return self._fingerprint_of_parts()
        digest = hashlib.sha256()
        for array in (self.target, self.offsets, self.start, np.int64(self.step_us), self.base):
            digest.update(np.ascontiguousarray(array).data)
        if self.covariates is not None:
            tracks = (*self.covariates.known, self.covariates.past)
            for array in (self.covariates.static, *(track.values for track in tracks)):
                digest.update(np.ascontiguousarray(array).data)
        digest.update("\0".join(self.names).encode())
        return digest.hexdigest()

    def _fingerprint_of_parts(self) -> str:
        """Return a SHA-256 of one for each series; what the calendar says follows from times."""
        own = np.flatnonzero(self.here)
        found = np.zeros((len(own), hashlib.sha256().digest_size), np.uint8)
        for row, series in zip(found, own.tolist(), strict=True):
            digest = hashlib.sha256(self.names[series].encode())
            stored = self.target[self.offsets[series] : self.offsets[series + 1]]
            arrays = [stored, self.start[series], self.base[series]]
            if self.covariates is not None:
                arrays.append(self.covariates.static[series])
                tracks = (*self.covariates.known, self.covariates.past)
                arrays += [
                    track.values[:, track.low[series] : track.high[series]]
                    for track in tracks
                    if track.is_apart()
                ]
            for array in arrays:
                digest.update(np.ascontiguousarray(array).data)
            row[:] = np.frombuffer(digest.digest(), np.uint8)
        whole = joined(self.ranks, found)
        return hashlib.sha256(np.int64(self.step_us).tobytes() + whole.tobytes()).hexdigest()

    def begins(self, series: Integers) -> Integers:
        """Return where series that are here begin in `target`, `(window,)` each."""
        assert self.shared is None or self.shared.here[series].all(), "these rows are elsewhere"
        return self.offsets[series]


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
