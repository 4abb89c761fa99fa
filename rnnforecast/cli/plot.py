"""`rnnforecast plot` and `anomalies`: the commands and what they print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import (
    CommonOptions,
    Data,
    Given,
    ModelPath,
    Version,
    saved,
    screen_of,
    with_options,
)
from rnnforecast.cli.console import Screen
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import (
    BAND,
    DEFAULT_MODEL,
    STANDARD_OUTPUT,
    AnomalyConfig,
    PlotConfig,
)
from rnnforecast.errors import UsageError
from rnnforecast.units import figure

if TYPE_CHECKING:
    from rnnforecast.evaluate.anomalies import Episode
    from rnnforecast.evaluate.postprocess import Prediction
    from rnnforecast.report.plots import Fan
    from rnnforecast.workflow.inspect import Search

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
    from rnnforecast.report.plots import terminal_plot

    for fan in fans:
        shown = fan.only((*BAND, 0.5)) if set(BAND) <= set(fan.quantiles) else fan

        def draw(width: int, has_color: bool, is_unicode: bool, fan: Fan = shown) -> list[str]:  # noqa: FBT001
            return terminal_plot(fan, width=width, has_color=has_color, is_unicode=is_unicode)

        screen.picture(draw)


def show_prediction(prediction: Prediction, screen: Screen) -> None:
    """Draw the first series of a forecast that was just made."""
    import numpy as np

    from rnnforecast.report.plots import fans_of, rows_back

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
    from rnnforecast.data.timestamps import format_stamp

    return format_stamp(one.begin_us, tz), format_stamp(one.end_us, tz)


@with_options
def plot(
    context: typer.Context,
    *,
    common: CommonOptions,
    looks: PlotConfig,
    data: Annotated[
        str | None, typer.Option(help="Readings to show before and beside the forecast.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="PATH",
            help="Read the data as this model does. Default: model, if it is there.",
        ),
    ] = None,
    version: Version = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A .png, .svg or .html file.")
    ] = None,
) -> None:
    """Show a forecast with the readings around it: in the terminal, or as a picture."""
    from rnnforecast.config import commands

    screen = screen_of(context, common)
    if model is None and data is not None and (Path(DEFAULT_MODEL) / "CURRENT").is_file():
        model = DEFAULT_MODEL
    is_shown = output is None and not common.json
    fans = rnnforecast.plot(
        data,
        config=looks,
        model=saved(model, version),
        output=output,
        most=MOST_SHOWN if is_shown else commands.MOST_DRAWN,
        listener=screen,
    )
    if common.json:
        screen.document(plot_document(fans, output))
    elif output is None:
        show_fans(fans, screen)
    else:
        screen.result(f"written: {output} ({len(fans)} series)")


@with_options
def anomalies(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    judging: AnomalyConfig,
    common: CommonOptions,
    given: Given,
    model: ModelPath = DEFAULT_MODEL,
    version: Version = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A .csv, .parquet or .jsonl file of all, or -"),
    ] = None,
) -> None:
    """List readings that left their band: each held against a forecast that had not seen it."""
    if output == STANDARD_OUTPUT and common.json:
        raise UsageError("--json and -o - both want standard output", hint="name an output file")
    screen = screen_of(context, common)
    search = rnnforecast.anomalies(
        data,
        model=rnnforecast.load(model, version=version),
        config=judging,
        reading=reading,
        given=given,
        output=output,
        listener=screen,
    )
    screen.has_published = output not in (None, STANDARD_OUTPUT)
    screen.close()
    if common.json:
        screen.document(anomalies_document(search, output))
    elif output != STANDARD_OUTPUT:
        print_anomalies(search, output, screen)
