"""Several processes train one network: as one would, whatever happens to one of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from rnnforecast.cli.main import run
from rnnforecast.sources.shards import bucket_of
from rnnforecast.workflow.model import load
from tests.builders import wave
from tests.conftest import Command
from tests.thorough import only_thoroughly

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
N_ROWS = 150
NETWORK = ["--hidden", "8", "-L", "24", "-H", "6", "--no-report"]
LONG = [*NETWORK, "--steps", "100", "--epochs", "60"]
"""A training that lasts long enough to be disturbed."""
_WAIT_S = 180


def names_in(bucket: int, n: int, *, of: int) -> list[str]:
    """Return names of series that belong to a bucket."""
    found = (name for i in range(1 << 20) if bucket_of(name := f"s{i}", of) == bucket)
    return [next(found) for _ in range(n)]


def make_buckets(folder: Path, names: list[str], n_buckets: int) -> Path:
    """Spread readings of these series over buckets, some of them missing."""
    stamps = pd.date_range("2026-01-01", periods=N_ROWS, freq="h")
    rng = np.random.default_rng(0)
    tables = []
    for seed, name in enumerate(names):
        values = (1 + seed % 5) * wave(N_ROWS, seed=seed)
        values[rng.random(N_ROWS) < 0.02] = np.nan
        tables.append(pd.DataFrame({"time": stamps, "sensor": name, "value": values}))
    pd.concat(tables).to_parquet(folder / "long.parquet")
    line = ["shard", folder / "long.parquet", "--output", folder / "buckets"]
    assert run([*map(str, line), "--buckets", str(n_buckets), "-q"]) == 0
    return folder / "buckets"


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two buckets: one series, and a thousand."""
    names = names_in(0, 1, of=2) + names_in(1, 1000, of=2)
    return make_buckets(tmp_path_factory.mktemp("uneven"), names, 2)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine series in five buckets, one of them empty."""
    return make_buckets(tmp_path_factory.mktemp("plant"), [f"s{i}" for i in range(9)], 5)


@dataclass(frozen=True)
class Job:
    """A launcher and the processes that it has started."""

    process: subprocess.Popen[str]
    model: Path

    def ranks(self) -> list[int]:
        """The processes that train, by their rank."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                said = dict(
                    part.split("=", 1)
                    for part in (entry / "environ").read_text(errors="replace").split("\0")
                    if "=" in part
                )
                words = (entry / "cmdline").read_text(errors="replace").split("\0")
            except OSError:
                continue
            if str(self.model) in words and "RANK" in said and "torchrun" not in str(words[:3]):
                found[int(said["RANK"])] = int(entry.name)
        return [found[rank] for rank in sorted(found)]

    def wait_until_trained_a_while(self) -> None:
        """Wait for a checkpoint."""
        wait_for((self.model / "checkpoint.safetensors").exists, self.process)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return the exit status, and what it has printed."""
        out, err = self.process.communicate(timeout=_WAIT_S)
        return self.process.returncode, out, err


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    begun = time.monotonic()
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begun < _WAIT_S, "it takes too long"
        time.sleep(0.02)


def launched(
    data: Path, model: Path, *more: str, n: int = 2, restarts: int = 0, script: list[str] = ()
) -> Job:
    """Let torchrun start ranks that train together."""
    run_it = script or ["-m", "rnnforecast"]
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    line += ["--max-restarts", str(restarts), *run_it, "train", str(data), "-m", str(model), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    return Job(process, model)


def weights_of(model: Path) -> bytes:
    """Return the weights of the only version of a model, which must be whole and active."""
    (version,) = (model / "versions").iterdir()
    assert (model / "CURRENT").read_text().strip() == version.name
    assert load(model).version == version.name
    assert not (model / "checkpoint.safetensors").exists()
    return (version / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(plant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that two ranks come to."""
    model = tmp_path_factory.mktemp("undisturbed") / "model"
    code, _, err = launched(plant, model, *LONG).end()
    assert code == 0, err
    return model


def test_two_ranks_take_the_steps_of_one_process(uneven: Path, tmp_path: Path) -> None:
    recording = [str(ROOT / "tests" / "recording.py")]
    more = [*NETWORK, "--steps", "60", "--threads", "1"]
    alone = [sys.executable, *recording, "alone", "train", str(uneven), "-m", "one", *more]
    subprocess.run(alone, cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    job = launched(uneven, tmp_path / "two", *more, script=[*recording, str(tmp_path / "both")])

    code, out, err = job.end()

    assert code == 0, err
    assert out.count("saved version") == 1, "one of them speaks for both"
    expected, *found = (
        np.array(json.loads((tmp_path / name).read_text()))
        for name in ("alone.0", "both.0", "both.1")
    )
    assert len(expected) > 60, "one member, and what it learns on"
    for losses in found:
        np.testing.assert_array_equal(losses, found[0])
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)
    one, two = (load(tmp_path / name).artifact for name in ("one", "two"))
    assert two.names == one.names
    assert len(two.names) == 1001
    assert two.metrics["skill"] == pytest.approx(one.metrics["skill"], abs=0.05)
    for name in ("n_rows", "n_readings", "train_until", "test_from"):
        assert two.training_range[name] == one.training_range[name]


