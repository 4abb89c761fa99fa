"""A folder of buckets as a source: hash of a series, manifest, the buckets of a rank."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rnnforecast.errors import DataError, Location, UsageError
from rnnforecast.sources.columns import Column
from rnnforecast.sources.files import reading
from rnnforecast.sources.parquet import ParquetFile, ParquetSource, open_parquet
from rnnforecast.storage.remote import Place, Remote, list_below, place_of

MANIFEST = "_shards.json"
_FORMAT = 1
HASH = "blake2b-64"
"""What manifests call it."""
MOST_BUCKETS = 100_000
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class Bucket:
    """A bucket that holds rows, and its file."""

    bucket: int
    file: str
    rows: int
    series: int
    """How many there are."""
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a sharded folder holds, and what it was made of."""

    n_buckets: int
    files: tuple[Bucket, ...]
    """Those that hold rows, in the order of their numbers."""
    series_column: str
    value_column: str
    """The one with the readings."""
    source: str
    """The readings that it was made of."""
    layout: str
    """Whether these were long or wide."""

    @property
    def n_rows(self) -> int:
        """How many rows there are in all."""
        return sum(one.rows for one in self.files)

    @property
    def n_series(self) -> int:
        """How many series there are in all."""
        return sum(one.series for one in self.files)

    @property
    def n_bytes(self) -> int:
        """How large all files are together."""
        return sum(one.bytes for one in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return what stands in the file."""
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
            "files": [asdict(one) for one in self.files],
        }


def is_sharded(folder: Place) -> bool:
    """Tell whether a folder has a manifest of buckets. Raises `DataError` where a store fails."""
    if isinstance(folder, Remote):
        with reading(folder):
            return not glob.has_magic(folder.url.key) and (folder / MANIFEST).is_file()
    try:
        return (folder / MANIFEST).is_file()
    except (OSError, ValueError):
        return False  # no path, which is said where it is opened


def read_manifest(folder: Place) -> Manifest:
    """Read what a sharded folder says of itself. Raises `DataError` for what it cannot say."""
    try:
        said = json.loads((folder / MANIFEST).read_bytes())
        if said["format"] != _FORMAT or said["hash"] != HASH:
            raise ValueError(f"it is of format {said['format']}, {said['hash']}")
        found = Manifest(
            n_buckets=int(said["buckets"]),
            files=tuple(Bucket(**one) for one in said["files"]),
            series_column=str(said["series_column"]),
            value_column=str(said["value_column"]),
            source=str(said["source"]),
            layout=str(said["layout"]),
        )
        _check_numbers(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unlike(folder, f"{MANIFEST} cannot be used: {error}") from error
    return found


def _check_numbers(found: Manifest) -> None:
    """Raise `ValueError` for buckets that are none, are not in order, or have other names."""
    numbers = [one.bucket for one in found.files]
    if not 1 <= found.n_buckets <= MOST_BUCKETS or numbers != sorted(set(numbers)):
        raise ValueError("its buckets are not in order")
    for one in found.files:
        counts = (one.bucket, one.rows, one.series, one.bytes)
        is_there = all(type(n) is int and n >= 0 for n in counts) and one.bucket < found.n_buckets
        if not is_there or one.file != file_of(one.bucket, found.n_buckets):
            raise ValueError(f"{one.file!r} is no file of bucket {one.bucket}")


@dataclass(frozen=True)
class ShardFolder:
    """The files of all buckets of a folder, or of some, one after the other."""

    parquet: ParquetSource
    manifest: Manifest
    buckets: tuple[Bucket, ...]
    """Those that are read; each has its file in the source."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.parquet.name

    @property
    def files(self) -> tuple[ParquetFile, ...]:
        """The buckets' files."""
        return self.parquet.files

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files that are read."""
        return self.parquet.paths

    @property
    def n_rows_about(self) -> int:
        """How many rows there are, as the manifest says."""
        return sum(one.rows for one in self.buckets)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns; of one it is known that it names the series."""
        name = self.manifest.series_column
        return tuple(replace(c, is_series=c.name == name) for c in self.parquet.columns)

    def batches(self, wanted: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Read the files one after the other. Raises `DataError` for a series in two of them."""
        series = self.manifest.series_column
        for file, bucket in zip(self.files, self.buckets, strict=True):
            known: set[str] = set()
            for batch in replace(self.parquet, files=(file,)).batches(wanted):
                if series in wanted:
                    self._check(names_in(batch.column(series)), bucket, known)
                yield batch

    def location(self, row: int, column: str) -> Location:
        """Find the file that holds the row, and count from its first."""
        return self.parquet.location(row, column)

    def rejected(self) -> list[Location]:
        """Return none: each row has every column."""
        return []

    def _check(self, names: Sequence[str], bucket: Bucket, known: set[str]) -> None:
        """Hold new names against the bucket that they are in; one without a name is not judged."""
        new = [name for name in names if name and name not in known]
        digests = np.frombuffer(digests_of(map(str.encode, new)), ">u8")
        is_elsewhere = digests % np.uint64(self.manifest.n_buckets) != bucket.bucket
        if is_elsewhere.any():
            raise self._misplaced(new[int(np.argmax(is_elsewhere))], bucket)
        known.update(new)

    def _misplaced(self, name: str, bucket: Bucket) -> DataError:
        """Say where else the series lies, which takes reading the names of all."""
        folder = self.paths[0].parent
        here = folder / bucket.file
        right = bucket_of(name, self.manifest.n_buckets)
        for other in sorted(self.manifest.files, key=lambda one: one.bucket != right):
            if other != bucket and name in _names_of(folder / other.file, self.parquet, self):
                return DataError(
                    f"series {name!r} lies in two buckets: {here} and {folder / other.file}",
                    code="series-in-two-buckets",
                    location=Location(str(here), column=self.manifest.series_column),
                    hint="a series must lie wholly in one; make the folder again with  "
                    "rnnforecast shard",
                )
        return _unlike(folder, f"series {name!r} lies in {here}, but belongs to bucket {right}")


def names_in(column: pa.Array) -> list[str]:
    """Return the different names in a column, as texts."""
    is_coded = pa.types.is_dictionary(column.type)
    names = column.dictionary if is_coded else pc.unique(column).drop_null()
    texts: list[str] = names.cast(pa.string()).to_pylist()
    return texts


def _names_of(path: Place, like: ParquetSource, folder: ShardFolder) -> set[str]:
    one = replace(like, files=(ParquetFile(path),))
    wanted = {folder.manifest.series_column: pa.dictionary(pa.int32(), pa.string())}
    return {name for batch in one.batches(wanted) for name in names_in(batch.column(0))}


def open_shards(name: str) -> ShardFolder:
    """Open all buckets of a folder. Raises `DataError` where its files are not as it says."""
    folder = place_of(name)
    manifest = read_manifest(folder)
    check_folder(folder, manifest)
    return open_buckets(name, manifest, manifest.files)


def check_folder(folder: str | Place, manifest: Manifest) -> None:
    """Raise `DataError` where the files of a folder are not those that its manifest names."""
    _check_files(place_of(folder), {one.file: one.bytes for one in manifest.files})


def open_bucket(folder: str | Place, manifest: Manifest, bucket: Bucket) -> ShardFolder:
    """Open one bucket of a folder whose manifest is known: no other file is looked at.

    For who opens one after the other. Raises `DataError` where its file is not as it should be.
    """
    path = place_of(folder) / bucket.file
    try:
        n_bytes = path.size() if isinstance(path, Remote) else path.stat().st_size
    except OSError as error:
        raise _unlike(path.parent, f"{path} is missing") from error
    _check_size(path, n_bytes, bucket.bytes)
    return open_buckets(str(folder), manifest, (bucket,))


def open_buckets(name: str, manifest: Manifest, buckets: tuple[Bucket, ...]) -> ShardFolder:
    """Open some buckets of a folder that was held against its manifest."""
    files = tuple(ParquetFile(place_of(name) / one.file) for one in buckets)
    return ShardFolder(open_parquet(name, files), manifest, buckets)


def _sizes_in(folder: Place) -> dict[str, int]:
    """Return how large each file in a folder is that may be one of its buckets; no file is -1."""
    if isinstance(folder, Remote):
        with reading(folder):
            found = list_below(folder)
        named = {"/".join(one.parts_below(folder)): state.size or 0 for one, state in found.items()}
        return {name: size for name, size in named.items() if not name.startswith(("_", "."))}
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(("_", "."))]
        return {one.name: one.stat().st_size if one.is_file() else -1 for one in shown}


def _check_files(folder: Place, expected: Mapping[str, int]) -> None:
    """Raise `DataError` for a file that is missing, has another size, or is not in the manifest."""
    sizes = _sizes_in(folder)
    for name in sorted(sizes.keys() - expected.keys()):
        raise _unlike(folder, f"{folder / name} is not in its {MANIFEST}")
    for name, n_bytes in expected.items():
        if name not in sizes:
            raise _unlike(folder, f"{folder / name} is missing")
        _check_size(folder / name, sizes[name], n_bytes)


def _check_size(path: Place, found: int, expected: int) -> None:
    if found != expected:
        raise _unlike(path.parent, f"{path} has {found} bytes, but its {MANIFEST} says {expected}")


def _unlike(folder: Place, message: str) -> DataError:
    return DataError(
        f"the buckets of {folder} are not what was written: {message}",
        code="damaged-shards",
        location=Location(str(folder)),
        hint="copy the whole folder again, or make it again with  rnnforecast shard",
    )


def digests_of(names: Iterable[bytes]) -> bytes:
    """Return the hashes of names in UTF-8, one after the other: 8 bytes of BLAKE2b for each.

    Many are hashed at once, as making a hash from nothing takes longer than copying one.
    """
    empty, digests = blake2b(digest_size=_DIGEST_BYTES), []
    for name in names:
        one = empty.copy()
        one.update(name)
        digests.append(one.digest())
    return b"".join(digests)


def bucket_of(name: str, n_buckets: int) -> int:
    """Return the bucket of a series, counted from 0: its hash as a big-endian number, modulo."""
    return int.from_bytes(digests_of([name.encode()]), "big") % n_buckets


def file_of(bucket: int, n_buckets: int) -> str:
    """Return what a bucket's file is called."""
    return f"bucket-{bucket:05d}-of-{n_buckets:05d}.parquet"


def open_share(data: object, rank: int, n: int) -> ShardFolder:
    """Open the buckets of one of n processes that read a folder together.

    Raises `UsageError` where there are no buckets, or fewer that hold rows than processes.
    """
    if not isinstance(data, str | Path) or not is_sharded(place_of(data)):
        raise UsageError(
            f"{n} ranks need a folder of buckets, of which each reads some",
            hint="make one:  rnnforecast shard DATA --output buckets --buckets 64",
        )
    folder = place_of(data)
    manifest = read_manifest(folder)
    check_folder(folder, manifest)
    if len(manifest.files) < n:
        raise UsageError(
            f"there are {n} ranks, but only {len(manifest.files)} buckets of {folder} hold rows",
            hint="start fewer, or make more buckets",
        )
    return open_buckets(str(data), manifest, manifest.files[share_of(manifest, rank, n)])


def share_of(manifest: Manifest, rank: int, n: int) -> slice:
    """Return which of the files one of n processes reads: about as many rows as any other."""
    rows = np.cumsum([one.rows for one in manifest.files])
    aims = rows[-1] * np.arange(n + 1) / n
    middles = rows - np.diff(rows, prepend=0) / 2
    least = np.arange(n + 1)
    beyond = np.maximum.accumulate(np.searchsorted(middles, aims) - least)
    ends = least + np.clip(beyond, 0, len(rows) - n)  # each gets one at least
    ends[0], ends[-1] = 0, len(rows)
    return slice(int(ends[rank]), int(ends[rank + 1]))
