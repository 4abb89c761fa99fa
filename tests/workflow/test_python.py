"""The functions of the package: their examples, tables in memory, and what they return."""

from __future__ import annotations

import doctest
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

import rnnforecast as rf
from rnnforecast.config.training import Config, NetworkConfig, TrainConfig, WindowConfig
from rnnforecast.workflow import backtest, train
from tests.builders import JOB, wave

N = 24 * 30
AHEAD = 48
QUICK = Config(
    window=WindowConfig(lookback=24),
    network=NetworkConfig(network="trained", hidden=8),
    training=TrainConfig(steps=8, threads=1),
)
"""A network that trains in a second; it is not how good forecasts are that is tested here."""
EXAMPLES: tuple[object, ...] = (
    rf.train,
    rf.load,
    rf.predict,
    rf.Model.predict,
    rf.plot,
    rf.check,
    rf.anomalies,
    rf.memory,
    rf.backtest,
    rf.versions,
    rf.use,
    rf.run,
    rf.status,
    rf.score,
    rf.score_job,
)
"""In an order in which each finds the files that it needs."""


def readings(n: int = N, *, ahead: int = 0) -> pd.DataFrame:
    """Hourly readings that follow a setpoint, which is known ahead."""
    setpoint = np.arange(n + ahead) // 7 % 2
    flow = (wave(n + ahead) + 3 * setpoint).round(2)
    flow[n:] = np.nan
    stamps = pd.date_range("2024-01-01", periods=n + ahead, freq="h")
    return pd.DataFrame({"time": stamps, "flow": flow, "setpoint": setpoint.astype(float)})


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, in which networks are trained quickly."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "Config", lambda: QUICK)
    monkeypatch.setattr(backtest, "Config", lambda: QUICK)
    yield tmp_path


@pytest.mark.slow
def test_the_examples_run(place: Path) -> None:
    readings(ahead=AHEAD).to_csv("readings.csv", index=False)
    readings(N, ahead=AHEAD).to_csv("data.csv", index=False)
    readings(N + 6).to_csv("newer.csv", index=False)
    (place / "job.toml").write_text(JOB)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(verbose=False)
    report: list[str] = []

    for example in EXAMPLES:
        if example is rf.score_job:  # readings have come since the job has run
            readings(N + 6).to_csv("data.csv", index=False)
        (test,) = finder.find(example, name=str(example), globs={"rf": rf})
        assert test.examples, example
        runner.run(test, out=report.append)

    assert "".join(report) == ""


def test_every_function_has_an_example_but_those_of_folders_in_buckets() -> None:
    functions = {name for name in rf.__all__ if inspect.isfunction(getattr(rf, name))}
    named = {example.__name__ for example in EXAMPLES}  # type: ignore[attr-defined]

    assert functions - named == {"predict_batch", "shard"}


class Stream:
    """A table that Arrow knows by its protocol alone, and that can be read once only."""

    def __init__(self, table: pa.Table) -> None:
        self._tables = [table]

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._tables.pop().__arrow_c_stream__(requested_schema)


