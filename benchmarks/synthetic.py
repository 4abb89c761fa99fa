"""Made-up series: what the built-in weights are trained on. No reading of a sensor is in them.

Each row of a batch belongs to a family; most are composed of a season, a trend and noise, and some
are distorted as sensors distort: cut off, rounded, counted. Then faults are put in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import signals
from benchmarks.signals import (
    Flags,
    Rows,
    factor,
    fading,
    flag_stretches,
    held,
    mean_reverting,
    noise,
    pattern,
    pick,
    pulses,
    smooth,
    standardise,
    white,
)
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.season import Seasons

VERSION = 5
"""Raised when the same seed gives other series."""
N_WEEKDAYS = 7
MIN_DAY = 20
"""Steps from which a season may be a day, so that weeks are frequent."""
WEEK_SHARE, OTHER_WEEK_SHARE, WEEKLY_SHARE = 0.45, 0.15, 0.9
"""How many series know weeks of seven seasons: where these are days, where not, and in a batch of
nothing else."""


@dataclass(frozen=True)
class Calendar:
    """What repeats in the series of a batch, in steps."""

    seasons: Seasons
    is_weekly: bool = False
    """Whether nearly all series know weeks."""

    @property
    def main(self) -> int:
        """The season; 1 for none."""
        return self.seasons.main

    @property
    def has_weeks(self) -> bool:
        """Whether the long season is a week of the main one."""
        return self.seasons.long == N_WEEKDAYS * self.main

    @property
    def week_share(self) -> float:
        """The share of series whose days differ by the day of the week."""
        if self.main < 3:
            return 0.0
        usual = WEEK_SHARE if self.main >= MIN_DAY else OTHER_WEEK_SHARE
        return WEEKLY_SHARE if self.is_weekly else usual


Family = Callable[[Rows, Calendar], Doubles]
Distortion = Callable[[Rows, Doubles], Doubles]


# Seasons


def seasonal(rows: Rows, calendar: Calendar) -> Doubles:
    """Return a season whose shape, amplitude, level and phase drift, with weeks or years over it.

    Traffic, loads, temperatures, tides. In units of the pattern's standard deviation.
    """
    main = calendar.main
    variation = np.where(rows.chance(0.25), 0.0, rows.log_uniform(0.1, 1.5))
    step = rows.integers(0, N_WEEKDAYS * main) + np.arange(rows.n_steps)

    def warp(some: Rows) -> Doubles:
        return some.log_uniform(0.003, 0.06) * smooth(some, main * some.log_uniform(0.5, 20))

    def swell(some: Rows) -> Doubles:
        return some.log_uniform(0.03, 0.6) * mean_reverting(some, main * some.log_uniform(0.5, 60))

    def growth(some: Rows) -> Doubles:
        return some.normal() * some.log_uniform(0.1, 1) * np.linspace(-0.5, 0.5, some.n_steps)

    def wander(some: Rows) -> Doubles:
        walk = some.mix(
            (
                (0.75, lambda these: smooth(these, main * these.log_uniform(0.3, 10))),
                (0.25, lambda these: mean_reverting(these, main * these.log_uniform(0.5, 20))),
            )
        )
        return some.log_uniform(0.05, 1) * walk

    def long_cycle(some: Rows) -> Doubles:
        long = calendar.seasons.long
        step = some.integers(0, long) + np.arange(some.n_steps)
        return some.log_uniform(0.2, 2) * pick(pattern(some, long), step % long)

    phase = np.floor(step + main * variation * rows.some(0.25, warp)).astype(np.int64) % main
    shape = pick(pattern(rows, main), phase)
    turns = rows.chance(0.5)[:, 0]
    if turns.any():
        some = rows.only(turns)
        angle = variation[turns] * _turn(some, main)
        another = pick(pattern(some, main), phase[turns])
        shape[turns] = np.cos(angle) * shape[turns] + np.sin(angle) * another

    amplitude = factor(variation * rows.some(0.6, swell) + rows.some(0.2, growth))
    level = variation * rows.some(0.4, wander)
    has_week = rows.chance(calendar.week_share)[:, 0]
    if has_week.any():
        some, at = rows.only(has_week), (step[has_week], phase[has_week])
        gain, offset, shape[has_week] = _weeks(some, *at, shape[has_week], main)
        amplitude[has_week] *= gain
        level[has_week] += offset
    if calendar.seasons.has_long and not calendar.has_weeks:  # a year over weeks
        level += rows.some(0.85, long_cycle)
    return amplitude * shape + level


def _turn(rows: Rows, main: int) -> Doubles:
    """Return the angle between two patterns, by which a season changes its shape."""
    steady = rows.some(0.3, lambda some: 0.2 * some.normal() * np.arange(some.n_steps) / main)
    return rows.log_uniform(0.01, 1) * (steady + 0.3 * np.cumsum(white(rows), 1) / np.sqrt(main))


def _weeks(
    rows: Rows, step: Integers, phase: Integers, shape: Doubles, main: int
) -> tuple[Doubles, Doubles, Doubles]:
    """Return gain, offset and shape of each step, `(row, step)`, by the day of the week.

    Three in four weeks have a weekend, half of them with a pattern of its own; in the others each
    day differs. Now and then a day is like the last of the week.
    """
    n_days = np.where(rows.chance(0.85), N_WEEKDAYS, rows.integers(2, N_WEEKDAYS + 1))
    number = step // main
    number -= number[:, :1]
    is_holiday = rows.generator.random((rows.n, int(number.max()) + 1)) < 0.015
    is_free = np.take_along_axis(is_holiday, number, axis=1)
    day = np.where(is_free, n_days - 1, step // main % n_days)

    has_weekend = rows.chance(0.75)
    saturday, days = np.maximum(n_days - 2, 1), np.arange(N_WEEKDAYS)
    sunday = np.where(rows.chance(0.6), 0.3 * rows.normal(), 0.0) * (days == n_days - 1)
    weekend = np.where(days >= saturday, rows.normal() * rows.uniform(0, 1.2) + sunday, 0.0)
    quiet = np.where(days >= saturday, rows.log_uniform(0.1, 1.2), 1.0)
    offset = np.where(has_weekend, weekend, 0.6 * rows.normal(N_WEEKDAYS))
    gain = np.where(has_weekend, quiet, np.exp(0.3 * rows.normal(N_WEEKDAYS)))

    # a shape of its own, or nearly the usual one, a little later
    delay = rows.integers(0, max(main // 8, 1))
    later = pick(shape, np.maximum(np.arange(rows.n_steps) - delay, 0))
    blend = np.where(rows.chance(0.5), rows.uniform(0.4, 1), 0.0)
    other = blend * later + (1 - blend) * pick(pattern(rows, main), phase)
    is_other = has_weekend & rows.chance(0.5) & (day >= saturday)
    return pick(gain, day), pick(offset, day), np.where(is_other, other, shape)


# Families

PRODUCT_SHARE = 0.3
"""Composed series with a season whose parts are multiplied."""
STEEP_SHARE = 0.08
"""Composed series that rise or fall much more than their season does."""


def composed(rows: Rows, calendar: Calendar) -> Doubles:
    """Compose season, trend and noise, added or multiplied: most sensors."""
    has_season = calendar.main > 1
    if has_season:
        season = rows.some(0.96, lambda some: seasonal(some, calendar))
        strength = np.where(rows.chance(0.25), 0.0, rows.log_uniform(0.1, 6))
        loudness = rows.log_uniform(0.02, 1.6)
    else:
        season = np.zeros((rows.n, rows.n_steps))
        strength = np.where(rows.chance(0.1), 0.0, rows.log_uniform(0.3, 10))
        loudness = rows.log_uniform(0.02, 2)
    steep = rows.some(STEEP_SHARE, lambda some: some.log_uniform(5, 300) * some.mix(signals.STEEP))
    is_steep = steep.any(1, keepdims=True)
    loudness = np.where(rows.chance(0.1), 0.004, loudness)  # next to nothing
    loudness = np.where(rows.chance(np.where(is_steep, 0.2, 0.02)), 0.0, loudness)
    trend = strength * rows.mix(signals.TRENDS)
    rest = loudness * noise(rows, calendar.main)

    values = season + trend + steep + rest
    is_product = rows.chance(PRODUCT_SHARE) & has_season & ~is_steep
    level = factor(0.6 * trend)
    return np.where(is_product, level * (season + rows.log_uniform(1, 4) + rest), values)


def jittered_cycles(rows: Rows, calendar: Calendar) -> Doubles:
    """Return cycles of a machine whose lengths vary, as of a compressor, and are no season."""
    length = rows.log_uniform(4, 120)
    jitter = rows.uniform(0, 0.4) * mean_reverting(rows, 2 * length)
    cycles = np.cumsum(np.exp(np.clip(jitter, -1, 1)) / length, axis=1)
    shape = pick(pattern(rows, 64), (64 * cycles).astype(np.int64) % 64)
    trend = rows.log_uniform(0.1, 6) * rows.mix(signals.TRENDS)
    return shape + rows.log_uniform(0.02, 0.5) * noise(rows, calendar.main) + 0.3 * trend


def rain(rows: Rows, _calendar: Calendar) -> Doubles:
    """Return nothing most of the time, then showers of very different strength."""
    shower = np.exp(np.clip(2 * mean_reverting(rows, rows.log_uniform(2, 60)), -8, 4))
    is_dry = mean_reverting(rows, rows.log_uniform(1, 40)) < rows.uniform(-1, 1.5)
    return np.where(is_dry, 0.0, shower)


def river(rows: Rows, _calendar: Calendar) -> Doubles:
    """Return sudden rises and slow falls: a gauge, a queue, the pressure of a vessel."""
    share = np.exp(-1 / rows.log_uniform(3, 100))
    inflow = rows.generator.exponential(1.0, (rows.n, rows.n_steps))
    flow = fading(np.where(rows.events(rows.log_uniform(0.005, 0.1)), inflow, 0.0), share)
    return flow + rows.some(0.5, lambda some: 0.1 * signals.short_memory(some))


def solar(rows: Rows, calendar: Calendar) -> Doubles:
    """Return sun between zeros of the night: days grow longer or shorter, and clouds pass."""
    main = max(calendar.main, 8)
    hour = (rows.integers(0, main) + np.arange(rows.n_steps)) % main
    latitude = rows.uniform(-0.3, 0.4) + 0.2 * smooth(rows, main * rows.log_uniform(20, 100))
    height = np.maximum(np.cos(2 * np.pi * hour / main) - latitude, 0.0)
    clouds = mean_reverting(rows, main * rows.log_uniform(0.05, 2)) * rows.uniform(0.2, 2.5)
    return height * (1 - rows.uniform(0.3, 0.95) / (1 + np.exp(rows.uniform(-1, 2) - clouds)))


def shift_work(rows: Rows, calendar: Calendar) -> Doubles:
    """Return what is on by working hours, mostly not at the weekend: machines, valves.

    Shifts begin and end a little early or late, single days are off, what is on warms up, and a
    valve is on only part of the time.
    """
    main = max(calendar.main, 8)
    step = rows.integers(0, N_WEEKDAYS * main) + np.arange(rows.n_steps)
    number = step // main
    number -= number[:, :1]
    n_days = int(number.max()) + 1

    def each_day(values: Doubles) -> Doubles:
        return np.take_along_axis(values, number, axis=1)

    jitter = rows.uniform(0, 0.03) * rows.chance(0.7)
    begin, length = rows.uniform(0.1, 0.5), rows.uniform(0.2, 0.6)
    early = each_day(begin + jitter * rows.normal(n_days))
    late = each_day(begin + length + jitter * rows.normal(n_days))
    hour = step % main / main
    is_on = (hour >= early) & (hour < late)
    is_on &= ~(each_day(rows.normal(n_days)) > 2.2)  # about one day in seventy
    n_open = np.where(rows.chance(0.75), rows.integers(5, 7), N_WEEKDAYS)
    is_on &= step // main % N_WEEKDAYS < n_open

    duty = mean_reverting(rows, rows.log_uniform(0.5, 0.3 * main)) > rows.uniform(-2, 0.5)
    is_on &= duty | rows.chance(0.7)
    slowness = np.where(rows.chance(0.4), np.exp(-1 / rows.log_uniform(0.5, main / 6)), 0.0)
    load = (1 - slowness) * fading(is_on.astype(np.float64), slowness)
    load *= 1 + rows.some(0.7, lambda some: some.log_uniform(0.01, 0.3) * noise(some, main))
    standby = rows.some(0.6, lambda some: some.log_uniform(0.002, 0.05) * white(some))
    return load + rows.uniform(0, 0.3) + standby


def returns(rows: Rows, calendar: Calendar) -> Doubles:
    """Return chains of shifts of the level, which fade in part: dosing, repairs, calibrations."""
    shocks = np.where(rows.events(rows.log_uniform(3, 25) / rows.n_steps), white(rows), 0.0)
    shocks *= np.where(rows.chance(0.3), np.sign(shocks) * rows.normal(), 1.0)  # one direction
    follows = np.roll(rows.log_uniform(0.3, 0.9) * shocks, int(rows.generator.integers(2, 40)), 1)
    shocks = shocks - np.where(rows.chance(0.4), follows, 0.0)  # and a step back after each
    share = np.exp(-1 / rows.log_uniform(4, rows.n_steps / 6))
    fades = rows.uniform(0.5, 1)
    level = fades * fading(shocks, share) + (1 - fades) * np.cumsum(shocks, axis=1)
    rest = rows.log_uniform(0.01, 0.4) * noise(rows, calendar.main)
    return level + rest


def _jumps(rows: Rows) -> Doubles:
    """Return rare steps of up to some ten times the usual size."""
    return rows.events(rows.log_uniform(0.002, 0.05)) * rows.log_uniform(3, 10) * white(rows)


def walks(rows: Rows, _calendar: Calendar) -> Doubles:
    """Return the sum of steps that know nothing of each other: pressures, drifts, prices.

    Some are still for a while and then busy, have rare large steps, a trend, or a far limit.
    """
    steps = white(rows)
    wild = np.exp(np.clip(mean_reverting(rows, rows.log_uniform(10, 500)), -3, 3))
    steps *= np.where(rows.chance(0.4), wild, 1.0)
    steps += rows.some(0.2, _jumps)
    steps += rows.chance(0.2) * rows.normal() * rows.log_uniform(0.01, 0.1)
    share = np.where(rows.chance(0.3), np.exp(-1 / rows.log_uniform(100, 5000)), 1.0)
    walk = fading(steps, share)
    return walk + rows.some(0.3, lambda some: some.log_uniform(0.05, 2) * white(some))


def totals(rows: Rows, calendar: Calendar) -> Doubles:
    """Return what a meter shows: the sum of a rate that is never negative, in steps of its unit."""

    def steady(some: Rows) -> Doubles:
        return 1 + some.log_uniform(0.01, 1) * noise(some, calendar.main)

    def loads(some: Rows) -> Doubles:
        season = seasonal(some, calendar) if calendar.main > 1 else 0.0
        rest = some.log_uniform(0.02, 1) * noise(some, calendar.main)
        return some.uniform(0.3, 3) + season + rest

    rates: Sequence[tuple[float, signals.Signal]] = (
        (0.45, loads),
        (0.15, lambda some: solar(some, calendar)),
        (0.15, lambda some: shift_work(some, calendar)),
        (0.15, steady),
        (0.1, lambda some: some.generator.exponential(1.0, (some.n, some.n_steps))),
    )
    rate = np.maximum(rows.mix(rates), 0.0)
    total = np.cumsum(rate / np.maximum(rate.mean(1, keepdims=True), 1e-9), axis=1)
    unit = np.where(rows.chance(0.5), 1e-6, rows.log_uniform(0.05, 10))
    return np.floor(total / unit) * unit


FAMILIES: Sequence[tuple[float, Family]] = (
    (0.70, composed),
    (0.03, totals),
    (0.06, walks),
    (0.05, jittered_cycles),
    (0.03, rain),
    (0.03, river),
    (0.03, solar),
    (0.04, shift_work),
    (0.03, returns),
)
"""Shares of the families."""


# Distortions of standardised values


def unchanged(_rows: Rows, values: Doubles) -> Doubles:
    """Leave values as they are."""
    return values


def skewed(rows: Rows, values: Doubles) -> Doubles:
    """Return exponentials: concentrations, prices."""
    return np.exp(np.clip(rows.uniform(0.3, 1.2) * values, -6, 6))


def floored(rows: Rows, values: Doubles) -> Doubles:
    """Set what lies below a threshold to 0: overflows, what a detection limit hides."""
    return np.maximum(values - _quantile(values, rows.uniform(0.1, 0.7)), 0.0)


def capped(rows: Rows, values: Doubles) -> Doubles:
    """Cut at a limit: the end of a sensor's range."""
    return np.minimum(values, _quantile(values, rows.uniform(0.4, 0.9)))


