"""Reading a folder of buckets: what is there is what was written, a series is in one of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rnnforecast.batch.shard import shard
from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError
from rnnforecast.sources.shards import (
    MANIFEST,
    ShardFolder,
    bucket_of,
    check_bucket_files,
    open_bucket,
    read_manifest,
)
from rnnforecast.sources.source import open_source
from tests.conftest import Command
from tests.data.tables import failure, read

NAMES = [f"s{i}" for i in range(12)]
B = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve series in four buckets."""
    times = pd.date_range("2024-01-01", periods=20, freq="1h")
    parts = [
        pd.DataFrame({"ts": times, "id": name, "temp": np.arange(20.0) + i})
        for i, name in enumerate(NAMES)
    ]
    shard(pd.concat(parts, ignore_index=True), tmp_path / "out", B)
    return tmp_path / "out"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("bucket-*.parquet"))


def rewrite(folder: Path, change: object) -> None:
    """Change the manifest."""
    said = json.loads((folder / MANIFEST).read_bytes())
    change(said)  # type: ignore[operator]
    (folder / MANIFEST).write_text(json.dumps(said))


def put(folder: Path, path: Path, table: pa.Table) -> None:
    """Write a bucket anew, so that the manifest knows its size."""
    pq.write_table(table, path)

    def change(said: dict) -> None:
        for one in said["files"]:
            if one["file"] == path.name:
                one["bytes"] = path.stat().st_size

    rewrite(folder, change)


def names_in(source: ShardFolder) -> set[str]:
    batches = source.batches({"id": pa.string()})
    return {name for batch in batches for name in batch.column("id").to_pylist()}


def test_a_folder_with_a_manifest_is_read_as_buckets(folder: Path) -> None:
    source = open_source(folder, DataConfig())

    assert isinstance(source, ShardFolder)
    assert source.n_rows_estimate == 240
    assert [file.path for file in source.inputs] == files(folder)
    assert [c.name for c in source.columns if c.is_series] == ["id"]
    assert source.location(239, "temp").file == str(files(folder)[-1])
    assert names_in(source) == set(NAMES)


def opened(folder: Path, bucket: int) -> ShardFolder:
    manifest = read_manifest(folder)
    (held,) = (one for one in manifest.files if one.bucket == bucket)
    return open_bucket(folder, manifest, held)


def test_the_manifest_comes_back_as_it_was_written(folder: Path) -> None:
    manifest = read_manifest(folder)

    assert manifest.to_json() == json.loads((folder / MANIFEST).read_bytes())
    assert (manifest.n_buckets, manifest.n_rows, manifest.n_series) == (B, 240, 12)
    assert manifest.n_bytes == sum(path.stat().st_size for path in files(folder))


@pytest.mark.parametrize("bucket", range(B))
def test_one_bucket_holds_its_series_and_no_other(folder: Path, bucket: int) -> None:
    source = opened(folder, bucket)

    assert names_in(source) == {name for name in NAMES if bucket_of(name, B) == bucket}
    assert source.n_rows_estimate == 20 * len(names_in(source))
    assert len(source.files) == 1


def test_other_buckets_need_not_be_there(folder: Path) -> None:
    files(folder)[0].unlink()

    assert names_in(opened(folder, 1))
    with pytest.raises(DataError, match="is missing"):
        opened(folder, 0)
    with pytest.raises(DataError, match="is missing"):
        check_bucket_files(folder, read_manifest(folder))


def test_a_bucket_whose_file_has_grown_is_refused(folder: Path) -> None:
    with files(folder)[0].open("ab") as file:
        file.write(b"?")

    with pytest.raises(DataError, match="bytes, but"):
        opened(folder, 0)
    assert names_in(opened(folder, 1))


def test_buckets_without_rows_are_not_in_the_manifest(tmp_path: Path) -> None:
    frame = pd.DataFrame({"ts": pd.date_range("2024", periods=9), "id": "a", "temp": 1.0})
    shard(frame, tmp_path / "out", 10)

    (held,) = read_manifest(tmp_path / "out").files

    assert held.bucket == bucket_of("a", 10)
    assert names_in(opened(tmp_path / "out", held.bucket)) == {"a"}


