import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from rnnforecast.config.training import NetworkConfig, TrainConfig, WindowConfig
from rnnforecast.data.season import resolve_season
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import ModelError
from rnnforecast.model import forecaster as forecasters
from rnnforecast.model.forecaster import RNNForecaster
from rnnforecast.model.network import Network
from rnnforecast.spec import QUANTILES, MemberSpec
from tests.builders import make_panel, make_spec, random_walk, wave

SMALL = NetworkConfig(hidden=16)
MEMBERS = (
    MemberSpec(24, 6, linear=False, seasonal=False),
    MemberSpec(18, 6, linear=True, seasonal=False),
)
QUICK = TrainConfig(epochs=2, batch_size=64, threads=1)


def fit(panel, train_until: int, validation_until: int, *, spec=None, config=QUICK, network=SMALL):
    spec = spec or make_spec(n_series=panel.n_series, members=MEMBERS)
    ends = np.ones(panel.n_series, np.int64)
    return RNNForecaster.fit(
        make_past(panel, train_until * ends),
        make_past(panel, validation_until * ends),
        spec=spec,
        network=network,
        config=config,
    )


@cache
def fitted(n_series: int = 1) -> RNNForecaster:
    """Fit once to the waves of these seeds; not to be changed."""
    return fit(make_panel(*(wave(300, seed=seed) for seed in range(n_series))), 180, 240)


def everything_learnt(forecaster: RNNForecaster) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in forecaster.tensors().items()}


def test_changing_a_reading_after_the_cutoff_changes_nothing() -> None:
    first = wave(300, season=12, seed=1)
    second = wave(300, season=12, seed=2)
    changed = [first.copy(), second.copy()]
    changed[0][240:] = 1e6
    changed[1][240:] = np.nan
    forecasters, forecasts, seasons = [], [], []
    for panel in (make_panel(first, second), make_panel(*changed)):
        forecaster = fit(panel, 180, 240).fine_tune(
            make_past(panel, np.array([240, 240])), config=QUICK
        )
        past = Past(panel, series=np.array([0, 1, 1]), cutoff=np.array([240, 240, 200]))
        forecasters.append(everything_learnt(forecaster))
        forecasts.append(forecaster.predict(past, 6, QUANTILES).values.tobytes())
        seasons.append(resolve_season(WindowConfig(), make_past(panel, np.array([240, 240]))))
    assert forecasters[0] == forecasters[1]
    assert forecasts[0] == forecasts[1]
    assert seasons[0] == seasons[1]


def test_changing_a_reading_before_the_cutoff_does_change_the_weights() -> None:
    readings = wave(300, season=12)
    changed = readings.copy()
    changed[150] += 3
    assert everything_learnt(fit(make_panel(readings), 180, 240)) != everything_learnt(
        fit(make_panel(changed), 180, 240)
    )


def test_validation_readings_decide_when_to_stop_but_do_not_touch_scaling() -> None:
    readings = wave(300, season=12)
    changed = readings.copy()
    changed[180:240] *= 50
    plain, other = (fit(make_panel(x), 180, 240).network for x in (readings, changed))
    assert torch.equal(plain.center, other.center)
    assert torch.equal(plain.scale, other.scale)


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    panel = make_panel(wave(300))
    same = [everything_learnt(forecaster) for forecaster in (fitted(), fit(panel, 180, 240))]
    other = everything_learnt(fit(panel, 180, 240, config=dataclasses.replace(QUICK, seed=1)))
    assert same[0] == same[1]
    assert same[0] != other


