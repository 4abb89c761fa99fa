"""The stages of rows: what is done in the wrong order is an error, and never a wrong panel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rnnforecast.tables.rows import Grid, Rows, Stage
from rnnforecast.tables.schema import Covariate, Schema

SCHEMA = Schema("time", None, ("v",), covariates=(Covariate("k", "known"),))
GRID = Grid(np.array([0]), np.array([3]), 10)
STAGES = list(Stage)


def rows_at(stage: Stage) -> Rows:
    """Make three rows that have come to a stage in the right order."""
    columns = {name: [np.arange(3, dtype=np.float32)] for name in "vk"}
    rows = Rows(
        [np.array([0, 10, 20])],
        [np.zeros(3, np.int16)],
        {"v": columns["v"]},
        {"k": columns["k"]},
        {"v": np.zeros(1)},
        ["v"],
    )
    steps = (
        lambda: rows.finish_cleaning(SCHEMA),
        lambda: rows.align(list(rows.times)),
        lambda: rows.place(GRID),
    )
    for step in steps[: STAGES.index(stage)]:
        step()
    assert rows.stage is stage
    return rows


CALLS: dict[str, tuple[Callable[[Rows], object], set[Stage]]] = {
    "mask": (
        lambda rows: rows.mask("v", 0, np.zeros(3, np.bool_)),
        {Stage.READ, Stage.CLEANED},
    ),
    "finish_cleaning": (lambda rows: rows.finish_cleaning(SCHEMA), {Stage.READ}),
    "align": (lambda rows: rows.align([np.arange(3)]), {Stage.CLEANED}),
    "place": (lambda rows: rows.place(GRID), {Stage.ALIGNED}),
    "times": (lambda rows: rows.times, set(STAGES) - {Stage.PLACED}),
    "codes": (lambda rows: rows.codes, set(STAGES) - {Stage.PLACED}),
    "take_readings": (lambda rows: rows.take_readings("v"), {Stage.PLACED}),
    "take_covariate": (lambda rows: rows.take_covariate("k"), {Stage.PLACED}),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", CALLS)
def test_a_method_in_the_stage_of_another_raises(name, stage):
    call, stages = CALLS[name]
    rows = rows_at(stage)

    if stage in stages:
        call(rows)
    else:
        with pytest.raises(RuntimeError, match=f"the rows are {stage.value}, but must be"):
            call(rows)


def test_a_column_is_handed_over_once_and_then_freed():
    rows = rows_at(Stage.PLACED)
    rows.take_readings("v")

    with pytest.raises(KeyError):
        rows.take_readings("v")


def test_masked_readings_are_counted_once():
    rows = rows_at(Stage.READ)
    is_bad = np.array([True, False, True])

    assert [rows.mask("v", 0, is_bad) for _ in range(2)] == [2, 0]
    np.testing.assert_array_equal(rows.readings("v")[0], [np.nan, 1, np.nan])
