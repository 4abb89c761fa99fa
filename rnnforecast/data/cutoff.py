"""Rows as they stood at a moment: what was read or decided later is not there.

Between `rows`, which reads all of them, and `timegrid`. What is known ahead stays: it was known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.data.panel import pick
from rnnforecast.data.rows import Rows
from rnnforecast.data.schema import Schema
from rnnforecast.data.stamps import format_stamp, parse_time_us
from rnnforecast.errors import Location, NotEnoughDataError
from rnnforecast.sources.columns import Column
from rnnforecast.sources.reading import Source, WrappedSource

Chunks = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class _Kept(WrappedSource):
    """A source of which some rows are kept, `(row,)` in chunks: errors name their own lines."""

    kept: Chunks

    @property
    def columns(self) -> tuple[Column, ...]:
        """All of them."""
        return self.source.columns

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read all rows."""
        return self.source.batches(wanted)

    def location(self, row: int, column: str) -> Location:
        """Say where one of the rows that are kept stands."""
        for n_before, kept in zip(self._n_before(), self.kept, strict=True):
            own = np.flatnonzero(kept)
            if row < len(own):
                return self.source.location(n_before + int(own[row]), column)
            row -= len(own)
        return self.source.location(row, column)

    def _n_before(self) -> list[int]:
        return [0, *np.cumsum([len(kept) for kept in self.kept]).tolist()][:-1]


def rows_until(
    rows: Rows, source: Source, as_of: str, schema: Schema, tz: str | None
) -> tuple[Rows, Source]:
    """Return the rows up to a moment, and later ones only for what they tell ahead.

    With them comes a source that knows where they stand. Raises `NotEnoughDataError` where there
    is none.
    """
    until_us = parse_time_us(as_of, tz)
    is_late = [times > until_us for times in rows.times]
    has_begun = np.zeros(rows.n_series, np.bool_)
    for codes, late in zip(rows.codes, is_late, strict=True):
        has_begun[codes[~late]] = True
    if not has_begun.any():
        first = format_stamp(min(int(times.min()) for times in rows.times), tz)
        raise NotEnoughDataError(
            f"--as-of {as_of} lies before the first reading, {first}",
            code="too-short",
            hint="pass a later time",
        )
    known = {c.name for c in schema.covariates if c.role == "known"}
    if known:
        later_known = [chunks for name, chunks in rows.covariates.items() if name not in known]
        for chunks in (*rows.values, *later_known):
            for chunk, late in zip(chunks, is_late, strict=True):
                chunk[late] = np.nan
        kept = [has_begun[codes] for codes in rows.codes]
    else:
        kept = [~late for late in is_late]
    chosen = _chosen(rows, kept, has_begun, is_long=schema.series is not None)
    return chosen, _Kept(source, kept)


def _chosen(rows: Rows, kept: Chunks, series: NDArray[np.bool_], *, is_long: bool) -> Rows:
    """Return some rows, of some series only, with these numbered anew."""
    number = np.cumsum(series) - 1
    n_planned = _n_last(kept, rows.n_planned)

    def those(chunks: Chunks, change: Callable[[Any], Any] = lambda x: x) -> list[NDArray[Any]]:
        return [change(c[k]) for c, k in zip(chunks, kept, strict=True) if k.any()]

    return Rows(
        those(rows.times),
        those(rows.codes, lambda codes: number[codes]),
        [those(chunks) for chunks in rows.values],
        [base[series] for base in rows.base],
        list(pick(rows.names, series)) if is_long else rows.names,
        {name: those(chunks) for name, chunks in rows.covariates.items()},
        rows.texts,
        rows.plan,
        n_planned,
    )


def _n_last(kept: Chunks, n: int) -> int:
    """Return how many of the last n rows, counted over all chunks, are kept."""
    found = 0
    for chunk in reversed(kept):
        last = chunk[max(len(chunk) - n, 0) :]
        n -= len(last)
        found += int(np.count_nonzero(last))
    return found
