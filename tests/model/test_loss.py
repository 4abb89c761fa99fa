"""The loss of a training step and the scale of each series, against loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import Batch, make_past
from rnnforecast.model.loss import (
    N_ORIGINS,
    history_of,
    loss_scales,
    quantile_losses,
    step_inputs,
    step_loss,
    take_rows,
)
from rnnforecast.model.member import Member, make_member, to_tensors
from rnnforecast.model.network import Network
from tests.builders import make_panel, wave
from tests.model.networks import DAY, make_network

SCALES = np.array([2.0, 0.5])


def make_batch(network: Network, n: int = 6) -> Batch:
    """Gather stretches of two series with gaps, of which some begin before the first row."""
    first, second = wave(90, season=8, noise=1.0), 5 * wave(60, season=8, noise=1.0, seed=1)
    first[30:36], second[::7], second[40] = np.nan, np.nan, 900.0
    first[:10] = np.nan
    past = make_past(make_panel(first, second))
    network.seasons[1:] = DAY.main, DAY.long
    windows = past.windows(network.spec.lookback, network.spec.horizon, least_history=12)
    batch = windows.gather(windows.spread(n))
    assert np.isnan(batch.history[:, 0]).any(), "the test needs rows before the first"
    assert set(batch.series.tolist()) == {0, 1}
    return batch


def loss_of(
    network: Network,
    batch: Batch,
    scales: np.ndarray = SCALES,
    *,
    member: Member | None = None,
    rows: slice = slice(None),
    reach: int | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    member = member or make_member(network, 0)
    inputs = step_inputs(network, member, batch, scales, rows=rows)
    return step_loss(network, member, inputs, reach=reach, mask=mask)


def loss_by_a_loop(
    network: Network,
    batch: Batch,
    scales: np.ndarray = SCALES,
    *,
    mask: torch.Tensor | None = None,
) -> float:
    """Return the loss, reading by reading."""
    member = make_member(network, 0)
    segment, horizon = member.spec.segment, network.spec.horizon
    prepared = network.prepare(history_of(network, batch), segment, n_origins=N_ORIGINS)
    places, inputs = prepared.places, to_tensors(prepared, member.device)
    kept = torch.ones(len(batch.series), 1, member.spec.hidden) if mask is None else mask
    with torch.no_grad():
        _, states = member.encode(inputs.history)
        later = member.encode_ahead(states, inputs.ahead, inputs.stretch, inputs.state)
        later = torch.stack([x * kept[i] for x, i in zip(later, places.stretch, strict=True)])
        ahead = member.decode(later, inputs.ahead).double().numpy()
    entry = batch.series + 1
    rows = network.mask_spikes(np.concatenate([batch.history, batch.future], axis=1), entry)
    n_before = places.n_segments * segment - batch.history.shape[1]

    total, count = 0.0, 0
    for window, (stretch, boundary) in enumerate(zip(places.stretch, places.boundary, strict=True)):
        scale = scales[batch.series[stretch]]
        for lead in range(horizon):
            i, k = divmod(lead, segment)
            row = boundary * segment + lead - n_before
            actual = float(rows[stretch, row]) if row >= 0 else np.nan
            if np.isnan(actual):
                continue
            level, spread = prepared.inputs.level[window, i], prepared.inputs.spread[window, i]
            target = min(max((actual - level) / spread, -25), 25)
            loss = 0.0
            for q, level_of in enumerate(network.spec.quantiles):
                error = target - ahead[window, i, q, k]
                loss += 2 * max(level_of * error, (level_of - 1) * error)
            total += min(spread / scale, 20) * loss / len(network.spec.quantiles)
            count += 1
    return total / count


@pytest.mark.parametrize(
    ("lookback", "horizon", "segment", "context"),
    [(32, 10, 4, 512), (30, 5, 8, 512), (32, 8, 1, 512), (32, 8, 1, 3), (40, 10, 4, 8)],
)
def test_the_loss_is_that_of_a_loop_over_readings(
    lookback: int, horizon: int, segment: int, context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the recurrence does not run over the first segments."""
    monkeypatch.setattr("rnnforecast.model.inputs.CONTEXT_ROWS", context)
    network = make_network(lookback=lookback, horizon=horizon, segment=segment)
    network.outlier_threshold[2] = 300.0  # the one of 900 is a spike
    batch = make_batch(network)

    loss = loss_of(network, batch)

    assert loss.item() == pytest.approx(loss_by_a_loop(network, batch), rel=1e-4)


