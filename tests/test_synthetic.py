"""Made-up series: seeded, of many families, and shown as a forecaster would be shown sensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import signals, synthetic
from benchmarks.made_up import examples
from benchmarks.signals import Rows, fading, held, mean_reverting, pattern, pulses, standardise
from benchmarks.synthetic import (
    DISTORTIONS,
    FAMILIES,
    MIN_SHOWN,
    SEASONS,
    Batch,
    Calendar,
    Size,
    composed,
    draw,
    draw_calendar,
    make_series,
    metered,
    shift_work,
    tell,
    unchanged,
)
from rnnforecast.data.season import Seasons

CARD = Path(__file__).parents[1] / "docs" / "concepts" / "builtin.md"
SEGMENT = 16
SIZE = Size(n_series=6, n_context=8, n_ahead=2)
PINNED = (7.46631853, 0.963623046875)
"""Mean absolute value, and the share of steps that are read."""
CALENDARS = [Calendar(Seasons(*periods)) for periods in ((1,), (2,), (7, 365), (24, 168), (1440,))]


def rows(n: int = 5, n_steps: int = 300, seed: int = 0) -> Rows:
    return Rows(np.random.default_rng(seed), n, n_steps)


def drawn(seed: int, size: Size = SIZE) -> Batch:
    return draw(np.random.default_rng(seed), size, SEGMENT)


def test_equal_seeds_give_equal_batches_and_others_differ() -> None:
    first, again, other = drawn(3), drawn(3), drawn(4)

    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.is_shown, again.is_shown)
    assert (first.seasons, first.told) == (again.seasons, again.told)
    assert first.values.shape != other.values.shape or (first.values != other.values).any()


def test_a_version_of_the_generator_stays_as_it_is() -> None:
    """Whoever changes these figures raises VERSION: weights were trained on the series behind."""
    values, is_read = make_series(rows(64, 256, seed=1), Calendar(Seasons(24, 168)))

    assert np.abs(values).mean() == pytest.approx(PINNED[0], rel=1e-6)
    assert is_read.mean() == pytest.approx(PINNED[1], rel=1e-6)


def test_batches_are_finite_and_show_only_what_is_read_before_the_horizon() -> None:
    for seed in range(40):
        batch = drawn(seed)

        assert batch.n_history % SEGMENT == 0
        assert batch.values.shape[1] == batch.n_history + SIZE.n_ahead * SEGMENT
        assert np.isfinite(batch.values).all()
        assert not (batch.is_shown & ~batch.is_read).any()
        assert not batch.is_shown[:, batch.n_history :].any()
        assert (batch.is_shown.sum(1) >= MIN_SHOWN).all()
        assert np.array_equal(np.isfinite(batch.history), batch.is_shown[:, : batch.n_history])
        assert (np.nanstd(batch.history, axis=1) > 0).all()


def test_of_one_series_in_ten_the_newest_readings_have_not_come_yet() -> None:
    def age(flags: np.ndarray, n_history: int) -> np.ndarray:
        return flags[:, n_history - 1 :: -1].argmax(1)

    is_delayed = [
        age(batch.is_shown, batch.n_history) > age(batch.is_read, batch.n_history)
        for batch in map(drawn, range(100))
    ]

    assert 0.05 < np.concatenate(is_delayed).mean() < 0.15


@pytest.mark.parametrize("calendar", CALENDARS, ids=lambda c: f"{c.main}, {c.seasons.long}")
@pytest.mark.parametrize("family", [family for _, family in FAMILIES], ids=lambda f: f.__name__)
def test_a_family_is_finite_and_mostly_not_constant(family, calendar) -> None:
    values = family(rows(n_steps=1500), calendar)

    assert values.shape == (5, 1500)
    assert np.isfinite(values).all()
    assert (values.std(1) > 0).sum() >= 4


@pytest.mark.parametrize("distort", [d for _, d in DISTORTIONS], ids=lambda d: d.__name__)
def test_a_distortion_changes_values_and_keeps_most_rows_from_being_constant(distort) -> None:
    values = standardise(composed(rows(), CALENDARS[3]))

    distorted = distort(rows(seed=1), values)

    assert np.isfinite(distorted).all()
    assert (distorted.std(1) > 0).sum() >= 4
    assert (distorted != values).any() == (distort is not unchanged)


@pytest.mark.parametrize(
    "signal",
    [signal for _, signal in (*signals.NOISES, *signals.TRENDS) if signal != signals.no_trend],
    ids=lambda signal: signal.__name__,
)
def test_noises_and_trends_are_finite_and_vary(signal) -> None:
    values = signal(rows(n_steps=999))

    assert np.isfinite(values).all()
    assert (values.std(1) > 0).all()


@pytest.mark.parametrize("season", [1, 2, 3, 7, 24, 1440])
def test_a_pattern_has_one_cycle_of_mean_0_and_variance_1(season: int) -> None:
    cycles = pattern(rows(60), season)

    assert cycles.shape == (60, season)
    assert cycles.mean(1) == pytest.approx(0, abs=1e-9)
    if season >= 24:  # short ones may have the same value everywhere
        assert cycles.std(1) == pytest.approx(1)


@pytest.mark.parametrize("time", [0.5, 4.0, 30.0])
def test_walks_have_variance_1_and_the_memory_that_they_are_given(time: float) -> None:
    values = mean_reverting(rows(2000, 40), np.full((2000, 1), time))
    spectrum = signals.smooth(rows(2000, 40), np.full((2000, 1), 2.0))

    memory = (values[:, 1:] * values[:, :-1]).mean() / values[:, 1:].var()
    assert values.var(0) == pytest.approx(1, abs=0.15)
    assert memory == pytest.approx(np.exp(-1 / time), abs=0.03)
    assert spectrum.var(0) == pytest.approx(1, abs=0.15)


def test_impulses_fade_as_a_loop_has_it() -> None:
    impulses, share = rows().normal(50), np.array([[0.0], [0.3], [0.9], [0.999], [1.0]])
    expected = impulses.copy()
    for step in range(1, 50):
        expected[:, step] += share[:, 0] * expected[:, step - 1]

    assert fading(impulses, share) == pytest.approx(expected)


def test_each_row_has_one_of_the_signals_by_its_weight() -> None:
    parts = [(weight, lambda some, w=weight: np.full((some.n, 3), w)) for weight in (0.1, 0.3, 0.6)]

    values = rows(4000, 3).mix(parts)

    assert (values == values[:, :1]).all()
    for weight, _ in parts:
        assert (values[:, 0] == weight).mean() == pytest.approx(weight, abs=0.03)


def test_a_signal_of_some_rows_leaves_the_others_at_0() -> None:
    values = rows(4000, 3).some(0.2, lambda some: np.ones((some.n, 3)))

    assert values.any(1).mean() == pytest.approx(0.2, abs=0.03)
    assert set(np.unique(values)) == {0.0, 1.0}


def test_a_counter_loses_nothing() -> None:
    rates = np.abs(rows().normal(200))
    increments = pulses(rates, np.full((5, 1), 0.7))

    assert np.allclose(increments / 0.7, np.round(increments / 0.7))
    assert np.abs(increments.cumsum(1) - rates.cumsum(1)).max() <= 0.7 + 1e-9


def test_a_meter_sends_what_it_was_silent_about_in_one_piece() -> None:
    increments = metered(rows(400), np.zeros((400, 300)))

    assert (increments >= 0).all()
    # a constant rate of 1: silence does not change what comes in all, but for that at the end
    total = increments.sum(1)
    assert np.quantile(total, 0.5) == pytest.approx(300, abs=2)
    assert total.max() <= 300 + 1e-9
    assert (increments.max(1) > 3).mean() == pytest.approx(0.3, abs=0.15)


def test_held_values_repeat_until_the_next_new_one() -> None:
    is_new = np.array([[False, False, True, False, True]])

    assert held(np.array([[1.0, 2, 3, 4, 5]]), is_new).tolist() == [[1, 1, 3, 3, 5]]


def test_most_shift_work_rests_at_the_weekend() -> None:
    values = shift_work(rows(200, 24 * 7 * 4), Calendar(Seasons(24, 168)))
    by_day = values.reshape(200, 4, 7, 24).max(3).min(1)  # weeks may begin on any day
    rest = np.quantile(values, 0.05, axis=1)
    peak = values.max(1)

    rests = by_day < (rest + 0.5 * (peak - rest))[:, None]
    assert (rests.sum(1) >= 1).mean() > 0.5


def test_seasons_that_are_told_are_mostly_the_true_ones_and_lie_within_the_history() -> None:
    kinds = {"true": 0, "none": 0, "wrong": 0}
    n_with_season = 0
    for seed in range(1000):
        batch = Rows(np.random.default_rng(seed), 1, 1)
        calendar, n_history = draw_calendar(batch, 32 * SEGMENT, SEGMENT)
        told = tell(batch, calendar, n_history)
        true = calendar.seasons

        assert told.main >= 1
        assert n_history >= SEGMENT
        assert n_history % SEGMENT == 0
        if told.has_long:
            assert told == true
            assert 4 * told.long <= 3 * n_history
        if calendar.is_weekly:
            assert told == true
            assert 2 * true.long <= n_history < 3 * true.long + SEGMENT
        if true.main > 1:
            n_with_season += 1
            kind = "true" if told.main == true.main else "none" if told.main == 1 else "wrong"
            kinds[kind] += 1

    assert kinds["true"] / n_with_season == pytest.approx(0.88, abs=0.04)
    assert kinds["none"] / n_with_season == pytest.approx(0.06, abs=0.03)
    assert n_with_season > 800


def test_weeks_and_years_are_multiples_of_what_they_lie_over() -> None:
    for _, seasons in SEASONS:
        assert not seasons.has_long or seasons.long > 2 * seasons.main
        assert Calendar(seasons).has_weeks == (seasons.long == 7 * seasons.main)


def test_there_is_an_example_of_each_family() -> None:
    series = examples(seed=1)

    names = {family.__name__.replace("_", " ") for _, family in (*FAMILIES, *DISTORTIONS[1:])}
    assert names <= series.keys()
    assert all(np.nanstd(values) > 0 for values in series.values())


def test_the_card_names_all_that_series_are_made_of() -> None:
    parts = (*FAMILIES, *DISTORTIONS[1:], *signals.PATTERNS, *signals.TRENDS[1:], *signals.NOISES)
    card = CARD.read_text(encoding="utf-8")

    assert [f.__name__ for _, f in parts if f.__name__.replace("_", " ") not in card] == []


def test_a_batch_of_which_nothing_is_shown_is_drawn_again(monkeypatch) -> None:
    calls = []

    def first_constant(some: Rows, calendar: Calendar) -> tuple[np.ndarray, np.ndarray]:
        values, is_read = make_series(some, calendar)
        calls.append(calendar)
        return (values, is_read) if len(calls) > 1 else (np.zeros_like(values), is_read)

    monkeypatch.setattr(synthetic, "make_series", first_constant)

    assert len(drawn(1).values)
    assert len(calls) == 2
