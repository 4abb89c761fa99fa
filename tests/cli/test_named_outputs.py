"""Every option that names an output: links are followed, pipes written to, sockets refused."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from rnnforecast.storage import durable
from tests.conftest import Command

JOB = """
[data]
source = "data.csv"
on_bad_rows = "skip"
rejects = "rejected.txt"
[model]
path = "model"
[forecast]
output = "forecast.csv"
[metrics]
textfile = "job.prom"
[log]
file = "job.log"
"""
OUTPUTS = {
    "predict data.csv -o {}": "f.csv",
    "predict data.csv -o {} -q": "f.parquet",
    "backtest data.csv -m model --validation-end 400 -o {}": "b.jsonl",
    "backtest data.csv -m model --validation-end 400 --report {}": "b.html",
    "anomalies data.csv -o {}": "a.csv",
    "plot --forecast first.csv -o {}": "p.svg",
    "check data.csv --on-bad-rows skip --rejects {}": "r.txt",
}


@pytest.fixture
def place(workplace: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Path:
    """A folder with readings that go on after the training, a model, a forecast and a job."""
    monkeypatch.chdir(workplace)
    stamps = (f"2024-01-{17 + (16 + h) // 24} {(16 + h) % 24:02}:00:00" for h in range(60))
    with Path("data.csv").open("a") as file:
        file.writelines(f"{stamp},20,50\n" for stamp in stamps)
    Path("job.toml").write_text(JOB)
    assert command("predict", "data.csv", "-q", "-o", "first.csv").code == 0
    (workplace / "there").mkdir()
    return workplace


@pytest.mark.parametrize("line", OUTPUTS)
def test_a_link_is_followed_by_every_output(command: Command, place: Path, line: str) -> None:
    name = OUTPUTS[line]
    (place / "there" / name).write_text("old\n")
    (place / name).symlink_to(f"there/{name}")

    outcome = command(*line.format(name).split())

    assert outcome.code in (0, 3), outcome.err
    assert (place / name).is_symlink()
    assert (place / "there" / name).read_bytes() != b"old\n"
    assert not list(place.rglob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.parametrize("line", OUTPUTS)
def test_a_pipe_gets_what_a_file_would_hold(command: Command, place: Path, line: str) -> None:
    name = OUTPUTS[line]
    assert command(*line.format(f"file-{name}").split()).code in (0, 3)
    os.mkfifo(place / name)
    parts: list[bytes] = []
    reader = threading.Thread(target=lambda: parts.append((place / name).read_bytes()))
    reader.start()

    outcome = command(*line.format(name).split())
    reader.join()

    assert outcome.code in (0, 3), outcome.err
    assert (place / name).is_fifo()
    if not name.endswith((".html", ".svg")):  # which hold names of their own
        assert parts[0] == (place / f"file-{name}").read_bytes()


def test_a_socket_is_refused_before_the_work(command: Command, place: Path) -> None:
    for line, name in OUTPUTS.items():
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(name)
            outcome = command(*line.format(name).split(), "--json")
        assert outcome.code == 7, (line, outcome.err)
        assert "is a socket" in outcome.error["message"]
        assert (place / name).is_socket()


def test_outputs_of_a_job_may_be_links(command: Command, place: Path) -> None:
    for name in ("forecast.csv", "rejected.txt", "job.prom", "job.log"):
        (place / "there" / name).write_text("")
        (place / name).symlink_to(f"there/{name}")

    first, again = command("run", "job.toml", "--json"), command("run", "job.toml", "--json")

    assert first.document["status"] == "published"
    assert again.document["status"] == "already published"
    assert "flow" in (place / "there" / "forecast.csv").read_text()
    assert "rnnforecast_last_exit_code" in (place / "there" / "job.prom").read_text()
    assert "finished" in (place / "there" / "job.log").read_text()
    assert all((place / name).is_symlink() for name in ("forecast.csv", "job.prom"))


def test_a_job_whose_pipes_nobody_reads_ends_and_says_so(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_IDLE_S", 0.01)
    for name in ("job.prom", "job.log"):
        os.mkfifo(place / name)

    outcome = command("run", "job.toml", "--json")

    assert outcome.document["status"] == "published"
    assert {"log", "textfile"} <= {warning["code"] for warning in outcome.document["warnings"]} or (
        "cannot write the log job.log" in outcome.err and "nothing has read" in outcome.err
    )
    assert command("status", "job.toml", "--json").code in (0, 3)
    (place / "forecast.csv").unlink()
    os.mkfifo(place / "forecast.csv")
    assert command("run", "job.toml", "--json").code == 7
