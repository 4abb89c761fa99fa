"""Forecasts to files and back: the same values in every format, and a file whole or not at all."""

import csv
import datetime as dt
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rnnforecast.data import output
from rnnforecast.data.axis import TimeAxis
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.output import read_forecast, write_table
from rnnforecast.errors import DataError, NotEnoughDataError, WriteError
from tests.builders import HOUR_US, START_US
from tests.data.tables import few, read

LEVELS = (0.025, 0.1, 0.5, 0.9)
WRITTEN = (0.025, 0.1, 0.9)
COLUMNS = ["series", "timestamp", "forecast", "q2.5", "q10", "q90"]

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
awkward = st.text("a,;\"'\r\n\t =é", min_size=1)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def forecasts(draw):
    """Draw a forecast of any series names, values, step and zone."""
    shown = draw(st.lists(names | awkward, min_size=1, max_size=4, unique=True))
    shape = (len(shown), draw(st.integers(1, 4)), len(LEVELS))
    moments = st.integers(START_US // 10**6, START_US // 10**6 + 10**9)
    has_source = draw(st.booleans())
    return Forecast(
        values=np.sort(draw(arrays.arrays(np.float32, shape, elements=finite)), axis=2),
        quantiles=LEVELS,
        names=tuple(shown),
        cutoff_us=np.array([draw(moments) * 10**6 for _ in shown], np.int64),
        step_us=draw(st.sampled_from([1, 250_000, 60_000_000, HOUR_US])),
        axis=TimeAxis(draw(st.sampled_from([None, "UTC", "+05:30", "Europe/Vienna"]))),
        source=tuple("network" for _ in shown) if has_source else None,
    )


def expected_rows(forecast: Forecast) -> list[tuple]:
    """List what a file must hold: series, moment in microseconds, values, source."""
    return [
        (
            forecast.names[i],
            int(forecast.cutoff_us[i]) + (lead + 1) * forecast.step_us,
            *(forecast.values[i, lead, at] for at in (2, 0, 1, 3)),
            *(() if forecast.source is None else (forecast.source[i],)),
        )
        for i in range(len(forecast.names))
        for lead in range(forecast.horizon)
    ]


def moment_us(text: str, forecast: Forecast) -> int:
    """Read a stamp as microseconds; it carries an offset exactly where the forecast has a zone."""
    stamp = dt.datetime.fromisoformat(text)
    assert (stamp.tzinfo is None) == (forecast.axis.tz is None)
    since = stamp.replace(tzinfo=stamp.tzinfo or dt.UTC) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(microseconds=1)


def small(**changes: object) -> Forecast:
    """Make the forecast of one series, two steps."""
    values = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    options = {"names": ("a",), "cutoff_us": np.array([START_US]), "step_us": HOUR_US} | changes
    return Forecast(values=values, quantiles=LEVELS, **options)


@few
@given(forecasts())
def test_a_csv_file_holds_the_forecast(tmp_path_factory, forecast):
    path = tmp_path_factory.mktemp("out") / "f.csv"
    write_table(forecast.to_arrow(WRITTEN), str(path))

    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)

    assert header == COLUMNS + ["source"] * (forecast.source is not None)
    found = [
        (name, moment_us(stamp, forecast), *map(np.float32, cells[:4]), *cells[4:])
        for name, stamp, *cells in rows
    ]
    assert found == expected_rows(forecast)


@few
@given(forecasts())
def test_a_json_lines_file_holds_the_forecast(tmp_path_factory, forecast):
    path = tmp_path_factory.mktemp("out") / "f.jsonl"
    write_table(forecast.to_arrow(WRITTEN), str(path))

    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]

    assert list(rows[0]) == COLUMNS + ["source"] * (forecast.source is not None)
    found = [
        (row["series"], moment_us(row["timestamp"], forecast), *list(row.values())[2:])
        for row in rows
    ]
    assert found == expected_rows(forecast)


@few
@given(forecasts())
def test_a_parquet_file_holds_the_forecast(tmp_path_factory, forecast):
    path = tmp_path_factory.mktemp("out") / "f.parquet"
    write_table(forecast.to_arrow(WRITTEN), str(path))

    table = pq.read_table(path)

    assert table.equals(forecast.to_arrow(WRITTEN))
    assert table.schema.field("timestamp").type == pa.timestamp("us", tz=forecast.axis.tz)
    moments = table["timestamp"].cast(pa.int64())
    columns = table.set_column(1, "timestamp", moments).to_pydict().values()
    assert list(zip(*columns, strict=True)) == expected_rows(forecast)


@few
@given(forecasts())
def test_the_same_forecast_gives_the_same_bytes(tmp_path_factory, forecast):
    folder = tmp_path_factory.mktemp("out")
    for ending in ("csv", "jsonl", "parquet"):
        for name in "ab":
            write_table(forecast.to_arrow(WRITTEN), str(folder / f"{name}.{ending}"))

        assert (folder / f"a.{ending}").read_bytes() == (folder / f"b.{ending}").read_bytes()


