"""`train`: read, set up, fit, measure, save."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rnnforecast.config.commands import RanksConfig
from rnnforecast.config.training import DEFAULT_MODEL, Config
from rnnforecast.data.schema import Schema
from rnnforecast.data.setup import Plan, plan_training, train_end_us
from rnnforecast.errors import QualityGateError, UsageError
from rnnforecast.evaluate.comparison import Comparison
from rnnforecast.events import Event, Listener, Published, Recorder, Warned, ignore, merged_warnings
from rnnforecast.model.artifact import Artifact
from rnnforecast.model.checkpoint import Checkpoints, discard_checkpoint
from rnnforecast.model.provenance import checkpoints_of, describe_model
from rnnforecast.parallel import Ranks, all_say
from rnnforecast.process import Launch, holding_back, launched
from rnnforecast.sources.shards import is_sharded
from rnnforecast.storage import versions
from rnnforecast.storage.lock import holding
from rnnforecast.storage.remote import Place, place_of
from rnnforecast.workflow.model import Model, check_outputs
from rnnforecast.workflow.steps import (
    Clock,
    calibrate,
    compare_held_out,
    draw_report,
    fine_tune,
    fit_network,
    read_readings,
    remember_held_out,
    with_windows,
)

if TYPE_CHECKING:
    from rnnforecast.model.forecaster import RNNForecaster


def train(
    data: object,
    *,
    model: str | Path | None = DEFAULT_MODEL,
    horizon: int | str | None = None,
    lookback: int | str | None = None,
    config: Config | None = None,
    require_skill: float | None = None,
    report: bool = True,
    resume: bool = False,
    ranks: RanksConfig | None = None,
    listener: Listener = ignore,
) -> Model:
    """Fit a network to readings, measure it on held-out ones, save it as a new version.

    `data` is a path, a pandas or an Arrow table. With `model=None` nothing is saved; a `report` in
    HTML lies in each version unless it is not wanted. Raises a
    `RnnForecastError`; a failed run leaves the version in force as it was.

    A training that a signal ends leaves a checkpoint beside the versions; with `resume` it goes on
    from there, and ends in the same weights as one that was not interrupted. With `max_time` the
    steps taken before then count, and the time begins anew.

    Where torchrun has started several processes, each of them calls this with the same arguments:
    they train one network, on a folder that `shard` has made, and the first one saves it. A table
    in memory each of them trains on alone.
    """
    path = None if model is None else place_of(model)
    _check_wishes(path, require_skill, resume=resume)
    config = with_windows(config or Config(), horizon, lookback)
    check_outputs(data, config.data)
    ranks, launch = ranks or RanksConfig(), launch_for(data)
    if ranks.engine is not None and launch is None:
        from rnnforecast.workflow.ray import train_on_ray

        asked = {"config": config, "require_skill": require_skill, "report": report}
        return train_on_ray(train, data, path, ranks, resume=resume, **asked)
    resume = resume or (launch is not None and launch.restarts > 0)
    wishes = _Wishes(path, require_skill, report, resume)
    with ExitStack() as stack:
        if path is not None and (launch is None or launch.rank == 0):
            stack.enter_context(holding(path / versions.LOCK))
            versions.collect(path)
        group = stack.enter_context(joined(ranks, launch))
        return _train(data, wishes, config, listener if group.rank == 0 else ignore, group)


@dataclass(frozen=True)
class _Wishes:
    """What becomes of a training: where it is saved, when it is in force, how it is shown."""

    path: Place | None
    require_skill: float | None
    report: bool
    resume: bool


def _train(
    data: object, wishes: _Wishes, config: Config, listener: Listener, ranks: Ranks
) -> Model:
    """Train, with the lock of the model directory held where there is one."""
    path = wishes.path
    events, clock = Recorder(listener, []), Clock()
    plan, schema = _read_and_plan(data, config, events, clock, ranks)
    checkpoints = None if path is None else checkpoints_of(path, plan, is_resuming=wishes.resume)
    with _resumable(checkpoints):
        fitted = fit_network(plan, plan.split, events, checkpoints=checkpoints)
        schema = _schema_of_use(schema, plan, fitted, events)
        clock.lap("fit_s")
        calibration = calibrate(fitted, plan.split, plan.spec, events)
        clock.lap("calibrate_s")
        remembered = remember_held_out(fitted, plan)
        clock.lap("memory_s")
        comparison, seen = compare_held_out(fitted, calibration, plan, schema.tz, events)
        clock.lap("evaluate_s")
        forecaster = fine_tune(fitted, plan, plan.split.everything, events)
        clock.lap("learn_on_s")
        artifact = describe_model(
            forecaster,
            plan,
            schema,
            metrics={
                **comparison.to_json(),
                "memory": None if remembered is None else remembered.summary(),
            },
            source=data,
            warnings=events.warnings,
        )
        artifact = replace(artifact, calibration=calibration)
        if path is None or ranks.rank:
            return Model(artifact, None, None, tuple(events.warnings), clock.laps)
        shown = None
        if wishes.report:
            shown = draw_report(artifact, comparison, seen, fitted, events.warnings, remembered)
            clock.lap("report_s")
        version = _save(path, artifact, shown, comparison, wishes.require_skill, events)
    return Model(artifact, path, version, tuple(events.warnings), clock.laps)


def _read_and_plan(
    data: object, config: Config, events: Listener, clock: Clock, ranks: Ranks
) -> tuple[Plan, Schema]:
    """Read the readings, of ranks each its own, and settle what the training will do."""
    with warning_once(events, ranks) as hearing:
        panel, schema = read_readings(
            data,
            config.data,
            hearing,
            learns_until=lambda panel, _: train_end_us(panel, config),
            ranks=ranks,
        )
    clock.lap("read_s")
    return plan_training(panel, config, events), schema


@contextmanager
def _resumable(checkpoints: Checkpoints | None) -> Iterator[None]:
    """Say, where a signal ends this training, that it can be gone on with, if it can."""
    before = checkpoints and checkpoints.stamp()
    try:
        yield
    except Exception:
        raise
    except BaseException as stopped:  # what a signal raises
        after = checkpoints and checkpoints.stamp()
        if checkpoints and after and (checkpoints.is_resuming or after != before):
            stopped.add_note("the training is kept: the same command with  --resume  goes on")
        raise


def _schema_of_use(schema: Schema, plan: Plan, fitted: RNNForecaster, listener: Listener) -> Schema:
    """Return the schema without covariates that the network does without."""
    if fitted.network.spec.n_features or not plan.spec.n_features:
        return schema
    message = "the covariates do not help on held-out readings: the network does without them"
    listener(Warned("unused-covariates", message))
    return replace(schema, covariates=())


def _save(
    path: Place,
    artifact: Artifact,
    report: str | None,
    comparison: Comparison,
    require_skill: float | None,
    listener: Listener,
) -> str:
    """Save a new version and put it in force, unless it is not as good as the user asks for.

    A signal meanwhile counts afterwards, so that what is said of it is what happened. The
    checkpoint has served its purpose either way.
    """
    files = artifact.pack(report)
    with holding_back(lambda: None):
        version = versions.publish_version(path, files, now=datetime.now(UTC))
        discard_checkpoint(path)
        _require(require_skill, comparison, version)
        versions.put_in_force(path, version)
        listener(Published(version))
    return version


def _check_wishes(path: Place | None, skill: float | None, *, resume: bool) -> None:
    """Raise for a gate that is no number, or a place where no model can be, before the work."""
    if resume and path is None:
        raise UsageError("resume goes on from a checkpoint, and without a model there is none")
    if skill is not None and not math.isfinite(skill):
        raise UsageError(f"--require-skill {skill} is not a number")
    if path is not None:
        versions.check_place(path)


def _require(skill: float | None, comparison: Comparison, version: str) -> None:
    """Raise `QualityGateError` unless the network is as much better as the user asks for."""
    if skill is None:
        return
    reached = comparison.skill
    if reached is None or reached < skill:
        shown = "unknown" if reached is None else f"{reached:.1f} %"
        raise QualityGateError(
            f"the skill is {shown}, but --require-skill asks for {skill:g} %",
            code="require-skill",
            hint=f"version {version} was saved, but not put in force",
        )


def launch_for(data: object) -> Launch | None:
    """Return which rank this process is in a training from these readings; None if it is alone.

    A table in memory is trained on alone, whatever a launcher was started for; so is by a single
    process what is no folder of buckets.
    """
    launch = launched()
    if launch is None or not isinstance(data, str | Path):
        return None

    return launch if launch.n > 1 or is_sharded(place_of(data)) else None


@contextmanager
def joined(config: RanksConfig, launch: Launch | None) -> Iterator[Ranks]:
    """Meet the processes that a launcher has started beside this one; there may be none."""
    if launch is None:
        from rnnforecast.parallel import ALONE

        yield ALONE
        return
    from rnnforecast.model.distributed import joined_ranks

    with joined_ranks(config.timeout_s) as ranks:
        yield ranks


@contextmanager
def warning_once(listener: Listener, ranks: Ranks) -> Iterator[Listener]:
    """Give each rank a listener for what it does; all are warned, in the end, of what any was."""
    if ranks.n == 1:
        yield listener
        return
    own: list[Warned] = []

    def hear(event: Event) -> None:
        if isinstance(event, Warned):
            own.append(event)
        else:
            listener(event)

    yield hear
    said = all_say(ranks, [asdict(warning) for warning in own])
    found = [Warned(**warning) for part in said for warning in part]
    for warning in merged_warnings(found, "of other ranks"):
        listener(warning)
