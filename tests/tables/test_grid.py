"""Stamps to a regular grid: the step, jitter, irregular stamps, resampling, gaps."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.config.reading import DataConfig
from rnnforecast.data import arrays
from rnnforecast.errors import DataError, UsageError
from rnnforecast.events import ignore
from rnnforecast.sources.source import open_source
from rnnforecast.tables.grid import check_step, read_panel
from rnnforecast.tables.match import match_schema
from tests.builders import HOUR_US, START_US, wave
from tests.data.tables import failure, few, hourly, pasted, read, write

MINUTE_US = 60_000_000


def table(times_us: object, readings: object = None, **columns: object) -> pa.Table:
    """Make a table of these times, counted from the start of 2024, and readings 0, 1, ..."""
    times = np.asarray(times_us, np.int64) + START_US
    readings = np.arange(len(times)) if readings is None else readings
    return pa.table(
        {"ts": pa.array(times.view("datetime64[us]")), "v": np.asarray(readings, float), **columns}
    )


@pytest.mark.parametrize(
    "step_us", [1_000, 250_000, 1_000_000, 7 * MINUTE_US, HOUR_US, 24 * HOUR_US, 168 * HOUR_US]
)
def test_the_step_is_what_lies_between_most_stamps(step_us):
    steps = [0, 1, 2, 3, 5, 6, 7, 20]

    panel = read(table([step * step_us for step in steps])).panel

    assert panel.step_us == step_us
    assert np.flatnonzero(np.isfinite(panel.target)).tolist() == steps


@few
@given(st.permutations(range(12)), st.sets(st.integers(0, 60), min_size=12, max_size=12))
def test_the_order_of_rows_does_not_matter(order, steps):
    steps = sorted(steps)
    times = [step * HOUR_US for step in steps]
    expected = read(table(times), freq="1h").panel

    shuffled = table([times[i] for i in order], [float(i) for i in order])

    assert read(shuffled, freq="1h").panel.fingerprint() == expected.fingerprint()


@few
@given(st.lists(st.integers(-599, 599), min_size=8, max_size=30))
def test_stamps_that_jitter_by_less_than_a_tenth_are_moved_onto_the_grid(jitter):
    jitter[0] = 0
    seconds = np.arange(len(jitter)) * 6000 + np.array(jitter)

    result = read(table(seconds * 1_000_000), freq="100min")

    assert result.panel.target.tolist() == list(range(len(jitter)))
    n_moved = sum(offset != 0 for offset in jitter)
    assert n_moved == (result.warnings["jitter"].count if n_moved else 0)
    assert n_moved or "jitter" not in result.warnings


def test_the_step_is_found_through_jitter():
    offsets = np.random.default_rng(0).integers(-20, 20, 200)
    offsets[0] = 0

    result = read(table((np.arange(200) * 600 + offsets) * 1_000_000))

    assert result.panel.step_us == 10 * MINUTE_US
    assert result.panel.target.tolist() == list(range(200))


def test_irregular_stamps_are_an_error_whose_fix_works(tmp_path):
    minutes = ["00", "10", "20", "34", "40"]
    lines = [f"2024-01-01 00:{minute}:00,{i}" for i, minute in enumerate(minutes)]
    path = write(tmp_path / "x.csv", "ts,v", *lines)

    error = failure(path)

    assert (type(error), error.exit_code, error.code) == (DataError, 4, "irregular")
    assert (error.location.line, error.location.token) == (5, "2024-01-01 00:34:00")
    assert pasted(error.advice) == {"freq": "10min", "agg": "mean"}
    fixed = read(path, **pasted(error.advice)).panel
    assert fixed.target.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("agg", "expected"),
    [
        ("mean", [2, 5, np.nan, 7]),
        ("sum", [6, 10, np.nan, 7]),
        ("last", [3, 4, np.nan, 7]),
        ("min", [1, 4, np.nan, 7]),
        ("max", [3, 6, np.nan, 7]),
    ],
)
def test_resampling_makes_one_reading_of_those_in_a_step(agg, expected):
    minutes = np.array([0, 20, 40, 60, 70, 80, 220])
    readings = [1, 2, 3, 6, np.nan, 4, 7]

    panel = read(table(minutes * MINUTE_US, readings), freq="1h", agg=agg, min_share=0).panel

    np.testing.assert_array_equal(panel.target, expected)


@pytest.mark.parametrize("last_minute", [180, 190, 200, 205])
def test_a_step_that_is_not_over_counts_for_nothing(last_minute):
    minutes = np.array([*range(0, 180, 20), *range(180, last_minute + 1, 20)])

    found = read(table(minutes * MINUTE_US, np.ones(len(minutes))), freq="1h", agg="sum").panel

    np.testing.assert_array_equal(found.target, [3, 3, 3])


def test_each_series_has_its_own_newest_step():
    a, b = np.arange(0, 180, 10), np.arange(0, 150, 10)
    stamps = np.concatenate([a, b]) * MINUTE_US
    names = pa.array(["a"] * len(a) + ["b"] * len(b))

    panel = read(table(stamps, np.ones(len(stamps)), id=names), freq="1h", agg="sum").panel

    assert [panel.of(i).tolist() for i in (0, 1)] == [[6, 6, 6], [6, 6]]


def test_resampled_steps_begin_on_the_hour():
    minutes = np.array([10, 30, 50, 70, 90, 110])

    panel = read(table(minutes * MINUTE_US), freq="1h", agg="mean").panel

    assert panel.start.tolist() == [START_US]
    assert panel.target.tolist() == [1, 4]


def test_a_step_that_readings_do_not_fit_needs_an_aggregate():
    error = failure(table(np.arange(6) * 20 * MINUTE_US), freq="1h")

    assert error.code == "irregular"
    assert pasted(error.advice) == {"freq": "1h", "agg": "mean"}


def test_an_aggregate_without_a_step_and_a_step_that_is_none_are_usage_errors():
    with pytest.raises(UsageError):
        DataConfig(agg="mean")
    with pytest.raises(UsageError):
        read(table(np.arange(6) * HOUR_US), freq="often")


def test_a_finer_step_leaves_the_steps_between_missing():
    panel = read(table(np.arange(3) * HOUR_US), freq="30min").panel

    np.testing.assert_array_equal(panel.target, [0, np.nan, 1, np.nan, 2])


def test_a_stamp_far_from_the_others_is_an_error_and_no_endless_grid():
    times = [*range(10), 10_000_000]

    error = failure(table(np.array(times) * MINUTE_US), allow_future=True)

    assert (type(error), error.code) == (DataError, "sparse")
    assert "only 11 of" in error.message


@pytest.mark.parametrize(
    ("ahead", "zone"), [("15h5min", None), ("62min", "UTC"), ("62min", "Asia/Tokyo")]
)
def test_a_reading_that_has_not_come_yet_is_an_error_with_its_row(ahead, zone):
    newest = pd.Timestamp.now("UTC").floor("1min") + pd.Timedelta(ahead)
    stamps = pd.date_range(end=newest, periods=6, freq="1h")
    stamps = stamps.tz_convert(zone) if zone else stamps.tz_localize(None)
    frame = pd.DataFrame({"ts": stamps, "v": np.arange(6.0)})

    error = failure(frame)

    assert (error.code, error.exit_code, error.location.line) == ("future", 4, 6)
    assert read(frame, **pasted(error.advice)).panel.lengths[0] == 6
    frame.loc[5, "v"] = np.nan  # what is known of the future may lie ahead
    assert read(frame).panel.lengths[0] == 5


@pytest.mark.parametrize(("ahead", "zone"), [("14h30min", None), ("30min", "UTC")])
def test_a_clock_that_is_ahead_by_less_than_a_step_is_said(ahead, zone):
    newest = pd.Timestamp.now("UTC").floor("1min") + pd.Timedelta(ahead)
    stamps = pd.date_range(end=newest, periods=6, freq="1h")
    stamps = stamps.tz_convert(zone) if zone else stamps.tz_localize(None)

    result = read(pd.DataFrame({"ts": stamps, "v": np.arange(6.0)}))

    assert result.panel.lengths[0] == 6
    assert result.warnings["future"].count == 1
    assert "at most 1 h" in result.warnings["future"].message


@pytest.mark.parametrize("step_h", [0.25, 1, 2, 6, 12])
@pytest.mark.parametrize("order", [None, "blocks", "by time"])
def test_midnights_with_the_date_of_the_day_before_are_asked_about(step_h, order):
    hours = np.arange(step_h, 24 * 10 + step_h, step_h)
    late = np.where(hours % 24 == 0, hours - 24, hours)
    is_by_time, is_long = order == "by time", order is not None
    names = np.array(["a", "b"])
    names = np.tile(names, len(hours)) if is_by_time else np.repeat(names, len(hours))
    stamps = np.tile(late, 2) if order == "blocks" else np.repeat(late, 1 + is_long)
    data = table((stamps * HOUR_US).astype(np.int64), **({"id": names} if is_long else {}))

    error = failure(data)

    first_midnight = int(24 / step_h) * (1 + is_by_time) - is_by_time
    assert (error.code, error.location.line) == ("time-goes-back", first_midnight)
    assert [p.options for p in error.proposals] == [("--midnight", "end"), ("--midnight", "start")]
    panel = read(data, midnight="end").panel
    assert panel.start.tolist() == [START_US + int(step_h * HOUR_US)] * len(panel.names)
    assert panel.of(0).tolist() == (np.arange(len(hours)) * (1 + is_by_time)).tolist()
    assert read(data, midnight="start").panel.start[0] == START_US


def test_rows_without_readings_off_the_grid_are_no_steps():
    times = [*(np.arange(60) * 16 * MINUTE_US), 59 * 16 * MINUTE_US + 191_000_000]
    readings = [*np.arange(40.0), np.nan, *np.arange(41, 60.0), np.nan]
    panel = read(table(times, readings)).panel
    assert (panel.step_us, panel.lengths[0]) == (16 * MINUTE_US, 60)
    assert failure(table(times, [*np.arange(60.0), 7])).code == "irregular"


def test_series_and_rows_without_readings_are_no_steps_in_a_long_table(tmp_path):
    rows = [(f"2024-01-01T{i % 24:02}:00:00", "temp", 20 + i / 10) for i in range(24)]
    rows += [(f"2024-01-02T{i:02}:00:00", "temp", 23 + i / 10) for i in range(24)]
    rows += [
        (f"2024-01-01T{7 * i % 24:02}:{5 * i % 60:02}:{i:02}", "door", "on") for i in range(30)
    ]
    rows += [("2024-01-01T07:13:20", "temp", "gone")]
    path = write(tmp_path / "x.csv", "time,id,v", *(f"{t},{k},{v}" for t, k, v in sorted(rows)))

    error = failure(path)
    assert error.code == "not-a-number"
    result = read(path, na_values=("on", "gone"))

    assert result.panel.names == ("temp",)
    assert (result.panel.step_us, result.panel.n_readings) == (HOUR_US, 48)
    rows[5] = ("2024-01-01T05:10:00", "temp", 20.5)
    write(path, "time,id,v", *(f"{t},{k},{v}" for t, k, v in sorted(rows)))
    assert failure(path, na_values=("on", "gone")).code == "irregular"


@pytest.mark.parametrize("shift_d", [-365, 366])
def test_rows_with_another_year_than_those_around_them_are_an_error(shift_d):
    hours = np.arange(300) + np.where(np.arange(300) // 50 == 3, 24 * shift_d, 0)
    names = np.repeat(["a", "b"], 300)

    error = failure(table(np.tile(hours, 2) * HOUR_US, id=names), allow_future=True)

    assert (error.code, error.location.line) == ("time-goes-back", 151)
    assert error.hint == "correct the year of these rows"


def test_a_year_that_is_repeated_or_stands_first_is_no_wrong_one():
    years = [np.arange(8784, 17520), np.arange(8784)]
    assert "24 h" not in read(table(np.concatenate(years) * HOUR_US)).notes
    repeated = np.tile(np.arange(8760), 3)
    assert "repeated-row" in read(table(repeated * HOUR_US, repeated)).warnings


HOURS = np.arange(24 * 10)
"""Those of ten days."""


def _in_order(order: str, hours: np.ndarray) -> np.ndarray:
    """Return the places of hours in a file."""
    places = np.arange(len(hours))
    if order == "newest date first":
        return np.lexsort((places, -(hours // 24)))
    return places if order == "oldest first" else places[::-1]


@pytest.mark.parametrize("is_long", [False, True])
@pytest.mark.parametrize(
    ("order", "shifted", "day", "clocks", "change"),
    [
        ("oldest first", HOURS % 24 < 2, "before", "00:00 to 01:00", "02:00"),
        ("newest first", HOURS % 24 < 2, "before", "00:00 to 01:00", "02:00"),
        ("newest date first", HOURS % 24 < 2, "before", "00:00 to 01:00", "02:00"),
        ("oldest first", HOURS % 24 < 6, "before", "00:00 to 05:00", "06:00"),
        ("oldest first", HOURS % 24 >= 19, "after", "19:00 to 23:00", "19:00"),
        ("newest first", HOURS % 24 >= 19, "after", "19:00 to 23:00", "19:00"),
    ],
)
def test_dates_that_change_at_another_time_are_asked_about(
    is_long, order, shifted, day, clocks, change
):
    hours = HOURS + 24 * shifted * (1 if day == "after" else -1)
    places = _in_order(order, hours)
    names = {"id": np.repeat(["a", "b"], 240)} if is_long else {}
    stamps = np.tile(hours[places], 1 + is_long) * HOUR_US
    data = table(stamps, np.tile(places, 1 + is_long), **names)

    error = failure(data)

    assert error.code == "time-goes-back"
    assert str(error).startswith(f"the rows from {clocks} have the date of the day {day}, ")
    assert [p.options for p in error.proposals] == [("--midnight", change)]
    assert "sort the rows by time" in error.hint
    panel = read(data, midnight=change).panel
    assert (panel.of(0).tolist(), panel.start[0]) == (HOURS.tolist(), START_US)


@pytest.mark.parametrize("order", ["newest first", "newest date first"])
def test_midnights_that_end_their_dates_are_seen_in_any_order_of_the_file(order):
    hours = HOURS - 24 * (HOURS % 24 == 0)
    places = _in_order(order, hours)
    data = table(hours[places] * HOUR_US, places)
    assert [p.options[1] for p in failure(data).proposals] == ["end", "start"]
    assert read(data, midnight="end").panel.of(0).tolist() == HOURS.tolist()


@pytest.mark.parametrize("order", ["oldest first", "newest first"])
@pytest.mark.parametrize("opens", [0, 7])
def test_noon_and_midnight_that_are_exchanged_are_an_error(order, opens):
    is_open = opens <= HOURS % 24
    hours = (HOURS + 12 * (HOURS % 24 == 0) - 12 * (HOURS % 24 == 12))[is_open]
    error = failure(table(hours[_in_order(order, hours)] * HOUR_US))
    assert (error.code, error.proposals) == ("time-goes-back", ())
    assert "12 AM and 12 PM are exchanged" in str(error)


def test_dates_that_begin_to_change_late_are_an_error_that_no_option_solves():
    late = HOURS - 24 * ((HOURS % 24 < 2) & (HOURS > 100))
    error = failure(table(late * HOUR_US))
    assert (error.code, error.location.line) == ("time-goes-back", 121)
    assert read(table(late * HOUR_US), midnight="start", on_duplicate="last")


@pytest.mark.parametrize(
    "hours",
    [
        np.concatenate([np.arange(24 * day, 24 * day + 48) for day in range(10)]),  # forecasts
        np.concatenate([np.arange(24 * day + 1, 24 * day + 25) for day in range(10)[::-1]]),
        np.arange(240).reshape(10, 24).T.ravel(),  # all days of an hour, and of the next one
        np.arange(240).reshape(10, 24)[:, ::-1].ravel(),
        np.append(np.delete(np.arange(240), [24, 25]), [24, 25]),  # two late rows
        np.where(np.isin(np.arange(240), [24, 25, 120]), np.arange(240) - 24, np.arange(240)),
        np.delete(np.arange(240), np.flatnonzero(np.arange(240) % 24 < 2)),  # no rows at night
    ],
)
def test_rows_in_another_order_have_the_dates_that_they_say(hours):
    assert read(table(hours * HOUR_US, np.zeros(len(hours)))).panel.lengths[0] >= 238


def test_a_single_midnight_with_the_date_of_the_day_before_is_said():
    steps = np.concatenate([np.arange(1, 144), [0], np.arange(145, 240)])
    warned = read(table(steps * 10 * MINUTE_US)).warnings["time-goes-back"]
    assert [p.options for p in warned.proposals] == [("--midnight", "end")]


def test_a_trained_model_sorts_midnights_as_it_did():
    hours = np.arange(1, 24 * 10)
    late = np.where(hours % 24 == 0, hours - 24, hours)
    schema = read(table(hours * HOUR_US)).schema
    heard = []
    config = DataConfig()
    source = open_source(table(late * HOUR_US), config, ignore)
    read_panel(source, schema, config, heard.append)
    assert [event.code for event in heard if hasattr(event, "code")] == ["time-goes-back"]


def test_files_that_overlap_by_a_day_have_no_wrong_midnights():
    hours = np.concatenate([np.arange(24 * day, 24 * day + 48) for day in range(10)])
    assert "time-goes-back" not in read(table(hours * HOUR_US, hours)).warnings


def test_a_time_that_goes_back_is_said_and_the_rows_are_sorted():
    hours = np.concatenate([np.arange(200, 400), np.arange(200)])
    result = read(table(hours * HOUR_US))
    assert result.warnings["time-goes-back"].count == 1
    assert "16.6 d" in result.warnings["time-goes-back"].message
    assert (result.panel.start[0], result.panel.lengths[0]) == (START_US, 400)


def test_series_one_after_the_other_are_no_clock_that_was_reset():
    hours, names = np.tile(np.arange(200), 2), np.repeat(["a", "b"], 200)
    assert read(table(hours * HOUR_US, id=names)).warnings == {}


@pytest.mark.parametrize("chunk_rows", [1, 7, 1 << 20])
@pytest.mark.parametrize("interleaved", [False, True])
def test_a_clock_that_was_reset_is_found_in_one_of_many_series(
    chunk_rows, interleaved, monkeypatch
):
    monkeypatch.setattr(arrays, "_CHUNK_ROWS", chunk_rows)
    hours = np.concatenate([np.arange(200), np.arange(100, 200), np.arange(100)])
    names = np.repeat(["a", "b"], 200)
    order = np.arange(400).reshape(2, -1).T.ravel() if interleaved else np.arange(400)

    warned = read(table(hours[order] * HOUR_US, id=names[order])).warnings["time-goes-back"]

    assert warned.count == 1
    assert "8.3 d" in warned.message


def test_rows_from_new_to_old_are_no_clock_that_was_reset():
    assert read(table(np.arange(400)[::-1] * HOUR_US)).warnings == {}


def test_gaps_of_each_series_are_counted():
    times = np.array([0, 1, 4, 0, 1, 2]) * HOUR_US
    names = pa.array(["a"] * 3 + ["b"] * 3)

    result = read(table(times, [1, 2, 3, 4, np.nan, 6], id=names))

    assert "3 of 8 readings are missing" in result.notes
    assert "longest gap 2 h" in result.notes


def test_series_have_starts_and_lengths_of_their_own():
    times = np.array([5, 6, 7, 0, 1, 9]) * HOUR_US
    names = pa.array(["b", "b", "b", "a", "a", "c"])

    panel = read(table(times, id=names)).panel

    assert panel.names == ("b", "a", "c")
    assert panel.lengths.tolist() == [3, 2, 1]
    assert panel.start.tolist() == [START_US + h * HOUR_US for h in (5, 0, 9)]


def test_series_of_different_phases_keep_their_own_stamps():
    half = HOUR_US // 2
    times = [0, HOUR_US, 2 * HOUR_US, half, half + HOUR_US, half + 2 * HOUR_US]
    names = pa.array(["a"] * 3 + ["b"] * 3)

    panel = read(table(times, id=names)).panel

    assert panel.start.tolist() == [START_US, START_US + half]


@few
@given(st.data())
def test_a_long_table_in_time_order_reads_as_the_same_table_by_series(data):
    lengths = data.draw(st.lists(st.integers(2, 12), min_size=1, max_size=5))
    rows = [(t * HOUR_US, f"s{i}", 100 * i + t) for i, n in enumerate(lengths) for t in range(n)]
    by_time = sorted(rows, key=lambda row: row[0])

    grouped, mixed = (
        read(table([r[0] for r in order], [r[2] for r in order], id=[r[1] for r in order]))
        for order in (rows, by_time)
    )

    assert grouped.panel.lengths.tolist() == lengths
    assert mixed.panel.fingerprint() == grouped.panel.fingerprint()


@pytest.mark.parametrize("wide", [True, False])
def test_an_infinite_reading_is_an_error_with_a_fix_that_works(tmp_path, wide):
    cells = ["1", "2", "-inf", "1e400"]
    header = "ts,v" if wide else "ts,id,v"
    path = write(tmp_path / "x.csv", header, *hourly(*(c if wide else f"a,{c}" for c in cells)))

    first = failure(path)

    assert (first.code, first.location.line, first.location.token) == ("infinite", 4, "-inf")
    assert read(path, **pasted(first.advice)).panel.target.tolist() == [1, 2]
    assert read(path, na_values=("-inf", "1e400")).panel.target.tolist() == [1, 2]


def test_a_model_refuses_readings_at_another_step():
    trained = read(table(np.arange(6) * HOUR_US)).schema
    source = open_source(table(np.arange(60) * 10 * MINUTE_US), DataConfig())
    schema = match_schema(source, trained, DataConfig())
    panel, _ = read_panel(source, schema, DataConfig(), ignore)

    with pytest.raises(DataError) as caught:
        check_step(panel, trained)

    assert caught.value.code == "other-step"
    assert pasted(caught.value.advice) == {"freq": "1h", "agg": "mean"}
    options = DataConfig(**pasted(caught.value.advice))
    check_step(read_panel(source, schema, options, ignore)[0], trained)


def test_the_schema_that_comes_back_holds_the_step_and_the_zone():
    stamps = pd.date_range("2024-01-01", periods=4, freq="15min", tz="UTC")

    schema = read(pd.DataFrame({"ts": stamps, "v": range(4)})).schema

    assert (schema.step_us, schema.tz) == (15 * MINUTE_US, "UTC")


def test_a_first_stamp_that_is_late_does_not_move_the_others():
    stamps = pd.date_range("2024-01-01", periods=12, freq="10min").to_numpy().copy()
    stamps[0] += np.timedelta64(40, "s")
    found = read(pd.DataFrame({"time": stamps, "flow": np.arange(12.0)}))
    assert found.panel.start[0] == START_US
    assert found.warnings["jitter"].count == 1


def test_regular_stamps_past_the_minute_stay_where_they_are():
    stamps = pd.date_range("2024-01-01 00:00:02", periods=12, freq="10min")
    found = read(pd.DataFrame({"time": stamps, "flow": np.arange(12.0)}))
    assert found.panel.start[0] == START_US + 2_000_000
    assert "jitter" not in found.warnings


def test_one_reading_has_the_step_that_the_model_was_trained_on():
    stamps = pd.date_range("2024-01-01", periods=12, freq="10min")
    frame = pd.DataFrame({"time": stamps, "flow": np.arange(12.0)})
    schema = read(frame).schema
    source = open_source(frame[:1], DataConfig())
    panel, _ = read_panel(source, schema, DataConfig(), lambda _: None)
    assert (panel.step_us, len(panel.target)) == (600_000_000, 1)


def of_hours(readings: object) -> pd.DataFrame:
    stamps = pd.date_range("2024-01-01", periods=len(readings), freq="h")
    return pd.DataFrame({"ts": stamps, "v": readings})


@pytest.mark.parametrize("exponent", [-44, -38, -30, -21, 21, 30, 38, 100])
def test_readings_that_float32_cannot_compute_with_are_an_error_before_training(exponent):
    """1e-38 was forecast as 2e-4, and 1e20 diverged in training."""
    error = failure(of_hours((wave(200).astype(float) + 60) / 100 * 10.0**exponent))
    assert error.exit_code == 4
    assert error.code in ("too-small", "too-large", "infinite")


@pytest.mark.parametrize("exponent", [-19, -10, 0, 10, 17])
def test_other_readings_are_read_as_they_are(exponent):
    readings = (wave(200).astype(float) + 60) / 100 * 10.0**exponent
    panel = read(of_hours(readings)).panel
    actual = panel.target.astype(float) + panel.base[0]
    assert actual == pytest.approx(readings, rel=1e-6)


def test_small_readings_beside_large_ones_are_no_error():
    readings = np.where(np.arange(200) % 3, 1e-30, 5.0)
    assert read(of_hours(readings)).panel.n_series == 1


def cut_table(step: str, unit: str, n: int = 300) -> pd.DataFrame:
    """Make a table of a sensor whose stamps are cut to whole units."""
    stamps = pd.date_range("2024-01-01", periods=n, freq=step)
    return pd.DataFrame({"time": stamps.floor(unit), "v": wave(n)})


@pytest.mark.parametrize(
    ("step", "unit"), [("90s", "min"), ("80s", "min"), ("450s", "min"), ("90min", "h")]
)
def test_stamps_that_were_cut_are_read_at_their_own_step(step, unit):
    result = read(cut_table(step, unit))

    assert pd.Timedelta(result.panel.step_us, "us") == pd.Timedelta(step)
    assert len(result.panel.target) == 300 and np.isfinite(result.panel.target).all()
    assert "cut-times" in result.warnings
    named = read(cut_table(step, unit), freq="1min" if unit == "min" else "1h", agg="mean")
    assert "cut-times" not in named.warnings


def test_stamps_with_gaps_at_other_places_are_not_taken_for_cut_ones():
    minutes = pd.date_range("2024-01-01", periods=900, freq="min")
    rng = np.random.default_rng(0)
    by_chance = np.sort(rng.choice(900, 600, replace=False))
    closed = np.flatnonzero(minutes.minute != 0)
    for rows in (by_chance, closed):
        table = pd.DataFrame({"time": minutes[rows], "v": wave(len(rows))})
        assert "cut-times" not in read(table).warnings


def test_two_levels_that_take_turns_are_said_unless_they_are_day_and_night():
    rng = np.random.default_rng(0)
    turns = 20 + 30 * (np.arange(400) % 2) + np.round(rng.normal(0, 1, 400), 2)
    switch = 20.0 + 30 * (np.arange(400) % 2)

    def warnings_of(values, freq="30min"):
        times = pd.date_range("2024-01-01", periods=len(values), freq=freq)
        return read(pd.DataFrame({"time": times, "v": values, "w": wave(len(values))})).warnings

    assert "two-levels" in warnings_of(turns)
    assert "two-levels" not in warnings_of(turns, "12h")
    assert "two-levels" not in warnings_of(switch)
    assert "two-levels" not in warnings_of(wave(400))
    rain = np.where(np.arange(1000) % 9 == 0, np.arange(1000) / 10, 0.0)
    assert "two-levels" not in warnings_of(rain)
