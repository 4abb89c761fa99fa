"""`backtest`: what it prints, writes and refuses, and that its figures can be recomputed."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.training import quantile_name
from rnnforecast.spec import DECILES
from tests.builders import wave, write_wide
from tests.conftest import SMALL, Command

SMALL_TEST = [*SMALL, "--train-end", "250", "--validation-end", "300"]
FIELDS = {
    "version",
    "output",
    "horizon",
    "lookback",
    "season",
    "stride",
    "split",
    "metrics",
    "skill",
    "skill_over",
    "skill_interval",
    "n_windows",
    "verdict",
    "by_lead",
    "n_worse",
    "worst_series",
    "bands",
    "report",
    "warnings",
    "timing",
}
METHODS = ["network", "naive", "seasonal_naive", "expert", "builtin", "ridge"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sensors, one with gaps, 400 hours."""
    level = 3 * wave(400, seed=1) - 10
    level[330:340] = np.nan
    return write_wide(tmp_path / "data.csv", flow=wave(400, noise=1.0), level=level)


def test_json_has_the_fields_of_the_contract(command: Command, data: Path) -> None:
    outcome = command("backtest", data, "--json", *SMALL_TEST)

    assert outcome.code == 0
    document = outcome.document
    assert document.keys() == FIELDS
    assert list(document["metrics"]) == METHODS
    assert document["split"] == {
        "train_end": "2024-01-11 10:00:00",
        "validation_end": "2024-01-13 12:00:00",
        "test_end": "2024-01-17 16:00:00",
    }
    assert document["n_windows"] == 2 * 16
    assert {m["n"] for m in document["metrics"].values()} == {2 * 16 * 6 - 10}
    low, high = document["skill_interval"]
    assert low <= document["skill"] <= high
    assert all(len(errors) == 6 for errors in document["by_lead"].values())
    bands = document["bands"]
    at = bands["levels"].index
    inside = bands["observed"][at(0.9)] - bands["observed"][at(0.1)]
    assert document["metrics"]["network"]["coverage_80"] == pytest.approx(inside, abs=1e-9)
    before = bands["uncalibrated"][at(0.9)] - bands["uncalibrated"][at(0.1)]
    assert bands["uncalibrated_coverage_80"] == pytest.approx(before, abs=1e-9)
    assert bands["narrowest"][1] <= bands["widest"][1]


def test_the_same_command_twice_gives_the_same_json(command: Command, data: Path) -> None:
    first, second = (command("backtest", data, "--json", *SMALL_TEST).document for _ in range(2))

    assert first.pop("timing") and second.pop("timing")
    assert first == second


def test_time_stamps_and_row_numbers_mean_the_same(command: Command, data: Path) -> None:
    stamps = ["--train-end", "2024-01-11 10:00", "--validation-end", "2024-01-13 12:00"]
    by_row = command("backtest", data, "--json", *SMALL_TEST).document
    by_time = command("backtest", data, "--json", *SMALL, *stamps).document

    assert by_row["metrics"] == by_time["metrics"]


def test_the_table_names_methods_verdict_and_leads(command: Command, data: Path) -> None:
    out = command("backtest", data, *SMALL_TEST).out

    for word in (
        "network",
        "seasonal naive",
        "expert",
        "builtin",
        "ridge",
        "MASE",
        "MSE/s2",
        "verdict: ",
        "lead",
    ):
        assert word in out
    assert "up to 2024-01-17 16:00:00 (excluded)" in out


