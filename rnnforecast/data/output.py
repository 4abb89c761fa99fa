"""Forecasts as files: CSV, Parquet and JSON lines, written and read back."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pa_parquet

from rnnforecast.config.commands import check_format
from rnnforecast.config.training import STANDARD_OUTPUT
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.axis import format_timestamps
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.windows import Values
from rnnforecast.errors import DataError, Location, NotEnoughDataError, writing_standard_output
from rnnforecast.events import Listener, WarningEvent
from rnnforecast.storage.publish import publishing_output
from rnnforecast.storage.remote import as_path, check_json_lines
from rnnforecast.units import format_utc_offset

_FORMULA = re.compile(r"[=+\-@\t\r](?![\d.]*$)")
"""Start of a text that spreadsheets take for a formula; a number is not taken for one."""
_JSON_BATCH_ROWS = 1 << 16
_REQUIRED_COLUMNS = ("series", "timestamp", "forecast")
_QUANTILE_COLUMN = re.compile(r"q(\d{1,2}(?:\.\d+)?)")


def without_formulas(
    names: Sequence[str], path: str, listener: Listener, *, is_escaped: bool
) -> tuple[str, ...]:
    """Return the names of series as they are written to a file.

    Those that a spreadsheet would run as formulas get an apostrophe, which makes them text, if
    `is_escaped`, else there is a warning. Only of CSV files, which spreadsheets open so.
    """
    is_csv = path == STANDARD_OUTPUT or as_path(path).suffix.lower() == ".csv"
    formulas = [name for name in dict.fromkeys(names) if is_csv and _FORMULA.match(name)]
    if not is_escaped and formulas:
        message = "spreadsheets may run these names as formulas (use --excel-safe)"
        listener(WarningEvent.for_names("formula", message, formulas))
    if not is_escaped or not formulas:
        return tuple(names)
    return tuple(f"'{name}" if _FORMULA.match(name) else name for name in names)


def write_table(table: pa.Table, path: str) -> None:
    """Write a table as one atomic file, in the format of its ending; `-` is CSV on stdout."""
    if path == STANDARD_OUTPUT:
        buffer = io.BytesIO()
        _write_csv(table, buffer)
        with writing_standard_output():
            sys.stdout.flush()
            sys.stdout.buffer.write(buffer.getvalue())  # UTF-8, whatever the terminal's encoding
            sys.stdout.flush()
        return
    with publishing_output(as_path(path)) as file:
        _WRITE[as_path(path).suffix.lower()](table, file)


def encode_table(table: pa.Table, path: str) -> bytes:
    """Return the bytes of a table in the format of a file name."""
    buffer = io.BytesIO()
    _WRITE[as_path(path).suffix.lower()](table, buffer)
    return buffer.getvalue()


def backtest_rows(method: str, forecast: Forecast, actual: Values) -> pa.Table:
    """Return a row for each value of some windows of one method, and its actual.

    `actual` is `(window, horizon)`; null where there is no reading.
    """
    values = forecast.to_arrow()
    rows = forecast.stamp_rows[0]
    window, lead = np.divmod(rows, forecast.horizon)
    columns = {
        "method": pa.repeat(method, len(values)),
        "series": values["series"],
        "cutoff": forecast.axis.stamps(forecast.cutoff_us[window]),
        "timestamp": values["timestamp"],
        "lead": pa.array((lead + 1).astype(np.int32)),
        "actual": pa.array(actual.ravel()[rows], from_pandas=True),
        **{name: values[name] for name in values.column_names[2:]},
    }
    return pa.table(columns)


class BacktestTable:
    """The forecasts of a backtest as a table in memory: a row for each value."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []

    def write(self, method: str, forecast: Forecast, actual: Values) -> None:
        """Append windows of one method with their actuals, `(window, horizon)`."""
        table = backtest_rows(method, forecast, actual)
        self._parts.append(table.cast(floats_to_doubles(table.schema)))

    def table(self) -> pa.Table:
        """Return all rows."""
        return pa.concat_tables(self._parts)


@dataclass
class BacktestFile:
    """A file to which the forecasts of a backtest are appended: a row for each value."""

    _file: IO[bytes]
    _ending: str
    _renamed: Mapping[str, str]
    """Names of series that are written otherwise."""
    _parquet: pa_parquet.ParquetWriter | None = None
    _is_empty: bool = True

    def write(self, method: str, forecast: Forecast, actual: Values) -> None:
        """Append windows of one method with their actuals, `(window, horizon)`."""
        if self._renamed:
            names = tuple(self._renamed.get(name, name) for name in forecast.names)
            forecast = replace(forecast, names=names)
        table = backtest_rows(method, forecast, actual)
        if self._ending == ".parquet":
            table = table.cast(floats_to_doubles(table.schema))
            if self._parquet is None:
                self._parquet = pa_parquet.ParquetWriter(self._file, table.schema)
            self._parquet.write_table(table)
        elif self._ending == ".jsonl":
            _write_json_lines(table, self._file)
        else:
            _write_csv(table, self._file, has_header=self._is_empty)
        self._is_empty = False

    def close(self) -> None:
        """Write the footer of a Parquet file."""
        if self._parquet is not None:
            self._parquet.close()


def floats_to_doubles(schema: pa.Schema) -> pa.Schema:
    """Return the schema with doubles for floats: tables with a base have doubles, others float32.

    Parts of one data set must have the same types.
    """
    fields = [
        field.with_type(pa.float64()) if pa.types.is_floating(field.type) else field
        for field in schema
    ]
    return pa.schema(fields)


