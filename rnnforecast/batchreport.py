"""What `predict` shows of a forecast in batches: a line or two, or a JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rnnforecast.console import Screen

if TYPE_CHECKING:
    from rnnforecast.workflow import Batched


def batch_document(batched: Batched) -> dict[str, Any]:
    """Return what `predict --json` prints of a batch."""
    return {
        "status": batched.status,
        "output": str(batched.output),
        "key": batched.key,
        "version": batched.version,
        "buckets": list(batched.buckets),
        **batched.counts,
        "warnings": [asdict(warning) for warning in batched.warnings],
    }


def print_batch(batched: Batched, screen: Screen) -> None:
    """Say what was forecast, what is strange about it, and where it is."""
    for warning in batched.warnings:
        screen(warning)
    counts = batched.counts
    screen.result(
        f"{batched.status}: {counts['rows']} rows of {counts['series']} series, "
        f"{len(batched.buckets)} buckets, in {batched.output}"
    )
    if counts["left_out"]:
        screen.result(f"{counts['left_out']} series were left out")
