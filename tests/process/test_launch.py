"""What a launcher says in the environment, and what the options of ranks may say."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from rnnforecast.config.commands import RanksConfig
from rnnforecast.errors import UsageError
from rnnforecast.events import Event, Notice, WarningEvent
from rnnforecast.process import Launch, current_launch, is_main_process
from rnnforecast.workflow.train import launch_for, merging_warnings
from tests.together import ThreadRanks, together

SAID = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What torchrun says to one of its processes."""
    for name, value in SAID.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_process_learns_which_one_it_is(environment):
    assert current_launch() == Launch(rank=3, n=8, local_rank=1, local_world_size=2, restarts=0)
    assert not is_main_process()
    environment.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    environment.setenv("RANK", "0")
    assert current_launch() == Launch(rank=0, n=8, local_rank=1, local_world_size=2, restarts=2)
    assert is_main_process()


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_a_process_that_no_launcher_has_started_is_alone(environment, name):
    environment.delenv(name)
    assert current_launch() is None
    assert is_main_process()


def test_variables_of_somebody_else_are_left_alone(environment):
    environment.setenv("RANK", "first")
    assert current_launch() is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"workers": 2}, "needs a launcher"),
        ({"engine": "ray", "workers": 0}, "between 1 and"),
        ({"engine": "dask"}, "must be one of ray"),
        ({"address": "auto"}, "needs --engine ray"),
        ({"rank_timeout": "soon"}, "soon"),
        ({"rank_timeout": "0s"}, "0s"),
    ],
)
def test_options_that_cannot_be_meant_are_told(given, told):
    with pytest.raises(UsageError, match=told):
        RanksConfig(**given)


def test_a_time_out_is_a_duration():
    assert RanksConfig(rank_timeout="90s").timeout_s == 90
    assert RanksConfig().timeout_s == 600


def test_a_table_and_a_single_process_need_no_buckets(environment, tmp_path):
    assert launch_for(tmp_path / "readings.csv") is not None, "which is refused"
    assert launch_for(pd.DataFrame({"time": [], "flow": []})) is None
    environment.setenv("WORLD_SIZE", "1")
    assert launch_for(tmp_path / "readings.csv") is None
    (tmp_path / "_shards.json").touch()
    assert launch_for(str(tmp_path)) is not None, "fewer ranks go on where more have begun"


def test_all_are_warned_once_of_what_any_rank_was():
    stuck, gap = (
        WarningEvent("stuck-sensor", "sensors stuck at one value: a", 2),
        WarningEvent("long-gap", "b"),
    )
    own = [[stuck, Notice("step 1 h")], [gap, replace(stuck, message="c", count=5)]]

    def heard(ranks: ThreadRanks) -> list[Event]:
        found: list[Event] = []
        with merging_warnings(found.append, ranks) as hearing:
            for event in own[ranks.rank]:
                hearing(event)
        return found

    merged = [
        WarningEvent(
            "stuck-sensor", "sensors stuck at one value: a (and 5 more of other processes)", 7
        ),
        gap,
    ]
    assert together(2, heard) == [[Notice("step 1 h"), *merged], merged]
    assert together(1, heard) == [own[0]]
