"""Weights before the first step: closed-form regressions, and warm starts from another version."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rnnforecast.config.training import NetworkConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.scaling import Scaling, fit_scaling
from rnnforecast.data.windows import MIN_OBSERVED_SHARE, Batch, Past, TrainingWindows
from rnnforecast.errors import ModelError
from rnnforecast.model.loss import covariates_of, entries, scaled_windows
from rnnforecast.model.network import Member, Network
from rnnforecast.spec import NetworkSpec

_WINDOWS = 4096
_SORTED_WINDOWS = 1024
"""Their medians are exact enough, and sorting them takes most of the time of a start."""
_SORTED_LEADS = 1024
"""Leads that are sorted at once, so that a long horizon does not need gigabytes."""
_ROUNDS = 3
"""Further rounds move the shares of three parts by 0.02 on average (ETTh1), less than training."""
_MOST = 5.0
"""Scaled readings are clipped to this many units of scale around the series' level."""
_PER_SCALE = ("seasonal_pattern.weight", "series_effect.weight")
_BY_SERIES = ("series_embedding.weight", *_PER_SCALE)
"""Tensors with a row for each series; those of `_PER_SCALE` are in units of its scale."""
_SHAPE_OPTIONS = ("cell", "hidden", "layers")
"""Options that decide the shapes of the weights, or their meaning."""
_PRIOR_READINGS = 2.0
"""A phase with this many readings starts from half of their mean: one reading is no pattern."""
_RIDGE = 0.01
"""Added to the mean square of each feature, in units of its variance."""
_PRIOR_WINDOWS = 4.0
"""The effect of a series with this many windows is shrunk by half to that of all series."""
_MAX_SUMS = 10_000_000
"""With more values than these in the sums, all series start from one effect."""


@torch.no_grad()
def initialise_network(network: Network, scaling: Scaling, windows: TrainingWindows) -> None:
    """Set scaling, seasonal patterns, effects and persistence from training windows, in place."""
    network.center[1:] = torch.from_numpy(scaling.center)
    network.scale[1:] = torch.from_numpy(scaling.scale)
    network.outlier_threshold[1:] = torch.from_numpy(scaling.reach)
    many, few = (windows.gather(windows.spread(n)) for n in (_WINDOWS, _SORTED_WINDOWS))
    if network.spec.n_features:
        standardise_features(network, many)
    cycles = torch.from_numpy(_seasonal_means(network, many))
    for member in network.members:
        if network.spec.season > 1:
            member.seasonal_pattern.weight.copy_(cycles)
        fit_series_effects(network, member, many)
        member.persistence.copy_(torch.from_numpy(_persistence(network, member, few)))


def check_start(trained: Network, spec: NetworkSpec, config: NetworkConfig) -> None:
    """Raise `ModelError` unless the weights of `trained` fit into a network of this spec."""
    expected = {**vars(spec), **{name: getattr(config, name) for name in _SHAPE_OPTIONS}}
    stored = {
        **vars(trained.spec),
        **{name: getattr(trained.config, name) for name in _SHAPE_OPTIONS},
    }
    differing = [
        f"{name} is {expected[name]}, not {stored[name]}"
        for name in expected
        if name != "n_series" and expected[name] != stored[name]
    ]

    if differing:
        raise ModelError(
            f"training cannot begin from a network of another spec: {'; '.join(differing)}",
            code="other-task",
            hint="train without it, or with its windows, season, covariates and network",
        )


