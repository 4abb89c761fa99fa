"""Errors and times of neuralforecast and darts on ETTh1, and the time of ours to match them.

    pip install -e ".[bench]"
    RNNFORECAST_DATA=... python -m benchmarks.peers [--threads N] [--batches N ...]
        [--windows N ...]

Each library forecasts every window of the test part of ETTh1's seven sensors, with a look-back and
a horizon of 96 steps: rows up to 8640 are for training, up to 11520 for validation, up to 14400 for
testing. Errors are in standard deviations of the train part. The peers train a recurrent network of
width 128 on a fixed number of windows, in batches of 256, 1,024 or 4,096 windows of one series,
whichever is fastest. Ours uses its defaults; the built-in network is also measured, untrained.

Times are the seconds from the start of a process until it can forecast, and until it has forecast
all windows. Every measurement runs in a separate process. The ratio compares the former: the time
of the peers' run with the smallest error, divided by the shortest time of ours to reach that error.
The tables go into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.suite import with_section

HEADING = "## Beside other libraries"
OURS = "rnnforecast"
BUILTIN = "rnnforecast, built in"
LOOKBACK = HORIZON = 96
WIDTH = 128
TRAIN_END, VALIDATION_END, TEST_END = 8640, 11520, 14400
BATCHES = (256, 1024, 4096)
SHORT, LONGER = 6, 18
"""Steps of 1,024 windows, or as many of another size."""
WINDOWS = (92_160, 368_640)
"""Windows that the peers train on."""
TIMES = {
    "ready_s": "seconds to ready",
    "seconds": "to all forecasts",
    "processor_s": "processor seconds",
}
"""Of a run, by the columns of the table; the first is waited for, the last does not depend on what
else the machine does."""
MANY_SERIES = 10_000
MANY_ROWS = 200

Result = dict[str, Any]
READY_AT: list[float] = []
"""When trainings of a peer in this process ended."""


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


def our_error(network: str) -> Result:
    """Backtest with the defaults, or the built-in network."""
    import rnnforecast

    result = rnnforecast.backtest(
        readings(),
        horizon=HORIZON,
        lookback=LOOKBACK,
        config=rnnforecast.Config(
            network=rnnforecast.NetworkConfig(network=network),
            training=rnnforecast.TrainConfig(threads=_threads()),
        ),
        ends=rnnforecast.BacktestConfig(
            train_end=TRAIN_END, validation_end=VALIDATION_END, stride=1, baselines=()
        ),
    )
    own = result.metrics["network"]
    return {
        "ready_at": time.monotonic() - result.timing["evaluate_s"],
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
    """Seconds of a training with this many steps."""
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
        callbacks=[_ready()],
    )
    return NeuralForecast([model], freq="h")


def _ready() -> Any:
    """Return a callback of Lightning that notes when a training is over."""
    from pytorch_lightning import Callback

    class Ready(Callback):
        def on_train_end(self, *_: object) -> None:
            READY_AT.append(time.monotonic())

    return Ready()


def neuralforecast_error(batch: int, windows: int) -> Result:
    """Train on a number of windows, forecast all test windows, score."""
    forecaster = _neuralforecast(batch, max(1, windows // batch))
    frame = long_form(readings())
    made = forecaster.cross_validation(
        frame,
        val_size=VALIDATION_END - TRAIN_END,
        test_size=TEST_END - VALIDATION_END,
        n_windows=None,
        step_size=1,
    )
    names = [name for name in readings().columns if name != "date"]
    ordered = made.sort_values(["cutoff", "ds"])
    columns = [ordered.loc[ordered["unique_id"] == name, "GRU"].to_numpy() for name in names]
    forecast = np.stack(columns, -1).reshape(-1, HORIZON, len(names))
    return {"ready_at": READY_AT[-1], **scaled_errors(forecast, *truth())}


def neuralforecast_predict() -> float:
    """Seconds to forecast 10,000 series."""
    frame = many_series()
    forecaster = _neuralforecast(1024, 1)
    forecaster.fit(frame)
    return _fastest(forecaster.predict)


def darts_rate(batch: int, steps: int) -> float:
    """Seconds of a training with this many steps."""
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
            "callbacks": [_ready()],
        },
    )


def darts_error(batch: int, windows: int) -> Result:
    """Train on a number of windows, forecast all test windows, score."""
    model = _darts(batch, max(1, windows // batch))
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
    forecast = np.stack([[f.values()[:, 0] for f in one] for one in made], -1)
    actual, deviation = truth()
    means = readings().drop(columns="date").to_numpy()[:TRAIN_END].mean(0)
    errors = scaled_errors(forecast * deviation + means, actual, deviation)
    return {"ready_at": READY_AT[-1], **errors}


PEERS: dict[str, tuple[Callable[[int, int], float], Callable[[int, int], Result]]] = {
    "neuralforecast": (neuralforecast_rate, neuralforecast_error),
    "darts": (darts_rate, darts_error),
}
NETWORKS = {OURS: "auto", BUILTIN: "builtin"}
PREDICTIONS = {OURS: ours_predict, "neuralforecast": neuralforecast_predict}


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
    """Run one measurement in a separate process, and return what it prints last.

    `ready_at`, a time, becomes the seconds since the start of the process, and those of the whole
    run are added.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if task[1] in NETWORKS:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"  # the libraries run as they come
    command = [sys.executable, "-m", "benchmarks.peers", "--one", *map(str, task)]
    started, used = time.monotonic(), _processor_seconds()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    if task[0] == "error":
        result["seconds"] = time.monotonic() - started
        result["processor_s"] = _processor_seconds() - used
        result["ready_s"] = result.pop("ready_at") - started
    return result


