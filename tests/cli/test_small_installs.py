"""What runs without torch, scikit-learn, scipy and matplotlib, and what the other commands say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.builders import ONE_FILE_JOB
from tests.faults.warm import QUIET, ROOT
from tests.strangers import rewrite_manifest

ABSENT = ("torch", "sklearn", "scipy", "matplotlib")
PROGRAM = """
import importlib.metadata, json, os, sys
absent, version = json.loads(sys.argv[1]), importlib.metadata.version
sys.modules.update(dict.fromkeys(absent))

def version_of(name):
    if name in (*absent, "scikit-learn"):
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

importlib.metadata.version = version_of
from rnnforecast.cli.main import run
from tests.preloaded import preload
preload()

for line in sys.stdin:
    folder, out, err, arguments = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""An interpreter to which libraries are not installed. It forks for each command."""


@pytest.fixture(scope="module")
def place(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with readings, a model, a forecast, a job that has run, and a folder of buckets."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("small") / "place"))
    rewrite_manifest(folder / "model", provenance__source=str(folder / "data.csv"))
    job = ONE_FILE_JOB.replace("[data]", '[ledger]\npath = "ledger"\n[data]')
    (folder / "job.toml").write_text(job)
    for line in (
        "predict -q",
        "run job.toml -q",
        "shard data.csv --output plant --buckets 2 -q",
    ):
        assert start(folder, line).returncode == 0, line
    return folder


@cache
def interpreter(absent: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start an interpreter without these libraries; it ends with the tests."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(absent)],
        cwd=ROOT,
        env={**os.environ, **QUIET},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    """End the interpreters after the last test."""
    yield
    for absent in (ABSENT, ("torch",)):
        interpreter(absent).communicate(timeout=60)
    interpreter.cache_clear()


def start(
    folder: Path, line: str, *, absent: tuple[str, ...] = ABSENT
) -> subprocess.CompletedProcess[str]:
    """Run a command where these libraries cannot be imported."""
    process, files = interpreter(absent), [f"{folder}{ending}" for ending in (".out", ".err")]
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps([str(folder), *files, line.split()]) + "\n")
    process.stdin.flush()
    code = int(process.stdout.readline())
    return subprocess.CompletedProcess(line, code, *(Path(file).read_text() for file in files))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("check data.csv", 0),
        ("predict data.csv -m builtin", 0),
        ("predict data.csv --fallback expert,builtin,naive --exceed flow=22", 0),
        ("predict --plot", 0),
        ("predict plant -m builtin", 0),
        ("anomalies data.csv", 0),
        ("plot --data data.csv", 0),
        ("run job.toml --force", 0),
        ("score --ledger ledger --data data.csv", 5),
        ("status job.toml", 0),
        ("show --versions", 0),
        ("shard data.csv --output other --buckets 2", 0),
        ("backtest data.csv -m model --baselines expert,builtin", 5),
    ],
)
def test_it_runs_without_the_libraries_that_train_and_draw(
    place: Path, line: str, code: int
) -> None:
    done = start(place, line)
    assert done.returncode == code, done.stderr[-2000:]
    assert "bug" not in done.stderr


def test_workers_of_a_batch_are_forked_from_a_process_that_imports_none_of_them() -> None:
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        "from rnnforecast.batch.bucket import import_worker_modules\n"
        "import_worker_modules()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_version_is_activated_without_them(place: Path) -> None:
    (version,) = (path.name for path in (place / "model" / "versions").iterdir())
    assert start(place, f"use {version}").returncode == 0


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ("train data.csv -m fresh", "torch"),
        ("train data.csv -m fresh --no-report", "torch"),
        ("backtest data.csv", "torch"),
        ("memory", "torch"),
        ("plot --output picture.png", "matplotlib"),
        ("backtest data.csv -m model --baselines ridge", "scikit-learn"),
        ("backtest data.csv -m model --report page.html", "matplotlib"),
    ],
)
def test_what_needs_them_says_what_to_install(place: Path, line: str, package: str) -> None:
    done = start(place, f"{line} --json")

    assert done.returncode == 2, done.stderr[-2000:]
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "missing-library"
    assert package in error["message"]
    assert error["hint"].startswith("pip install ") and package in error["hint"]
    assert not (place / "fresh").exists()


def test_only_torch_is_asked_for_where_only_torch_is_missing(place: Path) -> None:
    done = start(place, "train data.csv -m fresh --json", absent=("torch",))
    assert done.returncode == 2
    assert json.loads(done.stderr)["error"]["hint"] == "pip install torch"
