"""A forecast in batches: resolve the options, run the buckets, commit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pa_parquet

from rnnforecast._version import __version__
from rnnforecast.batch import executors
from rnnforecast.batch.bucket import BucketTask
from rnnforecast.batch.parts import COUNTS, LOCK, Parts
from rnnforecast.config import fields
from rnnforecast.config.commands import BatchConfig
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import DEFAULT_MODEL, PredictConfig
from rnnforecast.data.match import check_age
from rnnforecast.errors import DataError, UsageError
from rnnforecast.events import Listener, Progressed, Recorder, Warned, ignore, merged_warnings
from rnnforecast.process import holding_back
from rnnforecast.sources.files import opened
from rnnforecast.sources.shards import MANIFEST, bucket_of, check_folder, is_sharded, read_manifest
from rnnforecast.storage import publish
from rnnforecast.storage.lock import holding
from rnnforecast.storage.publish import check_directory
from rnnforecast.storage.remote import Place, Remote, place_of
from rnnforecast.workflow.model import horizon_of, load, reading_of, source_of

_NO_RESULT = ("max_age", "warn_age", "excel_safe")
"""Options of a forecast that do not change what a part holds."""


@dataclass(frozen=True)
class Batched:
    """What came of it."""

    status: str
    """`forecast` (some buckets), `published`, or `already published`."""
    output: Place
    """The folder of this forecast, a Parquet file for each bucket that is not empty."""
    key: str
    version: str
    buckets: tuple[int, ...]
    """Those that this command looked at."""
    counts: dict[str, int]
    """Rows, and series by what became of them."""
    warnings: tuple[Warned, ...]

    @property
    def is_partial(self) -> bool:
        """Whether some series did not get the forecast that they should have."""
        return any(self.counts[name] for name in ("left_out", "shortened", "replaced"))


def predict_batch(
    data: str | Path | None = None,
    *,
    output: str | Path,
    batch: BatchConfig,
    model: str | Path = DEFAULT_MODEL,
    config: PredictConfig | None = None,
    reading: DataConfig | None = None,
    given: Collection[str] = (),
    version: str | None = None,
    listener: Listener = ignore,
) -> Batched:
    """Forecast buckets of a folder that `shard` has made, or put in force what is forecast.

    Without `data` it is the folder that the model was trained on.
    `output` is a folder. With `batch.shard` the buckets of that shard are forecast; with
    `batch.commit` all of them are checked, and come into force; with `batch.workers` both is done.
    Raises a `RnnForecastError`; what was in force before stays until the whole is there.
    """
    with holding_back(lambda: None):  # what a signal raises within an import may be lost there
        if batch.takes_processes:
            executors.begin()
        task = _settle(data, place_of(output), model, config, reading, given, version)
    if batch.shard is not None:
        index, n = batch.owned
        owned = range(index, task.parts.n_buckets, n)
        found = list(_forecast(task, owned, batch, listener))
        return _result("forecast", task, owned, found, _judged_later(task.config))
    everything = range(task.parts.n_buckets)
    if batch.is_managed:
        for _ in _forecast(task, everything, batch, listener):
            pass
    return _commit(task)


def _settle(
    data: str | Path | None,
    output: Place,
    model: str | Path,
    config: PredictConfig | None,
    reading: DataConfig | None,
    given: Collection[str],
    version: str | None,
) -> BucketTask:
    """Find out what the forecast is, and what it is called."""
    config = config or PredictConfig()
    if config.future is not None:
        raise UsageError(
            "--future names a file for all series, and a bucket holds some of them",
            hint="give what is known ahead as rows of DATA, and  rnnforecast shard  them with it",
        )
    loaded = load(model, version=version)
    options = reading_of(loaded.artifact, reading, given)
    data = source_of(loaded.artifact) if data is None else data
    place = place_of(data)
    if not is_sharded(place):
        raise UsageError(
            f"{data} is no folder of buckets, which a forecast in batches goes through",
            hint=f"make one:  rnnforecast shard {data} --output buckets --buckets 64",
        )
    manifest = read_manifest(place)
    check_folder(data, manifest)
    kept = {name: value for name, value in asdict(config).items() if name not in _NO_RESULT}
    key = fields.key_of(
        {
            "rnnforecast": __version__,
            "forecast": kept,
            "reading": asdict(options),
            "version": loaded.version,
            "readings": publish.describe_input(place / MANIFEST)["sha256"],
            "horizon": horizon_of(config, loaded.artifact),
        }
    )
    _check_apart(output, place)
    parts = Parts(output.resolve(), key, manifest.n_buckets)
    folder, home = str(place.resolve()), str(place_of(model).resolve())
    tz = loaded.artifact.schema.tz
    return BucketTask(folder, home, str(loaded.version), config, options, parts, tz)


def _check_apart(output: Place, data: Place) -> None:
    """Raise `UsageError` for an output that is no folder, or lies among the readings."""
    if isinstance(output, Remote):
        check_directory(output)
        is_among = isinstance(data, Remote) and output.is_relative_to(data)
    else:
        if output.exists() and not output.is_dir():
            raise UsageError(f"{output} is a file, but a forecast in batches is a folder")
        is_among = isinstance(data, Path) and output.resolve().is_relative_to(data.resolve())
    if is_among:
        raise UsageError(
            f"{output} would lie among the readings, {data}",
            hint="name a folder elsewhere with  --output",
        )


def _forecast(
    task: BucketTask, buckets: Sequence[int], batch: BatchConfig, listener: Listener
) -> Iterator[dict[str, Any]]:
    """Forecast what is missing, and give the manifests as they come."""
    there = {bucket: said for bucket in buckets if (said := task.parts.read(bucket)) is not None}
    yield from there.values()
    missing = [bucket for bucket in buckets if bucket not in there]
    n_workers = min(batch.workers or 1, max(1, len(missing)))
    if batch.engine == "ray":
        found = executors.run_on_ray(task, missing, workers=n_workers, address=batch.address)
    elif n_workers > 1:
        found = executors.run_in_processes(task, missing, workers=n_workers)
    else:
        found = executors.run_here(task, missing)
    for done, said in enumerate(found if missing else (), start=len(there) + 1):
        listener(Progressed("forecasting", done, len(buckets), unit="buckets"))
        yield said


def _commit(task: BucketTask) -> Batched:
    """Check all parts, and put the forecast in force, unless it is."""
    parts = task.parts
    there = parts.committed
    found = list(parts.each())
    everything = range(parts.n_buckets)
    warned = _judged(task, found)
    if there is not None and there.get("parts") == found:
        return _result("already published", task, everything, found, warned)
    with holding(parts.output / LOCK):
        for said in found:
            _check_series(task, said)
        result = _result("published", task, everything, found, warned)
        parts.commit({"version": task.version, **result.counts, "parts": found})
    return result


def _judged(task: BucketTask, found: Sequence[dict[str, Any]]) -> list[Warned]:
    """Judge the age of the newest reading of all buckets. Raises `NotEnoughDataError` where stale.

    A bucket whose sensors are slow, or silent, is no reason to hold back all others.
    """
    newest = [said["newest_us"] for said in found if said["newest_us"] is not None]
    if not newest or not _judges_age(task.config):
        return []

    events = Recorder(ignore, [])
    check_age(max(newest), task.tz, task.config, events)
    return events.warnings


def _judged_later(config: PredictConfig) -> list[Warned]:
    """Say that who forecasts some buckets does not know how old the readings are."""
    message = "--max-age and --warn-age are judged with --commit, by the newest reading of all"
    return [Warned("judged-later", message)] if _judges_age(config) else []


def _judges_age(config: PredictConfig) -> bool:
    return config.max_age is not None or config.warn_age is not None


def _check_series(task: BucketTask, said: dict[str, Any]) -> None:
    """Raise `DataError` for a part that holds series of another bucket, or not those it says."""
    if said["file"] is None:
        return
    bucket, n_buckets = said["bucket"], task.parts.n_buckets
    path = task.parts.file_of(bucket)
    table = pa_parquet.read_table(opened(path), columns=["series"], partitioning=None)
    names = table["series"].unique().to_pylist()
    strange = [name for name in names if bucket_of(name, n_buckets) != bucket]
    if strange or len(names) != said["series"] or table.num_rows != said["rows"]:
        what = f"{strange[0]!r} of another bucket" if strange else "other series than it should"
        raise DataError(f"{path} holds {what}", code="wrong-part", hint="delete it, and try again")


def _result(
    status: str,
    task: BucketTask,
    buckets: Sequence[int],
    found: Sequence[dict[str, Any]],
    warned: Sequence[Warned],
) -> Batched:
    counts = {name: sum(said[name] for said in found) for name in COUNTS}
    warnings = [Warned(**warning) for said in found for warning in said["warnings"]]
    return Batched(
        status,
        task.parts.folder,
        task.parts.key,
        task.version,
        tuple(buckets),
        counts,
        (*warned, *merged_warnings(warnings, "in other buckets")),
    )
