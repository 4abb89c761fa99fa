"""Which bucket each row of a table goes to: rows of a long table as they are, a wide one made long.

Between a source and `bucketfiles`, which writes what is routed. Times and readings are not judged
here: who reads the buckets does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rnnforecast.data.rowcolumns import encode_names
from rnnforecast.data.schema import Schema
from rnnforecast.dataconfig import DataConfig
from rnnforecast.events import Listener, Progressed
from rnnforecast.sources.badrows import report_skipped
from rnnforecast.sources.buckets import digests_of
from rnnforecast.sources.casting import cast_all
from rnnforecast.sources.filestates import watching
from rnnforecast.sources.parquetfile import COLUMNS_AT_ONCE, ParquetSource
from rnnforecast.sources.reading import Source
from rnnforecast.sources.stored import stored_names, stored_source, stored_types

Numbers = NDArray[np.uint64]
_PLACES = 1 << 21
_AT_ONCE = 1 << 15
"""So many names are Python's at a time: as such they are large."""
_NAMES = pa.dictionary(pa.int32(), pa.string())


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
