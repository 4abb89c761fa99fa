"""The forward pass in numpy: it is that of torch, in the same bytes however it is divided."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from rnnforecast.config.training import NetworkConfig
from rnnforecast.data.arrays import Floats
from rnnforecast.data.panel import Features
from rnnforecast.data.season import Seasons
from rnnforecast.model import inference
from rnnforecast.model.inference import (
    MemberWeights,
    member_quantiles,
    single_threaded_products,
)
from rnnforecast.model.member import make_member, to_tensors
from rnnforecast.model.network import History, Network, Prepared
from rnnforecast.spec import CELLS, DECILES, QUANTILES, MemberSpec, NetworkSpec, member_shapes

LEVELS = ((0.5,), (0.1, 0.5), (0.5, 0.9), DECILES, QUANTILES)


def draw_weights(
    spec: NetworkSpec, member: MemberSpec, rng: np.random.Generator, size: float
) -> MemberWeights:
    """Draw weights that keep what they multiply about as large as it is, times `size`."""
    tensors = {}
    for name, shape in member_shapes(spec, member).items():
        values = rng.normal(0, size / np.sqrt(shape[-1]), shape)
        tensors[name] = values.astype(np.float32)
    return MemberWeights(member, tensors)


def draw_history(network: NetworkSpec, n: int, rng: np.random.Generator) -> History:
    """Draw windows with a season, gaps, spikes and covariates, some of them unknown."""
    rows = np.arange(network.lookback)
    readings = 10 * np.sin(rows * np.pi / 4) + rng.normal(0, 1, (n, len(rows))).cumsum(1)
    readings[rng.random(readings.shape) < 0.2] = np.nan
    readings[:1] = np.nan
    features = None
    if network.n_features:
        known = rng.normal(size=(n, network.n_known, network.lookback + network.horizon))
        past = rng.normal(size=(n, network.n_past, network.lookback))
        static = rng.normal(size=(n, network.n_static))
        known[rng.random(known.shape) < 0.1] = np.nan
        features = Features(*(x.astype(np.float32) for x in (known, past, static)))
    periods = [Seasons(), Seasons(8), Seasons(8, 16)]
    seasons = [periods[i] for i in rng.integers(0, 3, n)]
    return History(readings.astype(np.float32), np.zeros(n, np.int64), seasons, features)


def by_torch(
    network: Network, index: int, prepared: Prepared, dtype: torch.dtype = torch.float32
) -> Floats:
    """Return the quantiles of a member as torch computes them, `(N, S, P, Q)`."""
    member = make_member(network, index).to(dtype)
    inputs = to_tensors(prepared, member.device)
    history, ahead = (x.apply(lambda t: t.to(dtype)) for x in (inputs.history, inputs.ahead))
    with torch.no_grad():
        quantiles = member(*inputs._replace(history=history, ahead=ahead)).transpose(2, 3)
    values: Floats = quantiles.numpy()
    return values


def assert_as_exact(values: Floats, single: Floats, double: Floats) -> None:
    """Hold values, `(N, ...)`, against torch's in double precision, within 1e-5 of their scale.

    What torch itself loses in single precision comes on top, some times over.
    """
    assert values.shape == double.shape
    axes = tuple(range(1, double.ndim))
    scale = 1 + np.abs(double).max(axis=axes, keepdims=True)
    rounding = (np.abs(single - double) / scale).max()
    assert rounding < 1e-3
    assert (np.abs(values - double) / scale).max() <= 1e-5 + 3 * rounding


def by_numpy(network: Network, index: int, prepared: Prepared) -> Floats:
    places = prepared.places
    return member_quantiles(
        network.members[index],
        prepared.history,
        prepared.ahead,
        places.stretch,
        places.state,
        median=network.spec.median,
    )


@st.composite
def networks(draw: st.DrawFn) -> tuple[Network, History, int]:
    """Draw a network of one to three members, windows, and how many end in each stretch."""
    sizes = draw(st.sampled_from([(0, 0, 0), (1, 0, 0), (2, 1, 1), (0, 2, 1), (0, 0, 2)]))
    segment = draw(st.sampled_from([1, 2, 5, 8]))
    members = tuple(
        MemberSpec(
            draw(st.sampled_from(sorted(CELLS))),
            hidden=draw(st.integers(4, 9)),  # fewer that are normalised magnify roundings
            layers=draw(st.integers(1, 3)),
            segment=segment,
            covariates=any(sizes) and draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 3)))
    )
    spec = NetworkSpec(
        lookback=draw(st.integers(6, 40)),
        horizon=draw(st.integers(1, 12)),
        season=8,
        n_series=1,
        members=members,
        quantiles=draw(st.sampled_from(LEVELS)),
        n_known=sizes[0],
        n_past=sizes[1],
        n_static=sizes[2],
    )
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    size = draw(st.sampled_from([0.5, 1.0, 3.0]))
    weights = [draw_weights(spec, member, rng, size) for member in members]
    network = Network.of_members(spec, NetworkConfig(), weights)
    history = draw_history(spec, draw(st.integers(1, 40)), rng)
    return network, history, draw(st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(networks())
def test_quantiles_are_those_of_torch(case: tuple[Network, History, int]) -> None:
    network, history, n_origins = case
    segment = network.members[0].spec.segment
    prepared = network.prepare(history, segment, n_origins=n_origins)
    for index in range(len(network.members)):
        values = by_numpy(network, index, prepared)
        single, double = (
            by_torch(network, index, prepared, dtype) for dtype in (torch.float32, torch.float64)
        )
        assert_as_exact(values, single, double)
        assert (np.diff(values, axis=-1) >= 0).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(networks())
def test_an_ensemble_forecasts_the_mean_that_torch_gives(
    case: tuple[Network, History, int],
) -> None:
    network, history, _ = case
    prepared = network.prepare(history, network.members[0].spec.segment)

    def mean_of(dtype: torch.dtype) -> Floats:
        quantiles = [by_torch(network, i, prepared, dtype) for i in range(len(network.members))]
        forecasts = [prepared.readings(x)[:, : network.spec.horizon] for x in quantiles]
        mean: Floats = np.mean(forecasts, axis=0)
        return mean

    single, double = mean_of(torch.float32), mean_of(torch.float64)
    assert_as_exact(network.forecast(history), single, double)


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_a_window_has_the_same_bytes_wherever_it_stands(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    member = MemberSpec(cell, 32, 2, 8, covariates=True)
    spec = replace(NetworkSpec(64, 20, 8, 1, (member,)), n_known=1, n_static=1)
    network = Network.of_members(spec, NetworkConfig(), [draw_weights(spec, member, rng, 1.0)])
    history = draw_history(spec, 150, rng)
    whole = network.forecast(history)

    def forecast(numbers: np.ndarray) -> np.ndarray:
        features = Features(*(x[numbers] for x in history.features))
        seasons = [history.seasons[i] for i in numbers]
        part = History(history.readings[numbers], history.entry[numbers], seasons, features)
        return network.forecast(part)

    for numbers in (np.arange(7), np.arange(149, 151) - 1, rng.permutation(150), np.array([77])):
        assert np.array_equal(forecast(numbers), whole[numbers])
    for n_windows in (16, 48, 1024):
        monkeypatch.setattr(inference, "_WINDOWS", n_windows)
        assert np.array_equal(network.forecast(history), whole)


@pytest.mark.parametrize("size", [30.0, 1e4, 1e20])
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_no_weight_is_too_large_for_a_silent_forecast(cell: str, size: float) -> None:
    rng = np.random.default_rng(0)
    member = MemberSpec(cell, 8, 1, 4)
    spec = NetworkSpec(24, 8, 8, 1, (member,))
    network = Network.of_members(spec, NetworkConfig(), [draw_weights(spec, member, rng, size)])
    prepared = network.prepare(draw_history(spec, 5, rng), 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = by_numpy(network, 0, prepared)
    if size < 1e10:
        assert np.isfinite(values).all()


def test_no_window_has_no_forecast() -> None:
    member = MemberSpec("gru", 4, 1, 4)
    spec = NetworkSpec(24, 8, 8, 1, (member,))
    rng = np.random.default_rng(0)
    network = Network.of_members(spec, NetworkConfig(), [draw_weights(spec, member, rng, 1.0)])
    prepared = network.prepare(draw_history(spec, 3, rng), 4)
    empty = prepared.ahead.apply(lambda x: x[:0])
    nothing = np.empty(0, np.int64)
    values = member_quantiles(
        network.members[0], prepared.history, empty, nothing, nothing, median=spec.median
    )
    assert values.shape == (0, 2, 4, len(QUANTILES))


def n_threads() -> set[int]:
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


def test_products_of_matrices_take_one_thread_while_any_forecast_is_made() -> None:
    with threadpool_limits(2, user_api="blas"):
        before = n_threads()
        first, second = (single_threaded_products() for _ in range(2))
        with first:
            assert n_threads() == {1}
            second.__enter__()
        assert n_threads() == {1}, "the other one goes on"
        second.__exit__(None, None, None)
        assert n_threads() == before


def test_every_thread_can_limit_products_while_others_live_that_did_so_before() -> None:
    def enter(context: AbstractContextManager[None]) -> set[int]:
        with context:
            return n_threads()

    with threadpool_limits(2, user_api="blas"):
        before = n_threads()
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as another:
            for pool in (one, another, one):
                assert pool.submit(enter, single_threaded_products()).result() == {1}
                assert n_threads() == before

            first, second = single_threaded_products(), single_threaded_products()
            one.submit(first.__enter__).result()
            another.submit(second.__enter__).result()
            one.submit(first.__exit__, None, None, None).result()
            assert n_threads() == {1}
            another.submit(second.__exit__, None, None, None).result()
            assert n_threads() == before
