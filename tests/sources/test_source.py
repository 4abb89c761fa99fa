"""Sources of every kind give the same panel: files, folders, patterns, streams, tables."""

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
from tests.data.tables import failure, few, hourly, parquet, part, read, write

STAMPS = pd.date_range("2024-01-01", periods=6, freq="h")
FRAME = pd.DataFrame({"ts": STAMPS, "a": np.arange(6.0), "b": [1, 2, 3, 4, 5, 6]})


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


def test_columns_of_later_parquet_files_are_said_to_be_skipped(tmp_path):
    parquet(tmp_path / "a.parquet", part(0))
    parquet(tmp_path / "b.parquet", part(6))
    assert "different-columns" not in read(tmp_path).warnings
    parquet(tmp_path / "c.parquet", part(12).append_column("new", [[1.5] * 6]))

    result = read(tmp_path)

    assert result.warnings["different-columns"].message == "not in every file, skipped: new"
    assert "new" not in result.schema.targets and len(result.panel.target) == 18


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


def test_a_file_with_a_similar_name_is_offered(tmp_path):
    path = write(tmp_path / "readings-2024.csv", "time,v")
    for name in ("reading-2024.csv", "readings-2024.cvs", "Readings-2024.csv"):
        assert failure(tmp_path / name).hint == f"did you mean {path}?"
    for name in ("levels.csv", "readings-*.txt", "none/readings-2024.csv"):
        assert "did you mean" not in failure(tmp_path / name).hint


def test_an_empty_folder_and_another_format_are_errors(tmp_path):
    assert failure(tmp_path).code == "empty"
    assert failure(write(tmp_path / "x.json", "{}")).code == "unknown-format"
    assert failure("/dev/null").code == "not-a-file"


readings = st.floats(-60_000, 60_000, width=32)  # larger ones may be stored less a base
columns_of_readings = st.lists(
    st.lists(st.none() | readings, min_size=3).filter(lambda column: set(column) != {None}),
    min_size=1,
    max_size=3,
)


def test_sparse_columns_of_a_pandas_table_are_read_as_what_they_hold():
    sparse = FRAME.assign(a=pd.arrays.SparseArray(FRAME["a"]))

    assert read(sparse).panel.fingerprint() == read(FRAME).panel.fingerprint()


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


def test_times_of_a_pandas_column_have_a_zone_all_or_none():
    first, second = pd.Timestamp("2024-01-01", tz="Europe/Berlin"), pd.Timestamp("2024-01-01 01:00")
    frame = pd.DataFrame({"ts": [first, None, second], "a": [1.0, 2.0, 3.0]}, dtype=object)

    error = failure(frame.astype({"a": float}))

    assert (type(error), error.code, error.location.line) == (DataError, "mixed-zones", 3)
