"""`rnnforecast memory`: the command and what it prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import (
    AgainData,
    CommonOptions,
    Given,
    ModelPath,
    Version,
    screen_of,
    with_options,
)
from rnnforecast.cli.console import Screen
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import DEFAULT_MODEL
from rnnforecast.units import figure, format_duration, shorten_duration

if TYPE_CHECKING:
    from rnnforecast.evaluate.memory import Memory
    from rnnforecast.workflow.steps import Remembered

_SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)
"""Of the units of a layer, ordered by how long they remember, these are shown."""


def memory_document(found: Remembered, *, has_units: bool) -> dict[str, Any]:
    """Return what `memory --json` prints."""
    document = found.memory.to_json(found.judged)
    if has_units:
        document["units"] = [
            None if own.time_constants is None else [list(layer) for layer in own.time_constants]
            for own in found.memory.members
        ]
    return {**document, "warnings": [asdict(warning) for warning in found.warnings]}


def print_memory(found: Remembered, screen: Screen, *, has_units: bool) -> None:
    """Print how far back the network remembers, how that shows, and what to try."""
    memory, judged = found.memory, found.judged
    if not screen.is_quiet:
        _draw_curve(memory, screen)
        _print_leads(memory, found.step_us, screen)
        _print_peaks(memory, found.step_us, screen)
        _print_members(memory, screen)
    if has_units:
        _print_units(memory, screen)
    span = shorten_duration(memory.effective * found.step_us)
    screen.result(
        f"effective memory: {memory.effective} of {memory.lookback} steps ({span}), "
        f"on {memory.n_windows} windows"
    )
    screen.result(f"verdict: {judged.verdict}: {judged.reason}")
    if judged.advice is not None:
        screen.result(f"try: rnnforecast train DATA {judged.advice}")


def _draw_curve(memory: Memory, screen: Screen) -> None:
    from rnnforecast.report.plots import terminal_curve

    def draw(width: int, has_color: bool, is_unicode: bool) -> list[str]:  # noqa: FBT001
        return terminal_curve(
            "loss with the last k readings only",
            memory.kept,
            memory.losses,
            ("none", f"all {memory.lookback}"),
            width=width,
            has_color=has_color,
            is_unicode=is_unicode,
        )

    screen.picture(draw)


def _print_leads(memory: Memory, step_us: int, screen: Screen) -> None:
    rows = []
    for name, lead in memory.leads.items():
        half, curve = memory.half_life[name], memory.gradients[name]
        rows.append(
            (
                f"{name}, {format_duration(lead * step_us)} ahead",
                figure(curve[0]),
                figure(next((x for x in reversed(curve) if x is not None), None)),
                "-" if half is None else str(half),
            )
        )
    screen.table(
        ("lead", "newest reading", "oldest", "half-life"),
        rows,
        title="How much a forecast moves with a reading (gradient)",
    )


def _print_peaks(memory: Memory, step_us: int, screen: Screen) -> None:
    if not memory.peaks:
        screen.result("the readings come again at no lag that stands out")
        return
    rows = [
        (
            f"{peak.lag} steps ({format_duration(peak.lag * step_us)})",
            f"{peak.autocorrelation:.2f}",
            f"{peak.left:.2f}",
            figure(peak.error) if peak.error is not None else "beyond the look-back",
        )
        for peak in memory.peaks
    ]
    screen.table(
        ("lag", "correlation", "after the pattern", "error beside it"),
        rows,
        title="Where readings come again (autocorrelation)",
    )


def _print_members(memory: Memory, screen: Screen) -> None:
    rows = [
        (
            f"{number}",
            str(own.lookback),
            str(own.segment),
            str(own.effective_memory),
            figure(own.state_gradient[0]),
            figure(own.state_gradient[-1]),
        )
        for number, own in enumerate(memory.members)
    ]
    screen.table(
        ("member", "look-back", "segment", "remembers", "gradient at the end", "at the start"),
        rows,
        title="Members, and how much their first step moves with their state",
    )


def _print_units(memory: Memory, screen: Screen) -> None:
    rows = []
    for number, own in enumerate(memory.members):
        if own.time_constants is None:
            screen.result(f"member {number} has no gates that say how long a unit remembers")
            continue
        for layer, constants in enumerate(own.time_constants):
            ordered = sorted(constants)
            shown = (ordered[round(share * (len(ordered) - 1))] for share in _SHARES)
            rows.append((f"{number}, layer {layer + 1}", *(figure(x) for x in shown)))
    if rows:
        screen.table(
            ("member", "shortest", "10 %", "median", "90 %", "longest"),
            rows,
            title="Readings after which a unit has lost all but 1/e of its state",
        )


@with_options
def memory(
    context: typer.Context,
    data: AgainData = None,
    *,
    reading: DataConfig,
    common: CommonOptions,
    given: Given,
    model: ModelPath = DEFAULT_MODEL,
    version: Version = None,
    units: Annotated[
        bool, typer.Option("--units", help="Say how long each unit's gates let it remember.")
    ] = False,
) -> None:
    """Say how far back the network remembers, and whether gradients vanish or explode."""
    screen = screen_of(context, common)
    found = rnnforecast.memory(
        data,
        model=rnnforecast.load(model, version=version),
        reading=reading,
        given=given,
        listener=screen,
    )
    screen.close()
    if common.json:
        screen.document(memory_document(found, has_units=units))
    else:
        print_memory(found, screen, has_units=units)
