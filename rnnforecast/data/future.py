"""What is known of the future: rows of a second file, and whether a forecast has all it needs.

Between `reading`, which opens files, and `newer`, which reads for a trained model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rnnforecast.data.forecast import Past
from rnnforecast.data.schema import Schema, check_column
from rnnforecast.data.stamps import format_stamp
from rnnforecast.errors import DataError, Location
from rnnforecast.sources.columns import Column
from rnnforecast.sources.reading import Source, WrappedSource

_SHOWN = 3


@dataclass(frozen=True)
class WithFuture(WrappedSource):
    """A source whose rows are followed by those of another one, which has fewer columns."""

    future: Source

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are read."""
        return (*self.source.paths, *self.future.paths)

    @property
    def n_rows_about(self) -> int:
        """How many rows both have."""
        return self.source.n_rows_about + self.future.n_rows_about

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the readings."""
        return self.source.columns

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read both, one after the other; what the second one lacks is missing there."""
        yield from self.source.batches(wanted)
        names = {column.name for column in self.future.columns}
        there = {name: type_ for name, type_ in wanted.items() if name in names}
        for batch in self.future.batches(there):
            columns = [
                batch.column(name) if name in there else pa.nulls(batch.num_rows, type_)
                for name, type_ in wanted.items()
            ]
            yield pa.RecordBatch.from_arrays(columns, names=list(wanted))

    def location(self, row: int, column: str) -> Location:
        """Find the file that holds the row, and the line."""
        names = {one.name: pa.string() for one in self.source.columns if one.name == column}
        n_rows = sum(batch.num_rows for batch in self.source.batches(names))
        if row < n_rows:
            return self.source.location(row, column)
        return self.future.location(row - n_rows, column)

    def rejected(self) -> list[Location]:
        """Gather them from both."""
        return [*self.source.rejected(), *self.future.rejected()]


def with_future(source: Source, future: Source, schema: Schema) -> Source:
    """Let the rows of a second source follow. Raises `DataError` where it lacks a column.

    It must have the time, the series of a long table, and what is known ahead; its readings of
    anything else are not used.
    """
    known = [c.name for c in schema.covariates if c.role == "known"]
    names = [column.name for column in future.columns]
    for name in (schema.time, schema.series, *known):
        if name is not None:
            check_column(name, names, future.name, code="missing-column")
    used = {schema.time, schema.series, *known}
    return WithFuture(source, _Part(future, frozenset(name for name in names if name in used)))


@dataclass(frozen=True)
class _Part(WrappedSource):
    """Some columns of a source."""

    names: frozenset[str]

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those columns."""
        return tuple(column for column in self.source.columns if column.name in self.names)

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read them."""
        yield from self.source.batches(wanted)

    def location(self, row: int, column: str) -> Location:
        """Say where a row stands."""
        return self.source.location(row, column)


def check_known_ahead(past: Past, horizon: int, tz: str | None) -> None:
    """Raise `DataError`, with the stamps, where a covariate is not known over the horizon."""
    n_known = past.n_features[0]
    features = past.features(1, horizon)
    if not n_known or features is None:
        return
    unknown = np.isnan(features.known[:, :, 1:])  # (origin, feature, lead)
    if not unknown.any():
        return
    origin = int(np.argmax(unknown.any((1, 2))))
    feature = int(np.argmax(unknown[origin].any(1)))
    leads = np.flatnonzero(unknown[origin, feature]) + 1
    column = past.known_names[feature].partition("=")[0]
    times = past.cutoff_time[origin] + leads * past.step_us
    shown = ", ".join(format_stamp(int(time), tz) for time in times[:_SHOWN])
    more = f", ... ({len(times)} of {horizon})" if len(times) > _SHOWN else ""
    raise DataError(
        f"{column!r} is not known for {past.names[past.series[origin]]!r} at {shown}{more}",
        code="missing-future",
        hint="add rows with these stamps below the last reading, without readings, or pass them in "
        "a second file with  --future FILE",
    )
