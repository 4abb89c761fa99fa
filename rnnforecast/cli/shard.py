"""`rnnforecast shard`: the command and its output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import CommonOptions, Data, configure_screen, with_options
from rnnforecast.cli.console import Screen
from rnnforecast.config.reading import DataConfig

if TYPE_CHECKING:
    from rnnforecast.batch.shard import ShardResult


@with_options
def shard(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    common: CommonOptions,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="PATH", help="The folder to make. It must not exist."
        ),
    ],
    buckets: Annotated[int, typer.Option(help="How many buckets, 1 to 100000.")],
) -> None:
    """Make a Parquet folder in which each series lies wholly in one bucket."""
    screen = configure_screen(context, common)
    sharded = rnnforecast.shard(data, output, buckets, config=reading, listener=screen)

    screen.close()
    if common.json:
        screen.document(shard_document(sharded))
    else:
        print_shards(sharded, screen)


def shard_document(sharded: ShardResult) -> dict[str, Any]:
    """Return the document of `shard --json`: the folder, its manifest, the next command."""
    return {
        "output": str(sharded.path),
        **sharded.manifest.to_json(),
        "warnings": [warning.to_json() for warning in sharded.warnings],
        "train": sharded.train,
    }


def print_shards(sharded: ShardResult, screen: Screen) -> None:
    """Print the numbers of rows, series and buckets, and the next command."""
    manifest = sharded.manifest
    n_files = len(manifest.files)
    screen.result(
        f"written: {sharded.path} ({manifest.n_rows} rows of {manifest.n_series} series in "
        f"{n_files} of {manifest.n_buckets} buckets, {manifest.n_bytes / 1e6:.1f} MB)"
    )

    if n_files > 1:
        largest = max(manifest.files, key=lambda bucket: bucket.rows)
        smallest = min(manifest.files, key=lambda bucket: bucket.rows)
        screen.result(
            f"largest: bucket {largest.bucket} with {largest.rows} rows of {largest.series} "
            f"series; smallest: bucket {smallest.bucket} with {smallest.rows} of {smallest.series}"
        )
    screen.result(f"next: {sharded.train}")
