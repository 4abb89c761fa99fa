"""What a process loads before it forks for each command: libraries, and the commands' options."""

from __future__ import annotations

import contextlib
import gc
import importlib
from functools import cache

import typer

LATE = (
    *("pyarrow.dataset", "pydantic.type_adapter", "pydantic.plugin._loader", "typer._adapters"),
    *("rich.console", "rich.table", "scipy.special"),
)
"""What others import late, where they are there."""


def preload(*more: str) -> None:
    """Load what commands load, and keep the collector of each child from going through it all."""
    from rnnforecast.cli.main import app, main  # noqa: F401
    from rnnforecast.evaluate import comparison  # noqa: F401
    from rnnforecast.jobs import run  # noqa: F401
    from rnnforecast.model import checkpoint, forecaster  # noqa: F401
    from rnnforecast.workflow import backtest, check, inspect, train  # noqa: F401

    for name in LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in more:
        importlib.import_module(name)
    build_commands_once()
    typer.main.get_command(app)
    gc.freeze()


def build_commands_once() -> None:
    """Build the options of all commands once and not at each call, which takes longer than most."""
    typer.main.get_command = cache(typer.main.get_command)
