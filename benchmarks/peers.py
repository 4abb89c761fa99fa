"""Training and forecasting beside neuralforecast and darts: same windows, width and threads.

    pip install -e ".[bench]"
    RNNFORECAST_DATA=... python benchmarks/peers.py [--threads N] [--windows N]

Each library trains a recurrent network of width 128 on the seven sensors of ETTh1, look-back and
horizon 96, with batches of 256, 1,024 and 4,096 windows of one series; the fastest counts. The rate
is that of further steps: a short and a longer training differ by them alone. Then each trains anew,
with its fastest batch, on as many windows as ours takes by default, and forecasts every window of
the test part: rows to 8640 train, to 11520 validate, to 14400 test.

Ours trains a committee of three such networks; a window counts once for each network that learns
from it. Every measurement runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

OURS = "rnnforecast"
LOOKBACK = HORIZON = 96
WIDTH = 128
TRAIN_END, VALIDATION_END, TEST_END = 8640, 11520, 14400
BATCHES = (256, 1024, 4096)
SHORT, LONGER = 6, 18
"""Steps of 1,024 windows, or as many of another size."""
OUR_SHORT, OUR_LONGER = 15, 105
"""Ours takes so little time for a step that a start's drift would hide fewer."""
MANY_SERIES = 10_000
MANY_ROWS = 200

Result = dict[str, Any]


def readings() -> pd.DataFrame:
    """Return ETTh1 up to the end of the test part, wide."""
    path = Path(os.environ["RNNFORECAST_DATA"]) / "ETTh1.csv"
    return pd.read_csv(path, parse_dates=["date"]).iloc[:TEST_END]


def long_form(wide: pd.DataFrame) -> pd.DataFrame:
    """Return one row a reading, as neuralforecast takes them."""
    long = wide.melt("date", var_name="unique_id", value_name="y")
    return long.rename(columns={"date": "ds"})


def many_series() -> pd.DataFrame:
    """Return 10,000 hourly series of 200 readings, in long form."""
    rng = np.random.default_rng(0)
    stamps = pd.date_range("2025-01-01", periods=MANY_ROWS, freq="h")
    daily = np.sin(2 * np.pi * np.arange(MANY_ROWS) / 24)
    values = daily + rng.normal(scale=0.3, size=(MANY_SERIES, MANY_ROWS))
    return pd.DataFrame(
        {
            "unique_id": np.repeat([f"s{i}" for i in range(MANY_SERIES)], MANY_ROWS),
            "ds": np.tile(stamps, MANY_SERIES),
            "y": values.ravel(),
        }
    )


def scaled_errors(forecast: np.ndarray, actual: np.ndarray, deviation: np.ndarray) -> Result:
    """MSE and MAE of `(window, horizon, series)` in units of the deviation, `(series,)`."""
    error = (forecast - actual) / deviation
    return {"scaled_mse": float((error**2).mean()), "scaled_mae": float(np.abs(error).mean())}


def truth() -> tuple[np.ndarray, np.ndarray]:
    """Return all test windows, `(window, horizon, series)`, and the deviations, `(series,)`."""
    values = readings().drop(columns="date").to_numpy()
    windows = np.lib.stride_tricks.sliding_window_view(values[VALIDATION_END:], HORIZON, axis=0)
    return windows.transpose(0, 2, 1), values[:TRAIN_END].std(0)


def ours_rate(batch: int, steps: int) -> float:
    """Seconds of a backtest with so many steps, without the trying of test windows."""
    return _our_backtest(batch, steps).timing["prepare_s"]


def _our_backtest(batch: int, steps: int | None) -> Any:
    import rnnforecast

    return rnnforecast.backtest(
        readings(),
        horizon=HORIZON,
        lookback=LOOKBACK,
        config=rnnforecast.Config(
            network=rnnforecast.NetworkConfig(hidden=WIDTH),
            training=rnnforecast.TrainConfig(batch_size=batch, steps=steps, threads=_threads()),
        ),
        ends=rnnforecast.BacktestConfig(
            train_end=TRAIN_END, validation_end=VALIDATION_END, stride=1, baselines=()
        ),
    )


def ours_error(_batch: int, _windows: int) -> Result:
    """Train with the default batch and number of windows, and score."""
    started = time.monotonic()
    result = _our_backtest(256, None)
    own = result.metrics["network"]
    return {
        "seconds": time.monotonic() - started,
        "scaled_mse": own["scaled_mse"],
        "scaled_mae": own["scaled_mae"],
    }


