"""Panel: every series on one regular grid, as flat arrays.

A hole in time is NaN rows, so no window can silently span it. Nothing here reads or writes files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.covariates import Covariates
from rnnforecast.data.ranks import ALONE, Ranks, filled, joined

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

_COPIED_ROWS = 1 << 20


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


def stretches(target: Floats, begin: Integers, end: Integers) -> Floats:
    """Copy the rows `[begin, end)` of each stretch, `(stretch,)`, one after the other.

    Short ones are copied many at once, so that it costs what the rows cost.
    """
    offsets = offsets_of(end - begin)
    copied = np.empty(offsets[-1], target.dtype)
    first = 0
    while first < len(begin):
        last = int(np.searchsorted(offsets, offsets[first] + _COPIED_ROWS, side="right")) - 1
        last = max(first + 1, last)
        into = copied[offsets[first] : offsets[last]]
        if last == first + 1:
            into[:] = target[begin[first] : end[first]]
        else:
            rows = np.repeat(
                begin[first:last] - offsets[first:last], np.diff(offsets[first : last + 1])
            )
            np.take(target, rows + np.arange(offsets[first], offsets[last]), out=into)
        first = last
    return copied


def pick(names: Sequence[str], at: Integers | NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the names at these places, or where this is true, without a call for each."""
    places = np.flatnonzero(at) if at.dtype == np.bool_ else at
    return tuple(map(names.__getitem__, places.tolist()))


def offsets_of(lengths: Integers) -> Integers:
    """Turn lengths, `(series,)`, into offsets, `(series + 1,)`."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
