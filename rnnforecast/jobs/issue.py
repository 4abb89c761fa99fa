"""Publication of a job's forecast: its key, its paths and its manifest."""

from __future__ import annotations

import glob
import json
import platform
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rnnforecast._version import __version__
from rnnforecast.config.fields import hash_facts
from rnnforecast.config.job import AS_OF, Job, KeepPart, ModelPart, RetrainPart
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import PredictConfig
from rnnforecast.data.match import newest_readings, unix_time_s
from rnnforecast.data.output import encode_table
from rnnforecast.data.timestamps import format_for_file_name, format_timestamp, parse_time_us
from rnnforecast.errors import UsageError
from rnnforecast.evaluate.live import issue_table
from rnnforecast.evaluate.postprocess import Prediction
from rnnforecast.events import Recorder
from rnnforecast.jobs.ledger import publish_part
from rnnforecast.storage.durable import (
    crash_point,
    make_directory,
    remove_file,
    remove_stale_temps,
    rollback_on_error,
)
from rnnforecast.storage.publish import describe_input, describe_source, publish
from rnnforecast.workflow.model import (
    Model,
    PreparedForecast,
    check_outputs,
    list_source_files,
    output_table,
    prepare,
    resolve_options,
)
from rnnforecast.workflow.steps import Clock

_Part = DataConfig | PredictConfig | ModelPart | KeepPart | RetrainPart
_LIBRARIES = ("torch", "numpy", "pandas", "pyarrow")
"""Libraries whose versions the manifest records."""
_NO_RESULT = ("as_of", "max_age", "warn_age")
"""Options of a forecast that do not change it; the as-of time is part of the key by itself."""
FORMAT, FORMAT_VERSION = "rnnforecast-run", 1
MANIFEST = "run.json"
_STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6}(?:_[0-9]{6})?Z?"
"""A regular expression of what replaces `{as_of}` in the name of a file."""
_SECONDS, _FRACTION = (form.replace("#", "[0-9]") for form in ("####-##-##T######", "_######"))
_STAMP_GLOBS = tuple(_SECONDS + suffix for suffix in ("", "Z", _FRACTION, f"{_FRACTION}Z"))
"""The same as glob patterns."""


