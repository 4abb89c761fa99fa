"""Where a model comes from: data, code, machine, time."""

from __future__ import annotations

import csv
import io
import platform
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnforecast._version import __version__
from rnnforecast.data.schema import Schema
from rnnforecast.data.setup import Plan
from rnnforecast.data.split import Split
from rnnforecast.data.timestamps import format_stamp
from rnnforecast.events import EpochEnded, Warned
from rnnforecast.model.artifact import Artifact
from rnnforecast.model.checkpoint import CHECKPOINT, Checkpoints
from rnnforecast.storage.remote import Place, place_of
from rnnforecast.units import format_duration, join_names

if TYPE_CHECKING:
    from rnnforecast.model.forecaster import RNNForecaster

_LIBRARIES = ("torch", "numpy", "pandas", "pyarrow", "safetensors")


def describe_model(
    forecaster: RNNForecaster,
    plan: Plan,
    schema: Schema,
    *,
    metrics: dict[str, Any],
    source: object,
    warnings: list[Warned],
) -> Artifact:
    """Put together all that a saved version says of itself."""
    assert forecaster.log is not None
    ranges = describe_ranges(plan.split, schema)

    return Artifact(
        spec=forecaster.network.spec,
        config=plan.config,
        schema=schema,
        names=forecaster.names,
        base=tuple(plan.split.panel.base.tolist()),
        weights=forecaster.tensors(),
        metrics=metrics,
        history=history_csv(forecaster.log.epochs),
        trained_until=ranges["last_reading"],
        training_range=ranges,
        self_test=forecaster.self_test(),
        provenance=describe_run(plan, forecaster, source, warnings),
    )


def checkpoints_of(model: Place, plan: Plan, *, is_resuming: bool) -> Checkpoints:
    """Say where the training of a plan is kept, and all that its weights depend on.

    How many ranks there are, and threads of each, changes the last digits only: one that lacks a
    machine goes on where it was.
    """
    from rnnforecast.model.ensemble import n_processors

    training, spec = plan.config.training, plan.spec
    options = {**asdict(spec), **asdict(plan.config.network), **asdict(training)}
    panel = plan.split.panel
    options["threads"] = training.threads or n_processors() if panel.shared is None else None
    members = "; ".join(map(str, spec.members))
    identity = {
        "readings": panel.fingerprint(),
        "rnnforecast": __version__,
        "torch": version("torch"),
        "python": platform.python_version(),
        **{name: str(value) for name, value in {**options, "members": members}.items()},
    }
    return Checkpoints(model / CHECKPOINT, identity, is_resuming, panel.ranks)


def describe_ranges(split: Split, schema: Schema) -> dict[str, Any]:
    """Return the time ranges of the parts, and how many readings there are."""
    panel = split.panel
    ends = panel.start + (panel.lengths - 1) * panel.step_us

    def last_of(cutoff: np.ndarray[Any, np.dtype[np.int64]]) -> str | None:
        seen = np.flatnonzero(cutoff > 0)
        times = panel.time_at(seen, cutoff[seen] - 1)
        return format_stamp(int(times.max()), schema.tz) if len(times) else None

    return {
        "first_reading": format_stamp(int(panel.start.min()), schema.tz),
        "last_reading": format_stamp(int(ends.max()), schema.tz),
        "train_until": last_of(split.train.cutoff),
        "validation_until": last_of(split.validation.cutoff) if split.validation else None,
        "test_from": None
        if split.test_from_us is None
        else format_stamp(split.test_from_us, schema.tz),
        "n_series": panel.n_series,
        "n_rows": panel.n_rows,
        "n_readings": panel.n_readings,
    }


def describe_run(
    plan: Plan, forecaster: RNNForecaster, source: object, warnings: list[Warned]
) -> dict[str, Any]:
    """Return who made the model of what, and how long it learnt, in steps."""
    log = forecaster.log
    assert log is not None
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "rnnforecast": __version__,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "source": _absolute(source),
        "fingerprint": plan.split.panel.fingerprint(),
        "steps": log.steps,
        "selected_members": list(log.selected),
        "best_steps": [log.members[i].best_steps for i in log.selected],
        "fine_tune_steps": list(forecaster.fine_tune_steps),
        "epochs": max(len(member.epochs) for member in log.members),
        "warnings": [asdict(warning) for warning in warnings],
    }


