"""What the user does not believe becomes missing; what is strange is said, and the fix works."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import UsageError
from tests.builders import wave
from tests.data.tables import failure, pasted, read, write


def frame(**columns: np.ndarray) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"ts": pd.date_range("2024-01-01", periods=n, freq="1h"), **columns})


def missing(panel, series: int = 0) -> list[int]:
    return np.flatnonzero(np.isnan(panel.of(series))).tolist()


def test_readings_like_any_others_are_not_mentioned():
    assert read(frame(a=wave(400), b=wave(400, seed=1))).warnings == {}


def test_a_sensor_that_stands_still_is_said_with_its_times_and_the_fix_works():
    stuck = wave(400)
    stuck[100:160] = stuck[100]
    table = frame(flow=wave(400, seed=1), level=stuck)

    warned = read(table).warnings["stuck-sensor"]

    assert warned.count == 1
    assert "level from 2024-01-05 04:00:00 to 2024-01-07 15:00:00" in warned.message
    fixed = read(table, **pasted(warned.text))
    assert missing(fixed.panel, 1) == list(range(100, 160))
    assert missing(fixed.panel, 0) == []
    assert "60 readings" in fixed.notes
    assert fixed.warnings == {}


def test_a_value_that_means_missing_is_said_and_the_fix_works():
    readings = wave(400)
    readings[[5, 40, 41, 300]] = -200
    table = frame(flow=wave(400, seed=1), level=readings)

    warned = read(table).warnings["sentinel"]

    assert warned.count == 4
    assert "-200 occurs 4 times" in warned.message and "level" in warned.message
    fixed = read(table, **pasted(warned.text))
    assert missing(fixed.panel, 1) == [5, 40, 41, 300]
    assert fixed.warnings == {}


def test_readings_out_of_their_range_are_missing():
    flow, level = wave(100), wave(100, seed=1)
    flow[[3, 70]], level[9] = -50, 1000
    result = read(frame(flow=flow, level=level), valid_range=("flow=0:", "level=:100"))
    assert missing(result.panel, 0) == [3, 70]
    assert missing(result.panel, 1) == [9]
    assert "3 readings" in result.notes


@pytest.mark.parametrize("agg", ["mean", "max", "last"])
def test_readings_that_are_not_believed_go_before_others_are_put_together(tmp_path, agg):
    table = pd.DataFrame({"ts": pd.date_range("2024-01-01", periods=400, freq="15min"), "a": 20.0})
    table.loc[[41, 43], "a"] = 200.0
    bad = write(tmp_path / "bad.csv", "series,from,to", "a,2024-01-01 10:15,2024-01-01 10:30")
    assert read(table, freq="1h", agg=agg).panel.target[10] > 20

    by_range = read(table, freq="1h", agg=agg, valid_range=("a=-40:90",))
    by_time = read(table, freq="1h", agg=agg, valid_range=("a=:90",), exclude=str(bad))

    assert "2 readings" in by_range.notes
    assert set(by_range.panel.target.tolist()) == set(by_time.panel.target.tolist()) == {20.0}


@pytest.mark.parametrize("agg", ["mean", "sum", "last", "max"])
def test_a_counter_counts_as_much_in_longer_steps(agg):
    table = frame(kwh=np.arange(400.0))

    target = read(table, counter=("kwh",), freq="4h", agg=agg).panel.target

    assert target.tolist() == [4.0] * 99


def test_a_range_of_a_long_tables_target_holds_for_all_series_and_one_of_a_series_for_it():
    parts = [frame(v=wave(100, seed=s)).assign(id=name) for s, name in enumerate("ab")]
    for part in parts:
        part.loc[7, "v"] = 99.0
    table = pd.concat(parts)
    both = read(table, series="id", valid_range=("v=0:50",)).panel
    assert (missing(both, 0), missing(both, 1)) == ([7], [7])
    one = read(table, series="id", valid_range=("b=0:50",)).panel
    assert (missing(one, 0), missing(one, 1)) == ([], [7])


def test_a_range_is_in_the_units_of_the_sensor_however_large_they_are():
    readings = 1e8 + wave(100)
    readings[5] = 1e8 + 500
    assert missing(read(frame(a=readings), valid_range=("a=:100000100",)).panel) == [5]


@pytest.mark.parametrize("text", ["temp", "temp=5", "=1:2", "temp=9:1", "temp=a:b"])
def test_a_range_that_cannot_be_meant_is_a_usage_error(text):
    with pytest.raises(UsageError):
        DataConfig(valid_range=(text,))


def test_a_range_of_a_column_that_is_not_there_is_a_usage_error():
    with pytest.raises(UsageError, match="'temp'"):
        read(frame(flow=wave(50)), valid_range=("temp=0:1",))


def test_a_counter_that_is_no_target_is_a_usage_error_with_what_looks_alike():
    error = failure(frame(kwh=3 * np.arange(50.0), kvarh=wave(50)), counter=("KWH",))
    assert (type(error), error.advice) == (UsageError, "use e.g.  --counter kwh")
    table = frame(kwh=np.arange(50.0), other=wave(50))
    assert isinstance(failure(table, target=("other",), counter=("kwh",)), UsageError)


def test_a_counter_becomes_what_it_counts_and_may_begin_anew():
    used = np.abs(wave(300).astype(np.float64)) / 100 + 0.01
    counts = 1_234_567.0 + np.cumsum(used)
    counts[200:] -= counts[200] - used[200]
    result = read(frame(kwh=counts, temp=wave(300)), counter=("kwh",))
    kwh = result.panel.of(0)
    assert np.isnan(kwh[0])  # the row stays, since the other sensor has a reading there
    np.testing.assert_allclose(kwh[1:], used[1:], atol=1e-5)
    np.testing.assert_allclose(result.panel.of(1), wave(300), atol=1e-4)
    assert result.warnings["counter-reset"].count == 1


def test_a_counter_that_falls_a_little_is_missing_there_and_so_are_gaps():
    counts = np.cumsum(np.full(50, 2.0)) + 100
    counts[20] -= 3
    counts[30:33] = np.nan
    result = read(frame(kwh=counts), counter=("kwh",))
    # the first row has no step; without the reading that fell, the step after it has no begin
    assert missing(result.panel) == [19, 20, 29, 30, 31, 32]
    assert set(result.panel.target[np.isfinite(result.panel.target)]) == {2}
    assert result.warnings["counter-fall"].count == 1


def test_each_series_of_a_long_table_has_a_counter_of_its_own():
    parts = [frame(kwh=np.arange(50.0) * (k + 1) + 100 * k).assign(id=k) for k in range(2)]
    result = read(pd.concat(parts), series="id", counter=("kwh",))
    assert [result.panel.of(k).tolist() for k in range(2)] == [[1.0] * 49, [2.0] * 49]
    assert "counter-reset" not in result.warnings


def test_times_that_are_known_to_be_bad_are_missing(tmp_path):
    table = frame(a=wave(100), b=wave(100, seed=1))
    lines = [
        "series,from,to",
        "a,2024-01-01 05:00,2024-01-01 08:00",
        ",2024-01-02,2024-01-02 01:30",
    ]
    lines += [
        "gone,2024-01-01,2024-01-02",
        "b,2020-01-01,2024-01-01 02:00",
        "b,2024-01-05 02:00,2030-01-01",
    ]
    path = write(tmp_path / "bad.csv", *lines)
    result = read(table, exclude=str(path))
    assert missing(result.panel, 0) == [5, 6, 7, 24, 25]
    assert missing(result.panel, 1) == [0, 1, 24, 25, 98, 99]
    assert result.warnings["unknown-series"].message.endswith(": gone")


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (["series,start,end", "a,2024-01-01,2024-01-02"], 1),
        (["series,from,to", "a,2024-01-01,2024-01-02", "a,soon,2024-01-02"], 3),
        (["series,from,to", "a,02.01.2024,2024-01-03"], 2),
        (["series,from,to", "a,2024-01-01,2024-01-02", "a,2024-01-02,2024-01-01"], 3),
        (["series,from,to", ",2024-01-02,2024-01-02"], 2),
        (["series,from,to", "gone,2024-01-02,2024-01-01"], 2),
    ],
)
def test_bad_times_that_cannot_be_read_are_an_error_with_their_line(tmp_path, lines, line):
    error = failure(frame(a=wave(50)), exclude=str(write(tmp_path / "bad.csv", *lines)))
    assert (error.code, error.exit_code, error.location.line) == ("bad-times", 4, line)


def test_bad_times_that_are_not_there_are_an_error(tmp_path):
    error = failure(frame(a=wave(50)), exclude=str(tmp_path / "gone.csv"))

    assert (error.code, error.message.count("cannot read")) == ("bad-times", 1)
    assert "series, from, to" in error.advice
