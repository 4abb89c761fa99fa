"""Many short series: how long until training starts, and until all of them are forecast.

    python benchmarks/many_series.py [--series 100000] [--readings 200] [--ragged] [--by-time]

The table is long Parquet: time stamp, name of the series, value. `rnnforecast train` and
`rnnforecast predict` run in processes of their own, and their clocks start at the prompt, before
Python does. Prints a row of a Markdown table. With `--ragged` each series begins and ends
elsewhere, and a tenth of them have less than half of the readings; with `--by-time` the rows are
sorted by time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

HORIZON, STEPS = 24, 60
LIMIT_S = 60
HOUR_US = 3_600_000_000
START_US = 1_704_067_200_000_000  # 2024-01-01


def write_readings(path: Path, lengths: np.ndarray, begins: np.ndarray, *, by_time: bool) -> None:
    """Write so many hourly readings of each series, from these hours on, with a daily pattern."""
    rng = np.random.default_rng(0)
    n_series, n_rows = len(lengths), int(lengths.sum())
    series = np.repeat(np.arange(n_series, dtype=np.int32), lengths)
    hour = np.arange(n_rows) - np.repeat(np.cumsum(lengths) - lengths - begins, lengths)
    level, swing = rng.uniform(5, 50, n_series), rng.uniform(1, 5, n_series)
    value = level[series] + swing[series] * np.sin(2 * np.pi * hour / 24)
    value += rng.standard_normal(n_rows)
    order = np.argsort(hour, kind="stable") if by_time else np.arange(n_rows)
    names = pa.array([f"sensor-{i:06d}" for i in range(n_series)])
    stamps = pa.array(START_US + HOUR_US * hour[order]).cast(pa.timestamp("us"))
    table = pa.table(
        {
            "timestamp": stamps,
            "series": pa.DictionaryArray.from_arrays(series[order], names).cast(pa.string()),
            "value": value[order].astype(np.float32),
        }
    )
    pa_parquet.write_table(table, path)


def run_command(report: Path, started: float, command: list[str]) -> int:
    """Run one command in this process; note when the first step was taken, and the peak memory."""
    from rnnforecast.cli import console, main
    from rnnforecast.events import Event, ProgressEvent

    found: dict[str, float] = {}
    show = console.Screen.__call__

    def watch(screen: console.Screen, event: Event) -> None:
        if isinstance(event, ProgressEvent) and event.task == "training" and event.done:
            found.setdefault("first_step_s", time.time() - started)
        show(screen, event)

    console.Screen.__call__ = watch  # type: ignore[method-assign]
    code = main.run(command)
    status = Path("/proc/self/status").read_text()
    found["peak_mb"] = int(status.split("VmHWM:")[1].split()[0]) / 1024
    report.write_text(json.dumps(found))
    return code


def measure(folder: Path, *command: str) -> dict[str, float]:
    """Run one command in a fresh process, and say what it took; it may be partial (3)."""
    report, started = folder / "report.json", time.time()
    own = ["--report", str(report), "--started", repr(started), *command]
    ended = subprocess.run(
        [sys.executable, __file__, *own], cwd=folder, check=False, capture_output=True, text=True
    )
    took = time.time() - started
    if ended.returncode not in (0, 3):
        raise RuntimeError(ended.stderr)
    print(ended.stderr, file=sys.stderr)
    timing = json.loads(ended.stdout).get("timing", {})
    return {**timing, **json.loads(report.read_text()), "whole_s": took}


def main() -> int:
    """Make the table, train, forecast, print; fail where a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--readings", type=int, default=200, help="of the longest series")
    parser.add_argument("--ragged", action="store_true")
    parser.add_argument("--by-time", action="store_true")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    options, command = parser.parse_known_args()
    if options.report:
        return run_command(options.report, options.started, command)
    lengths = np.full(options.series, options.readings)
    begins = np.zeros_like(lengths)
    if options.ragged:
        rng = np.random.default_rng(1)
        lengths = rng.integers(options.readings // 2, options.readings + 1, options.series)
        short = rng.random(options.series) < 0.1
        lengths[short] = rng.integers(1, options.readings // 2, int(short.sum()))
        begins = rng.integers(0, options.readings, options.series)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_readings(folder / "readings.parquet", lengths, begins, by_time=options.by_time)
        trained = measure(
            *(folder, "train", "readings.parquet"),
            *("--horizon", str(HORIZON), "--steps", str(STEPS), "--model", "model", "--json"),
        )
        forecast = measure(folder, "predict", "--model", "model", "-o", "forecast.csv", "--json")
    print(f"{os.cpu_count()} cores, horizon {HORIZON}, {STEPS} steps")
    print("| series | rows | read s | first step s | fit s | train s | predict s | peak MB |")
    print("|---|---|---|---|---|---|---|---|")
    peaks = "/".join(f"{found['peak_mb']:.0f}" for found in (trained, forecast))
    print(
        f"| {options.series} | {int(lengths.sum())} | {trained['read_s']:.1f} "
        f"| {trained['first_step_s']:.1f} | {trained['fit_s']:.1f} | {trained['whole_s']:.1f} "
        f"| {forecast['whole_s']:.1f} | {peaks} |"
    )
    return 0 if max(trained["first_step_s"], forecast["whole_s"]) < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
