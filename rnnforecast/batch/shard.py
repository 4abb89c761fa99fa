"""A table becomes a folder of buckets in one pass, each series wholly in one of them."""

from __future__ import annotations

import glob
import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from rnnforecast.config.fields import options_of
from rnnforecast.config.reading import DataConfig
from rnnforecast.data.rows import encode_names
from rnnforecast.data.schema import Schema, infer_schema
from rnnforecast.errors import UsageError
from rnnforecast.events import Listener, Progressed, Published, Recorder, Warned, ignore
from rnnforecast.sources.columns import cast_all
from rnnforecast.sources.csv import report_skipped
from rnnforecast.sources.files import watching
from rnnforecast.sources.parquet import COLUMNS_AT_ONCE, ParquetSource
from rnnforecast.sources.shards import MANIFEST, MOST_BUCKETS, Bucket, Manifest, digests_of, file_of
from rnnforecast.sources.source import (
    Source,
    join_time,
    open_source,
    rename,
    stored_names,
    stored_source,
    stored_types,
)
from rnnforecast.storage.durable import NewDirectory, collect_leftovers, publishing_directory
from rnnforecast.storage.lock import holding
from rnnforecast.storage.remote import local_path
from rnnforecast.units import check_range
from rnnforecast.workflow.model import check_new_directory

FAN_OUT = 200
"""So many files are open at once."""
BUDGET_BYTES = 40 << 20
"""Of rows that wait."""
_BUCKET = "__bucket"
Numbers = NDArray[np.uint64]
_PLACES = 1 << 21
_AT_ONCE = 1 << 15
"""So many names are Python's at a time: as such they are large."""
_NAMES = pa.dictionary(pa.int32(), pa.string())
_OF_TEXT = (
    *("sep", "decimal", "thousands", "encoding", "skip_rows", "comment", "no_header", "columns"),
    *("on_bad_rows", "rejects", "max_bad_rows", "max_input_bytes"),
)
"""Options that say how text is written and read; the folder holds none."""


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


@dataclass(frozen=True)
class Routed:
    """Some rows, and where they go."""

    buckets: NDArray[np.uint32] | int
    """`(row,)`, or one for all of them."""
    rows: pa.RecordBatch


class Seen:
    """Which series there were, by the hashes of their names: eight bytes for each.

    Most come again and again: a table of the last ones, each at its own place, knows these at once.
    """

    def __init__(self) -> None:
        self._numbers = np.zeros(0, np.uint64)
        self._last = np.zeros(_PLACES, np.uint64)

    def add(self, numbers: Numbers) -> None:
        """Remember these."""
        places = numbers % np.uint64(_PLACES)
        unsure = self._last[places] != numbers
        self._last[places] = numbers
        found = np.unique(numbers[unsure | (numbers == 0)])
        at = np.searchsorted(self._numbers, found)
        is_new = np.ones(len(found), np.bool_)
        inside = at < len(self._numbers)
        is_new[inside] = self._numbers[at[inside]] != found[inside]
        self._numbers = np.insert(self._numbers, at[is_new], found[is_new])

    def counts(self, n_buckets: int) -> dict[int, int]:
        """Return how many there are in each bucket that has some."""
        buckets, counts = np.unique(self._numbers % np.uint64(n_buckets), return_counts=True)
        return dict(zip(buckets.tolist(), counts.tolist(), strict=True))


def numbers_of(names: pa.StringArray) -> Numbers:
    """Return the hashes of names as numbers, `(name,)`: modulo, their buckets."""
    texts = names.cast(pa.binary())
    parts = (texts.slice(at, _AT_ONCE).to_pylist() for at in range(0, len(texts), _AT_ONCE))
    return np.frombuffer(b"".join(map(digests_of, parts)), ">u8").astype(np.uint64)


