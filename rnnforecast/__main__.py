"""`rnnforecast` and `python -m rnnforecast`: signals first, then all that takes time to import."""

from __future__ import annotations

import os

from rnnforecast.process import on_signals


def main() -> None:
    """Run the command line. A signal while it is still being imported ends it without a trace."""
    on_signals(lambda number, _frame: os._exit(128 + number))
    from rnnforecast.cli.main import main as enter

    enter()


if __name__ == "__main__":
    main()
