"""Forecasts to files: CSV, Parquet, JSON lines, whole or not at all."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from rnnforecast.config import STANDARD_OUTPUT
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.past import Values
from rnnforecast.data.stamps import format_stamps, stamp_array
from rnnforecast.places.publishing import publishing_file
from rnnforecast.places.remote import place_of

_FORMULA = re.compile(r"[=+\-@\t\r](?![\d.]*$)")
"""How a text begins that spreadsheets take for a formula; a number is none."""


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


_LINES_AT_ONCE = 1 << 16


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
