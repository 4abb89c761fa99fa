"""Verdicts on the gradients of a training run, with advice. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnnforecast.config.training import TrainConfig

OK, VANISHING, EXPLODING, WASTED = "OK", "VANISHING", "EXPLODING", "WASTED WINDOW"
CLIPPED_TOO_OFTEN = 0.25
"""Gradients explode when a larger share of the steps, of training or of one epoch, is clipped."""
_LOSS_JUMP = 2.0
"""Gradients explode when an epoch's loss is more than this many times the lowest one before."""
_FIRST_JUMP = 5.0
"""The same for the first epoch over the second one, where too many of its steps were clipped."""
LARGE_NORM = 1.0
"""Without clipping, larger norms count as clipped. Typical ones are a few hundredths, because
losses are in units of the series' scale."""


@dataclass(frozen=True)
class Diagnosis:
    """A verdict with its reason."""

    verdict: str
    reason: str
    advice: str | None
    """Options to train with; None for the verdict OK."""


def explain_explosion(
    clipped: Sequence[float], losses: Sequence[float], training: TrainConfig, *, has_improved: bool
) -> str | None:
    """Return why a member's training exploded; None where it did not.

    `clipped` and `losses`, `(epoch,)`, are the share of clipped steps and the training loss. The
    reason is clipping on too many steps, or a loss above twice the lowest one before; of the first
    epoch, a loss with much clipping that is over in the second. Where the validation loss has
    improved, clipping has done what it is for: errors of readings without noise are small against
    their changes, and their gradients large.
    """
    share = sum(clipped) / len(clipped) if clipped else 0.0
    if share > CLIPPED_TOO_OFTEN and not has_improved:
        limit = training.clip or LARGE_NORM
        return f"{100 * share:.0f} % of the gradient norms exceeded {limit:g}"

    if len(losses) > 1 and losses[0] > _FIRST_JUMP * losses[1] and clipped[0] > CLIPPED_TOO_OFTEN:
        return "the loss jumped in epoch 1"
    lowest = accumulate(losses, min)
    for epoch, (loss, lowest_before) in enumerate(zip(losses[1:], lowest, strict=False), start=2):
        if loss > _LOSS_JUMP * lowest_before:
            return f"the loss jumped in epoch {epoch}"
    return None


def diagnose_explosion(reason: str, training: TrainConfig) -> Diagnosis:
    """Return the verdict that gradients explode, with advice.

    A lower learning rate is advised first: the optimizer divides gradients by their running size,
    so that clipping changes little about steps that are too long.
    """
    default_rate = type(training)().learning_rate
    if training.learning_rate > default_rate:
        advice = f"--learning-rate {default_rate:g}"
    elif not training.clip or training.clip > LARGE_NORM:
        advice = f"--clip {LARGE_NORM:g}"
    else:
        advice = f"--learning-rate {training.learning_rate / 3:.1g}"
    return Diagnosis(EXPLODING, reason, advice)
