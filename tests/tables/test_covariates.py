"""Covariates: what is handed out for which rows, and never more than was known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.data.panel import Covariates, FeatureBlock, Panel
from rnnforecast.data.windows import make_past
from tests.builders import make_panel

LOOKBACK, HORIZON = 5, 3


def make_track(*lengths: int, n_features: int = 2, begin: int = 0) -> FeatureBlock:
    """Make tracks one after the other: feature f at place p is 1000 f + p."""
    high = np.cumsum(lengths)
    low = high - lengths
    values = 1000 * np.arange(n_features)[:, None] + np.arange(high[-1])
    names = tuple(f"f{i}" for i in range(n_features))
    return FeatureBlock(values.astype(np.float32), names, begin=low + begin, low=low, high=high)


def beside(panel: Panel, known: FeatureBlock, past: FeatureBlock) -> Panel:
    """Add covariates to a panel, and the number of each series as a static one."""
    static = np.arange(panel.n_series, dtype=np.float32)[:, None]
    return dataclasses.replace(panel, covariates=Covariates((known,), past, static))


def slowly(track: FeatureBlock, series: int, first: int, width: int) -> np.ndarray:
    """Gather one window place by place."""
    found = np.full((len(track.values), width), np.nan)
    for i in range(width):
        place = track.begin[series] + first + i
        if track.low[series] <= place < track.high[series]:
            found[:, i] = track.values[:, place]
    return found


@given(st.integers(-9, 20), st.integers(1, 9), st.integers(0, 2), st.integers(0, 3))
def test_a_window_holds_the_series_own_places_and_nan_outside(
    first: int, width: int, series: int, begin: int
) -> None:
    track = make_track(7, 4, 9, begin=begin)

    found = track.gather(np.array([series]), np.array([first]), width)

    np.testing.assert_array_equal(found[0], slowly(track, series, first, width))


def test_what_is_known_ahead_reaches_over_the_horizon_and_the_rest_ends_at_the_cutoff() -> None:
    panel = beside(make_panel(np.zeros(10), np.zeros(10)), make_track(14, 14), make_track(14, 14))

    features = make_past(panel, np.array([6, 10])).features(LOOKBACK, HORIZON)

    assert features is not None
    np.testing.assert_array_equal(features.known[0, 0], np.arange(1, 9))
    np.testing.assert_array_equal(features.past[0, 0], np.arange(1, 6))
    np.testing.assert_array_equal(features.known[1, 1], 1014 + np.arange(5, 13))
    np.testing.assert_array_equal(features.static, [[0], [1]])


def test_no_later_value_of_what_is_not_known_ahead_is_handed_out() -> None:
    panel = beside(make_panel(np.zeros(10)), make_track(14), make_track(14))
    assert panel.covariates is not None
    values = panel.covariates.past.values.copy()
    values[:, 6:] = -1e6
    changed = dataclasses.replace(
        panel,
        covariates=dataclasses.replace(
            panel.covariates, past=dataclasses.replace(panel.covariates.past, values=values)
        ),
    )
    for one in (panel, changed):
        features = make_past(one, np.array([6])).features(LOOKBACK, HORIZON)
        assert features is not None
        np.testing.assert_array_equal(features.past[0, 0], np.arange(1, 6))


def test_training_windows_have_the_features_of_their_own_rows() -> None:
    panel = beside(make_panel(np.zeros(12), np.zeros(12)), make_track(12, 12), make_track(12, 12))
    windows = make_past(panel).windows(LOOKBACK, HORIZON)

    batch = windows.gather(np.array([2, 5]))

    assert batch.features is not None
    np.testing.assert_array_equal(batch.features.known[0, 0], np.arange(2, 10))
    np.testing.assert_array_equal(batch.features.past[1, 0], 12 + np.arange(0, 5))


def test_series_that_are_selected_keep_their_features() -> None:
    panel = beside(make_panel(np.zeros(9), np.zeros(9)), make_track(9, 9), make_track(9, 9))

    chosen = panel.select(np.array([1]))

    features = make_past(chosen, np.array([6])).features(LOOKBACK, HORIZON)
    assert features is not None
    np.testing.assert_array_equal(features.past[0, 0], 9 + np.arange(1, 6))
    assert features.static.item() == 1


@pytest.mark.parametrize("kind", ["known", "past", "static"])
def test_a_fingerprint_tells_covariates_apart(kind: str) -> None:
    panel = beside(make_panel(np.zeros(9)), make_track(9), make_track(9))
    own = panel.covariates
    assert own is not None
    other = dataclasses.replace(own.past, values=own.past.values + 1)
    changed = {
        "known": dataclasses.replace(own, known=(other,)),
        "past": dataclasses.replace(own, past=other),
        "static": dataclasses.replace(own, static=own.static + 1),
    }[kind]

    assert dataclasses.replace(panel, covariates=changed).fingerprint() != panel.fingerprint()
