"""`init`: a job file that runs as it is, and never over an existing one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from rnnforecast.config.job import read_job
from tests.builders import wave, write_wide
from tests.conftest import Command


def written(path: str = "job.toml") -> dict[str, dict[str, object]]:
    return tomllib.loads(Path(path).read_text(encoding="utf-8"))


def test_the_job_of_a_table_runs_at_once(command: Command) -> None:
    write_wide("data.csv", flow=wave(400))

    outcome = command("init", "data.csv")

    assert (outcome.code, outcome.out) == (0, "written: job.toml\n")
    assert outcome.err.splitlines()[-1] == "next: rnnforecast run job.toml"
    assert written()["data"] == {"source": "data.csv"}
    assert written()["model"] == {"path": "builtin"}
    assert command("run", "job.toml").code == 0
    (made,) = Path("forecasts").glob("*.csv")
    assert "flow" in made.read_text()


def test_every_commented_line_is_a_key_that_a_job_knows(command: Command) -> None:
    assert command("init").code == 0
    text = Path("job.toml").read_text()
    keys = [line for line in text.splitlines() if line.startswith("# ") and " = " in line]
    tables = [line for line in text.splitlines() if line.startswith("# [")]
    assert len(keys) >= 8 and tables == ["# [retrain]"]

    lines = [
        line.removeprefix("# ") if line in keys + tables else line for line in text.split("\n")
    ]
    lines = [line for line in lines if not line.startswith("or a trained model")]
    Path("all.toml").write_text("\n".join(lines).replace('"builtin"', '"model"'))

    read_job(Path("all.toml"))


def test_each_line_can_be_used_by_itself_but_those_of_retraining(command: Command) -> None:
    assert command("init").code == 0
    text = Path("job.toml").read_text().replace('path = "builtin"', 'path = "model"')
    text = text.partition("# of a trained model;")[0]
    lines = [line for line in text.splitlines() if re.match(r"# \w+ = ", line)]

    assert len(lines) >= 9
    for line in lines:
        Path("one.toml").write_text(text.replace(line, line.removeprefix("# ")))
        key = line.removeprefix("# ").partition(" ")[0]
        assert any(key in table for table in read_job(Path("one.toml")).tables.values())


def test_options_that_the_data_need_are_keys_of_the_job(command: Command) -> None:
    lines = [f"2024-01-{1 + i // 24:02d} {i % 24:02d}:00;{i % 24},5" for i in range(240)]
    Path("odd.csv").write_text("\n".join(["when;it", *lines]))
    Path("jobs").mkdir()

    options = ["--decimal", ",", "--target", "it", "--on-duplicate", "last"]
    outcome = command("init", "odd.csv", *options, "-o", "jobs/odd.toml", "--json")

    assert outcome.code == 0, outcome.err
    assert outcome.document["next"] == "rnnforecast run jobs/odd.toml"
    data = written("jobs/odd.toml")["data"]
    assert data["source"] == "../odd.csv"
    assert (data["decimal"], data["target"], data["on_duplicate"]) == (",", ["it"], "last")
    assert read_job(Path("jobs/odd.toml")).reading.target == ("it",)


def test_a_model_in_the_folder_is_the_one_of_the_job(command: Command, trained: Path) -> None:
    Path("model").symlink_to(trained / "model")

    outcome = command("init")

    assert outcome.code == 0
    assert written()["model"] == {"path": "model"}
    assert "next: write where the readings are into job.toml, then  rnnforecast run" in outcome.err


def test_an_existing_file_is_never_overwritten(command: Command) -> None:
    Path("job.toml").write_text("mine")

    outcome = command("init")

    assert outcome.code == 2 and "already exists" in outcome.err
    assert Path("job.toml").read_text() == "mine"


@pytest.mark.parametrize(("data", "code"), [("-", 2), ("missing.csv", 4)])
def test_no_job_is_written_for_data_that_cannot_be_used(
    command: Command, data: str, code: int
) -> None:
    assert command("init", data).code == code
    assert not Path("job.toml").exists()
