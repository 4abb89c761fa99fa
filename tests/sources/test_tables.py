"""JSON lines, Excel sheets, Arrow files and queries: the same readings give the same panel."""

from __future__ import annotations

import gzip
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as pa_feather
import pytest

import rnnforecast
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import Config, TrainConfig
from rnnforecast.errors import DataError, UsageError
from rnnforecast.sources.source import open_source, take_head
from rnnforecast.urls import parse_database
from tests.data.tables import failure, pasted, read

STAMPS = pd.date_range("2024-01-01", periods=40, freq="h")
FRAME = pd.DataFrame({"ts": STAMPS, "a": np.arange(40) % 9 + 0.5, "b": np.arange(40) * 2})


def json_lines(path: Path, rows: list[dict[str, Any]], *, between: str = "\n") -> Path:
    text = between.join(map(json.dumps, rows)) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def rows(**columns: list[Any]) -> list[dict[str, Any]]:
    """Return a row for each value of the columns, with its hour."""
    return [
        {"ts": str(stamp), **dict(zip(columns, values, strict=True))}
        for stamp, values in zip(STAMPS, zip(*columns.values(), strict=True), strict=False)
    ]


def sqlite(path: Path, **tables: pd.DataFrame) -> str:
    with closing(sqlite3.connect(path)) as connection:
        for name, frame in tables.items():
            frame.to_sql(name, connection, index=False)
        connection.commit()
    return f"sqlite:///{path}"


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> dict[str, pd.DataFrame]:
    """What pandas reads from any Excel file: sheets by name, without headers, as it gives them."""
    frames: dict[str, pd.DataFrame] = {}

    def read_excel(_file: object, **options: object) -> dict[str, pd.DataFrame]:
        assert options["header"] is None and options["na_filter"] is False
        return frames

    monkeypatch.setattr(pd, "read_excel", read_excel)
    return frames


def sheet(*lines: list[object]) -> pd.DataFrame:
    return pd.DataFrame(list(lines), dtype=object)


TABLE = sheet(
    ["ts", "a", "b"], *([t.to_pydatetime(), *ab] for t, *ab in FRAME.itertuples(index=False))
)


def test_every_format_gives_the_same_panel(tmp_path: Path, sheets: dict[str, pd.DataFrame]) -> None:
    expected = read(FRAME).panel.fingerprint()
    records = [{"ts": str(t), "a": a, "b": b} for t, a, b in FRAME.itertuples(index=False)]
    json_lines(tmp_path / "a.jsonl", records)
    json_lines(tmp_path / "b.ndjson.gz", records, between="\n\n")
    pa_feather.write_feather(FRAME, tmp_path / "c.feather")
    table = pa.Table.from_pandas(FRAME)
    with pa.ipc.new_stream(str(tmp_path / "d.arrow"), table.schema) as writer:
        writer.write_table(table)
    sheets["Data"] = TABLE
    (tmp_path / "e.xlsx").write_bytes(b"PK")
    database = sqlite(tmp_path / "f.db", readings=FRAME.astype({"ts": str}))

    for path in sorted(tmp_path.glob("[a-e].*")):
        assert read(path).panel.fingerprint() == expected, path
    assert read(database, query="select * from readings").panel.fingerprint() == expected


def test_a_missing_key_and_null_are_missing_readings(tmp_path: Path) -> None:
    table = rows(a=[1.5, None, 3.0, "NaN", 5.0])
    del table[2]["a"]

    panel = read(json_lines(tmp_path / "a.jsonl", table)).panel

    assert np.isnan(panel.target).tolist() == [False, True, True, True, False]


def test_objects_within_objects_are_flattened(tmp_path: Path) -> None:
    table = [
        {"ts": r["ts"], "x": {"temp": 1.0 + n, "unit": {"k": "C"}}}
        for n, r in enumerate(rows(a=[1] * 9))
    ]
    names = [
        c.name for c in open_source(json_lines(tmp_path / "a.jsonl", table), DataConfig()).columns
    ]
    assert sorted(names) == ["ts", "x.temp", "x.unit.k"]

    table[3]["x"] = {"temp": "ERR"}
    error = failure(json_lines(tmp_path / "b.jsonl", table))
    assert (error.code, error.location.column) == ("not-a-number", "x.temp")


