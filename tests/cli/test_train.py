import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.builders import random_walk, wave, write_wide
from tests.conftest import SMALL, Command

CONTRACT_FIELDS = {
    "model",
    "version",
    "horizon",
    "lookback",
    "season",
    "epochs",
    "parameters",
    "seconds",
    "split",
    "metrics",
    "skill",
    "warnings",
}
METRICS = {"mae", "rmse", "smape", "mase", "wql", "coverage_80", "n"}


def test_json_is_one_document_with_the_contracts_fields(command: Command, tmp_path: Path) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(300))
    outcome = command("train", "data.csv", "--json", *SMALL)
    assert outcome.code == 0
    document = outcome.document
    assert document.keys() >= CONTRACT_FIELDS
    assert set(document["metrics"]) == {"network", "naive", "seasonal_naive", "expert", "builtin"}
    assert set(document["metrics"]["network"]) >= METRICS
    assert document["skill_over"] in ("naive", "seasonal_naive")
    assert (tmp_path / "model" / "CURRENT").read_text() == document["version"] + "\n"


def test_readings_that_equal_a_quantile_lie_within_the_band(command: Command) -> None:
    write_wide(Path("data.csv"), flow=wave(300), lat=[48.2082] * 300, lon=[16.3738] * 300)

    outcome = command("train", "data.csv", *SMALL)

    coverage = json.loads(command("show", "--json").out)["metrics"]["network"]["coverage_80"]
    assert coverage >= 2 / 3
    assert f"the 80 % band contained {100 * coverage:.0f} % of the readings" in outcome.out


def test_the_model_directory_is_the_contracts(trained: Path) -> None:
    version = (trained / "model" / "CURRENT").read_text().strip()
    files = {path.name for path in (trained / "model" / "versions" / version).iterdir()}
    assert files == {
        "manifest.json",
        "weights.safetensors",
        "series.parquet",
        "metrics.json",
        "history.csv",
        "report.html",
    }
    manifest = json.loads((trained / "model" / "versions" / version / "manifest.json").read_text())
    assert manifest.keys() >= {
        "format",
        "format_version",
        "kind",
        "parent",
        "config",
        "schema",
        "season",
        "trained_until",
        "training_range",
        "calibration",
        "self_test",
        "provenance",
        "files",
    }
    assert manifest["trained_until"] == "2024-01-17 15:00:00"
    assert not list((trained / "model").rglob(".tmp-*"))


def test_what_was_inferred_is_said_in_a_line_each(command: Command, tmp_path: Path) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(400))
    outcome = command("train", "data.csv", "--hidden", "8", "--steps", "2")
    lines = outcome.err.splitlines()
    assert "data.csv: time 'timestamp', targets flow" in lines
    assert "step 1 h" in lines
    assert "season 24 steps (1 d)" in lines
    assert "horizon 24 steps (1 d)" in lines
    assert any(line.startswith("look-back ") for line in lines)
    assert "verdict: " in outcome.out and "seasonal naive" in outcome.out


def test_quiet_says_nothing_on_standard_error(command: Command, tmp_path: Path) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(300, noise=2))
    assert command("train", "data.csv", "-q", *SMALL).err == ""


def test_a_network_that_is_worse_is_called_worse(command: Command, tmp_path: Path) -> None:
    exact = np.tile(np.arange(24.0), 20)
    noisy = exact + 0.01 * np.random.default_rng(0).standard_normal(480)
    noisy[:300] += 20 * np.random.default_rng(0).standard_normal(300)
    write_wide(tmp_path / "data.csv", flow=noisy)
    outcome = command("train", "data.csv", "--season", "24", *SMALL)
    assert " worse than repeating yesterday (seasonal naive)" in outcome.out


