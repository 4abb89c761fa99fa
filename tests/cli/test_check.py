"""`check`: what is in a table, what is strange, whether a model fits, and the line to paste."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.builders import wave, write_wide
from tests.conftest import SMALL, Command


def odd_readings() -> np.ndarray:
    readings = wave(400, seed=1)
    readings[[5, 40, 41, 300]] = -200
    readings[100:160] = readings[100]
    return readings


def test_a_table_without_findings_is_clean(command: Command) -> None:
    write_wide(Path("data.csv"), flow=wave(400), level=wave(400, seed=1))
    outcome = command("check", "data.csv")
    assert (outcome.code, outcome.err) == (0, "")
    for word in ("flow", "level", "1 h", "1 d", "400", "next: rnnforecast train data.csv"):
        assert word in outcome.out


def test_what_is_strange_is_said_with_its_times(command: Command) -> None:
    write_wide(Path("data.csv"), flow=wave(400), level=odd_readings())

    outcome = command("check", "data.csv", "--json")

    assert outcome.code == 3
    document = outcome.document
    assert [c["role"] for c in document["columns"]] == ["time", "target", "target"]
    flow, level = document["series"]
    assert (flow["length"], flow["missing"], flow["longest_gap"], flow["season"]) == (400, 0, 0, 24)
    assert flow["findings"] == []
    stuck, sentinel = level["findings"]
    assert (stuck["code"], stuck["count"]) == ("stuck-sensor", 60)
    assert (stuck["start"], stuck["end"]) == ("2024-01-05 04:00:00", "2024-01-07 15:00:00")
    assert (sentinel["code"], sentinel["count"]) == ("sentinel", 4)
    assert {finding["code"] for finding in document["findings"]} == {"stuck-sensor", "sentinel"}
    assert document["step"] == "1 h"
    assert "--na-values -200" in document["train"]


def test_the_line_that_is_proposed_trains(command: Command) -> None:
    Path("my data").mkdir()
    write_wide(Path("my data/x.csv"), flow=wave(400), level=odd_readings())
    line = shlex.split(command("check", "my data/x.csv", "--json").document["train"])

    trained = command(*line[1:], *SMALL, "-q")

    assert trained.code == 0
    assert "-200" not in trained.err
    assert command("predict", "-q").code == 0


def test_options_that_were_passed_are_in_the_line(command: Command) -> None:
    lines = [f"{i // 24 + 1:02d}/01/2024 {i % 24:02d}:00;{i % 24},5" for i in range(200)]
    Path("x.csv").write_text("\n".join(["t;v", *lines]) + "\n")
    options = ["--time", "t", "--time-format", "%d/%m/%Y %H:%M", "--inf-as-na"]
    options += ["--valid-range", "v=0:30"]
    line = shlex.split(command("check", "x.csv", *options, "--json").document["train"])
    assert set(line[3:]) == set(options)
    assert command(*line[1:], *SMALL, "-q").code == 0


def test_a_table_that_cannot_be_used_is_an_error(command: Command) -> None:
    Path("x.csv").write_text("t,v\n2024-01-01,1\n2024-01-02,x\n2024-01-03,2\n")
    assert command("check", "x.csv").code == 4
    assert command("check", "gone.csv").code == 4


def test_a_model_that_fits_says_nothing(command: Command, trained: Path) -> None:
    outcome = command("check", trained / "data.csv", "-m", trained / "model")
    assert outcome.code == 0
    assert "next: rnnforecast predict" in outcome.out
    line = command("check", trained / "data.csv", "-m", trained / "model", "--json").document
    assert command(*shlex.split(line["predict"])[1:], "-q").code == 0


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (lambda f: f.rename(columns={"flow": "inflow"}), 4, "--map inflow=flow"),
        (lambda f: f.iloc[::2], 4, "every 1 h"),
        (lambda f: f.assign(flow=1.8 * f.flow + 132), 3, "flow"),
        (lambda f: f.assign(level=f.level.where(f.index < 300)), 3, "level"),
        (lambda f: f.iloc[-5:], 3, "fewer than half of"),
    ],
    ids=["renamed", "other step", "other unit", "silent", "short"],
)
def test_a_model_that_does_not_fit_says_what(
    command: Command, trained: Path, change, code: int, word: str
) -> None:
    change(pd.read_csv(trained / "data.csv")).to_csv("newer.csv", index=False)
    outcome = command("check", "newer.csv", "-m", trained / "model")
    assert outcome.code == code
    assert word in outcome.out + outcome.err


def test_many_series_are_counted(command: Command) -> None:
    write_wide(Path("data.csv"), **{f"s{i}": wave(100, seed=i) for i in range(30)})
    outcome = command("check", "data.csv")
    assert "and 10 more series" in outcome.out
    assert len(command("check", "data.csv", "--json").document["series"]) == 30


def test_a_column_that_numbers_the_rows_is_no_target(command: Command) -> None:
    frame = pd.DataFrame({"No": range(1, 401), "flow": wave(400), "row": wave(400, seed=1)})
    frame.insert(0, "time", pd.date_range("2024-01-01", periods=400, freq="1h"))
    frame.to_csv("x.csv", index=False)
    roles = {c["name"]: c["role"] for c in command("check", "x.csv", "--json").document["columns"]}
    assert roles == {"time": "time", "No": "not used", "flow": "target", "row": "target"}


def test_the_hour_that_clocks_skip_in_spring_is_not_missing(command: Command) -> None:
    times = pd.date_range("2024-03-20", periods=500, freq="15min", tz="Europe/Vienna")
    times = pd.date_range(times[0], periods=2000, freq="15min")
    frame = pd.DataFrame({"time": times.tz_localize(None), "flow": wave(2000, season=96)})
    frame.to_csv("x.csv", index=False)
    (series,) = command("check", "x.csv", "--json").document["series"]
    assert (series["length"], series["missing"], series["longest_gap"]) == (2004, 0, 0)

    frame.drop(range(300, 304)).to_csv("x.csv", index=False)
    (series,) = command("check", "x.csv", "--json").document["series"]
    assert (series["missing"], series["longest_gap"]) == (4, 4)


def test_a_spike_and_a_level_that_jumps_are_said_with_their_times(command: Command) -> None:
    celsius, flow = wave(480), wave(480, seed=1)
    flow[77] = 5000
    unit = np.where(np.arange(480) < 300, celsius, 1.8 * celsius + 32)
    write_wide(Path("data.csv"), temp=unit, flow=flow)

    outcome = command("check", "data.csv", "--json")

    findings = {f["code"]: f for s in outcome.document["series"] for f in s["findings"]}
    assert set(findings) == {"spike", "level-jump"}
    assert (findings["spike"]["series"], findings["spike"]["start"]) == (
        "flow",
        "2024-01-04 05:00:00",
    )
    jump = findings["level-jump"]
    assert jump["series"] == "temp"
    assert abs(pd.Timestamp(jump["start"]) - pd.Timestamp("2024-01-13 12:00")) <= pd.Timedelta("6h")
    said = next(f["hint"] for f in outcome.document["findings"] if f["code"] == "spike")
    fix = shlex.split(said[said.index("--") : said.index("  (")])
    again = command("check", "data.csv", *fix, "--json").document
    assert [f["code"] for f in again["findings"]] == ["level-jump"]


def test_an_index_without_a_name_is_called_so(command: Command) -> None:
    frame = pd.DataFrame(
        {"time": pd.date_range("2024-01-01", periods=200, freq="h"), "v": wave(200)}
    )
    frame.to_csv("indexed.csv")

    outcome = command("check", "indexed.csv")

    assert outcome.out.splitlines()[0].endswith("not used '' (an index without a name)")