@few
@given(st.lists(awkward, min_size=2, max_size=4, unique=True))
def test_a_written_forecast_can_be_read_as_readings(tmp_path_factory, shown):
    path = tmp_path_factory.mktemp("out") / "f.csv"
    values = np.random.default_rng(0).normal(size=(len(shown), 3, 4)).astype(np.float32)
    forecast = small(names=tuple(shown), cutoff_us=np.full(len(shown), START_US))
    forecast = Forecast(**{**vars(forecast), "values": values})
    write_table(forecast.to_arrow(WRITTEN), str(path))

    panel = read(path, sep=",", series="series", target=("forecast",)).panel

    assert panel.names == tuple(shown)
    np.testing.assert_array_equal(panel.target, forecast.point.ravel())
    assert panel.start[0] == START_US + HOUR_US


def test_only_the_quantiles_asked_for_are_written():
    table = small().to_arrow((0.9,))

    assert table.column_names == ["series", "timestamp", "forecast", "q90"]
    assert table["forecast"].to_pylist() == [2, 6]
    assert table["q90"].to_pylist() == [3, 7]


def test_a_quantile_that_the_forecast_does_not_hold_is_an_error():
    with pytest.raises(ValueError):
        small().to_arrow((0.3,))


def test_plain_names_are_written_without_quotes(tmp_path):
    write_table(small().to_arrow((0.1,)), str(tmp_path / "f.csv"))

    assert (tmp_path / "f.csv").read_text() == (
        "series,timestamp,forecast,q10\na,2024-01-01 01:00:00,2,1\na,2024-01-01 02:00:00,6,5\n"
    )


def test_standard_output_gets_csv(capsys, tmp_path):
    write_table(small().to_arrow(WRITTEN), "-")
    write_table(small().to_arrow(WRITTEN), str(tmp_path / "f.csv"))

    assert capsys.readouterr().out == (tmp_path / "f.csv").read_text()


def test_the_ending_may_be_in_capitals(tmp_path):
    write_table(small().to_arrow(WRITTEN), str(tmp_path / "F.PARQUET"))

    assert pq.read_table(tmp_path / "F.PARQUET").num_rows == 2


def test_a_zone_is_written_with_the_offset_of_each_season(tmp_path):
    cutoff = pd.Timestamp("2024-10-27 02:30", tz="UTC").timestamp() * 10**6 - 2 * HOUR_US
    forecast = small(axis=TimeAxis("Europe/Vienna"), cutoff_us=np.array([int(cutoff)]))
    write_table(forecast.to_arrow(()), str(tmp_path / "f.csv"))

    rows = list(csv.reader(io.StringIO((tmp_path / "f.csv").read_text())))

    assert [row[1] for row in rows[1:]] == [
        "2024-10-27 02:30:00+01:00",
        "2024-10-27 03:30:00+01:00",
    ]


def test_a_forecast_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    def write_half(_table, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(output._WRITE, ".csv", write_half)
    path = tmp_path / "f.csv"
    path.write_text("old")

    with pytest.raises(WriteError, match="No space left"):
        write_table(small().to_arrow(WRITTEN), str(path))

    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["f.csv"]


def test_a_folder_that_is_missing_is_a_write_error(tmp_path):
    with pytest.raises(WriteError) as caught:
        write_table(small().to_arrow(WRITTEN), str(tmp_path / "no" / "f.csv"))

    assert caught.value.exit_code == 7
    assert "no/f.csv" in caught.value.message


FORECAST_LINE = {"series": "a", "timestamp": "2024-01-01T00:00", "forecast": 1.5}
DEEP = 100_000


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", "null", "  null\n", "[]", "{}", "1", '""', "true", "[{}]", "nul", "\0", "{"),
        'null\n{"series": "a"}',
        "[" * DEEP,
        '{"series":' * DEEP + "1" + "}" * DEEP,
        '{"series":' + "[" * DEEP + "]" * DEEP + "}",
        *(json.dumps({**FORECAST_LINE, name: {"a": [1]}}) for name in FORECAST_LINE),
        *(json.dumps({**FORECAST_LINE, name: None}) for name in ("series", "timestamp")),
        json.dumps({**FORECAST_LINE, "timestamp": "584556019-04-03"}),
        json.dumps({**FORECAST_LINE, "timestamp": 1e300}),
        json.dumps(FORECAST_LINE) + "\nnull\n",
    ],
    ids=lambda text: text[:20],
)
def test_lines_that_are_no_forecast_are_an_error_of_the_data(tmp_path: Path, text: str) -> None:
    """Arrow's reader ended the process at `null`, and at a deep one."""
    path = tmp_path / "forecast.jsonl"
    path.write_text(text)
    with pytest.raises((DataError, NotEnoughDataError)) as caught:
        read_forecast(path)
    assert caught.value.exit_code in (4, 5)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_pipe_is_no_forecast(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"forecast.{ending}"
    os.mkfifo(path)
    with pytest.raises(DataError, match="regular"):
        read_forecast(path)