def test_measured_readings_are_not_learnt_before_they_are_measured(
    command: Command, tmp_path: Path
) -> None:
    readings = wave(400)
    write_wide(tmp_path / "a.csv", flow=readings)
    readings[-30:] += 1000.0  # inside the held-out part
    write_wide(tmp_path / "b.csv", flow=readings)
    first = command("train", "a.csv", "-m", "a", "--json", *SMALL).document
    second = command("train", "b.csv", "-m", "b", "--json", *SMALL).document
    assert first["season"] == second["season"]
    assert first["split"]["train_until"] == second["split"]["train_until"]
    a, b = (pd.read_csv(next((tmp_path / x / "versions").iterdir()) / "history.csv") for x in "ab")
    assert a.equals(b)
    assert second["metrics"]["network"]["mae"] > 10 * first["metrics"]["network"]["mae"]


def test_exactly_lookback_plus_horizon_readings_can_be_learnt_from(
    command: Command, tmp_path: Path
) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(30))
    outcome = command("train", "data.csv", "--json", *SMALL)
    assert outcome.code == 0
    assert outcome.document["skill"] is None
    assert "nothing-held-out" in {w["code"] for w in outcome.document["warnings"]}


def test_one_reading_less_is_too_short_and_says_the_numbers(
    command: Command, tmp_path: Path
) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(29))
    outcome = command("train", "data.csv", *SMALL)
    assert outcome.code == 5
    assert "29 rows" in outcome.err and "24 + 6 = 30" in outcome.err
    assert not (tmp_path / "model").exists()


def test_a_gate_keeps_the_candidate_but_does_not_put_it_active(
    command: Command, workplace: Path
) -> None:
    model = workplace / "model"
    before = (model / "CURRENT").read_bytes()
    outcome = command(
        "train", workplace / "data.csv", "-m", model, "--require-skill", "99.9", "--json", *SMALL
    )
    assert outcome.code == 8
    assert outcome.error["code"] == "require-skill"
    assert (model / "CURRENT").read_bytes() == before
    assert len(list((model / "versions").iterdir())) == 2


def test_a_first_candidate_behind_a_gate_is_listed_but_not_active(
    command: Command, trained: Path
) -> None:
    assert command("train", trained / "data.csv", "--require-skill", "99.9", *SMALL).code == 8
    listed = command("show", "--versions", "--json").document["versions"]
    assert [item["active"] for item in listed] == [False]
    assert listed[0]["created"][:4].isdigit() and listed[0]["reason"] is None
    assert command("predict", trained / "data.csv").code == 6


def test_a_place_where_no_model_can_be_is_refused_before_the_work(
    command: Command, tmp_path: Path
) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(200))
    for place in ("data.csv", "data.csv/below"):
        outcome = command("train", "data.csv", "-m", place, *SMALL)
        assert outcome.code == 7
        assert "epoch" not in outcome.err and "is not a directory" in outcome.err


def test_the_next_command_can_be_pasted(command: Command, tmp_path: Path) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(200))
    err = command("train", "data.csv", "-m", "plant 7's", *SMALL).err
    line = next(line for line in err.splitlines() if line.startswith("next: "))
    assert command(*shlex.split(line.removeprefix("next: rnnforecast"))).code == 0


def test_a_damaged_version_active_is_listed_as_both(command: Command, workplace: Path) -> None:
    weights = next((workplace / "model" / "versions").iterdir()) / "weights.safetensors"
    weights.write_bytes(b"")
    out = command("show", "-m", workplace / "model", "--versions").out
    assert "active, damaged" in out and "made" in out


def test_a_damaged_version_does_not_hide_the_others(command: Command, workplace: Path) -> None:
    model = workplace / "model"
    command("train", workplace / "data.csv", "-m", model, "-q", *SMALL)
    first, second = sorted((model / "versions").iterdir())
    (first / "weights.safetensors").write_bytes(b"")
    listed = command("show", "-m", model, "--versions", "--json").document["versions"]
    assert ["damage" in item for item in listed] == [True, False]
    assert listed[1]["active"]
    assert listed[1]["version"] == second.name