def bounded(rows: Rows, values: Doubles) -> Doubles:
    """Cut at both ends, as a filling level between empty and full, or a valve's position."""
    low = _quantile(values, rows.uniform(0.03, 0.4))
    return np.clip(values, low, _quantile(values, rows.uniform(0.6, 0.97)))


def switched(rows: Rows, values: Doubles) -> Doubles:
    """Switch on above a threshold, and off below: pumps, heaters."""
    is_on = values > _quantile(values, rows.uniform(0.2, 0.8))
    return np.where(is_on, 1 + rows.some(0.5, lambda some: 0.1 * white(some)), 0.0)


def quantised(rows: Rows, values: Doubles) -> Doubles:
    """Round to the steps of a converter."""
    resolution = rows.log_uniform(0.05, 1)
    return np.round(values / resolution) * resolution


def counted(rows: Rows, values: Doubles) -> Doubles:
    """Count events: visitors, intermittent demand."""
    rate = np.exp(np.clip(values + rows.uniform(-2, 3), -6, 6))
    return rows.generator.poisson(rate).astype(np.float64)


def metered(rows: Rows, values: Doubles) -> Doubles:
    """Return how a meter of whole units rises; what it does not send comes later in one piece."""
    rate = factor(rows.uniform(0.3, 1) * values)
    silence = rows.some(0.3, lambda some: flag_stretches(some, some.log_uniform(2, 30)) * 1.0) > 0
    increments = pulses(rate, rows.log_uniform(0.02, 2))
    # a counter that is read again has risen by all that was not sent
    counter = held(np.cumsum(increments, axis=1), ~silence)
    return np.diff(counter, axis=1, prepend=0.0)


