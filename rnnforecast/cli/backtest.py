"""`rnnforecast backtest`: the command and its output."""

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
    Version,
    configure_screen,
    load_optional_model,
    model_option,
    output_option,
    with_options,
)
from rnnforecast.cli.console import Screen
from rnnforecast.cli.train import HEAD_ROWS, print_bands, print_methods
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import (
    BacktestConfig,
    Config,
    NetworkConfig,
    TrainConfig,
    WindowConfig,
)
from rnnforecast.units import format_number

if TYPE_CHECKING:
    from rnnforecast.evaluate.comparison import Comparison
    from rnnforecast.workflow.backtest import Backtest

_SCALED = {"scaled_mse": "MSE/s2", "scaled_mae": "MAE/s"}


def backtest_document(result: Backtest, output: str | None, report: Path | None) -> dict[str, Any]:
    """Return the document of `backtest --json`."""
    spec, comparison = result.spec, result.comparison.to_json()
    del comparison["error_reference"]  # only for live forecasts of a saved version
    return {
        "version": result.version,
        "output": output,
        "report": report and str(report),
        "horizon": spec.horizon,
        "lookback": spec.lookback,
        "season": spec.season,
        "stride": result.stride,
        "split": result.split,
        **comparison,
        "warnings": [warning.to_json() for warning in result.warnings],
        "timing": result.timing,
    }


def print_backtest(result: Backtest, written: Sequence[object], screen: Screen) -> None:
    """Print the metrics, the verdict, the worst series, the errors by lead, and written files."""
    from rnnforecast.evaluate.metrics import HEADINGS

    comparison, split = result.comparison, result.split
    title = (
        f"Test part: {comparison.n_windows} forecasts of {result.spec.horizon} steps, from "
        f"{split['validation_end']} up to {split['test_end']} (excluded)"
    )
    print_methods(result.metrics, {**HEADINGS, **_SCALED}, screen, title=title)
    screen.result(f"verdict: {comparison.verdict}")
    print_bands(comparison.to_json(), screen)

    if len(comparison.worst) >= 2:
        naive = str(comparison.skill_over).replace("_", " ")
        rows = [
            (item.series, format_number(item.mase), format_number(item.naive_mase))
            for item in comparison.worst[:HEAD_ROWS]
        ]
        title = f"MASE of the worst series ({comparison.n_worse} are worse than {naive})"
        screen.table(("series", "network", naive), rows, title=title)

    _print_leads(comparison, screen)
    for path in written:
        if path is not None:
            screen.result(f"written: {path}")


def _print_leads(comparison: Comparison, screen: Screen) -> None:
    """Print the scaled absolute error of the quartiles of leads and of the worst one."""
    by_lead = comparison.by_lead or {}
    network = [error or 0.0 for error in by_lead.get("network", [])]
    if not any(network):
        return

    n, worst = len(network), max(range(len(network)), key=network.__getitem__)
    leads = sorted({0, n // 4, n // 2, 3 * n // 4, n - 1, worst})
    header = ("lead", *(str(lead + 1) for lead in leads))
    rows = [
        (name.replace("_", " "), *(format_number(errors[lead]) for lead in leads))
        for name, errors in by_lead.items()
    ]
    title = f"Absolute error by lead, in standard deviations (worst lead: {worst + 1})"
    screen.table(header, rows, title=title)


@with_options
def backtest(
    context: typer.Context,
    data: Data,
    *,
    reading: DataConfig,
    ends: BacktestConfig,
    window: WindowConfig,
    network: NetworkConfig,
    training: TrainConfig,
    common: CommonOptions,
    explicit: Explicit,
    model: Annotated[str | None, model_option("Evaluate this saved model on newer data")] = None,
    version: Version = None,
    output: Annotated[str | None, output_option("Write each forecast value to this file")] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write an HTML report to this file", rich_help_panel="Output"
        ),
    ] = None,
) -> None:
    """Evaluate on past data (rolling-origin backtest)."""
    screen = configure_screen(context, common)
    result = rnnforecast.backtest(
        data,
        model=load_optional_model(model, version),
        config=Config(reading, window, network, training),
        explicit=explicit,
        ends=ends,
        output=output,
        report=report,
        listener=screen,
    )

    screen.has_published = output is not None or report is not None
    screen.close()
    if common.json:
        screen.document(backtest_document(result, output, report))
    else:
        print_backtest(result, (output, report), screen)
