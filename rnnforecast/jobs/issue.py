"""One forecast of a job: its key, where it is published, its manifest."""

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
from rnnforecast.config.fields import key_of
from rnnforecast.config.job import AS_OF, Job, KeepPart, ModelPart, RetrainPart
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import PredictConfig
from rnnforecast.data.match import epoch_s, newest_readings
from rnnforecast.data.output import encode_table
from rnnforecast.data.timestamps import file_stamp, format_stamp, parse_time_us
from rnnforecast.errors import UsageError
from rnnforecast.evaluate.live import issue_table
from rnnforecast.evaluate.postprocess import Prediction
from rnnforecast.events import Recorder
from rnnforecast.jobs.ledger import publish_part
from rnnforecast.storage.durable import (
    collect_leftovers,
    crash_point,
    make_directory,
    remove_file,
    taking_back,
)
from rnnforecast.storage.publish import describe_input, describe_source, publish
from rnnforecast.storage.remote import Place
from rnnforecast.workflow.model import (
    Model,
    Ready,
    check_outputs,
    files_of,
    prepare,
    reading_of,
    table_to_write,
)
from rnnforecast.workflow.steps import Clock

_Part = DataConfig | PredictConfig | ModelPart | KeepPart | RetrainPart
_LIBRARIES = ("torch", "numpy", "pandas", "pyarrow")
_NO_RESULT = ("as_of", "max_age", "warn_age")
"""Options of a forecast that do not change it; the as-of time stands in the key by itself."""
FORMAT, FORMAT_VERSION = "rnnforecast-run", 1
MANIFEST = "run.json"
_STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6}(?:_[0-9]{6})?Z?"
"""What stands for `{as_of}` in the name of a file."""
_WHOLE, _FRACTION = (form.replace("#", "[0-9]") for form in ("####-##-##T######", "_######"))
_STAMP_GLOBS = tuple(_WHOLE + rest for rest in ("", "Z", _FRACTION, f"{_FRACTION}Z"))
"""The same, as patterns of files."""


@dataclass(frozen=True)
class Issue:
    """One forecast to issue, its readings read. No torch yet."""

    job: Job
    model: Model
    ready: Ready
    as_of: str
    """The time of the forecast as it stands in names of files."""
    newest_us: int
    """Time of the newest reading."""
    key: str
    place: RunPaths

    @classmethod
    def of(cls, job: Job, model: Model, as_of: str | None, events: Recorder) -> Issue:
        """Read the readings and settle what the run is. Raises what reading raises."""
        artifact = model.artifact
        options = reading_of(artifact, job.reading, job.given)
        quantiles = tuple(sorted({0.1, 0.9, *job.forecast.quantiles}))
        config = replace(job.forecast, as_of=as_of, quantiles=quantiles)
        others = {"what is known ahead": config.future}
        output = job.output if Path(job.output).parent.is_dir() else None  # a plan makes no folder
        check_outputs(job.source, options, output=output, others=others)
        ready = prepare(artifact, job.source, config, options, events)
        newest, tz = int(newest_readings(ready.past).max(initial=-1)), ready.schema.tz
        moment = file_stamp(newest if as_of is None else parse_time_us(as_of, tz), tz)
        place = place_of(job, moment)
        check_own_place(place, job)
        return cls(job, model, ready, moment, newest, _key_of(job, model, ready, moment), place)

    @property
    def newest_s(self) -> float:
        """Time of the newest reading, in seconds since 1970, in UTC."""
        return epoch_s(self.newest_us, self.ready.schema.tz)

    @property
    def is_published(self) -> bool:
        """Whether this very run is published whole."""
        ledger = None if self.job.ledger is None else Path(self.job.ledger)
        return published(self.place, self.key, ledger=ledger) is not None

    def publish(
        self, prediction: Prediction, events: Recorder, clock: Clock, arguments: Sequence[str]
    ) -> dict[str, Any]:
        """Publish the ledger's part, the forecast, and the manifest that makes both count.

        Where there can be no manifest, the forecast before it comes back.
        """
        output, files = self.place.output, {}
        table = table_to_write(prediction.forecast, str(output), self.job.forecast, events)
        if self.job.ledger is not None:
            files["ledger"] = self._record(Path(self.job.ledger), prediction)
            crash_point("ledger-published")
        with taking_back(output):
            files["output"] = publish(output, encode_table(table, str(output)))
            files["output"]["rows"] = table.num_rows
            crash_point("forecast-published")
            manifest = {**self.describe(events, arguments), **files, "timing": dict(clock.laps)}
            write_manifest(self.place.manifest, manifest)
        crash_point("run-published")
        return manifest

    def _record(self, ledger: Path, prediction: Prediction) -> dict[str, Any]:
        """Add the forecast to the ledger; return what the manifest says of its part."""
        artifact = self.model.artifact
        table = issue_table(
            prediction.forecast,
            prediction.past,
            season=artifact.spec.season,
            version=str(self.model.version),
            usual=artifact.metrics.get("error_reference"),
        )
        make_directory(ledger)
        part = publish_part(ledger, table, as_of=self.as_of, key=self.key)
        return describe_input(part.path)

    def describe(self, events: Recorder, arguments: Sequence[str]) -> dict[str, Any]:
        """Return what the manifest says, but for the files that are published."""
        past, tz = self.ready.past, self.ready.schema.tz
        return {
            "status": "published",
            "key": self.key,
            "job": str(self.job.path.resolve()),
            "as_of": self.as_of,
            "published": datetime.now(UTC).isoformat(timespec="seconds"),
            "arguments": list(arguments),
            "model": {"path": str(self.model.path), "version": self.model.version},
            "horizon": self.ready.horizon,
            "config": _origins(self.job, self.ready.options),
            "versions": {
                "rnnforecast": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in _LIBRARIES},
            },
            "inputs": [describe_source(path) for path in _inputs(self.job, self.ready.options)],
            "data": {
                "fingerprint": past.fingerprint(),
                "series": past.n_origins,
                "rows": past.n_rows,
                "first": format_stamp(past.first_us, tz),
                "newest": format_stamp(self.newest_us, tz),
                "newest_timestamp_s": self.newest_s,
                "age_s": round(self.ready.age_us / 1e6),
            },
            "warnings": [asdict(warning) for warning in events.warnings],
        }


