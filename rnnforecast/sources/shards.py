"""A folder of buckets as a source: the hash of a series, the manifest, the buckets of a rank."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.errors import DataError, Location, UsageError
from rnnforecast.sources.files import as_data_error
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.parquet import ParquetFile, ParquetSource, open_parquet
from rnnforecast.storage.remote import AnyPath, as_path, is_remote, list_objects, read_json, size_of

MANIFEST = "_shards.json"
_FORMAT = 1
HASH = "blake2b-64"
"""The name of the hash in a manifest."""
MAX_BUCKETS = 100_000
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class Bucket:
    """A bucket with rows, as its entry in the manifest."""

    bucket: int
    file: str
    rows: int
    series: int
    """Number of series."""
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardManifest:
    """The content and the origin of a folder of buckets."""

    n_buckets: int
    files: tuple[Bucket, ...]
    """The buckets with rows, in the order of their numbers."""
    series_column: str
    value_column: str
    """The column with the readings."""
    source: str
    """The readings that the folder was made of."""
    layout: str
    """The layout of these readings: long or wide."""

    @property
    def n_rows(self) -> int:
        """The number of rows in all files."""
        return sum(bucket.rows for bucket in self.files)

    @property
    def n_series(self) -> int:
        """The number of series in all files."""
        return sum(bucket.series for bucket in self.files)

    @property
    def n_bytes(self) -> int:
        """The size of all files."""
        return sum(bucket.bytes for bucket in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the manifest's file."""
        return {
            "format": _FORMAT,
            "hash": HASH,
            "buckets": self.n_buckets,
            "empty": self.n_buckets - len(self.files),
            "rows": self.n_rows,
            "series": self.n_series,
            "bytes": self.n_bytes,
            "source": self.source,
            "layout": self.layout,
            "series_column": self.series_column,
            "value_column": self.value_column,
            "files": [asdict(bucket) for bucket in self.files],
        }


def is_sharded(folder: AnyPath) -> bool:
    """Tell whether a folder has a manifest of buckets. Raises `DataError` where a store fails."""
    if is_remote(folder):
        with as_data_error(folder):
            return not glob.has_magic(folder.url.key) and (folder / MANIFEST).is_file()
    try:
        return (folder / MANIFEST).is_file()
    except (OSError, ValueError):
        return False  # opening a text that is no path raises the error


