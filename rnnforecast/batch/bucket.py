"""Forecast of one bucket of a batch, in whatever process a worker runs."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import Any

from rnnforecast.batch.parts import COUNTS, DEGRADED, Parts
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import PredictConfig
from rnnforecast.data.forecast import Forecaster
from rnnforecast.data.output import encode_table, floats_to_doubles
from rnnforecast.errors import NotEnoughDataError, WriteError
from rnnforecast.events import Recorder, ignore
from rnnforecast.model.artifact import Artifact
from rnnforecast.process import keep_freed_memory
from rnnforecast.sources.shards import (
    Bucket,
    ShardFolder,
    ShardManifest,
    bucket_of,
    open_bucket,
    read_manifest,
)
from rnnforecast.storage.durable import crash_point
from rnnforecast.storage.remote import as_path
from rnnforecast.tables.match import newest_reading
from rnnforecast.tables.schema import Schema
from rnnforecast.workflow.model import forecast, load, output_table
from rnnforecast.workflow.saved import prepare, restore

_LATE_MODULES = (
    "rnnforecast.evaluate.calibration",
    "rnnforecast.model.experts",
    "rnnforecast.model.forecaster",
    "pyarrow.pandas_compat",
)
"""Modules that a bucket needs and that are otherwise imported in functions."""
_EMPTY_FACTS: dict[str, Any] = {**dict.fromkeys(COUNTS, 0), "newest_us": None, "warnings": []}
"""What the manifest says of an empty bucket."""


@dataclass(frozen=True)
class BucketTask:
    """Everything, except the number of the bucket, that decides the forecast of a bucket."""

    data: str
    """The folder that `shard` has made."""
    model: str
    version: str
    config: PredictConfig
    options: DataConfig
    parts: Parts
    schema: Schema
    """That of the model."""


def import_worker_modules() -> None:
    """Import everything that a bucket needs, with garbage collection turned off meanwhile.

    Imports leave no garbage, and looking for it takes a tenth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for name in _LATE_MODULES:
            import_module(name)
    finally:
        if was_enabled:
            gc.enable()


def predict_bucket(task: BucketTask, bucket: int) -> dict[str, Any]:
    """Forecast a bucket and publish its part, unless it is published; return its manifest."""
    published = task.parts.read(bucket)
    if published is not None:
        return published

    keep_freed_memory()
    content, facts = None, _EMPTY_FACTS
    manifest, files = _shard_manifest(task.data, task.parts.key)
    if bucket in files:
        content, facts = _forecast(task, bucket, open_bucket(task.data, manifest, files[bucket]))
    crash_point("part-forecast")
    try:
        return task.parts.publish(bucket, content, facts)
    except WriteError:
        # A commit removes temporary files of parts that are still being written; then another
        # worker has published this part.
        published = task.parts.read(bucket)
        if published is None:
            raise
        return published


def _forecast(
    task: BucketTask, bucket: int, source: ShardFolder
) -> tuple[bytes | None, dict[str, Any]]:
    """Return the bytes of a bucket's part, and what its manifest says."""
    artifact, forecaster, bucket_by_name = _load_once(
        task.model, task.version, task.parts.n_buckets
    )
    events = Recorder(ignore)
    ready = prepare(
        artifact,
        source,
        replace(task.config, max_age=None, warn_age=None),  # checked at the commit, for all buckets
        task.options,
        events,
        is_expected=lambda name: bucket_by_name[name] == bucket,
    )

    facts: dict[str, Any] = {**_EMPTY_FACTS, "newest_us": newest_reading(ready.past)}
    content = None
    try:
        prediction = forecast(ready, events, forecaster=forecaster)
    except NotEnoughDataError:
        facts["left_out"] = ready.past.n_origins
    else:
        path = str(task.parts.file_of(bucket))
        table = output_table(prediction.forecast, path, task.config, events)
        content = encode_table(table.cast(floats_to_doubles(table.schema)), path)
        facts |= {"rows": table.num_rows, "series": len(prediction.forecast.names)}
        facts |= {name: len(getattr(prediction, name)) for name in DEGRADED}
    return content, {**facts, "warnings": [warning.to_json() for warning in events.warnings]}


# A process forecasts many buckets of one task. What they share is loaded with the first bucket and
# kept in the caches below: a task is sent to other processes, so it cannot carry the model itself.
# One entry is enough, as a process works on one task at a time. It may live longer than the task,
# so everything that decides a result is an argument, and with that part of the cache's key.


@lru_cache(maxsize=1)
def _shard_manifest(data: str, _key: str) -> tuple[ShardManifest, dict[int, Bucket]]:
    """Return the manifest of a folder of buckets, and the buckets that have rows by number.

    The key of the forecast, which holds a hash of the manifest, is an argument because a folder
    may be replaced by another one of the same name.
    """
    manifest = read_manifest(as_path(data))
    return manifest, {file.bucket: file for file in manifest.files}


@lru_cache(maxsize=1)
def _load_once(
    model: str, version: str, n_buckets: int
) -> tuple[Artifact, Forecaster, dict[str, int]]:
    """Load a version, to forecast in one thread: there is a worker for each processor.

    Returns also the bucket of each series of the model.
    """
    artifact = load(model, version=version).artifact
    key_of = artifact.schema.key_of
    bucket_by_name = {name: bucket_of(key_of(name), n_buckets) for name in artifact.names}
    return artifact, restore(artifact, n_threads=1), bucket_by_name
