"""What the shell completes: values of choices, columns of the data, saved versions.

Separate from the application, which only declares which values an option takes. Whatever
goes wrong completes nothing: an error would be printed into the line that the user types. Imports
stand in functions: every command declares its completions, and starts without what they need.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from rnnforecast.config.training import DEFAULT_MODEL

COMPLETE_VARIABLE = "_RNNFORECAST_COMPLETE"
"""The environment variable by which a shell asks for completions."""
_HEADER_BYTES = 1 << 16
"""The header line of a table is looked for in this many bytes."""
_SEPARATORS = ",;\t|"
_PARQUET = (".parquet", ".pq")


def while_completing(complete: Callable[..., list[str]]) -> Callable[..., list[str]] | None:
    """Return a completion where a shell asks for one, else None.

    Typer examines the signature of every completion, which takes a tenth of the start of a command.
    """
    return complete if COMPLETE_VARIABLE in os.environ else None


def complete_choices(choices: Sequence[str], *, is_listed: bool) -> Callable[[str], list[str]]:
    """Return a completion of these values; `is_listed`: of the last one of a text with commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if is_listed else ("", "", incomplete)
        chosen = before.split(",")
        return [
            f"{before}{comma}{choice}"
            for choice in choices
            if choice.startswith(last) and choice not in chosen
        ]

    return complete


def complete_columns(context: typer.Context, incomplete: str) -> list[str]:
    """Return the columns of the local file DATA that begin with a text."""
    data: Any = context.params.get("data")
    columns: list[str] = []
    with suppress(Exception):  # a file of any kind, or none
        columns = _read_columns(Path(str(data)))
    return [name for name in columns if name.startswith(incomplete)]


def complete_versions(context: typer.Context, incomplete: str) -> list[str]:
    """Return the saved versions of the local directory of `--model`, the newest first."""
    model: Any = context.params.get("model") or DEFAULT_MODEL
    versions: list[str] = []
    with suppress(Exception):
        from rnnforecast.storage.versions import LATEST, PREVIOUS, list_versions

        versions = list_versions(Path(str(model)))[::-1]
        versions = [LATEST, PREVIOUS, *versions] if versions else []
    return [name for name in versions if name.startswith(incomplete)]


def _read_columns(path: Path) -> list[str]:
    """Return the names in the header of a CSV file, or in the schema of a Parquet file."""
    import csv
    import gzip

    if path.is_dir():
        path = next(path.rglob("*.parquet"))
    if path.suffix.lower() in _PARQUET:
        from pyarrow import parquet

        return list(parquet.read_schema(path).names)

    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        content = file.read(_HEADER_BYTES).decode("utf-8-sig")
    header = content.splitlines()[0]
    separator = max(_SEPARATORS, key=header.count)
    return [name.strip() for name in next(csv.reader([header], delimiter=separator))]
