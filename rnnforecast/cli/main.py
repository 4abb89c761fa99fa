"""The process around a command: streams, signals, exit codes, the only catch-all."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from types import FrameType
from typing import NoReturn

import typer

from rnnforecast.cli.app import make_app
from rnnforecast.cli.backtest import backtest
from rnnforecast.cli.check import check
from rnnforecast.cli.completion import COMPLETE_VARIABLE
from rnnforecast.cli.console import Screen
from rnnforecast.cli.jobs import init, score, status
from rnnforecast.cli.jobs import run as run_job
from rnnforecast.cli.memory import memory
from rnnforecast.cli.plot import anomalies, plot
from rnnforecast.cli.predict import predict, shard
from rnnforecast.cli.train import show, train, use
from rnnforecast.errors import (
    CatchUpError,
    DataError,
    OutputError,
    RnnForecastError,
    StandardOutputError,
    UsageError,
    WriteError,
    writing_standard_output,
)
from rnnforecast.events import CATCH_UP_HINT
from rnnforecast.process import on_signals

app = make_app(
    (
        *(check, train, predict, backtest),
        *(show, plot, anomalies, memory),
        *(shard, init, run_job, score, status, use),
    )
)


_SYNONYMS = {
    "forecast": "predict",
    "fit": "train",
    "evaluate": "backtest",
    "test": "backtest",
    "validate": "check",
    "inspect": "check",
    "detect": "anomalies",
}
"""The commands for what other tools call so."""
_ALIKE = 0.75
"""How much a command that is offered is like the one that was typed; 1 is the same."""
_WORKERS_END_S = 5.0
_REFUSALS = (
    *(errno.EACCES, errno.EDQUOT, errno.EIO, errno.ELOOP, errno.EMFILE, errno.ENAMETOOLONG),
    *(errno.ENFILE, errno.ENOSPC, errno.EPERM, errno.EROFS),
)
"""Errors that a system or a path is the cause of, wherever they are met."""
_NO_MEMORY = re.compile(
    "failed to map segment|an't allocate memory|annot allocate memory|start new thread|"
    "launch worker thread|error return without exception set"
)
"""What libraries say, in errors of their own kinds, where the system gives them no memory."""


class Stopped(BaseException):
    """A termination signal; its notes say how to continue."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _SignalHandler:
    """A signal handler: the first signal is raised in the main thread, the second one exits."""

    def __init__(self) -> None:
        self.stopped: Stopped | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> NoReturn:
        if self.stopped is not None:
            os._exit(128 + number)
        self.stopped = Stopped(number)
        raise self.stopped


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code.

    The interpreter exits without the teardown of torch, which takes half a second: every file is
    closed by then, and the streams are flushed here.
    """
    _open_streams()
    if not sys.warnoptions:  # of libraries, for whoever writes programs
        warnings.simplefilter("ignore")
    handler = _SignalHandler()
    try:
        on_signals(handler)
        code = run(sys.argv[1:] if arguments is None else arguments, handler)
    except Stopped:  # the signal arrived while the result of the command was reported
        code = 0
    if handler.stopped is not None:
        code = code or 128 + handler.stopped.number

    on_signals(lambda number, _frame: os._exit(code or 128 + number))
    _remove_traces_of_workers()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _remove_traces_of_workers() -> None:
    """Remove the folders and semaphores of processes that were started, as the interpreter would.

    What workers are forked from ends first: one that it forks now would find no semaphores, and
    say so. All is given up after a while: a worker that does not end must not keep this process.
    """
    server = sys.modules.get("multiprocessing.forkserver")
    pid = server and server._forkserver._forkserver_pid
    if pid:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        thread = threading.Thread(target=util._exit_function, daemon=True)
        with suppress(RuntimeError):  # there is no memory for another thread
            thread.start()
            thread.join(_WORKERS_END_S)


def run(arguments: list[str], handler: _SignalHandler | None = None) -> int:
    """Run one command and return its exit code. This is the only catch-all.

    After a signal, every outcome counts as interrupted: the interrupted code may have turned the
    exception into another error, or have swallowed it.
    """
    screen = Screen(
        is_json="--json" in arguments,
        is_verbose="--verbose" in arguments,
        has_color="--no-color" not in arguments,
    )
    # Before torch starts its threads: while another process keeps a core busy, threads that spin
    # make a training step several times as slow as threads that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        command = typer.main.get_command(app)
        code = command.main(
            args=arguments, prog_name="rnnforecast", standalone_mode=False, obj=screen
        )
        with writing_standard_output():
            sys.stdout.flush()
        if handler is not None and handler.stopped is not None:
            return _report_interrupt(screen, handler.stopped)
        if code == 128 + signal.SIGINT:  # Typer's exit code after an interrupt
            return _report_interrupt(screen, KeyboardInterrupt())
        return int(code or 0)
    except (Stopped, KeyboardInterrupt, typer.Abort) as stopped:
        return _report_interrupt(screen, stopped)
    except BaseException as error:
        if handler is not None and handler.stopped is not None:
            return _report_interrupt(screen, handler.stopped)
        if COMPLETE_VARIABLE in os.environ and not isinstance(error, SystemExit):
            return 1  # a message would be printed into the line that the user types
        return _report_failure(screen, error, arguments)
    finally:
        screen.close()


def _command_instead(arguments: list[str]) -> str:
    """Return the command to type instead of one that cannot be parsed."""
    names = {c.callback.__name__ for c in app.registered_commands if c.callback}
    command = next((a for a in arguments if a in names), None)
    typed = arguments[0] if arguments else ""
    similar = [_SYNONYMS[typed]] if typed in _SYNONYMS else _most_like(typed, names)
    if similar and typed not in names:
        return shlex.join(["rnnforecast", *similar, *arguments[1:]])
    if command:
        return f"rnnforecast {command} --help"
    if arguments and os.path.isfile(arguments[0]):  # noqa: PTH113 - no error
        action = "run" if arguments[0].endswith(".toml") else "predict"
        return f"rnnforecast {action} {shlex.quote(arguments[0])}"
    return "rnnforecast --help"


def _most_like(typed: str, names: Iterable[str]) -> list[str]:
    """Return the name that is most like what was typed; none where no name is much like it."""
    return get_close_matches(typed, list(names), n=1, cutoff=_ALIKE)


def _usage_error(error: typer.TyperException, arguments: list[str]) -> UsageError:
    """Return the error of a command line that Typer refuses, with what may be meant."""
    message, hint = str(error), _command_instead(arguments)
    option = getattr(error, "option_name", "")
    similar = _most_like(option, getattr(error, "possibilities", None) or ())
    if similar:
        hint = f"did you mean {similar[0]}? All options:  {hint}"
    elif not option and hasattr(error, "format_message"):
        message = error.format_message()
    return UsageError(message, hint=hint)


def _report_failure(screen: Screen, error: BaseException, arguments: list[str]) -> int:
    """Report an error, and return its exit code."""
    match error:
        case RnnForecastError():
            return screen.error(error)

        case typer.TyperException():
            return screen.error(_usage_error(error, arguments))

        # Typer exits after a broken pipe. A reader that has seen enough, such as `head`, is no
        # error: the remaining output goes nowhere.
        case BrokenPipeError() | SystemExit(__context__=BrokenPipeError()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0

        case SystemExit(code=int(code)):  # of completions, and of their installation
            return code

        case StandardOutputError():
            return screen.error(_output_error(screen, f"cannot write standard output: {error}"))

        case Exception() if not screen.is_verbose and (
            isinstance(error, MemoryError) or _NO_MEMORY.search(str(error))
        ):
            return screen.error(
                DataError(
                    f"out of memory: {error or 'none is left'}",
                    code="memory",
                    hint="read less data at once or give the process more memory",
                )
            )

        case OSError(filename=name) if not screen.is_verbose and (
            name is None or error.errno in _REFUSALS
        ):
            # Without a name these are temporary files, sockets, processes.
            subject = "a temporary file or process" if name is None else str(name)
            return screen.error(
                WriteError(
                    f"the system reported an error for {subject}: {error.strerror or error}",
                    code="system",
                    hint="check the temporary folder (TMPDIR) and the limits of this process",
                )
            )

        case Exception() if not screen.is_verbose:
            summary = "" if screen.catch_up is None else f"; {screen.catch_up.summary}"
            bug = RnnForecastError(
                f"a bug in rnnforecast: {type(error).__name__}: {error}{summary}",
                hint="run again with  --verbose  and report the output",
            )
            return screen.error(bug)
    screen.close()
    raise error


def _output_error(screen: Screen, message: str) -> RnnForecastError:
    """Return the error of a result that cannot be printed; it names what is published."""
    if screen.has_published:
        return OutputError(f"{message}; everything else is done and published")
    if screen.catch_up is not None and screen.catch_up.n_published:
        return OutputError(f"{message}; {screen.catch_up.summary}")
    return WriteError(message)


def _open_streams() -> None:
    """Open the null device for standard streams that the process was started without.

    Otherwise a file that is opened later would get the number of standard output, and printed text
    would be written into it. Characters that a stream's encoding does not have are escaped.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _report_interrupt(screen: Screen, stopped: BaseException) -> int:
    """Report a signal: whether the result is published, else how to continue; return the code."""
    if screen.has_published:
        return screen.error(OutputError("interrupted, but the result is complete and published"))
    if screen.catch_up is not None and screen.catch_up.n_published:
        return screen.error(
            CatchUpError(
                f"interrupted; {screen.catch_up.summary} and kept",
                code="interrupted",
                hint=CATCH_UP_HINT,
            )
        )
    notes = getattr(stopped, "__notes__", [])
    error = RnnForecastError(
        "interrupted; nothing was published", code="interrupted", hint="; ".join(notes) or None
    )
    number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
    error.exit_code = 128 + number
    return screen.error(error)
