"""A time that is spread over columns, as year, month, day and hour, or as date and time of day.

Between `reading`, which gives a source, and `schema`, which looks for its one time column: here
the columns are joined into one, whose name is theirs with commas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.errors import DataError, Location
from rnnforecast.sources.columns import Column, is_time_of_day
from rnnforecast.sources.dialect import quote
from rnnforecast.sources.reading import Source, WrappedSource

_PARTS = ("year", "month", "day", "hour", "minute", "second")
_BEFORE = ("", "-", "-", " ", ":", ":")
_DATE_NAMES = ("date", "day", "datum", "fecha", "data")
_CLOCK_NAMES = ("time", "hour", "clock", "time_of_day", "zeit", "uhrzeit", "hora", "heure", "ora")


@dataclass(frozen=True)
class JoinedTime(WrappedSource):
    """A source whose time stands in several columns, seen as one with a single time column."""

    parts: tuple[str, ...]

    @property
    def time(self) -> str:
        """The name of the joined column."""
        return ",".join(self.parts)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The joined column, and all that are not part of it."""
        by_name = {column.name: column for column in self.source.columns}
        samples = [pa.array(by_name[part].sample) for part in self.parts]
        shortest = min(map(len, samples))
        sample = self._join([texts[:shortest] for texts in samples]).to_pylist()
        others = (c for c in self.source.columns if c.name not in self.parts)
        return (Column(self.time, "time", tuple(sample)), *others)

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read these columns; a row that lacks a part of its time has none."""
        others = {name: type_ for name, type_ in wanted.items() if name != self.time}
        parts = dict.fromkeys(self.parts, pa.string()) if self.time in wanted else {}
        for batch in self.source.batches({**others, **parts}):
            columns = {name: batch.column(name) for name in others}
            if parts:
                columns[self.time] = self._join([batch.column(part) for part in self.parts])
            yield pa.RecordBatch.from_pydict(columns)

    def location(self, row: int, column: str) -> Location:
        """Say where a row stands; its time stands where the first part does."""
        return self.source.location(row, self.parts[0] if column == self.time else column)

    def _join(self, texts: list[pa.Array]) -> pa.Array:
        """Put the parts together as ISO 8601 has them."""
        trimmed = [pc.utf8_trim_whitespace(text) for text in texts]
        places = _places(self.parts)
        if places is None:
            return pc.binary_join_element_wise(*trimmed, " ")
        whole = [pc.replace_substring_regex(text, r"\.0*$", "") for text in trimmed]
        padded = [
            pc.binary_join_element_wise(_BEFORE[i], pc.utf8_lpad(text, 2 if i else 4, "0"), "")
            for i, text in zip(places, whole, strict=True)
        ]
        rest = [f"{_BEFORE[i]}{'01' if i < 3 else '00'}" for i in range(len(places), 5)]
        return pc.binary_join_element_wise(*padded, *rest, "")


def join_time(source: Source, wanted: str | None) -> Source:
    """Return the source with one time column: as it is, or with the columns joined that hold it.

    `wanted` is what the user, or a stored schema, calls the time. Without it the columns are joined
    where their names say so; where only what they hold does, `DataError` asks.
    """
    names = [column.name for column in source.columns]
    if wanted is not None:
        parts = tuple(part.strip() for part in wanted.split(","))
        is_joined = wanted not in names and len(parts) > 1 and set(parts) <= set(names)
        return JoinedTime(source, parts) if is_joined else source
    calendar = {name.strip().casefold(): name for name in reversed(names)}
    parts = tuple(calendar[part] for part in _PARTS if part in calendar)
    has_time = any(column.kind == "time" for column in source.columns)
    if not has_time and len(parts) > 1 and _places(parts) is not None:
        return JoinedTime(source, parts)
    clock = next(
        (c for c in source.columns if c.sample and all(map(is_time_of_day, c.sample))), None
    )
    date = next((c for c in source.columns if _is_date_alone(c)), None)
    if clock is None or date is None:
        return source
    is_said = (
        date.name.strip().casefold() in _DATE_NAMES
        and clock.name.strip().casefold() in _CLOCK_NAMES
    )
    if is_said:
        return JoinedTime(source, (date.name, clock.name))
    raise DataError(
        f"the time may be spread over the columns {date.name!r} and {clock.name!r}",
        code="split-time",
        location=Location(source.name),
        hint=f"if it is, add  --time {quote(f'{date.name},{clock.name}')}",
    )


def _places(parts: tuple[str, ...]) -> list[int] | None:
    """Return the places of year, month and so on; None unless they are the first of these."""
    places = [_PARTS.index(name) for part in parts if (name := part.strip().casefold()) in _PARTS]
    return places if places == list(range(len(parts))) else None


def _is_date_alone(column: Column) -> bool:
    return column.kind == "time" and not any(":" in text for text in column.sample)
