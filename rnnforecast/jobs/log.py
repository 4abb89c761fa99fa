"""Results of runs, where they are reported (log, gauges, failure command), and a job's status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnforecast.config.job import Job, read_job
from rnnforecast.errors import (
    PARTIAL,
    LockedError,
    ModelError,
    OutputError,
    RnnForecastError,
    WriteError,
)
from rnnforecast.evaluate.live import Score
from rnnforecast.events import Event, Listener, PublishedEvent, WarningEvent
from rnnforecast.jobs.publication import read_newest_manifest
from rnnforecast.storage import versions
from rnnforecast.storage.durable import publishing_output
from rnnforecast.storage.remote import as_path

FINISHED = "finished"
"""The event that ends each run in the log."""
_NOTIFY_TIMEOUT_S = 30
_BUG, _SIGNAL_BASE = 1, 128
"""Exit codes of an unexpected exception, and, plus its number, of a signal."""
LAST_SUCCESS = "last_success_timestamp_seconds"
LAST_RUN = "last_run_timestamp_seconds"
LAST_EXIT = "last_exit_code"
_NEWEST_READING = "newest_reading_timestamp_seconds"
GAUGES = {
    LAST_SUCCESS: "When a run last succeeded.",
    LAST_RUN: "When a run last ended.",
    LAST_EXIT: "Its exit code: 0 complete, 3 partial, all others a failure.",
    "last_duration_seconds": "How long it took.",
    _NEWEST_READING: "Time of the newest reading that it saw.",
    "series": "Series that were forecast.",
    "series_degraded": "Series left out, forecast by a fallback, or from a short history.",
    "series_flagged": "Series whose live forecasts are not as good as was usual at training.",
    "model_created_timestamp_seconds": "When the version that forecast was trained.",
}
_PREFIX = "rnnforecast_"
_SAMPLE = re.compile(rf"{_PREFIX}(\w+)\{{job=\"(?:[^\"\\]|\\.)*\"\}} (\S+)")
"""A gauge of the text file: its name and its value."""
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
"""How a log is opened; a pipe that nobody reads from fails, and is not waited for."""
_MAX_LINE = 1 << 16
"""Characters; the values of a longer line are shortened."""
_MAX_VALUE = 2000
"""Characters of one value of a line that is shortened."""
_MAX_LISTED = 20
"""Items of a list there."""
_LINE_BEGIN = b'{"time": "'
_TAIL_BYTES = 1 << 20
"""How much of the end of a log is searched for an entry."""
PUBLISHED, ALREADY, PLANNED = "published", "already published", "planned"
STALE, FAILED = "stale", "failed"
"""What a `RunResult` can have as its status."""


@dataclass(frozen=True)
class PostPublishResult:
    """Results of the tasks after a forecast is published. None of them can revoke the forecast."""

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
class RunResult:
    """Result of one run of a job."""

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
    warnings: tuple[WarningEvent, ...] = ()
    error: RnnForecastError | None = None
    post_publish: PostPublishResult = field(default_factory=PostPublishResult)
    timing: dict[str, float] = field(default_factory=dict)


def exit_code_of(cycles: Sequence[RunResult]) -> int:
    """Return the exit code of the first failed run; without one, 3 if any is partial, else 0."""
    codes = [result.exit_code for result in cycles if result.exit_code]
    return next((code for code in codes if code != PARTIAL), codes[0] if codes else 0)


@dataclass(frozen=True)
class RunLog:
    """A job's log and its text file of Prometheus gauges; None for one that it does not have."""

    job: str
    path: Path | None
    format: str
    textfile: Path | None

    def append(self, event: str, facts: Mapping[str, Any], listener: Listener) -> None:
        """Append one line to the log, in one write: lines of several processes do not mix.

        A line of more than 64 KiB is shortened. A failure to write is a warning.
        """
        if self.path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"time": now, "job": self.job, "event": event, **facts}
        line = self._line(entry)
        if len(line) >= _MAX_LINE:
            line = self._line({name: _shortened(value) for name, value in entry.items()})

        try:
            descriptor = os.open(self.path, _APPEND, 0o666)
            try:
                os.write(descriptor, f"{line}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            listener(
                WarningEvent("log", f"the log {self.path} cannot be written: {error.strerror}")
            )

    def _line(self, entry: Mapping[str, Any]) -> str:
        if self.format == "json":
            return json.dumps(entry)
        job = str(entry["job"])
        job = job if re.fullmatch(r"[\w.-]+", job) else json.dumps(job)
        facts = {k: v for k, v in entry.items() if k not in ("time", "job", "event")}
        pairs = (f"{key}={json.dumps(value)}" for key, value in facts.items())
        return " ".join([str(entry["time"]), job, str(entry["event"]), *pairs])

    def write_gauges(self, values: Mapping[str, float | None], listener: Listener) -> None:
        """Replace the text file; a gauge without a value keeps the one in the file.

        A failure to write is a warning.
        """
        if self.textfile is None:
            return
        gauges = {**self.read_gauges(), **{k: v for k, v in values.items() if v is not None}}
        label = self.job.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        lines = []
        for name, meaning in GAUGES.items():
            if name in gauges:
                lines += [f"# HELP {_PREFIX}{name} {meaning}", f"# TYPE {_PREFIX}{name} gauge"]
                lines.append(f'{_PREFIX}{name}{{job="{label}"}} {gauges[name]:.15g}')

        try:
            with publishing_output(self.textfile) as file:
                file.write(("\n".join(lines) + "\n").encode(errors="replace"))
        except WriteError as error:
            listener(WarningEvent("textfile", error.message))

    def read_gauges(self) -> dict[str, float]:
        """Return the gauges of the text file; none where it cannot be read."""
        gauges: dict[str, float] = {}
        with suppress(OSError, ValueError):
            if self.textfile is not None and self.textfile.is_file():
                for match in _SAMPLE.finditer(self.textfile.read_text("utf-8", "replace")):
                    gauges[match[1]] = float(match[2])
        return gauges

    def read_last(self, event: str) -> dict[str, Any] | None:
        """Return the job's newest entry of this event in a log of JSON lines; None without one."""
        if self.path is None:
            return None
        with suppress(OSError):
            if not self.path.is_file():  # a pipe has nothing to read back
                return None
            with self.path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read().splitlines()

            for line in reversed(lines):
                entry = _parse(line)
                # Several jobs may share a log.
                if (entry.get("job"), entry.get("event")) == (self.job, event):
                    return entry
        return None