DISTORTIONS: Sequence[tuple[float, Distortion]] = (
    (0.55, unchanged),
    (0.07, skewed),
    (0.07, floored),
    (0.03, capped),
    (0.04, bounded),
    (0.05, switched),
    (0.07, quantised),
    (0.08, counted),
    (0.04, metered),
)
"""Shares of the distortions."""
DISTORTED: Sequence[Family] = (composed, jittered_cycles)
"""Families whose rows are distorted; the others have zeros and limits of their own."""


def _quantile(values: Doubles, share: Doubles) -> Doubles:
    """Return a quantile of each row, `(row, 1)`."""
    rank = (share * (values.shape[1] - 1)).astype(np.int64)
    return np.take_along_axis(np.sort(values, axis=1), rank, axis=1)


# Faults


def spikes(rows: Rows) -> Doubles:
    """Return rare spikes, up or down: a bad contact."""
    sign = np.where(rows.generator.random((rows.n, rows.n_steps)) < 0.5, 1, -1)
    return rows.events(rows.log_uniform(0.0005, 0.01)) * rows.log_uniform(2, 30) * sign


def single_steps(rows: Rows) -> Doubles:
    """Flag single steps, 1 for a flag: messages that are lost."""
    return rows.events(rows.log_uniform(0.002, 0.4)).astype(np.float64)


