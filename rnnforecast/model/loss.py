"""The inputs and the loss of training steps, and the loss of validation windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnnforecast.config.training import TrainConfig
from rnnforecast.data.arrays import Doubles, Integers
from rnnforecast.data.panel import Features
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import Batch, Past, TrainingWindows, epoch_batches
from rnnforecast.model.inputs import Places
from rnnforecast.model.member import Member, MemberInputs, to_tensors
from rnnforecast.model.network import History, Network, Prepared
from rnnforecast.parallel import rank_share
from rnnforecast.spec import N_EXPERTS, NetworkSpec, n_inputs

N_ORIGINS = 8
"""Windows that end in each stretch of readings of a training step: they share its inputs."""
_MAX_TARGET = 25.0
"""Targets further off the level, in spreads, are brought so near."""
_MAX_WEIGHT = 20.0
"""Largest spread of a window that counts, in units of its series' scale."""
_MIN_LAG = 12
"""Fewest rows between readings whose difference is the scale of a series."""
_MIN_DIFFERENCE = 0.03
"""Least scale, as a share of the mean deviation from the mean."""
_MIN_WINDOWS, _MAX_WINDOWS = 32, 512
_PART_ROWS = 1 << 16
"""Readings of validation windows whose inputs are computed at once."""
_MAX_VALUES = 1 << 25
"""Inputs of all validation windows, where that leaves `_MIN_WINDOWS`."""


def loss_scales(past: Past, seasons: Sequence[Seasons]) -> Doubles:
    """Return what errors of each series are divided by, `(origin,)`: they shall count alike.

    It is the mean absolute difference over whole seasons, of 12 rows at least. Where that is
    unknown or small it is a share of the mean deviation; 1 for a series that never changes.
    """
    main = np.array([of_series.main for of_series in seasons], np.int64)
    lag = main * -(-_MIN_LAG // main)
    sums = np.zeros((past.n_origins, 4))
    for origins, table in past.tables():
        readings = table.astype(np.float64)
        for rows in np.unique(lag[origins]).tolist():
            at = np.flatnonzero(lag[origins] == rows)
            difference = np.abs(readings[at, rows:] - readings[at, :-rows])
            sums[origins[at], 0] = np.nansum(difference, axis=1)
            sums[origins[at], 1] = np.isfinite(difference).sum(1)
        n_known = np.maximum(np.isfinite(readings).sum(1), 1)
        mean = np.nansum(readings, axis=1) / n_known
        sums[origins, 2] = np.nansum(np.abs(readings - mean[:, None]), axis=1)
        sums[origins, 3] = n_known
    sums = past.filled(sums)

    deviation = sums[:, 2] / np.maximum(sums[:, 3], 1)
    difference = np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1), deviation)
    scales: Doubles = np.maximum(difference, _MIN_DIFFERENCE * deviation)
    return np.where(scales > 0, scales, 1.0)


def history_of(network: Network, batch: Batch) -> History:
    """Return the windows of a batch as the network forecasts them."""
    entry = batch.series + 1
    return History(batch.history, entry, network.seasons_of(entry), batch.features)


