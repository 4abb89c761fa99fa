"""Rows with too few or too many fields that were skipped: how many may be, and what is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rnnforecast.dataconfig import DataConfig
from rnnforecast.durable import publishing_file
from rnnforecast.errors import DataError, Location
from rnnforecast.events import Listener, Warned

_LISTED = 5


def report_skipped(
    skipped: Sequence[Location], n_rows: int, config: DataConfig, listener: Listener
) -> None:
    """Write the rows that were skipped to where the user wants them, and say how many they are.

    Raises `DataError` where they are more than may be; the file is written then, too.
    """
    if config.rejects is not None:
        with publishing_file(Path(config.rejects)) as file:
            file.write("".join(f"{place.text}\n" for place in skipped).encode())
    if not skipped:
        return
    most = config.most_bad_rows(n_rows + len(skipped))
    if len(skipped) > most:
        first, *rest = skipped
        lines = tuple(place.line or 0 for place in rest[:_LISTED])
        raise DataError(
            f"{len(skipped)} of {n_rows + len(skipped)} rows have too few or too many fields, more "
            f"than the {most} that may be skipped",
            code="bad-rows",
            location=replace(first, also_lines=lines),
            hint=f"if they may all go, add  --max-bad-rows {len(skipped)}",
        )
    first_line = skipped[0].line
    what = (
        f"{len(skipped)} rows with too few or too many fields are skipped, line {first_line} first"
    )
    listener(Warned("bad-rows", what, len(skipped)))
