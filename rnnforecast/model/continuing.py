"""How a trained member learns on: from more readings, for a number of steps that is known.

Apart from `training`, which finds that number on readings that it holds out.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rnnforecast.config import TrainConfig
from rnnforecast.data.windows import TrainingWindows, epoch_batches
from rnnforecast.model.network import Network
from rnnforecast.model.stepping import make_optimizer, seeded, take_step
from rnnforecast.model.training import seen_by

CONTINUED_RATE = 0.25
"""Share of the rate at which a trained network learns on."""


def learn_on(
    network: Network,
    index: int,
    windows: TrainingWindows,
    *,
    n_steps: int,
    config: TrainConfig,
) -> Iterator[int]:
    """Take `n_steps` more steps over these windows, at a rate that falls from a part of the peak.

    There is nothing left to stop early on: the number of steps is decided beforehand. Yields the
    number of steps taken after each.
    """
    member = network.members[index]
    optimizer = make_optimizer(member, config.learning_rate * CONTINUED_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)
    key = (config.seed, index, config.epochs)
    generator = seeded(*key, device=network.center.device)
    windows = seen_by(member, windows)
    batches = epoch_batches(windows, n_steps=n_steps, batch_size=config.batch_size, key=key)
    for step, batch in enumerate(batches, start=1):
        take_step(
            network,
            member,
            batch,
            optimizer,
            config=config,
            generator=generator,
            ranks=windows.ranks,
        )
        schedule.step()
        yield step
