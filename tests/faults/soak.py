"""A thousand cycles of cron, compressed, each with a fault: nothing may grow, nothing may break.

`python -m tests.faults.soak --cycles 1000` or `make soak`. Each cycle new readings come, a fault
happens to the run, and the run after it has to publish what an undisturbed one would have. All of
it happens in this process, whose memory is capped, by the functions of the workflow; what is killed
is a process of its own, and every twentieth cycle runs as cron would start it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import hashlib
import io
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

import rnnforecast
from rnnforecast.cli.main import run as run_command
from rnnforecast.config.job import read_job
from rnnforecast.errors import LockedError, RnnForecastError, WriteError
from rnnforecast.jobs import ledger, log, publication
from rnnforecast.model import artifact
from rnnforecast.storage import versions
from rnnforecast.storage.durable import CRASH_VARIABLE
from rnnforecast.storage.lock import acquire
from tests import builders
from tests.conftest import SMALL
from tests.faults.counting import say, tell
from tests.faults.disk import KINDS, Disk
from tests.faults.test_kills import LABELS
from tests.faults.versions import ages
from tests.faults.warm import Warm, plain

JOB = (
    builders.JOB.replace("forecast.csv", "{as_of}.csv")
    + """[keep]
forecasts = 5
versions = 2
"""
)
STALE = '[fresh]\nmax_age = "3h"\n'
START = datetime(2024, 1, 1)
ROWS = 400
"""Number of readings in the file, which is rotated."""
CAP_BYTES = 1 << 30
"""Limit of the address space above that of a process that has imported all libraries."""
WARM_UP = 0.4
"""Share of the cycles before growth is measured: until then allocators take what they then keep, in
steps of 8 MB, the last of them in about the three hundredth of a thousand cycles."""
MOST_BYTES, MOST_BLOCKS, MOST_DESCRIPTORS, MOST_FILES = 8192.0, 10.0, 0.002, 0.02
"""Limits of the growth per cycle, by a linear fit over a thousand cycles."""
FULL = 1000
PLAIN_EVERY, RETIRE_EVERY = 20, 40


@dataclass
class Job:
    """A place where one job runs in a loop, and what it should have published."""

    place: Path
    warm: Warm
    rng: random.Random
    hour: int = ROWS
    issued: int = 0

    @classmethod
    def make(cls, place: Path, warm: Warm, seed: int) -> Job:
        """Train a small network and write the job file."""
        place.mkdir()
        job = cls(place, warm, random.Random(seed))
        job.write_readings()
        (place / "job.toml").write_text(JOB)
        (place / "stale.toml").write_text(JOB.replace("run.log", "stale.log") + STALE)
        with redirect_stdout(io.StringIO()):
            words = ["train", place / "data.csv", "-m", place / "model", "-q", *SMALL]
            assert run_command([str(word) for word in words]) == 0
        return job

    @property
    def path(self) -> Path:
        return self.place / "job.toml"

    def write_readings(self, *, n_hidden: int = 0, cut: int = 0) -> None:
        """Write the newest readings; the last few may not have come, or the file be cut short."""
        hours = np.arange(self.hour - ROWS, self.hour - n_hidden)
        noise = np.random.default_rng(0).standard_normal(self.hour + 1)[hours]
        flow = 20 + 5 * np.sin(2 * np.pi * hours / 24) + 0.1 * noise
        stamps = [START + timedelta(hours=int(hour)) for hour in hours]
        frame = pd.DataFrame(
            {"timestamp": stamps, "flow": flow.round(3), "level": 3 * flow.round(2)}
        )
        text = frame.to_csv(index=False)
        temporary = self.place / "data.new"
        temporary.write_text(text[: len(text) - cut])
        temporary.replace(self.place / "data.csv")

    def run(self, name: str = "job.toml") -> int:
        """Run the job in this process; return its exit code."""
        with redirect_stdout(io.StringIO()):
            try:
                return log.exit_code_of(rnnforecast.run(self.place / name))
            except RnnForecastError as error:
                return error.exit_code

    def check(self) -> None:
        """Look whether all that is published is whole."""
        model = self.place / "model"
        artifact.load(versions.resolve_version(model))
        job = read_job(self.path)
        for output in publication.list_outputs(job)[-3:]:
            said = publication.read_manifest(publication.manifest_path(job, output))
            if said is not None:
                for name in ("output", "ledger"):
                    content = Path(said[name]["path"]).read_bytes()
                    assert hashlib.sha256(content).hexdigest() == said[name]["sha256"], output
        for part in ledger.list_parts(self.place / "ledger")[-3:]:
            assert len(ledger.read_parts([part]))

    def check_published(self) -> None:
        """Look whether the newest forecast is that of an undisturbed run, and nothing is left."""
        job = read_job(self.path)
        newest = publication.list_outputs(job)[-1]
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, "forecast.csv")
            data = self.place / "data.csv"
            rnnforecast.predict(
                data, model=self.place / "model", config=job.forecast, output=output
            )
            expected = output.read_bytes()
        assert newest.read_bytes() == expected, newest
        left = [path.name for path in self.place.rglob(".tmp-*")]
        assert not left, left
        assert not (self.place / "ledger/.lock").exists()


# Faults. Each returns what it did, and leaves the readings whole.


def _nothing(job: Job) -> str:
    assert job.run() == 0
    return "none"


def _killed_at_label(job: Job) -> str:
    label = job.rng.choice(LABELS["run"])
    environment = {CRASH_VARIABLE: f"{label}:{job.rng.randint(1, 4)}"}
    done = job.warm.run("run", job.path, cwd=job.place, env=environment)
    assert done.code in (0, -9), done
    return "killed at a label" if done.code else "none"


def _killed_at_moment(job: Job) -> str:
    running = job.warm.start("run", job.path, cwd=job.place)
    time.sleep(job.rng.uniform(0.01, 0.15))
    running.kill()
    done = running.wait()
    assert done.code in (0, -9), done
    return "killed at a moment" if done.code else "none"


def _disk_error(job: Job) -> str:
    error = job.rng.choice((errno.EIO, errno.ENOSPC, errno.EACCES))
    kind, at = job.rng.choice(list(KINDS)), job.rng.randint(1, 12)
    disk = Disk(job.place, kind, at, for_ever=job.rng.random() < 0.3, error=error)
    with disk.standing_between():
        code = job.run()
    assert code in (0, WriteError.exit_code), (disk, code)
    assert code == 0 or disk.has_failed
    return "disk error" if disk.has_failed else "none"


def _stale(job: Job) -> str:
    assert job.run("stale.toml") == 5
    return "stale input"


def _late(job: Job) -> str:
    job.write_readings(n_hidden=1)
    assert job.run() == 0
    job.write_readings()
    return "no new readings"


def _cut_short(job: Job) -> str:
    job.write_readings(cut=job.rng.randint(1, 60))
    assert job.run() in (0, 3, 4, 5)
    job.write_readings()
    return "truncated input"


def _locked(job: Job) -> str:
    with acquire(job.place / "ledger/.lock"):
        assert job.run() == LockedError.exit_code
    return "another holds the lock"


FAULTS: tuple[Callable[[Job], str], ...] = (
    _nothing,
    _killed_at_label,
    _killed_at_moment,
    _disk_error,
    _disk_error,
    _stale,
    _late,
    _cut_short,
    _locked,
)


@dataclass
class Soak:
    """What was measured, cycle by cycle."""

    faults: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    """Resident, in bytes: with what allocators keep for later."""
    blocks: list[int] = field(default_factory=list)
    """Blocks of memory that objects of Python hold: what is not forgotten shows here first."""
    descriptors: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    n_plain: int = 0
    n_retired: int = 0
    seconds: float = 0.0

    def measure(self, job: Job) -> None:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append(pages * resource.getpagesize())
        self.blocks.append(sys.getallocatedblocks())
        self.descriptors.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208
        parts = len(ledger.list_parts(job.place / "ledger"))  # the ledger grows, as it should
        files = sum(path.is_file() for path in job.place.rglob("*"))
        self.files.append(files - parts)

    def slope(self, values: list[int]) -> float:
        """Return what is added in each cycle, by a linear fit after the warm-up."""
        rest = np.array(values[int(WARM_UP * len(values)) :], float)
        return float(np.polyfit(np.arange(len(rest)), rest, 1)[0])

    def table(self) -> str:
        """Return the figures as a table."""
        rows = [f"{'measure':<22}{'first':>12}{'last':>12}{'most':>12}{'a cycle':>12}"]
        begin = int(WARM_UP * len(self.memory))
        for name, values, unit in (
            ("resident memory, MB", self.memory, 1e6),
            ("blocks of Python, 1000", self.blocks, 1e3),
            ("open descriptors", self.descriptors, 1),
            ("files but the ledger's", self.files, 1),
        ):
            first, last, most = (x / unit for x in (values[begin], values[-1], max(values)))
            slope = self.slope(values) / unit
            rows.append(f"{name:<22}{first:>12.1f}{last:>12.1f}{most:>12.1f}{slope:>12.6f}")
        rows += [f"{name:<34}{n:>6} cycles" for name, n in sorted(self.faults.items())]
        rows.append(f"{'as processes from nothing':<34}{self.n_plain:>6} cycles")
        rows.append(f"{'versions retired':<34}{self.n_retired:>6}")
        rows.append(f"{'seconds':<34}{self.seconds:>6.0f}")
        return "\n".join(rows)

    def check(self) -> None:
        """Raise where something grows. Fewer cycles say less: what comes and goes weighs more."""
        doubt = max(1.0, FULL / len(self.memory))
        assert self.slope(self.descriptors) < MOST_DESCRIPTORS * doubt, "descriptors are left open"
        assert self.slope(self.files) < MOST_FILES * doubt, "files are left over"
        assert self.slope(self.blocks) < MOST_BLOCKS * doubt, "objects are kept"
        if len(self.memory) >= FULL:  # one step of an allocator is all that a short run may see
            assert self.slope(self.memory) < MOST_BYTES * doubt, "memory grows"


@contextmanager
def capped() -> Iterator[None]:
    """Cap the memory of this process; processes that it starts are not capped."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    cap = pages * resource.getpagesize() + CAP_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (cap, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def cycle(job: Job, soak: Soak, number: int) -> None:
    """Let new readings come, a fault happen, and the next run put things right."""
    job.hour += 1
    job.write_readings()
    if number % RETIRE_EVERY == RETIRE_EVERY - 1:
        ages(job.place / "model", 3)
    before = len(versions.list_versions(job.place / "model"))
    if number % PLAIN_EVERY == PLAIN_EVERY - 1:
        done = plain("run", job.path, cwd=job.place)
        assert done.code == 0, done
        soak.n_plain += 1
        fault = "none"
    else:
        fault = job.rng.choice(FAULTS)(job)
    job.check()
    assert job.run() == 0, fault
    job.check()
    job.check_published()
    soak.faults[fault] += 1
    soak.n_retired += before - len(versions.list_versions(job.place / "model"))


