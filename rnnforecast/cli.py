"""The command line: options in, one call of the workflow, the result out.

Only Typer and the standard library are imported here; everything else inside the commands.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnforecast._version import __version__
from rnnforecast.config import (
    DEFAULT_MODEL,
    STANDARD_OUTPUT,
    BacktestConfig,
    Config,
    NetworkConfig,
    PlotConfig,
    PredictConfig,
    TrainConfig,
    WindowConfig,
)
from rnnforecast.console import Screen
from rnnforecast.dataconfig import DataConfig
from rnnforecast.durable import check_spared
from rnnforecast.errors import UsageError
from rnnforecast.events import ignore
from rnnforecast.options import CONFIG_FILE, CommonOptions, Given, with_options

if TYPE_CHECKING:
    from rnnforecast.workflow import Model

PARTIAL = 3

app = typer.Typer(
    name="rnnforecast",
    help="Forecasts of sensor readings with recurrent networks.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "RNNFORECAST",
    },
)

Data = Annotated[
    str, typer.Argument(metavar="DATA", help="CSV, Parquet, a folder, a glob in quotes, or -")
]
AgainData = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATA]", help="Newer readings. Default: what the model was trained on."
    ),
]
ModelPath = Annotated[Path, typer.Option("--model", "-m", help="The model directory.")]
Version = Annotated[str | None, typer.Option(help="A saved version. Default: the one in force.")]


def _show_version(wanted: bool) -> None:  # noqa: FBT001
    if wanted:
        Screen().result(f"rnnforecast {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_show_version,
            help="Show the version and exit.",
            show_envvar=False,
            allow_from_autoenv=False,  # RNNFORECAST_VERSION says other things in many images
        ),
    ] = False,
) -> None:
    """Forecasts of sensor readings with recurrent networks."""


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
        Path | None, typer.Option("--model", "-m", help="Say whether the data fit this model.")
    ] = None,
    version: Version = None,
) -> None:
    """Say what is in the data, what is strange about it, and what to type next."""
    from rnnforecast import checkreport, workflow

    screen = _screen(context, common)
    saved = _saved(model, version)
    found = workflow.check(data, config=reading, model=saved, given=given, listener=ignore)
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
    common: CommonOptions,
    model: ModelPath = Path(DEFAULT_MODEL),
    require_skill: Annotated[
        float | None, typer.Option(help="Put in force only with at least this skill, in percent.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Save an HTML report with the version.")
    ] = True,
) -> None:
    """Fit a network, measure it on held-out readings beside the naive methods, save it."""
    from rnnforecast import reports, workflow

    screen = _screen(context, common)
    trained = workflow.train(
        data,
        model=model,
        config=Config(reading, window, network, training),
        require_skill=require_skill,
        report=report,
        listener=screen,
    )
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
    common: CommonOptions,
    given: Given,
    model: ModelPath = Path(DEFAULT_MODEL),
    output: Annotated[
        str, typer.Option("--output", "-o", help="A .csv, .parquet or .jsonl file, or -")
    ] = "forecast.csv",
    version: Version = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Show the forecast in the terminal.")
    ] = False,
) -> None:
    """Forecast the steps after the last reading."""
    from rnnforecast import plotreport, reports, workflow

    if output == STANDARD_OUTPUT and (common.json or plot):
        wanting = "--json" if common.json else "--plot"
        raise UsageError(
            f"{wanting} and -o - both want standard output", hint="name an output file"
        )
    if common.json and plot:
        raise UsageError("--json and --plot both want standard output", hint="leave out one")
    screen = _screen(context, common)
    prediction = workflow.predict(
        model,
        data,
        config=forecast,
        reading=reading,
        given=given,
        version=version,
        output=output,
        listener=screen,
    )
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
        Path | None,
        typer.Option(
            "--model",
            "-m",
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

    screen = _screen(context, common)
    if model is None and data is not None and (Path(DEFAULT_MODEL) / "CURRENT").is_file():
        model = Path(DEFAULT_MODEL)
    is_shown = output is None and not common.json
    fans = workflow.plot(
        data,
        config=looks,
        model=_saved(model, version),
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
        Path | None,
        typer.Option("--model", "-m", help="Try this model, on readings it has not learnt from."),
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

    screen = _screen(context, common)
    result = workflow.backtest(
        data,
        model=_saved(model, version),
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
    model: ModelPath = Path(DEFAULT_MODEL),
    version: Version = None,
    versions: Annotated[bool, typer.Option("--versions", help="List the saved versions.")] = False,
) -> None:
    """Show the model card: configuration, schema, provenance, metrics, versions."""
    from rnnforecast import reports, workflow

    screen = _screen(context, common)
    if versions:
        listing = workflow.versions(model)
        reports.show_versions(listing, screen)
        return
    loaded = workflow.load(model, version=version)
    if common.json:
        screen.document(reports.model_document(loaded))
    else:
        reports.print_model(loaded, screen)


def _saved(model: Path | None, version: str | None) -> Model | None:
    """Load the model that a command may do without."""
    from rnnforecast import workflow

    if model is None and version is not None:
        raise UsageError("--version names one of a model's", hint="add  --model DIR")
    return None if model is None else workflow.load(model, version=version)


def _screen(context: typer.Context, common: CommonOptions) -> Screen:
    """Set the screen that this run has to what the options say; no result goes over their file."""
    screen: Screen = context.obj
    screen.is_quiet, screen.is_verbose, screen.is_json = common.quiet, common.verbose, common.json
    screen.has_color = not common.no_color and "NO_COLOR" not in os.environ
    for name in ("output", "rejects", "report"):
        if not isinstance(context.params.get(name), bool | None):
            path, file = Path(context.params[name]), common.config or Path(CONFIG_FILE)
            check_spared(path, file, "the options")
    return screen
