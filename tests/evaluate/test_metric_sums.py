"""Running sums give what the metrics of all windows at once give, however they are cut."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnforecast.data.forecast import Forecast
from rnnforecast.evaluate.metrics import (
    HEADINGS,
    MetricAccumulator,
    Metrics,
    WindowContext,
    scaled_errors,
    skill_interval,
)
from rnnforecast.spec import DECILES, QUANTILES
from tests.evaluate import reference

N_SERIES, HORIZON, N_BLOCKS = 3, 4, 5


def drawn(
    seed: int, n: int = 40, *, size: float = 1.0
) -> tuple[np.ndarray, Forecast, WindowContext]:
    rng = np.random.default_rng(seed)
    actual = rng.normal(3, 5, (n, HORIZON))
    actual[rng.random(actual.shape) < 0.3] = np.nan
    values = np.sort(rng.normal(3, 5 * size, (n, HORIZON, len(QUANTILES))), axis=2)
    forecast = Forecast(values, QUANTILES, ("s",) * n, np.zeros(n, np.int64), 1)
    windows = WindowContext(
        series=rng.integers(0, N_SERIES, n),
        scale=rng.choice([0.0, 0.5, 2.0, np.nan], n),
        deviation=rng.uniform(0.5, 2, n),
        block=rng.integers(0, N_BLOCKS, n),
    )
    return actual, forecast, windows


def part_of(case: tuple, chosen: slice) -> tuple[np.ndarray, Forecast, WindowContext]:
    actual, forecast, windows = case
    rows = np.zeros(len(actual), np.bool_)
    rows[chosen] = True
    names = ("series", "scale", "deviation", "block")
    return (
        actual[rows],
        forecast.subset(rows),
        WindowContext(*(getattr(windows, name)[rows] for name in names)),
    )


def tally_of(case: tuple, *cuts: int) -> MetricAccumulator:
    tally = MetricAccumulator(N_SERIES, HORIZON, N_BLOCKS)
    for start, end in zip((0, *cuts), (*cuts, len(case[0])), strict=True):
        tally.add(*part_of(case, slice(start, end)))
    return tally


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_parts_of_any_size_give_the_metrics_of_all_windows(seed: int, cuts: list[int]) -> None:
    case = drawn(seed)
    actual, forecast, windows = case
    deciles = forecast.values[:, :, 1:10]

    found = tally_of(case, *sorted(cuts)).metrics().to_json()

    expected = {
        "mae": reference.mae(actual, forecast.point),
        "rmse": reference.rmse(actual, forecast.point),
        "smape": reference.smape(actual, forecast.point),
        "mase": reference.mase(actual, forecast.point, scale=windows.scale, series=windows.series),
        "wql": reference.wql(actual, deciles, np.array(DECILES)),
        "coverage_80": reference.coverage(actual, deciles[:, :, 0], deciles[:, :, -1]),
        "scaled_mse": reference.scaled_mse(actual, forecast.point, deviation=windows.deviation),
        "scaled_mae": reference.scaled_mae(actual, forecast.point, deviation=windows.deviation),
        "n": int(np.isfinite(actual).sum()),
    }
    assert found == pytest.approx(expected, nan_ok=False)


def test_a_metric_declares_one_formula_and_tables_show_those_with_a_heading() -> None:
    for metric in fields(Metrics):
        assert ("terms" in metric.metadata) != ("value" in metric.metadata)
        assert HEADINGS.get(metric.name) == metric.metadata["heading"]


def test_errors_by_lead_are_those_of_the_lead_alone() -> None:
    actual, forecast, windows = drawn(1)
    errors = scaled_errors(actual, forecast.point, windows.deviation)

    found = tally_of((actual, forecast, windows), 13)

    assert found.by_lead.values == pytest.approx(np.nanmean(errors, axis=0))
    assert found.n_windows == 40


def test_nothing_counted_is_null_in_json_never_zero_or_infinite() -> None:
    found = MetricAccumulator(N_SERIES, HORIZON, N_BLOCKS).metrics().to_json()

    assert found.pop("n") == 0
    assert set(found.values()) == {None}


def skilled(
    n_blocks: int, *, better: float = 0.8, noise: float = 0.1
) -> tuple[MetricAccumulator, MetricAccumulator]:
    """Two methods, the first with `better` times the errors of the second, and their blocks."""
    rng = np.random.default_rng(0)
    tallies = []
    for factor in (better, 1.0):
        tally = MetricAccumulator(2, HORIZON, n_blocks)
        tally.by_block.counts += 50
        tally.by_block.sums += 50 * factor * (1 + noise * rng.standard_normal((n_blocks, 2)))
        tallies.append(tally)
    return tallies[0], tallies[1]


def test_the_interval_holds_the_skill_and_narrows_with_more_time() -> None:
    widths = []
    for n_blocks in (10, 160):
        low, high = skill_interval(*skilled(n_blocks))
        assert low < 20 < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2.5


@pytest.mark.parametrize("memory", [0.0, 0.6])
def test_the_interval_covers_the_truth_nearly_as_often_as_it_says(memory: float) -> None:
    """Errors that go together from stretch to stretch must widen it: a memory of 0.6 does."""
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        tallies = []
        for factor in (0.8, 1.0):
            noise = rng.standard_normal(80)
            for i in range(1, 80):
                noise[i] = memory * noise[i - 1] + np.sqrt(1 - memory**2) * noise[i]
            tally = MetricAccumulator(1, 1, 80)
            tally.by_block.counts += 1
            tally.by_block.sums += factor * (1 + 0.2 * noise[:, None])
            tallies.append(tally)
        low, high = skill_interval(*tallies)
        hits += low < 20 < high
    assert 170 <= hits <= 200


def test_few_stretches_of_time_have_no_interval() -> None:
    assert skill_interval(*skilled(7)) is None
    assert skill_interval(*skilled(8)) is not None


def test_a_method_without_errors_leaves_no_interval() -> None:
    network, other = skilled(20)
    other.by_block.sums[:] = 0
    assert skill_interval(network, other) is None
