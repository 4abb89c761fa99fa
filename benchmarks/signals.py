"""What made-up series are made of: noise, walks, trends, patterns of a season.

Ranges stand where they are drawn, in units of a standard deviation, a season or a step. They were
chosen by eye, so that a page of series looks like a page of sensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rnnforecast.data.arrays import Doubles, Integers, sums_before
from rnnforecast.data.season import ffill

Flags = NDArray[np.bool_]
Signal = Callable[["Rows"], Doubles]
"""A function that makes series, `(row, step)`, or a number for each, `(row, 1)`."""

_NEGLIGIBLE = 1e-9
_MAX_BUMPS = 4
_PLATEAUS = 6
_HARMONICS = 12
_MAX_EXPONENT = 3.0
"""Logarithms of amplitudes and levels are cut here: a factor of 20 either way."""


class Rows:
    """Random numbers for the series of a batch, each a row of `n_steps` steps."""

    def __init__(self, generator: np.random.Generator, n: int, n_steps: int) -> None:
        self.generator, self.n, self.n_steps = generator, n, n_steps

    def over(self, n_steps: int) -> Rows:
        """Return the same rows with another number of steps."""
        return Rows(self.generator, self.n, n_steps)

    def only(self, is_chosen: Flags) -> Rows:
        """Return as many rows as are chosen."""
        return Rows(self.generator, int(np.count_nonzero(is_chosen)), self.n_steps)

    def uniform(self, low: float, high: float) -> Doubles:
        """Draw a number for each row, `(row, 1)`."""
        return self.generator.uniform(low, high, (self.n, 1))

    def log_uniform(self, low: float, high: float) -> Doubles:
        """Draw a number for each row, `(row, 1)`, whose logarithm is uniform."""
        return np.exp(self.uniform(np.log(low), np.log(high)))

    def integers(self, low: int, high: int) -> Integers:
        """Draw an integer for each row, `(row, 1)`, below `high`."""
        return self.generator.integers(low, high, (self.n, 1))

    def normal(self, n: int = 1) -> Doubles:
        """Draw n numbers for each row, `(row, n)`."""
        return self.generator.standard_normal((self.n, n))

    def chance(self, share: float | Doubles) -> Flags:
        """Choose about this share of the rows, or of each, `(row, 1)`."""
        return self.generator.random((self.n, 1)) < share

    def events(self, rate: Doubles) -> Flags:
        """Choose steps, `(row, step)`; `rate` is the mean number in one step, `(row, 1)`."""
        return self.generator.random((self.n, self.n_steps)) < rate

    def some(self, share: float, signal: Signal) -> Doubles:
        """Give a share of the rows a signal, and 0 to the others."""
        is_chosen = self.chance(share)[:, 0]
        values = np.zeros((self.n, self.n_steps))
        if is_chosen.any():
            values[is_chosen] = signal(self.only(is_chosen))
        return values

    def kinds(self, weights: Sequence[float]) -> Integers:
        """Draw one of several kinds for each row, `(row,)`, with these weights."""
        edges = np.cumsum(weights) / np.sum(weights)
        return np.searchsorted(edges[:-1], self.generator.random(self.n), side="right")

    def mix(self, signals: Sequence[tuple[float, Signal]]) -> Doubles:
        """Give each row one of several signals, drawn by their weights."""
        kinds = self.kinds([weight for weight, _ in signals])
        values = np.zeros((self.n, self.n_steps))
        for kind in np.unique(kinds):
            is_chosen = kinds == kind
            values[is_chosen] = signals[kind][1](self.only(is_chosen))
        return values


def standardise(values: Doubles) -> Doubles:
    """Return each row less its mean, over its standard deviation; constant rows become 0."""
    deviation = values.std(-1, keepdims=True)
    scale = np.where(deviation > _NEGLIGIBLE, deviation, 1.0)
    return (values - values.mean(-1, keepdims=True)) / scale


def factor(exponent: Doubles) -> Doubles:
    """Return the exponential of what is not too far from 0."""
    return np.exp(np.clip(exponent, -_MAX_EXPONENT, _MAX_EXPONENT))


def pick(table: Doubles, index: Integers) -> Doubles:
    """Look each step up in the table of its row, `(row, entry)`."""
    return np.take_along_axis(table, np.broadcast_to(index, (len(table), index.shape[-1])), axis=1)


def held(values: Doubles, is_new: Flags) -> Doubles:
    """Repeat each value until the next new one; the first counts as new."""
    is_new = is_new.copy()
    is_new[:, 0] = True
    return ffill(np.where(is_new, values, np.nan))[0]


def fading(impulses: Doubles, share: Doubles) -> Doubles:
    """Add up impulses of which a share, `(row, 1)`, remains after each step.

    The sum over 2 k steps is that over k steps, and its own share of the one k steps earlier.
    """
    sums, lag = impulses.copy(), 1
    while lag < sums.shape[1] and share.max() > _NEGLIGIBLE:
        sums[:, lag:] += share * sums[:, :-lag]
        share, lag = share**2, 2 * lag
    return sums


# Noise and walks, of mean 0 and variance 1


def white(rows: Rows) -> Doubles:
    """Return independent normal readings: a sensor's electronics."""
    return rows.normal(rows.n_steps)


