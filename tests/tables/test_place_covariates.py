"""What stands beside the readings, where rows repeat a stamp or texts are written otherwise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rnnforecast.tables.features import category_codes, encode_column
from rnnforecast.tables.schema import Covariate
from tests.data.tables import failure, read
from tests.tables.test_future import AHEAD, EXPECTED, HOURS, PAST, PLAN, N, ahead, refused

NAN = float("nan")


def twice(table: pd.DataFrame, **other: object) -> pd.DataFrame:
    """Repeat each row, the second time with other values."""
    return pd.concat([table, table.assign(**other)], ignore_index=True)


@pytest.mark.parametrize("role", ["known", "past"])
@pytest.mark.parametrize(("first", "second"), [(1, 2), ("on", "off")])
def test_two_values_of_one_time_are_an_error_with_both_rows(role, first, second):
    table = twice(PAST.assign(k=first), k=second)

    error = failure(table, **{role: ("k",)})

    assert (error.code, error.location.line, error.location.also_lines) == (
        "duplicate-time",
        1,
        (N + 1,),
    )
    assert "conflicting values of 'k'" in error.message
    assert "--on-duplicate last" in error.advice and "--series" not in error.advice


@pytest.mark.parametrize(("rule", "expected"), [("last", 3.0), ("mean", 2.0)])
def test_a_rule_says_which_value_of_one_time_counts(rule, expected):
    table = twice(PAST.assign(k=1), k=3)

    beside = read(table, known=("k",), on_duplicate=rule).panel.covariates

    assert set(beside.known[0].values[0].tolist()) == {expected}


@pytest.mark.parametrize("rule", ["last", "mean"])
def test_of_two_texts_of_one_time_the_last_one_counts(rule):
    mode = np.where(np.arange(N) % 2, "a", "b")
    table = twice(PAST.assign(k=mode[::-1]), k=mode)

    result = read(table, known=("k",), on_duplicate=rule)

    names = result.panel.covariates.known_names
    values = result.panel.covariates.known[0].values
    assert values[names.index("k=a")].tolist() == (mode == "a").tolist()


def test_a_value_that_stands_in_one_of_two_rows_is_no_contradiction():
    table = twice(PAST.assign(k=1.0), k=NAN)

    result = read(table, known=("k",))

    assert result.panel.covariates.known[0].values[0].tolist() == [1.0] * N
    assert result.warnings["repeated-row"].count == N


def test_two_values_of_one_time_in_a_plan_are_an_error_with_its_lines(tmp_path):
    twice(PLAN, k=-1).to_csv(tmp_path / "plan.csv", index=False)

    error = refused(PAST, tmp_path / "plan.csv")

    assert (error.code, error.location.line, error.location.also_lines) == (
        "duplicate-time",
        2,
        (AHEAD + 2,),
    )
    assert "plan.csv" in error.location.file


@pytest.mark.parametrize(("rule", "expected"), [("last", 20.0), ("mean", 15.0)])
def test_a_rule_says_which_value_of_a_plan_counts(rule, expected):
    plan = twice(PLAN.assign(k=10), k=20)

    assert ahead(PAST, plan, on_duplicate=rule)[0] == [expected] * AHEAD


def test_rows_of_a_plan_that_repeat_are_counted_once():
    known, warnings, _ = ahead(PAST, twice(PLAN))

    assert known == EXPECTED
    said = {warned.code: warned for warned in warnings}["repeated-row"]
    assert said.count == AHEAD and "values" in said.message


def test_the_plan_has_the_last_word_on_what_comes():
    table = pd.concat([PAST, PLAN.assign(k=0)])

    known, warnings, _ = ahead(table, PLAN)

    assert known == EXPECTED
    assert not {"plan-differs", "repeated-row"} & {warned.code for warned in warnings}


@pytest.mark.parametrize("change", [0, 1])
def test_a_plan_that_differs_from_the_past_is_said(change):
    late = PAST[["time", "k"]][-3:].assign(k=lambda t: t["k"] + change)

    known, warnings, seen = ahead(PAST, pd.concat([late, PLAN]))

    assert known == EXPECTED
    codes = {warned.code for warned in warnings}
    assert ("plan-differs" in codes) == bool(change)
    assert "repeated-row" not in codes
    assert seen.features(3, AHEAD).known[0, 0, :3].tolist() == late["k"].tolist()


def test_where_values_are_put_together_the_plan_counts_after_the_last_reading():
    fine = pd.date_range(HOURS[0], periods=4 * N - 2, freq="15min")
    past = pd.DataFrame({"time": fine, "y": np.arange(len(fine)) / 8, "k": 2.0})
    later = pd.DataFrame({"time": HOURS[N:], "k": 0.0})
    plan = pd.DataFrame({"time": pd.date_range(fine[-1], HOURS[-1], freq="15min")[1:], "k": 6.0})

    known, warnings, seen = ahead(pd.concat([past, later]), plan, freq="1h", agg="mean")

    assert known == [6.0] * AHEAD
    assert seen.features(2, AHEAD).known[0, 0, :2].tolist() == [2.0, 2.0]
    assert "plan-differs" not in {warned.code for warned in warnings}


MODES = ("1", "2", "high")


def test_texts_that_write_a_known_number_are_that_number():
    covariate = Covariate("mode", "known", is_text=True, categories=MODES)

    numbers = category_codes(covariate, ["2", "2.0", "02", " 1", "high", "High", "3"])
    features, _ = encode_column(covariate, np.append(numbers, np.float32(NAN)))

    assert np.argmax(features[:, :-1], 0).tolist() == [1, 1, 1, 0, 2, 3, 3]
    assert np.isnan(features[:, -1]).all()


def test_a_number_that_two_known_texts_write_is_neither():
    covariate = Covariate("mode", "known", is_text=True, categories=("1", "01"))

    assert category_codes(covariate, ["01", "1", "1.0"]).tolist() == [1, 0, 4]


def test_a_plan_may_write_categories_as_another_tool_does():
    past = PAST.assign(k=PAST["k"].astype(str))
    plan = PLAN.assign(k=np.arange(AHEAD) % 4)
    same = plan.assign(k=plan["k"].astype(str))
    floats = plan.assign(k=plan["k"].astype(float))

    read_as = [ahead(past, one, categorical=("k",)) for one in (same, plan, floats)]

    first = read_as[0][2].features(1, AHEAD).known
    for _, warnings, seen in read_as:
        np.testing.assert_array_equal(seen.features(1, AHEAD).known, first)
        assert "unknown-categories" not in {warned.code for warned in warnings}


@pytest.mark.parametrize(("n_unknown", "is_said"), [(3, False), (4, True)])
def test_a_plan_that_holds_mostly_unknown_texts_is_said(n_unknown, is_said):
    past = PAST.assign(k=np.where(PAST["k"] > 1, "on", "off"))
    plan = PLAN.assign(k=["ON"] * n_unknown + ["on"] * (AHEAD - n_unknown))

    said = {warned.code: warned for warned in ahead(past, plan)[1]}

    assert ("unknown-categories" in said) == is_said
    if is_said:
        assert said["unknown-categories"].message.endswith("unknown to the model: ON")
