"""`backtest`: fit a network or load one, forecast from rolling origins, compare, report."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd
import pyarrow as pa

from rnnforecast.config.commands import (
    check_format,
    check_option_names,
    check_page,
    names_of_options,
    set_options,
)
from rnnforecast.config.training import (
    BacktestConfig,
    Config,
    NetworkConfig,
    TrainConfig,
    WindowConfig,
)
from rnnforecast.data.forecast import Forecaster
from rnnforecast.data.output import BacktestTable, open_backtest_file, without_formulas
from rnnforecast.data.panel import Panel
from rnnforecast.data.setup import backtest_train_end_us, set_up_backtest
from rnnforecast.data.split import (
    Origins,
    Split,
    SplitTimes,
    parse_moment,
    split_at,
    start_of_test_us,
)
from rnnforecast.data.windows import make_past
from rnnforecast.errors import DataError, NotEnoughDataError, UsageError, require_libraries
from rnnforecast.evaluate.backtest import Round, Sink
from rnnforecast.evaluate.baselines import RidgeOnLags, SeasonalNaive, naive
from rnnforecast.evaluate.comparison import NAIVE, NETWORK, RIDGE, SEASONAL_NAIVE, Comparison
from rnnforecast.events import Listener, Recorder, WarningEvent, ignore
from rnnforecast.report.html import ExampleWindow, Report, report_html
from rnnforecast.sources.files import as_table, check_outputs
from rnnforecast.spec import NetworkSpec
from rnnforecast.storage.durable import publishing_output, resolve_output, rollback_on_error
from rnnforecast.tables.cleaning import load_excluded_times
from rnnforecast.tables.match import read_for_training, warn_unusual_series
from rnnforecast.units import join_names
from rnnforecast.workflow.advice import Task, trying_proposals
from rnnforecast.workflow.model import Model, as_model
from rnnforecast.workflow.saved import (
    make_references,
    resolve_options,
    restore,
    seasons_by_name,
    training_stats_of,
)
from rnnforecast.workflow.steps import (
    NAMES_SHOWN,
    Clock,
    as_tested,
    calibrate,
    compare_rounds,
    fit_network,
    make_report,
)

if TYPE_CHECKING:
    from rnnforecast.config.keywords import BacktestOptions

_RIDGE_LAGS = 504
"""Readings that ridge regression goes by, at most: three weeks of hours."""


@dataclass(frozen=True, repr=False)
class Backtest:
    """Result of a backtest. It is a table to whatever takes Arrow's: that of `to_arrow`."""

    comparison: Comparison
    spec: NetworkSpec
    stride: int
    split: dict[str, Any]
    """Timestamps of the ends of the parts."""
    version: str | None
    """The saved version that was tested; None where a network was fitted."""
    warnings: tuple[WarningEvent, ...]
    timing: dict[str, float]
    trial: Trial = field(compare=False)
    """The forecasters, their origins and the readings."""

    @property
    def metrics(self) -> dict[str, dict[str, float | int | None]]:
        """Metrics by method: `metrics["network"]["mase"]`. None where one is undefined."""
        return {name: m.to_json() for name, m in self.comparison.metrics.items()}

    @property
    def verdict(self) -> str:
        """Verdict on the network, in a sentence."""
        return self.comparison.verdict

    @property
    def skill(self) -> float | None:
        """Percent by which the network's MASE is below that of the better naive method."""
        return self.comparison.skill

    def to_arrow(self) -> pa.Table:
        """Return a row for each forecast value: what `backtest` writes to its `output`.

        The columns are method, series, cutoff, timestamp, lead, actual, forecast and the quantiles.
        Forecasts are not kept while they are compared: the first call computes them again.
        """
        return self._table

    @cached_property
    def _table(self) -> pa.Table:
        rows = BacktestTable()
        trial = self.trial
        compare_rounds(trial.rounds, trial.split, trial.spec, sink=rows, has_examples=False)
        return rows.table()

    def to_pandas(self) -> pd.DataFrame:
        """Return the table of `to_arrow` as a pandas DataFrame."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        n_windows, horizon = self.comparison.n_windows, self.spec.horizon
        return f"Backtest({n_windows} forecasts of {horizon} steps: {self.verdict})"

    def _repr_html_(self) -> str:
        """Return the metrics by method as a table, and the verdict, as notebooks show them."""
        table: str = pd.DataFrame(self.metrics).T.to_html(border=0, float_format="{:.4g}".format)
        return f"{table}<p>{self.verdict}</p>"


def backtest(
    data: object,
    *,
    model: Model | str | Path | None = None,
    version: str | None = None,
    config: Config | None = None,
    explicit: Collection[str] = (),
    ends: BacktestConfig | None = None,
    output: str | Path | None = None,
    report: str | Path | None = None,
    listener: Listener = ignore,
    **options: Unpack[BacktestOptions],
) -> Backtest:
    """Forecast from rolling origins in the test part, and compare with the baselines.

    `data` is a path or a table, as for `train`. A network is trained on the readings before the
    test part. With `model`, a saved version is tested instead, on readings after its training data;
    reading options that are set, or named in `explicit`, override those of the model. The keyword
    options are those of the command and override `config` and `ends`. `output` is a file for all
    forecast values with the actual readings, `report` one for an HTML report. Raises a
    `RnnForecastError`.

    >>> result = rf.backtest("readings.csv", horizon=6, target="flow")
    >>> sorted(result.metrics)
    ['builtin', 'expert', 'naive', 'network', 'ridge', 'seasonal_naive']
    >>> list(result.to_pandas())[:7]
    ['method', 'series', 'cutoff', 'timestamp', 'lead', 'actual', 'forecast']
    """
    config, ends = config or Config(), ends or BacktestConfig()
    check_option_names(backtest, options, config, ends)
    config, ends = set_options(config, options), set_options(ends, options)
    explicit, data = names_of_options(explicit, options), as_table(data)
    if output is not None:
        check_format(str(output), allows_stream=False)
    if report is not None:
        check_page(str(report))
    needed = [*["torch"] * (model is None), *["matplotlib"] * (report is not None)]
    require_libraries("this backtest", *needed, *["sklearn"] * (RIDGE in ends.baselines))
    events, clock = Recorder(listener), Clock()
    saved = None if model is None else as_model(model, version=version)
    if saved is not None:
        config = replace(config, data=resolve_options(saved.artifact, config.data, explicit))
    check_outputs(data, config.data, output=output, page=report, allows_stream=False)
    config = replace(config, data=load_excluded_times(config.data))

    if saved is None:
        trial = fitted_trial(data, config, ends, events, clock)
    else:
        trial = saved_trial(saved, data, config, ends, events)
    clock.lap("prepare_s")
    return _measure(trial, output, report, events, clock, is_escaped=ends.excel_safe)


def _measure(
    trial: Trial,
    output: str | Path | None,
    report: str | Path | None,
    events: Recorder,
    clock: Clock,
    *,
    is_escaped: bool,
) -> Backtest:
    """Forecast and compare, and publish the forecasts and the report, both or none."""
    names = trial.split.panel.names
    with ExitStack() as both_or_none:
        sink: Sink | None = None
        if output is not None:
            safe = without_formulas(names, str(output), events, is_escaped=is_escaped)
            renamed = {name: new for name, new in zip(names, safe, strict=True) if name != new}
            # The report is published first, and taken back where the forecasts cannot be.
            target = None if report is None else resolve_output(Path(report))
            if target is not None:
                both_or_none.enter_context(rollback_on_error(target))
            sink = both_or_none.enter_context(open_backtest_file(str(output), renamed))

        comparison, examples = compare_rounds(
            trial.rounds,
            trial.split,
            trial.spec,
            sink=sink,
            listener=events,
            has_examples=report is not None,
        )
        clock.lap("evaluate_s")
        result = Backtest(
            comparison,
            trial.spec,
            trial.stride,
            trial.format_split(),
            trial.version,
            tuple(events.warnings),
            clock.laps,
            trial,
        )
        if report is not None:
            page = report_html(backtest_report(result, examples, names))
            with publishing_output(Path(report)) as file:
                file.write(page.encode())
    return result


@dataclass(frozen=True)
class Trial:
    """All that is decided before the first forecast of a backtest."""

    rounds: list[Round]
    spec: NetworkSpec
    split: Split
    stride: int
    version: str | None = None

    def format_split(self) -> dict[str, Any]:
        """Return the end of each part: the first time stamp after it."""
        split = self.split
        assert split.test_from_us is not None
        ends = {
            "train_end": split.train_until_us,
            "validation_end": split.test_from_us,
            "test_end": split.end_us,
        }
        return {name: split.panel.axis.format(us) for name, us in ends.items()}


def fitted_trial(
    data: object, config: Config, ends: BacktestConfig, listener: Listener, clock: Clock
) -> Trial:
    """Fit a network before the test part, and again after every `ends.refit` windows, if any.

    The parts move on in time with each fit. Raises `NotEnoughDataError` where no window fits into
    the test part.
    """

    def find_train_end(panel: Panel) -> int:
        return backtest_train_end_us(_until(panel, ends.test_end), config, ends)

    with trying_proposals(Task(data, config), listener) as tried:
        panel, _ = read_for_training(data, config.data, tried, find_train_end=find_train_end)
    clock.lap("read_s")
    panel = _until(panel, ends.test_end)
    setup = set_up_backtest(panel, config, ends, listener)
    split, spec, panel = setup.split, setup.spec, setup.split.panel
    stride = ends.stride or spec.horizon
    test_from = split.test_from_us
    assert test_from is not None
    length = split.end_us - test_from if ends.refit is None else ends.refit * stride * panel.step_us
    all_origins = Origins.rolling(
        panel, test_from, lookback=spec.least_history, horizon=spec.horizon, stride=stride
    )

    rounds = []
    for begin in range(test_from, split.end_us, length):
        origins = all_origins.between(begin, begin + length)
        if not len(origins):
            continue
        cuts = SplitTimes(split.train_until_us + begin - test_from, begin, split.end_us)
        parts = split_at(panel, cuts)
        fitted = fit_network(setup, parts, listener)
        calibration = calibrate(fitted, parts, spec, listener)
        network = as_tested(fitted, calibration, parts, config, listener)
        references = make_references(
            ends.baselines, parts.before_test, spec.horizon, fitted.seasons
        )
        baselines = _add_baselines(references, ends.baselines, parts, spec, listener)
        methods = {NETWORK: network, **baselines}
        rounds.append(Round.limited(origins, methods, parts.limits_before_test))

    if not rounds:
        raise NotEnoughDataError(
            f"no window of {spec.least_history} + {spec.horizon} steps (history + horizon) "
            "fits into the test part",
            code="too-short",
            hint="use a later --test-end or a shorter --horizon",
        )
    return Trial(rounds, spec, split, stride)


def saved_trial(
    saved: Model, data: object, config: Config, ends: BacktestConfig, listener: Listener
) -> Trial:
    """Prepare the test of a saved version on readings after those that it was trained on.

    `config.data` says how they are read. Raises `UsageError` where the rest of `config` asks for
    another network, and `NotEnoughDataError` where no window is newer.
    """
    artifact = saved.artifact
    spec = artifact.spec
    fixed = (config.window, config.network, config.training)
    if fixed != (WindowConfig(), NetworkConfig(), TrainConfig()) or ends.refit is not None:
        raise UsageError(
            "a saved version keeps its own windows and network and is not refitted",
            hint="omit --model, or omit the options of windows, network and training",
        )

    panel, _ = saved.read(data, config.data, listener)
    warn_unusual_series(
        make_past(panel),
        training_stats_of(artifact),
        listener,
        lookback=spec.lookback,
        horizon=spec.horizon,
    )
    panel = _until(panel, ends.test_end)
    split = _split_after_training(saved, panel, ends)
    stride = ends.stride or spec.horizon
    origins = None
    if split.test_from_us is not None:
        origins = Origins.rolling(
            panel,
            split.test_from_us,
            lookback=spec.least_history,
            horizon=spec.horizon,
            stride=stride,
        )
    if not origins:
        raise NotEnoughDataError(
            f"version {saved.version} was trained on data until {artifact.trained_until}, and "
            f"no window of {spec.horizon} steps fits after that",
            code="too-short",
            hint="pass newer data that starts at least one look-back earlier",
        )

    seasons = seasons_by_name(artifact, panel.names)
    references = make_references(ends.baselines, split.before_test, spec.horizon, seasons)
    baselines = _add_baselines(references, ends.baselines, split, spec, listener)
    methods = {NETWORK: restore(artifact), **baselines}
    rounds = [Round.limited(origins, methods, artifact.limits)]
    return Trial(rounds, spec, split, stride, saved.version)


def _split_after_training(saved: Model, panel: Panel, ends: BacktestConfig) -> Split:
    """Begin the test part after the readings that a version was trained on, or where `ends` says.

    Raises `DataError` where that lies among the training readings.
    """
    untrained_from = saved.artifact.untrained_from_us
    test_from = start_of_test_us(panel, ends, horizon=saved.artifact.spec.horizon)
    if test_from is None:
        test_from = untrained_from
    if test_from <= untrained_from - panel.step_us:
        raise DataError(
            f"version {saved.version} was trained on data until "
            f"{saved.artifact.trained_until}, but the test part starts at "
            f"{panel.axis.format(test_from)}",
            code="already-learnt",
            hint=f"start later with  --validation-end '{panel.axis.format(untrained_from)}'  "
            "or use fewer --windows",
        )

    train_end = test_from if ends.train_end is None else parse_moment(ends.train_end, panel)
    if train_end > test_from:
        raise UsageError("--train-end is inside the test part", hint="use an earlier time")
    return split_at(panel, SplitTimes(train_end, test_from, panel.end_us))


def _add_baselines(
    references: dict[str, Forecaster],
    names: tuple[str, ...],
    split: Split,
    spec: NetworkSpec,
    listener: Listener,
) -> dict[str, Forecaster]:
    """Return the naive baselines, the references, and ridge regression where `names` has it."""
    baselines: dict[str, Forecaster] = {NAIVE: naive(), SEASONAL_NAIVE: SeasonalNaive(spec.season)}
    baselines |= references
    if RIDGE not in names:
        return baselines

    ridge = RidgeOnLags.fit(
        split.train,
        split.validation,
        lookback=min(spec.lookback, _RIDGE_LAGS),
        horizon=spec.horizon,
    )
    if ridge is None:
        listener(WarningEvent("no-ridge", "too few complete windows for ridge regression, skipped"))
    else:
        baselines[RIDGE] = ridge
    return baselines


def _until(panel: Panel, test_end: str | None) -> Panel:
    """Cut off the readings after the test part, and drop series that begin after it."""
    if test_end is None:
        return panel
    panel = panel.before(panel.rows_before(parse_moment(test_end, panel)))
    series = np.flatnonzero(panel.lengths > 0)
    if not len(series):
        raise NotEnoughDataError(
            f"there is no data before the end of the test part, {test_end}",
            code="too-short",
            hint="use a later --test-end",
        )
    return panel.select(series)


def backtest_report(
    result: Backtest, examples: tuple[ExampleWindow, ...], names: tuple[str, ...]
) -> Report:
    """Return the report of a backtest; `names` are those of the series."""
    spec, split = result.spec, result.split
    series = join_names(names, NAMES_SHOWN)
    card = {
        "version": result.version or "trained for this backtest",
        "series": series,
        "horizon": f"{spec.horizon} steps",
        "look-back": f"{spec.lookback} steps",
        "season": f"{spec.season} steps" if spec.season > 1 else "none",
        "networks": "; ".join(str(member) for member in spec.members),
        "train part": f"before {split['train_end']}",
        "validation part": f"before {split['validation_end']}",
        "test part": f"before {split['test_end']}",
        "origins": f"every {result.stride} steps",
    }

    return make_report(
        f"Backtest of {series}",
        result.comparison,
        examples,
        held_out=f"Measured on {result.comparison.n_windows} forecasts of "
        f"{spec.horizon} steps, from {split['validation_end']} up to "
        f"{split['test_end']} (excluded).",
        epochs=(),
        warnings=result.warnings,
        card=card,
    )
