"""Commands in processes of their own: how long each takes, how much memory, what it says.

`run_all` starts one process that imports the libraries once; it forks for each command, so that a
command's memory is its own and the imports are paid for once.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.preloaded import preload

ROOT = Path(__file__).parent.parent
LIMIT_S = 30
_MOST_ADDRESSES = 16 << 30
"""A command that wants more than this fails, and the machine that runs the tests does not."""


@dataclass(frozen=True)
class Job:
    """One command, in a folder."""

    name: str
    folder: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """What came of one."""

    code: int
    """-9 where it was stopped after the limit."""
    seconds: float
    peak_bytes: int
    out: str
    err: str


def run_all(jobs: Sequence[Job], folder: Path) -> dict[str, Done]:
    """Run the commands, each in a process of its own, as many at a time as there are cores.

    Returns the results by name.
    """
    plan, results = folder / "jobs.json", folder / "results.json"
    plan.write_text(json.dumps([asdict(job) for job in jobs]))
    command = [sys.executable, "-m", "tests.limited", str(plan), str(results)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=LIMIT_S * len(jobs) + 60)
    return {name: Done(**found) for name, found in json.loads(results.read_text()).items()}


def _main(plan: Path, results: Path) -> None:
    from rnnforecast.process import n_processors

    preload("torch._dynamo")  # as the first step of a training does
    jobs = [Job(**job) for job in json.loads(plan.read_text())]
    done = _run(jobs, results.parent, n_lanes=n_processors())
    results.write_text(json.dumps({name: asdict(one) for name, one in done.items()}))


def _run(jobs: Sequence[Job], folder: Path, *, n_lanes: int) -> dict[str, Done]:
    """Run jobs, this many at a time."""
    waiting, running, done = list(reversed(jobs)), list[Running](), {}
    while waiting or running:
        while waiting and len(running) < n_lanes:
            running.append(Running.of(waiting.pop(), folder))
        for one in list(running):
            if (ended := one.ended()) is not None:
                done[one.job.name] = ended
                running.remove(one)
        time.sleep(0.01)
    return done


@dataclass(frozen=True)
class Running:
    """One command at work."""

    job: Job
    child: int
    begun: float
    out: Path
    err: Path
    peak: Path

    @classmethod
    def of(cls, job: Job, folder: Path) -> Running:
        number = len(list(folder.glob("*.out")))
        out, err, peak = (folder / f"{number}.{ending}" for ending in ("out", "err", "peak"))
        out.touch()
        begun = time.monotonic()
        child = os.fork()
        if not child:
            _be_the_command(job, out, err, peak)
        return cls(job, child, begun, out, err, peak)

    def ended(self) -> Done | None:
        """Return what came of it, where it has ended or has to: it is stopped after the limit."""
        child, status = os.waitpid(self.child, os.WNOHANG)
        if not child and time.monotonic() < self.begun + LIMIT_S:
            return None
        if not child:
            os.kill(self.child, signal.SIGKILL)
            status = os.waitpid(self.child, 0)[1]
        return Done(
            code=os.waitstatus_to_exitcode(status),
            seconds=time.monotonic() - self.begun,
            peak_bytes=int(self.peak.read_text()) if self.peak.exists() else 0,
            out=self.out.read_text(encoding="utf-8"),
            err=self.err.read_text(encoding="utf-8"),
        )


def _be_the_command(job: Job, out: Path, err: Path, peak: Path) -> None:
    """Run the command as the console script does, and note the memory; does not return."""
    from rnnforecast.cli.main import run

    code = 70
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, _MOST_ADDRESSES))
        os.chdir(job.folder)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code = run(list(job.words))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        peak.write_text(str(_peak_bytes()))
        os._exit(code)


def _peak_bytes() -> int:
    """Return the most memory that this process had: its own, not what it was before it forked."""
    match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) << 10


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
