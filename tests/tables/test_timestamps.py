"""Time stamps: formats, zones, daylight saving, and back to text."""

import datetime as dt
import re
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.axis import (
    date_range,
    format_for_file_name,
    format_timestamps,
    parse_time_us,
    timestamp_array,
)
from rnnforecast.errors import DataError, UsageError
from tests.builders import HOUR_US, START_US
from tests.data.tables import Read, failure, few, read, write

VIENNA = "Europe/Vienna"


def stamped(path, stamps, **options) -> Read:
    """Read a file with these stamps; the reading of each is its number."""
    lines = [f"{stamp},{i}" for i, stamp in enumerate(stamps)]
    return read(write(path / "x.csv", "time,v", *lines), **options)


def refused(path, stamps, **options) -> DataError:
    """Read a file with these stamps that cannot be read."""
    lines = [f"{stamp},{i}" for i, stamp in enumerate(stamps)]
    return failure(write(path / "x.csv", "time,v", *lines), **options)


def wall_clock(start: str, n: int, freq: str) -> list[str]:
    """Return what a clock in Vienna shows, n times, whatever the season of the year."""
    index = pd.date_range(start, periods=n, freq=freq, tz=VIENNA)
    return [str(stamp.tz_localize(None)) for stamp in index]


@pytest.mark.parametrize(
    "stamps",
    [
        ["2024-01-01T00:00:00", "2024-01-01T01:00:00", "2024-01-01T02:00:00"],
        ["2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 02:00"],
        ["2024-01-01 00:00:00.000000000", "2024-01-01 01:00:00.000", "2024-01-01 02:00:00"],
        ["20240101T0000", "20240101T0100", "20240101T0200"],
        ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z", "2024-01-01T02:00:00Z"],
        ["2024-01-01 00:00+00", "2024-01-01 01:00+00", "2024-01-01 02:00+00"],
        ["2024-01-01T01:00:00+01:00", "2024-01-01T01:00:00Z", "2024-01-01T04:00:00+02:00"],
        [START_US // 10**6 + 3600 * i for i in range(3)],
        [START_US // 10**3 + 3_600_000 * i for i in range(3)],
        [START_US + HOUR_US * i for i in range(3)],
        [(START_US + HOUR_US * i) * 1000 for i in range(3)],
        [f"{START_US / 10**6 + 3600 * i:.3f}" for i in range(3)],
    ],
)
def test_every_way_to_write_the_same_hours_reads_as_them(tmp_path, stamps):
    panel = stamped(tmp_path, stamps).panel

    assert (panel.start.tolist(), panel.step_us) == ([START_US], HOUR_US)
    assert panel.target.tolist() == [0, 1, 2]


@pytest.mark.parametrize("pattern", ["%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M", "%d-%m-%Y"])
def test_day_and_month_are_told_apart_by_a_day_after_the_twelfth(tmp_path, pattern):
    days = [dt.datetime(2024, 3, day) for day in range(10, 16)]

    panel = stamped(tmp_path, [day.strftime(pattern) for day in days]).panel

    assert panel.start[0] == np.datetime64("2024-03-10", "us").astype(int)
    assert panel.lengths[0] == 6


def test_day_and_month_that_cannot_be_told_apart_are_never_guessed(tmp_path):
    error = refused(tmp_path, ["01.02.2024", "02.02.2024", "03.02.2024"])

    assert (type(error), error.code) == (DataError, "ambiguous-date")
    assert "--time-format" in error.advice


@pytest.mark.parametrize(("pattern", "second"), [("%d.%m.%Y", 2), ("%m.%d.%Y", 1)])
def test_a_format_that_is_said_is_taken(tmp_path, pattern, second):
    stamps = ["01.02.2024", "02.02.2024", "03.02.2024"]
    panel = stamped(tmp_path, stamps, freq="1d", agg="mean", time_format=pattern).panel
    first = dt.datetime(2024, second, 3 - second)
    assert panel.start[0] == np.datetime64(first, "us").astype(int)


def test_a_stamp_that_does_not_fit_the_format_that_is_said_is_an_error_with_its_line(tmp_path):
    error = refused(tmp_path, ["01.02.2024", "2024-02-02", "03.02.2024"], time_format="%d.%m.%Y")
    assert (error.code, error.location.line) == ("several-formats", 3)


def test_midnight_may_be_the_end_of_a_day(tmp_path):
    result = stamped(tmp_path, ["2024-02-28 23:00", "2024-02-28 24:00", "2024-02-29 01:00"])
    assert (result.panel.target.tolist(), result.panel.step_us) == ([0, 1, 2], HOUR_US)
    assert result.warnings["hour-24"].count == 1


@pytest.mark.parametrize("zone", ["", "+02:00"])
def test_midnight_ends_its_date_where_that_is_said(tmp_path, zone):
    stamps = [f"2024-02-28 23:00{zone}", f"2024-02-28 00:00{zone}", f"2024-02-29 01:00{zone}"]
    panel = stamped(tmp_path, stamps, midnight="end").panel
    assert (panel.target.tolist(), panel.step_us) == ([0, 1, 2], HOUR_US)


def test_24_00_stays_midnight_of_the_next_day_where_midnight_ends_its_date(tmp_path):
    stamps = ["2024-02-28 23:00", "2024-02-28 24:00", "2024-02-29 01:00"]
    assert stamped(tmp_path, stamps, midnight="end").panel.target.tolist() == [0, 1, 2]


def test_24_00_that_begins_its_date_is_asked_about(tmp_path):
    days = [f"2024-02-{day} {hour or 24:02d}:00" for day in range(10, 20) for hour in range(24)]
    error = refused(tmp_path, days)
    assert (error.code, error.location.line) == ("time-goes-back", 26)
    assert [p.options for p in error.proposals] == [("--midnight", "start")]
    panel = stamped(tmp_path, days, midnight="start").panel
    assert panel.target.tolist() == list(range(240))


def test_hours_after_24_go_on_into_the_next_day_unless_they_are_few(tmp_path):
    hours = [f"2024-02-{10 + h // 24} {h % 24:02d}:00" for h in range(4, 240)]
    service = [f"2024-02-{9 + h // 24} {h % 24 + 24:02d}:00" for h in range(240)]
    mixed = [service[h] if h % 24 < 4 else hours[h - 4] for h in range(4, 240)]
    result = stamped(tmp_path, mixed)
    assert (result.panel.lengths[0], result.panel.step_us) == (236, HOUR_US)
    assert result.warnings["hour-24"].count == 36
    assert refused(tmp_path, [*hours[:-1], service[25]]).code == "several-formats"


@pytest.mark.parametrize("midnight", ["24:00", "noon", "6", "06:60"])
def test_a_time_at_which_dates_change_is_a_time_of_day(midnight):
    with pytest.raises(UsageError, match="--midnight"):
        DataConfig(midnight=midnight)


def test_a_leap_second_is_the_end_of_the_one_before(tmp_path):
    stamps = ["2016-12-31 23:59:58", "2016-12-31 23:59:60", "2017-01-01 00:00:00"]
    result = stamped(tmp_path, stamps, freq="1s", agg="mean")
    assert result.panel.target.tolist() == [0, 1, 2]
    assert result.warnings["leap-second"].count == 1


def test_a_leap_second_in_another_format_is_one_too(tmp_path):
    stamps = ["31.12.2016 23:59:58", "31.12.2016 23:59:60", "01.01.2017 00:00:00"]
    result = stamped(tmp_path, stamps, freq="1s", agg="mean")
    assert result.panel.target.tolist() == [0, 1, 2]
    assert result.warnings["leap-second"].count == 1


def test_a_leap_second_may_be_an_error_with_its_line(tmp_path):
    stamps = ["2016-12-31 23:59:58", "2016-12-31 23:59:60", "2017-01-01 00:00:00"]
    error = refused(tmp_path, stamps, freq="1s", agg="mean", leap_second="error")
    assert (error.code, error.location.line) == ("leap-second", 3)


def test_day_and_month_are_told_apart_once_for_all_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("rnnforecast.sources.csv.BLOCK_BYTES", 100)
    days = [dt.datetime(2024, 1, 28) + dt.timedelta(i) for i in range(16)]

    panel = stamped(tmp_path, [day.strftime("%d.%m.%Y") for day in days]).panel

    assert panel.target.tolist() == list(range(16))


@pytest.mark.parametrize("good", ["2024-03-1{}", "1{}.03.2024"])
@pytest.mark.parametrize("bad", ["ERR", "2024-02-30", "03/14/2024", "24:00"])
@pytest.mark.parametrize("place", [0, 2])
def test_what_is_no_time_in_the_columns_format_is_an_error_with_its_line(
    tmp_path, good, bad, place
):
    stamps = [good.format(i) for i in range(5)]
    stamps[place] = bad

    error = refused(tmp_path, stamps)

    assert type(error) is DataError
    if error.code == "several-formats":
        assert bad in error.message and stamps[1 - place // 2] in error.message
    else:
        assert error.code == "not-a-time"
        assert error.message.startswith("1 value in column 'time'")
    assert (error.location.line, error.location.token) == (place + 2, bad)


def test_a_row_without_a_stamp_is_an_error_with_its_line(tmp_path):
    error = refused(tmp_path, ["2024-01-01", "2024-01-02", "", "2024-01-04"])

    assert (error.code, error.location.line) == ("missing-time", 4)


@pytest.mark.parametrize("stamp", ["0001-01-01", "1899-12-31", "2200-01-01", "9999-12-31"])
def test_a_year_that_cannot_be_meant_is_an_error_with_its_line(tmp_path, stamp):
    error = refused(tmp_path, ["2024-01-01", "2024-01-02", stamp])

    assert (error.code, error.location.line) == ("time-range", 4)


def test_readings_of_centuries_are_read_and_a_few_early_stamps_are_not(tmp_path):
    months = [f"{year}-{month:02d}-01" for year in range(1880, 1910) for month in range(1, 13)]

    assert len(stamped(tmp_path, months).panel.target) == len(months)
    early = [f"1899-12-{day:02d}" for day in range(1, 20)]
    assert refused(tmp_path, [*early, *months[240:]]).code == "time-range"


def test_seconds_since_1970_are_said(tmp_path):
    result = stamped(tmp_path, [START_US // 10**6 + 600 * i for i in range(3)])

    assert result.schema.epoch_unit == "s"
    assert "'time' read as Unix time in seconds" in result.warnings["epoch"].message


@pytest.mark.parametrize(
    ("stamps", "tz"),
    [
        (["2024-01-01T00:00", "2024-01-01T01:00"], None),
        (["2024-01-01T00:00Z", "2024-01-01T01:00Z"], "UTC"),
        (["2024-01-01T00:00+01:00", "2024-01-01T01:00+01:00"], "+01:00"),
        (["2024-01-01T00:00-0330", "2024-01-01T01:00-0330"], "-03:30"),
        (["2024-01-01T00:00+05", "2024-01-01T01:00+05"], "+05:00"),
        (["2024-01-01T00:00+01:00", "2024-01-01T02:00+02:00"], "UTC"),
    ],
)
def test_the_zone_that_stamps_carry_is_kept(tmp_path, stamps, tz):
    assert stamped(tmp_path, stamps).schema.tz == tz


def test_a_named_zone_of_a_table_is_kept():
    index = pd.date_range("2024-10-26 12:00", periods=30, freq="h", tz=VIENNA)

    result = read(pd.DataFrame({"ts": index, "v": range(30)}))

    assert result.schema.tz == VIENNA
    assert result.panel.axis.to_utc(result.panel.start)[0] == index.as_unit("us").asi8[0]


@pytest.mark.parametrize("first", ["2024-01-01T00:00Z", "2024-01-01T00:00"])
def test_stamps_with_and_without_an_offset_are_never_mixed(tmp_path, first):
    stamps = [first, "2024-01-01T01:00", "2024-01-01T02:00", "2024-01-01T03:00Z"]

    error = refused(tmp_path, stamps)

    assert (type(error), error.code) == (DataError, "mixed-zones")


def test_an_offset_that_appears_far_down_is_an_error_with_its_line(tmp_path):
    stamps = [str(np.datetime64("2024-01-01T00:00") + i) for i in range(1200)]

    error = refused(tmp_path, [*stamps, "2024-01-01T20:00Z"])

    assert (error.code, error.location.line) == ("mixed-zones", 1202)


def rows_of_the_clock(stamps, freq):
    """Return what a clock shows, a row a step: the means of what it shows twice, NaN where none."""
    shown = pd.Series(np.arange(float(len(stamps))), index=pd.DatetimeIndex(stamps))
    return shown.groupby(level=0).mean().asfreq(freq).to_numpy()


@pytest.mark.parametrize("freq", ["15min", "1h"])
@pytest.mark.parametrize("start", ["2024-03-30 20:00", "2024-10-26 20:00", "2024-07-01"])
def test_a_zone_makes_wall_clocks_regular_in_any_season(tmp_path, start, freq):
    stamps = wall_clock(start, 60, freq)
    result = stamped(tmp_path, stamps, tz=VIENNA)

    assert result.schema.tz == VIENNA
    np.testing.assert_array_equal(result.panel.target, rows_of_the_clock(stamps, freq))
    assert result.panel.axis.format(int(result.panel.start[0])).startswith(start)


def test_the_hour_that_occurs_twice_is_told_apart_in_a_file_that_runs_backwards(tmp_path):
    stamps = wall_clock("2024-10-26 20:00", 12, "1h")

    panel = stamped(tmp_path, stamps[::-1], tz=VIENNA).panel

    expected = 11 - rows_of_the_clock(stamps, "1h")
    np.testing.assert_array_equal(panel.target, expected)


@pytest.mark.parametrize("by_series", [True, False])
def test_the_hour_that_occurs_twice_is_told_apart_in_each_series(tmp_path, by_series):
    stamps = wall_clock("2024-10-26 20:00", 12, "1h")
    rows = [f"{stamp},{name},{i}" for i, stamp in enumerate(stamps) for name in "ab"]
    rows = sorted(rows, key=lambda row: row.split(",")[1]) if by_series else rows
    path = write(tmp_path / "x.csv", "time,id,v", *rows)

    panel = read(path, tz=VIENNA).panel

    for series in (0, 1):
        np.testing.assert_array_equal(panel.of(series), rows_of_the_clock(stamps, "1h"))


@pytest.mark.parametrize("freq", ["30min", "1h"])
def test_readings_may_end_at_any_step_of_the_night_in_which_an_hour_occurs_twice(tmp_path, freq):
    night = wall_clock("2024-10-26 20:00", 20, freq)
    twice = [stamp for i, stamp in enumerate(night) if stamp in night[:i] + night[i + 1 :]]
    for n in range(3, 20):
        panel = stamped(tmp_path, night[:n], tz=VIENNA).panel

        expected = rows_of_the_clock(night[:n], freq)
        # What is still to be shown for the second time lies ahead, and is not used.
        n_ahead = sum(night[:n].count(stamp) == 1 for stamp in dict.fromkeys(twice))
        np.testing.assert_array_equal(panel.target, expected[: len(expected) - n_ahead])


def test_an_hour_that_was_read_once_of_two_is_an_error_with_its_line(tmp_path):
    night = wall_clock("2024-10-26 20:00", 12, "1h")

    error = refused(tmp_path, [*night[:6], *night[7:]], tz=VIENNA)

    assert (error.code, error.location.line) == ("ambiguous-time", 8)


def test_an_hour_that_the_zone_skips_is_an_error(tmp_path):
    stamps = [f"2024-03-31 {hour:02d}:00" for hour in range(6)]

    error = refused(tmp_path, stamps, tz=VIENNA)

    assert (type(error), error.code) == (DataError, "nonexistent-time")
    zones = [proposal.options for proposal in error.proposals]
    assert zones == [("--tz", "+01:00"), ("--tz", "UTC")]
    assert error.location.line == 4
    assert "2024-03-31 02:00" in error.message


@pytest.mark.parametrize(
    ("text", "zone"), [("berlin", "Europe/Berlin"), ("New York", "America/New_York")]
)
def test_a_city_is_offered_its_zone(text, zone):
    with pytest.raises(UsageError) as caught:
        DataConfig(tz=text)
    assert caught.value.hint == f"use {zone}"
    assert DataConfig(tz=zone).tz == zone


@pytest.mark.parametrize("tz", ["Mars/Base", "+24:00", "+25:00", "-99:99", "+01:60", ""])
def test_a_zone_that_does_not_exist_is_an_error(tz):
    with pytest.raises(UsageError, match=re.escape(f"--tz {tz}")):
        DataConfig(tz=tz)


@pytest.mark.parametrize("tz", ["+23:59", "-23:59", "+00:00"])
def test_an_offset_may_be_nearly_a_day(tmp_path, tz):
    result = stamped(tmp_path, ["2024-01-01T00:00", "2024-01-01T01:00"], tz=tz)

    assert result.schema.tz == tz


def test_the_zone_option_shows_stamps_with_an_offset_on_its_clock(tmp_path):
    panel = stamped(tmp_path, ["2024-01-01T00:00Z", "2024-01-01T01:00Z"], tz=VIENNA).panel

    assert panel.axis.format(int(panel.start[0])) == "2024-01-01 01:00:00+01:00"
    assert panel.axis.to_utc(panel.start)[0] == START_US


@pytest.mark.parametrize(
    ("text", "tz", "expected"),
    [
        ("2024-01-01", None, START_US),
        ("2024-01-01T01:00", "UTC", START_US + HOUR_US),
        ("2024-01-01T01:00", VIENNA, START_US),
        ("2024-01-01T01:00+01:00", "UTC", START_US),
        ("2024-01-01T00:00:00.000001Z", VIENNA, START_US + 1),
        ("2024-01-01 02:00:00 +0200", "UTC", START_US),
        ("2024-01-01t01z", VIENNA, START_US + HOUR_US),
        ("20240101T010000", None, START_US + HOUR_US),
        (" 2024-01-01 ", None, START_US),
    ],
)
def test_a_time_that_a_user_types_is_in_the_zone_of_the_data(text, tz, expected):
    assert parse_time_us(text, tz) == expected


@pytest.mark.parametrize(
    ("text", "tz"),
    [
        ("soon", None),
        ("", "UTC"),
        ("99999-01-01", None),
        ("02.01.2024", None),
        ("13.01.2024", None),
        ("01/02/2024", None),
        ("12:00", None),
        ("T12:00", "UTC"),
        ("2024", None),
        ("2024-05", None),
        ("20240501", None),
        ("1 May 2024", None),
        ("2024-02-30", None),
        ("2024-01-01T24:00", None),
        ("2024-01-01 00:00 Europe/Vienna", "UTC"),
        ("-2024-01-01", None),
        ("2024-01-01T00:00Z", None),
    ],
)
def test_a_time_that_cannot_be_meant_is_a_usage_error(text, tz):
    with pytest.raises(UsageError) as caught:
        parse_time_us(text, tz)
    assert caught.value.hint is None or "2024-05-01T12:00" in caught.value.hint


@few
@given(
    st.lists(st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2199, 1, 1)), min_size=1),
    st.sampled_from([None, "UTC", "+05:30", "-03:00", VIENNA, "America/New_York"]),
)
def test_stamps_as_text_are_the_same_moments_in_their_zone(moments, tz):
    times = np.array(moments, "datetime64[us]").astype(np.int64)

    texts = format_timestamps(pa.chunked_array([timestamp_array(times, tz)])).to_pylist()

    back = [dt.datetime.fromisoformat(text) for text in texts]
    assert all((stamp.tzinfo is not None) == (tz is not None) for stamp in back)
    utc = [b.replace(tzinfo=b.tzinfo or dt.UTC).astimezone(dt.UTC) for b in back]
    assert [stamp.replace(tzinfo=None) for stamp in utc] == moments
    if tz is not None:
        fixed = re.fullmatch(r"[+-]\d\d:\d\d", tz)
        zone = dt.datetime.fromisoformat(f"2000-01-01T00:00{tz}").tzinfo if fixed else ZoneInfo(tz)
        offsets = [m.replace(tzinfo=dt.UTC).astimezone(zone).utcoffset() for m in moments]
        assert [stamp.utcoffset() for stamp in back] == offsets


EPOCH_YEARS = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2199, 12, 31))
ENDINGS = ["", ".parquet", ".run.json", "-flow.csv", "_0001_0123456789abcdef.parquet"]
"""What names of files go on with."""


def microseconds(moment: dt.datetime) -> int:
    return int(np.datetime64(moment, "us").astype(np.int64))


@few
@given(
    EPOCH_YEARS,
    st.one_of(st.integers(1, 2_000_000), st.integers(1, 10**15)),
    st.sampled_from([None, "UTC", VIENNA, "-03:00"]),
    st.sampled_from(ENDINGS),
    st.booleans(),
)
def test_names_of_files_lie_in_the_order_of_their_times(moment, later, tz, ending, is_whole):
    first = microseconds(moment.replace(microsecond=0) if is_whole else moment)

    before, after = (format_for_file_name(time, tz) + ending for time in (first, first + later))

    assert before < after


@few
@given(EPOCH_YEARS, st.sampled_from([None, VIENNA]))
def test_a_name_of_a_file_says_its_time_in_utc_if_it_has_a_zone(moment, tz):
    name = format_for_file_name(microseconds(moment), tz)

    assert re.fullmatch(r"[0-9T_Z-]+", name), "no character that a file system or a shell minds"
    assert name.endswith("Z") == (tz is not None)
    form = "%Y-%m-%dT%H%M%S" + ("_%f" if moment.microsecond else "")
    assert dt.datetime.strptime(name.rstrip("Z"), form) == moment


def test_a_name_of_a_file_is_as_short_as_its_time():
    assert format_for_file_name(START_US, None) == "2024-01-01T000000"
    assert format_for_file_name(START_US, VIENNA) == "2024-01-01T000000Z"
    assert format_for_file_name(START_US + 500_000, "UTC") == "2024-01-01T000000_500000Z"


@few
@given(
    EPOCH_YEARS,
    st.integers(0, 50),
    st.integers(1, 10**13),
    st.integers(0, 10**13),
    st.sampled_from(["", "Z", "+05:30"]),
)
def test_moments_go_from_the_first_to_the_last_and_are_so_far_apart(
    begin, n_steps, every_us, rest_us, zone
):
    end = begin + dt.timedelta(microseconds=n_steps * every_us + min(rest_us, every_us - 1))
    found = date_range(begin.isoformat() + zone, end.isoformat() + zone, every_us)

    moments, moment = [], begin
    while moment <= end:
        moments.append(moment)
        moment += dt.timedelta(microseconds=every_us)
    tz = "UTC" if zone else None
    given = [parse_time_us(text, tz) for text in found]
    assert given == [parse_time_us(each.isoformat() + zone, tz) for each in moments]


def test_moments_over_a_daylight_saving_night_are_24_hours_apart():
    found = date_range("2024-03-30T12:00+01:00", "2024-04-01T12:00+02:00", 24 * HOUR_US)

    times = [parse_time_us(text, "UTC") for text in found]
    assert np.diff(times).tolist() == [24 * HOUR_US]


def test_a_single_moment_is_its_own_first_and_last():
    assert date_range("2024-05-01", "2024-05-01", HOUR_US) == ["2024-05-01T00:00:00"]
    assert len(date_range("2024-05-01", "2024-05-01T05:59", HOUR_US)) == 6


@pytest.mark.parametrize(
    ("first", "last", "every_us", "what"),
    [
        ("2024-05-02", "2024-05-01", HOUR_US, "before"),
        ("2024-05-01", "2024-05-02Z", HOUR_US, "cannot parse time"),
        ("2024-05-01", "2024-05-02T00:00Z", HOUR_US, "zone"),
        ("2024-05-01T00:00+02:00", "2024-05-02", HOUR_US, "zone"),
        ("yesterday", "2024-05-01", HOUR_US, "yesterday"),
        ("2024-05-01", "01.06.2024", HOUR_US, "01.06.2024"),
        ("2000-01-01", "2024-01-01", 1_000_000, "use a longer --every"),
    ],
)
def test_moments_that_cannot_be_meant_are_a_usage_error(first, last, every_us, what):
    with pytest.raises(UsageError) as caught:
        date_range(first, last, every_us)
    assert what in f"{caught.value.message} {caught.value.hint}"


def test_a_time_that_clocks_skip_is_the_first_after_it() -> None:
    assert parse_time_us("2024-03-31T02:30", "Europe/Vienna") == parse_time_us(
        "2024-03-31T03:00+02:00", "Europe/Vienna"
    )


def with_offsets(zone: str, start: str = "2024-03-20", n: int = 600, freq: str = "1h") -> list[str]:
    return [stamp.isoformat() for stamp in pd.date_range(start, periods=n, freq=freq, tz=zone)]


def options_of(proposals) -> list[str]:
    return [" ".join(proposal.options) for proposal in proposals]


@pytest.mark.parametrize(
    ("zone", "offered"),
    [
        ("Europe/Vienna", ["Europe/Berlin"]),  # the best known of those with these clocks
        ("Europe/London", ["Europe/London", "Europe/Lisbon"]),
        ("Australia/Sydney", ["Australia/Sydney"]),
    ],
)
def test_of_several_offsets_the_zones_that_have_them_are_offered(tmp_path, zone, offered):
    warning = stamped(tmp_path, with_offsets(zone)).warnings["several-offsets"]

    assert options_of(warning.proposals) == [f"--tz {name}" for name in offered]


def test_a_zone_that_is_not_well_known_is_found_by_its_offsets(tmp_path):
    warning = stamped(tmp_path, with_offsets("America/Santiago")).warnings["several-offsets"]

    assert "--tz America/Santiago" in options_of(warning.proposals)


def test_an_offset_that_changes_after_the_first_rows_is_noticed(tmp_path):
    result = stamped(tmp_path, with_offsets(VIENNA, "2024-01-01", 2200))

    assert "several-offsets" in result.warnings
    assert result.schema.tz == "UTC"


@pytest.mark.parametrize(
    "stamps",
    [
        with_offsets("+01:00"),
        with_offsets("UTC"),
        with_offsets("Africa/Algiers"),
        [str(t.tz_localize(None)) for t in pd.date_range("2024-03-20", periods=600, freq="1h")],
    ],
)
def test_one_offset_needs_no_zone(tmp_path, stamps):
    assert "several-offsets" not in stamped(tmp_path, stamps).warnings


def test_offsets_of_several_places_are_those_of_no_zone(tmp_path):
    stamps = [
        f"{hour.tz_convert('+09:00' if row % 2 else '+01:00').isoformat()}"
        for row, hour in enumerate(pd.date_range("2024-03-20", periods=48, freq="1h", tz="UTC"))
    ]

    result = stamped(tmp_path, stamps)

    assert result.warnings["several-offsets"].proposals == ()
    assert result.schema.tz == "UTC"


def test_a_zone_that_is_named_ends_the_question_of_offsets(tmp_path):
    result = stamped(tmp_path, with_offsets(VIENNA), tz=VIENNA)

    assert (result.schema.tz, "several-offsets" in result.warnings) == (VIENNA, False)


@pytest.mark.parametrize("options", [{}, {"freq": "1d", "agg": "mean"}])
def test_days_of_several_offsets_are_asked_for(tmp_path, options):
    stamps = with_offsets(
        VIENNA, "2024-03-01", **({"n": 1200} if options else {"n": 60, "freq": "1D"})
    )

    error = refused(tmp_path, stamps, **options)

    assert error.code == "zone-of-days"
    assert options_of(error.proposals) == ["--tz Europe/Berlin", "--tz UTC"]
    panel = stamped(tmp_path, stamps, tz="Europe/Berlin", **options).panel
    assert panel.axis.format(int(panel.start[0])) == "2024-03-01 00:00:00+01:00"


def test_names_of_clocks_are_offsets_too(tmp_path):
    stamps = [
        f"{stamp:%Y-%m-%d %H:%M:%S %Z}"
        for stamp in pd.date_range("2024-10-20", periods=400, freq="1h", tz=VIENNA)
    ]

    warning = stamped(tmp_path, stamps).warnings["several-offsets"]

    assert "(+01:00, +02:00)" in warning.message
    assert options_of(warning.proposals) == ["--tz Europe/Berlin"]


@pytest.mark.parametrize(("zone", "offered"), [(VIENNA, 1), ("America/Chicago", 3)])
def test_where_a_clock_was_set_back_the_zones_of_that_hour_are_offered(tmp_path, zone, offered):
    start = "2024-10-20" if zone == VIENNA else "2024-11-01"
    index = pd.date_range(start, periods=400, freq="1h", tz=zone)

    warning = stamped(tmp_path, [str(t.tz_localize(None)) for t in index]).warnings

    proposals = options_of(warning["clock-set-back"].proposals)
    assert len(proposals) == offered
    assert f"--tz {zone.replace('Vienna', 'Berlin')}" in proposals


@pytest.mark.parametrize(("day", "n_offered"), [("2018-02-17", 3), ("2018-02-15", 0)])
def test_the_hour_before_midnight_may_come_twice_in_a_zone(tmp_path, day, n_offered):
    stamps = [str(t) for t in pd.date_range("2018-02-14", periods=96, freq="1h")]
    error = refused(tmp_path, sorted([*stamps, f"{day} 23:00:00"]))
    options = options_of(error.proposals)
    assert sum(option.startswith("--tz America/") for option in options) == n_offered
    assert n_offered == 0 or "--tz America/Sao_Paulo" in options


def test_two_readings_in_an_hour_that_clocks_show_twice_may_be_those_of_a_zone(tmp_path):
    stamps = [str(t) for t in pd.date_range("2024-10-26", periods=96, freq="20min")]
    stamps.insert(0, "2024-10-27 02:40:00")

    error = refused(tmp_path, stamps)

    assert error.code == "duplicate-time"
    assert "--tz Europe/Berlin" in options_of(error.proposals)


def test_a_form_that_fits_is_offered_where_the_named_one_does_not(tmp_path):
    stamps = [f"{day:02d}.03.2024 12:00" for day in range(1, 29)]

    error = refused(tmp_path, stamps, time_format="%Y-%m-%d %H:%M")

    assert (error.code, options_of(error.proposals)) == (
        "not-a-time", ["--time-format %d.%m.%Y %H:%M"],
    )  # fmt: skip


def test_dates_that_may_be_read_in_three_ways_are_told_apart_by_the_example(tmp_path):
    error = refused(tmp_path, [f"{day:02d}.01.10" for day in range(1, 13)])

    conditions = {proposal.condition for proposal in error.proposals}
    assert conditions == {
        "if 02.01.10 is 2 January 2010",
        "if 02.01.10 is 1 February 2010",
        "if 02.01.10 is 10 January 2002",
    }


def exchanged(days, form):
    """Write days as a spreadsheet does that takes days up to the twelfth for months."""
    swapped = [day.replace(day=day.month, month=day.day) if day.day <= 12 else day for day in days]
    return [day.strftime(form) for day in swapped]


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%d.%m.%Y %H:%M", "%m/%d/%Y", "%Y-%m-%d"])
@pytest.mark.parametrize("freq", ["1D", "6h"])
@pytest.mark.parametrize("order", [1, -1])
def test_days_and_months_that_a_spreadsheet_has_exchanged_are_put_in_order(
    tmp_path, form, freq, order
):
    if freq == "6h":
        form = f"{form.split()[0]} %H:%M"
    days = pd.date_range("2023-02-01", periods=280, freq=freq)[::order]
    assert stamped(tmp_path, [day.strftime(form) for day in days]).warnings.keys() == set()
    result = stamped(tmp_path, exchanged(days, form))
    n_swapped = sum(day.day <= 12 and day.day != day.month for day in days)
    assert result.warnings["swapped-days"].count == n_swapped
    assert result.panel.target.tolist() == list(range(280))[::order]
    assert result.panel.start[0] == days.min().value // 1000


@pytest.mark.parametrize("by_series", [False, True])
def test_exchanged_days_are_those_of_all_series(tmp_path, by_series):
    days = exchanged(pd.date_range("2023-02-01", periods=150), "%d/%m/%Y")
    rows = [f"{day},{name},{i}" for i, day in enumerate(days) for name in "ab"]
    rows = sorted(rows, key=lambda row: row.split(",")[1]) if by_series else rows
    result = read(write(tmp_path / "x.csv", "date,site,v", *rows))
    assert "swapped-days" in result.warnings
    assert result.panel.target.tolist() == [*range(150), *range(150)]


def test_days_that_are_out_of_order_in_another_way_are_read_as_they_stand(tmp_path):
    days = pd.date_range("2023-02-01", periods=280)
    sorted_as_text = sorted(day.strftime("%d/%m/%Y") for day in days)
    torn = [*days[:100], *days[50:90], *days[120:]]
    for stamps in (sorted_as_text, [day.strftime("%d/%m/%Y") for day in torn]):
        result = stamped(tmp_path, stamps, on_duplicate="last")
        assert "swapped-days" not in result.warnings
        expected = pd.to_datetime(pd.Series(stamps), format="%d/%m/%Y")
        assert result.panel.start[0] == expected.min().value // 1000
    as_written = stamped(tmp_path, exchanged(days, "%d/%m/%Y"), time_format="%d/%m/%Y")
    assert "swapped-days" not in as_written.warnings


LOST_HALVES = {
    "all hours": lambda t: t.hour >= 0,
    "working hours": lambda t: 8 <= t.hour <= 17,
    "without noon": lambda t: t.hour in (9, 10, 11, 13, 14),
}


@pytest.mark.parametrize("hours", LOST_HALVES)
@pytest.mark.parametrize("form", ["%Y-%m-%d %I:%M", "%d.%m.%Y %-I:%M", "0 to 11"])
@pytest.mark.parametrize("sites", ["", "ab"])
@pytest.mark.parametrize("order", [1, -1])
def test_hours_to_12_that_start_over_within_days_ask_for_the_half(
    tmp_path, hours, form, sites, order
):
    def write_stamp(time):
        hour = f"{time:%Y-%m-%d} {time.hour % 12:02d}:00"
        return hour if form == "0 to 11" else time.strftime(form)

    times = list(filter(LOST_HALVES[hours], pd.date_range("2024-05-13", periods=300, freq="1h")))
    rows = [f"{write_stamp(t)},{site},{i}" for i, t in enumerate(times) for site in sites or "a"]
    path = write(tmp_path / "x.csv", "time,site,v", *rows[::order])
    assert failure(path).code == "half-of-day"
    if (
        hours != "all hours" and form != "0 to 11"
    ):  # whoever says that these are hours of the day has the word
        stamps = form.replace("%I", "%H").replace("%-I", "%H")
        assert read(path, time_format=stamps).panel.n_series == max(len(sites), 1)


@pytest.mark.parametrize("hours", [range(1, 13), range(12), range(12, 13), (3, 9)])
@pytest.mark.parametrize("order", [1, -1])
def test_hours_to_12_in_their_order_lack_no_half(tmp_path, hours, order):
    times = [t for t in pd.date_range("2024-05-13", periods=1500, freq="1h") if t.hour in hours]
    rows = [f"{t:%Y-%m-%d %H:%M},{site},{i}" for site in "ab" for i, t in enumerate(times)]
    result = read(write(tmp_path / "x.csv", "time,site,v", *rows[::order]))
    assert sorted(result.panel.names) == ["a", "b"]
