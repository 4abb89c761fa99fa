"""Covariates from the command line: what is named, what is missing ahead, what does not help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import Command

N, AHEAD = 500, 10
FIT = ["--hidden", "8", "--layers", "1", "--segment", "6", "--steps", "40"]
FIT += ["--learning-rate", "2e-2", "-L", "96", "-H", "6", "--threads", "1", "-q"]
KNOWN = ["--known", "setpoint", "--known", "mode"]


def make_table() -> pd.DataFrame:
    """Make a reading that a setpoint and a mode drive; they are known ahead for a while."""
    rng = np.random.default_rng(0)
    n = N + AHEAD
    setpoint = np.repeat(rng.normal(50, 10, n), 5)[:n].round(1)
    is_fast = np.repeat(rng.random(n) < 0.5, 7)[:n]
    y = setpoint + 15 * is_fast + rng.normal(size=n)
    table = pd.DataFrame(
        {
            "time": pd.date_range("2024-01-01", periods=n, freq="1h"),
            "y": np.where(np.arange(n) < N, y.round(2), np.nan),
            "setpoint": setpoint,
            "mode": np.where(is_fast, "fast", "slow"),
            "empty": np.nan,
        }
    )
    return table.drop(columns="empty")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train once on a table whose last rows hold no reading."""
    from rnnforecast.cli.main import run

    folder = tmp_path_factory.mktemp("driven")
    make_table().to_csv(folder / "data.csv", index=False)
    options = [*KNOWN, *FIT, "-m", str(folder / "model")]
    assert run(["train", str(folder / "data.csv"), *options]) == 0
    return folder


def test_the_forecast_begins_after_the_last_reading(command: Command, model: Path) -> None:
    assert command("predict", "-m", model / "model", "-q").code == 0
    forecast = pd.read_csv("forecast.csv")
    assert forecast["timestamp"][0] == "2024-01-21 20:00:00"
    assert list(forecast["series"]) == ["y"] * 6
    expected = make_table()["setpoint"][N : N + 6] + 15 * (
        make_table()["mode"][N : N + 6] == "fast"
    )
    assert np.corrcoef(forecast["forecast"], expected)[0, 1] > 0.9


def test_a_second_file_says_the_same_as_rows_below(command: Command, model: Path) -> None:
    table = make_table()
    table[:N].to_csv("readings.csv", index=False)
    table[N:].drop(columns="y").to_csv("plan.csv", index=False)

    assert command("predict", "-m", model / "model", "-q", "-o", "below.csv").code == 0
    options = ["--future", "plan.csv", "-m", model / "model", "-q", "-o", "beside.csv"]
    assert command("predict", "readings.csv", *options).code == 0

    assert Path("below.csv").read_bytes() == Path("beside.csv").read_bytes()


def test_a_setpoint_in_another_unit_is_a_warning(command: Command, model: Path) -> None:
    table = make_table()
    table[:N].to_csv("data.csv", index=False)
    for factor, offset in ((1, 0), (1.8, 320)):
        plans = table[["time", "setpoint", "mode"]][N:]
        plans.assign(setpoint=plans["setpoint"] * factor + offset).to_csv("plans.csv", index=False)
        outcome = command("predict", "data.csv", "-m", model / "model", "--future", "plans.csv")
        assert outcome.code == 0
        assert ("is the unit the same?): setpoint" in outcome.err) == (offset > 0)


def test_what_is_not_known_ahead_is_an_error_with_the_stamps(command: Command, model: Path) -> None:
    make_table()[: N + 4].to_csv("readings.csv", index=False)

    outcome = command("predict", "readings.csv", "-m", model / "model", "--json")

    assert outcome.code == 4
    assert outcome.error["code"] == "missing-future"
    assert (
        "'setpoint' has no value for 'y' at 2024-01-22 00:00:00, 2024-01-22 01:00:00"
        in (outcome.error["message"])
    )
    assert "--future" in outcome.error["hint"]
    assert outcome.error["hint"].endswith("with  --horizon 4")
    assert not Path("forecast.csv").exists()
    assert command("predict", "readings.csv", "-m", model / "model", "-H", "4", "-q").code == 0


def test_a_second_file_that_lacks_a_column_is_named(command: Command, model: Path) -> None:
    table = make_table()
    table[:N].to_csv("readings.csv", index=False)
    table[N:].drop(columns=["y", "mode"]).to_csv("plan.csv", index=False)

    outcome = command("predict", "readings.csv", "--future", "plan.csv", "-m", model / "model")

    assert outcome.code == 4
    assert "plan.csv has no column 'mode'" in outcome.err


