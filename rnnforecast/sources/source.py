"""Open a path, glob, folder, table or stdin as a Source; rename and join columns."""

from __future__ import annotations

import glob
import shutil
import sys
import tempfile
import weakref
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, Location, UsageError
from rnnforecast.events import Listener, Warned, ignore
from rnnforecast.sources.columns import Column, is_time_of_day
from rnnforecast.sources.csv import CsvFile, open_csv_file
from rnnforecast.sources.files import expand_remote
from rnnforecast.sources.parquet import ParquetFile, ParquetSource, TableSource, open_parquet
from rnnforecast.sources.shards import ShardFolder, is_sharded, open_shards
from rnnforecast.sources.sniff import quote
from rnnforecast.storage.remote import Place, Remote, place_of

_CSV_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_PARQUET_ENDINGS = (".parquet", ".pq")
STANDARD_INPUT = "-"
_PARTS = ("year", "month", "day", "hour", "minute", "second")
_BEFORE = ("", "-", "-", " ", ":", ":")
_DATE_NAMES = ("date", "day", "datum", "fecha", "data")
_CLOCK_NAMES = ("time", "hour", "clock", "time_of_day", "zeit", "uhrzeit", "hora", "heure", "ora")


class Source(Protocol):
    """Readings that have not been read yet."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, in the order of the file."""

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read these columns as these types, a batch at a time; text that cannot be is an error.

        Time stamps may come as text, though: there are more ways to write them than ISO 8601.
        """

    def location(self, row: int, column: str) -> Location:
        """Say where a row (counted over all batches) stands."""

    def rejected(self) -> list[Location]:
        """Say where the rows stand that the last reading skipped."""

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""

    @property
    def n_rows_about(self) -> int:
        """How many rows there are, as far as can be told without reading them."""


@dataclass(frozen=True)
class WrappedSource:
    """What a source seen in another way has in common with it."""

    source: Source

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.source.name

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""
        return self.source.paths

    @property
    def n_rows_about(self) -> int:
        """How many rows there are, as far as can be told without reading them."""
        return self.source.n_rows_about

    def rejected(self) -> list[Location]:
        """Say where the rows stand that the last reading skipped."""
        return self.source.rejected()


@dataclass(frozen=True)
class CsvSource:
    """One CSV file, or several with the same columns, one after the other."""

    name: str
    files: tuple[CsvFile, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The first file's columns; the others have the same names."""
        return self.files[0].columns

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read the files one after the other."""
        for file in self.files:
            yield from file.batches(wanted)

    def location(self, row: int, column: str) -> Location:
        """Find the file that holds the row, and the line."""
        for file in self.files[:-1]:
            n_rows = sum(b.num_rows for b in file.batches({column: pa.string()}))
            if row < n_rows:
                return file.location(row, column)
            row -= n_rows
        return self.files[-1].location(row, column)

    def rejected(self) -> list[Location]:
        """Gather them from all files."""
        return [place for file in self.files for place in file.rejected()]

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""
        return tuple(file.path for file in self.files)

    @property
    def n_rows_about(self) -> int:
        """How many rows there are, by the size of the files and of their first rows."""
        return sum(file.n_rows_about for file in self.files)


def open_source(data: object, config: DataConfig, listener: Listener = ignore) -> Source:
    """Open a path, a glob, `-`, a pandas table or an Arrow table. Raises `DataError`.

    Some buckets of a folder are open already.
    """
    if isinstance(data, ShardFolder):
        return data
    if isinstance(data, str | Path):
        return _open_path(str(data), config, listener)
    table = data if isinstance(data, pa.Table) else table_of(data)
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(
            "two columns of the table have the same name",
            code="duplicate-column",
            hint="give every column a name of its own",
        )
    if not table.num_rows:
        raise DataError("the table has columns, but no readings", code="header-only")
    return TableSource(table)


def _open_path(text: str, config: DataConfig, listener: Listener) -> Source:
    if not text:
        raise UsageError("the path of the readings is empty", hint="pass a file, a folder or -")
    if text == STANDARD_INPUT:
        return _open_standard_input(config, listener)
    place = place_of(text)
    text = text if isinstance(place, Path) else str(place)
    if is_sharded(place):
        return open_shards(text)
    paths: Sequence[Place] = expand_remote(place) if isinstance(place, Remote) else _expand(text)
    if all(path.name.lower().endswith(_CSV_ENDINGS) or not path.suffix for path in paths):
        files = tuple(open_csv_file(path, config, listener, shown=str(path)) for path in paths)
        _check_same_columns(files)
        return CsvSource(text, files)
    strange = next((p for p in paths if p.suffix.lower() not in _PARQUET_ENDINGS), None)
    if strange is not None and strange.name.lower().endswith(_CSV_ENDINGS):
        raise DataError(
            f"{text} holds CSV files and others, or is a folder of them: {strange}",
            code="mixed-formats",
            location=Location(str(strange)),
            hint=f"name the CSV files with a pattern in quotes, such as  '{place / '*.csv'}'"
            if place.is_dir()
            else "name files of one format",
        )
    if strange is not None:
        raise DataError(
            f"{strange} is neither CSV nor Parquet",
            code="unknown-format",
            location=Location(str(strange)),
            hint=f"name it with one of {' '.join(_CSV_ENDINGS + _PARQUET_ENDINGS)}",
        )
    return open_parquet(text, tuple(ParquetFile(p, _folder_values(p, place)) for p in paths))


def _expand(text: str) -> list[Path]:
    """Return the files that a path stands for: itself, a folder's Parquet files, or a glob's."""
    path = Path(text)
    try:
        path.exists()
    except (OSError, ValueError) as error:
        raise DataError(f"{text} cannot be a path: {error}", code="not-found") from error
    if path.is_dir():
        found = [
            p
            for p in sorted(path.rglob("*"))
            if p.is_file() and not any(x.startswith(("_", ".")) for x in p.relative_to(path).parts)
        ]
        if found:
            return found
        raise DataError(f"the folder {text} has no files", code="empty", location=Location(text))
    if path.exists():
        if not path.is_file():
            raise DataError(f"{text} is not a regular file", code="not-a-file")
        return [path]
    found = [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
    if found:
        return found
    what = "matches no file" if glob.has_magic(text) else "does not exist"
    raise DataError(
        f"{text} {what}", code="not-found", hint="check the path; quote a pattern such as 'a/*.csv'"
    )


def _open_standard_input(config: DataConfig, listener: Listener) -> Source:
    """Copy standard input to a file that goes with the source: a table is looked at twice."""
    file = tempfile.NamedTemporaryFile(prefix="rnnforecast-", suffix=".csv")  # noqa: SIM115
    try:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        csv_file = open_csv_file(Path(file.name), config, listener, shown="standard input")
    except BaseException:
        file.close()
        raise
    source = CsvSource("standard input", (csv_file,))
    weakref.finalize(source, file.close)
    return source


def _folder_values(path: Place, folder: Place) -> tuple[tuple[str, str], ...]:
    """Read what subfolders are called, such as `id=007`, as text: it names things."""
    if isinstance(path, Remote) and isinstance(folder, Remote):
        parts = path.parts_below(folder)
    elif isinstance(path, Path) and isinstance(folder, Path) and folder.is_dir():
        parts = path.relative_to(folder).parts
    else:
        return ()
    pairs = (part.partition("=") for part in parts[:-1])
    return tuple((name, unquote(value)) for name, mark, value in pairs if mark)


def _check_same_columns(files: tuple[CsvFile, ...]) -> None:
    names = {column.name for column in files[0].columns}
    for file in files[1:]:
        other = {column.name for column in file.columns}
        if other != names:
            raise DataError(
                f"{file.shown} has other columns than {files[0].shown}: "
                f"{', '.join(sorted(names ^ other))}",
                code="different-columns",
                location=Location(file.shown),
            )


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


def table_of(data: object) -> pa.Table:
    """Return a pandas table as an Arrow table; an index that holds times is a column."""
    if isinstance(data, pd.DataFrame):
        frame: Any = data
        names = [name for name in data.index.names if name is not None]
        if (names or isinstance(data.index, pd.DatetimeIndex)) and not set(names) & set(data):
            frame = data.reset_index()
        types = dict(zip(frame.columns, frame.dtypes, strict=True))
        sparse = {n: t.subtype for n, t in types.items() if isinstance(t, pd.SparseDtype)}
        try:
            dense = frame.astype(sparse) if sparse else frame
            table = pa.Table.from_pandas(dense, preserve_index=False)
        except (pa.ArrowException, ValueError) as error:
            raise DataError(
                f"the pandas table cannot be read: {error}",
                code="unreadable",
                hint="give every column a name of its own, and values of one type",
            ) from error
        _reject_mixed_zones(frame, table)
        return table
    raise DataError(
        f"readings must be a path, a pandas table or an Arrow table, not {type(data).__name__}",
        code="unknown-format",
    )


def _reject_mixed_zones(frame: Any, table: pa.Table) -> None:
    """Raise `DataError` for a column of times only some of which have a zone.

    Arrow takes those without one for UTC.
    """
    for field in table.schema:
        if not pa.types.is_timestamp(field.type) or frame[field.name].dtype != object:
            continue
        zones: dict[bool, int] = {}
        for row, time in enumerate(frame[field.name], start=1):
            if not pd.isna(time):
                zones.setdefault(getattr(time, "tzinfo", None) is None, row)
        if len(zones) > 1:
            raise DataError(
                f"some times in column {field.name!r} have a zone, others none",
                code="mixed-zones",
                location=Location("the table", max(zones.values()), field.name, unit="row"),
                hint="give all of them a zone, or none; --tz names the zone of times without one",
            )


def stored_source(source: Source) -> Source:
    """Return what lies below all that shows a source in another way."""
    while isinstance(source, WrappedSource):
        source = source.source
    return source


def stored_names(source: Source, name: str) -> tuple[str, ...]:
    """Return what a column is called where it is stored: one name, or those that are joined."""
    names: tuple[str, ...] = (name,)
    if isinstance(source, JoinedTime) and name == source.time:
        names = source.parts
    elif isinstance(source, Renamed):
        names = (source.own.get(name, name),)
    if not isinstance(source, WrappedSource):
        return names
    return tuple(own for one in names for own in stored_names(source.source, one))


def stored_types(
    source: Source, texts: Collection[str], used: Collection[str], listener: Listener
) -> dict[str, pa.DataType]:
    """Return the types to read all columns of a stored source as, in its order.

    Of a text file, `texts` are texts although they look like numbers. Of Parquet files, columns
    that are `used` may be missing in none; others that are, are left out, which is said. Raises
    `DataError` for one that has no type that holds all.
    """
    names = [column.name for column in source.columns]
    if isinstance(source, TableSource):
        return {name: _plain(source.table.schema.field(name).type) for name in names}
    if isinstance(source, ParquetSource | ShardFolder):
        return _types_of_files(source, names, used, listener)
    return {
        column.name: pa.float64()
        if column.kind == "number" and column.name not in texts
        else pa.string()
        for column in source.columns
    }


def _types_of_files(
    source: ParquetSource | ShardFolder,
    names: Sequence[str],
    used: Collection[str],
    listener: Listener,
) -> dict[str, pa.DataType]:
    found: dict[str, list[pa.DataType]] = {name: [] for name in names}
    for file in source.files:
        schema = file.schema
        for name in set(schema.names) & found.keys():
            known, type_ = found[name], _plain(schema.field(name).type)
            if type_ not in known:
                known.append(type_)
        lacking = found.keys() - set(schema.names) - set(used)
        if lacking:
            message = f"not in every file, left out: {', '.join(sorted(lacking))}"
            listener(Warned("different-columns", message, len(lacking)))
            found = {name: types for name, types in found.items() if name not in lacking}
    return {name: _common(name, types, source.name) for name, types in found.items()}


def _plain(type_: pa.DataType) -> pa.DataType:
    """Return the type of the values where they are kept in a dictionary: Parquet makes its own."""
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _common(name: str, types: Sequence[pa.DataType], source: str) -> pa.DataType:
    """Return a type for all values; where only zones differ the first, which is an error later."""
    if len(types) == 1:
        return types[0]
    if all(pa.types.is_timestamp(type_) for type_ in types):
        if len({type_.tz is None for type_ in types}) > 1:
            return types[0]
        return pa.timestamp("ns" if pa.timestamp("ns", types[0].tz) in types else "us", types[0].tz)
    try:
        schemas = [pa.schema([(name, type_)]) for type_ in types]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException as error:
        raise DataError(
            f"column {name!r} of {source} is {types[0]} in one file and {types[1]} in another",
            code="different-columns",
            location=Location(source, column=name),
            hint="write it with one type",
        ) from error
