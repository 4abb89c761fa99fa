"""What starting costs: `--help` over a bare interpreter, `predict` over `import pandas, pyarrow`.

    python benchmarks/startup.py [RUNS]

Commands run in turn, so that a slow moment of the machine falls on all of them; the figures are
medians. `predict` uses a model that is trained here, on the sample data.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLE = Path(__file__).parent.parent / "sample_data" / "pumping_station.csv"
ALLOWED_HELP_S, ALLOWED_PREDICT = 0.150, 2.2


def main() -> int:
    """Print both figures beside what is allowed; fail if one is over."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    tool = [sys.executable, "-m", "rnnforecast"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*tool, "train", SAMPLE, "-q", "--epochs", "1"], cwd=folder, check=True)
        commands = {
            "pass": [sys.executable, "-c", "pass"],
            "help": [*tool, "--help"],
            "libraries": [sys.executable, "-c", "import pandas, pyarrow"],
            "predict": [*tool, "predict", "-q"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                begin = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
                times[name].append(time.perf_counter() - begin)
    median = {name: statistics.median(values) for name, values in times.items()}
    help_s = median["help"] - median["pass"]
    ratio = median["predict"] / median["libraries"]
    print(f"--help over a bare interpreter: {1e3 * help_s:.0f} ms (allowed 150)")
    print(f"predict over import pandas, pyarrow: {ratio:.2f} (allowed {ALLOWED_PREDICT})")
    print(", ".join(f"{name} {value:.3f} s" for name, value in median.items()))
    return 0 if help_s <= ALLOWED_HELP_S and ratio <= ALLOWED_PREDICT else 1


if __name__ == "__main__":
    sys.exit(main())
