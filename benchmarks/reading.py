"""How long tables take to read and to check, beside pandas, each in a fresh process.

    python benchmarks/reading.py [--megabytes 1000] [--runs 3] [CASE ...]
    python benchmarks/reading.py --check [--readings 1e7] [--runs 3] [CASE ...]

Without `--check`: everything up to a panel on a regular grid, over `pandas.read_csv` with pyarrow's
engine (`pandas.read_parquet` for Parquet), in turn, and the peak memory beside what is allowed: 2.5
times the float32 readings plus 500 MB. `parse_dates` is for information. Imports do not count; the
figures are medians. With `--check`: the command `rnnforecast check`, from the shell to its end.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

ALLOWED_RATIO, ALLOWED_FACTOR, ALLOWED_MB = {"csv": 1.2, "gz": 1.5, "parquet": 1.5}, 2.5, 500
ALLOWED_CHECK_S = 10
FILES = 100
BLOCK_READINGS = 1_500_000


@dataclass(frozen=True)
class Case:
    """A table: `wide`, `by time` or `by series` (long tables, in either order)."""

    shape: str
    format: str
    sensors: int

    @property
    def name(self) -> str:
        """How the command line and the table call it."""
        return f"{self.shape} {self.format} {self.sensors}"


READING = [
    *(Case(shape, "csv", 15) for shape in ("wide", "by time", "by series")),
    *(Case(shape, "gz", 15) for shape in ("wide", "by time")),
    *(Case(shape, "parquet", 15) for shape in ("wide", "by time", "by series")),
    Case("wide", "folder", 15),
    Case("by time", "folder", 15),
]
CHECKING = [
    Case(shape, form, sensors)
    for shape in ("wide", "by time", "by series")
    for form in ("csv", "parquet")
    for sensors in (10, 1000)
]


def tables(case: Case, n_readings: int) -> Iterator[pa.Table]:
    """Make readings with three digits after the point, every second: a wave and a random walk."""
    rng = np.random.default_rng(0)
    n_steps = n_readings // case.sensors
    names = np.array([f"sensor{i:04}" for i in range(case.sensors)])
    if case.shape == "by series":
        for name in names:
            stamps, values = stamps_of(0, n_steps), readings_of(rng, 0, n_steps, 1)[:, 0]
            column = pa.repeat(name, n_steps)
            yield pa.table({"timestamp": stamps, "sensor": column, "value": values})
        return
    size = BLOCK_READINGS // case.sensors
    for first in range(0, n_steps, size):
        n = min(size, n_steps - first)
        stamps, values = stamps_of(first, n), readings_of(rng, first, n, case.sensors)
        if case.shape == "wide":
            yield pa.table({"timestamp": stamps, **dict(zip(names, values.T, strict=True))})
        else:
            column, times = np.tile(names, n), stamps.take(np.repeat(np.arange(n), case.sensors))
            yield pa.table({"timestamp": times, "sensor": column, "value": values.ravel()})


def stamps_of(first: int, n: int) -> pa.Array:
    """Return `(n,)` stamps, a second apart."""
    seconds = 1_600_000_000 + np.arange(first, first + n)
    return pa.array(seconds).cast(pa.timestamp("s"))


def readings_of(rng: np.random.Generator, first: int, n: int, sensors: int) -> np.ndarray:
    """Return `(n, sensors)` readings around 20."""
    wave = np.sin(2 * np.pi * np.arange(first, first + n) / 3600)[:, None]
    return (20 + 5 * wave + 0.1 * rng.standard_normal((n, sensors))).round(3)


def write(case: Case, folder: Path, n_readings: int) -> Path:
    """Write the table of a case; return its path."""
    parts = tables(case, n_readings)
    if case.format in ("csv", "gz"):
        path = folder / "readings.csv"
        write_csv(path, parts)
        if case.format == "csv":
            return path
        with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb", compresslevel=1) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        path.unlink()
        return Path(f"{path}.gz")
    if case.format == "parquet":
        path = folder / "readings.parquet"
        first = next(parts)
        with pa_parquet.ParquetWriter(path, first.schema) as writer:
            writer.write_table(first)
            for part in parts:
                writer.write_table(part)
        return path
    path = folder / "readings"
    path.mkdir()
    n_each = n_readings // FILES
    made = pa.concat_tables(parts)
    n_rows = -(-len(made) * n_each // n_readings)
    for i, first in enumerate(range(0, len(made), n_rows)):
        pa_parquet.write_table(made[first : first + n_rows], path / f"part-{i:04}.parquet")
    return path


def write_csv(path: Path, parts: Iterator[pa.Table]) -> None:
    """Write the parts of a table one after the other."""
    options = pa_csv.WriteOptions(quoting_style="none")
    first = next(parts)
    with pa_csv.CSVWriter(path, first.schema, write_options=options) as writer:
        writer.write_table(first)
        for part in parts:
            writer.write_table(part)


def n_readings_for(case: Case, megabytes: float) -> int:
    """Return how many readings make a CSV file of this size."""
    n = 300_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        write_csv(path, tables(case, n))
        return int(megabytes * 1e6 / path.stat().st_size * n)


def peak_mb() -> float:
    """Return this process's peak resident memory; `ru_maxrss` would start at the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(path: str, by: str) -> dict[str, float]:
    """Read a table in this process and say what it took."""
    from rnnforecast.config.reading import DataConfig
    from rnnforecast.events import ignore
    from rnnforecast.sources.source import open_source
    from rnnforecast.tables.grid import read_panel
    from rnnforecast.tables.schema import infer_schema

    begin = time.perf_counter()
    if by == "rnnforecast":
        source = open_source(path, DataConfig(), ignore)
        schema = infer_schema(source, DataConfig(), ignore)
        read_panel(source, schema, DataConfig(), ignore)
    elif path.endswith((".csv", ".csv.gz")):
        dates = ["timestamp"] if by == "parse_dates" else None
        pd.read_csv(path, engine="pyarrow", parse_dates=dates)
    else:
        pd.read_parquet(path)
    return {"seconds": time.perf_counter() - begin, "peak_mb": peak_mb()}


