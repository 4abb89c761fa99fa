"""The network: a recurrence over segments, every lead decoded in parallel from the final state.

Shapes: N windows, L lookback, H horizon, Q quantiles, S segments of the history, M segments of the
horizon, D hidden. Everything that prediction needs happens inside: scaling, the season's pattern,
the normalisation of each window, missing readings, and the order of the quantiles.

Sources: segments and parallel decoding, SegRNN (Lin and others 2023, arXiv 2308.11200); the learned
cycle, CycleNet (Lin and others 2024, arXiv 2409.18479); window normalisation, RevIN (Kim and others
2022); initialisation, Saxe and others 2014 (orthogonal), Jozefowicz and others 2015 (forget gate).
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rnnforecast.config import ForecastTask, NetworkConfig
from rnnforecast.data.scaling import SPIKE_RUN

_SPREAD_FLOOR = 1e-2
"""Least spread of a window, in units of its series' scale: a stuck sensor has none of its own."""
_NO_LIMIT = 1e30
_SPIKE_SHARE = 0.05
_OWN_REACH = 14.0
"""Interquartile ranges, as many as 18 scales of a normal distribution."""
_PRIOR_READINGS = 4.0
"""An empty window has the spread of its series, as if so many readings said so."""


class Window(NamedTuple):
    """One batch of histories after normalisation."""

    values: Tensor  # (N, L), 0 mean and unit spread over the readings that are there
    missing: Tensor  # (N, L), 1.0 where no reading is
    level: Tensor  # (N, 1), in units of the series' scale
    spread: Tensor  # (N, 1)
    newest: Tensor  # (N, 1), the last reading that is there, normalised


class Cell(NamedTuple):
    """One kind of recurrence: torch's fused layer, and one step of it written out for decoding."""

    layer: type[nn.GRU | nn.LSTM | nn.RNN]
    n_gates: int
    step: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    """(input gates, state gates, state, cell state) -> new state"""


def _gru_step(x: Tensor, h: Tensor, state: Tensor, _cell: Tensor | None) -> Tensor:
    x_reset, x_update, x_new = x.chunk(3, -1)
    h_reset, h_update, h_new = h.chunk(3, -1)
    reset = torch.sigmoid(x_reset + h_reset)
    update = torch.sigmoid(x_update + h_update)
    new = torch.tanh(x_new + reset * h_new)
    return new + update * (state - new)


def _lstm_step(x: Tensor, h: Tensor, _state: Tensor, cell: Tensor | None) -> Tensor:
    assert cell is not None
    enter, forget, new, leave = (x + h).chunk(4, -1)
    kept = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(kept)


def _rnn_step(x: Tensor, h: Tensor, _state: Tensor, _cell: Tensor | None) -> Tensor:
    return torch.tanh(x + h)


CELLS = {
    "gru": Cell(nn.GRU, 3, _gru_step),
    "lstm": Cell(nn.LSTM, 4, _lstm_step),
    "rnn": Cell(nn.RNN, 1, _rnn_step),
}


