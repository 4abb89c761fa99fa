"""What `plot` and `anomalies` show: pictures in the terminal, tables, JSON documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rnnforecast.config import BAND
from rnnforecast.console import Screen
from rnnforecast.numerals import figure

if TYPE_CHECKING:
    from rnnforecast.evaluate.anomalies import Episode
    from rnnforecast.evaluate.fallback import Prediction
    from rnnforecast.pictures.fan import Fan
    from rnnforecast.workflow import Search

_EPISODES_SHOWN = 10
MOST_SHOWN = 3
"""Series in the terminal, unless more are named."""


def plot_document(fans: Sequence[Fan], output: str | None) -> dict[str, Any]:
    """Return what `plot --json` prints."""
    return {
        "output": output,
        "series": [
            {
                "series": fan.name,
                "readings": len(fan.times_us),
                "steps": len(fan.ahead_us),
                "actuals": None if fan.actual is None else int((fan.actual == fan.actual).sum()),
            }
            for fan in fans
        ],
    }


def show_fans(fans: Sequence[Fan], screen: Screen) -> None:
    """Draw fans in the terminal, one below the other."""
    from rnnforecast.pictures.terminal import terminal_plot

    for fan in fans:
        shown = fan.only((*BAND, 0.5)) if set(BAND) <= set(fan.quantiles) else fan

        def draw(width: int, has_color: bool, is_unicode: bool, fan: Fan = shown) -> list[str]:  # noqa: FBT001
            return terminal_plot(fan, width=width, has_color=has_color, is_unicode=is_unicode)

        screen.picture(draw)


def show_prediction(prediction: Prediction, screen: Screen) -> None:
    """Draw the first series of a forecast that was just made."""
    import numpy as np

    from rnnforecast.pictures.fan import fans_of, rows_back

    forecast = prediction.forecast
    first = np.arange(len(forecast.names)) < MOST_SHOWN
    past = prediction.past.subset(first)
    fans = fans_of(past, forecast.subset(first), n_rows=rows_back(forecast.horizon))
    show_fans(fans, screen)
    left = len(prediction.forecast.names) - len(fans)
    if left and not screen.is_quiet:
        screen.note(f"{left} more series are not shown; see them with  rnnforecast plot --series")


def anomalies_document(search: Search, output: str | None) -> dict[str, Any]:
    """Return what `anomalies --json` prints."""
    found = search.found
    return {
        "output": output,
        "judged": found.n_judged,
        "count": len(found.series),
        "episodes": [_episode_document(one, found.tz) for one in search.episodes],
        "warnings": [asdict(warning) for warning in search.warnings],
    }


def print_anomalies(search: Search, output: str | None, screen: Screen) -> None:
    """Print the episodes, the most surprising first, and how many readings were judged."""
    found = search.found
    shown = search.episodes[:_EPISODES_SHOWN]
    rows = [
        (one.series, str(begin), str(end), str(one.count), figure(one.surprise))
        for one in shown
        for begin, end in [_ends(one, found.tz)]
    ]
    if rows and not screen.is_quiet:
        screen.table(("series", "from", "to", "readings", "surprise"), rows)
    if len(search.episodes) > len(shown):
        screen.result(f"and {len(search.episodes) - len(shown)} more episodes")
    screen.result(f"{len(found.series)} of {found.n_judged} readings left their band that far")
    if output is not None:
        screen.result(f"written: {output}")


def _episode_document(one: Episode, tz: str | None) -> dict[str, Any]:
    begin, end = _ends(one, tz)
    return {
        "series": one.series,
        "from": begin,
        "to": end,
        "count": one.count,
        "surprise": round(one.surprise, 3),
    }


def _ends(one: Episode, tz: str | None) -> tuple[str, str]:
    from rnnforecast.data.stamps import format_stamp

    return format_stamp(one.begin_us, tz), format_stamp(one.end_us, tz)
