"""The report's section on memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rnnforecast.numerals import figure
from rnnforecast.pictures import charts
from rnnforecast.pictures.page import figures, heading, paragraph
from rnnforecast.pictures.svg import PAGE, draw_inline


@dataclass(frozen=True)
class ShownMemory:
    """How far back the network remembers."""

    sentence: str
    effective: int
    kept: Sequence[int]
    """Lengths of history, increasing."""
    losses: Sequence[float]
    """What each comes to."""
    gradients: Mapping[str, Sequence[float | None]]
    """How much a lead moves with the reading at each lag, from 1."""
    leads: Mapping[str, int]
    peaks: Sequence[int]
    """Lags at which readings come again."""


def memory_section(memory: ShownMemory | None) -> list[str]:
    """Return the section's heading, text and two pictures; nothing where it was not measured."""
    if memory is None:
        return []
    pictures = [
        (
            draw_inline(
                "kept",
                "Loss by the history that is seen",
                f"Quantile loss of forecasts from the last readings only, over how many they are. "
                f"From {memory.effective} on it is that of all {memory.kept[-1]}.",
                lambda axes: charts.draw_kept(
                    axes, memory.kept, memory.losses, memory.effective, PAGE
                ),
            ),
            f"Loss of forecasts from the last readings only. With {memory.effective} of them it is "
            f"within one percent of that with all {memory.kept[-1]}.",
        ),
        (
            draw_inline(
                "lags",
                "Gradient by lag",
                "How much the median forecast moves with the reading at each lag, for an early, a "
                f"middle and a late lead, on a scale of powers of ten. {_lags_in_words(memory)}",
                lambda axes: charts.draw_lags(
                    axes, memory.gradients, memory.leads, memory.peaks, PAGE
                ),
            ),
            "How much a forecast moves with the reading so many steps back. Dotted lines are lags "
            "at which the readings come again.",
        ),
    ]
    return [
        heading("How far back the network remembers"),
        paragraph(memory.sentence),
        figures(pictures),
    ]


def _lags_in_words(memory: ShownMemory) -> str:
    return "; ".join(
        f"{name} from {figure(curve[0])} to {figure(curve[-1])}"
        for name, curve in memory.gradients.items()
    )
