"""A second file with what is known ahead: its form, its stamps, its zone, and its series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.windows import Past
from rnnforecast.errors import DataError
from rnnforecast.events import Recorder, WarningEvent, ignore
from rnnforecast.tables.match import TrainingStats, check_known_ahead, read_past
from tests.data.tables import read, write

N, AHEAD = 60, 6
HOURS = pd.date_range("2024-01-20", periods=N + AHEAD, freq="1h")
PAST = pd.DataFrame({"time": HOURS[:N], "y": np.arange(N) / 8, "k": np.arange(N) % 4})
PLAN = pd.DataFrame({"time": HOURS[N:], "k": 10 + np.arange(AHEAD)})


def ahead(
    past: object, plan: object, *, model: object = None, known: str = "k", **options: object
) -> tuple[list[float], list[WarningEvent], Past]:
    """Read readings and a plan as a model of the readings does; return what is known ahead.

    `model` are the readings that the model was trained on, by default these.
    """
    own = {name: value for name, value in options.items() if name != "map"}
    schema = read(past if model is None else model, known=(known,), **own).schema
    events = Recorder(ignore)
    seen, _ = read_past(
        past,
        schema=schema,
        options=DataConfig(known=(known,), **options),  # type: ignore[arg-type]
        as_of=None,
        future=plan,
        stats=TrainingStats((), np.empty(0), *(np.empty(0, np.float32) for _ in range(3))),
        listener=events,
    )
    features = seen.features(1, AHEAD)
    assert features is not None
    return features.known[0, 0, 1:].tolist(), events.warnings, seen


def refused(past: object, plan: object, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        ahead(past, plan, **options)
    return caught.value


def aware(table: pd.DataFrame, zone: str = "Europe/Berlin") -> pd.DataFrame:
    """Say that the stamps are those of a zone."""
    return table.assign(time=table["time"].dt.tz_localize(zone))


EXPECTED = PLAN["k"].tolist()


def as_csv(table: pd.DataFrame, path: Path) -> Path:
    table.to_csv(path, index=False)
    return path


def as_parquet(table: pd.DataFrame, path: Path) -> Path:
    table.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("form", [as_csv, as_parquet])
@pytest.mark.parametrize("is_aware", [True, False])
def test_a_zone_in_one_file_alone_is_an_error(tmp_path, form, is_aware):
    past = form(aware(PAST) if is_aware else PAST, tmp_path / "past")
    plan = form(PLAN if is_aware else aware(PLAN), tmp_path / "plan")
    past, plan = (p.rename(p.with_suffix(f".{form.__name__[3:]}")) for p in (past, plan))

    error = refused(past, plan)

    assert error.code == "mixed-zones"
    assert "plan" in error.location.file
    offered = [proposal.options for proposal in error.proposals]
    zone = "+01:00" if form is as_csv else "Europe/Berlin"
    assert offered == [("--tz", zone)] * is_aware, "readings without a zone get none by an option"


def test_a_plan_in_another_zone_names_the_same_instants():
    plan = aware(PLAN)
    plan["time"] = plan["time"].dt.tz_convert("Asia/Tokyo")

    assert ahead(aware(PAST), plan)[0] == EXPECTED


def test_a_zone_that_is_named_is_that_of_stamps_without_one():
    plans = [PLAN, aware(PLAN), aware(PLAN).assign(time=lambda t: t["time"].dt.tz_convert("UTC"))]

    for plan in plans:
        assert ahead(PAST, plan, tz="Europe/Berlin")[0] == EXPECTED
    assert ahead(aware(PAST), PLAN, tz="Europe/Berlin")[0] == EXPECTED


def test_instants_need_no_neighbour_in_the_hour_that_comes_twice():
    times = pd.date_range("2024-10-25", periods=N + AHEAD, freq="1h", tz="Europe/Berlin")
    first = times.get_loc(pd.Timestamp("2024-10-27 01:00", tz="UTC")) - N
    times = times[0] + pd.to_timedelta(np.arange(first, first + N + AHEAD), unit="h")
    past = PAST.assign(time=times[:N].tz_localize(None))
    plan = PLAN.assign(time=times[N:])
    past = past.drop(index=N - 1)  # so that the first 2 o'clock is not there

    known = ahead(past, plan, tz="Europe/Berlin")[0]

    assert known == EXPECTED


@pytest.mark.parametrize(
    "options",
    [
        {"sep": ";", "decimal": ","},
        {"skip_rows": 2},
        {"encoding": "utf-16"},
        {"no_header": True, "columns": ("time", "y", "k")},
    ],
)
def test_what_says_how_the_readings_are_written_need_not_hold_for_the_plan(tmp_path, options):
    text = PAST.to_csv(
        index=False,
        sep=options.get("sep", ","),
        decimal=options.get("decimal", "."),
        header=not options.get("no_header"),
    )
    text = "Logger\nX\n" * (options.get("skip_rows", 0) // 2) + text
    past = tmp_path / "past.csv"
    past.write_text(text, encoding=options.get("encoding", "utf-8"))
    plan = PLAN.assign(k=PLAN["k"] + 0.5)

    known = ahead(past, as_csv(plan, tmp_path / "plan.csv"), **options)[0]

    assert known == plan["k"].tolist()


def test_a_plan_that_is_written_as_the_readings_are_is_read_so(tmp_path):
    options = {"sep": ";", "decimal": ",", "thousands": "."}
    past = tmp_path / "past.csv"
    past.write_text(PAST.to_csv(index=False, sep=";", decimal=","))
    lines = [f"{t};1.00{i},5" for i, t in enumerate(HOURS[N:])]

    known = ahead(past, write(tmp_path / "plan.csv", "time;k", *lines), **options)[0]

    assert known == [1000.5 + i for i in range(AHEAD)]


def test_where_both_ways_fail_the_first_error_counts(tmp_path):
    past = tmp_path / "past.csv"
    past.write_text(PAST.to_csv(index=False, sep=";", decimal=","))
    plan = write(tmp_path / "plan.csv", "time;k", f"{HOURS[N]};1,5", f"{HOURS[N + 1]};high")

    error = refused(past, plan, sep=";", decimal=",")

    assert (error.code, error.location.line) == ("not-a-number", 3)
    assert "plan.csv" in error.location.file


def test_stamps_of_a_plan_may_be_iso_where_the_readings_have_a_format(tmp_path):
    form = "%d.%m.%Y %H:%M"
    past = as_csv(PAST.assign(time=PAST["time"].dt.strftime(form)), tmp_path / "past.csv")
    same = as_csv(PLAN.assign(time=PLAN["time"].dt.strftime(form)), tmp_path / "same.csv")

    for plan in (as_csv(PLAN, tmp_path / "plan.csv"), same):
        assert ahead(past, plan, time_format=form)[0] == EXPECTED


@pytest.mark.parametrize("end", ["", "Z"])
def test_stamps_of_a_plan_may_be_iso_where_the_readings_are_numbered(tmp_path, end):
    seconds = PAST["time"].astype("datetime64[s]").astype(int)
    past = as_csv(PAST.assign(time=seconds), tmp_path / "past.csv")
    plan = PLAN.assign(time=PLAN["time"].dt.strftime(f"%Y-%m-%dT%H:%M:%S{end}"))

    assert ahead(past, as_csv(plan, tmp_path / "plan.csv"))[0] == EXPECTED


def test_numbers_are_instants_beside_stamps_with_a_zone(tmp_path):
    plan = PLAN.assign(time=PLAN["time"].astype("datetime64[s]").astype(int))

    assert ahead(aware(PAST, "UTC"), as_csv(plan, tmp_path / "plan.csv"))[0] == EXPECTED


def test_stamps_that_cannot_be_told_are_shown_in_the_plan(tmp_path):
    past = as_csv(PAST, tmp_path / "past.csv")
    times = [f"0{1 + i}.02.2024 16:00" for i in range(AHEAD)]
    error = refused(past, as_csv(PLAN.assign(time=times), tmp_path / "plan.csv"))

    assert error.code == "ambiguous-date"
    assert (Path(error.location.file).name, error.location.line) == ("plan.csv", 2)
    assert "--time-format" not in error.advice


def test_only_names_that_the_plan_shares_are_mapped(tmp_path):
    past = as_csv(PAST.rename(columns={"y": "flow"}), tmp_path / "past.csv")
    plan = as_csv(PLAN, tmp_path / "plan.csv")
    assert ahead(past, plan, model=PAST, map=("flow=y",))[0] == EXPECTED

    both = as_csv(PAST.rename(columns={"time": "when"}), tmp_path / "both.csv")
    plan = as_csv(PLAN.rename(columns={"time": "when"}), tmp_path / "when.csv")
    assert ahead(both, plan, model=PAST, map=("when=time",))[0] == EXPECTED


def test_a_plan_needs_one_time_column_where_the_readings_have_several(tmp_path):
    parts = {"date": PAST["time"].dt.date, "hour": PAST["time"].dt.strftime("%H:%M")}
    past = as_csv(PAST.drop(columns="time").assign(**parts), tmp_path / "past.csv")
    parts = {"date": PLAN["time"].dt.date, "hour": PLAN["time"].dt.strftime("%H:%M")}
    same = as_csv(PLAN.drop(columns="time").assign(**parts), tmp_path / "same.csv")

    for plan in (as_csv(PLAN, tmp_path / "plan.csv"), same):
        assert ahead(past, plan, time="date,hour")[0] == EXPECTED


def long(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Repeat a table for each series."""
    return pd.concat([table.assign(id=name) for name in names])


