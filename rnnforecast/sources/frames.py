"""Tables of pandas as Arrow tables: what pandas knows and Arrow does not, and what is refused."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rnnforecast.errors import DataError, Location


def table_of(data: object) -> pa.Table:
    """Return a pandas table as an Arrow table; an index that holds times is a column."""
    import pandas as pd

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
    import pandas as pd

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