def _shortened(value: Any) -> Any:
    """Return the part of a value that fits into a line: a text's beginning, a list's first."""
    if len(json.dumps(value)) <= _MAX_VALUE:
        return value
    if isinstance(value, str):
        return f"{value[: _MAX_VALUE // 10]}..."
    if isinstance(value, list | tuple) and len(json.dumps(value[:_MAX_LISTED])) <= _MAX_VALUE:
        return [*value[:_MAX_LISTED], f"and {len(value) - _MAX_LISTED} more"]
    return "too long for a line"


def _parse(line: bytes) -> dict[str, Any]:
    """Parse a line of the log; return an empty entry where it holds none.

    A full disk or a power cut may truncate a line; the next entry is then appended to it, and is
    the one that is returned. Quotes in an entry are escaped, so none of its texts looks like the
    beginning of an entry.
    """
    for begin in (0, line.rfind(_LINE_BEGIN)):
        with suppress(ValueError, RecursionError):
            entry = json.loads(line[max(begin, 0) :])
            return entry if isinstance(entry, dict) else {}
    return {}


def run_log_of(job: Job) -> RunLog:
    """Return the log and the gauges that a job file names."""
    path, textfile = (None if x is None else Path(x) for x in (job.log.file, job.textfile))
    return RunLog(job.name, path, job.log.format, textfile)