def read_manifest(folder: AnyPath) -> ShardManifest:
    """Read the manifest of a folder of buckets. Raises `DataError` where it is damaged."""
    try:
        payload = read_json(folder / MANIFEST)
        if payload["format"] != _FORMAT or payload["hash"] != HASH:
            raise ValueError(f"its format is {payload['format']}, {payload['hash']}")
        manifest = ShardManifest(
            n_buckets=int(payload["buckets"]),
            files=tuple(Bucket(**entry) for entry in payload["files"]),
            series_column=str(payload["series_column"]),
            value_column=str(payload["value_column"]),
            source=str(payload["source"]),
            layout=str(payload["layout"]),
        )

        n_buckets = manifest.n_buckets
        numbers = [bucket.bucket for bucket in manifest.files]
        if not 1 <= n_buckets <= MAX_BUCKETS or numbers != sorted(set(numbers)):
            raise ValueError("its buckets are not in order")
        for bucket in manifest.files:
            counts = (bucket.bucket, bucket.rows, bucket.series, bucket.bytes)
            is_valid = all(type(n) is int and n >= 0 for n in counts) and bucket.bucket < n_buckets
            if not is_valid or bucket.file != bucket_file_name(bucket.bucket, n_buckets):
                raise ValueError(f"{bucket.file!r} is not a file of bucket {bucket.bucket}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder, f"cannot use {MANIFEST}: {error}") from error
    return manifest


@dataclass(frozen=True)
class ShardFolder(ParquetSource):
    """The files of all buckets of a folder, or of some, one after the other."""

    manifest: ShardManifest
    buckets: tuple[Bucket, ...]
    """The buckets that are read; each has its file in the source."""

    @property
    def n_rows_estimate(self) -> int:
        """The number of rows, from the manifest."""
        return sum(bucket.rows for bucket in self.buckets)

    def batches(self, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read the files one after the other. Raises `DataError` for a series in two of them."""
        series = self.manifest.series_column
        for file, bucket in zip(self.files, self.buckets, strict=True):
            known: set[str] = set()
            for batch in file.cast_batches(types):
                if series in types:
                    # A series without a name is not checked.
                    new = [n for n in distinct_names(batch.column(series)) if n and n not in known]
                    digests = np.frombuffer(name_digests(map(str.encode, new)), ">u8")
                    is_misplaced = digests % np.uint64(self.manifest.n_buckets) != bucket.bucket
                    if is_misplaced.any():
                        raise self._misplaced(new[int(np.argmax(is_misplaced))], bucket)
                    known.update(new)
                yield batch

    def _misplaced(self, name: str, bucket: Bucket) -> DataError:
        """Return the error for a series in a bucket that is not its own.

        Reads the names in all buckets, its own one first, to tell whether it lies in two.
        """
        folder = self.inputs[0].path.parent
        path = folder / bucket.file
        number = bucket_of(name, self.manifest.n_buckets)
        types = {self.manifest.series_column: pa.dictionary(pa.int32(), pa.string())}

        for candidate in sorted(self.manifest.files, key=lambda entry: entry.bucket != number):
            if candidate == bucket:
                continue
            file = ParquetFile(InputFile.of(folder / candidate.file))
            if name in {
                n for batch in file.cast_batches(types) for n in distinct_names(batch.column(0))
            }:
                return DataError(
                    f"series {name!r} is in two buckets: {path} and {file.path}",
                    code="series-in-two-buckets",
                    location=Location(str(path), column=self.manifest.series_column),
                    hint="each series must be in one bucket; recreate the folder with  "
                    "rnnforecast shard",
                )
        return _damaged(folder, f"series {name!r} is in {path}, but belongs to bucket {number}")


def distinct_names(column: pa.Array) -> list[str]:
    """Return the distinct names in a column, as texts."""
    is_dictionary = pa.types.is_dictionary(column.type)
    names = column.dictionary if is_dictionary else pc.unique(column).drop_null()
    texts: list[str] = names.cast(pa.string()).to_pylist()
    return texts


def open_shards(name: str) -> ShardFolder:
    """Open all buckets of a folder. Raises `DataError` where its files differ from the manifest."""
    folder = as_path(name)
    manifest = read_manifest(folder)
    check_bucket_files(folder, manifest)
    return open_buckets(name, manifest, manifest.files)


def check_bucket_files(folder: AnyPath, manifest: ShardManifest) -> None:
    """Raise `DataError` for a file that is missing, has another size, or is not in the manifest."""
    sizes = _list_sizes(folder)
    expected = {bucket.file: bucket.bytes for bucket in manifest.files}
    for name in sorted(sizes.keys() - expected.keys()):
        raise _damaged(folder, f"{folder / name} is not listed in {MANIFEST}")
    for name, n_bytes in expected.items():
        if name not in sizes:
            raise _damaged(folder, f"{folder / name} is missing")
        _check_size(folder / name, sizes[name], n_bytes)


def open_bucket(folder: str | AnyPath, manifest: ShardManifest, bucket: Bucket) -> ShardFolder:
    """Open one bucket of a folder whose manifest is known, without looking at other files.

    Raises `DataError` where its file differs from the manifest.
    """
    path = as_path(folder) / bucket.file
    try:
        n_bytes = size_of(path)
    except OSError as error:
        raise _damaged(path.parent, f"{path} is missing") from error
    _check_size(path, n_bytes, bucket.bytes)
    return open_buckets(str(folder), manifest, (bucket,))


def open_buckets(name: str, manifest: ShardManifest, buckets: tuple[Bucket, ...]) -> ShardFolder:
    """Open some buckets of a folder that was checked; the column that names series is marked."""
    inputs = InputFile.of_all([as_path(name) / bucket.file for bucket in buckets])
    files = tuple(map(ParquetFile, inputs))
    columns = open_parquet(name, files).columns
    columns = tuple(replace(c, is_series=c.name == manifest.series_column) for c in columns)
    return ShardFolder(name, files, columns, manifest, buckets)


def _list_sizes(folder: AnyPath) -> dict[str, int]:
    """Return the size of everything in a folder that is not hidden; -1 for what is no file."""
    if is_remote(folder):
        with as_data_error(folder):
            objects = list_objects(folder)
        sizes = {"/".join(p.relative_parts(folder)): info.size or 0 for p, info in objects.items()}
        return {name: size for name, size in sizes.items() if not name.startswith(("_", "."))}
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(("_", "."))]
        return {e.name: e.stat().st_size if e.is_file() else -1 for e in visible}


def _check_size(path: AnyPath, n_bytes: int, expected: int) -> None:
    if n_bytes != expected:
        raise _damaged(path.parent, f"{path} has {n_bytes} bytes, but {MANIFEST} lists {expected}")


def _damaged(folder: AnyPath, message: str) -> DataError:
    return DataError(
        f"the buckets of {folder} have been modified: {message}",
        code="damaged-shards",
        location=Location(str(folder)),
        hint="copy the whole folder again, or recreate it with  rnnforecast shard",
    )


def name_digests(names: Iterable[bytes]) -> bytes:
    """Return the concatenated hashes of names in UTF-8: 8 bytes of BLAKE2b each.

    Copying an empty hash is faster than making a new one.
    """
    empty, digests = blake2b(digest_size=_DIGEST_BYTES), []
    for name in names:
        name_hash = empty.copy()
        name_hash.update(name)
        digests.append(name_hash.digest())
    return b"".join(digests)


def bucket_of(name: str, n_buckets: int) -> int:
    """Return the bucket of a series: its hash, a big-endian number, modulo `n_buckets`."""
    return int.from_bytes(name_digests([name.encode()]), "big") % n_buckets


def bucket_file_name(bucket: int, n_buckets: int) -> str:
    """Return the name of a bucket's file."""
    return f"bucket-{bucket:05d}-of-{n_buckets:05d}.parquet"


def open_rank_slice(data: object, rank: int, n: int) -> ShardFolder:
    """Open the buckets that one of n processes reads of a folder.

    Raises `UsageError` where there are no buckets, or fewer with rows than processes.
    """
    if not isinstance(data, str | Path) or not is_sharded(as_path(data)):
        raise UsageError(
            f"training with {n} processes needs a folder of buckets",
            hint="create one:  rnnforecast shard DATA --output buckets --buckets 64",
        )

    folder = as_path(data)
    manifest = read_manifest(folder)
    check_bucket_files(folder, manifest)
    if len(manifest.files) < n:
        raise UsageError(
            f"there are {n} processes, but only {len(manifest.files)} buckets of "
            f"{folder} contain rows",
            hint="use fewer processes or more buckets",
        )
    return open_buckets(str(data), manifest, manifest.files[rank_slice(manifest, rank, n)])


def rank_slice(manifest: ShardManifest, rank: int, n: int) -> slice:
    """Return which of the files one of n processes reads: about as many rows as any other."""
    rows = np.cumsum([bucket.rows for bucket in manifest.files])
    targets = rows[-1] * np.arange(n + 1) / n
    middles = rows - np.diff(rows, prepend=0) / 2
    least = np.arange(n + 1)
    # Each process gets one file at least; `surplus` counts the files beyond these.
    surplus = np.maximum.accumulate(np.searchsorted(middles, targets) - least)
    ends = least + np.clip(surplus, 0, len(rows) - n)
    ends[0], ends[-1] = 0, len(rows)
    return slice(int(ends[rank]), int(ends[rank + 1]))
