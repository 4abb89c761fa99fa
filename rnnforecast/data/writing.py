"""Forecasts to files: CSV, Parquet, JSON lines, whole or not at all."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from rnnforecast.config import STANDARD_OUTPUT
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.stamps import format_stamps
from rnnforecast.durable import publishing_file


def write_forecast(forecast: Forecast, path: str, quantiles: Sequence[float]) -> None:
    """Write a forecast; the file appears whole or not at all. `-` is CSV on standard output."""
    table = forecast.to_arrow(quantiles)
    if path == STANDARD_OUTPUT:
        buffer = io.BytesIO()
        _write_csv(table, buffer)
        sys.stdout.flush()
        sys.stdout.buffer.write(buffer.getvalue())  # UTF-8, whatever the terminal speaks
        sys.stdout.flush()  # the entry of the command line knows what a full or closed stream means
        return
    write = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_json_lines}
    with publishing_file(Path(path)) as file:
        write[Path(path).suffix.lower()](table, file)


def _write_csv(table: pa.Table, file: BinaryIO) -> None:
    file.write((",".join(table.column_names) + "\n").encode())
    texts = [name for name in table.column_names if pa.types.is_string(table[name].type)]
    special = any(
        pc.any(pc.match_substring_regex(pc.unique(table[name]), '[,"\r\n]')).as_py()
        for name in texts
    )
    style = "needed" if special else "none"  # "needed" quotes every text
    options = pa_csv.WriteOptions(include_header=False, quoting_style=style)
    pa_csv.write_csv(_with_text_stamps(table), file, options)


def _write_parquet(table: pa.Table, file: BinaryIO) -> None:
    pa_parquet.write_table(table, file)


def _write_json_lines(table: pa.Table, file: BinaryIO) -> None:
    for row in _with_text_stamps(table).to_pylist():
        file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def _with_text_stamps(table: pa.Table) -> pa.Table:
    place = table.column_names.index("timestamp")
    stamps = format_stamps(table.column("timestamp"))
    return table.set_column(place, "timestamp", stamps)
