"""The network: an ensemble of members over the same windows, and what is known of each series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor, nn

from rnnforecast.config.training import NetworkConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers
from rnnforecast.data.panel import Features
from rnnforecast.data.scaling import SPIKE_RUN
from rnnforecast.data.season import Seasons
from rnnforecast.model.inputs import (
    Inputs,
    Places,
    covariate_inputs,
    standardise,
    window_inputs,
)
from rnnforecast.model.member import Member, Segments
from rnnforecast.spec import NetworkSpec

_NO_LIMIT = 1e30
_SPIKE_SHARE = 0.05
_UNKNOWN_THRESHOLD = 14.0
"""Interquartile ranges, as many as 18 scales of a normal distribution."""


@dataclass(frozen=True)
class History:
    """What N windows are forecast from, in the units of the panel; NaN where missing."""

    readings: Floats
    """`(window, lookback)`."""
    entry: Integers
    """`(window,)`: the series in the network, 0 for an unknown one."""
    seasons: Sequence[Seasons]
    """The seasons of each window's series."""
    features: Features | None = None
    """Features known ahead (N, K, L + H), known up to now (N, P, L) and static (N, C)."""


@dataclass(frozen=True)
class Prepared:
    """The inputs of windows for members of one segment length."""

    places: Places
    inputs: Inputs
    """Of the segments ahead of windows."""
    history: Segments
    ahead: Segments
    stretch: Tensor  # (N,)
    state: Tensor  # (N,)

    def readings(self, quantiles: Tensor) -> Doubles:
        """Return quantiles of segments ahead, (N, S, Q, P), as readings, (N, S * P, Q).

        They come less the level, in units of the spread.
        """
        spread, level = (x[:, :, None, None] for x in (self.inputs.spread, self.inputs.level))
        values = quantiles.cpu().numpy().astype(np.float64) * spread + level
        n, _, n_quantiles, _ = values.shape
        return values.transpose(0, 1, 3, 2).reshape(n, -1, n_quantiles)