@contextmanager
def open_backtest_file(path: str, renamed: Mapping[str, str]) -> Iterator[BacktestFile]:
    """Open a file for the forecasts of a backtest; it is published whole, or not at all.

    `renamed` are the names of series that are written otherwise.
    """
    with publishing_output(as_path(path)) as file:
        backtest_file = BacktestFile(file, as_path(path).suffix.lower(), renamed)
        yield backtest_file
        backtest_file.close()


def _write_csv(table: pa.Table, file: IO[bytes], *, has_header: bool = True) -> None:
    if has_header:
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(table.column_names)
        file.write(header.getvalue().encode())
    text_columns = [name for name in table.column_names if pa.types.is_string(table[name].type)]
    needs_quotes = any(
        pc.any(pc.match_substring_regex(pc.unique(table[name]), '[,"\r\n]')).as_py()
        for name in text_columns
    )
    style = "needed" if needs_quotes else "none"  # Arrow's "needed" quotes every text
    options = pa_csv.WriteOptions(include_header=False, quoting_style=style)
    pa_csv.write_csv(_with_text_stamps(table), file, options)


def _write_json_lines(table: pa.Table, file: IO[bytes]) -> None:
    for batch in _with_text_stamps(table).to_batches(max_chunksize=_JSON_BATCH_ROWS):
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in batch.to_pylist()]
        file.write(("\n".join(lines) + "\n").encode())


def _with_text_stamps(table: pa.Table) -> pa.Table:
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(index, field.name, format_timestamps(table.column(index)))
    return table


_WRITE = {".csv": _write_csv, ".parquet": pa_parquet.write_table, ".jsonl": _write_json_lines}
"""Writers of a table by the ending of the file's name."""


@dataclass(frozen=True)
class SeriesForecast:
    """The forecast of one series as it was read from a file: a row for each step, by time."""

    series: str
    times_us: Integers
    """`(lead,)`, microseconds since 1970."""
    values: Doubles
    """`(lead, quantile)`."""
    quantiles: tuple[float, ...]
    """Ascending, with the median, which is the column `forecast`."""
    tz: str | None
    """None for times without a zone; else `UTC` or an offset from it."""


def read_forecast(path: Path) -> list[SeriesForecast]:
    """Read a file that `predict` has written, series by series in the order of the file.

    Raises `DataError` for any other file, and `NotEnoughDataError` for one without a row.
    """
    check_format(str(path), allows_stream=False)
    table = _read_table(path)
    for name in _REQUIRED_COLUMNS:
        if name not in table.column_names:
            raise _no_forecast(path, f"column {name!r} is missing")
    if not table.num_rows:
        raise NotEnoughDataError(f"{path} contains no forecast", code="empty")

    column_of = {0.5: "forecast"} | {
        round(float(match[1]) / 100, 8): name
        for name in table.column_names
        if (match := _QUANTILE_COLUMN.fullmatch(name)) and float(match[1]) != 50
    }
    quantiles = tuple(sorted(column_of))
    times, tz = _parse_times(table["timestamp"], path)
    try:
        columns = [pc.cast(table[column_of[q]], pa.float64()) for q in quantiles]
        names = pc.cast(table["series"], pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise _no_forecast(
            path, f"a forecast is not a number, or a name is not text ({error})"
        ) from error
    if None in names:
        raise _no_forecast(path, "a row has no series name")
    values = np.stack([column.to_numpy() for column in columns], axis=1)

    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows_of.setdefault(name, []).append(row)
    return [
        SeriesForecast(name, times[rows], values[rows], quantiles, tz)
        for name, rows in rows_of.items()
    ]


def _read_table(path: Path) -> pa.Table:
    """Read a file as its ending says. Raises `DataError` where it is missing or damaged."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise _no_forecast(path, "it is not a regular file")
        if path.suffix.lower() == ".parquet":
            return pa_parquet.read_table(path)
        if path.suffix.lower() == ".jsonl":
            content = path.read_bytes()
            check_json_lines(content.split(b"\n"))
            return pa_json.read_json(pa.BufferReader(content))
        options = pa_csv.ConvertOptions(
            column_types={"series": pa.string(), "timestamp": pa.string()},
            strings_can_be_null=False,
        )
        return pa_csv.read_csv(path, convert_options=options)

    except FileNotFoundError as error:
        raise DataError(
            f"forecast file {path} does not exist",
            code="not-found",
            hint="create it with  rnnforecast predict , or name another file with  --forecast FILE",
        ) from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _no_forecast(path, f"it cannot be read ({error})") from error


def _parse_times(column: pa.ChunkedArray, path: Path) -> tuple[Integers, str | None]:
    """Return the times, `(row,)`, in microseconds, and the zone that they were written in."""
    tz = None
    try:
        if pa.types.is_timestamp(column.type):
            tz = column.type.tz
            stamps = pd.DatetimeIndex(pc.cast(column, pa.timestamp("us", tz=tz)).to_pandas())
        else:
            texts = column.to_pylist()
            first = pd.Timestamp(texts[0])
            stamps = pd.DatetimeIndex(pd.to_datetime(texts, utc=first.tzinfo is not None))
            if first.tzinfo is not None:  # as Arrow writes an offset: `+01:00`
                minutes = int((first.utcoffset() or timedelta()).total_seconds()) // 60
                tz = format_utc_offset(minutes) if minutes else "UTC"
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise _no_forecast(path, f"a timestamp cannot be parsed ({error})") from error

    if stamps.isna().any():
        raise _no_forecast(path, "a timestamp is missing")
    if stamps.tz is not None:
        stamps = stamps.tz_convert("UTC").tz_localize(None)
    return stamps.as_unit("us").to_numpy().astype(np.int64), tz


def _no_forecast(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is not a forecast file of rnnforecast: {reason}",
        code="no-forecast",
        location=Location(str(path)),
        hint="pass the output of  rnnforecast predict  with  --forecast FILE",
    )
