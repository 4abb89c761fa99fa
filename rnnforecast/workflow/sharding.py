"""The story of spreading a table over buckets: open, infer, route, write, publish."""

from __future__ import annotations

import glob
import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rnnforecast.dataconfig import DataConfig
from rnnforecast.durable import collect_leftovers, publishing_directory
from rnnforecast.durations import check_range
from rnnforecast.errors import UsageError
from rnnforecast.events import Listener, Published, Recorder, Warned, ignore
from rnnforecast.fields import options_of
from rnnforecast.operate.lock import holding
from rnnforecast.places.remote import local_path
from rnnforecast.workflow.outputs import check_new_directory

if TYPE_CHECKING:
    from rnnforecast.data.schema import Schema
    from rnnforecast.sources.reading import Source
    from rnnforecast.sources.shards import Manifest

_OF_TEXT = (
    *("sep", "decimal", "thousands", "encoding", "skip_rows", "comment", "no_header", "columns"),
    *("on_bad_rows", "rejects", "max_bad_rows", "max_input_bytes"),
)
"""Options that say how text is written and read; the folder holds none."""


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
    from rnnforecast.sources.buckets import MOST_BUCKETS

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
    from rnnforecast.data.inference import infer_schema
    from rnnforecast.sources.reading import open_source
    from rnnforecast.sources.renaming import rename
    from rnnforecast.sources.splittime import join_time

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
    from rnnforecast.data.bucketfiles import write_buckets
    from rnnforecast.data.routing import Router
    from rnnforecast.sources.shards import MANIFEST, Manifest

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