def run_soak(folder: Path, n_cycles: int, *, seed: int = 0, shows: bool = False) -> Soak:
    """Run this many cycles and return what was measured.

    Torch and Arrow have one thread each: those that are made later, when they are first needed,
    would keep memory of their own.
    """
    import torch

    threads, soak = (torch.get_num_threads(), pa.cpu_count(), pa.io_thread_count()), Soak()
    _set_threads(1, 1, 1)
    begun = time.monotonic()
    with contextlib.closing(Warm(folder)) as warm:
        job = Job.make(folder / "place", warm, seed)
        gc.freeze()  # what is there before is not gone through after every cycle
        with capped():
            for number in range(n_cycles):
                cycle(job, soak, number)
                soak.measure(job)
                if shows and number % 50 == 49:
                    say(f"{number + 1} cycles, {soak.memory[-1] / 1e6:.1f} MB")
        gc.unfreeze()
    _set_threads(*threads)
    soak.seconds = time.monotonic() - begun
    return soak


def _set_threads(torch_: int, arrow: int, arrow_io: int) -> None:
    import torch

    torch.set_num_threads(torch_)
    pa.set_cpu_count(arrow)
    pa.set_io_thread_count(arrow_io)


def report(soak: Soak) -> None:
    """Print the table, and count."""
    say(soak.table())
    tell(
        14,
        "soak",
        cycles=len(soak.memory),
        bytes_a_cycle=soak.slope(soak.memory),
        blocks_a_cycle=soak.slope(soak.blocks),
        descriptors_a_cycle=soak.slope(soak.descriptors),
        files_a_cycle=soak.slope(soak.files),
    )


def main() -> None:
    """Soak, print the table, and fail where something grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    os.environ.setdefault("RNNFORECAST_TRAIN_REPORT", "0")
    with tempfile.TemporaryDirectory() as folder:
        soak = run_soak(Path(folder), wanted.cycles, seed=wanted.seed, shows=True)
    report(soak)
    soak.check()


if __name__ == "__main__":
    main()
