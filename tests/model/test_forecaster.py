"""The forecaster: causality, repeatability, seeds, strangers, and what every forecast holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from rnnforecast.config.training import NetworkConfig, TrainConfig
from rnnforecast.data.panel import Panel
from rnnforecast.data.season import Seasons, find_seasons
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import ModelError
from rnnforecast.model import fitting
from rnnforecast.model import forecaster as forecasters
from rnnforecast.model.forecaster import RNNForecaster, constant_phases
from rnnforecast.spec import BUILTIN, QUANTILES, MemberSpec, NetworkSpec
from tests.builders import make_panel, make_spec, random_walk, wave
from tests.model.fitting import short_epochs
from tests.model.networks import draw_network

SMALL = MemberSpec("gru", 4, 1, 8)
MEMBERS = (SMALL, replace(SMALL, cell="lstm", segment=4))
QUICK = TrainConfig(steps=6, batch_size=8, threads=1)
DAY = Seasons(24)
N = 240


@pytest.fixture(autouse=True, scope="module")
def epochs_are_short() -> Iterator[None]:
    with short_epochs():
        yield


def fit(
    panel: Panel,
    train_until: int = 150,
    validation_until: int = 200,
    *,
    members: tuple[MemberSpec, ...] = MEMBERS,
    spec: NetworkSpec | None = None,
    common: Seasons | None = None,
    **options: object,
) -> RNNForecaster:
    ends = np.ones(panel.n_series, np.int64)
    return fitting.fit(
        make_past(panel, train_until * ends),
        make_past(panel, validation_until * ends),
        spec=spec or make_spec(season=24, n_series=panel.n_series, members=members),
        network=NetworkConfig(),
        common=common,
        **{"config": QUICK, **options},
    )


@cache
def fitted(n_series: int = 1) -> RNNForecaster:
    """Fit once to the waves of these seeds; not to be changed."""
    return fit(make_panel(*(wave(N, seed=seed) for seed in range(n_series))))


@cache
def builtin(n_series: int = 1, *, lookback: int = 96, horizon: int = 6) -> RNNForecaster:
    """Fit to the same waves, but for one step that changes nothing: the built-in weights."""
    panel = make_panel(*(wave(N, seed=seed) for seed in range(n_series)))
    spec = make_spec(lookback, horizon, 24, n_series, members=(replace(BUILTIN, is_trained=True),))
    config = replace(QUICK, steps=1, learning_rate=1e-9)
    return fit(panel, spec=spec, config=config)


def weights_of(forecaster: RNNForecaster) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in forecaster.tensors().items()}


def predict(forecaster: RNNForecaster, past: Past) -> np.ndarray:
    return forecaster.predict(past, 6, QUANTILES).values


def at_rows(panel: Panel, rows: np.ndarray) -> Past:
    """Return origins at these rows of each series."""
    n_series = panel.n_series
    return Past(panel, np.repeat(np.arange(n_series), len(rows)), np.tile(rows, n_series))


# What the future cannot change


def test_changing_a_reading_after_the_cutoff_changes_nothing() -> None:
    first, second = wave(N, seed=1), wave(N, seed=2)
    changed = [first.copy(), second.copy()]
    changed[0][200:] = 1e6
    changed[1][200:] = np.nan
    weights, forecasts, seasons = [], [], []
    for panel in (make_panel(first, second), make_panel(*changed)):
        seen = make_past(panel, np.array([200, 200]))
        forecaster = fitting.fine_tune(fit(panel), seen, config=QUICK)
        past = Past(panel, series=np.array([0, 1, 1]), cutoff=np.array([200, 200, 160]))
        weights.append(weights_of(forecaster))
        forecasts.append(predict(forecaster, past).tobytes())
        seasons.append(find_seasons(seen))
    assert weights[0] == weights[1]
    assert forecasts[0] == forecasts[1]
    assert seasons[0] == seasons[1] == (DAY, DAY)


def test_changing_a_reading_before_the_cutoff_does_change_the_weights() -> None:
    readings = wave(N)
    readings[100] += 3
    assert weights_of(fit(make_panel(readings))) != weights_of(fitted())


def test_validation_readings_decide_when_to_stop_but_do_not_touch_statistics() -> None:
    readings = wave(N)
    readings[150:200] *= 50
    network, expected = fit(make_panel(readings)).network, fitted().network
    for name in ("center", "scale", "outlier_threshold", "seasons"):
        assert np.array_equal(getattr(network, name), getattr(expected, name))


# Repeatability


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    panel = make_panel(wave(N))
    assert weights_of(fit(panel)) == weights_of(fitted())
    assert weights_of(fit(panel, config=replace(QUICK, seed=1))) != weights_of(fitted())


def test_fitting_leaves_torchs_own_state_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    fit(make_panel(wave(N)), config=replace(QUICK, steps=1, threads=2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("n_series", [1, 3, 40])
def test_the_bytes_of_a_forecast_do_not_depend_on_the_number_of_processors(
    n_series: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor on how series are divided into batches."""
    panel = make_panel(*(wave(N, seed=seed) for seed in range(n_series)))
    spec = make_spec(96, season=24, n_series=n_series, members=(MemberSpec("gru", 32, 1, 8),))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = draw_network(spec)
    network.seasons[1:] = 24, 1
    forecaster, values = RNNForecaster(network, panel.names), set()
    for n_products, size in ((1, 512), (1, 16), (2, 16), (2, 7)):
        monkeypatch.setattr(forecasters, "_BATCH_ORIGINS", size)
        with threadpool_limits(n_products, user_api="blas"):
            for n in (1, 2, 8):
                limited = replace(forecaster, n_threads=n)
                values.add(predict(limited, make_past(panel)).tobytes())
    assert len(values) == 1


