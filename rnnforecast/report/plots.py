"""Plots of forecasts with their history: PNG and SVG, and in the terminal."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.timestamps import format_stamp
from rnnforecast.data.windows import Past, Values
from rnnforecast.units import figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from plotille import Canvas

_STYLE: Any = {
    "font.family": ["DejaVu Sans", "Noto Sans CJK JP", "Noto Sans", "sans-serif"],
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "text.usetex": False,
    "text.parse_math": False,  # a sensor may be called $x$
    "svg.fonttype": "none",
}
_MAX_COLUMNS = 3
_WIDTH, _HEIGHT = 5.2, 3.1
"""Inches of one fan."""
_LABEL = 9
"""Characters left of the frame."""
_NARROWEST = 10
_EMPTY, _LAST = "\u2800", "\u28ff"
_PLAIN = str.maketrans({"┤": "|", "┊": ":", "└": "+", "─": "-", "┴": "+", "…": "."})
_HORIZONS_BACK = 3
_FEWEST_BACK = 24


@dataclass(frozen=True)
class Palette:
    """Colours; forecast and readings differ for colour-blind eyes, too (Okabe and Ito 2008)."""

    ink: str = "#1b1b1b"
    muted: str = "#6b6b6b"
    grid: str = "#dddddd"
    readings: str = "#1b1b1b"
    forecast: str = "#0072b2"
    other: str = "#d55e00"
    third: str = "#8a5a9e"


@contextmanager
def drawing(palette: Palette) -> Iterator[None]:
    """Set matplotlib's style for the time of a drawing.

    It says nothing of its caches meanwhile: a job that cron starts may have no home to keep them.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    import matplotlib as mpl

    colours: Any = {
        "text.color": palette.ink,
        "axes.labelcolor": palette.ink,
        "axes.edgecolor": palette.muted,
        "xtick.color": palette.muted,
        "ytick.color": palette.muted,
        "xtick.labelcolor": palette.ink,
        "ytick.labelcolor": palette.ink,
        "grid.color": palette.grid,
    }
    try:
        with mpl.rc_context({**_STYLE, **colours}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box is drawn
            yield
    finally:
        logger.setLevel(level)


def new_figure(width: float = _WIDTH, height: float = _HEIGHT) -> Figure:
    """Make an empty figure of so many inches that nobody else knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw_fan(axes: Axes, fan: Fan, palette: Palette) -> None:
    """Draw readings, bands, median, and what came, if it is known. Gaps stay gaps."""
    times, ahead = _moments(fan.times_us), _moments(fan.ahead_us)
    bands = fan.bands
    for share, low, high in bands:
        label = f"{100 * share:g} % band"
        alpha = 0.45 if len(bands) == 1 else 0.2
        axes.fill_between(
            ahead, low, high, color=palette.forecast, alpha=alpha, linewidth=0, label=label
        )
    _draw_line(axes, times, fan.readings, palette.readings, label="readings")
    if fan.actual is not None:
        _draw_line(axes, ahead, fan.actual, palette.readings)
    _draw_line(axes, ahead, fan.point, palette.forecast, label="forecast", width=1.8)
    if len(times) and len(ahead):
        axes.axvline(times[-1], color=palette.muted, linewidth=0.8, linestyle=":")
    axes.set_title(_one_line(fan.name))
    axes.margins(x=0.01)
    _write_dates(axes, fan.tz)


def draw_fans(fans: Sequence[Fan], palette: Palette | None = None) -> Figure:
    """Draw one or many, in up to three columns, with one legend. Within `drawing`."""
    palette = palette or Palette()
    n_columns = min(_MAX_COLUMNS, math.ceil(math.sqrt(len(fans))))
    n_rows = math.ceil(len(fans) / n_columns)
    wide = 2.0 if len(fans) == 1 else 1.0
    figure = new_figure(_WIDTH * n_columns * wide, _HEIGHT * n_rows * (1.4 if wide > 1 else 1))
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, fan in zip(grid, fans, strict=False):
        draw_fan(axes, fan, palette)
    for axes in grid[len(fans) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def picture(fans: Sequence[Fan], kind: str) -> bytes:
    """Return a PNG or an SVG of these fans; `kind` is `png` or `svg`."""
    palette, buffer = Palette(), io.BytesIO()
    with drawing(palette):
        figure = draw_fans(fans, palette)
        when = {"Date": None} if kind == "svg" else None
        figure.savefig(buffer, format=kind, dpi=120, metadata=when)
    return buffer.getvalue()


def _draw_line(
    axes: Axes,
    times: np.ndarray[tuple[int], np.dtype[np.datetime64]],
    values: Doubles,
    colour: str,
    *,
    label: str | None = None,
    width: float = 1.2,
) -> None:
    """Draw a line; a value without neighbours becomes a dot, or nobody would see it."""
    axes.plot(times, values, color=colour, linewidth=width, label=label)
    there = np.isfinite(values)
    beside = np.zeros(len(values), bool)
    beside[1:] |= there[:-1]
    beside[:-1] |= there[1:]
    lonely = there & ~beside
    if lonely.any():
        axes.plot(times[lonely], values[lonely], ".", color=colour, markersize=3)


def _moments(times_us: Integers) -> np.ndarray[tuple[int], np.dtype[np.datetime64]]:
    return times_us.astype("datetime64[us]")


def _write_dates(axes: Axes, tz: str | None) -> None:
    from matplotlib import dates

    zone, kinds = _zone(tz), cast(Any, dates)  # matplotlib's types end here
    locator = kinds.AutoDateLocator(tz=zone, minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(kinds.ConciseDateFormatter(locator, tz=zone))


def _zone(tz: str | None) -> tzinfo:
    if tz is None:
        return UTC

    return pd.DatetimeTZDtype(tz=tz).tz


def visible(text: str) -> str:
    """Return a text with blanks for what cannot be seen, such as the codes that steer terminals."""
    return "".join(c if c.isprintable() else " " for c in text)


def _one_line(text: str, longest: int = 40) -> str:
    """Return a name that fits above a picture."""
    text = visible(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


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


@dataclass(frozen=True)
class Fan:
    """Readings and forecast of one series; times are microseconds since 1970."""

    name: str
    times_us: Integers
    """`(row,)`: when readings were due, a step apart."""
    readings: Doubles
    """`(row,)`, NaN where one is missing."""
    ahead_us: Integers
    """`(lead,)`."""
    values: Doubles
    """`(lead, quantile)`; NaN where nothing was forecast."""
    quantiles: tuple[float, ...]
    """Ascending, with the median."""
    actual: Doubles | None = None
    """`(lead,)`: what came, NaN where it is not known; None where nothing is."""
    tz: str | None = None

    @property
    def point(self) -> Doubles:
        """The median, `(lead,)`."""
        median: Doubles = self.values[:, self.quantiles.index(0.5)]
        return median

    @property
    def bands(self) -> list[tuple[float, Doubles, Doubles]]:
        """The share that lies between two quantiles with equal tails, and both, widest first."""
        found = []
        for place, level in enumerate(self.quantiles):
            partner = next((q for q in self.quantiles if abs(q + level - 1) < 1e-9), None)
            if level < 0.5 and partner is not None:
                upper = self.values[:, self.quantiles.index(partner)]
                found.append((partner - level, self.values[:, place], upper))
        return found

    def latest(self, n_rows: int) -> Fan:
        """Return the fan with at most so many of its newest readings."""
        first = max(0, len(self.times_us) - n_rows)
        return replace(self, times_us=self.times_us[first:], readings=self.readings[first:])

    def only(self, levels: tuple[float, ...]) -> Fan:
        """Return the fan with those of its quantiles that are among these levels."""
        at = [place for place, level in enumerate(self.quantiles) if level in levels]
        return replace(
            self, values=self.values[:, at], quantiles=tuple(self.quantiles[i] for i in at)
        )


def rows_back(horizon: int) -> int:
    """Return how many readings before a forecast of so many steps are worth a look."""
    return max(_FEWEST_BACK, _HORIZONS_BACK * horizon)


def fans_of(
    past: Past, forecast: Forecast, *, n_rows: int, actual: Values | None = None
) -> list[Fan]:
    """Return a fan for each origin of a forecast, with its last `n_rows` readings.

    The origins of both must be the same; `actual` is `(origin, lead)`. Rows before the first
    reading of a series are left out.
    """
    history = past.history(n_rows).astype(np.float64) + past.base[:, None]
    times = forecast.cutoff_us[:, None] + np.arange(1 - n_rows, 1) * forecast.step_us
    begins = [int(np.argmax(row)) if row.any() else n_rows for row in np.isfinite(history)]
    return [
        Fan(
            forecast.names[i],
            times[i, begin:],
            history[i, begin:],
            forecast.times_us[i],
            forecast.values[i].astype(np.float64),
            forecast.quantiles,
            None if actual is None else actual[i].astype(np.float64),
            forecast.tz,
        )
        for i, begin in enumerate(begins)
    ]