@pytest.mark.parametrize("offset", ["Z", "+02:00"])
def test_the_zone_of_stamps_is_not_lost(tmp_path: Path, offset: str) -> None:
    table = [{"ts": f"{t:%Y-%m-%dT%H:%M:%S}{offset}", "a": float(n)} for n, t in enumerate(STAMPS)]

    result = read(json_lines(tmp_path / "a.jsonl", table))

    pd.DataFrame(table).to_csv(tmp_path / "a.csv", index=False)
    as_text = read(tmp_path / "a.csv")
    assert result.schema.tz is not None and result.schema.tz == as_text.schema.tz
    assert result.panel.fingerprint() == as_text.panel.fingerprint()


def test_a_text_among_numbers_is_an_error_with_its_line_and_a_fix(tmp_path: Path) -> None:
    table = rows(a=[1.0, 2.0, "ERR", 4.0, "ERR", 6.0])
    path = json_lines(tmp_path / "a.jsonl", table, between="\n\n")

    error = failure(path)

    assert error.location.line == 5 and error.location.token == '"ERR"'
    assert [proposal.options for proposal in error.proposals] == [("--na-values", "ERR")]
    assert np.isnan(read(path, na_values=("ERR",)).panel.target).sum() == 2


def test_later_errors_have_the_line_of_their_row(tmp_path: Path) -> None:
    table = [*rows(a=[1.0, 2.0, 3.0]), {"ts": "2024-01-01 00:00:00", "a": 9.0}]

    error = failure(json_lines(tmp_path / "a.jsonl", table, between="\n\n"))

    assert (error.code, error.location.line, error.location.unit) == ("duplicate-time", 1, "line")
    assert error.location.also_lines == (7,)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ('{"ts": 1}\n{"ts": 2', "not-json", 2),
        ('{"ts": 1}\n\n7\n', "not-json", 3),
        ('[{"ts": 1}]', "unknown-format", 1),
        (" \n", "empty", None),
        ('{"a": 1, "b": {"c": 2}, "b.c": 3}\n', "duplicate-column", None),
        ("{}\n{}\n", "no-time-column", None),
    ],
)
def test_what_is_no_table_is_an_error(
    tmp_path: Path, text: str, code: str, line: int | None
) -> None:
    (tmp_path / "a.jsonl").write_text(text)

    error = failure(tmp_path / "a.jsonl")

    assert (error.code, error.exit_code) == (code, 4)
    assert line is None or error.location.line == line


def test_a_packed_file_that_is_cut_off_or_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl.gz", rows(a=list(range(40))))
    assert failure(path, max_input_bytes="100").code == "input-bytes"

    path.write_bytes(path.read_bytes()[:-30])
    assert failure(path).code == "truncated"


def test_the_first_sheet_with_a_table_is_read_and_the_others_are_named(
    tmp_path: Path, sheets: dict[str, pd.DataFrame]
) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"PK")
    other = sheet(["ts", "c"], *([t, 7.0] for t in STAMPS))
    sheets |= {"Info": sheet(["Plant 7"]), "Data": TABLE, "More": other}

    result = read(path)
    assert result.panel.names == ("a", "b")
    assert "reading sheet 'Data', not 'More'" in result.notes

    assert read(path, sheet="More").panel.names == ("c",)
    error = failure(path, sheet="Dta")
    assert [proposal.options for proposal in error.proposals] == [
        ("--sheet", "Data"),
        ("--sheet", "More"),
    ]


def test_empty_rows_and_columns_of_a_sheet_are_left_out_and_lines_are_its_rows(
    tmp_path: Path, sheets: dict[str, pd.DataFrame]
) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"PK")
    lines = [["", t, n, ""] for n, t in enumerate(STAMPS)]
    lines[5][2] = "ERR"
    sheets["S"] = sheet(["", "", "", ""], ["", "ts", "flow", ""], *lines)

    error = failure(path)

    assert (error.location.file, error.location.line) == (f"sheet 'S' of {path}", 8)
    assert read(path, na_values=("ERR",)).panel.names == ("flow",)


def test_a_large_sheet_can_be_read_in_part(tmp_path: Path, sheets: dict[str, pd.DataFrame]) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    sheets["Data"] = TABLE

    head = take_head(open_source(str(tmp_path / "a.xlsx"), DataConfig()), 60)

    assert 5 < sum(batch.num_rows for batch in head.batches({"a": pa.float64()})) < 30


def test_a_file_that_is_no_excel_file_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl", reason="the extra excel is not installed")
    (tmp_path / "a.xlsx").write_text("ts,a\n1,2\n")

    assert failure(tmp_path / "a.xlsx").code == "unreadable"


