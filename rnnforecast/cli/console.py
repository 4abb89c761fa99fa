"""The only module that prints: results, notes, tables, progress bars, errors, JSON."""

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

from rnnforecast.errors import RnnForecastError
from rnnforecast.events import EpochEnded, Event, Noted, Progressed, Published, Warned
from rnnforecast.units import figure

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_LONGEST = 200
_UNSEEN = re.compile("[\x7f-\x9f\u2028\u2029]")
"""Characters that move the cursor or end a line, beside those that JSON escapes itself."""
_BAR_AFTER_S = 1.0
_UNBOUNDED = 10_000
"""Cells of a table in a file: as many as it takes."""
_TRACE = {
    "member": 6,
    "epoch": 5,
    "steps": 5,
    "rate": 8,
    "loss": 9,
    "held out": 10,
    "gradient": 9,
    "99 %": 9,
    "clipped": 7,
    "memory": 6,
}
"""Columns of the trace, and how wide they are."""
_BETWEEN = 2
"""Blanks between columns."""
_SHORTEST = 8
_FEWEST = 2
"""Columns that stay, however narrow the screen is."""
Row = Sequence[str]


@dataclass
class Screen:
    """How much to say, and where."""

    is_quiet: bool = False
    is_verbose: bool = False
    is_json: bool = False
    is_tracing: bool = False
    """Whether every epoch of a training is told, a line each."""
    has_color: bool = True
    has_published: bool = False
    """Whether what was asked for is done: what fails from then on is only the telling."""
    _progress: Progress | None = None
    _bars: dict[str, TaskID] = field(default_factory=dict)
    _has_traced: bool = False
    _begun: dict[str, float] = field(default_factory=dict)
    """When a task was heard of first, in seconds."""

    def __call__(self, event: Event) -> None:
        """Listen to long work: progress on a terminal, lines elsewhere."""
        match event:
            case Warned():
                self.note(f"warning: {event.message}")
            case Noted():
                if not self.is_quiet:
                    self.note(event.message)
            case EpochEnded():
                if self.is_tracing:
                    self._trace(event)
                elif self.is_verbose:
                    self.note(_epoch_line(event))
            case Progressed():
                with suppress(OSError, ValueError):  # the terminal may be gone
                    self._advance(event)
            case Published():
                self.has_published = True

    def _trace(self, epoch: EpochEnded) -> None:
        if not self._has_traced:
            self._has_traced = True
            self.note("  ".join(f"{name:>{width}}" for name, width in _TRACE.items()))
        self.note("  ".join(_traced(epoch)))

    def note(self, message: str) -> None:
        """Say one line on standard error; where nobody takes it, nothing but the line is lost."""
        with suppress(OSError, ValueError):
            if self._progress is not None:
                self._progress.console.print(printable(message), markup=False, highlight=False)
            else:
                print(printable(message), file=sys.stderr)

    def result(self, text: str) -> None:
        """Write a line of the result to standard output."""
        print(printable(text))

    def document(self, value: Mapping[str, Any]) -> None:
        """Write the result as one JSON document."""
        print(_json(value, sys.stdout, indent=2))

    def table(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None
    ) -> None:
        """Draw a table on standard output; all columns but the first are figures.

        It is no wider than the screen, where there is one; columns that did not fit are named on
        standard error.
        """
        from rich.table import Table
        from rich.text import Text

        if title:
            self.result(title)
        console = self._rich(sys.stdout, off_screen=_UNBOUNDED)
        shown: list[Row] = [[printable(cell) for cell in row] for row in rows]
        header, shown, left_out = fit_table(header, shown, console.width)
        drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for place, name in enumerate(header):
            drawn.add_column(name, justify="right" if place else "left", no_wrap=True)
        for row in shown:
            drawn.add_row(*map(Text, row))
        console.print(drawn)
        if left_out and not self.is_quiet:
            self.note(f"the screen is too narrow for {', '.join(left_out)}; --json has all")

    def picture(self, draw: Callable[[int, bool, bool], Sequence[str]]) -> None:
        """Write lines that `draw` makes for a width, with colour or not, in Unicode or not."""
        console = self._rich(sys.stdout)
        encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
        is_unicode = encoding.replace("-", "").startswith("utf")
        for line in draw(console.width, console.color_system is not None, is_unicode):
            print(line)

    def error(self, error: RnnForecastError) -> int:
        """Say what was found, where, and what to type next; return the exit code."""
        self.close()
        with suppress(OSError, ValueError):  # the code says it, too
            if self.is_json:
                print(_json(error_document(error), sys.stderr), file=sys.stderr)
            else:
                print("\n".join(error_lines(error)), file=sys.stderr)
        return error.exit_code

    def close(self) -> None:
        """End the progress bars, if there are any."""
        if self._progress is not None:
            with suppress(OSError, ValueError):
                self._progress.stop()
            self._progress = None
            self._bars.clear()
        self._begun.clear()

    def _shows_bars(self) -> bool:
        return not self.is_quiet and not self.is_json and sys.stderr.isatty()

    def _advance(self, event: Progressed) -> None:
        """Move a bar; there is none for what is over within a second."""
        if not self._shows_bars():
            return
        now = time.monotonic()
        is_new = event.task not in self._bars
        begun = self._begun.setdefault(event.task, now)
        if is_new and (now - begun < _BAR_AFTER_S or event.done >= event.total):
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
            console=self._rich(sys.stderr),
            transient=True,
        )
        progress.start()
        return progress

    def _rich(self, file: TextIO, *, off_screen: int = 100) -> Console:
        """Make a console as wide as the screen; where there is none, `off_screen` cells."""
        from rich.console import Console

        width = None if file.isatty() or "COLUMNS" in os.environ else off_screen
        if self.has_color:
            return Console(file=file, width=width)
        return Console(file=file, width=width, color_system=None)


