"""TrainingSetup: season, windows, members and split, settled before a network is fitted."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from rnnforecast.config.training import (
    BUILTIN_MODEL,
    TRAINED,
    BacktestConfig,
    Config,
    NetworkConfig,
)
from rnnforecast.data import season as seasons
from rnnforecast.data.arrays import Integers, take_names
from rnnforecast.data.panel import Panel
from rnnforecast.data.season import Seasons
from rnnforecast.data.split import (
    Split,
    split_at,
    split_by_time,
    split_times_by_ends,
    split_times_by_share,
)
from rnnforecast.data.windows import MIN_OBSERVED_SHARE, Past, make_past, windows_of
from rnnforecast.errors import NotEnoughDataError, Proposal, UsageError
from rnnforecast.events import Listener, Notice, WarningEvent
from rnnforecast.spec import BUILTIN, MemberSpec, NetworkSpec
from rnnforecast.units import describe_duration, parse_duration_us

_CHECKED_WINDOWS = 1024
"""Windows, spread over all of them, that are looked at for gaps."""
_NAMED_SEASONS = 3
"""Seasons that are named beside the one of most series."""
_MIN_READ_SHARE = 0.1
"""Share of a window's rows that are read, at least: with fewer, stamps or step are misread."""
_LONGER_STEPS = (
    *("1min", "5min", "10min", "15min", "30min"),
    *("1h", "2h", "3h", "6h", "12h", "1d", "7d"),
)
"""Steps that are proposed where most readings of the present one are missing."""


@dataclass(frozen=True)
class TrainingSetup:
    """Settings of a training run, with nothing left open."""

    split: Split
    spec: NetworkSpec
    config: Config
    common: Seasons | None = None
    """The seasons of all series, where the user names them; else each has its own."""
    seasons: tuple[Seasons, ...] | None = None
    """Those of each series before the train part ends, where they have been looked for."""


def set_up_training(panel: Panel, config: Config, listener: Listener) -> TrainingSetup:
    """Settle what the user left open, note what was found, and warn of what is not used.

    Season and windows are found in the readings before the train part ends. Raises
    `NotEnoughDataError` where no series is as long as one window.
    """
    past = make_past(panel, panel.rows_before(train_end_us(panel, config)))
    spec, common, by_series = _settle(config, past, listener, longest=int(panel.lengths.max()))
    split = split_by_time(panel, spec, **_shares(config))
    _check_usable(split, spec)
    _warn(split, spec.least_history + spec.horizon, listener, lengths=panel.lengths)
    return TrainingSetup(split, spec, config, common, by_series)


def set_up_backtest(
    panel: Panel, config: Config, ends: BacktestConfig, listener: Listener
) -> TrainingSetup:
    """Settle the same for a backtest, from the readings before the train part ends.

    The panel must end where the test part does. Raises `UsageError` for ends that do not follow
    each other, `NotEnoughDataError` where a part is too short.
    """
    if config.window.horizon == "auto" and ends.windows is not None:
        raise UsageError("--windows needs --horizon", hint="add e.g.  --horizon 24")

    past = make_past(panel, panel.rows_before(backtest_train_end_us(panel, config, ends)))
    spec, common, by_series = _settle(config, past, listener, longest=int(past.cutoff.max()))
    cuts = split_times_by_ends(panel, ends, horizon=spec.horizon, **_shares(config))
    split = split_at(panel, cuts)

    window_rows = spec.least_history + spec.horizon
    if not len(windows_of(split.train, spec)):
        raise NotEnoughDataError(
            f"the longest series has {int(split.train.cutoff.max())} rows before --train-end, "
            f"but training needs at least {window_rows} ({spec.least_history} of history plus "
            "the horizon)",
            code="too-short",
            hint="use a later --train-end, or a shorter --lookback or --horizon",
        )
    _check_usable(split, spec)
    _warn(split, window_rows, listener, lengths=split.train.cutoff)
    return TrainingSetup(split, spec, config, common, by_series)


def train_end_us(panel: Panel, config: Config) -> int:
    """Return the first moment that `set_up_training` may hold out, in microseconds.

    The horizon is not known yet: the longest that may be chosen gives the earliest moment.
    """
    horizon = _max_horizon(config, panel)
    return split_times_by_share(panel, at_least=horizon, **_shares(config)).train_until_us


def backtest_train_end_us(panel: Panel, config: Config, ends: BacktestConfig) -> int:
    """Return the first moment that `set_up_backtest` may hold out; raises what it raises."""
    horizon = _max_horizon(config, panel)
    return split_times_by_ends(panel, ends, horizon=horizon, **_shares(config)).train_until_us


def _shares(config: Config) -> dict[str, float]:
    return {"validation": config.training.validation, "test": config.training.test}


