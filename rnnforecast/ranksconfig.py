"""How a training is shared out over processes. Standard library only.

Apart from `config`, whose parts change a result: none of these does, but for the last digits.
"""

from __future__ import annotations

from dataclasses import dataclass

from rnnforecast.durations import parse_duration_us
from rnnforecast.errors import UsageError
from rnnforecast.fields import check_choices, option

ENGINES = ("ray",)
MAX_WORKERS = 1024


@dataclass(frozen=True)
class RanksConfig:
    """Who trains together. Processes that torchrun starts find each other by themselves."""

    engine: str | None = option(
        None, "Start the ranks of a training with it; torchrun starts them itself.", choices=ENGINES
    )
    workers: int | None = option(None, "With --engine: so many ranks train together.")
    address: str | None = option(None, "Address of the Ray cluster. Default: a local one.")
    rank_timeout: str = option("10m", "Give up where another rank does not answer for so long.")

    def __post_init__(self) -> None:
        """Raise `UsageError` for what cannot be meant."""
        if self.engine is not None:
            check_choices(self)
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"--workers {self.workers} must be between 1 and {MAX_WORKERS}")
        if self.engine is None and self.workers is not None:
            raise UsageError(
                "--workers needs to know who starts them",
                hint=f"add  --engine ray , or type  torchrun --nproc-per-node {self.workers} "
                "-m rnnforecast train ...",
            )
        if self.engine is None and self.address is not None:
            raise UsageError("--address is that of a Ray cluster", hint="add  --engine ray")
        if self.timeout_s <= 0:
            raise UsageError(f"--rank-timeout {self.rank_timeout} leaves no time")

    @property
    def timeout_s(self) -> float:
        """How long a rank waits for another, in seconds."""
        return parse_duration_us(self.rank_timeout) / 1e6