def recomputed(rows: pd.DataFrame, data: pd.DataFrame, season: int, train_end: str) -> dict:
    """Compute the metrics of one method again, from the file and the readings alone."""
    rows = rows.dropna(subset="actual")
    error = (rows.actual - rows.forecast).abs()
    pinball = []
    for level in DECILES:
        quantile = rows.forecast if level == 0.5 else rows[quantile_name(level)]
        miss = rows.actual - quantile
        pinball.append(np.maximum(level * miss, (level - 1) * miss).sum())
    scaled, in_deviations = [], []
    for name, part in rows.groupby("series"):
        readings = data[name]
        own = []
        for cutoff, window in part.groupby("cutoff"):
            scale = readings[:cutoff].diff(season).abs().mean()
            own += ((window.actual - window.forecast).abs() / scale).tolist()
        scaled.append(np.mean(own))
        deviation = readings[: pd.Timestamp(train_end) - pd.Timedelta("1us")].std(ddof=0)
        in_deviations += ((part.actual - part.forecast) / deviation).tolist()
    return {
        "mae": error.mean(),
        "rmse": np.sqrt((error**2).mean()),
        "smape": (200 * error / (rows.actual.abs() + rows.forecast.abs())).mean(),
        "mase": np.mean(scaled),
        "wql": np.mean(2 * np.array(pinball) / rows.actual.abs().sum()),
        "coverage_80": rows.actual.between(rows.q10, rows.q90).mean(),
        "scaled_mse": np.mean(np.square(in_deviations)),
        "scaled_mae": np.mean(np.abs(in_deviations)),
        "n": len(rows),
    }


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_every_metric_can_be_recomputed_from_the_output(
    command: Command, data: Path, ending: str
) -> None:
    document = command(
        "backtest", data, "--json", "-o", f"rows.{ending}", "--stride", "5", *SMALL_TEST
    ).document
    read = {
        "csv": pd.read_csv,
        "parquet": pd.read_parquet,
        "jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
    }
    rows = read[ending](f"rows.{ending}").astype({"cutoff": "datetime64[us]"})
    readings = pd.read_csv(data, index_col="timestamp", parse_dates=True)

    assert list(rows.method.unique()) == METHODS
    assert list(rows.columns[:7]) == [
        "method",
        "series",
        "cutoff",
        "timestamp",
        "lead",
        "actual",
        "forecast",
    ]
    for method, part in rows.groupby("method"):
        expected = recomputed(part, readings, document["season"], document["split"]["train_end"])
        assert document["metrics"][method] == pytest.approx(expected, rel=1e-6)


def test_rows_of_the_output_say_what_the_forecast_could_see(command: Command, data: Path) -> None:
    command("backtest", data, "-q", "-o", "rows.csv", *SMALL_TEST)

    rows = pd.read_csv("rows.csv", parse_dates=["cutoff", "timestamp"])
    assert (rows.timestamp - rows.cutoff == rows.lead * pd.Timedelta("1h")).all()
    assert rows.cutoff.min() == pd.Timestamp("2024-01-13 11:00")
    assert rows.timestamp.max() <= pd.Timestamp("2024-01-17 15:00")
    readings = pd.read_csv(data, index_col="timestamp", parse_dates=True)
    for name, part in rows.groupby("series"):
        expected = readings[name].reindex(part.timestamp).to_numpy()
        np.testing.assert_allclose(part.actual, expected, rtol=1e-6)


def test_no_reading_after_the_validation_part_changes_a_forecast_of_its_end(
    command: Command, data: Path
) -> None:
    forecasts = []
    for factor in (1, -3):
        frame = pd.read_csv(data)
        frame.loc[300:, ["flow", "level"]] *= factor
        frame.to_csv("other.csv", index=False)
        command("backtest", "other.csv", "-q", "-o", "rows.csv", *SMALL_TEST)
        rows = pd.read_csv("rows.csv")
        first = rows[rows.cutoff == rows.cutoff.min()]
        forecasts.append(first.drop(columns="actual").reset_index(drop=True))
    pd.testing.assert_frame_equal(*forecasts)


def test_windows_takes_the_last_ones(command: Command, data: Path) -> None:
    command("backtest", data, "-q", "-o", "rows.csv", "--windows", "3", "--stride", "4", *SMALL)

    cutoffs = pd.read_csv("rows.csv", parse_dates=["cutoff"]).cutoff.unique()
    last = pd.Timestamp("2024-01-17 15:00")
    hours = [int((last - cutoff) / pd.Timedelta("1h")) for cutoff in cutoffs]
    assert hours == [14, 10, 6]


