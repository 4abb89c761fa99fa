"""Values onto a grid, as plain arrays: where each row lies, and what is written there.

Below `repeats`, which says which of several readings counts, and `placing`, which makes a panel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.panel import Doubles, Floats, Integers, offsets_of
from rnnforecast.data.rows import Rows
from rnnforecast.sources.threads import in_threads

Readings = NDArray[np.floating[Any]]
"""float32, or doubles where counts of meters need them."""


@dataclass(frozen=True)
class Grid:
    """Where each series of rows lies on the grid."""

    start: Integers
    lengths: Integers
    step_us: int

    @property
    def offsets(self) -> Integers:
        """`(series + 1,)`: where each series begins on one target's stretch of the grid."""
        return offsets_of(self.lengths)

    def time_at(self, place: int) -> int:
        """Return the time of a place on it."""
        series = int(np.searchsorted(self.offsets, place, side="right")) - 1
        return int(self.start[series] + (place - self.offsets[series]) * self.step_us)


def find_places(rows: Rows, grid: Grid) -> list[Integers]:
    """Turn the times of all rows into places on the grid; the times themselves are given up."""
    places, rows.times = rows.times, []
    first = grid.offsets[:-1] - grid.start // grid.step_us
    late = grid.start % grid.step_us

    def find(pair: tuple[Integers, NDArray[np.integer]]) -> None:
        place, codes = pair
        place -= late[codes]
        np.floor_divide(place, grid.step_us, out=place)
        place += first[codes]

    for _ in in_threads(find, zip(places, rows.codes, strict=True)):
        pass
    rows.codes = []
    return places


def spot(place: Integers) -> Integers | slice:
    """Return the places as a slice where they follow each other."""
    begin, end = int(place[0]), int(place[-1]) + 1
    is_slice = end - begin == len(place) and bool((np.diff(place) == 1).all())
    return slice(begin, end) if is_slice else place


def write(
    into: Readings,
    places: list[Integers],
    chunks: list[Floats],
    how: str,
    base: Doubles | None = None,
) -> None:
    """Write values to their places, by a rule for those that share one; missing ones never count.

    `base`, `(grid row,)`, is what the values lack: sums of several lack it as often.
    """
    if how in ("last", "error"):
        _scatter(into, places, chunks)
        return
    _aggregate(into, places, chunks, how)
    if how == "sum" and base is not None:
        _add_base_of_sums(into, places, chunks, base)


def _scatter(into: Readings, places: list[Integers], chunks: list[Floats]) -> None:
    """Write each reading to its place; a missing one never overwrites, and the last one stays."""
    for place, chunk in zip(places, chunks, strict=True):
        seen = np.isfinite(chunk)
        into[place[seen]] = chunk[seen]


def _aggregate(into: Readings, places: list[Integers], chunks: list[Floats], how: str) -> None:
    """Make one reading of those on each step: their mean, sum, min or max; missing ones apart."""
    place = np.concatenate(places)
    value = np.concatenate(chunks).astype(np.float64)
    seen = np.isfinite(value)
    place, value = place[seen], value[seen]
    if how in ("min", "max"):
        worst = np.inf if how == "min" else -np.inf
        result = np.full(len(into), worst)
        (np.minimum if how == "min" else np.maximum).at(result, place, value)
        into[:] = np.where(np.isfinite(result), result, np.nan)
        return
    sums = np.bincount(place, weights=value, minlength=len(into))
    counts = np.bincount(place, minlength=len(into))
    with np.errstate(invalid="ignore"):
        into[:] = np.where(counts > 0, sums / (counts if how == "mean" else 1), np.nan)


def _add_base_of_sums(
    into: Readings, places: list[Integers], chunks: list[Floats], base: Doubles
) -> None:
    """Add to each sum the bases, `(grid row,)`, that its readings lack; one stays subtracted."""
    for place, chunk in zip(places, chunks, strict=True):
        seen = place[np.isfinite(chunk)]
        np.add.at(into, seen, base[seen])
    into -= base
