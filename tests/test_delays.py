"""Memory as it is measured, held against a memory that is known: readings that come again.

Each reading is 0.9 times the one k steps before it, plus noise. A network that has learnt that
needs no further reading, and none that it may leave out. The readings have outages, so that it
meets windows of which the past is missing before it is measured on such. No season is told: the
experts would know it.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.delayed import delayed, with_outages
from rnnforecast.config.training import Config, NetworkConfig, TrainConfig
from rnnforecast.data.season import Seasons
from rnnforecast.data.windows import make_past
from rnnforecast.model.fitting import fit
from rnnforecast.spec import MemberSpec
from rnnforecast.workflow.steps import MemoryReport, analyse_memory
from tests.builders import make_panel, make_spec
from tests.thorough import only_thoroughly

N_READINGS = 24_000


def measured(cell: str, lag: int, *, lookback: int, segment: int, epochs: int) -> MemoryReport:
    """Train one member, and measure its memory on other readings of the kind, without outages."""
    member = MemberSpec(cell, hidden=32, layers=1, segment=segment)
    config = Config(
        network=NetworkConfig(cell=cell, hidden=32, layers=1, segment=segment),
        training=TrainConfig(epochs=epochs, threads=1, seed=1),
    )
    panel = make_panel(with_outages(delayed(N_READINGS, lag), lookback))
    fitted = fit(
        make_past(panel, np.array([N_READINGS * 3 // 4])),
        make_past(panel),
        spec=make_spec(lookback, 1, 1, members=(member,)),
        network=config.network,
        config=config.training,
        common=Seasons(),
    )
    newer = make_panel(delayed(8_000, lag, seed=9))
    return analyse_memory(
        fitted.network,
        make_past(newer).windows(lookback, 1),
        newer,
        config,
        entries=[1],
        explosion=None,
        n_windows=512,
    )


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=only_thoroughly)])
def test_what_lies_30_steps_back_is_learnt_and_remembered_to_there(cell: str) -> None:
    report = measured(cell, 30, lookback=48, segment=16, epochs=100)

    memory, (peak,) = report.memory, report.memory.peaks
    assert peak.lag == 30
    assert peak.error is not None
    assert peak.error < 1.35  # it was learnt: without, the error is 2.2
    assert 27 <= memory.effective <= 36
    assert report.diagnosis.verdict == "OK"
    gradient = np.array(memory.gradients["early"], np.float64)
    assert int(np.nanargmax(gradient)) + 1 == 30


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "mingru"])
def test_what_was_not_learnt_in_a_few_steps_is_said_to_have_vanished(cell: str) -> None:
    report = measured(cell, 30, lookback=48, segment=1, epochs=2)

    (peak,) = report.memory.peaks
    assert peak.error is not None
    assert peak.error > 1.8
    assert report.diagnosis.verdict == "VANISHING"
    assert report.diagnosis.advice is not None
    assert "after 30 steps" in report.diagnosis.reason
