"""Results of runs, where they are reported (log, gauges, failure command), and a job's status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnforecast.config.job import FROM_HERE, JOB, Job, belongs_to, path_from, read_job
from rnnforecast.config.training import BUILTIN_MODEL
from rnnforecast.errors import (
    PARTIAL,
    CatchUpError,
    LockedError,
    ModelError,
    NotEnoughDataError,
    OutputError,
    RnnForecastError,
    WriteError,
)
from rnnforecast.evaluate.live import Score
from rnnforecast.events import (
    CatchUpEvent,
    Event,
    Listener,
    PublishedEvent,
    WarningEvent,
    escape_controls,
)
from rnnforecast.jobs.publication import read_newest_manifest
from rnnforecast.model.builtin import builtin_version
from rnnforecast.process import open_regular
from rnnforecast.storage import versions
from rnnforecast.storage.durable import PIPE_PATIENCE_S, append_line, publishing_output
from rnnforecast.storage.lock import acquire
from rnnforecast.storage.remote import as_path
from rnnforecast.system import kill_session
from rnnforecast.units import describe_duration, parse_duration_us

FINISHED = "finished"
"""The event that ends each run in the log."""
NOTIFY_TIMEOUT_S = 30.0
"""How long the command for failures may take."""
_BUG, _SIGNAL_BASE = 1, 128
"""Exit codes of an unexpected exception, and, plus its number, of a signal."""
LAST_SUCCESS = "last_success_timestamp_seconds"
LAST_RUN = "last_run_timestamp_seconds"
LAST_EXIT = "last_exit_code"
_NEWEST_READING = "newest_reading_timestamp_seconds"
GAUGES = {
    LAST_SUCCESS: "Timestamp of the last successful run.",
    LAST_RUN: "Timestamp of the last run.",
    LAST_EXIT: "Exit code of the last run: 0 complete, 3 partial, others are failures.",
    "last_duration_seconds": "Duration of the last run in seconds.",
    _NEWEST_READING: "Timestamp of the newest reading used.",
    "series": "Number of series forecast.",
    "series_degraded": "Number of series skipped, without recent readings, forecast by a fallback, "
    "or forecast from a short history.",
    "series_flagged": "Number of series whose live forecasts are worse than in training.",
    "model_created_timestamp_seconds": "Timestamp at which the model version was trained.",
}
_PREFIX = "rnnforecast_"
_TEXT = r'"((?:[^"\\]|\\.)*)"'
_SAMPLE = re.compile(rf"{_PREFIX}(\w+)\{{job={_TEXT}(?:,path={_TEXT})?\}} (\S+)")
"""A gauge of the text file: its name, the job's name, the path of its file, the value."""
_LABEL_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}\+00:00 ")
"""The time with which each entry of a log in text begins."""
_TEXTFILE_WAIT_S = 5.0
"""How long a run waits for another job that writes to the same text file."""
_MAX_LINE = 1 << 16
"""Characters; the values of a longer line are shortened."""
_MAX_VALUE = 2000
"""Characters of one value of a line that is shortened."""
_MAX_LISTED = 20
"""Items of a list there."""
_LINE_BEGIN = b'{"time": "'
_MAX_TEXTFILE = 1 << 22
"""Bytes of the text file that are read: thousands of jobs."""
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

    @property
    def is_published(self) -> bool:
        """Whether the forecast of its as-of time is there, from this run or one before."""
        return self.status in (PUBLISHED, ALREADY)


def exit_code_of(cycles: Sequence[RunResult]) -> int:
    """Return the exit code of a call: that of its run, or for a catch-up, of all of them.

    Where nothing is published it is that of the first failure. Where some as-of times are published
    and others failed, it is 3, as where the forecast of one is partial.
    """
    failures = [result.exit_code for result in cycles if result.error is not None]
    if failures and not any(result.is_published for result in cycles):
        return failures[0]
    return PARTIAL if any(result.exit_code for result in cycles) else 0


