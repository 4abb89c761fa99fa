"""`shard`: write a table, in one pass, as a folder of buckets with each series in one of them."""

from __future__ import annotations

import glob
import hashlib
import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from rnnforecast.config.commands import check_option_names, set_options
from rnnforecast.config.fields import to_arguments
from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import UsageError
from rnnforecast.events import (
    Listener,
    ProgressEvent,
    PublishedEvent,
    Recorder,
    WarningEvent,
    ignore,
)
from rnnforecast.sources.columns import cast_batch
from rnnforecast.sources.csv import report_skipped
from rnnforecast.sources.files import as_table, check_new_directory
from rnnforecast.sources.inputs import reading
from rnnforecast.sources.parquet import COLUMNS_AT_ONCE, ParquetSource
from rnnforecast.sources.shards import (
    MANIFEST,
    MAX_BUCKETS,
    Bucket,
    ShardManifest,
    bucket_file_name,
    name_digests,
)
from rnnforecast.sources.source import (
    Source,
    join_key,
    join_names_of_parts,
    open_table,
    stored_names,
    stored_types,
    unwrap,
)
from rnnforecast.storage.durable import NewDirectory, publishing_directory, remove_stale_temps
from rnnforecast.storage.lock import acquire
from rnnforecast.storage.remote import local_path
from rnnforecast.tables.rows import encode_names
from rnnforecast.tables.schema import Schema, infer_schema
from rnnforecast.units import check_range

if TYPE_CHECKING:
    from rnnforecast.config.keywords import ReadingOptions

FAN_OUT = 200
"""Files that are open at once. More buckets than these are written by way of larger ranges."""
BUDGET_BYTES = 40 << 20
"""Memory of the rows that are buffered, over all buckets."""
_BUCKET_COLUMN = "__bucket"
Hashes = NDArray[np.uint64]
_CACHE_SLOTS = 1 << 21
_NAMES_AT_ONCE = 1 << 15
"""Names that are Python strings at a time: as such they are large."""
_NAMES = pa.dictionary(pa.int32(), pa.string())
_TEXT_OPTIONS = (
    *("sep", "decimal", "thousands", "encoding", "skip_rows", "comment", "no_header", "columns"),
    *("on_bad_rows", "rejects", "max_bad_rows", "max_input_bytes"),
)
"""Options that say how text is written and read; the folder holds none."""


@dataclass(frozen=True)
class ShardResult:
    """Result of `shard`."""

    path: Path
    manifest: ShardManifest
    warnings: tuple[WarningEvent, ...]
    train: str
    """The command line to train on the folder."""


def shard(
    data: object,
    output: str | Path,
    buckets: int,
    *,
    config: DataConfig | None = None,
    listener: Listener = ignore,
    **options: Unpack[ReadingOptions],
) -> ShardResult:
    """Write a table as a Parquet folder with all rows of a series in one bucket.

    `data` is a path or a table, as for `train`. The keyword options are those of the command and
    override `config`.

    `output` must not exist; the folder appears only when it is complete. Memory is bounded,
    whatever the size of the table. Raises a `RnnForecastError`.
    """
    check_option_names(shard, options, DataConfig())
    config = set_options(config or DataConfig(), options)
    events, data = Recorder(listener), as_table(data)
    path = local_path(output, "an unfinished folder of buckets")
    check_range("buckets", buckets, 1, MAX_BUCKETS)
    check_new_directory(path, data, config)
    with acquire(path.with_name(f".lock-{path.name}")):
        remove_stale_temps(path.parent, pattern=glob.escape(path.name))
        source = open_table(data, config, events)
        schema = infer_schema(source, config, events)
        if schema.series is None and 0 < len(config.counter) < len(schema.targets):
            raise UsageError(
                "in a long table all readings share one column, so --counter must name all of "
                "them or none",
                hint=f"shard the other columns separately, e.g. with  --target {config.counter[0]}",
            )
        if schema.series is None and config.agg_by_column:
            raise UsageError(
                "in a long table all readings share one column, so --agg takes a single rule",
                hint="shard the columns of each rule separately with  --target",
            )
        manifest = _write(Router.of(source, schema, buckets, events), path, config, events)

    events(PublishedEvent(str(path)))
    train = _train_command(path, schema, manifest, config)
    return ShardResult(path, manifest, tuple(events.warnings), train)


