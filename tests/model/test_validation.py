"""The loss of weighted members against a loop over the windows."""

from __future__ import annotations

import numpy as np
import pytest

from rnnforecast.data.windows import make_past
from rnnforecast.model import loss
from rnnforecast.model.loss import ValidationWindows, quantile_losses
from rnnforecast.model.member import make_member
from tests.builders import make_panel, make_spec, wave
from tests.model.fitting import FOUR, scales_of, started, windows_to_train
from tests.model.networks import DAY, draw_network, forecast_by, make_history


@pytest.mark.parametrize(("most", "part_rows"), [(16, 1 << 16), (16, 3 * 32), (7, 1)])
def test_the_loss_of_weighted_members_is_that_of_the_mean_of_their_forecasts(
    most: int, part_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many windows are prepared at once."""
    monkeypatch.setattr(loss, "_MAX_WINDOWS", most)
    monkeypatch.setattr(loss, "_PART_ROWS", part_rows)
    readings = wave(200, season=8, noise=2.0)
    readings[160:170] = np.nan
    network = started(readings, make_spec(members=FOUR))
    _, windows = windows_to_train(readings, network.spec)
    members = [make_member(network, i) for i in range(4)]
    weightings = [(1, 0, 0, 0), (0, 0, 1, 0), (0.4, 0.6, 0, 0), (0, 0.2, 0.5, 0.3), (0.25,) * 4]

    held_out = ValidationWindows(network, windows, scales_of(readings))
    losses = held_out.losses(members, weightings)

    chosen = windows.spread(most)
    assert len(chosen) == min(most, len(windows))
    batch = windows.gather(chosen)
    assert np.isnan(batch.future).any()
    forecasts = [
        [forecast_by(network, m, make_history(x[None], seasons=DAY)) for x in batch.history]
        for m in network.members
    ]
    for weights, value in zip(weightings, losses, strict=True):
        total = 0.0
        for i in range(len(chosen)):
            forecast = sum(w * f[i] for w, f in zip(weights, forecasts, strict=True))
            actual = batch.future[i, None].astype(np.float64)
            total += quantile_losses(forecast, actual, network.spec.quantiles)[0]
        expected = total / scales_of(readings)[0] / np.isfinite(batch.future).sum()
        assert value == pytest.approx(expected, rel=1e-4)
    assert len(set(losses)) == len(weightings)
    assert held_out.loss(members[2]) == losses[1]


def test_spikes_are_no_truth_to_validate_on() -> None:
    readings = wave(200, season=8, noise=2.0)
    spiked, gapped = readings.copy(), readings.copy()
    spiked[170], gapped[170] = 65_535.0, np.nan
    losses = []
    for each in (spiked, gapped):
        network = started(readings, make_spec())
        _, windows = windows_to_train(each, network.spec)
        held_out = ValidationWindows(network, windows, scales_of(readings))
        losses.append(held_out.loss(make_member(network, 0)))
    assert losses[0] == pytest.approx(losses[1])


def test_of_large_windows_fewer_are_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    network = started(wave(200), make_spec())
    _, windows = windows_to_train(wave(200), network.spec)
    n_values = loss._n_values(network.spec, 0)
    for limit, expected in ((50 * n_values, 45), (40 * n_values, 40), (1, 32)):
        monkeypatch.setattr(loss, "_MAX_VALUES", limit)
        held_out = ValidationWindows(network, windows, np.ones(1))
        assert len(held_out._actual) == min(expected, len(windows))


@pytest.mark.parametrize(
    ("rows", "n_disjoint"),
    [([36], 1), ([41], 1), ([42], 2), ([66], 6), ([36] * 300, 300), ([20, 36, 48], 1 + 3)],
)
def test_windows_apart_are_counted_series_by_series(rows: list[int], n_disjoint: int) -> None:
    windows = make_past(make_panel(*(wave(n) for n in rows))).windows(30, 6)
    network = draw_network(make_spec(30, 6, n_series=len(rows)))

    held_out = ValidationWindows(network, windows, np.ones(len(rows)))

    assert held_out.n_disjoint == n_disjoint
