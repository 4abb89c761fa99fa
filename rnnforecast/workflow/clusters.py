"""Ray, where it is wanted and installed: found, begun on this machine or on a cluster, ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from rnnforecast.errors import UsageError

ATTEMPTS = 3
"""How often work is tried while workers die."""
_STORE_BYTES = 128 << 20
"""What a local Ray may keep of results, which are small."""


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
