"""Commands for who looks at what is there: a forecast, readings that surprise, a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnnforecast.cli.base import AgainData, Data, ModelPath, Version, app, saved, screen_of
from rnnforecast.config import DEFAULT_MODEL, STANDARD_OUTPUT, AnomalyConfig, PlotConfig
from rnnforecast.dataconfig import DataConfig
from rnnforecast.errors import UsageError
from rnnforecast.options import CommonOptions, Given, with_options


@app.command()
@with_options
def plot(
    context: typer.Context,
    *,
    common: CommonOptions,
    looks: PlotConfig,
    data: Annotated[
        str | None, typer.Option(help="Readings to show before and beside the forecast.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="PATH",
            help="Read the data as this model does. Default: model, if it is there.",
        ),
    ] = None,
    version: Version = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A .png, .svg or .html file.")
    ] = None,
) -> None:
    """Show a forecast with the readings around it: in the terminal, or as a picture."""
    from rnnforecast import plotreport, workflow

    screen = screen_of(context, common)
    if model is None and data is not None and (Path(DEFAULT_MODEL) / "CURRENT").is_file():
        model = DEFAULT_MODEL
    is_shown = output is None and not common.json
    fans = workflow.plot(
        data,
        config=looks,
        model=saved(model, version),
        output=output,
        most=plotreport.MOST_SHOWN if is_shown else workflow.MOST_DRAWN,
        listener=screen,
    )
    if common.json:
        screen.document(plotreport.plot_document(fans, output))
    elif output is None:
        plotreport.show_fans(fans, screen)
    else:
        screen.result(f"written: {output} ({len(fans)} series)")


@app.command()
@with_options
def anomalies(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    judging: AnomalyConfig,
    common: CommonOptions,
    given: Given,
    model: ModelPath = DEFAULT_MODEL,
    version: Version = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A .csv, .parquet or .jsonl file of all, or -"),
    ] = None,
) -> None:
    """List readings that left their band: each held against a forecast that had not seen it."""
    from rnnforecast import plotreport, workflow

    if output == STANDARD_OUTPUT and common.json:
        raise UsageError("--json and -o - both want standard output", hint="name an output file")
    screen = screen_of(context, common)
    search = workflow.anomalies(
        data,
        model=workflow.load(model, version=version),
        config=judging,
        reading=reading,
        given=given,
        output=output,
        listener=screen,
    )
    screen.has_published = output not in (None, STANDARD_OUTPUT)
    screen.close()
    if common.json:
        screen.document(plotreport.anomalies_document(search, output))
    elif output != STANDARD_OUTPUT:
        plotreport.print_anomalies(search, output, screen)


@app.command()
@with_options
def memory(
    context: typer.Context,
    data: AgainData = None,
    *,
    reading: DataConfig,
    common: CommonOptions,
    given: Given,
    model: ModelPath = DEFAULT_MODEL,
    version: Version = None,
    units: Annotated[
        bool, typer.Option("--units", help="Say how long each unit's gates let it remember.")
    ] = False,
) -> None:
    """Say how far back the network remembers, and whether gradients vanish or explode."""
    from rnnforecast import memoryreport, workflow

    screen = screen_of(context, common)
    found = workflow.memory(
        data,
        model=workflow.load(model, version=version),
        reading=reading,
        given=given,
        listener=screen,
    )
    screen.close()
    if common.json:
        screen.document(memoryreport.memory_document(found, has_units=units))
    else:
        memoryreport.print_memory(found, screen, has_units=units)