@dataclass(frozen=True)
class RunLog:
    """A job's log and its text file of Prometheus gauges; None for one that it does not have.

    Several jobs may share both: each reads what is its own.
    """

    job: str
    path: Path | None
    format: str
    textfile: Path | None
    owner: Job | None = None
    """The job, to tell it from others of its name; None where the name is enough."""
    max_bytes: int | None = None
    """Size at which the log begins anew."""

    def append(self, event: str, facts: Mapping[str, Any], listener: Listener) -> None:
        """Append one line to the log, in one write: lines of several processes do not mix.

        A line of more than 64 KiB is shortened. A failure to write is a warning.
        """
        if self.path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"time": now, "job": self.job, "event": event, **facts}
        if self.owner is not None:
            entry["file"] = path_from(self.path.parent, self.owner.path)
        line = self._line(entry)
        if len(line) >= _MAX_LINE:
            line = self._line({name: _shortened(value) for name, value in entry.items()})

        try:
            append_line(self.path, f"{line}\n".encode(), max_bytes=self.max_bytes)
        except OSError as error:
            listener(WarningEvent("log", f"cannot write the log {self.path}: {error.strerror}"))

    def _line(self, entry: Mapping[str, Any]) -> str:
        if self.format == "json":
            return json.dumps(entry)
        job = str(entry["job"])
        job = job if re.fullmatch(r"[\w.-]+", job) else json.dumps(job)
        facts = {k: v for k, v in entry.items() if k not in ("time", "job", "event")}
        pairs = (f"{key}={json.dumps(value)}" for key, value in facts.items())
        return " ".join([str(entry["time"]), job, str(entry["event"]), *pairs])

    def write_gauges(self, values: Mapping[str, float | None], listener: Listener) -> None:
        """Write the job's gauges to the text file; one without a value keeps that of the file.

        The gauges of other jobs stay. A failure to write is a warning.
        """
        if self.textfile is None:
            return
        try:
            with self._text_file_locked():
                own, others = self._read_samples()
                own |= {name: f"{x:.15g}" for name, x in values.items() if x is not None}
                samples = {**others, self._labels: own}
                lines = []
                for name, meaning in GAUGES.items():
                    values_of = {k: x[name] for k, x in samples.items() if name in x}
                    if values_of:
                        lines += [f"# HELP {_PREFIX}{name} {meaning}"]
                        lines += [f"# TYPE {_PREFIX}{name} gauge"]
                    for labels, value in sorted(values_of.items()):
                        lines.append(f"{_PREFIX}{name}{{{labels}}} {value}")
                with publishing_output(self.textfile, patience_s=PIPE_PATIENCE_S) as file:
                    file.write(("\n".join(lines) + "\n").encode(errors="replace"))
        except (WriteError, LockedError) as error:
            listener(WarningEvent("textfile", error.message))

    def read_gauges(self) -> dict[str, float]:
        """Return the job's gauges in the text file; none where it cannot be read."""
        return {name: float(value) for name, value in self._read_samples()[0].items()}

    @property
    def _labels(self) -> str:
        """The labels of the job's samples: two jobs may have one name, but not one path."""
        labels = f'job="{_escape_label(self.job)}"'
        if self.owner is None:
            return labels
        return f'{labels},path="{_escape_label(str(self.owner.path.resolve()))}"'

    def _read_samples(self) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """Return the job's own values, by gauge, and those of others, by labels and gauge.

        Values of a job that has been moved since are its own, too.
        """
        own: dict[str, str] = {}
        moved: dict[str, str] = {}
        others: dict[str, dict[str, str]] = {}
        if self.textfile is None:
            return own, others
        for match in _SAMPLE.finditer(
            _read_end(self.textfile, _MAX_TEXTFILE).decode(errors="replace")
        ):
            name, job, path, value = match.groups()
            with suppress(ValueError):
                float(value)
                labels = f'job="{job}"' if path is None else f'job="{job}",path="{path}"'
                if labels == self._labels:
                    own[name] = value
                elif self._is_own_sample(job, path):
                    moved[name] = value
                else:
                    others.setdefault(labels, {})[name] = value
        return {**moved, **own}, others

    def _is_own_sample(self, job: str, path: str | None) -> bool:
        """Tell whether a sample with other labels is that of the job, before it was moved."""
        if self.owner is None or self.textfile is None or job != _escape_label(self.job):
            return False
        record = {} if path is None else {JOB: _unescape_label(path)}
        return belongs_to(self.owner, record, self.textfile.parent)

    @contextmanager
    def _text_file_locked(self) -> Iterator[None]:
        """Keep other jobs from writing to the text file; a pipe or a device has no content."""
        assert self.textfile is not None
        path = os.fspath(self.textfile)
        is_special = os.path.exists(path) and not os.path.isfile(path)  # noqa: PTH110, PTH113
        if is_special or not self.textfile.parent.is_dir():
            yield
            return
        lock = self.textfile.with_name(f".{self.textfile.name}.lock")
        with acquire(lock, wait_s=_TEXTFILE_WAIT_S):
            yield

    def read_last(self, event: str) -> dict[str, Any] | None:
        """Return the job's newest entry of this event in the log; None without one."""
        if self.path is None:
            return None
        # A log that has begun anew goes on in the file before it.
        for path in (self.path, self.path.with_name(f"{self.path.name}.1")):
            for line in reversed(_read_end(path, _TAIL_BYTES).splitlines()):
                entry = _parse(line)
                if entry.get("event") == event and self._is_own_entry(entry):
                    return entry
        return None

    def _is_own_entry(self, entry: Mapping[str, Any]) -> bool:
        """Tell whether an entry of the log is that of the job."""
        if entry.get("job") != self.job:
            return False
        file = entry.get("file")
        if self.owner is None or self.path is None or not isinstance(file, str):
            return True
        folder = self.path.parent
        record = {FROM_HERE: file, JOB: os.path.normpath(folder.resolve() / file)}
        return belongs_to(self.owner, record, folder)


