"""Versions of other ages: copies of the active one, under names of the past."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rnnforecast.storage import versions


def ages(model: Path, n: int) -> list[str]:
    """Save the active version n times more, days ago; let it have become active a day ago."""
    resolved = versions.resolve_version(model)
    now, content = datetime.now(UTC), {path.name: path.read_bytes() for path in resolved.iterdir()}
    names = [
        versions.publish_version(model, content, now=now - timedelta(days=n + 2 - number))
        for number in range(n)
    ]
    yesterday = (now - timedelta(days=1)).timestamp()
    os.utime(model / versions.CURRENT, (yesterday, yesterday))
    return names
