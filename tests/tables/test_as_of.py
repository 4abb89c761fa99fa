"""What is later than an as-of time changes nothing, but for what is known ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.panel import Panel
from rnnforecast.errors import DataError, NotEnoughDataError
from rnnforecast.events import ignore
from rnnforecast.sources.source import open_source
from rnnforecast.tables.grid import read_panel
from rnnforecast.tables.schema import infer_schema
from tests.builders import wave
from tests.data.tables import write

AS_OF = "2024-01-02 05:20:00"
N_BEFORE = 353
"""Readings every five minutes from 2024-01-01 on until then."""


def read(frame: object, as_of: str = AS_OF, **options: object) -> Panel:
    config = DataConfig(**options)
    source = open_source(frame, config, ignore)
    schema = infer_schema(source, config, ignore)
    return read_panel(source, schema, config, ignore, as_of=as_of)[0]


def frame(n: int = 600, **columns: object) -> pd.DataFrame:
    stamps = pd.date_range("2024-01-01", periods=n, freq="5min")
    return pd.DataFrame({"ts": stamps, "v": wave(n), **columns})


@pytest.mark.parametrize(
    "options", [{}, {"freq": "1h", "agg": "mean"}, {"freq": "1h", "agg": "sum"}, {"tz": "UTC"}]
)
def test_later_readings_change_nothing(options: dict[str, str]) -> None:
    other = frame()
    other.loc[N_BEFORE:, "v"] = 99.0

    found = read(other, **options)

    assert found.fingerprint() == read(frame()[:N_BEFORE], **options).fingerprint()
    assert found.end_us == read(frame(), **options).end_us


def test_a_sensor_that_goes_on_standing_still_later_has_not_done_so_yet() -> None:
    still = frame()
    still.loc[N_BEFORE - 6 :, "v"] = 5.0

    assert np.isfinite(read(still, stuck_as_na="1h").target).all()


def test_all_sensors_of_a_wide_table_end_at_once() -> None:
    table = frame(w=wave(600, seed=1))

    assert read(table).fingerprint() == read(table[:N_BEFORE]).fingerprint()


def test_series_that_begin_later_are_not_there() -> None:
    late = frame(50).assign(ts=lambda f: f.ts + pd.Timedelta(days=10), id="late")
    table = pd.concat([frame().assign(id="early"), late])

    assert read(table, series="id").names == ("early",)
    assert read(table.iloc[::-1], series="id").names == ("early",)


def test_what_is_known_ahead_stays_and_the_rest_does_not() -> None:
    table = frame(setpoint=np.arange(600.0), wind=wave(600, seed=1))
    other = table.copy()
    other.loc[N_BEFORE:, ["v", "wind"]] = 99.0

    found = read(table, known=("setpoint",), past=("wind",))

    assert len(found.target) == N_BEFORE
    assert found.covariates is not None
    known, past = found.covariates.known[0].values[0], found.covariates.past.values[0]
    np.testing.assert_array_equal(known, np.arange(600.0))
    assert np.isfinite(past[:N_BEFORE]).all() and np.isnan(past[N_BEFORE:]).all()
    again = read(other, known=("setpoint",), past=("wind",))
    assert again.fingerprint() == found.fingerprint()


def test_a_static_value_that_changes_later_is_the_one_of_before() -> None:
    table = frame().assign(id="a", size=[1.0] * N_BEFORE + [2.0] * (600 - N_BEFORE))

    covariates = read(table, target=("v",), static=("size",)).covariates

    assert covariates is not None and covariates.static.tolist() == [[1.0]]


def test_errors_name_the_lines_of_the_file_that_rows_are_left_out_of(tmp_path: Path) -> None:
    rows = [f"{time},{name},1" for name in "ab" for time in frame(400)["ts"]]
    rows.insert(1, rows[0])
    rows[450] = rows[449][:-1] + "2"
    path = write(tmp_path / "x.csv", "ts,id,v", *rows)

    with pytest.raises(DataError) as caught:
        read(path)

    assert caught.value.code == "duplicate-time"
    place = caught.value.location
    assert place is not None and (place.line, place.also_lines) == (451, (452,))


def test_a_time_before_all_readings_is_an_error() -> None:
    with pytest.raises(NotEnoughDataError, match="2024-01-01 00:00:00"):
        read(frame(), as_of="2023-12-31 23:59:00")


@pytest.mark.parametrize("as_of", ["2999-01-01", "9999-12-31"])
def test_a_time_that_has_not_come_is_a_usage_error(command, trained, as_of):
    """Its file would be the newest one for ever."""
    words = ("predict", trained / "data.csv", "-m", trained / "model", "-q", "--as-of", as_of)
    outcome = command(*words)
    assert outcome.code == 2 and "is in the future" in outcome.err
    assert command(*words, "--allow-future").code == 0