def _key_of(job: Job, model: Model, ready: Ready, as_of: str) -> str:
    forecast = {k: v for k, v in asdict(job.forecast).items() if k not in _NO_RESULT}
    return key_of(
        {
            "rnnforecast": __version__,
            "forecast": forecast,
            "reading": asdict(ready.options),
            "version": model.version,
            "readings": ready.past.fingerprint(),
            "as_of": as_of,
            "horizon": ready.horizon,
        }
    )


def _inputs(job: Job, options: DataConfig) -> list[Place]:
    """Return the files that were read."""
    sources = (job.source, options.exclude, job.forecast.future)
    return sorted({path for source in sources if source for path in files_of(source)}, key=str)


def _origins(job: Job, options: DataConfig) -> dict[str, Any]:
    """Return the configuration, each value with where it comes from."""
    file = str(job.path)
    reading = _with_origin(options, job.given, file)
    for name, entry in reading.items():  # what differs from the default was stored with the model
        if entry["origin"] == "default" and not _is_default(options, name):
            entry["origin"] = "model"
    parts: dict[str, _Part] = {
        "forecast": job.forecast,
        "model": job.model,
        "keep": job.keep,
        "retrain": job.retrain,
    }
    said = {
        name: {key.replace("-", "_") for table in names for key in job.tables.get(table, ())}
        for name, names in {**{n: (n,) for n in parts}, "forecast": ("forecast", "fresh")}.items()
    }
    return {
        "data": {"source": {"value": job.source, "origin": file}, **reading},
        **{name: _with_origin(part, said[name], file) for name, part in parts.items()},
    }


def _with_origin(part: _Part, said: Collection[str], file: str) -> dict[str, Any]:
    values: Mapping[str, Any] = asdict(part)
    return {
        name: {"value": value, "origin": file if name in said else "default"}
        for name, value in values.items()
    }


def _is_default(part: DataConfig, name: str) -> bool:
    default = next(item.default for item in fields(part) if item.name == name)
    return bool(getattr(part, name) == default)


@dataclass(frozen=True)
class RunPaths:
    """Where one run of a job publishes."""

    output: Path
    manifest: Path


