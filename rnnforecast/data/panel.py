"""Panel and Covariates: many series on one grid, as flat arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.arrays import (
    Doubles,
    Floats,
    Integers,
    concat_slices,
    offsets_from_lengths,
    take_names,
)
from rnnforecast.data.axis import ELAPSED_UTC, TimeAxis
from rnnforecast.parallel import SINGLE_PROCESS, Ranks, all_gather, all_reduce_masked

_COUNTED_ROWS = 1 << 20
"""Rows that are counted at a time: each takes eight bytes meanwhile."""
_LONG_ROWS = 1 << 8
"""Series of more rows are counted one by one."""


@dataclass(frozen=True)
class RankPartition:
    """Which rows of a panel this rank stores, where several ranks hold the panel together.

    Every rank knows names, times and lengths of all series, and stores the rows of some.
    """

    ranks: Ranks
    is_local: NDArray[np.bool_]
    """`(series,)`: whether this rank stores the rows of the series."""
    lengths: Integers
    """`(series,)`: rows of each series, on whichever rank they are."""


@dataclass(frozen=True)
class Panel:
    """Many time series on regular grids of one step, stored one after the other.

    Row t of series s is `target[offsets[s] + t]`, the reading at `start[s] + t * step_us`. Series
    may begin and end at different times; between its first and its last row a series has a row
    for every step.

    Units: times and steps are microseconds on the `axis`, which converts them to those of stamps.
    Readings are in the sensor's own units, less the `base` of their series.

    Missing values: a step without a reading is a row with NaN; unknown covariates are NaN, too.
    Rows are never left out, so that row numbers and times determine each other.

    Cutoffs: a panel holds all rows of the table. Forecasters and training get a `Past` of it
    (`data/windows.py`), which never reads a target at or after its cutoff.

    Ranks: of a panel that ranks share, each rank has the metadata of all series and the rows of
    its own. `offsets` describe the rows on this rank, where a series of another rank has none;
    `lengths` count the rows of all series.
    """

    target: Floats
    """`(row,)`: readings less the base of their series; NaN where a reading is missing."""
    offsets: Integers
    """`(series + 1,)`: where each series begins in `target`, and the end of the last one."""
    start: Integers
    """`(series,)`: time of each series' first row, in microseconds on the axis."""
    names: tuple[str, ...]
    step_us: int
    base: Doubles
    """`(series,)`, in the sensor's units: 0 except for readings too large for float32's digits."""
    first_us: int
    """Time of the table's first row, with or without reading: `--train-end 100` counts from it."""
    covariates: Covariates | None = None
    """Covariates of the readings; those known ahead may reach beyond the last reading."""
    shared: RankPartition | None = None
    """Which rank stores which series; None where this process stores all."""
    axis: TimeAxis = ELAPSED_UTC

    @property
    def ranks(self) -> Ranks:
        """The ranks that hold the panel together."""
        return SINGLE_PROCESS if self.shared is None else self.shared.ranks

    @property
    def is_local(self) -> NDArray[np.bool_]:
        """`(series,)`: whether this process stores the rows of the series."""
        if self.shared is None:
            return np.ones(self.n_series, np.bool_)
        return self.shared.is_local

    @property
    def n_readings(self) -> int:
        """Number of readings on all ranks, missing ones not counted."""
        n_local = np.array([np.count_nonzero(np.isfinite(self.target))], np.int64)
        return int(self.ranks.all_reduce(n_local)[0])

    def count_readings(self) -> Integers:
        """`(series,)`: how many readings this process stores, missing ones not counted."""
        counts = np.zeros(self.n_series, np.int64)
        for first, part in self.blocks(_COUNTED_ROWS):
            is_seen = np.isfinite(part.target)
            if part.n_series * _LONG_ROWS < len(is_seen):
                flags = np.split(is_seen, part.offsets[1:-1])
                n_readings = np.array([np.count_nonzero(part) for part in flags], np.int64)
            else:
                n_readings = np.diff(offsets_from_lengths(is_seen)[part.offsets])
            counts[first : first + part.n_series] = n_readings
        return counts

    @property
    def n_rows(self) -> int:
        """Number of rows on all ranks, missing readings included."""
        return int(self.lengths.sum())

    @property
    def n_series(self) -> int:
        """Number of series."""
        return len(self.names)

    @property
    def lengths(self) -> Integers:
        """`(series,)`: rows of each series on whichever rank, missing readings included."""
        return np.diff(self.offsets) if self.shared is None else self.shared.lengths

    @property
    def end_us(self) -> int:
        """Time of the step after the last row of all series."""
        return int((self.start + self.lengths * self.step_us).max())

    @property
    def first_step(self) -> Integers:
        """`(series,)`: number of the first row on the grid that begins in 1970."""
        return self.start // self.step_us

    def of(self, series: int, begin: int = 0, end: int | None = None) -> Floats:
        """Return rows `[begin, end)` of one series, `(row,)`, by default all of them.

        The result is a view of `target`, unless ranks share the panel: then every rank calls this
        with the same arguments, and gets the rows of whichever rank stores them.
        """
        end = int(self.lengths[series]) if end is None else end
        first = self.offsets[series]
        if self.shared is None:
            return self.target[first + begin : first + end]

        is_local = np.full(max(end - begin, 0), self.shared.is_local[series])
        rows = np.zeros(len(is_local), np.float32)
        if is_local.any():
            rows = self.target[first + begin : first + end]
        return all_reduce_masked(self.ranks, rows, is_local)

    def time_at(self, series: Integers, row: Integers) -> Integers:
        """Return the times, in microseconds, of rows of series; rows may lie after the last."""
        return self.start[series] + row * self.step_us

    def rows_before(self, time_us: int) -> Integers:
        """`(series,)`: how many rows of each series lie before a time."""
        n_rows = -((self.start - time_us) // self.step_us)  # rounded up
        return np.clip(n_rows, 0, self.lengths)

    def before(self, rows: Integers) -> Panel:
        """Return a panel of the first `rows[s]` rows of each series; covariates stay as they are.

        `rows` is `(series,)`.
        """
        begin = self.offsets[:-1]
        n_local = np.where(self.is_local, rows, 0)
        target = concat_slices(self.target, begin, begin + n_local)
        shared = self.shared and replace(self.shared, lengths=rows)
        return replace(self, target=target, offsets=offsets_from_lengths(n_local), shared=shared)

    def truncate(self, rows: Integers) -> Panel:
        """Return the first `rows[s]` rows of each series, and the covariates known by then.

        Covariates that are known ahead stay, those known up to now are NaN after these rows.
        """
        panel = self if np.array_equal(rows, self.lengths) else self.before(rows)
        return replace(panel, covariates=self.covariates and self.covariates.mask_after(rows))

    def select(self, series: Integers) -> Panel:
        """Return a panel of these series, in this order."""
        if np.array_equal(series, np.arange(self.n_series)):
            return self

        shared = self.shared and replace(
            self.shared, is_local=self.shared.is_local[series], lengths=self.shared.lengths[series]
        )
        return replace(
            self,
            target=concat_slices(self.target, self.offsets[series], self.offsets[series + 1]),
            offsets=offsets_from_lengths(np.diff(self.offsets)[series]),
            start=self.start[series],
            names=take_names(self.names, series),
            base=self.base[series],
            covariates=self.covariates and self.covariates.select(series),
            shared=shared,
        )

    def gather_from_ranks(self, series: Sequence[int]) -> Panel:
        """Return a panel that stores the rows of these few series, and no others, on all ranks.

        Series keep their numbers. Every rank calls this with the same series.
        """
        if self.shared is None:
            return self

        is_chosen = np.zeros(self.n_series, np.bool_)
        is_chosen[list(series)] = True
        chosen = np.flatnonzero(is_chosen)
        rows = [self.of(number) for number in chosen.tolist()]
        covariates = self.covariates and self.covariates.gather_from_ranks(
            chosen, self.is_local, self.ranks
        )
        return replace(
            self,
            target=np.concatenate([np.zeros(0, np.float32), *rows]),
            offsets=offsets_from_lengths(np.where(is_chosen, self.lengths, 0)),
            covariates=covariates,
            shared=RankPartition(SINGLE_PROCESS, is_chosen, self.lengths),
        )

    def blocks(self, n_rows: int) -> Iterator[tuple[int, Panel]]:
        """Yield parts of about `n_rows` rows: the number of the first series, and a view.

        A computation that needs several numbers for each row then needs them for one part at a
        time. The parts have no covariates.
        """
        first = 0
        while first < self.n_series:
            row_limit = self.offsets[first] + n_rows
            last = max(first + 1, int(np.searchsorted(self.offsets, row_limit, side="right")) - 1)
            begin, end = self.offsets[first], self.offsets[last]
            part = replace(
                self,
                target=self.target[begin:end],
                offsets=self.offsets[first : last + 1] - begin,
                start=self.start[first:last],
                names=self.names[first:last],
                base=self.base[first:last],
                covariates=None,
            )

            yield first, part
            first = last

    def fingerprint(self) -> str:
        """Return a SHA-256 of readings, names, times and covariates: the file format is no part.

        The fingerprint of a panel that ranks share does not depend on the number of ranks.
        """
        if self.shared is not None:
            return self._fingerprint_of_parts()

        digest = hashlib.sha256()
        for array in (self.target, self.offsets, self.start, np.int64(self.step_us), self.base):
            digest.update(np.ascontiguousarray(array).data)
        if self.covariates is not None:
            blocks = (*self.covariates.known, self.covariates.past)
            for array in (self.covariates.static, *(block.values for block in blocks)):
                digest.update(np.ascontiguousarray(array).data)
        digest.update("\0".join(self.names).encode())
        return digest.hexdigest()

    def _fingerprint_of_parts(self) -> str:
        """Return a SHA-256 over the digests of all series, in their order, from all ranks."""
        local_series = np.flatnonzero(self.is_local)
        digests = np.zeros((len(local_series), hashlib.sha256().digest_size), np.uint8)
        for row, series in zip(digests, local_series.tolist(), strict=True):
            digest = hashlib.sha256(self.names[series].encode())
            readings = self.target[self.offsets[series] : self.offsets[series + 1]]
            arrays = [readings, self.start[series], self.base[series]]
            if self.covariates is not None:
                arrays.append(self.covariates.static[series])
                # Features that all series share come from the calendar, thus from the times.
                arrays += [
                    block.values[:, block.low[series] : block.high[series]]
                    for block in (*self.covariates.known, self.covariates.past)
                    if block.is_per_series()
                ]
            for array in arrays:
                digest.update(np.ascontiguousarray(array).data)
            row[:] = np.frombuffer(digest.digest(), np.uint8)

        all_digests = all_gather(self.ranks, digests)
        return hashlib.sha256(np.int64(self.step_us).tobytes() + all_digests.tobytes()).hexdigest()

    def begins(self, series: Integers) -> Integers:
        """Return where series that this process stores begin in `target`, `(window,)`."""
        assert self.shared is None or self.shared.is_local[series].all(), "these rows are elsewhere"
        return self.offsets[series]


class Features(NamedTuple):
    """The covariates of some windows, NaN where unknown."""

    known: Floats
    """`(window, feature, lookback + horizon)`: known ahead, over history and horizon."""
    past: Floats
    """`(window, feature, lookback)`: known up to now."""
    static: Floats
    """`(window, feature)`: constant for each series."""


@dataclass(frozen=True)
class FeatureBlock:
    """Features of many series in one array: a range of places for each, or one that all share.

    Row t of series s is `values[:, begin[s] + t]` where that place lies in `[low[s], high[s])`,
    else unknown. Rows may lie before the first and after the last reading of the series.
    """

    values: Floats
    """`(feature, place)`, NaN where unknown."""
    names: tuple[str, ...]
    begin: Integers
    """`(series,)`: the place of each series' first row."""
    low: Integers
    """`(series,)`: the first place that belongs to the series."""
    high: Integers
    """`(series,)`: the end of these places, exclusive."""

    def is_per_series(self) -> bool:
        """Tell whether each series has a range of its own."""
        return bool((self.high - self.low).sum() <= self.values.shape[1])

    def select(self, series: Integers) -> FeatureBlock:
        """Return the features of these series, in this order."""
        begin, low, high = (array[series] for array in (self.begin, self.low, self.high))
        return replace(self, begin=begin, low=low, high=high)

    def places_before(self, n_rows: Integers) -> NDArray[np.bool_]:
        """Tell which places, `(place,)`, belong to rows before row `n_rows[s]` of any series."""
        n_places = self.values.shape[1]
        edges = np.zeros(n_places + 1, np.int64)
        np.add.at(edges, self.low, 1)
        np.add.at(edges, np.clip(self.begin + n_rows, self.low, self.high), -1)
        return np.cumsum(edges)[:n_places] > 0

    def gather_from_ranks(
        self, chosen: Integers, is_local: NDArray[np.bool_], ranks: Ranks
    ) -> FeatureBlock:
        """Return the rows of a few series, by their numbers, on all ranks; others have none.

        `is_local`, `(series,)`, tells which series this rank stores.
        """
        if not self.is_per_series():
            return self

        sizes = all_reduce_masked(ranks, self.high - self.low, is_local)
        n_before = all_reduce_masked(ranks, self.begin - self.low, is_local)
        n_features, parts = len(self.values), []
        for series in chosen.tolist():
            part = np.zeros((n_features, sizes[series]), np.float32)
            if is_local[series]:
                part = self.values[:, self.low[series] : self.high[series]]
            parts.append(all_reduce_masked(ranks, part, np.full(n_features, is_local[series])))

        low = np.zeros_like(self.low)
        low[chosen] = np.cumsum(sizes[chosen]) - sizes[chosen]
        high = low.copy()
        high[chosen] += sizes[chosen]
        values = np.concatenate(parts, 1)
        return replace(self, values=values, begin=low + n_before, low=low, high=high)

    def gather(self, series: Integers, first: Integers, width: int) -> Floats:
        """Return rows `[first, first + width)` of series, `(window, feature, width)`.

        `series` and `first` are `(window,)`. Row -1 is the one before the first reading. NaN
        where a series has no such row.
        """
        places = (self.begin[series] + first)[:, None] + np.arange(width)
        is_inside = (places >= self.low[series, None]) & (places < self.high[series, None])
        features: Floats
        if is_inside.all():
            features = self.values[:, places]
        else:
            features = self.values[:, np.where(is_inside, places, 0)]
            features[:, ~is_inside] = np.nan
        return features.transpose(1, 0, 2)  # (feature, window, width) -> (window, feature, width)


@dataclass(frozen=True)
class Covariates:
    """The covariates of a panel's series, by what is known of them at a cutoff."""

    known: tuple[FeatureBlock, ...]
    """Known ahead: columns of the table, and features of the calendar."""
    past: FeatureBlock
    """Known up to now."""
    static: Floats
    """`(series, feature)`: constant for each series."""
    static_names: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Number of features known ahead, known up to now, and static."""
        n_known = sum(len(block.values) for block in self.known)
        return n_known, len(self.past.values), self.static.shape[1]

    @property
    def known_names(self) -> tuple[str, ...]:
        """The name of each feature that is known ahead."""
        return tuple(name for block in self.known for name in block.names)

    def end_known(self, rows: Integers) -> Covariates:
        """Return the covariates without those that are known ahead from row `rows[s]` on.

        Only their values are what they were: places of series move.
        """
        known = tuple(
            replace(block, values=block.values[:, block.places_before(rows)])
            for block in self.known
        )
        return replace(self, known=known)

    def select(self, series: Integers) -> Covariates:
        """Return the covariates of these series, in this order."""
        return Covariates(
            known=tuple(block.select(series) for block in self.known),
            past=self.past.select(series),
            static=self.static[series],
            static_names=self.static_names,
        )

    def gather_from_ranks(
        self, chosen: Integers, is_local: NDArray[np.bool_], ranks: Ranks
    ) -> Covariates:
        """Return the covariates of a few series on all ranks; series keep their numbers."""
        return replace(
            self,
            known=tuple(block.gather_from_ranks(chosen, is_local, ranks) for block in self.known),
            past=self.past.gather_from_ranks(chosen, is_local, ranks),
            static=all_reduce_masked(ranks, self.static, is_local),
        )

    def shift(self, rows: Integers) -> Covariates:
        """Return the covariates of a panel whose series begin `rows[s]` rows later."""
        known = tuple(replace(block, begin=block.begin + rows) for block in self.known)
        return replace(self, known=known, past=replace(self.past, begin=self.past.begin + rows))

    def mask_after(self, rows: Integers) -> Covariates:
        """Return the covariates with those known up to now NaN from row `rows[s]` of each series.

        Covariates known ahead, and static ones, stay.
        """
        values = np.where(self.past.places_before(rows), self.past.values, np.float32(np.nan))
        return replace(self, past=replace(self.past, values=values))

    def features(self, series: Integers, row: Integers, *, lookback: int, horizon: int) -> Features:
        """Gather the covariates of windows whose first row ahead is `row`, `(window,)`.

        Covariates that are not known ahead end before that row.
        """
        first = row - lookback
        known = [block.gather(series, first, lookback + horizon) for block in self.known]
        return Features(
            known=known[0] if len(known) == 1 else np.concatenate(known, axis=1),
            past=self.past.gather(series, first, lookback),
            static=self.static[series],
        )


def covariates_from_columns(
    columns: dict[str, list[Floats]],
    names: dict[str, tuple[str, ...]],
    offsets: Integers,
    n_targets: int,
) -> Covariates:
    """Make the covariates of a panel from columns by role: "known", "past" and "static".

    Columns are `(place,)`, static ones `(series,)`. All targets of a wide table share them.
    """
    begin, high = np.tile(offsets[:-1], n_targets), np.tile(offsets[1:], n_targets)

    def make_block(role: str) -> FeatureBlock:
        values = np.array(columns[role], np.float32).reshape(-1, int(offsets[-1]))
        return FeatureBlock(values, names[role], begin, low=begin, high=high)

    static = np.array(columns["static"], np.float32).reshape(-1, len(offsets) - 1)
    static = np.tile(static.T, (n_targets, 1))
    return Covariates((make_block("known"),), make_block("past"), static, names["static"])
