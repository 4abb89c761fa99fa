"""Readings that left their band: found where they are, and judged without a look ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from rnnforecast.data.forecast import Forecast, normal_scores
from rnnforecast.data.windows import Past
from rnnforecast.evaluate.anomalies import Anomalies, episodes, find_anomalies
from rnnforecast.evaluate.baselines import SeasonalNaive
from rnnforecast.spec import QUANTILES
from tests.builders import HOUR_US, START_US, make_panel, wave

LOOKBACK, STRIDE = 48, 12


def found_in(*series: np.ndarray, at_least: float = 4.0, **options) -> Anomalies:
    panel = make_panel(*series)
    settings = {"lookback": LOOKBACK, "stride": STRIDE, "at_least": at_least, **options}
    return find_anomalies(SeasonalNaive(24), panel, **settings)


def test_a_planted_spike_is_the_most_surprising_reading() -> None:
    readings = wave(400)
    readings[300] += 8
    found = found_in(wave(300, seed=1), readings)

    most = int(np.argmax(found.surprise))
    assert found.names[found.series[most]] == "s1"
    assert found.times_us[most] == START_US + 300 * HOUR_US
    assert found.actual[most] == pytest.approx(readings[300])


def test_every_one_lies_outside_of_its_band_and_is_surprising_enough() -> None:
    found = found_in(wave(400, noise=2.0), at_least=1.5)

    assert len(found.series) > 5
    assert ((found.actual < found.low) | (found.actual > found.high)).all()
    assert (found.surprise >= 1.5).all()
    assert len(found_in(wave(400, noise=2.0), at_least=0.0).series) > len(found.series)


def test_about_a_fifth_leave_the_band_of_a_right_forecast() -> None:
    found = found_in(wave(4000, noise=1.0), at_least=0.0)
    assert len(found.series) / found.n_judged == pytest.approx(0.2, abs=0.03)


def test_what_comes_later_changes_nothing_of_what_was_said() -> None:
    readings = wave(408, noise=2.0)
    other = readings.copy()
    other[300:] = -50
    first, second = (found_in(x, at_least=1.0) for x in (readings, other))

    until = START_US + 300 * HOUR_US
    for name in ("times_us", "actual", "surprise"):
        before = [getattr(one, name)[one.times_us < until] for one in (first, second)]
        np.testing.assert_array_equal(*before)


def test_missing_readings_are_not_judged() -> None:
    readings = wave(400)
    readings[100:130] = np.nan
    found = found_in(readings, at_least=0.0)

    rows = (found.times_us - START_US) // HOUR_US
    assert not set(rows.tolist()) & set(range(100, 130))
    assert found.n_judged == (400 - LOOKBACK) // STRIDE * STRIDE - 30


def test_the_newest_readings_are_judged_and_none_twice() -> None:
    found = found_in(wave(403, noise=2.0), at_least=0.0)

    assert len(set(found.times_us.tolist())) == len(found.times_us)
    spiky = wave(403)
    spiky[-1] += 9
    assert found_in(spiky).times_us.tolist() == [START_US + 402 * HOUR_US]


def test_since_leaves_out_what_was_before_and_nothing_else() -> None:
    readings = wave(403, noise=2.0)
    since = START_US + 301 * HOUR_US
    whole, part = found_in(readings, at_least=0.0), found_in(readings, at_least=0.0, since_us=since)

    kept = whole.times_us >= since
    np.testing.assert_array_equal(part.times_us, whole.times_us[kept])
    np.testing.assert_array_equal(part.surprise, whole.surprise[kept])
    assert part.n_judged == 403 - 301


def test_units_do_not_matter() -> None:
    readings = wave(400, noise=2.0).astype(np.float64)
    first, second = (found_in(x, at_least=1.0) for x in (readings, 8 * readings))

    np.testing.assert_array_equal(first.times_us, second.times_us)
    np.testing.assert_allclose(first.surprise, second.surprise, rtol=1e-3)


def test_a_reading_off_a_band_without_width_is_as_surprising_as_can_be() -> None:
    @dataclass(frozen=True)
    class Flat:
        def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
            values = np.full((past.n_origins, horizon, len(quantiles)), 7, np.float32)
            names = ("s0",) * past.n_origins
            return Forecast(values, tuple(quantiles), names, past.cutoff_time, past.step_us)

    readings = np.full(100, 7.0)
    readings[80] = 7.5
    panel = make_panel(readings)
    found = find_anomalies(Flat(), panel, lookback=LOOKBACK, stride=STRIDE, at_least=4.0)
    assert found.surprise.tolist() == [100.0]


@pytest.mark.parametrize(
    ("off", "surprise"), [(3.0, 5.879892), (2.5, 4.89991), (-0.03, 5.879892), (-1.4, 100.0)]
)
def test_beyond_the_outermost_quantile_surprise_grows_with_the_distance_to_the_median(
    off: float, surprise: float
) -> None:
    """However close the outermost quantiles are to those before them."""
    above = (1 / 8, 1 / 4, 1 / 2, 63 / 64, 1.0)
    levels = np.array([*(-x * 0.01 for x in above[::-1]), 0, *above])  # q2.5 .. q97.5
    found = judged_off(levels, levels, off)
    assert found.surprise.tolist() == pytest.approx([surprise], rel=1e-4)


def test_a_calibration_that_narrows_makes_nothing_surprising() -> None:
    wide = normal_scores(QUANTILES)
    assert len(judged_off(wide, wide, 6.0).surprise)
    assert len(judged_off(0.5 * wide, 0.5 * wide, 3.0).surprise)
    assert not len(judged_off(0.5 * wide, wide, 3.0).surprise)
    assert not len(judged_off(wide, 0.5 * wide, 3.0).surprise)


def judged_off(quantiles: np.ndarray, uncalibrated: np.ndarray, off: float) -> Anomalies:
    """Judge readings of 0, one of which is `off`, by a forecast that is always the same."""

    @dataclass(frozen=True)
    class Fixed:
        def predict(self, past: Past, horizon: int, _levels: Sequence[float]) -> Forecast:
            both = (
                np.tile(x.astype(np.float32), (past.n_origins, horizon, 1))
                for x in (quantiles, uncalibrated)
            )
            names = ("s0",) * past.n_origins
            values, raw = both
            return Forecast(
                values, QUANTILES, names, past.cutoff_time, past.step_us, uncalibrated=raw
            )

    readings = np.zeros(100)
    readings[80] = off
    panel = make_panel(readings)
    return find_anomalies(Fixed(), panel, lookback=LOOKBACK, stride=STRIDE, at_least=4.0)


def test_parts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    series = (wave(300, noise=2.0), wave(410, noise=2.0, seed=1))
    whole = found_in(*series, at_least=1.0)
    monkeypatch.setattr(
        "rnnforecast.evaluate.anomalies.PART_VALUES", 3 * (LOOKBACK + STRIDE * len(QUANTILES))
    )
    assert found_in(*series, at_least=1.0).to_arrow().equals(whole.to_arrow())


def test_neighbours_are_one_episode_and_the_worst_comes_first() -> None:
    readings = wave(400)
    readings[[200, 203, 260]] += [8, 9, 20]
    listed = episodes(found_in(readings, wave(400, seed=1)), max_gap=12)

    spikes = [(one.count, (one.begin_us - START_US) // HOUR_US) for one in listed[:2]]
    assert sorted(spikes) == [(1, 260), (2, 200)]
    assert listed[0].surprise >= listed[1].surprise > 10
    (pair,) = [one for one in listed[:2] if one.count == 2]
    assert pair.end_us == START_US + 203 * HOUR_US


def test_the_rows_have_the_columns_of_the_contract() -> None:
    table = found_in(wave(400, noise=2.0), at_least=1.0).to_arrow()
    assert table.column_names == ["series", "timestamp", "actual", "q10", "q90", "surprise"]
