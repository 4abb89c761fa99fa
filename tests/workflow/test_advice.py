"""Proposals are tried on the readings before they are offered: what helps, what it costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rnnforecast
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import Config, NetworkConfig, TrainConfig
from rnnforecast.errors import DataError, Proposal, TimeLimitError
from rnnforecast.events import Event, WarningEvent, ignore
from rnnforecast.sources.source import open_table
from rnnforecast.tables.grid import read_panel
from rnnforecast.tables.rows import ReadContext, read_rows
from rnnforecast.tables.schema import infer_schema
from rnnforecast.workflow import advice
from rnnforecast.workflow.advice import Task, loss_of, trying_proposals
from tests.data.tables import few


def options_of(proposals: tuple[Proposal, ...]) -> list[str]:
    return [" ".join(proposal.options) for proposal in proposals]


def offered(
    data: object, code: str, *options: str, config: DataConfig | None = None
) -> tuple[Proposal, ...]:
    """Return which of these options are offered for an error of the data with this code."""
    proposals = [Proposal(tuple(option.split())) for option in options]
    with pytest.raises(DataError) as caught, trying_proposals(_task(data, config), ignore):
        raise DataError("something is wrong", code=code, proposals=proposals)
    return caught.value.proposals


def heard(data: object, code: str, *options: str) -> tuple[Proposal, ...]:
    """Return which of these options are offered in a warning."""
    events: list[Event] = []
    with trying_proposals(_task(data), events.append) as listener:
        listener(WarningEvent(code, "odd", 3, tuple(Proposal(tuple(o.split())) for o in options)))
    (event,) = events
    assert isinstance(event, WarningEvent) and (event.code, event.count) == (code, 3)
    return event.proposals


def _task(data: object, config: DataConfig | None = None) -> Task:
    return Task(str(data) if isinstance(data, Path) else data, Config(config or DataConfig()))


def table(path: Path, *cells: object, every: str = "1h", name: str = "flow") -> Path:
    """Write an hourly table of one column."""
    stamps = pd.date_range("2024-01-01", periods=len(cells), freq=every)
    pd.DataFrame({"time": stamps, name: cells}).to_csv(path, index=False)
    return path


def wave(n: int = 400) -> list[float]:
    return [round(20 + 5 * np.sin(hour / 24 * 2 * np.pi) + hour % 7 / 10, 3) for hour in range(n)]


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """A table in which two of 400 hours have two readings each."""
    path = table(tmp_path / "twice.csv", *wave())
    with path.open("a") as file:
        file.write("2024-01-02 00:00:00,1.5\n2024-01-03 00:00:00,2.5\n")
    return path


@pytest.fixture
def store_and_item(tmp_path: Path) -> Path:
    """Six series that two columns of numbers name together: 1,800 readings on 300 days."""
    days = pd.date_range("2023-01-01", periods=300)
    rows = [
        (day.date(), store, item, 10 * store + item + n % 7)
        for store in (1, 2)
        for item in (1, 2, 3)
        for n, day in enumerate(days)
    ]
    frame = pd.DataFrame(rows, columns=["date", "store", "item", "sales"])
    frame.to_csv(tmp_path / "sales.csv", index=False)
    return tmp_path / "sales.csv"


def test_the_effect_says_how_many_readings_are_dropped_or_changed(twice: Path) -> None:
    last, mean = offered(twice, "duplicate-time", "--on-duplicate last", "--on-duplicate mean")

    assert last.effect == "drops 2 of 402 readings"
    assert mean.effect == "changes 4 of 402 readings"
    assert str(last) == "add  --on-duplicate last  (drops 2 of 402 readings)"


def test_the_least_harmful_comes_first(twice: Path) -> None:
    proposals = offered(twice, "duplicate-time", "--on-duplicate mean", "--on-duplicate last")

    assert options_of(proposals) == ["--on-duplicate last", "--on-duplicate mean"]


def test_a_rule_that_drops_five_of_six_readings_is_not_offered(store_and_item: Path) -> None:
    config = DataConfig(target=("sales",), id_from_columns=True)

    both = offered(
        store_and_item, "duplicate-time", "--on-duplicate last", "--on-duplicate mean",
        config=config,
    )  # fmt: skip

    assert both == ()
    alone = offered(store_and_item, "duplicate-time", "--on-duplicate last", config=config)
    assert alone == ()


def test_a_loss_of_more_than_a_tenth_is_offered_alone_and_said(tmp_path: Path) -> None:
    stamps = pd.date_range("2024-01-01", periods=100, freq="1h")
    rows = [f"{stamp},7.25" for stamp in stamps]
    path = table(tmp_path / "a.csv", *wave())
    path.write_text(path.read_text() + "\n".join(rows) + "\n")

    (last,) = offered(path, "duplicate-time", "--on-duplicate last", "--on-duplicate never")

    assert last.effect == "drops 100 of 500 readings"
    harmless = offered(path, "duplicate-time", "--on-duplicate last", "--agg mean --freq 1h")
    assert options_of(harmless) == ["--agg mean --freq 1h"]


def test_readings_that_are_repeated_exactly_are_no_loss(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", *wave())
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows, *rows, "2024-01-02 00:00:00,1.5\n"]))

    (last,) = offered(path, "duplicate-time", "--on-duplicate last")

    assert last.effect == "drops 1 of 401 readings"


def test_what_raises_the_same_error_again_is_not_offered(twice: Path) -> None:
    proposals = offered(
        twice, "duplicate-time", "--na-values ERR", "--on-duplicate error", "--on-duplicate last"
    )

    assert options_of(proposals) == ["--on-duplicate last"]


def test_what_leads_to_an_error_without_a_way_out_is_not_offered(twice: Path) -> None:
    assert offered(twice, "duplicate-time", "--time flow", "--target level") == ()


def test_what_leads_on_to_another_question_is_offered_if_that_has_an_answer(
    tmp_path: Path,
) -> None:
    cells = wave()
    path = table(tmp_path / "a.csv", *cells[:50], "1e40", "inf", *cells[52:])
    proposals = offered(path, "infinite", "--na-values 1e40", "--na-values 1e41")
    assert options_of(proposals) == ["--na-values 1e40"]

    path = table(tmp_path / "b.csv", *cells[:50], "1e40", "2e40", "3e40", "4e40", *cells[54:])
    assert offered(path, "infinite", "--na-values 1e40") == (), "that is one round too many"


def test_a_table_that_is_too_short_to_train_on_says_so_in_the_effect(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", *wave(9), "inf")

    (proposal,) = offered(path, "infinite", "--inf-as-na")

    assert "too few rows are then left" in proposal.effect


def test_steps_that_leave_most_of_the_grid_empty_are_not_offered(tmp_path: Path) -> None:
    path, months = tmp_path / "a.csv", pd.date_range("2000-01-01", periods=240, freq="MS")
    stamps = months + pd.to_timedelta(np.arange(240) * 37 % 11, unit="D")
    pd.DataFrame({"time": stamps, "flow": wave(240)}).to_csv(path, index=False)

    (proposal,) = offered(path, "irregular", "--freq 1mo --agg mean")

    assert proposal.effect == "240 readings become 240"
    assert offered(path, "irregular", "--freq 1d --agg mean") == ()


def test_an_aggregate_says_how_many_readings_become_how_many(tmp_path: Path) -> None:
    stamps = pd.date_range("2024-01-01", periods=3_000, freq="10min")
    late = stamps + pd.to_timedelta(np.arange(3_000) * 37 % 290, unit="s")
    path = tmp_path / "a.csv"
    pd.DataFrame({"time": late, "flow": wave(3_000)}).to_csv(path, index=False)

    (proposal,) = offered(path, "irregular", "--freq 1h --agg mean")

    assert proposal.effect.startswith("3,000 readings become 50")


def test_texts_that_are_taken_for_missing_are_counted(tmp_path: Path) -> None:
    cells: list[object] = list(wave())
    cells[7] = cells[9] = "ERR"
    path = table(tmp_path / "a.csv", *cells)
    (proposal,) = offered(path, "not-a-number", "--na-values ERR")
    assert proposal.effect == "treats 2 of 400 cells as missing"

    path = table(tmp_path / "b.csv", *(x if n % 3 else "OFF" for n, x in enumerate(wave())))
    (proposal,) = offered(path, "not-a-number", "--na-values OFF")
    assert proposal.effect == "treats 134 of 400 cells as missing", "it is the only one"


def test_in_a_warning_nothing_is_offered_that_costs_more_than_a_tenth(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", *(0 if n % 8 == 0 else x for n, x in enumerate(wave())))
    assert heard(path, "sentinel", "--na-values 0") == ()

    cells = wave()
    cells[50:60] = [-999.0] * 10
    (proposal,) = heard(table(tmp_path / "b.csv", *cells), "sentinel", "--na-values -999")
    assert proposal.effect == "drops 10 of 400 readings"


def test_the_tenth_is_one_of_each_column() -> None:
    stamps = pd.date_range("2024-01-01", periods=400, freq="1h")
    frame = pd.DataFrame({"time": stamps, **{f"s{n}": wave() for n in range(9)}})
    frame["pump"] = [x if n % 4 else 0.0 for n, x in enumerate(wave())]

    assert heard(frame, "sentinel", "--na-values 0") == ()


def test_a_warning_that_an_option_does_not_end_does_not_offer_it(tmp_path: Path) -> None:
    cells = wave()
    cells[100:200] = [21.5] * 100
    path = table(tmp_path / "a.csv", *cells)
    real = rnnforecast.check(str(path)).warnings
    (stuck,) = [warning for warning in real if warning.code == "stuck-sensor"]

    with trying_proposals(_task(path), events := [].append) as listener:
        listener(replace(stuck, proposals=(Proposal(("--na-values", "x")),)))

    (event,) = events.__self__
    assert event.proposals == ()


def test_warnings_keep_their_place_but_for_those_that_are_tried(tmp_path: Path) -> None:
    events: list[Event] = []
    tried = WarningEvent("sentinel", "odd", proposals=(Proposal(("--na-values", "7")),))
    plain = WarningEvent("jitter", "moved")

    task = _task(table(tmp_path / "a.csv", *wave()))
    with trying_proposals(task, events.append) as listener:
        listener(tried)
        listener(plain)
        assert events == [plain]

    assert [event.code for event in events] == ["jitter", "sentinel"]


def test_an_error_drops_what_pending_warnings_would_have_offered(twice: Path) -> None:
    events: list[WarningEvent] = []
    warning = WarningEvent("odd", "x", proposals=(Proposal(("--na-values", "7")),), hint="look")

    with pytest.raises(DataError), trying_proposals(_task(twice), events.append) as listener:
        listener(warning)
        raise DataError("no")

    assert events == [WarningEvent("odd", "x", hint="look")]


def test_options_of_other_commands_are_offered_as_they_are(twice: Path) -> None:
    proposals = offered(twice, "duplicate-time", "--fallback naive", "--on-duplicate last")

    assert options_of(proposals) == ["--on-duplicate last", "--fallback naive"]


def test_an_option_that_contradicts_the_others_is_not_offered(twice: Path) -> None:
    assert offered(twice, "duplicate-time", "--thousands .", "--on-duplicate never") == ()


def test_a_trial_writes_no_rejected_rows(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", *wave(), "inf")
    rejects = tmp_path / "rejects.csv"
    config = DataConfig(on_bad_rows="skip", rejects=str(rejects))

    assert offered(path, "infinite", "--inf-as-na", config=config)
    assert not rejects.exists()


def test_a_trial_never_raises_and_never_hides_the_error(tmp_path: Path) -> None:
    def read(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    proposals = (Proposal(("--on-duplicate", "last")),)
    task = replace(_task(table(tmp_path / "a.csv", *wave())), read=read)
    with pytest.raises(DataError, match="two readings") as caught, trying_proposals(task, ignore):
        raise DataError("two readings", code="duplicate-time", proposals=proposals)

    assert caught.value.proposals == proposals, "nothing was tried"


def test_the_time_limit_ends_a_trial_too(tmp_path: Path) -> None:
    def read(*_: object) -> None:
        raise TimeLimitError("over")

    task = replace(_task(table(tmp_path / "a.csv", *wave())), read=read)
    with pytest.raises(TimeLimitError), trying_proposals(task, ignore):
        raise DataError("two readings", proposals=(Proposal(("--on-duplicate", "last")),))


@pytest.mark.parametrize("data", ["-", "missing.csv"])
def test_what_cannot_be_read_again_keeps_its_proposals(data: str) -> None:
    proposals = offered(data, "duplicate-time", "--on-duplicate last")

    assert options_of(proposals) == ["--on-duplicate last"]


def test_what_was_not_tried_is_not_offered_beside_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "_MAX_CELLS_OF_ALL", 5 * 41_000)
    useless = [f"--na-values {n}" for n in range(60)]

    proposals = offered(
        table(tmp_path / "a.csv", *wave(), "inf"), "infinite", "--inf-as-na", *useless
    )

    assert options_of(proposals) == ["--inf-as-na"]


def test_a_large_table_is_tried_on_its_beginning_and_the_effect_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "_MAX_CELLS", 1_000)
    path = table(tmp_path / "a.csv", *wave(5_000))
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[:100], f"{rows[50]}5", *rows[100:]]))

    (last,) = offered(path, "duplicate-time", "--on-duplicate last")

    assert last.effect.startswith("drops 1 of the first ")
    late = table(tmp_path / "b.csv", *wave(5_000))
    late.write_text(late.read_text() + f"{rows[4_000]}5\n")
    (last,) = offered(late, "duplicate-time", "--on-duplicate last")
    assert last.effect == "drops 1 of 5,001 readings", "the beginning does not show the error"
    monkeypatch.setattr(advice, "_MAX_CELLS_WHOLE", 9_000)
    (last,) = offered(late, "duplicate-time", "--on-duplicate last")
    assert last.effect == "", "it was not tried"


@pytest.mark.parametrize("kind", ["parquet", "frame"])
def test_other_tables_are_tried_as_text_is(twice: Path, kind: str) -> None:
    frame = pd.read_csv(twice, parse_dates=["time"])
    data: object = frame
    if kind == "parquet":
        data = twice.with_suffix(".parquet")
        frame.to_parquet(data)

    (last,) = offered(data, "duplicate-time", "--on-duplicate last")

    assert last.effect == "drops 2 of 402 readings"


readings = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 2), st.sampled_from([0.0, 1.0, 2.5, 70_000.5])),
    min_size=4,
    max_size=60,
)


@few
@given(readings, st.sampled_from(["last", "mean"]), st.sampled_from([None, "0", "1"]))
def test_the_loss_is_that_of_a_slow_count(
    rows: list[tuple[int, int, float]], rule: str, missing: str | None
) -> None:
    rows = [*rows, (31, 0, 5.0), (32, 0, 6.0), (31, 1, 5.0), (31, 2, 5.0)]
    frame = pd.DataFrame(rows, columns=["hour", "name", "flow"])
    frame.insert(0, "time", pd.Timestamp("2024-01-01") + pd.to_timedelta(frame.hour, unit="h"))
    frame = frame.drop(columns="hour").astype({"name": str})
    plain = DataConfig("time", "name", ("flow",), freq="1h", on_duplicate=rule)
    config = replace(plain, na_values=(missing,) if missing else ())

    source = open_table(frame, config, ignore)
    schema = infer_schema(source, config, ignore)
    panel, _ = read_panel(source, schema, config, ignore)
    base = dict(zip(panel.names, panel.base.tolist(), strict=True))
    every_row, _ = read_rows(ReadContext(source, schema, plain, ignore), known_offsets=base)
    loss = loss_of(every_row, panel, (), is_wide=False, included=every_row.names)

    def single(values: list[float]) -> float:
        values = [x for x in values if missing is None or x != float(missing)]
        return np.nan if not values else values[-1] if rule == "last" else float(np.mean(values))

    by_time = frame.groupby(["name", "time"]).flow.agg(list)
    before = Counter((row.name, row.time, row.flow) for row in frame.itertuples(index=False))
    placed = {(*key, single(values)) for key, values in by_time.items()}
    for name, n_readings, n_lost in zip(loss.names, loss.n_readings, loss.n_lost, strict=True):
        distinct = Counter(flow for series, _, flow in before if series == name)
        after = Counter(round(value, 3) for series, _, value in placed if series == name)
        assert n_readings == sum(distinct.values())
        assert n_lost == sum(max(0, n - after[value]) for value, n in distinct.items())


def test_what_a_model_and_a_job_offer_was_tried_on_their_readings(tmp_path: Path) -> None:
    small = Config(network=NetworkConfig(hidden=8), training=TrainConfig(steps=1))
    hours = table(tmp_path / "hours.csv", *wave())
    model = rnnforecast.train(hours, model=tmp_path / "m", config=small, report=False)
    fine = table(tmp_path / "fine.csv", *wave(1_200), every="20min")

    with pytest.raises(DataError) as caught:
        model.predict(fine)
    job = tmp_path / "job.toml"
    job.write_text(
        '[data]\nsource = "fine.csv"\n[model]\npath = "m"\n[forecast]\noutput = "f.csv"\n'
    )
    (result,) = rnnforecast.run(job)

    assert result.error is not None and result.exit_code == 4
    for error in (caught.value, result.error):
        assert options_of(error.proposals) == ["--freq 1h --agg mean"]
        assert error.proposals[0].effect == "1,200 readings become 400"
    assert not (tmp_path / "f.csv").exists()


def test_rows_that_are_skipped_are_a_loss(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", *wave())
    lines = path.read_text().splitlines()

    path.write_text("\n".join(f"{x},7" if n in (50, 90) else x for n, x in enumerate(lines)))
    (few_rows,) = offered(path, "ragged-row", "--on-bad-rows skip --max-bad-rows 2")
    assert few_rows.effect == "skips 2 of 400 rows"

    path.write_text("\n".join(f"{x},7" if n else x for n, x in enumerate(lines)))
    assert offered(path, "ragged-row", "--on-bad-rows skip --max-bad-rows 400") == ()


def test_a_range_that_leaves_the_spikes_as_they_are_is_not_offered(tmp_path: Path) -> None:
    cells = wave()
    cells[50] = cells[180] = 6543.1
    path = table(tmp_path / "a.csv", *cells)
    (spike,) = [w for w in rnnforecast.check(str(path)).warnings if w.code == "spike"]
    assert options_of(spike.proposals) == ["--valid-range flow=:3000"]

    with trying_proposals(_task(path), (events := []).append) as listener:
        options = [("--valid-range", "flow=:9000"), *(p.options for p in spike.proposals)]
        listener(replace(spike, proposals=tuple(map(Proposal, options))))

    assert options_of(events[0].proposals) == ["--valid-range flow=:3000"]


@pytest.mark.parametrize("options", [{"freq": "2h", "agg": ("mean",)}, {"counter": ("flow",)}])
def test_what_empties_most_steps_of_a_grid_is_a_loss(tmp_path: Path, options: dict) -> None:
    path = table(tmp_path / "a.csv", *np.cumsum(wave()).round(2))
    task = _task(path, DataConfig(**options))

    def offered_of(option: str) -> tuple[Proposal, ...]:
        events: list[WarningEvent] = []
        with trying_proposals(task, events.append) as listener:
            listener(WarningEvent("odd", "x", proposals=(Proposal(("--valid-range", option)),)))
        return events[0].proposals

    assert offered_of("flow=:4000") == ()
    (rare,) = offered_of("flow=:7900")
    assert rare.effect.startswith("drops ")


def test_no_range_is_offered_for_what_a_counter_counts(tmp_path: Path) -> None:
    counts = np.cumsum([1 + row % 3 / 10 for row in range(400)])
    counts[200:] += 400
    path = table(tmp_path / "a.csv", *counts.round(2))

    result = rnnforecast.check(str(path), config=DataConfig(counter=("flow",)))

    (spike,) = [warning for warning in result.warnings if warning.code == "spike"]
    assert spike.proposals == ()
