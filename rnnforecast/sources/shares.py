"""Which buckets of a folder one of several processes reads that read all of it together.

Apart from `shards`, which opens them: buckets that lie next to each other go to one process, so
that the order of all series is the same however many processes there are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rnnforecast.errors import UsageError
from rnnforecast.places.remote import place_of
from rnnforecast.sources.shards import (
    Manifest,
    ShardFolder,
    check_folder,
    is_sharded,
    open_buckets,
    read_manifest,
)


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