def stretch(rows: Rows, shortest: float, longest_share: float) -> Doubles:
    """Flag one stretch of each row, 1 for a flag, up to a share of its steps: outages."""
    length = rows.log_uniform(shortest, longest_share * rows.n_steps)
    return flag_stretches(rows, length).astype(np.float64)


def with_faults(rows: Rows, values: Doubles) -> tuple[Doubles, Flags]:
    """Put in spikes and stuck stretches; return the values, and which of them are read."""
    values = values + rows.some(0.12, spikes)
    for _ in range(2):
        is_stuck = rows.some(0.06, lambda some: stretch(some, 4, 0.25)) > 0
        if is_stuck.any():
            values = held(values, ~is_stuck)

    is_missing = rows.some(0.2, single_steps)
    for _ in range(3):
        is_missing += rows.some(0.1, lambda some: stretch(some, 2, 0.2))
    return values, is_missing == 0


def late_changes(rows: Rows, values: Doubles, n_history: int) -> Doubles:
    """Shift or stretch values, `(row, step)`, from a step near the end of the history on.

    Another product, a pump that is switched off, a sensor that was moved or cleaned: as often one
    step ago as ten or a hundred. Now and then a single reading or a few go back to what was.
    """
    n_since = np.floor(rows.log_uniform(1, max(n_history / 2, 2)))
    n_changed = np.where(rows.chance(0.25), np.floor(rows.log_uniform(1, 4)), rows.n_steps)
    begin = n_history - n_since
    at = np.arange(rows.n_steps)
    is_changed = (at >= begin) & (at < begin + n_changed)
    deviation = np.maximum(values.std(1, keepdims=True), 1e-9)
    sign = np.where(rows.chance(0.5), -1, 1)
    shifted = values + sign * rows.log_uniform(0.3, 10) * deviation
    zero = np.where(rows.chance(0.5), 0.0, values.mean(1, keepdims=True))
    stretched = zero + (values - zero) * np.exp(sign * rows.log_uniform(0.1, 1.5))
    return np.where(is_changed, np.where(rows.chance(0.6), shifted, stretched), values)


