"""Jobs that nobody watches: confused files, pipes, notices, status, forecasts in-sample."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pa_parquet
import pytest

import rnnforecast.jobs.log as log_module
from rnnforecast.storage.lock import acquire
from tests.cli.test_run import JOB, change, files, gauges, log, run, stamps_of
from tests.conftest import Command


@pytest.fixture
def place(workplace: Path) -> Path:
    (workplace / "job.toml").write_text(JOB)
    return workplace


def as_iso(stamp: str) -> str:
    return stamp.replace(" ", "T")


CONFUSED = {
    "the log is the readings": ('file = "run.log"', 'file = "data.csv"'),
    "the log is the job": ('file = "run.log"', 'file = "job.toml"'),
    "the log is the forecast": ('file = "run.log"', 'file = "out/forecast.csv"'),
    "the log is the manifest": ('file = "run.log"', 'file = "out/run.json"'),
    "the log says which version is active": ('file = "run.log"', 'file = "model/CURRENT"'),
    "the log lies in a version": ('file = "run.log"', 'file = "model/versions/x"'),
    "the log is the ledger": ('path = "ledger"', 'path = "run.log"'),
    "the text file is the readings": ('"job.prom"', '"data.csv"'),
    "the text file is the log": ('"job.prom"', '"./run.log"'),
    "the text file is the job": ('"job.prom"', '"job.toml"'),
    "the rejected rows are the job": ("[model]", 'on_bad_rows="skip"\nrejects="job.toml"\n[model]'),
    "the rejected rows are the log": ("[model]", 'on_bad_rows="skip"\nrejects="run.log"\n[model]'),
    "the rejected rows are the list of the excluded periods": (
        "[model]",
        'on_bad_rows="skip"\nrejects="bad.csv"\nexclude="bad.csv"\n[model]',
    ),
    "the ledger lies among the readings": ('"data.csv"', '"ledger/*.parquet"'),
    "the log is read with the readings": ('"data.csv"', '"*.*"'),
    "the text file is the readings by a link": ('"job.prom"', '"link.csv"'),
}


SMALL_FILES = (
    *(("show", "--config", "{}"), ("run", "{}"), ("status", "{}")),
    ("score", "--job", "{}"),
)
"""Commands that read a file of options, which stands for {}."""


@pytest.mark.parametrize("line", SMALL_FILES, ids=lambda line: line[0])
@pytest.mark.parametrize("file", ["pipe", "/dev/zero", "/proc/kmsg", "large.toml"])
def test_options_that_never_end_are_a_usage_error_at_once(
    line: tuple[str, ...], file: str, command: Command, place: Path
) -> None:
    """A pipe without a writer held a run up for ever, and zeros without end took all memory."""
    os.mkfifo(place / "pipe")
    (place / "large.toml").write_bytes(b"#" * (1 << 21))
    outcome = command(*(word.format(place / file) for word in line))
    is_empty = file == "/proc/kmsg" and line[0] == "show"  # no option stands in it
    assert outcome.code == (6 if is_empty else 2)
    assert file in outcome.err or is_empty


@pytest.mark.parametrize("name", ["run.json", "job.json", "part", "lock", "log"])
def test_a_pipe_in_the_place_of_a_file_of_a_job_is_no_hang(
    name: str, command: Command, place: Path
) -> None:
    assert run(command, place).code == 0
    path = {
        "run.json": place / "out/run.json",
        "job.json": place / "ledger/job.json",
        "part": next((place / "ledger").glob("*.parquet")),
        "lock": place / "ledger/.lock",
        "log": place / "run.log",
    }[name]
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for line in (("run",), ("status",), ("score", "--job")):
        outcome = command(*line, place / "job.toml")
        assert outcome.code in (0, 3, 4, 5, 6, 7)
        assert "bug" not in outcome.err
    assert path.is_file() == (name in ("run.json", "part"))


@pytest.mark.parametrize("change_of", CONFUSED.values(), ids=CONFUSED.keys())
@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_files_that_are_each_other_are_refused_before_anything_is_written(
    change_of: tuple[str, str], more: tuple[str, ...], command: Command, place: Path
) -> None:
    (place / "bad.csv").write_text("start,end\n")
    (place / "link.csv").symlink_to("data.csv")
    change(place, *change_of)
    before = files(place)

    outcome = run(command, place, *more)

    assert outcome.code == 2, outcome.err
    assert files(place) == before
    assert not (place / "run.log").exists() and not (place / "ledger").exists()


def test_a_pipe_that_nobody_reads_is_a_warning(command: Command, place: Path) -> None:
    (place / "pipe").mkdir()
    os.mkfifo(place / "pipe/log")
    os.mkfifo(place / "pipe/text")
    change(place, '"run.log"', '"pipe/log"')
    change(place, '"job.prom"', '"pipe/text"')
    started = time.monotonic()

    outcome = run(command, place)

    assert time.monotonic() - started < 30
    assert outcome.code == 0
    assert "pipe/log: nothing reads from this pipe" in outcome.err
    assert command("status", place / "job.toml", "--json").document["last_success_age_s"] < 60


def notice_of(place: Path, script: str) -> None:
    words = json.dumps([sys.executable, "-c", script])
    (place / "job.toml").write_text(JOB + f"[notify]\non_failure = {words}\n")


def copy_of(job: Path, changes: dict[str, str]) -> Path:
    """Change a job file in place, and return it."""
    for before, after in changes.items():
        job.write_text(job.read_text().replace(before, after))
    return job


def test_a_name_from_the_readings_cannot_write_a_line_of_its_own(
    command: Command, place: Path
) -> None:
    """A command that writes to the system's log gets one line, whatever a series is called."""
    name = "b\nNov 28 host sshd[1]: Accepted password for root\x1b[2J\u202e"
    script = "import os, sys, json; json.dump([sys.stdin.read(), os.environ['RNNFORECAST_MESSAGE']]"
    notice_of(place, f"{script}, open({str(place / 'notice')!r}, 'w'))")
    change(place, "data.csv", "gone.csv")
    (place / "job.toml").rename(place / f"{name}.toml")
    change_name = {"gone.csv": json.dumps(f"{name}.csv")[1:-1]}
    assert command("run", copy_of(place / f"{name}.toml", change_name)).code == 4
    text, message = json.loads((place / "notice").read_text())
    assert text.count("\n") == 1 and text.endswith("\n")
    assert all(c.isprintable() for c in text[:-1] + message)
    assert r"b\nNov 28 host" in text


