"""Files that change between the first look at them and the last byte."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError
from rnnforecast.events import Event, InputRead, Recorder, WarningEvent, ignore
from rnnforecast.sources import csv
from rnnforecast.sources.inputs import InputFile, reading
from rnnforecast.sources.source import Source, open_source


def changed_by(path: Path, change: Callable[[], object]) -> list[Event]:
    """Return what is reported where a file changes after it was read."""
    heard: list[Event] = []
    file = InputFile.of(path)
    with reading([file], heard.append), file.open() as stream:
        stream.read()
        change()
    return [event for event in heard if not isinstance(event, InputRead)]


def test_a_file_that_stays_as_it_is_is_not_mentioned(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n")
    assert changed_by(path, path.read_text) == []


def test_a_file_whose_time_or_mode_changes_is_not_mentioned(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n")
    assert changed_by(path, lambda: (os.utime(path, (1, 1)), path.chmod(0o600))) == []


def test_a_file_that_grows_is_said(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n")

    def append() -> None:
        with path.open("a") as file:
            file.write("1,2\n")

    (warned,) = changed_by(path, append)
    assert isinstance(warned, WarningEvent) and warned.code == "growing"


def rewrite_keeping_the_time(path: Path, text: str) -> None:
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+") as file:
        file.write(text)
    os.utime(path, ns=times)


@pytest.mark.parametrize("how", ["replaced", "longer", "same size", "shortened", "removed"])
def test_a_file_that_is_not_the_same_any_more_is_an_error(tmp_path, how):
    path, other = tmp_path / "x.csv", tmp_path / "y.csv"
    path.write_text("a,b\n")
    other.write_text("a,b\n1,2\n")
    changes: dict[str, Callable[[], object]] = {
        "replaced": lambda: other.replace(path),
        "longer": lambda: path.write_text("c,b\n1,2\n"),
        "same size": lambda: rewrite_keeping_the_time(path, "c,b\n"),
        "shortened": lambda: path.write_text("a"),
        "removed": path.unlink,
    }
    with pytest.raises(DataError) as caught:
        changed_by(path, changes[how])
    assert caught.value.exit_code == 4
    assert caught.value.location is not None and caught.value.location.file == str(path)


def rows_of(n: int, value: int, begin: int = 0) -> str:
    return "".join(f"{i},{value}\n" for i in range(begin, begin + n))


TYPES = {"t": pa.float64(), "x": pa.float64()}


def opened(path: Path) -> Source:
    return open_source(str(path), DataConfig())


def read_values(source: Source, listener: Callable[[Event], object] = ignore) -> list[float]:
    """Return the readings, of `x`, as a command reads them."""
    values: list[float] = []
    with reading(source.inputs, listener):
        for batch in source.batches(TYPES):
            values += batch.column("x").to_pylist()
    return values


@pytest.fixture
def small_blocks() -> Iterator[None]:
    with mock.patch.object(csv, "BLOCK_BYTES", 1 << 10):
        yield


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("is_packed", [False, True])
def test_no_reading_mixes_an_old_and_a_new_content(tmp_path, is_packed):
    """Rewritten in place, and one row longer, while the first half is read: this was accepted."""
    path = tmp_path / ("x.csv.gz" if is_packed else "x.csv")
    pack = gzip.compress if is_packed else bytes
    # numbers that do not pack, so that the file is longer than what is read ahead
    digits = hashlib.shake_256(b"x").hexdigest(200_000)
    old = "".join(f"{i},1{int(digits[8 * i : 8 * i + 8], 16)}\n" for i in range(50_000))
    path.write_bytes(pack(f"t,x\n{old}".encode()))
    source = opened(path)
    new = pack(f"t,x\n{old}50000,1\n".replace(",1", ",2").encode())
    with pytest.raises(DataError, match="rewritten") as caught, reading(source.inputs, ignore):
        for i, _batch in enumerate(source.batches(TYPES)):
            if i == 0:
                path.write_bytes(new)
    assert caught.value.code == "changed"


def test_a_file_that_is_exchanged_between_sniffing_and_reading_is_an_error(tmp_path):
    """Two files with the same columns in another order: x and y were exchanged, without a word."""
    path, other = tmp_path / "x.csv", tmp_path / "other.csv"
    path.write_text("t,x,y\n" + "1,2,3\n" * 9)
    other.write_text("t,y,x\n" + "1,3,2\n" * 9)
    source = opened(path)
    other.replace(path)
    with pytest.raises(DataError, match="replaced"):
        read_values(source)


def test_a_file_that_is_rewritten_in_place_between_sniffing_and_reading_is_an_error(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("t,x,y\n" + "1,2,3\n" * 9)
    source = opened(path)
    path.write_text("t,y,x\n" + "1,3,2\n" * 10)
    with pytest.raises(DataError, match="rewritten"):
        read_values(source)


def test_only_what_was_there_at_first_is_read(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("t,x\n" + rows_of(20, 1))
    source = opened(path)
    with path.open("a") as file:
        file.write(rows_of(100_000, 2, begin=20))
    heard = Recorder(ignore)
    assert read_values(source, heard) == [1.0] * 20
    assert [warning.code for warning in heard.warnings] == ["growing"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_last_row_that_is_still_being_written_is_left_out(tmp_path, end):
    """A logger writes in blocks, whose last row is torn: 12.34 may be there as 12.3."""
    path = tmp_path / "x.csv"
    path.write_text(f"t,x\n{rows_of(20, 1)}20,12.3".replace("\n", end), newline="")
    source = opened(path)
    with path.open("a", newline="") as file:
        file.write(f"4{end}")
    assert read_values(source) == [1.0] * 20


def test_a_last_row_without_a_line_end_counts_where_nobody_writes(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f"t,x\n{rows_of(20, 1)}20,12.3")
    assert read_values(opened(path))[-1] == 12.3


def test_a_last_line_of_json_that_is_still_being_written_is_left_out(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(f'{{"t": {i}, "x": 1}}\n' for i in range(20)) + '{"t": 20, "x')
    with mock.patch.object(InputFile, "has_grown", lambda _file: True):
        assert read_values(opened(path)) == [1.0] * 20


def test_a_parquet_file_that_is_written_anew_is_an_error(tmp_path):
    path = tmp_path / "x.parquet"
    table = pa.table({"t": [1.0, 2.0], "x": [1.0, 1.0]})
    pa_parquet.write_table(table, path)
    source = opened(path)
    pa_parquet.write_table(pa.concat_tables([table, table]), path)
    with pytest.raises(DataError, match="rewritten"):
        read_values(source)


def test_a_pipe_that_takes_the_name_of_a_file_is_no_hang(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("t,x\n" + rows_of(20, 1))
    source = opened(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError):
        read_values(source)


def test_a_manifest_names_what_was_read_and_not_what_came_later(tmp_path):
    path = tmp_path / "x.csv"
    content = f"t,x\n{rows_of(20, 1)}".encode()
    path.write_bytes(content)
    heard = Recorder(ignore)
    read_values(opened(path), heard)
    (file,) = heard.inputs.values()
    entry = {
        "path": str(path),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }

    assert file.describe() == entry
    path.write_text("another")
    assert file.describe() == entry
    path.unlink()
    assert file.describe() == entry


def test_a_table_that_is_gone_when_it_is_described_has_no_hash_of_another_one(tmp_path):
    """Parquet files are read in parts, so they are hashed only where a manifest needs it."""
    path = tmp_path / "x.parquet"
    pa_parquet.write_table(pa.table({"t": [1.0, 2.0], "x": [1.0, 1.0]}), path)
    content = path.read_bytes()
    heard = Recorder(ignore)
    read_values(opened(path), heard)
    (file,) = heard.inputs.values()
    path.with_name("copy").write_bytes(content)
    path.with_name("copy").replace(path)
    entry = file.describe()
    assert entry["bytes"] == len(content) and "sha256" not in entry and "changed" in entry
    assert json.dumps(entry)


def test_a_file_that_is_no_file_is_an_error_at_once():
    """Files of the kernel have no size, and reading some of them waits for ever."""
    begin = time.monotonic()
    for path in ("/proc/kmsg", "/proc/self/mem", "/dev/zero", "/dev/null"):
        if Path(path).exists():
            with pytest.raises(DataError):
                opened(Path(path))
    assert time.monotonic() - begin < 5
