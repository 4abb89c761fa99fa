"""`rnnforecast check`: the command and its output."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rnnforecast
from rnnforecast.cli.app import (
    CommonOptions,
    Data,
    Explicit,
    Version,
    configure_screen,
    load_optional_model,
    model_option,
    with_options,
)
from rnnforecast.cli.console import Screen
from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import PARTIAL
from rnnforecast.events import ignore
from rnnforecast.units import describe_duration, format_duration, format_number, join_names

if TYPE_CHECKING:
    from rnnforecast.workflow.check import Check

_ROLES = ("time", "series", "target", "known ahead", "known up to now", "static", "not used")
_MAX_ROWS = 20
"""Series in the table, those with findings first; JSON has all of them."""
_MAX_COLUMNS = 8
"""Columns that are named for each role."""


def check_document(result: Check) -> dict[str, Any]:
    """Return the document of `check --json`."""
    profile, panel = result.profile, result.profile.panel
    by_series: dict[str, list[dict[str, Any]]] = {name: [] for name in panel.names}
    for finding in profile.findings:
        by_series[finding.series].append(asdict(finding))

    return {
        "source": result.source,
        "columns": [asdict(column) for column in result.columns],
        "step": format_duration(panel.step_us),
        "tz": result.schema.tz,
        "start": result.start,
        "end": result.end,
        "series": [
            {
                "name": name,
                "length": int(panel.lengths[i]),
                "missing": int(profile.missing[i]),
                "longest_gap": int(profile.longest_gap[i]),
                "level": _number(profile.level[i]),
                "spread": _number(profile.spread[i]),
                "season": (*profile.seasons[i].periods, None)[0],
                "seasons": list(profile.seasons[i].periods),
                "findings": by_series[name],
            }
            for i, name in enumerate(panel.names)
        ],
        "findings": [warning.to_json() for warning in result.warnings],
        "train": result.train,
        "predict": result.predict,
    }


def print_check(result: Check, screen: Screen) -> None:
    """Print a summary of the table, its series, the findings, and the next command."""
    panel = result.profile.panel
    roles = []
    for role in _ROLES:
        columns = [column for column in result.columns if column.role == role]
        names = [column.name or repr(column.name) for column in columns]
        if role == "not used":
            reasons = [column.why for column in columns]
            names = [f"{name} ({text})" for name, text in zip(names, reasons, strict=True)]
        if names:
            roles.append(f"{role} {join_names(names, _MAX_COLUMNS)}")
    tz = f", {result.schema.tz}" if result.schema.tz else ""
    facts = {
        "columns": "; ".join(roles),
        "step": format_duration(panel.step_us),
        "span": f"{result.start} to {result.end}{tz}",
        "series": str(panel.n_series),
    }
    for name, fact in facts.items():
        screen.result(f"{name:<9}{fact}")

    screen.result("")
    header = ("series", "rows", "missing %", "longest gap", "level", "spread", "season")
    screen.table(header, _series_rows(result))
    if panel.n_series > _MAX_ROWS:
        screen.result(f"and {panel.n_series - _MAX_ROWS} more series")

    if result.warnings:
        screen.result("")
        screen.result(f"findings: {len(result.warnings)}")
        for warning in result.warnings:
            screen.result(f"  {warning.code}: {warning.text}")
    screen.result("")
    screen.result(f"next: {result.predict or result.train}")


def _series_rows(result: Check) -> list[tuple[str, ...]]:
    """Return a row of statistics for each of the first series, those with findings first."""
    profile, panel = result.profile, result.profile.panel
    with_findings = {finding.series for finding in profile.findings}
    order = sorted(range(panel.n_series), key=lambda i: (panel.names[i] not in with_findings, i))

    return [
        (
            panel.names[i],
            str(int(panel.lengths[i])),
            f"{100 * profile.missing[i] / max(int(panel.lengths[i]), 1):.1f}",
            describe_duration(int(profile.longest_gap[i]) * panel.step_us)
            if profile.longest_gap[i]
            else "-",
            format_number(_number(profile.level[i])),
            format_number(_number(profile.spread[i])),
            ", ".join(format_duration(n * panel.step_us) for n in profile.seasons[i].periods)
            or "none",
        )
        for i in order[:_MAX_ROWS]
    ]


def _number(value: float) -> float | None:
    """Return None for NaN, which JSON lacks."""
    return float(value) if value == value else None


@with_options
def check(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    common: CommonOptions,
    explicit: Explicit,
    model: Annotated[str | None, model_option("Check whether the data match this model")] = None,
    version: Version = None,
) -> None:
    """Inspect a data file and suggest the command to run."""
    screen = configure_screen(context, common)
    result = rnnforecast.check(
        data,
        config=reading,
        model=load_optional_model(model, version),
        explicit=explicit,
        listener=ignore,
    )

    if common.json:
        screen.document(check_document(result))
    else:
        print_check(result, screen)
    if not result.is_clean:
        raise typer.Exit(PARTIAL)
