"""Made-up sensors of many kinds, none of them with a fault."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

from rnnforecast.data.panel import Panel
from rnnforecast.tables.profile import find_level_shifts, spikes_by_series
from rnnforecast.tables.quality import describe, find_quality_issues

Sensor = Callable[[np.random.Generator], np.ndarray]
N = 2400
T = np.arange(N)
DAY = 96


def red(rng: np.random.Generator, memory: float, scale: float = 1.0) -> np.ndarray:
    """Make noise that remembers its past, with this standard deviation."""
    return scale * np.sqrt(1 - memory**2) * lfilter([1], [1, -memory], rng.standard_normal(N))


def daily(length: int = DAY) -> np.ndarray:
    return np.sin(2 * np.pi * T / length)


def solar(rng: np.random.Generator) -> np.ndarray:
    sky = 1 / (1 + np.exp(-2 * red(rng, 0.8, 1.5)))
    return np.round(5000 * np.maximum(daily(), 0) * sky)


def rain(rng: np.random.Generator) -> np.ndarray:
    return np.round(np.where(red(rng, 0.9) > 1.3, rng.gamma(0.5, 3, N), 0) / 0.2) * 0.2


def downpours(rng: np.random.Generator) -> np.ndarray:
    """Make rain that the gauge cannot measure above 38.4."""
    amount = np.where(red(rng, 0.9) > 0.5, rng.lognormal(0, 1.5, N), 0)
    return np.minimum(np.round(amount, 1), 38.4)


def switched(rng: np.random.Generator, off: tuple[int, int], on: tuple[int, int]) -> np.ndarray:
    lengths = [rng.integers(*(on if i % 2 else off)) for i in range(N)]
    return np.repeat(np.arange(N) % 2, lengths)[:N]


def compressor(rng: np.random.Generator) -> np.ndarray:
    running = switched(rng, (4, 16), (2, 9))
    return np.round(np.where(running, 37 + 0.6 * rng.standard_normal(N), 0), 1)


def household(rng: np.random.Generator) -> np.ndarray:
    draws = np.where(rng.random(N) < 0.05, rng.pareto(1.3, N) * 300, 0)
    return np.round(np.maximum(120 + 20 * rng.standard_normal(N) + draws, 0))


def kettle(rng: np.random.Generator) -> np.ndarray:
    power = 120 + 20 * rng.standard_normal(N)
    power[rng.choice(N // 4, 14, replace=False) * 4] += 2000 + 40 * rng.standard_normal(14)
    return np.round(power)


def shifts(rng: np.random.Generator) -> np.ndarray:
    """Make the temperature of a machine that runs in two shifts."""
    works = (T % 24 >= 6) & (T % 24 < 22) & (T // 24 % 7 < 5)
    heat = lfilter([0.25], [1, -0.75], np.where(works, 65, 22)) + red(rng, 0.75, 0.6)
    return np.round(heat, 1)[-N:]


def voltage(rng: np.random.Generator) -> np.ndarray:
    return np.round(400 + 3 * rng.standard_normal(N) + red(rng, 0.95, 2), 1)


SENSORS: dict[str, Sensor] = {
    "temperature": lambda rng: np.round(12 + 6 * daily() + red(rng, 0.97, 4), 1),
    "coarse thermometer": lambda rng: np.round(2 * (20 + 3 * daily() + red(rng, 0.99))) / 2,
    "whole degrees": lambda rng: np.round(8 + 5 * daily() + red(rng, 0.97, 3)),
    "pressure": lambda rng: np.round(4.7 + 0.2 * rng.standard_normal(N), 2),
    "air pressure": lambda rng: np.round(1005 + red(rng, 0.995, 6), 1),
    "voltage": voltage,
    "flow": lambda rng: np.round(np.maximum(150 + 90 * daily() + red(rng, 0.7, 8), 5), 1),
    "solar": solar,
    "rain": rain,
    "downpours": downpours,
    "compressor": compressor,
    "valve": lambda rng: np.round(np.clip(50 + red(rng, 0.98, 60), 0, 100), 1),
    "valve in steps": lambda rng: np.repeat(rng.choice([0.0, 50, 75, 100], N // 20), 20),
    "contact": lambda rng: switched(rng, (20, 200), (1, 6)).astype(float),
    "set point": lambda _: np.where(T % DAY < 24, 18.0, 21.0),
    "spare parts": lambda rng: np.where(rng.random(N) < 0.08, rng.geometric(0.4, N), 0.0),
    "wind": lambda rng: np.round(4 * np.exp(0.5 * red(rng, 0.95) + rng.normal(0, 0.2, N)), 1),
    "gusts": lambda rng: np.round(3 * np.exp(0.9 * red(rng, 0.6)), 1),
    "household": household,
    "kettle": kettle,
    "people": lambda rng: rng.poisson(np.maximum(20 * daily(), 0)).astype(float),
    "tank": lambda rng: np.round(80 - np.cumsum(0.8 + 0.2 * rng.random(N)) % 60, 1),
    "humidity": lambda rng: np.round(np.clip(85 + red(rng, 0.95, 12), 0, 100)),
    "machine": shifts,
    "walk": lambda rng: rng.standard_normal(N).cumsum(),
}


def findings(panel: Panel) -> set[tuple[str, str, float]]:
    """Return all findings of a panel: code, series, and the first suspect value or level."""
    issues, stats = find_quality_issues(panel), describe(panel)
    return {
        *(("stuck-sensor", s.series, s.value) for s in issues.stuck),
        *(("sentinel", s.series, s.value) for s in issues.sentinels),
        *(
            ("spike", s.series, s.value)
            for spikes in spikes_by_series(panel, issues.sentinels)
            for s in spikes.segments
        ),
        *(("level-jump", s.series, s.after) for s in find_level_shifts(panel, stats)),
    }
