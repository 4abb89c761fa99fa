"""`rnnforecast train`, `show` and `use`: the commands and their output."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import (
    CommonOptions,
    Data,
    ModelDirectory,
    Version,
    configure_screen,
    with_options,
)
from rnnforecast.cli.completion import complete_versions, while_completing
from rnnforecast.cli.console import Screen
from rnnforecast.config.commands import RanksConfig
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import (
    DEFAULT_MODEL,
    Config,
    NetworkConfig,
    TrainConfig,
    WindowConfig,
)
from rnnforecast.gradients import WASTED
from rnnforecast.process import is_main_process
from rnnforecast.units import format_number
from rnnforecast.urls import is_url

if TYPE_CHECKING:
    from rnnforecast.model.artifact import Artifact
    from rnnforecast.workflow.model import Model

_output = partial(typer.Option, rich_help_panel="Output")
_training = partial(typer.Option, rich_help_panel="Training")
RequireSkill = Annotated[
    float | None,
    _output(
        metavar="PERCENT",
        help="Activate the new version only if its skill is at least this many percent",
    ),
]
Report = Annotated[
    bool, _output("--report/--no-report", help="Save an HTML report with the version")
]
Resume = Annotated[bool, _training("--resume", help="Resume an interrupted training")]
Trace = Annotated[
    bool,
    _training("--trace", help="Print losses and gradient norms after each epoch", hidden=True),
]
HEAD_ROWS = 5
"""Rows of a longer table that are printed."""
_MAX_WORSE = 3
"""Series that are named as worse than a naive method."""


def train_document(model: Model) -> dict[str, Any]:
    """Return the document of `train --json`."""
    artifact, timing = model.artifact, model.timing or {}

    return {
        "model": str(model.path),
        "version": model.version,
        "horizon": artifact.spec.horizon,
        "lookback": artifact.spec.lookback,
        "season": artifact.spec.season,
        "members": [asdict(member) for member in artifact.spec.members],
        "epochs": artifact.provenance["epochs"],
        "steps": artifact.provenance["steps"],
        "parameters": artifact.n_parameters,
        "seconds": timing.get("total_s"),
        "split": artifact.training_range,
        "metrics": artifact.metrics["metrics"],
        "skill": artifact.metrics["skill"],
        "skill_over": artifact.metrics["skill_over"],
        "skill_interval": artifact.metrics["skill_interval"],
        "verdict": artifact.metrics["verdict"],
        "worst_series": artifact.metrics["worst_series"],
        "memory": artifact.metrics["memory"],
        "warnings": artifact.provenance["warnings"],
        "timing": timing,
    }


def print_training(model: Model, screen: Screen) -> None:
    """Print the held-out metrics, the memory's verdict, the saved version, the next command."""
    _print_metrics(model.artifact, screen)
    memory = model.artifact.metrics.get("memory")
    if memory is not None:
        screen.result(f"history: {_describe_history(memory)}")

    report = _report_of(model)
    where = f" (report: {report})" if report else ""
    screen.result(f"saved version {model.version} in {model.path}{where}")
    if not screen.is_quiet:
        path = str(model.path)
        option = "" if path == DEFAULT_MODEL else f" --model {shlex.quote(path)}"
        known = [c.name for c in model.artifact.schema.covariates if c.role == "known"]
        if model.artifact.spec.n_known and known:  # the calendar needs no file
            values = f"future values of {', '.join(known)}"
            screen.note(f"{values}: in rows below the last reading, or in the file of --future")
            option += " --future FILE"
        screen.note(f"next: rnnforecast predict{option}")


def _report_of(model: Model) -> str | None:
    """Return the path of the report of a version; None where it has none on this machine."""
    report = f"{model.path}/versions/{model.version}/report.html"
    return report if not is_url(str(model.path)) and Path(report).is_file() else None


def _describe_history(memory: dict[str, Any]) -> str:
    """Return how much history the network uses, and what to try if that is a problem."""
    reason, advice = memory["reason"], memory["advice"]
    if advice is None:
        return str(reason)
    if memory["verdict"] == WASTED:
        return f"{reason}; {advice} would train faster"
    return f"{memory['verdict']}: {reason}; try  {advice}"


def model_document(model: Model) -> dict[str, Any]:
    """Return the document of `show --json`."""
    artifact = model.artifact

    return {
        "model": str(model.path),
        "version": model.version,
        "parent": artifact.parent,
        "horizon": artifact.spec.horizon,
        "lookback": artifact.spec.lookback,
        "season": artifact.spec.season,
        "quantiles": list(artifact.spec.quantiles),
        "parameters": artifact.n_parameters,
        "config": artifact.to_json()["config"],
        "schema": artifact.schema.to_json(),
        "series": list(artifact.names),
        "trained_until": artifact.trained_until,
        "training_range": artifact.training_range,
        "provenance": artifact.provenance,
        **artifact.metrics,
    }


def print_model(model: Model, screen: Screen) -> None:
    """Print the model card."""
    from rnnforecast.model.provenance import model_card

    facts = {"model": f"{model.path} version {model.version}", **model_card(model.artifact)}
    if report := _report_of(model):
        facts["report"] = report
    for name, fact in facts.items():
        screen.result(f"{name:<10} {fact}")
    _print_metrics(model.artifact, screen)


