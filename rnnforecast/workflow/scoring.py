"""The story of scoring: forecasts issued earlier against the readings that have come since."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rnnforecast.config import DEFAULT_MODEL
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durations import parse_duration_us
from rnnforecast.errors import DataError, NotEnoughDataError, QualityGateError, UsageError
from rnnforecast.events import Listener, Recorder, Warned, ignore
from rnnforecast.jobfile import read_job
from rnnforecast.places.remote import local_path
from rnnforecast.runconfig import ScoreConfig
from rnnforecast.workflow.outputs import check_outputs
from rnnforecast.workflow.saved import Model, known_of, load
from rnnforecast.workflow.settled import reading_of

if TYPE_CHECKING:
    from rnnforecast.data.past import Past
    from rnnforecast.evaluate.scoring import Score

DEFAULT_LEDGER = "ledger"


@dataclass(frozen=True)
class Scored:
    """What became of forecasts."""

    scores: tuple[Score, ...]
    since: str | None
    until: str
    """The newest reading."""
    warnings: tuple[Warned, ...]


def score(
    ledger: str | Path = DEFAULT_LEDGER,
    data: object = None,
    *,
    model: Model | str | Path = DEFAULT_MODEL,
    config: ScoreConfig | None = None,
    reading: DataConfig | None = None,
    given: Collection[str] = (),
    listener: Listener = ignore,
) -> Scored:
    """Score the forecasts of a ledger whose readings are there; no torch is needed.

    The readings are read as the model's own, by default from where those came. Raises a
    `RnnForecastError`, `QualityGateError` where a series has drifted further than it may.
    """
    from rnnforecast.data.newer import read_newer
    from rnnforecast.data.past import past_of
    from rnnforecast.data.stamps import format_stamp
    from rnnforecast.workflow.prediction import source_of

    config = config or ScoreConfig()
    events = Recorder(listener, [])
    artifact = (model if isinstance(model, Model) else load(model)).artifact
    _check_ledger(local_path(ledger, "a ledger"))
    options = reading_of(artifact, reading, given)
    source = source_of(artifact) if data is None else data
    check_outputs(source, options)
    panel, schema = read_newer(
        source, schema=artifact.schema, options=options, known=known_of(artifact), listener=events
    )
    past = past_of(panel)
    newest, since = _span(past, config, schema.tz)
    scores = score_ledger(Path(ledger), past, schema.tz, since_us=since, by=config.by)
    if not scores:
        raise NotEnoughDataError(
            f"of no forecast in {ledger} a reading has come",
            code="nothing-to-score",
            hint="pass newer readings with  --data , or an earlier  --since",
        )
    _check_drift(scores, config.max_drift)
    begin = None if since is None else format_stamp(since, schema.tz)
    until = format_stamp(newest, schema.tz)
    return Scored(tuple(scores), begin, until, tuple(events.warnings))


def _check_ledger(ledger: Path) -> None:
    from rnnforecast.operate.ledger import list_parts

    if not list_parts(ledger):
        raise DataError(
            f"there is no ledger with issued forecasts at {ledger}",
            code="no-ledger",
            hint="name the folder that  [ledger] path  of a job names, with  --ledger",
        )


def score_job(
    path: str | Path, *, config: ScoreConfig | None = None, listener: Listener = ignore
) -> Scored:
    """Score the ledger of a job on the readings that it reads. Raises as `score` does."""
    job = read_job(Path(path))
    if job.ledger is None:
        raise UsageError(
            f"{path} keeps no ledger", hint='name one:  [ledger]  and below it  path = "ledger"'
        )
    model = load(job.model.path, version=job.model.version)
    return score(
        job.ledger,
        job.source,
        model=model,
        config=config,
        reading=job.reading,
        given=job.given,
        listener=listener,
    )


def score_ledger(
    ledger: Path,
    past: Past,
    tz: str | None,
    *,
    since_us: int | None,
    by: Sequence[str],
    longest_us: int | None = None,
) -> list[Score]:
    """Score a ledger on readings that were read already.

    With `longest_us`, the longest horizon there can be, parts that are too old are not opened.
    """
    from rnnforecast.data.stamps import file_stamp
    from rnnforecast.evaluate.scoring import score_issues
    from rnnforecast.operate.ledger import list_parts, read_parts

    parts = list_parts(ledger)
    if since_us is not None and longest_us is not None:
        oldest = file_stamp(since_us - longest_us, tz)
        parts = [part for part in parts if part.as_of >= oldest]
    if not parts:
        return []
    return score_issues(read_parts(parts), past, tz, since_us=since_us, by=by)


def _span(past: Past, config: ScoreConfig, tz: str | None) -> tuple[int, int | None]:
    """Return the time of the newest reading, and the first time that counts."""
    from rnnforecast.data.freshness import newest_readings
    from rnnforecast.data.stamps import parse_time_us

    newest = int(newest_readings(past).max(initial=-1))
    if newest < 0:
        raise DataError("there is no reading to score with", code="no-readings")
    if config.since is None:
        return newest, None
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*[a-zA-Z]+\s*", config.since):
        return newest, newest - parse_duration_us(config.since) + past.step_us
    return newest, parse_time_us(config.since, tz)


def _check_drift(scores: Sequence[Score], limit: float | None) -> None:
    """Raise `QualityGateError` where a group is further off what was usual than it may be."""
    if limit is None:
        return
    over = [one for one in scores if one.drift is not None and one.drift > limit]
    if over:
        worst = max(over, key=lambda one: one.drift or 0.0)
        name = worst.series or worst.day or f"lead {worst.lead}"
        raise QualityGateError(
            f"{len(over)} groups are further off what was usual at training than --max-drift "
            f"{limit:g}: {name} by {worst.drift:.1f} deviations",
            code="drift",
            hint="look at the readings; if they are right, train again on newer ones",
        )
