"""`run`: one cycle of a job: lock, read, predict, publish; then score and retrain."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from rnnforecast.config.commands import RunConfig
from rnnforecast.config.job import Job, read_job
from rnnforecast.data.timestamps import each_moment
from rnnforecast.errors import DataError, LockedError, NotEnoughDataError, RnnForecastError
from rnnforecast.evaluate.live import Score
from rnnforecast.events import Listener, Published, Recorder, Warned, ignore
from rnnforecast.jobs.issue import Issue, collect, retire_outputs, write_manifest
from rnnforecast.jobs.ledger import score_ledger
from rnnforecast.jobs.log import (
    ALREADY,
    FAILED,
    PARTIAL,
    PLANNED,
    PUBLISHED,
    STALE,
    Aftermath,
    Cycle,
    Teller,
)
from rnnforecast.jobs.retrain import retrain_if_due
from rnnforecast.process import time_limit
from rnnforecast.storage import versions
from rnnforecast.storage.durable import check_file, check_spared, make_directory
from rnnforecast.storage.lock import holding
from rnnforecast.units import parse_duration_us
from rnnforecast.workflow.model import load
from rnnforecast.workflow.steps import Clock

SCORED_HORIZONS = 7
"""Forecasts of so many horizons tell whether a series has drifted."""
_T = TypeVar("_T")


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

    yield from each_moment(config.from_, config.to, parse_duration_us(config.every))


def _prepare_places(job: Job) -> None:
    """Make the output's folder; raise where something could not be written, before the work."""
    make_directory(Path(job.output).parent)
    for path in (job.output, job.log.file, job.textfile):
        if path is not None:
            check_file(Path(path))
            check_spared(Path(path), job.path, "the job")
    collect(job)


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
        from rnnforecast.workflow.model import forecast

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
        degraded=prediction.n_degraded,
        aftermath=aftermath,
    )


def after_publishing(issue: Issue, manifest: dict[str, Any], events: Recorder) -> Aftermath:
    """Score what was issued earlier, remove what is old, retrain where that is due."""
    job = issue.job
    scores = _trying("score", lambda: recent_scores(issue), events) or ()
    for score in scores:
        if score.flag:
            what = f"{score.series}: live {score.flag} has left what was usual at training"
            events(Warned("drift", what))
    retrained = _trying("retrain", lambda: retrain_if_due(issue, scores, events), events)
    if retrained is not None:
        write_manifest(issue.place.manifest, {**manifest, "retrain": retrained})
    retired = _trying("keep", lambda: _retire(job, issue.place.output), events) or ()
    return Aftermath(scores, retired, retrained)


def recent_scores(issue: Issue) -> tuple[Score, ...]:
    """Score the forecasts of the last few horizons, by series, on the readings that were read."""
    if issue.job.ledger is None:
        return ()
    horizon_us = issue.ready.horizon * issue.ready.past.step_us
    since = issue.newest_us - SCORED_HORIZONS * horizon_us
    return tuple(
        score_ledger(
            Path(issue.job.ledger),
            issue.ready.past,
            issue.ready.schema.tz,
            since_us=since,
            by=("series",),
            longest_us=horizon_us,
        )
    )


def _retire(job: Job, spared: Path) -> tuple[str, ...]:
    """Remove old outputs, and old versions where nobody else is at the model."""
    gone = [str(path) for path in retire_outputs(job, spared=spared)]
    if job.keep.versions is not None:
        model = Path(job.model.path)
        pinned = {*job.keep.pinned, *filter(None, [job.model.version])}
        try:
            with holding(model / versions.LOCK):
                versions.collect(model)
                now = datetime.now(UTC)
                gone += versions.retire_versions(
                    model, keep=job.keep.versions, pinned=pinned, now=now
                )
        except LockedError:
            pass  # who trains there now is not to be disturbed; the next run comes soon
    return tuple(gone)


def _trying(what: str, work: Callable[[], _T], events: Recorder) -> _T | None:
    """Do it; what fails is a warning."""
    try:
        return work()
    except RnnForecastError as error:
        events(Warned(f"{what}-failed", error.message))
        return None
