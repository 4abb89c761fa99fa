"""What runs the buckets of a batch: this process, a pool of forked processes, or Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any

from rnnforecast.batch.bucket import BucketTask, import_all, predict_bucket
from rnnforecast.errors import WorkerError
from rnnforecast.workflow.ray import ATTEMPTS, ray_at

Engine = Callable[[BucketTask, Sequence[int]], Iterator[dict[str, Any]]]
_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
_FORKED = "rnnforecast.batch.preload"
_IN_FLIGHT = 2
"""Tasks given out at once, for each worker: what waits in Ray's store stays small."""


def run_here(task: BucketTask, buckets: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Forecast one bucket after the other in this process."""
    import_all()
    for bucket in buckets:
        yield predict_bucket(task, bucket)


def run_in_processes(
    task: BucketTask, buckets: Sequence[int], *, workers: int
) -> Iterator[dict[str, Any]]:
    """Forecast buckets with processes of this machine. Raises `WorkerError` where they keep dying.

    None is forked from this one: what torch has begun would not go on in a copy.
    """
    left = list(buckets)
    for _ in range(ATTEMPTS):
        for said in _run_until_broken(task, left, workers):
            left.remove(said["bucket"])
            yield said
        if not left:
            return
    raise WorkerError(
        f"a worker died {ATTEMPTS} times; {len(left)} buckets are not forecast: "
        + ", ".join(map(str, left[:5])),
        hint="memory may have run out: try fewer --workers, or more --buckets; what is forecast "
        "stays, and the same command goes on from there",
    )


def begin() -> None:
    """Begin to import what workers take, in a process that they are forked from, unless there is.

    A key that interrupts all is for this process alone, from the first moment on.
    """
    if _METHOD != "forkserver":
        return
    forkserver.set_forkserver_preload([_FORKED])
    resource_tracker.ensure_running()  # else the next would do it, and let the signal through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _importing_from_the_same_places():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _importing_from_the_same_places() -> Iterator[None]:
    """Let a process that is started here find modules where this one does, and nowhere else.

    It would look into the working directory first, and not where this process was told to.
    """
    ours = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run_until_broken(
    task: BucketTask, buckets: Sequence[int], workers: int
) -> Iterator[dict[str, Any]]:
    """Give what is forecast until all is, or a worker died."""
    begin()  # again, where that process died, too
    context = multiprocessing.get_context(_METHOD)
    pool = ProcessPoolExecutor(workers, context, _begin_worker)
    try:
        futures = _submitted(pool, task, buckets)
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


def _submitted(
    pool: ProcessPoolExecutor, task: BucketTask, buckets: Sequence[int]
) -> set[Future[dict[str, Any]]]:
    """Give out buckets. Raises `BrokenProcessPool` where what workers are forked from has died."""
    try:
        return {pool.submit(predict_bucket, task, bucket) for bucket in buckets}
    except (OSError, EOFError) as error:
        raise BrokenProcessPool("no worker could be forked") from error


def _results(done: set[Future[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Give what is whole, and then raise what went wrong, if anything did."""
    failed = [future for future in done if future.exception() is not None]
    yield from (future.result() for future in done if future not in failed)
    for future in failed:
        future.result()


def _begin_worker() -> None:
    """Leave a key that interrupts all to the parent, and end with it: killed, it tells nobody."""
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
    """Forecast buckets as tasks of a Ray cluster, which tries again where a worker dies.

    Data, model and output must be paths that every node sees. Raises `UsageError` without Ray.
    """
    with ray_at(address, workers=workers) as ray:
        remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(predict_bucket)
        waiting = list(buckets)
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < _IN_FLIGHT * workers:
                running.append(remote.remote(task, waiting.pop(0)))
            done, running = ray.wait(running)
            for reference in done:
                yield _of_ray(ray, reference)


def _of_ray(ray: Any, reference: Any) -> dict[str, Any]:
    """Return what a task came to; raise what it raised, and not Ray's words for it."""
    try:
        said: dict[str, Any] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (ray.exceptions.RayError, ray.exceptions.WorkerCrashedError) as error:
        raise WorkerError(f"a worker of Ray died {ATTEMPTS} times: {error}") from error
    return said
