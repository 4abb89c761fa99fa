"""`rnnforecast check`: the command and what it prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import (
    PARTIAL,
    CommonOptions,
    Data,
    Given,
    Version,
    saved,
    screen_of,
    with_options,
)
from rnnforecast.cli.console import Screen
from rnnforecast.config.reading import DataConfig
from rnnforecast.events import ignore
from rnnforecast.units import figure, format_duration

if TYPE_CHECKING:
    from rnnforecast.workflow.check import Check

_ROLES = ("time", "series", "target", "known ahead", "known up to now", "static", "not used")
_ROWS = 20
"""So many series are listed on a screen, those with findings first; JSON has all of them."""


def check_document(found: Check) -> dict[str, Any]:
    """Return what `check --json` prints."""
    survey, panel = found.survey, found.survey.panel
    by_series: dict[str, list[dict[str, Any]]] = {name: [] for name in panel.names}
    for finding in survey.findings:
        by_series[finding.series].append(asdict(finding))
    return {
        "source": found.source,
        "columns": [asdict(role) for role in found.columns],
        "step": format_duration(panel.step_us),
        "tz": found.schema.tz,
        "start": found.start,
        "end": found.end,
        "series": [
            {
                "name": name,
                "length": int(panel.lengths[i]),
                "missing": int(survey.missing[i]),
                "longest_gap": int(survey.longest_gap[i]),
                "level": _number(survey.level[i]),
                "spread": _number(survey.spread[i]),
                "season": int(survey.season[i]) if survey.season[i] > 1 else None,
                "findings": by_series[name],
            }
            for i, name in enumerate(panel.names)
        ],
        "findings": [asdict(warning) for warning in found.warnings],
        "train": found.train,
        "predict": found.predict,
    }


def print_check(found: Check, screen: Screen) -> None:
    """Print what is in the table, and the line to train on it."""
    panel = found.survey.panel
    facts = {
        "columns": "; ".join(_roles_in_words(found)),
        "step": format_duration(panel.step_us),
        "span": f"{found.start} to {found.end}"
        + (f", {found.schema.tz}" if found.schema.tz else ""),
        "series": str(panel.n_series),
    }
    for name, fact in facts.items():
        screen.result(f"{name:<9}{fact}")
    screen.result("")
    header = ("series", "rows", "missing %", "longest gap", "level", "spread", "season")
    screen.table(header, _series_rows(found))
    if panel.n_series > _ROWS:
        screen.result(f"and {panel.n_series - _ROWS} more series")
    if found.warnings:
        screen.result("")
        screen.result(f"findings: {len(found.warnings)}")
        for warning in found.warnings:
            screen.result(f"  {warning.code}: {warning.message}")
    screen.result("")
    screen.result(f"next: {found.predict or found.train}")


def _series_rows(found: Check) -> list[tuple[str, ...]]:
    """Return a row of figures for each of the first series, those with findings first."""
    survey, panel = found.survey, found.survey.panel
    strange = {finding.series for finding in survey.findings}
    order = sorted(range(panel.n_series), key=lambda i: (panel.names[i] not in strange, i))
    return [
        (
            panel.names[i],
            str(int(panel.lengths[i])),
            f"{100 * survey.missing[i] / max(int(panel.lengths[i]), 1):.1f}",
            format_duration(int(survey.longest_gap[i]) * panel.step_us)
            if survey.longest_gap[i]
            else "-",
            figure(_number(survey.level[i])),
            figure(_number(survey.spread[i])),
            format_duration(int(survey.season[i]) * panel.step_us)
            if survey.season[i] > 1
            else "none",
        )
        for i in order[:_ROWS]
    ]


def _roles_in_words(found: Check) -> list[str]:
    words = []
    for role in _ROLES:
        names = [column.name for column in found.columns if column.role == role]
        if names:
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            words.append(f"{role} {shown}")
    return words


def _number(value: float) -> float | None:
    """Return a figure that JSON can hold."""
    return float(value) if value == value else None


@with_options
def check(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    common: CommonOptions,
    given: Given,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="PATH", help="Say whether the data fit this model."),
    ] = None,
    version: Version = None,
) -> None:
    """Say what is in the data, what is strange about it, and what to type next."""
    screen = screen_of(context, common)
    held = saved(model, version)
    found = rnnforecast.check(data, config=reading, model=held, given=given, listener=ignore)
    if common.json:
        screen.document(check_document(found))
    else:
        print_check(found, screen)
    if not found.is_clean:
        raise typer.Exit(PARTIAL)
