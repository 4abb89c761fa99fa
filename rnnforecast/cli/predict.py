"""`rnnforecast predict`, in one piece and in batches: the command and what it prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import (
    PARTIAL,
    AgainData,
    CommonOptions,
    Given,
    ModelPath,
    Version,
    screen_of,
    with_options,
)
from rnnforecast.cli.console import Screen
from rnnforecast.config.commands import OUTPUT_FORMATS, BatchConfig
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import DEFAULT_MODEL, STANDARD_OUTPUT, PredictConfig
from rnnforecast.errors import UsageError
from rnnforecast.urls import without_query

if TYPE_CHECKING:
    from rnnforecast.batch.predict import Batched
    from rnnforecast.evaluate.postprocess import Prediction


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
        _tell_batch(rnnforecast.predict_batch(batch=batch, **asked), screen, common)
    else:
        _tell_prediction(rnnforecast.predict(**asked), output, screen, common, plot=plot)


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
    from rnnforecast.cli.plot import show_prediction
    from rnnforecast.cli.train import note_prediction, predict_document

    screen.has_published = output != STANDARD_OUTPUT
    screen.close()
    if common.json:
        screen.document(predict_document(prediction, output))
    else:
        note_prediction(prediction, output, screen)
        if plot:
            show_prediction(prediction, screen)
    if prediction.is_partial:
        raise typer.Exit(PARTIAL)


def _tell_batch(batched: Batched, screen: Screen, common: CommonOptions) -> None:

    screen.has_published = True
    screen.close()
    if common.json:
        screen.document(batch_document(batched))
    else:
        print_batch(batched, screen)
    if batched.is_partial:
        raise typer.Exit(PARTIAL)


def batch_document(batched: Batched) -> dict[str, Any]:
    """Return what `predict --json` prints of a batch."""
    return {
        "status": batched.status,
        "output": str(batched.output),
        "key": batched.key,
        "version": batched.version,
        "buckets": list(batched.buckets),
        **batched.counts,
        "warnings": [asdict(warning) for warning in batched.warnings],
    }


def print_batch(batched: Batched, screen: Screen) -> None:
    """Say what was forecast, what is strange about it, and where it is."""
    for warning in batched.warnings:
        screen(warning)
    counts = batched.counts
    screen.result(
        f"{batched.status}: {counts['rows']} rows of {counts['series']} series, "
        f"{len(batched.buckets)} buckets, in {batched.output}"
    )
    if counts["left_out"]:
        screen.result(f"{counts['left_out']} series were left out")
