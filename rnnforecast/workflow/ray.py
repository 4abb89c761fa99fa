"""Ray: a session, and a training whose ranks it starts."""

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
from rnnforecast.sources.shards import open_share
from rnnforecast.storage import versions
from rnnforecast.storage.lock import holding
from rnnforecast.storage.remote import Place, place_of
from rnnforecast.workflow.model import Model, load

ATTEMPTS = 3
"""How often work is tried while workers die."""
_STORE_BYTES = 128 << 20
"""What a local Ray may keep of results, which are small."""


def train_on_ray(
    train: Callable[..., Model],
    data: object,
    model: Place | None,
    ranks: RanksConfig,
    *,
    resume: bool,
    **asked: Any,
) -> Model:
    """Let `ranks.workers` workers of Ray do what `train` does, and load what they have saved.

    Every node must see data and model at the same paths. Raises what a worker raised, or
    `WorkerError` where workers keep dying.
    """
    if model is None or not isinstance(data, str | Path):
        raise UsageError("--engine ray needs paths: of a folder of buckets, and of a model")
    workers = ranks.workers or 1
    open_share(data, 0, workers)  # what cannot be shared out is told before Ray begins
    if not resume:
        _forget(model)  # from here on a checkpoint is one of this training
    work = partial(
        train,
        str(place_of(data).resolve()),
        model=str(model.resolve()),
        ranks=RanksConfig(rank_timeout=ranks.rank_timeout),
        resume=True,
        **asked,
    )
    with ray_at(ranks.address, workers=workers), tempfile.TemporaryDirectory() as kept:
        uses_gpus = asked["config"].training.device == "cuda"
        _fit(work, workers, kept, timeout_s=ranks.timeout_s, uses_gpus=uses_gpus)
    return load(model)


def _fit(
    work: Callable[[], Model], workers: int, kept: str, *, timeout_s: float, uses_gpus: bool
) -> None:
    """Let Ray's trainer do the work in each worker; in the folder `kept` it notes how it goes."""
    ray, torch = import_module("ray.train"), import_module("ray.train.torch")
    trainer = torch.TorchTrainer(
        _be_a_rank,
        train_loop_config={"work": work},
        torch_config=torch.TorchConfig(
            backend="nccl" if uses_gpus else "gloo", timeout_s=max(1, int(timeout_s))
        ),
        scaling_config=ray.ScalingConfig(num_workers=workers, use_gpu=uses_gpus),
        run_config=ray.RunConfig(
            storage_path=kept, failure_config=ray.FailureConfig(max_failures=ATTEMPTS - 1)
        ),
    )
    try:
        trainer.fit()
    except ray.TrainingFailedError as error:
        raise _cause(error) from error


def _be_a_rank(told: dict[str, Any]) -> None:
    told["work"]()


def _cause(error: Exception) -> RnnForecastError:
    """Return what the workers raised, first of all what is no sequel of another's end."""
    failures = getattr(error, "worker_failures", {}).values()
    found = [one for one in failures if isinstance(one, RnnForecastError)]
    found.sort(key=lambda one: isinstance(one, WorkerError))
    if found:
        return found[0]
    return WorkerError(f"a worker of Ray died {ATTEMPTS} times: {str(error).splitlines()[0]}")


def _forget(model: Place) -> None:

    with holding(model / versions.LOCK):
        discard_checkpoint(model)


@contextmanager
def ray_at(address: str | None, *, workers: int) -> Iterator[Any]:
    """Give Ray, connected to a cluster, or begun here with so many processors, and ended again.

    Where somebody has connected it already, that stays. Raises `UsageError` where it is missing.
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
    begun = not ray.is_initialized()
    local = {
        "num_cpus": workers,
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
    }
    if begun:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="error",
            **({} if address else local),
        )
    try:
        yield ray
    finally:
        if begun:
            ray.shutdown()
