"""Windows to look at are chosen by rank, not by looks."""

from __future__ import annotations

import numpy as np

from rnnforecast.evaluate.backtest import ErrorUnits, Round, Truth, evaluate, select_examples
from rnnforecast.evaluate.baselines import SeasonalNaive, naive
from tests.builders import make_panel, wave
from tests.evaluate.test_backtest import DAY, HORIZON, LOOKBACK, rolling


def chosen(*series):
    panel = make_panel(*series)
    rounds = [Round(rolling(panel), {"it": SeasonalNaive(DAY), "naive": naive()})]
    truth = Truth(panel, HORIZON)
    tallies = evaluate(rounds, truth, ErrorUnits(DAY, np.ones(len(series))), lookback=LOOKBACK)
    found = select_examples(
        rounds[0].forecasters["it"],
        rounds[0].origins,
        truth,
        tallies,
        method="it",
        baseline="naive",
        lookback=LOOKBACK,
    )
    return panel, found


def test_of_many_series_they_are_the_best_a_middle_and_the_worst() -> None:
    _, found = chosen(
        *(wave(300, noise=noise, seed=i) for i, noise in enumerate((2, 0.1, 6, 1, 4)))
    )

    assert [(one.kind, one.forecast.names[0]) for one in found] == [
        ("best", "s1"),
        ("typical", "s0"),
        ("worst", "s2"),
    ]


def test_the_window_of_a_series_is_the_one_with_its_median_error() -> None:
    panel, found = chosen(*(wave(300, noise=noise, seed=i) for i, noise in enumerate((2, 0.1, 6))))

    worst = found[2]
    every = next(rolling(panel).parts(10_000))
    own = every.subset(every.series == 2)
    made = SeasonalNaive(DAY).predict(own, HORIZON, (0.1, 0.5, 0.9))
    errors = np.abs(Truth(panel, HORIZON).after(own) - made.point).mean(1)
    mine = np.abs(worst.actual - worst.forecast.point).mean()
    assert np.sort(errors)[round(0.5 * (len(errors) - 1))] == mine


def test_of_one_series_they_are_its_best_its_median_and_its_worst_window() -> None:
    _, found = chosen(wave(300, noise=2.0))

    errors = [float(np.abs(one.actual - one.forecast.point).mean()) for one in found]
    assert [one.of for one in found] == ["window"] * 3
    assert errors == sorted(errors)
    assert errors[0] < errors[2]


def test_a_window_is_found_however_few_hold_a_reading() -> None:
    """In most there is nothing to see or to hold a forecast against."""
    series = wave(6000, noise=1.0)
    series[70:5000] = np.nan
    series[5007:] = np.nan

    _, found = chosen(series)

    assert [one.kind for one in found] == ["best", "typical", "worst"]
    for one in found:
        assert one.past.observed_share(LOOKBACK)[0] > 0
        assert np.isfinite(one.actual).any()


def test_without_a_window_there_is_nothing_to_look_at() -> None:
    assert chosen(wave(110))[1] == ()