def as_views(frame: pd.DataFrame, *, is_categorical: bool = False) -> Stream:
    """Return the names of series as views, or categories that are views, as polars keeps them."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    names = table["unique_id"].cast(pa.string_view()).combine_chunks()
    if is_categorical:
        categories = pa.array(["a", "b"], pa.string_view())
        codes = pa.array((frame["unique_id"] == "b").astype("uint32"))
        names = pa.DictionaryArray.from_arrays(codes, categories)
    return Stream(table.set_column(0, "unique_id", names))


@pytest.mark.parametrize(
    "convert",
    [
        lambda frame: frame,
        lambda frame: frame.set_index("ds"),
        pa.Table.from_pandas,
        lambda frame: pa.Table.from_pandas(frame).to_reader(),
        pa.RecordBatch.from_pandas,
        lambda frame: Stream(pa.Table.from_pandas(frame, preserve_index=False)),
        as_views,
        lambda frame: as_views(frame, is_categorical=True),
    ],
)
def test_tables_of_all_kinds_are_forecast_alike_and_keep_their_names(
    convert: Callable[[pd.DataFrame], object],
) -> None:
    frame = pd.DataFrame(
        {
            "unique_id": ["a"] * N + ["b"] * N,
            "ds": [*pd.date_range("2024-01-01", periods=N, freq="h")] * 2,
            "y": [*wave(N), *wave(N, seed=1)],
        }
    )
    frame.to_parquet("readings.parquet")

    forecast = rf.predict(convert(frame), horizon=6)

    expected = rf.predict("readings.parquet", horizon=6).to_pandas()
    assert list(expected) == ["unique_id", "ds", "forecast", "q10", "q90"]
    pd.testing.assert_frame_equal(forecast.to_pandas(), expected)
    pd.testing.assert_frame_equal(pa.table(forecast).to_pandas(), expected)


def test_a_series_of_pandas_is_a_table_with_one_column() -> None:
    series = readings().set_index("time")["flow"]

    named, nameless = rf.predict(series), rf.predict(series.rename(None).rename_axis(None))

    assert list(named.to_pandas())[:2] == ["series", "time"]
    assert set(named.to_pandas()["series"]) == {"flow"}
    assert list(nameless.to_pandas())[:2] == ["series", "timestamp"]
    assert set(nameless.to_pandas()["series"]) == {"value"}


def test_names_that_a_forecast_has_itself_are_not_taken() -> None:
    table = rf.predict(readings()[["time", "flow"]].rename(columns={"time": "q10"})).to_arrow()

    assert table.column_names == ["series", "timestamp", "forecast", "q10", "q90"]


@pytest.mark.parametrize("data", [3, ["a.csv"], {"a": [1]}, None])
def test_what_is_no_table_is_refused(data: object) -> None:
    with pytest.raises(rf.RnnForecastError, match=r"is not supported|built-in network"):
        rf.predict(data, model="builtin")


def test_a_lazy_table_is_told_to_be_collected() -> None:
    class LazyFrame:
        def collect(self) -> pd.DataFrame:
            return readings()

    with pytest.raises(rf.DataError) as caught:
        rf.predict(LazyFrame(), model="builtin")
    assert "collect()" in str(caught.value.hint)


def test_a_stream_that_breaks_is_an_error_of_the_data() -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        raise pa.ArrowInvalid("the server has gone")
        yield

    schema = pa.schema({"time": pa.timestamp("us"), "flow": pa.float64()})
    with pytest.raises(rf.DataError, match="the server has gone"):
        rf.predict(pa.RecordBatchReader.from_batches(schema, batches()))


def test_a_model_forecasts_the_table_that_it_was_trained_on_until_it_is_loaded_from_disk() -> None:
    frame = readings()[["time", "flow"]]

    model = rf.train(frame, horizon=6)

    forecast = model.predict()
    pd.testing.assert_frame_equal(forecast.to_pandas(), model.predict(frame).to_pandas())
    assert len(model.predict(horizon=2).to_pandas()) == 2
    with pytest.raises(rf.UsageError, match="trained on a DataFrame") as caught:
        rf.load("model").predict()
    assert "model.predict(df)" in str(caught.value.advice)
    loaded = rf.load("model").predict(frame)
    pd.testing.assert_frame_equal(loaded.to_pandas(), forecast.to_pandas())


def test_what_is_known_ahead_may_be_a_second_table() -> None:
    frame = readings(ahead=AHEAD)
    past, future = frame[:N], frame[N:].drop(columns="flow")

    model = rf.train(past, horizon=6, target="flow", known="setpoint", model=None)

    expected = model.predict(frame).to_pandas()
    pd.testing.assert_frame_equal(model.predict(past, future=future).to_pandas(), expected)
    future.to_csv("future.csv", index=False)
    pd.testing.assert_frame_equal(model.predict(past, future="future.csv").to_pandas(), expected)


def test_options_are_those_of_the_config_that_they_stand_for() -> None:
    frame = readings().rename(columns={"flow": "x"})
    config = rf.PredictConfig(horizon="3", quantiles=(0.05,))
    reading = rf.DataConfig(target=("x",))

    by_config = rf.predict(frame, config=config, reading=reading)
    by_name = rf.predict(frame, horizon=3, quantiles=[0.05], target="x")

    pd.testing.assert_frame_equal(by_name.to_pandas(), by_config.to_pandas())
    both = rf.predict(frame, config=config, reading=reading, horizon=5)
    assert list(both.to_pandas()["q5"]) != [] and len(both.to_pandas()) == 5


@pytest.mark.parametrize(
    "call",
    [
        lambda **options: rf.train("x.csv", **options),
        lambda **options: rf.predict("x.csv", **options),
        lambda **options: rf.backtest("x.csv", **options),
        lambda **options: rf.check("x.csv", **options),
        lambda **options: rf.anomalies("x.csv", **options),
        lambda **options: rf.memory("x.csv", **options),
        lambda **options: rf.plot("x.csv", **options),
        lambda **options: rf.run("job.toml", **options),
        lambda **options: rf.score("ledger", **options),
        lambda **options: rf.score_job("job.toml", **options),
        lambda **options: rf.shard("x.csv", "out", 2, **options),
        lambda **options: rf.predict_batch("x", output="out", **options),
    ],
)
def test_an_unknown_option_is_refused_before_anything_is_read(call: Callable[..., Any]) -> None:
    with pytest.raises(rf.UsageError, match="unexpected keyword argument 'no_such_option'"):
        call(no_such_option=1)
    assert list(Path().iterdir()) == []


def test_a_prediction_is_a_line_a_page_and_a_picture() -> None:
    frame = pd.concat([readings()[["time", "flow"]].assign(id=f"<{i}>") for i in range(14)])
    forecast = rf.predict(frame, horizon=6)

    assert repr(forecast).startswith("Prediction(14 series, 6 steps from 2024-01-31 00:00:00 to ")
    page = forecast._repr_html_()
    assert page.count("<tr") == 11 and "&lt;0&gt;" in page and "84 rows of 14 series" in page

    def titles(figure: Figure) -> list[str]:
        return [axes.get_title("left") for axes in figure.axes if axes.get_visible()]

    assert titles(forecast.plot()) == [f"<{i}>" for i in range(12)]
    assert titles(forecast.plot("<13>")) == ["<13>"]
    with pytest.raises(rf.UsageError, match="no series 'flow'"):
        forecast.plot(["flow"])


def test_a_prediction_is_partial_unless_the_network_forecasts_every_series_in_full() -> None:
    forecast = rf.predict(readings())
    assert not forecast.is_partial

    for kind in ("left_out", "short_history", "fallback"):
        degraded = replace(forecast, **{kind: ("a", "b")})
        assert degraded.is_partial and degraded.n_degraded == 2


def test_a_backtest_is_a_table_with_a_row_for_each_value() -> None:
    readings()[["time", "flow"]].to_csv("readings.csv", index=False)

    result = rf.backtest("readings.csv", horizon=6, windows=4, baselines="naive", output="all.csv")

    table = result.to_pandas()
    written = pd.read_csv("all.csv", parse_dates=["cutoff", "timestamp"])
    pd.testing.assert_frame_equal(table, written, check_dtype=False, rtol=1e-5)
    network = table[table["method"] == "network"]
    assert len(network) == 4 * 6
    mae = (network["actual"] - network["forecast"]).abs().mean()
    assert mae == pytest.approx(result.metrics["network"]["mae"], rel=1e-4)
    assert repr(result).startswith("Backtest(4 forecasts of 6 steps: ")
    assert "seasonal_naive" in result._repr_html_() and result.verdict in result._repr_html_()
    assert pa.table(result).num_rows == len(table)


@pytest.mark.slow
def test_a_model_says_how_good_it_is() -> None:
    model = rf.train(readings()[["time", "flow"]], horizon=6)

    loaded = rf.load("model")
    assert loaded.metrics == model.metrics
    assert loaded.metrics["network"]["mase"] == pytest.approx(model.metrics["network"]["mase"])
    assert (loaded.skill, loaded.verdict) == (model.skill, model.verdict)
    assert repr(loaded) == f"Model('model', version {model.version}, horizon 6 steps)"


def test_findings_are_those_of_the_command() -> None:
    frame = readings()
    frame.loc[100, "flow"] = 1e6

    result = rf.check(frame)

    assert [finding.code for finding in result.findings] == ["spike"]
    assert "spike" in repr(result) and not result.is_clean
    rf.train(readings(), horizon=6)
    assert rf.check(readings(), model="model").predict is not None


def test_all_names_are_listed_and_errors_are_one_tree() -> None:
    assert dir(rf) == sorted(rf.__all__)
    errors = [getattr(rf, name) for name in rf.__all__ if name.endswith("Error")]
    assert all(issubclass(error, rf.RnnForecastError) for error in errors)

    tree: list[type[rf.RnnForecastError]] = [rf.RnnForecastError]
    for error in tree:
        tree += error.__subclasses__()
    assert set(tree) == set(errors)


def test_the_package_is_imported_without_the_libraries_that_are_slow_to_import() -> None:
    program = (
        "import sys, rnnforecast; dir(rnnforecast); "
        "print({'torch', 'numpy', 'pandas', 'pyarrow', 'matplotlib'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(rf.__file__).parents[1])}
    outcome = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60
    )
    assert outcome.stdout == "set()\n", outcome.stderr
