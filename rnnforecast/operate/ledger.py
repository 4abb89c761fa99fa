"""The ledger: every forecast that was issued, one Parquet part for each run. It only grows.

A part's name says the as-of time, the how-manieth issue of that time it is, and the run's key; so
which issue counts last rests on no clock, and a run that was cut short finds its own part again.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from rnnforecast.durable import publishing_file
from rnnforecast.errors import DataError, Location

_NAME = re.compile(
    r"(\d{4}-\d{2}-\d{2}T\d{6}(?:_\d{6})?Z?)_(\d{4,9})_([0-9a-f]{16})\.parquet", re.ASCII
)
KEY_LENGTH = 16
"""So much of a run's key stands in the name of its part."""
ISSUE = "issue"
"""A column that is not stored: parts in the order in which they were issued."""


@dataclass(frozen=True, order=True)
class Part:
    """What one run has issued."""

    as_of: str
    issue: int
    key: str
    path: Path


def list_parts(ledger: Path) -> list[Part]:
    """Return all parts, in the order in which they were issued."""
    try:
        names = [path.name for path in ledger.iterdir()]
    except OSError:
        return []
    found = (_NAME.fullmatch(name) for name in names)
    return sorted(
        Part(match[1], int(match[2]), match[3], ledger / match[0]) for match in found if match
    )


def find_part(ledger: Path, *, as_of: str, key: str) -> Part | None:
    """Return what a run has issued; None where it has not."""
    wanted = as_of, key[:KEY_LENGTH]
    return next((part for part in list_parts(ledger) if (part.as_of, part.key) == wanted), None)


def publish_part(ledger: Path, table: pa.Table, *, as_of: str, key: str) -> Part:
    """Add what a run issues; what the same run has added before stays and counts.

    `ledger` must be there, and its lock be held.
    """
    known = find_part(ledger, as_of=as_of, key=key)
    if known is not None:
        return known
    issue = 1 + max((part.issue for part in list_parts(ledger) if part.as_of == as_of), default=0)
    path = ledger / f"{as_of}_{issue:04d}_{key[:KEY_LENGTH]}.parquet"
    content = io.BytesIO()
    pa_parquet.write_table(table, content, compression="zstd")
    with publishing_file(path) as file:
        file.write(content.getvalue())
    return Part(as_of, issue, key[:KEY_LENGTH], path)


def read_parts(parts: Sequence[Part]) -> pa.Table:
    """Read these parts as one table, with the number of each row's part as column `issue`.

    Raises `DataError` for a part that cannot be read.
    """
    tables = []
    for number, part in enumerate(parts):
        try:
            with part.path.open("rb") as file:
                table = pa_parquet.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"the ledger's part {part.path} cannot be read: {error}",
                code="damaged-ledger",
                location=Location(str(part.path)),
                hint="put an intact copy in its place, or take it away",
            ) from error
        numbers = pa.repeat(pa.scalar(number, pa.int32()), len(table))
        tables.append(table.append_column(ISSUE, numbers))
    return pa.concat_tables(tables, promote_options="permissive")
