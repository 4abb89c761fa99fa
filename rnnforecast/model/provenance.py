"""Provenance of a model: its data, code, options and training, and how `show` describes it."""

from __future__ import annotations

import csv
import io
import platform
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnforecast._version import __version__
from rnnforecast.data.forecast import Calibration
from rnnforecast.data.limits import fit_limits
from rnnforecast.data.setup import TrainingSetup
from rnnforecast.data.split import Split
from rnnforecast.events import EpochEnded, WarningEvent
from rnnforecast.model.artifact import Artifact, seal_source
from rnnforecast.model.checkpoint import CHECKPOINT, Checkpoints
from rnnforecast.process import n_processors
from rnnforecast.storage.remote import AnyPath, as_path
from rnnforecast.tables.schema import Schema
from rnnforecast.units import describe_duration, join_names
from rnnforecast.urls import parse_database

if TYPE_CHECKING:
    from rnnforecast.model.forecaster import RNNForecaster

_LIBRARIES = ("torch", "numpy", "pandas", "pyarrow", "safetensors")


def build_artifact(
    forecaster: RNNForecaster,
    setup: TrainingSetup,
    schema: Schema,
    *,
    metrics: dict[str, Any],
    source: object,
    warnings: list[WarningEvent],
) -> Artifact:
    """Return the artifact of a trained and fine-tuned forecaster."""
    assert forecaster.log is not None
    ranges = describe_ranges(setup.split)
    limits = fit_limits(setup.split.everything)
    # The file of rejected rows is one of this machine, and of this command.
    config = replace(setup.config, data=replace(setup.config.data, rejects=None))

    return Artifact(
        spec=forecaster.network.spec,
        config=config,
        schema=schema,
        names=forecaster.names,
        base=tuple(setup.split.panel.base.tolist()),
        weights=forecaster.tensors(),
        metrics=metrics,
        history=history_csv(forecaster.log.epochs),
        trained_until=ranges["last_reading"],
        training_range=ranges,
        self_test=forecaster.self_test(),
        provenance=describe_run(setup, forecaster, source, warnings),
        limits=limits if limits.any else None,
    )


def make_checkpoints(model: AnyPath, setup: TrainingSetup, *, is_resuming: bool) -> Checkpoints:
    """Return the checkpoints of a training run: their path, and all that the weights depend on.

    The number of ranks, and of threads of each, changes the last digits only and is left out: a
    training that lacks a machine can be resumed.
    """
    training, spec, panel = setup.config.training, setup.spec, setup.split.panel
    options = {**asdict(spec), **asdict(setup.config.network), **asdict(training)}
    options["threads"] = training.threads or n_processors() if panel.shared is None else None
    options["members"] = "; ".join(map(str, spec.members))

    identity = {
        "readings": panel.fingerprint(),
        "rnnforecast": __version__,
        "torch": version("torch"),
        "python": platform.python_version(),
        **{name: str(value) for name, value in options.items()},
    }
    return Checkpoints(model / CHECKPOINT, identity, is_resuming, panel.ranks)


def describe_ranges(split: Split) -> dict[str, Any]:
    """Return the time ranges of the parts, and the numbers of series, rows and readings."""
    panel = split.panel
    ends = panel.start + (panel.lengths - 1) * panel.step_us

    def newest_time(cutoff: np.ndarray[Any, np.dtype[np.int64]]) -> str | None:
        series = np.flatnonzero(cutoff > 0)
        times = panel.time_at(series, cutoff[series] - 1)
        return panel.axis.format(int(times.max())) if len(times) else None

    return {
        "first_reading": panel.axis.format(int(panel.start.min())),
        "last_reading": panel.axis.format(int(ends.max())),
        "train_until": newest_time(split.train.cutoff),
        "validation_until": newest_time(split.validation.cutoff) if split.validation else None,
        "test_from": None if split.test_from_us is None else panel.axis.format(split.test_from_us),
        "n_series": panel.n_series,
        "n_rows": panel.n_rows,
        "n_readings": panel.n_readings,
    }


