"""Verdicts on the gradients of a training, and what to try against them. Standard library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from rnnforecast.config.training import TrainConfig

OK, VANISHING, EXPLODING, WASTED = "OK", "VANISHING", "EXPLODING", "WASTED WINDOW"
CLIPPED_TOO_OFTEN = 0.25
"""Share of the steps of a training, or of one epoch."""
_JUMP = 2.0
LARGE_NORM = 1.0
"""Gradients have norms of a few hundredths, for losses are in units of the series' scale: where
nothing is clipped, larger ones than this count."""


@dataclass(frozen=True)
class Judged:
    """A verdict."""

    verdict: str
    reason: str
    advice: str | None
    """Options to train with; None where all is well."""


def explosion(
    clipped: Sequence[float], losses: Sequence[float], training: TrainConfig
) -> str | None:
    """Say why a member's training exploded, by the epoch; None where it did not.

    Its steps were clipped too often, or its training loss jumped to twice the least before.
    """
    share = sum(clipped) / len(clipped) if clipped else 0.0
    if share > CLIPPED_TOO_OFTEN:
        limit = training.clip or LARGE_NORM
        return f"{100 * share:.0f} % of the gradients were larger than {limit:g}"
    least = accumulate(losses, min)
    for epoch, (loss, before) in enumerate(zip(losses[1:], least, strict=False), start=2):
        if loss > _JUMP * before:
            return f"the loss jumped in epoch {epoch}"
    return None


def exploding(reason: str, training: TrainConfig) -> Judged:
    """Say that gradients explode, and what keeps them in bounds.

    A lower rate first: the optimizer divides gradients by their own size, so that clipping them
    changes little about steps that are too long.
    """
    usual = TrainConfig().learning_rate
    if training.learning_rate > usual:
        advice = f"--learning-rate {usual:g}"
    elif not training.clip or training.clip > LARGE_NORM:
        advice = f"--clip {LARGE_NORM:g}"
    else:
        advice = f"--learning-rate {training.learning_rate / 3:.1g}"
    return Judged(EXPLODING, reason, advice)
