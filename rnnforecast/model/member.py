"""One recurrent network: a recurrence over segments, every lead decoded from its final state.

A `Network` is a committee of these. Shapes: N windows, L lookback, H horizon, Q quantiles, S
segments of the history, M segments of the horizon, D hidden.

Sources: segments and parallel decoding, SegRNN (Lin and others 2023, arXiv 2308.11200); the learned
cycle, CycleNet (Lin and others 2024, arXiv 2409.18479).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rnnforecast.config import NetworkConfig
from rnnforecast.model.beside import Beside, Reader
from rnnforecast.model.cells import State
from rnnforecast.model.normalising import Window, normalise
from rnnforecast.model.persistence import Part, lasting
from rnnforecast.model.recurrence import Recurrence
from rnnforecast.task import ForecastTask, MemberTask

_START_SPREAD = 0.5
"""Standard deviation of a forecast before the first step, in units of the window's spread."""


class Member(nn.Module):
    """Forecasts quantiles of H readings from the last L. Series 0 stands for every unknown one."""

    mixing: Tensor  # (Q, Q)
    levels: Tensor  # (Q,)

    def __init__(self, task: ForecastTask, own: MemberTask, config: NetworkConfig) -> None:
        super().__init__()
        self.task = task
        self.own = own
        n_entries, width, n_quantiles = task.n_series + 1, config.hidden, len(task.quantiles)
        self.out_segment = min(own.segment, task.horizon)
        self.cycle = nn.Embedding(n_entries, task.season)
        self.persistence = nn.Parameter(torch.zeros(own.n_lasting, task.horizon))
        self.read = nn.Linear(own.segment, width)
        self.read_missing = nn.Linear(own.segment, width, bias=False)
        n_steps = -(-own.lookback // own.segment)
        self.recurrence = Recurrence(
            config.cell, width, config.layers, init=config.init, n_steps=n_steps
        )
        self.identity = nn.Embedding(n_entries, width)
        self.position = nn.Parameter(torch.empty(-(-task.horizon // self.out_segment), width))
        self.reader = None
        if own.covariates:
            self.reader = Reader(task, own, out_segment=self.out_segment, width=width)
        self.dropout = config.dropout
        self.head = nn.Linear(width, self.out_segment * n_quantiles)
        self.register_buffer("mixing", mixing(n_quantiles, task.median), persistent=False)
        self.register_buffer("levels", torch.tensor(task.quantiles), persistent=False)
        self._initialise()

    def forward(
        self, scaled: Tensor, series: Tensor, next_step: Tensor, beside: Beside | None = None
    ) -> Tensor:
        """Forecast in units of each series' scale, (N, H, Q), in the order of the quantiles.

        scaled (N, at least L), NaN where missing; series and next_step (N,), see `Network`.
        """
        past, ahead = self.expected_around(series, next_step, beside)
        window = self.normalised(scaled[:, -self.own.lookback :] - past)
        leads = (
            self.decode(window, series, beside).sort(-1).values + self.persisting(window)[..., None]
        )
        return leads * window.spread[..., None] + (window.level + ahead)[..., None]

    def decode(
        self,
        window: Window,
        series: Tensor,
        beside: Beside | None = None,
        *,
        kept: Tensor | None = None,
        reach: int | None = None,
    ) -> Tensor:
        """Run the recurrence over one window and decode every lead from its end, (N, H, Q).

        The quantiles may cross. `kept` is what `draw_kept` gives, in training. With a reach
        gradients come through the recurrent steps of the last so many readings only.
        """
        entering = self.entering(window, beside)
        n_steps = len(entering) if reach is None else -(-reach // self.own.segment)
        return self.answers(self.recurrence.truncated(entering, n_steps), series, beside, kept=kept)

    def draw_kept(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Draw which parts of n states are not dropped, (N, 1, D), the same ones for all leads.

        What is kept counts for more; None where nothing is dropped.
        """
        if not self.dropout:
            return None
        shape = (n, 1, self.identity.embedding_dim)
        kept = torch.rand(shape, generator=generator, device=generator.device) >= self.dropout
        return kept / (1 - self.dropout)

    def answers(
        self,
        final: Sequence[State],
        series: Tensor,
        beside: Beside | None = None,
        *,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Decode every lead from the final state of each layer, (N, H, Q), as `decode` says."""
        out = self.recurrence.ask(self._queries(series, beside), final)  # (N, M, D)
        if kept is not None:
            out = out * kept
        n_quantiles = len(self.task.quantiles)
        weight = self.mixing @ self.head.weight.view(self.out_segment, n_quantiles, -1)
        bias = self.head.bias.view(self.out_segment, n_quantiles) @ self.mixing.T
        raw = F.linear(out, weight.flatten(0, 1), bias.flatten())  # (N, M, out_segment * Q)
        return raw.reshape(len(raw), -1, n_quantiles)[:, : self.task.horizon]

    def normalised(self, past: Tensor) -> Window:
        """Return deviations from the season's pattern, (N, L), as this member sees them."""
        return normalise(past, rescaled=self.own.linear)

    def lasting(self, window: Window) -> list[Part]:
        """Return what of the window lasts into the horizon."""
        season = self.task.season if self.own.seasonal else None
        return lasting(window, season=season, horizon=self.task.horizon)

    def persisting(self, window: Window) -> Tensor:
        """Return what is left of it at each lead, (N, H), normalised."""
        parts = zip(self.persistence, self.lasting(window), strict=True)
        return torch.stack([share * part.ahead for share, part in parts]).sum(0)

    def expected_around(
        self, series: Tensor, next_step: Tensor, beside: Beside | None
    ) -> tuple[Tensor, Tensor]:
        """Return what season and known covariates let expect, (N, L) and (N, H)."""
        past, ahead = self.cycle_around(series, next_step)
        if self.reader is not None:
            assert beside is not None
            more_past, more_ahead = self.reader.explained(beside, series)
            past, ahead = past + more_past, ahead + more_ahead
        return past, ahead

    def cycle_around(self, series: Tensor, next_step: Tensor) -> tuple[Tensor, Tensor]:
        """Look up the season's pattern over history, (N, L), and horizon, (N, H)."""
        lookback, season = self.own.lookback, self.task.season
        width = lookback + self.task.horizon
        phase = (next_step - lookback) % season
        turn = (phase[:, None] + torch.arange(season, device=phase.device)) % season
        turned = self.cycle(series).gather(1, turn)  # (N, season)
        pattern = turned.repeat(1, -(-width // season))[:, :width]
        return pattern[:, :lookback], pattern[:, lookback:]

    def entering(self, window: Window, beside: Beside | None = None) -> Tensor:
        """Return what the recurrence runs over, (S, N, D).

        What lasts is taken out of the values; the pattern is shown instead, before them.
        """
        values, parts = window.values, self.lasting(window)
        for share, part in zip(self.persistence.detach(), parts, strict=True):
            values = values - share.mean() * part.past
        entering = self.read(self._segments(values, empty=0.0))  # (S, N, D)
        if window.missing is not None or self.own.lookback % self.own.segment:
            missing = torch.zeros_like(values) if window.missing is None else window.missing
            entering = entering + self.read_missing(self._segments(missing, empty=1.0))
        if self.reader is not None:
            assert beside is not None
            entering = entering + self.reader.history(beside)
        if self.own.seasonal:
            length = -(-self.task.season // self.own.segment) * self.own.segment
            pattern = self.read(self._segments(parts[-1].past[:, -length:], empty=0.0))
            entering = torch.cat([pattern, entering])
        return F.relu(entering)

    def _segments(self, values: Tensor, *, empty: float) -> Tensor:
        """Cut (N, L) into (S, N, segment); the first segment may be part empty."""
        padded = F.pad(values, (-values.shape[1] % self.own.segment, 0), value=empty)
        return padded.view(len(values), -1, self.own.segment).transpose(0, 1)

    def _queries(self, series: Tensor, beside: Beside | None) -> Tensor:
        """Input gates of the queries, (N, M, gates * D): which stretch, and which series."""
        first = self.recurrence.from_input[0]
        where, who = first(self.position), F.linear(self.identity(series), first.weight)
        queries: Tensor = where + who[:, None]
        if self.reader is not None and self.reader.asks:
            assert beside is not None
            queries = queries + F.linear(self.reader.question(beside), first.weight)
        return queries

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.zeros_(self.cycle.weight)
        nn.init.zeros_(self.read_missing.weight)  # a gap says nothing until training says otherwise
        nn.init.normal_(self.identity.weight, std=0.1)
        nn.init.normal_(self.position, std=1.0)
        normal = torch.tensor(
            [NormalDist(0, _START_SPREAD).inv_cdf(q) for q in self.task.quantiles]
        )
        self.head.bias.copy_(torch.linalg.solve(self.mixing, normal).repeat(self.out_segment))
        self.head.weight.mul_(0.5)


def mixing(n_quantiles: int, median: int) -> Tensor:
    """Return the matrix, (Q, Q), that makes quantiles of a median and of gaps between neighbours.

    What the head learns for the median then moves all quantiles. The gaps may become negative:
    quantiles that cross are put in order.
    """
    matrix = torch.zeros(n_quantiles, n_quantiles)
    matrix[:, median] = 1.0
    for i in range(median):
        matrix[i, i:median] = -1.0
    for i in range(median + 1, n_quantiles):
        matrix[i, median + 1 : i + 1] = 1.0
    return matrix
