"""The training on made-up series: what is asked, and that interruptions change nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import pretrain
from benchmarks.pretrain import (
    MAX_TARGET,
    MIN_SCALE_SHARE,
    MIN_SEEN,
    Recipe,
    Training,
    as_examples,
    constant_rate,
    decay,
    draw_examples,
    loss_scale,
    losses,
    train,
    write,
)
from benchmarks.synthetic import Batch, Size, draw
from rnnforecast.model.builtin import builtin_weights
from rnnforecast.model.inputs import Segments
from tests.model.networks import quantiles_of

TINY = Recipe(
    width=4,
    layers=1,
    segment=8,
    n_segments=20,
    n_series=(2, 4),
    max_context=4,
    max_ahead=2,
    report_steps=2,
)
SIZE = Size(n_series=5, n_context=6, n_ahead=3)


class KilledError(Exception):
    """Stands for the end of the process."""


def batch_of(seed: int) -> Batch:
    return draw(np.random.default_rng(seed), SIZE, TINY.segment)


def bytes_after(
    folder: Path, kills: tuple[int, ...], monkeypatch, *, n_workers: int = 0
) -> tuple[bytes, bytes]:
    """Train and decay, killed at these steps between two saves; return weights and manifest."""
    update, ahead = Training.update, list(kills)

    def mortal(training: Training, *arguments: object) -> object:
        if ahead and training.step == ahead[0]:
            ahead.pop(0)
            raise KilledError
        return update(training, *arguments)

    monkeypatch.setattr(Training, "update", mortal)
    while True:
        try:
            train(folder, TINY, until=6, n_workers=n_workers)
            write(decay(folder, TINY, 4, n_workers=n_workers), folder / "built.safetensors")
            break
        except KilledError:
            pass
    monkeypatch.setattr(Training, "update", update)
    assert not ahead
    return (folder / "built.safetensors").read_bytes(), (folder / "built.json").read_bytes()


def test_an_interrupted_training_gives_the_bytes_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(pretrain, "SAVE_S", -1.0)
    torch.set_num_threads(1)

    uninterrupted = bytes_after(tmp_path / "a", (), monkeypatch)

    assert bytes_after(tmp_path / "b", (3, 9), monkeypatch) == uninterrupted


@pytest.mark.slow  # the workers import torch
def test_workers_that_draw_ahead_change_no_byte(tmp_path: Path, monkeypatch) -> None:
    torch.set_num_threads(1)

    alone = bytes_after(tmp_path / "a", (), monkeypatch)

    assert bytes_after(tmp_path / "b", (), monkeypatch, n_workers=2) == alone


def test_a_decay_leaves_the_state_and_lowers_the_rate(tmp_path: Path) -> None:
    train(tmp_path, TINY, until=4)
    state = (tmp_path / "training.safetensors").read_bytes()

    decayed = decay(tmp_path, TINY, 4)

    rates = [row["rate"] for row in decayed.curve]
    assert (tmp_path / "training.safetensors").read_bytes() == state
    assert rates[-1] < constant_rate(TINY, 7) / 3
    assert [row["step"] for row in decayed.curve] == [2, 4, 6, 8]
    assert len((tmp_path / "decay.csv").read_text().splitlines()) == 5


def test_the_manifest_says_how_the_weights_were_made(tmp_path: Path) -> None:
    train(tmp_path, TINY, until=2)
    write(decay(tmp_path, TINY, 4), tmp_path / "built.safetensors")

    manifest = json.loads((tmp_path / "built.json").read_text())

    assert (manifest["steps"], manifest["decay_steps"]) == (2, 4)
    assert manifest["recipe"]["seed"] == TINY.seed
    assert set(manifest["scores"]) >= {"score", "48 to 8"}


def test_the_built_in_weights_are_those_of_the_recipe() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in Recipe().network().state_dict().items()}

    assert {name: weight.shape for name, weight in builtin_weights().items()} == shapes


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    train(tmp_path, TINY, until=1)

    with pytest.raises(SystemExit, match="another training"):
        train(tmp_path, replace(TINY, seed=2), until=1)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first, again = draw_examples(TINY, 5), draw_examples(TINY, 5)
    other = draw_examples(TINY, 6)

    assert np.array_equal(first.inputs.values, again.inputs.values)
    assert first.target.shape != other.target.shape or (first.target != other.target).any()


@pytest.mark.parametrize("seed", range(6))
def test_targets_are_the_readings_and_nothing_is_asked_of_what_is_not_read(seed: int) -> None:
    batch = batch_of(seed)
    examples = as_examples(batch, SIZE, TINY.segment)
    n_rows = examples.target.shape[1] * TINY.segment
    asked = examples.weight.reshape(-1, n_rows) > 0

    inputs = examples.inputs
    units = examples.target * inputs.spread[..., None] + inputs.level[..., None]
    values = units.reshape(-1, n_rows) + np.nanmedian(batch.history, axis=1)[:, None]
    is_near = np.abs(examples.target.reshape(-1, n_rows)) < MAX_TARGET
    actual, is_read = batch.values[:, -n_rows:], batch.is_read[:, -n_rows:]
    n_before = np.isfinite(batch.history).cumsum(1)

    assert np.isfinite(examples.target).all()
    assert values[is_near] == pytest.approx(actual[is_near], rel=1e-4, abs=1e-4)
    assert not (asked & ~is_read).any()
    for i, last in enumerate(asked.argmax(1) + batch.values.shape[1] - n_rows):
        if asked[i].any() and last < batch.n_history:
            assert n_before[i, last - last % TINY.segment - 1] >= MIN_SEEN


def test_inputs_do_not_depend_on_what_follows_or_is_hidden() -> None:
    batch = batch_of(1)
    other = replace(batch, values=np.where(batch.is_shown, batch.values, 7.0))

    inputs, same = (as_examples(each, SIZE, TINY.segment).inputs for each in (batch, other))

    assert np.array_equal(inputs.values, same.values)
    assert np.array_equal(inputs.experts, same.experts)


@pytest.mark.parametrize(("season", "lag"), [(1, 12), (5, 15), (24, 24), (40, 40)])
def test_the_unit_of_the_loss_is_the_mean_change_over_seasons(season: int, lag: int) -> None:
    history = np.random.default_rng(0).standard_normal((3, 40))
    history[0, 3:9] = np.nan
    history[2] = 1e-3 * (np.arange(40) % lag) ** 2  # hardly any change over seasons

    for row, unit in zip(history, loss_scale(history, season), strict=True):
        seen = row[np.isfinite(row)]
        deviation = np.abs(seen - seen.mean()).mean()
        changes = [abs(row[t] - row[t - lag]) for t in range(lag, 40)]
        changes = [change for change in changes if np.isfinite(change)]
        expected = np.mean(changes) if changes else deviation
        assert unit == pytest.approx(max(expected, MIN_SCALE_SHARE * deviation))


def test_the_loss_is_the_weighted_mean_over_quantiles_of_twice_the_pinball_loss() -> None:
    examples = draw_examples(TINY, 3)
    network = TINY.network()
    inputs = examples.inputs
    arrays = inputs.values, inputs.experts, inputs.gain
    segments = Segments(*map(torch.from_numpy, arrays))
    n, n_ahead = examples.n_context, inputs.gain.shape[1] - examples.n_context
    forecast = quantiles_of(network, segments, n_ahead=n_ahead)
    quantiles = np.array(pretrain.QUANTILES)[:, None]

    error = examples.target[:, :, None] - forecast.detach().numpy()
    by_row = 2 * np.maximum(quantiles * error, (quantiles - 1) * error).mean(2) * examples.weight
    expected = [
        by_row[:, part].sum() / max((examples.weight[:, part] > 0).sum(), 1)
        for part in (slice(n), slice(n, None))
    ]

    assert [loss.item() for loss in losses(network, examples)] == pytest.approx(expected, rel=1e-5)
