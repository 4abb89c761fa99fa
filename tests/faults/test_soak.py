"""Sixty cycles of the soak. Fault 14 of the table; `make soak` runs a thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.soak import Soak, report, run_soak


@pytest.mark.slow
def test_sixty_cycles_with_a_fault_each_leave_nothing_behind(tmp_path: Path) -> None:
    soak = run_soak(tmp_path, 60)
    report(soak)
    soak.check()
    assert soak.n_plain == 3
    assert len(soak.faults) > 5


def test_what_grows_is_noticed() -> None:
    steady = [100, 101, 99, 100, 102] * 200
    growing = [100 + number // 10 for number in range(1000)]
    names = ("memory", "blocks", "descriptors", "files")
    Soak(**dict.fromkeys(names, steady)).check()
    for name in names:
        measured = {**dict.fromkeys(names, steady), name: growing}
        if name in ("memory", "blocks"):
            measured[name] = [value << 20 for value in growing]
        with pytest.raises(AssertionError):
            Soak(**measured).check()
