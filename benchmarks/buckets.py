"""What forecasts in batches cost: seconds and memory by buckets and by workers.

    python benchmarks/buckets.py [--series 5000] [--readings 2000] [--buckets 64]

Makes hourly series, shards them, trains a network of the default size on a few of them, and
forecasts a quarter, half and all of the buckets with one worker, then all of them with one and with
two in turn. What two can come to at most is what two commands come to that forecast half of the
buckets each, side by side. Figures are medians; beside each stands the load before it, which they
are no good without. Linux only: memory is looked up in /proc.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from many_series import write_readings

OPTIONS = ("--steps", "60", "-H", "24", "--no-report", "-q")
ROUNDS = 5
POLL_S = 0.02


def make(path: Path, n_series: int, n_readings: int) -> None:
    """Write a long table, series by series."""
    lengths = np.full(n_series, n_readings)
    write_readings(path, lengths, np.zeros(n_series, np.int64), by_time=False)


class Command:
    """A command that runs."""

    def __init__(self, *words: object) -> None:
        self._words = words
        self._begin = time.monotonic()
        line = [sys.executable, "-m", "rnnforecast", *map(str, words)]
        self._process = subprocess.Popen(line, start_new_session=True, stdout=subprocess.DEVNULL)

    def wait(self) -> tuple[float, float]:
        """Return its seconds, and the megabytes of its largest process."""
        peak = 0.0
        while self._process.poll() is None:
            peak = max(peak, *map(_peak_of, _session(self._process.pid)), 0.0)
            time.sleep(POLL_S)
        if self._process.returncode:
            raise SystemExit(f"{self._words} ended with {self._process.returncode}")
        return time.monotonic() - self._begin, peak


def _session(number: int) -> Iterator[Path]:
    """Give the processes of a session: workers are no children of the command."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "stat").read_text().rpartition(")")[2].split()[3] == str(number):
                yield folder


def _peak_of(process: Path) -> float:
    """Return the megabytes that a process has had at most; 0 where it has ended."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+)", (process / "status").read_text())
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


def run(*words: object) -> tuple[float, float]:
    """Run a command; return its seconds, and the megabytes of its largest process."""
    return Command(*words).wait()


def median(what: str, measure: Callable[[], tuple[float, float]]) -> float:
    """Print the median of some runs, and return its seconds."""
    found = [(*measure(), os.getloadavg()[0]) for _ in range(ROUNDS)]
    seconds, peak, load = (statistics.median(x) for x in zip(*found, strict=True))
    print(f"{what}: {seconds:.1f} s, {peak:.0f} MB (load {load:.1f})", flush=True)
    return seconds


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
        results = iter(range(10**6))

        def forecast(*options: object) -> tuple[float, float]:
            return run(*line, folder / f"forecast-{next(results)}", *options)

        def side_by_side() -> tuple[float, float]:
            output = folder / f"forecast-{next(results)}"
            both = [Command(*line, output, "--shard", f"{i}/2") for i in range(2)]
            ends = [one.wait() for one in both]
            return max(ends)[0], max(peak for _, peak in ends)

        for part in (4, 2, 1):
            median(f"1 of {part} shards", lambda part=part: forecast("--shard", f"0/{part}"))
        turns = [
            [forecast("--workers", workers) for workers in (1, 2)] + [side_by_side()]
            for _ in range(ROUNDS)
        ]
        medians = []
        for what, found in zip(
            ("--workers 1", "--workers 2", "two halves side by side"),
            zip(*turns, strict=True),
            strict=True,
        ):
            seconds, peak = (statistics.median(x) for x in zip(*found, strict=True))
            medians.append(seconds)
            print(f"{what}: {seconds:.1f} s, {peak:.0f} MB (load {os.getloadavg()[0]:.1f})")
        one, two, halves = medians
        print(f"one worker takes {one / two:.2f} times as long as two; at most {one / halves:.2f}")


if __name__ == "__main__":
    main()