@dataclass(frozen=True)
class Router:
    """Reads a table, and says where its rows go."""

    source: Source
    """The one that is stored: below what renames or joins its columns."""
    types: dict[str, pa.DataType]
    """What is read, in the order of the source."""
    series: str | None
    """The column that names the series as it is stored; None for a wide table."""
    targets: dict[str, str]
    """The columns with readings as they are stored, by the names that the user knows."""
    n_buckets: int
    seen: Seen

    @classmethod
    def of(
        cls,
        source: Source,
        schema: Schema,
        n_buckets: int,
        listener: Listener,
    ) -> Router:
        """Find out what to read of a source, and as what."""
        times = stored_names(source, schema.time)
        is_text = {c.name for c in schema.covariates if c.is_text} | {schema.series}
        texts = {own for name in is_text - {None} for own in stored_names(source, str(name))}
        if schema.epoch_unit is None:
            texts |= set(times)
        stored = stored_source(source)
        beside = [own for n in schema.covariate_names for own in stored_names(source, n)]
        targets = {name: stored_names(source, name)[0] for name in schema.targets}
        series = None if schema.series is None else stored_names(source, schema.series)[0]
        named = {*times, *beside, *targets.values(), *([] if series is None else [series])}
        types = stored_types(stored, texts, named, listener)
        if series is not None:
            return cls(stored, types, series, targets, n_buckets, Seen())
        readings = {types[own] for own in targets.values()}
        type_ = pa.float32() if readings == {pa.float32()} else pa.float64()
        kept = {n: t for n, t in types.items() if n in named and n not in targets.values()}
        wanted = {**kept, **dict.fromkeys(targets.values(), type_)}
        return cls(stored, wanted, None, targets, n_buckets, Seen())

    @property
    def names(self) -> tuple[str, str]:
        """What the columns of a wide table's series and readings are called in a long one."""
        kept = self.types.keys() - set(self.targets.values())
        return _free("series", kept), _free("value", kept)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the rows that are routed."""
        if self.series is not None:
            return pa.schema(list(self.types.items()))
        readings = set(self.targets.values())
        kept = [(name, type_) for name, type_ in self.types.items() if name not in readings]
        series, value = self.names
        type_ = self.types[next(iter(readings))]
        return pa.schema([*kept, (series, pa.string()), (value, type_)])

    def routed(self, config: DataConfig, listener: Listener) -> Iterator[Routed]:
        """Read all rows. Raises `DataError` for a row without a series, and what cannot be read."""
        passes = self._passes()
        n_rows, n_about = 0, self.source.n_rows_about * len(passes)
        listener(Progressed("sharding", 0, n_about, "rows"))
        with watching(self.source.paths, listener):
            for types in passes:
                for batch in self.source.batches(types):
                    if self.series is None:
                        yield from self._columns(batch)
                    else:
                        yield self._rows(batch, n_rows)
                    n_rows += batch.num_rows
                    pa.default_memory_pool().release_unused()
                    listener(Progressed("sharding", n_rows, max(n_rows, n_about), "rows"))
        report_skipped(self.source.rejected(), n_rows, config, listener)
        listener(Progressed("sharding", n_rows, n_rows, "rows"))

    def _passes(self) -> list[dict[str, pa.DataType]]:
        """Return which columns are read together: of a wide Parquet file not more than some.

        All pass through memory, where each takes its share, however few rows are read at a time.
        """
        if self.series is not None or not isinstance(self.source, ParquetSource):
            return [self.types]
        targets = list(self.targets.values())
        beside = {name: type_ for name, type_ in self.types.items() if name not in targets}
        groups = [targets[i : i + COLUMNS_AT_ONCE] for i in range(0, len(targets), COLUMNS_AT_ONCE)]
        return [{**beside, **{name: self.types[name] for name in own}} for own in groups]

    def _rows(self, batch: pa.RecordBatch, n_before: int) -> Routed:
        """Route the rows of a long table; each name is hashed once a batch."""
        assert self.series is not None
        names = cast_all(batch.select([self.series]), {self.series: _NAMES}, self.source.name)
        encoded = encode_names(names.column(0), self.series, self.source, n_before)
        numbers = numbers_of(encoded.dictionary)
        self.seen.add(numbers)
        buckets = (numbers % np.uint64(self.n_buckets)).astype(np.uint32)
        return Routed(buckets[encoded.indices.to_numpy()], batch)

    def _columns(self, batch: pa.RecordBatch) -> Iterator[Routed]:
        """Route the columns of a wide table: rows of one series each, with what stands beside."""
        there = set(batch.schema.names)
        targets = {name: own for name, own in self.targets.items() if own in there}
        numbers = numbers_of(pa.array(targets))
        self.seen.add(numbers)
        buckets = (numbers % np.uint64(self.n_buckets)).tolist()
        schema = self.schema
        kept = [batch.column(name) for name in schema.names[:-2]]
        for bucket, (name, own) in zip(buckets, targets.items(), strict=True):
            columns = [*kept, pa.repeat(name, batch.num_rows), batch.column(own)]
            yield Routed(bucket, pa.RecordBatch.from_arrays(columns, schema=schema))


def _free(name: str, taken: set[str]) -> str:
    """Return the name, with a low line where it is taken."""
    return name if name not in taken else _free(f"{name}_", taken)


@dataclass(frozen=True)
class Sharded:
    """A folder of buckets that was made."""

    path: Path
    manifest: Manifest
    warnings: tuple[Warned, ...]
    train: str
    """The command line to train on it."""


def shard(
    data: object,
    output: str | Path,
    buckets: int,
    *,
    config: DataConfig | None = None,
    listener: Listener = ignore,
) -> Sharded:
    """Write a table as a Parquet folder in which each series lies wholly in one bucket.

    `output` must not exist; it is there whole or not at all. Memory is bounded whatever the size of
    the table. Raises a `RnnForecastError`.
    """
    config, events = config or DataConfig(), Recorder(listener, [])
    path = local_path(output, "a folder of buckets that is being made")
    check_range("buckets", buckets, 1, MOST_BUCKETS)
    check_new_directory(path, data, config)
    with holding(path.with_name(f".lock-{path.name}")):
        collect_leftovers(path.parent, of=glob.escape(path.name))
        source, schema = _open(data, config, events)
        manifest = _write(source, schema, path, buckets, config, events)
    events(Published(str(path)))
    train = _command(path, schema, manifest, config)
    return Sharded(path, manifest, tuple(events.warnings), train)


def _open(data: object, config: DataConfig, listener: Listener) -> tuple[Source, Schema]:
    """Open a table, and find what its columns are for."""
    source = join_time(rename(open_source(data, config, listener), config.map), config.time)
    schema = infer_schema(source, config, listener)
    if schema.series is None and 0 < len(config.counter) < len(schema.targets):
        raise UsageError(
            "in a long table all readings are of one column, so --counter must name all or none",
            hint=f"shard the others apart, such as  --target {config.counter[0]}",
        )
    return source, schema


def _write(
    source: Source,
    schema: Schema,
    path: Path,
    buckets: int,
    config: DataConfig,
    listener: Listener,
) -> Manifest:

    router = Router.of(source, schema, buckets, listener)
    with publishing_directory(path) as directory:
        files = write_buckets(
            router.routed(config, listener),
            router.schema,
            buckets,
            directory,
            lambda: router.seen.counts(buckets),
        )
        manifest = Manifest(
            n_buckets=buckets,
            files=files,
            series_column=router.series or router.names[0],
            value_column=next(iter(router.targets.values())) if router.series else router.names[1],
            source=source.name,
            layout="wide" if router.series is None else "long",
        )
        with directory.file(MANIFEST) as file:
            file.write(json.dumps(manifest.to_json(), indent=1).encode() + b"\n")
    return manifest


def _command(path: Path, schema: Schema, manifest: Manifest, config: DataConfig) -> str:
    """Return the line that trains on the folder as it would have on the table.

    How text is written no longer matters. A wide table has become a long one.
    """
    told = replace(config, **{name: getattr(DataConfig, name) for name in _OF_TEXT})
    told = replace(told, time=schema.time, series=schema.series, target=schema.targets)
    if schema.series is None:
        kept = {schema.time, *schema.time.split(","), *schema.covariate_names}
        told = replace(
            told,
            series=manifest.series_column,
            target=(manifest.value_column,),
            counter=(manifest.value_column,) if config.counter else (),
            map=tuple(pair for pair in config.map if pair.partition("=")[2] in kept),
            id_from_columns=False,
        )
    return shlex.join(["rnnforecast", "train", str(path), *options_of(told)])
