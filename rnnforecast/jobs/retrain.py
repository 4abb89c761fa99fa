"""Retraining of a job: a challenger is trained and must beat the active version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnforecast.data.panel import Panel
from rnnforecast.data.setup import TrainingSetup
from rnnforecast.data.split import SplitTimes, split_at
from rnnforecast.errors import ModelError, require_libraries
from rnnforecast.evaluate.comparison import NETWORK, Comparison, n_reference_blocks
from rnnforecast.evaluate.live import Score
from rnnforecast.events import Recorder
from rnnforecast.jobs.publication import Publication
from rnnforecast.model.artifact import load_manifest
from rnnforecast.model.provenance import build_artifact
from rnnforecast.storage import versions
from rnnforecast.storage.lock import acquire
from rnnforecast.units import describe_duration, parse_duration_us
from rnnforecast.workflow.saved import restore, restore_network
from rnnforecast.workflow.steps import (
    analyse_memory_held_out,
    calibrate,
    compare_held_out,
    fine_tune,
    fit_network,
    render_report,
)

CHAMPION = "active"
"""Name of the active version among the methods that are compared."""
_MIN_HELD_OUT, _MAX_HELD_OUT = 3, 28
"""Horizons that are held out to compare champion and challenger on."""
_DRIFT_PAUSE = 7
"""Horizons of new readings between two challengers that answer a drift."""


@dataclass(frozen=True)
class _Challenge:
    """A challenge that is due."""

    reason: str
    n_held_out: int
    """Steps at the end of the readings that both versions are measured on."""


def retrain_if_due(
    publication: Publication, scores: Sequence[Score], events: Recorder
) -> dict[str, Any] | None:
    """Train a challenger where one is due; return the decision and its reason, or None.

    Raises `LockedError` where another process holds the lock of the model.
    """
    challenge = _find_challenge(publication, scores)
    if challenge is None:
        return None
    require_libraries("retraining", "torch", "matplotlib")
    model = Path(publication.job.model.path)
    with acquire(model / versions.LOCK):
        versions.remove_leftovers(model)
        return _train_challenger(publication, challenge, model, events)


def _find_challenge(publication: Publication, scores: Sequence[Score]) -> _Challenge | None:
    """Return the challenge that the job file asks for; None without enough new readings."""
    job, artifact, past = publication.job, publication.model.artifact, publication.ready.past
    rule = job.retrain
    if job.model.version is not None or (rule.every is None and rule.when is None):
        return None
    step_us, horizon = past.step_us, artifact.spec.horizon
    trained_until_us = artifact.untrained_from_us - step_us
    panel = past.panel_at_cutoffs()
    n_new = _count_new(panel, trained_until_us)
    n_held_out = min(int(rule.hold_out * n_new), _MAX_HELD_OUT * horizon)
    if n_held_out < _MIN_HELD_OUT * horizon:
        return None

    # Readings count as new since the last challenger of the active version, even one that lost.
    since_us = trained_until_us
    for name in versions.list_versions(Path(job.model.path)):
        try:
            manifest = load_manifest(versions.resolve_version(Path(job.model.path), name))
        except ModelError:
            continue  # a damaged version is no challenger
        if manifest.get("parent") == publication.model.version:
            since_us = max(since_us, past.axis.parse(str(manifest["trained_until"])))
    new_us = _count_new(panel, since_us) * step_us

    flagged = [str(score.series) for score in scores if score.flag]
    if rule.when == "drift" and flagged and new_us >= _DRIFT_PAUSE * horizon * step_us:
        return _Challenge(f"after drift of {', '.join(flagged)}", n_held_out)
    if rule.every is not None and new_us >= parse_duration_us(rule.every):
        return _Challenge(f"on {describe_duration(new_us)} of new data", n_held_out)
    return None


def _count_new(panel: Panel, since_us: int) -> int:
    """Return how many readings a series has after a time, on average: an outage is no news."""
    before = panel.before(panel.rows_before(since_us + panel.step_us))
    n_new = panel.count_readings().sum() - before.count_readings().sum()
    return int(n_new // panel.n_series)


def _train_challenger(
    publication: Publication, challenge: _Challenge, model: Path, events: Recorder
) -> dict[str, Any]:
    """Train, compare and save a challenger; activate it if it beats the active version."""
    champion = publication.model.artifact
    config, horizon = champion.config, champion.spec.horizon
    panel = publication.ready.past.panel_at_cutoffs()
    test_from = panel.end_us - challenge.n_held_out * panel.step_us
    n_before = int(panel.rows_before(test_from).max())
    n_validation = max(horizon, int(config.training.validation * n_before))
    cuts = SplitTimes(test_from - n_validation * panel.step_us, test_from, panel.end_us)
    spec = replace(champion.spec, n_series=panel.n_series)
    incumbent, start = restore(champion), restore_network(champion)
    plan = TrainingSetup(split_at(panel, cuts), spec, config, start.network.common_seasons)
    fitted = fit_network(plan, plan.split, events, start=start)
    calibration = calibrate(fitted, plan.split, plan.spec, events)
    rivals = {CHAMPION: incumbent}
    comparison, seen = compare_held_out(fitted, calibration, plan, events, rivals)
    decision = _decide(publication, challenge, comparison)

    forecaster = fine_tune(fitted, plan.split, plan.split.everything, plan.config, events)
    memory = analyse_memory_held_out(fitted, plan) if decision["promoted"] else None
    metrics = comparison.to_json()
    # Of both references for drift, the one that rests on more stretches of time is kept.
    references = metrics.get("error_reference"), champion.metrics.get("error_reference")
    metrics = {**metrics, "error_reference": max(references, key=n_reference_blocks)}
    challenger = build_artifact(
        forecaster,
        plan,
        champion.schema,
        metrics={**metrics, "memory": memory and memory.summary()},
        source=publication.job.source,
        warnings=events.warnings,
    )
    challenger = replace(
        challenger,
        calibration=calibration,
        parent=publication.model.version,
        provenance={**challenger.provenance, "challenge": decision},
    )

    report = None  # a losing version gets none: drawing takes half as long as training
    if decision["promoted"]:
        report = render_report(challenger, comparison, seen, fitted, events.warnings, memory)
    version = versions.publish_version(model, challenger.pack(report), now=datetime.now(UTC))
    if decision["promoted"]:
        versions.activate_version(model, version)
    return {"challenger": version, **decision}


def _decide(
    publication: Publication, challenge: _Challenge, comparison: Comparison
) -> dict[str, Any]:
    """Return whether the challenger is better by the margin of the job file, and the reason."""
    margin = publication.job.retrain.margin
    challenger, champion = (comparison.metrics[name].mase for name in (NETWORK, CHAMPION))
    promoted, outcome = False, "could not be compared"
    if challenger is not None and champion is not None:
        promoted = challenger <= (1 - margin) * champion
        if champion:
            outcome = f"{100 * (1 - challenger / champion):.1f} % better"

    return {
        "promoted": promoted,
        "reason": f"retrained {challenge.reason}: challenger {outcome} on "
        f"{comparison.n_windows} windows, {100 * margin:g} % required; "
        f"{'activated' if promoted else 'not activated'}",
        "due": challenge.reason,
        CHAMPION: publication.model.version,
        "mase": challenger,
        "active_mase": champion,
        "windows": comparison.n_windows,
        "held_out_steps": challenge.n_held_out,
    }
