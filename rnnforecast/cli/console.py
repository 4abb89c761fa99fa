"""Output on the screen: results, notes, tables, progress bars, errors, JSON.

No other module prints.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from rnnforecast.errors import RnnForecastError, writing_standard_output
from rnnforecast.events import (
    CatchUpEvent,
    EpochEnded,
    Event,
    Notice,
    ProgressEvent,
    PublishedEvent,
    WarningEvent,
    escape_controls,
)
from rnnforecast.units import format_number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_MAX_QUOTE = 200
"""Characters of the user's own line that an error quotes; other texts have five times as many."""
_CONTROL = re.compile(
    "[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)
"""Characters that move the cursor, end a line, turn the direction of writing or cannot be seen, and
that JSON does not escape by itself."""
_BAR_AFTER_S = 1.0
"""A task that is done within this time gets no progress bar."""
_FILE_WIDTH = 10_000
"""Width of a table that is written to a file: enough for all columns. No screen is wider."""
_TRACE_WIDTHS = {
    "member": 6,
    "epoch": 5,
    "steps": 5,
    "rate": 8,
    "loss": 9,
    "held out": 10,
    "gradient": 9,
    "99 %": 9,
    "clipped": 7,
}
"""Columns of the trace and their widths."""
_GAP = 2
"""Blanks between columns."""
_MIN_NAME_WIDTH = 8
_MIN_COLUMNS = 2
"""Columns that are shown on the narrowest screen."""
Row = Sequence[str]


@dataclass
class Screen:
    """The output of one command: how much is printed, in which form."""

    is_quiet: bool = False
    is_verbose: bool = False
    is_json: bool = False
    is_tracing: bool = False
    """Whether each epoch of training is printed, as a row of the trace."""
    has_color: bool = True
    has_published: bool = False
    """Whether the result is published, so that a later failure concerns only the output."""
    catch_up: CatchUpEvent | None = None
    """How far a catch-up is; None where there is one result."""
    _progress: Progress | None = None
    _bars: dict[str, TaskID] = field(default_factory=dict)
    _has_trace_header: bool = False
    _started: dict[str, float] = field(default_factory=dict)
    """Time of the first event of each task, in seconds."""

    def __call__(self, event: Event) -> None:
        """Print an event: progress as a bar on a terminal, all others as lines."""
        match event:
            case WarningEvent():
                self.note(f"warning: {event.text}")
            case Notice():
                if not self.is_quiet:
                    self.note(event.message)
            case EpochEnded():
                if self.is_tracing:
                    self._trace(event)
                elif self.is_verbose:
                    loss = event.validation_loss
                    held_out = "" if loss is None else f", held out {loss:.4f}"
                    best = " (best)" if event.is_best else ""
                    self.note(
                        f"epoch {event.epoch} of member {event.member}: "
                        f"loss {event.train_loss:.4f}{held_out}{best}; gradient norm "
                        f"{event.gradient_norm:.3f}, {100 * event.clipped:.0f} % clipped"
                    )
            case ProgressEvent():
                with suppress(OSError, ValueError):  # the terminal may have been closed
                    self._advance(event)
            case PublishedEvent():
                self.has_published = self.catch_up is None
            case CatchUpEvent():
                self.catch_up = event
                self.has_published = event.n_published == event.n_total

    def _trace(self, epoch: EpochEnded) -> None:
        """Print an epoch as a row of the trace; * marks the best loss so far."""
        if not self._has_trace_header:
            self._has_trace_header = True
            self.note("  ".join(f"{name:>{width}}" for name, width in _TRACE_WIDTHS.items()))

        cells = (
            str(epoch.member),
            str(epoch.epoch),
            str(epoch.steps),
            f"{epoch.learning_rate:.1e}",
            format_number(epoch.train_loss),
            format_number(epoch.validation_loss) + ("*" if epoch.is_best else " "),
            format_number(epoch.gradient_norm),
            format_number(epoch.gradient_norm_99),
            f"{100 * epoch.clipped:.0f} %",
        )
        widths = _TRACE_WIDTHS.values()
        self.note("  ".join(f"{cell:>{n}}" for cell, n in zip(cells, widths, strict=True)))

    def note(self, message: str) -> None:
        """Print a line on standard error; a standard error that is closed is ignored."""
        with suppress(OSError, ValueError):
            if self._progress is not None:
                self._progress.console.print(printable(message), markup=False, highlight=False)
            else:
                print(printable(message), file=sys.stderr)

    def result(self, text: str) -> None:
        """Print a line of the result on standard output."""
        self._print(printable(text))

    def document(self, value: Mapping[str, Any]) -> None:
        """Print the result as one JSON document on standard output."""
        self._print(_to_json(value, sys.stdout, indent=2))

    def table(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None
    ) -> None:
        """Print a table on standard output; all columns but the first are aligned right.

        The table is no wider than the screen; columns that do not fit are named on standard error.
        A table in a file has all columns.
        """
        from rich.table import Table
        from rich.text import Text

        if title:
            self.result(title)
        console = self._make_console(sys.stdout, file_width=_FILE_WIDTH)
        cells: list[Row] = [[printable(cell) for cell in row] for row in rows]
        header, cells, omitted = fit_table(header, cells, console.width)

        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in cells:
            table.add_row(*map(Text, row))
        with writing_standard_output():
            console.print(table)
        if omitted and not self.is_quiet:
            self.note(f"the screen is too narrow for {', '.join(omitted)}; --json has all")

    def picture(self, draw: Callable[[int, bool, bool], Sequence[str]]) -> None:
        """Print the lines of `draw(width, has_color, is_unicode)` on standard output."""
        console = self._make_console(sys.stdout)
        encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
        is_unicode = encoding.replace("-", "").startswith("utf")
        for line in draw(console.width, console.color_system is not None, is_unicode):
            self._print(line)

    def _print(self, text: str) -> None:
        with writing_standard_output():
            print(text)

    def error(self, error: RnnForecastError) -> int:
        """Print an error on standard error, and return its exit code."""
        self.close()
        with suppress(OSError, ValueError):  # the exit code reports the failure, too
            if self.is_json:
                print(_to_json(error_document(error), sys.stderr), file=sys.stderr)
            else:
                print("\n".join(error_lines(error)), file=sys.stderr)
        return error.exit_code

    def close(self) -> None:
        """Remove the progress bars."""
        if self._progress is not None:
            with suppress(OSError, ValueError):
                self._progress.stop()
            self._progress = None
            self._bars.clear()
        self._started.clear()

    def _advance(self, event: ProgressEvent) -> None:
        """Advance a task's progress bar, and add it once the task takes longer than a second."""
        if self.is_quiet or self.is_json:
            return
        # Rich puts something in the place of standard error, until version 15 no terminal.
        if self._progress is None and not sys.stderr.isatty():
            return
        now = time.monotonic()
        is_new = event.task not in self._bars
        start = self._started.setdefault(event.task, now)
        if is_new and (now - start < _BAR_AFTER_S or event.done >= event.total):
            return

        if self._progress is None:
            self._progress = self._start_bars()
        if is_new:
            self._bars[event.task] = self._progress.add_task(
                event.task, total=event.total, completed=event.done, unit=event.unit
            )
        self._progress.update(self._bars[event.task], completed=event.done, total=event.total)
        if event.done >= event.total:
            self._progress.refresh()

    def _start_bars(self) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[unit]}"),
            TimeRemainingColumn(),
            console=self._make_console(sys.stderr),
            transient=True,
        )
        progress.start()
        return progress

    def _make_console(self, file: TextIO, *, file_width: int = 100) -> Console:
        """Return a console as wide as the screen, or `file_width` cells without a screen."""
        from rich.console import Console

        width = None if file.isatty() or "COLUMNS" in os.environ else file_width
        if self.has_color:
            console = Console(file=file, width=width)
        else:
            console = Console(file=file, width=width, color_system=None)
        console.width = min(console.width, _FILE_WIDTH)
        return console


