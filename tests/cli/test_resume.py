"""Training in processes of its own that signals end: exit codes, what is left, and going on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.faults.warm import Running, Warm
from tests.objectstore import Bucket
from tests.thorough import often

CODES = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
OPTIONS = ("--hidden", "32", "--epochs", "6", "--batch-size", "64", "--threads", "2", "--no-report")
WINDOWS = ("-L", "48", "-H", "6")
LONG = ("--hidden", "64", "--epochs", "1000", "--verbose")
ROOT = Path(__file__).parents[2]


def weights(model: Path) -> bytes:
    version = (model / "CURRENT").read_text().strip()
    return (model / "versions" / version / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def data(trained: Path) -> Path:
    return trained / "data.csv"


@pytest.fixture(scope="module")
def forking(warm: Warm) -> Warm:
    """The process that forks, in which a first step of a training has been prepared for."""
    warm.import_too("torch._dynamo")
    return warm


@pytest.fixture(scope="module")
def whole(
    data: Path, forking: Warm, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    """Train without an interruption; return the model, and how long it took in seconds."""
    folder = tmp_path_factory.mktemp("whole")
    done = forking.run("train", data, *OPTIONS, *WINDOWS, "-q", cwd=folder)
    assert done.code == 0, done.err
    return folder / "model", done.seconds


@pytest.fixture
def running(data: Path, tmp_path: Path, forking: Warm) -> Iterator[Running]:
    """Start a training that would take hours; its first epoch is over."""
    process = forking.start("train", data, *LONG, cwd=tmp_path)
    process.wait_for("epoch 1")
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("number", "more"),
    [
        (signal.SIGINT, ()),
        (signal.SIGTERM, ("--json",)),
        pytest.param(signal.SIGHUP, (), marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, ("--json",), marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_training_publishes_nothing_and_says_how_to_go_on(
    data: Path, tmp_path: Path, forking: Warm, number: signal.Signals, more: tuple[str, ...]
) -> None:
    process = forking.start("train", data, *LONG, *more, cwd=tmp_path)
    process.wait_for("epoch 1")
    process.kill(number)
    began = time.monotonic()
    done = process.wait()
    assert time.monotonic() - began < 10
    assert done.code == CODES[number]
    assert "stopping after this step; a second signal stops immediately\n" in done.err
    hint = "the checkpoint is saved; continue with the same command and  --resume"
    if more:
        error = json.loads(done.err.splitlines()[-1])["error"]
        assert error["exit"] == CODES[number]
        assert error["hint"] == hint
    else:
        assert done.err.splitlines()[-2:] == [
            "error: interrupted; nothing was published",
            f"   = help: {hint}",
        ]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["checkpoint.safetensors"]


@pytest.mark.slow
def test_a_second_signal_ends_at_once(running: Running) -> None:
    running.kill(signal.SIGTERM)
    running.kill(signal.SIGINT)
    began = time.monotonic()
    assert running.wait().code in (130, 143)
    assert time.monotonic() - began < 1


@pytest.mark.slow
def test_what_was_interrupted_goes_on_to_the_same_bytes(
    data: Path, tmp_path: Path, forking: Warm, whole: tuple[Path, float]
) -> None:
    process = forking.start("train", data, *OPTIONS, *WINDOWS, "--verbose", cwd=tmp_path)
    process.wait_for("epoch 2")
    process.kill(signal.SIGTERM)
    assert process.wait().code == 143
    again = forking.run("train", data, *OPTIONS, *WINDOWS, "--resume", cwd=tmp_path)
    assert again.code == 0
    assert "resuming training after step" in again.err
    assert weights(tmp_path / "model") == weights(whole[0])
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["CURRENT", "versions"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(often(2)))
def test_signals_at_random_moments_change_nothing_in_the_end(
    seed: int, data: Path, tmp_path: Path, forking: Warm, whole: tuple[Path, float]
) -> None:
    model, duration = whole
    rng, codes = random.Random(seed), []
    while not codes or codes[-1] not in (0, 9):  # 9: it came while the version was published
        process = forking.start("train", data, *OPTIONS, *WINDOWS, "--resume", cwd=tmp_path)
        number = rng.choice(list(CODES))
        time.sleep(rng.uniform(0.2, 1.0 if len(codes) < 6 else 2.0) * duration)
        process.kill(number)
        began = time.monotonic()
        codes.append(process.wait().code)
        assert time.monotonic() - began < 10 or codes[-1] == 0
        assert codes[-1] in (0, 9, CODES[number])
    assert weights(tmp_path / "model") == weights(model)
    assert not (tmp_path / "model" / "checkpoint.safetensors").exists()


@pytest.mark.slow
def test_a_signal_after_the_fit_leaves_what_resuming_skips_it_with(
    data: Path, tmp_path: Path, forking: Warm, whole: tuple[Path, float]
) -> None:
    words = ("train", data, *OPTIONS, *WINDOWS)
    for _ in range(5):  # on a busy machine a signal may come after all is published
        process = forking.start(*words, "--report", cwd=tmp_path)  # drawing takes a second
        process.wait_for("trained 1 network")
        process.kill(signal.SIGINT)
        if (code := process.wait().code) not in (0, 9):
            break
        shutil.rmtree(tmp_path / "model")
    assert code == 130
    again = forking.run(*words, "--resume", "--verbose", cwd=tmp_path)
    assert again.code == 0
    assert "epoch 1 of" not in again.err
    assert weights(tmp_path / "model") == weights(whole[0])


def start(data: Path, folder: Path, *prefix: str, **streams: int) -> subprocess.Popen[str]:
    """Start a long training as a shell does; only the prefix may ignore a signal there."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in CODES}
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "rnnforecast", "train", str(data), *LONG],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        **streams,
    )
    for number, handler in before.items():
        signal.signal(number, handler)
    return process


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    """Read what a process says until a line begins like this."""
    assert process.stderr is not None
    for said in process.stderr:
        if said.startswith(line):
            return
    pytest.fail(f"the process ended before it said {line!r}")


