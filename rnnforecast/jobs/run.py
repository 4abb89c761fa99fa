"""`run`: lock a job, read, predict, publish; then score, retrain and remove what is old."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from rnnforecast.config.commands import RunConfig, check_option_names, set_options
from rnnforecast.config.job import Job, KeyProposal, name_keys, read_job
from rnnforecast.data.axis import check_not_ahead, date_range
from rnnforecast.errors import (
    PARTIAL,
    CatchUpError,
    DataError,
    LockedError,
    NotEnoughDataError,
    RnnForecastError,
    TimeLimitError,
)
from rnnforecast.evaluate.live import Score
from rnnforecast.events import (
    CATCH_UP_HINT,
    Event,
    Listener,
    PublishedEvent,
    Recorder,
    WarningEvent,
    ignore,
)
from rnnforecast.jobs.ledger import retire_parts, score_ledger
from rnnforecast.jobs.log import (
    ALREADY,
    FAILED,
    PLANNED,
    PUBLISHED,
    STALE,
    PostPublishResult,
    RunReporter,
    RunResult,
    run_log_of,
)
from rnnforecast.jobs.publication import (
    Publication,
    check_job_files,
    manifest_path,
    published_manifest,
    remove_job_leftovers,
    retire_outputs,
    write_manifest,
)
from rnnforecast.jobs.retrain import retrain_if_due
from rnnforecast.process import defer_signals, time_limit
from rnnforecast.storage import versions
from rnnforecast.storage.durable import check_file, make_directory
from rnnforecast.storage.lock import acquire
from rnnforecast.units import parse_duration_us
from rnnforecast.workflow.model import forecast
from rnnforecast.workflow.steps import Clock

if TYPE_CHECKING:
    from rnnforecast.config.keywords import RunOptions

SCORED_HORIZONS = 7
"""Horizons whose forecasts are scored after each run, and tell whether a series has drifted."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Call:
    """What all runs of one call of `run` share."""

    job: Job
    config: RunConfig
    arguments: Sequence[str]
    deadline: float = math.inf
    """Time on the monotonic clock until which readings may be read and forecasts computed."""


def run(
    path: str | Path,
    *,
    config: RunConfig | None = None,
    arguments: Sequence[str] = (),
    listener: Listener = ignore,
    **options: Unpack[RunOptions],
) -> list[RunResult]:
    """Run a job once, or for each as-of time of a catch-up; return the result of each run.

    If the data is stale or unusable, the result has an `error`. Any other failure raises a
    `RnnForecastError`: a `CatchUpError` if earlier as-of times were published. Results and failures
    are logged, exported as gauges and reported as configured in the job file. `arguments` are
    recorded in the manifest. The keyword options are those of the command and override `config`.

    >>> (result,) = rf.run("job.toml", lock_wait="10m")
    >>> result.status
    'published'
    """
    check_option_names(run, options, RunConfig())
    config = set_options(config or RunConfig(), options)
    job = read_job(Path(path))
    check_job_files(job)
    for moment in filter(None, (config.as_of, config.to)):
        check_not_ahead(moment)
    as_of_times: list[str | None] = [config.as_of]
    if config.from_ is not None and config.to is not None:
        every_us = parse_duration_us(config.every)
        as_of_times = list(date_range(config.from_, config.to, every_us))
    call = _Call(job, config, arguments)
    if config.dry_run:
        call = replace(call, job=replace(job, reading=replace(job.reading, rejects=None)))
        return [_attempt(call, as_of, listener) for as_of in as_of_times]

    if config.max_time:
        limit_s = parse_duration_us(config.max_time) / 1e6
        call = replace(call, deadline=time.monotonic() + limit_s)
    reporter = RunReporter(job, listener, run_log_of(job), len(as_of_times))
    try:
        _run_locked(call, as_of_times, reporter)
        reporter.report_end()
    except LockedError as error:
        reporter.report_locked(error)
        raise
    except RnnForecastError as error:
        if len(as_of_times) == 1 or not reporter.progress.n_published:
            reporter.report_failure(error)
            raise
        early = _early_end(error, reporter.progress.summary)
        reporter.report_failure(early)
        raise early from error
    except BaseException as error:
        reporter.report_failure(error)
        if len(as_of_times) > 1:
            error.add_note(reporter.progress.summary)
        raise
    return reporter.results


def _early_end(error: RnnForecastError, summary: str) -> CatchUpError:
    """Return the error of a catch-up that published some times before another error ended it."""
    hint = CATCH_UP_HINT if isinstance(error, TimeLimitError) else error.advice
    return CatchUpError(f"{summary} and kept; then: {error.message}", code=error.code, hint=hint)


def _run_locked(call: _Call, as_of_times: Sequence[str | None], reporter: RunReporter) -> None:
    """Run a job for each as-of time, and report each result, with the lock held."""
    job, config = call.job, call.config
    wait_s = parse_duration_us(config.lock_wait) / 1e6 if config.lock_wait else 0.0
    with acquire(job.lock, wait_s=wait_s):
        _prepare_files(job)
        for as_of in as_of_times:
            reporter.report_result(_attempt(call, as_of, reporter))


def _prepare_files(job: Job) -> None:
    """Make the output's folder, and check that all files can be written; remove temporary files."""
    make_directory(Path(job.output).parent)
    for path in filter(None, (job.output, job.log.file, job.textfile)):
        check_file(Path(path))
    remove_job_leftovers(job)


