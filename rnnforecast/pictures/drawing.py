"""Fans drawn with matplotlib, which is imported only where something is drawn."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rnnforecast.data.panel import Doubles, Integers
from rnnforecast.pictures.fan import Fan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    import pandas as pd

    return pd.DatetimeTZDtype(tz=tz).tz


def visible(text: str) -> str:
    """Return a text with blanks for what cannot be seen, such as the codes that steer terminals."""
    return "".join(c if c.isprintable() else " " for c in text)


def _one_line(text: str, longest: int = 40) -> str:
    """Return a name that fits above a picture."""
    text = visible(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"