def printable(text: str) -> str:
    """Escape control characters, so that text from a file cannot control the terminal; truncate."""
    safe = escape_controls(text)
    return safe if len(safe) <= 5 * _MAX_QUOTE else safe[: 5 * _MAX_QUOTE] + "..."


def _to_json(value: Mapping[str, Any], stream: TextIO, *, indent: int | None = None) -> str:
    """Return JSON for a stream.

    Characters that its encoding may lack are escaped, and those that would look like the end of a
    line: JSON allows some of them.
    """
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
    text = json.dumps(value, indent=indent, ensure_ascii=encoding != "utf8", allow_nan=False)
    return _CONTROL.sub(lambda match: json.dumps(match[0])[1:-1], text)


def error_document(error: RnnForecastError) -> dict[str, Any]:
    """Return the JSON object of a failure."""
    location = error.location
    document = {
        "code": error.code,
        "exit": error.exit_code,
        "message": error.message,
        "file": location and location.file,
        "line": location and location.line,
        "column": location and location.column,
        "hint": error.advice,
    }
    return {"error": {key: value for key, value in document.items() if value is not None}}


def error_lines(error: RnnForecastError) -> list[str]:
    """Return a failure as lines: message, place, the user's own line with a caret, hint."""
    lines = [f"error: {printable(error.message)}"]
    location = error.location
    if location is not None:
        line = "" if location.line is None else f":{location.line}"
        number = "" if location.column_number is None else f"{location.column_number} "
        name = location.column
        column = "" if name is None else f"  column {number}{printable(name)!r}"
        lines.append(f"  --> {printable(location.file)}{line}{column}")

    if location is not None and location.text is not None:
        text, token = printable(location.text), printable(location.token or "")
        start = text.find(token) if token else -1
        cut = max(0, start - _MAX_QUOTE // 2)
        lines.append(f"   |  {text[cut : cut + _MAX_QUOTE]}")
        if start >= 0:
            lines.append(f"   |  {' ' * (start - cut)}{'^' * min(len(token), 40)}")

    if location is not None and location.also_lines:
        *first, last = map(str, location.also_lines)
        also = f"{', '.join(first)} and {last}" if first else last
        lines.append(f"   = also lines {also}")
    if error.advice:
        lines.append(f"   = help: {printable(error.advice)}")
    return lines


def fit_table(header: Row, rows: Sequence[Row], width: int) -> tuple[Row, list[Row], Row]:
    """Return header and rows of a table of at most `width` cells, and the columns left out.

    The names in the first column are shortened first, in their middle. Then columns are left out
    from the right, where the least important ones are.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
    n = len(header)
    while n > _MIN_COLUMNS and _total([min(widths[0], _MIN_NAME_WIDTH), *widths[1:n]]) > width:
        n -= 1
    name_width = max(_MIN_NAME_WIDTH, width - _total([0, *widths[1:n]]))
    fitted = [[_shorten(row[0], name_width), *row[1:n]] for row in (header, *rows)]
    return fitted[0], [*fitted[1:]], header[n:]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _shorten(text: str, width: int) -> str:
    """Leave out the middle of a text that is wider; a character may be two cells wide."""
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text

    head, tail = "", ""
    for first, last in zip(text, reversed(text), strict=True):
        if cell_len(head + first + "…" + tail) > width:
            break
        head += first
        if cell_len(head + "…" + last + tail) > width:
            break
        tail = last + tail
    return f"{head}…{tail}"
