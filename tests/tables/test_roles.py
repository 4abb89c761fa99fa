"""Roles of columns by what their cells tell: key, status, target, time, zone, and what is none."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, RnnForecastError
from rnnforecast.events import ignore
from rnnforecast.sources import parquet
from rnnforecast.sources.source import open_table
from rnnforecast.tables import evidence, match
from rnnforecast.tables.match import read_inferred
from tests.builders import wave
from tests.data.tables import Read, failure, read, write

N = 120
HOURS = pd.date_range("2024-01-01", periods=N, freq="1h")
RANDOM = np.random.default_rng(0)


def long(keys: list[tuple[object, ...]], *names: str, n: int = N) -> pd.DataFrame:
    """Make a long table: a level of ten more for each key."""
    stamps = pd.date_range("2024-01-01", periods=n, freq="1h")
    parts = [
        pd.DataFrame({"when": stamps, **dict(zip(names, key, strict=True)), "v": 10 * i + wave(n)})
        for i, key in enumerate(keys, 1)
    ]
    return pd.concat(parts, ignore_index=True)


def small_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at few rows of a Parquet file first."""
    monkeypatch.setattr(evidence, "_SAMPLE_ROWS", 24)
    monkeypatch.setattr(evidence, "_MIN_SAMPLE_ROWS", 24)
    monkeypatch.setattr(parquet, "_BATCH_VALUES", 24)
    monkeypatch.setattr(parquet, "_MIN_BATCH_ROWS", 24)


def in_turn(names: list[str], levels: list[float], n: int = 300) -> pd.DataFrame:
    """Make a table of sensors that are read one after the other, a minute apart."""
    turn = np.arange(n) % len(names)
    stamps = pd.date_range("2024-01-01", periods=n, freq="1min")
    readings = np.array(levels)[turn] + RANDOM.normal(0, 0.3, n)
    return pd.DataFrame({"when": stamps, "x": np.array(names)[turn], "v": readings})


def reason(result: Read, column: str) -> str:
    """Return why a column has no role."""
    return dict(result.schema.reasons)[column]


def offered(error: RnnForecastError) -> list[tuple[str, ...]]:
    """Return the options that an error proposes."""
    return [proposal.options for proposal in error.proposals]