def _processor_seconds() -> float:
    """Return what processes that have ended took, of all processors together."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(task: list[str]) -> object:
    """Do one measurement, in this process."""
    kind, library, *numbers = task
    if kind == "predict":
        return PREDICTIONS[library]()
    if library in NETWORKS:
        return our_error(NETWORKS[library])
    rate, error = PEERS[library]
    return (rate if kind == "rate" else error)(*map(int, numbers))


def measure_rates(threads: int, batches: Sequence[int]) -> dict[str, dict[int, float]]:
    """Return the windows a second of each peer, by the size of its batches.

    They are those of further steps: a short and a longer training differ by them alone.
    """
    rates: dict[str, dict[int, float]] = {name: {} for name in PEERS}
    for batch in batches:
        for name in PEERS:
            short, longer = (max(1, steps * 1024 // batch) for steps in (SHORT, LONGER))
            seconds = [apart(threads, "rate", name, batch, n) for n in (short, longer)]
            rates[name][batch] = (longer - short) * batch / (seconds[1] - seconds[0])
            print(f"{name}, batch {batch}: {rates[name][batch]:,.0f} windows a second", flush=True)
    return rates


def measure_errors(
    threads: int, batches: Sequence[int], windows: Sequence[int]
) -> dict[str, Result]:
    """Return errors and times of rnnforecast, and of each peer after each number of windows."""
    tasks: dict[str, tuple[object, ...]] = {name: (name,) for name in NETWORKS}
    for name, by_batch in measure_rates(threads, batches).items():
        batch = max(by_batch, key=by_batch.__getitem__)
        for n in windows:
            tasks[f"{name}, {n:,} windows, batch {batch:,}"] = (name, batch, n)
    results = {}
    for title, task in tasks.items():
        results[title] = apart(threads, "error", *task)
        print(_row(title, results[title]), flush=True)
    return results


def _row(title: str, result: Result) -> str:
    errors = f"{result['scaled_mse']:.3f}/{result['scaled_mae']:.3f}"
    seconds = (f"{result[key]:.1f}" for key in TIMES)
    return f"| {title} | {' | '.join(seconds)} | {errors} |"


def section(results: dict[str, Result], forecasting: dict[str, float], circumstances: str) -> str:
    """Return the table as Markdown, and how many times as fast ours is."""
    columns = [f"{LOOKBACK} -> {HORIZON}", *TIMES.values(), "MSE/MAE"]
    rows = [_row(title, result) for title, result in results.items()]
    peers = [result for title, result in results.items() if title not in NETWORKS]
    best = min(peers, key=lambda result: result["scaled_mae"])
    as_good = [
        results[name]
        for name in NETWORKS
        if all(results[name][error] <= best[error] for error in ("scaled_mse", "scaled_mae"))
    ]
    verdict = "Ours does not reach the error of the peers' best run."
    if as_good:
        ours = min(as_good, key=lambda result: result["ready_s"])
        ready, all_done, used = (best[key] / ours[key] for key in TIMES)
        verdict = (
            f"A network with an error as small as that of the peers' best run is ready {ready:.1f} "
            f"times as fast, has forecast all windows {all_done:.1f} times as fast, and with "
            f"{used:.1f} times fewer processor seconds."
        )
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in forecasting.items())
    ratio = forecasting["neuralforecast"] / forecasting[OURS]
    libraries = ", ".join(f"{name} {version(name)}" for name in (OURS, *PEERS, "torch"))
    return "\n\n".join(
        [
            HEADING,
            "Made by `python -m benchmarks.peers`; the protocol stands at its top. "
            f"{circumstances}, {libraries}.",
            "\n".join(
                [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *rows],
            ),
            verdict,
            f"Forecasting {MANY_SERIES:,} series of {MANY_ROWS} readings, {HORIZON} steps: {told}, "
            f"{ratio:.1f} times as fast.",
        ]
    )


def main() -> None:
    """Compare errors and times, print, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--windows", type=int, nargs="+", default=WINDOWS)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    circumstances = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {given.threads} threads, "
        f"{os.getloadavg()[0]:.1f} other processes at the start"
    )
    results = measure_errors(given.threads, given.batches, given.windows)
    forecasting = {name: apart(given.threads, "predict", name) for name in PREDICTIONS}
    text = section(results, forecasting, circumstances)
    print(text)
    page = Path(__file__).parent / "RESULTS.md"
    page.write_text(with_section(page.read_text(), text + "\n"))


if __name__ == "__main__":
    main()
