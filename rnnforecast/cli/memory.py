"""`rnnforecast memory`: the command and its output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import (
    CommonOptions,
    Explicit,
    ModelPath,
    TrustSource,
    Version,
    configure_screen,
    with_options,
)
from rnnforecast.cli.console import Screen
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import DEFAULT_MODEL
from rnnforecast.units import describe_duration, format_number

if TYPE_CHECKING:
    from rnnforecast.evaluate.memory import MemoryAnalysis
    from rnnforecast.workflow.steps import MemoryReport

_SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)
"""Quantiles of the time constants of a layer's units that are printed."""


def memory_document(result: MemoryReport, *, has_units: bool) -> dict[str, Any]:
    """Return the document of `memory --json`."""
    document = result.memory.to_json(result.diagnosis)
    if has_units:
        layers = (member.time_constants for member in result.memory.members)
        document["units"] = [None if x is None else [list(layer) for layer in x] for x in layers]
    return {**document, "warnings": [warning.to_json() for warning in result.warnings]}


def print_memory(result: MemoryReport, screen: Screen, *, has_units: bool) -> None:
    """Print how far back the network remembers, the measurements, a verdict and advice."""
    memory, diagnosis = result.memory, result.diagnosis

    def draw(width: int, has_color: bool, is_unicode: bool) -> list[str]:  # noqa: FBT001
        from rnnforecast.report.plots import terminal_curve

        return terminal_curve(
            "loss with only the last k readings",
            memory.lengths,
            memory.losses,
            ("none", f"all {memory.lookback}"),
            width=width,
            has_color=has_color,
            is_unicode=is_unicode,
        )

    if not screen.is_quiet:
        screen.picture(draw)
        _print_leads(memory, result.step_us, screen)
        _print_peaks(memory, result.step_us, screen)
        screen.table(
            ("network", "segment", "at the newest step", "at the oldest step"),
            [
                (
                    f"{number + 1}",
                    str(member.segment),
                    format_number(member.state_gradient[0]),
                    format_number(member.state_gradient[-1]),
                )
                for number, member in enumerate(memory.members)
            ],
            title="Networks: gradient of the first step with respect to the state",
        )
    if has_units:
        _print_units(memory, screen)

    span = describe_duration(memory.effective * result.step_us)
    screen.result(
        f"effective memory: {memory.effective} of {memory.lookback} steps ({span}), "
        f"on {memory.n_windows} windows"
    )
    screen.result(f"verdict: {diagnosis.verdict}: {diagnosis.reason}")
    if diagnosis.advice is not None:
        screen.result(f"try: rnnforecast train DATA {diagnosis.advice}")


def _print_leads(memory: MemoryAnalysis, step_us: int, screen: Screen) -> None:
    """Print the gradients of an early, a middle and a late lead by the readings."""
    rows = []
    for name, lead in memory.leads.items():
        half, curve = memory.half_life[name], memory.gradients[name]
        rows.append(
            (
                f"{name}, {describe_duration(lead * step_us)} ahead",
                format_number(curve[0]),
                format_number(next((x for x in reversed(curve) if x is not None), None)),
                "-" if half is None else str(half),
            )
        )

    screen.table(
        ("lead", "newest reading", "oldest", "half-life"),
        rows,
        title="Gradient of a forecast with respect to a reading",
    )


def _print_peaks(memory: MemoryAnalysis, step_us: int, screen: Screen) -> None:
    """Print the lags at which the readings' autocorrelation peaks."""
    if not memory.peaks:
        screen.result("the data repeats at no particular lag")
        return

    rows = [
        (
            f"{peak.lag} steps ({describe_duration(peak.lag * step_us)})",
            f"{peak.autocorrelation:.2f}",
            format_number(peak.error) if peak.error is not None else "outside the look-back",
        )
        for peak in memory.peaks
    ]
    screen.table(
        ("lag", "correlation", "error at this lag"),
        rows,
        title="Lags at which the data repeats (autocorrelation peaks)",
    )


def _print_units(memory: MemoryAnalysis, screen: Screen) -> None:
    """Print quantiles of the units' time constants by layer."""
    rows = []
    for number, member in enumerate(memory.members):
        if member.time_constants is None:
            screen.result(f"network {number + 1} has no gates, so its units have no time constants")
            continue
        for layer, constants in enumerate(member.time_constants):
            ordered = sorted(constants)
            quantiles = (ordered[round(share * (len(ordered) - 1))] for share in _SHARES)
            rows.append((f"{number + 1}, layer {layer + 1}", *map(format_number, quantiles)))

    if rows:
        screen.table(
            ("network", "shortest", "10 %", "median", "90 %", "longest"),
            rows,
            title="Time constants of the units, in readings",
        )


@with_options
def memory(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]", help="Data to measure on (default: re-read the training file)"
        ),
    ] = None,
    *,
    reading: DataConfig,
    common: CommonOptions,
    explicit: Explicit,
    model: ModelPath = DEFAULT_MODEL,
    version: Version = None,
    trust_source: TrustSource = False,
    units: Annotated[
        bool,
        typer.Option(
            "--units", help="Show how long each unit retains information", rich_help_panel="Output"
        ),
    ] = False,
) -> None:
    """Measure how much history the network uses."""
    screen = configure_screen(context, common)
    result = rnnforecast.memory(
        data,
        model=rnnforecast.load(model, version=version),
        reading=reading,
        explicit=explicit,
        trust_source=trust_source,
        listener=screen,
    )

    screen.close()
    if common.json:
        screen.document(memory_document(result, has_units=units))
    else:
        print_memory(result, screen, has_units=units)
