"""Ray: a session, and a training whose ranks are its workers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from rnnforecast.config.commands import RanksConfig
from rnnforecast.errors import RnnForecastError, UsageError, WorkerError
from rnnforecast.model.checkpoint import discard_checkpoint
from rnnforecast.sources.shards import open_rank_slice
from rnnforecast.storage import versions
from rnnforecast.storage.lock import acquire
from rnnforecast.storage.remote import AnyPath, as_path
from rnnforecast.workflow.model import Model, load

MAX_ATTEMPTS = 3
"""Attempts at some work, while workers die."""
_STORE_BYTES = 128 << 20
"""Memory of the object store of a local Ray: results are small."""


def train_on_ray(
    train: Callable[..., Model],
    data: object,
    model: AnyPath | None,
    ranks: RanksConfig,
    *,
    resume: bool,
    **options: Any,
) -> Model:
    """Run `train` in `ranks.workers` workers of Ray, and load the model that they have saved.

    Every node must see data and model at the same paths. Raises what a worker raised, or
    `WorkerError` where workers keep dying.
    """
    if model is None or not isinstance(data, str | Path):
        raise UsageError("--engine ray needs the paths of a bucket folder and a model")
    workers = ranks.workers or 1
    open_rank_slice(data, 0, workers)  # raises for a folder that cannot be shared before Ray starts
    if not resume:
        # Workers always resume: a checkpoint that they find must be one of this training.
        with acquire(model / versions.LOCK):
            discard_checkpoint(model)

    work = partial(
        train,
        str(as_path(data).resolve()),
        model=str(model.resolve()),
        ranks=RanksConfig(rank_timeout=ranks.rank_timeout),
        resume=True,
        **options,
    )
    with ray_session(ranks.address, workers=workers), tempfile.TemporaryDirectory() as storage:
        uses_gpus = options["config"].training.device == "cuda"
        _fit(work, workers, storage, timeout_s=ranks.timeout_s, uses_gpus=uses_gpus)
    return load(model)


def _fit(
    work: Callable[[], Model], workers: int, storage: str, *, timeout_s: float, uses_gpus: bool
) -> None:
    """Do the work in each worker of Ray's trainer, which keeps its state in the folder `storage`.

    Raises what a worker raised, rather than an error that only follows from the end of another
    worker.
    """
    ray, torch = import_module("ray.train"), import_module("ray.train.torch")
    trainer = torch.TorchTrainer(
        _run_rank,
        train_loop_config={"work": work},
        torch_config=torch.TorchConfig(
            backend="nccl" if uses_gpus else "gloo", timeout_s=max(1, int(timeout_s))
        ),
        scaling_config=ray.ScalingConfig(num_workers=workers, use_gpu=uses_gpus),
        run_config=ray.RunConfig(
            storage_path=storage, failure_config=ray.FailureConfig(max_failures=MAX_ATTEMPTS - 1)
        ),
    )

    try:
        trainer.fit()
    except ray.TrainingFailedError as error:
        failures = getattr(error, "worker_failures", {}).values()
        errors = [failure for failure in failures if isinstance(failure, RnnForecastError)]
        errors.sort(key=lambda failure: isinstance(failure, WorkerError))
        if errors:
            raise errors[0] from error
        reason = str(error).splitlines()[0]
        raise WorkerError(f"a Ray worker died {MAX_ATTEMPTS} times: {reason}") from error


def _run_rank(config: dict[str, Any]) -> None:
    config["work"]()


@contextmanager
def ray_session(address: str | None, *, workers: int) -> Iterator[Any]:
    """Yield Ray, connected to the cluster at `address`, or started here with `workers` CPUs.

    Ray is shut down at the end, unless it was connected before. Raises `UsageError` where it is not
    installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise UsageError(
            "--engine ray needs Ray, which is not installed",
            code="missing-extra",
            hint="pip install 'rnnforecast[ray]'",
        ) from error

    is_ours = not ray.is_initialized()
    if is_ours:
        local = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        started = {} if address else {"num_cpus": workers, **local}
        ray.init(address=address, log_to_driver=False, logging_level="error", **started)
    try:
        yield ray
    finally:
        if is_ours:
            ray.shutdown()
