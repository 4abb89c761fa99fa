"""A CSV file in blocks: cut where rows end, whatever stands in quotes."""

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.sources import csv as source_csv
from rnnforecast.sources.csv import RowBlocks
from rnnforecast.sources.text import end_of_rows
from tests.data.tables import failure, few, hourly, read, write

HEADER = "timestamp,temp"


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(source_csv, "BLOCK_BYTES", 64)


def blocks_of(text: bytes, n_bytes: int) -> tuple[list[bytes], bytes]:
    """Cut a text into blocks, and return what is left, too."""
    before, source_csv.BLOCK_BYTES = source_csv.BLOCK_BYTES, n_bytes
    try:
        blocks = RowBlocks(io.BytesIO(text), ",")
        found = [bytes(block.rows) for block in blocks]
        rest = (
            b""
            if blocks.remainder is None
            else b"".join(iter(lambda: blocks.remainder.read(7), b""))
        )
    finally:
        source_csv.BLOCK_BYTES = before
    return found, rest


def rows_of(text: bytes) -> list[dict[str, str]]:
    """Read all rows at once, as the slow reference does."""
    table = pa_csv.read_csv(
        pa.BufferReader(text),
        read_options=pa_csv.ReadOptions(column_names=["a", "b"], use_threads=False),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(column_types={"a": pa.string(), "b": pa.string()}),
    )
    return table.to_pylist()


cells = st.text('ab,"\n\r ', max_size=6)


@few
@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=30),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 60),
)
def test_blocks_that_are_read_apart_hold_the_rows_of_the_whole(rows, end, n_bytes):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    whole = text.getvalue().encode()

    found, rest = blocks_of(whole, n_bytes)

    assert b"".join(found) == whole and rest == b""
    assert [row for block in found if block.strip() for row in rows_of(block)] == rows_of(whole)


@few
@given(st.lists(st.text('a,"\n', max_size=6), max_size=30), st.integers(1, 40))
def test_nothing_is_lost_where_quotes_stand_in_odd_places(pieces, n_bytes):
    whole = "\n".join(pieces).encode()

    found, rest = blocks_of(whole, n_bytes)

    assert b"".join(found) + rest == whole
    assert all(block.count(b'"') % 2 == 0 for block in found)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b"a,b\nc", 4),
        (b"a,b", 0),
        (b"a,b\r", 0),  # a line feed may follow
        (b'a,"b\nc"\nd', 8),
        (b'a,"b\nc', 0),
        (b'a,b\nc,"d\n', 4),
        (b'a,"b""c"\n', 9),
        (b'a,5" pipe\nb,c\n', None),
        (b'a,"b"c\n', None),
    ],
)
def test_a_block_ends_with_a_row(text, end):
    assert end_of_rows(text, len(text), b",") == end


@pytest.mark.usefixtures("small_blocks")
def test_a_table_in_many_blocks_reads_as_in_one(tmp_path):
    values = np.arange(300) % 7
    path = write(tmp_path / "x.csv", HEADER, *hourly(*values))

    assert read(path).panel.target.tolist() == values.tolist()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "utf-8-sig"])
def test_every_encoding_is_read_in_blocks(tmp_path, encoding):
    lines = ["timestamp,temp °C", *hourly(*range(100))]
    path = write(tmp_path / "x.csv", *lines, encoding=encoding)

    read_ = read(path)

    assert read_.panel.names == ("temp °C",)
    assert read_.panel.target.tolist() == list(range(100))


@pytest.mark.usefixtures("small_blocks")
def test_rows_after_a_lone_quote_are_read(tmp_path):
    notes = ["x"] * 20 + ['5" pipe'] + ['"a\nb"'] * 20
    lines = [HEADER + ",note", *hourly(*(f"{i},{note}" for i, note in enumerate(notes)))]

    assert read(write(tmp_path / "x.csv", *lines)).panel.target.tolist() == list(range(41))


@pytest.mark.usefixtures("small_blocks")
def test_stamps_of_another_kind_far_down_are_read_as_text(tmp_path):
    lines = [line.replace("2024-01-03 00:00", "2024-01-02 24:00") for line in hourly(*range(72))]

    found = read(write(tmp_path / "x.csv", HEADER, *lines))

    assert found.panel.target.tolist() == list(range(72))
    assert found.warnings["hour-24"].count == 1


@pytest.mark.usefixtures("small_blocks")
def test_a_text_among_numbers_far_down_has_its_line(tmp_path):
    error = failure(write(tmp_path / "x.csv", HEADER, *hourly(*range(90), "ERR", *range(9))))

    assert (error.code, error.location.line) == ("not-a-number", 92)


@pytest.mark.usefixtures("small_blocks")
def test_a_quote_far_down_that_is_never_closed_is_an_error(tmp_path):
    lines = [HEADER + ",note", *hourly(*[f"{i},a" for i in range(40)], '1,"b', "2,c")]

    error = failure(write(tmp_path / "x.csv", *lines))

    assert (error.code, error.location.line) == ("unclosed-quote", 42)
