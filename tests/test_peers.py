"""What benchmarks/peers.py says of runs; the runs are made up."""

from __future__ import annotations

import pytest

from benchmarks import peers
from benchmarks.peers import BUILTIN, OURS, Result, section

FORECASTING = {OURS: 0.5, "neuralforecast": 4.0}


def run(ready_s: float, seconds: float, mse: float, mae: float) -> Result:
    times = {"ready_s": ready_s, "seconds": seconds, "processor_s": 2 * seconds}
    return {**times, "scaled_mse": mse, "scaled_mae": mae}


@pytest.fixture(autouse=True)
def _versions(monkeypatch) -> None:
    monkeypatch.setattr(peers, "version", lambda _library: "1.0")


def test_the_best_run_of_a_peer_is_held_against_the_first_of_ours_that_is_as_good() -> None:
    results = {
        OURS: run(20, 40, 0.3, 0.3),
        BUILTIN: run(5, 25, 0.41, 0.4),
        "darts, 10 windows": run(30, 33, 0.9, 0.9),
        "darts, 90 windows": run(100, 200, 0.5, 0.4),
    }

    text = section(results, FORECASTING, "a machine")
    assert "| darts, 90 windows | 100.0 | 200.0 | 400.0 | 0.500/0.400 |" in text
    assert "is ready 20.0 times as fast, has forecast all windows 8.0 times as fast, and" in text
    assert text.rstrip().endswith("8.0 times as fast.")

    results[BUILTIN] = run(5, 25, 0.41, 0.41)
    assert "is ready 5.0 times as fast" in section(results, FORECASTING, "a machine")


def test_it_is_said_where_ours_is_not_as_good() -> None:
    results = {
        OURS: run(20, 40, 0.3, 0.5),
        BUILTIN: run(5, 25, 0.5, 0.4),
        "darts, 90 windows": run(100, 200, 0.4, 0.4),
    }

    assert "does not reach" in section(results, FORECASTING, "a machine")