def _escape_label(text: str) -> str:
    return text.encode("utf-8", "replace").decode().translate(_LABEL_ESCAPES)


def _unescape_label(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)


def _read_end(path: Path, n_bytes: int) -> bytes:
    """Return the last bytes of a file; nothing where it cannot be read, or is a pipe."""
    with suppress(OSError), open_regular(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - n_bytes))
        return file.read(n_bytes)
    return b""


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
    """Parse a line of the log, of either format; return an empty entry where it holds none.

    A full disk or a power cut may truncate a line; the next entry is then appended to it, and is
    the one that is returned. Quotes in an entry are escaped, so none of its texts looks like the
    beginning of an entry.
    """
    for begin in (0, line.rfind(_LINE_BEGIN)):
        with suppress(ValueError, RecursionError):
            entry = json.loads(line[max(begin, 0) :])
            return entry if isinstance(entry, dict) else {}
    return _parse_text(line.decode(errors="replace"))


def _parse_text(line: str) -> dict[str, Any]:
    """Parse a line of a log in text: time, job, event, and `name=value` with values in JSON."""
    decoder = json.JSONDecoder()
    for match in reversed(list(_TIME.finditer(line))):
        entry: dict[str, Any] = {"time": match[0].strip()}
        facts = line[match.end() :]
        with suppress(ValueError, RecursionError):
            if facts.startswith('"'):
                entry["job"], end = decoder.raw_decode(facts)
                facts = facts[end:].lstrip()
            else:
                entry["job"], _, facts = facts.partition(" ")
            entry["event"], _, facts = facts.partition(" ")
            while facts:
                name, _, facts = facts.partition("=")
                if not name.isidentifier():
                    raise ValueError
                entry[name], end = decoder.raw_decode(facts)
                facts = facts[end:].lstrip()
            return entry
    return {}


def run_log_of(job: Job) -> RunLog:
    """Return the log and the gauges that a job file names."""
    path, textfile = (None if x is None else Path(x) for x in (job.log.file, job.textfile))
    return RunLog(job.name, path, job.log.format, textfile, job, job.log.max_bytes)


