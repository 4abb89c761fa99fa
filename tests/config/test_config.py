"""Configuration: durations and steps, ranges and choices, and what differs from a default."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnforecast.config.commands import check_format
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import (
    MAX_HIDDEN,
    MAX_LAYERS,
    MAX_LOOKBACK,
    Config,
    NetworkConfig,
    PredictConfig,
    TrainConfig,
    WindowConfig,
    override,
    quantile_name,
)
from rnnforecast.errors import UsageError
from rnnforecast.spec import DECILES, QUANTILES
from rnnforecast.units import (
    abbreviate_duration,
    describe_duration,
    format_duration,
    parse_duration_us,
    parse_steps,
)
from tests.builders import make_spec

SECOND, HOUR, DAY = 10**6, 3600 * 10**6, 86_400 * 10**6
repeatable = settings(max_examples=200, deadline=None, derandomize=True)


def refused(make: Callable[[], object]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        make()
    assert caught.value.exit_code == 2
    return caught.value


# Durations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1us", 1),
        ("250ms", 250_000),
        ("10s", 10 * SECOND),
        ("10sec", 10 * SECOND),
        ("5m", 300 * SECOND),
        ("15min", 900 * SECOND),
        ("24h", DAY),
        ("1.5d", 36 * HOUR),
        ("0.1s", 100_000),
        ("2w", 14 * DAY),
        ("h", HOUR),
        ("1H", HOUR),
        ("1D", DAY),
        ("15 MIN", 900 * SECOND),
        ("  24  h  ", DAY),
        ("007d", 7 * DAY),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: int) -> None:
    assert parse_duration_us(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "24", "-1h", "+1h", "1,5h", "1e3s", "h1", "1h30m", "1 fortnight", "1x", "auto"),
        *("none", "1.h", ".5h", "nan", "inf", "0x1h", "1h\0", "9" * 400 + "d"),
    ],
)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    error = refused(lambda: parse_duration_us(text))

    assert error.message == f"{text!r} is not a duration"
    assert "15min" in error.hint


@pytest.mark.parametrize("text", ["0h", "0.0d", "0.1us"])
def test_a_duration_of_no_length_is_refused(text: str) -> None:
    assert "not a positive duration" in refused(lambda: parse_duration_us(text)).message


@given(st.integers(1, 10**12))
@repeatable
def test_a_duration_that_was_written_is_read_as_what_it_was(microseconds: int) -> None:
    assert parse_duration_us(format_duration(microseconds)) == microseconds


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (15 * 60 * SECOND, "15 min"),
        (HOUR, "1 h"),
        (90 * 60 * SECOND, "90 min"),
        (DAY, "1 d"),
        (7 * DAY, "1 w"),
        (8 * DAY, "8 d"),
        (500, "500 us"),
        (1500, "1500 us"),
        (2000, "2 ms"),
    ],
)
def test_a_duration_is_written_in_its_largest_whole_unit(microseconds: int, text: str) -> None:
    assert format_duration(microseconds) == text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (2806 * HOUR, "116d"),
        (405 * 60 * SECOND, "6h"),
        (30 * HOUR, "30h"),
        (DAY, "24h"),
        (179 * SECOND, "179s"),
        (2, "2us"),
    ],
)
def test_a_duration_is_shortened_where_its_end_says_little(microseconds: int, text: str) -> None:
    assert abbreviate_duration(microseconds) == text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (15 * 60 * SECOND, "15 min"),
        (90 * 60 * SECOND, "90 min"),
        (36 * HOUR, "36 h"),
        (720 * 10 * 60 * SECOND, "5 d"),
        (2048 * 10 * 60 * SECOND, "14.2 d"),
        (23_870 * 60 * SECOND, "16.6 d"),
        (348 * HOUR, "14.5 d"),
        (943 * DAY + 3 * HOUR, "943 d"),
        (1170 * DAY, "3.2 years"),
        (427 * 60 * SECOND, "7.1 h"),
        (0, "0 us"),
    ],
)
def test_a_duration_is_described_as_people_write_it(microseconds: int, text: str) -> None:
    assert describe_duration(microseconds) == text


@given(st.integers(1, 9 * 10**15))
@repeatable
def test_a_described_duration_is_off_by_five_percent_at_most(length: int) -> None:
    described = parse_duration_us(describe_duration(length))

    assert abs(described - length) <= 0.05 * length + 0.5


@given(st.integers(1, 10**15))
@repeatable
def test_a_shortened_duration_is_never_longer_and_loses_less_than_a_quarter(length: int) -> None:
    assert 0.75 * length < parse_duration_us(abbreviate_duration(length)) <= length


# Steps


@pytest.mark.parametrize(
    ("text", "step_us", "expected"),
    [
        ("24", HOUR, 24),
        (" 24 ", HOUR, 24),
        ("+24", HOUR, 24),
        ("24h", HOUR, 24),
        ("1d", HOUR // 4, 96),
        ("1.5h", HOUR // 2, 3),
        ("1h", HOUR, 1),
        ("100", HOUR, 100),
    ],
)
def test_steps_are_a_number_or_a_duration(text: str, step_us: int, expected: int) -> None:
    assert parse_steps(text, step_us=step_us, name="horizon", limit=100) == expected


@given(st.integers(1, 1000), st.sampled_from([SECOND, 60 * SECOND, HOUR, DAY, 7 * SECOND]))
@repeatable
def test_a_number_of_steps_and_its_duration_are_the_same(steps: int, step_us: int) -> None:
    def parsed(text: str) -> int:
        return parse_steps(text, step_us=step_us, name="horizon", limit=1000)

    assert parsed(str(steps)) == parsed(format_duration(steps * step_us)) == steps


@pytest.mark.parametrize("text", ["90min", "1.5h", "30s"])
def test_a_duration_that_is_no_whole_number_of_steps_is_refused(text: str) -> None:
    error = refused(lambda: parse_steps(text, step_us=HOUR, name="lookback", limit=100))

    assert error.message == f"--lookback {text} is not a whole number of steps of 1 h"


@pytest.mark.parametrize("text", ["0", "-1", "101", "200h", "9" * 18])
def test_steps_out_of_range_are_refused_with_the_range(text: str) -> None:
    error = refused(lambda: parse_steps(text, step_us=HOUR, name="horizon", limit=100))

    assert "--horizon is" in error.message
    assert "between 1 and 100" in error.message


@pytest.mark.parametrize("text", ["", "many", "1.5", "1e3", "9" * 5000, "nan", "0x10", "24 steps"])
def test_what_is_neither_steps_nor_a_duration_is_refused(text: str) -> None:
    error = refused(lambda: parse_steps(text, step_us=HOUR, name="horizon", limit=100))

    assert "is not a duration" in error.message


# Ranges and choices


@pytest.mark.parametrize(
    ("cls", "field", "low", "high"),
    [
        (NetworkConfig, "hidden", 1, MAX_HIDDEN),
        (NetworkConfig, "layers", 1, MAX_LAYERS),
        (NetworkConfig, "segment", 1, MAX_LOOKBACK),
        (NetworkConfig, "dropout", 0.0, 0.95),
        (TrainConfig, "epochs", 1, 10_000),
        (TrainConfig, "batch_size", 1, 1_000_000),
        (TrainConfig, "learning_rate", 1e-9, 10.0),
        (TrainConfig, "clip", 1e-9, 1e9),
        (TrainConfig, "seed", 0, 2**63 - 1),
        (TrainConfig, "validation", 0.0, 0.7),
        (TrainConfig, "test", 0.0, 0.7),
        (TrainConfig, "threads", 1, 1024),
        (TrainConfig, "steps", 1, 10**9),
    ],
)
def test_a_value_lies_in_its_range_and_the_option_is_named_where_it_does_not(
    cls: type, field: str, low: float, high: float
) -> None:
    for value in (low, high):
        assert getattr(cls(**{field: value}), field) == value

    beyond = [low - 1, high + 1]
    for value in [*beyond, float("nan"), float("inf")]:
        error = refused(lambda value=value: cls(**{field: value}))
        assert f"--{field.replace('_', '-')}" in error.message


def test_the_parts_that_are_held_out_leave_something_to_learn_from() -> None:
    TrainConfig(validation=0.45, test=0.45)

    error = refused(lambda: TrainConfig(validation=0.5, test=0.45))

    assert "validation + test" in error.message


@pytest.mark.parametrize("text", ["", "%", "%Q", "%Y %Y", "%G-%V", "KW %V/%G", "%G-%m-%d"])
def test_a_format_that_no_time_can_have_is_refused(text: str) -> None:
    error = refused(lambda: DataConfig(time="week", time_format=text))
    assert "--time-format" in error.message


@pytest.mark.parametrize("text", ["%G-W%V-%u", "%d.%m.%Y %H:%M:%S.%f%z", "%j %Y %%", "%I %p %b"])
def test_a_format_that_times_can_have_is_accepted(text: str) -> None:
    assert DataConfig(time="t", time_format=text).time_format == text


@pytest.mark.parametrize(
    ("cls", "field", "choices"),
    [
        (NetworkConfig, "cell", ("gru", "lstm", "mingru", "rnn")),
        (TrainConfig, "device", ("auto", "cpu", "cuda")),
        (DataConfig, "on_duplicate", ("error", "last", "mean")),
        (PredictConfig, "fallback", (("seasonal-naive", "naive"), ("naive",), ("expert",), ())),
    ],
)
def test_a_choice_is_one_of_a_few(cls: type, field: str, choices: tuple) -> None:
    for choice in choices:
        assert getattr(cls(**{field: choice}), field) == choice


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: NetworkConfig(cell="GRU"), ("--cell", "'GRU'", "gru, lstm, mingru, rnn")),
        (lambda: TrainConfig(device="tpu"), ("--device", "'tpu'", "auto, cpu, cuda")),
        (lambda: DataConfig(on_duplicate="first"), ("--on-duplicate", "'first'", "last")),
        (lambda: DataConfig(freq="1h", agg="median"), ("--agg", "'median'", "mean")),
        (
            lambda: PredictConfig(fallback=("naive", "drift")),
            ("--fallback", "'drift'", "seasonal-naive, naive, expert"),
        ),
    ],
)
def test_a_choice_that_does_not_exist_names_those_that_do(
    make: Callable[[], object], named: tuple[str, ...]
) -> None:
    message = refused(make).message

    assert all(part in message for part in named)


def test_aggregation_needs_a_step_to_aggregate_to() -> None:
    assert "--agg needs --freq" in refused(lambda: DataConfig(agg="mean")).message
    assert DataConfig(agg="mean", freq="15min").agg == ("mean",)


def test_a_column_may_have_a_rule_of_its_own() -> None:
    config = DataConfig(agg=("last", "kwh=sum", "a=b=angle"), freq="15min")
    assert [config.agg_of(name) for name in ("temp", "kwh", "a=b")] == ["last", "sum", "angle"]
    assert [config.min_share_of(config.agg_of(name)) for name in ("temp", "kwh")] == [0.5, 0.9]
    assert DataConfig(agg=("wind=angle",)).agg_of("temp") == "mean"  # an angle needs no step


@pytest.mark.parametrize(
    ("agg", "named"),
    [
        (("angle",), ("'angle'", "wind=angle")),
        (("mean", "kwh=median"), ("'kwh=median'", "last")),
        (("mean", "sum"), ("conflicting rules",)),
        (("a=sum", "a=last"), ("conflicting rules",)),
        (("kwh=mean",), ("is a counter",)),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(agg: tuple[str, ...], named: tuple[str, ...]):
    message = refused(lambda: DataConfig(agg=agg, freq="1h", counter=("kwh",))).message
    assert all(part in message for part in named)


def test_what_needs_an_aggregate_is_refused_without_one() -> None:
    assert "--freq" in refused(lambda: DataConfig(min_share=0.5)).message
    assert "--min-share" in refused(lambda: DataConfig(freq="1h", agg="sum", min_share=2)).message
    assert "sums" in refused(lambda: DataConfig(freq="1h", agg="sum", hold="1h")).message
    assert DataConfig(hold="1h").hold_us == 3_600_000_000


@pytest.mark.parametrize("text", ["2", "soon", "0s"])
def test_a_time_limit_is_a_duration(text: str) -> None:
    assert TrainConfig(max_time="2m").max_time == "2m"
    refused(lambda: TrainConfig(max_time=text))


# Quantiles


def test_every_network_learns_the_nine_deciles_and_a_band_of_95_percent() -> None:
    assert tuple(k / 10 for k in range(1, 10)) == DECILES
    assert {0.025, *DECILES, 0.975} == set(QUANTILES)
    assert list(QUANTILES) == sorted(QUANTILES)
    assert QUANTILES[make_spec(1, 1, 1, 1).median] == 0.5


@pytest.mark.parametrize(
    ("level", "name"), [(0.1, "q10"), (0.5, "q50"), (0.9, "q90"), (0.025, "q2.5"), (0.975, "q97.5")]
)
def test_a_quantile_is_named_in_percent(level: float, name: str) -> None:
    assert quantile_name(level) == name


def test_quantiles_have_different_names() -> None:
    assert len({quantile_name(level) for level in QUANTILES}) == len(QUANTILES)


@pytest.mark.parametrize("level", [0.0, 0.024, 0.98, 1.0, 10.0, -0.1, float("nan")])
def test_a_quantile_outside_the_trained_range_is_refused_with_that_range(level: float) -> None:
    error = refused(lambda: PredictConfig(quantiles=(0.1, level)))
    assert "0.025" in error.message and "0.975" in error.message


@pytest.mark.parametrize("level", [0.025, 0.05, 0.5, NormalDist().cdf(1), 0.975])
def test_a_quantile_inside_the_trained_range_is_accepted(level: float) -> None:
    assert PredictConfig(quantiles=(level,)).quantiles == (level,)


# What a configuration is


@pytest.mark.parametrize(
    "cls", [DataConfig, WindowConfig, NetworkConfig, TrainConfig, PredictConfig, Config]
)
def test_a_configuration_cannot_change_and_equals_one_with_the_same_values(cls: type) -> None:
    config = cls()

    assert config == cls()
    assert hash(config) == hash(cls())
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(cls)[0].name, None)


def test_overriding_takes_what_was_given_and_keeps_the_rest() -> None:
    stored = DataConfig(time="ts", sep=";", target=("a",), skip_rows=3)

    found = override(stored, DataConfig(sep=",", target=("b", "c")))

    assert found == DataConfig(time="ts", sep=",", target=("b", "c"), skip_rows=3)
    assert override(stored, DataConfig()) == stored
    assert stored.sep == ";"


def test_overriding_takes_what_is_named_even_if_it_equals_its_default() -> None:
    stored = DataConfig(skip_rows=3, on_duplicate="last", target=("a",), sep=";")

    assert override(stored, DataConfig(), ("skip_rows", "on_duplicate", "model")) == DataConfig(
        target=("a",), sep=";"
    )


def test_overriding_checks_what_comes_out() -> None:
    refused(lambda: override(DataConfig(freq="1h"), _unchecked(DataConfig, agg="median")))


def _unchecked(cls: type, **values: Any) -> Any:
    config = cls()
    for name, value in values.items():
        object.__setattr__(config, name, value)
    return config


@pytest.mark.parametrize("path", ["a.csv", "a.parquet", "a.jsonl", "b.c/A.CSV", "-"])
def test_an_output_in_a_known_format_is_accepted(path: str) -> None:
    assert check_format(path) is None


@pytest.mark.parametrize("path", ["forecast", "a.xlsx", "a.csv.gz", "", "--", "csv"])
def test_an_output_in_no_known_format_is_refused_with_those_that_are(path: str) -> None:
    error = refused(lambda: check_format(path))

    assert repr(path) in error.message
    assert ".csv, .parquet, .jsonl" in error.hint


def test_a_long_list_of_names_is_cut_and_counted() -> None:
    from rnnforecast.events import WarningEvent

    few = WarningEvent.for_names("code", "gone", ["a", "b"])
    many = WarningEvent.for_names("code", "gone", [f"s{i}" for i in range(9)])
    assert (few.message, few.count) == ("gone: a, b", 2)
    assert (many.message, many.count) == ("gone, 9 in all: s0, s1, s2, s3, s4, ...", 9)
