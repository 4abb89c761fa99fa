"""`rnnforecast predict`, of a table or in batches, and `shard`: the commands and their output."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import (
    CommonOptions,
    Data,
    Explicit,
    ModelPath,
    OptionalData,
    TrustSource,
    Version,
    configure_screen,
    output_option,
    with_options,
)
from rnnforecast.cli.console import Screen
from rnnforecast.cli.plot import show_prediction
from rnnforecast.cli.train import HEAD_ROWS
from rnnforecast.config.commands import OUTPUT_FORMATS, BatchConfig
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import DEFAULT_MODEL, STANDARD_OUTPUT, PredictConfig, quantile_name
from rnnforecast.errors import PARTIAL, UsageError
from rnnforecast.process import start_fork_server
from rnnforecast.units import format_number
from rnnforecast.urls import strip_query

if TYPE_CHECKING:
    from rnnforecast.batch.predict import BatchResult
    from rnnforecast.batch.shard import ShardResult
    from rnnforecast.workflow.prediction import Prediction

Output = Annotated[
    str, output_option("Forecast file (.csv, .parquet, .jsonl), - for standard output")
]
ShowPlot = Annotated[
    bool, typer.Option("--plot", help="Plot the forecast in the terminal", rich_help_panel="Output")
]


@with_options
def predict(
    context: typer.Context,
    data: OptionalData = None,
    *,
    reading: DataConfig,
    forecast: PredictConfig,
    batch: BatchConfig,
    common: CommonOptions,
    explicit: Explicit,
    model: ModelPath = DEFAULT_MODEL,
    output: Output = "forecast.csv",
    version: Version = None,
    trust_source: TrustSource = False,
    plot: ShowPlot = False,
) -> None:
    """Forecast the steps after the last reading."""
    _check_output(output, common, explicit, is_batch=batch.is_batch, plot=plot)
    screen = configure_screen(context, common)
    result: BatchResult | Prediction
    shared: dict[str, Any] = {
        "config": forecast,
        "reading": reading,
        "explicit": explicit,
        "version": version,
        "output": output,
        "trust_source": trust_source,
        "listener": screen,
    }
    if batch.is_batch:
        if batch.uses_processes:
            start_fork_server()
        result = rnnforecast.predict_batch(data, model=model, batch=batch, **shared)
        screen.has_published = True
        screen.close()
        if common.json:
            screen.document(batch_document(result))
        else:
            print_batch(result, screen)
    else:
        named = model if "model" in explicit else None
        result = rnnforecast.predict(data, model=named, **shared)
        screen.has_published = output != STANDARD_OUTPUT
        screen.close()
        if common.json:
            screen.document(predict_document(result, output))
        else:
            print_prediction(result, output, screen, plot=plot)
    if result.is_partial:
        raise typer.Exit(PARTIAL)


def _check_output(
    output: str, common: CommonOptions, explicit: Explicit, *, is_batch: bool, plot: bool
) -> None:
    """Raise `UsageError` for a batch without a folder, and for two results on standard output."""
    is_file = output == STANDARD_OUTPUT or strip_query(output).lower().endswith(OUTPUT_FORMATS)
    if is_batch and (plot or "output" not in explicit or is_file):
        raise UsageError(
            "a batch forecast is a folder of Parquet files",
            hint="omit --plot" if plot else "name a folder with  --output DIR",
        )
    if is_batch:
        return

    if output == STANDARD_OUTPUT and (common.json or plot):
        name = "--json" if common.json else "--plot"
        raise UsageError(
            f"{name} and -o - both write to standard output", hint="name an output file"
        )
    if common.json and plot:
        raise UsageError(
            "--json and --plot both write to standard output", hint="use only one of them"
        )


def predict_document(prediction: Prediction, output: str) -> dict[str, Any]:
    """Return the document of `predict --json`."""
    forecast = prediction.forecast

    return {
        "output": output,
        "version": prediction.version,
        "as_of": forecast.axis.format(int(forecast.cutoff_us.max())),
        "first": forecast.axis.format(int(forecast.times_us.min())),
        "last": forecast.axis.format(int(forecast.times_us.max())),
        "n_series": len(forecast.names),
        "series": len(forecast.names),
        "horizon": forecast.horizon,
        "rows": len(forecast.names) * forecast.horizon,
        "left_out": list(prediction.left_out),
        "short_history": list(prediction.short_history),
        "fallback": list(prediction.fallback),
        "exceed": [asdict(exceedance) for exceedance in prediction.exceedances],
        "warnings": [w.to_json() for w in prediction.warnings],
    }


def print_prediction(prediction: Prediction, output: str, screen: Screen, *, plot: bool) -> None:
    """Print the first rows of a forecast, exceeded limits, and the output; draw it with `plot`.

    Nothing is printed next to a forecast on standard output.
    """
    forecast, exceedances = prediction.forecast, prediction.exceedances
    if output == STANDARD_OUTPUT:
        return

    if not screen.is_quiet:
        quantiles = [q for q in forecast.quantiles if q != 0.5]
        columns = [forecast.quantiles.index(q) for q in quantiles]
        rows = [
            (
                forecast.names[0],
                forecast.axis.format(int(forecast.times_us[0, lead])),
                format_number(float(forecast.point[0, lead])),
                *(format_number(float(forecast.values[0, lead, column])) for column in columns),
            )
            for lead in range(min(HEAD_ROWS, forecast.horizon))
        ]
        screen.table(("series", "timestamp", "forecast", *map(quantile_name, quantiles)), rows)

        for item in exceedances[:HEAD_ROWS]:
            likely = "unlikely" if item.first is None else f"likely from {item.first}"
            highest = f"highest {100 * item.highest:.0f} % at {item.at}"
            screen.result(f"{item.series} above {item.limit:g}: {likely}, {highest}")
        if len(exceedances) > HEAD_ROWS:
            screen.result(f"and {len(exceedances) - HEAD_ROWS} more limits")
        n_series = len(forecast.names)
        screen.result(f"written: {output} ({n_series} series x {forecast.horizon} steps)")
    if plot:
        show_prediction(prediction, screen)


def batch_document(batched: BatchResult) -> dict[str, Any]:
    """Return the document of `predict --json` in batches."""
    return {
        "status": batched.status,
        "output": str(batched.output),
        "key": batched.key,
        "version": batched.version,
        "buckets": list(batched.buckets),
        **batched.counts,
        "warnings": [warning.to_json() for warning in batched.warnings],
    }


def print_batch(batched: BatchResult, screen: Screen) -> None:
    """Print the warnings of a batch, its counts and its output."""
    for warning in batched.warnings:
        screen(warning)
    counts = batched.counts
    screen.result(
        f"{batched.status}: {counts['rows']} rows of {counts['series']} series, "
        f"{len(batched.buckets)} buckets in {batched.output}"
    )
    if counts["left_out"]:
        screen.result(f"{counts['left_out']} series were skipped")


@with_options
def shard(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    common: CommonOptions,
    output: Annotated[str, output_option("Output folder (must not exist)", metavar="DIR")],
    buckets: Annotated[
        int,
        typer.Option(metavar="N", help="Number of buckets, 1 to 100000", rich_help_panel="Output"),
    ],
) -> None:
    """Split data into Parquet buckets for parallel runs."""
    screen = configure_screen(context, common)
    sharded = rnnforecast.shard(data, output, buckets, config=reading, listener=screen)

    screen.close()
    if common.json:
        screen.document(shard_document(sharded))
    else:
        print_shards(sharded, screen)


def shard_document(sharded: ShardResult) -> dict[str, Any]:
    """Return the document of `shard --json`: the folder, its manifest, the next command."""
    return {
        "output": str(sharded.path),
        **sharded.manifest.to_json(),
        "warnings": [warning.to_json() for warning in sharded.warnings],
        "train": sharded.train,
    }


def print_shards(sharded: ShardResult, screen: Screen) -> None:
    """Print the numbers of rows, series and buckets, and the next command."""
    manifest = sharded.manifest
    n_files = len(manifest.files)
    screen.result(
        f"written: {sharded.path} ({manifest.n_rows} rows of {manifest.n_series} series in "
        f"{n_files} of {manifest.n_buckets} buckets, {manifest.n_bytes / 1e6:.1f} MB)"
    )

    if n_files > 1:
        largest = max(manifest.files, key=lambda bucket: bucket.rows)
        smallest = min(manifest.files, key=lambda bucket: bucket.rows)
        screen.result(
            f"largest: bucket {largest.bucket} with {largest.rows} rows of {largest.series} "
            f"series; smallest: bucket {smallest.bucket} with {smallest.rows} of {smallest.series}"
        )
    screen.result(f"next: {sharded.train}")
