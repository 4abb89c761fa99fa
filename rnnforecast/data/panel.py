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

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

_COPIED_ROWS = 1 << 20


@dataclass(frozen=True)
class Panel:
    """Many series, one after the other, each on a grid of the same step.

    Row t of series s is `target[offsets[s] + t]`, read at `start[s] + t * step_us`.
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

    @property
    def n_series(self) -> int:
        """How many series there are."""
        return len(self.names)

    @property
    def lengths(self) -> Integers:
        """`(series,)`: rows of each series, missing ones included."""
        return np.diff(self.offsets)

    @property
    def end_us(self) -> int:
        """The first time after all rows."""
        return int((self.start + self.lengths * self.step_us).max())

    @property
    def first_step(self) -> Integers:
        """`(series,)`: number of the first row on the grid that begins in 1970."""
        return self.start // self.step_us

    def of(self, series: int) -> Floats:
        """Return the readings of one series, `(row,)`, as a view."""
        return self.target[self.offsets[series] : self.offsets[series + 1]]

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
        target = stretches(self.target, begin, begin + rows)
        return replace(self, target=target, offsets=offsets_of(rows))

    def seen(self, rows: Integers) -> Panel:
        """Return the first rows of each series; beside them stays only what is known ahead."""
        panel = self if np.array_equal(rows, self.lengths) else self.before(rows)
        return replace(panel, covariates=self.covariates and self.covariates.until(rows))

    def select(self, series: Integers) -> Panel:
        """Return a panel of these series, in this order."""
        if np.array_equal(series, np.arange(self.n_series)):
            return self
        return replace(
            self,
            target=stretches(self.target, self.offsets[series], self.offsets[series + 1]),
            offsets=offsets_of(self.lengths[series]),
            start=self.start[series],
            names=pick(self.names, series),
            base=self.base[series],
            covariates=self.covariates and self.covariates.select(series),
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
        """Return a SHA-256 of what the readings say, whatever file format they came in."""
        digest = hashlib.sha256()
        for array in (self.target, self.offsets, self.start, np.int64(self.step_us), self.base):
            digest.update(np.ascontiguousarray(array).data)
        if self.covariates is not None:
            tracks = (*self.covariates.known, self.covariates.past)
            for array in (self.covariates.static, *(track.values for track in tracks)):
                digest.update(np.ascontiguousarray(array).data)
        digest.update("\0".join(self.names).encode())
        return digest.hexdigest()


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
