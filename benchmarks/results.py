"""Every table of benchmarks/RESULTS.md, with one command.

    RNNFORECAST_DATA=... python benchmarks/results.py [--seeds 0 1 2] [--steps N] [PART ...]

Runs the long-horizon tables and the probabilistic tasks with the defaults, once for each seed, and
writes the medians beside the published figures. The seasonal naive column must come out as it was
published, digit for digit: then the rest compares; `--steps 1` shows that in a few minutes, with
networks that have learnt nothing. Single runs are kept in results.jsonl with a digest of the code
that made them, so that a run which was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gift_eval
import long_horizon

import rnnforecast

_HERE = Path(__file__).parent
_KEPT = _HERE / "results.jsonl"
_NAIVE = "seasonal naive"
_BOTH = ("first", "second")
_PACKAGE = Path(rnnforecast.__file__).parent
_DECIDES = (
    "config",
    "spec.py",
    "parallel.py",
    "gradients.py",
    "data",
    "model",
    "evaluate",
    "workflow",
)
"""What of the package decides a figure."""

Run = dict[str, Any]
Runner = Callable[..., dict[str, float]]

PARTS: dict[str, tuple[str, Mapping[str, Any], Runner]] = {
    "gift-eval": ("MASE/WQL", gift_eval.TASKS, gift_eval.run),
    "gift-eval-builtin": ("MASE/WQL, built in", gift_eval.TASKS, gift_eval.run_builtin),
    **{
        name.replace(" ", "-"): (f"scaled MSE/MAE, {name}", tasks, long_horizon.run)
        for name, tasks in long_horizon.TABLES.items()
    },
}


def measure(part: str, seeds: Sequence[int], steps: int | None) -> list[Run]:
    """Run what has not been run yet; return all runs of this part with these seeds."""
    _, tasks, runner = PARTS[part]
    code = _digest()
    runs = []
    for seed in seeds:
        for name, task in tasks.items():
            key = {"part": part, "task": name, "seed": seed, "steps": steps, "code": code}
            done = [run for run in _kept() if key.items() <= run.items()]
            run = done[-1] if done else {**key, **runner(task, seed=seed, steps=steps)}
            if not done:
                with _KEPT.open("a") as file:
                    file.write(json.dumps(run) + "\n")
                print(
                    f"{part} {name} seed {seed}: {_pair(run['first'], run['second'])}", flush=True
                )
            runs.append(run)
    return runs


def _digest() -> str:
    """Return a digest of the source that decides the figures."""
    sources = sorted(_PACKAGE.rglob("*.py"))
    text = "".join(s.read_text() for s in sources if s.relative_to(_PACKAGE).parts[0] in _DECIDES)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _kept() -> list[Run]:
    return [json.loads(line) for line in _KEPT.read_text().splitlines()] if _KEPT.exists() else []


def table(part: str, runs: Sequence[Run]) -> str:
    """Return one Markdown table: medians over the seeds, beside the published figures."""
    what, tasks, _ = PARTS[part]
    methods = list(dict.fromkeys(m for task in tasks.values() for m in task.published))
    columns = ["ours", "spread", "inside q10..q90", "seconds", "seasonal naive, ours", *methods]
    lines = [f"| {what} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, task in tasks.items():
        own = [run for run in runs if run["task"] == name]
        naive = _pair(own[0]["naive_first"], own[0]["naive_second"])
        if _NAIVE in task.published and naive != _pair(*task.published[_NAIVE]):
            naive += " (differs)"
        spread = (max(run[k] for run in own) - min(run[k] for run in own) for k in _BOTH)
        cells = [
            _pair(*(_median(own, key) for key in _BOTH)),
            _pair(*spread),
            f"{_median(own, 'coverage_80'):.3f}",
            f"{_median(own, 'seconds'):.0f}",
            naive,
            *(_pair(*task.published[m]) if m in task.published else "-" for m in methods),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_summary(part, runs)])


def _summary(part: str, runs: Sequence[Run]) -> list[str]:
    """Return the means over the horizons, or the geometric means over seasonal naive's."""
    _, tasks, _ = PARTS[part]
    if part.startswith("gift-eval"):
        means = [
            statistics.geometric_mean(
                _median([r for r in runs if r["task"] == name], key)
                / next(r[f"naive_{key}"] for r in runs if r["task"] == name)
                for name in tasks
            )
            for key in _BOTH
        ]
        published = (
            "; TiRex, 35 M parameters, 0.852/0.684; of those trained on made-up series alone: "
            "Chronos-2-Synth, 120 M, 0.870/0.725, TempoPFN, 38 M, 0.902/0.732"
        )
        return [f"Geometric mean over seasonal naive: {_pair(*means)}{published}"]
    lines = []
    for data in dict.fromkeys(task.data for task in tasks.values()):
        names = [name for name, task in tasks.items() if task.data == data]
        means = [
            statistics.mean(_median([r for r in runs if r["task"] == n], key) for n in names)
            for key in _BOTH
        ]
        lines.append(f"Mean over the horizons, {data}: {_pair(*means)}  ")
    return lines


def _median(runs: Sequence[Run], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def _pair(first: float, second: float) -> str:
    return f"{first:.3f}/{second:.3f}"


def main() -> None:
    """Measure, print, and write RESULTS.md where all parts were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    parts = given.parts or list(PARTS)
    tables = [table(part, measure(part, given.seeds, given.steps)) for part in parts]
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("rnnforecast", "torch", "numpy"))
    head = [
        "# Results",
        "Made by `python benchmarks/results.py`; the protocols stand in the modules beside it.",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}, {libraries}, seeds {given.seeds}: medians, and "
        "the largest less the smallest as spread.",
    ]
    text = "\n\n".join([*head, *tables]) + "\n"
    print(text)
    if not given.parts and given.steps is None:
        page = (_HERE / "RESULTS.md").read_text()
        sections = page[page.find("\n## ") :] if "\n## " in page else ""  # of the other scripts
        (_HERE / "RESULTS.md").write_text(text + sections)


if __name__ == "__main__":
    main()
