"""The built-in network: without a model, in jobs, in tables, as a fallback."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rnnforecast
from tests.builders import JOB, wave, write_wide
from tests.conftest import SMALL, Command

pytestmark = pytest.mark.usefixtures("readings")
N = 400


@pytest.fixture
def readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Readings in a folder without a model."""
    monkeypatch.chdir(tmp_path)
    write_wide(Path("data.csv"), flow=wave(N), level=3 * wave(N, seed=1) - 10)
    return tmp_path


def forecast(path: str | Path = "forecast.csv") -> pd.DataFrame:
    return pd.read_csv(path)


def test_without_a_model_readings_are_forecast_at_once(command: Command, readings: Path) -> None:
    outcome = command("predict", "data.csv")
    assert outcome.code == 0, outcome.err
    assert "built-in network, which was not trained on this data" in outcome.err
    assert list(forecast()) == ["series", "timestamp", "forecast", "q10", "q90"]
    rows = forecast()
    assert len(rows) == 48 and list(dict.fromkeys(rows["series"])) == ["flow", "level"]
    assert (rows["q10"] <= rows["forecast"]).all() and (rows["forecast"] <= rows["q90"]).all()
    assert not any(path.name == "model" for path in readings.iterdir())

    named = command("predict", "data.csv", "-m", "builtin", "-o", "named.csv", "--json")
    assert named.document["version"].startswith("builtin-")
    assert Path("named.csv").read_bytes() == Path("forecast.csv").read_bytes()


def test_the_training_that_it_names_reads_the_same_table(command: Command) -> None:
    table = pd.read_csv("data.csv").rename(columns={"flow": "the flow"})
    table.to_csv("other.csv", sep=";", index=False)
    pd.DataFrame({"level": [1.0]}).to_csv("ahead.csv", index=False)
    options = ["--sep", ";", "--target", "the flow", "--known", "level"]

    outcome = command("predict", "other.csv", *options, "--future", "ahead.csv", "--json")

    assert outcome.code == 0, outcome.err
    (line,) = (line for line in outcome.err.splitlines() if "not trained on this data" in line)
    _, arguments = line.split("rnnforecast train ")
    assert sorted(shlex.split(arguments)) == sorted(["other.csv", *options])
    assert outcome.err.count("covariates") == 1  # what is not used is said once


def test_its_forecasts_beat_the_last_value_and_follow_the_wave(command: Command) -> None:
    values = pd.read_csv("data.csv")
    values[: N - 48].to_csv("old.csv", index=False)
    command("predict", "old.csv", "-H", "48", "-q")
    made = forecast()
    for name in ("flow", "level"):
        actual = values[name].to_numpy()[-48:]
        error = np.abs(made.loc[made["series"] == name, "forecast"].to_numpy() - actual).mean()
        last = np.abs(values[name].to_numpy()[N - 49] - actual).mean()
        assert error < 0.7 * last


def test_a_model_in_the_folder_comes_first(command: Command) -> None:
    assert command("train", "data.csv", "-q", *SMALL).code == 0
    outcome = command("predict", "data.csv", "--json")
    assert outcome.code == 0
    assert not outcome.document["version"].startswith("builtin")
    assert command("predict", "data.csv", "-m", "elsewhere").code == 6


def test_a_horizon_may_be_any_and_an_as_of_time_hides_what_follows(command: Command) -> None:
    stamps = pd.read_csv("data.csv")["timestamp"]
    assert command("predict", "data.csv", "-H", "3d", "--as-of", stamps[299], "-q").code == 0
    first = forecast()
    assert len(first) == 2 * 72 and first["timestamp"][0] == stamps[300]
    pd.read_csv("data.csv")[:300].to_csv("old.csv", index=False)
    command("predict", "old.csv", "-H", "72", "-q", "-o", "old_forecast.csv")
    pd.testing.assert_frame_equal(first, forecast("old_forecast.csv"))
    assert command("predict", "data.csv", "--as-of", "2999-01-01").code == 2


