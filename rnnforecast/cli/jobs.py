"""`rnnforecast run`, `score` and `status`: the commands and what they print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import CommonOptions, Given, ModelPath, screen_of, with_options
from rnnforecast.cli.console import Screen
from rnnforecast.config.commands import RunConfig, ScoreConfig
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import DEFAULT_MODEL
from rnnforecast.units import figure, shorten_duration

if TYPE_CHECKING:
    from rnnforecast.jobs.ledger import Scored
    from rnnforecast.jobs.log import Cycle, Status

JobPath = Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job file.")]
_SHOWN = 20


@with_options
def run(context: typer.Context, job: JobPath, *, running: RunConfig, common: CommonOptions) -> None:
    """Run a job once: lock, read, check, predict, publish, record, score."""
    from rnnforecast.jobs import log

    screen = screen_of(context, common)
    cycles = rnnforecast.run(job, config=running, arguments=sys.argv[1:], listener=screen)
    screen.close()
    if common.json:
        screen.document(run_document(cycles))
    else:
        print_run(cycles, screen)
    failed = next((cycle.error for cycle in cycles if cycle.error is not None), None)
    if failed is not None and len(cycles) == 1:
        raise failed
    raise typer.Exit(log.exit_code_of(cycles))


@with_options
def score(
    context: typer.Context,
    *,
    scoring: ScoreConfig,
    reading: DataConfig,
    common: CommonOptions,
    given: Given,
    ledger: Annotated[
        Path | None, typer.Option(help="The ledger of issued forecasts. Default: ledger.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Readings. Default: what the model was trained on.")
    ] = None,
    model: ModelPath = DEFAULT_MODEL,
    job: Annotated[
        Path | None, typer.Option(help="Take ledger, readings and model from this job file.")
    ] = None,
) -> None:
    """Score forecasts that were issued earlier against the readings that have come since."""
    from rnnforecast.config import commands

    screen = screen_of(context, common)
    if job is None:
        scored = rnnforecast.score(
            ledger or commands.DEFAULT_LEDGER,
            data,
            model=model,
            config=scoring,
            reading=reading,
            given=given,
            listener=screen,
        )
    else:
        scored = rnnforecast.score_job(job, config=scoring, listener=screen)
    screen.close()
    if common.json:
        screen.document(score_document(scored))
    else:
        print_scores(scored, screen)


@with_options
def status(context: typer.Context, job: JobPath, *, common: CommonOptions) -> None:
    """Say when a job last succeeded, and how old its data, model and forecast are."""
    screen = screen_of(context, common)
    found = rnnforecast.status(job)
    if common.json:
        screen.document(found.to_json())
    else:
        print_status(found, screen)


def run_document(cycles: Sequence[Cycle]) -> dict[str, Any]:
    """Return what `run --json` prints: of one run its facts, of a catch-up a list of them."""
    documents = [_cycle_document(cycle) for cycle in cycles]
    return documents[0] if len(documents) == 1 else {"runs": documents}


def _cycle_document(cycle: Cycle) -> dict[str, Any]:
    aftermath = cycle.aftermath
    return {
        "status": cycle.status,
        "exit": cycle.exit_code,
        "key": cycle.key,
        "output": cycle.output and str(cycle.output),
        "version": cycle.version,
        "as_of": cycle.as_of,
        "series": cycle.series,
        "degraded": cycle.degraded,
        "warnings": [asdict(warning) for warning in cycle.warnings],
        "error": cycle.error and cycle.error.message,
        "scores": [asdict(score) for score in aftermath.scores],
        "retired": list(aftermath.retired),
        "retrain": aftermath.retrain,
        "timing": cycle.timing,
    }


def print_run(cycles: Sequence[Cycle], screen: Screen) -> None:
    """Print a line for each run, and what else it did."""
    if screen.is_quiet:
        return
    for cycle in cycles:
        where = "" if cycle.output is None else f": {cycle.output}"
        as_of = "" if cycle.as_of is None else f" as of {cycle.as_of}"
        screen.result(f"{cycle.status}{where}{as_of}")
        if cycle.error is not None and len(cycles) > 1:
            screen.note(f"  {cycle.error.message}")
        if cycle.aftermath.retrain is not None:
            screen.result(f"retrained: {cycle.aftermath.retrain['reason']}")
        if cycle.aftermath.retired:
            screen.result(f"removed: {len(cycle.aftermath.retired)} old outputs and versions")


def score_document(scored: Scored) -> dict[str, Any]:
    """Return what `score --json` prints."""
    return {
        "since": scored.since,
        "until": scored.until,
        "scores": [asdict(score) for score in scored.scores],
        "flagged": [one.series for one in scored.scores if one.flag and one.series],
        "warnings": [asdict(warning) for warning in scored.warnings],
    }


def print_scores(scored: Scored, screen: Screen) -> None:
    """Print a row for each group; the first ones where there are many, flagged ones before."""
    found = sorted(scored.scores, key=lambda score: score.flag is None)
    has = [name for name in ("series", "lead", "day") if getattr(found[0], name) is not None]
    rows = [
        (
            *(str(getattr(score, name)) for name in has),
            str(score.n),
            figure(score.mae),
            figure(score.skill),
            figure(score.coverage_80),
            figure(score.drift),
            score.flag or "",
        )
        for score in found[:_SHOWN]
    ]
    title = f"Forecasts whose readings came until {scored.until}" + (
        "" if scored.since is None else f", from {scored.since} on"
    )
    header = (*has, "readings", "MAE", "skill %", "in q10..q90", "drift", "flag")
    screen.table(header if has else ("all", *header), rows, title=title)
    if len(found) > _SHOWN:
        screen.result(f"and {len(found) - _SHOWN} more; --json has all")


def print_status(found: Status, screen: Screen) -> None:
    """Print how a job does, a line for each fact."""
    said = found.to_json()
    facts = {
        "last exit": _told(said["last_exit"], found.last_message),
        "last run": _ago(said["last_run_age_s"]),
        "last success": _ago(said["last_success_age_s"]),
        "newest reading": _ago(said["data_age_s"]),
        "model": f"{said['version'] or 'none'}, trained {_ago(said['model_age_s'])}",
        "forecast": f"{said['output'] or 'none'}, published {_ago(said['forecast_age_s'])}",
    }
    for name, fact in facts.items():
        screen.result(f"{name:<15}{fact}")


def _told(code: int | None, message: str | None) -> str:
    if code is None:
        return "unknown: no run has told, or the job file names no [log] file"
    return f"{code}" + (f": {message}" if message else "")


def _ago(age_s: int | None) -> str:
    if age_s is None:
        return "unknown"
    return f"{age_s}s ago" if age_s < 3 else f"{shorten_duration(age_s * 1_000_000)} ago"
