"""Memory in the data: at which lags readings come again, beside the memory of a network.

Apart from `season`, which decides on one period before anything is learnt: here peaks of the
autocorrelation are listed, with what is left of them once the learned pattern is taken out.

Source: memory in the data beside memory in the network, Greaves-Tunnell and Harchaoui 2019 (arXiv
1904.03834).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnnforecast.data.panel import Doubles

_LEAST = 0.1
"""Lower peaks are not listed."""
_LEAST_RISE = 0.05
"""How far a peak stands above the lowest correlation before it."""
_NOISE = 3.0
"""Standard deviations of the autocorrelation of white noise."""
_FEWEST_PAIRS = 20
_NO_HIGHER = 0.02
"""A peak counts beside a shorter one only where it is higher by so much."""


def autocorrelation(readings: Doubles, most: int) -> Doubles:
    """Return the correlation of readings, `(row,)`, NaN where missing, with those k rows before.

    `(most + 1,)` for k from 0; NaN where fewer than 20 pairs are there, or nothing moves.
    """
    seen = np.isfinite(readings)
    n = len(readings)
    found = np.full(most + 1, np.nan)
    if seen.sum() < _FEWEST_PAIRS:
        return found
    values = np.where(seen, readings - readings[seen].mean(), 0.0)
    variance = float((values**2).sum() / seen.sum())
    if variance == 0:
        return found
    size = 1 << int(2 * n - 1).bit_length()

    def correlate(x: Doubles) -> Doubles:
        spectrum = np.fft.rfft(x, size)
        return np.fft.irfft(spectrum * np.conj(spectrum), size)[: most + 1]

    pairs, products = correlate(seen.astype(np.float64)), correlate(values)
    length = len(pairs)
    enough = pairs > _FEWEST_PAIRS - 0.5
    found[:length][enough] = products[enough] / pairs[enough] / variance
    found[n:] = np.nan
    return found


def peaks(correlation: Doubles, n_readings: int) -> list[int]:
    """Return the lags at which an autocorrelation, from lag 0, peaks, increasing.

    A peak is the highest within a quarter of its lag, stands out of the valley before it and of
    noise, and is higher than the peaks before it: what comes again after a day does so after two,
    and that says nothing new.
    """
    curve = np.nan_to_num(correlation, nan=-1.0)
    lowest = np.minimum.accumulate(curve)
    least = max(_LEAST, _NOISE / np.sqrt(max(n_readings, 1)))
    kept: list[int] = []
    for lag in range(2, len(curve) - 1):
        near = max(1, lag // 4)
        around = curve[lag - near : lag + near + 1]
        highest = max([least, lowest[lag] + _LEAST_RISE, *(curve[p] + _NO_HIGHER for p in kept)])
        if curve[lag] >= highest and curve[lag] == around.max():
            kept.append(lag)
    return kept


def median_curve(curves: Sequence[Doubles]) -> Doubles:
    """Return the median over series, lag by lag, of what is known."""
    table = np.stack(list(curves))
    known = np.isfinite(table).any(0)
    found = np.full(table.shape[1], np.nan)
    found[known] = np.nanmedian(table[:, known], axis=0)
    return found