def ours_predict() -> float:
    """Seconds to forecast 10,000 series that have been read, as neuralforecast's have."""
    import rnnforecast
    from rnnforecast.tables.match import read_past
    from rnnforecast.workflow.saved import restore, training_stats_of

    frame = many_series()
    model = rnnforecast.train(
        frame,
        model=None,
        horizon=HORIZON,
        lookback=LOOKBACK,
        config=rnnforecast.Config(
            data=rnnforecast.DataConfig(time="ds", series="unique_id", target=("y",)),
            network=rnnforecast.NetworkConfig(hidden=WIDTH),
            training=rnnforecast.TrainConfig(steps=1, threads=_threads(), test=0, validation=0),
        ),
    )
    own = model.artifact
    past, _ = read_past(
        frame,
        schema=own.schema,
        options=own.config.data,
        as_of=None,
        stats=training_stats_of(own),
        listener=lambda _event: None,
    )
    forecaster = restore(own)
    return _fastest(lambda: forecaster.predict(past, HORIZON, (0.1, 0.5, 0.9)))


def neuralforecast_rate(batch: int, steps: int) -> float:
    """Seconds of a training with so many steps."""
    forecaster = _neuralforecast(batch, steps)
    frame = long_form(readings().iloc[:TRAIN_END])
    started = time.monotonic()
    forecaster.fit(frame)
    return time.monotonic() - started


def _neuralforecast(batch: int, steps: int) -> Any:
    from neuralforecast import NeuralForecast
    from neuralforecast.models import GRU

    model = GRU(
        h=HORIZON,
        input_size=LOOKBACK,
        encoder_n_layers=1,
        encoder_hidden_size=WIDTH,
        decoder_hidden_size=WIDTH,
        windows_batch_size=batch,
        inference_windows_batch_size=4096,
        batch_size=MANY_SERIES,
        max_steps=steps,
        val_check_steps=max(steps, 1),
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
    )
    return NeuralForecast([model], freq="h")