@dataclass
class RunReporter:
    """Listener of one call of `run`: writes the run log and gauges, and notifies of failures."""

    job: Job
    listener: Listener
    log: RunLog
    n_runs: int = 1
    """As-of times of a catch-up."""
    results: list[RunResult] = field(default_factory=list)
    _has_published: bool = False
    """Whether the run under way has published its forecast."""
    _started: float = field(default_factory=time.monotonic)

    def __call__(self, event: Event) -> None:
        """Pass an event on; record warnings and publications in the log."""
        self.listener(event)
        if isinstance(event, PublishedEvent):
            self._has_published = True
            self._tell_progress()
            self.log.append("published", {"output": event.result}, self.listener)
        elif isinstance(event, WarningEvent):
            facts = {"code": event.code, "message": event.text, "count": event.count}
            self.log.append("warning", facts, self.listener)

    @property
    def progress(self) -> CatchUpEvent:
        """How many of all runs are published."""
        n_published = sum(result.is_published for result in self.results) + self._has_published
        return CatchUpEvent(n_published, self.n_runs)

    def _tell_progress(self) -> None:
        if self.n_runs > 1:
            self.listener(self.progress)

    def report_result(self, result: RunResult) -> None:
        """Report how a run ended, in the log and the gauges."""
        self.results.append(result)
        self._has_published = False
        self._tell_progress()
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
            "message": None if result.error is None else result.error.message,
        }

        # A catch-up sees the readings of times past; the job has seen newer ones.
        newest, seen = result.newest_s, self.log.read_gauges().get(_NEWEST_READING)
        if newest is not None and seen is not None and newest < seen <= time.time():
            newest = seen
        created = result.created and datetime.fromisoformat(result.created).timestamp()
        gauges = {
            LAST_SUCCESS: time.time() if result.is_published else None,
            _NEWEST_READING: newest,
            "series": result.series,
            "series_degraded": result.degraded,
            "series_flagged": len(post_publish.flagged) if post_publish.scores else None,
            "model_created_timestamp_seconds": created,
        }
        self._end(result.exit_code, facts, gauges)

    def report_end(self) -> None:
        """Report how all runs ended: a catch-up in the log and the gauges, a failure to a person.

        The job's lock must be free: the command that notifies may take long.
        """
        code, progress = exit_code_of(self.results), self.progress
        failures = [result.error.message for result in self.results if result.error is not None]
        message = failures[0] if failures else None
        if self.n_runs > 1:
            status = PUBLISHED if progress.n_published == progress.n_total else FAILED
            message = "; ".join([progress.summary, *failures[:1]])
            self._end(code, {"status": status, "message": message}, {})
        if failures:
            self._notify(code, str(message))

    def report_locked(self, error: LockedError) -> None:
        """Record that another run holds the lock. That run reports for itself: no gauges."""
        self.log.append("locked", {"message": error.message}, self.listener)

    def report_failure(self, error: BaseException) -> None:
        """Report that the whole call failed; a signal is no failure to notify of."""
        # The exit code that the command line will end with.
        progress = self.progress
        if isinstance(error, RnnForecastError):
            code = error.exit_code
        elif isinstance(error, Exception):
            code = _BUG
        elif progress.n_published:
            is_whole = progress.n_published == progress.n_total
            code = OutputError.exit_code if is_whole else PARTIAL
        else:
            code = _SIGNAL_BASE + int(getattr(error, "number", signal.SIGINT))

        message = str(error) or type(error).__name__
        if self.n_runs > 1 and not isinstance(error, CatchUpError):
            message = f"{progress.summary}; {message}"
        self._end(code, {"status": FAILED, "message": message}, {})
        if isinstance(error, Exception):
            self._notify(code, message)

    def _end(self, code: int, facts: Mapping[str, Any], gauges: Mapping[str, Any]) -> None:
        now, duration = time.time(), time.monotonic() - self._started
        self._started = time.monotonic()
        entry = {"exit": code, **facts, "timing": {"total_s": round(duration, 3)}}
        self.log.append(FINISHED, entry, self.listener)
        ending = {
            LAST_SUCCESS: self._published_before(),
            LAST_RUN: now,
            LAST_EXIT: float(code),
            "last_duration_seconds": round(duration, 3),
        }
        gauges = {name: value for name, value in gauges.items() if value is not None}
        self.log.write_gauges({**ending, **gauges}, self.listener)

    def _published_before(self) -> float | None:
        """Return when the newest forecast was published, where the text file does not tell."""
        if self.log.textfile is None or LAST_SUCCESS in self.log.read_gauges():
            return None
        return _timestamp((read_newest_manifest(self.job) or {}).get("published"))

    def _notify(self, code: int, message: str) -> None:
        """Run the command for failures, with the message on its standard input.

        Names from the readings may stand in it, so control characters are escaped. A command that
        takes too long is killed with all that it has started.
        """
        command = self.job.notify.on_failure
        if not command:
            return
        name, message = escape_controls(self.job.name), escape_controls(message)
        text = f"rnnforecast: job {name} failed with exit code {code}: {message}\n"
        variables = {
            "RNNFORECAST_JOB": name,
            "RNNFORECAST_EXIT": str(code),
            "RNNFORECAST_MESSAGE": message,
        }

        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **variables},
                start_new_session=True,
            )
            try:
                process.communicate(text.encode(errors="replace"), timeout=NOTIFY_TIMEOUT_S)
            except BaseException:
                kill_session(process)
                process.wait()
                raise
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self(WarningEvent("notify", f"cannot run [notify] on_failure: {error}"))


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
    """The manifest of the job's newest published run."""
    newest_reading: float | None
    version: str | None
    """The version that the next run will use."""
    version_created: float | None
    max_age_s: float | None = None
    """Age of the newest reading that the job allows."""
    model_problem: str | None = None
    """Why the next run will have no model."""

    @property
    def problem(self) -> tuple[int, str] | None:
        """What is wrong, worst first, and the exit code that says so; None where nothing is."""
        age_s = _age_s(self.newest_reading)
        if self.last_run is None and self.published is None:
            return ModelError.exit_code, "the job has no recorded run"
        if self.model_problem is not None:
            return ModelError.exit_code, self.model_problem
        if self.max_age_s is not None and age_s is not None and age_s > self.max_age_s:
            limit = describe_duration(round(self.max_age_s * 1e6))
            message = f"the newest reading is {describe_duration(age_s * 1_000_000)} old"
            return NotEnoughDataError.exit_code, (
                f"{message}; the limit is {limit} (max_age in [fresh])"
            )
        if self.last_exit == NotEnoughDataError.exit_code:
            return self.last_exit, "the last run found the data too old or too short"
        if self.last_exit not in (0, None):
            is_partial = self.last_exit == PARTIAL
            return PARTIAL, f"the last run {'was partial' if is_partial else 'failed'}"
        return None

    @property
    def exit_code(self) -> int:
        """The exit code of `status`: 0, 3 (failed or partial), 5 (too old), 6 (no run or model)."""
        return 0 if self.problem is None else self.problem[0]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document, with ages in seconds."""
        manifest = self.published or {}
        return {
            "job": self.job,
            "exit": self.exit_code,
            "problem": self.problem and self.problem[1],
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
    """Return the state of a job. Raises `UsageError` for a job file that cannot be read.

    >>> rf.status("job.toml").exit_code
    0
    """
    job = read_job(Path(path))
    log = run_log_of(job)
    gauges, last = log.read_gauges(), log.read_last(FINISHED) or {}
    manifest = read_newest_manifest(job)
    published = manifest or {}
    last_run, last_exit = _timestamp(last.get("time")), last.get("exit")
    successes = [gauges.get(LAST_SUCCESS), _timestamp(published.get("published"))]
    if last.get("status") in (PUBLISHED, ALREADY):
        successes.append(last_run)
    if not isinstance(last_exit, int):
        last_exit = int(gauges[LAST_EXIT]) if LAST_EXIT in gauges else None

    version, created, model_problem = None, None, None
    try:
        if job.model.path == BUILTIN_MODEL:
            version = builtin_version()
        else:
            version = versions.resolve_version(as_path(job.model.path), job.model.version).name
            # The name of a version begins with the time at which it was made, in UTC.
            created = datetime.strptime(f"{version[:15]}+0000", "%Y%m%dT%H%M%S%z").timestamp()
    except ModelError as error:
        model_problem = error.message

    newest_reading = (published.get("data") or {}).get("newest_timestamp_s")
    max_age = job.forecast.max_age
    return Status(
        job=job.name,
        last_exit=last_exit,
        last_message=last.get("message"),
        last_run=last_run or gauges.get(LAST_RUN),
        last_success=max(filter(None, successes), default=None),
        published=manifest,
        newest_reading=newest_reading or gauges.get(_NEWEST_READING),
        version=version,
        version_created=created,
        max_age_s=None if max_age is None else parse_duration_us(max_age) / 1e6,
        model_problem=model_problem,
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