@dataclass(frozen=True)
class Publication:
    """A forecast that is ready to be computed and published: its readings are read. No torch."""

    job: Job
    model: Model
    ready: PreparedForecast
    as_of: str
    """The time of the forecast as names of files have it."""
    newest_us: int
    """Time of the newest reading."""
    key: str
    paths: RunPaths

    @classmethod
    def prepare(cls, job: Job, model: Model, as_of: str | None, events: Recorder) -> Publication:
        """Read the readings, and resolve options, key and paths. Raises what reading raises."""
        artifact = model.artifact
        options = resolve_options(artifact, job.reading, job.explicit)
        quantiles = tuple(sorted({0.1, 0.9, *job.forecast.quantiles}))
        config = replace(job.forecast, as_of=as_of, quantiles=quantiles)
        inputs = {"what is known ahead": config.future}
        # A dry run makes no folder, so an output in a missing one is not checked.
        output = job.output if Path(job.output).parent.is_dir() else None
        check_outputs(job.source, options, output=output, inputs=inputs)

        ready = prepare(artifact, job.source, config, options, events)
        newest_us, tz = int(newest_readings(ready.past).max(initial=-1)), ready.schema.tz
        stamp = format_for_file_name(newest_us if as_of is None else parse_time_us(as_of, tz), tz)
        paths = run_paths(job, stamp)
        check_not_shared(paths, job)
        forecast = {k: v for k, v in asdict(job.forecast).items() if k not in _NO_RESULT}
        key = hash_facts(
            {
                "rnnforecast": __version__,
                "forecast": forecast,
                "reading": asdict(ready.options),
                "version": model.version,
                "readings": ready.past.fingerprint(),
                "as_of": stamp,
                "horizon": ready.horizon,
            }
        )
        return cls(job, model, ready, stamp, newest_us, key, paths)

    @property
    def newest_s(self) -> float:
        """Time of the newest reading, in seconds since 1970, in UTC."""
        return unix_time_s(self.newest_us, self.ready.schema.tz)

    @property
    def is_published(self) -> bool:
        """Whether a run with this key is published completely."""
        ledger = None if self.job.ledger is None else Path(self.job.ledger)
        return read_published(self.paths, self.key, ledger=ledger) is not None

    def publish(
        self, prediction: Prediction, events: Recorder, clock: Clock, arguments: Sequence[str]
    ) -> dict[str, Any]:
        """Publish the ledger's part, then the forecast, then the manifest; return the manifest.

        Part and forecast count only with the manifest. If that cannot be written, the previous
        forecast is restored.
        """
        output, files = self.paths.output, {}
        table = output_table(prediction.forecast, str(output), self.job.forecast, events)
        if self.job.ledger is not None:
            artifact, ledger = self.model.artifact, Path(self.job.ledger)
            rows = issue_table(
                prediction.forecast,
                prediction.past,
                season=artifact.spec.season,
                version=str(self.model.version),
                error_reference=artifact.metrics.get("error_reference"),
            )
            make_directory(ledger)
            part = publish_part(ledger, rows, as_of=self.as_of, key=self.key)
            files["ledger"] = describe_input(part.path)
            crash_point("ledger-published")

        with rollback_on_error(output):
            files["output"] = publish(output, encode_table(table, str(output)))
            files["output"]["rows"] = table.num_rows
            crash_point("forecast-published")
            manifest = {**self.describe(events, arguments), **files, "timing": dict(clock.laps)}
            write_manifest(self.paths.manifest, manifest)
        crash_point("run-published")
        return manifest

    def describe(self, events: Recorder, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the manifest without the files that are published."""
        past, tz = self.ready.past, self.ready.schema.tz
        sources = (self.job.source, self.ready.options.exclude, self.job.forecast.future)
        inputs = {path for source in sources if source for path in list_source_files(source)}

        return {
            "status": "published",
            "key": self.key,
            "job": str(self.job.path.resolve()),
            "as_of": self.as_of,
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
            "arguments": list(arguments),
            "model": {"path": str(self.model.path), "version": self.model.version},
            "horizon": self.ready.horizon,
            "config": _config_with_origins(self.job, self.ready.options),
            "versions": {
                "rnnforecast": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in _LIBRARIES},
            },
            "inputs": [describe_source(path) for path in sorted(inputs, key=str)],
            "data": {
                "fingerprint": past.fingerprint(),
                "series": past.n_origins,
                "rows": past.n_rows,
                "first": format_timestamp(past.first_us, tz),
                "newest": format_timestamp(self.newest_us, tz),
                "newest_timestamp_s": self.newest_s,
                "age_s": round(self.ready.age_us / 1e6),
            },
            "warnings": [asdict(warning) for warning in events.warnings],
        }


def _config_with_origins(job: Job, options: DataConfig) -> dict[str, Any]:
    """Return the configuration as `{part: {name: {"value": ..., "origin": ...}}}`.

    The origin is the job file, `model` (stored with the model) or `default`.
    """
    file = str(job.path)
    reading = _with_origin(options, job.explicit, file)
    defaults = {field.name: field.default for field in fields(options)}
    for name, entry in reading.items():
        # An option that is not in the job file and not the default was stored with the model.
        if entry["origin"] == "default" and getattr(options, name) != defaults[name]:
            entry["origin"] = "model"

    parts: dict[str, _Part] = {
        "forecast": job.forecast,
        "model": job.model,
        "keep": job.keep,
        "retrain": job.retrain,
    }
    tables_of = {**{part: (part,) for part in parts}, "forecast": ("forecast", "fresh")}
    explicit = {
        part: {key.replace("-", "_") for table in tables for key in job.tables.get(table, ())}
        for part, tables in tables_of.items()
    }
    return {
        "data": {"source": {"value": job.source, "origin": file}, **reading},
        **{name: _with_origin(part, explicit[name], file) for name, part in parts.items()},
    }


def _with_origin(part: _Part, explicit: Collection[str], file: str) -> dict[str, Any]:
    values: Mapping[str, Any] = asdict(part)
    return {
        name: {"value": value, "origin": file if name in explicit else "default"}
        for name, value in values.items()
    }


@dataclass(frozen=True)
class RunPaths:
    """The files that one run of a job publishes."""

    output: Path
    manifest: Path


def run_paths(job: Job, as_of: str) -> RunPaths:
    """Return the paths of the run of this time: each output has its manifest."""
    output = job.output_path(as_of)
    if AS_OF not in job.output:
        return RunPaths(output, output.parent / MANIFEST)
    return RunPaths(output, output.with_suffix(f".{MANIFEST}"))


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read a run's manifest; None where there is none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        manifest = json.loads(path.read_bytes())
        if isinstance(manifest, dict) and manifest.get("format") == FORMAT:
            return manifest
    return None


def read_published(paths: RunPaths, key: str, *, ledger: Path | None) -> dict[str, Any] | None:
    """Return the manifest of a run that is published completely; None where a file is missing.

    Every file must be as the manifest describes it. With a `ledger`, the run's part in it is one
    of them.
    """
    manifest = read_manifest(paths.manifest)
    if manifest is None or manifest.get("key") != key:
        return None
    is_complete = _matches(manifest.get("output"), paths.output)
    if ledger is not None:
        part = ledger / Path(_path_in(manifest.get("ledger"))).name
        is_complete = is_complete and _matches(manifest.get("ledger"), part)
    return manifest if is_complete else None


def check_not_shared(paths: RunPaths, job: Job) -> None:
    """Raise `UsageError` where the manifest belongs to another job's output."""
    manifest = read_manifest(paths.manifest)
    if manifest is None:
        return
    owner, output = manifest.get("job"), _path_in(manifest.get("output"))
    if owner != str(job.path.resolve()) and output != str(paths.output.resolve()):
        raise UsageError(
            f"{paths.manifest} belongs to another job, {owner}, with the output {output}",
            code="shared-output",
            hint="let each job write to a folder of its own",
        )


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Publish a run's manifest, with the name and version of its format."""
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, **manifest}
    publish(path, f"{json.dumps(document, indent=2)}\n".encode())


