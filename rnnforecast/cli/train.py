"""`rnnforecast train`, `show` and `use`: the commands and what they print."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import CommonOptions, Data, ModelPath, Version, screen_of, with_options
from rnnforecast.cli.console import Screen
from rnnforecast.config.commands import RanksConfig
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import (
    DEFAULT_MODEL,
    Config,
    NetworkConfig,
    TrainConfig,
    WindowConfig,
    quantile_name,
)
from rnnforecast.process import speaks_for_all
from rnnforecast.units import figure

if TYPE_CHECKING:
    from rnnforecast.evaluate.postprocess import Exceedance, Prediction
    from rnnforecast.model.artifact import Artifact
    from rnnforecast.workflow.model import Model

HEAD_ROWS = 5
"""So many rows of a longer result are shown."""
_WORST = 3


def train_document(model: Model) -> dict[str, Any]:
    """Return what `train --json` prints."""
    artifact, timing = model.artifact, model.timing or {}
    return {
        "model": str(model.path),
        "version": model.version,
        "horizon": artifact.spec.horizon,
        "lookback": artifact.spec.lookback,
        "season": artifact.spec.season,
        "members": [asdict(own) for own in artifact.spec.members],
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
    """Print the held-out metrics, the verdict, and where the model is."""
    _print_metrics(model.artifact, screen)
    _print_memory(model.artifact, screen)
    screen.result(f"saved: {model.path} version {model.version}")
    if not screen.is_quiet:
        screen.note("next: rnnforecast predict" + _model_option(model))


def predict_document(prediction: Prediction, output: str) -> dict[str, Any]:
    """Return what `predict --json` prints."""
    forecast = prediction.forecast
    return {
        "output": output,
        "series": len(forecast.names),
        "horizon": forecast.horizon,
        "rows": len(forecast.names) * forecast.horizon,
        "left_out": list(prediction.left_out),
        "shortened": list(prediction.shortened),
        "replaced": list(prediction.replaced),
        "exceed": [asdict(one) for one in prediction.exceedances],
        "warnings": [
            {"code": w.code, "message": w.message, "count": w.count} for w in prediction.warnings
        ],
    }


def note_prediction(prediction: Prediction, output: str, screen: Screen) -> None:
    """Say where the forecast is, and show its first rows."""
    from rnnforecast.data.timestamps import format_stamp

    if output == "-":
        return
    forecast = prediction.forecast
    quantiles = [q for q in forecast.quantiles if q != 0.5]
    rows = [
        (
            forecast.names[0],
            format_stamp(int(forecast.times_us[0, lead]), forecast.tz),
            figure(float(forecast.point[0, lead])),
            *(
                figure(float(forecast.values[0, lead, forecast.quantiles.index(q)]))
                for q in quantiles
            ),
        )
        for lead in range(min(HEAD_ROWS, forecast.horizon))
    ]
    header = ("series", "timestamp", "forecast", *map(quantile_name, quantiles))
    if not screen.is_quiet:
        screen.table(header, rows)
        n_series, horizon = len(forecast.names), forecast.horizon
        for one in prediction.exceedances[:HEAD_ROWS]:
            screen.result(_exceedance_in_words(one))
        if len(prediction.exceedances) > HEAD_ROWS:
            screen.result(f"and {len(prediction.exceedances) - HEAD_ROWS} more limits")
        screen.result(f"written: {output} ({n_series} series x {horizon} steps)")


def _exceedance_in_words(one: Exceedance) -> str:
    likely = "never likely" if one.first is None else f"likely from {one.first}"
    highest = f"highest {100 * one.highest:.0f} % at {one.at}"
    return f"{one.series} above {one.limit:g}: {likely}, {highest}"


def model_document(model: Model) -> dict[str, Any]:
    """Return what `show --json` prints."""
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
    from rnnforecast.model.provenance import card_of

    facts = {"model": f"{model.path} version {model.version}", **card_of(model.artifact)}
    for name, fact in facts.items():
        screen.result(f"{name:<10} {fact}")
    _print_metrics(model.artifact, screen)


def show_versions(listing: list[dict[str, Any]], screen: Screen) -> None:
    """Print the saved versions, the one in force marked."""
    if screen.is_json:
        screen.document({"versions": listing})
        return
    rows = [
        (
            item["version"],
            ", ".join(["in force"] * item["in_force"] + ["damaged"] * ("damage" in item)),
            figure(item["skill"], unit=" %"),
        )
        for item in listing
    ]
    screen.table(("version", "", "skill"), rows)


def _print_metrics(artifact: Artifact, screen: Screen) -> None:
    from rnnforecast.evaluate.metrics import HEADINGS

    metrics = artifact.metrics["metrics"]
    if metrics:
        ranges = artifact.training_range
        title = (
            f"Held out: {artifact.metrics['n_windows']} forecasts from {ranges['test_from']} "
            f"to {ranges['last_reading']}"
        )
        print_methods(metrics, HEADINGS, screen, title=title)
    screen.result(f"verdict: {artifact.metrics['verdict']}")
    print_bands(artifact.metrics.get("bands"), screen)
    _print_worse(artifact.metrics, screen)


def print_methods(
    metrics: dict[str, Any], columns: Mapping[str, str], screen: Screen, *, title: str
) -> None:
    """Print a row of figures for each method; `columns` maps the metrics to their headings."""
    rows = [
        (name.replace("_", " "), *(figure(values[key]) for key in columns))
        for name, values in metrics.items()
    ]
    screen.table(("method", *columns.values()), rows, title=title)


def print_bands(bands: dict[str, Any] | None, screen: Screen) -> None:
    """Say how many readings lie inside q10..q90, before and after calibration, and by series."""
    if bands is None:
        return
    at = bands["levels"].index
    share = bands["observed"][at(0.9)] - bands["observed"][at(0.1)]
    before, (low, least), (high, most) = (
        bands[key] for key in ("uncalibrated_coverage_80", "narrowest", "widest")
    )
    was = ", not calibrated" if before is None else f" ({100 * before:.0f} % before calibration)"
    line = f"q10..q90 hold {100 * share:.0f} % of the readings, of 80 %{was}"
    if low != high:
        line += f"; by series from {100 * least:.0f} % ({low}) to {100 * most:.0f} % ({high})"
    screen.result(line)


def _print_memory(artifact: Artifact, screen: Screen) -> None:
    """Say how far back the network remembers, and what to try where that is wrong."""
    memory = artifact.metrics.get("memory")
    if memory is None:
        return
    line = f"memory: {memory['verdict']}: {memory['reason']}"
    screen.result(line if memory["advice"] is None else f"{line}; try  {memory['advice']}")


def _print_worse(compared: dict[str, Any], screen: Screen) -> None:
    """Name the series that the network forecasts worse than a naive method does."""
    n_worse = compared["n_worse"]
    if not n_worse:
        return
    shown = ", ".join(
        f"{item['series']} (MASE {figure(item['mase'])} against {figure(item['naive_mase'])})"
        for item in compared["worst_series"][: min(n_worse, _WORST)]
    )
    more = f" and {n_worse - _WORST} more" if n_worse > _WORST else ""
    screen.result(f"worse for {n_worse} series: {shown}{more}")


def _model_option(model: Model) -> str:
    return "" if str(model.path) == DEFAULT_MODEL else f" --model {shlex.quote(str(model.path))}"


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
    model: ModelPath = DEFAULT_MODEL,
    require_skill: Annotated[
        float | None, typer.Option(help="Put in force only with at least this skill, in percent.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Save an HTML report with the version.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was interrupted.")
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show gradients, losses and memory, epoch by epoch.")
    ] = False,
) -> None:
    """Fit a network, measure it on held-out readings beside the naive methods, save it."""
    screen = screen_of(context, common)
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
    if not speaks_for_all():
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
    model: ModelPath = DEFAULT_MODEL,
    version: Version = None,
    versions: Annotated[bool, typer.Option("--versions", help="List the saved versions.")] = False,
) -> None:
    """Show the model card: configuration, schema, provenance, metrics, versions."""
    screen = screen_of(context, common)
    if versions:
        listing = rnnforecast.versions(model)
        show_versions(listing, screen)
        return
    loaded = rnnforecast.load(model, version=version)
    if common.json:
        screen.document(model_document(loaded))
    else:
        print_model(loaded, screen)


@with_options
def use(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="A saved version: see show --versions.")],
    *,
    common: CommonOptions,
    model: ModelPath = DEFAULT_MODEL,
) -> None:
    """Put a saved version in force: roll back, or forward."""
    screen = screen_of(context, common)
    before = rnnforecast.use(version, model=model)
    screen.has_published = True
    if common.json:
        screen.document({"model": str(model), "version": version, "before": before})
    elif before == version:
        screen.result(f"{version} is in force already")
    else:
        screen.result(f"in force: {version} (before: {before or 'none'})")
