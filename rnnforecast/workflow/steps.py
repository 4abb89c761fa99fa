"""Steps that commands share: read, fit, calibrate, compare, measure memory, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import Config, WindowConfig, override
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.forecast import Calibration, Forecaster
from rnnforecast.data.grid import LearnsUntil, read_panel
from rnnforecast.data.panel import Panel
from rnnforecast.data.schema import Schema, infer_schema
from rnnforecast.data.season import autocorrelation, median_curve, peaks
from rnnforecast.data.setup import Plan
from rnnforecast.data.split import Split, test_origins, validation_origins
from rnnforecast.data.timestamps import format_stamp
from rnnforecast.data.windows import Batch, Past, TrainingWindows
from rnnforecast.evaluate.backtest import (
    Example,
    Round,
    Truth,
    Units,
    deviations,
    evaluate,
    examples,
)
from rnnforecast.evaluate.baselines import SeasonalNaive, naive
from rnnforecast.evaluate.calibration import Calibrated, fit_calibration
from rnnforecast.evaluate.comparison import (
    NAIVE,
    NETWORK,
    SEASONAL_NAIVE,
    Comparison,
    compare,
    not_compared,
)
from rnnforecast.evaluate.memory import MemberMemory, Memory, Peak, judge
from rnnforecast.evaluate.metrics import HEADINGS, Tally
from rnnforecast.events import EpochEnded, Listener, Noted, Warned
from rnnforecast.gradients import Judged
from rnnforecast.model.artifact import Artifact
from rnnforecast.model.checkpoint import Checkpoints
from rnnforecast.model.provenance import card_of
from rnnforecast.parallel import ALONE, Ranks
from rnnforecast.report.html import Report, Seen, ShownMemory, report_html
from rnnforecast.report.plots import fans_of
from rnnforecast.sources.shards import open_share
from rnnforecast.sources.source import Source, join_time, open_source, rename
from rnnforecast.spec import NetworkSpec
from rnnforecast.units import figure

if TYPE_CHECKING:
    from rnnforecast.model.forecaster import RNNForecaster
    from rnnforecast.model.network import Network

_SEASONS_SHOWN = 2
"""Readings before a forecast, in horizons."""
FEWEST = 8
"""Windows that say something."""
_TRAINING_WINDOWS = 64
"""So many are looked at after a training, which should not take much longer for it."""
_GRADIENT_VALUES = 1 << 23
"""Recurrent states, in figures, that gradients are taken of at once: they are kept for it."""
_MAX_SERIES = 32
_MAX_ROWS = 65_536


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
        spec=plan.spec,
        network=plan.config.network,
        config=plan.config.training,
        listener=listener,
        checkpoints=checkpoints,
        start=start,
    )


def calibrate(
    fitted: Forecaster, split: Split, spec: NetworkSpec, listener: Listener
) -> Calibration | None:
    """Find how the quantiles of a fitted network move, on the windows that it was held out from.

    None where there are too few of them, which is said.
    """
    found = None
    if split.validation is not None:
        origins = validation_origins(split, lookback=spec.lookback, horizon=spec.horizon)
        truth = Truth(split.panel, spec.horizon)
        found = fit_calibration(fitted, origins, truth, lookback=spec.lookback)
    if found is None:
        listener(Noted("too little is held out to calibrate the quantiles: they stay as learnt"))
    return found


def with_calibration(
    forecaster: Forecaster, calibration: Calibration | None, names: tuple[str, ...]
) -> Forecaster:
    """Return a forecaster whose quantiles move, where there is something to move them by."""
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
    split, spec = plan.split, plan.spec
    if split.test_from_us is None:
        return not_compared(), ()
    network = fine_tune(fitted, plan, split.before_test, listener)
    forecasters: dict[str, Forecaster] = {
        NETWORK: with_calibration(network, calibration, network.names),
        NAIVE: naive(),
        SEASONAL_NAIVE: SeasonalNaive(spec.season),
        **(beside or {}),
    }
    origins = test_origins(split, lookback=spec.lookback, horizon=spec.horizon)
    panel, rounds = split.panel, [Round(origins, forecasters)]
    truth, units = Truth(panel, spec.horizon), Units(spec.season, deviations(split.train))
    tallies = evaluate(rounds, truth, units, lookback=spec.lookback)
    found = compare(tallies, names=panel.names, season=spec.season, step_us=panel.step_us)
    return found, windows_seen(rounds, truth, tallies, found, lookback=spec.lookback, tz=tz)


def fine_tune(fitted: RNNForecaster, plan: Plan, known: Past, listener: Listener) -> RNNForecaster:
    """Let the network learn from the readings after the train part too, where there are any."""
    if known.cutoff.sum() == plan.split.train.cutoff.sum():
        return fitted
    return fitted.fine_tune(known, config=plan.config.training, listener=listener)


def draw_report(
    artifact: Artifact,
    comparison: Comparison,
    seen: tuple[Seen, ...],
    fitted: RNNForecaster,
    warnings: Sequence[Warned],
    remembered: Remembered | None = None,
) -> str:
    """Draw the report of a version."""
    assert fitted.log is not None
    return report_html(
        training_report(artifact, comparison, seen, fitted.log.epochs, warnings, remembered)
    )


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


@dataclass(frozen=True)
class Remembered:
    """What was found of a network, and what it amounts to."""

    memory: Memory
    judged: Judged
    step_us: int
    warnings: tuple[Warned, ...] = ()

    def summary(self) -> dict[str, object]:
        """Return what a version says of it among its metrics."""
        return {
            "effective_memory": self.memory.effective,
            "lookback": self.memory.lookback,
            "verdict": self.judged.verdict,
            "reason": self.judged.reason,
            "advice": self.judged.advice,
        }


def remember_held_out(fitted: RNNForecaster, plan: Plan) -> Remembered | None:
    """Measure a network that was just fitted on its validation part; None where that is too short.

    The panel up to the end of that part stands for what the readings do.
    """
    split, spec = plan.split, fitted.network.spec
    if split.validation is None:
        return None
    windows = split.validation.windows(spec.lookback, spec.horizon, targets_after=split.train)
    if len(windows) < FEWEST:
        return None
    assert fitted.log is not None
    logs = [fitted.log.members[i] for i in fitted.log.selected]
    explosions = (log.explosion(plan.config.training) for log in logs)
    return remember(
        fitted.network,
        windows,
        split.panel.before(split.validation.cutoff),
        plan.config,
        entries=range(1, split.panel.n_series + 1),
        explosion=next(filter(None, explosions), None),
        least=_TRAINING_WINDOWS,
    )


def remember(
    network: Network,
    windows: TrainingWindows,
    panel: Panel,
    config: Config,
    *,
    entries: Sequence[int],
    explosion: str | None,
    least: int,
) -> Remembered:
    """Measure on so many windows, on more where that costs little, and judge.

    `entries`, one for each series of the panel, are their numbers in the network, 0 for unknown
    ones; `explosion` is why the training of one of its members exploded, if one did.
    """
    from rnnforecast.model.memory import enough_windows, measure_cut

    spec = network.spec
    most = enough_windows(network, network.members, least)
    places = np.array(entries, np.int64) - 1
    n_steps = max(-(-own.lookback // own.segment) for own in spec.members)
    room = _GRADIENT_VALUES // (n_steps * network.config.hidden)
    batch = _gathered(windows, most, places)
    few = _gathered(windows, max(FEWEST, min(most, room)), places)
    leads = {"early": 1, "middle": (spec.horizon + 1) // 2, "late": spec.horizon}
    cut = measure_cut(network, batch)
    found = Memory(
        lookback=spec.lookback,
        effective=cut.effective,
        kept=cut.kept,
        losses=cut.losses,
        leads=leads,
        gradients=_gradients(network, few, leads),
        members=tuple(_members(network, batch, few)),
        peaks=tuple(_peaks(network, batch, panel, entries)),
        n_windows=len(batch.series),
        explosion=explosion,
    )
    return Remembered(found, judge(found, spec, config), panel.step_us)


def _gathered(windows: TrainingWindows, n: int, places: Integers) -> Batch:
    """Gather n windows; `places`, `(series,)`: where the network has each series, -1 nowhere."""
    batch = windows.gather(windows.spread(n))
    return replace(batch, series=places[batch.series])


def _gradients(
    network: Network, few: Batch, leads: Mapping[str, int]
) -> dict[str, tuple[float | None, ...]]:
    """Return how much each of some leads moves with each reading, by lag from 1."""
    from rnnforecast.model.memory import gradients_by_lag

    found = gradients_by_lag(network, few, list(leads.values()))
    return {
        name: tuple(None if np.isnan(x) else float(x) for x in row)
        for name, row in zip(leads, found, strict=True)
    }


def _members(network: Network, batch: Batch, few: Batch) -> list[MemberMemory]:
    """Measure each member by itself, gradients on fewer windows."""
    from rnnforecast.model.memory import measure_cut, state_gradients, time_constants

    found = []
    for member in network.members:
        steps_back, sizes = state_gradients(network, member, few, 1)
        constants = time_constants(network, member, few)
        effective = measure_cut(network, batch, members=[member], per_doubling=2).effective
        found.append(
            MemberMemory(
                lookback=member.spec.lookback,
                segment=member.spec.segment,
                effective_memory=effective,
                state_lags=tuple(member.spec.segment * n for n in steps_back),
                state_gradient=tuple(sizes.tolist()),
                time_constants=None
                if constants is None
                else tuple(tuple(layer) for layer in constants.tolist()),
            )
        )
    return found


def _peaks(network: Network, batch: Batch, panel: Panel, entries: Sequence[int]) -> list[Peak]:
    """Return the peaks of the readings' autocorrelation, and what the forecasts make of them."""
    from rnnforecast.model.memory import deviations, pattern_of

    lookback = network.spec.lookback
    chosen = np.unique(np.linspace(0, panel.n_series - 1, _MAX_SERIES).astype(np.int64))
    whole: list[Doubles] = []
    left: list[Doubles] = []
    for series in chosen.tolist():
        n_before = max(0, int(panel.lengths[series]) - _MAX_ROWS)
        readings = panel.of(series, n_before).astype(np.float64)
        if np.isfinite(readings).any():  # a spike must not decide
            readings = np.clip(readings, *np.nanquantile(readings, (0.005, 0.995)))
        first_step = int(panel.first_step[series]) + n_before
        pattern = pattern_of(network, entries[series], first_step, len(readings))
        whole.append(autocorrelation(readings, 2 * lookback))
        left.append(autocorrelation(readings - pattern, 2 * lookback))
    curve, rest = median_curve(whole), median_curve(left)
    own = deviations(network, batch)
    found = []
    for lag in peaks(curve, int(panel.lengths[chosen].max())):
        errors = own.errors_beside(lag, float(rest[lag])) if lag <= lookback else None
        found.append(Peak(lag, float(curve[lag]), float(rest[lag]), *(errors or ())))
    return found
