"""DATA on a store: the same panels as from a disk, read by ranges, and failures that say what."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rnnforecast.batch.shard import shard
from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError
from rnnforecast.sources import parquet
from rnnforecast.sources.files import is_read_with, matches_pattern
from rnnforecast.sources.inputs import InputFile, reading
from rnnforecast.sources.source import open_source
from rnnforecast.sources.text import open_binary
from rnnforecast.storage import stores
from rnnforecast.storage.remote import RemotePath, as_path
from tests import objectstore
from tests.data.tables import failure, read
from tests.objectstore import Bucket

STAMPS = pd.date_range("2024-01-01", periods=60, freq="h")
FRAME = pd.DataFrame({"ts": STAMPS, "a": np.arange(60.0), "b": np.arange(60) % 7 + 1.5})


def csv_of(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


def parquet_of(frame: pd.DataFrame, **options: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), file, **options)
    return file.getvalue()


@pytest.mark.slow
def test_every_source_on_a_store_gives_the_panel_of_a_disk(bucket: Bucket) -> None:
    expected = read(FRAME).panel.fingerprint()
    half = len(FRAME) // 2
    for name, content in {
        "x.csv": csv_of(FRAME),
        "x.tsv": FRAME.to_csv(index=False, sep="\t").encode(),
        "x.csv.gz": gzip.compress(csv_of(FRAME)),
        "x.parquet": parquet_of(FRAME, row_group_size=7),
        "cut/2024-1.csv": csv_of(FRAME[:half]),
        "cut/2024-2.csv": csv_of(FRAME[half:]),
        "cut/.hidden.csv": b"no table",
        "folder/1.parquet": parquet_of(FRAME[:half]),
        "folder/deep/2.parquet": parquet_of(FRAME[half:]),
        "folder/_SUCCESS": b"",
    }.items():
        bucket.put(name, content)

    for key in ("x.csv", "x.tsv", "x.csv.gz", "x.parquet", "cut/*.csv", "cut/2024-[12].csv"):
        assert read(bucket.url(key)).panel.fingerprint() == expected, key
    for key in ("folder", "folder/", "folder/**/*.parquet", "*/**/?.parquet".replace("?", "[12]")):
        assert read(bucket.url(key)).panel.fingerprint() == expected, key


def test_names_of_folders_are_columns(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("007", "pump a"):
        content = parquet_of(FRAME[["ts", "a"]])
        bucket.put(f"plant/id={name}/x.parquet", content)
        (tmp_path / f"id={name}").mkdir()
        (tmp_path / f"id={name}" / "x.parquet").write_bytes(content)

    found = read(bucket.url("plant"), series="id")

    assert found.panel.names == ("007", "pump a")
    assert found.panel.fingerprint() == read(tmp_path, series="id").panel.fingerprint()


def test_a_folder_of_buckets_is_held_against_its_manifest(bucket: Bucket, tmp_path: Path) -> None:
    rows = pd.concat([FRAME[["ts", "a"]].assign(id=f"s{i}") for i in range(6)])
    shard(pa.Table.from_pandas(rows, preserve_index=False), tmp_path / "b", 4)
    url = bucket.put("b", tmp_path / "b")

    assert read(url).panel.fingerprint() == read(tmp_path / "b").panel.fingerprint()
    one = next(key for key in bucket.names("b") if key.endswith(".parquet"))
    bucket.put(one, b"short")
    assert failure(url).code == "damaged-shards"
    bucket.remove(one)
    assert failure(url).code == "damaged-shards"


@dataclass
class Counted:
    """An object that is open, and notes what is asked of it in a list."""

    file: pa.NativeFile
    asked: list[int]

    def readinto(self, buffer: memoryview) -> int:
        self.asked.append(self.file.readinto(buffer))
        return self.asked[-1]

    def read(self) -> bytes:
        found: bytes = self.file.read()
        self.asked.append(len(found))
        return found

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each request brings, requests being small."""
    found: list[int] = []
    opened = stores.open_object
    monkeypatch.setattr(stores, "open_object", lambda place: Counted(opened(place), found))
    monkeypatch.setattr(parquet, "_REMOTE_BUFFER_BYTES", 1 << 12)
    monkeypatch.setattr("rnnforecast.storage.remote._READ_BYTES", 1 << 12)
    return found