def describe_run(
    setup: TrainingSetup, forecaster: RNNForecaster, source: object, warnings: list[WarningEvent]
) -> dict[str, Any]:
    """Return versions, source and fingerprint of the data, steps of training, and warnings."""
    log = forecaster.log
    assert log is not None
    path = None  # a stream and a table have none
    if isinstance(source, str | Path) and str(source) != "-":
        place = as_path(source)  # made absolute: `predict` reads it from any folder
        path = str(place.absolute())
        database = parse_database(source)
        path = str(replace(database, path=path)) if database else path

    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "rnnforecast": __version__,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "source": path,
        "source_seal": None if path is None else seal_source(path),
        "fingerprint": setup.split.panel.fingerprint(),
        "steps": log.steps,
        "selected_members": list(log.selected),
        "kept_steps": [member.kept_steps for member in log.of_selected],
        "fine_tune_steps": list(forecaster.fine_tune_steps),
        "epochs": max((len(member.epochs) for member in log.members), default=0),
        "warnings": [warning.to_json() for warning in warnings],
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


def model_card(artifact: Artifact) -> dict[str, str]:
    """Return the description of a version by heading, in the order in which it is shown."""
    spec, provenance = artifact.spec, artifact.provenance
    step_us = artifact.schema.step_us or 1
    season = describe_duration(spec.season * step_us) if spec.season > 1 else "none"
    columns = f"time {artifact.schema.time!r}"
    if artifact.schema.series:
        columns += f", series {artifact.schema.series!r}"

    memory = artifact.metrics.get("memory")  # absent in old versions, None with short held-out data
    remembers = {}
    if memory is not None:
        steps = f"{memory['effective_memory']} of {memory['lookback']} steps"
        remembers["remembers"] = f"{steps} ({memory['verdict']})"

    return {
        "columns": f"{columns}, targets {join_names(artifact.schema.targets, 6)}",
        **_describe_covariates(artifact),
        "series": f"{len(artifact.names)}: {join_names(artifact.names, 6)}",
        "step": describe_duration(step_us),
        "season": season,
        "horizon": f"{spec.horizon} steps ({describe_duration(spec.horizon * step_us)})",
        "look-back": f"{spec.lookback} steps ({describe_duration(spec.lookback * step_us)})",
        "networks": f"{len(spec.members)}, with {artifact.n_parameters:,} parameters: "
        + "; ".join(str(member) for member in spec.members),
        "trained": _describe_steps(artifact),
        **remembers,
        "bands": _describe_bands(artifact.calibration),
        **({"limits": artifact.limits.describe()} if artifact.limits is not None else {}),
        "made": f"{provenance['created']} by rnnforecast {provenance['rnnforecast']}, "
        f"torch {provenance['libraries']['torch']}",
        "source": str(provenance["source"]),
    }


def _describe_covariates(artifact: Artifact) -> dict[str, str]:
    """Return one line that lists the covariates by kind; nothing without covariates."""
    kinds = {"known": "known ahead", "past": "known so far", "static": "static"}
    by_role = {
        label: [c.name for c in artifact.schema.covariates if c.role == role]
        for role, label in kinds.items()
    }
    options = artifact.config.data
    if artifact.spec.n_known:
        by_role["calendar"] = [*options.calendar, *filter(None, [options.holidays])]
    lines = [f"{label} {join_names(names, 6)}" for label, names in by_role.items() if names]
    return {"covariates": "; ".join(lines)} if lines else {}


def _describe_bands(calibration: Calibration | None) -> str:
    if calibration is None:
        return "not calibrated: not enough held-out data"
    n_series = int(calibration.by_series.any(1).sum())
    return (
        f"calibrated on {calibration.n_windows} windows in {calibration.n_stretches} periods; "
        f"{n_series} series individually"
    )


def _describe_steps(artifact: Artifact) -> str:
    """Return how many steps each trained network took, and on which data."""
    provenance, members = artifact.provenance, artifact.spec.members

    def steps(name: str) -> str:
        counts = zip(provenance[name], members, strict=False)
        return ", ".join(str(count) for count, member in counts if member.is_trained) or "0"

    return (
        f"{steps('kept_steps')} of {provenance['steps']} steps on data until "
        f"{artifact.training_range['train_until']}, then {steps('fine_tune_steps')} steps on all "
        f"data until {artifact.trained_until}"
    )
