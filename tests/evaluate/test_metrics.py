"""Metrics against slow loops, against scikit-learn, and against examples worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    mean_absolute_error,
    mean_pinball_loss,
    root_mean_squared_error,
)

from rnnforecast.evaluate.baselines import normal_quantiles
from rnnforecast.evaluate.metrics import Metrics, skill
from rnnforecast.spec import DECILES, QUANTILES
from tests.evaluate import reference

LEVELS = np.array(DECILES)
seeds = st.integers(0, 2**32 - 1)
scales = st.floats(1e-3, 1e3)
repeatable = settings(max_examples=40, deadline=None, derandomize=True)


def draw(seed: int, *, n_windows: int = 6, horizon: int = 4, missing: float = 0.3) -> dict:
    """Make actuals with gaps, a forecast, its deciles, scales and the owners of the windows."""
    rng = np.random.default_rng(seed)
    actual = rng.normal(3, 5, (n_windows, horizon))
    actual[rng.random(actual.shape) < missing] = np.nan
    actual[0, 0] = 1.5
    deciles = np.sort(rng.normal(3, 5, (n_windows, horizon, 9)), axis=2)
    return {
        "actual": actual,
        "point": deciles[:, :, 4],
        "deciles": deciles,
        "scale": rng.uniform(0.5, 2, n_windows),
        "deviation": rng.uniform(0.5, 2, n_windows),
        "series": rng.integers(0, 3, n_windows),
    }


def seen_pairs(actual: np.ndarray, forecast: np.ndarray) -> list[tuple[float, float]]:
    pairs = zip(actual.ravel().tolist(), forecast.ravel().tolist(), strict=True)
    return [(a, f) for a, f in pairs if not math.isnan(a)]


def slow_smape(actual: np.ndarray, forecast: np.ndarray) -> float:
    total, n = 0.0, 0
    for a, f in seen_pairs(actual, forecast):
        n += 1
        if a != 0 or f != 0:
            total += 200 * abs(a - f) / (abs(a) + abs(f))
    return total / n


def slow_mase(
    actual: np.ndarray, forecast: np.ndarray, scale: np.ndarray, series: np.ndarray
) -> float:
    of_series: dict[int, list[float]] = {}
    for window in range(len(actual)):
        for lead in range(actual.shape[1]):
            if not math.isnan(actual[window, lead]):
                error = abs(actual[window, lead] - forecast[window, lead]) / scale[window]
                of_series.setdefault(int(series[window]), []).append(error)
    means = [sum(errors) / len(errors) for errors in of_series.values()]
    return sum(means) / len(means)


def slow_wql(actual: np.ndarray, deciles: np.ndarray) -> float:
    size = sum(abs(a) for a, _ in seen_pairs(actual, actual))
    losses = []
    for i, level in enumerate(DECILES):
        loss = 0.0
        for a, q in seen_pairs(actual, deciles[:, :, i]):
            loss += level * (a - q) if a >= q else (1 - level) * (q - a)
        losses.append(2 * loss / size)
    return sum(losses) / len(losses)


def slow_coverage(actual: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    inside = [
        lo <= a <= hi
        for (a, lo), (_, hi) in zip(seen_pairs(actual, low), seen_pairs(actual, high), strict=True)
    ]
    return sum(inside) / len(inside)


@given(seeds)
@repeatable
def test_mae_and_rmse_are_those_of_sklearn_on_the_readings_that_are_there(seed: int) -> None:
    case = draw(seed)
    pairs = seen_pairs(case["actual"], case["point"])
    actual, point = [a for a, _ in pairs], [f for _, f in pairs]

    assert reference.mae(case["actual"], case["point"]) == pytest.approx(
        mean_absolute_error(actual, point)
    )
    assert reference.rmse(case["actual"], case["point"]) == pytest.approx(
        root_mean_squared_error(actual, point)
    )


@given(seeds)
@repeatable
def test_mae_and_rmse_equal_a_loop(seed: int) -> None:
    case = draw(seed)
    errors = [abs(a - f) for a, f in seen_pairs(case["actual"], case["point"])]

    assert reference.mae(case["actual"], case["point"]) == pytest.approx(sum(errors) / len(errors))
    assert reference.rmse(case["actual"], case["point"]) == pytest.approx(
        math.sqrt(sum(e * e for e in errors) / len(errors))
    )


@given(seeds)
@repeatable
def test_smape_equals_a_loop(seed: int) -> None:
    case = draw(seed)
    case["actual"][0, 0] = 0.0

    assert reference.smape(case["actual"], case["point"]) == pytest.approx(
        slow_smape(case["actual"], case["point"])
    )


@given(seeds)
@repeatable
def test_mase_equals_a_loop(seed: int) -> None:
    case = draw(seed)

    assert reference.mase(
        case["actual"], case["point"], scale=case["scale"], series=case["series"]
    ) == pytest.approx(slow_mase(case["actual"], case["point"], case["scale"], case["series"]))


@given(seeds)
@repeatable
def test_wql_equals_a_loop_and_sklearns_pinball_loss(seed: int) -> None:
    case = draw(seed)
    wql = reference.wql(case["actual"], case["deciles"], LEVELS)

    assert wql == pytest.approx(slow_wql(case["actual"], case["deciles"]))
    seen = np.isfinite(case["actual"])
    actual = case["actual"][seen]
    losses = [
        mean_pinball_loss(actual, case["deciles"][seen][:, i], alpha=level)
        for i, level in enumerate(DECILES)
    ]
    assert wql == pytest.approx(2 * np.mean(losses) / np.mean(np.abs(actual)))


@given(seeds)
@repeatable
def test_coverage_equals_a_loop(seed: int) -> None:
    case = draw(seed)
    low, high = case["deciles"][:, :, 0], case["deciles"][:, :, -1]

    assert reference.coverage(case["actual"], low, high) == pytest.approx(
        slow_coverage(case["actual"], low, high)
    )


@given(seeds)
@repeatable
def test_scaled_errors_equal_a_loop(seed: int) -> None:
    case = draw(seed)
    parts = [
        abs(a - f) / deviation
        for window, deviation in enumerate(case["deviation"])
        for a, f in seen_pairs(case["actual"][window], case["point"][window])
    ]
    given_ = {"deviation": case["deviation"]}

    assert reference.scaled_mae(case["actual"], case["point"], **given_) == pytest.approx(
        np.mean(parts)
    )
    assert reference.scaled_mse(case["actual"], case["point"], **given_) == pytest.approx(
        sum(part * part for part in parts) / len(parts)
    )


def test_scaled_errors_leave_out_a_series_that_never_moved() -> None:
    actual, point = np.zeros((2, 1)), np.array([[2.0], [50.0]])

    assert reference.scaled_mae(actual, point, deviation=np.array([2.0, 0.0])) == 1
    assert reference.scaled_mse(actual, point, deviation=np.zeros(2)) is None


def test_metrics_of_an_example_worked_out_by_hand() -> None:
    actual = np.array([[10.0, 20.0], [-4.0, 0.0]])
    point = np.array([[12.0, 18.0], [-1.0, 0.0]])

    assert reference.mae(actual, point) == pytest.approx((2 + 2 + 3 + 0) / 4)
    assert reference.rmse(actual, point) == pytest.approx(math.sqrt((4 + 4 + 9 + 0) / 4))
    assert reference.smape(actual, point) == pytest.approx(
        (200 * 2 / 22 + 200 * 2 / 38 + 200 * 3 / 5 + 0) / 4
    )


def test_wql_of_an_example_worked_out_by_hand() -> None:
    """Twice (0.1 x 4 + 0) over 10 for q10, twice (0 + 0.1 x 2) over 10 for q90; then their mean."""
    actual = np.array([[10.0]])
    quantiles = np.array([[[6.0, 12.0]]])

    assert reference.wql(actual, quantiles, np.array([0.1, 0.9])) == pytest.approx(
        (0.08 + 0.04) / 2
    )


def test_wql_of_equal_quantiles_is_the_mean_absolute_error_over_the_mean_size() -> None:
    actual = np.array([[10.0, -20.0, np.nan]])
    point = np.array([[13.0, -19.0, 7.0]])

    assert reference.wql(actual, np.repeat(point[:, :, None], 9, 2), LEVELS) == pytest.approx(
        4 / 30
    )


def test_smape_runs_from_0_to_200() -> None:
    assert reference.smape(np.array([[0.0]]), np.array([[0.0]])) == 0
    assert reference.smape(np.array([[5.0]]), np.array([[5.0]])) == 0
    assert reference.smape(np.array([[0.0]]), np.array([[5.0]])) == 200
    assert reference.smape(np.array([[5.0]]), np.array([[-1.0]])) == 200


def test_mase_is_a_mean_over_series_not_over_values() -> None:
    actual = np.zeros((3, 2))
    point = np.array([[1.0, 1.0], [1.0, 1.0], [10.0, 10.0]])
    series = np.array([0, 0, 7])

    assert reference.mase(actual, point, scale=np.ones(3), series=series) == pytest.approx(
        (1 + 10) / 2
    )


def test_mase_divides_each_window_by_its_own_scale() -> None:
    actual, point = np.zeros((2, 1)), np.array([[2.0], [9.0]])

    assert reference.mase(
        actual, point, scale=np.array([2.0, 3.0]), series=np.array([0, 0])
    ) == pytest.approx((1 + 3) / 2)


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf])
def test_mase_leaves_out_windows_whose_scale_says_nothing(scale: float) -> None:
    actual, point = np.zeros((3, 1)), np.array([[2.0], [50.0], [70.0]])
    scales_of = np.array([1.0, scale, scale])

    assert reference.mase(actual, point, scale=scales_of, series=np.array([0, 0, 1])) == 2


def test_mase_leaves_out_a_series_without_actuals() -> None:
    actual, point = np.array([[1.0], [np.nan]]), np.array([[3.0], [9.0]])

    assert reference.mase(actual, point, scale=np.ones(2), series=np.array([1, 0])) == 2


@pytest.mark.parametrize("scale", [0.0, np.nan])
def test_mase_without_any_usable_scale_is_undefined(scale: float) -> None:
    zeros = np.zeros((2, 3))

    assert (
        reference.mase(zeros, zeros + 1, scale=np.full(2, scale), series=np.array([0, 1])) is None
    )


@pytest.mark.parametrize(
    "metric",
    [
        reference.mae,
        reference.rmse,
        reference.smape,
        lambda a, f: reference.mase(a, f, scale=np.ones(2), series=np.array([0, 1])),
        lambda a, f: reference.wql(a, np.repeat(f[:, :, None], 9, 2), LEVELS),
        lambda a, f: reference.coverage(a, f - 1, f + 1),
        lambda a, f: reference.scaled_mse(a, f, deviation=np.ones(2)),
        lambda a, f: reference.scaled_mae(a, f, deviation=np.ones(2)),
    ],
    ids=["mae", "rmse", "smape", "mase", "wql", "coverage", "scaled mse", "scaled mae"],
)
def test_a_metric_without_actuals_is_undefined(metric: Callable) -> None:
    assert metric(np.full((2, 3), np.nan), np.ones((2, 3))) is None
    assert metric(np.ones((2, 3)), np.ones((2, 3))) is not None


def test_wql_of_actuals_that_are_all_zero_is_undefined() -> None:
    actual = np.array([[0.0, np.nan, 0.0]])

    assert reference.wql(actual, np.ones((1, 3, 9)), LEVELS) is None


def test_coverage_counts_the_bounds_as_inside() -> None:
    actual = np.array([[1.0, 2.0, 0.9, 2.1, np.nan]])

    assert reference.coverage(actual, np.full((1, 5), 1.0), np.full((1, 5), 2.0)) == 0.5


@given(seeds, scales)
@repeatable
def test_relative_metrics_do_not_depend_on_the_unit(seed: int, factor: float) -> None:
    case = draw(seed)
    actual, point, deciles = (factor * case[k] for k in ("actual", "point", "deciles"))

    assert reference.smape(actual, point) == pytest.approx(
        reference.smape(case["actual"], case["point"])
    )
    assert reference.wql(actual, deciles, LEVELS) == pytest.approx(
        reference.wql(case["actual"], case["deciles"], LEVELS)
    )
    assert reference.mase(
        actual, point, scale=factor * case["scale"], series=case["series"]
    ) == pytest.approx(
        reference.mase(case["actual"], case["point"], scale=case["scale"], series=case["series"])
    )
    assert reference.mae(actual, point) == pytest.approx(
        factor * reference.mae(case["actual"], case["point"])
    )
    assert reference.rmse(actual, point) == pytest.approx(
        factor * reference.rmse(case["actual"], case["point"])
    )


@given(seeds)
@repeatable
def test_metrics_do_not_depend_on_the_order_of_windows_or_the_numbers_of_series(seed: int) -> None:
    case = draw(seed, n_windows=8)
    order = np.random.default_rng(seed).permutation(8)
    renamed = np.array([12, 0, 5])[case["series"]]
    shuffled = {k: v[order] for k, v in {**case, "series": renamed}.items()}

    assert all_metrics(shuffled) == pytest.approx(all_metrics(case))


@given(seeds)
@repeatable
def test_what_was_forecast_where_no_actual_came_changes_nothing(seed: int) -> None:
    case = draw(seed, missing=0.5)
    other = {k: v.copy() for k, v in case.items()}
    gone = np.isnan(case["actual"])
    other["point"][gone] = 1e6
    other["deciles"][gone] = 1e6

    assert all_metrics(other) == all_metrics(case)


def all_metrics(case: dict) -> list[float | None]:
    actual, point, deciles = case["actual"], case["point"], case["deciles"]
    return [
        reference.mae(actual, point),
        reference.rmse(actual, point),
        reference.smape(actual, point),
        reference.mase(actual, point, scale=case["scale"], series=case["series"]),
        reference.wql(actual, deciles, LEVELS),
        reference.coverage(actual, deciles[:, :, 0], deciles[:, :, -1]),
        reference.scaled_mse(actual, point, deviation=case["deviation"]),
        reference.scaled_mae(actual, point, deviation=case["deviation"]),
    ]


def with_mase(mase: float | None) -> Metrics:
    return Metrics(1.0, 1.0, 1.0, mase, 1.0, 1.0, 1.0, 1.0, 1)


@pytest.mark.parametrize(
    ("network", "naive", "seasonal", "expected"),
    [
        (0.5, 2.0, 1.0, (50.0, "seasonal_naive")),
        (0.5, 1.0, 2.0, (50.0, "naive")),
        (3.0, 2.0, 4.0, (-50.0, "naive")),
        (1.0, None, 2.0, (50.0, "seasonal_naive")),
        (1.0, 1.0, 1.0, (0.0, "naive")),
        (0.0, 2.0, 1.0, (100.0, "seasonal_naive")),
        (1.0, 0.0, 1.0, (None, "naive")),
        (0.0, 1.0, 0.0, (None, "seasonal_naive")),
        (None, 1.0, 1.0, (None, None)),
        (1.0, None, None, (None, None)),
    ],
)
def test_skill_is_over_the_better_naive_and_undefined_where_that_makes_no_error(
    network: float | None,
    naive: float | None,
    seasonal: float | None,
    expected: tuple[float | None, str | None],
) -> None:
    others = {"naive": with_mase(naive), "seasonal_naive": with_mase(seasonal)}

    found, over = skill(with_mase(network), others)

    assert (found, over) == (pytest.approx(expected[0]), expected[1])


def test_normal_quantiles_are_those_of_the_normal_distribution() -> None:
    point, deviation = np.array([3.0, -2.0]), np.array([2.0, 0.5])

    found = normal_quantiles(point, deviation, QUANTILES)

    for i in range(2):
        normal = NormalDist(point[i], deviation[i])
        assert found[i] == pytest.approx([normal.inv_cdf(q) for q in QUANTILES])
    assert found[0, QUANTILES.index(0.975)] == pytest.approx(3 + 1.959964 * 2, rel=1e-6)


def test_normal_quantiles_without_spread_are_the_point() -> None:
    found = normal_quantiles(np.array([3.7]), np.zeros(1), QUANTILES)

    assert (found == 3.7).all()