def history_csv(epochs: tuple[EpochEnded, ...]) -> str:
    """Return the training log as CSV, a row for each epoch."""
    text = io.StringIO()
    names = [item.name for item in fields(EpochEnded)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for epoch in epochs:
        writer.writerow(asdict(epoch))
    return text.getvalue()


def _absolute(data: object) -> str | None:
    """Return a path that `predict` can read from any folder; None for a stream or a table."""
    if isinstance(data, str | Path) and str(data) != "-":
        return str(place_of(data).absolute())
    return None


def card_of(artifact: Artifact) -> dict[str, str]:
    """Return the facts about a version, in the order in which they are shown."""
    spec, network, provenance = artifact.spec, artifact.config.network, artifact.provenance
    step_us = artifact.schema.step_us or 1
    season = format_duration(spec.season * step_us) if spec.season > 1 else "none"
    columns = f"time {artifact.schema.time!r}"
    if artifact.schema.series:
        columns += f", series {artifact.schema.series!r}"

    return {
        "columns": f"{columns}, targets {join_names(artifact.schema.targets, 6)}",
        **_covariates_in_words(artifact),
        "series": f"{len(artifact.names)}: {join_names(artifact.names, 6)}",
        "step": format_duration(step_us),
        "season": season,
        "horizon": f"{spec.horizon} steps ({format_duration(spec.horizon * step_us)})",
        "look-back": f"{spec.lookback} steps ({format_duration(spec.lookback * step_us)})",
        "network": f"{network.cell.upper()} of width {network.hidden}, {network.layers} layer(s), "
        f"{artifact.n_parameters} parameters",
        "members": "; ".join(str(member) for member in spec.members),
        "trained": f"{_numbers(provenance['best_steps'])} of {provenance['steps']} steps until "
        f"{artifact.training_range['train_until']}, then "
        f"{_numbers(provenance['fine_tune_steps'])} steps over all readings until "
        f"{artifact.trained_until}",
        **_memory_in_words(artifact),
        "bands": _bands_in_words(artifact),
        "made": f"{provenance['created']} by rnnforecast {provenance['rnnforecast']}, "
        f"torch {provenance['libraries']['torch']}",
        "source": str(provenance["source"]),
    }


def _covariates_in_words(artifact: Artifact) -> dict[str, str]:
    """Say which columns the network sees beside the readings, one line for all kinds."""
    kinds = {"known": "known ahead", "past": "known up to now", "static": "static"}
    by_role = {
        label: [c.name for c in artifact.schema.covariates if c.role == role]
        for role, label in kinds.items()
    }
    options = artifact.config.data
    if artifact.spec.n_known:
        by_role["calendar"] = [*options.calendar, *filter(None, [options.holidays])]
    lines = [f"{label} {join_names(names, 6)}" for label, names in by_role.items() if names]
    return {"covariates": "; ".join(lines)} if lines else {}


def _memory_in_words(artifact: Artifact) -> dict[str, str]:
    """Say how far back the network remembers; versions of old, and short ones, do not know."""
    memory = artifact.metrics.get("memory")
    if memory is None:
        return {}
    text = f"{memory['effective_memory']} of {memory['lookback']} steps ({memory['verdict']})"
    return {"remembers": text}


def _bands_in_words(artifact: Artifact) -> str:
    calibration = artifact.calibration
    if calibration is None:
        return "as learnt: too little was held out to calibrate them"
    n_series = int(calibration.by_series.any(1).sum())
    return (
        f"calibrated on {calibration.n_windows} windows in {calibration.n_stretches} stretches of "
        f"time; {n_series} series with moves of their own"
    )


def _numbers(steps: list[int]) -> str:
    return ", ".join(map(str, steps))
