"""The command line: options in, one call of the workflow, the result out.

Only Typer and the standard library are imported here; everything else inside the commands.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from rnnforecast._version import __version__
from rnnforecast.config import (
    Config,
    DataConfig,
    NetworkConfig,
    PredictConfig,
    TrainConfig,
    WindowConfig,
)
from rnnforecast.console import Screen
from rnnforecast.errors import RnnForecastError, UsageError, WriteError
from rnnforecast.options import CommonOptions, with_options

PARTIAL = 3
_INTERRUPTED = 128 + signal.SIGINT

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
def train(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    window: WindowConfig,
    network: NetworkConfig,
    training: TrainConfig,
    common: CommonOptions,
    model: ModelPath = Path("model"),
    require_skill: Annotated[
        float | None, typer.Option(help="Put in force only with at least this skill, in percent.")
    ] = None,
) -> None:
    """Fit a network, measure it on held-out readings beside the naive methods, save it."""
    from rnnforecast import reports, workflow

    screen = _screen(context, common)
    trained = workflow.train(
        data,
        model=model,
        config=Config(reading, window, network, training),
        require_skill=require_skill,
        listener=screen,
    )
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
    model: ModelPath = Path("model"),
    output: Annotated[
        str, typer.Option("--output", "-o", help="A .csv, .parquet or .jsonl file, or -")
    ] = "forecast.csv",
    version: Version = None,
) -> None:
    """Forecast the steps after the last reading."""
    from rnnforecast import reports, workflow

    if common.json and output == "-":
        raise UsageError("--json and -o - both want standard output", hint="name an output file")
    screen = _screen(context, common)
    prediction = workflow.predict(
        model,
        data,
        config=forecast,
        reading=reading,
        version=version,
        output=output,
        listener=screen,
    )
    screen.close()
    if common.json:
        screen.document(reports.predict_document(prediction, output))
    else:
        reports.note_prediction(prediction, output, screen)
    if prediction.is_partial:
        raise typer.Exit(PARTIAL)


@app.command()
@with_options
def show(
    context: typer.Context,
    *,
    common: CommonOptions,
    model: ModelPath = Path("model"),
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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with the contract's code.

    The interpreter is left without taking torch apart first, which would take half a second: by now
    every file is closed and every stream is flushed here.
    """
    code = run(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. The only catch-all stands here."""
    screen = Screen(is_json="--json" in arguments, is_verbose="--verbose" in arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch starts its threads
    try:
        command = typer.main.get_command(app)
        code = command.main(
            args=arguments, prog_name="rnnforecast", standalone_mode=False, obj=screen
        )
        sys.stdout.flush()
        if code == _INTERRUPTED:
            screen.close()
            screen.note("interrupted; nothing was published")
        return int(code or 0)
    except RnnForecastError as error:
        return screen.error(error)
    except typer.TyperException as error:
        return screen.error(_usage_error(error, arguments))
    except (KeyboardInterrupt, typer.Abort):
        screen.close()
        screen.note("interrupted; nothing was published")
        return _INTERRUPTED
    except BrokenPipeError:
        return _leave_closed_pipe()
    except SystemExit as leaving:  # Typer leaves by itself where a reader has closed the pipe
        if isinstance(leaving.__context__, BrokenPipeError):
            return _leave_closed_pipe()
        raise
    except Exception as error:  # a bug of ours: short for the user, whole with --verbose
        if isinstance(error, OSError) and error.filename is None:
            return screen.error(WriteError(f"cannot write standard output: {error.strerror}"))
        if screen.is_verbose:
            screen.close()
            raise
        return screen.error(_bug(error))
    finally:
        screen.close()


def _leave_closed_pipe() -> int:
    """Send the rest nowhere: a reader that has seen enough, such as `head`, is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _screen(context: typer.Context, common: CommonOptions) -> Screen:
    """Set the screen that this run has to what the options say."""
    screen: Screen = context.obj
    screen.is_quiet, screen.is_verbose, screen.is_json = common.quiet, common.verbose, common.json
    screen.has_color = not common.no_color and "NO_COLOR" not in os.environ
    return screen


def _usage_error(error: typer.TyperException, arguments: list[str]) -> UsageError:
    message = getattr(error, "format_message", lambda: str(error))()
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    command = next((a for a in arguments if a in known), None)
    return UsageError(
        message, hint=f"rnnforecast {command} --help" if command else "rnnforecast --help"
    )


def _bug(error: Exception) -> RnnForecastError:
    return RnnForecastError(
        f"a bug in rnnforecast: {type(error).__name__}: {error}",
        hint="run again with  --verbose  and report what it prints",
    )