@torch.no_grad()
def warm_start_from(network: Network, source: Network, entries: Integers, past: Past) -> None:
    """Take over the weights of another network of the same spec, in place.

    `entries`, `(series,)`, are the series' entries in the embeddings of `source`; one with entry 0
    is new and starts as `init_new_series` says. Scaling is fitted to `past`. Where the scale of a
    series has changed, its pattern and its effects are converted: they stay the same in the
    sensor's units, and a linear member forecasts nearly as before. Other members have to adapt
    what depends on the scale. Statistics of covariates stay.
    """
    scaling = fit_scaling(past)
    network.center[1:] = torch.from_numpy(scaling.center)
    network.scale[1:] = torch.from_numpy(scaling.scale)
    network.outlier_threshold[1:] = torch.from_numpy(scaling.reach)

    rows = torch.from_numpy(np.append(np.int64(0), entries))
    ratio = (source.scale.to(rows.device)[rows] / network.scale)[:, None]
    ratio[rows == 0] = 1.0

    parameters, trained = network.state_dict(), source.state_dict()
    for name in parameters.keys() - {"center", "scale", "outlier_threshold"}:
        value = trained[name].to(rows.device)
        if name.endswith(_BY_SERIES):
            value = value[rows] * (ratio if name.endswith(_PER_SCALE) else 1.0)
        parameters[name].copy_(value)
    init_new_series(network, np.flatnonzero(entries == 0), past)


def known_entries(names: Sequence[str], network: Network, known: Sequence[str]) -> Integers:
    """Return the entry of each name, `(name,)`, in a network that knows these series; 0 for none.

    A series that had no reading yet when that network was trained counts as unknown.
    """
    has_scale = torch.isfinite(network.scale[1:]).tolist()
    entries = {name: i for i, name in enumerate(known, start=1) if has_scale[i - 1]}
    return np.array([entries.get(name, 0) for name in names], np.int64)


def find_new_series(train: Past, windows: TrainingWindows) -> Integers:
    """Return the numbers of the series with too few readings to train on.

    They have no window, or fewer readings than a training window needs.
    """
    numbers: Integers = train.series[
        (windows.counts == 0) | (train.n_seen <= MIN_OBSERVED_SHARE * windows.lookback)
    ]
    return numbers


@torch.no_grad()
def init_new_series(network: Network, numbers: Integers, past: Past) -> None:
    """Initialise the series without a training window so far, in place.

    `numbers`, `(series,)`, are those of the series. Their scaling and pattern come from the
    readings before the cutoffs, all else from entry 0, which is trained for unknown series.
    """
    if not len(numbers):
        return

    added = torch.from_numpy(numbers) + 1
    part = past.subset(numbers)
    scaling = fit_scaling(part)
    network.center[added] = torch.from_numpy(scaling.center)
    network.scale[added] = torch.from_numpy(scaling.scale)
    network.outlier_threshold[added] = torch.from_numpy(scaling.reach)

    for member in network.members:
        member.series_embedding.weight[added] = member.series_embedding.weight[0].clone()
        member.seasonal_pattern.weight[added] = member.seasonal_pattern.weight[0].clone()
        if member.covariate_encoder is not None and network.spec.n_known:
            reaction = member.covariate_encoder.series_effect.weight
            reaction[added] = reaction[0].clone()

    windows = part.windows(network.spec.lookback, network.spec.horizon)
    if len(windows) and network.spec.season > 1:
        batch = windows.gather(windows.spread(_WINDOWS))
        pattern = torch.from_numpy(_seasonal_means(network, batch))
        rows = torch.from_numpy(np.unique(batch.series)) + 1
        for member in network.members:
            member.seasonal_pattern.weight[rows] = pattern[rows]