def test_restoring_gives_the_same_forecasts() -> None:
    forecaster, past = fitted(), make_past(make_panel(wave(N)))
    restored = RNNForecaster.restore(
        forecaster.network.spec,
        forecaster.network.config,
        names=forecaster.names,
        weights=forecaster.tensors(),
        self_test=forecaster.self_test(),
    )
    assert np.array_equal(predict(restored, past), predict(forecaster, past))


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


# Origins


@pytest.mark.parametrize("size", [1, 7, 512])
def test_a_forecast_does_not_depend_on_other_origins(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = make_panel(wave(N), random_walk(N))
    past = at_rows(panel, np.arange(20, 200, 15))
    together = predict(fitted(2), past)
    monkeypatch.setattr(forecasters, "_BATCH_ORIGINS", size)
    order = np.random.default_rng(0).permutation(past.n_origins)
    values = predict(fitted(2), past.subset(order))
    np.testing.assert_allclose(values, together[order], rtol=1e-4, atol=1e-4)


def test_a_forecast_does_not_depend_on_the_names_beside_it() -> None:
    panel = make_panel(wave(N), wave(N, seed=1))
    both = predict(fitted(2), make_past(panel))
    turned = predict(fitted(2), make_past(panel.select(np.array([1, 0]))))
    np.testing.assert_allclose(both[::-1], turned, atol=1e-5)


def test_a_shorter_horizon_is_the_beginning_of_the_whole() -> None:
    past = make_past(make_panel(wave(N)))
    values = predict(fitted(), past)
    assert np.array_equal(fitted().predict(past, 2, QUANTILES).values, values[:, :2])


def test_quantiles_do_not_cross_and_those_between_are_interpolated() -> None:
    past = at_rows(make_panel(wave(N, noise=2.0)), np.arange(50, 200, 10))
    values = fitted().predict(past, 6, (0.1, 0.15, 0.2, 0.5, 0.975)).values
    assert (np.diff(values, axis=-1) >= 0).all()
    assert ((values[..., 1] >= values[..., 0]) & (values[..., 1] <= values[..., 2])).all()


# Series


def test_a_season_and_a_random_walk_are_forecast_by_built_in_weights() -> None:
    n_walks = 12
    walks = [random_walk(N, seed=s) for s in range(n_walks)]
    panel = make_panel(wave(N), *walks)
    panel = replace(panel, names=("s0", *(f"walk{i}" for i in range(n_walks))))
    rows = np.arange(120, 230, 10)
    past = at_rows(panel, rows)
    series = range(panel.n_series)
    actual = np.concatenate([[panel.of(s)[r : r + 6] for r in rows] for s in series])
    errors = np.abs(builtin().predict(past, 6, QUANTILES).point - actual).mean(1)
    assert errors[: len(rows)].max() < 0.5
    last = np.concatenate([panel.of(s)[rows - 1] for s in series])[:, None]
    naive = np.abs(last - actual).mean(1)
    assert errors[len(rows) :].mean() < 1.1 * naive[len(rows) :].mean()


def test_hours_at_which_nothing_ever_happens_are_forecast_as_they_are() -> None:
    rows = np.arange(24 * 20)
    rng = np.random.default_rng(0)
    sun = np.maximum(np.sin(2 * np.pi * (rows % 24 - 6) / 24), 0) * rng.uniform(0.5, 1.5, len(rows))
    panel = make_panel(np.where(np.abs(sun) < 1e-9, 0, 100 * sun))
    past, night = make_past(panel), [0, 1, 2, 3, 4, 20, 21, 22, 23]
    made = RNNForecaster.untrained(past, lookback=400, horizon=24, seasons=(DAY,)).predict(
        past, 24, QUANTILES
    )

    assert (made.values[0, night] == 0).all()
    noon = made.values[0, 10:15]
    assert (noon[:, 0] < noon[:, -1]).all()


def test_constant_phases_are_those_of_a_slow_obvious_reference() -> None:
    rng = np.random.default_rng(1)
    readings = rng.integers(0, 2, (40, 130)).astype(np.float32)
    readings[:, ::10] = readings[:, 1::10] = 3  # ten rows a season, two or three of them still
    readings[20:, 2::10] = 3
    readings[rng.random(readings.shape) < 0.2] = np.nan
    periods = [10, 1, 40, 5] * 10
    seasons = [Seasons(period) for period in periods]

    still, levels = constant_phases(readings, seasons, 25)
    for window, lead in np.ndindex(still.shape):
        period, expected = periods[window], True
        n_seasons = min(130 // period, 14)
        if period < 4 or n_seasons < 5:
            assert not still[window, lead]
            continue
        around = []
        for row in range(lead - 1, lead + 2):
            past_rows = [130 - k * period + row % period for k in range(1, n_seasons + 1)]
            seen = [x for x in readings[window, past_rows].tolist() if not np.isnan(x)]
            around += seen
            expected &= row != lead or len(seen) >= 5
        expected &= len(set(around)) == 1
        assert still[window, lead] == expected
        assert not expected or levels[window, lead] == around[0]
    assert 0 < still.sum() < still.size


@pytest.mark.parametrize(("lookback", "horizon"), [(320, 16), (320, 40), (100, 24)])
def test_earlier_forecasts_are_those_of_the_readings_before_them(
    lookback: int, horizon: int
) -> None:
    panel = make_panel(wave(700), random_walk(700))
    past = make_past(panel)
    seasons = (Seasons(24), Seasons())

    def untrained(n_rows: int) -> RNNForecaster:
        return RNNForecaster.untrained(past, lookback=n_rows, horizon=horizon, seasons=seasons)

    values, ago = untrained(lookback).predict_earlier(past, horizon, 4)
    assert (np.diff(ago) >= 16).all() and ago[0] >= 16
    for number, rows in enumerate(ago.tolist()):
        if rows > lookback / 2:
            assert np.isnan(values[:, number]).all()
            continue
        before = make_past(panel, past.cutoff - rows)
        alone = untrained(lookback - rows).predict(before, horizon, QUANTILES).values
        np.testing.assert_allclose(values[:, number], alone, rtol=1e-3, atol=1e-3)


def test_an_unknown_series_is_forecast_as_a_known_one_in_its_own_units() -> None:
    past = at_rows(make_panel(wave(N) - 50), np.arange(150, 230, 10))
    panel = replace(make_panel(1000 * (wave(N) - 50)), names=("new",))
    known = predict(builtin(), past)
    unknown = predict(builtin(), at_rows(panel, past.cutoff))
    np.testing.assert_allclose(unknown / 1000, known, atol=0.02)


def test_unknown_series_have_the_seasons_that_are_found_or_those_that_were_told() -> None:
    past = make_past(replace(make_panel(random_walk(700)), names=("new",)))
    entries = np.zeros(1, np.int64)
    assert builtin()._seasons(past, entries) == find_seasons(past) == (Seasons(),)
    assert builtin()._seasons(past, np.ones(1, np.int64)) == (DAY,)

    weekly = Seasons(24, 168)
    forecaster = fit(make_panel(wave(N)), common=weekly, config=replace(QUICK, steps=1))
    assert forecaster.network.common_seasons == weekly
    assert forecaster._seasons(past, entries) == (weekly,)
    restored = RNNForecaster(forecaster.network, forecaster.names)
    assert np.array_equal(predict(restored, past), predict(forecaster, past))


def test_two_common_seasons_forecast_a_week_of_days() -> None:
    rows = np.arange(24 * 7 * 4)
    weekend = rows // 24 % 7 >= 5
    readings = np.where(weekend, 10, wave(len(rows), noise=0.0)).astype(np.float32)
    cutoff = 24 * (7 * 3 + 4)  # then come a Friday and a weekend
    past = make_past(make_panel(readings), np.array([cutoff]))
    spec = make_spec(24 * 7 * 3, 48, 24, members=(replace(BUILTIN, is_trained=True),))
    errors = []
    for common in (Seasons(24), Seasons(24, 168)):
        still = replace(QUICK, steps=1, learning_rate=1e-9)
        forecaster = fit(make_panel(readings), 550, 650, spec=spec, common=common, config=still)
        point = forecaster.predict(past, 48, (0.5,)).point[0]
        errors.append(np.abs(point - readings[cutoff : cutoff + 48]).mean())
    assert errors[1] < 0.5 * errors[0]


def test_series_with_gaps_can_be_trained_on_and_forecast() -> None:
    readings = wave(N)
    readings[::7] = np.nan
    readings[60:90] = np.nan
    panel = make_panel(readings)
    values = predict(fit(panel), at_rows(panel, np.arange(5, N, 9)))
    assert np.isfinite(values).all()


def test_spikes_do_not_move_a_forecast() -> None:
    spiked, gapped = wave(N), wave(N)
    spiked[220], gapped[220] = 65_535.0, np.nan
    values = [predict(builtin(), make_past(make_panel(x))) for x in (spiked, gapped)]
    np.testing.assert_allclose(*values, atol=0.01)


def test_a_series_too_young_to_train_on_gets_its_seasons_when_the_network_learns_on() -> None:
    young = wave(N, season=12)
    young[:140] = np.nan
    panel = make_panel(wave(N), young)
    forecaster = fit(panel)
    assert forecaster.new_series == (1,)
    assert forecaster.network.seasons_of(np.array([1, 2]))[0] == DAY
    before = forecaster.network.scale[2]

    later = make_past(panel, np.array([230, 230]))
    tuned = fitting.fine_tune(forecaster, later, config=QUICK)

    assert tuned.network.seasons_of(np.array([1, 2])) == (DAY, find_seasons(later)[1])
    assert tuned.network.scale[2] != before
    assert tuned.network.scale[1] == forecaster.network.scale[1]


def test_a_series_that_never_changes_is_forecast_as_it_is() -> None:
    panel = make_panel(wave(N), np.full(N, 5.1))
    forecaster = fitting.fine_tune(fit(panel), make_past(panel), config=QUICK)
    values = predict(forecaster, make_past(panel))[1]
    assert np.array_equal(values, np.full_like(values, 5.1))
    moved = make_panel(wave(N), np.append(np.full(N - 1, 5.1), 6.0))
    assert (np.ptp(predict(forecaster, make_past(moved))[1], axis=-1) > 0).all()


@pytest.mark.parametrize("name", ["s0", "new"])
def test_fewer_than_three_readings_are_not_forecast(name: str) -> None:
    for n in range(5):
        readings = np.full(N, np.nan)
        readings[N - n :] = 20 + np.arange(n)
        values = predict(fitted(), make_past(replace(make_panel(readings), names=(name,))))
        assert np.isfinite(values).all() if n >= 3 else np.isnan(values).all()


def test_a_short_history_is_forecast_with_a_wider_band() -> None:
    readings = wave(N, noise=1.0)
    short = readings.copy()
    short[: N - 5] = np.nan
    bands = [
        np.ptp(predict(builtin(), make_past(make_panel(x))), axis=-1).mean()
        for x in (readings, short)
    ]
    assert bands[1] > 1.3 * bands[0]


def test_a_base_is_added_to_what_is_forecast() -> None:
    panel = make_panel(wave(N))
    raised = replace(panel, base=np.array([1e8]))
    low, high = (predict(fitted(), make_past(p)) for p in (panel, raised))
    assert np.abs(high - 1e8 - low).max() < 1e-6


def test_without_origins_there_are_no_forecasts() -> None:
    past = make_past(make_panel(wave(N))).subset(np.empty(0, np.int64))
    assert predict(fitted(), past).shape == (0, 6, len(QUANTILES))


# From another network


def test_a_training_that_begins_from_another_network_begins_where_that_one_is() -> None:
    panel = make_panel(wave(N), wave(N, seed=1))
    first = fitted(2)
    again = fit(
        panel,
        spec=first.network.spec,
        config=replace(QUICK, steps=1, learning_rate=1e-9),
        start=first,
    )
    past = make_past(panel)
    history = [f.predict(past, 6, QUANTILES).values for f in (first, again)]
    if again.network.spec.shares == first.network.spec.shares:
        np.testing.assert_allclose(*history, atol=1e-4)
    for before, after in zip(first.network.members, again.network.members, strict=True):
        for name, weight in before.tensors.items():
            np.testing.assert_allclose(after.tensors[name], weight, rtol=1e-5, atol=1e-5)


def test_a_known_series_without_windows_is_no_new_one() -> None:
    gone = np.full(N, np.nan)
    gone[140:148] = 20 + np.arange(8)
    panel = replace(make_panel(wave(N), gone, gone), names=("s0", "s1", "new"))
    spec = replace(fitted(2).network.spec, n_series=3)
    again = fit(panel, spec=spec, start=fitted(2))
    assert again.names == ("s0", "s1", "new")
    assert again.new_series == (2,)
    assert np.isfinite(predict(again, make_past(panel))[0]).all()


def test_a_network_of_another_spec_is_no_start() -> None:
    with pytest.raises(ModelError, match="horizon is 5, not 6"):
        fit(make_panel(wave(N)), spec=replace(fitted().network.spec, horizon=5), start=fitted())


# Fine-tuning


def test_fine_tuning_takes_a_quarter_of_the_steps_and_leaves_the_first_network_as_it_was() -> None:
    forecaster = fitted(2)
    before = weights_of(forecaster)
    panel = make_panel(wave(N), wave(N, seed=1))
    tuned = fitting.fine_tune(forecaster, make_past(panel), config=QUICK)
    assert forecaster.log is not None
    best = [each.kept_steps for each in forecaster.log.of_selected]
    assert tuned.fine_tune_steps == tuple(round(steps / 4) for steps in best)
    assert weights_of(forecaster) == before != weights_of(tuned)


def test_a_training_that_only_harms_ends_in_the_built_in_weights() -> None:
    spec = make_spec(96, season=24, members=(replace(BUILTIN, is_trained=True), BUILTIN))
    harmful = dataclasses.replace(QUICK, steps=4, learning_rate=10.0)
    forecaster = fit(make_panel(wave(N)), spec=spec, config=harmful)
    assert forecaster.log is not None
    assert [each.kept_steps for each in forecaster.log.of_selected] == [0, 0]
    past = at_rows(make_panel(wave(N)), np.arange(150, 230, 20))
    np.testing.assert_allclose(predict(forecaster, past), predict(builtin(), past), atol=1e-4)
