"""Pictures in the terminal, in braille dots, for a person who looks over ssh: a fan, or a curve.

The dots come from plotille's canvas; the frame is drawn here, so that no line is wider than asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rnnforecast.data.panel import Doubles, Integers
from rnnforecast.data.stamps import format_stamp
from rnnforecast.numerals import figure
from rnnforecast.pictures.drawing import visible
from rnnforecast.pictures.fan import Fan

if TYPE_CHECKING:
    from plotille import Canvas

_LABEL = 9
"""Characters left of the frame."""
_NARROWEST = 10
_EMPTY, _LAST = "\u2800", "\u28ff"
_PLAIN = str.maketrans({"┤": "|", "┊": ":", "└": "+", "─": "-", "┴": "+", "…": "."})


def terminal_plot(
    fan: Fan, *, width: int, height: int = 14, has_color: bool = False, is_unicode: bool = True
) -> list[str]:
    """Return the lines of a picture, each at most `width` characters wide.

    Bands are their edges, the forecast's begin is a dotted line. Colours are those of ANSI
    terminals; without Unicode dots become stars.
    """
    n_columns = max(_NARROWEST, width - _LABEL - 1)
    times = np.concatenate([fan.times_us, fan.ahead_us])
    there = [v for _, values, _ in _curves(fan) for v in values[np.isfinite(values)]]
    if not there:
        return [f"{fan.name}: there is nothing to show"]
    low, high = _around(min(there), max(there))
    begin, end = int(times.min()), max(int(times.max()), int(times.min()) + 1)
    canvas = _canvas((n_columns, height), (begin, end), (low, high))
    if len(fan.ahead_us) and len(fan.times_us):
        _mark(canvas, int(fan.ahead_us[0]), low, high, height)
    for moments, values, colour in _curves(fan):
        _draw(canvas, moments, values, colour if has_color else None)
    lines = [_fit(_heading(fan), n_columns + _LABEL + 1)]
    lines += _framed(canvas, low, high)
    lines += _time_axis(fan, begin, end, n_columns)
    return lines if is_unicode else [_in_ascii(line) for line in lines]


def terminal_curve(
    title: str,
    places: Sequence[float],
    values: Sequence[float],
    ends: tuple[str, str],
    *,
    width: int,
    height: int = 8,
    has_color: bool = False,
    is_unicode: bool = True,
) -> list[str]:
    """Return the lines of a curve over places that increase; `ends` are those of its axis."""
    n_columns = max(_NARROWEST, width - _LABEL - 1)
    low, high = _around(min(values), max(values))
    begin, end = places[0], max(places[-1], places[0] + 1)
    canvas = _canvas((n_columns, height), (begin, end), (low, high))
    _draw(canvas, np.array(places), np.array(values), "blue" if has_color else None)
    first, last = ends
    space = max(1, n_columns - len(first) - len(last))
    lines = [_fit(title, n_columns + _LABEL + 1), *_framed(canvas, low, high)]
    lines += [f"{'':{_LABEL}}└{'─' * n_columns}"]
    lines += [_fit(f"{'':{_LABEL + 1}}{first}{'':{space}}{last}", n_columns + _LABEL + 1)]
    return lines if is_unicode else [_in_ascii(line) for line in lines]


def _framed(canvas: Canvas, low: float, high: float) -> list[str]:
    """Return the rows of a canvas, with what the highest, the middle and the lowest stand for."""
    rows = canvas.plot(linesep="\n").split("\n")
    height = len(rows)
    labels = {0: figure(high), height // 2: figure((low + high) / 2), height - 1: figure(low)}
    return [f"{labels.get(i, '')[:_LABEL]:>{_LABEL}}┤{row}" for i, row in enumerate(rows)]


def _curves(fan: Fan) -> Iterator[tuple[Integers, Doubles, str | None]]:
    """Give what is drawn, the most important last: times, values, colour (None: the text's)."""
    for _, low, high in fan.bands[:1]:
        yield fan.ahead_us, low, "cyan"
        yield fan.ahead_us, high, "cyan"
    yield fan.times_us, fan.readings, None
    if fan.actual is not None:
        yield fan.ahead_us, fan.actual, None
    yield fan.ahead_us, fan.point, "blue"


def _canvas(
    size: tuple[int, int], times: tuple[float, float], values: tuple[float, float]
) -> Canvas:
    from plotille import Canvas

    (begin, end), (low, high) = times, values
    return Canvas(*size, xmin=float(begin), ymin=low, xmax=float(end), ymax=high, mode="names")


def _around(low: float, high: float) -> tuple[float, float]:
    """Return limits with a little room around, or some around a single value."""
    room = 0.03 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _mark(canvas: Canvas, since_us: int, low: float, high: float, height: int) -> None:
    for value in np.linspace(low, high, 2 * height):
        canvas.point(float(since_us), float(value))


def _draw(canvas: Canvas, times: Integers | Doubles, values: Doubles, colour: str | None) -> None:
    """Draw lines between neighbours; a missing value leaves a gap, a lonely one is a dot."""
    there = np.isfinite(values)
    x = times.astype(np.float64)
    for i in np.flatnonzero(there):
        if i and there[i - 1]:
            ends = (x[i - 1], values[i - 1], x[i], values[i])
            canvas.line(*map(float, ends), color=colour)
        else:
            canvas.point(float(x[i]), float(values[i]), color=colour)


def _heading(fan: Fan) -> str:
    edges = f", {100 * fan.bands[0][0]:g} % band" if fan.bands else ""
    return f"{fan.name}: readings, then forecast{edges}"


def _time_axis(fan: Fan, begin: int, end: int, n_columns: int) -> list[str]:
    """Return the axis with the first and the last time, and when the forecast begins."""
    first, last = format_stamp(begin, fan.tz), format_stamp(end, fan.tz)
    axis = ["─"] * n_columns
    lines = [f"{'':{_LABEL}}└{''.join(axis)}"]
    if len(fan.ahead_us):
        place = round((int(fan.ahead_us[0]) - begin) / (end - begin) * (n_columns - 1))
        axis[min(max(place, 0), n_columns - 1)] = "┴"
        lines = [f"{'':{_LABEL}}└{''.join(axis)}"]
        since = f"forecast from {format_stamp(int(fan.ahead_us[0]), fan.tz)}"
        at = min(max(0, place - len(since) // 2), max(0, n_columns - len(since)))
        lines.append(_fit(f"{'':{_LABEL + 1 + at}}{since}", n_columns + _LABEL + 1))
    space = n_columns - len(first) - len(last)
    ends = f"{first}{'':{space}}{last}" if space > 0 else first
    return [*lines, _fit(f"{'':{_LABEL + 1}}{ends}", n_columns + _LABEL + 1)]


def _fit(text: str, width: int) -> str:
    text = visible(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def _in_ascii(line: str) -> str:
    dots = dict.fromkeys(range(ord(_EMPTY) + 1, ord(_LAST) + 1), "*") | {ord(_EMPTY): " "}
    return line.translate(dots).translate(_PLAIN).encode("ascii", "replace").decode()
