"""The examples for Prometheus and Grafana ask for gauges that runs write, and the notebooks run."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rnnforecast.jobs.log import GAUGES
from tests.builders import JOB, wave, write_wide
from tests.conftest import Command
from tests.docs.pages import PAGES, ROOT

EXAMPLES = ROOT / "examples"
RULES = EXAMPLES / "prometheus" / "rnnforecast.rules.yml"
DASHBOARD = EXAMPLES / "grafana" / "dashboard.json"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
LABELS = {"exported_job", "path"}
"""Labels of a gauge as Prometheus stores it: `job` is the name of what was scraped."""
IN_A_KERNEL = """
import nbformat, sys
from nbclient import NotebookClient
NotebookClient(nbformat.read(sys.argv[1], as_version=4), timeout=240).execute()
"""


@pytest.fixture
def written(command: Command, workplace: Path) -> str:
    """The text file of a job that has forecast newer readings twice, and scored the first time."""
    (workplace / "job.toml").write_text(JOB)
    write_wide(workplace / "data.csv", flow=wave(448), level=3 * wave(448, seed=1) - 10)
    for as_of in ("2024-01-18T00:00", "2024-01-19T00:00"):
        assert command("run", workplace / "job.toml", "--as-of", as_of).code == 0
    return (workplace / "job.prom").read_text(encoding="utf-8")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    alerts: list[dict[str, Any]] = group["rules"]
    return alerts


def panels() -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return shown


def queries() -> Iterator[str]:
    """Yield what the examples and the page ask Prometheus for."""
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])
    for variable in json.loads(DASHBOARD.read_text(encoding="utf-8"))["templating"]["list"]:
        yield variable["query"]
    yield from re.findall(r"`([^`]*rnnforecast_[^`]*)`", PAGES["docs/how-to/grafana.md"])


def test_every_gauge_that_is_asked_for_is_one_that_runs_write(written: str) -> None:
    gauges = set(re.findall(r"^(rnnforecast_\w+)\{", written, re.MULTILINE))
    asked = {name for query in queries() for name in re.findall(r"rnnforecast_\w+", query)}

    assert asked == gauges
    assert gauges == {f"rnnforecast_{name}" for name in GAUGES}


def test_labels_are_those_of_the_gauges(written: str) -> None:
    texts = [*queries(), RULES.read_text("utf-8"), DASHBOARD.read_text("utf-8")]
    selected = {name for text in texts for name in re.findall(r"\{(\w+)=~?\\?\"", text)}
    shown = {name for text in texts for name in re.findall(r"\{\{ ?(?:\$labels\.)?(\w+)", text)}

    assert selected | shown == LABELS
    names = set(re.findall(r"[{,](\w+)=\"", written))
    assert {name.replace("job", "exported_job") for name in names} == LABELS


def test_alerts_have_names_of_their_own_limits_and_a_summary() -> None:
    names = [rule["alert"] for rule in rules()]

    assert len(set(names)) == len(names)
    for rule in rules():
        assert re.fullmatch(r"\d+[mhd]", rule["for"])
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]


def test_panels_do_not_overlap_and_use_the_source_that_is_chosen() -> None:
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels()
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]

    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all('exported_job=~"$job"' in target["expr"] for target in panel["targets"])


def test_every_example_is_listed() -> None:
    written = {"README.md", "backtest.csv", "model", ".ipynb_checkpoints"}
    for path in EXAMPLES.rglob("*"):
        name = path.relative_to(EXAMPLES)
        if path.is_file() and name.parts[0] not in written:
            assert f"({name.as_posix()})" in PAGES["examples/README.md"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))

    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_the_first_cell_to_the_last(path: Path, tmp_path: Path) -> None:
    """In a kernel where one is installed, else as a program."""
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    folder = Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))
    if all(map(importlib.util.find_spec, ("ipykernel", "nbclient"))):
        run = ["-c", IN_A_KERNEL, path.name]
    else:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        run = ["-c", "\n".join(code)]
    done = subprocess.run(
        [sys.executable, *run], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
