"""Entry of `rnnforecast` and `python -m rnnforecast`: signal handlers first, then slow imports."""

from __future__ import annotations

import gc
import os

from rnnforecast.process import on_signals

_COLLECT_AFTER = 200_000
"""New objects after which garbage is looked for: imports alone make hundreds of thousands, and
with Python's default a tenth of a short command's time goes into the search."""


def main() -> None:
    """Run the command line. A signal during the imports ends the process without a traceback."""
    on_signals(lambda number, _frame: os._exit(128 + number))
    gc.set_threshold(_COLLECT_AFTER)
    from rnnforecast.cli.main import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
