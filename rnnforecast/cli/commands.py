"""The commands around a model: check, train, predict, backtest, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnnforecast.batchconfig import BatchConfig
from rnnforecast.cli.base import AgainData, Data, ModelPath, Version, app, saved, screen_of
from rnnforecast.config import (
    DEFAULT_MODEL,
    STANDARD_OUTPUT,
    BacktestConfig,
    Config,
    NetworkConfig,
    PredictConfig,
    TrainConfig,
    WindowConfig,
)
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import UsageError
from rnnforecast.events import ignore
from rnnforecast.formats import OUTPUT_FORMATS
from rnnforecast.launch import speaks_for_all
from rnnforecast.options import CommonOptions, Given, with_options
from rnnforecast.ranksconfig import RanksConfig
from rnnforecast.urls import without_query

if TYPE_CHECKING:
    from rnnforecast.console import Screen
    from rnnforecast.evaluate.fallback import Prediction
    from rnnforecast.workflow import Batched

PARTIAL = 3


@app.command()
@with_options
def check(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    common: CommonOptions,
    given: Given,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="PATH", help="Say whether the data fit this model."),
    ] = None,
    version: Version = None,
) -> None:
    """Say what is in the data, what is strange about it, and what to type next."""
    from rnnforecast import checkreport, workflow

    screen = screen_of(context, common)
    held = saved(model, version)
    found = workflow.check(data, config=reading, model=held, given=given, listener=ignore)
    if common.json:
        screen.document(checkreport.check_document(found))
    else:
        checkreport.print_check(found, screen)
    if not found.is_clean:
        raise typer.Exit(PARTIAL)


@app.command()
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
    from rnnforecast import reports, workflow

    screen = screen_of(context, common)
    screen.is_tracing = trace
    trained = workflow.train(
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
        screen.document(reports.train_document(trained))
    else:
        reports.print_training(trained, screen)


@app.command()
@with_options
def predict(
    context: typer.Context,
    data: AgainData = None,
    *,
    reading: DataConfig,
    forecast: PredictConfig,
    batch: BatchConfig,
    common: CommonOptions,
    given: Given,
    model: ModelPath = DEFAULT_MODEL,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="A .csv, .parquet or .jsonl file, or -; in batches a folder."
        ),
    ] = "forecast.csv",
    version: Version = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Show the forecast in the terminal.")
    ] = False,
) -> None:
    """Forecast the steps after the last reading."""
    from rnnforecast import workflow

    check = _check_batch_output if batch.is_wanted else _check_output
    check(output, common, given, plot=plot)
    screen = screen_of(context, common)
    asked: dict[str, Any] = {
        "model": model,
        "data": data,
        "config": forecast,
        "reading": reading,
        "given": given,
        "version": version,
        "output": output,
        "listener": screen,
    }
    if batch.is_wanted:
        _tell_batch(workflow.predict_batch(batch=batch, **asked), screen, common)
    else:
        _tell_prediction(workflow.predict(**asked), output, screen, common, plot=plot)


def _check_output(output: str, common: CommonOptions, _given: Given, *, plot: bool) -> None:
    if output == STANDARD_OUTPUT and (common.json or plot):
        wanting = "--json" if common.json else "--plot"
        raise UsageError(
            f"{wanting} and -o - both want standard output", hint="name an output file"
        )
    if common.json and plot:
        raise UsageError("--json and --plot both want standard output", hint="leave out one")


def _check_batch_output(output: str, _common: CommonOptions, given: Given, *, plot: bool) -> None:
    if plot or "output" not in given or _names_file(output):
        raise UsageError(
            "a forecast in batches is a folder of Parquet files",
            hint="leave out --plot" if plot else "name a folder with  --output DIR",
        )


def _names_file(output: str) -> bool:
    return output == STANDARD_OUTPUT or without_query(output).lower().endswith(OUTPUT_FORMATS)


def _tell_prediction(
    prediction: Prediction, output: str, screen: Screen, common: CommonOptions, *, plot: bool
) -> None:
    from rnnforecast import plotreport, reports

    screen.has_published = output != STANDARD_OUTPUT
    screen.close()
    if common.json:
        screen.document(reports.predict_document(prediction, output))
    else:
        reports.note_prediction(prediction, output, screen)
        if plot:
            plotreport.show_prediction(prediction, screen)
    if prediction.is_partial:
        raise typer.Exit(PARTIAL)


def _tell_batch(batched: Batched, screen: Screen, common: CommonOptions) -> None:
    from rnnforecast import batchreport

    screen.has_published = True
    screen.close()
    if common.json:
        screen.document(batchreport.batch_document(batched))
    else:
        batchreport.print_batch(batched, screen)
    if batched.is_partial:
        raise typer.Exit(PARTIAL)


@app.command()
@with_options
def backtest(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    ends: BacktestConfig,
    window: WindowConfig,
    network: NetworkConfig,
    training: TrainConfig,
    common: CommonOptions,
    given: Given,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="PATH",
            help="Try this model, on readings it has not learnt from.",
        ),
    ] = None,
    version: Version = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A .csv, .parquet or .jsonl file of all forecasts."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="An .html file that shows what was found.")
    ] = None,
) -> None:
    """Forecast from many origins in the past, and compare with what came."""
    from rnnforecast import backtestreport, workflow

    screen = screen_of(context, common)
    result = workflow.backtest(
        data,
        model=saved(model, version),
        config=Config(reading, window, network, training),
        given=given,
        ends=ends,
        output=output,
        report=report,
        listener=screen,
    )
    screen.has_published = output is not None or report is not None
    screen.close()
    if common.json:
        screen.document(backtestreport.backtest_document(result, output, report))
    else:
        backtestreport.print_backtest(result, (output, report), screen)


@app.command()
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
    from rnnforecast import reports, workflow

    screen = screen_of(context, common)
    if versions:
        listing = workflow.versions(model)
        reports.show_versions(listing, screen)
        return
    loaded = workflow.load(model, version=version)
    if common.json:
        screen.document(reports.model_document(loaded))
    else:
        reports.print_model(loaded, screen)