def place_of(job: Job, as_of: str) -> RunPaths:
    """Return where a run of this time publishes: one manifest for each output."""
    output = job.output_of(as_of)
    if AS_OF not in job.output:
        return RunPaths(output, output.parent / MANIFEST)
    return RunPaths(output, output.with_suffix(f".{MANIFEST}"))


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read a run's manifest; None where there is none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        said = json.loads(path.read_bytes())
        if isinstance(said, dict) and said.get("format") == FORMAT:
            return said
    return None


def published(place: RunPaths, key: str, *, ledger: Path | None) -> dict[str, Any] | None:
    """Return the manifest of a run that is published whole; None where something is missing.

    Of a job with a ledger a part there belongs to it.
    """
    said = read_manifest(place.manifest)
    if said is None or said.get("key") != key:
        return None
    is_there = _is_as_said(said.get("output"), place.output)
    if ledger is not None:
        part = ledger / Path(_path_of(said.get("ledger"))).name
        is_there = is_there and _is_as_said(said.get("ledger"), part)
    return said if is_there else None


def check_own_place(place: RunPaths, job: Job) -> None:
    """Raise `UsageError` where the manifest there belongs to another job's output."""
    said = read_manifest(place.manifest)
    if said is None:
        return
    other = said.get("job"), _path_of(said.get("output"))
    if other[0] != str(job.path.resolve()) and other[1] != str(place.output.resolve()):
        raise UsageError(
            f"{place.manifest} belongs to another job, {other[0]}, with the output {other[1]}",
            code="shared-output",
            hint="let each job write to a folder of its own",
        )


def write_manifest(path: Path, said: Mapping[str, Any]) -> None:
    """Publish a run's manifest."""
    content = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **said}, indent=2)
    publish(path, f"{content}\n".encode())


def list_outputs(job: Job) -> list[Path]:
    """Return the outputs of a job whose names carry the as-of time, oldest first."""
    pattern = Path(job.output)
    if AS_OF not in job.output:
        return [pattern] if pattern.exists() else []
    before, _, after = pattern.name.partition(AS_OF)
    after = re.escape(after).replace(re.escape(AS_OF), _STAMP)
    name = re.compile(re.escape(before) + f"({_STAMP})" + after)
    try:
        named = [(m[1], p) for p in pattern.parent.iterdir() if (m := name.fullmatch(p.name))]
        found = [(stamp, path) for stamp, path in named if path.is_file()]
    except OSError:
        return []
    return [path for _, path in sorted(found)]


def newest_manifest(job: Job) -> dict[str, Any] | None:
    """Return the manifest of the newest published run; None where there is none."""
    if AS_OF not in job.output:
        return read_manifest(Path(job.output).parent / MANIFEST)
    for output in reversed(list_outputs(job)):
        said = read_manifest(output.with_suffix(f".{MANIFEST}"))
        if said is not None:
            return said
    return None


def retire_outputs(job: Job, *, spared: Path) -> list[Path]:
    """Remove all outputs but the newest `keep.forecasts`, and `spared`; return what is gone.

    The manifest goes first: a forecast without one is found again by who is cut short here.
    """
    if job.keep.forecasts is None or AS_OF not in job.output:
        return []
    gone = [path for path in list_outputs(job)[: -job.keep.forecasts] if path != spared]
    for path in gone:
        remove_file(path.with_suffix(f".{MANIFEST}"))
        remove_file(path)
    return gone


def collect(job: Job) -> None:
    """Remove what killed runs of this job have left; its lock must be held."""
    place = place_of(job, AS_OF)
    written = [place.output, place.manifest, *([Path(job.textfile)] if job.textfile else [])]
    for path in written:
        parts = [glob.escape(part) for part in path.name.split(AS_OF)]
        for of in {stamp.join(parts) for stamp in _STAMP_GLOBS}:
            collect_leftovers(path.parent, of=of)
    if job.ledger is not None:
        for stamp in _STAMP_GLOBS:
            collect_leftovers(Path(job.ledger), of=f"{stamp}_*_*.parquet")


def _path_of(said: Any) -> str:
    """Return the path of a file that a manifest names; nothing where it names none."""
    path = said.get("path") if isinstance(said, dict) else None
    return path if isinstance(path, str) else ""


def _is_as_said(said: Any, path: Path) -> bool:
    """Tell whether a file is the one that a manifest names, and what it says of it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = describe_input(path)
        return all(found[name] == said[name] for name in found)
    return False
