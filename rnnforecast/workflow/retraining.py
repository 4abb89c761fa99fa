"""The story of retraining: a challenger learns from newer readings, and must be better to win."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rnnforecast.events import Listener
from rnnforecast.workflow.issuing import Issue

if TYPE_CHECKING:
    from rnnforecast.evaluate.scoring import Score


def retrain_if_due(
    issue: Issue, scores: Sequence[Score], listener: Listener
) -> dict[str, Any] | None:
    """Train a challenger where one is due; return what was decided and why, or None."""
    del issue, scores, listener
    return None