def test_dropped_states_are_dropped_in_all_windows_of_a_stretch() -> None:
    network = make_network(layers=2)
    batch = make_batch(network)
    torch.manual_seed(1)
    mask = 4.0 * (torch.rand(len(batch.series), 1, 4) < 0.25)

    loss = loss_of(network, batch, mask=mask)

    assert loss.item() == pytest.approx(loss_by_a_loop(network, batch, mask=mask), rel=1e-4)
    whole = loss_of(network, batch)
    assert loss.item() != pytest.approx(whole.item(), rel=1e-3)
    assert torch.equal(loss_of(network, batch, mask=torch.ones_like(mask)), whole)


def test_readings_far_out_and_windows_far_wider_than_their_series_are_bounded() -> None:
    network = make_network()
    batch = make_batch(network)
    far = replace(batch, future=batch.future + np.float32(1e6))
    values = []
    for scales in (SCALES, SCALES / 1e6):
        for each in (batch, far):
            values.append(loss_of(network, each, scales).item())
            expected = loss_by_a_loop(network, each, scales)
            assert values[-1] == pytest.approx(expected, rel=1e-4)
    assert values[1] < 100 * values[0]
    assert values[2] < 100 * values[0]


@pytest.mark.parametrize("sizes", [(6,), (1, 5), (2, 0, 4), (1, 1, 1, 1, 1, 1)])
def test_the_losses_and_gradients_of_parts_add_up_to_those_of_the_whole(
    sizes: tuple[int, ...],
) -> None:
    network = make_network()
    member, batch = make_member(network, 0), make_batch(network)
    whole = loss_of(network, batch, member=member)
    expected = torch.autograd.grad(whole, list(member.parameters()))

    total, gradients, begin = 0.0, [torch.zeros_like(p) for p in member.parameters()], 0
    for size in sizes:
        rows = slice(begin, begin := begin + size)
        if not size:
            continue
        part = loss_of(network, batch, member=member, rows=rows)
        total += part.item()
        more = torch.autograd.grad(part, list(member.parameters()))
        gradients = [x + y for x, y in zip(gradients, more, strict=True)]

    assert total == pytest.approx(whole.item(), rel=1e-5)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)


def test_a_missing_reading_carries_no_loss() -> None:
    network = make_network()
    batch = make_batch(network)
    nothing = replace(
        batch,
        history=np.full_like(batch.history, np.nan),
        future=np.full_like(batch.future, np.nan),
    )
    member = make_member(network, 0)
    loss = loss_of(network, nothing, member=member)
    assert loss.item() == 0
    loss.backward()
    assert all((p.grad == 0).all() for p in member.parameters() if p.grad is not None)


