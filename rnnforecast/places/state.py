"""What is known of a name on a store without opening it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class State:
    """What a store says of a name."""

    size: int | None
    """None where it is no object, but others lie below it."""
    changed_ns: int | None
