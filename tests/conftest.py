"""Fixtures: the command line in this process, and one small model that tests share."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnforecast.cli.main import run
from tests import objectstore
from tests.builders import wave, write_wide
from tests.faults.warm import Warm
from tests.objectstore import Bucket
from tests.preloaded import build_commands_once
from tests.strangers import rewrite_manifest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch
os.environ.setdefault("RNNFORECAST_TRAIN_REPORT", "0")  # drawing takes as long as such training
# Commands that tests start read their bytecode, which takes a third of their time to make.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
_states = tempfile.TemporaryDirectory()  # no test reads or writes what is the user's
os.environ["XDG_STATE_HOME"] = _states.name
build_commands_once()
gc.set_threshold(10_000)  # the default goes through all that the tests hold, every few seconds
SMALL = ["--hidden", "8", "--steps", "8", "-L", "24", "-H", "6", "--threads", "1"]
"""Options of a network that trains in half a second."""


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as one JSON document."""
        value: dict[str, Any] = json.loads(self.out)
        return value

    @property
    def error(self) -> dict[str, Any]:
        """The JSON error on standard error."""
        value: dict[str, Any] = json.loads(self.err.strip().splitlines()[-1])["error"]
        return value


Command = Callable[..., Outcome]


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    """Run the command line in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Answer a key that interrupts, also where whoever started the tests had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data.csv`, two sensors, and `model`, trained on it. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    second = 3 * wave(400, seed=1) - 10
    second[200:205] = np.nan
    write_wide(folder / "data.csv", flow=wave(400), level=second)
    line = ["train", str(folder / "data.csv"), "--model", str(folder / "model"), "-q", "--report"]
    assert run([*line, *SMALL]) == 0
    return folder


@pytest.fixture
def workplace(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained folder that a test may change, trained on the readings in it."""
    place = Path(shutil.copytree(trained, tmp_path / "place"))
    rewrite_manifest(place / "model", provenance__source=str(place / "data.csv"))
    return place


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """The process that forks."""
    server = Warm(tmp_path_factory.mktemp("warm"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    objectstore.require()
    with objectstore.serving(tmp_path_factory.mktemp("store")) as port:
        yield port


@pytest.fixture
def bucket(_store: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bucket:
    """Return an empty bucket on a store of this machine, which the environment leads to."""
    made = Bucket.make(f"b{abs(hash(request.node.nodeid)):x}", _store)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made


def pytest_collection_finish() -> None:
    """Let no collection of garbage go through the tests themselves."""
    gc.freeze()
