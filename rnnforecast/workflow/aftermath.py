"""What follows a published forecast: earlier ones are scored, old files go, a challenger may come.

None of it can take the forecast back, so what goes wrong here is a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rnnforecast.errors import LockedError, RnnForecastError
from rnnforecast.events import Recorder, Warned
from rnnforecast.jobconfig import Job
from rnnforecast.operate import runs, store
from rnnforecast.operate.lock import holding
from rnnforecast.workflow.cycle import Aftermath
from rnnforecast.workflow.issuing import Issue

if TYPE_CHECKING:
    from rnnforecast.evaluate.scoring import Score

SCORED_HORIZONS = 7
"""Forecasts of so many horizons tell whether a series has drifted."""
_T = TypeVar("_T")


def after_publishing(issue: Issue, manifest: dict[str, Any], events: Recorder) -> Aftermath:
    """Score what was issued earlier, remove what is old, retrain where that is due."""
    from rnnforecast.workflow.retraining import retrain_if_due

    job = issue.job
    scores = _trying("score", lambda: recent_scores(issue), events) or ()
    for score in scores:
        if score.flag:
            what = f"{score.series}: live {score.flag} has left what was usual at training"
            events(Warned("drift", what))
    retrained = _trying("retrain", lambda: retrain_if_due(issue, scores, events), events)
    if retrained is not None:
        runs.write_manifest(issue.place.manifest, {**manifest, "retrain": retrained})
    retired = _trying("keep", lambda: _retire(job, issue.place.output), events) or ()
    return Aftermath(scores, retired, retrained)


def recent_scores(issue: Issue) -> tuple[Score, ...]:
    """Score the forecasts of the last few horizons, by series, on the readings that were read."""
    from rnnforecast.workflow.scoring import score_ledger

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
    gone = [str(path) for path in runs.retire_outputs(job, spared=spared)]
    if job.keep.versions is not None:
        model = Path(job.model.path)
        pinned = {*job.keep.pinned, *filter(None, [job.model.version])}
        try:
            with holding(model / store.LOCK):
                store.collect(model)
                now = datetime.now(UTC)
                gone += store.retire_versions(model, keep=job.keep.versions, pinned=pinned, now=now)
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
