"""From a process to one command and back: streams, signals, exit codes, the one catch-all."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import typer

from rnnforecast.cli.app import app
from rnnforecast.cli.backtest import backtest
from rnnforecast.cli.check import check
from rnnforecast.cli.console import Screen
from rnnforecast.cli.jobs import run as run_job
from rnnforecast.cli.jobs import score, status
from rnnforecast.cli.memory import memory
from rnnforecast.cli.plot import anomalies, plot
from rnnforecast.cli.predict import predict
from rnnforecast.cli.shard import shard
from rnnforecast.cli.train import show, train, use
from rnnforecast.errors import RnnForecastError, UntoldError, UsageError, WriteError
from rnnforecast.process import on_signals

_COMMANDS = (
    check,
    train,
    predict,
    backtest,
    show,
    plot,
    anomalies,
    memory,
    shard,
    run_job,
    score,
    status,
    use,
)
"""In the order of `rnnforecast --help`."""
for _command in _COMMANDS:
    app.command()(_command)


class Stopped(BaseException):
    """A signal asked this process to end; its notes say how to go on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Stopping:
    """Answers signals: the first is raised in the main thread, the second ends the process."""

    def __init__(self) -> None:
        self.came: Stopped | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> NoReturn:
        if self.came is not None:
            os._exit(128 + number)
        self.came = Stopped(number)
        raise self.came


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with the contract's code.

    The interpreter is left without taking torch apart first, which would take half a second: by now
    every file is closed and every stream is flushed here.
    """
    _open_streams()
    stopping = _Stopping()
    try:
        on_signals(stopping)
        code = run(sys.argv[1:] if arguments is None else arguments, stopping)
    except Stopped:  # it came while the end was told
        code = 0
    if stopping.came is not None:
        code = code or 128 + stopping.came.number
    on_signals(lambda number, _frame: os._exit(code or 128 + number))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(arguments: list[str], stopping: _Stopping | None = None) -> int:
    """Run one command and return its exit code. The only catch-all stands here.

    Where a signal came, it is the cause of whatever happened: code that it interrupts may turn what
    it raises into another error, or swallow it.
    """
    screen = Screen(is_json="--json" in arguments, is_verbose="--verbose" in arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch starts its threads
    try:
        command = typer.main.get_command(app)
        code = command.main(
            args=arguments, prog_name="rnnforecast", standalone_mode=False, obj=screen
        )
        sys.stdout.flush()
        if stopping is not None and stopping.came is not None:
            return _interrupted(screen, stopping.came)
        if code == 128 + signal.SIGINT:  # Typer's own answer to an interrupt
            return _interrupted(screen, KeyboardInterrupt())
        return int(code or 0)
    except (Stopped, KeyboardInterrupt, typer.Abort) as stopped:
        return _interrupted(screen, stopped)
    except BaseException as error:
        if stopping is not None and stopping.came is not None:
            return _interrupted(screen, stopping.came)
        return _failed(screen, error, arguments)
    finally:
        screen.close()


def _failed(screen: Screen, error: BaseException, arguments: list[str]) -> int:
    """Say what went wrong, and return the contract's code for it."""
    match error:
        case RnnForecastError():
            return screen.error(error)
        case typer.TyperException():
            return screen.error(_usage_error(error, arguments))
        case BrokenPipeError():
            return _leave_closed_pipe()
        case SystemExit(__context__=BrokenPipeError()):  # Typer leaves where a reader has left
            return _leave_closed_pipe()
        case OSError(filename=None):
            return screen.error(_untold(error, screen))
        case Exception() if not screen.is_verbose:  # a bug of ours: short for the user
            return screen.error(_bug(error))
    screen.close()
    raise error


def _open_streams() -> None:
    """Give a process that was started without some of its streams empty ones.

    Without this a file that is opened later would get the number of standard output, and what is
    printed would end in it. Text that a stream's encoding does not have is escaped.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _interrupted(screen: Screen, stopped: BaseException) -> int:
    """Say that a signal came, whether anything was published by then, and how to go on."""
    if screen.has_published:
        return screen.error(UntoldError("interrupted, but all is done and published"))
    notes = getattr(stopped, "__notes__", [])
    error = RnnForecastError(
        "interrupted; nothing was published", code="interrupted", hint="; ".join(notes) or None
    )
    number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
    error.exit_code = 128 + number
    return screen.error(error)


def _leave_closed_pipe() -> int:
    """Send the rest nowhere: a reader that has seen enough, such as `head`, is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _untold(error: OSError, screen: Screen) -> RnnForecastError:
    """Say that standard output took no more; what is published by then stays."""
    what = f"cannot write standard output: {error.strerror}"
    if screen.has_published:
        return UntoldError(f"{what}; all else is done and published")
    return WriteError(what)


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
