"""Which column is time, series, target: what is inferred, what is refused, what is stored."""

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError, UsageError
from rnnforecast.sources.source import open_source
from rnnforecast.tables.match import match_schema
from rnnforecast.tables.schema import Schema
from tests.data.tables import failure, hourly, read, write


def table(path, header: str, *cells: object):
    """Write a CSV file whose first column is time."""
    return write(path / "x.csv", header, *hourly(*cells))


def matched(path, schema: Schema, **options) -> Schema:
    """Match a stored schema with a file."""
    config = DataConfig(**options)
    return match_schema(open_source(path, config), schema, config)


def test_every_numeric_column_of_a_wide_table_is_a_target(tmp_path):
    result = read(table(tmp_path, "when,a,note,b", "1,x,2.5", "1,y,3.5", "2,z,4"))

    assert (result.schema.time, result.schema.series) == ("when", None)
    assert result.panel.names == result.schema.targets == ("a", "b")
    assert "not used: note" in result.notes


def test_a_text_column_with_a_telling_name_names_the_series(tmp_path):
    result = read(table(tmp_path, "when,Sensor_ID,v", "a,1", "a,2", "a,3"))

    assert result.schema.series == "Sensor_ID"
    assert result.panel.names == ("a",)
    assert "series named by 'Sensor_ID'" in result.notes


def test_a_text_column_that_tells_repeated_times_apart_names_the_series(tmp_path):
    lines = [*hourly("a,1", "a,2", "a,3"), *hourly("b,4", "b,5", "b,6")]

    result = read(write(tmp_path / "x.csv", "when,where,v", *lines))

    assert result.schema.series == "where"
    assert result.panel.names == ("a", "b")


def test_a_text_column_beside_times_that_do_not_repeat_names_nothing(tmp_path):
    assert read(table(tmp_path, "when,note,v", "a,1", "b,2", "c,3")).schema.series is None


def test_the_time_column_with_the_more_usual_name_wins(tmp_path):
    cells = ["2024-05-01,1", "2024-05-02,2", "2024-05-03,3"]

    assert read(table(tmp_path, "created,timestamp,v", *cells)).schema.time == "timestamp"
    assert read(table(tmp_path, "created,changed,v", *cells)).schema.time == "created"


def test_columns_can_be_named(tmp_path):
    lines = [*hourly("a,1,7", "a,2,8"), *hourly("b,3,9", "b,4,10")]
    path = write(tmp_path / "x.csv", "when,where,v,w", *lines)

    result = read(path, time="when", series="where", target=("w",))

    assert result.panel.target.tolist() == [7, 8, 9, 10]
    assert result.schema.targets == ("w",)


def test_ids_of_digits_stay_text(tmp_path):
    lines = [*hourly("007,1", "007,2"), *hourly("7,3", "7,4"), *hourly("9007199254740993,5")]

    result = read(write(tmp_path / "x.csv", "when,machine,v", *lines), series="machine")

    assert result.panel.names == ("007", "7", "9007199254740993")


def test_series_stand_in_the_order_of_their_first_row(tmp_path):
    lines = hourly("z,1", "a,2", "z,3", "a,4", "m,5", "m,6")

    panel = read(write(tmp_path / "x.csv", "when,id,v", *lines), freq="1h").panel

    assert panel.names == ("z", "a", "m")


@pytest.mark.parametrize("option", ["time", "series", "target"])
def test_a_column_that_does_not_exist_is_named_with_what_looks_alike(tmp_path, option):
    path = table(tmp_path, "when,Flow rate,level", "1,2", "2,3", "3,4")

    error = failure(path, **{option: ("flow_rate",) if option == "target" else "flow_rate"})

    assert (type(error), error.code) == (DataError, "no-such-column")
    assert error.location.column == "flow_rate"
    assert "'Flow rate'" in error.advice
    assert "level" not in error.advice


def test_columns_with_commas_between_them_are_told_to_repeat_the_option(tmp_path):
    path = table(tmp_path, "when,flow,level", "1,2", "2,3", "3,4")

    error = failure(path, target=("flow, level",))

    assert (error.code, error.location.column) == ("no-such-column", "flow, level")
    assert error.advice == "repeat the option, once for each column"
    assert read(path, target=("flow", "level")).panel.n_series == 2


def test_without_a_name_that_looks_alike_all_are_listed(tmp_path):
    error = failure(table(tmp_path, "when,flow", "1", "2"), target=("pressure",))

    assert error.advice == "its columns are: 'when', 'flow'"


def test_a_long_table_with_several_targets_has_a_series_for_each_key_and_target(tmp_path):
    lines = [*hourly("b,1,2", "b,2,3", "b,3,4"), *hourly("a,5,6", "a,6,7", "a,7,8")]

    result = read(write(tmp_path / "x.csv", "when,id,v,w", *lines))

    assert (result.schema.series, result.schema.targets) == ("id", ("v", "w"))
    assert result.panel.names == ("b/v", "b/w", "a/v", "a/w")
    assert result.panel.target.tolist() == [1, 2, 3, 2, 3, 4, 5, 6, 7, 6, 7, 8]