class Network(nn.Module):
    """Forecasts quantiles of H readings from L. Entry 0 stands for every unknown series."""

    center: Tensor  # (series + 1,), in the units of the panel
    scale: Tensor  # (series + 1,)
    outlier_threshold: Tensor  # (series + 1,), in units of scale
    seasons: Tensor  # (series + 1, 2), in rows: a main one and a longer one; 0 where unknown
    feature_mean: Tensor  # (K + P + C,)
    feature_scale: Tensor  # (K + P + C,)
    members: Sequence[Member]

    def __init__(self, spec: NetworkSpec, config: NetworkConfig) -> None:
        super().__init__()
        self.spec = spec
        self.config = config

        n_entries = spec.n_series + 1
        self.register_buffer("center", torch.zeros(n_entries))
        self.register_buffer("scale", torch.ones(n_entries))
        self.register_buffer("outlier_threshold", torch.full((n_entries,), _NO_LIMIT))
        self.register_buffer("seasons", torch.zeros(n_entries, 2))
        if spec.n_features:
            self.register_buffer("feature_mean", torch.zeros(spec.n_features))
            self.register_buffer("feature_scale", torch.ones(spec.n_features))

        self._set_members(
            Member(spec, member, init=config.init, n_steps=-(-spec.lookback // member.segment))
            for member in spec.members
        )

    @torch.no_grad()
    def forecast(self, history: History) -> Doubles:
        """Forecast in the units of the panel, (N, H, Q): those of the sensors, less an offset.

        Each quantile is the weighted mean of the members'.
        """
        return self._weigh(history, n_origins=1)

    @torch.no_grad()
    def forecast_earlier(self, history: History, n: int) -> tuple[Doubles, Integers]:
        """Forecast from n earlier cutoffs in the same rows, in one go, (N, n, H, Q).

        Returns also how many rows before the end they lie, (n,), a horizon apart where the rows
        suffice. It takes little longer than one forecast.
        """
        segment, (n_windows, n_rows) = self.spec.members[0].segment, history.readings.shape
        n_ahead = -(-self.spec.horizon // segment)
        places = Places.at_end(1, n_rows, segment, n_ahead=n_ahead, n_origins=n + 1)
        values = self._weigh(history, n_origins=n + 1)
        values = values.reshape(n_windows, n + 1, *values.shape[1:])
        return values[:, 1:], segment * (places.boundary[0] - places.boundary[1:])

    def _weigh(self, history: History, *, n_origins: int) -> Doubles:
        """Return the weighted mean of the members' forecasts from the last cutoffs of windows."""
        prepared = {
            segment: self.prepare(history, segment, n_origins=n_origins)
            for segment in {member.spec.segment for member in self.members}
        }
        weighted = [
            share * self.member_forecast(member, prepared[member.spec.segment])
            for share, member in zip(self.spec.shares, self.members, strict=True)
        ]
        total: Doubles = np.sum(weighted, axis=0)
        return total

    @torch.no_grad()
    def member_forecast(self, member: Member, prepared: Prepared) -> Doubles:
        """Forecast by one member, in the units of the panel, (N, H, Q)."""
        quantiles = member(prepared.history, prepared.ahead, prepared.stretch, prepared.state)
        return prepared.readings(quantiles)[:, : self.spec.horizon]

    def prepare(self, history: History, segment: int, *, n_origins: int = 1) -> Prepared:
        """Return the inputs of windows for members of a segment length; see `Places.at_end`."""
        readings = self.mask_spikes(history.readings, history.entry).astype(np.float64)
        n_ahead = -(-self.spec.horizon // segment)
        n, n_rows = readings.shape
        places = Places.at_end(n, n_rows, segment, n_ahead=n_ahead, n_origins=n_origins)
        features = None
        if history.features is not None and self.spec.n_features:
            mean, scale = (x.cpu().numpy() for x in (self.feature_mean, self.feature_scale))
            features = standardise(history.features, mean, scale)
        known = features.known if features is not None and self.spec.n_known else None
        both = window_inputs(readings, history.seasons, segment, places, known)
        covariates: tuple[Floats | None, Floats | None] = None, None
        if features is not None:
            covariates = covariate_inputs(features, places, segment, *both)
        of_history, ahead = (
            self._segments(inputs, values) for inputs, values in zip(both, covariates, strict=True)
        )
        where = self._tensor(places.stretch), self._tensor(places.state)
        return Prepared(places, both[1], of_history, ahead, *where)

    def _segments(self, inputs: Inputs, covariates: Floats | None) -> Segments:
        """Return inputs as tensors, with covariates where there are any."""
        segments = Segments(*map(self._tensor, (inputs.values, inputs.experts, inputs.gain)))
        if covariates is None:
            return segments
        more = covariates, inputs.reaction, inputs.reaction_error
        return Segments(*segments[:3], *map(self._tensor, more))

    def seasons_of(self, entries: Integers) -> tuple[Seasons, ...]:
        """Return the seasons of series."""
        rows = self.seasons.cpu().numpy().astype(np.int64)[entries]
        return tuple(Seasons(main, long) for main, long in rows.tolist())

    @property
    def common_seasons(self) -> Seasons | None:
        """The seasons that the user names for all series; None where each has its own."""
        (common,) = self.seasons_of(np.zeros(1, np.int64))
        return common if common.main else None

    def weigh_members(self, weights: Sequence[float]) -> tuple[int, ...]:
        """Keep the members with a weight, `(member,)`, and return their numbers.

        Covariates that none sees are removed from the spec.
        """
        chosen = tuple(i for i, weight in enumerate(weights) if weight > 0)
        members = tuple(self.spec.members[i] for i in chosen)
        shares = tuple(weights[i] / sum(weights) for i in chosen)
        self.spec = replace(self.spec, members=members, weights=shares)
        if self.spec.n_features and not any(member.covariates for member in members):
            self.spec = replace(self.spec, n_known=0, n_past=0, n_static=0)
            del self.feature_mean, self.feature_scale
        self._set_members([self.members[i] for i in chosen])
        return chosen

    def mask_spikes(self, history: Floats, entry: Integers) -> Floats:
        """Mark spikes as missing: single readings beyond the outlier threshold of their series.

        More than a few of them in one window, or several in a row, are a new level, and stay. An
        unknown series is judged by the quartiles of its window.
        """
        center, scale, threshold = (
            x.cpu().numpy()[entry] for x in (self.center, self.scale, self.outlier_threshold)
        )
        reach = threshold * scale
        is_unknown = (entry == 0) & np.isfinite(history).any(1)
        if is_unknown.any():
            low, middle, high = np.nanquantile(history[is_unknown], (0.25, 0.5, 0.75), axis=1)
            center[is_unknown] = middle
            reach[is_unknown] = np.where(high > low, _UNKNOWN_THRESHOLD * (high - low), np.nan)

        with np.errstate(invalid="ignore"):
            beyond = np.abs(history - center[:, None]) > reach[:, None]
        if not beyond.any():
            return history
        few = beyond.sum(1, keepdims=True) <= _SPIKE_SHARE * history.shape[1]
        padding = (0, 0), (SPIKE_RUN - 1, SPIKE_RUN - 1)
        runs = sliding_window_view(np.pad(beyond, padding), SPIKE_RUN, axis=1).all(-1)
        in_run = sliding_window_view(runs, SPIKE_RUN, axis=1).any(-1)  # too long for a spike
        return np.where(beyond & few & ~in_run, np.float32(np.nan), history)

    def _set_members(self, members: Iterable[Member]) -> None:
        self.members = nn.ModuleList(members)  # type: ignore[assignment]

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.center.device)