@pytest.mark.parametrize("n_rows", [3, 5, 12, 30])
def test_a_few_readings_are_enough(command: Command, n_rows: int) -> None:
    write_wide(Path("few.csv"), flow=wave(n_rows))
    outcome = command("predict", "few.csv", "-H", "4")
    assert outcome.code == 0, outcome.err
    rows = forecast()
    assert len(rows) == 4 and (rows["q90"] > rows["q10"]).all()


def test_two_readings_are_not_enough(command: Command) -> None:
    write_wide(Path("few.csv"), flow=wave(2))
    assert command("predict", "few.csv", "-H", "4").code in (4, 5)


def test_a_table_in_memory_is_forecast_as_its_file_is(command: Command) -> None:
    table = pd.read_csv("data.csv")
    prediction = rnnforecast.predict(table)
    command("predict", "data.csv", "-q")
    np.testing.assert_allclose(
        prediction.to_pandas()["forecast"], forecast()["forecast"], rtol=1e-5
    )


def test_covariates_are_left_out_and_said_to_be(command: Command) -> None:
    table = pd.read_csv("data.csv").assign(setpoint=np.arange(N) % 7)
    table.to_csv("more.csv", index=False)
    outcome = command("predict", "more.csv", "--known", "setpoint", "-o", "more_forecast.csv")
    assert outcome.code == 0, outcome.err
    assert "uses no covariates" in outcome.err
    command("predict", "data.csv", "-q")
    pd.testing.assert_frame_equal(forecast("more_forecast.csv"), forecast())


def test_it_forecasts_with_the_season_that_is_named(command: Command) -> None:
    default = command("predict", "data.csv", "-o", "default.csv")
    named = command("predict", "data.csv", "--season", "24", "-o", "named.csv")
    other = command("predict", "data.csv", "--season", "10h", "-H", "24", "-o", "other.csv")
    none = command("predict", "data.csv", "--season", "none", "-H", "24", "-o", "none.csv")

    assert default.code == named.code == other.code == none.code == 0, other.err
    assert "season 24 steps (1 d)" in named.err and "season 10 steps (10 h)" in other.err
    assert "no season" in none.err
    for path in ("other.csv", "none.csv"):
        assert not np.allclose(forecast(path)["forecast"], forecast("default.csv")["forecast"])
    pd.testing.assert_frame_equal(forecast("named.csv"), forecast("default.csv"))


def test_the_season_of_a_trained_model_cannot_be_changed(command: Command) -> None:
    assert command("train", "data.csv", "-q", *SMALL).code == 0

    outcome = command("predict", "data.csv", "--season", "1d")

    assert outcome.code == 2
    assert "--season 1d cannot change the season" in outcome.err
    assert "--model builtin" in outcome.err


@pytest.mark.parametrize("option", [["--max-drift", "3"], ["--require-series"]])
def test_what_compares_with_a_training_is_refused(command: Command, option: list[str]) -> None:
    outcome = command("predict", "data.csv", *option)
    assert outcome.code == 2 and option[0] in outcome.err


def test_a_job_forecasts_with_it_and_scores_itself(command: Command) -> None:
    job = JOB.replace('path = "model"', 'path = "builtin"').replace('horizon = "6"', "")
    Path("job.toml").write_text(job)
    stamps = [stamp.replace(" ", "T") for stamp in pd.read_csv("data.csv")["timestamp"]]
    days = ["--from", stamps[N - 60], "--to", stamps[N - 12], "--every", "6h"]
    outcome = command("run", "job.toml", "--json", *days)
    assert outcome.code == 0, outcome.err
    runs = outcome.document["runs"]
    assert {run["status"] for run in runs} == {"published"}
    assert all(run["version"].startswith("builtin-") for run in runs)
    again = command("run", "job.toml", "--json", "--as-of", stamps[N - 12])
    assert again.document["status"] == "already published"
    scores = command("score", "--job", "job.toml", "--json").document["scores"]
    assert [score["series"] for score in scores] == ["flow", "level"]
    assert command("status", "job.toml", "--json").code == 0


@pytest.mark.parametrize("table", ['[retrain]\nevery = "2d"\n', "[keep]\nversions = 2\n"])
def test_a_job_cannot_retrain_it(command: Command, table: str) -> None:
    Path("job.toml").write_text(JOB.replace('path = "model"', 'path = "builtin"') + table)
    outcome = command("run", "job.toml")
    assert outcome.code == 2 and "built-in network" in outcome.err