def show_versions(listing: list[dict[str, Any]], screen: Screen) -> None:
    """Print the saved versions; the active one and damaged ones are marked."""
    if screen.is_json:
        screen.document({"versions": listing})
        return

    rows = []
    for item in listing:
        marks = ["active"] * item["active"] + ["damaged"] * ("damage" in item)
        made = str(item["created"] or "")[:16].replace("T", " ")
        skill = format_number(item["skill"], unit=" %")
        rows.append((item["version"], ", ".join(marks), skill, made))
    screen.table(("version", "", "skill", "made"), rows)
    for item in listing:
        if item["reason"] is not None:
            screen.result(f"{item['version']}: {item['reason']}")


def _print_metrics(artifact: Artifact, screen: Screen) -> None:
    """Print the held-out metrics, the verdict, and series that a naive method forecasts better."""
    from rnnforecast.evaluate.metrics import HEADINGS

    metrics = artifact.metrics
    if metrics["metrics"]:
        ranges = artifact.training_range
        title = (
            f"Test on held-out data: {metrics['n_windows']} forecasts from "
            f"{ranges['test_from']} to {ranges['last_reading']}"
        )
        print_methods(metrics["metrics"], HEADINGS, screen, title=title)
    screen.result(f"verdict: {metrics['verdict']}")
    print_bands(metrics, screen)

    n_worse = metrics["n_worse"]
    if n_worse:
        names = ", ".join(
            f"{item['series']} (MASE {format_number(item['mase'])} "
            f"against {format_number(item['naive_mase'])})"
            for item in metrics["worst_series"][: min(n_worse, _MAX_WORSE)]
        )
        more = f" and {n_worse - _MAX_WORSE} more" if n_worse > _MAX_WORSE else ""
        screen.result(f"worse than the naive method for {n_worse} series: {names}{more}")


def print_methods(
    metrics: dict[str, Any], columns: Mapping[str, str], screen: Screen, *, title: str
) -> None:
    """Print a row of metrics for each method; `columns` maps the metrics to their headings."""
    rows = [
        (name.replace("_", " "), *(format_number(values[key]) for key in columns))
        for name, values in metrics.items()
    ]
    screen.table(("method", *columns.values()), rows, title=title)


def print_bands(comparison: dict[str, Any], screen: Screen) -> None:
    """Print the coverage of q10..q90, before and after calibration, and its range by series."""
    bands = comparison.get("bands")
    if bands is None:
        return

    coverage = comparison["metrics"]["network"]["coverage_80"]
    uncalibrated = bands["uncalibrated_coverage_80"]
    if uncalibrated is None:
        before = " (not calibrated)"
    else:
        before = f" ({100 * uncalibrated:.0f} % before calibration)"
    line = f"the 80 % band contained {100 * coverage:.0f} % of the readings{before}"
    (narrow, least), (wide, most) = bands["narrowest"], bands["widest"]
    if narrow != wide:
        line += (
            f"; between {100 * least:.0f} % ({narrow}) and {100 * most:.0f} % ({wide}) by series"
        )
    screen.result(line)


@with_options
def train(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    window: WindowConfig,
    network: NetworkConfig,
    training: TrainConfig,
    ranks: RanksConfig,
    common: CommonOptions,
    model: ModelDirectory = DEFAULT_MODEL,
    require_skill: RequireSkill = None,
    report: Report = True,
    resume: Resume = False,
    trace: Trace = False,
) -> None:
    """Train a model and test it on held-out data."""
    screen = configure_screen(context, common)
    screen.is_tracing = trace
    trained = rnnforecast.train(
        data,
        model=model,
        config=Config(reading, window, network, training),
        require_skill=require_skill,
        report=report,
        resume=resume,
        ranks=ranks,
        listener=screen,
    )

    if not is_main_process():
        return
    screen.has_published = True
    screen.close()
    if common.json:
        screen.document(train_document(trained))
    else:
        print_training(trained, screen)


@with_options
def show(
    context: typer.Context,
    *,
    common: CommonOptions,
    model: ModelDirectory = DEFAULT_MODEL,
    version: Version = None,
    versions: Annotated[
        bool, typer.Option("--versions", help="List the saved versions", rich_help_panel="Model")
    ] = False,
) -> None:
    """Show the model card, or list the saved versions."""
    screen = configure_screen(context, common)
    if versions:
        show_versions(rnnforecast.versions(model), screen)
        return

    loaded = rnnforecast.load(model, version=version)
    if common.json:
        screen.document(model_document(loaded))
    else:
        print_model(loaded, screen)


@with_options
def use(
    context: typer.Context,
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION",
            help="Name or unambiguous prefix of a saved version, latest, or previous",
            autocompletion=while_completing(complete_versions),
        ),
    ],
    *,
    common: CommonOptions,
    model: ModelDirectory = DEFAULT_MODEL,
) -> None:
    """Switch to another saved model version (rollback)."""
    screen = configure_screen(context, common)
    from rnnforecast.storage.remote import as_path
    from rnnforecast.storage.versions import active_version

    before = rnnforecast.use(version, model=model, listener=screen)
    screen.has_published = True
    version = active_version(as_path(model)) or version

    if common.json:
        screen.document({"model": str(model), "version": version, "before": before})
    elif before == version:
        screen.result(f"{version} is already active")
    else:
        screen.result(f"now using {version} (was {before or 'none'})")
