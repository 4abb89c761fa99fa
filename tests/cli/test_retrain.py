"""Retraining: a challenger is due when it is asked for, and wins only where it is better."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rnnforecast
from rnnforecast.storage.lock import acquire
from tests.builders import JOB, wave, write_wide
from tests.conftest import SMALL, Command

EVERY = '[retrain]\nevery = "2d"\n'
N_OLD, N_NEW = 400, 300


@pytest.fixture
def place(workplace: Path) -> Path:
    """A model that has learnt from 400 hours, and 300 more, in which a wave of 5 hours came up."""
    flow, level = wave(N_OLD + N_NEW), 3 * wave(N_OLD + N_NEW, seed=1) - 10
    ripple = 4 * np.sin(2 * np.pi * np.arange(N_NEW) / 5)
    for values in (flow, level):
        values[N_OLD:] += ripple
    write_wide(workplace / "data.csv", flow=flow, level=level)
    return workplace


def run(command: Command, place: Path, retrain: str, *more: object) -> dict:
    (place / "job.toml").write_text(JOB + retrain)
    outcome = command("run", place / "job.toml", "--json", *more)
    assert outcome.code == 0, outcome.err
    return outcome.document


def active(place: Path) -> str:
    return (place / "model/CURRENT").read_text().strip()


def versions(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "model/versions").iterdir())


@pytest.mark.slow
def test_a_challenger_that_is_better_is_activated_and_says_why(
    command: Command, place: Path
) -> None:
    data = pd.read_csv(place / "data.csv")
    data[:N_OLD].to_csv(place / "old.csv", index=False)
    shutil.rmtree(place / "model")
    longer = ["--hidden", "16", "--epochs", "5", "-L", "24", "-H", "6", "--threads", "1"]
    command("train", place / "old.csv", "-m", place / "model", "-q", *longer)
    (first,) = versions(place)

    decision = run(command, place, EVERY + 'promote_if = "1%"\n')["retrain"]

    assert decision["promoted"] is True, decision["reason"]
    assert decision["mase"] <= 0.99 * decision["active_mase"]
    assert "activated" in decision["reason"] and "new data" in decision["reason"]
    assert active(place) == decision["challenger"] != first
    manifest = json.loads((place / "out/run.json").read_text())
    assert manifest["retrain"] == decision
    assert manifest["model"]["version"] == first, "this forecast was made before"
    challenger = rnnforecast.load(place / "model").artifact
    assert challenger.parent == decision["active"] == first
    assert challenger.trained_until == pd.read_csv(place / "data.csv")["timestamp"].iloc[-1]
    assert challenger.provenance["challenge"]["reason"] == decision["reason"]
    assert rnnforecast.versions(place / "model")[-1]["reason"] == decision["reason"]
    methods = {"network", "naive", "seasonal_naive", "expert", "builtin", "active"}
    assert set(challenger.metrics["metrics"]) == methods
    assert (place / "model/versions" / decision["challenger"] / "report.html").is_file()
    assert run(command, place, EVERY)["version"] == decision["challenger"]


def test_both_are_measured_where_neither_has_learnt(command: Command, place: Path) -> None:
    decision = run(command, place, EVERY)["retrain"]
    assert decision["held_out_steps"] == min(N_NEW // 2, 28 * 6)
    challenger = rnnforecast.load(place / "model", version=decision["challenger"]).artifact
    stamps = pd.read_csv(place / "data.csv")["timestamp"]
    assert challenger.training_range["test_from"] == stamps.iloc[-decision["held_out_steps"]]
    assert stamps.iloc[N_OLD] < challenger.training_range["test_from"]


def test_a_challenger_that_is_not_better_by_as_much_is_kept_and_not_active(
    command: Command, place: Path
) -> None:
    (first,) = versions(place)
    decision = run(command, place, EVERY + 'promote_if = "99%"\n')["retrain"]
    assert decision["promoted"] is False and "not activated" in decision["reason"]
    assert active(place) == first
    assert versions(place) == sorted([first, decision["challenger"]])
    again = run(command, place, EVERY + 'promote_if = "99%"\n', "--force")
    assert again["retrain"] is None, "nothing new has come since it was tried"


@pytest.mark.parametrize(
    "retrain", ["", '[retrain]\nevery = "30d"\n', '[retrain]\nwhen = "drift"\n']
)
def test_no_challenger_comes_unasked(command: Command, place: Path, retrain: str) -> None:
    assert run(command, place, retrain)["retrain"] is None
    assert len(versions(place)) == 1


def test_few_new_readings_are_no_reason(command: Command, place: Path) -> None:
    stamps = pd.read_csv(place / "data.csv")["timestamp"]
    as_of = stamps[N_OLD + 2 * 3 * 6 - 2].replace(" ", "T")
    assert run(command, place, '[retrain]\nevery = "1h"\n', "--as-of", as_of)["retrain"] is None


def test_an_outage_is_no_news(command: Command, place: Path) -> None:
    readings = pd.read_csv(place / "data.csv")
    readings = readings.drop(index=range(N_OLD, N_OLD + N_NEW - 10))
    readings.to_csv(place / "data.csv", index=False)
    (place / "job.toml").write_text(JOB + EVERY)
    outcome = command("run", place / "job.toml", "--json")
    assert (outcome.document["status"], outcome.document["retrain"]) == ("published", None)


def test_readings_that_begin_after_the_training_are_enough(command: Command, place: Path) -> None:
    """A source that has only its newest rows: there is enough left to train on."""
    readings = pd.read_csv(place / "data.csv")
    readings[-250:].to_csv(place / "data.csv", index=False)
    decision = run(command, place, EVERY)["retrain"]
    assert decision["held_out_steps"] == 125


def test_a_job_that_pins_its_version_is_never_retrained(command: Command, place: Path) -> None:
    (first,) = versions(place)
    job = JOB.replace('path = "model"', f'path = "model"\nversion = "{first}"')
    (place / "job.toml").write_text(job + EVERY)
    outcome = command("run", place / "job.toml", "--json")
    assert (outcome.code, outcome.document["retrain"]) == (0, None)


def test_who_is_at_the_model_is_not_disturbed(command: Command, place: Path) -> None:
    with acquire(place / "model/.lock"):
        document = run(command, place, EVERY)
    assert document["status"] == "published"
    assert [warning["code"] for warning in document["warnings"]].count("retrain-failed") == 1
    assert len(versions(place)) == 1


@pytest.mark.slow
def test_a_drift_brings_a_challenger(command: Command, place: Path) -> None:
    data = pd.read_csv(place / "data.csv")
    stamps = [stamp.replace(" ", "T") for stamp in data["timestamp"]]
    columns = ["flow", "level"]
    data.loc[N_OLD:, columns] += 4 * np.sin(2 * np.pi * np.arange(N_NEW) / 5)[:, None]
    data.to_csv(place / "data.csv", index=False)
    (version,) = (place / "model/versions").iterdir()
    reference = json.loads((version / "metrics.json").read_text())["error_reference"]
    assert reference["others"] is not None, "the model must know what is usual"
    (place / "job.toml").write_text(
        JOB.replace("out/forecast.csv", "out/{as_of}.csv") + '[retrain]\nwhen = "drift"\n'
    )
    days = ["--from", stamps[N_OLD + 60], "--to", stamps[N_OLD + 200], "--every", "6h"]
    outcome = command("run", place / "job.toml", "--json", *days)
    assert outcome.code == 0
    retrained = [r for r in outcome.document["runs"] if r["retrain"] is not None]
    assert retrained
    for result in retrained:
        assert result["retrain"]["due"].startswith("after drift of ")
        assert any(score["flag"] for score in result["scores"])


@pytest.mark.slow
def test_a_series_that_is_new_joins_the_next_version(command: Command, place: Path) -> None:
    data = pd.read_csv(place / "data.csv")
    long = data.melt("timestamp", var_name="sensor", value_name="reading")
    old = long[long["timestamp"] < data["timestamp"][N_OLD]]
    old.to_csv(place / "old.csv", index=False)
    trained = command("train", place / "old.csv", "-m", place / "long", "-q", *SMALL)
    assert trained.code == 0, trained.err
    new = pd.DataFrame(
        {"timestamp": data["timestamp"], "sensor": "new", "reading": wave(len(data), seed=9)}
    )
    pd.concat([long, new]).to_csv(place / "data.csv", index=False)
    job = JOB.replace('path = "model"', 'path = "long"')
    (place / "job.toml").write_text(job + EVERY + 'promote_if = "0%"\n')
    decision = command("run", place / "job.toml", "--json").document["retrain"]
    challenger = rnnforecast.load(place / "long", version=decision["challenger"]).artifact
    assert challenger.names == ("flow", "level", "new")
    assert np.isfinite(challenger.weights["scale"][1:]).all()
