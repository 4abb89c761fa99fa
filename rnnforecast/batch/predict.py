"""`predict` in batches: resolve the options, forecast the buckets, commit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pyarrow.parquet as pa_parquet

from rnnforecast._version import __version__
from rnnforecast.batch import executors
from rnnforecast.batch.bucket import BucketTask, import_worker_modules, predict_bucket
from rnnforecast.batch.parts import COUNTS, DEGRADED, LOCK, Parts
from rnnforecast.config import fields
from rnnforecast.config.commands import (
    BatchConfig,
    check_option_names,
    names_of_options,
    set_options,
)
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import BUILTIN_MODEL, DEFAULT_MODEL, PredictConfig
from rnnforecast.errors import DataError, UsageError
from rnnforecast.events import (
    Listener,
    ProgressEvent,
    Recorder,
    WarningEvent,
    ignore,
    merged_warnings,
)
from rnnforecast.process import defer_signals, start_fork_server
from rnnforecast.sources.inputs import InputFile
from rnnforecast.sources.shards import (
    MANIFEST,
    bucket_of,
    check_bucket_files,
    is_sharded,
    read_manifest,
)
from rnnforecast.storage import publish
from rnnforecast.storage.durable import as_write_error
from rnnforecast.storage.lock import acquire
from rnnforecast.storage.publish import check_directory
from rnnforecast.storage.remote import AnyPath, as_path, is_in_folder, is_remote
from rnnforecast.tables.match import check_age
from rnnforecast.workflow.model import Model, load, training_source
from rnnforecast.workflow.saved import resolve_horizon, resolve_options

if TYPE_CHECKING:
    from rnnforecast.config.keywords import BatchOptions


@dataclass(frozen=True)
class BatchResult:
    """Result of a batch command."""

    status: str
    """`forecast` (some buckets), `published`, or `already published`."""
    output: AnyPath
    """The folder of this forecast: a Parquet file for each bucket that is not empty."""
    key: str
    version: str
    buckets: tuple[int, ...]
    """The buckets that this command looked at."""
    counts: dict[str, int]
    """Rows, and series by outcome."""
    warnings: tuple[WarningEvent, ...]

    @property
    def is_partial(self) -> bool:
        """Whether some series were skipped, or forecast by a fallback or from a short history."""
        return any(self.counts[name] for name in DEGRADED)


def predict_batch(
    data: str | Path | None = None,
    *,
    output: str | Path,
    batch: BatchConfig | None = None,
    model: str | Path = DEFAULT_MODEL,
    config: PredictConfig | None = None,
    reading: DataConfig | None = None,
    explicit: Collection[str] = (),
    version: str | None = None,
    trust_source: bool = False,
    listener: Listener = ignore,
    **options: Unpack[BatchOptions],
) -> BatchResult:
    """Forecast buckets of a folder made by `shard`, or commit the finished forecasts.

    `data` defaults to the training folder, if it is next to the model or with `trust_source`;
    `output` is a folder. `batch.shard` forecasts the buckets of that shard; `batch.commit` verifies
    all buckets and makes them the current forecast; `batch.workers` does both. Until then, the
    previous forecast stays current. The keyword options are those of the command and override
    `batch`, `config` and `reading`. Raises a `RnnForecastError`.
    """
    check_option_names(predict_batch, options, BatchConfig(), PredictConfig(), DataConfig())
    batch = set_options(batch or BatchConfig(), options)
    config = set_options(config or PredictConfig(), options)
    reading = set_options(reading or DataConfig(), options)
    explicit = names_of_options(explicit, options)
    # An exception that a signal handler raises during an import may be lost, so signals wait.
    with defer_signals(lambda: None):
        if batch.uses_processes:
            start_fork_server()
        if model == BUILTIN_MODEL:
            raise UsageError(
                "a batch forecast needs a trained model, not the built-in network",
                hint="train one:  rnnforecast train DATA",
            )
        loaded = load(model, version=version)
        if data is None:
            data = training_source(loaded, is_trusted=trust_source)
        reading = resolve_options(loaded.artifact, reading, explicit)
        task = _resolve(data, as_path(output), loaded, config, reading)

    if batch.shard is not None:
        index, n_shards = batch.shard_index
        owned = range(index, task.parts.n_buckets, n_shards)
        manifests = list(_forecast(task, owned, batch, listener))
        message = (
            "--max-age and --warn-age apply to --commit, where the newest reading of "
            "all buckets is known"
        )
        limits_age = task.config.max_age is not None or task.config.warn_age is not None
        warnings = [WarningEvent("judged-later", message)] if limits_age else []
        return _result("forecast", task, manifests, warnings)

    if batch.has_workers:
        for _ in _forecast(task, range(task.parts.n_buckets), batch, listener):
            pass
    return _commit(task)


def _resolve(
    data: str | Path, output: AnyPath, loaded: Model, config: PredictConfig, options: DataConfig
) -> BucketTask:
    """Check the options of a forecast, and compute its key."""
    if config.wide:
        raise UsageError("--wide writes one table, but a batch forecast writes one per bucket")
    if config.future is not None:
        raise UsageError(
            "--future cannot be used with buckets",
            hint="add the future values as rows of DATA before  rnnforecast shard",
        )
    folder = as_path(data)
    if not is_sharded(folder):
        raise UsageError(
            f"{data} is not a folder of buckets, which a batch forecast needs",
            hint=f"create one:  rnnforecast shard {data} --output buckets --buckets 64",
        )
    manifest = read_manifest(folder)
    check_bucket_files(folder, manifest)

    forecast = {name: v for name, v in config.facts().items() if name != "excel_safe"}
    key = fields.hash_facts(
        {
            "rnnforecast": __version__,
            "forecast": forecast,
            "reading": options.facts(),
            "version": loaded.version,
            "readings": publish.describe_input(folder / MANIFEST)["sha256"],
            "horizon": resolve_horizon(config, loaded.artifact),
        }
    )
    _check_output(output, folder)
    assert loaded.path is not None
    return BucketTask(
        data=str(folder.resolve()),
        model=str(loaded.path.resolve()),
        version=str(loaded.version),
        config=config,
        options=options,
        parts=Parts(output.resolve(), key, manifest.n_buckets),
        schema=loaded.artifact.schema,
    )


def _check_output(output: AnyPath, data: AnyPath) -> None:
    """Raise `UsageError` for an output that is no folder, or inside the folder of readings."""
    if not is_remote(output):
        with as_write_error(output):
            if output.exists() and not output.is_dir():
                raise UsageError(f"{output} is a file, but a batch forecast is a folder")
    check_directory(output)
    if is_in_folder(output, data):
        raise UsageError(
            f"{output} is inside the data folder {data}",
            hint="choose a folder elsewhere with  --output",
        )


def _forecast(
    task: BucketTask, buckets: Sequence[int], batch: BatchConfig, listener: Listener
) -> Iterator[dict[str, Any]]:
    """Forecast the buckets that are not published; yield the manifests of all."""
    published = {b: manifest for b in buckets if (manifest := task.parts.read(b)) is not None}
    yield from published.values()
    missing = [bucket for bucket in buckets if bucket not in published]
    if not missing:
        return

    n_workers = min(batch.workers or 1, len(missing))
    if batch.engine == "ray":
        manifests = executors.run_on_ray(task, missing, workers=n_workers, address=batch.address)
    elif n_workers > 1:
        manifests = executors.run_in_processes(task, missing, workers=n_workers)
    else:
        import_worker_modules()
        manifests = (predict_bucket(task, bucket) for bucket in missing)
    for done, manifest in enumerate(manifests, start=len(published) + 1):
        listener(ProgressEvent("forecasting", done, len(buckets), unit="buckets"))
        yield manifest


def _commit(task: BucketTask) -> BatchResult:
    """Check all parts, and make the forecast the current one, unless it is.

    Raises `DataError` for missing or wrong parts, `NotEnoughDataError` for stale readings. The age
    is that of the newest reading of all buckets: one bucket whose sensors are slow, or silent, is
    no reason to hold back all others.
    """
    parts = task.parts
    committed = parts.read_committed()
    manifests = parts.read_all()
    events = Recorder(ignore)
    newest = [m["newest_us"] for m in manifests if m["newest_us"] is not None]
    if newest:
        check_age(max(newest), task.schema.axis, task.config, events)
    if committed is not None and committed.get("parts") == manifests:
        return _result("already published", task, manifests, events.warnings)

    with acquire(parts.output / LOCK, listener=events):
        for manifest in manifests:
            _check_part(task, manifest)
        result = _result("published", task, manifests, events.warnings)
        parts.commit({"version": task.version, **result.counts, "parts": manifests})
    return result


def _check_part(task: BucketTask, manifest: dict[str, Any]) -> None:
    """Raise `DataError` for a part with series of another bucket, or unlike its manifest."""
    if manifest["file"] is None:
        return
    bucket, n_buckets = manifest["bucket"], task.parts.n_buckets
    path = task.parts.file_of(bucket)
    file = InputFile.of(path).arrow_input()
    table = pa_parquet.read_table(file, columns=["series"], partitioning=None)
    names = table["series"].unique().to_pylist()

    key_of = task.schema.key_of
    foreign = [name for name in names if bucket_of(key_of(name), n_buckets) != bucket]
    if foreign or len(names) != manifest["series"] or table.num_rows != manifest["rows"]:
        content = f"{foreign[0]!r} of another bucket" if foreign else "the wrong series"
        raise DataError(
            f"{path} contains {content}", code="wrong-part", hint="delete it and try again"
        )


def _result(
    status: str,
    task: BucketTask,
    manifests: Sequence[dict[str, Any]],
    warnings: Sequence[WarningEvent],
) -> BatchResult:
    of_parts = [WarningEvent(**warning) for part in manifests for warning in part["warnings"]]
    return BatchResult(
        status=status,
        output=task.parts.folder,
        key=task.parts.key,
        version=task.version,
        buckets=tuple(sorted(manifest["bucket"] for manifest in manifests)),
        counts={name: sum(manifest[name] for manifest in manifests) for name in COUNTS},
        warnings=(*warnings, *merged_warnings(of_parts, "in other buckets")),
    )
