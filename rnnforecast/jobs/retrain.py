"""Retraining of a job: a challenger is trained and must beat the active version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnforecast.data.setup import Plan
from rnnforecast.data.split import Cuts, Split, split_at
from rnnforecast.data.timestamps import parse_time_us
from rnnforecast.errors import ModelError
from rnnforecast.evaluate.comparison import Comparison, stretches_of
from rnnforecast.evaluate.live import Score
from rnnforecast.events import Recorder
from rnnforecast.jobs.issue import Issue
from rnnforecast.model.artifact import Artifact, load_manifest
from rnnforecast.model.provenance import describe_model
from rnnforecast.storage import versions
from rnnforecast.storage.lock import holding
from rnnforecast.units import parse_duration_us, shorten_duration
from rnnforecast.workflow.model import restore, restore_network
from rnnforecast.workflow.steps import (
    calibrate,
    compare_held_out,
    draw_report,
    fine_tune,
    fit_network,
    remember_held_out,
)

IN_FORCE = "in_force"
"""The version in force stands under this name among the methods that are compared."""
_FEWEST_HORIZONS, _MOST_HORIZONS = 3, 28
"""So long a stretch is held out to compare on, at least and at most."""
_APART_HORIZONS = 7
"""A drift is answered by one challenger in so long a time."""


@dataclass(frozen=True)
class _Due:
    """A challenge that is due."""

    why: str
    held_out: int
    """Steps at the end that both are measured on."""


def retrain_if_due(
    issue: Issue, scores: Sequence[Score], events: Recorder
) -> dict[str, Any] | None:
    """Train a challenger where one is due; return what was decided and why, or None.

    Raises `LockedError` where somebody else is at the model.
    """
    due = _due(issue, scores)
    if due is None:
        return None
    model = Path(issue.job.model.path)
    with holding(model / versions.LOCK):
        versions.collect(model)
        return _challenge(issue, due, model, events)


def _due(issue: Issue, scores: Sequence[Score]) -> _Due | None:
    """Tell whether a challenger is due: readings enough are new, and the job file asks for one."""
    rule, artifact, past = issue.job.retrain, issue.model.artifact, issue.ready.past
    if issue.job.model.version is not None or (rule.every is None and rule.when is None):
        return None
    tz, step_us, horizon = issue.ready.schema.tz, past.step_us, artifact.spec.horizon
    learnt_us = parse_time_us(artifact.trained_until, tz)
    newer = (issue.newest_us - learnt_us) // step_us
    held_out = min(int(rule.hold_out * newer), _MOST_HORIZONS * horizon)
    if held_out < _FEWEST_HORIZONS * horizon:
        return None
    tried_us = max([learnt_us, *_tries(issue, tz)])
    since_us = issue.newest_us - tried_us
    flagged = [str(score.series) for score in scores if score.flag]
    if rule.when == "drift" and flagged and since_us >= _APART_HORIZONS * horizon * step_us:
        return _Due(f"drift of {', '.join(flagged)}", held_out)
    if rule.every is not None and since_us >= parse_duration_us(rule.every):
        return _Due(f"{shorten_duration(since_us)} of new readings", held_out)
    return None


def _tries(issue: Issue, tz: str | None) -> list[int]:
    """Return until when earlier challengers of the version in force had learnt."""
    model, tries = Path(issue.job.model.path), []
    for name in versions.list_versions(model):
        try:
            said = load_manifest(versions.resolve_version(model, name))
        except ModelError:
            continue  # a damaged one is no challenger
        if said.get("parent") == issue.model.version:
            tries.append(parse_time_us(str(said["trained_until"]), tz))
    return tries


def _challenge(issue: Issue, due: _Due, model: Path, events: Recorder) -> dict[str, Any]:
    """Train a challenger, measure both, save it, and put it in force if it is better enough."""
    artifact, tz = issue.model.artifact, issue.ready.schema.tz
    plan, incumbent = _plan(issue, due), restore(artifact)
    fitted = fit_network(plan, plan.split, events, start=restore_network(artifact))
    calibration = calibrate(fitted, plan.split, plan.spec, events)
    comparison, seen = compare_held_out(
        fitted, calibration, plan, tz, events, beside={IN_FORCE: incumbent}
    )
    decision = _decide(issue, due, comparison)
    forecaster = fine_tune(fitted, plan, plan.split.everything, events)
    remembered = remember_held_out(fitted, plan) if decision["promoted"] else None
    made = describe_model(
        forecaster,
        plan,
        artifact.schema,
        metrics={
            **_with_usual(comparison.to_json(), artifact),
            "memory": remembered and remembered.summary(),
        },
        source=issue.job.source,
        warnings=events.warnings,
    )
    made = replace(
        made,
        calibration=calibration,
        parent=issue.model.version,
        provenance={**made.provenance, "challenge": decision},
    )
    report = None  # nobody looks at one that lost, and drawing takes half as long as learning
    if decision["promoted"]:
        report = draw_report(made, comparison, seen, fitted, events.warnings, remembered)
    version = versions.publish_version(model, made.pack(report), now=datetime.now(UTC))
    if decision["promoted"]:
        versions.put_in_force(model, version)
    return {"challenger": version, **decision}


def _plan(issue: Issue, due: _Due) -> Plan:
    """Return what the challenger learns from, and what it is held out from."""
    artifact, panel = issue.model.artifact, issue.ready.past.panel_seen()
    config, horizon = artifact.config, artifact.spec.horizon
    test_from = panel.end_us - due.held_out * panel.step_us
    n_before = int(panel.rows_before(test_from).max())
    n_validation = max(horizon, int(config.training.validation * n_before))
    cuts = Cuts(test_from - n_validation * panel.step_us, test_from, panel.end_us)
    split: Split = split_at(panel, cuts)
    return Plan(split, replace(artifact.spec, n_series=panel.n_series), config)


def _decide(issue: Issue, due: _Due, comparison: Comparison) -> dict[str, Any]:
    """Say whether the challenger is better by as much as the job file asks for."""
    margin = issue.job.retrain.margin
    own, others = (comparison.metrics[name].mase for name in ("network", IN_FORCE))
    promoted = own is not None and others is not None and own <= (1 - margin) * others
    gain = None if own is None or not others else 100 * (1 - own / others)
    what = "cannot be compared" if gain is None else f"is {gain:.1f} % better"
    return {
        "promoted": promoted,
        "reason": f"{due.why}: on {comparison.n_windows} windows the challenger {what}, and "
        f"{100 * margin:g} % are asked for: {'put in force' if promoted else 'not put in force'}",
        "due": due.why,
        IN_FORCE: issue.model.version,
        "mase": own,
        "active_mase": others,
        "windows": comparison.n_windows,
        "held_out_steps": due.held_out,
    }


def _with_usual(metrics: dict[str, Any], artifact: Artifact) -> dict[str, Any]:
    """Return the metrics with what was usual before, where that rests on more than it does now."""
    both = metrics.get("error_reference"), artifact.metrics.get("error_reference")
    return {**metrics, "error_reference": max(both, key=stretches_of)}
