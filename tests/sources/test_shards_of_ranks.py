"""Which buckets a rank reads: neighbours, each once, and about as many rows as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.cli.main import run
from rnnforecast.errors import UsageError
from rnnforecast.sources.shards import Bucket, ShardManifest, open_rank_slice, rank_slice


def manifest_of(rows: list[int]) -> ShardManifest:
    files = tuple(Bucket(i, f"bucket-{i}", n, 1, 1, "") for i, n in enumerate(rows))
    return ShardManifest(len(rows), files, "sensor", "value", "source", "long")


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.data())
def test_every_bucket_is_read_by_one_rank_and_every_rank_reads_one(rows, data):
    n = data.draw(st.integers(1, len(rows)))
    shares = [rank_slice(manifest_of(rows), rank, n) for rank in range(n)]

    assert shares[0].start == 0
    assert shares[-1].stop == len(rows)
    assert [share.stop for share in shares[:-1]] == [share.start for share in shares[1:]]
    assert all(share.start < share.stop for share in shares)


@given(st.lists(st.integers(1, 1000), min_size=20, max_size=60), st.integers(1, 8))
def test_no_rank_reads_much_more_than_its_part(rows, n):
    sizes = [sum(rows[rank_slice(manifest_of(rows), rank, n)]) for rank in range(n)]
    assert max(sizes) <= sum(rows) / n + max(rows)


def test_shares_are_opened_one_after_the_other(tmp_path: Path):
    frame = pd.DataFrame(
        {
            "time": np.tile(pd.date_range("2026-01-01", periods=3, freq="h"), 20),
            "sensor": np.repeat([f"s{i}" for i in range(20)], 3),
            "value": 1.0,
        }
    )
    frame.to_parquet(tmp_path / "long.parquet")
    folder = tmp_path / "buckets"
    line = ["shard", tmp_path / "long.parquet", "--output", folder, "--buckets", 4, "-q"]
    assert run([str(word) for word in line]) == 0

    files = [file.path.name for rank in range(3) for file in open_rank_slice(folder, rank, 3).files]

    assert files == sorted(path.name for path in folder.glob("*.parquet"))
    with pytest.raises(UsageError, match="only 4 buckets"):
        open_rank_slice(str(folder), 0, 5)
    with pytest.raises(UsageError, match="needs a folder of buckets"):
        open_rank_slice(tmp_path / "long.parquet", 0, 2)
    with pytest.raises(UsageError, match="needs a folder of buckets"):
        open_rank_slice(frame, 0, 2)
