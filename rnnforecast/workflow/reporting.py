"""What the report of a training or a backtest shows, put together from what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rnnforecast.card import HEADINGS, card_of
from rnnforecast.numerals import figure

if TYPE_CHECKING:
    from rnnforecast.evaluate.backtest import Round, Truth
    from rnnforecast.evaluate.comparison import Comparison
    from rnnforecast.evaluate.examples import Example
    from rnnforecast.evaluate.tally import Tally
    from rnnforecast.events import EpochEnded, Warned
    from rnnforecast.model.artifact import Artifact
    from rnnforecast.pictures.memory import ShownMemory
    from rnnforecast.pictures.report import Report, Seen
    from rnnforecast.workflow.backtesting import Backtest
    from rnnforecast.workflow.measuring import Remembered

_SEASONS_SHOWN = 2
"""Readings before a forecast, in horizons."""


def training_report(
    artifact: Artifact,
    comparison: Comparison,
    seen: tuple[Seen, ...],
    epochs: Sequence[EpochEnded],
    warnings: Sequence[Warned],
    remembered: Remembered | None = None,
) -> Report:
    """Return the report of a version that was just trained."""
    ranges = artifact.training_range
    held_out = (
        f"Measured on {comparison.n_windows} forecasts from {ranges['test_from']} to "
        f"{ranges['last_reading']}, which the network had not seen then."
    )
    report = _report(
        f"Forecasts of {_names(artifact.schema.targets)}",
        comparison,
        seen,
        held_out=held_out,
        epochs=epochs,
        warnings=warnings,
        card=card_of(artifact),
    )
    return report if remembered is None else replace(report, memory=_shown(remembered))


def _shown(remembered: Remembered) -> ShownMemory:
    from rnnforecast.pictures.memory import ShownMemory

    memory, judged = remembered.memory, remembered.judged
    advice = f" Try {judged.advice}." if judged.advice else ""
    return ShownMemory(
        f"{judged.verdict}: {judged.reason}.{advice}",
        memory.effective,
        memory.kept,
        memory.losses,
        memory.gradients,
        memory.leads,
        tuple(peak.lag for peak in memory.peaks if peak.lag <= memory.lookback),
    )


def backtest_report(result: Backtest, seen: tuple[Seen, ...], names: tuple[str, ...]) -> Report:
    """Return the report of a backtest."""
    task, split = result.task, result.split
    card = {
        "version": result.version or "fitted for this backtest",
        "series": _names(names),
        "horizon": f"{task.horizon} steps",
        "look-back": f"{task.lookback} steps",
        "season": f"{task.season} steps" if task.season > 1 else "none",
        "members": "; ".join(str(own) for own in task.members),
        "train part": f"before {split['train_end']}",
        "validation part": f"before {split['validation_end']}",
        "test part": f"before {split['test_end']}",
        "origins": f"{result.stride} steps apart",
    }
    held_out = (
        f"Measured on {result.comparison.n_windows} forecasts of {task.horizon} steps from "
        f"{split['validation_end']} on, before {split['test_end']}."
    )
    return _report(
        f"Backtest of {_names(names)}",
        result.comparison,
        seen,
        held_out=held_out,
        epochs=(),
        warnings=result.warnings,
        card=card,
    )


def _report(
    title: str,
    comparison: Comparison,
    seen: tuple[Seen, ...],
    *,
    held_out: str,
    epochs: Sequence[EpochEnded],
    warnings: Sequence[Warned],
    card: dict[str, str],
) -> Report:
    from rnnforecast.pictures.report import Report

    found: dict[str, Any] = comparison.to_json()
    return Report(
        title,
        f"{comparison.verdict[0].upper()}{comparison.verdict[1:]}.",
        held_out,
        headings=HEADINGS,
        metrics=found["metrics"],
        seen=seen,
        by_lead=found["by_lead"],
        step_us=comparison.step_us,
        bands=found["bands"],
        worst=found["worst_series"],
        epochs=epochs,
        findings=[(warning.code, warning.message) for warning in warnings],
        card=card,
    )


def windows_seen(
    rounds: Sequence[Round],
    truth: Truth,
    tallies: dict[str, Tally],
    comparison: Comparison,
    *,
    lookback: int,
    tz: str | None,
) -> tuple[Seen, ...]:
    """Return held-out windows to look at: of the best, a typical and the worst series."""
    from rnnforecast.evaluate.comparison import NETWORK
    from rnnforecast.evaluate.examples import examples

    last = rounds[-1]
    found = examples(
        last.forecasters[NETWORK],
        last.origins,
        truth,
        tallies,
        method=NETWORK,
        beside=comparison.skill_over,
        lookback=lookback,
    )
    return tuple(_seen(example, tz) for example in found)


def _seen(example: Example, tz: str | None) -> Seen:
    import numpy as np

    from rnnforecast.data.stamps import format_stamp
    from rnnforecast.pictures.fan import fans_of
    from rnnforecast.pictures.report import Seen

    forecast = replace(example.forecast, tz=tz)
    n_rows = _SEASONS_SHOWN * forecast.horizon
    (fan,) = fans_of(example.past, forecast, n_rows=n_rows, actual=example.actual)
    error = float(np.nanmean(np.abs(example.actual - forecast.point)))
    begin = format_stamp(int(forecast.times_us[0, 0]), tz)
    which = " of its windows by error" if example.of == "window" else ""
    middle = "a typical one" if example.kind == "typical" else f"the {example.kind}"
    sentence = f"From {begin} on, {middle}{which}; mean absolute error {figure(error)}."
    if example.of == "series":
        sentence = f"The window with its median error, from {begin} on: MAE {figure(error)}."
    return Seen(f"{example.kind.capitalize()} {example.of}: {fan.name}", sentence, fan)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