def _max_horizon(config: Config, panel: Panel) -> int:
    """Return the horizon that the user named, or the longest that may be chosen."""
    horizon = config.window.horizon
    if horizon == "auto":
        return seasons.max_auto_horizon(int(panel.lengths.max()))
    return seasons.parse_window(horizon, "horizon", panel.step_us, panel.axis)


def _settle(
    config: Config, past: Past, listener: Listener, *, longest: int
) -> tuple[NetworkSpec, Seasons | None, tuple[Seasons, ...]]:
    """Find seasons, windows and members for the readings of a Past, and note them.

    The seasons are those that the user names for all series, if any, and those of each.
    """
    common = seasons.parse_seasons(config.window, past)
    by_series = seasons.seasons_of(past, common)
    season = seasons.most_common(by_series, past.n_seen)
    lookback, horizon = seasons.resolve_windows(
        config.window,
        season=season,
        n_wanted=seasons.wanted_lookback(by_series),
        step_us=past.step_us,
        longest=longest,
        axis=past.axis,
    )

    n_known, n_past, n_static = past.n_features
    members = _members(config.network, has_covariates=n_known + n_past + n_static > 0)
    for line in seasons.describe_windows(
        past.step_us, season=season, lookback=lookback, horizon=horizon, segment=members[0].segment
    ):
        listener(Notice(line))
    others = Counter(each.main for each in by_series if each.main not in (1, season))
    if others:
        parts = (
            f"{describe_duration(period * past.step_us)} in {n}"
            for period, n in others.most_common(_NAMED_SEASONS)
        )
        listener(Notice(f"other seasons: {', '.join(parts)} of {len(by_series)} series"))

    spec = NetworkSpec(
        lookback,
        horizon,
        season,
        len(past.names),
        members,
        n_known=n_known,
        n_past=n_past,
        n_static=n_static,
    )
    return spec, common, by_series


def _members(network: NetworkConfig, *, has_covariates: bool) -> tuple[MemberSpec, ...]:
    """Return a trained member, one more that sees covariates where there are any, the built-in one.

    The last is a member only where the trained ones have its shape, and begin with its weights;
    `--network` may ask for one kind alone.
    """
    if network.network == BUILTIN_MODEL:
        return (BUILTIN,)
    segment = BUILTIN.segment if network.segment is None else network.segment
    plain = MemberSpec(network.cell, network.hidden, network.layers, segment)
    trained = [plain, replace(plain, covariates=True)] if has_covariates else [plain]
    is_builtin = network.network != TRAINED and replace(plain, is_trained=False) == BUILTIN
    return (*trained, *[BUILTIN] * is_builtin)


def _check_usable(split: Split, spec: NetworkSpec) -> None:
    """Raise `NotEnoughDataError` where gaps leave no training window enough of its history.

    That is a tenth of its rows, and half of as many as `least_history`; they may lie anywhere.
    """
    windows = windows_of(split.train, spec)
    batch = windows.gather(windows.spread(_CHECKED_WINDOWS))
    rows_before = batch.next_step - split.panel.first_step[batch.series]
    n_rows = np.minimum(rows_before, spec.lookback)  # none lies before the first of a series
    n_least = math.ceil(MIN_OBSERVED_SHARE * spec.least_history)
    n_needed = np.maximum(n_least, _MIN_READ_SHARE * n_rows)
    has_history = np.isfinite(batch.history).sum(1) >= n_needed
    if not (has_history & np.isfinite(batch.future).any(1)).any():
        panel = split.panel
        raise NotEnoughDataError(
            f"every window of {spec.lookback} steps has too few readings (at least "
            f"{n_least} and a tenth are needed); {panel.n_rows - panel.n_readings} of "
            f"{panel.n_rows} are missing",
            code="too-sparse",
            proposals=_longer_steps(panel),
            hint="use more data",
        )


def _longer_steps(panel: Panel) -> list[Proposal]:
    """Return steps with a reading in each, as far as there are."""
    pace_us = panel.step_us * panel.n_rows / max(panel.n_readings, 1)
    steps = [step for step in _LONGER_STEPS if parse_duration_us(step) >= pace_us][:2]
    condition = "if the sensors report this rarely"
    return [Proposal(("--freq", step, "--agg", "mean"), condition) for step in steps]


def _warn(split: Split, window_rows: int, listener: Listener, *, lengths: Integers) -> None:
    """Warn of series whose length, `(series,)`, is less than a window, and of missing parts."""
    short = take_names(split.panel.names, lengths < window_rows)
    if short:
        listener(WarningEvent.for_names("short-series", "too short for training", short))
    if split.test_from_us is None:
        listener(
            WarningEvent("nothing-held-out", "no data is held out, so the model is not tested")
        )
    if split.validation is None:
        message = "no data is left for validation, so there is no early stopping"
        listener(WarningEvent("no-validation", message))
