"""A time that is spread over columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.sources.source import open_table
from tests.data.tables import failure, parquet, pasted, read, start_of, write

HOURS = pd.date_range("2024-02-28 21:00", periods=8, freq="1h")
FIRST_US = np.datetime64("2024-02-28T21:00", "us").astype(int)
HOUR_US = 3_600_000_000


def calendar_lines(parts: list[str]) -> list[str]:
    return [
        ",".join([*(str(getattr(time, part)) for part in parts), str(i)])
        for i, time in enumerate(HOURS)
    ]


@pytest.mark.parametrize("header", ["year,month,day,hour,v", " Year,MONTH,day ,Hour,v"])
def test_year_month_day_and_hour_are_one_time(tmp_path, header):
    path = write(tmp_path / "x.csv", header, *calendar_lines(["year", "month", "day", "hour"]))

    result = read(path)

    assert (result.panel.start[0], result.panel.step_us) == (FIRST_US, HOUR_US)
    assert result.panel.names == ("v",)
    assert result.panel.target.tolist() == list(range(8))
    assert result.schema.time == ",".join(header.split(",")[:4])
    assert result.schema.time in result.notes


def test_the_order_of_the_columns_does_not_matter(tmp_path):
    lines = [f"{t.hour},{i},{t.day},{t.year},{t.month}" for i, t in enumerate(HOURS)]
    path = write(tmp_path / "x.csv", "hour,v,day,year,month", *lines)
    assert read(path).panel.start[0] == FIRST_US


def test_a_year_and_a_month_alone_are_the_first_of_the_month(tmp_path):
    lines = [f"2024,{month},{month}" for month in range(1, 8)]
    panel = read(write(tmp_path / "x.csv", "year,month,v", *lines), freq="31d", agg="mean").panel
    assert panel.target[0] == 1


def test_typed_columns_of_a_parquet_file_are_joined_too(tmp_path):
    import pyarrow as pa

    table = pa.table(
        {
            "year": pa.array([2024.0] * 8),
            "month": pa.array(HOURS.month.to_numpy()),
            "day": pa.array(HOURS.day.to_numpy(), pa.int8()),
            "hour": pa.array(HOURS.hour.to_numpy()),
            "v": pa.array(np.arange(8.0)),
        }
    )
    panel = read(parquet(tmp_path / "x.parquet", table)).panel
    assert (panel.start[0], panel.target.tolist()) == (FIRST_US, list(range(8)))


@pytest.mark.parametrize("names", ["date,time", "Datum,Uhrzeit"])
def test_a_date_and_a_time_of_day_with_telling_names_are_one_time(tmp_path, names):
    lines = [f"{t.date()},{t.time()},{i}" for i, t in enumerate(HOURS)]
    panel = read(write(tmp_path / "x.csv", f"{names},v", *lines)).panel
    assert (panel.start[0], panel.target.tolist()) == (FIRST_US, list(range(8)))


@pytest.mark.parametrize("form", ["%H%M UTC", "%H:%M UTC", "%H:%MZ", "%H:%M+01:00", "%H:%M:%S GMT"])
def test_a_time_of_day_may_have_a_zone(tmp_path, form):
    lines = [f"{t:%Y/%m/%d},{t.strftime(form)},{i}" for i, t in enumerate(HOURS)]

    result = read(write(tmp_path / "x.csv", "Data,Hora,v", *lines))

    assert result.panel.start[0] == FIRST_US
    assert result.schema.tz == ("+01:00" if "+" in form else "UTC")
    assert (result.schema.time, result.panel.names) == ("Data,Hora", ("v",))


def test_a_date_and_a_time_of_day_with_other_names_ask_and_the_fix_works(tmp_path):
    lines = [f"{t.date()},{t.time()},{i}" for i, t in enumerate(HOURS)]
    path = write(tmp_path / "x.csv", "shift,started,v", *lines)

    error = failure(path)

    assert (error.code, error.exit_code) == ("split-time", 4)
    assert read(path, **pasted(str(error.proposals[0]))).panel.start[0] == FIRST_US


def test_a_part_that_cannot_be_is_an_error_with_its_line(tmp_path):
    lines = calendar_lines(["year", "month", "day", "hour"])
    lines[3] = "2024,2,30,0,3"
    error = failure(write(tmp_path / "x.csv", "year,month,day,hour,v", *lines))
    assert (error.code, error.location.line) == ("not-a-time", 5)


def test_a_row_that_lacks_a_part_is_an_error_with_its_line(tmp_path):
    lines = calendar_lines(["year", "month", "day", "hour"])
    lines[3] = "2024,2,,0,3"
    error = failure(write(tmp_path / "x.csv", "year,month,day,hour,v", *lines))
    assert (error.code, error.location.line) == ("missing-time", 5)


def test_an_hour_beside_a_whole_time_is_a_reading(tmp_path):
    lines = [f"{t},{t.hour},{i}" for i, t in enumerate(HOURS)]
    assert read(write(tmp_path / "x.csv", "time,hour,v", *lines)).panel.names == ("hour", "v")


DAYS = pd.date_range("2024-01-13", periods=20 * 48, freq="30min")


def start_and_step(result):
    return result.panel.start[0], result.panel.step_us, result.panel.names


@pytest.mark.parametrize(
    ("form", "step"),
    [
        ("{t:%Y-%m-%d},{t.hour}", 2),
        ("{t:%d.%m.%Y},{t:%H}", 2),
        ("{t:%Y%m%d},{t.hour}00", 2),
        ("{t:%Y-%m-%d},{t:%H%M}", 1),
        ("{t:%Y-%m-%d},{t.hour}{t:%M}", 1),
        ("{t:%m/%d/%y},{t:%I:%M}{a}", 1),
        ("{t:%Y-%m-%d 00:00:00},{t.hour}", 2),
    ],
)
def test_a_date_that_comes_again_and_an_hour_are_one_time(tmp_path, form, step):
    rows = [form.format(t=t, a="ap"[t.hour // 12]) + f",{i}" for i, t in enumerate(DAYS)][::step]
    result = read(write(tmp_path / "x.csv", "date,hour,v", *rows))
    first = np.datetime64("2024-01-13T00:00", "us").astype(int)
    assert start_and_step(result) == (first, step * HOUR_US // 2, ("v",))
    assert result.panel.target.tolist() == list(range(0, len(DAYS), step))


@pytest.mark.parametrize(
    ("cell", "step"),
    [
        ("{t.hour}", 2),
        ("{n}", 1),
        ("{t:%H} - {u:%H}", 2),
        ("{t:%H:%M}-{u:%H:%M}", 2),
    ],
)
@pytest.mark.parametrize("is_typed", [False, True])
def test_hours_with_other_names_ask_and_the_first_fix_works(tmp_path, cell, step, is_typed):
    times = DAYS[::step]
    hours = [
        cell.format(t=t, u=t + pd.Timedelta("1h"), n=2 * t.hour + t.minute // 30 + 1) for t in times
    ]
    path = write(
        tmp_path / "x.csv",
        "day of trade,delivery,v",
        *(f"{t:%Y-%m-%d},{hour},{i}" for i, (t, hour) in enumerate(zip(times, hours, strict=True))),
    )
    if is_typed:
        table = pd.read_csv(path)
        table["day of trade"] = pd.to_datetime(table["day of trade"])
        table.to_parquet(path := tmp_path / "x.parquet")
    error = failure(path)
    assert (error.code, len(error.proposals)) == ("split-time", 2)
    result = read(path, **pasted(str(error.proposals[0])))
    assert result.panel.target.tolist() == list(range(len(times)))
    assert result.panel.step_us == step * HOUR_US // 2


@pytest.mark.parametrize("n_sensors", [3, 10, 23, 30])
def test_sensors_with_numbers_that_fill_no_day_are_no_hours(tmp_path, n_sensors):
    days = pd.date_range("2024-01-01", periods=30)
    rows = [f"{day:%Y-%m-%d},{k},{100 * k}" for day in days for k in range(1, n_sensors + 1)]
    assert len(read(write(tmp_path / "x.csv", "date,sensor,v", *rows)).panel.names) == n_sensors


@pytest.mark.parametrize(
    "form",
    [
        "{t.year},{t.month},{t.day},{t.hour}",
        "{t.day},{t.month},{t.year},{t.hour}",
        "{t.year},{t.month},{t.day},{t.hour}00",
        "{t.year},{t.day_of_year},{t.hour}",
        "{t.year},{t.day_of_year},{t.hour}00",
    ],
)
@pytest.mark.parametrize("around", ["{},{i}", "101,{},{i}"])
def test_numbers_that_are_dates_in_equal_steps_are_one_time(tmp_path, form, around):
    rows = [around.format(form.format(t=t), i=i % 50) for i, t in enumerate(DAYS[::2])]
    header = ",".join(f"c{i}" for i in range(rows[0].count(",") + 1))
    result = read(write(tmp_path / "x.csv", header, *rows))
    assert result.panel.target.tolist() == [i % 50 for i in range(len(rows))]
    assert result.panel.step_us == HOUR_US
    again = read(write(tmp_path / "y.csv", header, *rows[:30]), time=result.schema.time)
    assert again.panel.start[0] == result.panel.start[0]


def test_a_minute_that_all_readings_have_is_asked_for(tmp_path):
    rows = [f"{t.year},{t.month},{t.day},{t.hour},30,{i}" for i, t in enumerate(DAYS[::2])]
    path = write(tmp_path / "x.csv", "a,b,c,d,e,v", *rows)
    error = failure(path)
    options = [pasted(str(proposal))["time"] for proposal in error.proposals]
    assert (error.code, options) == ("split-time", ["a,b,c,d,e", "a,b,c,d"])
    assert read(path, time=options[0]).panel.start[0] % HOUR_US == HOUR_US // 2


def test_years_alone_are_a_time_and_other_numbers_are_none(tmp_path):
    rows = [f"{1970 + i},{i % 7}" for i in range(50)]
    panel = read(write(tmp_path / "x.csv", "season,v", *rows)).panel
    assert (len(panel.target), panel.names) == (50, ("v",))
    irregular = [f"{1970 + i * i % 90},{i % 7}" for i in range(50)]
    assert failure(write(tmp_path / "y.csv", "season,v", *irregular)).code == "no-time-column"


@pytest.mark.parametrize("form", ["%z", "%:z"])
def test_an_offset_in_a_column_of_its_own_belongs_to_the_time(tmp_path, form):
    local = pd.date_range("2024-10-26", periods=72, freq="h", tz="Europe/Berlin")
    offsets = [f"{t:%z}" if form == "%z" else f"{t:%z}"[:3] + ":00" for t in local]
    rows = [
        f"{t:%Y-%m-%d %H:%M},{o},{i}" for i, (t, o) in enumerate(zip(local, offsets, strict=True))
    ]
    result = read(write(tmp_path / "x.csv", "time,off,v", *rows))
    assert (result.panel.names, result.schema.tz) == (("v",), "UTC")
    assert result.panel.target.tolist() == list(range(72))


def times_of_day(step_s, n=450):
    """Return stamps, and the seconds since midnight of each."""
    stamps = pd.date_range("2026-09-14", periods=n, freq=f"{step_s}s")
    since = (stamps - stamps.normalize()).total_seconds().astype(int)
    return stamps, since


FINER = {
    "date,hour,minute": (900, True),
    "DATE,Hour,Min": (600, True),
    "date,hour,minute,second": (150, True),
    "Date,Hr,Min": (300, False),
    "day,HH,MM,SS": (20, False),
    "Datum,Stunde,Minute": (1800, False),
    "date,hours,minutes": (1800, False),
    "obs_date,obs_hour,obs_minute": (1800, False),
    "Fecha,Hora,Minuto": (900, True),
    "dag,uur,minuut": (900, False),
}


@pytest.mark.parametrize("names", FINER)
def test_the_minute_and_the_second_of_an_hour_belong_to_the_time(tmp_path, names):
    step_s, is_sure = FINER[names]
    stamps, _ = times_of_day(step_s)
    forms = ["%Y-%m-%d", "%-H", "%-M", "%-S"][: names.count(",") + 1]
    lines = [",".join([*(t.strftime(f) for f in forms), str(i)]) for i, t in enumerate(stamps)]
    path = write(tmp_path / "x.csv", f"{names},v", *lines)

    if not is_sure:
        error = failure(path)
        assert (error.code, error.proposals[0].options) == ("split-time", ("--time", names))
    result = read(path) if is_sure else read(path, time=names)

    assert (result.schema.time, result.panel.step_us) == (names, step_s * 1_000_000)
    assert result.panel.end_us == stamps[-1].value // 1000 + step_s * 1_000_000
    assert result.panel.names == ("v",)


SPLITS = {
    "date,hour,quarter": (4, 1, True),
    "date,hour,slot": (6, 0, True),
    "year,month,day,hour,interval": (12, 1, True),
    "Delivery Date,Delivery Hour,Delivery Interval": (4, 1, False),
    "Datum,Stunde,Viertelstunde": (4, 1, False),
    "date,hour,half_hour_period": (2, 1, True),
}


@pytest.mark.parametrize("n_points", [1, 3])
@pytest.mark.parametrize("hour", [0, 1])
@pytest.mark.parametrize("names", SPLITS)
def test_counted_parts_of_an_hour_belong_to_the_time(tmp_path, names, hour, n_points):
    n_parts, lowest, is_sure = SPLITS[names]
    step_s = 3600 // n_parts
    stamps, since = times_of_day(step_s)
    dates = stamps.strftime("%Y,%m,%d" if "year" in names else "%Y-%m-%d")
    rows = [
        f"{date},{s // 3600 + hour},{s % 3600 // step_s + lowest},P{point},{point * 9 + s % 7}"
        for date, s in zip(dates, since, strict=True)
        for point in range(n_points)
    ]
    path = write(tmp_path / "x.csv", f"{names},point,v", *rows)

    if not is_sure:
        error = failure(path)
        assert (error.code, error.proposals[0].options) == ("split-time", ("--time", names))
    result = read(path) if is_sure else read(path, time=names)

    assert (result.schema.time, result.panel.step_us) == (names, step_s * 1_000_000)
    assert start_of(result) == stamps[0]
    assert result.panel.end_us == stamps[-1].value // 1000 + step_s * 1_000_000
    assert len(result.panel.names) == n_points


@pytest.mark.parametrize("hour", [0, 1])
def test_minutes_of_hours_from_1_to_24_are_those_of_the_hour_that_ends(tmp_path, hour):
    stamps, since = times_of_day(900)
    rows = [
        f"{date:%Y-%m-%d},{s // 3600 + hour},{s % 3600 // 60},{s % 7}"
        for date, s in zip(stamps, since, strict=True)
    ]
    result = read(write(tmp_path / "x.csv", "date,hour,minute,v", *rows))
    assert (start_of(result), result.panel.step_us) == (stamps[0], 900_000_000)


CLOCKS_OF_12 = {
    "Date,Time,AM/PM": "%Y-%m-%d,%I:%M,%p",
    "Date,Time,half": "%Y-%m-%d,%-I:%M:%S,%p",
    "Date,Hour,Minute,Half": "%Y-%m-%d,%-I,%-M,%p",
    "Date,Time": "%Y-%m-%d,%-I %p",
    "date,hour": "%Y-%m-%d,%I%p",
}


@pytest.mark.parametrize("names", CLOCKS_OF_12)
def test_halves_of_the_day_belong_to_the_time(tmp_path, names):
    step_s = 900 if "M" in CLOCKS_OF_12[names] else 3600
    stamps, _ = times_of_day(step_s)
    rows = [f"{t.strftime(CLOCKS_OF_12[names])},{i}" for i, t in enumerate(stamps)]
    result = read(write(tmp_path / "x.csv", f"{names},v", *rows))
    assert (start_of(result), result.panel.step_us) == (stamps[0], step_s * 1_000_000)
    assert result.panel.names == ("v",)


@pytest.mark.parametrize("names", ["Date,Time,Milliseconds", "date,hour,minute,second,ms"])
def test_milliseconds_in_a_column_belong_to_the_time(tmp_path, names):
    stamps = pd.date_range("2026-09-14 10:00", periods=300, freq="40ms")
    form = "%Y-%m-%d,%H:%M:%S" if "Time" in names else "%Y-%m-%d,%-H,%-M,%-S"
    rows = [f"{t.strftime(form)},{t.microsecond // 1000},{i}" for i, t in enumerate(stamps)]
    result = read(write(tmp_path / "x.csv", f"{names},v", *rows))
    assert (start_of(result), result.panel.step_us) == (stamps[0], 40_000)


@pytest.mark.parametrize("names", ["Year,Quarter", "year,qtr", "v2,Jahr,Quartal"])
def test_quarters_of_years_are_times(tmp_path, names):
    others = "7.5," if names.startswith("v2") else ""
    rows = [f"{others}{1990 + i // 4},{i % 4 + 1},{i}.5" for i in range(60)]
    result = read(write(tmp_path / "x.csv", f"{names},v", *rows))
    assert start_of(result) == pd.Timestamp("1990-01-01")
    assert result.panel.target.tolist() == [i + 0.5 for i in range(60)]


def test_four_sensors_of_each_year_are_no_quarters(tmp_path):
    rows = [f"{1990 + i // 4},{i % 4 + 1},{i}.5" for i in range(60)]
    result = read(write(tmp_path / "x.csv", "year,well,v", *rows))
    assert (result.schema.time, result.schema.series) == ("year", "well")


@pytest.mark.parametrize("n", [40, 200])
@pytest.mark.parametrize("names", ["Year,Week", "Jahr,KW"])
def test_weeks_of_years_are_times(tmp_path, names, n):
    weeks = pd.date_range("2019-12-30", periods=n, freq="7D")  # 2020 has 53
    calendar = [week.isocalendar() for week in weeks]
    rows = [f"{c.year},{c.week},{i}" for i, c in enumerate(calendar)]
    result = read(write(tmp_path / "x.csv", f"{names},v", *rows))
    assert (start_of(result), result.panel.step_us) == (weeks[0], 7 * 24 * HOUR_US)
    assert result.panel.target.tolist() == list(range(n))


@pytest.mark.parametrize("form", ["%Y%m", "%Y-%m"])
def test_a_month_and_a_day_are_one_date(tmp_path, form):
    days = pd.date_range("2026-01-20", periods=100)
    rows = [f"{day.strftime(form)},{day.day},{i}" for i, day in enumerate(days)]
    result = read(write(tmp_path / "x.csv", "month,day,v", *rows))
    assert (start_of(result), result.panel.step_us) == (days[0], 24 * HOUR_US)
    assert result.panel.names == ("v",)


def test_the_columns_of_a_time_may_have_blanks_around_their_names(tmp_path):
    stamps, _ = times_of_day(3600)
    rows = [f"{t:%Y%m%d},{t.hour:5d},{i}" for i, t in enumerate(stamps)]
    path = write(tmp_path / "x.csv", "YYYYMMDD,   HH,v", *rows)
    option, names = failure(path).proposals[0].options
    assert (option, read(path, time=names).panel.step_us) == ("--time", HOUR_US)


@pytest.mark.parametrize("names", ["date,hour,quarter", "date,hour,interval"])
def test_a_number_that_does_not_count_each_hour_is_no_part_of_it(tmp_path, names):
    stamps, _ = times_of_day(3600)
    rows = [f"{t:%Y-%m-%d},{t.hour},{t.quarter},{i}" for i, t in enumerate(stamps)]
    result = read(write(tmp_path / "x.csv", f"{names},v", *rows))
    assert (result.schema.time, result.panel.step_us) == ("date,hour", HOUR_US)


def test_too_few_rows_to_tell_the_parts_of_an_hour_are_an_error(tmp_path):
    rows = [f"2026-09-14,{9 + i // 4},{i % 4 + 1},{i}" for i in range(20)]
    path = write(tmp_path / "x.csv", "date,hour,quarter,v", *rows)
    assert failure(path, time="date,hour,quarter").code == "not-a-time"


@pytest.mark.parametrize("date", ["date,hour", "year,month,day,hour"])
@pytest.mark.parametrize(
    "others", ["station,min,max", "gauge,mm,temp", "meter,per_minute,v", "depth_cm,v", "tilt,v,w"]
)
def test_what_comes_beside_an_hour_is_no_minute(tmp_path, date, others):
    stamps, _ = times_of_day(3600)
    day = "%Y-%m-%d" if date == "date,hour" else "%Y,%m,%d"
    numbers = np.random.default_rng(0).integers(0, 60, (len(stamps), 6))
    depth = {"depth_cm": 10, "tilt": 30}.get(others.split(",")[0], 1)
    places = range(2 if depth == 30 else 6)
    lines = [
        f"{t.strftime(day)},{t.hour},{place * depth},{numbers[i, place]},{numbers[i, place] + 9}"
        for i, t in enumerate(stamps)
        for place in places
    ]
    if others == "depth_cm,v":
        lines = [line.rpartition(",")[0] for line in lines]

    result = read(write(tmp_path / "x.csv", f"{date},{others}", *lines))

    assert (result.schema.time, result.schema.series) == (date, others.split(",")[0])
    assert result.panel.step_us == HOUR_US


@pytest.mark.parametrize("name", ["hr", "hour"])
def test_hours_of_operation_of_several_pumps_are_no_time(tmp_path, name):
    days = pd.date_range("2026-01-01", periods=60)
    hours = np.random.default_rng(0).integers(0, 24, (60, 6))
    lines = [f"{d:%Y-%m-%d},P{p},{hours[i, p]},{i}.5" for i, d in enumerate(days) for p in range(6)]
    lines[7] = lines[7].replace(f",{hours[1, 1]},", ",,")  # not read
    result = read(write(tmp_path / "x.csv", f"date,pump,{name},flow", *lines))
    assert (result.schema.time, result.schema.series) == ("date", "pump")


@pytest.mark.parametrize("begin", [0, 50])
@pytest.mark.parametrize("step_s", [600, 1800, 3600])
@pytest.mark.parametrize("unit", [1, 60, 3600, 86400])
def test_the_time_since_midnight_is_a_time_of_day(tmp_path, begin, step_s, unit):
    stamps, since = (x[begin:] for x in times_of_day(step_s))
    digits = 0 if unit < 3600 else 6
    lines = [
        f"{t:%Y-%m-%d},{s / unit:.{digits}f},{s % 7}" for t, s in zip(stamps, since, strict=True)
    ]
    path = write(tmp_path / "x.csv", "day,tick,v", *lines)

    error = failure(path)
    assert (error.code, error.proposals[0].options) == ("split-time", ("--time", "day,tick"))

    panel = read(path, time="day,tick").panel
    assert (panel.step_us, panel.n_series) == (step_s * 1_000_000, 1)
    assert panel.end_us == stamps[-1].value // 1000 + step_s * 1_000_000


@pytest.mark.parametrize(("name", "unit_s"), [("seconds", 1), ("minute_of_day", 60)])
def test_without_a_midnight_the_name_tells_what_is_counted(tmp_path, name, unit_s):
    lines = [f"2026-09-14,{i * 5},{i % 7}" for i in range(200)]
    path = write(tmp_path / "x.csv", f"date,{name},v", *lines)
    assert failure(path).code == "split-time"
    assert read(path, time=f"date,{name}").panel.step_us == 5_000_000 * unit_s


def without_repeats(cells: list[str]) -> list[str]:
    """Leave cells empty that equal the one above, as pivot tables and printed reports do."""
    return [c if i == 0 or c != cells[i - 1] else "" for i, c in enumerate(cells)]


@pytest.mark.parametrize("block_size", [None, 2000])
def test_a_date_in_the_first_row_of_a_day_holds_for_the_whole_day(
    tmp_path, monkeypatch, block_size
):
    if block_size is not None:
        monkeypatch.setattr("rnnforecast.sources.csv.BLOCK_BYTES", block_size)
    hours = pd.date_range("2024-02-26", periods=24 * 40, freq="1h")
    dates = without_repeats([f"{t:%d/%m/%Y}" for t in hours])
    lines = [f"{d},{t:%H:%M},{i}" for i, (d, t) in enumerate(zip(dates, hours, strict=True))]
    result = read(write(tmp_path / "x.csv", "Date,Time,v", *lines))
    assert result.panel.target.tolist() == list(range(len(hours)))
    assert result.panel.end_us == hours[-1].value // 1000 + HOUR_US
    assert "'Date'" in result.warnings["repeated-time"].message


@pytest.mark.parametrize("n_series", [2, 3])
def test_a_time_in_the_first_row_of_its_readings_holds_for_all(tmp_path, n_series):
    table = pd.DataFrame(
        {
            "time": without_repeats([str(t) for t in HOURS.repeat(n_series)]),
            "pump": [f"p{i}" for i in range(n_series)] * len(HOURS),
            "v": np.arange(len(HOURS) * n_series),
        }
    )
    panel = read(write(tmp_path / "x.csv", *table.to_csv(index=False).splitlines())).panel
    assert (panel.n_series, panel.start[0]) == (n_series, FIRST_US)
    assert panel.target[: len(HOURS)].tolist() == list(range(0, len(HOURS) * n_series, n_series))


def test_a_time_that_is_rarely_missing_is_still_an_error(tmp_path):
    lines = [f"{t if i % 3 else ''},{i}" for i, t in enumerate(HOURS, 1)]
    assert failure(write(tmp_path / "x.csv", "time,v", *lines)).code == "missing-time"
    lines = [f"{'' if i == 0 or i % 2 else t},{i}" for i, t in enumerate(HOURS)]
    assert failure(write(tmp_path / "y.csv", "time,v", *lines)).code == "missing-time"


@pytest.mark.parametrize("n_sites", [12, 20, 28])
@pytest.mark.parametrize("form", ["%Y-%m", "%Y%m"])
def test_numbers_of_sites_are_no_days_of_a_month(tmp_path, n_sites, form):
    months = pd.date_range("2010-01-01", periods=60, freq="MS")
    rows = [
        f"{m:{form}},{site},{i}" for i, m in enumerate(months) for site in range(1, n_sites + 1)
    ]
    panel = read(write(tmp_path / "x.csv", "month,site,kwh", *rows)).panel
    assert (panel.n_series, panel.lengths.tolist()) == (n_sites, [60] * n_sites)

    days = pd.date_range("2010-01-01", periods=400, freq="D")
    rows = [f"{d:{form}},{d.day},{i % 17}" for i, d in enumerate(days)]
    for name in ("site", "Tag"):
        panel = read(write(tmp_path / "y.csv", f"month,{name},kwh", *rows)).panel
        assert (panel.n_series, panel.lengths.tolist()) == (1, [400])


def test_a_constant_is_no_part_of_the_time(tmp_path):
    months = pd.date_range("2010-01-01", periods=60, freq="MS")
    rows = [f"{m:%Y-%m},7,{i % 11}.5" for i, m in enumerate(months)]
    result = read(write(tmp_path / "x.csv", "month,site,kwh", *rows))
    assert (result.schema.time, result.panel.lengths.tolist()) == ("month", [60])


@pytest.mark.parametrize(("name", "n"), [("district", 12), ("plant", 52), ("meter", 53)])
def test_a_number_beside_the_year_is_asked_about_unless_it_is_called_a_part_of_it(
    tmp_path, name, n
):
    rows = [f"{year},{i},{year + i}" for year in range(1970, 2010) for i in range(1, n + 1)]
    path = write(tmp_path / "x.csv", f"year,{name},v", *rows)
    error = failure(path)
    assert error.code == "split-time"
    assert [p.options[1] for p in error.proposals] == [f"year,{name}", "year"]
    assert read(path, time="year").panel.n_series == n
    for called in ("month", "Monat", "obsMonth") if n == 12 else ():
        panel = read(write(tmp_path / "y.csv", f"year,{called},v", *rows)).panel
        assert (panel.n_series, panel.lengths.tolist()) == (1, [480])


def test_days_of_years_need_no_name(tmp_path):
    days = pd.date_range("2019-01-01", periods=900, freq="D")
    rows = [f"{d.year},{d.day_of_year},{i % 17}" for i, d in enumerate(days)]
    panel = read(write(tmp_path / "x.csv", "a,b,v", *rows)).panel
    assert panel.lengths.tolist() == [900]


UNITS = {"s": (20, "second"), "ms": (500, "millisecond"), "us": (250_000, "microsecond")}


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%m/%d/%Y %I:%M:%S %p"])
@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("is_split", [False, True])
def test_what_is_finer_than_the_stamps_belongs_to_them(tmp_path, form, unit, is_split):
    step, name = UNITS[unit]
    n = {"s": 60, "ms": 1000, "us": 1_000_000}[unit]
    times = pd.Timestamp("2024-02-28 11:50") + pd.to_timedelta(np.arange(400) * step, unit)
    form = form.replace(":%S", "") if unit == "s" else form
    form = form.replace(" ", ",", 1) if is_split else form
    rows = [f"{t:{form}},{i * step % n},{i % 23}" for i, t in enumerate(times)]
    header = "Date,Time" if is_split else "Stamp"
    panel = read(write(tmp_path / "x.csv", f"{header},{name},v", *rows)).panel
    assert panel.lengths.tolist() == [400]
    assert panel.start[0] == times[0].value // 1000
    assert panel.step_us == (times[1] - times[0]).value // 1000


def test_small_numbers_called_ms_are_no_milliseconds(tmp_path):
    rows = [f"14.06.2023,{i // 60:02d}:{i % 60:02d},{i % 9},{i % 5}" for i in range(200)]
    assert read(write(tmp_path / "x.csv", "Datum,Zeit,ms,grad", *rows)).panel.names == (
        "ms",
        "grad",
    )


@pytest.mark.parametrize(("name", "hours"), [("<TIME>", (9, 10, 11, 12)), ("hms", range(24))])
def test_six_digits_beside_a_date_are_a_time_of_day(tmp_path, name, hours):
    days = pd.date_range("2023-06-01", periods=12, freq="D")
    times = [
        d + pd.Timedelta(hours=h, minutes=m) for d in days for h in hours for m in range(0, 60, 20)
    ]
    rows = [f"{t:%Y%m%d},{t:%H%M%S},{i % 17}.5" for i, t in enumerate(times)]
    result = read(write(tmp_path / "x.csv", f"<DATE>,{name},v", *rows))
    assert (result.schema.time, result.panel.n_series) == (f"<DATE>,{name}", 1)
    assert result.panel.start[0] == times[0].value // 1000
    assert result.panel.n_readings == len(times)

    days = pd.date_range("2023-06-01", periods=60, freq="D")
    rows = [f"{d:%Y%m%d},{100_000 + 97 * i % 3571},{i % 17}.5" for i, d in enumerate(days)]
    assert read(write(tmp_path / "y.csv", "<DATE>,count,v", *rows)).schema.time == "<DATE>"


@pytest.mark.parametrize("form", ["%Y-%m-%d %I:%M", "%d.%m.%Y %I:%M:%S", "%b %d %Y %I:%M"])
@pytest.mark.parametrize(("start", "freq"), [("2024-05-13", "1h"), ("2024-05-13 13:00", "1min")])
def test_a_half_of_the_day_beside_whole_stamps_belongs_to_them(tmp_path, form, start, freq):
    times = pd.date_range(start, periods=300, freq=freq)
    lines = [f"{t.strftime(form)},{t:%p},{i}" for i, t in enumerate(times)]
    result = read(path := write(tmp_path / "x.csv", "time,half,v", *lines))
    assert (start_of(result), result.schema.time) == (times[0].to_pydatetime(), "time,half")
    assert result.panel.target.tolist() == list(range(300))
    assert start_of(read(path, time="time,half")) == times[0].to_pydatetime()


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M", "%Y-%m-%d %I:%M %p"])
def test_a_half_of_the_day_beside_stamps_that_need_none_is_no_part_of_them(tmp_path, form):
    times = pd.date_range("2024-05-13", periods=60, freq="1h")
    lines = [f"{t.strftime(form)},{t:%p},{i}" for i, t in enumerate(times)]
    result = read(write(tmp_path / "x.csv", "time,half,v", *lines), series="half", freq="1h")
    assert result.schema.time == "time"


@pytest.mark.parametrize(
    ("names", "code", "freq"),
    [
        *(("year,quarter", "Q{t.quarter}", "QS"), ("Jahr,Q", "Q0{t.quarter}", "QS")),
        *(("year,period", "M{t.month:02d}", "MS"), ("Year,p", "M{t.month}", "MS")),
        ("year,week", "W{t.week:02d}", "W-MON"),
    ],
)
@pytest.mark.parametrize("keys", ["", "ab"])
def test_a_year_and_a_coded_part_of_it_are_one_time(tmp_path, names, code, freq, keys):
    times = pd.date_range("1990-01-01", periods=120, freq=freq)
    lines = [
        f"{key}{',' * bool(key)}{t.isocalendar().year if 'W' in code else t.year},"
        f"{code.format(t=t)},{i}"
        for key in keys or ("",)
        for i, t in enumerate(times)
    ]
    result = read(path := write(tmp_path / "x.csv", f"{'key,' * bool(keys)}{names},v", *lines))
    assert (start_of(result), result.schema.time) == (times[0].to_pydatetime(), names)
    assert (result.panel.n_series, max(result.panel.lengths)) == (max(len(keys), 1), 120)
    assert read(path, time=names).panel.target.tolist() == result.panel.target.tolist()


def test_a_mean_of_the_year_is_no_month(tmp_path):
    lines = [f"{2000 + i // 13},M{i % 13 + 1:02d},{i}" for i in range(130)]
    assert failure(write(tmp_path / "x.csv", "year,period,v", *lines)).code == "not-a-time"


def test_machines_with_names_like_months_are_asked_about(tmp_path):
    lines = [f"{2000 + i},M{m:02d},{i}" for m in range(1, 13) for i in range(20)]
    error = failure(write(tmp_path / "x.csv", "year,machine,v", *lines))
    assert (error.code, len(error.proposals)) == ("split-time", 2)


def test_periods_of_a_longer_day_are_never_minutes(tmp_path):
    lines = [
        f"2024-10-{day},{period},{day + period}"
        for day in range(20, 31)
        for period in range(1, 51 if day == 27 else 49)
    ]
    error = failure(write(tmp_path / "x.csv", "date,period,v", *lines), time="date,period")
    assert error.code == "counted-periods"


def settlement_periods(zone, first, n_days, *, form="%Y-%m-%d", n_periods=48):
    """Return the times of all periods, and lines that count them from each midnight of a zone."""
    days = pd.date_range(first, periods=n_days + 1, tz=zone)
    step = pd.Timedelta("1D") / n_periods
    times = pd.date_range(days[0], days[-1], freq=step, inclusive="left")
    number = (times - days[days.searchsorted(times, side="right") - 1]) // step + 1
    lines = [
        f"{t.strftime(form)},{n},{i}" for i, (t, n) in enumerate(zip(times, number, strict=True))
    ]
    return times, lines


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize(
    ("zone", "first", "form", "n_periods"),
    [
        ("Europe/London", "2024-03-10", "%Y-%m-%d", 48),  # the change is below the first rows
        ("Europe/London", "2024-10-10", "%d/%m/%Y", 48),
        ("Europe/Berlin", "2024-10-20", "%Y%m%d", 96),
        ("America/New_York", "2024-02-20", "%Y-%m-%d 00:00:00", 288),
    ],
)
def test_periods_that_count_elapsed_time_ask_for_the_zone(
    tmp_path, zone, first, form, n_periods, is_reversed
):
    times, lines = settlement_periods(zone, first, 35, form=form, n_periods=n_periods)
    path = write(tmp_path / "x.csv", "date,period,v", *lines[:: -1 if is_reversed else 1])
    assert failure(path).code == "split-time"
    error = failure(path, time="date,period")
    assert error.code == "counted-periods"
    assert ("--tz", zone) in [proposal.options for proposal in error.proposals]

    result = read(path, time="date,period", tz=zone)

    axis, target = result.panel.axis, result.panel.target
    expected = pd.Series(np.arange(len(times)), times.tz_localize(None)).groupby(level=0).mean()
    assert axis.to_utc(result.panel.start)[0] == times[0].value // 1000
    np.testing.assert_allclose(target[np.isfinite(target)], expected)


def test_periods_of_the_clock_and_days_that_lack_some_need_no_zone(tmp_path):
    _, lines = settlement_periods("UTC", "2024-03-10", 35)
    on_clock = [x for x in lines if not x.startswith(("2024-03-31,3,", "2024-03-31,4,"))]
    torn = [x for x in lines if not x.startswith(("2024-03-20,47,", "2024-03-20,48,"))]
    for rows in (lines, on_clock, torn):
        path = write(tmp_path / "x.csv", "date,period,v", *rows)
        for options in ({}, {"tz": "Europe/London"} if rows is on_clock else {"tz": "UTC"}):
            result = read(path, time="date,period", **options)
            seen = result.panel.target[np.isfinite(result.panel.target)]
            assert seen.tolist() == [int(row.rpartition(",")[2]) for row in rows]


def test_a_zone_whose_clock_is_not_changed_on_the_longer_day_is_asked_again(tmp_path):
    _, lines = settlement_periods("Europe/London", "2024-10-10", 35)
    path = write(tmp_path / "x.csv", "date,period,v", *lines)
    for tz in ("Asia/Tokyo", "America/New_York", "+01:00"):
        assert failure(path, time="date,period", tz=tz).code == "counted-periods"


def test_the_zone_of_a_model_counts_the_periods_of_new_readings(tmp_path):
    _, lines = settlement_periods("Europe/London", "2024-10-25", 4)
    path = write(tmp_path / "x.csv", "date,period,v", *lines)
    source = open_table(
        path, DataConfig(), lambda _: None, time_column="date,period", tz="Europe/London"
    )
    assert source.columns[0].sample[96:102] == tuple(
        f"2024-10-27 {clock}:00" for clock in ("00:00", "00:30", "01:00", "01:30", "01:00", "01:30")
    )


@pytest.mark.parametrize("form", ["%B", "%b", "%m"])
def test_a_year_beside_the_names_of_its_months_is_a_time(tmp_path, form):
    months = pd.date_range("1990-01-01", periods=120, freq="MS")
    rows = [f"{month.year},{month:{form}},{i}" for i, month in enumerate(months)]
    result = read(write(tmp_path / "x.csv", "Year,Month,flow", *rows))
    assert (result.panel.n_rows, start_of(result)) == (120, months[0].to_pydatetime())


PARTS = {
    "minute": (4, [0, 15, 30, 45], True),
    "quarter": (4, [0, 1, 2, 3], True),
    "Viertelstunde": (4, [1, 2, 3, 4], True),
    "min": (2, [0, 30], True),
    "n": (6, [0, 10, 20, 30, 40, 50], False),
    "k": (3, [1, 2, 3], False),
}


def parts_of_hours(name, form, *, is_reversed=False):
    """Return lines of hours and their parts, and readings that go on from part to part."""
    n_parts, numbers, _ = PARTS[name]
    stamps = pd.date_range("2026-09-14", periods=600, freq=f"{60 // n_parts}min")
    walk = np.random.default_rng(0).normal(size=600).cumsum()
    lines = [
        f"{t.strftime(form)},{numbers[i % n_parts]},{walk[i]:.3f}" for i, t in enumerate(stamps)
    ]
    return stamps, walk, lines[::-1] if is_reversed else lines


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:00", "%d.%m.%Y %H:00:00", "%Y-%m-%dT%H:00:00Z"])
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_the_hour_beside_whole_hours_belong_to_the_time_or_ask(tmp_path, form, name):
    stamps, walk, lines = parts_of_hours(name, form, is_reversed="Z" in form)
    path = write(tmp_path / "x.csv", f"time,{name},v", *lines)

    if not PARTS[name][2]:
        error = failure(path)
        options = [proposal.options for proposal in error.proposals]
        assert (error.code, options) == (
            "split-time",
            [("--time", f"time,{name}"), ("--time", "time")],
        )
        assert len(read(path, time="time").panel.names) == PARTS[name][0]
    result = read(path) if PARTS[name][2] else read(path, time=f"time,{name}")

    assert (result.schema.time, result.panel.names) == (f"time,{name}", ("v",))
    assert (start_of(result), result.panel.step_us) == (stamps[0], HOUR_US // PARTS[name][0])
    np.testing.assert_allclose(result.panel.target, walk.round(3), atol=1e-5)


@pytest.mark.parametrize("name", ["n", "k"])
def test_numbers_beside_an_hour_ask_where_readings_go_on_from_part_to_part(tmp_path, name):
    stamps, _, lines = parts_of_hours(name, "%Y-%m-%d,%H")
    path = write(tmp_path / "x.csv", f"date,hour,{name},v", *lines)
    error = failure(path)
    assert (error.code, len(error.proposals)) == ("split-time", 2)
    result = read(path, **pasted(error.advice))
    assert (start_of(result), result.panel.step_us) == (stamps[0], HOUR_US // PARTS[name][0])


@pytest.mark.parametrize("kind", ["apart", "alike", "noise", "totals"])
def test_sensors_of_each_hour_are_no_parts_of_it(tmp_path, kind):
    random = np.random.default_rng(1)
    level = random.normal(size=(150, 1)).cumsum(axis=0)
    readings = {
        "apart": level + 10 * np.arange(4),
        "alike": level + 0.1 * random.normal(size=(150, 4)),
        "noise": random.normal(size=(150, 4)),
        "totals": np.arange(600.0).reshape(150, 4),
    }[kind]
    hours = pd.date_range("2026-09-14", periods=150, freq="h")
    for numbers in ([0, 15, 30, 45], [1, 2, 3, 4]):
        lines = [
            f"{t:%Y-%m-%d %H:%M},{n},{v:.4f}"
            for t, row in zip(hours, readings, strict=True)
            for n, v in zip(numbers, row, strict=True)
        ]
        result = read(write(tmp_path / "x.csv", "time,depth,v", *lines))
        assert (result.schema.time, result.schema.series) == ("time", "depth")


@pytest.mark.parametrize("date", ["%d/%m/%Y", "%Y-%m-%d"])
def test_hours_with_points_between_their_parts_are_a_time_of_day(tmp_path, date):
    stamps = pd.date_range("2024-03-10 18:00", periods=200, freq="h")
    rows = [f"{stamp:{date}};{stamp:%H.%M.%S};{i}" for i, stamp in enumerate(stamps)]

    panel = read(write(tmp_path / "x.csv", "Date;Time;flow", *rows)).panel

    assert (panel.step_us, int(panel.lengths[0])) == (3600 * 10**6, 200)


def test_dates_with_points_between_their_parts_are_no_time_of_day(tmp_path):
    stamps = pd.date_range("1996-03-10", periods=200, freq="D")
    rows = [f"{stamp:%d.%m.%y};{i}" for i, stamp in enumerate(stamps)]

    assert read(write(tmp_path / "x.csv", "Date;flow", *rows)).panel.step_us == 86_400 * 10**6


@pytest.mark.parametrize("mark", [".", ","])
def test_hours_that_are_centres_of_steps_are_decimal_hours(tmp_path, mark):
    stamps = pd.date_range("2026-09-13 00:30", periods=240, freq="1h")
    rows = [f"{t:%Y-%m-%d};{t.hour}{mark}5;{i}" for i, t in enumerate(stamps)]
    path = write(tmp_path / "x.csv", "Datum;Stunde;v", *rows)

    assert failure(path).proposals[0].options == ("--time", "Datum,Stunde")
    result = read(path, time="Datum,Stunde")

    assert (start_of(result), result.panel.n_series) == (stamps[0], 1)
    assert result.panel.step_us == HOUR_US


@pytest.mark.parametrize("last", [27, 28])
def test_hours_behind_24_are_no_minutes(tmp_path, last):
    rows = [f"2026-09-{day:02d},{hour},{hour}" for day in range(1, 30) for hour in range(4, last)]
    path = write(tmp_path / "x.csv", "date,hour,v", *rows)
    assert failure(path, time="date,hour").code == "several-formats"
