"""Forecasts as files: CSV, Parquet and JSON lines, written and read back."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
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
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.timestamps import format_stamps, stamp_array
from rnnforecast.data.windows import Values
from rnnforecast.errors import DataError, Location, NotEnoughDataError
from rnnforecast.storage.publish import publishing_file
from rnnforecast.storage.remote import place_of

_FORMULA = re.compile(r"[=+\-@\t\r](?![\d.]*$)")
"""How a text begins that spreadsheets take for a formula; a number is none."""
_LINES_AT_ONCE = 1 << 16
_NEEDED = ("series", "timestamp", "forecast")
_QUANTILE = re.compile(r"q(\d{1,2}(?:\.\d+)?)")


def names_like_formulas(forecast: Forecast, path: str) -> list[str]:
    """Return the series whose name a spreadsheet would run, where the file is one for it: CSV."""
    if path != STANDARD_OUTPUT and place_of(path).suffix.lower() != ".csv":
        return []
    return [name for name in dict.fromkeys(forecast.names) if _FORMULA.match(name)]


def without_formulas(forecast: Forecast) -> Forecast:
    """Return the forecast with a mark before such names that makes them text."""
    names = tuple(f"'{name}" if _FORMULA.match(name) else name for name in forecast.names)
    return replace(forecast, names=names)


def write_table(table: pa.Table, path: str) -> None:
    """Write a table; the file appears whole or not at all. `-` is CSV on standard output."""
    if path == STANDARD_OUTPUT:
        buffer = io.BytesIO()
        _write_csv(table, buffer)
        sys.stdout.flush()
        sys.stdout.buffer.write(buffer.getvalue())  # UTF-8, whatever the terminal speaks
        sys.stdout.flush()  # the entry of the command line knows what a full or closed stream means
        return
    with publishing_file(place_of(path)) as file:
        _WRITE[place_of(path).suffix.lower()](table, file)


def encode_table(table: pa.Table, path: str) -> bytes:
    """Return what a file of this name holds."""
    buffer = io.BytesIO()
    _WRITE[place_of(path).suffix.lower()](table, buffer)
    return buffer.getvalue()


@dataclass
class BacktestFile:
    """A file that takes the forecasts of a backtest, a part at a time: a row for each value."""

    _file: IO[bytes]
    _ending: str
    _tz: str | None
    _parquet: pa_parquet.ParquetWriter | None = None
    _is_empty: bool = True

    def write(self, method: str, forecast: Forecast, actual: Values) -> None:
        """Append some windows of one method, and their actuals, `(window, horizon)`."""
        table = _with_actuals(method, replace(forecast, tz=self._tz), actual)
        if self._ending == ".parquet":
            table = table.cast(in_doubles(table.schema))
            if self._parquet is None:
                self._parquet = pa_parquet.ParquetWriter(self._file, table.schema)
            self._parquet.write_table(table)
        elif self._ending == ".jsonl":
            _write_json_lines(table, self._file)
        else:
            _write_csv(table, self._file, has_header=self._is_empty)
        self._is_empty = False

    def close(self) -> None:
        """Write what a Parquet file ends with."""
        if self._parquet is not None:
            self._parquet.close()


def in_doubles(schema: pa.Schema) -> pa.Schema:
    """Return the schema with doubles for floats: parts with a base have doubles, others not."""
    fields = [
        field.with_type(pa.float64()) if pa.types.is_floating(field.type) else field
        for field in schema
    ]
    return pa.schema(fields)


@contextmanager
def publishing_backtest(path: str, tz: str | None) -> Iterator[BacktestFile]:
    """Open a file for the forecasts of a backtest; it appears whole or not at all."""
    with publishing_file(place_of(path)) as file:
        rows = BacktestFile(file, place_of(path).suffix.lower(), tz)
        yield rows
        rows.close()


def _with_actuals(method: str, forecast: Forecast, actual: Values) -> pa.Table:
    """Return a row for each value, with its method, cutoff, lead and actual."""
    table = forecast.to_arrow()
    n, horizon = actual.shape
    leads = np.tile(np.arange(1, horizon + 1, dtype=np.int32), n)
    cutoff = stamp_array(np.repeat(forecast.cutoff_us, horizon), forecast.tz)
    columns = {
        "method": pa.repeat(method, len(table)),
        "series": table["series"],
        "cutoff": cutoff,
        "timestamp": table["timestamp"],
        "lead": pa.array(leads),
        "actual": pa.array(actual.ravel(), from_pandas=True),
    }
    for name in table.column_names[2:]:
        columns[name] = table[name]
    return pa.table(columns)


def _write_csv(table: pa.Table, file: IO[bytes], *, has_header: bool = True) -> None:
    if has_header:
        file.write((",".join(table.column_names) + "\n").encode())
    texts = [name for name in table.column_names if pa.types.is_string(table[name].type)]
    special = any(
        pc.any(pc.match_substring_regex(pc.unique(table[name]), '[,"\r\n]')).as_py()
        for name in texts
    )
    style = "needed" if special else "none"  # "needed" quotes every text
    options = pa_csv.WriteOptions(include_header=False, quoting_style=style)
    pa_csv.write_csv(_with_text_stamps(table), file, options)


def _write_parquet(table: pa.Table, file: IO[bytes]) -> None:
    pa_parquet.write_table(table, file)


def _write_json_lines(table: pa.Table, file: IO[bytes]) -> None:
    for batch in _with_text_stamps(table).to_batches(max_chunksize=_LINES_AT_ONCE):
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in batch.to_pylist()]
        file.write(("\n".join(lines) + "\n").encode())


def _with_text_stamps(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(place, field.name, format_stamps(table.column(place)))
    return table


_WRITE = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_json_lines}
"""How a table is written, by the ending of the file's name."""