def _write(router: Router, path: Path, config: DataConfig, listener: Listener) -> ShardManifest:
    with publishing_directory(path) as directory:
        routed = router.route(config, listener)
        count_series = partial(router.series_seen.counts, router.n_buckets)
        files = write_buckets(routed, router.schema, router.n_buckets, directory, count_series)

        series, value = router.long_names
        manifest = ShardManifest(
            n_buckets=router.n_buckets,
            files=tuple(files),
            series_column=series,
            value_column=value,
            source=router.source.name,
            layout="wide" if router.series is None else "long",
        )
        with directory.file(MANIFEST) as file:
            file.write(json.dumps(manifest.to_json(), indent=1).encode() + b"\n")
    return manifest


def _train_command(path: Path, schema: Schema, manifest: ShardManifest, config: DataConfig) -> str:
    """Return the command line that trains on the folder as it would have on the table.

    Options about text are left out. A wide table has become a long one.
    """
    options = replace(config, **{name: getattr(DataConfig, name) for name in _TEXT_OPTIONS})
    options = replace(options, time=schema.time, series=schema.series, target=schema.targets)

    if schema.series is None:
        columns = {schema.time, *schema.time.split(","), *schema.covariate_names}
        options = replace(
            options,
            series=manifest.series_column,
            target=(manifest.value_column,),
            counter=(manifest.value_column,) if config.counter else (),
            map=tuple(pair for pair in config.map if pair.partition("=")[2] in columns),
            id_from_columns=False,
        )
    return shlex.join(["rnnforecast", "train", str(path), *to_arguments(options)])


