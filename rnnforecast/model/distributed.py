"""Ranks that torch.distributed connects: gloo or nccl."""

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
from rnnforecast.process import launched

_IN_SOURCE = re.compile(r"\[/[^]]*\] ?")
"""Where in torch's own source an error arose."""
_Number = TypeVar("_Number", bound=np.generic)


class TorchRanks:
    """The ranks of torch's default group, seen from this process."""

    def __init__(self) -> None:
        self.rank, self.n = dist.get_rank(), dist.get_world_size()

    def total(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return the sums over all ranks, the same bits on each."""
        if self.n == 1 or not values.size:
            return values
        sums = torch.from_numpy(np.array(values, order="C", ndmin=1))
        with _answering():
            dist.all_reduce(sums)
        total: NDArray[Any] = sums.numpy().reshape(values.shape)
        return total

    def gather(self, content: bytes) -> list[bytes]:
        """Return what each rank has given, in their order."""
        if self.n == 1:
            return [content]
        sizes = np.zeros(self.n, np.int64)
        sizes[self.rank] = len(content)
        sizes = self.total(sizes)
        padded = np.zeros(max(1, int(sizes.max())), np.uint8)
        padded[: len(content)] = np.frombuffer(content, np.uint8)
        parts = [torch.empty(len(padded), dtype=torch.uint8) for _ in range(self.n)]
        with _answering():
            dist.all_gather(parts, torch.from_numpy(padded))
        return [part.numpy()[:size].tobytes() for part, size in zip(parts, sizes, strict=True)]


@contextmanager
def joined_ranks(timeout_s: float) -> Iterator[Ranks]:
    """Meet the other processes that the launcher has started; each waits so long for any other.

    Where somebody has joined them already, as Ray does, that group is taken. After a restart they
    must not find the addresses of those who are gone, which torchrun keeps.
    """
    if dist.is_initialized():
        yield TorchRanks()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    launch, timeout = launched(), timedelta(seconds=timeout_s)
    assert launch is not None

    with _answering():
        root_store, rank, n = next(rendezvous("env://", timeout=timeout))
        store = PrefixStore(f"attempt-{launch.restarts}", root_store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=n, timeout=timeout)
    yield TorchRanks()
    dist.destroy_process_group()  # not after an error: the others might never answer


@torch.no_grad()
def sum_gradients(parameters: Sequence[Tensor], loss: Tensor, ranks: Ranks) -> Tensor:
    """Add up the gradients of all ranks, in place, and return the sum of their losses.

    One message for all of them. A parameter that has a gradient on no rank has none afterwards.
    """
    if ranks.n == 1:
        return loss.detach()
    has_gradient = [loss.new_tensor(float(p.grad is not None)) for p in parameters]
    gradients_or_zeros = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]

    message = torch.cat(
        [
            loss.detach().view(1),
            torch.stack(has_gradient),
            *(x.flatten() for x in gradients_or_zeros),
        ]
    )
    _sum(message, ranks)
    is_present, gradients = message[1:].split(
        [len(gradients_or_zeros), len(message) - 1 - len(gradients_or_zeros)]
    )  # type: ignore[no-untyped-call]

    parts = gradients.split([x.numel() for x in gradients_or_zeros])
    for parameter, present, part in zip(parameters, is_present.tolist(), parts, strict=True):
        parameter.grad = part.view_as(parameter) if present else None
    return message[0].clone()  # a view would keep all of it


def _sum(message: Tensor, ranks: Ranks) -> None:
    """Add up a tensor over all ranks, in place."""
    if message.device.type == "cpu":
        message.copy_(torch.from_numpy(ranks.total(message.numpy())))
        return
    with _answering():
        dist.all_reduce(message)


@contextmanager
def _answering() -> Iterator[None]:
    """Turn what torch raises where a rank does not answer into a `WorkerError`."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        reason = _IN_SOURCE.sub("", str(error).splitlines()[0])

        if "timed out" in reason.lower() or "timeout" in reason.lower():
            raise WorkerError(
                "another rank did not answer in time: it is stopped, cannot be reached, or still "
                f"reads ({reason})",
                code="rank-timeout",
                hint="look at what the others print; --rank-timeout says how long each waits",
            ) from error
        raise WorkerError(
            f"another rank has ended, or cannot be reached ({reason})",
            code="rank-lost",
            hint="its own message says why",
        ) from error
