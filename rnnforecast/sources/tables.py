"""Tables of other formats: JSON lines, Excel sheets, Arrow files, and queries of a database.

Each becomes an Arrow table in memory; a sheet becomes the text of a CSV file, so that its header,
its missing cells and its rows are looked at as those of text files are.
"""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote
from zipfile import BadZipFile

import pandas as pd
import pyarrow as pa
import pyarrow.feather as pa_feather
import pyarrow.json as pa_json

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, Location, Proposal, UsageError, option_for_each
from rnnforecast.events import Listener, Notice
from rnnforecast.sources.files import check_memory
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.numbers import MISSING, NUMERIC_SHARE
from rnnforecast.sources.parquet import TableSource
from rnnforecast.sources.text import open_binary, readable, unpacked_size
from rnnforecast.storage.durable import as_write_error
from rnnforecast.storage.remote import check_json_lines
from rnnforecast.urls import Database

JSON_ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
EXCEL_ENDINGS = (".xlsx", ".xlsm")
ARROW_ENDINGS = (".feather", ".arrow")
_CHUNK_BYTES = 1 << 24
_MAX_LISTED = 5
"""Texts, tables or sheets that are offered."""
_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("true or false", (bool,)),  # before numbers: a bool is an int, too
    ("numbers", (int, float, Decimal)),
    ("times", (datetime, date)),
    ("texts", (str,)),
)


def open_arrow_file(file: InputFile, name: str) -> TableSource:
    """Open a Feather file, or one of Arrow's batches. Raises `DataError` if it is damaged."""
    try:
        with open_binary(file) as stream:
            content = stream.read()
        try:
            table = pa_feather.read_table(pa.BufferReader(content))
        except pa.ArrowInvalid:
            with pa.ipc.open_stream(content) as reader:
                table = reader.read_all()
    except (pa.ArrowException, OSError) as error:
        hint = "the file may still be being written or is truncated; copy it again"
        raise _unreadable(f"{name} is not a complete Arrow file: {error}", name, hint) from error
    return TableSource(table, name, (file,)).check()


def _unreadable(message: str, name: str, hint: str) -> DataError:
    return DataError(message, code="unreadable", location=Location(name), hint=hint)


def open_json_lines(file: InputFile, config: DataConfig, name: str) -> TableSource:
    """Open a file with a JSON object in each line; a missing key and null are missing readings.

    Objects within objects become columns such as `a.b`. Raises `DataError` with the line for what
    is no object, and for a column that holds numbers and something else.
    """
    lines = _json_lines(file, config, name)
    numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
    if not numbers:
        raise DataError(
            f"{name} is empty", code="empty", location=Location(name), hint="use a file with rows"
        )
    first = lines[numbers[0] - 1].strip()
    if first.startswith(b"["):
        raise DataError(
            f"{name} is a JSON array; only JSON lines (one object per line) are supported",
            code="unknown-format",
            location=Location(name, numbers[0]),
            hint="convert it to JSON lines, e.g. with  jq -c '.[]'",
        )

    content = b"\n".join(lines)
    try:
        check_json_lines(lines)
        table = pa_json.read_json(io.BytesIO(content))
        texts = [pa.field(f.name, _with_text_times(f.type)) for f in table.schema]
        if any(field.type != f.type for field, f in zip(texts, table.schema, strict=True)):
            options = pa_json.ParseOptions(explicit_schema=pa.schema(texts))
            table = pa_json.read_json(io.BytesIO(content), parse_options=options)
    except (pa.ArrowException, ValueError):
        table = None
    if table is None or table.num_rows != len(numbers):
        # Line by line, errors have their line, and some texts are missing.
        table = _parse_json_lines(lines, numbers, config, name)
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return TableSource(table, name, (file,), "line", numbers).check()


def _with_text_times(type_: pa.DataType) -> pa.DataType:
    """Return a type with texts for times, which would lose their zone."""
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(field.name, _with_text_times(field.type)) for field in type_])
    return pa.string() if pa.types.is_timestamp(type_) else type_


def _json_lines(file: InputFile, config: DataConfig, name: str) -> list[bytes]:
    """Read the lines of a file. Raises `DataError` for one that is damaged or too large."""
    chunks: list[bytes] = []
    with readable(file, name) as stream:
        chunk = stream.read(_CHUNK_BYTES)
        n_lines = int(unpacked_size(file) / max(len(chunk), 1) * chunk.count(b"\n"))
        check_memory(n_lines, chunk[: chunk.find(b"\n")].count(b":"), config, name)
        while chunk:
            chunks.append(chunk)
            if sum(map(len, chunks)) > config.input_limit:
                raise DataError(
                    f"{name} decompresses to more than --max-input-bytes {config.max_input_bytes}",
                    code="input-bytes",
                    location=Location(name),
                )
            chunk = stream.read(_CHUNK_BYTES)

    lines = b"".join(chunks).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return lines[:-1] if lines[-1] and file.has_grown() else lines