def printable(text: str) -> str:
    """Escape control characters, so that no text from a file steers the terminal; cut it short."""
    safe = "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)
    return safe if len(safe) <= 5 * _LONGEST else safe[: 5 * _LONGEST] + "..."


def _json(value: Mapping[str, Any], stream: TextIO, *, indent: int | None = None) -> str:
    """Write JSON for a stream, with escapes for what does not fit into it.

    And for what would look like the end of a line: JSON lets some such characters stand.
    """
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
    text = json.dumps(value, indent=indent, ensure_ascii=encoding != "utf8", allow_nan=False)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def error_document(error: RnnForecastError) -> dict[str, Any]:
    """Return the contract's JSON object for a failure."""
    at = error.location
    document = {
        "code": error.code,
        "exit": error.exit_code,
        "message": error.message,
        "file": at and at.file,
        "line": at and at.line,
        "column": at and at.column,
        "hint": error.hint,
    }
    return {"error": {key: value for key, value in document.items() if value is not None}}


def error_lines(error: RnnForecastError) -> list[str]:
    """Return a failure as lines: message, place, the user's own line with a caret, fix."""
    lines = [f"error: {printable(error.message)}"]
    at = error.location
    if at is not None:
        number = "" if at.line is None else f":{at.line}"
        place = "" if at.column_number is None else f"{at.column_number} "
        column = "" if at.column is None else f"  column {place}{printable(at.column)!r}"
        lines.append(f"  --> {printable(at.file)}{number}{column}")
        if at.text is not None:
            lines += _quoted(at.text, at.token)
        if at.also_lines:
            lines.append(f"   = also lines {_listed(at.also_lines)}")
    if error.hint:
        lines.append(f"   = help: {printable(error.hint)}")
    return lines


def _quoted(text: str, token: str | None) -> list[str]:
    shown = printable(text)
    begin = shown.find(printable(token)) if token else -1
    cut = max(0, begin - _LONGEST // 2)
    lines = [f"   |  {shown[cut : cut + _LONGEST]}"]
    if token and begin >= 0:
        lines.append(f"   |  {' ' * (begin - cut)}{'^' * min(len(printable(token)), 40)}")
    return lines


def _listed(numbers: Sequence[int]) -> str:
    texts = [str(n) for n in numbers]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _epoch_line(event: EpochEnded) -> str:
    held_out = "" if event.validation_loss is None else f", held out {event.validation_loss:.4f}"
    best = " (best)" if event.is_best else ""
    return (
        f"epoch {event.epoch} of member {event.member}: loss {event.train_loss:.4f}{held_out}"
        f"{best}; gradient norm {event.gradient_norm:.3f}, {100 * event.clipped:.0f} % clipped"
    )


def _traced(epoch: EpochEnded) -> list[str]:
    """Return what a line of the trace says of an epoch, as wide as its columns; * is the best."""
    cells = (
        str(epoch.member),
        str(epoch.epoch),
        str(epoch.steps),
        f"{epoch.learning_rate:.1e}",
        figure(epoch.train_loss),
        figure(epoch.validation_loss) + ("*" if epoch.is_best else " "),
        figure(epoch.gradient_norm),
        figure(epoch.gradient_norm_99),
        f"{100 * epoch.clipped:.0f} %",
        "-" if epoch.effective_memory is None else str(epoch.effective_memory),
    )
    return [f"{cell:>{width}}" for cell, width in zip(cells, _TRACE.values(), strict=True)]


def fit_table(header: Row, rows: Sequence[Row], width: int) -> tuple[Row, list[Row], Row]:
    """Return a table at most so many cells wide, and the headings of columns that are left out.

    The first column holds names: they give way first, from their middle. Then columns go from the
    right, where the least important ones stand.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
    n = len(header)
    while n > _FEWEST and _total([min(widths[0], _SHORTEST), *widths[1:n]]) > width:
        n -= 1
    room = max(_SHORTEST, width - _total([0, *widths[1:n]]))
    kept = [[_shorten(row[0], room), *row[1:n]] for row in (header, *rows)]
    return kept[0], [*kept[1:]], header[n:]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _BETWEEN * (len(widths) - 1)


def _shorten(text: str, room: int) -> str:
    """Leave out the middle of a text that is wider than its room; some characters are two cells."""
    from rich.cells import cell_len

    if cell_len(text) <= room:
        return text
    begin, end = "", ""
    for left, right in zip(text, reversed(text), strict=True):
        if cell_len(begin + left + "…" + end) > room:
            break
        begin += left
        if cell_len(begin + "…" + right + end) > room:
            break
        end = right + end
    return f"{begin}…{end}"