def test_a_column_renamed_in_the_second_file_alone_is_not_offered_a_map_of_both(
    command: Command, model: Path
) -> None:
    table = make_table()
    table[:N].to_csv("readings.csv", index=False)
    table[N:].drop(columns="y").rename(columns={"mode": "Mode"}).to_csv("plan.csv", index=False)

    outcome = command("predict", "readings.csv", "--future", "plan.csv", "-m", model / "model")

    assert outcome.code == 4
    assert "look alike: 'Mode' ; in this file, name it as in the readings" in outcome.err
    assert "--map" not in outcome.err


def test_other_readings_are_offered_the_built_in_network_which_forecasts_them(
    command: Command, model: Path
) -> None:
    pd.DataFrame({"when": make_table()["time"][:N], "flow": 1.0 + np.arange(N) % 24}).to_csv(
        "other.csv", index=False
    )

    outcome = command("predict", "other.csv", "-m", model / "model")

    assert outcome.code == 4
    assert (
        "for readings that the model does not know, use the built-in network:  --model builtin"
        in (outcome.err)
    )
    assert command("predict", "other.csv", "--model", "builtin", "-q").code == 0


def test_train_names_what_the_next_forecast_needs(command: Command) -> None:
    make_table().to_csv("data.csv", index=False)

    options = [*(option for option in FIT if option != "-q"), "--steps", "1"]
    with_plan = command("train", "data.csv", *KNOWN, *options)
    without = command("train", "data.csv", "--target", "y", *options)

    assert "future values of setpoint, mode: in rows below the last reading" in with_plan.err
    assert with_plan.err.rstrip().endswith("next: rnnforecast predict --future FILE")
    assert without.err.rstrip().endswith("next: rnnforecast predict")


def test_a_wrong_value_in_the_second_file_is_shown_there(command: Command, model: Path) -> None:
    table = make_table()
    table[:N].to_csv("readings.csv", index=False)
    plan = table[N:].drop(columns="y").astype({"setpoint": object})
    plan.loc[N + 2, "setpoint"] = "high"
    plan.to_csv("plan.csv", index=False)

    outcome = command("predict", "readings.csv", "--future", "plan.csv", "-m", model / "model")

    assert outcome.code == 4
    assert "plan.csv:4" in outcome.err


def test_a_text_that_is_new_counts_among_the_others(command: Command, model: Path) -> None:
    table = make_table()
    table.loc[N + 2, "mode"] = "unheard of"
    table.to_csv("readings.csv", index=False)

    assert command("predict", "readings.csv", "-m", model / "model", "-q").code == 0
    assert np.isfinite(pd.read_csv("forecast.csv")["forecast"]).all()


def test_readings_after_a_time_are_not_used_but_plans_are(command: Command, model: Path) -> None:
    table = make_table()
    table.to_csv("all.csv", index=False)
    table["y"] = table["y"].where(table["time"] <= "2024-01-15 00:00")
    table.to_csv("part.csv", index=False)
    options = ["-m", model / "model", "-q", "--as-of", "2024-01-15 00:00"]

    assert command("predict", "all.csv", *options, "-o", "a.csv").code == 0
    assert command("predict", "part.csv", *options, "-o", "b.csv").code == 0

    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


def test_show_names_the_covariates(command: Command, model: Path) -> None:
    assert "covariates known ahead setpoint, mode" in command("show", "-m", model / "model").out


def test_check_says_what_a_column_is_for(command: Command, model: Path) -> None:
    outcome = command("check", model / "data.csv", *KNOWN)
    assert "known ahead setpoint, mode" in outcome.out
    assert "--known setpoint --known mode" in outcome.out


@pytest.mark.slow
def test_noise_is_left_out_and_then_not_asked_for(command: Command) -> None:
    rng = np.random.default_rng(1)
    table = make_table()[:N].drop(columns="mode")
    table["y"] = 20 + 5 * np.sin(2 * np.pi * np.arange(N) / 24) + 0.1 * rng.normal(size=N)
    table["setpoint"] = rng.normal(size=N)
    table.to_csv("data.csv", index=False)

    trained = command("train", "data.csv", "--known", "setpoint", *FIT, "--json")
    codes = [warning["code"] for warning in trained.document["warnings"]]
    sees = [member["covariates"] for member in trained.document["members"]]

    assert trained.code == 0
    assert ("unused-covariates" in codes) == (not any(sees))
    if not any(sees):
        table.drop(columns="setpoint").to_csv("data.csv", index=False)
        assert command("predict", "-q").code == 0
        outcome = command("predict", "--future", "plan.csv")
        assert outcome.code == 0 and "--future is ignored" in outcome.err


CALENDAR = ["--season", "24", "--calendar", "weekday", "--holidays", "DE", "-H", "24"]