def test_fitting_leaves_torchs_own_state_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    fit(make_panel(wave(300)), 180, 240, config=dataclasses.replace(QUICK, threads=1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_random_walk_is_forecast_as_well_as_by_its_last_value() -> None:
    panel = make_panel(*(random_walk(900, seed=s) for s in range(6)))
    spec = make_spec(lookback=48, horizon=8, season=1, n_series=6, segment=8)
    forecaster = fit(panel, 600, 750, spec=spec, network=NetworkConfig(hidden=32))
    rows = np.arange(750, 892)
    past = Past(panel, series=np.repeat(np.arange(6), len(rows)), cutoff=np.tile(rows, 6))
    truth = np.concatenate([panel.of(s)[rows] for s in range(6)])
    last = np.concatenate([panel.of(s)[rows - 1] for s in range(6)])
    error = np.abs(forecaster.predict(past, 8, QUANTILES).point[:, 0] - truth).mean()
    assert error < 1.1 * np.abs(last - truth).mean()


def test_a_season_is_learnt() -> None:
    panel = make_panel(wave(600, season=12, noise=0.1))
    forecaster = fit(panel, 400, 500)
    past = make_past(panel, np.array([560]))
    forecast = forecaster.predict(past, 6, QUANTILES)
    assert np.abs(forecast.point[0] - panel.target[560:566]).max() < 1.0


def test_prediction_does_not_depend_on_how_origins_are_batched() -> None:
    panel = make_panel(wave(300), wave(300, seed=1))
    forecaster = fitted(2)
    rows = np.arange(100, 240)
    past = Past(panel, series=np.repeat([0, 1], len(rows)), cutoff=np.tile(rows, 2))
    together = forecaster.predict(past, 6, QUANTILES).values
    alone = [forecaster.predict(past.subset(slice(i, i + 1)), 6, QUANTILES).values for i in (0, 99)]
    assert np.allclose(together[[0, 99]], np.concatenate(alone), atol=1e-4)


def test_a_shorter_horizon_is_the_beginning_of_the_whole() -> None:
    panel = make_panel(wave(300))
    forecaster = fitted()
    whole = forecaster.predict(make_past(panel), 6, QUANTILES).values
    assert np.array_equal(forecaster.predict(make_past(panel), 2, QUANTILES).values, whole[:, :2])


def test_a_series_that_was_never_seen_is_forecast() -> None:
    # The member in the series' units learns those of a stranger from one window in sixteen.
    config = dataclasses.replace(QUICK, epochs=8)
    forecaster = fit(make_panel(wave(600, season=12)), 400, 500, config=config)
    stranger = dataclasses.replace(
        make_panel(1000 + 40 * (wave(200, season=12, seed=9) - 20)), names=("new",)
    )
    forecast = forecaster.predict(make_past(stranger, np.array([180])), 6, QUANTILES)
    assert np.abs(forecast.point[0] - stranger.target[180:186]).max() < 80


def test_a_forecast_does_not_depend_on_the_names_beside_it() -> None:
    panel = make_panel(wave(300), wave(300, seed=1))
    forecaster = fitted(2)
    both = forecaster.predict(make_past(panel), 6, QUANTILES).values
    turned = forecaster.predict(make_past(panel.select(np.array([1, 0]))), 6, QUANTILES).values
    assert np.allclose(both[::-1], turned, atol=1e-5)


def test_restoring_gives_the_same_forecasts() -> None:
    panel = make_panel(wave(300))
    forecaster = fitted()
    restored = RNNForecaster.restore(
        forecaster.network.spec,
        forecaster.network.config,
        names=forecaster.names,
        weights=forecaster.tensors(),
        self_test=forecaster.self_test(),
    )
    past = make_past(panel)
    before, after = (f.predict(past, 6, QUANTILES).values for f in (forecaster, restored))
    assert np.array_equal(before, after)


def test_a_model_that_computes_something_else_fails_its_self_test() -> None:
    forecaster = fitted()
    stored = forecaster.self_test()
    stored["output"][0] += 0.1
    with pytest.raises(ModelError, match="self-test"):
        RNNForecaster.restore(
            forecaster.network.spec,
            forecaster.network.config,
            names=forecaster.names,
            weights=forecaster.tensors(),
            self_test=stored,
        )


def test_series_with_gaps_can_be_learnt_and_forecast() -> None:
    readings = wave(400, season=12)
    readings[::7] = np.nan
    readings[100:140] = np.nan
    forecaster = fit(make_panel(readings), 280, 340)
    forecast = forecaster.predict(make_past(make_panel(readings)), 6, QUANTILES)
    assert np.isfinite(forecast.values).all()


def test_a_series_too_young_to_train_on_starts_from_its_own_pattern() -> None:
    old, young = wave(600, season=12), wave(600, season=12)
    phase = np.roll(young, 6)  # what the network has learnt of the other is wrong for this one
    phase[:440] = np.nan
    panel = make_panel(old, phase)
    forecaster = fit(panel, 450, 540)
    assert forecaster.new_series == (1,)
    later = make_past(panel, np.array([540, 540]))
    learnt = forecaster.fine_tune(later, config=QUICK)
    errors = [
        np.abs(f.predict(later, 6, QUANTILES).point[1] - panel.target[1140:1146]).mean()
        for f in (forecaster, learnt)
    ]
    assert errors[1] < 0.3 * errors[0]


def test_a_training_that_begins_from_another_network_begins_where_that_one_is() -> None:
    panel = make_panel(wave(300), wave(300, seed=1))
    first = fitted(2)
    ends, still = np.full(2, 180), dataclasses.replace(QUICK, steps=1, learning_rate=1e-9)
    again = RNNForecaster.fit(
        make_past(panel, ends),
        make_past(panel, ends + 60),
        spec=first.network.spec,
        network=SMALL,
        config=still,
        start=first,
    )
    past = make_past(panel)
    before, after = (f.predict(past, 6, QUANTILES).values for f in (first, again))
    assert np.allclose(before, after, atol=1e-4)
    kept = [first.log.members[i].epochs for i in first.log.selected]
    for own, learnt in zip(again.log.members, kept, strict=True):
        best = min(epoch.validation_loss for epoch in learnt)
        assert own.epochs[0].validation_loss == pytest.approx(best, rel=1e-4)


def test_a_known_series_without_windows_keeps_what_was_learnt_of_it() -> None:
    old, gone = wave(600, season=12), wave(600, season=12, seed=3)
    first = fit(make_panel(old, gone), 400, 500)
    gone[:] = np.nan
    gone[430:438] = 20 + np.arange(8)
    panel = dataclasses.replace(make_panel(old, gone, gone), names=("s0", "s1", "new"))
    again = RNNForecaster.fit(
        make_past(panel, np.full(3, 450)),
        make_past(panel, np.full(3, 550)),
        spec=dataclasses.replace(first.network.spec, n_series=3),
        network=SMALL,
        config=QUICK,
        start=first,
    )
    assert again.names == ("s0", "s1", "new")
    assert again.new_series == (2,)
    assert np.isfinite(again.predict(make_past(panel), 6, QUANTILES).values[0]).all()


def test_a_series_that_never_changes_is_forecast_as_it_is() -> None:
    panel = make_panel(wave(300), np.full(300, 5.1))
    forecaster = fit(panel, 180, 240).fine_tune(make_past(panel), config=QUICK)
    values = forecaster.predict(make_past(panel), 6, QUANTILES).values[1]
    assert np.array_equal(values, np.full_like(values, 5.1))
    moved = make_panel(wave(300), np.append(np.full(299, 5.1), 6.0))
    spread = np.ptp(forecaster.predict(make_past(moved), 6, QUANTILES).values[1], axis=-1)
    assert (spread > 0).all()


def test_one_reading_has_a_band_as_wide_as_its_series() -> None:
    panel = make_panel(wave(600, season=12))
    forecaster = fit(panel, 400, 500, config=dataclasses.replace(QUICK, epochs=4))
    one = dataclasses.replace(panel, target=np.append(np.full(599, np.nan), 20).astype(np.float32))
    bands = [
        np.ptp(forecaster.predict(make_past(p), 6, (0.1, 0.5, 0.9)).values, axis=-1).mean()
        for p in (panel, one)
    ]
    assert bands[1] > 1.3 * bands[0]


def test_an_unknown_series_with_two_readings_is_not_forecast() -> None:
    forecaster = fitted()
    strangers = make_panel([1.0, 2.0], [1.0, 2.0, 3.0])
    strangers = dataclasses.replace(strangers, names=("two", "three"))
    values = forecaster.predict(make_past(strangers), 6, QUANTILES).values
    assert np.isnan(values[0]).all()
    assert np.isfinite(values[1]).all()


def test_a_base_is_added_to_what_is_forecast() -> None:
    panel = make_panel(wave(300))
    raised = dataclasses.replace(panel, base=np.array([1e8]))
    forecaster = fitted()
    low, high = (forecaster.predict(make_past(p), 6, QUANTILES).values for p in (panel, raised))
    assert np.abs(high - 1e8 - low).max() < 1e-6


@pytest.mark.parametrize("n_series", [1, 3, 40])
def test_the_bytes_of_a_forecast_do_not_depend_on_the_number_of_processors(
    n_series: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor on how many batches are forecast at once."""
    monkeypatch.setattr(forecasters, "_BATCH_ORIGINS", 16)
    members = (MemberSpec(168, 24, linear=True, seasonal=False),)
    spec = make_spec(n_series=n_series, lookback=168, members=members)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(spec, NetworkConfig(hidden=64))
    panel = make_panel(*(wave(300, seed=seed) for seed in range(n_series)))
    forecaster = RNNForecaster(network.eval(), panel.names)
    n_threads, values = torch.get_num_threads(), set()
    try:
        for n in (1, 2, 3, 4, 8):
            torch.set_num_threads(n)
            values.add(forecaster.predict(make_past(panel), 6, QUANTILES).values.tobytes())
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(n_threads)
    assert len(values) == 1
