"""`python tests/recording.py LOSSES command ...`: the command line, and the loss of each step kept.

One line of JSON for each rank goes into a file of its own, LOSSES.0 and so on.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from rnnforecast.cli.main import run
from rnnforecast.process import current_launch


def main(losses: str, *arguments: str) -> int:
    """Run a command with what takes the steps replaced by what takes and keeps them."""
    from rnnforecast.model import training
    from rnnforecast.model.training import train_step

    kept: list[float] = []

    def keeping(*given: Any, **named: Any) -> Any:
        loss, norm = train_step(*given, **named)
        kept.append(float(loss))
        return loss, norm

    training.train_step = training.train_step = keeping  # type: ignore[attr-defined]
    code = run(list(arguments))
    launch = current_launch()
    rank = 0 if launch is None else launch.rank
    Path(f"{losses}.{rank}").write_text(json.dumps(kept))
    return code


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as the command line does: threads of torch may outlive the interpreter
