"""What a training will do, settled before it starts: season, windows, segments, split.

Apart from `season` and `split`, which each settle one thing, and from the stories, which do not
decide: here they are put in their order, and what was found is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rnnforecast.config import MAX_HORIZON, Config, ForecastTask
from rnnforecast.data import season as seasons
from rnnforecast.data.panel import Panel
from rnnforecast.data.split import Split, known_before_test, split_by_time
from rnnforecast.durations import parse_steps
from rnnforecast.events import Listener, Noted, Warned


@dataclass(frozen=True)
class Plan:
    """A training, all of it settled."""

    split: Split
    task: ForecastTask
    config: Config
    """The user's, with the segment filled in."""


def plan_training(panel: Panel, config: Config, listener: Listener) -> Plan:
    """Settle what the user left open; say what was found, and what will not be used.

    Raises `NotEnoughDataError` where no series is as long as one window.
    """
    shares = {"validation": config.training.validation, "test": config.training.test}
    longest = int(panel.lengths.max())
    at_least = seasons.longest_auto_horizon(longest)
    if config.window.horizon != "auto":
        at_least = parse_steps(
            config.window.horizon, step_us=panel.step_us, name="horizon", limit=MAX_HORIZON
        )
    known = known_before_test(panel, at_least=at_least, **shares)
    season = seasons.resolve_season(config.window, known)
    lookback, horizon = seasons.resolve_windows(
        config.window, season=season, step_us=panel.step_us, longest=longest
    )
    segment = seasons.resolve_segment(config.network.segment, season=season, lookback=lookback)
    found = {"season": season, "horizon": horizon, "lookback": lookback, "segment": segment}
    for line in seasons.in_words(panel.step_us, **found):
        listener(Noted(line))
    split = split_by_time(panel, lookback=lookback, horizon=horizon, **shares)
    _warn(split, lookback + horizon, listener)
    task = ForecastTask(lookback, horizon, season, panel.n_series)
    return Plan(split, task, replace(config, network=replace(config.network, segment=segment)))


def _warn(split: Split, needed: int, listener: Listener) -> None:
    panel = split.panel
    spans = [fn.reduceat(panel.target, panel.offsets[:-1]) for fn in (np.fmin, np.fmax)]
    constant = [name for name, low, high in zip(panel.names, *spans, strict=True) if low == high]
    if constant:
        shown = ", ".join(constant[:5]) + ", ..." * (len(constant) > 5)
        listener(Warned("constant-series", f"always the same reading: {shown}", len(constant)))
    n_short = int((split.panel.lengths < needed).sum())
    if n_short:
        listener(Warned("short-series", f"{n_short} series are too short to learn from", n_short))
    if split.test_from_us is None:
        listener(Warned("nothing-held-out", "no readings are held out: nothing is measured"))
    if split.validation is None:
        message = "no readings are left to validate on: training does not stop early"
        listener(Warned("no-validation", message))