def _attempt(call: _Call, as_of: str | None, listener: Listener) -> RunResult:
    """Run a job for one as-of time; unusable readings fail this run, not those that follow."""

    def with_keys(event: Event) -> None:
        if isinstance(event, WarningEvent):
            proposals = tuple(KeyProposal.of(p, call.job) for p in event.proposals)
            event = replace(event, proposals=proposals)
        listener(event)

    events, clock = Recorder(with_keys), Clock()
    try:
        result = _run_once(call, as_of, events, clock)
        result = replace(result, timing=dict(clock.laps))
    except RnnForecastError as error:
        error.message = name_keys(error.message, call.job)
        error.proposals = tuple(KeyProposal.of(proposal, call.job) for proposal in error.proposals)
        if not isinstance(error, DataError | NotEnoughDataError):
            raise
        status = STALE if error.code == "stale" else FAILED
        result = RunResult(status, error.exit_code, as_of=as_of, error=error)

    return replace(result, warnings=tuple(events.warnings))


def _run_once(call: _Call, as_of: str | None, events: Recorder, clock: Clock) -> RunResult:
    """Read, forecast, publish, and run the tasks that follow; a dry run stops before the forecast.

    The job's lock must be held, unless it is a dry run.
    """
    job, config = call.job, call.config
    with time_limit(call.deadline - time.monotonic()):
        publication = Publication.prepare(job, as_of, events)
        model = publication.model
        clock.lap("read_s")
        result = RunResult(
            PLANNED,
            as_of=publication.as_of_iso,
            key=publication.key,
            output=publication.output,
            version=model.version,
            newest_s=publication.newest_s,
            created=model.artifact.provenance.get("created"),
        )
        published = published_manifest(job, publication.output, publication.key)
        if not config.force and published is not None:
            n_degraded = published.get("degraded", 0)
            return replace(result, status=ALREADY, exit_code=_exit_code(n_degraded, config))
        publication.warn_if_older(events)
        if config.dry_run:
            return result
        prediction = forecast(publication.ready, events)

    clock.lap("predict_s")
    with defer_signals(lambda: None):  # so that whoever is told that nothing is published is right
        manifest = publication.publish(prediction, events, clock, call.arguments)
        events(PublishedEvent(str(publication.output)))
    clock.lap("publish_s")
    post_publish = _run_post_publish_tasks(publication, manifest, events)
    clock.lap("post_publish_s")
    return replace(
        result,
        status=PUBLISHED,
        exit_code=_exit_code(manifest["degraded"], config),
        series=len(prediction.forecast.names),
        degraded=manifest["degraded"],
        post_publish=post_publish,
    )


def _exit_code(n_degraded: int, config: RunConfig) -> int:
    return PARTIAL if n_degraded and config.fail_on == "partial" else 0


def _run_post_publish_tasks(
    publication: Publication, manifest: dict[str, Any], events: Recorder
) -> PostPublishResult:
    """Score earlier forecasts, retrain where that is due, and remove what is old.

    A task that fails is a warning.
    """
    scores = _try("score", lambda: _score_recent(publication), events) or ()
    for score in scores:
        if score.flag:
            message = f"{score.series}: live {score.flag} is outside the range seen in training"
            events(WarningEvent("drift", message))

    retrained = _try("retrain", lambda: retrain_if_due(publication, scores, events), events)
    if retrained is not None:
        path = manifest_path(publication.job, publication.output)
        write_manifest(path, {**manifest, "retrain": retrained})
    retired = _try("keep", lambda: _retire(publication, events), events)
    return PostPublishResult(scores, retired or (), retrained)


def _score_recent(publication: Publication) -> tuple[Score, ...]:
    """Score the forecasts of the last seven horizons, by series, on the readings in memory."""
    if publication.job.ledger is None:
        return ()
    past = publication.ready.past
    horizon_us = publication.ready.horizon * past.step_us
    return score_ledger(
        Path(publication.job.ledger),
        past,
        since_us=publication.newest_us - SCORED_HORIZONS * horizon_us,
        by=("series",),
        longest_us=horizon_us,
    )


def _retire(publication: Publication, events: Recorder) -> tuple[str, ...]:
    """Remove old outputs, parts of the ledger, and versions unless the model is locked."""
    job = publication.job
    retired = [str(path) for path in retire_outputs(job, exclude=publication.output)]
    if job.keep.ledger is not None and job.ledger is not None:
        oldest_us = publication.newest_us - parse_duration_us(job.keep.ledger)
        oldest = publication.ready.past.axis.format_for_file_name(oldest_us)
        retired += map(str, retire_parts(Path(job.ledger), before=oldest))

    if job.keep.versions is not None:
        model = Path(job.model.path)
        pinned = {*job.keep.pinned, *filter(None, [job.model.version])}
        try:
            with acquire(model / versions.LOCK):
                versions.remove_leftovers(model)
                now = datetime.now(UTC)
                for name in versions.versions_ahead(model, now=now):
                    message = f"version {name} is dated in the future; it is kept, "
                    message += "and no version is removed while it is active"
                    events(WarningEvent("version-ahead", message))
                retired += versions.retire_versions(
                    model, keep=job.keep.versions, pinned=pinned, now=now
                )
        except LockedError:
            pass  # a training holds the lock; the next run tries again

    return tuple(retired)


def _try(task: str, work: Callable[[], _T], events: Recorder) -> _T | None:
    """Return the result of a task; None, with a warning, where it fails."""
    try:
        return work()
    except RnnForecastError as error:
        events(WarningEvent(f"{task}-failed", error.message))
        return None
