"""What the user does not believe becomes missing; what is strange is said, and the fix works."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import UsageError
from tests.builders import wave
from tests.data.tables import pasted, read


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
    fixed = read(table, **pasted(warned.message))
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
    fixed = read(table, **pasted(warned.message))
    assert missing(fixed.panel, 1) == [5, 40, 41, 300]
    assert fixed.warnings == {}


def test_readings_out_of_their_range_are_missing():
    flow, level = wave(100), wave(100, seed=1)
    flow[[3, 70]], level[9] = -50, 1000
    result = read(frame(flow=flow, level=level), valid_range=("flow=0:", "level=:100"))
    assert missing(result.panel, 0) == [3, 70]
    assert missing(result.panel, 1) == [9]
    assert "3 readings" in result.notes


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
