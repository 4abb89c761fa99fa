"""Ranks connected by torch.distributed, through gloo on CPUs and nccl on GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from rnnforecast.errors import WorkerError
from rnnforecast.parallel import Ranks
from rnnforecast.process import current_launch

_SOURCE_LOCATION = re.compile(r"\[/[^]]*\] ?")
"""The place in torch's own source that its messages begin with."""
_Number = TypeVar("_Number", bound=np.generic)


class TorchRanks:
    """The ranks of torch's default process group, seen from this process."""

    def __init__(self) -> None:
        self.rank, self.n = dist.get_rank(), dist.get_world_size()

    def all_reduce(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return the sums over all ranks, bit for bit the same on each."""
        if self.n == 1 or not values.size:
            return values
        sums = torch.from_numpy(np.array(values, order="C", ndmin=1))
        with _worker_errors():
            dist.all_reduce(sums)
        total: NDArray[Any] = sums.numpy().reshape(values.shape)
        return total

    def all_gather(self, content: bytes) -> list[bytes]:
        """Return the content of each rank, in the order of the ranks."""
        if self.n == 1:
            return [content]
        sizes = np.zeros(self.n, np.int64)
        sizes[self.rank] = len(content)
        sizes = self.all_reduce(sizes)

        # all_gather takes arrays of one size
        padded = np.zeros(max(1, int(sizes.max())), np.uint8)
        padded[: len(content)] = np.frombuffer(content, np.uint8)
        parts = [torch.empty(len(padded), dtype=torch.uint8) for _ in range(self.n)]
        with _worker_errors():
            dist.all_gather(parts, torch.from_numpy(padded))
        return [part.numpy()[:size].tobytes() for part, size in zip(parts, sizes, strict=True)]


@contextmanager
def join_ranks(timeout_s: float) -> Iterator[Ranks]:
    """Join the processes that the launcher has started into a group, and leave it at the end.

    Each process waits `timeout_s` seconds for any other. A group that exists already, as under Ray,
    is taken as it is. Raises `WorkerError` where a process does not answer.
    """
    if dist.is_initialized():
        yield TorchRanks()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    launch, timeout = current_launch(), timedelta(seconds=timeout_s)
    assert launch is not None

    with _worker_errors():
        root_store, rank, n = next(rendezvous("env://", timeout=timeout))
        # torchrun keeps the store over a restart: without the prefix, processes would find the
        # addresses of those that have ended
        store = PrefixStore(f"attempt-{launch.restarts}", root_store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=n, timeout=timeout)
    yield TorchRanks()
    dist.destroy_process_group()  # not after an error: the others might never answer


@torch.no_grad()
def sum_gradients(parameters: Sequence[Tensor], loss: Tensor, ranks: Ranks) -> Tensor:
    """Sum the gradients of all ranks, in place, and return the sum of their losses.

    All of them travel in one message. A parameter without a gradient on any rank has none
    afterwards.
    """
    if ranks.n == 1:
        return loss.detach()
    has_gradient = [loss.new_tensor(float(p.grad is not None)) for p in parameters]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    message = torch.cat(
        [loss.detach().view(1), torch.stack(has_gradient), *(x.flatten() for x in gradients)]
    )

    if message.device.type == "cpu":
        message.copy_(torch.from_numpy(ranks.all_reduce(message.numpy())))
    else:
        with _worker_errors():
            dist.all_reduce(message)

    sizes = [1, len(gradients), *(x.numel() for x in gradients)]
    _, is_present, *sums = message.split(sizes)  # type: ignore[no-untyped-call]
    for parameter, present, total in zip(parameters, is_present.tolist(), sums, strict=True):
        parameter.grad = total.view_as(parameter) if present else None
    return message[0].clone()  # a view would keep the whole message in memory


@contextmanager
def _worker_errors() -> Iterator[None]:
    """Raise `WorkerError` for what torch raises where a rank does not answer."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        reason = _SOURCE_LOCATION.sub("", str(error).splitlines()[0])

        if "timed out" in reason.lower() or "timeout" in reason.lower():
            raise WorkerError(
                "another process did not respond in time; it may be stopped, unreachable or "
                f"still reading data ({reason})",
                code="rank-timeout",
                hint="check the output of the other processes, or raise --rank-timeout",
            ) from error
        raise WorkerError(
            f"another process has ended or cannot be reached ({reason})",
            code="rank-lost",
            hint="see its own output for the cause",
        ) from error