def test_where_columns_are_series_none_names_them(tmp_path):
    path = table(tmp_path, "when,id,v,w", "a,1,2", "a,2,3", "a,3,4")

    schema = read(path, id_from_columns=True).schema

    assert (schema.series, schema.targets) == (None, ("v", "w"))


def test_a_table_without_numbers_has_no_target(tmp_path):
    assert failure(table(tmp_path, "when,state", "on", "off", "on")).code == "no-target"


@pytest.mark.parametrize(("cells", "what"), [(["", ""], "is empty"), (["on", "off"], "'on'")])
def test_a_named_target_that_holds_no_numbers_is_refused(tmp_path, cells, what):
    path = table(tmp_path, "when,v,state", *(f"1,{cell}" for cell in cells))

    error = failure(path, target=("state",))

    assert error.code == "target-not-numeric"
    assert what in error.message


def test_a_named_time_column_that_holds_no_times_is_refused(tmp_path):
    error = failure(table(tmp_path, "when,v,w", "1.5,2", "2.5,3"), time="v")

    assert (error.code, error.location.column) == ("time-unit", "v")
    assert "1.5" in error.message


@pytest.mark.parametrize(("unit", "step_us"), [("s", 10**6), ("ms", 1000), ("us", 1)])
def test_numbers_that_could_be_several_units_ask_for_one(tmp_path, unit, step_us):
    path = write(tmp_path / "x.csv", "time,v", *(f"{i},{i * i}" for i in range(10, 20)))
    error = failure(path, time="time")
    assert error.code == "time-unit" and "--time-unit" in error.advice

    result = read(path, time_unit=unit)

    assert result.panel.start[0] == 10 * step_us
    assert result.panel.step_us == step_us


def test_an_empty_column_is_left_out_with_a_warning(tmp_path):
    result = read(table(tmp_path, "when,v,spare,w", "1,,2", "2,NaN,3", "3,,4"))

    assert result.panel.names == ("v", "w")
    assert "spare" in result.warnings["empty-column"].message


@pytest.mark.parametrize("form", ["year and month", "year with decimals"])
def test_years_and_months_are_not_offered_as_seconds(tmp_path, form):
    """A thirteenth month is the total of a year."""
    values = np.random.default_rng(0).integers(0, 99, 60)
    counts = [201401 + i % 13 + i // 13 * 100 for i in range(60)]
    if form == "year with decimals":
        counts = [round(1990 + (i + 0.5) / 12, 4) for i in range(60)]
    rows = [f"{count},{value}" for count, value in zip(counts, values, strict=True)]
    error = failure(write(tmp_path / "x.csv", "n,v", *rows))
    units = [p.options[-1] for p in error.proposals if "--time-unit" in p.options]
    assert units == (["year"] if form == "year with decimals" else [])


MARKED = {
    "{}{}": True,
    "{} {}iB": True,
    "'{}": True,
    "<{}": True,
    "{}h 30min": True,
    "room {}": False,
    "{}-1": False,
    "{}.1.2": False,
}


@pytest.mark.parametrize("form", MARKED)
def test_numbers_with_other_text_are_not_left_out_silently(tmp_path, form):
    numbers = np.random.default_rng(0).integers(10, 99, 60)
    cells = [form.format(number, "XY"[i % 2]) for i, number in enumerate(numbers)]
    cells[::20] = ["off"] * 3
    rows = [f"{i},{i * 0.5},{cell}" for i, cell in enumerate(cells, start=1)]
    result = read(write(tmp_path / "x.csv", "when,v,flow", *rows), time="when", time_unit="s")

    assert result.panel.names == ("v",)
    assert ("marked-numbers" in result.warnings) == MARKED[form]
    if MARKED[form]:
        assert "flow" in result.warnings["marked-numbers"].message
        assert repr(cells[1]) in dict(result.schema.reasons)["flow"]


def test_the_schema_survives_json():
    schema = Schema("t", "id", ("v",), epoch_unit="ms", step_us=60_000_000, tz="Europe/Vienna")

    stored = schema.to_json()

    assert Schema(**{**stored, "targets": tuple(stored["targets"])}) == schema


def test_other_columns_and_another_order_do_not_matter_to_a_stored_schema(tmp_path):
    schema = read(table(tmp_path, "when,a,b", "1,2", "2,3")).schema
    lines = [f"{i},x,{i},2024-02-01 0{i}:00,0" for i in range(3)]
    other = write(tmp_path / "y.csv", "b,new,a,when,c", *lines)

    found = matched(other, schema)

    assert (found.time, found.targets) == ("when", ("a", "b"))


def test_options_win_over_a_stored_schema(tmp_path):
    schema = read(table(tmp_path, "when,a", "1", "2")).schema
    other = write(tmp_path / "y.csv", "clock,reading", *hourly(1, 2))

    found = matched(other, schema, time="clock", target=("reading",))

    assert (found.time, found.targets) == ("clock", ("reading",))


def test_stamps_may_turn_from_dates_to_numbers(tmp_path):
    schema = read(table(tmp_path, "time,a", "1", "2")).schema
    lines = [f"{1_704_067_200_000 + 3_600_000 * i},{i}" for i in range(3)]
    other = write(tmp_path / "y.csv", "time,a", *lines)

    assert schema.epoch_unit is None
    assert matched(other, schema).epoch_unit == "ms"


def test_a_numeric_id_that_repeats_names_the_series():
    stamps = pd.date_range("2024-01-01", periods=6, freq="1h")
    frame = pd.DataFrame(
        {"time": [*stamps, *stamps], "sensor_id": [7] * 6 + [12] * 6, "temp": np.arange(12.0)}
    )
    found = read(frame)
    assert found.schema.series == "sensor_id"
    assert found.panel.names == ("7", "12")


def test_thousands_of_columns_are_told_of_the_long_form(tmp_path):
    names = [f"s{i}" for i in range(3000)]
    lines = [",".join([f"2024-01-01 {hour:02d}:00", *["1"] * 3000]) for hour in range(12)]
    result = read(write(tmp_path / "wide.csv", ",".join(["ts", *names]), *lines))
    assert "3000 columns; a long table" in result.notes


def test_a_numeric_id_that_counts_rows_names_nothing():
    stamps = pd.date_range("2024-01-01", periods=6, freq="1h")
    frame = pd.DataFrame({"time": stamps, "id": np.arange(6), "temp": np.arange(6.0)})
    assert read(frame).schema.series is None


def offered(error) -> list[str]:
    return [" ".join(proposal.options) for proposal in error.proposals]


def counts(path, header: str, numbers):
    return write(
        path / "x.csv", header, *(f"{x},{7 * row % 10}.5" for row, x in enumerate(numbers))
    )


def test_numbers_that_count_since_1970_are_offered_as_times(tmp_path):
    path = counts(tmp_path, "zeit,flow", (1_704_067_200 + 600 * row for row in range(40)))

    assert offered(failure(path)) == ["--time zeit"]
    assert read(path, time="zeit").panel.step_us == 600_000_000


def test_numbers_that_grow_in_equal_steps_may_count_seconds(tmp_path):
    path = counts(tmp_path, "elapsed,flow", (0.5 * row for row in range(40)))

    assert offered(failure(path)) == [
        "--time elapsed --time-unit s", "--time elapsed --time-unit ms",
    ]  # fmt: skip
    assert read(path, time="elapsed", time_unit="s").panel.step_us == 500_000


@pytest.mark.parametrize("numbers", [range(40), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3] * 4])
def test_numbers_of_rows_and_readings_are_not_offered_as_times(tmp_path, numbers):
    assert offered(failure(counts(tmp_path, "x,flow", numbers))) == []


