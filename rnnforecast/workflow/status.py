"""The story of looking after a job: when it last succeeded, and how old everything is.

It opens what runs have left, and no readings: how old those are is as of the last run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rnnforecast.errors import ModelError
from rnnforecast.jobfile import read_job
from rnnforecast.operate import runs, store
from rnnforecast.operate.journal import LAST_EXIT, LAST_RUN, LAST_SUCCESS
from rnnforecast.places.remote import Place, place_of
from rnnforecast.workflow.cycle import PARTIAL
from rnnforecast.workflow.telling import FINISHED, age_s, journal_of

_NEWEST = "newest_reading_timestamp_seconds"


@dataclass(frozen=True)
class Status:
    """How a job does. None is what nobody has written down."""

    job: str
    last_exit: int | None
    last_message: str | None
    last_run: float | None
    """Seconds since 1970, as all times here."""
    last_success: float | None
    published: dict[str, Any] | None
    """The manifest of the newest published run."""
    newest_reading: float | None
    version: str | None
    """The version that the next run will use."""
    version_created: float | None

    def to_json(self) -> dict[str, Any]:
        """Return what JSON shows, ages in seconds."""
        said = self.published or {}
        return {
            "job": self.job,
            "last_exit": self.last_exit,
            "last_message": self.last_message,
            "last_run_age_s": age_s(self.last_run),
            "last_success_age_s": age_s(self.last_success),
            "data_age_s": age_s(self.newest_reading),
            "version": self.version,
            "model_age_s": age_s(self.version_created),
            "as_of": said.get("as_of"),
            "output": (said.get("output") or {}).get("path"),
            "forecast_age_s": age_s(_moment(said.get("published"))),
        }


def status(path: str | Path) -> Status:
    """Say how a job does. Raises `UsageError` for a job file that cannot be read."""
    job = read_job(Path(path))
    journal = journal_of(job)
    gauges, last = journal.gauges(), journal.last(FINISHED) or {}
    published = runs.newest_manifest(job)
    ended, code = _moment(last.get("time")), last.get("exit")
    successes = [gauges.get(LAST_SUCCESS), _moment((published or {}).get("published"))]
    if code in (0, PARTIAL):
        successes.append(ended)
    said = (published or {}).get("data") or {}
    version, created = _version(place_of(job.model.path), job.model.version)
    return Status(
        job=job.name,
        last_exit=code if isinstance(code, int) else _whole(gauges.get(LAST_EXIT)),
        last_message=last.get("message"),
        last_run=ended or gauges.get(LAST_RUN),
        last_success=max(filter(None, successes), default=None),
        published=published,
        newest_reading=gauges.get(_NEWEST) or said.get("newest_timestamp_s"),
        version=version,
        version_created=created,
    )


def _version(model: Place, pinned: str | None) -> tuple[str | None, float | None]:
    """Return the version that forecasts, and when it was made; None where there is none."""
    try:
        name = store.resolve_version(model, pinned).name
    except ModelError:
        return None, None
    return name, datetime.strptime(f"{name[:15]}+0000", "%Y%m%dT%H%M%S%z").timestamp()


def _moment(text: object) -> float | None:
    """Read a time that a manifest or a log has written."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
