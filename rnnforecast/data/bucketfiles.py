"""Rows that were routed, written to the files of their buckets, as a stream.

Rows wait in memory, all buckets within one budget, and go out as row groups when it is spent. Few
files can be open at once, and of many buckets each would get a few rows at a time: so from a number
on, rows go to files of whole ranges of buckets first, and from there to smaller ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from rnnforecast.data.routing import Routed
from rnnforecast.durable import NewDirectory
from rnnforecast.sources.buckets import file_of
from rnnforecast.sources.shards import Bucket

FAN_OUT = 200
"""So many files are open at once."""
BUDGET_BYTES = 40 << 20
"""Of rows that wait."""
_BUCKET = "__bucket"


class Waiting:
    """Rows that wait until they are written, in groups that share a budget."""

    def __init__(self, write: Callable[[int, pa.Table], None]) -> None:
        self._write = write
        self._rows: dict[int, list[pa.RecordBatch]] = {}
        self._bytes: dict[int, int] = {}
        self._n_bytes = 0

    def add(self, group: int, rows: pa.RecordBatch) -> None:
        """Let rows wait; where the budget is spent, the largest groups are written."""
        n_bytes = rows.nbytes
        self._rows.setdefault(group, []).append(rows)
        self._bytes[group] = self._bytes.get(group, 0) + n_bytes
        self._n_bytes += n_bytes
        if self._n_bytes > BUDGET_BYTES:
            self._make_room()

    def finish(self) -> None:
        """Write all that waits, in the order of the groups."""
        for group in sorted(self._rows):
            self._flush(group)

    def _make_room(self) -> None:
        """Write the largest groups until half is gone, and take the others out of larger arrays.

        Rows are parts of the batches that they came in, which would otherwise stay.
        """
        for group in sorted(self._bytes, key=lambda one: (-self._bytes[one], one)):
            if self._n_bytes <= BUDGET_BYTES // 2:
                break
            self._flush(group)
        for group, batches in self._rows.items():
            self._rows[group] = [_copied(batches)]
        pa.default_memory_pool().release_unused()

    def _flush(self, group: int) -> None:
        self._n_bytes -= self._bytes.pop(group)
        self._write(group, pa.Table.from_batches(self._rows.pop(group)))


def _copied(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0].take(pa.array(np.arange(batches[0].num_rows)))
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch


class BucketWriter:
    """The Parquet files of some buckets, each open from its first rows on."""

    def __init__(self, directory: NewDirectory, schema: pa.Schema, n_buckets: int) -> None:
        self._directory = directory
        self._schema = schema
        self._n_buckets = n_buckets
        self._stack = ExitStack()
        self._writers: dict[int, pa_parquet.ParquetWriter] = {}
        self._files: dict[int, _Hashed] = {}
        self._rows: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def write(self, bucket: int, rows: pa.Table) -> None:
        """Write rows to a bucket, as one row group."""
        if bucket not in self._writers:
            self._open(bucket)
        self._writers[bucket].write_table(rows, row_group_size=max(rows.num_rows, 1))
        self._rows[bucket] = self._rows.get(bucket, 0) + rows.num_rows

    def close(self, n_series: dict[int, int]) -> list[Bucket]:
        """End all files; return what was written, in the order of the buckets."""
        for writer in self._writers.values():
            writer.close()
        self._stack.close()
        return [
            Bucket(
                bucket,
                file_of(bucket, self._n_buckets),
                self._rows[bucket],
                n_series[bucket],
                file.n_bytes,
                file.digest.hexdigest(),
            )
            for bucket, file in sorted(self._files.items())
        ]

    def _open(self, bucket: int) -> None:
        name = file_of(bucket, self._n_buckets)
        file = _Hashed(self._stack.enter_context(self._directory.file(name)))
        floats = [field.name for field in self._schema if pa.types.is_floating(field.type)]
        coded = [name for name in self._schema.names if name not in floats]
        self._files[bucket] = file
        self._writers[bucket] = pa_parquet.ParquetWriter(
            pa.PythonFile(file, mode="w"), self._schema, use_dictionary=coded or False
        )


class _Hashed:
    """A file that is written once, from its beginning to its end, and hashed meanwhile."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.n_bytes = 0

    def write(self, content: bytes) -> int:
        """Write on; what a writer still has after an error closed the file is lost with it."""
        if self._file.closed:
            return len(content)
        self.digest.update(content)
        self.n_bytes += len(content)
        return self._file.write(content)

    def tell(self) -> int:
        """Return how much was written."""
        return self.n_bytes

    def flush(self) -> None:
        """Hand all of it to the system."""
        self._file.flush()

    def close(self) -> None:
        """Leave it open: who opened it syncs and closes it."""