@pytest.mark.slow
def test_refit_learns_from_the_readings_that_have_come_since(
    command: Command, tmp_path: Path
) -> None:
    readings = wave(400, noise=0.1)
    readings[280:] += 20  # a new level that only a network fitted after it knows
    write_wide(tmp_path / "data.csv", flow=readings)
    options = [*SMALL_TEST, "--stride", "6", "--json", "--steps", "60", "--epochs", "2"]
    once = command("backtest", "data.csv", *options)
    again = command("backtest", "data.csv", *options, "--refit", "5")

    assert again.code == 0
    assert again.err.count("trained 1 network (") == 4
    assert once.document["n_windows"] == again.document["n_windows"]
    mae = [o.document["metrics"]["ridge"]["mae"] for o in (once, again)]
    assert mae[1] != mae[0]


def newer(path: Path, n: int) -> Path:
    """Write the readings of the `trained` model with n more."""
    second = 3 * wave(400 + n, seed=1) - 10
    return write_wide(path, flow=wave(400 + n), level=second)


def test_a_saved_version_is_tried_on_what_it_has_not_learnt_from(
    command: Command, trained: Path, tmp_path: Path
) -> None:
    newer(tmp_path / "newer.csv", 60)
    outcome = command("backtest", "newer.csv", "-m", trained / "model", "--json", "--stride", "1")

    assert outcome.code == 0
    document = outcome.document
    assert document["version"] == (trained / "model" / "CURRENT").read_text().strip()
    assert document["split"]["validation_end"] == "2024-01-17 16:00:00"
    assert document["n_windows"] == 2 * 55
    assert list(document["metrics"]) == METHODS


@pytest.mark.parametrize("ends", [["--validation-end", "399"], ["--windows", "11"]])
def test_readings_that_a_version_has_learnt_from_are_refused_with_a_fix(
    command: Command, trained: Path, tmp_path: Path, ends: list[str]
) -> None:
    newer(tmp_path / "newer.csv", 60)
    outcome = command("backtest", "newer.csv", "-m", trained / "model", "--json", *ends)

    assert outcome.code == 4
    assert outcome.error["code"] == "already-learnt"
    version = (trained / "model" / "CURRENT").read_text().strip()
    assert version in outcome.error["message"]
    assert "--validation-end '2024-01-17 16:00:00'" in outcome.error["hint"]


def test_a_version_without_newer_readings_says_what_is_missing(
    command: Command, trained: Path
) -> None:
    outcome = command("backtest", trained / "data.csv", "-m", trained / "model", "--json")

    assert outcome.code == 5
    assert "was trained on data until 2024-01-17 15:00:00" in outcome.error["message"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--train-end", "300", "--validation-end", "250"], 2),
        (["--train-end", "tomorrow"], 2),
        (["--stride", "0"], 2),
        (["--baselines", "prophet"], 2),
        (["-o", "rows.xlsx"], 2),
        (["-o", "-"], 2),
        (["--windows", "1000"], 5),
        (["--windows", "1000000"], 5),
        (["--windows", "1000000000"], 2),
        (["--train-end", "999999999999"], 2),
        (["--test-end", "20240501"], 2),
        (["--train-end", "-5"], 2),
        (["--version", "foo"], 2),
        (["-o", "data.csv"], 2),
        (["-o", "."], 2),
        (["--train-end", "10", "--validation-end", "300"], 5),
        (["--test-end", "0"], 5),
        (["-o", "no/such/folder/rows.csv"], 7),
        (["-m", "nowhere"], 6),
    ],
)
def test_what_cannot_be_tried_has_a_code_and_no_output(
    command: Command, data: Path, options: list[str], code: int
) -> None:
    given = [] if "-m" in options else SMALL
    outcome = command("backtest", data, *given, *options)

    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert not list(Path().glob("rows*"))


def test_options_of_a_fit_beside_a_saved_version_are_refused(
    command: Command, trained: Path
) -> None:
    options = ["-m", trained / "model", "--horizon", "3"]
    assert command("backtest", trained / "data.csv", *options).code == 2


def test_from_python_a_backtest_is_one_call(data: Path) -> None:
    import rnnforecast

    result = rnnforecast.backtest(
        data,
        horizon=6,
        lookback=24,
        config=rnnforecast.Config(
            network=rnnforecast.NetworkConfig(hidden=8),
            training=rnnforecast.TrainConfig(epochs=1, steps=5, threads=1),
        ),
        ends=rnnforecast.BacktestConfig(windows=4, baselines=("naive",)),
    )

    assert list(result.metrics) == METHODS[:3]
    assert json.dumps(result.metrics)
    assert "repeating" in result.verdict


