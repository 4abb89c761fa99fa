"""The story of a backtest: forecast from many origins in the past, and compare with what came."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnforecast.config import BacktestConfig, Config
from rnnforecast.events import Listener, Recorder, Warned, ignore
from rnnforecast.formats import check_format, check_page
from rnnforecast.task import ForecastTask
from rnnforecast.workflow.outputs import check_outputs
from rnnforecast.workflow.reporting import backtest_report, windows_seen
from rnnforecast.workflow.saved import Model, load
from rnnforecast.workflow.settled import reading_of
from rnnforecast.workflow.steps import Clock, with_windows
from rnnforecast.workflow.trial import Trial, fitted_trial, saved_trial

if TYPE_CHECKING:
    from rnnforecast.evaluate.backtest import Sink
    from rnnforecast.evaluate.comparison import Comparison
    from rnnforecast.pictures.report import Seen


@dataclass(frozen=True)
class Backtest:
    """What came of a backtest."""

    comparison: Comparison
    task: ForecastTask
    stride: int
    split: dict[str, Any]
    """Where the parts end, as time stamps."""
    version: str | None
    """The saved version that was tried; None where a network was fitted."""
    warnings: tuple[Warned, ...]
    timing: dict[str, float]

    @property
    def metrics(self) -> dict[str, dict[str, float | int | None]]:
        """Metrics by method."""
        return {name: m.to_json() for name, m in self.comparison.metrics.items()}

    @property
    def verdict(self) -> str:
        """How good the network is, in words."""
        return self.comparison.verdict


def backtest(
    data: object,
    *,
    model: Model | str | Path | None = None,
    horizon: int | str | None = None,
    lookback: int | str | None = None,
    config: Config | None = None,
    given: Collection[str] = (),
    ends: BacktestConfig | None = None,
    output: str | Path | None = None,
    report: str | Path | None = None,
    listener: Listener = ignore,
) -> Backtest:
    """Forecast from rolling origins in the test part, and score the forecasts beside baselines'.

    A network is fitted to the readings before the test part. With `model` that one is tried, of a
    directory the version in force, on readings that it has not learnt from, read as its own were
    but for what differs from the defaults in `config.data`, and its fields that `given` names. With
    `output`, each forecast value is written with its actual; with `report`, an HTML file with what
    was found. Raises a `RnnForecastError`.
    """
    ends = ends or BacktestConfig()
    if output is not None:
        check_format(str(output), allows_stream=False)
    if report is not None:
        check_page(str(report))
    config = with_windows(config or Config(), horizon, lookback)
    events, clock = Recorder(listener, []), Clock()
    saved = model if isinstance(model, Model | None) else load(model)
    if saved is not None:
        config = replace(config, data=reading_of(saved.artifact, config.data, given))
    check_outputs(data, config.data, output=output, page=report, allows_stream=False)
    if saved is None:
        trial = fitted_trial(data, config, ends, events, clock)
    else:
        trial = saved_trial(saved, data, config, ends, events)
    clock.lap("prepare_s")
    comparison, seen = _run(trial, output, events, looks=report is not None)
    clock.lap("evaluate_s")
    result = _result(trial, comparison, events, clock)
    if report is not None:
        _write_report(result, seen, trial, Path(report))
    return result


def _result(trial: Trial, comparison: Comparison, events: Recorder, clock: Clock) -> Backtest:
    return Backtest(
        comparison,
        trial.task,
        trial.stride,
        trial.split_in_words(),
        trial.version,
        tuple(events.warnings),
        clock.laps,
    )


def _write_report(result: Backtest, seen: tuple[Seen, ...], trial: Trial, path: Path) -> None:
    from rnnforecast.durable import publishing_file
    from rnnforecast.pictures.report import report_html

    page = report_html(backtest_report(result, seen, trial.split.panel.names))
    with publishing_file(path) as file:
        file.write(page.encode())


def _run(
    trial: Trial, output: str | Path | None, listener: Listener, *, looks: bool
) -> tuple[Comparison, tuple[Seen, ...]]:
    """Try all origins; `looks` asks for windows to look at."""
    from rnnforecast.data.writing import publishing_backtest
    from rnnforecast.evaluate.backtest import Truth, Units, deviations, evaluate
    from rnnforecast.evaluate.comparison import compare

    panel, task = trial.split.panel, trial.task
    opened: AbstractContextManager[Sink | None] = (
        nullcontext() if output is None else publishing_backtest(str(output), trial.tz)
    )
    truth, units = Truth(panel, task.horizon), Units(task.season, deviations(trial.split.train))
    with opened as sink:
        tallies = evaluate(
            trial.rounds, truth, units, lookback=task.lookback, sink=sink, listener=listener
        )
    found = compare(tallies, names=panel.names, season=task.season, step_us=panel.step_us)
    if not looks:
        return found, ()
    seen = windows_seen(trial.rounds, truth, tallies, found, lookback=task.lookback, tz=trial.tz)
    return found, seen
