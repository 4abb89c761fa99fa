"""Rows on their way to buckets: within a budget, in order, by way of larger ranges where many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rnnforecast.batch import shard
from rnnforecast.batch.shard import RoutedRows, RowBuffer, SeriesCounter, hash_names, write_buckets
from rnnforecast.sources.shards import bucket_of
from rnnforecast.storage.durable import publishing_directory

SCHEMA = pa.schema([("bucket", pa.uint32()), ("number", pa.int64()), ("text", pa.string())])


def rows(buckets: np.ndarray, first: int) -> pa.RecordBatch:
    numbers = np.arange(first, first + len(buckets))
    texts = pa.array([f"row {n}" if n % 7 else None for n in numbers], pa.string())
    columns = [pa.array(buckets.astype(np.uint32)), pa.array(numbers), texts]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def routed(n_buckets: int, *, n_batches: int = 40, n_rows: int = 500) -> Iterator[RoutedRows]:
    rng = np.random.default_rng(0)
    for i in range(n_batches):
        buckets = np.minimum(rng.geometric(min(1.0, 20 / n_buckets) / 2, n_rows) - 1, n_buckets - 1)
        buckets = buckets if i % 5 else np.full(n_rows, i % n_buckets)
        buckets = buckets.astype(np.uint32)
        batch = rows(buckets, i * n_rows)
        yield RoutedRows(buckets if i % 5 else int(buckets[0]), batch)


@pytest.mark.parametrize("fan_out", [4, 7, 200])
@pytest.mark.parametrize(
    ("n_buckets", "budget"),
    [(1, 1), (3, 1), (30, 1), (3, 10_000), (30, 10_000), (150, 10_000), (150, 64 << 20)],
)
def test_every_row_comes_out_once_in_its_bucket_and_in_order(
    tmp_path: Path, fan_out: int, n_buckets: int, budget: int
) -> None:
    n_open, most = 0, 0

    def opened(*arguments: object, **options: object) -> pq.ParquetWriter:
        nonlocal n_open, most
        n_open += 1
        most = max(most, n_open)
        writer = real(*arguments, **options)
        closes = writer.close

        def close() -> None:
            nonlocal n_open
            n_open -= writer.is_open
            closes()

        writer.close = close
        return writer

    real = pq.ParquetWriter
    expected = pa.Table.from_batches([part.rows for part in routed(n_buckets)]).to_pandas()
    counts = dict.fromkeys(range(n_buckets), 1)
    with (
        mock.patch.multiple(shard, FAN_OUT=fan_out, BUDGET_BYTES=budget),
        mock.patch.object(pq, "ParquetWriter", opened),
        publishing_directory(tmp_path / "out") as directory,
    ):
        files = list(write_buckets(routed(n_buckets), SCHEMA, n_buckets, directory, lambda: counts))

    assert most <= fan_out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f.file for f in files]
    assert [f.bucket for f in files] == sorted(set(expected["bucket"]))
    for file in files:
        stored = pq.read_table(tmp_path / "out" / file.file).to_pandas()
        rows_of_bucket = expected[expected["bucket"] == file.bucket].reset_index(drop=True)
        assert stored.equals(rows_of_bucket.astype(stored.dtypes))
        assert file.rows == len(rows_of_bucket)


def test_rows_that_wait_hold_no_more_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even through the batches that they are parts of."""
    monkeypatch.setattr(shard, "BUDGET_BYTES", 1 << 20)
    before, most, written = pa.total_allocated_bytes(), 0, []
    buffer = RowBuffer(lambda group, table: written.append((group, table.num_rows)))
    for i in range(300):
        buckets = np.arange(4000) % 50
        batch = rows(buckets, i * 4000)
        buffer.add(RoutedRows(buckets.astype(np.uint32), batch))
        most = max(most, pa.total_allocated_bytes() - before)
        del batch
    buffer.flush()

    assert sum(n for _, n in written) == 300 * 4000
    assert most < 3 << 20
    assert np.median([n for _, n in written]) > 200, "row groups are not small"


def test_of_groups_of_different_sizes_the_largest_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard, "BUDGET_BYTES", 100_000)
    written: list[int] = []
    buffer = RowBuffer(lambda group, _: written.append(group))
    for i in range(20):
        buffer.add(RoutedRows(1, rows(np.ones(500), i)))
        buffer.add(RoutedRows(2, rows(np.ones(2), i)))

    assert set(written) == {1}
    buffer.flush()
    assert written[-1] == 2


@pytest.mark.parametrize("places", [1, 10, 1 << 22])
def test_series_are_counted_once_however_often_they_come(
    monkeypatch: pytest.MonkeyPatch, places: int
) -> None:
    monkeypatch.setattr(shard, "_CACHE_SLOTS", places)
    names = [f"sensor {i}" for i in range(1000)]
    seen, rng = SeriesCounter(), np.random.default_rng(0)
    seen.add(hash_names(pa.array([], pa.string())))
    assert seen.counts(7) == {}
    for _ in range(50):
        seen.add(hash_names(pa.array([names[i] for i in rng.integers(0, 1000, 100)])))
    seen.add(hash_names(pa.array(names)))
    seen.add(hash_names(pa.array(names[:1])))
    for odd in (0, 2**64 - 1):
        before = sum(seen.counts(7).values())
        for _ in range(3):
            seen.add(np.array([odd], np.uint64))
        assert sum(seen.counts(7).values()) == before + 1
        seen = SeriesCounter()
        seen.add(hash_names(pa.array(names)))

    expected: dict[int, int] = {}
    for name in names:
        expected[bucket_of(name, 7)] = expected.get(bucket_of(name, 7), 0) + 1
    assert seen.counts(7) == expected