def test_scaling_is_that_of_doubles_over_all_ranks(plant: Path, undisturbed: Path) -> None:
    weights, artifact = safetensors.numpy.load(weights_of(undisturbed)), load(undisturbed).artifact
    readings = pd.read_parquet(plant.parent / "long.parquet")
    seen = readings[readings["time"] <= pd.Timestamp(artifact.training_range["train_until"])]
    for entry, name in enumerate(artifact.names, start=1):
        own = seen.loc[seen["sensor"] == name, "value"].to_numpy(np.float64)
        low, center, high = np.nanquantile(own, (0.25, 0.5, 0.75))
        assert weights["center"][entry] == pytest.approx(center, rel=1e-6)
        assert weights["scale"][entry] == pytest.approx((high - low) / 1.349, rel=1e-6)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=only_thoroughly), 1])  # Ray kills rank 0
def test_a_killed_rank_is_started_again_and_all_go_on(
    rank: int, plant: Path, undisturbed: Path, tmp_path: Path
) -> None:
    job = launched(plant, tmp_path / "model", *LONG, restarts=2)
    job.wait_until_trained_a_while()
    os.kill(job.ranks()[rank], signal.SIGKILL)

    code, out, err = job.end()

    assert code == 0, err
    assert "resuming training after step" in err
    assert out.count("saved version") == 1
    assert weights_of(tmp_path / "model") == weights_of(undisturbed)


def test_a_stopped_rank_is_waited_for_and_then_told_of(plant: Path, tmp_path: Path) -> None:
    job = launched(plant, tmp_path / "model", *LONG, "--rank-timeout", "3s")
    job.wait_until_trained_a_while()
    stopped = job.ranks()[1]
    os.kill(stopped, signal.SIGSTOP)
    lines = []
    for line in job.process.stderr:
        lines.append(line)
        if "another process did not respond in time" in line:
            break
    else:
        pytest.fail("".join(lines))
    os.kill(stopped, signal.SIGCONT)

    code, _, _ = job.end()

    assert code != 0
    assert not (tmp_path / "model" / "CURRENT").exists()


def test_a_signal_leaves_a_checkpoint_that_both_go_on_from(
    plant: Path, undisturbed: Path, tmp_path: Path
) -> None:
    job = launched(plant, tmp_path / "model", *LONG)
    job.wait_until_trained_a_while()
    job.process.send_signal(signal.SIGTERM)
    code, _, err = job.end()
    assert code != 0
    assert "interrupted; nothing was published" in err

    code, _, err = launched(plant, tmp_path / "model", *LONG, "--resume").end()

    assert code == 0, err
    assert "resuming training after step" in err
    assert weights_of(tmp_path / "model") == weights_of(undisturbed)


def test_what_cannot_be_shared_out_is_told(tmp_path: Path) -> None:
    data = make_buckets(tmp_path, names_in(0, 2, of=2), 2)

    code, _, err = launched(data, tmp_path / "model", *NETWORK).end()

    assert code != 0
    assert "there are 2 processes, but only 1 bucket" in err
    assert not (tmp_path / "model" / "CURRENT").exists()


def test_a_limit_of_time_counts_for_all_by_the_clock_of_one(plant: Path, tmp_path: Path) -> None:
    code, _, err = launched(plant, tmp_path / "model", *NETWORK, "--max-time", "2s").end()
    assert code == 0, err
    weights_of(tmp_path / "model")


def test_ray_starts_ranks_that_come_to_the_same_though_one_dies(
    plant: Path, undisturbed: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'rnnforecast[ray]'")
    model = tmp_path / "model"
    model.mkdir()
    checkpoint = model / "checkpoint.safetensors"
    checkpoint.write_text("of a different training")
    line = [sys.executable, "-m", "rnnforecast", "train", str(plant), "-m", str(model), *LONG]
    process = subprocess.Popen(
        [*line, "--engine", "ray", "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: checkpoint.exists() and checkpoint.stat().st_size > 10_000, process)
    os.kill(holder_of(model), signal.SIGKILL)

    out, err = process.communicate(timeout=_WAIT_S)

    assert process.returncode == 0, err
    assert "saved version" in out
    assert weights_of(model) == weights_of(undisturbed)


def holder_of(model: Path) -> int:
    """Return the process that holds a model's lock, which is the first rank."""
    return int(json.loads((model / ".lock").read_text())["pid"])


def test_what_a_worker_of_ray_raises_is_what_the_command_says(
    plant: Path, command: Command
) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'rnnforecast[ray]'")
    told = command(
        "train", plant.parent / "long.parquet", "--engine", "ray", "--workers", 2, "--json"
    )
    assert told.code == 2
    assert "training with 2 processes needs a folder of buckets" in told.error["message"]