@dataclass(frozen=True)
class Issued:
    """The forecast of one series: a row for each step, in time."""

    series: str
    times_us: Integers
    """`(lead,)`, microseconds since 1970."""
    values: Doubles
    """`(lead, quantile)`."""
    quantiles: tuple[float, ...]
    """Ascending, with the median, which the forecast is."""
    tz: str | None
    """None for times without a zone; `UTC` or an offset from it for others."""


def read_issued(path: Path) -> list[Issued]:
    """Read what `predict` has written, series by series in the order of the file.

    Raises `DataError` for a file that is none, and `NotEnoughDataError` for one without a row.
    """
    check_format(str(path), allows_stream=False)
    table = _read(path)
    for name in _NEEDED:
        if name not in table.column_names:
            raise _no_forecast(path, f"it has no column {name!r}")
    if not table.num_rows:
        raise NotEnoughDataError(f"{path} holds no forecast", code="empty")
    levels = {0.5: "forecast"} | {
        round(float(match[1]) / 100, 8): name
        for name in table.column_names
        if (match := _QUANTILE.fullmatch(name)) and float(match[1]) != 50
    }
    quantiles = tuple(sorted(levels))
    times, tz = _times(table["timestamp"], path)
    try:
        columns = [pc.cast(table[levels[q]], pa.float64()) for q in quantiles]
    except pa.ArrowInvalid as error:
        raise _no_forecast(path, f"a forecast is no number ({error})") from error
    values = np.stack([column.to_numpy() for column in columns], axis=1)
    names = pc.cast(table["series"], pa.string()).to_pylist()
    return [
        Issued(name, times[rows], values[rows], quantiles, tz) for name, rows in _by_series(names)
    ]


def _by_series(names: list[str]) -> Iterator[tuple[str, Integers]]:
    places: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        places.setdefault(name, []).append(row)
    for name, rows in places.items():
        yield name, np.array(rows, np.int64)


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            return pa_parquet.read_table(path)
        if path.suffix.lower() == ".jsonl":
            return pa_json.read_json(path)
        options = pa_csv.ConvertOptions(
            column_types={"series": pa.string(), "timestamp": pa.string()},
            strings_can_be_null=False,
        )
        return pa_csv.read_csv(path, convert_options=options)
    except FileNotFoundError as error:
        raise DataError(
            f"there is no forecast {path}",
            code="not-found",
            hint="write one with  rnnforecast predict  or name another with  --forecast FILE",
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise _no_forecast(path, f"it cannot be read ({error})") from error


def _times(column: pa.ChunkedArray, path: Path) -> tuple[Integers, str | None]:
    """Return the times, `(row,)`, in microseconds, and the zone that they were written in."""
    if pa.types.is_timestamp(column.type):
        tz = column.type.tz
        stamps = pd.DatetimeIndex(pc.cast(column, pa.timestamp("us", tz=tz)).to_pandas())
    else:
        texts = column.to_pylist()
        try:
            first = pd.Timestamp(texts[0])
            stamps = pd.DatetimeIndex(pd.to_datetime(texts, utc=first.tzinfo is not None))
        except (TypeError, ValueError) as error:
            raise _no_forecast(path, f"a timestamp is none ({error})") from error
        tz = None if first.tzinfo is None else _offset(first.utcoffset() or timedelta())
    if stamps.isna().any():
        raise _no_forecast(path, "a timestamp is missing")
    if stamps.tz is not None:
        stamps = stamps.tz_convert("UTC").tz_localize(None)
    return stamps.as_unit("us").to_numpy().astype(np.int64), tz


def _offset(offset: timedelta) -> str:
    """Write an offset from UTC as Arrow does: `+01:00`."""
    minutes = int(offset.total_seconds()) // 60
    if not minutes:
        return "UTC"
    return f"{'+' if minutes > 0 else '-'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _no_forecast(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is no forecast that rnnforecast has written: {why}",
        code="no-forecast",
        location=Location(str(path)),
        hint="pass what  rnnforecast predict  wrote, with  --forecast FILE",
    )
