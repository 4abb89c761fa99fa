"""Publication of a job's forecast: its key, its files, its manifest; which files are removed."""

from __future__ import annotations

import glob
import itertools
import os
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rnnforecast._version import __version__
from rnnforecast.config.fields import hash_facts, to_json
from rnnforecast.config.job import (
    AS_OF,
    FROM_HERE,
    JOB,
    OUTPUT,
    Job,
    belongs_to,
    describe_owner,
    path_from,
)
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import BUILTIN_MODEL, changed_fields
from rnnforecast.data.output import encode_table
from rnnforecast.errors import UsageError, redact
from rnnforecast.evaluate.live import issue_table
from rnnforecast.events import InputRead, Listener, Recorder, WarningEvent
from rnnforecast.jobs.ledger import (
    OWNER_FILE,
    STAMP,
    check_ledger_owner,
    publish_part,
    write_ledger_owner,
)
from rnnforecast.model.builtin import builtin_version
from rnnforecast.sources.files import check_outputs, check_spared
from rnnforecast.sources.inputs import InputFile
from rnnforecast.storage import versions
from rnnforecast.storage.durable import (
    crash_point,
    is_same_place,
    make_directory,
    remove_file,
    remove_stale_temps,
    rollback_on_error,
)
from rnnforecast.storage.publish import describe_input, publish
from rnnforecast.storage.remote import read_json
from rnnforecast.tables.match import newest_reading, unix_time_s
from rnnforecast.urls import is_url
from rnnforecast.workflow.model import Model, load, output_table
from rnnforecast.workflow.prediction import Prediction
from rnnforecast.workflow.saved import PreparedForecast, prepare, prepare_builtin, resolve_options
from rnnforecast.workflow.steps import Clock

_LIBRARIES = ("numpy", "pandas", "pyarrow")
"""Libraries that make a forecast, whose versions the manifest records."""
FORMAT, FORMAT_VERSION = "rnnforecast-run", 1
MANIFEST = "run.json"
"""Name of the manifest of a job with one output; of several, each has its own with this suffix."""
_STAMP_GLOBS = tuple(
    f"####-##-##T######{suffix}".replace("#", "[0-9]")
    for suffix in ("", "Z", "_######", "_######Z")
)
"""`STAMP` as glob patterns."""