def wide_table(n_columns: int, n_rows: int) -> bytes:
    rng = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=n_rows, freq="h")
    values = {f"c{i}": rng.standard_normal(n_rows) for i in range(n_columns)}
    return parquet_of(pd.DataFrame({"ts": times, **values}), row_group_size=n_rows // 4)


@pytest.mark.parametrize("ahead", [1 << 27, 0])
def test_of_a_parquet_object_only_what_is_wanted_is_fetched(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, asked: list[int], ahead: int
) -> None:
    content = wide_table(n_columns=40, n_rows=20_000)
    place = as_path(bucket.put("wide.parquet", content))
    monkeypatch.setattr(parquet, "_AHEAD_BYTES", ahead)

    file = parquet.ParquetFile(InputFile.of(place))
    table = pa.Table.from_batches(list(file.batches(["ts", "c7"], 1000)))

    assert table.num_rows == 20_000
    assert table["c7"].equals(pq.read_table(io.BytesIO(content), columns=["c7"])["c7"])
    assert sum(asked) < 0.15 * len(content)


def test_text_is_fetched_as_it_is_read(bucket: Bucket, asked: list[int]) -> None:
    content = csv_of(FRAME)
    place = as_path(bucket.put("x.csv", content * 100))

    with open_binary(InputFile.of(place)) as file:
        assert file.read(10) == content[:10]
        assert sum(asked) == 1 << 12
        file.read(5000)
        assert sum(asked) < 4 << 12


def test_more_than_may_be_read_is_refused(bucket: Bucket) -> None:
    url = bucket.put("x.csv.gz", gzip.compress(csv_of(FRAME) * 50))

    assert failure(url, max_input_bytes="1k").code == "input-bytes"


def test_what_is_not_there_is_said(bucket: Bucket) -> None:
    bucket.put("empty/_SUCCESS", b"")

    for url, code, words in (
        (bucket.url("none.csv"), "not-found", "does not exist"),
        ("s3://no-such-bucket/x.csv", "not-found", "bucket no-such-bucket does not exist"),
        (bucket.url("none/*.csv"), "not-found", "matches no object"),
        (bucket.url("empty"), "empty", "has no files"),
        ("foo://bucket/x.csv", "unreadable", "unknown store foo://"),
        ("az://container/x.csv", "unreadable", "AZURE_STORAGE_ACCOUNT_NAME"),
    ):
        found = failure(url)
        assert (found.code, found.exit_code) == (code, 4)
        assert words in found.message


@pytest.mark.parametrize("name", ["x.csv", "*.parquet"])
def test_a_store_that_denies_or_does_not_answer_is_said(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "ATTEMPTS", 1)
    for variable, value in objectstore.ACCESS.items():
        monkeypatch.setenv(variable, value)
    with objectstore.denying() as port:
        url = f"s3://b/{name}?endpoint_override=127.0.0.1:{port}&scheme=http"
        denied = failure(url)
    gone = failure(f"{url}&region=elsewhere")

    assert (denied.code, "denied access" in denied.message) == ("unreadable", True)
    assert (gone.code, "does not respond" in gone.message) == ("unreadable", True)


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.parquet"])
def test_a_store_that_fails_in_the_middle_of_an_object_is_said(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    content = {
        "x.csv": csv_of,
        "x.csv.gz": lambda f: gzip.compress(csv_of(f)),
        "x.parquet": parquet_of,
    }
    source = open_source(bucket.put(name, content[name](FRAME)), DataConfig())
    opened, reads = stores.open_object, 0

    class Failing:
        def __init__(self, file: pa.NativeFile) -> None:
            self.file = file

        def readinto(self, buffer: memoryview) -> int:
            nonlocal reads
            reads += 1
            if reads > 1:
                raise OSError("AWS Error NETWORK_CONNECTION: Connection reset")
            return self.file.readinto(buffer)

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    monkeypatch.setattr(stores, "open_object", lambda place: Failing(opened(place)))
    monkeypatch.setattr("rnnforecast.storage.remote._READ_BYTES", 1 << 6)
    with pytest.raises(DataError, match="does not respond") as found:
        list(source.batches({"a": pa.float64()}))
    assert found.value.code == "unreadable"


def test_text_is_read_from_a_server_of_the_web(tmp_path: Path) -> None:
    for library in ("fsspec", "aiohttp"):
        pytest.importorskip(library, reason="needs the extra fsspec")
    (tmp_path / "x.csv").write_bytes(csv_of(FRAME))
    with objectstore.web(tmp_path) as port:
        url = f"http://127.0.0.1:{port}"
        assert read(f"{url}/x.csv").panel.fingerprint() == read(FRAME).panel.fingerprint()
        assert failure(f"{url}/none.csv").code == "not-found"
    assert failure(f"{url}/x.csv").code == "unreadable"


def change(bucket: Bucket) -> None:
    bucket.put("x.csv", b"ts,a\n1,2\n3,4\n")


@pytest.mark.parametrize("how", [change, lambda bucket: bucket.remove("x.csv")])
def test_an_object_that_is_replaced_while_it_is_read_is_an_error(
    bucket: Bucket, how: Callable[[Bucket], None]
) -> None:
    place = as_path(bucket.put("x.csv", b"ts,a\n1,2\n"))

    with reading([InputFile.of(place)], print):
        pass
    with (
        pytest.raises(DataError, match="replaced or rewritten"),
        reading([InputFile.of(place)], print),
    ):
        how(bucket)


def test_a_damaged_parquet_object_is_said_to_be_damaged(bucket: Bucket) -> None:
    content = parquet_of(FRAME)

    assert "not a complete Parquet file" in failure(bucket.put("x.parquet", content[:-9])).message
    cut = content[:20] + b"\0" * 200 + content[220:]
    assert failure(bucket.put("y.parquet", cut)).code == "unreadable"


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("a.csv", "*.csv", True),
        ("b/a.csv", "*.csv", False),
        ("b/a.csv", "*/*.csv", True),
        ("b/c/a.csv", "**/*.csv", True),
        ("a.csv", "**/*.csv", True),
        ("b/.c/a.csv", "**/*.csv", False),
        (".a.csv", "*.csv", False),
        (".a.csv", ".*.csv", True),
        ("b/c/a.csv", "b/**", True),
        ("a1.csv", "a[0-9].csv", True),
        ("A.csv", "a.csv", False),
    ],
)
def test_patterns_mean_what_they_mean_on_a_disk(path: str, pattern: str, fits: bool) -> None:  # noqa: FBT001
    assert matches_pattern(path.split("/"), pattern.split("/")) is fits


def test_a_source_takes_in_what_the_next_reading_would() -> None:
    def remote(text: str) -> RemotePath:
        place = as_path(text)
        assert isinstance(place, RemotePath)
        return place

    assert is_read_with(remote("s3://b/in"), remote("s3://b/in/out.csv"))
    assert is_read_with(remote("s3://b/in/*.csv"), remote("s3://b/in/out.csv"))
    assert not is_read_with(remote("s3://b/in/*.csv"), remote("s3://b/in/out/x.csv"))
    assert not is_read_with(remote("s3://b/in"), remote("s3://b/in/_out.csv"))
    assert not is_read_with(remote("s3://b/in"), remote("s3://c/in/out.csv"))
