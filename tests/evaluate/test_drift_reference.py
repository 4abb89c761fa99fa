"""What was usual at training: against a loop over stretches of time, and against what is true."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from rnnforecast.evaluate import comparison
from rnnforecast.evaluate.comparison import (
    REFERENCE_FIELDS,
    ErrorReference,
    fit_error_reference,
    reference_table,
)
from rnnforecast.evaluate.metrics import MetricAccumulator

NAMES, HORIZON, N_BLOCKS = ("a", "b", "c"), 4, 14


def tallies_of(
    errors: np.ndarray, naive: np.ndarray, inside: np.ndarray
) -> tuple[MetricAccumulator, MetricAccumulator]:
    """Count errors in units of MASE, `(block, series, window, lead)`, NaN where none came."""
    n_blocks, n_series, _, horizon = errors.shape
    network, other = (MetricAccumulator(n_series, horizon, n_blocks) for _ in range(2))
    cell = np.arange(n_blocks * n_series).reshape(n_blocks, n_series, 1, 1)
    network.by_block.add(errors, cell)
    network.inside.add(inside, cell)
    other.by_block.add(naive, cell)
    return network, other


def drawn(seed: int, *, n_windows: int, missing: float = 0.3) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    shape = (N_BLOCKS, len(NAMES), n_windows, HORIZON)
    errors, naive = rng.exponential(0.5, shape), rng.exponential(1.0, shape)
    inside = (rng.random(shape) < 0.8).astype(float)
    gone = rng.random(shape) < missing
    for block in range(N_BLOCKS):
        gone[block, 0] |= block % 7 == 3  # nothing came in some stretches
    return tuple(np.where(gone, np.nan, values) for values in (errors, naive, inside))


def slowly(errors: np.ndarray, naive: np.ndarray, inside: np.ndarray, s: int) -> list[float]:
    """Say what is usual of one series, stretch by stretch."""
    own, others, shares, counts, all_inside = [], [], [], [], []
    for block in range(N_BLOCKS):
        cell = [values[block, s].ravel() for values in (errors, naive, inside)]
        there = [[float(x) for x in values if not np.isnan(x)] for values in cell]
        if there[0]:
            own.append(statistics.fmean(there[0]))
            others.append(statistics.fmean(there[1]))
            shares.append(statistics.fmean(there[2]))
            counts.append(len(there[2]))
            all_inside += there[2]
    forecasts = max(statistics.fmean(counts), HORIZON) / HORIZON
    ratio = sum(own) / sum(others)
    excess = [a - ratio * b for a, b in zip(own, others, strict=True)]
    logs = [math.log(a) for a in own]
    wider = forecasts**0.5 * stats.t.isf(stats.norm.sf(4.0), len(own) - 1) / 4.0
    return [
        statistics.fmean(all_inside),
        statistics.stdev(shares) * wider,
        ratio,
        statistics.stdev(excess) * wider,
        statistics.fmean(logs),
        statistics.stdev(logs) * wider,
        len(own),
    ]


@pytest.mark.parametrize("n_windows", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_usual_is_what_a_loop_over_stretches_finds(seed: int, n_windows: int) -> None:
    case = drawn(seed, n_windows=n_windows)

    found = fit_error_reference(*tallies_of(*case), NAMES)

    for s in range(len(NAMES)):
        assert [getattr(found, name)[s] for name in REFERENCE_FIELDS] == pytest.approx(
            slowly(*case, s)
        )


@pytest.mark.parametrize("n_windows", [1, 4])
def test_the_deviation_is_that_of_one_forecast_however_many_a_stretch_holds(
    n_windows: int,
) -> None:
    """Forecasts of which each is 0.5 off or 1.5, 0.5 on average from the mean."""
    rng = np.random.default_rng(0)
    errors = rng.choice([0.5, 1.5], (2000, 1, n_windows, 1)) * np.ones(HORIZON)
    naive, inside = np.full_like(errors, 2.0), (errors < 1).astype(float)

    found = fit_error_reference(*tallies_of(errors, naive, inside), ("a",))

    assert found.excess_sd == pytest.approx(0.5, rel=0.05)
    assert found.coverage_sd == pytest.approx(0.5, rel=0.05)
    assert found.ratio == pytest.approx(0.5, rel=0.05)
    assert found.stretches == 2000


def test_of_few_stretches_or_without_a_naive_error_nothing_is_known() -> None:
    errors, naive, inside = drawn(1, n_windows=2, missing=0.0)
    errors[7:, 1], naive[7:, 1], inside[7:, 1] = np.nan, np.nan, np.nan
    naive[:, 2] = 0.0

    found = fit_error_reference(*tallies_of(errors, naive, inside), NAMES)

    assert np.isfinite([found.coverage_sd[0], found.excess_sd[0]]).all()
    assert np.isnan([found.coverage_sd[1], found.excess_sd[1]]).all()
    assert np.isnan([found.ratio[2], found.excess_sd[2]]).all()
    assert set(found.to_json()["series"]) == {"a"}


def some_reference() -> ErrorReference:
    table = np.arange(21.0).reshape(3, 7) / 8
    table[1, 2] = np.nan
    return ErrorReference(NAMES, *table.T)


def test_what_is_usual_is_read_as_it_was_written() -> None:
    reference = some_reference()
    stored = json.loads(json.dumps(reference.to_json()))

    figures = reference_table(stored, ("c", "a", "c"))

    expected = np.stack([getattr(reference, name) for name in REFERENCE_FIELDS], axis=1)
    np.testing.assert_allclose(figures, expected[[2, 0, 2]])


def test_series_that_were_not_there_have_what_is_usual_of_the_others() -> None:
    figures = reference_table(some_reference().to_json(), ("a", "b", "new"))

    middle = (figures[0] + reference_table(some_reference().to_json(), ("c",))[0]) / 2
    np.testing.assert_allclose(figures[1:], [middle, middle])


def test_of_very_many_series_only_the_middle_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    before = some_reference().to_json()
    monkeypatch.setattr(comparison, "_MAX_SERIES", 2)

    stored = some_reference().to_json()

    assert (stored["series"], stored["others"]) == ({}, before["others"])
    assert len(set(map(tuple, reference_table(stored, NAMES)))) == 1


@pytest.mark.parametrize(
    "stored",
    [
        None,
        {},
        ErrorReference(NAMES, *np.full((7, 3), np.nan)).to_json(),
        {"fields": ["coverage"], "series": {"a": [0.8]}, "others": [0.8]},
    ],
)
def test_a_version_that_does_not_say_what_is_usual_leaves_it_unknown(stored: object) -> None:
    figures = reference_table(stored, NAMES)
    assert figures.shape == (3, len(REFERENCE_FIELDS))
    assert np.isnan(figures).all()
    assert reference_table(stored, ()).shape == (0, len(REFERENCE_FIELDS))
