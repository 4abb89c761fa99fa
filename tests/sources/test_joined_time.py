"""A time that is spread over columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.data.tables import failure, parquet, pasted, read, write

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


def test_a_date_and_a_time_of_day_with_other_names_ask_and_the_fix_works(tmp_path):
    lines = [f"{t.date()},{t.time()},{i}" for i, t in enumerate(HOURS)]
    path = write(tmp_path / "x.csv", "shift,started,v", *lines)

    error = failure(path)

    assert (error.code, error.exit_code) == ("split-time", 4)
    assert read(path, **pasted(error.advice)).panel.start[0] == FIRST_US


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
