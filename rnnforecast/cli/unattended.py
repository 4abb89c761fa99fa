"""Commands for who leaves forecasts to a clock: run a job, look after it, score it, roll back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rnnforecast.cli.base import ModelPath, app, screen_of
from rnnforecast.config import DEFAULT_MODEL
from rnnforecast.dataconfig import DataConfig
from rnnforecast.options import CommonOptions, Given, with_options
from rnnforecast.runconfig import RunConfig, ScoreConfig

JobPath = Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job file.")]


@app.command()
@with_options
def run(context: typer.Context, job: JobPath, *, running: RunConfig, common: CommonOptions) -> None:
    """Run a job once: lock, read, check, predict, publish, record, score."""
    from rnnforecast import runreport, workflow

    screen = screen_of(context, common)
    cycles = workflow.run(job, config=running, arguments=sys.argv[1:], listener=screen)
    screen.close()
    if common.json:
        screen.document(runreport.run_document(cycles))
    else:
        runreport.print_run(cycles, screen)
    failed = next((cycle.error for cycle in cycles if cycle.error is not None), None)
    if failed is not None and len(cycles) == 1:
        raise failed
    raise typer.Exit(workflow.exit_code_of(cycles))


@app.command()
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
    from rnnforecast import runreport, workflow

    screen = screen_of(context, common)
    if job is None:
        scored = workflow.score(
            ledger or workflow.DEFAULT_LEDGER,
            data,
            model=model,
            config=scoring,
            reading=reading,
            given=given,
            listener=screen,
        )
    else:
        scored = workflow.score_job(job, config=scoring, listener=screen)
    screen.close()
    if common.json:
        screen.document(runreport.score_document(scored))
    else:
        runreport.print_scores(scored, screen)


@app.command()
@with_options
def status(context: typer.Context, job: JobPath, *, common: CommonOptions) -> None:
    """Say when a job last succeeded, and how old its data, model and forecast are."""
    from rnnforecast import runreport, workflow

    screen = screen_of(context, common)
    found = workflow.status(job)
    if common.json:
        screen.document(found.to_json())
    else:
        runreport.print_status(found, screen)


@app.command()
@with_options
def use(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="A saved version: see show --versions.")],
    *,
    common: CommonOptions,
    model: ModelPath = DEFAULT_MODEL,
) -> None:
    """Put a saved version in force: roll back, or forward."""
    from rnnforecast import workflow

    screen = screen_of(context, common)
    before = workflow.use(version, model=model)
    screen.has_published = True
    if common.json:
        screen.document({"model": str(model), "version": version, "before": before})
    elif before == version:
        screen.result(f"{version} is in force already")
    else:
        screen.result(f"in force: {version} (before: {before or 'none'})")
