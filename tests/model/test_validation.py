"""The loss of groups of members against a loop over the windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnnforecast.data.windows import make_past
from rnnforecast.model import loss
from rnnforecast.model.loss import ValidationWindows, quantile_loss
from tests.builders import make_panel, make_spec, wave
from tests.model.fitting import FOUR, split, started


@pytest.mark.parametrize("most", [4096, 7])
@pytest.mark.parametrize("batch_values", [1 << 21, 1000])
def test_the_loss_of_a_group_is_that_of_the_mean_of_its_forecasts(
    batch_values: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "_BATCH_VALUES", batch_values)
    readings = wave(200, season=12, noise=2.0)
    readings[160:170] = np.nan
    network = started(readings, make_spec(members=FOUR))
    train, everything = split(readings)
    windows = everything.windows(24, 6, targets_after=train)
    a, b, c, d = network.members
    groups = [[a], [c], [a, b], [b, c, d], [a, b, c, d]]

    found = ValidationWindows(windows).losses(network, groups, max_windows=most)

    chosen = windows.spread(most)
    assert len(chosen) == min(most, len(windows))
    batch = windows.gather(chosen)
    center, scale = network.center[1], network.scale[1]
    history, future = (
        (torch.from_numpy(x) - center) / scale for x in (batch.history, batch.future)
    )
    step = torch.from_numpy(batch.next_step)
    for group, value in zip(groups, found, strict=True):
        forecasts, ones = [], torch.ones(1).long()
        for i in range(len(history)):
            made = [m(history[i, None], ones, step[i, None]) for m in group]
            forecasts.append(sum(made) / len(made))
        expected = quantile_loss(torch.cat(forecasts), future, network.spec.quantiles)
        assert value == pytest.approx(expected.item(), rel=1e-4)
    assert len(set(found)) == len(groups)


@pytest.mark.parametrize(
    ("rows", "n_disjoint"),
    [([36], 1), ([41], 1), ([42], 2), ([66], 6), ([36] * 300, 300), ([20, 36, 48], 1 + 3)],
)
def test_windows_apart_are_counted_series_by_series(rows: list[int], n_disjoint: int) -> None:
    past = make_past(make_panel(*(wave(n) for n in rows)))

    assert ValidationWindows(past.windows(30, 6)).n_disjoint == n_disjoint
