"""How a forecast of many series is shared out. Standard library only.

Apart from `config`, whose parts change a result: none of these does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rnnforecast.errors import UsageError
from rnnforecast.fields import check_choices, option

ENGINES = ("processes", "ray")
MAX_WORKERS = 1024
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class BatchConfig:
    """Who forecasts which buckets of a folder that `shard` has made."""

    shard: str | None = option(
        None, "Forecast the buckets of shard I of N only, counted from 0: I/N."
    )
    commit: bool = option(False, "Check all buckets' forecasts, and put the whole in force.")
    workers: int | None = option(
        None, "Forecast all buckets with so many processes, and put the whole in force."
    )
    engine: str | None = option(None, "What runs the workers. Default: processes.", choices=ENGINES)
    address: str | None = option(None, "Address of the Ray cluster. Default: a local one.")

    def __post_init__(self) -> None:
        """Raise `UsageError` for what cannot be meant."""
        if self.engine is not None:
            check_choices(self)
        if self.shard is not None:
            _ = self.owned
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"--workers {self.workers} must be between 1 and {MAX_WORKERS}")
        if self.shard is not None and (self.commit or self.is_managed):
            other = "--commit" if self.commit else "--workers and --engine"
            raise UsageError(
                f"--shard and {other} are different tasks",
                hint="first all shards, in any order and on any machine, then  --commit",
            )
        if self.commit and self.is_managed:
            raise UsageError("--workers and --engine end with --commit by themselves")
        if self.address is not None and self.engine != "ray":
            raise UsageError("--address is that of a Ray cluster", hint="add  --engine ray")

    @property
    def is_wanted(self) -> bool:
        """Whether buckets are forecast at all, and not a file."""
        return self.shard is not None or self.commit or self.is_managed

    @property
    def is_managed(self) -> bool:
        """Whether all buckets are forecast here, with workers."""
        return self.workers is not None or self.engine is not None

    @property
    def takes_processes(self) -> bool:
        """Whether these workers are other processes of this machine."""
        return self.engine != "ray" and (self.workers or 1) > 1

    @property
    def owned(self) -> tuple[int, int]:
        """Which shard this is, and of how many: the buckets b with b mod N = I."""
        found = _SHARD.fullmatch(self.shard or "0/1")
        if found is None or not int(found[1]) < int(found[2]):
            raise UsageError(
                f"--shard {self.shard} is not I/N with I below N",
                hint="the four shards of  --shard I/4  are 0/4, 1/4, 2/4 and 3/4",
            )
        return int(found[1]), int(found[2])
