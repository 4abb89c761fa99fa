"""What a job reports: run log, Prometheus gauges, the command after a failure, its status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnforecast.config.job import Job, read_job
from rnnforecast.errors import LockedError, ModelError, RnnForecastError, UntoldError, WriteError
from rnnforecast.evaluate.live import Score
from rnnforecast.events import Event, Listener, Published, Recorder, Warned
from rnnforecast.jobs import issue
from rnnforecast.storage import versions
from rnnforecast.storage.durable import publishing_file
from rnnforecast.storage.remote import Place, place_of
from rnnforecast.workflow.steps import Clock

FINISHED = "finished"
"""The event that ends each cycle in the log."""
_NOTIFY_S = 30
_BUG, _INTERRUPTED = 1, 128
LAST_SUCCESS, LAST_RUN, LAST_EXIT = (
    "last_success_timestamp_seconds",
    "last_run_timestamp_seconds",
    "last_exit_code",
)
GAUGES = {
    LAST_SUCCESS: "When a run last succeeded.",
    LAST_RUN: "When a run last ended.",
    LAST_EXIT: "Its exit code: 0 complete, 3 partial, all others a failure.",
    "last_duration_seconds": "How long it took.",
    "newest_reading_timestamp_seconds": "Time of the newest reading that it saw.",
    "series": "Series that were forecast.",
    "series_degraded": "Series left out, forecast by a fallback, or from a short history.",
    "series_flagged": "Series whose live forecasts are not as good as was usual at training.",
    "model_created_timestamp_seconds": "When the version that forecast was trained.",
}
_PREFIX = "rnnforecast_"
_LINE = re.compile(r"rnnforecast_(\w+)\{job=\"(?:[^\"\\]|\\.)*\"\} (\S+)")
_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_LONGEST_LINE = 1 << 16
_LONGEST_VALUE = 2000
_SHOWN = 20
_BEGIN = b'{"time": "'
_TAIL_BYTES = 1 << 20
PUBLISHED, ALREADY, STALE, PLANNED, FAILED = (
    "published",
    "already published",
    "stale",
    "planned",
    "failed",
)
PARTIAL = 3
"""The exit code where some series were not forecast as usual."""
_NEWEST = "newest_reading_timestamp_seconds"


@dataclass
class Teller:
    """Tells of one call of `run`."""

    job: Job
    journal: Journal
    listener: Listener
    has_published: bool = False
    _begun: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, job: Job, listener: Listener) -> Teller:
        """Make one that writes where the job file says."""
        return cls(job, journal_of(job), listener)

    def __call__(self, event: Event) -> None:
        """Pass an event on; keep warnings in the log."""
        self.listener(event)
        if isinstance(event, Published):
            self.has_published = True
            self.journal.record("published", {"output": event.what}, self.listener)
        elif isinstance(event, Warned):
            facts = {"code": event.code, "message": event.message, "count": event.count}
            self.journal.record("warning", facts, self.listener)

    def finished(self, cycle: Cycle) -> None:
        """Tell how a cycle ended."""
        message = None if cycle.error is None else cycle.error.message
        aftermath = cycle.aftermath
        facts = {
            "status": cycle.status,
            "as_of": cycle.as_of,
            "output": cycle.output and str(cycle.output),
            "version": cycle.version,
            "series": cycle.series,
            "degraded": cycle.degraded,
            "flagged": aftermath.flagged,
            "retrain": aftermath.retrain,
            "message": message,
        }
        created = cycle.created and datetime.fromisoformat(cycle.created).timestamp()
        gauges = {
            "newest_reading_timestamp_seconds": cycle.newest_s,
            "series": cycle.series,
            "series_degraded": cycle.degraded,
            "series_flagged": len(aftermath.flagged) if aftermath.scores else None,
            "model_created_timestamp_seconds": created,
        }
        self._end(cycle.exit_code, facts, gauges)
        if message is not None:
            self._notify(cycle.exit_code, message)

    def locked(self, error: LockedError) -> None:
        """Tell that another run holds the lock: it will tell of itself."""
        self.journal.record("locked", {"message": error.message}, self.listener)

    def failed(self, error: BaseException) -> None:
        """Tell how the whole call failed; who ended it by a signal need not be told."""
        code = _code_of(error, has_published=self.has_published)
        message = str(error) or type(error).__name__
        self._end(code, {"status": "failed", "message": message}, {})
        if isinstance(error, Exception):
            self._notify(code, message)

    def _end(self, code: int, facts: Mapping[str, Any], gauges: Mapping[str, Any]) -> None:
        now, took = time.time(), time.monotonic() - self._begun
        self._begun = time.monotonic()
        ended = {"exit": code, **facts, "timing": {"total_s": round(took, 3)}}
        self.journal.record(FINISHED, ended, self.listener)
        own = {
            LAST_SUCCESS: now if code in (0, PARTIAL) else None,
            LAST_RUN: now,
            LAST_EXIT: float(code),
            "last_duration_seconds": round(took, 3),
        }
        self.journal.gauge({**own, **gauges}, self.listener)

    def _notify(self, code: int, message: str) -> None:
        """Run the command that is told of failures, with the message on its standard input."""
        command = self.job.notify.on_failure
        if not command:
            return
        said = f"rnnforecast: job {self.job.name} failed with exit code {code}: {message}\n"
        told = {
            "RNNFORECAST_JOB": self.job.name,
            "RNNFORECAST_EXIT": str(code),
            "RNNFORECAST_MESSAGE": message.replace("\0", ""),
        }
        try:
            subprocess.run(
                command,
                input=said.encode(errors="replace"),
                env={**os.environ, **told},
                stdout=subprocess.DEVNULL,
                timeout=_NOTIFY_S,
                check=True,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self(Warned("notify", f"[notify] on_failure could not be run: {error}"))


def journal_of(job: Job) -> Journal:
    """Return where a job writes what it does."""
    log, textfile = (None if x is None else Path(x) for x in (job.log.file, job.textfile))
    return Journal(job.name, log, job.log.format, textfile)


def _code_of(error: BaseException, *, has_published: bool) -> int:
    """Return the exit code that the command line will leave with."""
    if isinstance(error, RnnForecastError):
        return error.exit_code
    if isinstance(error, Exception):
        return _BUG
    if has_published:
        return UntoldError.exit_code
    return _INTERRUPTED + int(getattr(error, "number", 2))


def age_s(moment: float | None) -> int | None:
    """Return how long ago a time of the clock was, in seconds; 0 where the clock is behind."""
    return None if moment is None else max(0, round(datetime.now(UTC).timestamp() - moment))


@dataclass(frozen=True)
class Journal:
    """A job's log and text file, as far as it has them."""

    job: str
    log: Path | None
    log_format: str
    textfile: Path | None

    def record(self, event: str, facts: Mapping[str, Any], listener: Listener) -> None:
        """Append one line to the log, in one write: lines of several processes do not mix."""
        if self.log is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"time": now, "job": self.job, "event": event, **facts}
        written = json.dumps if self.log_format == "json" else _as_text
        line = written(entry)
        if len(line) >= _LONGEST_LINE:
            line = written({name: _shortened(value) for name, value in entry.items()})
        try:
            descriptor = os.open(self.log, _APPENDING, 0o666)
            try:
                os.write(descriptor, f"{line}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            listener(Warned("log", f"the log {self.log} cannot be written: {error.strerror}"))

    def gauge(self, values: Mapping[str, float | None], listener: Listener) -> None:
        """Replace the text file; a gauge without a value now keeps the one that it had."""
        if self.textfile is None:
            return
        kept = {**self.gauges(), **{k: v for k, v in values.items() if v is not None}}
        label = self.job.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        lines = []
        for name, meaning in GAUGES.items():
            if name in kept:
                lines += [f"# HELP {_PREFIX}{name} {meaning}", f"# TYPE {_PREFIX}{name} gauge"]
                lines.append(f'{_PREFIX}{name}{{job="{label}"}} {kept[name]:.15g}')
        try:
            with publishing_file(self.textfile) as file:
                file.write(("\n".join(lines) + "\n").encode(errors="replace"))
        except WriteError as error:
            listener(Warned("textfile", error.message))

    def gauges(self) -> dict[str, float]:
        """Return what the text file says."""
        found: dict[str, float] = {}
        if self.textfile is not None:
            with suppress(OSError, ValueError):
                for match in _LINE.finditer(self.textfile.read_text("utf-8", "replace")):
                    found[match[1]] = float(match[2])
        return found

    def last(self, event: str) -> dict[str, Any] | None:
        """Return the job's newest entry of a kind in a log of JSON lines; None where is none."""
        if self.log is None:
            return None
        with suppress(OSError):
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read().splitlines()
            for line in reversed(lines):
                entry = _entry(line)
                if entry is None or entry.get("job") != self.job:
                    continue  # several jobs may share a log
                if entry.get("event") == event:
                    return entry
        return None


def _as_text(entry: Mapping[str, Any]) -> str:
    job = str(entry["job"])
    job = job if re.fullmatch(r"[\w.-]+", job) else json.dumps(job)
    words = [str(entry["time"]), job, str(entry["event"])]
    rest = {k: v for k, v in entry.items() if k not in ("time", "job", "event")}
    return " ".join([*words, *(f"{key}={json.dumps(value)}" for key, value in rest.items())])


def _shortened(value: Any) -> Any:
    """Return what of a value there is room for in a line: a text's beginning, a list's first."""
    if len(json.dumps(value)) <= _LONGEST_VALUE:
        return value
    if isinstance(value, str):
        return f"{value[: _LONGEST_VALUE // 10]}..."
    if isinstance(value, list | tuple) and len(json.dumps(value[:_SHOWN])) <= _LONGEST_VALUE:
        return [*value[:_SHOWN], f"and {len(value) - _SHOWN} more"]
    return "too long for a line"


def _entry(line: bytes) -> dict[str, Any] | None:
    """Read a line of the log; of one that a full disk or a power cut has cut short, what follows.

    No text within an entry looks like its beginning, as quotes are escaped there.
    """
    for begin in (0, line.rfind(_BEGIN)):
        with suppress(ValueError, RecursionError):
            entry = json.loads(line[max(begin, 0) :])
            return entry if isinstance(entry, dict) else None
    return None


@dataclass(frozen=True)
class Aftermath:
    """What followed a published forecast. Nothing of it can take the forecast back."""

    scores: tuple[Score, ...] = ()
    """Of recent forecasts, by series."""
    retired: tuple[str, ...] = ()
    """Outputs and versions that retention has removed."""
    retrain: dict[str, Any] | None = None
    """What was decided about a challenger, and why; None where none was due."""

    @property
    def flagged(self) -> list[str]:
        """Series whose live forecasts have left the band that was usual at training."""
        return [str(score.series) for score in self.scores if score.flag]


@dataclass(frozen=True)
class Cycle:
    """What one run came to."""

    status: str
    exit_code: int = 0
    as_of: str | None = None
    key: str | None = None
    output: Path | None = None
    version: str | None = None
    newest_s: float | None = None
    """Time of the newest reading, in seconds since 1970, in UTC."""
    created: str | None = None
    """When the version was trained."""
    series: int | None = None
    degraded: int | None = None
    warnings: tuple[Warned, ...] = ()
    error: RnnForecastError | None = None
    aftermath: Aftermath = field(default_factory=Aftermath)
    timing: dict[str, float] = field(default_factory=dict)

    def ended(self, status: str, code: int, events: Recorder, clock: Clock) -> Cycle:
        """Return this with how it ended."""
        return replace(
            self,
            status=status,
            exit_code=code,
            warnings=tuple(events.warnings),
            timing=dict(clock.laps),
        )


def exit_code_of(cycles: Sequence[Cycle]) -> int:
    """Return the code of the first failure; 3 where only parts are missing, else 0."""
    codes = [cycle.exit_code for cycle in cycles if cycle.exit_code]
    return next((code for code in codes if code != PARTIAL), codes[0] if codes else 0)


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
    published = issue.newest_manifest(job)
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
        name = versions.resolve_version(model, pinned).name
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