def test_a_real_excel_file(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl", reason="the extra excel is not installed")
    FRAME.to_excel(tmp_path / "a.xlsx", index=False)

    assert read(tmp_path / "a.xlsx").panel.fingerprint() == read(FRAME).panel.fingerprint()


@pytest.mark.parametrize(
    ("data", "package", "extra"),
    [("a.xlsx", "openpyxl", "excel"), ("duckdb:a.xlsx", "duckdb", "sql")],
)
def test_a_missing_package_is_a_usage_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, package: str, extra: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.xlsx").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, package, None)

    error = failure(data, query="select 1")

    assert isinstance(error, UsageError)
    assert f"pip install 'rnnforecast[{extra}]'" in error.hint


def test_a_database_without_a_query_offers_its_tables(tmp_path: Path) -> None:
    text = FRAME.astype({"ts": str})
    notes = pd.DataFrame({"note": ["pump serviced"]})
    database = sqlite(tmp_path / "a.db", notes=notes, readings=text)

    error = failure(database)
    assert (error.code, error.exit_code) == ("no-query", 4)

    with pytest.raises(rnnforecast.RnnForecastError) as caught:
        rnnforecast.check(database)
    offered = [proposal.options for proposal in caught.value.proposals]
    assert offered == [("--query", 'select * from "readings"')], (
        "the notes are no table of readings"
    )


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("selec 1", "query"),
        ("delete from readings", "query"),
        ("select 1; select 2", "query"),
        ("select a, a from readings", "duplicate-column"),
        ("select * from readings where a < 0", "header-only"),
    ],
)
def test_a_query_that_returns_no_table_is_an_error(tmp_path: Path, query: str, code: str) -> None:
    database = sqlite(tmp_path / "a.db", readings=FRAME.astype({"ts": str}))
    before = (tmp_path / "a.db").read_bytes()

    error = failure(database, query=query)

    assert (error.code, error.exit_code) == (code, 4)
    assert (tmp_path / "a.db").read_bytes() == before


def test_a_column_of_a_database_may_hold_anything(tmp_path: Path) -> None:
    mixed = [1, 2.5, None, "", *range(36)]
    database, query = f"sqlite:///{tmp_path}/a.db", "select ts, a from readings"
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("create table readings (ts, a)")
        pairs = zip(STAMPS.astype(str), mixed, strict=True)
        connection.executemany("insert into readings values (?, ?)", pairs)
        connection.commit()
        assert np.isnan(read(database, query=query).panel.target).sum() == 2

        connection.execute("update readings set a = 'broken' where rowid = 10")
        connection.commit()
    error = failure(database, query=query)
    assert (error.location.line, error.location.unit) == (10, "row")


def test_a_database_that_is_missing_or_none_is_an_error(tmp_path: Path) -> None:
    database, query = f"sqlite:///{tmp_path}/a.db", "select * from readings"
    assert failure(database, query=query).code == "not-found"

    (tmp_path / "a.db").write_text("ts,a\n" * 50)
    assert failure(database, query=query).code == "query"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///a.db", "a.db"),
        ("sqlite:////tmp/a.db", "/tmp/a.db"),
        ("duckdb:a.db", "a.db"),
        ("duckdb:/tmp/a b.db", "/tmp/a b.db"),
        ("sqlite://host/a.db", None),
        ("a.db", None),
        ("s3://bucket/sqlite:a", None),
    ],
)
def test_a_database_is_told_from_a_path_and_a_url(text: str, path: str | None) -> None:
    database = parse_database(text)

    assert (database and database.path) == path
    assert database is None or parse_database(str(database)) == database


def test_duckdb_is_asked_to_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    class Connection:
        def execute(self, query: str) -> Connection:
            calls.append(query)
            return self

        def fetch_arrow_table(self) -> pa.Table:
            return pa.Table.from_pandas(FRAME)

        def close(self) -> None:
            calls.append("closed")

    def connect(path: str, *, read_only: bool) -> Connection:
        calls.append((path, read_only))
        return Connection()

    monkeypatch.setitem(sys.modules, "duckdb", SimpleNamespace(connect=connect, Error=KeyError))
    (tmp_path / "a.db").touch()

    panel = read(f"duckdb:{tmp_path}/a.db", query="select 7").panel

    assert panel.fingerprint() == read(FRAME).panel.fingerprint()
    assert calls == [(f"{tmp_path}/a.db", True), "select 7", "closed"]


