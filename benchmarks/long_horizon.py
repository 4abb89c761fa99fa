"""The long-horizon tables on ETTh1 and ETTm1: what was published, and our runs of the same.

Rows to 8,640 train, to 11,520 validate, to 14,400 test (ETTm1: four times as many); each channel
is forecast from every test window, stride 1; errors are in standard deviations of the train rows.
Ours learns on from the validation rows before the test, as `train` does; the published ones do not.
Sources: look-back 96, the repositories of SegRNN (lss-1138/SegRNN, one seed) and CycleNet
(ACAT-SCUT/CycleNet, means of five seeds, which also ran the others); look-back 720, Lin and others
2024 (SegRNN's journal version), Table II, and CycleNet's repository with a look-back of 336.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from scores import scores

import rnnforecast

HORIZONS = (96, 192, 336, 720)
_ROWS = (8640, 11520, 14400)
_PER_HOUR = {"ETTh1": 1, "ETTm1": 4}

Figures = tuple[float, float]
"""Scaled MSE and MAE."""

_SHORT = """
set   H   SegRNN      iTransformer PatchTST    DLinear     CycleNet/Lin CycleNet/MLP seas.naive
ETTh1 96  0.368/0.395 0.386/0.405  0.414/0.419 0.386/0.400 0.378/0.391 0.375/0.395 0.512/0.433
ETTh1 192 0.408/0.419 0.441/0.436  0.460/0.445 0.437/0.432 0.427/0.419 0.437/0.428 0.581/0.469
ETTh1 336 0.444/0.440 0.487/0.458  0.501/0.466 0.481/0.459 0.464/0.439 0.497/0.455 0.650/0.501
ETTh1 720 0.446/0.457 0.503/0.491  0.500/0.488 0.519/0.516 0.462/0.461 0.520/0.484 0.655/0.514
ETTm1 96  0.330/0.369 0.334/0.368  0.329/0.367 0.345/0.372 0.326/0.364 0.319/0.360 0.423/0.387
ETTm1 192 0.369/0.392 0.377/0.391  0.367/0.385 0.380/0.389 0.366/0.382 0.361/0.382 0.463/0.406
ETTm1 336 0.399/0.412 0.426/0.420  0.399/0.410 0.413/0.413 0.396/0.402 0.390/0.404 0.496/0.426
ETTm1 720 0.454/0.443 0.491/0.459  0.454/0.439 0.474/0.453 0.457/0.434 0.448/0.441 0.574/0.464
"""
_LONG = """
set   H   SegRNN      PatchTST    DLinear     iTransformer step-by-step_GRU DeepAR      CycleNet_336
ETTh1 96  0.351/0.392 0.375/0.404 0.381/0.407 0.396/0.426 1.135/0.844      1.097/0.803 0.374/0.396
ETTh1 192 0.392/0.414 0.418/0.430 0.419/0.430 0.430/0.450 1.123/0.814      1.080/0.793 0.407/0.415
ETTh1 336 0.423/0.433 0.462/0.460 0.454/0.456 0.480/0.486 1.080/0.807      1.076/0.800 0.431/0.431
ETTh1 720 0.466/0.472 0.495/0.497 0.499/0.512 0.700/0.608 1.089/0.822      1.079/0.815 0.451/0.464
ETTm1 96  0.293/0.354 0.300/0.354 0.307/0.351 0.314/0.366 0.953/0.740      1.153/0.857 0.300/0.348
ETTm1 192 0.328/0.378 0.339/0.377 0.337/0.370 0.349/0.389 1.124/0.847      1.292/0.827 0.335/0.368
ETTm1 336 0.357/0.399 0.368/0.400 0.371/0.392 0.381/0.411 1.200/0.881      1.199/0.866 0.368/0.387
ETTm1 720 0.410/0.430 0.420/0.424 0.416/0.416 0.448/0.449 1.173/0.858      1.193/0.869 0.418/0.415
"""

_NAMES = {
    "CycleNet/Lin": "CycleNet/Linear",
    "seas.naive": "seasonal naive",
    "CycleNet_336": "CycleNet/Linear, look-back 336",
}


@dataclass(frozen=True)
class Task:
    """One cell of a table."""

    data: str
    horizon: int
    lookback: str
    """Steps, or auto: chosen by validation, up to 720."""
    published: dict[str, Figures]


def _table(text: str, lookback: str) -> dict[str, Task]:
    """Read a table of published figures, a row a task."""
    head, *rows = (line.split() for line in text.strip().splitlines())
    tasks = {}
    for data, horizon, *cells in rows:
        figures = [tuple(map(float, cell.split("/"))) for cell in cells]
        methods = [_NAMES.get(method, method.replace("_", " ")) for method in head[2:]]
        published = dict(zip(methods, figures, strict=True))
        tasks[f"{data} {horizon}"] = Task(data, int(horizon), lookback, published)
    return tasks


TABLES = {"look-back 96": _table(_SHORT, "96"), "look-back auto": _table(_LONG, "auto")}


def run(task: Task, *, seed: int, steps: int | None = None) -> dict[str, float]:
    """Fit and score one task with the defaults."""
    train_end, validation_end, test_end = (n * _PER_HOUR[task.data] for n in _ROWS)
    result = rnnforecast.backtest(
        Path(os.environ["RNNFORECAST_DATA"]) / f"{task.data}.csv",
        horizon=task.horizon,
        lookback=task.lookback,
        config=rnnforecast.Config(training=rnnforecast.TrainConfig(seed=seed, steps=steps)),
        ends=rnnforecast.BacktestConfig(
            train_end=train_end,
            validation_end=validation_end,
            test_end=test_end,
            stride=1,
            baselines=(),
        ),
    )
    return scores(result, "scaled_mse", "scaled_mae")