def distorted(rows: Rows, values: Doubles) -> Doubles:
    """Distort values, `(row, step)`, each row by one of the kinds."""
    kinds = rows.kinds([weight for weight, _ in DISTORTIONS])
    values, standard = values.copy(), standardise(values)
    for kind, (_, distort) in enumerate(DISTORTIONS):
        is_chosen = kinds == kind
        if is_chosen.any() and distort is not unchanged:
            values[is_chosen] = distort(rows.only(is_chosen), standard[is_chosen])
    return values


def make_series(rows: Rows, calendar: Calendar) -> tuple[Doubles, Flags]:
    """Make series, and tell which of their steps are read, `(series, step)` each.

    They have a standard deviation of 1, before faults. Half of them keep their zero, in which a
    ratio has a meaning; the others lie anywhere, and some are upside down.
    """
    kinds = rows.kinds([weight for weight, _ in FAMILIES])
    values = np.empty((rows.n, rows.n_steps))
    for kind, (_, family) in enumerate(FAMILIES):
        is_chosen = kinds == kind
        if is_chosen.any():
            some = rows.only(is_chosen)
            series = family(some, calendar)
            values[is_chosen] = distorted(some, series) if family in DISTORTED else series

    deviation = np.maximum(values.std(1, keepdims=True), 1e-9)
    offset = np.where(rows.chance(0.5), rows.normal() * rows.log_uniform(0.1, 100), 0.0)
    anywhere = np.where(rows.chance(0.3), -1, 1) * standardise(values) + offset
    return with_faults(rows, np.where(rows.chance(0.5), values / deviation, anywhere))


