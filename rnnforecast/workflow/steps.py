"""Steps that stories share: fit, calibrate, measure on held-out readings, report, memory."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnforecast.config.training import BUILTIN_MODEL, EXPERT, Config
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.forecast import Calibration, Forecaster
from rnnforecast.data.panel import Panel
from rnnforecast.data.setup import TrainingSetup
from rnnforecast.data.split import Split, rolling_test_origins, rolling_validation_origins
from rnnforecast.data.windows import Batch, Past, TrainingWindows, windows_of
from rnnforecast.evaluate.backtest import (
    ErrorUnits,
    Example,
    Round,
    Sink,
    Truth,
    deviations,
    evaluate,
    select_examples,
)
from rnnforecast.evaluate.baselines import SeasonalNaive, naive
from rnnforecast.evaluate.calibration import fit_calibration, with_calibration
from rnnforecast.evaluate.comparison import (
    NAIVE,
    NETWORK,
    SEASONAL_NAIVE,
    Comparison,
    compare,
    not_compared,
)
from rnnforecast.evaluate.memory import (
    MemberMemory,
    MemoryAnalysis,
    Peak,
    autocorrelation,
    diagnose,
    find_peaks,
    median_curve,
)
from rnnforecast.evaluate.metrics import HEADINGS
from rnnforecast.events import EpochEnded, Listener, Notice, WarningEvent, ignore
from rnnforecast.gradients import Diagnosis, explain_explosion
from rnnforecast.model.artifact import Artifact
from rnnforecast.model.checkpoint import Checkpoints
from rnnforecast.model.provenance import model_card
from rnnforecast.report.html import ExampleWindow, MemoryFigures, Report, report_html
from rnnforecast.report.plots import make_fans
from rnnforecast.sources.files import check_fits
from rnnforecast.spec import CONTEXT_ROWS, N_EXPERTS, NetworkSpec, n_inputs
from rnnforecast.units import format_number, join_names
from rnnforecast.workflow.saved import make_references

if TYPE_CHECKING:
    from rnnforecast.model.forecaster import RNNForecaster
    from rnnforecast.model.network import Network

NAMES_SHOWN = 3
"""Names of targets or series in a heading of a report."""
_HORIZONS_BEFORE = 2
"""Readings drawn before a forecast, in horizons."""
MIN_WINDOWS = 8
"""Fewest windows that make a measurement of memory meaningful."""
_WINDOWS_AFTER_TRAINING = 64
"""Windows that memory is measured on after a training, which should not take much longer for it."""
_NUMBERS_PER_STATE = 40
"""Numbers that a step of the recurrence keeps for each number of its state, for the gradients."""
_CURVE_SERIES, _CURVE_ROWS = 32, 65_536
"""Series, and newest rows of each, that the autocorrelation is taken of, at most."""
_SPIKE_TAIL = 0.005
"""Readings outside these quantiles are clipped, so that a spike does not decide a correlation."""


class Clock:
    """Durations of the parts of a story, in seconds, by a monotonic clock."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End a part, and store its duration and the total so far."""
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self.laps["total_s"] = round(now - self._started, 3)
        self._last = now


def fit_network(
    setup: TrainingSetup,
    split: Split,
    listener: Listener,
    *,
    checkpoints: Checkpoints | None = None,
    start: RNNForecaster | None = None,
) -> RNNForecaster:
    """Fit a network to the train part of a split, which may be another one than the setup's.

    With `start`, a fitted network, training starts from its weights.
    """
    from rnnforecast.model import fitting

    check_batch_memory(setup)
    is_first = split.train_until_us == setup.split.train_until_us
    return fitting.fit(
        split.train,
        split.validation,
        spec=setup.spec,
        network=setup.config.network,
        config=setup.config.training,
        common=setup.common,
        seasons=setup.seasons if is_first else None,
        listener=listener,
        checkpoints=checkpoints,
        start=start,
    )