@pytest.mark.parametrize("reach", [32, 100])
def test_truncated_after_the_whole_look_back_no_bit_differs(reach: int) -> None:
    network = make_network()
    member, batch = make_member(network, 0), make_batch(network)
    gradients = []
    for limit in (None, reach):
        loss = loss_of(network, batch, member=member, reach=limit)
        gradients.append([loss, *torch.autograd.grad(loss, list(member.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_truncated_before_it_the_loss_is_the_same_and_gradients_come_over_whole_segments() -> None:
    network = make_network(layers=2)
    member, batch = make_member(network, 0), make_batch(network)
    weight = member.blocks[0].recurrence.linear_hh.weight
    losses, gradients = {}, {}
    for reach in (None, 4, 5, 8, 9):
        loss = loss_of(network, batch, member=member, reach=reach)
        (gradients[reach],) = torch.autograd.grad(loss, weight)
        losses[reach] = loss.item()

    assert [*losses.values()] == pytest.approx([losses[None]] * 5, rel=1e-6)
    assert torch.equal(gradients[5], gradients[8])
    for one, other in ((None, 4), (4, 5), (8, 9), (None, 9)):
        assert not torch.allclose(gradients[one], gradients[other])


def test_quantile_losses_are_sums_of_pinball_losses() -> None:
    rng = np.random.default_rng(0)
    forecast, actual = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3))
    actual[1, 2] = np.nan
    levels = (0.2, 0.7)
    for i, value in enumerate(quantile_losses(forecast, actual, levels)):
        pinball = [
            max(q * error, (q - 1) * error)
            for h in range(3)
            for k, q in enumerate(levels)
            if np.isfinite(error := actual[i, h] - forecast[i, h, k])
        ]
        assert value == pytest.approx(2 * sum(pinball) / 2)
    median = quantile_losses(forecast[..., :1], actual, (0.5,))
    np.testing.assert_allclose(median, np.nansum(np.abs(actual - forecast[..., 0]), axis=1))


def test_the_quantile_loss_is_least_at_the_quantiles() -> None:
    actual = np.arange(101.0)[:, None]
    best = np.array([10.0, 50.0, 90.0])

    def loss(forecast: np.ndarray) -> float:
        values = np.broadcast_to(forecast, (101, 1, 3))
        return float(quantile_losses(values, actual, (0.1, 0.5, 0.9)).sum())

    for k in range(3):
        for step in (-5.0, 5.0):
            moved = best.copy()
            moved[k] += step
            assert loss(moved) > loss(best)


def scale_by_a_loop(readings: list[float], season: int) -> float:
    lag = season
    while lag < 12:
        lag += season
    known = [x for x in readings if not np.isnan(x)]
    if not known:
        return 1.0
    pairs = [abs(b - a) for a, b in zip(readings, readings[lag:], strict=False)]
    pairs = [x for x in pairs if not np.isnan(x)]
    mean = sum(known) / len(known)
    deviation = sum(abs(x - mean) for x in known) / len(known)
    difference = sum(pairs) / len(pairs) if pairs else deviation
    return max(difference, 0.03 * deviation) or 1.0


def test_the_scale_of_a_series_is_its_change_over_whole_seasons() -> None:
    walk = np.random.default_rng(0).normal(size=70).cumsum()
    repeating = np.tile(np.arange(8.0), 9)
    gaps = wave(80, season=8, noise=1.0)
    gaps[::3] = np.nan
    series = [walk, repeating, gaps, np.full(40, 3.0), np.full(30, np.nan), np.arange(5.0)]
    series = [x.astype(np.float32) for x in series]
    seasons = [Seasons(), DAY, DAY, Seasons(16), Seasons(5), DAY]

    scales = loss_scales(make_past(make_panel(*series)), seasons)

    expected = [
        scale_by_a_loop(x.tolist(), each.main) for x, each in zip(series, seasons, strict=True)
    ]
    np.testing.assert_allclose(scales, expected, rtol=1e-6)
    assert scales[1] == pytest.approx(0.03 * 2), "what repeats has no change of its own"
    assert scales[3] == scales[4] == 1


def test_no_reading_after_the_cutoff_changes_the_scale() -> None:
    readings = wave(80, season=8, noise=1.0)
    other = readings.copy()
    other[50:] = 1e6
    cut = np.array([50])
    assert loss_scales(make_past(make_panel(readings), cut), [DAY]) == loss_scales(
        make_past(make_panel(other), cut), [DAY]
    )


def test_some_rows_of_a_batch_are_those_windows() -> None:
    batch = make_batch(make_network())
    chosen = np.array([4, 1])
    part = take_rows(batch, chosen)
    for name in ("history", "future", "series", "next_step"):
        np.testing.assert_array_equal(getattr(part, name), getattr(batch, name)[chosen])
    assert part.features is None


def test_the_scale_of_the_loss_is_that_of_its_series() -> None:
    """Readings in another unit have the same loss: they count alike."""
    network = make_network()
    batch = make_batch(network)
    scaled = replace(batch, history=100 * batch.history, future=100 * batch.future)
    values = [
        loss_of(network, each, scales).item()
        for each, scales in ((batch, SCALES), (scaled, 100 * SCALES))
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-3)