@dataclass
class RunReporter:
    """Listener of one call of `run`: writes the run log and gauges, and notifies of failures."""

    job: Job
    listener: Listener
    log: RunLog
    has_published: bool = False
    _started: float = field(default_factory=time.monotonic)

    def __call__(self, event: Event) -> None:
        """Pass an event on; record warnings and publications in the log."""
        self.listener(event)
        if isinstance(event, PublishedEvent):
            self.has_published = True
            self.log.append("published", {"output": event.result}, self.listener)
        elif isinstance(event, WarningEvent):
            facts = {"code": event.code, "message": event.text, "count": event.count}
            self.log.append("warning", facts, self.listener)

    def report_result(self, result: RunResult) -> None:
        """Report how a run ended: in the log, the gauges and, if it failed, the notification."""
        message = None if result.error is None else result.error.message
        post_publish = result.post_publish
        facts = {
            "status": result.status,
            "as_of": result.as_of,
            "output": result.output and str(result.output),
            "version": result.version,
            "series": result.series,
            "degraded": result.degraded,
            "flagged": post_publish.flagged,
            "retrain": post_publish.retrain,
            "message": message,
        }

        created = result.created and datetime.fromisoformat(result.created).timestamp()
        gauges = {
            _NEWEST_READING: result.newest_s,
            "series": result.series,
            "series_degraded": result.degraded,
            "series_flagged": len(post_publish.flagged) if post_publish.scores else None,
            "model_created_timestamp_seconds": created,
        }
        self._end(result.exit_code, facts, gauges)
        if message is not None:
            self._notify(result.exit_code, message)

    def report_locked(self, error: LockedError) -> None:
        """Record that another run holds the lock. That run reports for itself: no gauges."""
        self.log.append("locked", {"message": error.message}, self.listener)

    def report_failure(self, error: BaseException) -> None:
        """Report that the whole call failed; a signal is no failure to notify of."""
        # The exit code that the command line will end with.
        if isinstance(error, RnnForecastError):
            code = error.exit_code
        elif isinstance(error, Exception):
            code = _BUG
        elif self.has_published:
            code = OutputError.exit_code
        else:
            code = _SIGNAL_BASE + int(getattr(error, "number", signal.SIGINT))

        message = str(error) or type(error).__name__
        self._end(code, {"status": "failed", "message": message}, {})
        if isinstance(error, Exception):
            self._notify(code, message)

    def _end(self, code: int, facts: Mapping[str, Any], gauges: Mapping[str, Any]) -> None:
        now, duration = time.time(), time.monotonic() - self._started
        self._started = time.monotonic()
        entry = {"exit": code, **facts, "timing": {"total_s": round(duration, 3)}}
        self.log.append(FINISHED, entry, self.listener)
        ending = {
            LAST_SUCCESS: now if code in (0, PARTIAL) else None,
            LAST_RUN: now,
            LAST_EXIT: float(code),
            "last_duration_seconds": round(duration, 3),
        }
        self.log.write_gauges({**ending, **gauges}, self.listener)

    def _notify(self, code: int, message: str) -> None:
        """Run the command for failures, with the message on its standard input."""
        command = self.job.notify.on_failure
        if not command:
            return
        text = f"rnnforecast: job {self.job.name} failed with exit code {code}: {message}\n"
        variables = {
            "RNNFORECAST_JOB": self.job.name,
            "RNNFORECAST_EXIT": str(code),
            "RNNFORECAST_MESSAGE": message.replace("\0", ""),
        }

        try:
            subprocess.run(
                command,
                input=text.encode(errors="replace"),
                env={**os.environ, **variables},
                stdout=subprocess.DEVNULL,
                timeout=_NOTIFY_TIMEOUT_S,
                check=True,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self(WarningEvent("notify", f"[notify] on_failure could not be run: {error}"))


@dataclass(frozen=True)
class Status:
    """State of a job. None means that it is not recorded."""

    job: str
    last_exit: int | None
    last_message: str | None
    last_run: float | None
    """In seconds since 1970, as all times here."""
    last_success: float | None
    published: dict[str, Any] | None
    """The manifest of the newest published run."""
    newest_reading: float | None
    version: str | None
    """The version that the next run will use."""
    version_created: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document, with ages in seconds."""
        manifest = self.published or {}
        return {
            "job": self.job,
            "last_exit": self.last_exit,
            "last_message": self.last_message,
            "last_run_age_s": _age_s(self.last_run),
            "last_success_age_s": _age_s(self.last_success),
            "data_age_s": _age_s(self.newest_reading),
            "version": self.version,
            "model_age_s": _age_s(self.version_created),
            "as_of": manifest.get("as_of"),
            "output": (manifest.get("output") or {}).get("path"),
            "forecast_age_s": _age_s(_timestamp(manifest.get("published"))),
        }


def status(path: str | Path) -> Status:
    """Return the state of a job. Raises `UsageError` for a job file that cannot be read."""
    job = read_job(Path(path))
    log = run_log_of(job)
    gauges, last = log.read_gauges(), log.read_last(FINISHED) or {}
    manifest = read_newest_manifest(job)
    published = manifest or {}
    last_run, last_exit = _timestamp(last.get("time")), last.get("exit")
    successes = [gauges.get(LAST_SUCCESS), _timestamp(published.get("published"))]
    if last_exit in (0, PARTIAL):
        successes.append(last_run)
    if not isinstance(last_exit, int):
        last_exit = int(gauges[LAST_EXIT]) if LAST_EXIT in gauges else None

    version, created = None, None
    with suppress(ModelError):
        version = versions.resolve_version(as_path(job.model.path), job.model.version).name
        # The name of a version begins with the time at which it was made, in UTC.
        created = datetime.strptime(f"{version[:15]}+0000", "%Y%m%dT%H%M%S%z").timestamp()

    newest_reading = (published.get("data") or {}).get("newest_timestamp_s")
    return Status(
        job=job.name,
        last_exit=last_exit,
        last_message=last.get("message"),
        last_run=last_run or gauges.get(LAST_RUN),
        last_success=max(filter(None, successes), default=None),
        published=manifest,
        newest_reading=gauges.get(_NEWEST_READING) or newest_reading,
        version=version,
        version_created=created,
    )


def _timestamp(text: object) -> float | None:
    """Parse a time of a manifest or a log; None where it is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _age_s(timestamp: float | None) -> int | None:
    """Return how many seconds ago a time was; 0 where the clock is behind it."""
    return None if timestamp is None else max(0, round(datetime.now(UTC).timestamp() - timestamp))
