"""Which series get a forecast: by the network, by a fallback, or none at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from rnnforecast.data.forecast import Forecast
from rnnforecast.data.windows import Past, make_past
from rnnforecast.evaluate.baselines import SeasonalNaive, naive
from rnnforecast.evaluate.postprocess import (
    Fallback,
    FallbackForecast,
    predict_with_fallback,
    warnings_of,
)
from rnnforecast.spec import QUANTILES
from tests.builders import make_panel, wave

NAN = np.nan
SEASON, LEAST, LOOKBACK, HORIZON = 4, 8, 12, 6
WHOLE, HALF, SHORT, OLD, EMPTY = range(5)


@dataclass(frozen=True)
class Constant:
    """A stand-in for the network: 100 for every origin, whatever it has seen."""

    value: float = 100.0

    def predict(self, past: Past, horizon: int, quantiles: Sequence[float]) -> Forecast:
        forecast = naive().predict(past, horizon, quantiles)
        values = np.full_like(forecast.values, self.value)
        return replace(forecast, values=values)


@pytest.fixture
def past() -> Past:
    """A series with a whole look-back, half of one, less, none but older readings, and nothing."""
    return make_past(
        make_panel(
            wave(12),
            [1.0, 2.0, 3.0, 4.0],
            [1.0, 2.0, 3.0],
            [5.0, 6.0, *[NAN] * LOOKBACK],
            [NAN, NAN],
        )
    )


def predicted(
    past: Past, *fallbacks: str, quantiles: Sequence[float] = QUANTILES
) -> FallbackForecast:
    rule = Fallback(LOOKBACK, LEAST, SEASON, fallbacks)
    return predict_with_fallback(Constant(), past, HORIZON, quantiles, rule)


def test_without_fallbacks_the_network_forecasts_all_that_have_a_reading_to_go_by(
    past: Past,
) -> None:
    found = predicted(past)

    assert found.forecast.names == ("s0", "s1", "s2")
    assert (found.forecast.values == 100).all()
    assert found.forecast.source is None
    assert (found.left_out, found.short_history, found.fallback) == (("s3", "s4"), ("s2",), ())


def test_with_fallbacks_less_than_half_a_look_back_goes_to_the_first_method() -> None:
    old = [*wave(9, season=SEASON), *[NAN] * LOOKBACK]
    past = make_past(make_panel(wave(12), [1.0, 2.0, 4.0], old, [NAN]))
    for methods, baseline, name in (
        (("seasonal-naive", "naive"), SeasonalNaive(SEASON), "seasonal_naive"),
        (("naive", "seasonal-naive"), naive(), "naive"),
    ):
        found = predicted(past, *methods)

        expected = baseline.predict(past, HORIZON, QUANTILES).values[2]
        np.testing.assert_array_equal(found.forecast.values[2], expected)
        assert found.forecast.source == ("network", "naive", name)
        assert (found.left_out, found.short_history, found.fallback) == (("s3",), (), ("s1", "s2"))


def test_older_readings_of_a_look_back_are_enough_without_fallbacks_and_too_old_with_them() -> None:
    old = [*wave(LEAST // 2 - 1, season=SEASON), *[NAN] * (LOOKBACK - LEAST // 2 + 1)]
    past = make_past(make_panel(old))

    without, with_naive = predicted(past), predicted(past, "naive")

    assert (without.short_history, without.fallback) == (("s0",), ())
    assert (with_naive.short_history, with_naive.fallback) == ((), ("s0",))


def test_a_method_that_cannot_tell_its_band_gives_way_to_the_next(past: Past) -> None:
    found = predicted(past, "seasonal-naive", "naive")

    assert found.forecast.source == ("network", "network", "naive", "naive")
    alone = predicted(past, "seasonal-naive")
    assert alone.left_out == ("s2", "s3", "s4")
    assert (np.ptp(found.forecast.values[2], axis=-1) > 0).all()


def test_a_fallback_that_is_no_naive_method_is_given_by_name(past: Past) -> None:
    rule = Fallback(LOOKBACK, LEAST, SEASON, ("expert", "naive"))

    for value, source in ((7.0, "expert"), (NAN, "naive")):
        found = predict_with_fallback(
            Constant(),
            past,
            HORIZON,
            QUANTILES,
            rule,
            extra_forecasters={"expert": Constant(value)},
        )
        assert found.forecast.source == ("network", "network", source, source)
        assert value != 7 or (found.forecast.values[2:] == 7).all()
        assert found.left_out == ("s4",)


def test_a_fallback_touches_no_series_that_the_network_can_forecast(past: Past) -> None:
    found = predicted(past, "seasonal-naive", "naive")

    assert (found.forecast.values[[WHOLE, HALF]] == 100).all()


def test_a_series_without_any_reading_is_left_out_whatever_the_fallbacks(past: Past) -> None:
    found = predicted(past.subset(np.array([EMPTY, WHOLE])), "seasonal-naive", "naive")

    assert found.forecast.names == ("s0",)
    assert found.left_out == ("s4",)


def test_a_series_that_the_network_answers_with_nan_is_left_out(past: Past) -> None:
    found = predict_with_fallback(
        Constant(NAN), past, HORIZON, QUANTILES, Fallback(LOOKBACK, LEAST, SEASON)
    )

    assert found.forecast.names == ()
    assert found.left_out == ("s0", "s1", "s2", "s3", "s4")
    assert found.short_history == ()


def test_every_forecast_that_is_returned_is_finite_and_has_the_quantiles_asked_for(
    past: Past,
) -> None:
    levels = (0.1, 0.5, 0.9)

    found = predicted(past, "naive", quantiles=levels)

    assert found.forecast.quantiles == levels
    assert np.isfinite(found.forecast.values).all()
    expected = naive().predict(past, HORIZON, levels).values[SHORT]
    np.testing.assert_array_equal(found.forecast.values[SHORT], expected)


def test_rows_keep_their_order_and_cutoffs(past: Past) -> None:
    order = np.array([OLD, WHOLE, EMPTY, SHORT])

    found = predicted(past.subset(order), "naive")

    kept = past.subset(np.array([OLD, WHOLE, SHORT]))
    assert found.forecast.names == ("s3", "s0", "s2")
    np.testing.assert_array_equal(found.forecast.cutoff_us, kept.cutoff_time)


def test_each_kind_of_lack_is_one_warning_that_names_and_counts_the_series(past: Past) -> None:
    without = warnings_of(predicted(past), least_history=LEAST)
    with_fallback = warnings_of(predicted(past, "naive"), least_history=LEAST)

    assert [(w.code, w.count) for w in without] == [("left-out", 2), ("short-history", 1)]
    assert [(w.code, w.count) for w in with_fallback] == [("left-out", 1), ("fallback", 2)]
    assert without[0].message.endswith(": s3, s4")
    assert "half of 8 readings" in without[1].message
    assert warnings_of(predicted(past.subset(np.array([WHOLE]))), least_history=LEAST) == []


def test_a_long_list_of_series_is_cut_short_in_a_warning() -> None:
    past = make_past(make_panel(*[[1.0]] * 7))

    (warning,) = warnings_of(predicted(past), least_history=LEAST)

    assert warning.message.endswith(": s0, s1, s2, s3, s4, ...")
    assert warning.count == 7


def test_what_the_network_cannot_forecast_goes_to_a_fallback_or_is_left_out(past: Past) -> None:
    prediction = predict_with_fallback(
        Constant(NAN), past, HORIZON, QUANTILES, Fallback(LOOKBACK, LEAST, SEASON)
    )
    assert prediction.left_out == past.names
    rule = Fallback(LOOKBACK, LEAST, SEASON, ("naive",))
    filled = predict_with_fallback(Constant(NAN), past, HORIZON, QUANTILES, rule)
    assert filled.fallback == past.names[:-1]
