"""How memory and time grow with the readings: 1e5, 1e6, 1e7 of them, each in a fresh process.

    python benchmarks/scaling.py [--format parquet|csv] [--shape wide|long] [SIZE ...]

For each size it prints the peak resident memory of `rnnforecast.train` against the promise of 1.5
times the float32 readings plus 600 MB, the time to read and prepare per million readings, and the
time of one training step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

SIZES = (100_000, 1_000_000, 10_000_000)
SENSORS = 100
STEPS = 40
ALLOWED_FACTOR, ALLOWED_MB = 1.5, 600


def write_readings(path: Path, n_readings: int, shape: str) -> None:
    """Write made-up readings of 100 sensors, hourly: a daily pattern and a random walk."""
    rng = np.random.default_rng(0)
    n_rows = n_readings // SENSORS
    stamps = pd.date_range("2000-01-01", periods=n_rows, freq="1h")
    daily = np.sin(2 * np.pi * np.arange(n_rows) / 24)
    sensors = {
        f"s{i:02}": (20 + 5 * daily + 0.1 * rng.standard_normal(n_rows).cumsum()).round(3)
        for i in range(SENSORS)
    }
    frame = pd.DataFrame({"timestamp": stamps, **sensors})
    if shape == "long":
        frame = frame.melt("timestamp", var_name="series", value_name="value")
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)


def peak_mb() -> float:
    """Return this process's peak resident memory; `ru_maxrss` would start at the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(path: Path) -> dict[str, float]:
    """Train for a few steps in this process and say what it took."""
    import rnnforecast
    from rnnforecast.events import Event, ProgressEvent

    moments: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, ProgressEvent) and event.task == "training":
            moments.append(time.perf_counter())

    config = rnnforecast.Config(training=rnnforecast.TrainConfig(epochs=1, steps=STEPS))
    model = rnnforecast.train(
        path, model=None, horizon=24, lookback=96, config=config, listener=listen
    )
    steps = np.diff(moments[:STEPS])
    return {
        "peak_mb": peak_mb(),
        "read_s": model.timing["read_s"] if model.timing else 0.0,
        "total_s": model.timing["total_s"] if model.timing else 0.0,
        "step_ms": float(np.median(steps) * 1e3),
    }


def main() -> int:
    """Run every size in a process of its own, print a table, fail if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=float, default=SIZES, metavar="SIZE")
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--shape", choices=("wide", "long"), default="wide")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    print(f"{options.shape} {options.format}, {SENSORS} sensors")
    print("| readings | peak MB | allowed MB | read s | read s per million | step ms | total s |")
    print("|---|---|---|---|---|---|---|")
    kept = True
    for size in map(int, options.sizes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"readings.{options.format}"
            write_readings(path, size, options.shape)
            command = [sys.executable, __file__, "--measure", str(path)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        allowed = ALLOWED_FACTOR * 4 * size / 2**20 + ALLOWED_MB
        kept = kept and found["peak_mb"] <= allowed
        print(
            f"| {size} | {found['peak_mb']:.0f} | {allowed:.0f} | {found['read_s']:.2f} "
            f"| {1e6 * found['read_s'] / size:.2f} | {found['step_ms']:.1f} "
            f"| {found['total_s']:.1f} |"
        )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