# Batches

SEASONS: Sequence[tuple[float, Seasons]] = (
    (8, Seasons(24, 168)),
    (2, Seasons(48, 336)),
    (2, Seasons(96, 672)),
    (1, Seasons(144, 1008)),
    (1, Seasons(288, 2016)),
    (2, Seasons(7)),
    (1, Seasons(7, 365)),
    (1, Seasons(365)),
    (2, Seasons(12)),
    (1, Seasons(4)),
    (1, Seasons(52)),
    (2, Seasons()),
    (1, Seasons(60)),
    (1, Seasons(1440)),
)
"""Shares of the usual seasons: days of hours or minutes, weeks and years of days, years of months,
quarters or weeks, none, hours and days of minutes."""
OTHER_SEASON_SHARE = 0.25
"""Batches with a season of any length from 2 to 200."""
SHORT_WEEKS_SHARE = 0.2
"""Batches with weeks whose history holds two or three of them."""
LONG_SHARE, MAX_HISTORY = 0.12, 6000
"""Batches with a long history, of up to twelve usual ones, and its most rows: what users have."""
LONGER_SHARE = 0.6
"""Of the other batches, those whose histories have the usual length or more."""
MAX_READINGS = 120_000
"""Most readings of a batch, above which it has fewer series."""
MIN_SERIES_LENGTH = 64
"""Series are made at least as long, and cut."""
LATE_SHARE = 0.15
"""Series that begin late."""
CHANGED_SHARE = 0.08
"""Series that change near the end of their history."""
DELAYED_SHARE, MAX_DELAY = 0.1, 96
"""Series whose newest readings have not come yet, and the most rows of them."""
MIN_SHOWN, MIN_SHOWN_SHARE = 6, 0.2
"""Readings that a series shows at least; the share where it does not begin late."""
TOLD_SHARES = (0.06, 0.06, 0.88)
"""Batches that are told no season, a wrong one, and the true one."""


