"""The eight ETT1 tasks of GIFT-Eval (Aksu and others 2024): what was published, and our runs.

Each task is one call of `rnnforecast.backtest` with the defaults, but for the horizon, the windows
and the season that the protocol fixes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scores import scores

import rnnforecast


@dataclass(frozen=True)
class Task:
    """One task, and what was published for it: MASE and mean weighted quantile loss."""

    rows: int
    """Rows of 15 minutes that one step is the mean of."""
    horizon: int
    windows: int
    season: int
    published: dict[str, tuple[float, float]]


METHODS = ("seasonal naive", "DeepAR", "PatchTST", "xLSTM-Mixer", "TiRex", "Chronos-2")


def task(rows: int, horizon: int, windows: int, season: int, *figures: float) -> Task:
    """Make a task; the figures are MASE and WQL of each published method in turn."""
    pairs = zip(figures[::2], figures[1::2], strict=True)
    return Task(rows, horizon, windows, season, dict(zip(METHODS, pairs, strict=True)))


TASKS = {
    "15T short": task(
        1, 48, 20, 96,
        0.934, 0.241, 1.440, 0.320, 0.835, 0.191, 0.740, 0.161, 0.709, 0.161, 0.687, 0.165,
    ),
    "15T medium": task(
        1, 480, 15, 96,
        1.188, 0.322, 1.350, 0.315, 1.080, 0.250, 1.043, 0.236, 1.014, 0.237, 0.986, 0.233,
    ),
    "15T long": task(
        1, 720, 10, 96,
        1.191, 0.340, 9.340, 2.220, 1.100, 0.247, 1.077, 0.237, 1.020, 0.234, 1.013, 0.241,
    ),
    "H short": task(
        4, 48, 20, 24,
        0.977, 0.240, 1.060, 0.233, 0.893, 0.190, 0.863, 0.181, 0.817, 0.176, 0.787, 0.171,
    ),
    "H medium": task(
        4, 480, 4, 24,
        1.568, 0.435, 3.120, 0.535, 1.390, 0.273, 1.326, 0.266, 1.235, 0.252, 1.274, 0.261,
    ),
    "H long": task(
        4, 720, 3, 24,
        1.479, 0.471, 2.680, 0.469, 1.470, 0.297, 1.414, 0.277, 1.321, 0.258, 1.380, 0.275,
    ),
    "D short": task(
        96, 30, 3, 1,
        1.778, 0.408, 1.690, 0.293, 1.680, 0.304, 1.646, 0.279, 1.679, 0.277, 1.640, 0.274,
    ),
    "W short": task(
        672, 8, 2, 1,
        1.769, 0.312, 4.160, 0.686, 1.890, 0.323, 1.386, 0.249, 1.598, 0.278, 1.590, 0.271,
    ),
}  # fmt: skip


def readings_of(task: Task) -> pd.DataFrame:
    """Return ETTm1 in means of so many rows; a last bin that is not full is dropped."""
    frame = pd.read_csv(Path(os.environ["RNNFORECAST_DATA"]) / "ETTm1.csv", parse_dates=["date"])
    sensors = frame.drop(columns="date")
    n = len(frame) // task.rows
    whole = sensors.to_numpy()[: n * task.rows].reshape(n, task.rows, -1).mean(1)
    means = pd.DataFrame(whole, columns=sensors.columns)
    means.insert(0, "date", frame["date"].iloc[: n * task.rows : task.rows].to_numpy())
    return means


def run_builtin(task: Task, *, seed: int, steps: int | None = None) -> dict[str, float]:
    """Score one task by the built-in network, which has not learnt from it."""
    return run(task, seed=seed, steps=steps, method="builtin")


def run(
    task: Task, *, seed: int, steps: int | None = None, method: str = "network"
) -> dict[str, float]:
    """Fit and score one task with the defaults."""
    is_builtin = method == "builtin"
    result = rnnforecast.backtest(
        readings_of(task),
        config=rnnforecast.Config(
            window=rnnforecast.WindowConfig(
                horizon=str(task.horizon),
                season="none" if task.season == 1 else str(task.season),
            ),
            network=rnnforecast.NetworkConfig(network="builtin" if is_builtin else "auto"),
            training=rnnforecast.TrainConfig(steps=steps, seed=seed),
        ),
        ends=rnnforecast.BacktestConfig(
            windows=task.windows, baselines=(method,) if is_builtin else ()
        ),
    )
    return scores(result, "mase", "wql", method=method)