def _seasonal_means(network: Network, batch: Batch) -> Floats:
    """Return the mean deviation from the window's mean by phase, `(series + 1, season)`, scaled.

    Entry 0, for unknown series, is the mean over the series.
    """
    spec = network.spec
    values = np.concatenate([batch.history, batch.future], axis=1)
    center, scale = (x.numpy()[batch.series + 1, None] for x in (network.center, network.scale))
    scaled = np.clip((values - center) / scale, -_MOST, _MOST)  # one spike is no season
    whole_seasons = scaled[:, : max(spec.season, values.shape[1] // spec.season * spec.season)]
    seen = np.isfinite(whole_seasons)
    sums = np.where(seen, whole_seasons, np.float32(0)).sum(1, keepdims=True)
    means: Floats = sums / np.maximum(seen.sum(1, keepdims=True), 1).astype(np.float32)
    deviation = scaled - means

    steps = batch.next_step[:, None] - spec.lookback + np.arange(values.shape[1])
    place = (batch.series + 1)[:, None] * spec.season + steps % spec.season
    seen = np.isfinite(deviation)
    shape = (spec.n_series + 1) * spec.season
    sums = np.bincount(place[seen], weights=deviation[seen], minlength=shape)
    counts = np.bincount(place[seen], minlength=shape)

    cycles = (sums / (counts + _PRIOR_READINGS)).reshape(-1, spec.season)
    known = counts.reshape(-1, spec.season).any(1)
    cycles[0] = cycles[known].mean(0) if known.any() else 0.0
    centred: Floats = (cycles - cycles.mean(1, keepdims=True)).astype(np.float32)
    return centred


def _persistence(network: Network, member: Member, batch: Batch) -> Floats:
    """Return the share of each component that persists by lead, `(component, horizon)`.

    The shares have the least absolute error on windows normalised as the member sees them. Windows
    with less than half of their history do not count.
    """
    series = entries(batch, network.center.device)
    history, future, next_step, _ = scaled_windows(network, batch, series, series)
    covariates = covariates_of(network, batch)
    past, ahead = member.baselines(series, next_step, covariates)

    window = member.normalised(history[:, -member.spec.lookback :] - past)
    goal = ((future - ahead - window.level) / window.spread).numpy()
    goal[np.isfinite(batch.history).mean(1) < MIN_OBSERVED_SHARE] = np.nan

    spread = window.spread.double().numpy()
    parts = [part.ahead.double().numpy() for part in member.lasting(window)]
    shares = np.zeros((len(parts), goal.shape[1]), np.float32)
    for begin in range(0, goal.shape[1], _SORTED_LEADS):
        leads = slice(begin, begin + _SORTED_LEADS)
        at_leads = [part if part.shape[1] == 1 else part[:, leads] for part in parts]
        shares[:, leads] = _shares(goal[:, leads].astype(np.float64), at_leads, spread)
    return shares


def _shares(goal: Doubles, parts: Sequence[Doubles], weights: Doubles) -> Doubles:
    """Return the shares of the parts, `(part, lead)`, from 0 to 1, that fit the goal best.

    goal `(window, lead)`, NaN where unknown; parts the same or `(window, 1)`; weights of the
    windows `(window, 1)`. The a that minimises |y - a x| is the median of y / x weighted by |x|:
    for the newest reading 1 in a random walk, 0 where it does not help. Several parts are fitted in
    turn, each to the residuals of the others.
    """
    residual = goal.copy()
    shares = np.zeros((len(parts), goal.shape[1]))

    for _ in range(_ROUNDS if len(parts) > 1 else 1):
        for i in reversed(range(len(parts))):
            residual += shares[i] * parts[i]
            ratios = residual / np.where(parts[i] == 0, np.nan, parts[i])
            shares[i] = _weighted_medians(ratios, np.abs(parts[i]) * weights).clip(0.0, 1.0)
            residual -= shares[i] * parts[i]
    return shares


def _weighted_medians(values: Doubles, weights: Doubles) -> Doubles:
    """Return the weighted median of each column of `(row, column)`, without NaN.

    It is 0 for a column of NaN.
    """
    weights = np.where(np.isnan(values), 0.0, weights)
    order = np.argsort(values, axis=0)
    cumulated = np.take_along_axis(weights, order, axis=0).cumsum(0)
    middle = (cumulated < cumulated[-1] / 2).sum(0, keepdims=True)
    row = np.take_along_axis(order, middle, axis=0)
    medians: Doubles = np.nan_to_num(np.take_along_axis(values, row, axis=0)[0])
    return medians


def standardise_features(network: Network, batch: Batch) -> None:
    """Set mean and standard deviation of each feature, in place; 1 for a constant one."""
    assert batch.features is not None
    means, scales = [], []
    for values in batch.features:
        flat = (
            values.swapaxes(0, 1)
            .reshape(values.shape[1], values.size // max(values.shape[1], 1))
            .astype(np.float64)
        )

        seen = np.isfinite(flat)
        n_seen = np.maximum(seen.sum(1), 1)
        mean = np.where(seen, flat, 0).sum(1) / n_seen
        square = np.where(seen, (flat - mean[:, None]) ** 2, 0).sum(1) / n_seen
        means.append(mean)
        scales.append(np.where(square > 0, np.sqrt(square), 1.0))

    network.feature_mean.copy_(torch.from_numpy(np.concatenate(means)))
    network.feature_scale.copy_(torch.from_numpy(np.concatenate(scales)))


@torch.no_grad()
def fit_series_effects(network: Network, member: Member, batch: Batch) -> None:
    """Initialise the effect of the known covariates on each series, in place.

    It is the least squares fit of deviations from the mean of two horizons around each cutoff, so
    that slow drifts of both, which show no cause, hardly count. Entry 0 is that of all series.
    """
    if member.covariate_encoder is None or not network.spec.n_known:
        return
    series = entries(batch, network.center.device)
    history, future, next_step, _ = scaled_windows(network, batch, series, series)
    covariates = covariates_of(network, batch)
    assert covariates is not None

    horizon = network.spec.horizon
    cycles = torch.cat(member.seasonal_baseline(series, next_step), 1)
    readings = torch.cat([history, future], 1)[:, -cycles.shape[1] :].clamp(-_MOST, _MOST) - cycles
    n_newest = min(2 * horizon, readings.shape[1])
    y = readings[:, -n_newest:].double()
    known = covariates.known[..., -n_newest:].transpose(1, 2)
    x = member.covariate_encoder.shapes(known).transpose(1, 2).double()

    seen = torch.isfinite(y).double()
    count = seen.sum(1, keepdim=True).clamp(min=1)
    y = (y.nan_to_num(0.0) - y.nan_to_num(0.0).sum(1, keepdim=True) / count) * seen
    x = (x - (x * seen[:, None]).sum(2, keepdim=True) / count[:, None]) * seen[:, None]

    squares = (x @ x.transpose(1, 2) / n_newest).numpy()
    products = ((x @ y[..., None])[..., 0] / n_newest).numpy()
    effects = _solve(squares, products, series.numpy(), network.spec.n_series + 1)
    member.covariate_encoder.series_effect.weight[:] = torch.from_numpy(effects).float()


def _solve(squares: Doubles, products: Doubles, series: np.ndarray, n_entries: int) -> Doubles:
    """Return the effect on each entry, `(entry, feature)`, from the sums of windows.

    The features are the known covariates and the hinge functions of them.

    squares `(window, feature, feature)`, products `(window, feature)`, series `(window,)`.
    """
    n_features = products.shape[1]
    ridge = _RIDGE * np.eye(n_features)
    common = np.linalg.solve(squares.mean(0) + ridge, products.mean(0))
    reactions: Doubles = np.tile(common, (n_entries, 1))
    if n_entries * n_features**2 > _MAX_SUMS:
        return reactions

    own_squares = np.zeros((n_entries, n_features, n_features))
    own_products = np.zeros((n_entries, n_features))
    np.add.at(own_squares, series, squares)
    np.add.at(own_products, series, products)

    prior = _PRIOR_WINDOWS * (squares.mean(0) + ridge)
    entries_seen = np.unique(series)
    n_own = np.bincount(series, minlength=n_entries)[entries_seen, None, None]
    remaining = own_squares[entries_seen] + n_own * ridge + prior
    right = own_products[entries_seen] + prior @ common
    reactions[entries_seen] = np.linalg.solve(remaining, right[..., None])[..., 0]
    return reactions