def list_outputs(job: Job) -> list[Path]:
    """Return the outputs of a job whose names carry the as-of time, oldest first."""
    pattern = Path(job.output)
    if AS_OF not in job.output:
        return [pattern] if pattern.exists() else []

    prefix, _, suffix = pattern.name.partition(AS_OF)
    suffix = re.escape(suffix).replace(re.escape(AS_OF), _STAMP)
    name = re.compile(re.escape(prefix) + f"({_STAMP})" + suffix)
    try:
        stamped = [(m[1], p) for p in pattern.parent.iterdir() if (m := name.fullmatch(p.name))]
        outputs = [(stamp, path) for stamp, path in stamped if path.is_file()]
    except OSError:
        return []
    return [path for _, path in sorted(outputs)]


def read_newest_manifest(job: Job) -> dict[str, Any] | None:
    """Return the manifest of the newest published run; None where there is none."""
    if AS_OF not in job.output:
        return read_manifest(Path(job.output).parent / MANIFEST)
    for output in reversed(list_outputs(job)):
        manifest = read_manifest(output.with_suffix(f".{MANIFEST}"))
        if manifest is not None:
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
        remove_file(path.with_suffix(f".{MANIFEST}"))
        remove_file(path)
    return retired


def remove_job_leftovers(job: Job) -> None:
    """Remove temporary files of killed runs of this job; its lock must be held."""
    paths = run_paths(job, AS_OF)
    targets = [paths.output, paths.manifest, *([Path(job.textfile)] if job.textfile else [])]
    for path in targets:
        parts = [glob.escape(part) for part in path.name.split(AS_OF)]
        for pattern in {stamp.join(parts) for stamp in _STAMP_GLOBS}:
            remove_stale_temps(path.parent, pattern=pattern)
    if job.ledger is not None:
        for stamp in _STAMP_GLOBS:
            remove_stale_temps(Path(job.ledger), pattern=f"{stamp}_*_*.parquet")


def _path_in(record: Any) -> str:
    """Return the path in a manifest's record of a file; an empty string where it has none."""
    path = record.get("path") if isinstance(record, dict) else None
    return path if isinstance(path, str) else ""


def _matches(record: Any, path: Path) -> bool:
    """Tell whether a file is as a manifest's record describes it: path, size and hash."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        actual = describe_input(path)
        return all(actual[name] == record[name] for name in actual)
    return False
