"""`memory` on a small model, and the trace of a training."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from benchmarks.delayed import delayed
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import Batch
from rnnforecast.model import memory
from rnnforecast.model.loss import history_of
from rnnforecast.model.memory import MemoryCurve, measure_memory
from rnnforecast.model.network import Network
from tests.builders import random_walk, wave, write_wide
from tests.conftest import Command

VERDICTS = {"OK", "VANISHING", "EXPLODING", "WASTED WINDOW"}


def test_the_document_has_what_the_contract_names(command: Command, trained: Path) -> None:
    outcome = command("memory", "-m", trained / "model", "--json")

    assert outcome.code == 0
    found = outcome.document
    assert found["lookback"] == 24
    assert 0 <= found["effective_memory"] <= 24
    assert found["verdict"] in VERDICTS
    assert (found["advice"] is None) == (found["verdict"] == "OK")
    assert set(found["half_life"]) == set(found["gradient_by_lag"]) == {"early", "middle", "late"}
    assert found["leads"] == {"early": 1, "middle": 3, "late": 6}
    assert all(len(curve) == 24 for curve in found["gradient_by_lag"].values())
    assert found["loss_by_kept"][-1]["kept"] == 24
    assert {peak["lag"] for peak in found["autocorrelation_peaks"]} == {24}
    assert "units" not in found
    assert "training data" in outcome.err


def test_units_are_those_of_every_layer_of_every_member(command: Command, trained: Path) -> None:
    document = command("memory", "-m", trained / "model", "--json", "--units").document

    assert len(document["units"]) == len(document["members"])
    for layers in document["units"]:
        assert [len(layer) for layer in layers] == [8, 8]
        assert min(map(min, layers)) > 0


def test_a_person_reads_a_curve_tables_and_a_verdict(command: Command, trained: Path) -> None:
    outcome = command("memory", "-m", trained / "model", "--units")

    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].startswith("loss with only the last k readings")
    assert any(line.startswith("effective memory: ") for line in lines)
    assert any(line.startswith("verdict: ") for line in lines)
    assert any("24 steps (1 d)" in line for line in lines)


def test_quiet_leaves_the_verdict(command: Command, trained: Path) -> None:
    outcome = command("memory", "-m", trained / "model", "-q")

    assert [line.split(":")[0] for line in outcome.out.splitlines()][:2] == [
        "effective memory",
        "verdict",
    ]


def test_newer_readings_are_measured_on_what_the_model_has_not_learnt(
    command: Command, trained: Path, tmp_path: Path
) -> None:
    write_wide(tmp_path / "newer.csv", flow=wave(500), level=wave(500, seed=1))

    outcome = command("memory", tmp_path / "newer.csv", "-m", trained / "model", "--json")

    assert outcome.code == 0, outcome.err
    assert not outcome.document["warnings"]
    assert outcome.document["windows"] == 128


def test_series_that_the_model_does_not_know_are_measured_with_their_own_seasons(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def measure(network: Network, batch: Batch) -> MemoryCurve:
        measured.append(history_of(network, batch).seasons)
        return measure_memory(network, batch)

    monkeypatch.setattr(memory, "measure_memory", measure)
    write_wide(tmp_path / "other.csv", level=wave(500), daily=wave(500), walk=random_walk(500))
    targets = [word for name in ("level", "daily", "walk") for word in ("--target", name)]

    outcome = command("memory", "other.csv", "-m", trained / "model", "--json", *targets)

    assert outcome.code == 0, outcome.err
    assert set(measured[0]) == {Seasons(24), Seasons()}


def test_readings_that_are_too_few_are_said_to_be(
    command: Command, trained: Path, tmp_path: Path
) -> None:
    write_wide(tmp_path / "few.csv", flow=wave(20), level=wave(20))

    outcome = command("memory", tmp_path / "few.csv", "-m", trained / "model", "--json")

    assert outcome.code == 5
    assert outcome.error["code"] == "too-short"


def test_what_was_found_at_training_stands_in_the_card_and_the_report(
    command: Command, workplace: Path
) -> None:
    document = command("show", "-m", workplace / "model", "--json").document
    card = command("show", "-m", workplace / "model").out
    (report,) = (workplace / "model").glob("versions/*/report.html")

    memory = document["memory"]
    assert memory["verdict"] in VERDICTS
    assert f"{memory['effective_memory']} of 24 steps" in card
    page = report.read_text()
    assert "How much history the network uses" in page
    assert "Gradient by lag" in page


def test_the_trace_tells_every_epoch_and_the_history_keeps_it(
    command: Command, tmp_path: Path
) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(300))
    line = ["--hidden", "8", "--epochs", "3", "-L", "24", "-H", "6", "--threads", "1"]

    outcome = command("train", "data.csv", *line, "--trace", "--json")

    (history,) = Path("model").glob("versions/*/history.csv")
    rows = list(csv.DictReader(io.StringIO(history.read_text())))
    told = [line.split() for line in outcome.err.splitlines()]
    header = next(i for i, words in enumerate(told) if words[:3] == ["member", "epoch", "steps"])
    traced = {tuple(words[:3]): words for words in told[header + 1 :] if words[0].isdigit()}
    assert len(traced) == len(rows) == 3
    for row in rows:
        words = traced[row["member"], row["epoch"], row["steps"]]
        assert float(words[3]) == pytest.approx(float(row["learning_rate"]), rel=0.05)
        assert float(row["gradient_norm"]) <= float(row["gradient_norm_99"])
        assert words[-2:] == [f"{100 * float(row['clipped']):.0f}", "%"]
    assert json.loads(outcome.out)["memory"]["lookback"] == 24


@pytest.mark.slow
def test_a_rate_that_is_far_too_high_is_called_exploding_and_what_is_advised_trains(
    command: Command, tmp_path: Path
) -> None:
    write_wide(tmp_path / "data.csv", x=delayed(1500, 5))
    line = [
        "train",
        "data.csv",
        "--json",
        "--report",
        "--epochs",
        "4",
        "--threads",
        "1",
        "--clip",
        "0",
    ]
    line += ["-H", "1", "-L", "20", "--season", "none", "--cell", "rnn", "--segment", "1"]
    line += ["--hidden", "16", "--layers", "1", "--seed", "0"]

    bad = command(*line, "-m", "bad", "--learning-rate", "10", "--trace")
    good = command(*line, "-m", "good", *bad.document["memory"]["advice"].split())

    assert bad.document["memory"]["verdict"] == "EXPLODING"
    assert "warning: EXPLODING: network " in bad.err
    (report,) = Path("bad").glob("versions/*/report.html")
    assert "EXPLODING: in training" in report.read_text()
    assert command("memory", "-m", "bad", "--json").document["verdict"] == "EXPLODING"
    assert good.document["memory"]["verdict"] != "EXPLODING"
    errors = [one.document["metrics"]["network"]["mae"] for one in (good, bad)]
    assert errors[0] < 0.7 * errors[1]