@dataclass(frozen=True)
class Size:
    """How large a batch is."""

    n_series: int
    n_context: int
    """Segments of history that are forecast, too, at most."""
    n_ahead: int
    """Segments after it."""


@dataclass(frozen=True)
class Batch:
    """Made-up series of one season, and what a forecaster is shown of them."""

    values: Doubles
    """`(series, row)`, of history and what follows."""
    is_read: Flags
    """`(series, row)`: whether there is a reading, which a forecast may be held against."""
    is_shown: Flags
    """`(series, row)`: whether a forecaster sees it; nothing that follows on the history."""
    seasons: Seasons
    """The true seasons."""
    told: Seasons
    """Those that a forecaster is told: now and then others, or none."""
    n_history: int
    """Rows of history, which are whole segments."""

    @property
    def history(self) -> Doubles:
        """What a forecaster sees, `(series, row)`; NaN where nothing is shown."""
        return np.where(self.is_shown, self.values, np.nan)[:, : self.n_history]


def draw(generator: np.random.Generator, size: Size, segment: int) -> Batch:
    """Draw a batch, without series of which too little is shown, or nothing but a constant."""
    batch = Rows(generator, 1, 1)  # what its series share
    calendar, n_history = draw_calendar(batch, size.n_context * segment, segment)
    n_rows = n_history + size.n_ahead * segment
    rows = Rows(generator, min(size.n_series, max(MAX_READINGS // n_rows, 1)), n_rows)
    values, is_read = make_series(rows.over(max(n_rows, MIN_SERIES_LENGTH)), calendar)
    values, is_read = values[:, -n_rows:], is_read[:, -n_rows:]
    is_changed = rows.chance(CHANGED_SHARE)[:, 0]
    if is_changed.any():
        changed = late_changes(rows.only(is_changed), values[is_changed], n_history)
        values[is_changed] = changed

    # some begin late or end early, and stretches are hidden, of which a forecast is asked
    at = np.arange(n_rows)
    is_late = rows.chance(LATE_SHARE)
    delay = rows.chance(DELAYED_SHARE) * rows.log_uniform(1, min(MAX_DELAY, n_history // 2))
    is_shown = is_read & (at < n_history - np.floor(delay))
    is_shown &= at >= is_late * rows.uniform(0, 0.9) * n_history
    n_segments = n_history // segment
    for _ in range(2):
        length = rows.log_uniform(1, max(size.n_context / 2, 2))
        first = np.floor(rows.uniform(0, n_segments))
        end = np.minimum(first + length, n_segments - 1)
        is_shown &= ~(rows.chance(0.25) & (at >= first * segment) & (at < end * segment))

    shown = np.where(is_shown, values, 0.0)
    n_shown = is_shown.sum(1)
    least = np.maximum(MIN_SHOWN, MIN_SHOWN_SHARE * n_history * ~is_late[:, 0])
    mean = shown.sum(1) / np.maximum(n_shown, 1)
    varies = (np.abs(values - mean[:, None]) * is_shown).max(1) > 1e-6
    kept = (n_shown >= least) & varies
    if not kept.any():
        return draw(generator, size, segment)
    told = tell(batch, calendar, n_history)
    return Batch(values[kept], is_read[kept], is_shown[kept], calendar.seasons, told, n_history)


def draw_calendar(batch: Rows, usual: int, segment: int) -> tuple[Calendar, int]:
    """Draw what repeats, and how many rows the history has: whole segments.

    A few are long, most of the others somewhat longer than the usual one, or very short.
    """
    _, seasons = SEASONS[batch.kinds([weight for weight, _ in SEASONS])[0]]
    if batch.chance(OTHER_SEASON_SHARE):
        main = int(batch.log_uniform(2, 200)[0, 0])
        has_weeks = main > MIN_DAY // 2 and batch.chance(0.5)
        seasons = Seasons(main, N_WEEKDAYS * main if has_weeks else 1)

    calendar = Calendar(seasons)
    if calendar.has_weeks and seasons.main >= MIN_DAY and batch.chance(SHORT_WEEKS_SHARE):
        calendar = Calendar(seasons, is_weekly=True)
        n_history = seasons.long * batch.uniform(2, 3)
    elif batch.chance(LONG_SHARE):
        n_history = batch.log_uniform(usual, min(12 * usual, MAX_HISTORY))
    elif batch.chance(LONGER_SHARE):
        n_history = batch.log_uniform(usual, max(2.5 * usual, usual + 600))
    else:
        n_history = batch.log_uniform(min(12, usual), usual)
    n_rows = -(-int(n_history[0, 0]) // segment) * segment

    if seasons.main > n_rows // 2 and batch.chance(0.7):  # a shorter one, which is seen
        main = max(1, n_rows // 3)
        long = N_WEEKDAYS * main if calendar.has_weeks and main > 1 else 1
        calendar = Calendar(Seasons(main, long))
    return calendar, n_rows


def tell(batch: Rows, calendar: Calendar, n_history: int) -> Seasons:
    """Return the seasons that a forecaster is told: one in eight times none, or a wrong one.

    A long season is told where the history holds it, and a third of the next one.
    """
    main, long = calendar.seasons.main, calendar.seasons.long
    (kind,) = batch.kinds(TOLD_SHARES) if not calendar.is_weekly else (2,)
    if kind == 0:
        return Seasons()
    if kind == 1:
        wrong = main * batch.log_uniform(0.3, 3) if main > 1 else batch.log_uniform(4, 100)
        return Seasons(max(1, int(wrong[0, 0])))
    return Seasons(main, long if 4 * long <= 3 * n_history else 1)
