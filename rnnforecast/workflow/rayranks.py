"""Training with ranks that Ray starts: its trainer around the same story, told by each worker.

A worker gets paths and options, never readings or weights. Where one dies, Ray starts all of them
again, and they go on from the checkpoint in the model directory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from rnnforecast.errors import RnnForecastError, UsageError, WorkerError
from rnnforecast.operate import store
from rnnforecast.places.remote import Place, place_of
from rnnforecast.ranksconfig import RanksConfig
from rnnforecast.workflow.clusters import ATTEMPTS, ray_at
from rnnforecast.workflow.saved import Model, load


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
    from rnnforecast.sources.shares import open_share

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
    from rnnforecast.model.checkpoint import discard_checkpoint
    from rnnforecast.operate.lock import holding

    with holding(model / store.LOCK):
        discard_checkpoint(model)
