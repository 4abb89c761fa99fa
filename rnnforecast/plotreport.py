"""What `plot` shows: pictures in the terminal, or a JSON document of what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rnnforecast.config import BAND
from rnnforecast.console import Screen

if TYPE_CHECKING:
    from rnnforecast.evaluate.fallback import Prediction
    from rnnforecast.pictures.fan import Fan

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
    from rnnforecast.workflow.plotting import fans_of_prediction

    fans = fans_of_prediction(prediction, MOST_SHOWN)
    show_fans(fans, screen)
    left = len(prediction.forecast.names) - len(fans)
    if left and not screen.is_quiet:
        screen.note(f"{left} more series are not shown; see them with  rnnforecast plot --series")
