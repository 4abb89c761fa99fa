"""Tables as text, and one way to read them: what the tests of this room share."""

from __future__ import annotations

import datetime as dt
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.panel import Panel
from rnnforecast.errors import RnnForecastError
from rnnforecast.events import Event, Notice, WarningEvent
from rnnforecast.sources.source import open_table
from rnnforecast.tables.match import read_inferred
from rnnforecast.tables.schema import Schema

few = settings(deadline=None, max_examples=40, derandomize=True, database=None)
"""Hypothesis for laws that touch the disk: the same few examples each time."""


@dataclass(frozen=True)
class Read:
    """What came of reading a table."""

    panel: Panel
    schema: Schema
    events: tuple[Event, ...]

    @property
    def notes(self) -> str:
        """All that was said."""
        return "\n".join(event.message for event in self.events if isinstance(event, Notice))

    @property
    def warnings(self) -> dict[str, WarningEvent]:
        """The warnings by their code."""
        return {event.code: event for event in self.events if isinstance(event, WarningEvent)}


def read(data: object, **options) -> Read:
    """Read a table as `check` does."""
    events: list[Event] = []
    config = DataConfig(**options)
    source = open_table(data, config, events.append)
    panel, schema = read_inferred(source, config, events.append, keeps_other_steps=True)
    return Read(panel, schema, tuple(events))


def failure(data: object, **options) -> RnnForecastError:
    """Read a table that cannot be used, and return the error."""
    with pytest.raises(RnnForecastError) as caught:
        read(data, **options)
    return caught.value


def write(path: Path, *lines: str, end: str = "\n", encoding: str = "utf-8") -> Path:
    """Write lines to a file, each with its line end."""
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path


def hourly(*cells: object, sep: str = ",", start: int = 0) -> list[str]:
    """Make a line for each cell: an hour of 2024 (number `start` is the first), then the cell."""
    return [
        f"2024-01-{1 + hour // 24:02d} {hour % 24:02d}:00{sep}{cell}"
        for hour, cell in enumerate(cells, start)
    ]


def pasted(hint: str) -> dict[str, Any]:
    """Turn the first options that a hint offers into what the command line would make of them."""
    words = shlex.split(hint[hint.index("--") :].split(" ; ")[0])
    options: dict[str, Any] = {}
    for i, word in enumerate(words):
        if word.startswith("--"):
            name = word.removeprefix("--").replace("-", "_")
            is_flag = i + 1 == len(words) or words[i + 1].startswith("--")
            value: object = True if is_flag else words[i + 1]
            if name in ("na_values", "target", "map"):
                value = (*options.get(name, ()), value)
            options[name] = tuple(words[i + 1].split(",")) if name == "columns" else value
    return options


def part(start: int, *, of: str = "a", n: int = 6) -> pa.Table:
    """Make a table of n hours, the first one `start`; the reading is the number of its hour."""
    hours = np.arange(start, start + n)
    stamps = np.datetime64("2024-01-01", "us") + hours.astype("timedelta64[h]")
    return pa.table({"ts": pa.array(stamps), of: hours.astype(np.float64)})


def parquet(path: Path, table: pa.Table) -> Path:
    """Write a Parquet file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def start_of(result: Read) -> dt.datetime:
    """Return the first time of the first series, in UTC."""
    us = int(result.panel.axis.to_utc(result.panel.start)[0])
    return dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=us)
