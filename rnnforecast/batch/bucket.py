"""One bucket of a batch: what a worker receives, and its forecast."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import Any

from rnnforecast.batch.parts import Parts
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import PredictConfig
from rnnforecast.data.forecast import Forecaster
from rnnforecast.data.match import newest_of
from rnnforecast.data.output import encode_table, in_doubles
from rnnforecast.errors import NotEnoughDataError, WriteError
from rnnforecast.evaluate.postprocess import Prediction
from rnnforecast.events import Recorder, ignore
from rnnforecast.model.artifact import Artifact
from rnnforecast.sources.shards import (
    Bucket,
    Manifest,
    ShardFolder,
    bucket_of,
    open_bucket,
    read_manifest,
)
from rnnforecast.storage.durable import crash_point
from rnnforecast.storage.remote import place_of
from rnnforecast.workflow.model import forecast, load, prepare, restore, table_to_write

_LATE = (
    "rnnforecast.evaluate.calibration",
    "rnnforecast.model.forecaster",
    "pyarrow.pandas_compat",
)
"""Modules that a bucket needs and that are imported late otherwise: torch among them."""
_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("rows", "series", "left_out", "shortened", "replaced"), 0),
    "newest_us": None,
    "warnings": [],
}
"""What the manifest counts of an empty bucket."""


@dataclass(frozen=True)
class BucketTask:
    """All that decides what a bucket comes to, but for which bucket it is."""

    data: str
    """The folder that `shard` has made."""
    model: str
    version: str
    config: PredictConfig
    options: DataConfig
    parts: Parts
    tz: str | None
    """The zone of the readings' times."""

    def source_of(self, bucket: int) -> ShardFolder | None:
        """Return the rows of a bucket; None where it is empty."""
        manifest, held = _held(self.data, self.parts.key)
        return open_bucket(self.data, manifest, held[bucket]) if bucket in held else None


def import_all() -> None:
    """Import all that a bucket needs, without looking for garbage meanwhile.

    There is none, and looking for it takes a tenth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for name in _LATE:
            import_module(name)
    finally:
        if was_enabled:
            gc.enable()


def predict_bucket(task: BucketTask, bucket: int) -> dict[str, Any]:
    """Forecast a bucket and publish its part, unless it is there; return its manifest."""
    there = task.parts.read(bucket)
    if there is not None:
        return there
    source = task.source_of(bucket)
    content, counted = (None, _NOTHING) if source is None else _forecast(task, bucket, source)
    crash_point("part-forecast")
    try:
        return task.parts.publish(bucket, content, counted)
    except WriteError:  # who has committed takes away what others are still writing
        there = task.parts.read(bucket)
        if there is None:
            raise
        return there


def _forecast(
    task: BucketTask, bucket: int, source: ShardFolder
) -> tuple[bytes | None, dict[str, Any]]:
    """Return the bytes of a bucket's part, and what its manifest counts."""
    artifact, forecaster = _session(task.model, task.version)
    events = Recorder(ignore, [])
    ready = prepare(
        artifact,
        source,
        replace(task.config, max_age=None, warn_age=None),  # judged once, of all buckets
        task.options,
        events,
        is_expected=_belonging(task, bucket),
    )
    newest_us = newest_of(ready.past)
    try:
        prediction = forecast(ready, events, forecaster=forecaster)
    except NotEnoughDataError:
        n_left_out = ready.past.n_origins
        warnings = [asdict(warning) for warning in events.warnings]
        counted = {"left_out": n_left_out, "newest_us": newest_us, "warnings": warnings}
        return None, {**_NOTHING, **counted}
    path = str(task.parts.file_of(bucket))
    table = table_to_write(prediction.forecast, path, task.config, events)
    content = encode_table(table.cast(in_doubles(table.schema)), path)
    return content, _counted(prediction, table.num_rows, newest_us, events)


def _counted(
    prediction: Prediction, n_rows: int, newest_us: int, events: Recorder
) -> dict[str, Any]:
    return {
        "rows": n_rows,
        "series": len(prediction.forecast.names),
        "left_out": len(prediction.left_out),
        "shortened": len(prediction.shortened),
        "replaced": len(prediction.replaced),
        "newest_us": newest_us,
        "warnings": [asdict(warning) for warning in events.warnings],
    }


def _belonging(task: BucketTask, bucket: int) -> Callable[[str], bool]:
    """Return whether a series of the model belongs to a bucket."""
    buckets = _buckets_of_known(task.model, task.version, task.parts.n_buckets)
    return lambda name: buckets[name] == bucket


@lru_cache(maxsize=1)
def _buckets_of_known(model: str, version: str, n_buckets: int) -> dict[str, int]:

    artifact, _ = _session(model, version)
    return {name: bucket_of(name, n_buckets) for name in artifact.names}


@lru_cache(maxsize=1)
def _held(data: str, _key: str) -> tuple[Manifest, dict[int, Bucket]]:
    """Return the manifest of a folder, and the buckets that hold rows, by their numbers.

    The key tells one manifest in the same place from another, where a worker lives for long.
    """
    manifest = read_manifest(place_of(data))
    return manifest, {one.bucket: one for one in manifest.files}


@lru_cache(maxsize=1)
def _session(model: str, version: str) -> tuple[Artifact, Forecaster]:
    """Load a version once for all buckets that this process forecasts, with one thread."""
    import torch

    torch.set_num_threads(1)
    artifact = load(model, version=version).artifact
    return artifact, restore(artifact)
