"""Places at which a process can be told to die, so that tests can see what a kill leaves behind.

They do nothing unless the environment names one: `RNNFORECAST_CRASH_AT=file-synced` kills the
process there the first time, `file-synced:3` the third; `file-synced:3:STOP` stops it there, and it
goes on when it is told to. Standard library only.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "RNNFORECAST_CRASH_AT"
_passed: Counter[str] = Counter()


def crash_point(label: str) -> None:
    """Die as by a power cut, without a word, where the environment says so."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    _passed[label] += 1
    name, time, how = [*wanted.split(":"), *("1", "KILL")[wanted.count(":") :]]
    if name == label and _passed[label] == int(time):
        os.kill(os.getpid(), signal.Signals[f"SIG{how}"])
