"""One forecast that a job issues: what it is made from, its key, where it goes, and its manifest.

Apart from `running`, the story of a cycle. The key is a hash of all that decides the forecast, so
that the same run is known again; the manifest says where everything came from.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnforecast._version import __version__
from rnnforecast.config import PredictConfig
from rnnforecast.crashpoints import crash_point
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durable import make_directory, taking_back
from rnnforecast.events import Recorder
from rnnforecast.jobconfig import Job, KeepPart, ModelPart, RetrainPart
from rnnforecast.operate import runs
from rnnforecast.places.remote import Place
from rnnforecast.workflow.outputs import check_outputs, files_of
from rnnforecast.workflow.saved import Model
from rnnforecast.workflow.settled import reading_of
from rnnforecast.workflow.steps import Clock

if TYPE_CHECKING:
    from rnnforecast.evaluate.fallback import Prediction
    from rnnforecast.workflow.prediction import Ready

_Part = DataConfig | PredictConfig | ModelPart | KeepPart | RetrainPart
_LIBRARIES = ("torch", "numpy", "pandas", "pyarrow")
_NO_RESULT = ("as_of", "max_age", "warn_age")
"""Options of a forecast that do not change it; the as-of time stands in the key by itself."""


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
    place: runs.Place

    @classmethod
    def of(cls, job: Job, model: Model, as_of: str | None, events: Recorder) -> Issue:
        """Read the readings and settle what the run is. Raises what reading raises."""
        from rnnforecast.data.freshness import newest_readings
        from rnnforecast.data.stamps import file_stamp, parse_time_us
        from rnnforecast.workflow.prediction import prepare

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
        place = runs.place_of(job, moment)
        runs.check_own_place(place, job)
        return cls(job, model, ready, moment, newest, _key_of(job, model, ready, moment), place)

    @property
    def newest_s(self) -> float:
        """Time of the newest reading, in seconds since 1970, in UTC."""
        from rnnforecast.data.freshness import epoch_s

        return epoch_s(self.newest_us, self.ready.schema.tz)

    @property
    def is_published(self) -> bool:
        """Whether this very run is published whole."""
        ledger = None if self.job.ledger is None else Path(self.job.ledger)
        return runs.published(self.place, self.key, ledger=ledger) is not None

    def publish(
        self, prediction: Prediction, events: Recorder, clock: Clock, arguments: Sequence[str]
    ) -> dict[str, Any]:
        """Publish the ledger's part, the forecast, and the manifest that makes both count.

        Where there can be no manifest, the forecast before it comes back.
        """
        from rnnforecast.data.writing import encode_table
        from rnnforecast.workflow.prediction import table_to_write

        output, files = self.place.output, {}
        table = table_to_write(prediction.forecast, str(output), self.job.forecast, events)
        if self.job.ledger is not None:
            files["ledger"] = self._record(Path(self.job.ledger), prediction)
            crash_point("ledger-published")
        with taking_back(output):
            files["output"] = runs.publish(output, encode_table(table, str(output)))
            files["output"]["rows"] = table.num_rows
            crash_point("forecast-published")
            manifest = {**self.describe(events, arguments), **files, "timing": dict(clock.laps)}
            runs.write_manifest(self.place.manifest, manifest)
        crash_point("run-published")
        return manifest

    def _record(self, ledger: Path, prediction: Prediction) -> dict[str, Any]:
        """Add the forecast to the ledger; return what the manifest says of its part."""
        from rnnforecast.evaluate.scoring import issue_table
        from rnnforecast.operate.ledger import publish_part

        artifact = self.model.artifact
        table = issue_table(
            prediction.forecast,
            prediction.past,
            season=artifact.task.season,
            version=str(self.model.version),
            usual=artifact.metrics.get("usual"),
        )
        make_directory(ledger)
        part = publish_part(ledger, table, as_of=self.as_of, key=self.key)
        return runs.describe_input(part.path)

    def describe(self, events: Recorder, arguments: Sequence[str]) -> dict[str, Any]:
        """Return what the manifest says, but for the files that are published."""
        from rnnforecast.data.stamps import format_stamp

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
            "inputs": [
                runs.describe_source(path) for path in _inputs(self.job, self.ready.options)
            ],
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
    return runs.key_of(
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
