"""Memory as it is measured, held against a memory that is known: readings that come again.

Each reading is 0.9 times the one so many steps before it, and noise. A network that has learnt that
needs no further reading, and none that it may leave out. The readings have outages, so that it
meets windows of which the past is missing before it is measured on such.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.delayed import delayed, with_outages
from rnnforecast.config.training import Config, NetworkConfig, TrainConfig
from rnnforecast.data.windows import make_past
from rnnforecast.spec import MemberSpec
from rnnforecast.workflow.steps import MemoryReport, analyse_memory
from tests.builders import make_panel, make_spec
from tests.model.fitting import started, train
from tests.thorough import only_thoroughly

N_READINGS = 24_000


def measured(
    cell: str, lag: int, *, lookback: int, segment: int, epochs: int, **shape: int
) -> MemoryReport:
    """Train one member, and measure its memory on other readings of the kind, without outages."""
    shape = {"hidden": 32 if segment > 1 else 16, **shape}
    network_config = NetworkConfig(cell=cell, dropout=0.0, **shape)
    config = Config(network=network_config, training=TrainConfig(epochs=epochs, threads=1))
    member = MemberSpec(lookback, segment, linear=False, seasonal=False)
    spec = make_spec(lookback, 1, 1, members=(member,))
    readings = with_outages(delayed(N_READINGS, lag), lookback)
    network = started(readings, spec, config=config.network)
    train(network, readings, config.training)
    newer = make_panel(delayed(8_000, lag, seed=9))
    return analyse_memory(
        network,
        make_past(newer).windows(lookback, 1),
        newer,
        config,
        entries=[1],
        explosion=None,
        min_windows=128,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "lag", "segment"),
    [
        ("rnn", 5, 1),
        pytest.param("gru", 5, 1, marks=only_thoroughly),
        ("lstm", 5, 1),
        pytest.param("rnn", 50, 25, marks=only_thoroughly),
        pytest.param("gru", 50, 25, marks=only_thoroughly),
        pytest.param("lstm", 50, 25, marks=only_thoroughly),
        ("mingru", 50, 25),
        ("gru", 200, 50),
    ],
)
def test_what_was_learnt_is_remembered_to_where_it_lies(cell: str, lag: int, segment: int) -> None:
    lookback = max(8, 3 * lag // 2)

    found = measured(cell, lag, lookback=lookback, segment=segment, epochs=16)

    memory, (peak,) = found.memory, found.memory.peaks
    assert peak.lag == lag
    assert peak.error is not None
    assert peak.error < 1.25  # it was learnt: without, the error is 2.2
    assert memory.effective == pytest.approx(lag, rel=0.1)
    assert memory.members[0].effective_memory == pytest.approx(lag, rel=0.1)
    assert found.diagnosis.verdict == "OK"
    gradient = np.array(memory.gradients["early"], np.float64)
    assert int(gradient.argmax()) + 1 == lag


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "lag"),
    [
        ("mingru", 5),
        ("rnn", 50),
        pytest.param("lstm", 50, marks=only_thoroughly),
        pytest.param("gru", 50, marks=only_thoroughly),
        pytest.param("mingru", 50, marks=only_thoroughly),
        pytest.param("rnn", 200, marks=only_thoroughly),
    ],
)
def test_what_lies_too_far_back_step_by_step_is_said_to_have_vanished(cell: str, lag: int) -> None:
    found = measured(cell, lag, lookback=max(8, 3 * lag // 2), segment=1, epochs=3)

    (peak,) = found.memory.peaks
    assert peak.error is not None
    assert peak.error > 1.8
    assert found.diagnosis.verdict == "VANISHING"
    assert found.diagnosis.advice is not None
    assert f"after {lag} steps" in found.diagnosis.reason


@pytest.mark.slow
def test_a_second_layer_learns_what_a_single_one_of_gates_that_see_no_state_loses() -> None:
    found = measured("mingru", 5, lookback=8, segment=1, epochs=40, hidden=32, layers=2)

    (peak,) = found.memory.peaks
    assert peak.error is not None
    assert peak.error < 1.25  # a single layer ends above 1.8
    assert found.diagnosis.verdict == "OK"
