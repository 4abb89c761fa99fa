"""One step of one member: what it draws, what it loses, how its weights move.

Below `training`, which counts steps and remembers the best weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from rnnforecast.config import TrainConfig
from rnnforecast.data.panel import Floats
from rnnforecast.data.ranks import ALONE, Ranks, share_of
from rnnforecast.data.windows import SEEN_SHARE, Batch
from rnnforecast.model.augment import draw_mixture
from rnnforecast.model.beside import Beside
from rnnforecast.model.loss import pinball
from rnnforecast.model.member import Member
from rnnforecast.model.network import Network
from rnnforecast.model.product import has_fast_bfloat16
from rnnforecast.model.ranks import sum_gradients
from rnnforecast.model.validation import entries, features_beside, scaled_windows

_UNKNOWN_SHARE = 1 / 16
"""Share of the training windows shown without their series' name, so that a new one can come."""


def make_optimizer(member: Member, rate: float) -> torch.optim.Optimizer:
    """Make what moves the weights of a member."""
    member.recurrence.rounds = has_fast_bfloat16(member.persistence.device)
    return torch.optim.AdamW(member.parameters(), lr=rate, fused=True)


def take_step(
    network: Network,
    member: Member,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    *,
    config: TrainConfig,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor]:
    """Take one step; return the loss and the gradient's norm before clipping.

    All ranks have the same batch, and each takes the gradient of its share of it.
    """
    optimizer.zero_grad(set_to_none=True)
    rows = share_of(ranks, len(batch.series))
    loss = member_loss(network, member, batch, generator, reach=config.truncate, rows=rows)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = list(member.parameters())
    loss = sum_gradients(parameters, loss, ranks)
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip or float("inf"))
    optimizer.step()
    return loss, norm


def member_loss(
    network: Network,
    member: Member,
    batch: Batch,
    generator: torch.Generator,
    *,
    reach: int | None = None,
    rows: slice = slice(None),
) -> Tensor:
    """Return the quantile loss of a batch in units of each series' scale; spikes do not count.

    Some windows are shown without their name; those with less than half of their history do not
    count. Members that are linear see windows made of windows. With `rows` it is the part of the
    loss that these windows make up: those of all add up to the whole.
    """
    series = entries(batch, network.center.device)
    hidden = torch.rand(len(series), generator=generator, device=series.device) < _UNKNOWN_SHARE
    shown = torch.where(hidden, 0, series)
    history, future, next_step, stretch = scaled_windows(network, batch, series, shown)
    beside = features_beside(network, batch)
    too_empty = torch.isfinite(history).float().mean(1, keepdim=True) < SEEN_SHARE
    past, ahead = member.expected_around(shown, next_step, beside)
    past, ahead = history[:, -member.own.lookback :] - past, future - ahead
    if member.own.linear:
        mixture = draw_mixture(len(past), generator)
        past, ahead = mixture.of(past), mixture.of(ahead)
        beside = beside and Beside(*map(mixture.of, beside))
    kept = member.draw_kept(len(past), generator)
    counts = torch.isfinite(ahead) & ~too_empty
    n_counted = counts.sum().clamp(min=1)
    past, ahead, shown, counts, stretch = (x[rows] for x in (past, ahead, shown, counts, stretch))
    beside = beside and Beside(*(x[rows] for x in beside))
    window = member.normalised(past)
    window = window._replace(newest=window.newest.detach())
    kept = None if kept is None else kept[rows]
    leads = member.decode(window, shown, beside, kept=kept, reach=reach)
    goal = (torch.where(counts, ahead, 0.0) - window.level) / window.spread
    loss = pinball(leads, goal - member.persisting(window), member.levels) * window.spread * stretch
    return torch.where(counts, loss, 0.0).sum() / n_counted


def seeded(*key: int, device: torch.device) -> torch.Generator:
    """Make a source of random numbers that these numbers alone decide."""
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(seed))


def moments_of(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return what the optimizer remembers of each: means of gradients, of squares, how many steps.

    A parameter that had no gradient yet, such as what reads gaps before the first gap, has zeros.
    """
    nothing = torch.zeros(())
    kept = [optimizer.state.get(p, {}) for p in parameters]
    means, squares = (
        [one.get(key, nothing.expand(p.shape)) for one, p in zip(kept, parameters, strict=True)]
        for key in ("exp_avg", "exp_avg_sq")
    )
    return means, squares, [one.get("step", nothing) for one in kept]


def restore_moments(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    means: Iterable[Floats],
    squares: Iterable[Floats],
    counts: Floats,
) -> None:
    """Let an optimizer that has taken no step remember this, `(parameter,)` of each."""
    for parameter, mean, square, count in zip(parameters, means, squares, counts, strict=True):
        if count:
            optimizer.state[parameter] = {
                "step": torch.tensor(count, dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.empty_like(parameter).copy_(torch.from_numpy(mean)),
                "exp_avg_sq": torch.empty_like(parameter).copy_(torch.from_numpy(square)),
            }


@contextmanager
def using(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Put other values in force for a while."""
    with torch.no_grad():
        own = [p.detach().clone() for p in parameters]
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
        try:
            yield
        finally:
            for parameter, value in zip(parameters, own, strict=True):
                parameter.copy_(value)


def figures(scalars: Sequence[Tensor]) -> Floats:
    """Return tensors of one figure each as an array, `(figure,)`."""
    if not scalars:
        return np.empty(0, np.float32)
    figures: Floats = torch.stack(list(scalars)).cpu().numpy()
    return figures
