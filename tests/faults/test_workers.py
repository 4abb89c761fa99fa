"""A forecast with workers whose processes are killed or interrupted: nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from rnnforecast.cli.main import run
from tests.builders import wave
from tests.conftest import SMALL

pytestmark = [pytest.mark.usefixtures("interruptible"), pytest.mark.slow]

N_BUCKETS = 400
PATIENCE_S = 60
SERVER = "multiprocessing.forkserver"


@dataclass(frozen=True)
class Work:
    """A forecast that is going on, in a session of its own."""

    process: subprocess.Popen[str]
    output: Path

    def processes(self, words: str = "") -> list[int]:
        """Return the processes of its session that have not ended, and have such words."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                line = (folder / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if int(session) == self.process.pid and state != "Z" and words in line:
                found.append(int(folder.name))
        return found

    def n_parts(self) -> int:
        return len(list(self.output.rglob("_bucket-*.json")))

    def end(self) -> str:
        """Wait for its end, and for that of all its processes; return what it said."""
        said = self.process.communicate(timeout=PATIENCE_S)[1]
        until(lambda: not self.processes())
        return said


def until(is_so: object) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plant")
    stamps = pd.date_range("2026-01-01", periods=120, freq="h")
    series = pd.DataFrame({"time": stamps, "value": wave(120)})
    table = pd.concat([series.assign(sensor=f"s{i}") for i in range(100)])
    table.to_parquet(folder / "long.parquet")
    series.assign(sensor="s0").to_csv(folder / "few.csv", index=False)
    readings, buckets, model = folder / "long.parquet", folder / "buckets", folder / "model"
    for line in (
        ["shard", readings, "--output", buckets, "--buckets", N_BUCKETS, "--series", "sensor"],
        ["train", folder / "few.csv", "--model", model, "--series", "sensor", *SMALL],
    ):
        assert run([*map(str, line), "-q"]) == 0
    return folder


@pytest.fixture
def work(plant: Path, tmp_path: Path) -> Iterator[Work]:
    output = tmp_path / "out"
    line = ["predict", plant / "buckets", "-m", plant / "model", "-o", output, "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rnnforecast", *map(str, line)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    work = Work(process, output)
    yield work
    for pid in [process.pid, *work.processes()]:
        if process.poll() is None or pid != process.pid:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("when", ["importing", "working"])
def test_a_key_that_interrupts_all_ends_all_and_says_so_once(when: str, work: Work) -> None:
    until(lambda: is_importing(work) if when == "importing" else work.n_parts())

    os.killpg(work.process.pid, signal.SIGINT)
    said = work.end()

    assert work.process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert not (work.output / "CURRENT").exists()


def test_with_the_parent_all_its_processes_end(work: Work) -> None:
    until(work.n_parts)

    work.process.kill()
    work.end()

    assert 0 < work.n_parts() < N_BUCKETS


def test_what_workers_are_forked_from_may_die_like_a_worker(work: Work) -> None:
    until(work.n_parts)
    (server,) = (pid for pid in work.processes(SERVER) if parent_of(pid) == work.process.pid)

    os.kill(server, signal.SIGKILL)
    said = work.end()

    assert work.process.returncode == 0, said
    assert work.n_parts() == N_BUCKETS
    assert (work.output / "CURRENT").exists()


def is_importing(work: Work) -> bool:
    """Tell whether what workers are forked from has begun to load numpy, long before torch."""
    maps = (Path(f"/proc/{pid}/maps") for pid in work.processes(SERVER))
    return any("numpy" in path.read_text() for path in maps)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("signalled", [False, True])
def test_neither_folders_nor_semaphores_of_workers_stay(
    plant: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, *, signalled: bool
) -> None:
    # a socket is made in there, whose path may have 107 bytes
    temporary, output = tmp_path_factory.mktemp("t"), tmp_path / "out"
    words = ["predict", plant / "buckets", "-m", plant / "model", "-o", output, "--workers", "2"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [sys.executable, "-m", "rnnforecast", *map(str, words)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    work = Work(process, output)
    if signalled:
        until(lambda: work.n_parts() > 0)
        process.terminate()

    assert "leaked" not in work.end()
    assert process.returncode == (143 if signalled else 0)
    assert list(temporary.iterdir()) == []
