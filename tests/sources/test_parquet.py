"""Parquet files and Arrow tables: types, folders that name values, files that are damaged."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError
from rnnforecast.events import ignore
from rnnforecast.sources.source import open_source
from tests.data.tables import failure, parquet, part, read

HOURS = list(range(12))


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    for name, start in (("b", 6), ("a", 0), ("c", 12)):
        parquet(tmp_path / f"{name}.parquet", part(start))

    panel = read(tmp_path).panel

    assert panel.target.tolist() == list(range(18))


def test_files_that_are_no_readings_are_ignored_by_their_names(tmp_path):
    parquet(tmp_path / "a.parquet", part(0))
    for name in ("_SUCCESS", ".a.parquet.crc", "_metadata.json"):
        (tmp_path / name).write_text("x")
    (tmp_path / "_temporary").mkdir()
    (tmp_path / "_temporary" / "b.parquet").write_text("half")

    assert read(tmp_path).panel.lengths.tolist() == [6]


def test_ids_in_folder_names_stay_text(tmp_path):
    for machine in ("007", "7", "a b"):
        parquet(tmp_path / f"machine={machine}" / "x.parquet", part(0))

    result = read(tmp_path)

    assert result.schema.series == "machine"
    assert sorted(result.panel.names) == ["007", "7", "a b"]


def test_folders_of_a_calendar_are_no_readings(tmp_path):
    for month, start in ((1, 0), (2, 6)):
        parquet(tmp_path / "year=2024" / f"month={month}" / "x.parquet", part(start))

    panel = read(tmp_path).panel

    assert panel.names == ("a",)
    assert panel.target.tolist() == HOURS


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_a_parquet_file_that_is_cut_off_is_an_error(tmp_path, keep):
    path = parquet(tmp_path / "x.parquet", part(0))
    path.write_bytes(path.read_bytes()[:keep])

    error = failure(path)

    assert (type(error), error.code) == (DataError, "unreadable")
    assert "truncated" in error.advice


def test_a_damaged_parquet_file_is_an_error(tmp_path):
    path = parquet(tmp_path / "x.parquet", part(0, n=5000))
    content = bytearray(path.read_bytes())
    content[4:600] = bytes(596)
    path.write_bytes(content)

    assert failure(path).code == "unreadable"


@pytest.mark.parametrize("other", [pa.array([[1.0]] * 6), pa.array(["x"] * 6)])
def test_parquet_files_that_do_not_fit_together_are_an_error(tmp_path, other):
    parquet(tmp_path / "a.parquet", part(0))
    parquet(tmp_path / "b.parquet", part(6).set_column(1, "a", other))

    assert failure(tmp_path).exit_code == 4


def test_whole_numbers_and_fractions_of_several_files_go_together(tmp_path):
    whole = part(0).set_column(1, "a", part(0)["a"].cast("int64"))
    parquet(tmp_path / "a.parquet", whole)
    parquet(tmp_path / "b.parquet", part(6))

    assert read(tmp_path).panel.target.tolist() == HOURS


@pytest.mark.parametrize("type_", ["int8", "uint64", "float16", "float64", pa.decimal128(12, 3)])
def test_every_numeric_type_is_a_target(type_):
    table = part(0)

    panel = read(table.set_column(1, "a", table["a"].cast(type_))).panel

    assert panel.target.tolist() == list(range(6))


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.dictionary("int32", "string")]
)
def test_every_text_type_names_series(type_):
    table = pa.concat_tables([part(0), part(0)])
    names = pa.array(["a"] * 6 + ["b"] * 6).cast(type_)

    assert read(table.append_column("id", names)).panel.names == ("a", "b")


def test_columns_of_other_types_are_left_out():
    table = part(0).append_column("list", pa.array([[1]] * 6)).append_column("n", pa.nulls(6))

    result = read(table)

    assert result.panel.names == ("a",)
    assert "list" in result.notes
    assert result.warnings["empty-column"].count == 1


def test_dates_of_a_table_are_days():
    days = [dt.date(2024, 2, 28) + dt.timedelta(i) for i in range(3)]

    panel = read(pa.table({"day": days, "v": [1.0, 2.0, 3.0]})).panel

    assert panel.step_us == 86_400_000_000
    assert panel.start[0] == np.datetime64("2024-02-28", "us").astype(int)


def test_a_column_that_later_files_lack_is_an_error_that_names_the_file(tmp_path):
    parquet(tmp_path / "a.parquet", part(0))
    second = parquet(tmp_path / "b.parquet", part(6, of="z"))

    error = failure(tmp_path)

    assert (type(error), error.exit_code) == (DataError, 4)
    assert error.location.file == str(second)
    assert "'a'" in error.message


def test_other_columns_of_later_files_do_not_matter(tmp_path):
    parquet(tmp_path / "a.parquet", part(0))
    parquet(tmp_path / "b.parquet", part(6).append_column("z", pa.nulls(6)))

    assert read(tmp_path).panel.target.tolist() == HOURS


def test_the_file_and_its_row_are_named(tmp_path):
    parquet(tmp_path / "a.parquet", part(0))
    wrong = part(6).set_column(1, "a", pa.array([1.0, 2.0, float("inf"), 4.0, 5.0, 6.0]))
    second = parquet(tmp_path / "b.parquet", wrong)

    place = failure(tmp_path).location

    assert (place.file, place.unit, place.line, place.column) == (str(second), "row", 3, "a")


def test_names_that_stand_twice_are_an_error(tmp_path):
    parquet(tmp_path / "x.parquet", part(0).append_column("a", pa.nulls(6)))

    assert failure(tmp_path / "x.parquet").code == "duplicate-column"


def test_a_first_file_without_rows_does_not_decide(tmp_path):
    parquet(tmp_path / "a.parquet", part(0, n=0))
    parquet(tmp_path / "b.parquet", part(0))

    assert read(tmp_path).panel.lengths.tolist() == [6]


def test_files_without_any_row_are_a_data_error(tmp_path):
    parquet(tmp_path / "a.parquet", part(0, n=0))

    assert failure(tmp_path).code == "header-only"


def test_names_with_points_are_read_as_they_are(tmp_path):
    table = part(0, of="temp").append_column("temp.inlet", pa.array(range(6, 12)))
    parquet(tmp_path / "a.parquet", table)

    panel = read(tmp_path / "a.parquet").panel

    assert panel.names == ("temp", "temp.inlet")
    assert panel.target.tolist() == HOURS


def test_a_column_that_a_folder_names_too_stands_once(tmp_path):
    for machine in (7, 8):
        table = part(0).append_column("machine", pa.array([machine] * 6))
        parquet(tmp_path / f"machine={machine}" / "x.parquet", table)

    result = read(tmp_path, series="machine")

    assert result.panel.names == ("7", "8")


def test_the_row_numbers_that_pandas_keeps_are_no_readings(tmp_path):
    frame = part(0).to_pandas()
    frame.index = range(5, 11)
    frame[1:].to_parquet(tmp_path / "x.parquet", index=True)

    assert read(tmp_path / "x.parquet").panel.names == ("a",)


def aware(table, zone="Europe/Berlin"):
    """Give the stamps of a table a zone."""
    stamps = table["ts"].cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us", tz=zone))
    return table.set_column(0, "ts", stamps)


@pytest.mark.parametrize("is_first_aware", [True, False])
def test_files_with_and_without_a_zone_do_not_go_together(tmp_path, is_first_aware):
    for name, start, is_aware in (("a", 0, is_first_aware), ("b", 6, not is_first_aware)):
        table = aware(part(start)) if is_aware else part(start)
        parquet(tmp_path / f"{name}.parquet", table)

    error = failure(tmp_path)

    assert (type(error), error.code) == (DataError, "mixed-zones")
    assert "b.parquet" in error.location.file
    assert not error.proposals, "no option gives only some of the stamps a zone"


def test_dates_beside_stamps_with_a_zone_are_an_error(tmp_path):
    parquet(tmp_path / "a.parquet", aware(part(0)))
    dates = part(6)["ts"].cast(pa.date32())
    parquet(tmp_path / "b.parquet", part(6).set_column(0, "ts", dates))

    assert failure(tmp_path).code == "mixed-zones"


def test_files_in_two_zones_are_one_table_of_instants(tmp_path):
    parquet(tmp_path / "a.parquet", aware(part(0)))
    parquet(tmp_path / "b.parquet", aware(part(6), "Asia/Tokyo"))

    assert read(tmp_path).panel.target.tolist() == HOURS


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary()])
def test_bytes_are_texts_where_they_are_utf_8(type_):
    names = pa.array([b"a", "\u00b0".encode()] * 3, type_)
    assert read(part(0).append_column("id", names), series="id").panel.names == ("a", "\u00b0")

    names = pa.array([b"a", b"\xff"] * 3, type_)
    error = failure(part(0).append_column("id", names), series="id")
    assert (type(error), error.code) == (DataError, "unreadable")


WRAPPED_MS = 2**64 // 1000 + 1_704_067_200_000
"""Milliseconds of which 64 bits of microseconds show the year 2024."""


@pytest.mark.parametrize("form", ["file", "table"])
@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (pa.timestamp("ms"), WRAPPED_MS),
        (pa.timestamp("ms", tz="UTC"), WRAPPED_MS),
        (pa.timestamp("s"), 2**64 // 10**6 + 1_704_067_200),
        (pa.date64(), WRAPPED_MS // 86_400_000 * 86_400_000),
        (pa.date32(), 2**31 - 1),
        (pa.timestamp("us"), 2**62),
        (pa.timestamp("ns"), 2**62),
        (pa.float64(), 1e300),
        (pa.int64(), 2**62),
        (pa.timestamp("s"), -(2**50)),
    ],
)
def test_a_time_that_is_too_large_is_an_error_and_no_other_year(tmp_path, type_, value, form):
    """The year 584,556,019 was read as 2023."""
    per_day = {"s": 86_400, "ms": 86_400_000, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
    unit = getattr(type_, "unit", {pa.date32(): "d", pa.date64(): "ms"}.get(type_, "s"))
    step, first = per_day.get(unit, 1), 19_700 * per_day.get(unit, 1)
    raw = pa.int32() if type_ == pa.date32() else pa.int64()
    days = [first + step * i for i in range(40)]
    numbers = [*days[:20], value, *days[21:]]
    times = pa.array(numbers, type_) if type_ == pa.float64() else pa.array(numbers, raw)
    table = pa.table({"ts": times.cast(type_), "a": [float(i % 7) for i in range(40)]})

    is_number = type_ in (pa.int64(), pa.float64())
    options = {"time": "ts", "time_unit": "s"} if is_number else {}

    data = parquet(tmp_path / "a.parquet", table) if form == "file" else table
    error = failure(data, **options)

    assert error.exit_code == 4
    assert error.code in ("unreadable", "time-range", "future")


def test_a_file_of_many_columns_is_not_opened_again_for_each_hundred(tmp_path, monkeypatch):
    """Opening one reads the names of all columns: a table of 30,000 took three minutes."""
    columns = {f"s{i}": np.ones(3) for i in range(2000)}
    pa_parquet.write_table(pa.table({"t": np.arange(3), **columns}), tmp_path / "x.parquet")
    opened = []
    real = pa_parquet.ParquetFile

    def count(*arguments, **options):
        opened.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(pa_parquet, "ParquetFile", count)
    source = open_source(str(tmp_path / "x.parquet"), DataConfig(), ignore)

    assert len(source.columns) == 2001
    assert len(opened) <= 2


def test_a_file_of_long_texts_alone_has_no_timestamps(tmp_path):
    path = tmp_path / "long.parquet"
    pa_parquet.write_table(pa.table({"t": ["x" * 200_000] * 20}), path)
    assert [column.kind for column in open_source(str(path), DataConfig(), ignore).columns] == [
        "other"
    ]
