"""Sources of every kind give the same panel: files, folders, patterns, streams, tables."""

import datetime as dt
import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.errors import DataError
from tests.data.tables import failure, few, hourly, read, write

STAMPS = pd.date_range("2024-01-01", periods=6, freq="h")
FRAME = pd.DataFrame({"ts": STAMPS, "a": np.arange(6.0), "b": [1, 2, 3, 4, 5, 6]})


def part(start: int, *, of: str = "a", n: int = 6) -> pa.Table:
    """Make a table of n hours, the first one `start`; the reading is the number of its hour."""
    hours = np.arange(start, start + n)
    stamps = np.datetime64("2024-01-01", "us") + hours.astype("timedelta64[h]")
    return pa.table({"ts": pa.array(stamps), of: hours.astype(np.float64)})


def parquet(path, table: pa.Table):
    """Write a Parquet file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def test_every_source_of_the_same_readings_gives_the_same_panel(tmp_path, monkeypatch):
    expected = read(FRAME).panel.fingerprint()
    FRAME.to_csv(tmp_path / "x.csv", index=False)
    FRAME.to_csv(tmp_path / "x.tsv", index=False, sep="\t")
    FRAME.to_parquet(tmp_path / "x.parquet")
    stream = io.BytesIO((tmp_path / "x.csv").read_bytes())
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream))

    for source in (
        tmp_path / "x.csv",
        str(tmp_path / "x.tsv"),
        tmp_path / "x.parquet",
        "-",
        FRAME.set_index("ts"),
        FRAME.set_index("ts").rename_axis(None),
        FRAME.set_index("ts", drop=False),
        FRAME.assign(ts=FRAME.ts.astype(str)),
        FRAME.assign(ts=FRAME.ts.dt.as_unit("ns")),
        FRAME.convert_dtypes(),
        pa.Table.from_pandas(FRAME),
    ):
        assert read(source).panel.fingerprint() == expected


def test_standard_input_is_named_in_errors(monkeypatch):
    text = "\n".join(["timestamp,temp", *hourly(1, 2, "ERR", 4)])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))

    place = failure("-").location

    assert (place.file, place.line) == ("standard input", 4)


def test_nothing_on_standard_input_is_an_empty_file(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO()))

    assert failure("-").code == "empty"


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


def test_a_stray_file_in_a_folder_is_named(tmp_path):
    parquet(tmp_path / "a.parquet", part(0))
    (tmp_path / "notes.md").write_text("x")

    error = failure(tmp_path)

    assert (type(error), error.code) == (DataError, "unknown-format")
    assert "notes.md" in error.message


def test_a_pattern_takes_the_files_that_match(tmp_path):
    for month, start in (("01", 0), ("02", 6)):
        parquet(tmp_path / f"readings-{month}.parquet", part(start))
    parquet(tmp_path / "other.parquet", part(0, of="z"))

    assert read(str(tmp_path / "readings-*.parquet")).panel.target.tolist() == list(range(12))


def test_several_csv_files_are_one_table_whatever_the_order_of_their_columns(tmp_path):
    write(tmp_path / "1.csv", "timestamp,temp,flow", *hourly("1,5", "2,5"))
    write(tmp_path / "2.csv", "flow;timestamp;temp", *(f"6;2024-01-01 0{h}:00;{h}" for h in (2, 3)))

    panel = read(str(tmp_path / "*.csv")).panel

    assert panel.of(0).tolist() == [1, 2, 2, 3]
    assert panel.of(1).tolist() == [5, 5, 6, 6]


@pytest.mark.parametrize("wrong", ["2024-01-01 02:00,ERR", "2024-01-01 01:00,7"])
def test_of_several_csv_files_the_one_at_fault_is_named(tmp_path, wrong):
    first = write(tmp_path / "1.csv", "timestamp,temp", *hourly(1, 2))
    second = write(tmp_path / "2.csv", "timestamp,temp", wrong, *hourly(4, 5, start=3))
    write(tmp_path / "3.csv", "timestamp,temp", *hourly(6, start=5))

    place = failure(tmp_path).location

    assert (place.file, place.line) in [(str(second), 2), (str(first), 3)]
    assert place.text in (wrong, hourly(1, 2)[1])
    assert "ERR" not in wrong or place.token == "ERR"


def test_csv_files_with_other_columns_are_an_error_that_names_them(tmp_path):
    write(tmp_path / "1.csv", "timestamp,temp", *hourly(1, 2))
    write(tmp_path / "2.csv", "timestamp,tmp", *hourly(1, 2))

    error = failure(tmp_path)

    assert error.code == "different-columns"
    assert error.location.file == str(tmp_path / "2.csv")
    assert "temp, tmp" in error.message


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
    assert panel.target.tolist() == list(range(12))


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_a_parquet_file_that_is_cut_off_is_an_error(tmp_path, keep):
    path = parquet(tmp_path / "x.parquet", part(0))
    path.write_bytes(path.read_bytes()[:keep])

    error = failure(path)

    assert (type(error), error.code) == (DataError, "unreadable")
    assert "cut off" in error.hint


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

    assert read(tmp_path).panel.target.tolist() == list(range(12))


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


def test_an_index_of_series_and_time_is_read_as_columns():
    both = pd.concat([FRAME.assign(id="x"), FRAME.assign(id="y")]).set_index(["id", "ts"])

    assert read(both[["a"]]).panel.names == ("x", "y")


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (FRAME.iloc[:0], "header-only"),
        (FRAME.rename(columns={"b": "a"}), "unreadable"),
        (FRAME.assign(a=[1, "x", 3, 4, 5, 6]), "unreadable"),
        (pa.table([STAMPS, pa.nulls(6), pa.nulls(6)], names=["t", "a", "a"]), "duplicate-column"),
        ([1, 2, 3], "unknown-format"),
    ],
)  # fmt: skip
def test_a_table_in_memory_that_cannot_be_used_is_a_data_error(table, code):
    assert (failure(table).exit_code, failure(table).code) == (4, code)


def test_a_row_of_a_table_is_counted_from_one():
    error = failure(FRAME.assign(ts=FRAME.ts.where(FRAME.index != 3)))

    assert (error.code, error.location.unit, error.location.line) == ("missing-time", "row", 4)


@pytest.mark.parametrize("name", ["no.csv", "no*.csv", "model"])
def test_what_is_not_there_is_said_so(tmp_path, name):
    error = failure(tmp_path / name)

    assert (type(error), error.code) == (DataError, "not-found")
    assert name in error.message


def test_an_empty_folder_and_another_format_are_errors(tmp_path):
    assert failure(tmp_path).code == "empty"
    assert failure(write(tmp_path / "x.json", "{}")).code == "unknown-format"
    assert failure("/dev/null").code == "not-a-file"


readings = st.floats(width=32, allow_nan=False, allow_infinity=False)
columns_of_readings = st.lists(
    st.lists(st.none() | readings, min_size=3).filter(lambda column: set(column) != {None}),
    min_size=1,
    max_size=3,
)


@few
@given(columns_of_readings)
def test_a_panel_survives_csv_and_parquet(tmp_path_factory, columns):
    folder = tmp_path_factory.mktemp("panel")
    length = max(map(len, columns))
    table = {"ts": pa.array(pd.date_range("2024-01-01", periods=length, freq="10min"))}
    for i, column in enumerate(columns):
        table[f"s{i}"] = pa.array(column + [None] * (length - len(column)), pa.float32())
    table = pa.table(table)
    expected = read(table, freq="10min").panel
    pq.write_table(table, folder / "x.parquet")
    table.to_pandas().to_csv(folder / "x.csv", index=False)

    for name in ("x.parquet", "x.csv"):
        panel = read(folder / name, freq="10min").panel
        assert panel.fingerprint() == expected.fingerprint()
