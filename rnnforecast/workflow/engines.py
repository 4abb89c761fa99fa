"""Who runs the buckets of a forecast in batches: processes here, or Ray's.

Both take tasks by bucket, in any order; a bucket whose worker died is tried again. Neither knows
what a bucket comes to.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any

from rnnforecast.errors import UsageError, WorkerError
from rnnforecast.workflow.buckets import BucketTask, predict_bucket

Engine = Callable[[BucketTask, Sequence[int]], Iterator[dict[str, Any]]]

_ATTEMPTS = 3
"""How often a bucket is tried while workers die."""
_PARENT_S = 0.5
"""A worker looks so often whether its parent lives."""
_STORE_BYTES = 128 << 20
"""What a local Ray may keep of results, which are manifests."""
_IN_FLIGHT = 2
"""Tasks given out at once, for each worker: what waits in Ray's store stays small."""


def run_here(task: BucketTask, buckets: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Forecast one bucket after the other in this process."""
    for bucket in buckets:
        yield predict_bucket(task, bucket)


def run_in_processes(
    task: BucketTask, buckets: Sequence[int], *, workers: int
) -> Iterator[dict[str, Any]]:
    """Forecast buckets with processes of this machine. Raises `WorkerError` where they keep dying.

    A process is new, not forked: what torch has begun would not go on in a copy.
    """
    left = list(buckets)
    for _ in range(_ATTEMPTS):
        for said in _run_until_broken(task, left, workers):
            left.remove(said["bucket"])
            yield said
        if not left:
            return
    raise WorkerError(
        f"a worker died {_ATTEMPTS} times; {len(left)} buckets are not forecast: "
        + ", ".join(map(str, left[:5])),
        hint="memory may have run out: try fewer --workers, or more --buckets; what is forecast "
        "stays, and the same command goes on from there",
    )


def _run_until_broken(
    task: BucketTask, buckets: Sequence[int], workers: int
) -> Iterator[dict[str, Any]]:
    """Give what is forecast until all is, or a worker died."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, _begin_worker, (os.getpid(),))
    try:
        futures = {pool.submit(predict_bucket, task, bucket) for bucket in buckets}
        while futures:
            done, futures = wait(futures, return_when=FIRST_COMPLETED)
            yield from _results(done)
    except BrokenProcessPool:
        return
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:  # nothing is lost: a part is published whole or not at all
            process.terminate()


def _results(done: set[Future[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Give what is whole, and then raise what went wrong, if anything did."""
    failed = [future for future in done if future.exception() is not None]
    yield from (future.result() for future in done if future not in failed)
    for future in failed:
        future.result()


def _begin_worker(parent: int) -> None:
    """Leave a key that interrupts all to the parent, and end with it: killed, it tells nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_on_ray(
    task: BucketTask, buckets: Sequence[int], *, workers: int, address: str | None
) -> Iterator[dict[str, Any]]:
    """Forecast buckets as tasks of a Ray cluster, which tries again where a worker dies.

    Data, model and output must be paths that every node sees. Raises `UsageError` without Ray.
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
    if begun:
        local = {
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="error",
            **({} if address else local),
        )
    try:
        remote = ray.remote(num_cpus=1, max_retries=_ATTEMPTS - 1)(predict_bucket)
        waiting = list(buckets)
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < _IN_FLIGHT * workers:
                running.append(remote.remote(task, waiting.pop(0)))
            done, running = ray.wait(running)
            for reference in done:
                yield _of_ray(ray, reference)
    finally:
        if begun:
            ray.shutdown()


def _of_ray(ray: Any, reference: Any) -> dict[str, Any]:
    """Return what a task came to; raise what it raised, and not Ray's words for it."""
    try:
        said: dict[str, Any] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (ray.exceptions.RayError, ray.exceptions.WorkerCrashedError) as error:
        raise WorkerError(f"a worker of Ray died {_ATTEMPTS} times: {error}") from error
    return said