def check_batch_memory(setup: TrainingSetup) -> None:
    """Raise `DataError` where the windows of one training step need more memory than may be used.

    What is kept for the gradients was measured with 20,000 windows at once.
    """
    spec, training = setup.spec, setup.config.training
    n_numbers = 0
    for member in spec.members:
        n_ahead = -(-spec.horizon // member.segment)
        n_history = -(-spec.lookback // member.segment)
        n_states = min(n_history, -(-CONTEXT_ROWS // member.segment)) + n_ahead
        n_values = n_inputs(member.segment) + 4 * N_EXPERTS * member.segment
        per_state = _NUMBERS_PER_STATE * member.hidden * member.layers + n_values
        n_numbers = max(n_numbers, n_states * per_state + n_history * n_values)
    purpose = f"for a batch of {training.batch_size} windows"
    needed = int(4 * n_numbers * training.batch_size)
    check_fits(
        needed, "--batch-size", purpose, setup.config.data, hint="or use a smaller --batch-size"
    )


def fine_tune(
    fitted: RNNForecaster, split: Split, known: Past, config: Config, listener: Listener
) -> RNNForecaster:
    """Continue the training on `known`, which adds the readings after the train part, if any."""
    if known.cutoff.sum() == split.train.cutoff.sum():
        return fitted
    from rnnforecast.model import fitting

    return fitting.fine_tune(fitted, known, config=config.training, listener=listener)


def calibrate(
    fitted: Forecaster, split: Split, spec: NetworkSpec, listener: Listener
) -> Calibration | None:
    """Fit offsets of the quantiles of a fitted network on the validation part.

    None, and a note, where that has too few windows.
    """
    calibration = None
    if split.validation is not None:
        origins = rolling_validation_origins(
            split, lookback=spec.least_history, horizon=spec.horizon
        )
        truth = Truth(split.panel, spec.horizon)
        calibration = fit_calibration(fitted, origins, truth, lookback=spec.lookback)
    if calibration is None:
        message = "not enough held-out data to calibrate the prediction bands; they may be too "
        listener(Notice(f"{message}narrow or too wide"))
    return calibration


def as_tested(
    fitted: RNNForecaster,
    calibration: Calibration | None,
    split: Split,
    config: Config,
    listener: Listener,
) -> Forecaster:
    """Return a fitted network as it is scored on the test part: calibrated, and trained on.

    It has then also learnt from the validation part, as the saved network learns from all parts in
    the end.
    """
    network = fine_tune(fitted, split, split.before_test, config, listener)
    return with_calibration(
        network, calibration, network.names, untrained_from_us=split.test_from_us
    )


def compare_held_out(
    fitted: RNNForecaster,
    calibration: Calibration | None,
    setup: TrainingSetup,
    listener: Listener,
    rivals: Mapping[str, Forecaster] | None = None,
) -> tuple[Comparison, tuple[ExampleWindow, ...]]:
    """Compare a network with baselines on the test part; return that and example windows.

    It is as `as_tested` says. `rivals` forecast the same windows, by name. All stay inside of the
    limits that the readings before the test part rest on.
    """
    split, spec = setup.split, setup.spec
    if split.test_from_us is None:
        return not_compared(), ()

    names, past = (EXPERT, BUILTIN_MODEL), split.before_test
    forecasters: dict[str, Forecaster] = {
        NETWORK: as_tested(fitted, calibration, split, setup.config, listener),
        NAIVE: naive(),
        SEASONAL_NAIVE: SeasonalNaive(spec.season),
        **make_references(names, past, spec.horizon, fitted.seasons),
        **(rivals or {}),
    }
    origins = rolling_test_origins(split, lookback=spec.least_history, horizon=spec.horizon)
    rounds = [Round.limited(origins, forecasters, split.limits_before_test)]
    return compare_rounds(rounds, split, spec)


def compare_rounds(
    rounds: Sequence[Round],
    split: Split,
    spec: NetworkSpec,
    *,
    sink: Sink | None = None,
    listener: Listener = ignore,
    has_examples: bool = True,
) -> tuple[Comparison, tuple[ExampleWindow, ...]]:
    """Forecast from all origins and compare; return example windows where they are asked for.

    These are windows of the series with the best, a typical and the worst forecasts.
    """
    panel, lookback = split.panel, spec.lookback
    truth, units = Truth(panel, spec.horizon), ErrorUnits(spec.season, deviations(split.train))
    accumulators = evaluate(rounds, truth, units, lookback=lookback, sink=sink, listener=listener)
    comparison = compare(accumulators, names=panel.names, season=spec.season, step_us=panel.step_us)
    if not has_examples:
        return comparison, ()

    last = rounds[-1]
    examples = select_examples(
        last.forecasters[NETWORK],
        last.origins,
        truth,
        accumulators,
        method=NETWORK,
        baseline=comparison.skill_over,
        lookback=lookback,
    )
    return comparison, tuple(map(_describe_example, examples))


def _describe_example(example: Example) -> ExampleWindow:
    forecast = example.forecast
    n_rows = _HORIZONS_BEFORE * forecast.horizon
    (fan,) = make_fans(example.past, forecast, n_rows=n_rows, actual=example.actual)
    error = float(np.nanmean(np.abs(example.actual - forecast.point)))
    begin = forecast.axis.format(int(forecast.times_us[0, 0]))

    window = "Window with median error, starting" if example.of == "series" else "Starts"
    sentence = f"{window} {begin}: MAE {format_number(error)}."
    return ExampleWindow(f"{example.kind.capitalize()} {example.of}: {fan.name}", sentence, fan)


def render_report(
    artifact: Artifact,
    comparison: Comparison,
    examples: tuple[ExampleWindow, ...],
    fitted: RNNForecaster,
    warnings: Sequence[WarningEvent],
    memory_report: MemoryReport | None,
) -> str:
    """Return the HTML report of a version that was just trained."""
    assert fitted.log is not None
    ranges = artifact.training_range
    report = make_report(
        f"Forecasts of {join_names(artifact.schema.targets, NAMES_SHOWN)}",
        comparison,
        examples,
        held_out=f"Measured on {comparison.n_windows} held-out forecasts from "
        f"{ranges['test_from']} to {ranges['last_reading']}.",
        epochs=fitted.log.epochs,
        warnings=warnings,
        card=model_card(artifact),
    )
    if memory_report is not None:
        report = replace(report, memory=memory_report.section())
    return report_html(report)


def make_report(
    title: str,
    comparison: Comparison,
    examples: tuple[ExampleWindow, ...],
    *,
    held_out: str,
    epochs: Sequence[EpochEnded],
    warnings: Sequence[WarningEvent],
    card: dict[str, str],
) -> Report:
    """Return the report of a comparison. `held_out` is the sentence about what was measured on."""
    document: dict[str, Any] = comparison.to_json()
    return Report(
        title,
        f"{comparison.verdict[0].upper()}{comparison.verdict[1:]}.",
        held_out,
        headings=HEADINGS,
        metrics=document["metrics"],
        examples=examples,
        by_lead=document["by_lead"],
        step_us=comparison.step_us,
        bands=document["bands"],
        worst=document["worst_series"],
        epochs=epochs,
        findings=[(warning.code, warning.text) for warning in warnings],
        card=card,
    )


@dataclass(frozen=True)
class MemoryReport:
    """How much history a network uses, with the diagnosis."""

    memory: MemoryAnalysis
    diagnosis: Diagnosis
    step_us: int
    warnings: tuple[WarningEvent, ...] = ()

    def summary(self) -> dict[str, object]:
        """Return what a version stores of it among its metrics."""
        return {
            "effective_memory": self.memory.effective,
            "lookback": self.memory.lookback,
            "verdict": self.diagnosis.verdict,
            "reason": self.diagnosis.reason,
            "advice": self.diagnosis.advice,
        }

    def section(self) -> MemoryFigures:
        """Return the section of a report."""
        memory, diagnosis = self.memory, self.diagnosis
        advice = f" Try {diagnosis.advice}." if diagnosis.advice else ""
        return MemoryFigures(
            f"{diagnosis.verdict}: {diagnosis.reason}.{advice}",
            memory.effective,
            memory.lengths,
            memory.losses,
            memory.gradients,
            memory.leads,
            tuple(peak.lag for peak in memory.peaks if peak.lag <= memory.lookback),
        )


def analyse_memory_held_out(fitted: RNNForecaster, setup: TrainingSetup) -> MemoryReport | None:
    """Measure the memory of a network that was just fitted, on its validation part.

    None where that has too few windows. Autocorrelation is that of the panel up to its end.
    """
    split, spec = setup.split, fitted.network.spec
    if split.validation is None:
        return None
    windows = windows_of(split.validation, spec, targets_after=split.train)
    if len(windows) < MIN_WINDOWS:
        return None

    assert fitted.log is not None
    logs = fitted.log.of_selected
    explosions = (log.explosion(setup.config.training) for log in logs)
    return analyse_memory(
        fitted.network,
        windows,
        split.panel.before(split.validation.cutoff),
        setup.config,
        entries=range(1, split.panel.n_series + 1),
        explosion=next(filter(None, explosions), None),
        n_windows=_WINDOWS_AFTER_TRAINING,
    )


def find_explosion(artifact: Artifact) -> str | None:
    """Return why the training of a member of the ensemble exploded; None where none did."""
    rows = list(csv.DictReader(io.StringIO(artifact.history)))
    for number in artifact.provenance["selected_members"]:
        epochs = [row for row in rows if row["member"] == str(number)]
        clipped = [float(row["clipped"]) for row in epochs]
        losses = [float(row["train_loss"]) for row in epochs]
        has_improved = any(row["is_best"] == "True" for row in epochs)
        training = artifact.config.training
        reason = explain_explosion(clipped, losses, training, has_improved=has_improved)
        if reason is not None:
            return reason
    return None


def analyse_memory(
    network: Network,
    windows: TrainingWindows,
    panel: Panel,
    config: Config,
    *,
    entries: Sequence[int],
    explosion: str | None,
    n_windows: int,
) -> MemoryReport:
    """Measure the memory of a network and diagnose it.

    `entries`, one for each series of the panel, are their numbers in the network; `explosion` is
    the reason why the training of a member exploded, None where none did. Up to `n_windows` windows
    are measured, and gradients on a few of them.
    """
    from rnnforecast.model.memory import gradients_by_lag, measure_memory

    spec = network.spec
    positions = np.array(entries, np.int64) - 1
    batch = _gather(windows, n_windows, positions)
    small_batch = _gather(windows, MIN_WINDOWS, positions)

    leads = {"early": 1, "middle": (spec.horizon + 1) // 2, "late": spec.horizon}
    cut = measure_memory(network, batch)
    gradients = gradients_by_lag(network, small_batch, list(leads.values()))
    memory = MemoryAnalysis(
        lookback=spec.lookback,
        effective=cut.effective,
        lengths=cut.kept,
        losses=cut.losses,
        leads=leads,
        gradients={
            name: tuple(None if np.isnan(x) else float(x) for x in row)
            for name, row in zip(leads, gradients, strict=True)
        },
        members=tuple(_member_memories(network, small_batch)),
        peaks=tuple(_peaks(network, batch, panel)),
        n_windows=len(batch.series),
        explosion=explosion,
    )
    return MemoryReport(memory, diagnose(memory, spec, config), panel.step_us)


def _gather(windows: TrainingWindows, n: int, positions: Integers) -> Batch:
    """Gather n windows; `positions`, `(series,)`, are those in the network."""
    batch = windows.gather(windows.spread(n))
    return replace(batch, series=positions[batch.series])


def _member_memories(network: Network, batch: Batch) -> list[MemberMemory]:
    """Measure the gradients and time constants of each member by itself."""
    from rnnforecast.model.member import make_member
    from rnnforecast.model.memory import state_gradients, time_constants

    memories = []
    for number in range(len(network.members)):
        member = make_member(network, number)
        steps_back, sizes = state_gradients(network, member, batch, 1)
        constants = time_constants(network, member, batch)
        memories.append(
            MemberMemory(
                segment=member.spec.segment,
                state_lags=tuple(member.spec.segment * n for n in steps_back),
                state_gradient=tuple(sizes.tolist()),
                time_constants=None
                if constants is None
                else tuple(tuple(layer) for layer in constants.tolist()),
            )
        )
    return memories


def _peaks(network: Network, batch: Batch, panel: Panel) -> list[Peak]:
    """Return the peaks of the readings' autocorrelation, with the errors of forecasts there."""
    from rnnforecast.model.memory import deviations_of

    lookback = network.spec.lookback
    chosen = np.unique(np.linspace(0, panel.n_series - 1, _CURVE_SERIES).astype(np.int64))
    curves: list[Doubles] = []
    for series in chosen.tolist():
        newest = panel.of(series, max(0, int(panel.lengths[series]) - _CURVE_ROWS))
        readings: Doubles = newest.astype(np.float64)
        if np.isfinite(readings).any():
            low, high = np.nanquantile(readings, (_SPIKE_TAIL, 1 - _SPIKE_TAIL))
            readings = readings.clip(low, high)
        curves.append(autocorrelation(readings, 2 * lookback))
    curve = median_curve(curves)

    forecasts = deviations_of(network, batch)
    result = []
    for lag in find_peaks(curve, int(panel.lengths[chosen].max())):
        correlation = float(curve[lag])
        errors = forecasts.errors_relative_to_lag(lag, correlation) if lag <= lookback else None
        result.append(Peak(lag, correlation, *(errors or ())))
    return result