def test_the_lock_is_free_while_somebody_is_notified(command: Command, place: Path) -> None:
    """The command for failures finds the job unlocked, and may run it again."""
    script = "import sys; from pathlib import Path; from rnnforecast.storage.lock import acquire\n"
    script += f"with acquire(Path({str(place / 'ledger/.lock')!r})):\n"
    notice_of(place, script + f"    Path({str(place / 'notice')!r}).write_text('free')")
    (place / "data.csv").write_text("no,table\n")
    assert run(command, place).code == 4
    assert (place / "notice").read_text() == "free"


def test_a_command_for_failures_that_hangs_is_killed_with_its_children(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "NOTIFY_TIMEOUT_S", 0.4)
    script = "import subprocess, sys, pathlib, time; child = subprocess.Popen(['sleep', '60']); "
    script += f"pathlib.Path({str(place / 'child')!r}).write_text(str(child.pid)); time.sleep(60)"
    notice_of(place, script)
    (place / "data.csv").write_text("no,table\n")
    outcome = run(command, place)
    assert outcome.code == 4 and "timed out" in outcome.err
    child = int((place / "child").read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child lives on")


def test_a_catch_up_notifies_once(command: Command, place: Path) -> None:
    notice_of(place, f"open({str(place / 'notice')!r}, 'a').write('x')")
    outcome = run(command, place, "--from", "2023-12-20", "--to", "2023-12-27")
    assert outcome.code == 5
    assert (place / "notice").read_text() == "x"


def test_status_has_the_exit_code_of_what_it_says(command: Command, place: Path) -> None:
    def ask() -> tuple[int, str]:
        outcome = command("status", place / "job.toml", "--json")
        assert outcome.document["exit"] == outcome.code
        return outcome.code, outcome.document["problem"] or ""

    code, problem = ask()
    assert code == 6 and "no recorded run" in problem
    run(command, place)
    assert ask() == (0, "")
    (place / "job.toml").write_text(JOB + '[fresh]\nmax_age = "3h"\n')
    code, problem = ask()
    assert code == 5 and "the limit is 3 h (max_age in [fresh])" in problem
    (place / "job.toml").write_text(JOB)
    readings = (place / "data.csv").read_text()
    (place / "data.csv").write_text("no,table\n")
    run(command, place)
    assert ask() == (3, "the last run failed")
    (place / "data.csv").write_text(readings)
    shutil.move(place / "model", place / "elsewhere")
    code, problem = ask()
    assert code == 6 and "no model found" in problem
    assert command("status", place / "nowhere.toml").code == 2


def test_a_partial_run_is_status_3_and_a_stale_one_5(command: Command, place: Path) -> None:
    readings = pd.read_csv(place / "data.csv")
    readings.loc[370:, "level"] = float("nan")
    readings.to_csv(place / "data.csv", index=False)
    assert run(command, place).code == 3
    assert command("status", place / "job.toml").code == 3
    (place / "job.toml").write_text(JOB + '[fresh]\nmax_age = "3h"\n')
    assert run(command, place).code == 5
    assert command("status", place / "job.toml").code == 5


def test_a_catch_up_makes_no_reading_old(command: Command, place: Path) -> None:
    """The newest reading that a job has seen stays, whatever it is asked to forecast again."""
    change(place, "out/forecast.csv", "out/{as_of}.csv")
    run(command, place)
    before = gauges(place)["newest_reading_timestamp_seconds"]
    assert run(command, place, "--as-of", "2024-01-10").code == 0
    assert gauges(place)["newest_reading_timestamp_seconds"] == before


def test_a_time_that_has_not_come_is_refused(command: Command, place: Path) -> None:
    """A forecast as of the year 2999 would be the newest one until then."""
    change(place, "out/forecast.csv", "out/{as_of}.csv")
    for more in (("--as-of", "2999-01-01"), ("--from", "2024-01-10", "--to", "2999-01-01T00:00Z")):
        outcome = run(command, place, *more)
        assert (outcome.code, outcome.error["code"]) == (2, "not-yet")
    assert not (place / "out").exists()


def test_a_forecast_before_the_training_ended_is_marked_and_not_scored(
    command: Command, place: Path
) -> None:
    change(place, "out/forecast.csv", "out/{as_of}.csv")
    stamps = stamps_of(place)
    live = run(command, place)
    assert "in-sample" not in {warning["code"] for warning in live.document["warnings"]}
    past = run(command, place, "--as-of", as_iso(stamps[372]))
    (warning,) = [w for w in past.document["warnings"] if w["code"] == "in-sample"]
    assert stamps[372] in warning["message"] and stamps[-1] in warning["message"]
    manifests = {p.name[:17]: json.loads(p.read_text()) for p in (place / "out").glob("*.run.json")}
    marks = [manifests[as_iso(stamps[n]).replace(":", "")]["in_sample"] for n in (-1, 372)]
    assert marks == [False, True]
    for part in (place / "ledger").glob("*.parquet"):
        column = pa_parquet.read_table(part)["in_sample"].to_pylist()
        assert set(column) == {as_iso(stamps[372]).replace(":", "") in part.name}

    readings = pd.read_csv(place / "data.csv")
    later = pd.date_range(stamps[-1], periods=4, freq="1h")[1:]
    more = readings[-24:-21].assign(timestamp=later.strftime("%Y-%m-%d %H:%M:%S"))
    pd.concat([readings, more]).to_csv(place / "data.csv", index=False)
    scored = command("score", "--job", place / "job.toml", "--json", "--by", "series")
    assert [score["n"] for score in scored.document["scores"]] == [3, 3]
    (warning,) = scored.document["warnings"]
    assert (warning["code"], warning["count"]) == ("in-sample", 12)
    both = command("score", "--job", place / "job.toml", "--json", "--in-sample")
    assert [score["n"] for score in both.document["scores"]] == [9, 9]
    forecast = command(
        "predict", place / "data.csv", "-m", place / "model", "--as-of", as_iso(stamps[372])
    )
    assert "in-sample" in forecast.err


def test_every_time_that_is_printed_is_taken(command: Command, place: Path) -> None:
    change(place, "out/forecast.csv", "out/{as_of}.csv")
    first = run(command, place, "--as-of", as_iso(stamps_of(place)[350])).document
    in_name = Path(first["output"]).stem
    for moment in (first["as_of"], in_name):
        again = run(command, place, "--as-of", moment)
        assert again.document["status"] == "already published"


def test_retention_takes_old_parts_of_the_ledger(command: Command, place: Path) -> None:
    change(place, "out/forecast.csv", "out/{as_of}.csv")
    (place / "job.toml").write_text((place / "job.toml").read_text() + '[keep]\nledger = "2d"\n')
    stamps = stamps_of(place)
    outcome = run(command, place, "--from", as_iso(stamps[250]), "--to", as_iso(stamps[346]))
    assert outcome.code == 0
    names = sorted(path.name for path in (place / "ledger").glob("*.parquet"))
    kept = [as_iso(stamps[n]).replace(":", "") for n in (298, 322, 346)]
    assert [name.partition("_")[0] for name in names] == kept


def test_a_log_begins_anew_and_status_still_knows(command: Command, place: Path) -> None:
    change(place, 'file = "run.log"', 'file = "run.log"\nmax_size = "1K"')
    for _ in range(8):
        run(command, place)
    sizes = {path.name: path.stat().st_size for path in place.glob("run.log*")}
    assert set(sizes) == {"run.log", "run.log.1"} and max(sizes.values()) <= 1024
    assert command("status", place / "job.toml", "--json").document["last_exit"] == 0


def copy_job(place: Path, name: str, **changes: str) -> Path:
    """Write another job beside `job.toml`, with an output and a ledger of its own."""
    text = JOB.replace("out/", f"{name}/").replace('"ledger"', f'"{name}-ledger"')
    for before, after in changes.items():
        text = text.replace(before, after)
    (place / f"{name}.toml").write_text(text)
    return place / f"{name}.toml"


def test_jobs_that_share_log_and_text_file_are_told_apart(command: Command, place: Path) -> None:
    """Neither shows the other's success, nor takes its gauges away."""
    other = copy_job(place, "other", **{"data.csv": "gone.csv"})
    assert run(command, place).code == 0
    assert command("run", other).code == 4
    status = command("status", other, "--json").document
    assert (status["last_success_age_s"], status["last_exit"], status["exit"]) == (None, 4, 3)
    own = command("status", place / "job.toml", "--json").document
    assert (own["last_exit"], own["exit"]) == (0, 0)
    text = (place / "job.prom").read_text()
    exits = dict(re.findall(r'last_exit_code\{job="(\w+)",[^}]*\} (\d)', text))
    assert exits == {"job": "0", "other": "4"}
    assert re.findall(r'last_success_timestamp_seconds\{job="(\w+)"', text) == ["job"]


def test_jobs_of_one_name_in_two_folders_are_told_apart(command: Command, place: Path) -> None:
    for folder in ("a", "b"):
        (place / folder).mkdir()
        text = JOB.replace('"model"', '"../model"').replace('"run.log"', '"../run.log"')
        source = '"../data.csv"' if folder == "a" else '"gone.csv"'
        text = text.replace('"data.csv"', source).replace('"job.prom"', '"../job.prom"')
        (place / folder / "job.toml").write_text(text)
    codes = [command("run", place / folder / "job.toml").code for folder in ("a", "b")]
    assert codes == [0, 4]
    states = [command("status", place / x / "job.toml", "--json").document for x in ("a", "b")]
    assert [state["last_exit"] for state in states] == [0, 4]
    assert states[1]["last_success_age_s"] is None
    text = (place / "job.prom").read_text()
    paths = set(re.findall(r'last_exit_code\{job="job",path="([^"]*)"', text))
    assert paths == {str(place / x / "job.toml") for x in ("a", "b")}


def test_two_jobs_with_one_ledger_are_refused_and_scores_not_mixed(
    command: Command, place: Path
) -> None:
    other = copy_job(place, "other", **{"other-ledger": "ledger"})
    assert run(command, place).code == 0
    before = files(place)
    for words in (("run", other, "--json"), ("score", "--job", other, "--json")):
        outcome = command(*words)
        assert (outcome.code, outcome.error["code"]) == (2, "shared-ledger")
    assert files(place) == before


def test_a_job_that_was_moved_runs_on_and_knows_its_past(command: Command, place: Path) -> None:
    assert run(command, place).code == 0
    moved = place.parent / "moved"
    shutil.move(place, moved)
    status = command("status", moved / "job.toml", "--json").document
    assert (status["exit"], status["last_exit"]) == (0, 0)
    (moved / "model").rename(moved / "gone")
    assert run(command, moved).code == 6
    assert gauges(moved)["last_success_timestamp_seconds"] > 0, "the gauge of before has moved, too"
    assert (moved / "job.prom").read_text().count("last_exit_code{") == 1
    (moved / "gone").rename(moved / "model")
    assert run(command, moved).code == 0
    assert [entry["exit"] for entry in log(moved) if entry["event"] == "finished"] == [0, 6, 0]


def test_another_job_that_writes_the_text_file_just_now_is_waited_for(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_TEXTFILE_WAIT_S", 0.1)
    with acquire(place / ".job.prom.lock"):
        outcome = run(command, place)
    assert outcome.code == 0 and "is being written to" in outcome.err
    assert not (place / "job.prom").exists()