@dataclass(frozen=True)
class Publication:
    """A forecast whose readings are read: it can be computed and published. Made without torch."""

    job: Job
    model: Model
    ready: PreparedForecast
    as_of: str
    """The time of the forecast as names of files have it."""
    as_of_iso: str
    """The same in ISO 8601, as every option takes it."""
    newest_us: int
    """Time of the newest reading."""
    fingerprint: str
    """Hash of what the forecast sees: readings, and what is known ahead up to its end."""
    key: str
    """Hash of all that decides the forecast: a run with the same key need not publish again."""
    output: Path

    @classmethod
    def prepare(cls, job: Job, as_of: str | None, events: Recorder) -> Publication:
        """Load the model, read the readings, and resolve options, key and paths.

        Raises what loading and reading raise.
        """
        model = None
        if job.model.path == BUILTIN_MODEL:
            options = job.reading
        else:
            model = load(job.model.path, version=job.model.version)
            options = resolve_options(model.artifact, job.reading, job.explicit)
        quantiles = tuple(sorted({0.1, 0.9, *job.forecast.quantiles}))
        config = replace(job.forecast, as_of=as_of, quantiles=quantiles)
        inputs = {"the future values": config.future}
        # A dry run makes no folder, so an output in a missing one is not checked.
        output = job.output if os.path.isdir(Path(job.output).parent) else None  # noqa: PTH112
        check_outputs(job.source, options, output=output, inputs=inputs)

        if options.exclude is not None:
            exclude = InputFile.of(Path(options.exclude))
            events(InputRead(str(exclude.path), exclude.describe))
        if model is None:
            ready = prepare_builtin(job.source, config, options, events)
            model = Model(ready.artifact, version=builtin_version())
        else:
            ready = prepare(model.artifact, job.source, config, options, events)
        newest_us, axis = newest_reading(ready.past), ready.past.axis
        as_of_us = newest_us if as_of is None else axis.parse(as_of)
        stamp = axis.format_for_file_name(as_of_us)
        path = job.output_path(stamp)
        check_not_shared(job, path)
        fingerprint = ready.past.fingerprint(model.artifact.spec.horizon)
        forecast = {k: v for k, v in job.forecast.facts().items() if k != "as_of"}
        key = hash_facts(
            {
                "rnnforecast": __version__,
                "forecast": {**forecast, "future": None},
                "reading": ready.options.facts(),
                "version": model.version,
                "readings": fingerprint,
                "as_of": stamp,
                "horizon": ready.horizon,
            }
        )
        as_of_iso = axis.format(as_of_us).replace(" ", "T")
        return cls(job, model, ready, stamp, as_of_iso, newest_us, fingerprint, key, path)

    @property
    def newest_s(self) -> float:
        """Time of the newest reading, in seconds since 1970, in UTC."""
        return unix_time_s(self.newest_us, self.ready.past.axis)

    def publish(
        self, prediction: Prediction, events: Recorder, clock: Clock, arguments: Sequence[str]
    ) -> dict[str, Any]:
        """Publish the ledger's part, then the forecast, then the manifest; return the manifest.

        Part and forecast count only with the manifest. If that cannot be written, the previous
        forecast is restored.
        """
        files: dict[str, Any] = {}
        table = output_table(prediction.forecast, str(self.output), self.job.forecast, events)
        if self.job.ledger is not None:
            artifact, ledger = self.model.artifact, Path(self.job.ledger)
            rows = issue_table(
                prediction.forecast,
                prediction.past,
                season=artifact.spec.season,
                version=str(self.model.version),
                error_reference=artifact.metrics.get("error_reference"),
                in_sample=self.ready.is_in_sample,
            )
            make_directory(ledger)
            write_ledger_owner(self.job, ledger)
            part = publish_part(ledger, rows, as_of=self.as_of, key=self.key)
            files["ledger"] = describe_input(part.path)
            crash_point("ledger-published")

        with rollback_on_error(Path(os.path.realpath(self.output))):
            content = encode_table(table, str(self.output))
            entry = publish(self.output, content, is_output=True)
            files["output"] = {**entry, "rows": table.num_rows}
            crash_point("forecast-published")
            manifest = {**self.describe(events, arguments), **files, "timing": dict(clock.laps)}
            manifest["degraded"] = self.n_degraded(prediction)
            write_manifest(manifest_path(self.job, self.output), manifest)
        crash_point("run-published")
        return manifest

    def warn_if_older(self, listener: Listener) -> None:
        """Warn where the forecast replaces one from newer readings."""
        manifest = read_manifest(manifest_path(self.job, self.output)) or {}
        newest = (manifest.get("data") or {}).get("newest_timestamp_s")
        if isinstance(newest, float | int) and self.newest_s < newest and self.output.exists():
            message = f"the readings end at {self.as_of_iso}, before those of the forecast "
            message += f"that is replaced, which was as of {manifest.get('as_of')}"
            listener(WarningEvent("older-readings", message))

    def n_degraded(self, prediction: Prediction) -> int:
        """Return how many series have no forecast, a degraded one, or lately no readings."""
        return len({*prediction.degraded, *self.ready.silent})

    def describe(self, events: Recorder, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the manifest without the files that are published."""
        past = self.ready.past
        return {
            "status": "published",
            "key": self.key,
            **describe_owner(self.job, self.output.parent),
            "as_of": self.as_of_iso,
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
            "arguments": [redact(argument) for argument in arguments],
            "model": {"path": str(self.model.path or BUILTIN_MODEL), "version": self.model.version},
            "in_sample": self.ready.is_in_sample,
            "horizon": self.ready.horizon,
            "config": _config_with_origins(self.job, self.ready.options),
            "versions": {
                "rnnforecast": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in _LIBRARIES},
            },
            "inputs": [file.describe() for _, file in sorted(events.inputs.items())],
            "data": {
                "fingerprint": self.fingerprint,
                "series": past.n_origins,
                "rows": past.n_rows,
                "first": past.axis.format(past.first_us),
                "newest": past.axis.format(self.newest_us),
                "newest_timestamp_s": self.newest_s,
                "age_s": round(self.ready.age_us / 1e6),
            },
            "warnings": [warning.to_json() for warning in events.warnings],
        }


def _config_with_origins(job: Job, options: DataConfig) -> dict[str, Any]:
    """Return the configuration as `{part: {name: {"value": ..., "origin": ...}}}`.

    The origin is the job file, `model` (stored with the model) or `default`.
    """
    file = str(job.path)
    # An option that is not in the job file and not the default was stored with the model.
    origins = {
        **dict.fromkeys(changed_fields(options), "model"),
        **dict.fromkeys(job.explicit, file),
    }
    source = {"value": job.source, "origin": file}
    values = {name: v for name, v in asdict(options).items() if name != "excluded_times"}
    config = {"data": {"source": source, **_with_origins(values, origins)}}

    for name, values in {
        "forecast": asdict(job.forecast),
        "model": asdict(job.model),
        "keep": asdict(job.keep),
        "retrain": asdict(job.retrain),
    }.items():
        tables = ("forecast", "fresh") if name == "forecast" else (name,)
        keys = {key.replace("-", "_") for table in tables for key in job.tables.get(table, ())}
        config[name] = _with_origins(values, dict.fromkeys(keys, file))
    return config


def _with_origins(values: Mapping[str, Any], origins: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"value": value, "origin": origins.get(name, "default")}
        for name, value in values.items()
    }


def manifest_path(job: Job, output: Path) -> Path:
    """Return the path of the manifest of a run with this output."""
    return output.with_suffix(f".{MANIFEST}") if AS_OF in job.output else output.parent / MANIFEST


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read a run's manifest; None where there is none that can be read."""
    with suppress(OSError, ValueError):
        return read_json(path, expected_format=FORMAT)
    return None


def published_manifest(job: Job, output: Path, key: str) -> dict[str, Any] | None:
    """Return the manifest of a run that is published completely: its files are as it says.

    Where the job keeps a ledger, the run's part in it is one of these files.
    """
    manifest = read_manifest(manifest_path(job, output))
    if manifest is None or manifest.get("key") != key or not _matches(manifest, "output", output):
        return None
    if job.ledger is None:
        return manifest
    part = Path(job.ledger) / Path(_path_in(manifest, "ledger")).name
    return manifest if _matches(manifest, "ledger", part) else None


def check_job_files(job: Job) -> None:
    """Raise `UsageError` where files that a job writes are each other, or files that it reads.

    Nothing is opened or made: a log that is the readings would grow them by its first line.
    """
    written: dict[str, str | Path | None] = {
        "the forecast": job.output,
        "the run's manifest": manifest_path(job, Path(job.output)),
        "the log": job.log.file,
        "the text file": job.textfile,
        "the rejected rows": job.reading.rejects,
        "the ledger": job.ledger,
    }
    read = {
        "the job": str(job.path),
        "the readings": job.source,
        "the excluded periods": job.reading.exclude,
        "the future values": job.forecast.future,
    }
    files = {name: Path(path) for name, path in written.items() if path}
    for (name, path), (other, place) in itertools.combinations(files.items(), 2):
        if is_same_place(path, place):
            raise UsageError(
                f"{path} is used for both {name} and {other}",
                code="shared-file",
                hint="use another file in the job file",
            )
    for name, path in files.items():
        for content, source in read.items():
            if source is not None:
                # Files of the ledger are read with a folder or a pattern as one of its parts is.
                check_spared(
                    path / "part.parquet" if name == "the ledger" else path, source, content
                )
                check_spared(path, source, content)
        if not is_url(job.model.path) and job.model.path != BUILTIN_MODEL:
            _check_model_spared(path, Path(job.model.path), name)


def _check_model_spared(path: Path, model: Path, name: str) -> None:
    """Raise `UsageError` where a file that a job writes would be one of its model."""
    own = [model / file for file in (versions.CURRENT, versions.LOCK)]
    is_version = path.resolve().is_relative_to((model / versions.VERSIONS).resolve())
    if is_version or any(is_same_place(path, file) for file in (model, *own)):
        raise UsageError(
            f"{path} ({name}) would overwrite a file of the model",
            code="shared-file",
            hint="use another file in the job file",
        )


def check_not_shared(job: Job, output: Path) -> None:
    """Raise `UsageError` where the output or the ledger is another job's.

    Of outputs with the as-of time in their names, the newest one is looked at as well.
    """
    outputs = [output] + (list_outputs(job)[-1:] if AS_OF in job.output else [])
    for path in {manifest_path(job, existing) for existing in outputs}:
        manifest = read_manifest(path)
        if manifest is not None and not _is_own(job, path, manifest):
            existing = _path_in(manifest, "output")
            raise UsageError(
                f"{path} belongs to another job: {manifest.get(JOB)} with output {existing}",
                code="shared-output",
                hint="give each job its own output folder",
            )
    if job.ledger is not None:
        check_ledger_owner(job, Path(job.ledger))


def _is_own(job: Job, path: Path, manifest: Mapping[str, Any]) -> bool:
    """Tell whether a manifest is that of a run of the job."""
    owner, existing = manifest.get(JOB), _path_in(manifest, "output")
    if FROM_HERE not in manifest and isinstance(owner, str) and existing:
        # What an older rnnforecast did not record follows from where both were.
        folder = Path(existing).parent
        relative = {FROM_HERE: os.path.relpath(owner, folder), OUTPUT: Path(existing).name}
        if existing == str(job.output_path(str(manifest.get("as_of"))).resolve()):
            relative[OUTPUT] = path_from(path.parent, Path(job.output))
        manifest = {**manifest, **relative}
    return belongs_to(job, manifest, path.parent)


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Publish a run's manifest, with the name and version of its format."""
    publish(path, to_json({"format": FORMAT, "format_version": FORMAT_VERSION, **manifest}))


def list_outputs(job: Job) -> list[Path]:
    """Return the existing outputs of a job; those with the as-of time in the name oldest first."""
    pattern = Path(job.output)
    if AS_OF not in job.output:
        return [pattern] if pattern.exists() else []

    prefix, _, suffix = pattern.name.partition(AS_OF)
    suffix = re.escape(suffix).replace(re.escape(AS_OF), STAMP)
    name = re.compile(re.escape(prefix) + f"({STAMP})" + suffix)
    try:
        stamped = [(m[1], p) for p in pattern.parent.iterdir() if (m := name.fullmatch(p.name))]
        return [path for _, path in sorted(stamped) if path.is_file()]
    except OSError:
        return []


def read_newest_manifest(job: Job) -> dict[str, Any] | None:
    """Return the manifest of the job's newest published run; None where there is none."""
    outputs = reversed(list_outputs(job)) if AS_OF in job.output else [Path(job.output)]
    for path in (manifest_path(job, output) for output in outputs):
        manifest = read_manifest(path)
        if manifest is not None and _is_own(job, path, manifest):
            return manifest
    return None


def retire_outputs(job: Job, *, exclude: Path) -> list[Path]:
    """Remove all outputs except `exclude` and the newest `keep.forecasts`; return the removed."""
    if job.keep.forecasts is None or AS_OF not in job.output:
        return []
    retired = [path for path in list_outputs(job)[: -job.keep.forecasts] if path != exclude]
    for path in retired:
        # The manifest first: an output without one is still listed, so a run that is killed in
        # between leaves it for the next run to remove.
        remove_file(manifest_path(job, path))
        remove_file(path)
    return retired


def remove_job_leftovers(job: Job) -> None:
    """Remove temporary files of killed runs of this job; its lock must be held."""
    output = Path(job.output)
    textfiles = [Path(job.textfile)] if job.textfile else []
    named = (output, manifest_path(job, output), *textfiles)
    behind_links = (Path(os.path.realpath(path)) for path in (output, *textfiles))
    for path in dict.fromkeys((*named, *behind_links)):
        parts = [glob.escape(part) for part in path.name.split(AS_OF)]
        for pattern in {stamp.join(parts) for stamp in _STAMP_GLOBS}:
            remove_stale_temps(path.parent, pattern=pattern)
    if job.ledger is not None:
        for stamp in _STAMP_GLOBS:
            remove_stale_temps(Path(job.ledger), pattern=f"{stamp}_*_*.parquet")
        remove_stale_temps(Path(job.ledger), pattern=OWNER_FILE)


def _path_in(manifest: Mapping[str, Any], name: str) -> str:
    """Return the path in a manifest's entry of a file; an empty string where it has none."""
    entry = manifest.get(name)
    path = entry.get("path") if isinstance(entry, dict) else None
    return path if isinstance(path, str) else ""


def _matches(manifest: Mapping[str, Any], name: str, path: Path) -> bool:
    """Tell whether a file is as a manifest's entry describes it: name, size and hash.

    The folder may have been moved since.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        if not path.is_file():  # what went through a pipe is not there any more
            return False
        actual, entry = describe_input(path), manifest[name]
        has_name = Path(entry["path"]).name == path.name
        return has_name and all(actual[fact] == entry[fact] for fact in ("bytes", "sha256"))
    return False