def test_anomalies_are_found_without_a_training(command: Command) -> None:
    table = pd.read_csv("data.csv")
    table.loc[N - 30, "flow"] += 60
    table.to_csv("data.csv", index=False)
    document = command("anomalies", "data.csv", "-m", "builtin", "--json").document
    (worst, *_) = document["episodes"]
    assert worst["series"] == "flow" and worst["from"] == table["timestamp"][N - 30]


def test_a_table_may_consist_of_it_alone(command: Command) -> None:
    outcome = command("train", "data.csv", "--network", "builtin", "-H", "6", "--json")
    assert outcome.code == 0, outcome.err
    metrics = outcome.document["metrics"]
    assert metrics["network"]["mae"] == pytest.approx(metrics["builtin"]["mae"], rel=0.02)
    assert outcome.document["steps"] == 0
    assert command("predict", "data.csv", "-q").code == 0
    card = command("show", "--json").document
    assert card["config"]["network"]["network"] == "builtin"


def test_a_trained_network_may_do_without_it(command: Command) -> None:
    outcome = command("train", "data.csv", "--network", "trained", "--steps", "2", "-H", "6")
    assert outcome.code == 0, outcome.err
    assert "forecast: 100 % trained network" in outcome.err
    refused = command("train", "data.csv", "--network", "builtin", "--hidden", "8")
    assert refused.code == 2


def test_a_series_too_short_for_the_network_falls_back_on_it(command: Command) -> None:
    assert command("train", "data.csv", "-q", *SMALL, "-L", "48").code == 0
    table = pd.read_csv("data.csv")
    table.loc[: N - 6, "level"] = np.nan
    table.to_csv("young.csv", index=False)
    fallback = ["--fallback", "builtin,seasonal-naive"]
    outcome = command("predict", "young.csv", *fallback, "-o", "young_forecast.csv")
    assert outcome.code == 3, outcome.err
    sources = forecast("young_forecast.csv").groupby("series")["source"].first()
    assert sources.to_dict() == {"flow": "network", "level": "builtin"}


@pytest.mark.parametrize(
    "arguments", [["train", "data.csv"], ["show"], ["use", "latest"], ["memory", "data.csv"]]
)
def test_it_has_no_versions(command: Command, arguments: list[str]) -> None:
    outcome = command(*arguments, "-m", "builtin")
    assert outcome.code == 2 and "./builtin" in outcome.err


def test_a_folder_of_that_name_is_a_model(command: Command) -> None:
    assert command("train", "data.csv", "-q", "-m", "./builtin", *SMALL).code == 0
    document = json.loads(command("predict", "data.csv", "-m", "./builtin", "--json").out)
    assert not document["version"].startswith("builtin-")


def test_beside_a_saved_version_it_is_tried_on_readings_that_begin_after_the_training(
    command: Command,
) -> None:
    table = pd.read_csv("data.csv")
    table[:250].to_csv("old.csv", index=False)
    table[250:].to_csv("new.csv", index=False)
    assert command("train", "old.csv", "-q", *SMALL).code == 0
    document = command("backtest", "new.csv", "--model", "model", "--json").document
    assert document["metrics"]["builtin"]["n"] == document["metrics"]["network"]["n"] > 100
    assert document["metrics"]["builtin"]["mase"] < document["metrics"]["naive"]["mase"]


def test_what_is_measured_before_calibration_is_the_networks_alone(command: Command) -> None:
    bands = [
        command("backtest", "data.csv", "--json", *SMALL, "--baselines", names).document["bands"]
        for names in ("naive", "naive,builtin,expert")
    ]
    assert bands[0] == bands[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "data.csv", "--version", "x"],
        ["predict"],
        ["anomalies", "data.csv", "--version", "x"],
        ["backtest", "data.csv"],
    ],
)
def test_what_it_cannot_do_is_a_usage_error(command: Command, arguments: list[str]) -> None:
    assert command(*arguments, "-m", "builtin").code == 2