def coloured(rows: Rows, power: Callable[[Doubles], Doubles]) -> Doubles:
    """Return stationary noise of a power spectrum, a function of the angular frequency."""
    # twice the steps, so that the ends do not meet, of which a fast transform has small factors
    n = 2 * min(odd << (-(-rows.n_steps // odd) - 1).bit_length() for odd in (1, 3, 5, 9, 15))
    amplitude = np.sqrt(power(2 * np.pi * np.arange(1, n // 2 + 1) / n))
    spectrum = np.zeros((rows.n, n // 2 + 1), np.complex128)
    spectrum[:, 1:] = amplitude * rows.normal(n).view(np.complex128)
    deviation = 2 * np.sqrt((amplitude**2).sum(1, keepdims=True)) / n
    return np.fft.irfft(spectrum, n)[:, : rows.n_steps] / np.maximum(deviation, 1e-18)


def mean_reverting(rows: Rows, time: Doubles) -> Doubles:
    """Return walks that forget where they were, over a time in steps, `(row, 1)`: temperatures."""
    share = np.exp(-1 / time)
    shocks = rows.normal(rows.n_steps)
    shocks[:, 1:] *= np.sqrt(1 - share**2)
    return fading(shocks, share)


def smooth(rows: Rows, length: Doubles) -> Doubles:
    """Return smooth curves that bend over a length in steps, `(row, 1)`: weather, ageing."""
    return coloured(rows, lambda frequency: np.exp(-0.5 * (frequency * length) ** 2) + 1e-12)


def oscillating(rows: Rows) -> Doubles:
    """Return autoregressions of order 2, a good part of which swing: control loops, waves."""
    radius = rows.uniform(0.3, 0.985)
    angle = np.where(rows.chance(0.4), rows.uniform(0, np.pi), rows.uniform(0, 0.6))
    first, second = 2 * radius * np.cos(angle), -(radius**2)

    def power(frequency: Doubles) -> Doubles:
        turn = np.exp(-1j * frequency)
        return 1 / np.abs(1 - first * turn - second * turn**2) ** 2

    return coloured(rows, power)


def two_speeds(rows: Rows) -> Doubles:
    """Add a fast and a slow walk together: a gust in a change of the weather."""
    fast = mean_reverting(rows, rows.log_uniform(0.3, 5))
    return 0.6 * fast + 0.8 * mean_reverting(rows, rows.log_uniform(10, 300))


def short_memory(rows: Rows) -> Doubles:
    """Return noise that forgets within 60 steps: wind, flows."""
    return mean_reverting(rows, rows.log_uniform(0.5, 60))


NOISES: Sequence[tuple[float, Signal]] = (
    (0.30, white),
    (0.45, short_memory),
    (0.15, oscillating),
    (0.10, two_speeds),
)


def noise(rows: Rows, season: int) -> Doubles:
    """Return noise of several kinds; in part with heavy tails, and louder at times or by phase."""
    values = rows.mix(NOISES)

    def heavy_tails(some: Rows) -> Doubles:
        freedom = some.uniform(2.2, 6)
        shocks = some.generator.standard_t(freedom, (some.n, some.n_steps))
        return shocks / np.sqrt(freedom / (freedom - 2))

    def louder_at_times(some: Rows) -> Doubles:
        return some.log_uniform(0.2, 1) * mean_reverting(some, some.log_uniform(5, 300))

    def louder_by_phase(some: Rows) -> Doubles:
        table = np.minimum(pattern(some, season), _MAX_EXPONENT)
        return some.log_uniform(0.2, 1.2) * pick(table, np.arange(some.n_steps)[None] % season)

    shocks = rows.some(0.25, heavy_tails)
    share = np.where(shocks.any(1, keepdims=True), rows.uniform(0.2, 1), 0.0)
    values = (1 - share) * values + share * shocks
    loudness = rows.some(0.2, louder_at_times)
    if season > 3:  # below, a pattern says nothing
        loudness = loudness + rows.some(0.25, louder_by_phase)
    return values * factor(loudness)


# Trends


def no_trend(rows: Rows) -> Doubles:
    """Return zeros."""
    return np.zeros((rows.n, rows.n_steps))


def line(rows: Rows) -> Doubles:
    """Return a straight line: wear, a tank that runs empty."""
    return rows.normal() * np.arange(rows.n_steps) / rows.n_steps


def bent_line(rows: Rows) -> Doubles:
    """Return a line with a few bends: another mode of operation."""
    bends = rows.events(rows.uniform(1, 8) / rows.n_steps)
    return 3 * np.cumsum(held(white(rows), bends), axis=1) / rows.n_steps


def curve(rows: Rows) -> Doubles:
    """Return a power of the time, or what nears a limit: warming up, emptying, growth."""
    share = (np.arange(rows.n_steps) + 1) / rows.n_steps
    power = share ** rows.log_uniform(0.3, 3)
    approach = 1 - np.exp(-share / rows.log_uniform(0.05, 2))
    return rows.normal() * standardise(np.where(rows.chance(0.5), power, approach))


def random_walk(rows: Rows) -> Doubles:
    """Return sums of shocks: what has no level of its own."""
    return np.cumsum(white(rows), axis=1) / np.sqrt(rows.n_steps)


def slow_walk(rows: Rows) -> Doubles:
    """Return a mean-reverting walk: groundwater, an indoor temperature."""
    return mean_reverting(rows, rows.log_uniform(3, rows.n_steps))


def slow_curve(rows: Rows) -> Doubles:
    """Return a smooth curve: the season of the year."""
    return smooth(rows, rows.log_uniform(3, rows.n_steps / 4))


def power_law(rows: Rows) -> Doubles:
    """Return noise with a memory of all lengths: rivers, turbulence."""
    slope = rows.uniform(1, 2.5)
    return standardise(coloured(rows, lambda frequency: frequency**-slope))


def level_shifts(rows: Rows) -> Doubles:
    """Return levels that hold until the next one: set points, a sensor that was moved."""
    return held(white(rows), rows.events(rows.log_uniform(1, 12) / rows.n_steps))


TRENDS: Sequence[tuple[float, Signal]] = (
    (0.12, no_trend),
    (0.08, line),
    (0.10, bent_line),
    (0.05, curve),
    (0.15, random_walk),
    (0.20, slow_walk),
    (0.12, slow_curve),
    (0.08, power_law),
    (0.10, level_shifts),
)

STEEP: Sequence[tuple[float, Signal]] = ((0.5, line), (0.3, bent_line), (0.2, curve))
"""Trends next to which a season may be small."""


# Patterns of a season: the rows have as many steps as the season, and step 0 follows the last


def harmonics(rows: Rows) -> Doubles:
    """Add sines and cosines whose weights fall with their frequency: tides, daily temperatures."""
    cycle = 2 * np.pi * np.arange(rows.n_steps) / rows.n_steps
    highest = np.minimum(rows.integers(1, _HARMONICS + 1), max(rows.n_steps // 2, 1))
    order = np.arange(1, _HARMONICS + 1)
    weight = np.where(order <= highest, order ** -rows.uniform(0.3, 2.5), 0.0)
    cosine, sine = weight * rows.normal(_HARMONICS), weight * rows.normal(_HARMONICS)
    return cosine @ np.cos(order[:, None] * cycle) + sine @ np.sin(order[:, None] * cycle)


def bumps(rows: Rows) -> Doubles:
    """Add one to four bumps: rush hours, meals, a batch process."""
    values = np.zeros((rows.n, rows.n_steps))
    for number in range(_MAX_BUMPS):
        height = (np.abs(rows.normal()) + 0.2) * np.where(rows.chance(0.2), -1, 1)
        width = rows.n_steps * rows.log_uniform(0.02, 0.25)
        is_there = (number == 0) | rows.chance(0.5)
        values += is_there * height * np.exp(-0.5 * (_distance(rows) / width) ** 2)
    return values


def plateaus(rows: Rows) -> Doubles:
    """Return two to six levels with steep or slanted edges: schedules."""
    edges = np.sort(rows.generator.uniform(0, rows.n_steps, (rows.n, _PLATEAUS)), axis=1)
    number = (np.arange(rows.n_steps)[None, :, None] >= edges[:, None]).sum(2)
    on_and_off = np.arange(_PLATEAUS) % 2
    levels = np.where(rows.chance(0.6), rows.normal(_PLATEAUS), on_and_off)
    values = pick(levels, number % rows.integers(2, _PLATEAUS + 1))

    slant = int(rows.generator.integers(0, rows.n_steps // 12 + 1))
    return np.mean([np.roll(values, lag, axis=1) for lag in range(-slant, slant + 1)], axis=0)


def daylight(rows: Rows) -> Doubles:
    """Return a hump and nothing outside of it: sun, a shop's visitors."""
    half = rows.n_steps * rows.uniform(0.15, 0.4)
    share = np.minimum(_distance(rows) / half, 1)
    return np.maximum(np.cos(0.5 * np.pi * share), 0) ** rows.log_uniform(0.5, 2)


def saw_teeth(rows: Rows) -> Doubles:
    """Return a rise and a fall: a tank that is filled and emptied, a thermostat."""
    peak = rows.uniform(0.05, 0.95)
    phase = (np.arange(rows.n_steps) / rows.n_steps + rows.uniform(0, 1)) % 1
    return np.where(phase < peak, phase / peak, (1 - phase) / (1 - peak))


def rough_cycle(rows: Rows) -> Doubles:
    """Return a random walk that ends where it began: a process that nobody has designed."""
    walk = np.cumsum(white(rows), axis=1)
    return walk - walk[:, -1:] * np.arange(1, rows.n_steps + 1) / rows.n_steps


PATTERNS: Sequence[tuple[float, Signal]] = (
    (0.42, harmonics),
    (0.18, bumps),
    (0.14, plateaus),
    (0.12, daylight),
    (0.07, saw_teeth),
    (0.07, rough_cycle),
)


def pattern(rows: Rows, season: int) -> Doubles:
    """Return a cycle of one of the kinds for each row, `(row, season)`; mean 0, variance 1."""
    return standardise(rows.over(season).mix(PATTERNS))


def _distance(rows: Rows) -> Doubles:
    """Return the distance of each step of a cycle from a random one, `(row, step)`."""
    distance = np.abs(np.arange(rows.n_steps) - rows.uniform(0, rows.n_steps))
    return np.minimum(distance, rows.n_steps - distance)


def flag_stretches(rows: Rows, length: Doubles) -> Flags:
    """Flag one stretch of each row, `(row, step)`, of a length in steps, `(row, 1)`."""
    steps, begin = np.arange(rows.n_steps), rows.uniform(0, rows.n_steps)
    return (steps >= begin) & (steps < begin + length)


def pulses(rates: Doubles, unit: Doubles) -> Doubles:
    """Return how a counter of whole units, `(row, 1)`, rises: what is over counts later."""
    counter = np.floor(sums_before(np.maximum(rates, 0.0)) / unit)
    return np.diff(counter, axis=1) * unit