class Network(nn.Module):
    """Forecasts quantiles of H readings from L. Series 0 stands for every unknown series."""

    center: Tensor  # (series + 1,)
    scale: Tensor  # (series + 1,)
    reach: Tensor  # (series + 1,), in units of scale

    def __init__(self, task: ForecastTask, config: NetworkConfig) -> None:
        super().__init__()
        assert config.segment is not None
        self.task = task
        self.config = config
        self.segment = config.segment
        self.out_segment = min(config.segment, task.horizon)
        n_entries, width = task.n_series + 1, config.hidden
        self.register_buffer("center", torch.zeros(n_entries))
        self.register_buffer("scale", torch.ones(n_entries))
        self.register_buffer("reach", torch.full((n_entries,), _NO_LIMIT))
        self.cycle = nn.Embedding(n_entries, task.season)
        self.anchor = nn.Parameter(torch.zeros(task.horizon))
        self.read = nn.Linear(self.segment, width)
        self.read_missing = nn.Linear(self.segment, width, bias=False)
        self.cell = CELLS[config.cell]
        self.recurrence: nn.RNNBase = self.cell.layer(
            width, width, num_layers=config.layers, batch_first=True
        )
        self.identity = nn.Embedding(n_entries, width)
        self.position = nn.Parameter(torch.empty(-(-task.horizon // self.out_segment), width))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, self.out_segment * len(task.quantiles))
        self._initialise()

    def forward(self, history: Tensor, series: Tensor, next_step: Tensor) -> Tensor:
        """Forecast in the units of the panel, (N, H, Q): the sensors' own, less a base.

        history (N, L), NaN where missing; series (N,), 0 for unknown; next_step (N,), where lead 1
        lies on the grid that begins in 1970.
        """
        history = self.believable(history, series)
        center, scale = self.scaling(history, series)
        forecast = self.forecast_scaled((history - center) / scale, series, next_step)
        return forecast * scale[..., None] + center[..., None]

    def forecast_scaled(self, scaled: Tensor, series: Tensor, next_step: Tensor) -> Tensor:
        """Forecast, (N, H, Q), in units of each series' scale: what the loss is computed in."""
        cycle = self.cycle_at(series, next_step)  # (N, L + H)
        past, ahead = cycle[:, : self.task.lookback], cycle[:, self.task.lookback :]
        window = normalise(scaled - past)
        normal = self.decode(window, series)
        return normal * window.spread[..., None] + (window.level + ahead)[..., None]

    def decode(self, window: Window, series: Tensor) -> Tensor:
        """Run the recurrence over one window and decode every lead from its end, (N, H, Q)."""
        hidden, cells = self._encode(window)
        x_gates = self._query_gates(series)  # (N, M, gates * D)
        out = hidden[-1]
        for layer in range(self.recurrence.num_layers):
            if layer:
                x_gates = F.linear(
                    out, self._part("weight_ih", layer), self._part("bias_ih", layer)
                )
            state = hidden[layer]
            h_gates = F.linear(state, self._part("weight_hh", layer), self._part("bias_hh", layer))
            cell = None if cells is None else cells[layer][:, None]
            out = self.cell.step(x_gates, h_gates[:, None], state[:, None], cell)  # (N, M, D)
        raw = self.head(self.dropout(out))  # (N, M, out_segment * Q)
        n_quantiles = len(self.task.quantiles)
        leads = raw.reshape(len(raw), -1, n_quantiles)[:, : self.task.horizon]
        ordered = order_quantiles(leads, self.task.median)
        return ordered + (self.anchor * window.newest)[..., None]

    def believable(self, history: Tensor, series: Tensor) -> Tensor:
        """Take a few single readings beyond the reach of their series for missing: spikes.

        More than a few of them in one window, or several in a row, are a new level, and stay. An
        unknown series is judged by the middle of its window.
        """
        center, reach = self.center[series, None], (self.reach * self.scale)[series, None]
        unknown = series == 0
        if bool(unknown.any()):
            quarters = torch.tensor((0.25, 0.5, 0.75), device=history.device)
            low, middle, high = history[unknown].nanquantile(quarters, dim=1)[..., None]
            center, reach = center.clone(), reach.clone()
            center[unknown] = middle
            reach[unknown] = torch.where(high > low, _OWN_REACH * (high - low), torch.nan)
        beyond = (history - center).abs() > reach  # False where either is NaN
        few = beyond.sum(1, keepdim=True) <= _SPIKE_SHARE * history.shape[1]
        return torch.where(beyond & few & ~_in_runs(beyond), torch.nan, history)

    def cycle_at(self, series: Tensor, next_step: Tensor) -> Tensor:
        """Look up the season's pattern over history and horizon, (N, L + H)."""
        lookback, season = self.task.lookback, self.task.season
        width = lookback + self.task.horizon
        patterns = self.cycle(series)  # (N, season)
        phase = (next_step - lookback) % season
        turn = (phase[:, None] + torch.arange(season, device=phase.device)) % season
        turned = patterns.gather(1, turn)
        pattern: Tensor = turned.repeat(1, -(-width // season))[:, :width]
        return pattern

    def scaling(self, history: Tensor, series: Tensor) -> tuple[Tensor, Tensor]:
        """Level and scale of each window's series, (N, 1) each; its own where it is unknown.

        Unknown are series 0, and one that had no reading yet when the scaling was fitted.
        """
        center, scale = self.center[series, None], self.scale[series, None]
        unknown = (series == 0)[:, None] | torch.isnan(scale)
        if not bool(unknown.any()):
            return center, scale
        mean, variance = _moments(history, torch.isfinite(history))
        deviation = variance.sqrt()
        own_scale = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
        return torch.where(unknown, mean, center), torch.where(unknown, own_scale, scale)

    def _encode(self, window: Window) -> tuple[Tensor, Tensor | None]:
        """Return the final hidden (and cell) states, (layers, N, D)."""
        short = -self.task.lookback % self.segment  # the first segment may be part empty
        values = window.values - self.anchor.detach().mean() * window.newest
        values = F.pad(values, (short, 0)).reshape(len(values), -1, self.segment)  # (N, S, segment)
        missing = F.pad(window.missing, (short, 0), value=1.0).reshape(values.shape)
        entering = F.relu(self.read(values) + self.read_missing(missing))
        _, state = self.recurrence(entering)
        return state if isinstance(state, tuple) else (state, None)

    def _query_gates(self, series: Tensor) -> Tensor:
        """Input gates of the queries: which stretch of the horizon, and which series."""
        weight = self._part("weight_ih", 0)
        where = F.linear(self.position, weight, self._part("bias_ih", 0))
        who = F.linear(self.identity(series), weight)
        return where + who[:, None]

    def _part(self, name: str, layer: int) -> Tensor:
        part: Tensor = getattr(self.recurrence, f"{name}_l{layer}")
        return part

    @torch.no_grad()
    def _initialise(self) -> None:
        width = self.recurrence.hidden_size
        for layer in range(self.recurrence.num_layers):
            for gate in self._part("weight_hh", layer).chunk(self.cell.n_gates):
                nn.init.orthogonal_(gate)
            nn.init.xavier_uniform_(self._part("weight_ih", layer))
            nn.init.zeros_(self._part("bias_ih", layer))
            nn.init.zeros_(self._part("bias_hh", layer))
            if self.cell.layer is nn.LSTM:
                self._part("bias_ih", layer)[width : 2 * width] = 1.0
        nn.init.zeros_(self.cycle.weight)
        nn.init.zeros_(self.read_missing.weight)  # a gap says nothing until training says otherwise
        nn.init.normal_(self.identity.weight, std=0.1)
        nn.init.normal_(self.position, std=1.0)
        self.head.bias.copy_(normal_quantile_bias(self.task).repeat(self.out_segment))
        self.head.weight.mul_(0.5)


def _in_runs(marked: Tensor) -> Tensor:
    """Tell which marks, (N, L), stand in a run that is too long for a spike."""
    wide = F.pad(marked, (SPIKE_RUN - 1, SPIKE_RUN - 1))
    runs = wide.unfold(1, SPIKE_RUN, 1).all(-1)  # a run begins here
    return runs.unfold(1, SPIKE_RUN, 1).any(-1)


def normalise(scaled: Tensor) -> Window:
    """Bring each window, (N, L), to zero mean and unit spread over the readings that are there.

    A missing reading repeats the last one before it, 0 where there is none. A few readings do not
    show their spread: the emptier a window, the more its series' own, 1, counts.
    """
    seen = torch.isfinite(scaled)
    level, variance = _moments(scaled, seen)
    n_seen = seen.sum(1, keepdim=True)
    prior = _PRIOR_READINGS * (1 - n_seen / scaled.shape[1])
    variance = (variance * n_seen + prior) / (n_seen + prior)
    spread = (variance + _SPREAD_FLOOR**2).sqrt()
    values = torch.where(seen, scaled - level, 0.0) / spread
    if not bool(seen.all()):
        values = _carry_forward(values, seen)
    return Window(values, (~seen).to(scaled.dtype), level, spread, values[:, -1:].detach())


def _moments(values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of what is there in each row, (N, 1) each; 0 where nothing is."""
    n_seen = seen.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(seen, values, 0.0).sum(1, keepdim=True) / n_seen
    variance = torch.where(seen, values - mean, 0.0).square().sum(1, keepdim=True) / n_seen
    return mean, variance


def _carry_forward(values: Tensor, seen: Tensor) -> Tensor:
    positions = torch.arange(values.shape[1], device=values.device).expand_as(values)
    last = torch.where(seen, positions, 0).cummax(1).values
    return values.gather(1, last)


def order_quantiles(raw: Tensor, median: int) -> Tensor:
    """Turn raw outputs, (..., Q), into quantiles that cannot cross: a median and gaps."""
    middle = raw[..., median : median + 1]
    gaps = F.softplus(torch.cat([raw[..., :median], raw[..., median + 1 :]], -1))
    below = middle - gaps[..., :median].flip(-1).cumsum(-1).flip(-1)
    above = middle + gaps[..., median:].cumsum(-1)
    return torch.cat([below, middle, above], -1)


def normal_quantile_bias(task: ForecastTask) -> Tensor:
    """Return raw outputs, (Q,), that `order_quantiles` turns into a narrow normal's."""
    normal = torch.tensor([NormalDist(0.0, 0.5).inv_cdf(q) for q in task.quantiles])
    gaps = normal.diff()
    raw = torch.log(torch.expm1(gaps))
    return torch.cat([raw[: task.median], torch.zeros(1), raw[task.median :]])