def write_buckets(
    routed: Iterable[Routed],
    schema: pa.Schema,
    n_buckets: int,
    directory: NewDirectory,
    n_series: Callable[[], dict[int, int]],
) -> tuple[Bucket, ...]:
    """Write rows to the files of their buckets; return those, in the order of their numbers.

    `n_series` says how many series each bucket holds, once all rows are read.
    """
    return tuple(_spread(routed, schema, range(n_buckets), n_buckets, directory, n_series))


def _spread(
    routed: Iterable[Routed],
    schema: pa.Schema,
    buckets: range,
    n_buckets: int,
    directory: NewDirectory,
    n_series: Callable[[], dict[int, int]],
) -> Iterator[Bucket]:
    """Write the rows of a range of buckets, by way of files of smaller ranges where they are many.

    A level at a time, each file is read and gone before the next.
    """
    if len(buckets) <= FAN_OUT:
        with BucketWriter(directory, schema, n_buckets) as writer:
            waiting = Waiting(writer.write)
            for part in routed:
                for bucket, rows in _split(part.buckets, part.rows):
                    waiting.add(bucket, rows)
            waiting.finish()
            yield from writer.close(n_series())
        return
    width = FAN_OUT
    while width * FAN_OUT < len(buckets):
        width *= FAN_OUT
    for group, path in _spilled(routed, schema, buckets.start, width, directory.path):
        begin = buckets.start + group * width
        inner = range(begin, min(begin + width, buckets.stop))
        yield from _spread(_read_spilled(path), schema, inner, n_buckets, directory, n_series)
        path.unlink()


def _spilled(
    routed: Iterable[Routed], schema: pa.Schema, begin: int, width: int, folder: Path
) -> list[tuple[int, Path]]:
    """Write rows to a file for each so many buckets; return those files by their numbers."""
    wide = schema.append(pa.field(_BUCKET, pa.uint32()))
    paths: dict[int, Path] = {}
    with ExitStack() as stack:
        writers: dict[int, pa.RecordBatchFileWriter] = {}

        def write(group: int, rows: pa.Table) -> None:
            if group not in writers:
                paths[group] = folder / f"spill-{begin}-{width}-{group}"
                sink = stack.enter_context(pa.OSFile(str(paths[group]), "wb"))
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                writers[group] = stack.enter_context(pa.ipc.new_stream(sink, wide, options=options))
            writers[group].write_table(rows.combine_chunks())

        waiting = Waiting(write)
        for part in routed:
            for group, rows in _split((part.buckets - begin) // width, _numbered(part)):
                waiting.add(group, rows)
        waiting.finish()
    return sorted(paths.items())


def _numbered(part: Routed) -> pa.RecordBatch:
    """Return the rows with their buckets beside them."""
    n_rows = part.rows.num_rows
    numbers = np.broadcast_to(np.asarray(part.buckets, np.uint32), n_rows)
    return part.rows.append_column(_BUCKET, pa.array(numbers))


def _read_spilled(path: Path) -> Iterator[Routed]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            last = batch.num_columns - 1  # by its place: a table may have a column of any name
            yield Routed(batch.column(last).to_numpy(), batch.remove_column(last))


def _split(
    groups: NDArray[np.uint32] | int, rows: pa.RecordBatch
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Give the rows of each group, which keep their order."""
    if isinstance(groups, int):
        yield groups, rows
        return
    if not len(groups):
        return
    first, last = int(groups.min()), int(groups.max())
    if first == last:
        yield first, rows
        return
    narrow = (groups - first).astype(np.uint16)  # which numpy sorts by radix
    order = np.argsort(narrow, kind="stable")
    taken, ordered = rows.take(pa.array(order)), narrow[order]
    places = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(ordered)]
    for begin, end in pairwise(places):
        yield first + int(ordered[begin]), taken.slice(begin, end - begin)