def test_a_sensor_without_readings_in_the_test_part_does_not_spoil_the_metrics(
    command: Command, tmp_path: Path
) -> None:
    dead = wave(400, seed=1)
    dead[200:] = np.nan
    write_wide(tmp_path / "data.csv", flow=wave(400), dead=dead)
    metrics = command("train", "data.csv", "--json", *SMALL).document["metrics"]
    assert len({m["n"] for m in metrics.values()}) == 1
    assert all(m["mae"] < 10 for m in metrics.values())


def test_a_failed_run_leaves_the_model_as_it_was(command: Command, workplace: Path) -> None:
    model = workplace / "model"
    before = {p: p.read_bytes() for p in model.rglob("*") if p.is_file()}
    (workplace / "bad.csv").write_text("timestamp,flow\n2024-01-01,1\nyesterday,2\n2024-01-03,3\n")
    assert command("train", workplace / "bad.csv", "-m", model, *SMALL).code == 4
    assert {p: p.read_bytes() for p in model.rglob("*") if p.is_file()} == before


def test_a_second_training_adds_a_version_and_keeps_the_first(
    command: Command, workplace: Path
) -> None:
    model = workplace / "model"
    first = (model / "CURRENT").read_text().strip()
    command("train", workplace / "data.csv", "-m", model, "-q", "--seed", "7", *SMALL)
    assert (model / "CURRENT").read_text().strip() != first
    listed = command("show", "-m", model, "--versions", "--json").document["versions"]
    assert [item["active"] for item in listed].count(True) == 1
    assert first in {item["version"] for item in listed}


@pytest.mark.parametrize("cell", ["gru", "lstm", "mingru", "rnn"])
@pytest.mark.parametrize("segment", ["1", "8"])
def test_every_cell_trains_and_predicts_with_and_without_segments(
    command: Command, tmp_path: Path, cell: str, segment: str
) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(200))
    options = ["--cell", cell, "--segment", segment, "--layers", "2", "-L", "16", "--steps", "2"]
    assert command("train", "data.csv", "-q", *SMALL, *options).code == 0
    assert command("predict", "-q").code == 0
    assert pd.read_csv("forecast.csv").notna().all().all()


def test_durations_mean_steps(command: Command, tmp_path: Path) -> None:
    write_wide(tmp_path / "data.csv", freq="10min", flow=random_walk(400))
    options = [
        "--threads",
        "1",
        "--hidden",
        "8",
        "--steps",
        "2",
        "--horizon",
        "1h",
        "--lookback",
        "4h",
    ]
    document = command("train", "data.csv", "--json", "--season", "1d", *options).document
    assert (document["horizon"], document["lookback"], document["season"]) == (6, 24, 144)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--cell", "transformer"], "gru, lstm, mingru, rnn"),
        (["--horizon", "0"], "horizon"),
        (["--horizon", "25min"], "whole number of steps"),
        (["--dropout", "2"], "dropout"),
        (["--hidden", "many"], "hidden"),
        (["--colour"], "--colour"),
        (["--season", "soon"], "duration"),
        (["--device", "abacus"], "auto, cpu, cuda"),
    ],
)
def test_options_that_cannot_be_meant_are_usage_errors(
    command: Command, trained: Path, options: list[str], word: str
) -> None:
    outcome = command("train", trained / "data.csv", *options)
    assert outcome.code == 2
    assert word in outcome.err
    assert "Traceback" not in outcome.err


def test_steps_bound_the_training(command: Command, tmp_path: Path) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(300))
    outcome = command("train", "data.csv", "--json", *SMALL, "--steps", "7")
    assert outcome.document["steps"] == 7


