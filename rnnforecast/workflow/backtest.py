"""`backtest`: fit on the past or load a model, roll over the rest, compare."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rnnforecast.config.commands import check_format, check_page
from rnnforecast.config.training import (
    BacktestConfig,
    Config,
    NetworkConfig,
    TrainConfig,
    WindowConfig,
)
from rnnforecast.data.forecast import Forecaster
from rnnforecast.data.match import read_newer, warn_of_strangers
from rnnforecast.data.output import publishing_backtest
from rnnforecast.data.panel import Panel
from rnnforecast.data.setup import Plan, backtest_train_end_us, plan_backtest
from rnnforecast.data.split import Cuts, Origins, Split, first_of_test, moment_of, split_at
from rnnforecast.data.timestamps import format_stamp, parse_time_us
from rnnforecast.data.windows import past_of
from rnnforecast.errors import DataError, NotEnoughDataError, UsageError
from rnnforecast.evaluate.backtest import Round, Sink, Truth, Units, deviations, evaluate
from rnnforecast.evaluate.baselines import RidgeOnLags, SeasonalNaive, naive
from rnnforecast.evaluate.comparison import (
    NAIVE,
    NETWORK,
    RIDGE,
    SEASONAL_NAIVE,
    Comparison,
    compare,
)
from rnnforecast.events import Listener, Recorder, Warned, ignore
from rnnforecast.model.artifact import Artifact
from rnnforecast.report.html import Report, Seen, report_html
from rnnforecast.spec import NetworkSpec
from rnnforecast.storage.durable import publishing_file
from rnnforecast.workflow.model import Model, check_outputs, known_of, load, reading_of, restore
from rnnforecast.workflow.steps import (
    Clock,
    _names,
    _report,
    calibrate,
    fit_network,
    read_readings,
    windows_seen,
    with_calibration,
    with_windows,
)


@dataclass(frozen=True)
class Backtest:
    """What came of a backtest."""

    comparison: Comparison
    spec: NetworkSpec
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
        trial.spec,
        trial.stride,
        trial.split_in_words(),
        trial.version,
        tuple(events.warnings),
        clock.laps,
    )


def _write_report(result: Backtest, seen: tuple[Seen, ...], trial: Trial, path: Path) -> None:

    page = report_html(backtest_report(result, seen, trial.split.panel.names))
    with publishing_file(path) as file:
        file.write(page.encode())


def _run(
    trial: Trial, output: str | Path | None, listener: Listener, *, looks: bool
) -> tuple[Comparison, tuple[Seen, ...]]:
    """Try all origins; `looks` asks for windows to look at."""
    panel, spec = trial.split.panel, trial.spec
    opened: AbstractContextManager[Sink | None] = (
        nullcontext() if output is None else publishing_backtest(str(output), trial.tz)
    )
    truth, units = Truth(panel, spec.horizon), Units(spec.season, deviations(trial.split.train))
    with opened as sink:
        tallies = evaluate(
            trial.rounds, truth, units, lookback=spec.lookback, sink=sink, listener=listener
        )
    found = compare(tallies, names=panel.names, season=spec.season, step_us=panel.step_us)
    if not looks:
        return found, ()
    seen = windows_seen(trial.rounds, truth, tallies, found, lookback=spec.lookback, tz=trial.tz)
    return found, seen


@dataclass(frozen=True)
class Trial:
    """All that is decided before the first origin."""

    rounds: list[Round]
    spec: NetworkSpec
    split: Split
    stride: int
    tz: str | None
    version: str | None = None

    def split_in_words(self) -> dict[str, Any]:
        """Return the first times that no longer belong to each part."""
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

    def learns_until(panel: Panel, tz: str | None) -> int:
        return backtest_train_end_us(_until(panel, ends.test_end, tz), config, ends, tz)

    panel, schema = read_readings(data, config.data, listener, learns_until=learns_until)
    clock.lap("read_s")
    panel = _until(panel, ends.test_end, schema.tz)
    plan = plan_backtest(panel, config, ends, schema.tz, listener)
    stride = ends.stride or plan.spec.horizon
    rounds = _rounds(plan, ends, stride, listener)
    return Trial(rounds, plan.spec, plan.split, stride, schema.tz)


def _rounds(plan: Plan, ends: BacktestConfig, stride: int, listener: Listener) -> list[Round]:
    """Fit once, or again after every `ends.refit` windows, with parts that move on in time."""
    split, spec, panel = plan.split, plan.spec, plan.split.panel
    test_from = split.test_from_us
    assert test_from is not None
    length = split.end_us - test_from if ends.refit is None else ends.refit * stride * panel.step_us
    origins = Origins.rolling(
        panel, test_from, lookback=spec.lookback, horizon=spec.horizon, stride=stride
    )
    rounds = []
    for begin in range(test_from, split.end_us, length):
        now = origins.between(begin, begin + length)
        if not len(now):
            continue
        moved = Cuts(split.train_until_us + begin - test_from, begin, split.end_us)
        parts = split_at(panel, moved)
        fitted = fit_network(plan, parts, listener)
        calibration = calibrate(fitted, parts, spec, listener)
        network = with_calibration(fitted, calibration, fitted.names)
        others = _baselines(ends.baselines, parts, spec, listener)
        rounds.append(Round(now, {NETWORK: network, **others}))
    if not rounds:
        raise NotEnoughDataError(
            f"no window of lookback + horizon = {spec.lookback} + {spec.horizon} fits into the "
            "test part",
            code="too-short",
            hint="pass a later --test-end, or a shorter --horizon",
        )
    return rounds


def saved_trial(
    saved: Model, data: object, config: Config, ends: BacktestConfig, listener: Listener
) -> Trial:
    """Try a saved version on readings that it has not learnt from, read as `config.data` says."""
    artifact = saved.artifact
    spec = artifact.spec
    fixed = (config.window, config.network, config.training)
    if fixed != (WindowConfig(), NetworkConfig(), TrainConfig()) or ends.refit is not None:
        raise UsageError(
            "a saved version has its own windows and network, and is not fitted again",
            hint="leave out --model, or the options of the windows, the network and the training",
        )
    panel, tz = _read_newer(artifact, data, config, ends, listener)
    split = _split_after_learnt(saved, panel, tz, ends)
    stride = ends.stride or spec.horizon
    origins = None
    if split.test_from_us is not None:
        origins = Origins.rolling(
            panel, split.test_from_us, lookback=spec.lookback, horizon=spec.horizon, stride=stride
        )
    if not origins:
        raise NotEnoughDataError(
            f"version {saved.version} has learnt from the readings until {artifact.trained_until}, "
            f"and after them no window of {spec.horizon} steps fits into these readings",
            code="too-short",
            hint="pass newer readings, together with a look-back of older ones",
        )
    forecasters = {NETWORK: restore(artifact), **_baselines(ends.baselines, split, spec, listener)}
    return Trial([Round(origins, forecasters)], spec, split, stride, tz, saved.version)


def _read_newer(
    artifact: Artifact, data: object, config: Config, ends: BacktestConfig, listener: Listener
) -> tuple[Panel, str | None]:
    """Read readings for a saved version, up to the end of the test part; return them and a zone."""
    spec, known = artifact.spec, known_of(artifact)
    panel, schema = read_newer(
        data,
        schema=artifact.schema,
        options=config.data,
        known=known,
        listener=listener,
    )
    warn_of_strangers(past_of(panel), known, listener, lookback=spec.lookback, horizon=spec.horizon)
    return _until(panel, ends.test_end, schema.tz), schema.tz


def _split_after_learnt(saved: Model, panel: Panel, tz: str | None, ends: BacktestConfig) -> Split:
    """Begin the test part after what the version has learnt from, or where the user says."""
    learnt = parse_time_us(saved.artifact.trained_until, tz)
    test_from = first_of_test(panel, ends, tz, horizon=saved.artifact.spec.horizon)
    if test_from is None:
        test_from = learnt + panel.step_us
    if test_from <= learnt:
        raise DataError(
            f"version {saved.version} has learnt from the readings until "
            f"{saved.artifact.trained_until}, but the test part begins at "
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
    names: tuple[str, ...], split: Split, spec: NetworkSpec, listener: Listener
) -> dict[str, Forecaster]:
    """Make the baselines that were asked for; the naive ones are always there."""
    found: dict[str, Forecaster] = {NAIVE: naive(), SEASONAL_NAIVE: SeasonalNaive(spec.season)}
    if RIDGE in names:
        ridge = RidgeOnLags.fit(
            split.train, split.validation, lookback=spec.lookback, horizon=spec.horizon
        )
        if ridge is None:
            what = "too few whole windows for ridge regression: left out"
            listener(Warned("no-ridge", what))
        else:
            found[RIDGE] = ridge
    return found


def _until(panel: Panel, test_end: str | None, tz: str | None) -> Panel:
    """Cut off what follows the test part, and series that begin after it."""
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


def backtest_report(result: Backtest, seen: tuple[Seen, ...], names: tuple[str, ...]) -> Report:
    """Return the report of a backtest."""
    spec, split = result.spec, result.split
    card = {
        "version": result.version or "fitted for this backtest",
        "series": _names(names),
        "horizon": f"{spec.horizon} steps",
        "look-back": f"{spec.lookback} steps",
        "season": f"{spec.season} steps" if spec.season > 1 else "none",
        "members": "; ".join(str(own) for own in spec.members),
        "train part": f"before {split['train_end']}",
        "validation part": f"before {split['validation_end']}",
        "test part": f"before {split['test_end']}",
        "origins": f"{result.stride} steps apart",
    }
    held_out = (
        f"Measured on {result.comparison.n_windows} forecasts of {spec.horizon} steps from "
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
