"""The story of one unattended cycle: lock, read, check, predict, publish, record, score.

What is published is the ledger's part, then the forecast, then the manifest that names both: only
then it counts. Scores, retention and retraining follow, so that no forecast waits for them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rnnforecast.durable import check_file, check_spared, make_directory
from rnnforecast.durations import parse_duration_us
from rnnforecast.errors import DataError, LockedError, NotEnoughDataError
from rnnforecast.events import Listener, Published, Recorder, ignore
from rnnforecast.jobconfig import Job
from rnnforecast.jobfile import read_job
from rnnforecast.operate import runs
from rnnforecast.operate.lock import holding
from rnnforecast.runconfig import RunConfig
from rnnforecast.timelimit import time_limit
from rnnforecast.workflow.aftermath import after_publishing
from rnnforecast.workflow.cycle import ALREADY, FAILED, PARTIAL, PLANNED, PUBLISHED, STALE, Cycle
from rnnforecast.workflow.issuing import Issue
from rnnforecast.workflow.saved import load
from rnnforecast.workflow.steps import Clock
from rnnforecast.workflow.telling import Teller


def run(
    path: str | Path,
    *,
    config: RunConfig | None = None,
    arguments: Sequence[str] = (),
    listener: Listener = ignore,
) -> list[Cycle]:
    """Run a job once, or for each as-of time of a catch-up; return what each came to.

    Readings that cannot be used, or are stale, are the `error` of their cycle; any other failure is
    raised, a `RnnForecastError`. Whatever happens is logged, gauged and reported as the job file
    says. `arguments` are kept in the manifest.
    """
    config = config or RunConfig()
    job = read_job(Path(path))
    moments = list(_moments(config))
    if config.dry_run:
        return [_attempt(job, config, as_of, arguments, listener) for as_of in moments]
    wait_s = parse_duration_us(config.lock_wait) / 1e6 if config.lock_wait else 0.0
    limit_s = parse_duration_us(config.max_time) / 1e6 if config.max_time else math.inf
    deadline = time.monotonic() + limit_s
    teller = Teller.of(job, listener)
    try:
        with holding(job.lock, wait_s=wait_s):
            _prepare_places(job)
            cycles = []
            for as_of in moments:
                cycle = _attempt(job, config, as_of, arguments, teller, deadline=deadline)
                teller.finished(cycle)
                cycles.append(cycle)
            return cycles
    except LockedError as error:
        teller.locked(error)
        raise
    except BaseException as error:
        teller.failed(error)
        raise


def _moments(config: RunConfig) -> Iterator[str | None]:
    """Give the as-of times: of a catch-up each, else the one that is given, or None."""
    if config.from_ is None or config.to is None:
        yield config.as_of
        return
    from rnnforecast.data.stamps import each_moment

    yield from each_moment(config.from_, config.to, parse_duration_us(config.every))


def _prepare_places(job: Job) -> None:
    """Make the output's folder; raise where something could not be written, before the work."""
    make_directory(Path(job.output).parent)
    for path in (job.output, job.log.file, job.textfile):
        if path is not None:
            check_file(Path(path))
            check_spared(Path(path), job.path, "the job")
    runs.collect(job)


def _attempt(
    job: Job,
    config: RunConfig,
    as_of: str | None,
    arguments: Sequence[str],
    listener: Listener,
    *,
    deadline: float = math.inf,
) -> Cycle:
    """Run a cycle; what the readings are to blame for ends it, and not those that follow."""
    events = Recorder(listener, [])
    try:
        return _cycle(job, config, as_of, arguments, events, deadline=deadline)
    except (DataError, NotEnoughDataError) as error:
        status = STALE if error.code == "stale" else FAILED
        warnings = tuple(events.warnings)
        return Cycle(status, error.exit_code, as_of=as_of, error=error, warnings=warnings)


def _cycle(
    job: Job,
    config: RunConfig,
    as_of: str | None,
    arguments: Sequence[str],
    events: Recorder,
    *,
    deadline: float,
) -> Cycle:
    """Run a job once, its lock held; or say what would be done."""
    clock = Clock()
    with time_limit(deadline - time.monotonic()):
        model = load(job.model.path, version=job.model.version)
        issue = Issue.of(job, model, as_of, events)
        clock.lap("read_s")
        found = Cycle(
            PLANNED,
            as_of=issue.as_of,
            key=issue.key,
            output=issue.place.output,
            version=model.version,
            newest_s=issue.newest_s,
            created=model.artifact.provenance.get("created"),
        )
        if not config.force and issue.is_published:
            return found.ended(ALREADY, 0, events, clock)
        if config.dry_run:
            return found.ended(PLANNED, 0, events, clock)
        from rnnforecast.workflow.prediction import forecast

        prediction = forecast(issue.ready, events)
    clock.lap("predict_s")
    manifest = issue.publish(prediction, events, clock, arguments)
    events(Published(str(issue.place.output)))
    clock.lap("publish_s")
    aftermath = after_publishing(issue, manifest, events)
    clock.lap("aftermath_s")
    code = PARTIAL if prediction.is_partial and config.fail_on == "partial" else 0
    return replace(
        found.ended(PUBLISHED, code, events, clock),
        series=len(prediction.forecast.names),
        not_as_usual=prediction.n_not_as_usual,
        aftermath=aftermath,
    )
