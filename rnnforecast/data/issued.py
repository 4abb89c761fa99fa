"""Forecasts that were written to a file, read again: `series, timestamp, forecast, q10, ...`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pa_parquet

from rnnforecast.data.panel import Doubles, Integers
from rnnforecast.errors import DataError, Location, NotEnoughDataError
from rnnforecast.formats import check_format

_NEEDED = ("series", "timestamp", "forecast")
_QUANTILE = re.compile(r"q(\d{1,2}(?:\.\d+)?)")


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