def test_a_series_in_two_buckets_is_an_error_that_names_both(
    command: Command, folder: Path
) -> None:
    first, second = files(folder)[:2]
    stray = pq.read_table(first)[:3]
    name = stray["id"][0].as_py()
    put(folder, second, pa.concat_tables([pq.read_table(second), stray]))

    error = failure(folder)
    assert error.code == "series-in-two-buckets"
    assert all(word in error.message for word in (repr(name), str(first), str(second)))
    for words in (("check", folder), ("train", folder), ("shard", folder, "--output", "o")):
        more = ("--buckets", 2) if words[0] == "shard" else ()
        outcome = command(*words, *more, "--json")
        assert (outcome.code, outcome.error["code"]) == (4, "series-in-two-buckets")
    with pytest.raises(DataError, match="two buckets"):
        names_in(opened(folder, 1))


def test_a_series_in_a_bucket_that_is_not_its_own_is_an_error(folder: Path) -> None:
    first = files(folder)[0]
    table = pq.read_table(first)
    column = pa.array(["stranger of bucket 3" for _ in range(table.num_rows)])
    assert bucket_of("stranger of bucket 3", B) != 0
    put(folder, first, table.set_column(1, "id", column))

    error = failure(folder)

    assert (error.code, "belongs to bucket" in error.message) == ("damaged-shards", True)


@pytest.mark.parametrize("damage", ["missing", "shorter", "longer", "another", "folder", "other B"])
def test_files_that_are_not_the_manifests_are_an_error(folder: Path, damage: str) -> None:
    path = files(folder)[1]
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(content[:-1])
    elif damage == "longer":
        path.write_bytes(content + b"x")
    elif damage == "folder":
        (folder / "id=7").mkdir()
    elif damage == "other B":
        (folder / "bucket-00001-of-00008.parquet").write_bytes(content)
    else:
        (folder / "notes.txt").write_text("x")

    error = failure(folder)

    assert (error.exit_code, error.code) == (4, "damaged-shards")
    assert error.advice


def test_what_is_hidden_beside_the_buckets_does_no_harm(folder: Path) -> None:
    for name in ("_SUCCESS", ".part.crc", ".tmp-0123456789ab-x"):
        (folder / name).write_text("x")

    assert set(read(folder).panel.names) == set(NAMES)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(format=2),
        lambda said: said.update(hash="md5"),
        lambda said: said.pop("files"),
        lambda said: said.update(buckets=0),
        lambda said: said.update(buckets="many"),
        lambda said: said.update(buckets=5),
        lambda said: said.update(files=said["files"][::-1]),
        lambda said: said["files"][0].update(file="../elsewhere.parquet"),
        lambda said: said["files"][0].update(bucket=-1),
        lambda said: said["files"][0].update(rows="many"),
        lambda said: said["files"][0].update(strange=1),
        lambda said: said.clear(),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_an_error(folder: Path, change: object) -> None:
    rewrite(folder, change)

    assert failure(folder).code == "damaged-shards"


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff", b"1" * 5000])
def test_a_manifest_that_is_none_is_an_error(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)

    assert failure(folder).code == "damaged-shards"


def test_series_named_otherwise_by_the_user_are_not_held_against_buckets(folder: Path) -> None:
    source = open_source(folder, DataConfig())

    assert sum(batch.num_rows for batch in source.batches({"temp": pa.float64()})) == 240


@pytest.mark.parametrize("depth", [*range(700, 1000, 20), 100_000])
def test_a_manifest_that_is_nested_deep_is_damaged(tmp_path: Path, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    (tmp_path / MANIFEST).write_text(f'{{"format": {deep}, "hash": {deep}}}')
    with pytest.raises(DataError, match="cannot use"):
        read_manifest(tmp_path)
