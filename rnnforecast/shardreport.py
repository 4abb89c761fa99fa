"""What `shard` says: as a JSON document, and as lines for a person."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rnnforecast.console import Screen

if TYPE_CHECKING:
    from rnnforecast.workflow import Sharded


def shard_document(sharded: Sharded) -> dict[str, Any]:
    """Return what `shard --json` prints: the folder, its manifest, what to type next."""
    return {
        "output": str(sharded.path),
        **sharded.manifest.to_json(),
        "warnings": [asdict(warning) for warning in sharded.warnings],
        "train": sharded.train,
    }


def print_shards(sharded: Sharded, screen: Screen) -> None:
    """Print how many rows and series lie in how many buckets, and the line to train on them."""
    manifest = sharded.manifest
    n_files = len(manifest.files)
    screen.result(
        f"written: {sharded.path} ({manifest.n_rows} rows of {manifest.n_series} series in "
        f"{n_files} of {manifest.n_buckets} buckets, {manifest.n_bytes / 1e6:.1f} MB)"
    )
    if n_files > 1:
        largest = max(manifest.files, key=lambda one: one.rows)
        smallest = min(manifest.files, key=lambda one: one.rows)
        screen.result(
            f"largest: bucket {largest.bucket} with {largest.rows} rows of {largest.series} "
            f"series; smallest: bucket {smallest.bucket} with {smallest.rows} of {smallest.series}"
        )
    screen.result(f"next: {sharded.train}")
