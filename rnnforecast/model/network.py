"""The network: an ensemble of members over the same windows, and what is known of each series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rnnforecast.config.training import NetworkConfig
from rnnforecast.data.arrays import Doubles, Floats, Integers, row_quantiles
from rnnforecast.data.panel import Features
from rnnforecast.data.scaling import SPIKE_RUN, fit_scaling
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import Past
from rnnforecast.model.artifact import Tensors
from rnnforecast.model.inference import MemberWeights, member_quantiles, single_threaded_products
from rnnforecast.model.inputs import (
    Inputs,
    Places,
    Segments,
    covariate_inputs,
    standardise,
    window_inputs,
)
from rnnforecast.spec import NetworkSpec, member_shapes

_FACTS = "center", "scale", "outlier_threshold", "seasons"
_FEATURES = "feature_mean", "feature_scale"
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
    history: Segments[Floats]
    """Of stretches."""
    ahead: Segments[Floats]
    """Of windows."""

    def readings(self, quantiles: Floats) -> Doubles:
        """Return quantiles of segments ahead, (N, S, P, Q), as readings, (N, S * P, Q).

        They come less the level, in units of the spread.
        """
        values = quantiles.astype(np.float64, order="C")
        values *= self.inputs.spread[:, :, None, None]
        values += self.inputs.level[:, :, None, None]
        return values.reshape(len(values), -1, values.shape[-1])


@dataclass(frozen=True)
class Network:
    """Forecasts quantiles of H readings from L. Entry 0 stands for every unknown series."""

    spec: NetworkSpec
    config: NetworkConfig
    members: tuple[MemberWeights, ...]
    center: Floats
    """`(series + 1,)`, in the units of the panel."""
    scale: Floats
    """`(series + 1,)`; NaN for a series of which only the seasons are known."""
    outlier_threshold: Floats
    """`(series + 1,)`, in units of scale."""
    seasons: Floats
    """`(series + 1, 2)`, in rows: a main one and a longer one; 0 where unknown."""
    feature_mean: Floats | None = None
    """`(feature,)`: of known, past and static ones; None without any."""
    feature_scale: Floats | None = None
    """`(feature,)`."""

    @classmethod
    def of_members(
        cls, spec: NetworkSpec, config: NetworkConfig, members: Sequence[MemberWeights]
    ) -> Network:
        """Return a network of these members that is told nothing of any series."""
        n_entries, n_features = spec.n_series + 1, spec.n_features
        return cls(
            spec,
            config,
            tuple(members),
            center=np.zeros(n_entries, np.float32),
            scale=np.ones(n_entries, np.float32),
            outlier_threshold=np.full(n_entries, _NO_LIMIT, np.float32),
            seasons=np.zeros((n_entries, 2), np.float32),
            feature_mean=np.zeros(n_features, np.float32) if n_features else None,
            feature_scale=np.ones(n_features, np.float32) if n_features else None,
        )

    @classmethod
    def from_tensors(cls, spec: NetworkSpec, config: NetworkConfig, tensors: Tensors) -> Network:
        """Return the network of an artifact: its tensors have the names of `expected_shapes`."""
        members = []
        for i, member in enumerate(spec.members):
            names = member_shapes(spec, member)
            weights = {name: tensors[f"members.{i}.{name}"] for name in names}
            members.append(MemberWeights(member, weights))
        facts = {name: tensors[name] for name in (*_FACTS, *_FEATURES) if name in tensors}
        return cls(spec, config, tuple(members), **facts)

    def tensors(self) -> Tensors:
        """Return all arrays by their names in an artifact."""
        facts = {name: getattr(self, name) for name in (*_FACTS, *_FEATURES)}
        return {name: x for name, x in facts.items() if x is not None} | {
            f"members.{i}.{name}": x
            for i, member in enumerate(self.members)
            for name, x in member.tensors.items()
        }

    def forecast(self, history: History) -> Doubles:
        """Forecast in the units of the panel, (N, H, Q): those of the sensors, less an offset.

        Each quantile is the weighted mean of the members'.
        """
        return self._weigh(history, n_origins=1)

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
        with single_threaded_products():
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

    def member_forecast(self, member: MemberWeights, prepared: Prepared) -> Doubles:
        """Forecast by one member, in the units of the panel, (N, H, Q)."""
        places = prepared.places
        quantiles = member_quantiles(
            member,
            prepared.history,
            prepared.ahead,
            places.stretch,
            places.state,
            median=self.spec.median,
        )
        return prepared.readings(quantiles)[:, : self.spec.horizon]

    def prepare(self, history: History, segment: int, *, n_origins: int = 1) -> Prepared:
        """Return the inputs of windows for members of a segment length; see `Places.at_end`."""
        readings = self.mask_spikes(history.readings, history.entry).astype(np.float64)
        n_ahead = -(-self.spec.horizon // segment)
        n, n_rows = readings.shape
        places = Places.at_end(n, n_rows, segment, n_ahead=n_ahead, n_origins=n_origins)
        features = None
        if history.features is not None and self.spec.n_features:
            assert self.feature_mean is not None and self.feature_scale is not None
            features = standardise(history.features, self.feature_mean, self.feature_scale)
        known = features.known if features is not None and self.spec.n_known else None
        both = window_inputs(readings, history.seasons, segment, places, known)
        segments = [Segments(x.values, x.experts, x.gain) for x in both]
        if features is not None:
            covariates = covariate_inputs(features, places, segment, *both)
            segments = [
                part._replace(covariates=c, reaction=x.reaction, reaction_error=x.reaction_error)
                for part, c, x in zip(segments, covariates, both, strict=True)
            ]
        return Prepared(places, both[1], *segments)

    def seasons_of(self, entries: Integers) -> tuple[Seasons, ...]:
        """Return the seasons of series."""
        rows = self.seasons[entries].astype(np.int64)
        return tuple(Seasons(main, long) for main, long in rows.tolist())

    @property
    def common_seasons(self) -> Seasons | None:
        """The seasons that the user names for all series; None where each has its own."""
        (common,) = self.seasons_of(np.zeros(1, np.int64))
        return common if common.main else None

    def weigh_members(self, weights: Sequence[float]) -> tuple[Network, tuple[int, ...]]:
        """Return the network of the members with a weight, `(member,)`, and their numbers.

        Covariates that none sees are removed from the spec.
        """
        chosen = tuple(i for i, weight in enumerate(weights) if weight > 0)
        members = tuple(self.spec.members[i] for i in chosen)
        shares = tuple(weights[i] / sum(weights) for i in chosen)
        network = replace(
            self,
            spec=replace(self.spec, members=members, weights=shares),
            members=tuple(self.members[i] for i in chosen),
        )
        if self.spec.n_features and not any(member.covariates for member in members):
            spec = replace(network.spec, n_known=0, n_past=0, n_static=0)
            network = replace(network, spec=spec, feature_mean=None, feature_scale=None)
        return network, chosen

    def mask_spikes(self, history: Floats, entry: Integers) -> Floats:
        """Mark spikes as missing: single readings beyond the outlier threshold of their series.

        More than a few of them in one window, or several in a row, are a new level, and stay. An
        unknown series is judged by the quartiles of its window.
        """
        center, scale, threshold = (
            x[entry] for x in (self.center, self.scale, self.outlier_threshold)
        )
        reach = threshold * scale
        is_unknown = (entry == 0) & np.isfinite(history).any(1)
        if is_unknown.any():
            low, middle, high = row_quantiles(history[is_unknown], (0.25, 0.5, 0.75))
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


def describe_series(
    network: Network,
    numbers: Integers,
    seasons: Sequence[Seasons],
    past: Past,
    *,
    common: Seasons | None = None,
) -> Network:
    """Return a network with seasons, level, scale and outlier threshold of these series.

    `numbers`, `(series,)`, are the origins of `past` that they come from; `seasons` are theirs.
    Unknown series have the `common` seasons, if any.
    """
    if not len(numbers):
        return network
    scaling = fit_scaling(past.subset(numbers))
    facts = {
        "center": scaling.center,
        "scale": scaling.scale,
        "outlier_threshold": scaling.reach,
        "seasons": [(of_series.main, of_series.long) for of_series in seasons],
    }
    changed = {name: getattr(network, name).copy() for name in facts}
    for name, values in facts.items():
        changed[name][numbers + 1] = values
    if common is not None:
        changed["seasons"][0] = common.main, common.long
    return replace(network, **changed)
