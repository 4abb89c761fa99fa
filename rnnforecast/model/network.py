"""The network: an ensemble of members, each of which normalises, encodes and decodes a window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnforecast.config.training import NetworkConfig
from rnnforecast.data.scaling import SPIKE_RUN
from rnnforecast.model.covariates import MOST, CovariateBatch, CovariateEncoder, embedding, linear
from rnnforecast.model.recurrence import Recurrence, State
from rnnforecast.spec import MemberSpec, NetworkSpec, member_shapes

_NO_LIMIT = 1e30
_SPIKE_SHARE = 0.05
_UNKNOWN_THRESHOLD = 14.0
"""Interquartile ranges, as many as 18 scales of a normal distribution."""
_START_SPREAD = 0.5
"""Standard deviation of a forecast before the first step, in units of the window's spread."""
_WIDEST = 4.0
"""Spread, in units of its series' scale, to which a wider window is brought if not rescaled."""
_SPREAD_FLOOR = 1e-2
"""Least spread of a window, in units of its series' scale: a stuck sensor has none of its own."""
_PRIOR_READINGS = 4.0
"""Weight of the series' spread in that of an empty window, as a number of readings."""


class Network(nn.Module):
    """Forecasts quantiles of H readings from L. Series 0 stands for every unknown series."""

    center: Tensor  # (series + 1,)
    scale: Tensor  # (series + 1,)
    outlier_threshold: Tensor  # (series + 1,), in units of scale
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
        if spec.n_features:
            self.register_buffer("feature_mean", torch.zeros(spec.n_features))
            self.register_buffer("feature_scale", torch.ones(spec.n_features))

        self._set_members(Member(spec, member, config) for member in spec.members)

    def forward(
        self,
        history: Tensor,
        series: Tensor,
        next_step: Tensor,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Forecast in the units of the panel, (N, H, Q): those of the sensors, less an offset.

        history (N, L), NaN where missing; series (N,), 0 for unknown; next_step (N,), where lead 1
        lies on the grid that begins in 1970; features known ahead (N, K, L + H), known up to now
        (N, P, L) and static (N, C), NaN where unknown. Each quantile is the mean of the members'.
        """
        history = self.mask_spikes(history, series)
        center, scale = self.scaling(history, series)
        scaled = (history - center) / scale
        covariates = self.standardise_covariates(features)
        forecasts = [member(scaled, series, next_step, covariates) for member in self.members]
        return mean_of(forecasts) * scale[..., None] + center[..., None]

    def select_members(self, chosen: Sequence[int]) -> None:
        """Keep the chosen members only; the look-back shrinks to the longest of theirs.

        Covariates that none of them sees are removed from the spec.
        """
        members = tuple(self.spec.members[i] for i in chosen)
        lookback = max(member.lookback for member in members)
        self.spec = replace(self.spec, members=members, lookback=lookback)
        if self.spec.n_features and not any(member.covariates for member in members):
            self.spec = replace(self.spec, n_known=0, n_past=0, n_static=0)
            del self.feature_mean, self.feature_scale
        self._set_members([self.members[i] for i in chosen])

    def _set_members(self, members: Iterable[Member]) -> None:
        self.members = nn.ModuleList(members)  # type: ignore[assignment]

    def standardise_covariates(self, features: Sequence[Tensor] | None) -> CovariateBatch | None:
        """Standardise covariates; an unknown value repeats the last one, or is the mean, 0."""
        if features is None or not self.spec.n_features:
            return None
        sizes = [self.spec.n_known, self.spec.n_past, self.spec.n_static]
        means = torch.split(self.feature_mean, sizes)
        scales = torch.split(self.feature_scale, sizes)
        known, past, static = (
            ((values.transpose(1, -1) - mean) / scale).clamp(-MOST, MOST).transpose(1, -1)
            for values, mean, scale in zip(features, means, scales, strict=True)
        )
        return CovariateBatch(_filled(known), _filled(past), static.nan_to_num(0.0))

    def mask_spikes(self, history: Tensor, series: Tensor) -> Tensor:
        """Mark spikes as missing: single readings beyond the outlier threshold of their series.

        More than a few of them in one window, or several in a row, are a new level, and stay. An
        unknown series is judged by the quartiles of its window.
        """
        center, reach = (
            self.center[series, None],
            (self.outlier_threshold * self.scale)[series, None],
        )

        unknown = series == 0
        if bool(unknown.any()):
            quarters = torch.tensor((0.25, 0.5, 0.75), device=history.device)
            low, middle, high = history[unknown].nanquantile(quarters, dim=1)[..., None]
            center, reach = center.clone(), reach.clone()
            center[unknown] = middle
            reach[unknown] = torch.where(high > low, _UNKNOWN_THRESHOLD * (high - low), torch.nan)

        beyond = (history - center).abs() > reach  # False where either is NaN
        if not bool(beyond.any()):
            return history
        few = beyond.sum(1, keepdim=True) <= _SPIKE_SHARE * history.shape[1]
        runs = F.pad(beyond, (SPIKE_RUN - 1, SPIKE_RUN - 1)).unfold(1, SPIKE_RUN, 1).all(-1)
        in_run = runs.unfold(1, SPIKE_RUN, 1).any(-1)  # a run is too long for a spike
        return torch.where(beyond & few & ~in_run, torch.nan, history)

    def scaling(self, history: Tensor, series: Tensor) -> tuple[Tensor, Tensor]:
        """Return level and scale of each window's series, (N, 1) each; the window's own if unknown.

        Unknown are series 0, and one that had no reading yet when the scaling was fitted.
        """
        center, scale = self.center[series, None], self.scale[series, None]
        unknown = (series == 0)[:, None] | torch.isnan(scale)
        if not bool(unknown.any()):
            return center, scale
        mean, variance = masked_mean_var(history, torch.isfinite(history))
        deviation = variance.sqrt()
        own_scale = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
        return torch.where(unknown, mean, center), torch.where(unknown, own_scale, scale)


def mean_of(forecasts: Sequence[Tensor]) -> Tensor:
    """Average forecasts, each (N, H, Q), quantile by quantile."""
    return forecasts[0] if len(forecasts) == 1 else torch.stack(list(forecasts)).mean(0)


def _filled(values: Tensor) -> Tensor:
    """Carry the last value forward, (N, F, T); 0 where there is none before."""
    if bool(torch.isfinite(values.sum())):  # one pass; what is not missing is bounded
        return values
    seen = torch.isfinite(values)
    flat = ffill(values.nan_to_num(0.0).flatten(0, 1), seen.flatten(0, 1))
    return flat.view(values.shape)


class Member(nn.Module):
    """Forecasts quantiles of H readings from the last L. Series 0 stands for every unknown one."""

    mixing: Tensor  # (Q, Q)
    levels: Tensor  # (Q,)

    def __init__(self, network_spec: NetworkSpec, spec: MemberSpec, config: NetworkConfig) -> None:
        super().__init__()
        self.network_spec = network_spec
        self.spec = spec
        self.out_segment = min(spec.segment, network_spec.horizon)
        shapes = member_shapes(network_spec, spec, config)
        self.seasonal_pattern = embedding(shapes, "seasonal_pattern")
        self.persistence = nn.Parameter(torch.zeros(shapes["persistence"]))

        self.segment_proj = linear(shapes, "segment_proj")
        self.missing_proj = linear(shapes, "missing_proj")
        n_steps = -(-spec.lookback // spec.segment)
        self.recurrence = Recurrence(
            config.cell, config.hidden, config.layers, init=config.init, n_steps=n_steps
        )

        self.series_embedding = embedding(shapes, "series_embedding")
        self.lead_embedding = nn.Parameter(torch.empty(shapes["lead_embedding"]))
        self.covariate_encoder = None
        if spec.covariates:
            self.covariate_encoder = CovariateEncoder(network_spec, spec, config)
        self.dropout = config.dropout
        self.head = linear(shapes, "head")

        quantiles = network_spec.quantiles
        matrix = mixing(len(quantiles), network_spec.median)
        self.register_buffer("mixing", matrix, persistent=False)
        self.register_buffer("levels", torch.tensor(quantiles), persistent=False)
        self._initialise()

    def forward(
        self,
        scaled: Tensor,
        series: Tensor,
        next_step: Tensor,
        covariates: CovariateBatch | None = None,
    ) -> Tensor:
        """Forecast in units of each series' scale, (N, H, Q), in the order of the quantiles.

        scaled (N, at least L), NaN where missing; series and next_step (N,), see `Network`.
        """
        past, ahead = self.baselines(series, next_step, covariates)
        window = self.normalised(scaled[:, -self.spec.lookback :] - past)
        leads = (
            self.decode(window, series, covariates).sort(-1).values
            + self.persistence_term(window)[..., None]
        )
        return leads * window.spread[..., None] + (window.level + ahead)[..., None]

    def decode(
        self,
        window: Window,
        series: Tensor,
        covariates: CovariateBatch | None = None,
        *,
        mask: Tensor | None = None,
        reach: int | None = None,
    ) -> Tensor:
        """Run the recurrence over one window and decode every lead from its end, (N, H, Q).

        The quantiles may cross. `mask` is the `dropout_mask` of a training step. With `reach`,
        gradients come through the recurrent steps of the last `reach` readings only.
        """
        embedded = self.embed(window, covariates)
        n_steps = len(embedded) if reach is None else -(-reach // self.spec.segment)
        return self.decode_leads(
            self.recurrence.truncated(embedded, n_steps), series, covariates, mask=mask
        )

    def dropout_mask(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Draw a dropout mask for n states, (N, 1, D), the same for all leads.

        It is scaled by 1 / (1 - dropout) where it keeps a value; None without dropout.
        """
        if not self.dropout:
            return None
        shape = (n, 1, self.series_embedding.embedding_dim)
        is_kept = torch.rand(shape, generator=generator, device=generator.device) >= self.dropout
        return is_kept / (1 - self.dropout)

    def decode_leads(
        self,
        final: Sequence[State],
        series: Tensor,
        covariates: CovariateBatch | None = None,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Decode every lead from the final state of each layer, (N, H, Q), as `decode` says."""
        out = self.recurrence.decode(self._queries(series, covariates), final)  # (N, M, D)
        if mask is not None:
            out = out * mask

        n_quantiles = len(self.network_spec.quantiles)
        weight = self.mixing @ self.head.weight.view(self.out_segment, n_quantiles, -1)
        bias = self.head.bias.view(self.out_segment, n_quantiles) @ self.mixing.T
        raw = F.linear(out, weight.flatten(0, 1), bias.flatten())  # (N, M, out_segment * Q)
        return raw.reshape(len(raw), -1, n_quantiles)[:, : self.network_spec.horizon]

    def normalised(self, past: Tensor) -> Window:
        """Return deviations from the season's pattern, (N, L), as this member sees them."""
        return normalise(past, rescaled=self.spec.linear)

    def lasting(self, window: Window) -> list[Part]:
        """Return the components of the window that persist into the horizon."""
        season = self.network_spec.season if self.spec.seasonal else None
        return lasting(window, season=season, horizon=self.network_spec.horizon)

    def persistence_term(self, window: Window) -> Tensor:
        """Return the sum of the persisting shares of the components, (N, H), normalised."""
        parts = zip(self.persistence, self.lasting(window), strict=True)
        return torch.stack([share * part.ahead for share, part in parts]).sum(0)

    def baselines(
        self, series: Tensor, next_step: Tensor, covariates: CovariateBatch | None
    ) -> tuple[Tensor, Tensor]:
        """Return the seasonal pattern plus effects of known covariates, (N, L) and (N, H)."""
        past, ahead = self.seasonal_baseline(series, next_step)
        if self.covariate_encoder is not None:
            assert covariates is not None
            more_past, more_ahead = self.covariate_encoder.effect(covariates, series)
            past, ahead = past + more_past, ahead + more_ahead
        return past, ahead

    def seasonal_baseline(self, series: Tensor, next_step: Tensor) -> tuple[Tensor, Tensor]:
        """Look up the season's pattern over history, (N, L), and horizon, (N, H)."""
        lookback, season = self.spec.lookback, self.network_spec.season
        width = lookback + self.network_spec.horizon
        phase = (next_step - lookback) % season
        turn = (phase[:, None] + torch.arange(season, device=phase.device)) % season
        turned = self.seasonal_pattern(series).gather(1, turn)  # (N, season)
        pattern = turned.repeat(1, -(-width // season))[:, :width]
        return pattern[:, :lookback], pattern[:, lookback:]

    def embed(self, window: Window, covariates: CovariateBatch | None = None) -> Tensor:
        """Return the input of the recurrence, (S, N, D).

        The persisting components are subtracted from the values; the pattern is read before them.
        """
        values, parts = window.values, self.lasting(window)
        for share, part in zip(self.persistence.detach(), parts, strict=True):
            values = values - share.mean() * part.past

        embedded = self.segment_proj(self._segments(values, empty=0.0))  # (S, N, D)
        if window.missing is not None or self.spec.lookback % self.spec.segment:
            missing = torch.zeros_like(values) if window.missing is None else window.missing
            embedded = embedded + self.missing_proj(self._segments(missing, empty=1.0))

        if self.covariate_encoder is not None:
            assert covariates is not None
            embedded = embedded + self.covariate_encoder.history(covariates)

        if self.spec.seasonal:
            length = -(-self.network_spec.season // self.spec.segment) * self.spec.segment
            pattern = self.segment_proj(self._segments(parts[-1].past[:, -length:], empty=0.0))
            embedded = torch.cat([pattern, embedded])
        return F.relu(embedded)

    def _segments(self, values: Tensor, *, empty: float) -> Tensor:
        """Cut (N, L) into (S, N, segment); the first segment may be part empty."""
        padded = F.pad(values, (-values.shape[1] % self.spec.segment, 0), value=empty)
        return padded.view(len(values), -1, self.spec.segment).transpose(0, 1)

    def _queries(self, series: Tensor, covariates: CovariateBatch | None) -> Tensor:
        """Return the input gates of the queries, (N, M, gates * D), by segment ahead and series."""
        first = self.recurrence.linear_ih[0]
        leads, names = (
            first(self.lead_embedding),
            F.linear(self.series_embedding(series), first.weight),
        )
        queries: Tensor = leads + names[:, None]
        if self.covariate_encoder is not None and self.covariate_encoder.asks:
            assert covariates is not None
            queries = queries + F.linear(self.covariate_encoder.question(covariates), first.weight)
        return queries

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.zeros_(self.seasonal_pattern.weight)
        nn.init.zeros_(self.missing_proj.weight)  # a gap says nothing until training says otherwise
        nn.init.normal_(self.series_embedding.weight, std=0.1)
        nn.init.normal_(self.lead_embedding, std=1.0)
        normal = torch.tensor(
            [NormalDist(0, _START_SPREAD).inv_cdf(q) for q in self.network_spec.quantiles]
        )
        self.head.bias.copy_(torch.linalg.solve(self.mixing, normal).repeat(self.out_segment))
        self.head.weight.mul_(0.5)


def mixing(n_quantiles: int, median: int) -> Tensor:
    """Return the matrix, (Q, Q), that turns a median and gaps between neighbours into quantiles.

    A change of the median thus moves all quantiles. The gaps may be negative: quantiles that cross
    are sorted.
    """
    matrix = torch.zeros(n_quantiles, n_quantiles)
    matrix[:, median] = 1.0
    for i in range(median):
        matrix[i, i:median] = -1.0
    for i in range(median + 1, n_quantiles):
        matrix[i, median + 1 : i + 1] = 1.0
    return matrix


class Window(NamedTuple):
    """One batch of histories after normalisation."""

    values: Tensor  # (N, L), mean 0 over the readings that are not missing
    missing: Tensor | None  # (N, L), 1.0 where missing; None where nothing is
    level: Tensor  # (N, 1), in units of the series' scale
    spread: Tensor  # (N, 1), the unit of the values
    newest: Tensor  # (N, 1), the last reading that is not missing, normalised


def normalise(scaled: Tensor, *, rescaled: bool = True) -> Window:
    """Normalise each window, (N, L), to zero mean of its readings, and to unit spread if rescaled.

    Otherwise it stays in the units of its series. A missing reading repeats the last one before it,
    0 where there is none. A few readings do not show their spread: the emptier a window, the more
    the spread of its series, 1, counts.
    """
    seen = torch.isfinite(scaled)
    level, variance = masked_mean_var(scaled, seen)
    n_seen = seen.sum(1, keepdim=True)
    prior = _PRIOR_READINGS * (1 - n_seen / scaled.shape[1])
    variance = (variance * n_seen + prior) / (n_seen + prior)
    spread = (variance + _SPREAD_FLOOR**2).sqrt()
    if not rescaled:
        spread = (spread / _WIDEST).clamp(min=1.0)

    values = torch.where(seen, scaled - level, 0.0) / spread
    missing = None
    if not bool(seen.all()):
        values = ffill(values, seen)
        missing = (~seen).to(scaled.dtype)
    return Window(values, missing, level, spread, values[:, -1:])


def masked_mean_var(values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the seen values of each row, (N, 1) each; 0 without any."""
    n_seen = seen.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(seen, values, 0.0).sum(1, keepdim=True) / n_seen
    variance = torch.where(seen, values - mean, 0.0).square().sum(1, keepdim=True) / n_seen
    return mean, variance


def ffill(values: Tensor, seen: Tensor) -> Tensor:
    """Fill with the last seen value, (N, L); values before the first one stay."""
    positions = torch.arange(values.shape[1], device=values.device).expand_as(values)
    last = torch.where(seen, positions, 0).cummax(1).values
    return values.gather(1, last)


class Part(NamedTuple):
    """A component of a window: its course in the history, and continued into the horizon."""

    past: Tensor  # (N, L), or (N, 1) where it is the same at every step
    ahead: Tensor  # (N, H) or (N, 1)


def lasting(window: Window, *, season: int | None, horizon: int) -> list[Part]:
    """Return the components that persist, `MemberSpec.n_components` of them.

    The newest reading and, with a season, the level of the newest season and the mean pattern.
    """
    parts = [Part(window.newest, window.newest)]
    if season is not None:
        level, pattern = _level_and_pattern(window, season)
        length = window.values.shape[1]
        parts += [
            Part(level, level),
            Part(_repeat(pattern, length)[:, -length:], _repeat(pattern, horizon)[:, :horizon]),
        ]
    return parts


def _level_and_pattern(window: Window, season: int) -> tuple[Tensor, Tensor]:
    """Return the level of the newest season, (N, 1), and the pattern, (N, season).

    The pattern is the mean of the whole seasons by phase, less its own mean. Missing readings do
    not count: a phase without any reading is 0, and the level is that of the newest season with a
    reading, less the pattern at the phases of its readings.
    """
    n, length = window.values.shape
    seasons = window.values[:, length % season :].view(n, -1, season)
    if window.missing is None:
        pattern = seasons.mean(1)
        return seasons[:, -1].mean(1, keepdim=True), pattern - pattern.mean(1, keepdim=True)

    seen = 1 - window.missing[:, length % season :].view(n, -1, season)
    pattern = _mean(seasons, seen, 1)
    occurred = (seen.sum(1) > 0).to(seen.dtype)
    pattern = (pattern - _mean(pattern, occurred, 1)[:, None]) * occurred

    levels = _mean(seasons - pattern[:, None], seen, 2)
    order = torch.arange(1, seasons.shape[1] + 1, device=seen.device)
    newest = ((seen.sum(2) > 0) * order).argmax(1, keepdim=True)
    return levels.gather(1, newest), pattern


def _mean(values: Tensor, seen: Tensor, dim: int) -> Tensor:
    """Return the mean of the seen values; 0 without any."""
    return (values * seen).sum(dim) / seen.sum(dim).clamp(min=1)


def _repeat(pattern: Tensor, at_least: int) -> Tensor:
    """Repeat a pattern, (N, season), a whole number of times."""
    return pattern.repeat(1, -(-at_least // pattern.shape[1]))
