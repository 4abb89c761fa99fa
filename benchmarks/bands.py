"""How many readings the bands hold, before and after calibration: `train` with its defaults.

    RNNFORECAST_DATA=... python benchmarks/bands.py [--seeds 0 1 2]

Prints a Markdown table: medians over the seeds, of the held-out test part that `train` measures
itself on. The ranges are those of the series with the smallest and the largest share, over all
seeds.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import rnnforecast

_SAMPLES = Path(__file__).parent.parent / "sample_data"
_REAL = ("ETTh1", "ETTm1", "machine_temperature_system_failure")
_SAMPLED = ("pumping_station.csv", "seattle_temperature.csv", "machines.parquet")


def measure(path: Path, seed: int) -> dict[str, Any]:
    """Train once; return the network's metrics and what its bands hold."""
    reading = rnnforecast.DataConfig(series="machine" if path.stem == "machines" else None)
    config = rnnforecast.Config(data=reading, training=rnnforecast.TrainConfig(seed=seed))
    metrics = rnnforecast.train(path, model=None, config=config).metrics
    return {**metrics["bands"], **metrics["metrics"]["network"]}


def row(name: str, runs: list[dict[str, Any]]) -> str:
    """Return one line of the table; dashes for what was not calibrated."""
    cells = [
        _median(runs, "uncalibrated_coverage_80", digits=3),
        _median(runs, "coverage_80", digits=3),
        f"{min(run['narrowest'][1] for run in runs):.3f} to "
        f"{max(run['widest'][1] for run in runs):.3f}",
        _median(runs, "uncalibrated_wql", digits=4),
        _median(runs, "wql", digits=4),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _median(runs: list[dict[str, Any]], key: str, *, digits: int) -> str:
    values = [run[key] for run in runs if run[key] is not None]
    return f"{statistics.median(values):.{digits}f}" if values else "-"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    data = Path(os.environ["RNNFORECAST_DATA"])
    paths = [*(data / f"{name}.csv" for name in _REAL), *(_SAMPLES / name for name in _SAMPLED)]
    columns = ["train, defaults", "inside before", "inside", "by series", "WQL before", "WQL"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for path in paths:
        print(row(path.stem, [measure(path, seed) for seed in seeds]), flush=True)


if __name__ == "__main__":
    main()
