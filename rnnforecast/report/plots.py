"""Plots of forecasts with their history: PNG, SVG, and text for the terminal."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.axis import format_timestamp
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.windows import Past, Values
from rnnforecast.units import format_number

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
_DATES = ["%Y", "%Y-%m", "%d %b", "%H:%M", "%H:%M", "%S.%f"]
"""Labels of ticks a year, a month, a day, an hour, a minute or a second apart."""
_ZERO_DATES = ["%Y", "%Y-%m", "%d %b", "%d %b", "%H:%M", "%H:%M"]
"""Labels of the first tick of a year, a month, ..., among ticks of the next shorter kind."""
_DATE_OFFSETS = ["", "", "%Y", "%Y-%m-%d", "%Y-%m-%d", "%Y-%m-%d %H:%M"]
"""What the ticks leave open, at the end of the axis."""
_LABEL = 9
"""Characters left of the frame of a plot in the terminal."""
_MIN_COLUMNS = 10
_FAN_ROWS, _CURVE_ROWS = 14, 8
"""Lines of a plot in the terminal."""
_FIRST_BRAILLE, _LAST_BRAILLE = "\u2800", "\u28ff"
"""The first one is blank."""
_ASCII = str.maketrans({"┤": "|", "┊": ":", "└": "+", "─": "-", "┴": "+", "…": "."})
_HORIZONS_BACK, _MIN_ROWS_BACK = 3, 24
"""Readings before a forecast, in horizons, and at least."""


@dataclass(frozen=True)
class Fan:
    """Readings and forecast of one series; times are microseconds since 1970."""

    name: str
    times_us: Integers
    """`(row,)`: times of the readings, UTC, a step apart."""
    readings: Doubles
    """`(row,)`, NaN where missing."""
    ahead_us: Integers
    """`(lead,)`: times of the forecast, UTC."""
    values: Doubles
    """`(lead, quantile)`; NaN where nothing was forecast."""
    quantiles: tuple[float, ...]
    """Ascending, with the median."""
    actual: Doubles | None = None
    """`(lead,)`: actuals, NaN where unknown; None where all are."""
    tz: str | None = None

    @property
    def point(self) -> Doubles:
        """The median, `(lead,)`."""
        median: Doubles = self.values[:, self.quantiles.index(0.5)]
        return median

    @property
    def bands(self) -> list[tuple[float, Doubles, Doubles]]:
        """Share between two quantiles with equal tails, and both quantiles; the widest first."""
        bands = []
        for index, level in enumerate(self.quantiles):
            partner = next((q for q in self.quantiles if abs(q + level - 1) < 1e-9), None)
            if level < 0.5 and partner is not None:
                upper = self.values[:, self.quantiles.index(partner)]
                bands.append((partner - level, self.values[:, index], upper))
        return bands

    def only(self, levels: tuple[float, ...]) -> Fan:
        """Return the fan with those of its quantiles that are among these levels."""
        at = [index for index, level in enumerate(self.quantiles) if level in levels]
        return replace(
            self, values=self.values[:, at], quantiles=tuple(self.quantiles[i] for i in at)
        )


def n_rows_back(horizon: int) -> int:
    """Return the number of readings to show before a forecast of `horizon` steps."""
    return max(_MIN_ROWS_BACK, _HORIZONS_BACK * horizon)


def make_fans(
    past: Past, forecast: Forecast, *, n_rows: int, actual: Values | None = None
) -> list[Fan]:
    """Return a fan for each origin of a forecast, with its last `n_rows` readings.

    The origins of both must be the same; `actual` is `(origin, lead)`. Rows before the first
    reading of a series are left out.
    """
    axis = forecast.axis
    history = past.history(n_rows).astype(np.float64) + past.base[:, None]
    times = forecast.cutoff_us[:, None] + np.arange(1 - n_rows, 1) * forecast.step_us
    begins = [int(np.argmax(row)) if row.any() else n_rows for row in np.isfinite(history)]
    return [
        Fan(
            forecast.names[i],
            axis.to_utc(times[i, begin:]),
            history[i, begin:],
            axis.to_utc(forecast.times_us[i]),
            forecast.values[i].astype(np.float64),
            forecast.quantiles,
            None if actual is None else actual[i].astype(np.float64),
            axis.tz,
        )
        for i, begin in enumerate(begins)
    ]


@dataclass(frozen=True)
class Palette:
    """Colours. Forecast and readings differ for colour-blind eyes, too (Okabe and Ito 2008)."""

    ink: str = "#1b1b1b"
    muted: str = "#6b6b6b"
    grid: str = "#dddddd"
    readings: str = "#1b1b1b"
    forecast: str = "#0072b2"
    other: str = "#d55e00"
    third: str = "#8a5a9e"


@contextmanager
def drawing(palette: Palette) -> Iterator[None]:
    """Set matplotlib's style within the context.

    Its warnings are silenced, too: a job of cron may have no home directory for its caches.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)  # before the import, which looks for the caches
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
    """Return an empty figure of this size in inches, which pyplot does not manage."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw_fan(axes: Axes, fan: Fan, palette: Palette) -> None:
    """Draw readings, bands, median, and the actuals that are known. Gaps stay gaps."""
    from matplotlib import dates

    times, ahead = _datetimes(fan.times_us), _datetimes(fan.ahead_us)
    bands = fan.bands
    alpha = 0.45 if len(bands) == 1 else 0.2
    for share, low, high in bands:
        label = f"{100 * share:g} % band"
        axes.fill_between(
            ahead, low, high, color=palette.forecast, alpha=alpha, linewidth=0, label=label
        )
    _draw_line(axes, times, fan.readings, palette.readings, label="readings")
    if fan.actual is not None:
        _draw_line(axes, ahead, fan.actual, palette.readings)
    _draw_line(axes, ahead, fan.point, palette.forecast, label="forecast", width=1.8)
    if len(times) and len(ahead):
        axes.axvline(times[-1], color=palette.muted, linewidth=0.8, linestyle=":")

    axes.set_title(_fit(fan.name, 40))
    axes.margins(x=0.01)
    untyped = cast(Any, dates)  # matplotlib's types end here
    zone = UTC if fan.tz is None else pd.DatetimeTZDtype(tz=fan.tz).tz
    locator = untyped.AutoDateLocator(tz=zone, minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    formats = {"formats": _DATES, "zero_formats": _ZERO_DATES, "offset_formats": _DATE_OFFSETS}
    axes.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator, tz=zone, **formats))


def draw_fans(fans: Sequence[Fan]) -> Figure:
    """Draw fans in up to three columns, with one legend. Call it within `drawing`."""
    n_columns = min(_MAX_COLUMNS, math.ceil(math.sqrt(len(fans))))
    n_rows = math.ceil(len(fans) / n_columns)
    width, height = (2.0, 1.4) if len(fans) == 1 else (1.0, 1.0)
    figure = new_figure(_WIDTH * n_columns * width, _HEIGHT * n_rows * height)

    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, fan in zip(grid, fans, strict=False):
        draw_fan(axes, fan, Palette())
    for axes in grid[len(fans) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def render_image(fans: Sequence[Fan], kind: str) -> bytes:
    """Return a PNG or an SVG of these fans; `kind` is `png` or `svg`."""
    buffer = io.BytesIO()
    with drawing(Palette()):
        figure = draw_fans(fans)
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(buffer, format=kind, dpi=120, metadata=metadata)
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
    """Draw a line; a value between two gaps becomes a dot, as a line would not show it."""
    axes.plot(times, values, color=colour, linewidth=width, label=label)

    is_known = np.isfinite(values)
    has_neighbour = np.zeros(len(values), bool)
    has_neighbour[1:] |= is_known[:-1]
    has_neighbour[:-1] |= is_known[1:]
    isolated = is_known & ~has_neighbour
    if isolated.any():
        axes.plot(times[isolated], values[isolated], ".", color=colour, markersize=3)


def _datetimes(times_us: Integers) -> np.ndarray[tuple[int], np.dtype[np.datetime64]]:
    return times_us.astype("datetime64[us]")


def visible(text: str) -> str:
    """Replace unprintable characters by blanks, such as control codes of terminals."""
    return "".join(c if c.isprintable() else " " for c in text)


def _fit(text: str, width: int) -> str:
    """Return printable text of at most `width` characters."""
    text = visible(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def terminal_plot(
    fan: Fan, *, width: int, has_color: bool = False, is_unicode: bool = True
) -> list[str]:
    """Return the lines of a plot, each at most `width` characters wide.

    Of bands the edges are drawn, and a dotted line where the forecast begins. Colours are those of
    ANSI terminals; without Unicode dots become stars.
    """
    n_columns = max(_MIN_COLUMNS, width - _LABEL - 1)
    times = np.concatenate([fan.times_us, fan.ahead_us])
    known = [v for _, values, _ in _curves(fan) for v in values[np.isfinite(values)]]
    if not known:
        return [f"{fan.name}: nothing to show"]

    low, high = _padded(min(known), max(known))
    begin, end = int(times.min()), max(int(times.max()), int(times.min()) + 1)
    canvas = _canvas((n_columns, _FAN_ROWS), (begin, end), (low, high))
    if len(fan.ahead_us) and len(fan.times_us):
        for value in np.linspace(low, high, 2 * _FAN_ROWS):
            canvas.point(float(fan.ahead_us[0]), float(value))
    for curve_times, values, colour in _curves(fan):
        _draw_curve(canvas, curve_times, values, colour if has_color else None)

    edges = f", {100 * fan.bands[0][0]:g} % band" if fan.bands else ""
    title = f"{fan.name}: readings, then forecast{edges}"
    lines = [_fit(title, n_columns + _LABEL + 1), *_frame(canvas, low, high)]
    lines += _time_axis(fan, begin, end, n_columns)
    return lines if is_unicode else [*map(_to_ascii, lines)]


def terminal_curve(
    title: str,
    places: Sequence[float],
    values: Sequence[float],
    ends: tuple[str, str],
    *,
    width: int,
    has_color: bool,
    is_unicode: bool,
) -> list[str]:
    """Return the lines of a curve over increasing `places`; `ends` label the ends of the axis."""
    n_columns = max(_MIN_COLUMNS, width - _LABEL - 1)
    low, high = _padded(min(values), max(values))
    begin, end = places[0], max(places[-1], places[0] + 1)
    canvas = _canvas((n_columns, _CURVE_ROWS), (begin, end), (low, high))
    _draw_curve(canvas, np.array(places), np.array(values), "blue" if has_color else None)

    first, last = ends
    space = max(1, n_columns - len(first) - len(last))
    lines = [_fit(title, n_columns + _LABEL + 1), *_frame(canvas, low, high)]
    lines += _axis_lines("─" * n_columns, [f"{first}{'':{space}}{last}"])
    return lines if is_unicode else [*map(_to_ascii, lines)]


def _curves(fan: Fan) -> Iterator[tuple[Integers, Doubles, str | None]]:
    """Yield times, values and colour of each curve, the most important last.

    None is the colour of text.
    """
    for _, low, high in fan.bands[:1]:
        yield fan.ahead_us, low, "cyan"
        yield fan.ahead_us, high, "cyan"
    yield fan.times_us, fan.readings, None
    if fan.actual is not None:
        yield fan.ahead_us, fan.actual, None
    yield fan.ahead_us, fan.point, "blue"


def _padded(low: float, high: float) -> tuple[float, float]:
    """Return limits with 3 % of margin, or with some around a single value."""
    margin = 0.03 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _canvas(
    size: tuple[int, int], times: tuple[float, float], values: tuple[float, float]
) -> Canvas:
    from plotille import Canvas

    (begin, end), (low, high) = times, values
    return Canvas(*size, xmin=float(begin), ymin=low, xmax=float(end), ymax=high, mode="names")


def _draw_curve(
    canvas: Canvas, times: Integers | Doubles, values: Doubles, colour: str | None
) -> None:
    """Draw lines between neighbours. A missing value leaves a gap, an isolated one is a dot."""
    is_known = np.isfinite(values)
    x = times.astype(np.float64)
    for i in np.flatnonzero(is_known):
        if i and is_known[i - 1]:
            ends = (x[i - 1], values[i - 1], x[i], values[i])
            canvas.line(*map(float, ends), color=colour)
        else:
            canvas.point(float(x[i]), float(values[i]), color=colour)


def _frame(canvas: Canvas, low: float, high: float) -> list[str]:
    """Return the rows of a canvas; the first, the middle and the last with their value."""
    rows = canvas.plot(linesep="\n").split("\n")
    height = len(rows)
    labels = {
        0: format_number(high),
        height // 2: format_number((low + high) / 2),
        height - 1: format_number(low),
    }
    return [f"{labels.get(i, '')[:_LABEL]:>{_LABEL}}┤{row}" for i, row in enumerate(rows)]


def _time_axis(fan: Fan, begin: int, end: int, n_columns: int) -> list[str]:
    """Return the axis with the first and the last time, and the begin of the forecast."""
    first, last = format_timestamp(begin, fan.tz), format_timestamp(end, fan.tz)
    axis, labels = ["─"] * n_columns, []
    if len(fan.ahead_us):
        mark = round((int(fan.ahead_us[0]) - begin) / (end - begin) * (n_columns - 1))
        axis[min(max(mark, 0), n_columns - 1)] = "┴"
        label = f"forecast from {format_timestamp(int(fan.ahead_us[0]), fan.tz)}"
        indent = min(max(0, mark - len(label) // 2), max(0, n_columns - len(label)))
        labels.append(f"{'':{indent}}{label}")

    space = n_columns - len(first) - len(last)
    labels.append(f"{first}{'':{space}}{last}" if space > 0 else first)
    return _axis_lines("".join(axis), labels)


def _axis_lines(axis: str, labels: Sequence[str]) -> list[str]:
    lines = (f"{'':{_LABEL + 1}}{label}" for label in labels)
    return [f"{'':{_LABEL}}└{axis}", *(_fit(line, len(axis) + _LABEL + 1) for line in lines)]


def _to_ascii(line: str) -> str:
    blank = ord(_FIRST_BRAILLE)
    dots = dict.fromkeys(range(blank + 1, ord(_LAST_BRAILLE) + 1), "*") | {blank: " "}
    return line.translate(dots).translate(_ASCII).encode("ascii", "replace").decode()
