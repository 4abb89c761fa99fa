"""An operator's story: several jobs in one folder, and all that they say of themselves is true.

One works, one fails, one never ran, one is stale, one was moved, and a catch-up is interrupted.
They share a log and a text file.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pandas as pd

from tests.cli.test_run import JOB
from tests.conftest import Command
from tests.faults.warm import Warm
from tests.jobs.test_log import parse_exposition

JOBS = ("works", "fails", "new", "stale", "late")


def write_jobs(place: Path) -> None:
    """Write a job file for each, with files of its own but for the log and the text file."""
    changes = {
        "fails": ('"data.csv"', '"broken.csv"'),
        "stale": ("[ledger]", '[fresh]\nmax_age = "2h"\n[ledger]'),
        "late": ("/forecast.csv", "/{as_of}.csv"),
    }
    (place / "broken.csv").write_text("no,table\n")
    for name in JOBS:
        text = JOB.replace("out/", f"{name}/").replace('"ledger"', f'"{name}-ledger"')
        before, after = changes.get(name, ("", ""))
        (place / f"{name}.toml").write_text(text.replace(before, after) if before else text)


def samples_of(text: str) -> dict[tuple[str, str], float]:
    """Return the samples of a text file by gauge and job, as Prometheus reads them."""
    strict = parse_exposition(text)
    try:
        from prometheus_client.parser import text_string_to_metric_families as parser
    except ImportError:
        pass  # the parser of this repository is as strict
    else:
        theirs = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parser(text)
            for sample in family.samples
        }
        assert theirs == {(name, tuple(sorted(x))): value for (name, x), value in strict.items()}
    return {(name, dict(labels)["job"]): value for (name, labels), value in strict.items()}


def test_what_the_jobs_of_a_folder_say_is_true(
    command: Command, warm: Warm, workplace: Path
) -> None:
    write_jobs(workplace)
    begun = time.time()
    codes = {name: command("run", workplace / f"{name}.toml").code for name in ("works", "fails")}
    codes["stale"] = command("run", workplace / "stale.toml").code
    stamps = [text.replace(" ", "T") for text in pd.read_csv(workplace / "data.csv")["timestamp"]]
    catch_up = ["run", workplace / "late.toml", "--from", stamps[300], "--to", stamps[396]]
    env = {"RNNFORECAST_CRASH_AT": "run-published:2:TERM"}
    late = warm.start(*catch_up, cwd=workplace, env=env).wait()
    codes["late"] = late.code

    assert codes == {"works": 0, "fails": 4, "stale": 5, "late": 3}
    assert "2 of 5 as-of times are published" in late.err
    published = {name: len(list((workplace / name).glob("*run.json"))) for name in JOBS}
    assert published == {"works": 1, "fails": 0, "new": 0, "stale": 0, "late": 2}
    parts = {name: len(list((workplace / f"{name}-ledger").glob("*.parquet"))) for name in JOBS}
    assert parts == published

    moved = workplace.parent / "plant"
    shutil.move(workplace, moved)
    states = {name: command("status", moved / f"{name}.toml", "--json") for name in JOBS}
    assert {name: outcome.code for name, outcome in states.items()} == {
        "works": 0,
        "fails": 3,
        "new": 6,
        "stale": 5,
        "late": 3,
    }
    documents = {name: outcome.document for name, outcome in states.items()}
    assert {name: document["last_exit"] for name, document in documents.items()} == {
        **codes,
        "new": None,
    }
    has_success = {name for name, x in documents.items() if x["last_success_age_s"] is not None}
    assert has_success == {"works", "late"}
    assert documents["fails"]["output"] is documents["new"]["output"] is None

    samples = samples_of((moved / "job.prom").read_text())
    exits = {job: x for (name, job), x in samples.items() if name == "rnnforecast_last_exit_code"}
    assert exits == codes
    successes = {
        job: value
        for (name, job), value in samples.items()
        if name == "rnnforecast_last_success_timestamp_seconds"
    }
    assert successes.keys() == {"works", "late"}
    assert all(begun <= value <= time.time() for value in successes.values())

    entries = [json.loads(line) for line in (moved / "run.log").read_text().splitlines()]
    ends = [(entry["job"], entry["exit"]) for entry in entries if entry["event"] == "finished"]
    first = [("works", 0), ("fails", 4), ("stale", 5), ("late", 0), ("late", 3)]
    assert ends == first, (
        "the run that the signal interrupted had published, and says so at the end"
    )

    again = command("run", moved / "works.toml", "--json")
    assert (again.code, again.document["status"]) == (0, "already published")
    catch_up[1] = moved / "late.toml"
    rest = command(*catch_up, "--json")
    assert (rest.code, rest.document["published"], rest.document["total"]) == (0, 5, 5)
    assert [run["status"] for run in rest.document["runs"]].count("already published") == 2
    samples = samples_of((moved / "job.prom").read_text())
    assert samples["rnnforecast_last_exit_code", "late"] == 0
    assert len([1 for name, _ in samples if name == "rnnforecast_last_exit_code"]) == 4
    paths = {line.partition('path="')[2].partition('"')[0] for line in moved_lines(moved)}
    assert str(moved / "works.toml") in paths and str(workplace / "works.toml") not in paths

    thief = moved / "thief.toml"
    thief.write_text((moved / "works.toml").read_text())
    outcome = command("run", thief, "--json")
    assert (outcome.code, outcome.error["code"]) == (2, "shared-output")
    assert "/works.toml" in outcome.error["message"]
    assert command("status", thief).code == 3


def moved_lines(place: Path) -> list[str]:
    lines = (place / "job.prom").read_text().splitlines()
    return [line for line in lines if line.startswith("rnnforecast_last_exit_code")]
