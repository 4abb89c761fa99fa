"""What a loop over faults did, in figures: printed, and gathered in a file where one is named."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "RNNFORECAST_FAULT_COUNTS"


def tell(fault: int, what: str, **counts: float) -> None:
    """Print one line of counts for a fault of the table; add it to the file of the environment."""
    shown = (f"{name.replace('_', ' ')} {_as_text(value)}" for name, value in counts.items())
    line = f"fault {fault}, {what}: {', '.join(shown)}"
    say(line)
    path = os.environ.get(VARIABLE)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def say(text: str) -> None:
    """Print what `pytest -s` shows."""
    print(text, flush=True)


def _as_text(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
