"""Forecasts to files: CSV, Parquet, JSON lines, whole or not at all."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from rnnforecast.config import STANDARD_OUTPUT, quantile_name
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.stamps import format_stamps, stamp_array
from rnnforecast.durable import publishing_file


def forecast_table(forecast: Forecast, quantiles: Sequence[float]) -> pa.Table:
    """Return one row for each origin and step: series, timestamp, forecast, then the quantiles.

    The order is that of the origins, then time. Quantiles that the forecast does not hold are a
    `ValueError`; the caller has checked them.
    """
    n_origins, horizon = forecast.values.shape[:2]
    codes = pa.array(np.repeat(np.arange(n_origins, dtype=np.int32), horizon))
    columns: dict[str, pa.Array] = {
        "series": _decode(codes, forecast.names),
        "timestamp": stamp_array(forecast.times_us, forecast.tz),
        "forecast": pa.array(forecast.point.ravel()),
    }
    for quantile in quantiles:
        at = forecast.quantiles.index(quantile)
        columns[quantile_name(quantile)] = pa.array(forecast.values[:, :, at].ravel())
    if forecast.source is not None:
        columns["source"] = _decode(codes, forecast.source)
    return pa.table(columns)


def write_forecast(forecast: Forecast, path: str, quantiles: Sequence[float]) -> None:
    """Write a forecast; the file appears whole or not at all. `-` is CSV on standard output."""
    table = forecast_table(forecast, quantiles)
    if path == STANDARD_OUTPUT:
        buffer = io.BytesIO()
        _write_csv(table, buffer)
        sys.stdout.write(buffer.getvalue().decode())
        sys.stdout.flush()
        return
    write = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_json_lines}
    with publishing_file(Path(path)) as file:
        write[Path(path).suffix.lower()](table, file)


def _decode(codes: pa.Array, names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string())).dictionary_decode()


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
