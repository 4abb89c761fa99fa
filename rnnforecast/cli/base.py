"""The application, and what its commands share: arguments, the screen, a model to load."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnforecast._version import __version__
from rnnforecast.console import Screen
from rnnforecast.durable import check_spared
from rnnforecast.errors import UsageError
from rnnforecast.options import CONFIG_FILE, CommonOptions

if TYPE_CHECKING:
    from rnnforecast.workflow import Model

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
    str,
    typer.Argument(metavar="DATA", help="CSV, Parquet, a folder, a glob in quotes, a URL, or -"),
]
AgainData = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATA]", help="Newer readings. Default: what the model was trained on."
    ),
]
ModelPath = Annotated[
    str, typer.Option("--model", "-m", metavar="PATH", help="The model directory.")
]
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


def saved(model: str | None, version: str | None) -> Model | None:
    """Load the model that a command may do without."""
    from rnnforecast import workflow

    if model is None and version is not None:
        raise UsageError("--version names one of a model's", hint="add  --model DIR")
    return None if model is None else workflow.load(model, version=version)


def screen_of(context: typer.Context, common: CommonOptions) -> Screen:
    """Set the screen that this run has to what the options say; no result goes over their file."""
    screen: Screen = context.obj
    screen.is_quiet, screen.is_verbose, screen.is_json = common.quiet, common.verbose, common.json
    screen.has_color = not common.no_color and "NO_COLOR" not in os.environ
    for name in ("output", "rejects", "report"):
        if not isinstance(context.params.get(name), bool | None):
            path, file = Path(context.params[name]), common.config or Path(CONFIG_FILE)
            check_spared(path, file, "the options")
    return screen