def write_workdays() -> None:
    """Write ten weeks of hours, from a Monday on, of which weekends are low."""
    stamps = pd.date_range("2024-01-01", periods=24 * 70, freq="1h")
    noise = np.random.default_rng(2).normal(size=len(stamps))
    y = np.where(stamps.day_of_week < 5, 50.0, 10.0) + noise
    pd.DataFrame({"time": stamps, "y": y}).to_csv("data.csv", index=False)


def test_the_calendar_is_known_without_a_file(command: Command) -> None:
    write_workdays()

    assert command("train", "data.csv", *FIT, "--steps", "2", *CALENDAR).code == 0
    assert "calendar weekday, DE" in command("show").out
    assert command("predict", "-q").code == 0
    assert pd.read_csv("forecast.csv")["timestamp"][0] == "2024-03-11 00:00:00"


@pytest.mark.slow  # nothing but the network knows of weekends, and it needs its steps
def test_a_monday_after_a_sunday_is_forecast_by_the_calendar(command: Command) -> None:
    write_workdays()
    options = ["--hidden", "8", "--layers", "1", "-L", "336", "--steps", "600", "--threads", "1"]
    options += ["--seed", "1"]

    assert command("train", "data.csv", *options, "--learning-rate", "1e-2", *CALENDAR).code == 0

    assert command("predict", "-q").code == 0
    assert pd.read_csv("forecast.csv")["forecast"].between(40, 60).all()


def test_holidays_without_the_package_say_what_to_install(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "holidays", None)
    make_table().to_csv("data.csv", index=False)

    outcome = command("train", "data.csv", "--holidays", "DE", *FIT)

    assert outcome.code == 2
    assert "pip install 'rnnforecast[holidays]'" in outcome.err


def test_a_text_among_numbers_is_no_name_for_a_model_that_knows_better(
    command: Command, model: Path
) -> None:
    table = make_table().astype({"setpoint": object})
    table.loc[7, "setpoint"] = "high"
    table.to_csv("readings.csv", index=False)

    new = command("check", "readings.csv", *KNOWN)
    stored = command("predict", "readings.csv", "-m", model / "model")

    assert "--categorical setpoint" in new.err
    assert stored.code == 4
    assert "add  --na-values high" in stored.err
    assert "--categorical" not in stored.err


@pytest.mark.parametrize(
    ("options", "has"),
    [
        (["--known", "setpoint"], "with --known setpoint, mode"),
        (["--known", "mode", "--known", "setpiont"], "with --known setpoint, mode"),
        (["--past", "setpoint"], "without --past"),
        (["--static", "y"], "without --static"),
        (["--calendar", "hour"], "without --calendar"),
        (["--holidays", "DE"], "without --holidays"),
        (["--categorical", "setpoint"], "without --categorical"),
    ],
)
def test_what_a_model_has_settled_cannot_be_said_otherwise(
    command: Command, model: Path, options: list[str], has: str
) -> None:
    data = model / "data.csv"
    for name in ("predict", "check", "backtest"):
        outcome = command(name, data, "-m", model / "model", *options)
        assert (outcome.code, outcome.out) == (2, "")
        assert f"the model was trained {has}, and cannot take {options[-2]}" in outcome.err


