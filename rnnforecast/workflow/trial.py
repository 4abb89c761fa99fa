"""What a backtest tries, all of it decided before the first origin: parts, forecasters, origins.

Apart from `backtesting`, the story, which runs a trial: here a network is fitted to the past, or a
saved version is held against readings that it has not learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rnnforecast.config import BacktestConfig, Config, ForecastTask, WindowConfig, override
from rnnforecast.errors import DataError, NotEnoughDataError, UsageError
from rnnforecast.events import Listener, Warned
from rnnforecast.workflow.saved import Model, known_of
from rnnforecast.workflow.steps import Clock, fit_network, read_readings

if TYPE_CHECKING:
    from rnnforecast.data.forecast import Forecaster
    from rnnforecast.data.panel import Panel
    from rnnforecast.data.planning import Plan
    from rnnforecast.data.split import Split
    from rnnforecast.evaluate.backtest import Round


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

        panel, test_from = self.split.panel, self.split.test_from_us
        assert test_from is not None
        train = self.split.train
        end = int((panel.start + panel.lengths * panel.step_us).max())
        train_end = int(train.cutoff_time.max()) + panel.step_us if train.n_origins else None
        ends = {"train_end": train_end, "validation_end": test_from, "test_end": end}
        return {k: None if us is None else format_stamp(us, self.tz) for k, us in ends.items()}


def fitted_trial(
    data: object, config: Config, ends: BacktestConfig, listener: Listener, clock: Clock
) -> Trial:
    """Fit a network to the readings before the test part."""
    from rnnforecast.data.planning import plan_backtest

    panel, schema = read_readings(data, config.data, listener)
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
    end = int((panel.start + panel.lengths * panel.step_us).max())
    train_until = int(split.train.cutoff_time.max()) + panel.step_us
    length = end - test_from if ends.refit is None else ends.refit * stride * panel.step_us
    rounds = []
    for begin in range(test_from, end, length):
        origins = Origins.rolling(
            panel,
            begin,
            lookback=task.lookback,
            horizon=task.horizon,
            stride=stride,
            until_us=begin + length,
        )
        if not len(origins):
            continue
        moved = Cuts(train_until + begin - test_from, begin, end)
        parts = split if begin == test_from else split_at(panel, moved)
        network: Forecaster = fit_network(plan, parts, listener)
        others = _baselines(ends.baselines, parts, task, listener)
        rounds.append(Round(origins, {NETWORK: network, **others}))
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
    """Try a saved version on readings that it has not learnt from."""
    from rnnforecast.data.forecast import past_of
    from rnnforecast.data.newer import read_newer, warn_of_strangers
    from rnnforecast.data.origins import Origins
    from rnnforecast.evaluate.backtest import Round
    from rnnforecast.evaluate.comparison import NETWORK
    from rnnforecast.workflow.prediction import restore

    artifact = saved.artifact
    task = artifact.task
    if config.window != WindowConfig() or ends.refit is not None:
        raise UsageError(
            "a saved version has its own horizon and look-back, and is not fitted again",
            hint="leave --horizon, --lookback, --season and --refit out, or --model",
        )
    known = known_of(artifact)
    panel, schema = read_newer(
        data,
        schema=artifact.schema,
        options=override(artifact.config.data, config.data),
        known=known,
        listener=listener,
    )
    panel = _until(panel, ends.test_end, schema.tz)
    warn_of_strangers(past_of(panel), known, listener, lookback=task.lookback, horizon=task.horizon)
    split = _split_after_learnt(saved, panel, schema.tz, ends)
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
    return Trial([Round(origins, forecasters)], task, split, stride, schema.tz, saved.version)


def _split_after_learnt(saved: Model, panel: Panel, tz: str | None, ends: BacktestConfig) -> Split:
    """Begin the test part after what the version has learnt from, or where the user says."""
    from rnnforecast.data.split import Cuts, moment_of, split_at
    from rnnforecast.data.stamps import format_stamp, parse_time_us

    learnt = parse_time_us(saved.artifact.learnt_until, tz)
    end = int((panel.start + panel.lengths * panel.step_us).max())
    test_from = learnt + panel.step_us
    horizon = saved.artifact.task.horizon
    if ends.validation_end is not None:
        test_from = moment_of(ends.validation_end, panel, tz)
    elif ends.windows is not None:
        stride = ends.stride or horizon
        test_from = end - (horizon + (ends.windows - 1) * stride) * panel.step_us
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
    return split_at(panel, Cuts(min(train_until, test_from), test_from, end))


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
