"""`train`: read, set up, fit, measure on held-out readings, save as a new version."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from rnnforecast.config.commands import RanksConfig, check_option_names, set_options
from rnnforecast.config.training import DEFAULT_MODEL, Config
from rnnforecast.data.setup import TrainingSetup, set_up_training, train_end_us
from rnnforecast.errors import QualityGateError, UsageError, require_libraries
from rnnforecast.evaluate.comparison import Comparison
from rnnforecast.events import (
    Event,
    Listener,
    Notice,
    PublishedEvent,
    Recorder,
    WarningEvent,
    ignore,
    merged_warnings,
)
from rnnforecast.model.artifact import Artifact
from rnnforecast.model.checkpoint import Checkpoints, discard_checkpoint
from rnnforecast.model.provenance import build_artifact, make_checkpoints
from rnnforecast.parallel import SINGLE_PROCESS, Ranks, all_gather_object
from rnnforecast.process import Launch, current_launch, defer_signals
from rnnforecast.sources.files import as_table, check_outputs
from rnnforecast.sources.shards import is_sharded
from rnnforecast.storage import versions
from rnnforecast.storage.lock import acquire
from rnnforecast.storage.remote import AnyPath, as_path
from rnnforecast.tables.cleaning import load_excluded_times
from rnnforecast.tables.match import read_for_training
from rnnforecast.tables.schema import Schema
from rnnforecast.workflow.advice import Task, trying_proposals
from rnnforecast.workflow.model import Model
from rnnforecast.workflow.saved import model_directory
from rnnforecast.workflow.steps import (
    Clock,
    analyse_memory_held_out,
    calibrate,
    compare_held_out,
    fine_tune,
    fit_network,
    render_report,
)

if TYPE_CHECKING:
    from rnnforecast.config.keywords import TrainOptions


def train(
    data: object,
    *,
    model: str | Path | None = DEFAULT_MODEL,
    config: Config | None = None,
    require_skill: float | None = None,
    report: bool = True,
    resume: bool = False,
    ranks: RanksConfig | None = None,
    listener: Listener = ignore,
    **options: Unpack[TrainOptions],
) -> Model:
    """Train a network, test it on held-out data, and save it as a new version.

    `data` is a path or a table: pandas, Arrow, polars, DuckDB, or any object with
    `__arrow_c_stream__`. A missing reading is null or NaN. The keyword options are those of the
    command and override `config` and `ranks`. With `model=None` nothing is saved; with `report`,
    the version contains an HTML report. Raises a `RnnForecastError`; a failed run leaves the active
    version unchanged.

    >>> model = rf.train("readings.csv", horizon="6h", target="flow", known=["setpoint"])
    >>> model.metrics["network"]["mase"] > 0
    True

    If a signal interrupts the training, a checkpoint stays in the model directory. With `resume`,
    the training continues from it and ends in the same weights as an uninterrupted one; earlier
    steps count, and the time limit `max_time` is reset. Under torchrun, each process calls this
    function with the same arguments: together they train one network on a folder made by `shard`,
    and the first one saves it. With a table in memory, each process trains on its own.
    """
    config, ranks = config or Config(), ranks or RanksConfig()
    check_option_names(train, options, config, ranks)
    config, ranks = set_options(config, options), set_options(ranks, options)
    path = None if model is None else model_directory(model)
    request = _TrainRequest(path, require_skill, report, resume)
    _check_request(request)

    data = as_table(data)
    check_outputs(data, config.data)
    config = replace(config, data=load_excluded_times(config.data))
    launch = launch_for(data)
    if ranks.engine is not None and launch is None:
        from rnnforecast.workflow.ray import train_on_ray

        passed_on = {"config": config, "require_skill": require_skill, "report": report}
        return train_on_ray(train, data, path, ranks, resume=resume, **passed_on)

    if launch is not None and launch.restarts:
        request = replace(request, resume=True)
    with ExitStack() as stack:
        if path is not None and (launch is None or launch.rank == 0):
            stack.enter_context(acquire(path / versions.LOCK, listener=listener))
            versions.remove_leftovers(path)
        group = SINGLE_PROCESS
        if launch is not None:
            from rnnforecast.model.distributed import join_ranks

            group = stack.enter_context(join_ranks(ranks.timeout_s))
        return _train(data, request, config, listener if group.rank == 0 else ignore, group)


@dataclass(frozen=True)
class _TrainRequest:
    """Where a training run is saved, what activates it, whether it has a report and resumes."""

    path: AnyPath | None
    require_skill: float | None
    report: bool
    resume: bool


def _check_request(request: _TrainRequest) -> None:
    """Raise a `RnnForecastError` where a training could not end as it is asked to."""
    skill = request.require_skill
    if request.resume and request.path is None:
        raise UsageError("--resume needs a model directory with a checkpoint")
    if skill is not None and not math.isfinite(skill):
        raise UsageError(f"--require-skill {skill} is not a number")
    require_libraries("training", "torch", *["matplotlib"] * request.report)
    if request.path is not None:
        versions.check_writable(request.path)


def _train(
    data: object, request: _TrainRequest, config: Config, listener: Listener, ranks: Ranks
) -> Model:
    """Train; the caller holds the lock of the model directory, where there is one."""
    path = request.path
    events, clock = Recorder(listener), Clock()
    setup, schema = read_and_set_up(data, config, events, ranks, clock)
    table = None if isinstance(data, str | Path) else data
    checkpoints = None
    if path is not None:
        checkpoints = make_checkpoints(path, setup, is_resuming=request.resume)

    with _noting_checkpoint(checkpoints):
        fitted = fit_network(setup, setup.split, events, checkpoints=checkpoints)
        if setup.spec.n_features and not fitted.network.spec.n_features:
            message = "the covariates do not improve the validation error, so the network does "
            events(WarningEvent("unused-covariates", f"{message}not use them"))
            schema = replace(schema, covariates=())
        clock.lap("fit_s")
        calibration = calibrate(fitted, setup.split, setup.spec, events)
        clock.lap("calibrate_s")
        memory_report = analyse_memory_held_out(fitted, setup)
        clock.lap("memory_s")
        comparison, examples = compare_held_out(fitted, calibration, setup, events)
        clock.lap("evaluate_s")
        split = setup.split
        forecaster = fine_tune(fitted, split, split.everything, setup.config, events)
        clock.lap("fine_tune_s")

        memory = None if memory_report is None else memory_report.summary()
        artifact = build_artifact(
            forecaster,
            setup,
            schema,
            metrics={**comparison.to_json(), "memory": memory},
            source=data,
            warnings=events.warnings,
        )
        artifact = replace(artifact, calibration=calibration)
        if artifact.limits is not None:
            message = "forecasts are limited to the range that the readings never leave"
            events(Notice(f"{message}: {artifact.limits.describe()}"))
        if path is None or ranks.rank:
            return Model(artifact, None, None, tuple(events.warnings), clock.laps, True, table)

        report = None
        if request.report:
            report = render_report(
                artifact, comparison, examples, fitted, events.warnings, memory_report
            )
            clock.lap("report_s")
        version = _save(path, artifact, report, comparison, request.require_skill, events)
    return Model(artifact, path, version, tuple(events.warnings), clock.laps, True, table)


def read_and_set_up(
    data: object, config: Config, listener: Listener, ranks: Ranks, clock: Clock
) -> tuple[TrainingSetup, Schema]:
    """Read a table, and choose windows, split and network for its readings."""
    task = Task(data, config, can_read_again=ranks.n == 1)
    with (
        merging_warnings(listener, ranks) as rank_listener,
        trying_proposals(task, rank_listener) as tried,
    ):
        panel, schema = read_for_training(
            data,
            config.data,
            tried,
            find_train_end=lambda panel: train_end_us(panel, config),
            ranks=ranks,
        )
    clock.lap("read_s")

    with trying_proposals(task, listener) as tried:
        return set_up_training(panel, config, tried), schema


@contextmanager
def _noting_checkpoint(checkpoints: Checkpoints | None) -> Iterator[None]:
    """Add a note to the exception of a signal, where the training can be resumed."""
    before = checkpoints and checkpoints.stamp()
    try:
        yield
    except Exception:
        raise
    except BaseException as stopped:  # raised by a signal
        after = checkpoints and checkpoints.stamp()
        if checkpoints and after and (checkpoints.is_resuming or after != before):
            stopped.add_note(
                "the checkpoint is saved; continue with the same command and  --resume"
            )
        raise


def _save(
    path: AnyPath,
    artifact: Artifact,
    report: str | None,
    comparison: Comparison,
    require_skill: float | None,
    listener: Listener,
) -> str:
    """Save a new version and activate it; return its name.

    Raises `QualityGateError` where its skill is below `require_skill`: it stays saved, but is not
    activated. The checkpoint is removed either way. Signals are handled afterwards, so that the
    messages say what has happened.
    """
    files = artifact.pack(report)
    skill = comparison.skill

    with defer_signals(lambda: None):
        version = versions.publish_version(path, files, now=datetime.now(UTC))
        discard_checkpoint(path)
        if require_skill is not None and (skill is None or skill < require_skill):
            reached = "unknown" if skill is None else f"{skill:.1f} %"
            raise QualityGateError(
                f"the skill is {reached}, but --require-skill is {require_skill:g} %",
                code="require-skill",
                hint=f"version {version} was saved but not activated",
            )
        versions.activate_version(path, version)
        listener(PublishedEvent(version))
    return version


def launch_for(data: object) -> Launch | None:
    """Return this process's rank as its launcher set it; None where it trains alone.

    It trains alone on a table in memory, and as the only process on anything but buckets.
    """
    launch = current_launch()
    if launch is None or not isinstance(data, str | Path):
        return None
    return launch if launch.n > 1 or is_sharded(as_path(data)) else None


@contextmanager
def merging_warnings(listener: Listener, ranks: Ranks) -> Iterator[Listener]:
    """Yield a listener for what each rank does alone; in the end, pass on the warnings of all.

    Warnings of the same code are merged. Other events are passed on at once.
    """
    if ranks.n == 1:
        yield listener
        return
    warnings: list[WarningEvent] = []

    def hear(event: Event) -> None:
        if isinstance(event, WarningEvent):
            warnings.append(event)
        else:
            listener(event)

    yield hear
    gathered = all_gather_object(ranks, [warning.to_json() for warning in warnings])
    all_warnings = [WarningEvent(**payload) for payloads in gathered for payload in payloads]
    for warning in merged_warnings(all_warnings, "of other processes"):
        listener(warning)
