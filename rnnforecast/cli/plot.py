"""`rnnforecast plot` and `anomalies`: the commands and their output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import (
    CommonOptions,
    Data,
    Explicit,
    ModelPath,
    Version,
    configure_screen,
    load_optional_model,
    load_or_builtin,
    model_option,
    output_option,
    with_options,
)
from rnnforecast.cli.console import Screen
from rnnforecast.config.commands import MAX_DRAWN
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import (
    BAND,
    DEFAULT_MODEL,
    STANDARD_OUTPUT,
    AnomalyConfig,
    PlotConfig,
)
from rnnforecast.errors import UsageError
from rnnforecast.units import format_number

if TYPE_CHECKING:
    from rnnforecast.data.axis import TimeAxis
    from rnnforecast.evaluate.anomalies import Episode
    from rnnforecast.report.plots import Fan
    from rnnforecast.workflow.inspect import Search
    from rnnforecast.workflow.prediction import Prediction

_MAX_EPISODES = 10
_MAX_FANS = 3
"""Series that are drawn in the terminal, unless `--series` names more."""


def plot_document(fans: Sequence[Fan], output: str | None) -> dict[str, Any]:
    """Return the document of `plot --json`."""
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
    """Draw fan charts in the terminal, with the median and the default band only."""
    from rnnforecast.report.plots import terminal_plot

    for fan in fans:
        band = fan.only((*BAND, 0.5)) if set(BAND) <= set(fan.quantiles) else fan

        def draw(width: int, has_color: bool, is_unicode: bool, fan: Fan = band) -> list[str]:  # noqa: FBT001
            return terminal_plot(fan, width=width, has_color=has_color, is_unicode=is_unicode)

        screen.picture(draw)


def show_prediction(prediction: Prediction, screen: Screen) -> None:
    """Draw the first series of a forecast, and say how many are not drawn."""
    import numpy as np

    from rnnforecast.report.plots import make_fans, n_rows_back

    forecast = prediction.forecast
    is_drawn = np.arange(len(forecast.names)) < _MAX_FANS
    past = prediction.past.subset(is_drawn)
    fans = make_fans(past, forecast.subset(is_drawn), n_rows=n_rows_back(forecast.horizon))
    show_fans(fans, screen)
    n_more = len(forecast.names) - len(fans)
    if n_more and not screen.is_quiet:
        screen.note(f"{n_more} more series not shown; choose some with  rnnforecast plot --series")


def anomalies_document(search: Search, output: str | None) -> dict[str, Any]:
    """Return the document of `anomalies --json`."""
    anomalies, episodes = search.anomalies, []
    for episode in search.episodes:
        begin, end = _span(episode, anomalies.axis)
        episodes.append(
            {
                "series": episode.series,
                "from": begin,
                "to": end,
                "count": episode.count,
                "surprise": round(episode.surprise, 3),
            }
        )

    return {
        "output": output,
        "judged": anomalies.n_judged,
        "count": len(anomalies.series),
        "episodes": episodes,
        "warnings": [warning.to_json() for warning in search.warnings],
    }


def print_anomalies(
    search: Search, config: AnomalyConfig, output: str | None, screen: Screen
) -> None:
    """Print the first episodes, the most surprising first, and the number of anomalies."""
    anomalies, episodes = search.anomalies, search.episodes[:_MAX_EPISODES]
    rows = [
        (e.series, *_span(e, anomalies.axis), str(e.count), format_number(e.surprise))
        for e in episodes
    ]
    if rows and not screen.is_quiet:
        screen.table(("series", "from", "to", "readings", "surprise"), rows)
    if len(search.episodes) > len(episodes):
        screen.result(f"and {len(search.episodes) - len(episodes)} more episodes")

    n_anomalies = len(anomalies.series)
    above = f"above {config.at_least:g} standard deviations in {anomalies.n_judged} readings"
    screen.result(f"{n_anomalies or 'no'} anomal{'y' if n_anomalies == 1 else 'ies'} {above}")
    if output is not None:
        screen.result(f"written: {output}")


def _span(episode: Episode, axis: TimeAxis) -> tuple[str, str]:
    return axis.format(episode.begin_us), axis.format(episode.end_us)


@with_options
def plot(
    context: typer.Context,
    *,
    common: CommonOptions,
    config: PlotConfig,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Readings to draw with the forecast", rich_help_panel="Plot"
        ),
    ] = None,
    model: Annotated[
        str | None, model_option("Read the data as this model does (default: model, if it exists)")
    ] = None,
    version: Version = None,
    output: Annotated[str | None, output_option("Write a .png, .svg or .html file instead")] = None,
) -> None:
    """Plot a forecast in the terminal or to a file."""
    screen = configure_screen(context, common)
    if model is None and data is not None and (Path(DEFAULT_MODEL) / "CURRENT").is_file():
        model = DEFAULT_MODEL
    in_terminal = output is None and not common.json
    fans = rnnforecast.plot(
        data,
        config=config,
        model=load_optional_model(model, version),
        output=output,
        most=_MAX_FANS if in_terminal else MAX_DRAWN,
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
    config: AnomalyConfig,
    common: CommonOptions,
    explicit: Explicit,
    model: ModelPath = DEFAULT_MODEL,
    version: Version = None,
    output: Annotated[
        str | None,
        output_option(
            "Write all anomalies to a .csv, .parquet or .jsonl file, or - for standard output"
        ),
    ] = None,
) -> None:
    """Find anomalous readings."""
    if output == STANDARD_OUTPUT and common.json:
        raise UsageError(
            "--json and -o - both write to standard output", hint="name an output file"
        )
    screen = configure_screen(context, common)
    search = rnnforecast.anomalies(
        data,
        model=load_or_builtin(model, version),
        config=config,
        reading=reading,
        explicit=explicit,
        output=output,
        listener=screen,
    )

    screen.has_published = output not in (None, STANDARD_OUTPUT)
    screen.close()
    if common.json:
        screen.document(anomalies_document(search, output))
    elif output != STANDARD_OUTPUT:
        print_anomalies(search, config, output, screen)