def n_stretches(config: TrainConfig) -> int:
    """Return how many stretches of readings the windows of a step end in."""
    return max(1, config.batch_size // N_ORIGINS)


class StepInputs(NamedTuple):
    """All that the loss of a step is computed from; see `step_inputs`."""

    inputs: MemberInputs
    target: Tensor  # (N, S, P), in units of the inputs ahead
    weight: Tensor  # (N, S, P); 0 where nothing was read
    n_known: int
    """Readings that count, on all ranks."""


def step_inputs(
    network: Network, member: Member, batch: Batch, scales: Doubles, *, rows: slice = slice(None)
) -> StepInputs:
    """Return the inputs and targets of a step: several windows end in each stretch of a batch.

    `scales` is `(series,)`. `rows` are the stretches that this rank learns from. Readings more than
    25 spreads off the level count as that far, and a spread as 20 scales at most.
    """
    segment = member.spec.segment
    n, n_rows = batch.history.shape
    stretches = take_rows(batch, rows)
    prepared = network.prepare(history_of(network, stretches), segment, n_origins=N_ORIGINS)
    places, inputs = prepared.places, prepared.inputs
    every = Places.at_end(n, n_rows, segment, n_ahead=places.n_ahead, n_origins=N_ORIGINS)
    n_known = int(np.isfinite(_targets(network, batch, every, segment)).sum())

    spread, scale = inputs.spread[..., None], scales[stretches.series][places.stretch]
    with np.errstate(over="ignore", invalid="ignore"):
        target = (_targets(network, stretches, places, segment) - inputs.level[..., None]) / spread
        target = np.clip(target, -_MAX_TARGET, _MAX_TARGET)
    is_known = np.isfinite(target)
    weight = np.where(is_known, np.minimum(spread / scale[:, None, None], _MAX_WEIGHT), 0.0)
    both = np.where(is_known, target, 0.0), weight
    tensors = [torch.from_numpy(x.astype(np.float32)).to(member.device) for x in both]
    return StepInputs(to_tensors(prepared, member.device), tensors[0], tensors[1], n_known)


def prepared_batches(
    network: Network,
    member: Member,
    windows: TrainingWindows,
    scales: Doubles,
    *,
    n_steps: int,
    config: TrainConfig,
    key: tuple[int, ...],
    first: int = 0,
) -> Iterator[StepInputs]:
    """Yield the inputs of `n_steps` steps less the `first` ones, of this rank's share of each.

    `key` is that of `epoch_batches`. Inputs that a thread computed ahead took longer.
    """
    batches = epoch_batches(windows, n_steps=n_steps, batch_size=n_stretches(config), key=key)
    for batch in islice(batches, first, None):
        rows = rank_share(windows.ranks, len(batch.series))
        yield step_inputs(network, member, batch, scales, rows=rows)


def step_loss(
    network: Network,
    member: Member,
    step: StepInputs,
    *,
    reach: int | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the quantile loss of a step's horizons, in units of each series' scale.

    `reach` limits the readings that gradients come back through. The losses of the ranks add up to
    that of all. `mask`, (stretch, 1, D), is that of dropout.
    """
    inputs = step.inputs
    n_segments = None if reach is None else -(-reach // member.spec.segment)
    _, states = member.encode(inputs.history, reach=n_segments)
    encoded = member.encode_ahead(states, inputs.ahead, inputs.stretch, inputs.state)
    if mask is not None:
        encoded = encoded * mask[inputs.stretch]

    levels = torch.tensor(network.spec.quantiles, device=encoded.device)[:, None]
    error = step.target[:, :, None] - member.decode(encoded, inputs.ahead)
    loss = torch.maximum(levels * error, (levels - 1.0) * error).mean(2) * 2 * step.weight
    return loss.sum() / max(step.n_known, 1)


def _targets(network: Network, batch: Batch, places: Places, segment: int) -> Doubles:
    """Return the readings of the segments ahead, (N, S, P); NaN beyond the horizon, too."""
    values = _without_spikes(network, batch)
    n_before = places.n_segments * segment - batch.history.shape[1]
    n_after = -network.spec.horizon % segment
    values = np.pad(values, ((0, 0), (n_before, n_after)), constant_values=np.nan)
    values = values.reshape(len(values), -1, segment)
    ahead: Doubles = values[places.stretch[:, None], places.ahead]
    if n_after:
        ahead[:, -1, segment - n_after :] = np.nan
    return ahead


def _without_spikes(network: Network, batch: Batch) -> Doubles:
    """Return history and future, (N, L + H): a few rows alone would not tell spike from level."""
    values = np.concatenate([batch.history, batch.future], axis=1)
    return network.mask_spikes(values, batch.series + 1).astype(np.float64)


def quantile_losses(forecast: Doubles, actual: Doubles, quantiles: tuple[float, ...]) -> Doubles:
    """Return twice the mean pinball loss of each window, (N,), summed over its known readings.

    `forecast` is (N, H, Q), `actual` (N, H), NaN where missing. At the median alone it is the
    absolute error.
    """
    is_known = np.isfinite(actual)
    error = np.where(is_known, actual, 0.0)[..., None] - forecast
    levels = np.array(quantiles)
    loss = 2 * np.maximum(levels * error, (levels - 1.0) * error).mean(-1)
    sums: Doubles = np.where(is_known, loss, 0.0).sum(1)
    return sums


class ValidationWindows:
    """Windows of the validation part, spread evenly, with their inputs computed once."""

    def __init__(self, network: Network, windows: TrainingWindows, scales: Doubles) -> None:
        """Take up to 512 of the windows, fewer where they are large."""
        spec = network.spec
        n_values = max(_n_values(spec, i) for i in range(len(spec.members)))
        n = min(max(_MAX_VALUES // n_values, _MIN_WINDOWS), _MAX_WINDOWS)
        self.n_disjoint = windows.n_disjoint
        self._network, self._ranks = network, windows.ranks
        batch = windows.gather(windows.spread(n))
        batch = take_rows(batch, rank_share(self._ranks, len(batch.series)))
        size = max(1, _PART_ROWS // spec.lookback)
        starts = range(0, len(batch.series), size)
        self._parts = [take_rows(batch, slice(start, start + size)) for start in starts]
        self._scales = scales[batch.series]
        self._actual = _without_spikes(network, batch)[:, spec.lookback :]
        self._prepared: dict[int, list[tuple[Prepared, MemberInputs]]] = {}

    @torch.no_grad()
    def _forecast(self, member: Member) -> Doubles:
        """Forecast all windows by one member, (N, H, Q)."""
        network, segment = self._network, member.spec.segment
        if segment not in self._prepared:
            histories = [history_of(network, part) for part in self._parts]
            prepared = [network.prepare(history, segment) for history in histories]
            self._prepared[segment] = [(x, to_tensors(x, member.device)) for x in prepared]
        spec = network.spec
        forecasts = [np.empty((0, spec.horizon, len(spec.quantiles)))]
        for part, inputs in self._prepared[segment]:
            quantiles = member(*inputs).transpose(2, 3).cpu().numpy()
            forecasts.append(part.readings(quantiles)[:, : spec.horizon])
        return np.concatenate(forecasts)

    def loss(self, member: Member) -> float:
        """Return the quantile loss of a member, in units of the series' scale."""
        (loss,) = self.losses([member], [(1.0,)])
        return loss

    def losses(
        self, members: Sequence[Member], weightings: Sequence[Sequence[float]]
    ) -> list[float]:
        """Return the quantile losses of weighted means of members, in units of the series' scale.

        Each rank forecasts its share of the windows.
        """
        network = self._network
        forecasts = [self._forecast(member) for member in members]
        totals = []
        for weights in weightings:
            mean = np.sum([w * f for w, f in zip(weights, forecasts, strict=True)], axis=0)
            losses = quantile_losses(mean, self._actual, network.spec.quantiles)
            totals.append(float((losses / self._scales).sum()))
        n_known = float(np.isfinite(self._actual).sum())
        *totals, n_all = self._ranks.all_reduce(np.array([*totals, n_known])).tolist()
        return [total / max(n_all, 1) for total in totals]


def _n_values(spec: NetworkSpec, number: int) -> int:
    """Return how many numbers the inputs of a window are for a member."""
    segment = spec.members[number].segment
    n_segments = -(-spec.lookback // segment) + -(-spec.horizon // segment)
    return n_segments * (n_inputs(segment) + N_EXPERTS * segment)


def take_rows(batch: Batch, rows: slice | Integers) -> Batch:
    """Return some windows of a batch."""
    return Batch(
        batch.history[rows],
        batch.future[rows],
        batch.series[rows],
        batch.next_step[rows],
        batch.features and Features(*(x[rows] for x in batch.features)),
    )