def _parse_json_lines(
    lines: Sequence[bytes], numbers: Sequence[int], config: DataConfig, name: str
) -> pa.Table:
    """Parse JSON lines one by one, so that errors have their line."""
    rows: list[dict[str, Any]] = []
    for number in numbers:
        text = lines[number - 1].decode("utf-8", "replace").strip()
        try:
            value = json.loads(text)
            if not isinstance(value, dict):
                raise TypeError("it is another value")
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"line {number} of {name} is not a JSON object: {error}",
                code="not-json",
                location=Location(name, number, text=text),
                hint='each line must be an object, such as  {"time": "2024-05-01T12:00", '
                '"flow": 2.5}',
            ) from error
        rows.append(dict(_flatten(value)))

    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: [row.get(key) for row in rows] for key in names}

    def locate(row: int, column: str, value: object) -> Location:
        number = numbers[row]
        text = lines[number - 1].decode("utf-8", "replace").strip()
        return Location(name, number, column, text=text, token=json.dumps(value))

    return make_table(columns, config, locate)


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of objects within objects; the text of a list."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(item) if isinstance(item, list) else item


def make_table(
    columns: Mapping[str, Sequence[object]],
    config: DataConfig,
    locate: Callable[[int, str, object], Location],
) -> pa.Table:
    """Return values of Python as an Arrow table; texts that mean missing readings are null.

    `locate` returns the location of a row, a column and its value. Raises `DataError` for a column
    of numbers with other values; a column with few numbers holds texts.
    """
    missing = {*MISSING, *config.na_values}
    arrays: dict[str, pa.Array] = {}

    for name, values in columns.items():
        is_missing = [v != v or (isinstance(v, str) and v.strip() in missing) for v in values]
        present = [None if skip else v for v, skip in zip(values, is_missing, strict=True)]
        counts = Counter(kind for value in present if (kind := _kind_of(value)))
        n_numbers = counts["numbers"]
        if len(counts) > 1 and n_numbers >= NUMERIC_SHARE * counts.total():
            raise _mixed(name, present, counts, locate)
        if n_numbers and len(counts) == 1:
            arrays[name] = pa.array([None if v is None else float(v) for v in present])  # type: ignore[arg-type]
        elif len(counts) > 1 or "other" in counts:
            arrays[name] = pa.array([None if v is None else str(v) for v in present], pa.string())
        else:
            arrays[name] = pa.array(present)
    return pa.table(arrays)


def _kind_of(value: object) -> str | None:
    """Return what a value is; None where it is missing."""
    if value is None:
        return None
    return next((kind for kind, types in _KINDS if isinstance(value, types)), "other")


def _mixed(
    name: str,
    values: Sequence[object],
    counts: Counter[str],
    locate: Callable[[int, str, object], Location],
) -> DataError:
    """Return the error for a column of numbers with other values, at the first of these."""
    texts_at = [(row, v) for row, v in enumerate(values) if _kind_of(v) not in (None, "numbers")]
    row, value = texts_at[0]
    texts = Counter(v for _, v in texts_at if isinstance(v, str)).most_common(_MAX_LISTED)

    proposals = []
    if len(texts_at) == counts["texts"]:
        options = option_for_each("--na-values", [text for text, _ in texts])
        pronoun = "it" if len(texts) == 1 else "them"
        proposals = [Proposal(options, f"to treat {pronoun} as missing")]

    kinds = " and ".join(kind for kind in counts if kind != "numbers")
    return DataError(
        f"column {name!r} contains {counts['numbers']} numbers, but also {len(texts_at)} {kinds}",
        code="not-a-number",
        location=locate(row, name, value),
        proposals=proposals,
        hint=None if proposals else "use one kind of value per column",
    )


