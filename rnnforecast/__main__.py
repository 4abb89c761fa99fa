"""Entry of `rnnforecast` and `python -m rnnforecast`: signal handlers first, then slow imports."""

from __future__ import annotations

import os

from rnnforecast.process import on_signals


def main() -> None:
    """Run the command line. A signal during the imports ends the process without a traceback."""
    on_signals(lambda number, _frame: os._exit(128 + number))
    from rnnforecast.cli.main import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
