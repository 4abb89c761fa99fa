"""The recipes for unattended runs (cron, systemd, Kubernetes, Airflow) do what they say.

They are in docs/how-to/ (cron.md, kubernetes.md and airflow.md) and in examples/. A recipe whose
tool is not on the machine is skipped.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from rnnforecast.config.job import _TABLES, read_job
from tests.builders import SMALL_JOB
from tests.conftest import Command
from tests.docs.pages import ROOT, blocks_of

PLACE = "/srv/forecasts"
EXAMPLES = ROOT / "examples"
UNITS = sorted((EXAMPLES / "systemd").iterdir())


def blocks(language: str, page: str = "cron") -> list[str]:
    return [block.text for block in blocks_of(f"docs/how-to/{page}.md", language)]


@pytest.fixture
def place(workplace: Path) -> Path:
    """A folder like the recipes', with the commands where they have them."""
    (workplace / "job.toml").write_text(SMALL_JOB)
    binaries = workplace / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "rnnforecast").write_text(f'#!/bin/sh\nexec {sys.executable} -m rnnforecast "$@"\n')
    (binaries / "rnnforecast").chmod(0o755)
    return workplace


def shell(line: str, place: Path) -> subprocess.CompletedProcess[str]:
    path = f"{place / '.venv/bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["/bin/sh", "-c", line.replace(PLACE, str(place))],
        cwd=place,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_job_file_of_the_page_is_one(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(blocks("toml")[0])
    job = read_job(tmp_path / "job.toml")
    assert job.forecast.max_age == "3h"
    assert job.ledger == str(tmp_path / "ledger")


def test_a_failure_starts_the_command_of_the_page(place: Path) -> None:
    (place / ".venv/bin/mail").write_text('#!/bin/sh\n(echo "$@"; cat; env) > mailed.txt\n')
    (place / ".venv/bin/mail").chmod(0o755)
    (place / "job.toml").write_text(f'{SMALL_JOB}\n[fresh]\nmax_age = "3h"\n{blocks("toml")[1]}')

    assert shell("rnnforecast run job.toml", place).returncode == 5

    mailed = (place / "mailed.txt").read_text()
    assert mailed.startswith("-s forecast failed me@example.com\nrnnforecast: job ")
    assert "\nRNNFORECAST_EXIT=5\n" in mailed and "max_age" in mailed


def test_the_job_file_of_the_examples_uses_every_table(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "job.toml", tmp_path)
    job = read_job(tmp_path / "job.toml")
    assert set(job.tables) == set(_TABLES)
    assert job.retrain.margin == 0.01


def test_what_the_job_file_of_the_examples_leaves_out_is_valid_too(tmp_path: Path) -> None:
    text = (EXAMPLES / "job.toml").read_text(encoding="utf-8")
    options = re.compile(r"^# (?=\w+ = )", re.MULTILINE)
    assert len(options.findall(text)) >= 4
    (tmp_path / "job.toml").write_text(options.sub("", text))
    job = read_job(tmp_path / "job.toml")
    assert (job.model.version, job.reading.freq) == ("previous", "10min")


@pytest.mark.slow
def test_the_line_of_the_crontab_publishes_a_forecast(place: Path) -> None:
    (line,) = blocks("crontab")
    *moments, command = line.split(maxsplit=5)
    assert len(moments) == 5
    assert all(re.fullmatch(r"\*|[0-9]+", moment) for moment in moments)
    assert "%" not in command, "cron takes it for a line break"
    done = shell(command, place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert len(list((place / "out").glob("*.csv"))) == 1


@pytest.mark.slow
def test_the_loop_over_days_does_each_of_them_once(place: Path) -> None:
    (loop,) = blocks("sh", "airflow")
    loop = re.sub(r"in [0-9 -]+;", "in 2024-01-14 2024-01-15;", loop)
    for _ in range(2):
        done = shell(loop, place)
        assert done.returncode == 0, done.stderr
        names = sorted(path.name for path in (place / "out").glob("*.csv"))
        assert names == ["2024-01-14T000000.csv", "2024-01-15T000000.csv"]


def unit(name: str) -> ConfigParser:
    """Return the sections of a unit of systemd."""
    parser = ConfigParser(delimiters="=", interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((EXAMPLES / "systemd" / name).read_text(encoding="utf-8"))
    return parser


def test_the_timer_starts_the_unit_of_its_name() -> None:
    service, timer = unit("rnnforecast.service"), unit("rnnforecast.timer")
    assert [path.name for path in UNITS] == ["rnnforecast.service", "rnnforecast.timer"]
    assert set(service.sections()) == {"Unit", "Service"}
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["WorkingDirectory"] == PLACE
    assert timer["Timer"]["OnCalendar"]
    assert timer["Install"]["WantedBy"] == "timers.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_the_units_are_what_systemd_takes(place: Path, tmp_path: Path) -> None:
    units = [tmp_path / path.name for path in UNITS]
    for path in units:
        text = (EXAMPLES / "systemd" / path.name).read_text(encoding="utf-8")
        path.write_text(text.replace(PLACE, str(place)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_units_command_publishes_a_forecast(command: Command, place: Path) -> None:
    _, *words = unit("rnnforecast.service")["Service"]["ExecStart"].split()
    assert command(*(place / word if word == "job.toml" else word for word in words)).code == 0
    assert len(list((place / "out").glob("*.csv"))) == 1


def test_the_task_of_airflow_publishes_the_forecast_of_its_day(
    command: Command, place: Path
) -> None:
    path = EXAMPLES / "airflow" / "forecasts.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    compile(tree, path, "exec")
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    task = next(call for call in calls if ast.unparse(call.func) == "BashOperator")
    options = {word.arg: ast.literal_eval(word.value) for word in task.keywords}
    assert options["cwd"] == PLACE
    _, name, job, *words = options["bash_command"].replace("{{ ds }}", "2024-01-15").split()
    assert command(name, place / job, *words).code == 0
    assert [path.name for path in (place / "out").glob("*.csv")] == ["2024-01-15T000000.csv"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
def test_the_cron_job_is_a_resource(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(blocks("yaml", "kubernetes")[0])
    (tmp_path / "kustomization.yaml").write_text("resources:\n- job.yaml\n")
    done = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "kind: CronJob" in done.stdout


def test_the_arguments_of_the_cron_job_publish_a_forecast(command: Command, place: Path) -> None:
    listed = re.search(r"args: \[(.*)\]", blocks("yaml", "kubernetes")[0])
    assert listed is not None
    words = [word.strip().strip('"') for word in listed[1].split(",")]  # of the entry point
    outcome = command(*(word.replace("/data", str(place)) for word in words))
    assert (outcome.code, outcome.document["status"]) == (0, "published")
