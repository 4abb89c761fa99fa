"""Columns as they are stored: their own names and types, below what renames and joins them.

For who hands rows on as they are. A text file has no types: there numbers are numbers, and all else
is text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned
from rnnforecast.sources.parquetfile import ParquetSource, TableSource
from rnnforecast.sources.reading import Source, WrappedSource
from rnnforecast.sources.renaming import Renamed
from rnnforecast.sources.shards import ShardFolder
from rnnforecast.sources.splittime import JoinedTime


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