def fixed(data: object, error: RnnForecastError, number: int = 0) -> Read:
    """Read a table with one of the options that an error proposes."""
    words = error.proposals[number].options
    names = [word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")]
    if words == ("--id-from-columns",):
        return read(data, id_from_columns=True)
    options = dict(zip(names, words[1::2], strict=True))
    return read(data, **{k: (v,) if k in ("target", "past") else v for k, v in options.items()})


SITES = [(site, probe) for site in ("north", "south") for probe in ("t1", "t2")]


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("order", ["by key", "by time", "shuffled"])
def test_the_key_is_the_smallest_set_of_columns_that_makes_times_unique(tmp_path, form, order):
    frame = long(SITES, "a", "b")
    if order != "by key":
        frame = frame.sort_values("when", kind="stable")
    if order == "shuffled":
        frame = frame.sample(frac=1, random_state=1)
    path = tmp_path / f"x.{form}"
    frame.to_csv(path, index=False) if form == "csv" else frame.to_parquet(path)

    result = read(path)

    assert (result.schema.series, result.schema.targets) == ("a,b", ("v",))
    assert set(result.panel.names) == {"north/t1", "north/t2", "south/t1", "south/t2"}
    assert result.panel.lengths.tolist() == [N] * 4


def test_columns_may_stand_in_any_order():
    frame = long(SITES, "a", "b").assign(unit="kWh", lat=48.2)

    names = {read(frame[list(order)]).panel.names for order in (frame.columns, frame.columns[::-1])}

    assert {frozenset(name.split("/")) for name in next(iter(names))} == {
        frozenset(pair) for pair in SITES
    }


def test_a_key_has_as_many_columns_as_it_needs():
    keys = [(p, h, s) for p in ("p", "q") for h in ("h1", "h2") for s in ("x", "y")]
    frame = long(keys, "c1", "c2", "c3")

    assert read(frame).schema.series == "c1,c2,c3"
    assert read(frame[frame.c1 == "p"]).schema.series == "c2,c3"


def test_ids_that_are_numbers_are_a_key_and_no_readings(tmp_path):
    frame = long([(shop, item) for shop in (1, 2) for item in (1, 2, 3)], "shop", "item")
    frame["v"] = frame["v"].round().astype(int)
    path = tmp_path / "x.csv"
    frame.to_csv(path, index=False)

    for data in (frame, path):
        result = read(data)
        assert (result.schema.series, result.schema.targets) == ("shop,item", ("v",))
        assert result.panel.names[0] == "1/1" and result.panel.n_series == 6


def test_leading_zeros_of_ids_stay(tmp_path):
    path = tmp_path / "x.csv"
    long([("007",), ("012",)], "meter").to_csv(path, index=False)

    assert read(path).panel.names == ("007", "012")


@pytest.mark.parametrize(
    "ids",
    [
        ("7", "07", "007"),
        ("1.1", "1.10", "1.2"),
        ("12E4", "120E3", "1E05"),
        ("12345678901234567890", "12345678901234567891"),
    ],
)
def test_ids_that_are_the_same_number_are_told_apart_by_their_text(tmp_path, ids):
    path = tmp_path / "x.csv"
    long([(name,) for name in ids], "probe").to_csv(path, index=False)

    assert read(path).panel.names == ids


def test_what_is_true_or_false_is_a_key_where_both_come_at_a_time(tmp_path):
    path = tmp_path / "x.parquet"
    long([(True,), (False,)], "inbound").to_parquet(path)

    assert read(path).panel.names == ("true", "false")
    single = pd.DataFrame({"when": HOURS, "open": np.arange(N) // 9 % 2 == 0, "v": wave(N)})
    assert read(single).panel.names == ("v",)


def test_coordinates_may_be_a_key():
    result = read(long([(48.0, 11.0), (48.0, 11.5), (48.5, 11.0)], "y", "x"))

    assert result.panel.names == ("48/11", "48/11.5", "48.5/11")


def test_a_status_is_no_part_of_the_key_though_it_tells_a_few_rows_apart():
    frame = long([("a",), ("b",), ("c",)], "m").assign(note="good")
    again = frame.iloc[[3, 50, 200]].assign(v=lambda f: f.v + 1, note="bad")

    error = failure(pd.concat([frame, again]))

    assert (error.code, offered(error)) == (
        "duplicate-time",
        [("--on-duplicate", "last"), ("--on-duplicate", "mean")],
    )
    assert read(frame).schema.series == "m"


def test_a_rule_that_drops_much_is_not_offered_where_a_key_is_missing():
    frame = long([("a",), ("b",)], "m")

    error = failure(frame[["when", "v"]])

    assert (error.code, offered(error)) == ("duplicate-time", [])
    assert "several sensors may be mixed" in str(error.advice)
    some = failure(frame.assign(m=RANDOM.choice(["p", "q"], 2 * N)))
    assert (some.code, offered(some)) == ("duplicate-time", [("--series", "m")])


@pytest.mark.parametrize("keys", [("p", "q", "r"), (7, 8, 9)])
def test_a_key_that_the_first_rows_do_not_show_is_found_in_all_rows(tmp_path, monkeypatch, keys):
    small_first_rows(monkeypatch)
    path = tmp_path / "x.parquet"
    long([(key,) for key in keys], "z").to_parquet(path)
    read_panel = Mock(wraps=match.read_panel)
    monkeypatch.setattr(match, "read_panel", read_panel)

    names = tuple(map(str, keys))
    assert read(path).panel.names == names
    assert read(path, freq="1h", agg="mean").panel.names == names
    assert read(path, on_duplicate="last").panel.names == names
    assert read_panel.call_count == 3


def test_a_number_that_later_rows_change_is_no_key(tmp_path, monkeypatch):
    small_first_rows(monkeypatch)
    path = tmp_path / "x.parquet"
    long([()]).assign(mode=np.arange(N) // 50).to_parquet(path)

    schema = read(path).schema

    assert (schema.series, schema.targets) == (None, ("v", "mode"))


def test_sensors_read_in_turn_at_their_own_levels_are_series():
    result = read(in_turn(["p", "q"], [21, 1013]))

    assert result.panel.names == ("p", "q")
    assert result.panel.lengths.tolist() == [150, 150]


def test_sensors_read_in_turn_at_one_level_are_asked_about():
    frame = in_turn(["p", "q", "r"], [20, 20, 20])

    error = failure(frame)

    assert error.code == "ambiguous-roles" and "'x'" in error.message
    assert offered(error) == [("--series", "x"), ("--id-from-columns",)]
    assert fixed(frame, error).panel.names == ("p", "q", "r")
    assert fixed(frame, error, 1).panel.names == ("v",)


@pytest.mark.parametrize("name", ["batch_id", "sensor"])
def test_blocks_of_one_line_of_times_are_asked_about_though_named_like_series(name):
    table = pd.DataFrame({"when": HOURS, "v": wave(N), name: [f"B{i // 30}" for i in range(N)]})

    assert offered(failure(table)) == [("--series", name), ("--id-from-columns",)]
    apart = table.assign(v=table.v + np.arange(N) // 30 * 50.0)
    assert read(apart).schema.series == name
    assert read(table.rename(columns={name: "note"})).schema.series is None


def test_numbers_that_come_in_turn_are_sensors_where_the_name_says_so():
    frame = in_turn([1, 2, 3], [20, 20, 20])

    assert read(frame.rename(columns={"x": "channel"})).panel.names == ("1", "2", "3")
    assert read(frame.rename(columns={"x": "stage"})).panel.names == ("stage", "v")


def test_of_sensors_read_in_turn_several_columns_may_be_the_key():
    frame = in_turn(["n1", "n2", "s1", "s2"], [10, 20, 30, 40])
    frame = frame.assign(site=frame.x.str[0], probe=frame.x.str[1]).drop(columns="x")

    assert set(read(frame).panel.names) == {"n/1", "n/2", "s/1", "s/2"}


def test_devices_that_send_at_times_of_their_own_are_series():
    parts = []
    for i, name in enumerate("pqrs"):
        stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(N) * 900 + 137 * i, "s")
        parts.append(pd.DataFrame({"when": stamps, "x": name, "v": wave(N, seed=i)}))

    result = read(pd.concat(parts).sort_values("when"))

    assert set(result.panel.names) == set("pqrs")
    assert result.panel.step_us == 900_000_000


def unsynchronised(ids: list[int], shift_s: int = 137, jitter_s: int = 0) -> pd.DataFrame:
    """Make a table of devices that send every 15 minutes, each at its own time."""
    parts = []
    for i, number in enumerate(ids):
        seconds = np.arange(N) * 900 + shift_s * i + RANDOM.integers(-jitter_s, jitter_s + 1, N)
        stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, "s")
        parts.append(pd.DataFrame({"when": stamps, "x": number, "v": wave(N, seed=i)}))
    return pd.concat(parts)


@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("ids", [[23296, 23299], [1, 2, 3]])
def test_devices_with_numbers_that_send_at_their_own_times_are_asked_about(ids, is_sorted):
    for shift_s, jitter_s in ((13, 0), (137, 20)):
        frame = unsynchronised(ids, shift_s, jitter_s)
        frame = frame.sort_values("when") if is_sorted else frame
        error = failure(frame)

        assert error.code == "ambiguous-roles"
        assert offered(error) == [("--series", "x"), ("--id-from-columns",)]
        assert fixed(frame, error).panel.names == tuple(map(str, ids))
    named = read(frame.rename(columns={"x": "device_id"}))
    assert named.panel.names == tuple(map(str, ids))


def test_numbers_that_recur_at_equal_steps_may_be_times_or_numbers_of_messages():
    bursts = pd.date_range("2024-01-01", periods=N, freq="1h").repeat(3)
    times = bursts + pd.to_timedelta(np.tile([0, 10, 20], N), "min")
    minutes = pd.DataFrame({"when": times, "x": times.minute, "v": wave(3 * N)})
    seconds = np.cumsum(RANDOM.choice([30, 60, 90], 1000))
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, "s")
    messages = pd.DataFrame({"when": times, "x": np.arange(1000) % 100, "v": wave(1000)})
    single = unsynchronised([1, 2]).drop(columns="v")

    for frame in (minutes, messages, single):
        assert read(frame, freq="1h", agg="mean").schema.series is None


def test_readings_sent_on_change_with_a_text_are_asked_about():
    parts = []
    for name, level in (("p", 20), ("q", 300), ("r", 50)):
        seconds = np.sort(RANDOM.choice(500_000, N, replace=False))
        stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, "s")
        parts.append(pd.DataFrame({"when": stamps, "x": name, "v": level + wave(N)}))
    frame = pd.concat(parts).sort_values("when")

    assert failure(frame).code == "ambiguous-roles"


def at_random(names: list[object], levels: list[float], column: str) -> pd.DataFrame:
    """Make a table of sensors that send at random: each its own level, and noise."""
    number = RANDOM.integers(0, len(names), 600)
    stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(
        np.cumsum(RANDOM.integers(2, 40, 600)), "s"
    )
    readings = np.array(levels)[number] + RANDOM.normal(0, 0.3, 600)
    return pd.DataFrame({"when": stamps, column: np.array(names)[number], "v": readings})


def test_sensors_that_send_at_random_are_asked_about():
    for names, levels in ((["p", "q", "r"], [20, 20, 20]), ([101, 102, 103], [20, 400, 1000])):
        error = failure(at_random(names, levels, "node"))

        assert error.code == "ambiguous-roles"
        assert offered(error) == [("--series", "node"), ("--id-from-columns",)]
    named = read(at_random([1, 2, 3], [20, 20, 20], "sensor_id"), freq="5min", agg="mean")
    assert set(named.panel.names) == {"1", "2", "3"}


def test_modes_at_irregular_times_are_no_series():
    frame = at_random(["run", "idle", "stop"], [20, 20, 20], "mode")
    walk = frame.assign(v=np.cumsum(RANDOM.normal(0, 1, 600)))
    holding = frame.assign(mode=np.repeat(["run", "idle", "stop", "run"], 150))
    stars = frame.assign(mode=RANDOM.integers(1, 6, 600))
    switched = frame.assign(mode=np.arange(600) % 2, v=np.arange(600) % 2 * 1500.0)

    for data in (walk, holding, stars, switched):
        assert failure(data).code == "irregular"


STATUSES = {
    "quality": np.where(RANDOM.random(N) < 0.05, "bad", "good"),
    "tariff": np.where((HOURS.hour >= 6) & (HOURS.hour < 22), "high", "low"),
    "state": np.where(np.arange(N) // 17 % 2, "run", "idle"),
    "hour": HOURS.strftime("%Hh"),
    "any": RANDOM.choice(["a", "b", "c"], N),
}


@pytest.mark.parametrize("name", STATUSES)
def test_a_text_that_changes_with_time_is_a_status_and_named(name):
    result = read(pd.DataFrame({"when": HOURS, "v": wave(N), "x": STATUSES[name]}))

    assert (result.schema.series, result.panel.names) == (None, ("v",))
    assert reason(result, "x") == "a status: its values change with time"
    assert "not used: x (a status" in result.notes


@pytest.mark.parametrize("names", [("lat", "lon"), ("GPS Latitude", "GPS Longitude")])
def test_where_a_sensor_moves_its_place_is_no_reading(names):
    path = np.cumsum(np.random.default_rng(0).normal(size=(2, N)), axis=1) / 1000 + [[54], [11]]
    frame = pd.DataFrame({"when": HOURS, "v": wave(N), **dict(zip(names, path, strict=True))})
    result = read(frame)
    assert result.panel.names == ("v",)
    assert [reason(result, name) for name in names] == ["a coordinate"] * 2
    assert read(frame.drop(columns=names[1])).panel.names == ("v", names[0])


@pytest.mark.parametrize(
    ("reading", "quality", "is_quality"),
    [
        ("flow_m3s", "flow_m3s_qc", True),
        ("flow_m3s", "flow quality", True),
        ("FF", "QFF", True),
        ("level", "level_flag", True),
        ("level", "pump_flag", False),
        ("flow", "flow_2", False),
        ("u", "q", False),
    ],
)
def test_numbers_that_tell_the_quality_of_a_reading_are_none(reading, quality, is_quality):
    numbers = np.random.default_rng(0).choice([0, 1, 3, 9], N)
    result = read(pd.DataFrame({"when": HOURS, reading: wave(N), quality: numbers}))

    assert result.panel.names == ((reading,) if is_quality else (reading, quality))
    if is_quality:
        assert reason(result, quality) == f"the quality of {reading}"


def test_names_of_days_are_no_series():
    days = pd.date_range("2023-01-02", periods=200)
    frame = pd.DataFrame({"when": days, "day": days.day_name(), "v": wave(200)})

    assert read(frame).panel.names == ("v",)


ELAPSED_H = np.arange(N)
LEFT_OUT = {
    "constant": ("always 48.2", np.full(N, 48.2)),
    "rows from 1": ("numbers the rows", np.arange(1, N + 1)),
    "rows from anywhere": ("numbers the rows", np.arange(N) + 50_001),
    "rows before they were sorted": ("numbers the rows", RANDOM.permutation(N) + 7),
    "hour": ("derived from the timestamp", HOURS.hour),
    "minute of the day": ("derived from the timestamp", 60 * HOURS.hour),
    "seconds since 1970": ("a second time", 1_704_067_200 + 3600 * ELAPSED_H),
    "elapsed days, rounded": ("a second time", np.round(ELAPSED_H / 24, 3)),
    "days of astronomers": ("a second time", np.round(2_460_310.5 + ELAPSED_H / 24, 4)),
    "days of a spreadsheet": ("a second time", np.round(45_292 + ELAPSED_H / 24, 2)),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_numbers_that_nobody_measures_are_no_targets(name):
    why, numbers = LEFT_OUT[name]

    result = read(pd.DataFrame({"when": HOURS, "x": numbers, "v": wave(N)}))

    assert (result.panel.names, reason(result, "x")) == (("v",), why)
    named = read(pd.DataFrame({"when": HOURS, "x": numbers, "v": wave(N)}), target=("x",))
    assert named.panel.names == ("x",)


@pytest.mark.parametrize("freq", ["MS", "D", "h"])
def test_years_with_decimals_and_the_lengths_of_months_are_no_targets(freq):
    """Tables of the climate have both beside the year and the month."""
    stamps = pd.date_range("1995-01-01", periods=300, freq=freq)
    days = stamps.day_of_year - 1 + stamps.hour / 24
    share = (stamps.month - 0.5) / 12 if freq == "MS" else days / 365
    columns = {"decimal": np.round(stamps.year + share, 4), "n": stamps.days_in_month}

    result = read(pd.DataFrame({"when": stamps, **columns, "v": wave(300)}))

    assert (result.panel.names, reason(result, "decimal")) == (("v",), "a second time")
    is_constant = freq == "h"  # twelve days
    assert reason(result, "n") == ("always 31" if is_constant else "derived from the timestamp")


@pytest.mark.parametrize("order", ["by key", "shuffled"])
def test_numbers_of_rows_and_of_messages_are_no_targets_of_a_long_table(order):
    frame = long([("a",), ("b",)], "x")
    frame = frame.assign(row=np.arange(2 * N) + 900, message=np.tile(np.arange(N), 2) + 40)
    frame.loc[frame.x == "b", "message"] += 1000
    frame = frame[RANDOM.random(2 * N) < 0.9]  # lost messages take their numbers with them
    frame["row"] = np.arange(len(frame)) + 900
    frame = frame.sample(frac=1, random_state=1) if order == "shuffled" else frame

    result = read(frame)

    assert set(result.panel.names) == {"a", "b"}
    assert reason(result, "row") == reason(result, "message") == "numbers the rows"


@pytest.mark.parametrize("tz", ["Europe/Berlin", "America/New_York", "Europe/London"])
@pytest.mark.parametrize("form", ["flag", "hours", "seconds", "epoch"])
@pytest.mark.parametrize("stamps", ["local", "utc"])
def test_what_tells_how_clocks_are_set_is_no_target(tz, form, stamps):
    utc = pd.date_range("2024-03-01", periods=60 * 24, freq="1h", tz="UTC")
    local = utc.tz_convert(tz).tz_localize(None)
    hours = (local - utc.tz_localize(None)).total_seconds().to_numpy() / 3600
    epoch = utc.tz_localize(None).astype("datetime64[s]").astype(np.int64)
    kinds = {"flag": hours - hours.min(), "hours": hours, "seconds": 3600 * hours, "epoch": epoch}
    when = local if stamps == "local" else utc.tz_localize(None)

    result = read(pd.DataFrame({"when": when, "x": kinds[form], "v": wave(len(utc))}))

    assert result.panel.names == ("v",)


def test_what_is_the_same_for_each_series_is_no_target():
    frame = long([("a",), ("b",)], "x")
    frame["code"], frame["lat"] = np.where(frame.x == "a", 111, 112), 48.2

    result = read(frame)

    assert result.panel.names == ("a", "b")
    assert reason(result, "code") == "the same for each series at all times"


READINGS = {
    "people": RANDOM.poisson(5, N),
    "rpm": RANDOM.integers(900, 1500, N),
    "on": (wave(N) > wave(N).mean()).astype(int),
    "meter": 1000 + np.cumsum(RANDOM.integers(0, 3, N)),
    "late": np.r_[np.full(N - 20, 5.0), wave(20)],
    "rising": np.round(20 + 0.05 * np.arange(N) + RANDOM.normal(0, 0.2, N), 1),
    "setpoint": np.where(np.arange(N) >= 72, 1, 0),
    "schedule": np.where((HOURS.hour > 5) & (HOURS.hour < 22), 21.0, 17.0),
    "sawtooth": np.round(300 - 12.0 * HOURS.hour + RANDOM.normal(0, 2, N)),
    "rare": np.where(np.arange(N) % 4 == 0, 5.0, np.nan),
}


@pytest.mark.parametrize("name", READINGS)
def test_whole_numbers_states_and_meters_are_targets(name):
    result = read(pd.DataFrame({"when": HOURS, "x": READINGS[name], "v": wave(N)}))

    assert result.panel.names == ("x", "v")


def test_a_constant_is_found_in_all_rows_of_a_large_table(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "_SAMPLE_ROWS", 100)
    stamps = pd.date_range("2024-01-01", periods=600, freq="1h")
    late = np.r_[np.full(500, 7.0), wave(100)]
    frame = pd.DataFrame({"when": stamps, "x": 7.0, "late": late, "v": wave(600)})
    path = tmp_path / "x.parquet"
    frame.to_parquet(path)

    result = read(path)

    assert result.panel.names == ("late", "v")
    assert result.warnings["constant-series"].message.endswith(": x")


def test_where_all_columns_are_constant_all_stay():
    assert read(pd.DataFrame({"when": HOURS, "x": 1.0, "v": 2.0})).panel.names == ("x", "v")


def test_of_columns_that_name_the_same_series_units_come_last():
    frame = long([("a",), ("b",)], "what")
    frame.insert(0, "measure", np.where(frame.what == "a", "°C", "hPa"))

    result = read(frame)

    assert result.panel.names == ("a", "b")
    assert reason(result, "measure") == "units of measurement"


def heard_by(gateways: str, n_devices: int) -> pd.DataFrame:
    """Make a table of devices whose readings come by way of some gateways each."""
    rng = np.random.default_rng(1)
    parts = [
        pd.DataFrame({"when": HOURS, "device": f"d{d}", "gateway": g, "v": wave(N).round(3) + d})
        for d in range(n_devices)
        for g in gateways
    ]
    return pd.concat([part[rng.random(N) < 0.7] for part in parts]).sort_values("when")


def test_readings_that_come_by_several_routes_are_asked_about():
    table = heard_by("xyz", 2)

    error = failure(table)

    assert error.code == "ambiguous-roles" and "'gateway'" in error.message
    assert offered(error) == [("--series", "device"), ("--series", "device,gateway")]
    assert fixed(table, error).panel.names == ("d0", "d1")
    assert len(fixed(table, error, 1).panel.names) == 6


def test_series_of_different_readings_are_no_routes():
    table = heard_by("xyz", 2)
    signals = table.assign(signal=np.random.default_rng(2).normal(size=len(table)))
    result = read(signals)
    assert "the same for each 'gateway' at all times: v" in result.notes
    assert len(result.panel.names) == 12
    table["v"] += np.random.default_rng(2).normal(size=len(table))
    assert len(read(table).panel.names) == 6
    levels = heard_by("xyz", 2).assign(v=lambda t: t.v > 20)  # equal by chance
    assert "the same for" not in read(levels.assign(v=levels.v * 1.0)).notes


def test_series_that_are_the_same_are_noted():
    result = read(heard_by("xy", 1).drop(columns="device"))
    assert set(result.panel.names) == {"x", "y"}
    assert "the same for each 'gateway' at all times: v" in result.notes


def test_of_two_keys_that_are_as_likely_the_name_chooses_none():
    half = np.arange(N) < N // 2
    rooms = {"r1": np.where(half, "S1", "S2"), "r2": np.where(half, "S2", "S1")}
    parts = [
        pd.DataFrame({"when": HOURS, "room": room, "sensor": sensors, "v": wave(N) + i / 3})
        for i, (room, sensors) in enumerate(rooms.items())
    ]
    table = pd.concat(parts)

    error = failure(table)

    assert offered(error) == [("--series", "sensor"), ("--series", "room")]
    assert read(table.assign(sensor="S" + table.room)).panel.names == ("Sr1", "Sr2")


def test_zones_of_series_that_are_not_used_are_warned_of():
    zones = {"MUC": "Europe/Berlin", "NYC": "America/New_York"}
    parts = [
        pd.DataFrame({"when": HOURS, "site": s, "tz": z, "v": wave(N)}) for s, z in zones.items()
    ]
    table = pd.concat(parts)

    assert read(table).warnings["zones-of-series"].count == 2
    assert "zones-of-series" not in read(table.assign(tz="Europe/Berlin")).warnings


UNITS = {
    "in one series, now and then": np.where(np.sin(np.arange(N)) > 0, "W", "kW"),
    "of one series, later": np.repeat(["\u00b0C", "\u00b0F"], N // 2),
    "of bytes": np.where(np.arange(N) // 7 % 2, "KB", "MB"),
    "with other zeros": np.where(np.arange(N) // 5 % 2, "mmol/L", "mg/dL"),
}


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("column", ["unit", "uom"])
def test_readings_of_one_series_in_several_units_are_asked_about(name, column):
    table = pd.DataFrame({"when": HOURS, "v": wave(N), column: UNITS[name]})
    table.v += np.where(UNITS[name] == "\u00b0F", 500, 0)
    sensors = pd.concat([table.assign(sensor=name) for name in "pq"])

    error = failure(table)
    assert error.code == "mixed-units" and error.hint == "convert the readings to one unit"
    assert offered(error) == [("--series", column), ("--past", column)]
    assert read(table, series=column).schema.series == column
    assert read(table, past=(column,)).panel.names == ("v",)
    error = failure(sensors)
    assert offered(error)[0] == ("--series", f"sensor,{column}")
    assert len(fixed(sensors, error).panel.names) == 4


@pytest.mark.parametrize(
    ("first", "second", "factor"),
    [("L", "m3", 0.001), ("ppm", "ppb", 1000.0), ("Liter", "Kubikmeter", 0.001), ("7", "8", 9.0)],
)
def test_a_unit_that_follows_another_one_is_asked_about(first, second, factor):
    units = np.repeat([first, second], N // 2)
    table = pd.DataFrame({"when": HOURS, "v": wave(N) + 50, "unit": units})
    assert failure(table.rename(columns={"unit": "UOM"})).code == "mixed-units"
    table["unit"] = table["unit"].map("unit {}".format) if first == "7" else table["unit"]
    table.loc[N // 2 :, "v"] *= factor

    error = failure(table)

    assert (error.code, offered(error)) == (
        "mixed-units",
        [("--series", "unit"), ("--past", "unit")],
    )


TAKES_TURNS = np.arange(N) // 5 % 2 == 1
SCALES = {
    "scale": ([-1, -2], 10.0),
    "prefix": (["k", None], 1000.0),
    "range": (["x1", "x0.01"], 100.0),
    "temp_unit": (["m/s", "mph"], 2.237),
    "Unit": (["C", "F"], 5.0),
}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("n_sensors", [1, 2])
def test_a_column_that_tells_the_scale_of_readings_is_asked_about(name, n_sensors):
    (first, second), factor = SCALES[name]
    scaled = (50 + 10 * wave(N)) * np.where(TAKES_TURNS, factor, 1)
    state = np.array([first, second], object)[TAKES_TURNS.astype(int)]
    table = pd.DataFrame({"when": HOURS, "v": scaled, name: state, "hum": wave(N)})
    sensors = [table.assign(sensor=key) for key in "pq"[:n_sensors]]
    table = pd.concat(sensors) if n_sensors > 1 else table

    error = failure(table)

    assert (error.code, offered(error)) == ("mixed-units", [("--past", name)])
    assert len(fixed(table, error).panel.names) == 2 * n_sensors


def test_currencies_within_one_series_are_asked_about():
    codes = np.repeat(["EUR", "USD"], N // 2)
    table = pd.DataFrame({"when": HOURS, "v": wave(N), "currency": codes, "volume": wave(N)})

    assert failure(table).code == "mixed-units"
    assert read(table.assign(currency="EUR")).panel.names == ("v", "volume")


@pytest.mark.parametrize("name", ["unit_mode", "state"])
@pytest.mark.parametrize("factor", [10.0, 3.0])
def test_a_state_with_its_level_is_no_scale(name, factor):
    noise = RANDOM.normal(1, 0.02, 10 * N)
    is_on = np.arange(10 * N) // 7 % 2 == 1
    stamps = pd.date_range("2024-01-01", periods=10 * N, freq="1h")
    state = np.where(is_on, "on", "off")
    table = pd.DataFrame({"when": stamps, "v": 5 * noise * np.where(is_on, factor, 1), name: state})

    assert read(table).panel.names == ("v",)


def test_another_spelling_of_a_unit_is_no_other_unit():
    spelled = np.where(TAKES_TURNS, "Watt", "W")
    table = pd.DataFrame({"when": HOURS, "v": wave(N), "hum": wave(N), "v_unit": spelled})

    assert read(table).panel.names == ("v", "hum")


def test_units_that_come_together_or_in_turn_may_name_the_series():
    frame = in_turn(["unit 1", "unit 2"], [21, 1013]).rename(columns={"x": "unit"})
    assert read(frame).panel.names == ("unit 1", "unit 2")
    both = pd.concat([pd.DataFrame({"when": HOURS, "v": wave(N), "unit": u}) for u in ("l", "m3")])
    assert read(both).panel.names == ("l", "m3")


@pytest.mark.parametrize(
    "texts", [np.repeat(["S", "W"], N // 2), [f"{i}/10 (x)" for i in range(N)]]
)
def test_letters_and_remarks_that_follow_each_other_are_no_units(texts):
    table = pd.DataFrame({"when": HOURS, "v": wave(N), "season": texts})

    assert read(table).panel.names == ("v",)


@pytest.mark.parametrize("values", ["TF", "AV", ["on/off", "n/a"], ["long", "short"]])
def test_letters_and_other_texts_are_no_units(values):
    texts = np.array(list(values))[np.arange(N) // 7 % 2]
    table = pd.DataFrame({"when": HOURS, "v": wave(N), "x": texts})

    assert reason(read(table), "x") == "a status: its values change with time"


def test_quantities_that_come_together_or_in_turn_are_series_by_their_units():
    together = long([("W",), ("kW",)], "unit")
    in_turns = in_turn(["hPa", "%"], [1013, 40]).rename(columns={"x": "unit"})
    missing = long([("p", "W"), ("q", "kW")], "sensor", "unit")
    missing.loc[missing.index % 7 == 0, "unit"] = None

    assert read(together).schema.series == read(in_turns).schema.series == "unit"
    assert read(missing).schema.series == "sensor"


def test_two_keys_that_are_as_good_are_asked_about():
    frame = long([("a",), ("b",)], "x")
    frame["y"] = np.where((frame.x == "a") == (frame.index % 2 == 0), "p", "q")

    error = failure(frame)

    assert error.code == "ambiguous-roles"
    assert offered(error) == [("--series", "x"), ("--series", "y")]


def test_names_that_differ_by_blanks_or_case_are_said():
    result = read(long([("Pump 1",), ("pump 1 ",), ("Pump  1",), ("Pump 2",)], "x"))

    assert result.panel.n_series == 4
    assert result.warnings["similar-names"].count == 3
    assert "Pump 2" not in result.warnings["similar-names"].message
    wide = read(pd.DataFrame({"when": HOURS, "Temp": wave(N), "temp ": wave(N), "v": wave(N)}))
    assert wide.warnings["similar-names"].count == 2


def followed(first: str, second: str, *, at: int = N // 2, gap: int = 0) -> pd.DataFrame:
    """Make a table of a sensor that is named otherwise later on, beside another one."""
    frame = long([(first,), ("tank",)], "x")
    stamps = np.sort(frame.when.unique())
    is_later = (frame.x == first) & (frame.when >= stamps[at])
    frame.loc[is_later, "x"] = second
    return frame[~(is_later & (frame.when < stamps[at + gap]))]


@pytest.mark.parametrize(
    ("first", "second"),
    [("K\u00fcche", "Ku\u0308che"), ("S1", "S1\u200b"), ("\ufeffpump", "pump")],
)
def test_names_that_look_the_same_are_one_series(first, second):
    result = read(followed(first, second))

    assert result.panel.n_series == 2
    assert result.warnings["names-written-otherwise"].count == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("0.3", "0.30"),
        ("sensor_1", "sensor-1"),
        ("00:1A:2B", "00-1a-2b"),
        ("Line A", "Line \u0410"),
    ],
)
def test_names_that_are_spelled_alike_and_take_turns_are_said(first, second):
    warnings = read(followed(first, second, gap=5), series="x").warnings
    assert warnings["similar-names"].count == 2 and "renamed-series" not in warnings

    both = read(long([(first,), (second,), ("tank",)], "x"), series="x")
    assert "similar-names" not in both.warnings, "they are two sensors"


def test_a_sensor_that_takes_over_from_another_one_is_said():
    warnings = read(followed("boiler", "boiler_new"), series="x").warnings
    assert "'boiler' and 'boiler_new'" in warnings["renamed-series"].message

    overlapping = followed("old", "x7")
    copies = overlapping[overlapping.x == "old"].tail(30).assign(x="x7")
    assert "renamed-series" in read(pd.concat([overlapping, copies]), series="x").warnings


def test_sensors_that_begin_and_end_at_other_times_are_no_successors():
    later = followed("boiler", "boiler_new", gap=3)
    apart = followed("flow", "room")
    apart.loc[apart.x == "room", "v"] += 500
    batches = followed("a1", "a2")
    for frame in (later, apart, batches[batches.x != "tank"]):
        assert "renamed-series" not in read(frame, series="x").warnings


def zoned(tz: str, start: str = "2024-10-20", **columns: object) -> pd.DataFrame:
    """Make a table of wall-clock times across a change of the clock, and the clocks' names."""
    stamps = pd.date_range(start, periods=20 * 24, freq="1h", tz="UTC").tz_convert(tz)
    clocks = [stamp.tzname() for stamp in stamps]
    readings = wave(len(stamps))
    return pd.DataFrame({"w": stamps.tz_localize(None), "c": clocks, "v": readings, **columns})


@pytest.mark.parametrize("tz", ["America/New_York", "America/Denver", "Europe/Berlin"])
def test_a_column_of_clocks_asks_for_its_zone_and_names_no_series(tz):
    frame = zoned(tz)

    error = failure(frame)

    assert error.code == "zone-column" and ("--tz", tz) in offered(error)
    result = read(frame, tz=tz)
    assert (result.panel.names, result.panel.lengths.tolist()) == (
        ("v",),
        [479],
    )  # an hour comes twice


@pytest.mark.parametrize("zones", [("CET", "EST"), ("America/New_York", "America/Denver")])
def test_zones_that_come_together_are_those_of_series(zones):
    names = read(long([(zone,) for zone in zones], "place")).panel.names
    of_sites = long(list(zip("pq", zones, strict=True)), "site", "tz")

    assert names == zones
    assert read(of_sites).panel.names == read(of_sites[["tz", "site", "when", "v"]]).panel.names
    assert read(of_sites).panel.names == ("p", "q")


def test_one_zone_in_all_rows_is_said():
    result = read(pd.DataFrame({"when": HOURS, "z": "Europe/Berlin", "v": wave(N)}))

    assert reason(result, "z") == "a time zone: Europe/Berlin"


def test_of_utc_and_local_time_utc_is_the_time():
    frame = zoned("America/New_York").drop(columns="c")
    utc = pd.date_range("2024-10-20", periods=480, freq="1h")

    assert read(frame.assign(other=utc)).schema.time == "other"
    assert read(frame[:50].assign(utc=utc[:50])).schema.time == "utc"
    error = failure(frame[:50].assign(other=utc[:50]))
    assert offered(error) == [("--time", "w"), ("--time", "other")]


TIMES = {
    "interval": (HOURS, HOURS + pd.Timedelta("1h")),
    "export": (HOURS, pd.DatetimeIndex(["2024-03-01"] * N)),
    "arrival": (HOURS, HOURS + pd.to_timedelta(RANDOM.integers(1, 40, N), "s")),
    "day": (HOURS, HOURS.normalize()),
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_two_times_that_of_the_readings_is_taken(name, is_reversed):
    frame = pd.DataFrame({"p": TIMES[name][0], "q": TIMES[name][1], "v": wave(N)})

    result = read(frame[::1] if not is_reversed else frame[["q", "v", "p"]])

    assert result.schema.time == "p"
    assert reason(result, "q") == "a second time"


@pytest.mark.parametrize("shift", ["37min", "6h", "1h"])
def test_channels_with_times_of_their_own_are_asked_about(shift):
    frame = pd.DataFrame({"t1": HOURS, "p": wave(N), "t2": HOURS + pd.Timedelta(shift)})
    frame["q"] = wave(N, seed=1)

    error = failure(frame)

    assert error.code == "several-times"
    assert offered(error) == [("--time", "t1", "--target", "p"), ("--time", "t2", "--target", "q")]
    result = fixed(frame, error, 1)
    assert (result.schema.time, result.panel.names) == ("t2", ("q",))


def test_times_of_extremes_within_the_steps_of_one_are_not_its_rivals():
    moments = HOURS - pd.to_timedelta(RANDOM.integers(0, 3600, N), "s")
    frame = pd.DataFrame({"t": HOURS, "n": range(N), "top": wave(N), "at": moments, "v": wave(N)})

    result = read(frame)

    assert (result.schema.time, result.schema.targets) == ("t", ("top", "v"))


def test_a_constant_before_a_time_is_no_channel_of_it():
    days = pd.date_range("2024-01-01", periods=N, freq="D")
    frame = pd.DataFrame({"kind": 300, "day": days, "p": wave(N), "q": wave(N, seed=1)})
    frame["sent"] = days + pd.Timedelta("29h")

    assert (read(frame).schema.time, read(frame).schema.targets) == ("day", ("p", "q"))


def test_times_of_few_rows_are_told_by_their_names():
    frame = pd.DataFrame({"made": HOURS[:5], "timestamp": HOURS[5:10], "v": wave(5)})

    assert read(frame).schema.time == "timestamp"


def test_an_id_that_is_not_always_a_number_is_read_as_text(tmp_path):
    keys = [(str(i),) for i in range(101, 109)] + [("10A",)]
    path = tmp_path / "x.csv"
    long(keys, "x").to_csv(path, index=False)

    assert read(path).panel.names == tuple(name for (name,) in keys)


def test_a_joined_key_needs_no_option_again(tmp_path):
    first, second = (tmp_path / name for name in ("a.csv", "b.csv"))
    frame = long(SITES, "a", "b")
    frame.to_csv(first, index=False)
    frame[frame.a == "south"].to_csv(second, index=False)
    config = DataConfig()

    _, schema = read_inferred(open_table(first, config, ignore), config, ignore)
    source = open_table(second, config, ignore, series_column=schema.series)

    assert next(c for c in source.columns if c.name == "a,b").sample[0] == "south/t1"
    assert read(second, series="a,b").panel.names == ("south/t1", "south/t2")


def test_a_row_without_a_part_of_its_name_is_an_error_with_its_line(tmp_path):
    lines = ["2024-01-01 00:00,n,1,5", "2024-01-01 01:00,n,,6", "2024-01-01 00:00,s,1,7"]
    path = write(tmp_path / "x.csv", "when,a,b,v", *lines)

    error = failure(path, series="a,b")

    assert (type(error), error.code, error.location.line) == (DataError, "missing-series", 3)


def test_options_name_targets_series_and_keys_of_a_long_table(tmp_path: Path):
    frame = long([("1",), ("2",)], "m").assign(w=lambda f: -f.v)
    bad = write(
        tmp_path / "bad.csv",
        "series,from,to",
        "1,2024-01-01 00:00,2024-01-01 02:00",
        "2/w,2024-01-01 03:00,2024-01-01 04:00",
    )

    result = read(frame, valid_range=("v=:1000", "1/w=-1000:", "2/v=1e6:2e6"), exclude=str(bad))

    assert result.panel.names == ("1/v", "1/w", "2/w")
    missing = [int(np.isnan(result.panel.of(i)).sum()) for i in range(3)]
    assert missing == [0, 0, 1]  # what is missing at the beginning is cut off
    assert result.panel.lengths.tolist() == [N - 2, N - 2, N]