def test_a_model_reads_its_database_again_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.concat([FRAME.assign(ts=FRAME.ts + pd.Timedelta(hours=40 * n)) for n in range(9)])
    sqlite(tmp_path / "a.db", readings=frame.astype({"ts": str}))
    monkeypatch.chdir(tmp_path)
    options = DataConfig(query="select ts, a from readings")
    config = Config(options, training=TrainConfig(steps=1, epochs=1))
    rnnforecast.train("sqlite:///a.db", model=tmp_path / "m", config=config, report=False)

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    prediction = rnnforecast.predict(model=tmp_path / "m")

    assert prediction.forecast.names == ("a",)


def test_an_ending_that_is_not_known_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tsf").write_text("@data")

    error = failure(tmp_path / "a.tsf")

    assert error.code == "unknown-format"
    assert all(text in error.hint for text in (".csv", ".parquet", ".jsonl", ".xlsx", "sqlite:///"))


TEXTS = [f"{i % 37}.{i % 10}" for i in range(60)]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "pandas"])
@pytest.mark.parametrize("mark", [".", ","])
def test_measurements_that_a_table_calls_texts_are_numbers(tmp_path, kind, mark):
    stamps = [str(stamp) for stamp in pd.date_range("2024-01-01", periods=60, freq="h")]
    texts = [None if i == 7 else text.replace(".", mark) for i, text in enumerate(TEXTS)]
    table = pd.DataFrame({"ts": stamps, "v": texts, "w": range(60)}).astype({"v": object})
    data = table
    if kind == "parquet":
        table.to_parquet(data := tmp_path / "x.parquet")
    elif kind == "jsonl":
        table.to_json(data := tmp_path / "x.jsonl", orient="records", lines=True)
    result = read(data)
    expected = [np.nan if i == 7 else float(text) for i, text in enumerate(TEXTS)]
    np.testing.assert_allclose(result.panel.of(result.panel.names.index("v")), expected, rtol=1e-6)


@pytest.mark.parametrize("names", [["1.1", "1.2", "2.1"], ["007", "12", "1044"]])
def test_names_that_look_like_numbers_stay_names(tmp_path, names):
    rows = [(f"2024-01-01 {h:02d}:00", name, h) for h in range(20) for name in names]
    table = pd.DataFrame(rows, columns=["ts", "channel", "v"])
    table.to_parquet(path := tmp_path / "x.parquet")
    assert set(read(path).panel.names) == set(names)


def test_another_text_among_numbers_is_named_and_the_fix_works(tmp_path):
    stamps = pd.date_range("2024-01-01", periods=60, freq="h")
    texts = ["offline" if i == 9 else text for i, text in enumerate(TEXTS)]
    pd.DataFrame({"ts": stamps, "v": texts}).to_parquet(path := tmp_path / "x.parquet")
    error = failure(path)
    assert (error.code, pasted(error.advice)["na_values"]) == ("not-a-number", ("offline",))
    assert np.isnan(read(path, na_values=("offline",)).panel.target).sum() == 1


@pytest.mark.parametrize(
    "line",
    ["null", " null", "[]", "1", '""', '{"a": 1} null', '{"a": 1}{"a": 2}', '{"a":' * 100_000],
    ids=lambda line: line[:16],
)
@pytest.mark.parametrize("place", [0, 1, 40])
def test_a_line_that_is_no_object_is_an_error_wherever_it_stands(
    tmp_path: Path, line: str, place: int
) -> None:
    """Arrow's reader ended the process at `null`, and at a deep one."""
    texts = [json.dumps(row) for row in rows(a=list(range(40)))]
    (tmp_path / "a.jsonl").write_text("\n".join([*texts[:place], line, *texts[place:]]) + "\n")
    error = failure(tmp_path / "a.jsonl")
    assert error.code in ("not-json", "unknown-format") and error.location.line == place + 1


def test_objects_a_few_hundred_levels_deep_are_an_error_or_a_column(tmp_path: Path) -> None:
    for depth in (300, 900, 1100):
        deep = '{"a":' * depth + "1" + "}" * depth
        lines = [json.dumps(row)[:-1] + f', "deep": {deep}}}' for row in rows(a=list(range(40)))]
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        try:
            read(tmp_path / "a.jsonl")
        except DataError as error:
            assert error.code == "not-json"