@dataclass(frozen=True)
class RoutedRows:
    """Some rows, and the buckets, or other groups, that they belong to."""

    groups: NDArray[np.uint32] | int
    """`(row,)`, or one group for all rows."""
    rows: pa.RecordBatch

    def split(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows of each group, in their order."""
        if isinstance(self.groups, int):
            yield self.groups, self.rows
            return
        if not len(self.groups):
            return
        first, last = int(self.groups.min()), int(self.groups.max())
        if first == last:
            yield first, self.rows
            return

        narrow = (self.groups - first).astype(np.uint16)  # numpy sorts 16 bits by radix
        order = np.argsort(narrow, kind="stable")
        rows, groups = self.rows.take(pa.array(order)), narrow[order]
        changes = (np.flatnonzero(np.diff(groups)) + 1).tolist()
        for begin, end in pairwise([0, *changes, len(groups)]):
            yield first + int(groups[begin]), rows.slice(begin, end - begin)


@dataclass(frozen=True)
class Router:
    """Reads a table and assigns its rows to buckets."""

    source: Source
    """The stored table, without renamed or joined columns."""
    types: dict[str, pa.DataType]
    """The columns to read and their types, in the order of the source."""
    series: str | None
    """Stored name of the column with the names of series, which is new where it is joined of
    `key_parts`; None for a wide table."""
    targets: dict[str, str]
    """Stored names of the columns with readings, by the names that the user knows."""
    n_buckets: int
    series_seen: SeriesCounter
    key_parts: tuple[str, ...] = ()
    """Stored names of the columns that are joined to the names of series."""

    @classmethod
    def of(cls, source: Source, schema: Schema, n_buckets: int, listener: Listener) -> Router:
        """Find the stored columns and types to read of a source."""
        times = stored_names(source, schema.time)
        is_text = {c.name for c in schema.covariates if c.is_text} | {schema.series}
        source = join_key(source, schema.series)
        texts = {stored for name in is_text - {None} for stored in stored_names(source, str(name))}
        if schema.epoch_unit is None:
            texts |= set(times)
        table = unwrap(source)
        covariates = [c for name in schema.covariate_names for c in stored_names(source, name)]
        targets = {name: stored_names(source, name)[0] for name in schema.targets}
        parts = () if schema.series is None else stored_names(source, schema.series)
        series = parts[0] if len(parts) == 1 else schema.series
        used = {*times, *covariates, *targets.values(), *parts}
        types = stored_types(table, texts, used, listener)
        if series is None:
            # The readings of a wide table go to one column, so they get one type.
            target_types = {types[column] for column in targets.values()}
            value_type = pa.float32() if target_types == {pa.float32()} else pa.float64()
            types = {n: t for n, t in types.items() if n in used and n not in targets.values()}
            types |= dict.fromkeys(targets.values(), value_type)
        key_parts = parts if len(parts) > 1 else ()
        return cls(table, types, series, targets, n_buckets, SeriesCounter(), key_parts)

    @property
    def shared_types(self) -> dict[str, pa.DataType]:
        """Types of the columns without readings: all series of a wide table have these columns."""
        targets = set(self.targets.values())
        return {name: type_ for name, type_ in self.types.items() if name not in targets}

    @property
    def long_names(self) -> tuple[str, str]:
        """Names of the columns for series and readings in the buckets; a wide table gets both."""
        if self.series is not None:
            return self.series, next(iter(self.targets.values()))
        shared = self.shared_types.keys()
        return _free_name("series", shared), _free_name("value", shared)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the rows that are routed."""
        if self.series is not None:
            joined = [(self.series, pa.string())] if self.key_parts else []
            return pa.schema([*self.types.items(), *joined])
        series, value = self.long_names
        value_type = self.types[next(iter(self.targets.values()))]
        return pa.schema([*self.shared_types.items(), (series, pa.string()), (value, value_type)])

    def route(self, config: DataConfig, listener: Listener) -> Iterator[RoutedRows]:
        """Read all rows; yield them with their buckets.

        Raises `DataError` for a row without a series, and for what cannot be read.
        """
        passes = self._passes()
        n_rows, n_expected = 0, self.source.n_rows_estimate * len(passes)
        listener(ProgressEvent("sharding", 0, n_expected, "rows"))
        with reading(self.source.inputs, listener):
            for types in passes:
                for batch in self.source.batches(types):
                    if self.series is None:
                        yield from self._route_columns(batch)
                    else:
                        yield self._route_rows(batch, n_rows)
                    n_rows += batch.num_rows
                    pa.default_memory_pool().release_unused()
                    listener(ProgressEvent("sharding", n_rows, max(n_rows, n_expected), "rows"))

        report_skipped(self.source.rejected(), n_rows, config, listener)
        listener(ProgressEvent("sharding", n_rows, n_rows, "rows"))

    def _passes(self) -> list[dict[str, pa.DataType]]:
        """Return the columns to read together, group by group.

        A wide Parquet file is read in several passes, as each column that is read takes its share
        of memory, however few rows are read at a time.
        """
        if self.series is not None or not isinstance(self.source, ParquetSource):
            return [self.types]
        targets = list(self.targets.values())
        groups = [targets[i : i + COLUMNS_AT_ONCE] for i in range(0, len(targets), COLUMNS_AT_ONCE)]
        return [{**self.shared_types, **{n: self.types[n] for n in group}} for group in groups]

    def _route_rows(self, batch: pa.RecordBatch, n_before: int) -> RoutedRows:
        """Route the rows of a long table; each name is hashed once a batch."""
        assert self.series is not None
        if self.key_parts:
            joined = join_names_of_parts(
                [batch.column(p).cast(pa.string()) for p in self.key_parts]
            )
            names = [*batch.schema.names, self.series]
            batch = pa.RecordBatch.from_arrays([*batch.columns, joined], names=names)
        cells = cast_batch(batch.select([self.series]), {self.series: _NAMES}, self.source.name)
        encoded = encode_names(cells.column(0), self.series, self.source, n_before)
        buckets = self._assign_buckets(encoded.dictionary)
        return RoutedRows(buckets[encoded.indices.to_numpy()], batch)

    def _route_columns(self, batch: pa.RecordBatch) -> Iterator[RoutedRows]:
        """Route the columns of a wide table: rows of one series each, with all covariates."""
        present = set(batch.schema.names)
        targets = {name: column for name, column in self.targets.items() if column in present}
        buckets = self._assign_buckets(pa.array(targets)).tolist()
        schema = self.schema
        shared = [batch.column(name) for name in schema.names[:-2]]
        for bucket, (name, column) in zip(buckets, targets.items(), strict=True):
            columns = [*shared, pa.repeat(name, batch.num_rows), batch.column(column)]
            yield RoutedRows(bucket, pa.RecordBatch.from_arrays(columns, schema=schema))

    def _assign_buckets(self, names: pa.StringArray) -> NDArray[np.uint32]:
        """Return the buckets of series, `(name,)`, which are counted as seen."""
        hashes = hash_names(names)
        self.series_seen.add(hashes)
        return (hashes % np.uint64(self.n_buckets)).astype(np.uint32)


def _free_name(name: str, existing: Set[str]) -> str:
    """Return the name, with underscores appended while it exists."""
    return name if name not in existing else _free_name(f"{name}_", existing)


class SeriesCounter:
    """Set of the series seen, by the hashes of their names: eight bytes for each.

    Most names come again and again. A table of the last hashes, each in the slot of its remainder,
    recognises these without a search.
    """

    def __init__(self) -> None:
        self._hashes = np.zeros(0, np.uint64)  # sorted
        self._recent = np.zeros(_CACHE_SLOTS, np.uint64)

    def add(self, hashes: Hashes) -> None:
        """Add hashes, `(name,)`."""
        slots = hashes % np.uint64(_CACHE_SLOTS)
        is_unknown = self._recent[slots] != hashes
        self._recent[slots] = hashes
        # An empty slot is 0, so the hash 0 is always searched.
        candidates = np.unique(hashes[is_unknown | (hashes == 0)])

        at = np.searchsorted(self._hashes, candidates)
        is_new = np.ones(len(candidates), np.bool_)
        is_inside = at < len(self._hashes)
        is_new[is_inside] = self._hashes[at[is_inside]] != candidates[is_inside]
        self._hashes = np.insert(self._hashes, at[is_new], candidates[is_new])

    def counts(self, n_buckets: int) -> dict[int, int]:
        """Return the number of series in each bucket that has some."""
        buckets, counts = np.unique(self._hashes % np.uint64(n_buckets), return_counts=True)
        return dict(zip(buckets.tolist(), counts.tolist(), strict=True))


def hash_names(names: pa.StringArray) -> Hashes:
    """Return the hashes of names as integers, `(name,)`; modulo `n_buckets` they are buckets."""
    texts = names.cast(pa.binary())
    starts = range(0, len(texts), _NAMES_AT_ONCE)
    parts = (texts.slice(start, _NAMES_AT_ONCE).to_pylist() for start in starts)
    return np.frombuffer(b"".join(map(name_digests, parts)), ">u8").astype(np.uint64)


def write_buckets(
    routed: Iterable[RoutedRows],
    schema: pa.Schema,
    n_buckets: int,
    directory: NewDirectory,
    count_series: Callable[[], dict[int, int]],
    *,
    buckets: range | None = None,
) -> Iterator[Bucket]:
    """Write rows to the files of their buckets; yield those, in the order of their numbers.

    The rows are those of a range of `buckets`, by default of all. `count_series` returns how many
    series each bucket has; it is called once all rows are read. A large range is written by way of
    spill files of smaller ones; each of them is read, and removed, before the next one is opened.
    """
    buckets = range(n_buckets) if buckets is None else buckets
    if len(buckets) <= FAN_OUT:
        with ExitStack() as stack:
            writer = BucketWriter(directory, stack, schema, n_buckets)
            buffer = RowBuffer(writer.write)
            for part in routed:
                buffer.add(part)
            buffer.flush()
            yield from writer.close(count_series())
        return

    width = FAN_OUT
    while width * FAN_OUT < len(buckets):
        width *= FAN_OUT
    for group, path in _spill(routed, schema, buckets.start, width, directory.path):
        inner = buckets[group * width : (group + 1) * width]
        spilled = _read_spill(path)
        yield from write_buckets(spilled, schema, n_buckets, directory, count_series, buckets=inner)
        path.unlink()


def _spill(
    routed: Iterable[RoutedRows], schema: pa.Schema, begin: int, width: int, folder: Path
) -> list[tuple[int, Path]]:
    """Write rows to a file for each `width` buckets from `begin`; return the files by group.

    The bucket of each row is the last column.
    """
    schema = schema.append(pa.field(_BUCKET_COLUMN, pa.uint32()))
    paths: dict[int, Path] = {}
    with ExitStack() as stack:
        writers: dict[int, pa.RecordBatchFileWriter] = {}

        def write(group: int, rows: pa.Table) -> None:
            if group not in writers:
                paths[group] = folder / f"spill-{begin}-{width}-{group}"
                sink = stack.enter_context(pa.OSFile(str(paths[group]), "wb"))
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                writer = pa.ipc.new_stream(sink, schema, options=options)
                writers[group] = stack.enter_context(writer)
            writers[group].write_table(rows.combine_chunks())

        buffer = RowBuffer(write)
        for part in routed:
            buckets = np.broadcast_to(np.asarray(part.groups, np.uint32), part.rows.num_rows)
            rows = part.rows.append_column(_BUCKET_COLUMN, pa.array(buckets))
            buffer.add(RoutedRows((part.groups - begin) // width, rows))
        buffer.flush()
    return sorted(paths.items())


def _read_spill(path: Path) -> Iterator[RoutedRows]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            last = batch.num_columns - 1  # by position: a table may have a column of any name
            yield RoutedRows(batch.column(last).to_numpy(), batch.remove_column(last))


class RowBuffer:
    """Rows that are not written yet, in groups that share a budget of memory."""

    def __init__(self, write: Callable[[int, pa.Table], None]) -> None:
        self._write = write
        self._rows: defaultdict[int, list[pa.RecordBatch]] = defaultdict(list)
        self._bytes: Counter[int] = Counter()
        self._n_bytes = 0

    def add(self, routed: RoutedRows) -> None:
        """Buffer rows; where the budget is exceeded, the largest groups are written."""
        for group, rows in routed.split():
            n_bytes = rows.nbytes
            self._rows[group].append(rows)
            self._bytes[group] += n_bytes
            self._n_bytes += n_bytes
            if self._n_bytes > BUDGET_BYTES:
                self._flush_largest()

    def flush(self) -> None:
        """Write all rows, in the order of the groups."""
        for group in sorted(self._rows):
            self._flush(group)

    def _flush_largest(self) -> None:
        """Write the largest groups until half of the budget is free, and copy the rows that stay.

        Rows are slices of the batches that they came in, which a slice keeps in memory.
        """
        for group in sorted(self._bytes, key=lambda group: (-self._bytes[group], group)):
            if self._n_bytes <= BUDGET_BYTES // 2:
                break
            self._flush(group)

        for group, batches in self._rows.items():
            if len(batches) == 1:
                copy = batches[0].take(pa.array(np.arange(batches[0].num_rows)))
            else:
                (copy,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
            self._rows[group] = [copy]
        pa.default_memory_pool().release_unused()

    def _flush(self, group: int) -> None:
        self._n_bytes -= self._bytes.pop(group)
        self._write(group, pa.Table.from_batches(self._rows.pop(group)))


class BucketWriter:
    """The Parquet files of some buckets, each opened with its first rows."""

    def __init__(
        self, directory: NewDirectory, stack: ExitStack, schema: pa.Schema, n_buckets: int
    ) -> None:
        self._directory, self._stack = directory, stack
        self._schema = schema
        self._n_buckets = n_buckets
        self._writers: dict[int, pa_parquet.ParquetWriter] = {}
        self._files: dict[int, _HashingFile] = {}
        self._n_rows: Counter[int] = Counter()

    def write(self, bucket: int, rows: pa.Table) -> None:
        """Write rows to a bucket, as one row group."""
        if bucket not in self._writers:
            name = bucket_file_name(bucket, self._n_buckets)
            file = _HashingFile(self._stack.enter_context(self._directory.file(name)))
            # Readings hardly repeat, so a dictionary of them would only take space.
            dictionary = [f.name for f in self._schema if not pa.types.is_floating(f.type)]
            self._files[bucket] = file
            self._writers[bucket] = pa_parquet.ParquetWriter(
                pa.PythonFile(file, mode="w"), self._schema, use_dictionary=dictionary or False
            )
        self._writers[bucket].write_table(rows, row_group_size=max(rows.num_rows, 1))
        self._n_rows[bucket] += rows.num_rows

    def close(self, n_series: dict[int, int]) -> list[Bucket]:
        """Finish all files; return a description of each, in the order of the buckets."""
        for writer in self._writers.values():
            writer.close()
        self._stack.close()

        return [
            Bucket(
                bucket,
                bucket_file_name(bucket, self._n_buckets),
                self._n_rows[bucket],
                n_series[bucket],
                file.n_bytes,
                file.digest.hexdigest(),
            )
            for bucket, file in sorted(self._files.items())
        ]


class _HashingFile:
    """A file that is written from its beginning to its end, and hashed meanwhile."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.n_bytes = 0

    def write(self, content: bytes) -> int:
        """Append content; it is dropped if the file is closed.

        After an error the file is closed first, and a writer then flushes what it has left.
        """
        if self._file.closed:
            return len(content)
        self.digest.update(content)
        self.n_bytes += len(content)
        return self._file.write(content)

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.n_bytes

    def flush(self) -> None:
        """Flush to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Do nothing: the directory syncs and closes the file."""
