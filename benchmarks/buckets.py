"""What forecasts in batches cost: seconds and memory by buckets and by workers.

    python benchmarks/buckets.py [--series 5000] [--readings 2000] [--buckets 64]

Makes hourly series, shards them, trains a network of the default size on a few of them, and
forecasts a quarter, half and all of the buckets with one worker, then all of them with one and with
two in turn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from many_series import write_readings

OPTIONS = ("--steps", "60", "-H", "24", "--no-report", "-q")
ROUNDS = 3


def make(path: Path, n_series: int, n_readings: int) -> None:
    """Write a long table, series by series."""
    lengths = np.full(n_series, n_readings)
    write_readings(path, lengths, np.zeros(n_series, np.int64), by_time=False)


def run(*words: object) -> tuple[float, float]:
    """Run a command; return its seconds, and the megabytes of its largest process."""
    command = [sys.executable, "-m", "rnnforecast", *map(str, words)]
    begin = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{words} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - begin, usage.ru_maxrss / 1024


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=5000)
    parser.add_argument("--readings", type=int, default=2000)
    parser.add_argument("--buckets", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        table, few, plant, model = (
            folder / n for n in ("all.parquet", "few.parquet", "plant", "m")
        )
        for path, n_series in ((table, given.series), (few, 200)):  # whose memory is not counted
            process = multiprocessing.get_context("spawn").Process(
                target=make, args=(path, n_series, given.readings)
            )
            process.start()
            process.join()
        shard = run("shard", table, "--output", plant, "--buckets", given.buckets, "-q")
        run("train", few, "-m", model, *OPTIONS)
        print(f"shard: {shard[0]:.1f} s, {shard[1]:.0f} MB")
        line = ("predict", plant, "-m", model, "-q", "--output")
        for part in (4, 2, 1):
            seconds, peak = run(*line, folder / "parts", "--shard", f"0/{part}")
            print(f"1 of {part} shards: {seconds:.1f} s, {peak:.0f} MB")
            shutil.rmtree(folder / "parts")
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(ROUNDS):
            for workers in times:
                seconds, peak = run(*line, folder / "all", "--workers", workers)
                shutil.rmtree(folder / "all")
                times[workers].append(seconds)
                print(f"--workers {workers}: {seconds:.1f} s, at most {peak:.0f} MB", flush=True)
        one, two = (statistics.median(x) for x in times.values())
        print(f"one worker takes {one / two:.2f} times as long as two")


if __name__ == "__main__":
    main()
