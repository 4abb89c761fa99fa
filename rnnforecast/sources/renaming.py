"""Columns under other names: what a model calls them, where the table has renamed them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from rnnforecast.errors import Location, UsageError
from rnnforecast.sources.columns import Column
from rnnforecast.sources.reading import Source, WrappedSource


@dataclass(frozen=True)
class Renamed(WrappedSource):
    """A source some of whose columns have other names."""

    own: dict[str, str]
    """What a column is called in the source, by its new name."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns under their new names."""
        new = {own: name for name, own in self.own.items()}
        return tuple(replace(c, name=new.get(c.name, c.name)) for c in self.source.columns)

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read these columns under their new names."""
        asked = {self.own.get(name, name): type_ for name, type_ in wanted.items()}
        for batch in self.source.batches(asked):
            columns = [batch.column(self.own.get(name, name)) for name in wanted]
            yield pa.RecordBatch.from_arrays(columns, names=list(wanted))

    def location(self, row: int, column: str) -> Location:
        """Say where a row stands; the column has the name that stands there."""
        return self.source.location(row, self.own.get(column, column))


def rename(source: Source, pairs: Sequence[str]) -> Source:
    """Call columns what `new=old` pairs say: the one that is called new becomes old."""
    own = {old: new for new, _, old in (pair.partition("=") for pair in pairs)}
    if not own:
        return source
    names = {column.name for column in source.columns}
    for old, new in own.items():
        if new not in names:
            raise UsageError(
                f"--map {new}={old}: {source.name} has no column {new!r}",
                hint="the new name comes first, then the one that the model knows",
            )
        if old in names:
            raise UsageError(f"--map {new}={old}: {source.name} has a column {old!r}, too")
    return Renamed(source, own)