def test_another_column_is_offered_where_the_named_time_holds_none(tmp_path):
    path = table(tmp_path, "when,v,w", *(f"{5 * row % 7},{row % 5}" for row in range(40)))

    assert offered(failure(path, time="v")) == ["--time when"]


def test_texts_between_numbers_are_offered_as_missing(tmp_path):
    cells = ["ERR", "ERR", "off", "1.5", "2.5"]
    path = table(tmp_path, "when,v,w", *(f"1,{cell}" for cell in cells * 5))

    error = failure(path, target=("w",))

    assert offered(error) == ["--na-values ERR --na-values off"]
    assert error.proposals[0].condition == "if 'ERR' and 'off' mean missing"


def test_columns_that_may_name_the_series_are_offered_for_static_ones(tmp_path):
    path = table(tmp_path, "when,probe,v,size", *(f"a,{row % 5},3" for row in range(40)))

    with pytest.raises(UsageError) as caught:
        read(path, static=("size",))

    assert offered(caught.value) == ["--series probe"]


@pytest.mark.parametrize(
    ("begin", "step", "unit"),
    [(-473_385_600, 86_400, "s"), (-373_593_600_000, 3_600_000, "ms"), (-180_000, 3600, "s")],
)
def test_unix_times_before_1970_are_offered_in_their_unit(tmp_path, begin, step, unit):
    rows = [f"{begin + i * step},{i % 7}.5" for i in range(60)]
    (proposal,) = failure(write(tmp_path / "x.csv", "count,v", *rows)).proposals
    assert proposal.options == ("--time", "count", "--time-unit", unit)


def test_numbers_that_rise_from_below_0_are_no_unix_times(tmp_path):
    rows = [f"{-90 + 2.5 * i},{i % 7}.5" for i in range(60)]
    assert failure(write(tmp_path / "x.csv", "angle,v", *rows)).proposals == ()


@pytest.mark.parametrize(("begin", "step"), [(1_083_816, 1), (90_000, 500), (2_459_945.5, 0.25)])
def test_large_numbers_are_not_offered_as_seconds_since_1970(tmp_path, begin, step):
    rows = [f"{begin + i * step},{i % 7}.5" for i in range(60)]
    assert failure(write(tmp_path / "x.csv", "count,v", *rows)).proposals == ()
    rows = [f"{i * 0.5},{i % 7}.5" for i in range(3, 60)]
    (proposal, *_) = failure(write(tmp_path / "y.csv", "count,v", *rows)).proposals
    assert proposal.options == ("--time", "count", "--time-unit", "s")
