"""What several stories do: read a table, fit a network to a part of it, measure it, keep time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rnnforecast.config import Config, WindowConfig, override
from rnnforecast.dataconfig import DataConfig
from rnnforecast.events import Listener, Noted, Warned
from rnnforecast.task import ForecastTask

if TYPE_CHECKING:
    from rnnforecast.data.calibration import Calibration
    from rnnforecast.data.forecast import Forecaster
    from rnnforecast.data.panel import Panel
    from rnnforecast.data.past import Past
    from rnnforecast.data.planning import Plan
    from rnnforecast.data.ranks import Ranks
    from rnnforecast.data.schema import Schema
    from rnnforecast.data.split import Split
    from rnnforecast.data.timegrid import LearnsUntil
    from rnnforecast.evaluate.comparison import Comparison
    from rnnforecast.model.artifact import Artifact
    from rnnforecast.model.checkpoint import Checkpoints
    from rnnforecast.model.forecaster import RNNForecaster
    from rnnforecast.pictures.report import Seen
    from rnnforecast.workflow.measuring import Remembered


class Clock:
    """Durations of the parts of a story, on a clock that never goes back."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End a part."""
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self.laps["total_s"] = round(now - self._started, 3)
        self._last = now


def with_windows(config: Config, horizon: int | str | None, lookback: int | str | None) -> Config:
    """Return the configuration with the windows that a caller names beside it."""
    given = WindowConfig(
        horizon="auto" if horizon is None else str(horizon),
        lookback="auto" if lookback is None else str(lookback),
    )
    return replace(config, window=override(config.window, given))


def read_readings(
    data: object,
    config: DataConfig,
    listener: Listener,
    *,
    learns_until: LearnsUntil,
    ranks: Ranks | None = None,
) -> tuple[Panel, Schema]:
    """Read a table onto a regular grid; return it with what its columns are for.

    `learns_until` says which moment ends what may be learnt from. Of `ranks` each reads buckets of
    its own, of a folder that `shard` has made.
    """
    from rnnforecast.data.inference import infer_schema
    from rnnforecast.data.ranks import ALONE
    from rnnforecast.data.timegrid import read_panel
    from rnnforecast.sources.reading import Source, open_source
    from rnnforecast.sources.renaming import rename
    from rnnforecast.sources.shares import open_share
    from rnnforecast.sources.splittime import join_time

    ranks = ranks or ALONE
    if ranks is ALONE:
        own: Source = open_source(data, config, listener)
    else:
        own = open_share(data, ranks.rank, ranks.n)
    source = join_time(rename(own, config.map), config.time)
    schema = infer_schema(source, config, listener)
    return read_panel(source, schema, config, listener, learns_until=learns_until, ranks=ranks)


def fit_network(
    plan: Plan,
    split: Split,
    listener: Listener,
    *,
    checkpoints: Checkpoints | None = None,
    start: RNNForecaster | None = None,
) -> RNNForecaster:
    """Fit a network to the train part of a split, which need not be the plan's own.

    With `start` it begins from what that one has learnt.
    """
    from rnnforecast.model.forecaster import RNNForecaster

    return RNNForecaster.fit(
        split.train,
        split.validation,
        task=plan.task,
        network=plan.config.network,
        config=plan.config.training,
        listener=listener,
        checkpoints=checkpoints,
        start=start,
    )


def calibrate(
    fitted: Forecaster, split: Split, task: ForecastTask, listener: Listener
) -> Calibration | None:
    """Find how the quantiles of a fitted network move, on the windows that it was held out from.

    None where there are too few of them, which is said.
    """
    from rnnforecast.data.split import validation_origins
    from rnnforecast.evaluate.backtest import Truth
    from rnnforecast.evaluate.intervals import fit_calibration

    found = None
    if split.validation is not None:
        origins = validation_origins(split, lookback=task.lookback, horizon=task.horizon)
        truth = Truth(split.panel, task.horizon)
        found = fit_calibration(fitted, origins, truth, lookback=task.lookback)
    if found is None:
        listener(Noted("too little is held out to calibrate the quantiles: they stay as learnt"))
    return found


def with_calibration(
    forecaster: Forecaster, calibration: Calibration | None, names: tuple[str, ...]
) -> Forecaster:
    """Return a forecaster whose quantiles move, where there is something to move them by."""
    from rnnforecast.evaluate.intervals import Calibrated

    return forecaster if calibration is None else Calibrated(forecaster, calibration, names)


def compare_held_out(
    fitted: RNNForecaster,
    calibration: Calibration | None,
    plan: Plan,
    tz: str | None,
    listener: Listener,
    beside: Mapping[str, Forecaster] | None = None,
) -> tuple[Comparison, tuple[Seen, ...]]:
    """Measure on the test part what the saved version will be one part later; show some windows.

    The network first learns from the validation part as the saved one will learn from all parts.
    Forecasters `beside` it are measured on the same windows.
    """
    from rnnforecast.data.split import test_origins
    from rnnforecast.evaluate.backtest import Round, Truth, Units, deviations, evaluate
    from rnnforecast.evaluate.baselines import SeasonalNaive, naive
    from rnnforecast.evaluate.comparison import (
        NAIVE,
        NETWORK,
        SEASONAL_NAIVE,
        compare,
        not_compared,
    )
    from rnnforecast.workflow.reporting import windows_seen

    split, task = plan.split, plan.task
    if split.test_from_us is None:
        return not_compared(), ()
    network = learn_on(fitted, plan, split.before_test, listener)
    forecasters: dict[str, Forecaster] = {
        NETWORK: with_calibration(network, calibration, network.names),
        NAIVE: naive(),
        SEASONAL_NAIVE: SeasonalNaive(task.season),
        **(beside or {}),
    }
    origins = test_origins(split, lookback=task.lookback, horizon=task.horizon)
    panel, rounds = split.panel, [Round(origins, forecasters)]
    truth, units = Truth(panel, task.horizon), Units(task.season, deviations(split.train))
    tallies = evaluate(rounds, truth, units, lookback=task.lookback)
    found = compare(tallies, names=panel.names, season=task.season, step_us=panel.step_us)
    return found, windows_seen(rounds, truth, tallies, found, lookback=task.lookback, tz=tz)


def learn_on(fitted: RNNForecaster, plan: Plan, known: Past, listener: Listener) -> RNNForecaster:
    """Let the network learn from the readings after the train part too, where there are any."""
    if known.cutoff.sum() == plan.split.train.cutoff.sum():
        return fitted
    return fitted.learn_on(known, config=plan.config.training, listener=listener)


def draw_report(
    artifact: Artifact,
    comparison: Comparison,
    seen: tuple[Seen, ...],
    fitted: RNNForecaster,
    warnings: Sequence[Warned],
    remembered: Remembered | None = None,
) -> str:
    """Draw the report of a version."""
    from rnnforecast.pictures.report import report_html
    from rnnforecast.workflow.reporting import training_report

    assert fitted.log is not None
    return report_html(
        training_report(artifact, comparison, seen, fitted.log.epochs, warnings, remembered)
    )
