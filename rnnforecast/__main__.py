"""`rnnforecast` and `python -m rnnforecast`: signals first, then all that takes time to import."""

from __future__ import annotations

import os
import signal

_SIGNALS = ("SIGHUP", "SIGINT", "SIGTERM")  # not every system has all of them


def main() -> None:
    """Run the command line. A signal while it is still being imported ends it without a trace."""
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks
            signal.signal(number, lambda received, _frame: os._exit(128 + received))

    from rnnforecast.entry import main as enter

    enter()


if __name__ == "__main__":
    main()
