"""Level and spread of each series: robust, and blind to what is missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data import scaling as scalings
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.windows import make_past
from tests.builders import make_panel, wave
from tests.data.tables import few


def fitted(*series: object) -> list[tuple[float, float]]:
    """Fit all of these series: (center, scale) of each."""
    scaling = fit_scaling(make_past(make_panel(*series)))
    return list(zip(scaling.center.tolist(), scaling.scale.tolist(), strict=True))


def test_the_level_is_the_median_and_the_spread_comes_from_the_middle_half():
    readings = wave(500, noise=2)

    center, scale = fitted(readings)[0]

    low, middle, high = np.quantile(readings.astype(float), (0.25, 0.5, 0.75))
    assert center == pytest.approx(middle)
    assert scale == pytest.approx((high - low) / 1.349)


def test_normal_readings_get_their_standard_deviation():
    readings = np.random.default_rng(0).normal(50, 3, 20_000)

    center, scale = fitted(readings)[0]

    assert center == pytest.approx(50, abs=0.1)
    assert scale == pytest.approx(3, rel=0.03)


def test_spikes_hardly_move_it():
    spiked = wave(500)
    spiked[::50] = 1e6

    assert fitted(spiked)[0] == pytest.approx(fitted(wave(500))[0], rel=0.1)


def test_missing_readings_do_not_count():
    readings = wave(300)
    with_gaps = np.insert(readings, [5, 5, 5, 200], np.nan)

    assert fitted(with_gaps) == fitted(readings)


@few
@given(st.floats(0.01, 1000), st.floats(-1000, 1000))
def test_another_unit_scales_and_shifts_it(factor, shift):
    (center, scale), (moved, stretched) = fitted(wave(200), factor * wave(200) + shift)

    size = factor * scale + abs(shift)
    assert moved == pytest.approx(factor * center + shift, abs=1e-5 * size + 1e-5)
    assert stretched == pytest.approx(factor * scale, rel=1e-3, abs=1e-6 * size)


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([7.0], (7, 1)),
        ([7.0] * 100, (7, 1)),
        ([0.0] * 100, (0, 1)),
        ([1e20] * 3, (np.float32(1e20), 1)),
    ],
)
def test_a_series_without_spread_gets_one(readings, expected):
    assert fitted(readings)[0] == expected


@pytest.mark.parametrize("readings", [[], [np.nan] * 5])
def test_a_series_without_readings_has_no_scaling_yet(readings):
    assert np.isnan(fitted(readings)[0]).all()


def test_a_series_that_rests_most_of_the_time_gets_its_standard_deviation():
    readings = np.zeros(100)
    readings[:10] = 5

    assert fitted(readings)[0] == pytest.approx((0, readings.std()))


def test_a_tiny_spread_is_kept():
    center, scale = fitted(1e-9 * wave(200))[0]

    assert scale == pytest.approx(fitted(wave(200))[0][1] * 1e-9, rel=1e-4)
    assert center > 0


def test_each_series_has_its_own():
    assert fitted(wave(100), 10 * wave(100)) == [*fitted(wave(100)), *fitted(10 * wave(100))]


def test_no_series_at_all_give_empty_arrays():
    scaling = fit_scaling(make_past(make_panel([1.0])).subset(slice(0, 0)))

    assert (scaling.center.shape, scaling.scale.shape) == ((0,), (0,))


def test_the_reach_holds_every_usual_reading_and_no_spike():
    spiked = wave(2000, noise=1)
    spiked[::700] = 65_535
    scaling = fit_scaling(make_past(make_panel(spiked, wave(2000, noise=1))))
    distances = np.abs(spiked - scaling.center[0]) / scaling.scale[0]
    assert (distances > scaling.reach[0]).sum() == 3
    assert scaling.reach[0] == pytest.approx(scaling.reach[1], rel=0.1)


def test_readings_that_are_far_but_not_rare_are_within_reach():
    bursts = np.zeros(2000)
    bursts[::50] = 400.0
    scaling = fit_scaling(make_past(make_panel(bursts)))
    assert 400 / scaling.scale[0] < scaling.reach[0]


def fitted_by_a_loop(readings: np.ndarray) -> tuple[float, float, float]:
    """One series after the other, with numpy's own quantiles."""
    sample = readings[:: max(1, len(readings) // scalings._SAMPLE)]
    seen = sample[np.isfinite(sample)].astype(np.float64)
    if not len(seen):
        return (np.nan,) * 3
    low, center, high = np.quantile(seen, (0.25, 0.5, 0.75))
    scale = (high - low) / 1.349
    if scale <= 2e-7 * abs(center):
        scale = seen.std()
    if scale <= 2e-7 * max(abs(center), 1e-30):
        scale = 1.0
    distances, rare = np.sort(np.abs(seen - center) / scale), 1 + len(seen) // 500
    usual = distances[-rare - 1] if len(seen) > rare else 0.0
    return center, scale, 6.0 * max(usual, 3.0)


@pytest.mark.parametrize("sample", [50, 100_000])
def test_many_series_are_fitted_as_each_of_them_is_by_a_loop(sample, monkeypatch):
    """With a sample of 50, longer ones are thinned, each by its own step."""
    monkeypatch.setattr(scalings, "_SAMPLE", sample)
    rng = np.random.default_rng(0)
    series = [rng.normal(5, 2, n) for n in (1, 2, 3, 4, 49, 100, 130, 500, 501, 1700, 1000)]
    series += [np.full(n, 7.1) for n in (1, 5, 200)]
    series += [np.where(rng.random(300) < 0.1, 5.0, 0.0), [], [np.nan] * 70]
    for readings in series[6:11]:
        readings[rng.random(len(readings)) < 0.3] = np.nan
    past = make_past(make_panel(*series))

    found = fit_scaling(past)

    expected = [fitted_by_a_loop(past.readings(i)) for i in range(past.n_origins)]
    together = np.stack([found.center, found.scale, found.reach], axis=1)
    np.testing.assert_array_equal(together, np.array(expected, np.float32))
