"""The command line: options in, one call of the workflow, the result out.

Only Typer and the standard library are imported here; everything else inside the commands.
"""

from rnnforecast.cli import commands, looking, preparing, unattended
from rnnforecast.cli.base import app

__all__ = ["app", "commands", "looking", "preparing", "unattended"]