def test_a_long_table_trains_with_series_of_different_lengths(
    command: Command, tmp_path: Path
) -> None:
    parts = [
        pd.DataFrame(
            {
                "time": pd.date_range("2024-01-01", periods=n, freq="1h"),
                "machine": name,
                "temp": wave(n, seed=n),
            }
        )
        for name, n in (("A", 200), ("B", 120), ("C", 10))
    ]
    pd.concat(parts).to_parquet(tmp_path / "data.parquet")
    outcome = command("train", "data.parquet", "--json", *SMALL)
    assert outcome.code == 0
    assert "short-series" in {w["code"] for w in outcome.document["warnings"]}
    assert command("predict", "-q").code == 3, "C has fewer than half of its look-back"
    forecast = pd.read_csv("forecast.csv")
    assert list(forecast["series"].unique()) == ["A", "B", "C"]


def test_a_sensor_that_came_late_is_learnt_in_its_own_units(
    command: Command, tmp_path: Path
) -> None:
    late = 1e-4 * wave(600, seed=3)
    late[:440] = np.nan  # it begins after the train part
    write_wide(tmp_path / "data.csv", flow=wave(600), late=late)
    assert command("train", "data.csv", "-q", *SMALL).code == 0
    assert command("predict", "-q").code == 0
    forecast = pd.read_csv("forecast.csv").set_index("series").loc["late", "forecast"]
    assert np.abs(forecast - 20e-4).max() < 10e-4


@pytest.mark.slow
def test_the_season_is_not_looked_for_in_the_held_out_part(
    command: Command, tmp_path: Path
) -> None:
    quiet = random_walk(600)
    loud = quiet.copy()
    loud[360:] = 50 * np.sin(2 * np.pi * np.arange(240) / 24)
    seasons = []
    for name, readings in (("quiet", quiet), ("loud", loud)):
        write_wide(tmp_path / f"{name}.csv", flow=readings)
        options = ["--threads", "1", "--hidden", "8", "--epochs", "1", "-L", "24", "-H", "240"]
        seasons.append(command("train", f"{name}.csv", "--json", *options).document["season"])
    assert seasons[0] == seasons[1]


def test_what_is_measured_has_learnt_nothing_from_the_test_part(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnnforecast.workflow import steps

    measured = []
    evaluate = steps.evaluate

    def spy(rounds, *arguments, **options):
        network = rounds[0].forecasters["network"].forecaster  # which it scales the bands of
        tensors = {**network.forecaster.tensors(), "moves": network.calibration.by_lead}
        measured.append({k: v.tobytes() for k, v in tensors.items()})
        return evaluate(rounds, *arguments, **options)

    monkeypatch.setattr(steps, "evaluate", spy)
    readings = wave(400)
    for name in ("a", "b"):
        write_wide(tmp_path / f"{name}.csv", flow=readings)
        assert command("train", f"{name}.csv", "-m", name, "-q", *SMALL).code == 0
        readings[-60:] *= -3
    assert measured[0] == measured[1]


def test_a_season_longer_than_the_readings_is_refused(command: Command, tmp_path: Path) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(400))
    outcome = command("train", "data.csv", "--season", "1000", *SMALL)
    assert outcome.code == 5
    assert "a season of 1000 steps" in outcome.err


def test_readings_too_sparse_to_learn_from_are_refused(command: Command, tmp_path: Path) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(400))
    outcome = command("train", "data.csv", "--freq", "7min", "--agg", "sum", *SMALL)
    assert outcome.code == 5
    assert "every window of 24 steps has too few readings" in outcome.err


def test_a_gate_that_is_no_number_is_a_usage_error(command: Command, trained: Path) -> None:
    assert command("train", trained / "data.csv", "--require-skill", "nan", *SMALL).code == 2


def test_constant_readings_are_called_what_they_are(command: Command, tmp_path: Path) -> None:
    write_wide(tmp_path / "data.csv", flow=np.full(400, 7.0))
    document = command("train", "data.csv", "--json", *SMALL).document
    assert document["metrics"]["naive"]["mase"] is None
    assert "repeats exactly" in document["verdict"]
    command("predict", "-q")
    assert np.allclose(pd.read_csv("forecast.csv")["forecast"], 7.0, atol=0.1)
