"""How a run tells what it came to: its log, its gauges, and a command after a failure.

It is a listener, too: what was warned of stands in the log. Nothing here can keep a run from ending
as it does.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnforecast.errors import LockedError, RnnForecastError, UntoldError
from rnnforecast.events import Event, Listener, Published, Warned
from rnnforecast.jobconfig import Job
from rnnforecast.operate.journal import LAST_EXIT, LAST_RUN, LAST_SUCCESS, Journal
from rnnforecast.workflow.cycle import PARTIAL, Cycle

FINISHED = "finished"
"""The event that ends each cycle in the log."""
_NOTIFY_S = 30
_BUG, _INTERRUPTED = 1, 128


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
            "not_as_usual": cycle.not_as_usual,
            "flagged": aftermath.flagged,
            "retrain": aftermath.retrain,
            "message": message,
        }
        created = cycle.created and datetime.fromisoformat(cycle.created).timestamp()
        gauges = {
            "newest_reading_timestamp_seconds": cycle.newest_s,
            "series": cycle.series,
            "series_not_as_usual": cycle.not_as_usual,
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