def test_what_a_model_has_settled_may_be_said_again(
    command: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = ["--known", "mode", "--known", "setpoint"]
    assert command("predict", "-m", model / "model", "-q", "-o", "plain.csv").code == 0
    assert command("predict", "-m", model / "model", "-q", "-o", "again.csv", *again).code == 0
    assert Path("again.csv").read_bytes() == Path("plain.csv").read_bytes()

    monkeypatch.setenv("RNNFORECAST_PREDICT_CALENDAR", "hour")
    assert command("predict", "-m", model / "model", *again).code == 2
    monkeypatch.delenv("RNNFORECAST_PREDICT_CALENDAR")
    Path("rnnforecast.toml").write_text("[predict]\nknown = []\n")
    outcome = command("predict", "-m", model / "model")
    assert outcome.code == 2
    assert "the model was trained with --known setpoint, mode" in outcome.err


@pytest.mark.slow
def test_a_calendar_and_kinds_are_those_of_the_model(command: Command) -> None:
    stamps = pd.date_range("2024-01-01", periods=400, freq="1h")
    y = 10 + 5 * np.isin(stamps.hour, (8, 9, 10)) + np.random.default_rng(0).normal(size=400)
    table = pd.DataFrame({"time": stamps, "y": y, "k": stamps.hour % 3})
    table.to_csv("data.csv", index=False)
    options = ["--target", "y", "--past", "k", "--categorical", "k", "--calendar", "hour,weekday"]
    assert command("train", "data.csv", *options, *FIT).code == 0

    assert command("predict", "-q", "--calendar", "weekday,hour").code == 0
    assert command("predict", "-q", "--categorical", "k").code == 0
    outcome = command("predict", "-q", "--calendar", "month")

    assert outcome.code == 2
    assert "trained with --calendar hour, weekday, and cannot take --calendar month" in outcome.err


def make_long(**ends: int) -> pd.DataFrame:
    """Make a table of several series; each has readings for this many hours."""
    tables = []
    for name, end in ends.items():
        table = make_table().drop(columns="mode").assign(id=name)
        tables.append(table.assign(y=table["y"].where(np.arange(len(table)) < end)))
    return pd.concat(tables)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train once on two series."""
    from rnnforecast.cli.main import run

    folder = tmp_path_factory.mktemp("several")
    make_long(a=N, b=N).to_csv(folder / "data.csv", index=False)
    options = ["--known", "setpoint", "--series", "id", *FIT, "-m", str(folder / "model")]
    assert run(["train", str(folder / "data.csv"), *options]) == 0
    return folder / "model"


def split(table: pd.DataFrame) -> list[str]:
    """Write the rows before the end of the readings, and those after it; return the arguments."""
    is_past = table["time"] < table["time"].min() + pd.Timedelta(hours=N)
    table[is_past].to_csv("readings.csv", index=False)
    table[~is_past].drop(columns="y").to_csv("plan.csv", index=False)
    return ["readings.csv", "--future", "plan.csv", "-q"]


@pytest.mark.parametrize("options", [[], ["--fallback", "seasonal-naive,naive"]])
def test_a_silent_series_does_not_stand_in_the_way(
    command: Command, several: Path, options: list[str]
) -> None:
    arguments = split(make_long(a=N, b=0))

    outcome = command("predict", *arguments, "-m", several, *options)

    assert outcome.code == 3, outcome.err
    assert set(pd.read_csv("forecast.csv")["series"]) == {"a"}


@pytest.mark.parametrize("behind", [5, 100])
def test_a_series_that_ended_before_the_plan_does_not_stand_in_the_way(
    command: Command, several: Path, behind: int
) -> None:
    table = make_long(a=N, b=N)
    hour = (table["time"] - table["time"].min()) / pd.Timedelta(hours=1)
    arguments = split(table[(table["id"] == "a") | (hour < N - behind) | (hour >= N)])

    outcome = command("predict", *arguments, "-m", several)
    assert outcome.code == 3, outcome.err
    assert set(pd.read_csv("forecast.csv")["series"]) == {"a"}
    assert "do not start there: b" in outcome.err

    outcome = command("predict", *arguments, "-m", several, "--fallback", "naive")
    assert outcome.code == 3, outcome.err
    forecast = pd.read_csv("forecast.csv")
    assert set(forecast.loc[forecast["source"] == "naive", "series"]) == {"b"}


def test_a_series_that_the_plan_forgets_is_an_error_with_its_stamps(
    command: Command, several: Path
) -> None:
    arguments = split(make_long(a=N, b=N))
    plan = pd.read_csv("plan.csv")
    plan[plan["id"] == "a"].to_csv("plan.csv", index=False)

    outcome = command("predict", *arguments, "-m", several, "--fallback", "naive", "--json")

    assert (outcome.code, outcome.error["code"]) == (4, "missing-future")
    assert "for 'b' at 2024-01-21 20:00:00" in outcome.error["message"]


def test_a_series_that_only_the_plan_has_is_named(command: Command, several: Path) -> None:
    arguments = split(make_long(a=N, b=N, c=0))
    readings = pd.read_csv("readings.csv")
    readings[readings["id"] != "c"].to_csv("readings.csv", index=False)

    outcome = command("predict", *arguments, "-m", several)

    assert outcome.code == 0
    assert "plan.csv without readings, ignored: c" in outcome.err
    assert set(pd.read_csv("forecast.csv")["series"]) == {"a", "b"}


def test_a_plan_that_grows_is_no_other_run(command: Command, model: Path) -> None:
    """What is known of times that no forecast sees must not make a job publish again."""
    table = make_table()
    table[:N].to_csv("readings.csv", index=False)
    plan = table[N:].drop(columns="y")
    Path("job.toml").write_text(
        f"""
        data.source = "readings.csv"
        model.path = "{model / "model"}"
        forecast = {{output = "out/forecast.csv", future = "plan.csv"}}
        """
    )
    statuses = []
    for n_ahead, setpoint in ((7, None), (AHEAD, None), (AHEAD, 70.0)):
        changed = plan[:n_ahead].copy()
        if setpoint is not None:
            changed.iloc[5, changed.columns.get_loc("setpoint")] = setpoint
        changed.to_csv("plan.csv", index=False)
        outcome = command("run", "job.toml", "--json")
        assert outcome.code == 0, outcome.err
        statuses.append(outcome.document["status"])
    assert statuses == ["published", "already published", "published"]
