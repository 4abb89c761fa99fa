"""What a backtest tries, all of it decided before the first origin: parts, forecasters, origins.

Apart from `backtesting`, the story, which runs a trial: here a network is fitted to the past, or a
saved version is held against readings that it has not learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rnnforecast.config import (
    BacktestConfig,
    Config,
    NetworkConfig,
    TrainConfig,
    WindowConfig,
)
from rnnforecast.errors import DataError, NotEnoughDataError, UsageError
from rnnforecast.events import Listener, Warned
from rnnforecast.task import ForecastTask
from rnnforecast.workflow.saved import Model, known_of
from rnnforecast.workflow.steps import (
    Clock,
    calibrate,
    fit_network,
    read_readings,
    with_calibration,
)

if TYPE_CHECKING:
    from rnnforecast.data.forecast import Forecaster
    from rnnforecast.data.panel import Panel
    from rnnforecast.data.planning import Plan
    from rnnforecast.data.split import Split
    from rnnforecast.evaluate.backtest import Round
    from rnnforecast.model.artifact import Artifact


@dataclass(frozen=True)
class Trial:
    """All that is decided before the first origin."""

    rounds: list[Round]
    task: ForecastTask
    split: Split
    stride: int
    tz: str | None
    version: str | None = None

    def split_in_words(self) -> dict[str, Any]:
        """Return the first times that no longer belong to each part."""
        from rnnforecast.data.stamps import format_stamp

        split = self.split
        assert split.test_from_us is not None
        ends = {
            "train_end": split.train_until_us,
            "validation_end": split.test_from_us,
            "test_end": split.end_us,
        }
        return {name: format_stamp(us, self.tz) for name, us in ends.items()}


def fitted_trial(
    data: object, config: Config, ends: BacktestConfig, listener: Listener, clock: Clock
) -> Trial:
    """Fit a network to the readings before the test part."""
    from rnnforecast.data.planning import backtest_train_end_us, plan_backtest

    def learns_until(panel: Panel, tz: str | None) -> int:
        return backtest_train_end_us(_until(panel, ends.test_end, tz), config, ends, tz)

    panel, schema = read_readings(data, config.data, listener, learns_until=learns_until)
    clock.lap("read_s")
    panel = _until(panel, ends.test_end, schema.tz)
    plan = plan_backtest(panel, config, ends, schema.tz, listener)
    stride = ends.stride or plan.task.horizon
    rounds = _rounds(plan, ends, stride, listener)
    return Trial(rounds, plan.task, plan.split, stride, schema.tz)


def _rounds(plan: Plan, ends: BacktestConfig, stride: int, listener: Listener) -> list[Round]:
    """Fit once, or again after every `ends.refit` windows, with parts that move on in time."""
    from rnnforecast.data.origins import Origins
    from rnnforecast.data.split import Cuts, split_at
    from rnnforecast.evaluate.backtest import Round
    from rnnforecast.evaluate.comparison import NETWORK

    split, task, panel = plan.split, plan.task, plan.split.panel
    test_from = split.test_from_us
    assert test_from is not None
    length = split.end_us - test_from if ends.refit is None else ends.refit * stride * panel.step_us
    origins = Origins.rolling(
        panel, test_from, lookback=task.lookback, horizon=task.horizon, stride=stride
    )
    rounds = []
    for begin in range(test_from, split.end_us, length):
        now = origins.between(begin, begin + length)
        if not len(now):
            continue
        moved = Cuts(split.train_until_us + begin - test_from, begin, split.end_us)
        parts = split_at(panel, moved)
        fitted = fit_network(plan, parts, listener)
        calibration = calibrate(fitted, parts, task, listener)
        network = with_calibration(fitted, calibration, fitted.names)
        others = _baselines(ends.baselines, parts, task, listener)
        rounds.append(Round(now, {NETWORK: network, **others}))
    if not rounds:
        raise NotEnoughDataError(
            f"no window of lookback + horizon = {task.lookback} + {task.horizon} fits into the "
            "test part",
            code="too-short",
            hint="pass a later --test-end, or a shorter --horizon",
        )
    return rounds


def saved_trial(
    saved: Model, data: object, config: Config, ends: BacktestConfig, listener: Listener
) -> Trial:
    """Try a saved version on readings that it has not learnt from, read as `config.data` says."""
    from rnnforecast.data.origins import Origins
    from rnnforecast.evaluate.backtest import Round
    from rnnforecast.evaluate.comparison import NETWORK
    from rnnforecast.workflow.prediction import restore

    artifact = saved.artifact
    task = artifact.task
    fixed = (config.window, config.network, config.training)
    if fixed != (WindowConfig(), NetworkConfig(), TrainConfig()) or ends.refit is not None:
        raise UsageError(
            "a saved version has its own windows and network, and is not fitted again",
            hint="leave out --model, or the options of the windows, the network and the training",
        )
    panel, tz = _read_newer(artifact, data, config, ends, listener)
    split = _split_after_learnt(saved, panel, tz, ends)
    stride = ends.stride or task.horizon
    origins = None
    if split.test_from_us is not None:
        origins = Origins.rolling(
            panel, split.test_from_us, lookback=task.lookback, horizon=task.horizon, stride=stride
        )
    if not origins:
        raise NotEnoughDataError(
            f"version {saved.version} has learnt from the readings until {artifact.learnt_until}, "
            f"and after them no window of {task.horizon} steps fits into these readings",
            code="too-short",
            hint="pass newer readings, together with a look-back of older ones",
        )
    forecasters = {NETWORK: restore(artifact), **_baselines(ends.baselines, split, task, listener)}
    return Trial([Round(origins, forecasters)], task, split, stride, tz, saved.version)


def _read_newer(
    artifact: Artifact, data: object, config: Config, ends: BacktestConfig, listener: Listener
) -> tuple[Panel, str | None]:
    """Read readings for a saved version, up to the end of the test part; return them and a zone."""
    from rnnforecast.data.newer import read_newer, warn_of_strangers
    from rnnforecast.data.past import past_of

    task, known = artifact.task, known_of(artifact)
    panel, schema = read_newer(
        data,
        schema=artifact.schema,
        options=config.data,
        known=known,
        listener=listener,
    )
    warn_of_strangers(past_of(panel), known, listener, lookback=task.lookback, horizon=task.horizon)
    return _until(panel, ends.test_end, schema.tz), schema.tz


def _split_after_learnt(saved: Model, panel: Panel, tz: str | None, ends: BacktestConfig) -> Split:
    """Begin the test part after what the version has learnt from, or where the user says."""
    from rnnforecast.data.split import Cuts, first_of_test, moment_of, split_at
    from rnnforecast.data.stamps import format_stamp, parse_time_us

    learnt = parse_time_us(saved.artifact.learnt_until, tz)
    test_from = first_of_test(panel, ends, tz, horizon=saved.artifact.task.horizon)
    if test_from is None:
        test_from = learnt + panel.step_us
    if test_from <= learnt:
        raise DataError(
            f"version {saved.version} has learnt from the readings until "
            f"{saved.artifact.learnt_until}, but the test part begins at "
            f"{format_stamp(test_from, tz)}",
            code="already-learnt",
            hint="begin later, with  --validation-end "
            f"'{format_stamp(learnt + panel.step_us, tz)}'  or fewer --windows",
        )
    train_until = test_from if ends.train_end is None else moment_of(ends.train_end, panel, tz)
    if train_until > test_from:
        raise UsageError("--train-end lies in the test part", hint="pass an earlier one")
    return split_at(panel, Cuts(train_until, test_from, panel.end_us))


def _baselines(
    names: tuple[str, ...], split: Split, task: ForecastTask, listener: Listener
) -> dict[str, Forecaster]:
    """Make the baselines that were asked for; the naive ones are always there."""
    from rnnforecast.evaluate.baselines import SeasonalNaive, naive
    from rnnforecast.evaluate.comparison import NAIVE, RIDGE, SEASONAL_NAIVE

    found: dict[str, Forecaster] = {NAIVE: naive(), SEASONAL_NAIVE: SeasonalNaive(task.season)}
    if RIDGE in names:
        from rnnforecast.evaluate.ridge import RidgeOnLags

        ridge = RidgeOnLags.fit(
            split.train, split.validation, lookback=task.lookback, horizon=task.horizon
        )
        if ridge is None:
            what = "too few whole windows for ridge regression: left out"
            listener(Warned("no-ridge", what))
        else:
            found[RIDGE] = ridge
    return found


def _until(panel: Panel, test_end: str | None, tz: str | None) -> Panel:
    """Cut off what follows the test part, and series that begin after it."""
    import numpy as np

    from rnnforecast.data.split import moment_of

    if test_end is None:
        return panel
    panel = panel.before(panel.rows_before(moment_of(test_end, panel, tz)))
    there = np.flatnonzero(panel.lengths > 0)
    if not len(there):
        raise NotEnoughDataError(
            f"no reading lies before the end of the test part, {test_end}",
            code="too-short",
            hint="pass a later --test-end",
        )
    return panel.select(there)