def in_child(*arguments: str) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--measure", *arguments]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True).stdout
    )
    return found


def compare(case: Case, megabytes: float, runs: int) -> bool:
    """Print one row of the table of reading; return whether it is as it should be."""
    n_readings = n_readings_for(case, megabytes)
    ways = ["rnnforecast", "pandas"] + ["parse_dates"] * (case.format == "csv")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        path = write(case, Path(folder), n_readings)
        for _ in range(runs):
            for way in ways:
                found[way].append(in_child(str(path), way))
    seconds = {way: statistics.median(x["seconds"] for x in found[way]) for way in ways}
    peaks = {way: statistics.median(x["peak_mb"] for x in found[way]) for way in ways}
    ratio = seconds["rnnforecast"] / seconds["pandas"]
    allowed_mb = ALLOWED_FACTOR * 4 * n_readings / 2**20 + ALLOWED_MB
    allowed = ALLOWED_RATIO.get(case.format, ALLOWED_RATIO["parquet"])
    dates = f"{seconds['parse_dates']:.2f}" if "parse_dates" in ways else "-"
    print(
        f"| {case.name} | {n_readings / 1e6:.1f} | {seconds['rnnforecast']:.2f} "
        f"| {seconds['pandas']:.2f} | {dates} | {ratio:.2f} | {allowed} "
        f"| {peaks['rnnforecast']:.0f} | {allowed_mb:.0f} | {peaks['pandas']:.0f} |",
        flush=True,
    )
    return ratio <= allowed and peaks["rnnforecast"] <= allowed_mb


def check(case: Case, n_readings: int, runs: int) -> bool:
    """Print one row of the table of checking; return whether it is as it should be."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(case, Path(folder), n_readings)
        seconds = []
        for _ in range(runs):
            begin = time.perf_counter()
            command = [sys.executable, "-m", "rnnforecast", "check", str(path), "--json"]
            done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - begin)
            assert done.returncode in (0, 3)
    median = statistics.median(seconds)
    print(f"| {case.name} | {n_readings / 1e6:.1f} | {median:.2f} |", flush=True)
    return median <= ALLOWED_CHECK_S


def main() -> int:
    """Print the table of reading, or of checking; fail if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="such as 'wide csv'")
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--readings", type=float, default=1e7)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return 0
    cases = [
        case
        for case in (CHECKING if options.check else READING)
        if not options.cases
        or any(f"{case.name} ".startswith(f"{name} ") for name in options.cases)
    ]
    if options.check:
        print("| table | million readings | check s |\n|---|---|---|")
        kept = [check(case, int(options.readings), options.runs) for case in cases]
    else:
        print("| table | million readings | s | pandas s | with dates s | ratio | allowed ", end="")
        print("| peak MB | allowed MB | pandas MB |\n|---|---|---|---|---|---|---|---|---|---|")
        kept = [compare(case, options.megabytes, options.runs) for case in cases]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