def test_series_that_stand_only_in_the_plan_are_named_and_not_used(tmp_path):
    past = as_csv(long(PAST, "a", "b"), tmp_path / "past.csv")
    plan = as_csv(long(PLAN, "new", "a", "newer", "b"), tmp_path / "plan.csv")

    known, warnings, seen = ahead(past, plan)

    assert known == EXPECTED
    assert seen.names == ("a", "b")
    said = {warned.code: warned for warned in warnings}["future-only-series"]
    assert said.count == 2
    assert said.message.endswith(": new, newer")
    assert not check_known_ahead(seen, AHEAD).any()


def test_a_row_of_the_plan_keeps_its_line_where_others_are_not_used(tmp_path):
    past = as_csv(long(PAST, "a"), tmp_path / "past.csv")
    plan = long(PLAN.astype({"k": float}), "new", "a").reset_index(drop=True)
    plan.loc[AHEAD + 2, "k"] = np.inf

    error = refused(past, as_csv(plan, tmp_path / "plan.csv"))

    assert (error.code, error.location.line) == ("infinite", AHEAD + 4)
    assert "plan.csv" in error.location.file


def test_a_row_of_the_plan_without_a_series_is_shown(tmp_path):
    past = as_csv(long(PAST, "a"), tmp_path / "past.csv")
    plan = as_csv(long(PLAN, "a", None), tmp_path / "plan.csv")

    error = refused(past, plan)

    assert (error.code, error.location.line) == ("missing-series", AHEAD + 2)


def test_series_of_the_plan_go_by_their_number(tmp_path):
    past = as_csv(long(PAST, "7", "8"), tmp_path / "past.csv")
    plan = as_csv(long(PLAN, "7.0", "008"), tmp_path / "plan.csv")

    known, warnings, seen = ahead(past, plan, series="id")

    assert known == EXPECTED
    assert seen.names == ("7", "8")
    assert "names-written-otherwise" in {warned.code for warned in warnings}
