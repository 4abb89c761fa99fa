"""Commands that make readings ready for others: buckets of series."""

from __future__ import annotations

from typing import Annotated

import typer

from rnnforecast.cli.base import Data, app, screen_of
from rnnforecast.dataconfig import DataConfig
from rnnforecast.options import CommonOptions, with_options


@app.command()
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
    from rnnforecast import shardreport, workflow

    screen = screen_of(context, common)
    sharded = workflow.shard(data, output, buckets, config=reading, listener=screen)
    screen.close()
    if common.json:
        screen.document(shardreport.shard_document(sharded))
    else:
        shardreport.print_shards(sharded, screen)