@pytest.mark.slow
def test_a_reader_that_has_left_does_not_change_the_exit_code(data: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    process = start(data, tmp_path, stdout=write, stderr=write)
    os.close(write)
    os.read(read, 100)
    os.close(read)  # every word from here on is a broken pipe
    deadline = time.monotonic() + 60
    while not (tmp_path / "model" / "checkpoint.safetensors").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=10) == 129


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(data: Path, tmp_path: Path) -> None:
    process = start(data, tmp_path, "nohup", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(process, "epoch 1")
    process.send_signal(signal.SIGHUP)
    wait_for(process, "epoch 3")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143


# Resuming in this process: what is refused, and what is said


QUICK = ("--hidden", "8", "--epochs", "1", "-L", "24", "-H", "6", "--threads", "1", "--no-report")


@pytest.fixture
def stopped(command: Command, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Interrupt a training after its fit; return the checkpoint."""
    from rnnforecast.cli.main import Stopped
    from rnnforecast.workflow import train

    def interrupt(*_: object) -> None:
        raise Stopped(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(train, "calibrate", interrupt)
        outcome = command("train", data, *QUICK)
    assert outcome.code == 130
    assert "--resume" in outcome.err
    return Path("model", "checkpoint.safetensors").absolute()


def test_other_options_are_refused_with_what_differs(
    command: Command, data: Path, stopped: Path
) -> None:
    before = stopped.read_bytes()
    outcome = command("train", data, *QUICK, "--resume", "--seed", "3", "--json")
    assert outcome.code == 2
    assert "seed was 0, now 3" in outcome.error["message"]
    assert "omit  --resume" in outcome.error["hint"]
    assert stopped.read_bytes() == before


def test_other_readings_are_refused(
    command: Command, data: Path, stopped: Path, tmp_path: Path
) -> None:
    changed = data.read_text().splitlines()
    (tmp_path / "other.csv").write_text("\n".join([*changed[:-1], changed[-1][:-1] + "1"]))
    outcome = command("train", "other.csv", *QUICK, "--resume")
    assert outcome.code == 2
    assert "different readings" in outcome.err
    assert stopped.exists()


def test_a_damaged_checkpoint_is_refused_and_not_asked_for_it_is_in_nobodys_way(
    command: Command, data: Path, stopped: Path
) -> None:
    stopped.write_bytes(stopped.read_bytes()[:-1])
    outcome = command("train", data, *QUICK, "--resume")
    assert outcome.code == 6
    assert "checkpoint.safetensors" in outcome.err
    assert command("train", data, *QUICK).code == 0
    assert not stopped.exists()


def test_a_version_that_is_kept_but_not_active_ends_the_training_too(
    command: Command, data: Path, stopped: Path
) -> None:
    outcome = command("train", data, *QUICK, "--resume", "--require-skill", "1000")
    assert outcome.code == 8
    assert not stopped.exists()


@pytest.mark.usefixtures("command")
def test_from_python_resuming_needs_a_model(data: Path) -> None:
    import rnnforecast

    with pytest.raises(rnnforecast.RnnForecastError, match="resume"):
        rnnforecast.train(data, model=None, resume=True)


def test_a_signal_while_a_version_is_published_counts_afterwards(
    command: Command, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnnforecast.storage import versions

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    put = versions.activate_version

    def interrupted(model: Path, version: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        put(model, version)

    monkeypatch.setattr(versions, "activate_version", interrupted)
    outcome = command("train", data, *QUICK)
    signal.signal(signal.SIGINT, before)
    assert outcome.code == 9
    assert "the result is complete and published" in outcome.err
    assert Path("model", "CURRENT").exists()


@pytest.mark.slow
def test_a_training_on_a_store_goes_on_from_its_checkpoint_there(
    bucket: Bucket, data: Path, tmp_path: Path, forking: Warm
) -> None:
    words = ("-m", bucket.url("model"), "--hidden", "32", "--epochs", "20", "--threads", "1")
    words = (*words, *WINDOWS, "--batch-size", "64", "--no-report", "--verbose")
    process = forking.start("train", data, *words, cwd=tmp_path, env=bucket.env)
    process.wait_for("epoch 1")
    process.kill(signal.SIGTERM)
    assert process.wait().code == 143
    assert bucket.names() == ["model/checkpoint.safetensors"]

    again = forking.run("train", data, *words, "--resume", cwd=tmp_path, env=bucket.env)
    assert again.code == 0, again.err
    names = bucket.names()
    assert "model/CURRENT" in names and "model/checkpoint.safetensors" not in names
    assert forking.run("train", data, *words, "-m", "whole", cwd=tmp_path).code == 0
    version = bucket.get("model/CURRENT").decode().strip()
    kept = bucket.get(f"model/versions/{version}/weights.safetensors")
    assert kept == weights(tmp_path / "whole")
