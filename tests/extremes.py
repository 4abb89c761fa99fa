"""Every option of every command with extreme values: what a caller sees is a documented exit code.

`python -m tests.extremes` tries all of them, `python -m tests.extremes --n 500 --seed 1` some.
Each command is forked from a process that has imported the libraries, with bounds on its time and
its memory, in a copy of a folder with readings, a model, a job, a ledger and a forecast.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from rnnforecast.cli.main import app, run
from tests.builders import ONE_FILE_JOB, wave, write_wide
from tests.conftest import SMALL

DOCUMENTED = frozenset((0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 124))
"""Exit codes of the contract. 1 is a bug; signals and time-outs are none of these."""
MAX_SECONDS, MAX_BYTES = 60, 6 << 30
VALUES = (
    *("", " ", "0", "-1", "1", "2", "00", "+3", "1.5", "1e308", "-1e308", "1e-320", "nan", "inf"),
    *("9" * 5000, "-" + "9" * 400, "9223372036854775807", "18446744073709551616", "1000000"),
    *("a" * 5000, "é", "\udcff", "\n", "\x1b[31m", "a b", "--", "-", "=", ":", ",", ",,,", "/"),
    *("a=b", "flow", "flow,level", "flow=1:2", "flow=mean", "a=1", "1:2", "2:1", "0/1", "1/0"),
    *("100%", "%Q", "%Y%Y", "*", "[", "{}", "null", "true", "none", "auto", "builtin", "latest"),
    *("1d", "1h", "-1d", "1000y", "1mo", "P1M", "1ns", "0.1", "0,1"),
    *("2024-01-01", "2024-01-10T00:00+25:00", "9999-12-31", "0001-01-01", "2024-02-30", "now"),
    *("..", ".", "/dev/null", "/dev/full", "/proc/self/mem", "/proc/kmsg", "data.csv", "model"),
    *(
        "x.csv",
        "closed/x.csv",
        "x.parquet",
        "x.html",
        "s3://",
        "sqlite:///",
        "file://h/x",
        "Mars/X",
    ),
)
BASES: dict[str, Sequence[str]] = {
    "check": ["data.csv"],
    "train": ["data.csv", "-m", "new", *SMALL],
    "predict": ["data.csv"],
    "backtest": ["data.csv", *SMALL],
    "show": [],
    "plot": ["--forecast", "forecast.csv", "--data", "data.csv"],
    "anomalies": ["data.csv"],
    "memory": ["data.csv"],
    "shard": ["data.csv", "--output", "buckets", "--buckets", "2"],
    "run": ["job.toml"],
    "score": ["--data", "data.csv", "--ledger", "ledger"],
    "status": ["job.toml"],
    "use": ["latest"],
    "init": ["data.csv"],
}
"""The words before the option; a command that is missing here is an error of the test."""


@dataclass(frozen=True)
class Case:
    """A command line with one extreme value."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(
            word if len(word) < 40 else f"{word[:30]}...{len(word)}" for word in self.words
        )


def all_cases() -> list[Case]:
    """Return each option, and each argument, of each command with each value."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return [case for name, command in commands.items() for case in _cases_of(name, command.params)]


def _cases_of(name: str, parameters: Sequence[object]) -> Iterator[Case]:
    base = BASES[name]
    for parameter in parameters:
        spelling = max(getattr(parameter, "opts", ()), key=len)
        if not spelling.startswith("--"):
            remaining = [word for word in base if word not in ("data.csv", "job.toml", "latest")]
            yield from (
                Case((name, "--", value, *()))
                if value.startswith("-") and not remaining
                else Case((name, value, *remaining))
                for value in VALUES
            )
        elif getattr(parameter, "is_flag", False):
            yield Case((name, *base, spelling))
        else:
            yield from (Case((name, *base, f"{spelling}={value}")) for value in VALUES)


def make_place(folder: Path) -> Path:
    """Make the folder that each command gets a copy of."""
    place = folder / "place"
    place.mkdir()
    write_wide(place / "data.csv", flow=wave(400), level=3 * wave(400, seed=1) - 10)
    log = '[ledger]\npath = "ledger"\n[log]\nfile = "run.log"\n'
    (place / "job.toml").write_text(ONE_FILE_JOB + log)
    (place / "closed").mkdir(mode=0)
    for words in (
        ["train", "data.csv", *SMALL],
        ["predict", "data.csv"],
        ["run", "job.toml", "--as-of", "2024-01-15"],
    ):
        # In a process of its own: threads of torch in this one would stop those that it forks.
        line = [sys.executable, "-m", "rnnforecast", *words, "-q"]
        done = subprocess.run(line, cwd=place, capture_output=True, check=False)
        assert done.returncode in (0, 3), done.stderr
    return place


def outcome_of(case: Case, place: Path, folder: Path) -> tuple[str, str]:
    """Run a command in a copy of the place; return what came of it, and what it printed."""
    copy = folder / f"copy-{os.getpid()}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy, symlinks=True)
    printed = folder / f"printed-{os.getpid()}"
    child = os.fork()
    if child == 0:
        try:
            os.chdir(copy)
            resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            stream = os.open(printed, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            sys.stdout = open(1, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
            code = run(list(case.words))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        except BaseException:
            traceback.print_exc()
            os._exit(99)

    # Where others keep the processors busy, a command takes as much longer.
    n_waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    deadline = time.monotonic() + MAX_SECONDS * max(1.0, n_waiting)
    while True:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "time-out", printed.read_text(errors="replace")
        time.sleep(0.005)
    text = printed.read_text(errors="replace") if printed.exists() else ""
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}", text
    return str(os.WEXITSTATUS(status)), text


def violations(cases: Sequence[Case], folder: Path) -> Iterator[str]:
    """Yield the cases that do not end with a documented code, or that print a path of a source."""
    place = make_place(folder)
    for case in cases:
        result, text = outcome_of(case, place, folder)
        is_documented = result.isdigit() and int(result) in DOCUMENTED
        if not is_documented or ".py:" in text or "Traceback" in text:
            yield f"{result}: {case}: {text.strip()[-400:]}"


def main() -> int:
    """Try cases, and print the violations."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    cases = [case for case in all_cases() if options.only in str(case)]
    if options.n is not None:
        cases = random.Random(options.seed).sample(cases, min(options.n, len(cases)))
    print(len(cases), "cases", flush=True)
    n_violations = 0
    with tempfile.TemporaryDirectory() as folder:
        for text in violations(cases, Path(folder)):
            n_violations += 1
            print(text, flush=True)
    print(n_violations, "violations")
    return 1 if n_violations else 0


if __name__ == "__main__":
    sys.exit(main())
