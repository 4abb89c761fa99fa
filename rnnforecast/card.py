"""A model in words, for the screen and the report: its card, and what its metrics are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rnnforecast.durations import format_duration

if TYPE_CHECKING:
    from rnnforecast.model.artifact import Artifact

HEADINGS = {
    "mae": "MAE",
    "rmse": "RMSE",
    "smape": "sMAPE %",
    "mase": "MASE",
    "wql": "WQL",
    "coverage_80": "in q10..q90",
}
"""Metrics that people see, and what they are called."""


def card_of(artifact: Artifact) -> dict[str, str]:
    """Return the facts about a version, in the order in which they are shown."""
    task, network, made = artifact.task, artifact.config.network, artifact.provenance
    step_us = artifact.schema.step_us or 1
    season = format_duration(task.season * step_us) if task.season > 1 else "none"
    columns = f"time {artifact.schema.time!r}"
    if artifact.schema.series:
        columns += f", series {artifact.schema.series!r}"
    return {
        "columns": f"{columns}, targets {_some(artifact.schema.targets)}",
        **_covariates_in_words(artifact),
        "series": f"{len(artifact.names)}: {_some(artifact.names)}",
        "step": format_duration(step_us),
        "season": season,
        "horizon": f"{task.horizon} steps ({format_duration(task.horizon * step_us)})",
        "look-back": f"{task.lookback} steps ({format_duration(task.lookback * step_us)})",
        "network": f"{network.cell.upper()} of width {network.hidden}, {network.layers} layer(s), "
        f"{artifact.n_parameters} parameters",
        "members": "; ".join(str(own) for own in task.members),
        "trained": f"{_numbers(made['best_steps'])} of {made['steps']} steps until "
        f"{artifact.training_range['train_until']}, then {_numbers(made['learn_on_steps'])} steps "
        f"over all readings until {artifact.learnt_until}",
        **_memory_in_words(artifact),
        "bands": _bands_in_words(artifact),
        "made": f"{made['created']} by rnnforecast {made['rnnforecast']}, "
        f"torch {made['libraries']['torch']}",
        "source": str(made["source"]),
    }


def _covariates_in_words(artifact: Artifact) -> dict[str, str]:
    """Say which columns the network sees beside the readings, one line for all kinds."""
    kinds = {"known": "known ahead", "past": "known up to now", "static": "static"}
    by_role = {
        words: [c.name for c in artifact.schema.covariates if c.role == role]
        for role, words in kinds.items()
    }
    asked = artifact.config.data
    if artifact.task.n_known:
        by_role["calendar"] = [*asked.calendar, *filter(None, [asked.holidays])]
    lines = [f"{words} {_some(tuple(names))}" for words, names in by_role.items() if names]
    return {"covariates": "; ".join(lines)} if lines else {}


def _memory_in_words(artifact: Artifact) -> dict[str, str]:
    """Say how far back the network remembers; versions of old, and short ones, do not know."""
    memory = artifact.metrics.get("memory")
    if memory is None:
        return {}
    words = f"{memory['effective_memory']} of {memory['lookback']} steps ({memory['verdict']})"
    return {"remembers": words}


def _bands_in_words(artifact: Artifact) -> str:
    calibration = artifact.calibration
    if calibration is None:
        return "as learnt: too little was held out to calibrate them"
    own = int(calibration.by_series.any(1).sum())
    return (
        f"calibrated on {calibration.n_windows} windows in {calibration.n_stretches} stretches of "
        f"time; {own} series with moves of their own"
    )


def _numbers(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
