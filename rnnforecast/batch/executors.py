"""Executors of a batch: a pool of forked processes, or Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from rnnforecast.batch.bucket import BucketTask, predict_bucket
from rnnforecast.errors import WorkerError
from rnnforecast.process import START_METHOD, start_fork_server
from rnnforecast.workflow.ray import MAX_ATTEMPTS, ray_session

_TASKS_PER_WORKER = 2
"""Tasks submitted to Ray at once: the results that wait in its store stay few."""


def run_in_processes(
    task: BucketTask, buckets: Sequence[int], *, workers: int
) -> Iterator[dict[str, Any]]:
    """Forecast buckets with processes of this machine; yield their manifests as they finish.

    No worker is forked from this process: a copy would lack threads that pyarrow has started here.
    Raises `WorkerError` where workers die again and again.
    """
    remaining = list(buckets)
    for _ in range(MAX_ATTEMPTS):
        for manifest in _run_until_broken(task, remaining, workers):
            remaining.remove(manifest["bucket"])
            yield manifest
        if not remaining:
            return

    raise WorkerError(
        f"a worker died {MAX_ATTEMPTS} times; {len(remaining)} buckets were not forecast: "
        + ", ".join(map(str, remaining[:5])),
        hint="memory may have run out: try fewer --workers or more --buckets; finished "
        "buckets are kept, and the same command continues from there",
    )


def _run_until_broken(
    task: BucketTask, buckets: Sequence[int], workers: int
) -> Iterator[dict[str, Any]]:
    """Yield manifests until all buckets are forecast, or a worker has died."""
    start_fork_server()  # again, where that process died with the worker
    context = multiprocessing.get_context(START_METHOD)
    pool = ProcessPoolExecutor(workers, context, _init_worker)
    try:
        try:
            futures = {pool.submit(predict_bucket, task, bucket) for bucket in buckets}
        except (OSError, EOFError):  # the fork server is dead, so no worker could be forked
            return

        while futures:
            done, futures = wait(futures, return_when=FIRST_COMPLETED)
            # Manifests first: what is published counts, whatever has failed at the same time.
            failed = [future for future in done if future.exception() is not None]
            yield from (future.result() for future in done if future not in failed)
            for future in failed:
                future.result()
    except BrokenProcessPool:
        return
    finally:
        # An executor cannot stop running tasks (until Python 3.14 it has no method that kills its
        # workers), and `shutdown` forgets its processes, so they are taken from a private
        # attribute before. Nothing is lost: a part is published completely or not at all.
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _init_worker() -> None:
    """Leave SIGINT to the parent process, and end with it: a killed parent cannot stop workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_on_ray(
    task: BucketTask, buckets: Sequence[int], *, workers: int, address: str | None
) -> Iterator[dict[str, Any]]:
    """Forecast buckets as tasks of a Ray cluster, which retries a task whose worker dies.

    Every node must see data, model and output at the same paths. Raises `UsageError` without Ray,
    `WorkerError` where workers die again and again, and what a task has raised.
    """
    with ray_session(address, workers=workers) as ray:
        remote = ray.remote(num_cpus=1, max_retries=MAX_ATTEMPTS - 1)(predict_bucket)
        waiting = list(buckets)
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < _TASKS_PER_WORKER * workers:
                running.append(remote.remote(task, waiting.pop(0)))

            done, running = ray.wait(running)
            for reference in done:
                try:
                    manifest = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error  # what the task has raised, without Ray's wrapper
                except (ray.exceptions.RayError, ray.exceptions.WorkerCrashedError) as error:
                    message = f"a Ray worker died {MAX_ATTEMPTS} times: {error}"
                    raise WorkerError(message) from error
                yield manifest
