"""Numbers for people: as many digits as mean something. Standard library only."""

from __future__ import annotations


def figure(value: float | None, *, unit: str = "") -> str:
    """Write a figure with four sensible digits; a dash where it is undefined."""
    if value is None:
        return "-"
    size = abs(value)
    if size >= 1e7:
        return f"{value:.3e}{unit}"
    digits = 0 if size >= 10_000 else 1 if size >= 1000 else 2 if size >= 100 else 3
    return (f"{value:.{digits}f}" if size >= 0.001 or size == 0 else f"{value:.2e}") + unit
