"""The file with the names of the series, and what a model keeps of each of them. No torch here."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from rnnforecast.data.calibration import PAIRS
from rnnforecast.data.panel import Floats

_MOVES = pa.list_(pa.float32(), len(PAIRS))
_PLAIN = pa.schema({"series": pa.string(), "base": pa.float64()})
_CALIBRATED = _PLAIN.append(pa.field("moves", _MOVES))


@dataclass(frozen=True)
class SeriesTable:
    """What stands in a row for each series that the network knows."""

    names: tuple[str, ...]
    base: tuple[float, ...]
    """What is subtracted from its readings."""
    moves: Floats | None
    """`(series, pair)`: how its quantiles move; None for a model that is not calibrated."""


def pack_series(series: SeriesTable) -> bytes:
    """Return the table as a Parquet file."""
    columns = [pa.array(series.names, pa.string()), pa.array(series.base, pa.float64())]
    if series.moves is not None:
        flat = pa.array(series.moves.ravel(), pa.float32())
        columns.append(pa.FixedSizeListArray.from_arrays(flat, type=_MOVES))
    buffer = io.BytesIO()
    schema = _PLAIN if series.moves is None else _CALIBRATED
    pa_parquet.write_table(pa.table(columns, schema=schema), buffer)
    return buffer.getvalue()


def unpack_series(content: bytes, n_series: int) -> SeriesTable:
    """Read it again. Raises `ValueError` for a file that `pack_series` has not written."""
    try:
        file = pa_parquet.ParquetFile(pa.BufferReader(content))
        if file.schema_arrow not in (_PLAIN, _CALIBRATED):
            raise ValueError("the series names are not what was written")
        if file.metadata.num_rows != n_series:
            raise ValueError(f"there are {file.metadata.num_rows} series names, not {n_series}")
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"the series names cannot be read: {error}") from error
    names = table.column("series")
    if names.null_count or len(names.unique()) != n_series:
        raise ValueError("the series names are not all there, or not all different")
    base = table.column("base").to_numpy()
    if not np.isfinite(base).all():
        raise ValueError("the base of a series is not finite")
    return SeriesTable(tuple(names.to_pylist()), tuple(base.tolist()), _moves_in(table))


def _moves_in(table: pa.Table) -> Floats | None:
    if "moves" not in table.column_names:
        return None
    flat = table.column("moves").combine_chunks().flatten()
    moves: Floats = flat.to_numpy(zero_copy_only=False).reshape(-1, len(PAIRS))
    if len(moves) != len(table):
        raise ValueError("a series has no moves")
    return moves
