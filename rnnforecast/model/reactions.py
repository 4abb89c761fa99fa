"""What the training readings say of covariates before the first step: units, plain reactions.

Apart from `start`, which does the same for the readings themselves. A reaction that has to grow
from zero takes hundreds of steps; least squares gives it at once, curves included.
"""

from __future__ import annotations

import numpy as np
import torch

from rnnforecast.data.panel import Doubles
from rnnforecast.data.windows import Batch
from rnnforecast.model.member import Member
from rnnforecast.model.network import Network
from rnnforecast.model.validation import entries, features_beside, scaled_windows

_MOST = 5.0
"""Readings further from the series' level, in units of its scale, count as this far."""
_RIDGE = 0.01
"""Added to the mean square of each feature, in units of its variance."""
_PRIOR_WINDOWS = 4.0
"""A series with so many windows takes half of its reaction from all series."""
_MOST_FIGURES = 10_000_000
"""With more figures than these in the sums, series are not told apart."""


def standardise_features(network: Network, batch: Batch) -> None:
    """Set mean and deviation of each feature, in place; what never changes keeps its scale."""
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
def start_reactions(network: Network, member: Member, batch: Batch) -> None:
    """Let a member begin with each series' reaction to what is known ahead, in place.

    It is the least squares fit of what differs within two horizons around each cutoff, so that slow
    drifts of both, which say nothing of a cause, hardly count. Entry 0 is that of all series.
    """
    if member.reader is None or not network.task.n_known:
        return
    series = entries(batch, network.center.device)
    history, future, next_step, _ = scaled_windows(network, batch, series, series)
    beside = features_beside(network, batch)
    assert beside is not None
    horizon = network.task.horizon
    cycles = torch.cat(member.cycle_around(series, next_step), 1)
    readings = torch.cat([history, future], 1)[:, -cycles.shape[1] :].clamp(-_MOST, _MOST) - cycles
    n_newest = min(2 * horizon, readings.shape[1])
    y = readings[:, -n_newest:].double()
    known = beside.known[..., -n_newest:].transpose(1, 2)
    x = member.reader.shapes(known).transpose(1, 2).double()
    seen = torch.isfinite(y).double()
    count = seen.sum(1, keepdim=True).clamp(min=1)
    y = (y.nan_to_num(0.0) - y.nan_to_num(0.0).sum(1, keepdim=True) / count) * seen
    x = (x - (x * seen[:, None]).sum(2, keepdim=True) / count[:, None]) * seen[:, None]
    squares = (x @ x.transpose(1, 2) / n_newest).numpy()
    products = ((x @ y[..., None])[..., 0] / n_newest).numpy()
    found = _solve(squares, products, series.numpy(), network.task.n_series + 1)
    member.reader.reaction.weight[:] = torch.from_numpy(found).float()


def _solve(squares: Doubles, products: Doubles, series: np.ndarray, n_entries: int) -> Doubles:
    """Return the reaction of each entry, `(entry, feature)`, from the sums of windows.

    A feature here is one of the covariates or a curve of them.

    squares `(window, feature, feature)`, products `(window, feature)`, series `(window,)`.
    """
    n_features = products.shape[1]
    ridge = _RIDGE * np.eye(n_features)
    common = np.linalg.solve(squares.mean(0) + ridge, products.mean(0))
    reactions: Doubles = np.tile(common, (n_entries, 1))
    if n_entries * n_features**2 > _MOST_FIGURES:
        return reactions
    own_squares = np.zeros((n_entries, n_features, n_features))
    own_products = np.zeros((n_entries, n_features))
    np.add.at(own_squares, series, squares)
    np.add.at(own_products, series, products)
    prior = _PRIOR_WINDOWS * (squares.mean(0) + ridge)
    there = np.unique(series)
    n_own = np.bincount(series, minlength=n_entries)[there, None, None]
    left = own_squares[there] + n_own * ridge + prior
    right = own_products[there] + prior @ common
    reactions[there] = np.linalg.solve(left, right[..., None])[..., 0]
    return reactions
