"""Ablations of the built-in network: what is left out has no say, in training and in forecasts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import ablation, suite
from benchmarks.ablation import (
    AS_IS,
    KINDS,
    OTHER_BATCHES,
    OTHER_WEIGHTS,
    PARTS,
    RECIPE,
    Scores,
    hidden_inputs,
    leave_out,
    score_sets,
    section,
    train_parts,
    train_together,
    train_without_kind,
)
from benchmarks.pretrain import Examples, Recipe, Training, draw_examples
from rnnforecast.model.builtin import builtin_weights
from rnnforecast.model.experts import NAMES
from rnnforecast.model.member import Segments

TINY = Recipe(
    width=4,
    layers=1,
    segment=4,
    n_segments=12,
    n_series=(2, 3),
    max_context=4,
    max_ahead=2,
)
SENSORS = pd.date_range("2026-01-01", periods=360, freq="h", name="time")


def forecast_by(training: Training, examples: Examples) -> np.ndarray:
    """Return the quantiles of all segments, `(series, segment, quantile, row)`."""
    inputs = examples.inputs
    segments = Segments(*map(torch.from_numpy, (inputs.values, inputs.experts, inputs.gain)))
    with torch.no_grad():
        encoded, _ = training.network.encode(segments)
        return training.network.decode(encoded, segments).numpy()


def trained_without(name: str) -> Training:
    training = Training(TINY)
    leave_out(training, PARTS[name])
    train_together([training], TINY, 2)
    return training


def with_another(examples: Examples, name: str) -> Examples:
    """Return examples with other values of all that a part consists of."""
    inputs = examples.inputs
    values, experts = inputs.values.copy(), inputs.experts.copy()
    values[..., hidden_inputs(PARTS[name], TINY.segment)] += 1
    experts[:, :, [NAMES.index(expert) for expert in PARTS[name].experts]] += 1
    return replace(examples, inputs=replace(inputs, values=values, experts=experts))


@pytest.mark.parametrize("name", [name for name in PARTS if not PARTS[name].has_recurrence])
def test_a_part_that_is_left_out_moves_no_forecast_after_training(name: str) -> None:
    examples = draw_examples(TINY, 7)
    changed = with_another(examples, name)
    whole, without = Training(TINY), trained_without(name)

    assert np.array_equal(forecast_by(without, examples), forecast_by(without, changed))
    assert not np.allclose(forecast_by(whole, examples), forecast_by(whole, changed))


def test_without_the_recurrence_a_segment_does_not_depend_on_those_before() -> None:
    examples = draw_examples(TINY, 7)
    values = examples.inputs.values.copy()
    values[:, :-1] += 1
    changed = replace(examples, inputs=replace(examples.inputs, values=values))
    whole, without = Training(TINY), trained_without("the recurrence")

    before, after = (forecast_by(without, each)[:, -1] for each in (examples, changed))
    assert before == pytest.approx(after, abs=1e-6)
    before, after = (forecast_by(whole, each)[:, -1] for each in (examples, changed))
    assert not np.allclose(before, after)


def test_all_that_is_left_learns_and_its_mean_is_scored() -> None:
    networks = train_parts(["autoregressive experts"], TINY, 2)

    first = Training(TINY).weights
    assert list(networks) == [AS_IS, OTHER_WEIGHTS, "autoregressive experts"]
    for name in (AS_IS, "autoregressive experts"):
        assert (networks[name]["embed.weight"] != first["embed.weight"]).any()
    head = networks["autoregressive experts"]["head.weight"]
    assert (head == 0).any(1).sum() == 2 * TINY.segment  # the rows of two experts alone


@pytest.mark.slow
def test_a_kind_that_is_left_out_is_back_afterwards(monkeypatch) -> None:
    def targets() -> np.ndarray:
        return np.concatenate([draw_examples(TINY, step).target.ravel() for step in range(60)])

    drawn = []
    monkeypatch.setattr(ablation, "train_alone", lambda *_: drawn.append(targets()))

    usual = targets()
    for name in KINDS:
        train_without_kind(name, TINY, 8)
        assert not np.array_equal(drawn.pop(), usual), name
    assert np.array_equal(targets(), usual)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a suite of one set, one of whose series begins late."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "data").mkdir()
    rng, rows = np.random.default_rng(0), np.arange(len(SENSORS))
    wave = np.sin(2 * np.pi * rows / 24)
    late = np.where(rows < 100, np.nan, wave + rng.normal(scale=0.2, size=len(rows)))
    pump = wave + rng.normal(scale=0.4, size=len(rows))
    pd.DataFrame({"pump": pump, "late": late}, SENSORS).to_csv(folder / "data" / "a.csv.gz")
    entry = {"name": "a", "kind": "water", "season": 24, "horizon": 24, "windows": 3}
    (folder / "suite.json").write_text(json.dumps([entry]))
    return folder


def test_scores_are_those_of_the_built_in_network_of_the_package(folder: Path, tmp_path) -> None:
    (task,) = suite.tasks_of(folder)
    weights = {name: torch.from_numpy(values.copy()) for name, values in builtin_weights().items()}
    untrained = {name: w.detach() for name, w in Training(RECIPE).weights.items()}

    scores = score_sets({"builtin": weights, "untrained": untrained}, [task])

    table = suite.measure(task, ["builtin"], [0], tmp_path).scores
    expected = table[table["method"] == "builtin"]["mae"]
    assert scores.loc["builtin", "mae"] == pytest.approx(np.exp(np.log(expected).mean()))
    assert scores.loc["untrained", "mae"] != pytest.approx(scores.loc["builtin", "mae"])


def test_the_table_says_what_is_lost_beyond_chance() -> None:
    made_up = {AS_IS: 0.8, OTHER_WEIGHTS: 0.8, OTHER_BATCHES: 0.8, "a": 0.84, "b": 0.8}
    made_up |= {"c": 0.8, "d": 0.8}
    loss = {AS_IS: 0.6, OTHER_WEIGHTS: 0.606, OTHER_BATCHES: 0.597, "a": 0.66, "b": 0.603}
    sets = pd.DataFrame({"mae": 0.7, "quantile_loss": {**loss, "c": 0.615, "d": 0.57}})

    text = section(Scores(made_up, sets), ["a", "b", "d"], ["c"], 50)

    assert "| without a | 50 | 0.840 (+5.0 %) | 0.700 (+0.0 %) | 0.660 (+10.0 %) |" in text
    assert "| without series: c | 50 | 0.800 (+0.0 %) | 0.700 (+0.0 %) | 0.615 (+2.5 %) |" in text
    assert "by up to 1.0 %" in text
    assert "higher by more without a (+10.0 %); without series: c (+2.5 %)." in text
    assert "lower by more without d (-5.0 %)." in text


def test_without_real_readings_the_table_has_made_up_series_alone() -> None:
    made_up = {AS_IS: 0.8, OTHER_WEIGHTS: 0.8, OTHER_BATCHES: 0.9, "a": 0.84}

    text = section(Scores(made_up, None), ["a"], [], 50)

    assert "| without a | 50 | 0.840 (+5.0 %) |" in text
    assert "higher by more in no row. It is lower by more in no row." in text