def neuralforecast_error(batch: int, windows: int) -> Result:
    """Train on so many windows, forecast all test windows, score."""
    forecaster = _neuralforecast(batch, max(1, windows // batch))
    frame = long_form(readings())
    started = time.monotonic()
    made = forecaster.cross_validation(
        frame,
        val_size=VALIDATION_END - TRAIN_END,
        test_size=TEST_END - VALIDATION_END,
        n_windows=None,
        step_size=1,
    )
    seconds = time.monotonic() - started
    names = [name for name in readings().columns if name != "date"]
    ordered = made.sort_values(["cutoff", "ds"])
    columns = [ordered.loc[ordered["unique_id"] == name, "GRU"].to_numpy() for name in names]
    forecast = np.stack(columns, -1).reshape(-1, HORIZON, len(names))
    return {"seconds": seconds, **scaled_errors(forecast, *truth())}


def neuralforecast_predict() -> float:
    """Seconds to forecast 10,000 series."""
    frame = many_series()
    forecaster = _neuralforecast(1024, 1)
    forecaster.fit(frame)
    return _fastest(forecaster.predict)


def darts_rate(batch: int, steps: int) -> float:
    """Seconds of a training with so many steps."""
    model, series = _darts(batch, steps), _darts_series(TRAIN_END)
    started = time.monotonic()
    model.fit(series)
    return time.monotonic() - started


def _darts_series(end: int) -> list[Any]:
    from darts import TimeSeries

    frame = readings().set_index("date").astype(np.float32)
    frame = (frame - frame.iloc[:TRAIN_END].mean()) / frame.iloc[:TRAIN_END].std(ddof=0)
    return [TimeSeries.from_series(frame[name].iloc[:end]) for name in frame.columns]


def _darts(batch: int, steps: int) -> Any:
    from darts.models import BlockRNNModel

    return BlockRNNModel(
        input_chunk_length=LOOKBACK,
        output_chunk_length=HORIZON,
        model="LSTM",
        hidden_dim=WIDTH,
        n_rnn_layers=1,
        batch_size=batch,
        n_epochs=10_000,
        random_state=0,
        pl_trainer_kwargs={
            "accelerator": "cpu",
            "max_steps": steps,
            "enable_progress_bar": False,
            "enable_checkpointing": False,
            "logger": False,
        },
    )


def darts_error(batch: int, windows: int) -> Result:
    """Train on so many windows, forecast all test windows, score."""
    model = _darts(batch, max(1, windows // batch))
    started = time.monotonic()
    model.fit(_darts_series(TRAIN_END))
    made = model.historical_forecasts(
        _darts_series(TEST_END),
        start=VALIDATION_END,
        start_format="position",
        forecast_horizon=HORIZON,
        stride=1,
        retrain=False,
        last_points_only=False,
        overlap_end=False,
    )
    seconds = time.monotonic() - started
    forecast = np.stack([[f.values()[:, 0] for f in one] for one in made], -1)
    actual, deviation = truth()
    means = readings().drop(columns="date").to_numpy()[:TRAIN_END].mean(0)
    return {"seconds": seconds, **scaled_errors(forecast * deviation + means, actual, deviation)}


LIBRARIES: dict[str, tuple[Callable[[int, int], float], Callable[[int, int], Result]]] = {
    OURS: (ours_rate, ours_error),
    "neuralforecast": (neuralforecast_rate, neuralforecast_error),
    "darts": (darts_rate, darts_error),
}
PREDICTIONS = {OURS: ours_predict, "neuralforecast": neuralforecast_predict}
MEMBERS = 3
"""Networks of ours that train side by side."""
OUR_WINDOWS = MEMBERS * 480 * 256


def _fastest(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        work()
        seconds.append(time.monotonic() - started)
    return min(seconds)


def _threads() -> int:
    return int(os.environ["OMP_NUM_THREADS"])


def apart(threads: int, *task: object) -> Any:
    """Run one measurement in a process of its own, and return what it prints last."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    if task[1] != OURS:
        del environment["OMP_WAIT_POLICY"]  # as the libraries come
    command = [sys.executable, __file__, "--one", *map(str, task)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(task: list[str]) -> object:
    """Do one measurement, in this process."""
    kind, library, *numbers = task
    if kind == "predict":
        return PREDICTIONS[library]()
    rate, error = LIBRARIES[library]
    return (rate if kind == "rate" else error)(*map(int, numbers))


def measure_rates(threads: int) -> dict[str, dict[int, float]]:
    """Return the windows a second of each library, by the size of its batches."""
    rates: dict[str, dict[int, float]] = {name: {} for name in LIBRARIES}
    for batch in BATCHES:
        for name in LIBRARIES:
            numbers = (OUR_SHORT, OUR_LONGER) if name == OURS else (SHORT, LONGER)
            short, longer = (max(1, steps * 1024 // batch) for steps in numbers)
            seconds = [apart(threads, "rate", name, batch, n) for n in (short, longer)]
            windows = (longer - short) * batch * (MEMBERS if name == OURS else 1)
            rates[name][batch] = windows / (seconds[1] - seconds[0])
    return rates


def compare_training(threads: int, windows: int) -> None:
    """Print the table of rates and errors, and the ratio of the rates."""
    rates = measure_rates(threads)
    print(f"{threads} threads, {LOOKBACK} -> {HORIZON}, width {WIDTH}, windows a second:\n")
    print(f"| library | {' | '.join(f'batch {b:,}' for b in BATCHES)} | seconds | MSE/MAE |")
    print("|---" * (len(BATCHES) + 3) + "|")
    for name, by_batch in rates.items():
        best = max(by_batch, key=by_batch.__getitem__)
        error = apart(threads, "error", name, best, windows)
        cells = [f"{by_batch[batch]:,.0f}" for batch in BATCHES]
        cells += [f"{error['seconds']:.0f}", f"{error['scaled_mse']:.3f}/{error['scaled_mae']:.3f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    fastest = {name: max(by_batch.values()) for name, by_batch in rates.items()}
    ratio = fastest.pop(OURS) / max(fastest.values())
    print(
        f"\nours over the faster peer: {ratio:.1f} times the windows a second of one network, "
        f"{ratio / MEMBERS:.1f} times those of the whole committee"
    )


def compare_forecasting(threads: int) -> None:
    """Print how long each library takes for many series."""
    seconds = {name: apart(threads, "predict", name) for name in PREDICTIONS}
    told = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    ratio = seconds["neuralforecast"] / seconds[OURS]
    print(f"forecasting {MANY_SERIES:,} series, {HORIZON} steps: {told}: {ratio:.1f} times as fast")


def main() -> None:
    """Compare training, then forecasting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--windows", type=int, default=OUR_WINDOWS)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    compare_training(given.threads, given.windows)
    compare_forecasting(given.threads)


if __name__ == "__main__":
    main()
