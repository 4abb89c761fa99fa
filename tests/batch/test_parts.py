"""Parts of forecasts in batches: which of them go again."""

from __future__ import annotations

import os
from pathlib import Path

from rnnforecast.batch.parts import CURRENT, Parts

DAY_S = 24 * 3600


def forecast(output: Path, digit: str, *, days_ago: float = 0) -> Parts:
    """Publish a forecast of one bucket, and commit it; its folder was changed this long ago."""
    parts = Parts(output, digit * 64, 1)
    parts.publish(0, b"part", {"newest_us": 1})
    parts.commit({})
    seconds = os.stat(output).st_mtime - days_ago * DAY_S  # noqa: PTH116
    os.utime(parts.folder, (seconds, seconds))
    return parts


def test_forecasts_of_earlier_days_go_but_the_one_before_stays(tmp_path: Path) -> None:
    first, second = (forecast(tmp_path, digit, days_ago=3) for digit in "12")
    unfinished = Parts(tmp_path, "3" * 64, 1)
    unfinished.publish(0, b"part", {"newest_us": 1})
    (tmp_path / "runs" / "notes").mkdir()
    assert first.folder.exists(), "it was the one before when the second was committed"

    third = forecast(tmp_path, "4")

    assert not first.folder.exists()
    for parts in (second, unfinished, third):
        assert parts.read(0) is not None
    assert (tmp_path / "runs" / "notes").exists()
    assert (tmp_path / CURRENT).read_text().strip() == third.name
    assert not list(tmp_path.rglob(".tmp-*"))
