"""Which figures of a backtest stand in the tables of results."""

from __future__ import annotations

import rnnforecast


def scores(
    result: rnnforecast.Backtest, first: str, second: str, *, method: str = "network"
) -> dict[str, float]:
    """Return these two metrics of a method and of seasonal naive, and what goes with them."""
    own, naive = (result.metrics[name] for name in (method, "seasonal_naive"))
    return {
        "first": own[first],
        "second": own[second],
        "naive_first": naive[first],
        "naive_second": naive[second],
        "coverage_80": own["coverage_80"],
        "seconds": result.timing["total_s"],
    }