def sheet_as_text(
    file: InputFile, config: DataConfig, listener: Listener, name: str
) -> tuple[IO[str], str]:
    """Return a sheet of an Excel file as a temporary CSV file, and what messages call it.

    It is the one that `--sheet` names, or the first one with a table. A row has the line of its
    number. Raises `UsageError` where the package that reads them is not installed.
    """
    try:
        with open_binary(file) as packed:
            content = io.BytesIO(packed.read())
        sheets: dict[str, pd.DataFrame] = pd.read_excel(
            content, sheet_name=None, header=None, dtype=object, na_filter=False, engine="openpyxl"
        )
    except ImportError as error:
        raise UsageError(
            f"{name} is an Excel file, but the package that reads Excel is not installed",
            hint="install it with  pip install 'rnnforecast[excel]'",
        ) from error
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        message = f"cannot read {name} as an Excel file: {error}"
        raise _unreadable(message, name, "save it again as .xlsx, or as CSV") from error

    texts = {sheet: _sheet_lines(frame) for sheet, frame in sheets.items()}
    tables = [sheet for sheet, lines in texts.items() if sum(map(bool, lines)) > 1]
    sheet = config.sheet or (tables[0] if tables else next(iter(texts), ""))
    if sheet not in texts:
        raise DataError(
            f"{name} has no sheet {sheet!r}",
            code="no-such-sheet",
            location=Location(name),
            proposals=[Proposal(("--sheet", table)) for table in tables[:_MAX_LISTED]],
        )
    unread = [table for table in tables if table != sheet]
    if unread and config.sheet is None:
        listener(Notice(f"{name}: reading sheet {sheet!r}, not {', '.join(map(repr, unread))}"))

    with as_write_error(Path(tempfile.gettempdir())):
        text = tempfile.NamedTemporaryFile(  # noqa: SIM115
            "w", prefix="rnnforecast-", suffix=".csv", encoding="utf-8"
        )
        csv.writer(text, lineterminator="\n").writerows(texts[sheet])
        text.flush()
    return text, f"sheet {sheet!r} of {name}"


def _sheet_lines(frame: pd.DataFrame) -> list[list[str]]:
    """Return the cells of a sheet as text without line breaks, and times in ISO 8601.

    Columns without any text are left out, and rows without any are empty.
    """

    def text_of(cell: object) -> str:
        if cell is None or cell != cell:  # NaT and NaN, too
            return ""
        return " ".join(str(cell).split())

    rows = [list(map(text_of, row)) for row in frame.itertuples(index=False, name=None)]
    used = [index for index in range(frame.shape[1]) if any(row[index] for row in rows)]
    return [[row[index] for index in used] if any(row) else [] for row in rows]


def open_query(database: Database, config: DataConfig) -> TableSource:
    """Run the query of `--query` on a database that is only read. Raises `DataError`."""
    if not Path(database.path).is_file():
        raise DataError(f"{database} does not exist", code="not-found", hint="check the path")
    file = InputFile.of(Path(database.path), is_database=True)
    run = _query_sqlite if database.kind == "sqlite" else _query_duckdb
    if config.query is None:
        names = run(database, _LIST_TABLES[database.kind], config).column(0).to_pylist()
        queries = [f'select * from "{table}"' for table in names[:_MAX_LISTED]]
        raise DataError(
            f"{database} is a database, but no query was given",
            code="no-query",
            proposals=[Proposal(("--query", query)) for query in queries],
            hint=None if names else "it has no tables",
        )
    table = run(database, config.query, config)
    return TableSource(table, f"the query of {database}", (file,)).check()


_LIST_TABLES = {
    "sqlite": "select name from sqlite_master where type in ('table', 'view') order by rowid",
    "duckdb": "select table_name from information_schema.tables order by 1",
}


def _query_sqlite(database: Database, query: str, config: DataConfig) -> pa.Table:
    address = f"file:{quote(database.path)}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description or ()]
            rows = cursor.fetchall()
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _failed(database, error) from error
    _check_names(names, database)

    def locate(row: int, column: str, value: object) -> Location:
        return Location(f"the query of {database}", row + 1, column, token=str(value), unit="row")

    columns = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    return make_table(columns, config, locate)


def _query_duckdb(database: Database, query: str, _config: DataConfig) -> pa.Table:
    try:
        import duckdb
    except ImportError as error:
        raise UsageError(
            f"the package that reads {database} is not installed",
            hint="install it with  pip install 'rnnforecast[sql]'",
        ) from error

    try:
        with closing(duckdb.connect(database.path, read_only=True)) as connection:
            table = connection.execute(query).fetch_arrow_table()
    except duckdb.Error as error:
        raise _failed(database, error) from error
    _check_names(table.column_names, database)
    return table


def _check_names(names: Sequence[str], database: Database) -> None:
    if not names:
        raise DataError(f"the query of {database} does not return a table", code="query")
    duplicate = next((name for name in names[1:] if names.count(name) > 1), None)
    if duplicate is not None:
        raise DataError(
            f"the query of {database} returns two columns {duplicate!r}",
            code="duplicate-column",
            hint="use unique column names:  select a as b",
        )


def _failed(database: Database, error: Exception) -> DataError:
    return DataError(
        f"the query of {database} failed: {' '.join(str(error).split())}",
        code="query",
        location=Location(str(database)),
        hint="test the query in the database's shell",
    )
