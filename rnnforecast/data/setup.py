"""TrainingSetup: everything that is settled from the readings before a network is fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rnnforecast.config.training import MAX_HORIZON, BacktestConfig, Config
from rnnforecast.data import season as seasons
from rnnforecast.data.arrays import Integers, pick
from rnnforecast.data.panel import Panel
from rnnforecast.data.split import Split, cuts_by_ends, cuts_by_share, split_at, split_by_time
from rnnforecast.data.windows import SEEN_SHARE, Past, past_of
from rnnforecast.errors import NotEnoughDataError, UsageError
from rnnforecast.events import Listener, Noted, Warned
from rnnforecast.spec import MemberSpec, NetworkSpec
from rnnforecast.units import parse_steps

_LOOKED_AT = 1024


@dataclass(frozen=True)
class Plan:
    """A training, all of it settled."""

    split: Split
    spec: NetworkSpec
    config: Config


def plan_training(panel: Panel, config: Config, listener: Listener) -> Plan:
    """Settle what the user left open; say what was found, and what will not be used.

    Raises `NotEnoughDataError` where no series is as long as one window.
    """
    shares = {"validation": config.training.validation, "test": config.training.test}
    longest = int(panel.lengths.max())
    cuts = cuts_by_share(panel, at_least=_longest_horizon(config, panel, longest), **shares)
    known = past_of(panel, panel.rows_before(cuts.train_until_us))
    spec = _settle(config, known, listener, longest=longest)
    split = split_by_time(panel, lookback=spec.lookback, horizon=spec.horizon, **shares)
    _check_usable(split, spec)
    _warn(split, spec.lookback + spec.horizon, listener, lengths=panel.lengths)
    return Plan(split, spec, config)


def plan_backtest(
    panel: Panel, config: Config, ends: BacktestConfig, tz: str | None, listener: Listener
) -> Plan:
    """Settle the same for a backtest, from the readings before the train part ends.

    The panel must end where the test part does. Raises `UsageError` for ends that do not follow
    each other, `NotEnoughDataError` where a part is too short.
    """
    shares = {"validation": config.training.validation, "test": config.training.test}
    if config.window.horizon == "auto" and ends.windows is not None:
        raise UsageError(
            "--windows needs --horizon: how far back the last windows reach depends on it",
            hint="add one, such as  --horizon 24",
        )
    at_least = _longest_horizon(config, panel, int(panel.lengths.max()))
    earliest = cuts_by_ends(panel, ends, tz, horizon=at_least, **shares)
    known = past_of(panel, panel.rows_before(earliest.train_until_us))
    spec = _settle(config, known, listener, longest=int(known.cutoff.max()))
    cuts = cuts_by_ends(panel, ends, tz, horizon=spec.horizon, **shares)
    split = split_at(panel, cuts)
    needed = spec.lookback + spec.horizon
    if not len(split.train.windows(spec.lookback, spec.horizon)):
        raise NotEnoughDataError(
            f"the longest series has {int(split.train.cutoff.max())} rows before the train part "
            f"ends, but training needs at least lookback + horizon = {needed}",
            code="too-short",
            hint="pass a later --train-end, or a shorter --lookback or --horizon",
        )
    _check_usable(split, spec)
    _warn(split, needed, listener, lengths=split.train.cutoff)
    return Plan(split, spec, config)


def train_end_us(panel: Panel, config: Config) -> int:
    """Return the first moment that `plan_training` holds out."""
    shares = {"validation": config.training.validation, "test": config.training.test}
    horizon = _longest_horizon(config, panel, int(panel.lengths.max()))
    return cuts_by_share(panel, at_least=horizon, **shares).train_until_us


def backtest_train_end_us(
    panel: Panel, config: Config, ends: BacktestConfig, tz: str | None
) -> int:
    """Return the first moment that `plan_backtest` holds out; raises as it does."""
    shares = {"validation": config.training.validation, "test": config.training.test}
    horizon = _longest_horizon(config, panel, int(panel.lengths.max()))
    return cuts_by_ends(panel, ends, tz, horizon=horizon, **shares).train_until_us


def _longest_horizon(config: Config, panel: Panel, longest: int) -> int:
    """Return the horizon that the user named, or the longest that may be found."""
    horizon = config.window.horizon
    if horizon == "auto":
        return seasons.longest_auto_horizon(longest)
    return parse_steps(horizon, step_us=panel.step_us, name="horizon", limit=MAX_HORIZON)


def _settle(config: Config, known: Past, listener: Listener, *, longest: int) -> NetworkSpec:
    """Find season, windows and members in what is known, and say what was found."""
    season = seasons.resolve_season(config.window, known)
    lookbacks, horizon = seasons.resolve_windows(
        config.window, season=season, step_us=known.step_us, longest=longest
    )
    n_known, n_past, n_static = known.n_features
    members = _members(config.network.segment, season, lookbacks)
    if n_known + n_past + n_static:
        members += tuple(replace(own, covariates=True) for own in members)
    for line in seasons.in_words(known.step_us, season=season, horizon=horizon, members=members):
        listener(Noted(line))
    return NetworkSpec(
        lookbacks[-1],
        horizon,
        season,
        len(known.names),
        members,
        n_known=n_known,
        n_past=n_past,
        n_static=n_static,
    )


def _members(
    segment: int | None, season: int, lookbacks: tuple[int, ...]
) -> tuple[MemberSpec, ...]:
    """Return three members that take different things for granted, and look back differently far.

    The plain one is in the middle. The one that looks back longest, and takes longest to train,
    comes first.
    """
    longest, middle, shortest = lookbacks[-1], lookbacks[len(lookbacks) // 2], lookbacks[0]
    kinds = [(longest, True), (middle, False), (shortest, True)]
    return tuple(
        MemberSpec(
            n,
            seasons.resolve_segment(segment, season=season, lookback=n),
            linear=linear,
            seasonal=linear and 1 < season <= n // 2,
        )
        for n, linear in kinds
    )


def _check_usable(split: Split, spec: NetworkSpec) -> None:
    """Raise `NotEnoughDataError` where gaps leave no training window half of its history."""
    windows = split.train.windows(spec.lookback, spec.horizon)
    batch = windows.gather(windows.spread(_LOOKED_AT))
    whole = np.isfinite(batch.history).mean(1) >= SEEN_SHARE
    if not (whole & np.isfinite(batch.future).any(1)).any():
        n_rows = split.panel.n_rows
        raise NotEnoughDataError(
            f"no window has half of its history: {n_rows - split.panel.n_readings} of {n_rows} "
            "readings are missing",
            code="too-sparse",
            hint="pass a longer step, such as  --freq 1h --agg mean , or a shorter --lookback",
        )


def _warn(split: Split, needed: int, listener: Listener, *, lengths: Integers) -> None:
    """Say which of these lengths, `(series,)`, are too short, and what else is amiss."""
    panel = split.panel
    short = pick(panel.names, lengths < needed)
    if short:
        listener(Warned.naming("short-series", "too short to learn from", short))
    if split.test_from_us is None:
        listener(Warned("nothing-held-out", "no readings are held out: nothing is measured"))
    if split.validation is None:
        message = "no readings are left to validate on: training does not stop early"
        listener(Warned("no-validation", message))