def test_windows_without_a_horizon_are_a_usage_error(command: Command, data: Path) -> None:
    outcome = command("backtest", data, "--windows", "3", "--hidden", "8")
    assert outcome.code == 2
    assert "--horizon" in outcome.err


def test_options_of_a_network_beside_a_saved_version_are_refused(
    command: Command, trained: Path
) -> None:
    model = ["-m", trained / "model"]
    assert command("backtest", trained / "data.csv", *model, "--hidden", "9").code == 2


def write_long(path: Path, factor: float = 1.0) -> Path:
    """Write three series, one of which begins late in the test part; `factor` changes its end."""
    begins = {"a": 0, "b": 40, "late": 340}
    stamps = pd.date_range("2024-01-01", periods=420, freq="1h")
    parts = []
    for seed, (name, begin) in enumerate(begins.items()):
        value = wave(420, seed=seed)
        value[380:] *= factor
        frame = pd.DataFrame({"time": stamps, "machine": name, "value": value})
        parts.append(frame[begin:])
    pd.concat(parts).to_csv(path, index=False)
    return path


@pytest.mark.slow
def test_a_refit_learns_nothing_from_what_it_is_tried_on(command: Command, tmp_path: Path) -> None:
    """A series that begins in the test part must not move the ends of the parts."""
    forecasts = []
    for factor in (1.0, -7.0):
        data = write_long(tmp_path / "long.csv", factor)
        options = [*SMALL_TEST, "--stride", "12", "--refit", "2", "-o", "rows.csv", "--json"]
        document = command("backtest", data, *options).document
        assert document["split"]["train_end"] == "2024-01-11 10:00:00"
        rows = pd.read_csv("rows.csv", parse_dates=["cutoff"])
        before = rows[rows.cutoff < pd.Timestamp("2024-01-16 20:00")].drop(columns="actual")
        forecasts.append(before.reset_index(drop=True))
    pd.testing.assert_frame_equal(*forecasts)


@pytest.mark.slow
def test_refit_tries_the_same_origins(command: Command, tmp_path: Path) -> None:
    data = write_long(tmp_path / "long.csv")
    found = []
    for refit in ([], ["--refit", "1"], ["--refit", "3"]):
        command("backtest", data, *SMALL_TEST, "--stride", "12", "-q", "-o", "rows.csv", *refit)
        rows = pd.read_csv("rows.csv")
        origins = rows[["method", "series", "cutoff"]].drop_duplicates()
        found.append(sorted(origins.itertuples(index=False, name=None)))
    assert found[0] == found[1] == found[2]


def test_names_like_formulas_are_said_and_can_be_made_text(
    command: Command, tmp_path: Path
) -> None:
    data = write_wide(tmp_path / "data.csv", **{"=cmd()": wave(400), "flow": wave(400, seed=1)})
    line = ["backtest", data, "-q", "-o", "b.csv", *SMALL_TEST]

    assert "--excel-safe" in command(*line).err
    assert set(pd.read_csv("b.csv")["series"]) == {"=cmd()", "flow"}
    assert "formula" not in command(*line, "--excel-safe").err
    assert set(pd.read_csv("b.csv")["series"]) == {"'=cmd()", "flow"}


@pytest.mark.parametrize("failing", ["b.csv", "b.html"])
def test_of_the_forecasts_and_the_report_both_are_published_or_none(
    command: Command, data: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    Path("b.csv").write_text("old\n")
    Path("b.html").write_text("old\n")
    real = os.replace  # noqa: TID251

    def fail(source: Path, target: Path) -> None:
        if Path(target).name == failing:
            monkeypatch.setattr(os, "replace", real)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", fail)
    outcome = command("backtest", data, "-q", "-o", "b.csv", "--report", "b.html", *SMALL_TEST)

    assert outcome.code == 7
    assert (Path("b.csv").read_text(), Path("b.html").read_text()) == ("old\n", "old\n")
    assert not list(Path().glob(".tmp-*"))
