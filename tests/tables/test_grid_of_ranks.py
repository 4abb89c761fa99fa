"""A panel that ranks share is the panel of one process, wherever its readings are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.data.forecast import Forecast
from rnnforecast.data.panel import Panel
from rnnforecast.data.scaling import fit_scaling
from rnnforecast.data.split import Origins
from rnnforecast.data.windows import Past, make_past
from rnnforecast.errors import DataError
from rnnforecast.evaluate.backtest import (
    ErrorUnits,
    Round,
    Truth,
    deviations,
    evaluate,
    select_examples,
)
from rnnforecast.evaluate.baselines import SeasonalNaive, naive
from rnnforecast.evaluate.calibration import fit_calibration
from rnnforecast.events import Event, Notice, WarningEvent, ignore
from rnnforecast.sources.source import open_source
from rnnforecast.tables.grid import read_panel
from rnnforecast.tables.schema import infer_schema
from rnnforecast.tables.steps import StepCounts, merge_step_counts
from tests.builders import START_US, main_season, make_panel, random_walk, wave
from tests.data.test_past import sensors
from tests.together import ThreadRanks, held_by, together

LOOKBACK, HORIZON = 24, 6
SPLITS = [(4,), (1, 3), (3, 1), (1, 1, 2), (1, 1, 1, 1)]


def uneven() -> Panel:
    """Four sensors with gaps, of different lengths and beginnings; one needs a base."""
    panel = make_panel(*(wave(n, noise=1, seed=n) for n in (150, 90, 240)), random_walk(200))
    panel.target[40:50] = np.nan
    start = START_US + np.array([0, 5, 2, 0]) * panel.step_us
    return dataclasses.replace(panel, start=start, base=np.array([0.0, 1e8, 0.0, -3.0]))


@pytest.mark.parametrize("sizes", SPLITS)
def test_every_rank_knows_where_each_series_stands(sizes):
    whole = uneven()
    for panel in together(len(sizes), lambda ranks: held_by(whole, sizes, ranks)):
        assert panel.names == whole.names
        for name in ("start", "lengths", "base", "first_step"):
            np.testing.assert_array_equal(getattr(panel, name), getattr(whole, name))
        assert (panel.n_rows, panel.end_us) == (whole.n_rows, whole.end_us)
        assert len(panel.target) == panel.lengths[panel.is_local].sum(), "it has its own rows only"


@pytest.mark.parametrize("make", [uneven, sensors])
@pytest.mark.parametrize("sizes", SPLITS)
def test_windows_are_the_same_bits_on_all_ranks(make, sizes):
    whole = make()
    numbers = np.random.default_rng(0).permutation(len(make_past(whole).windows(LOOKBACK, HORIZON)))

    def gathered(panel: Panel) -> list[np.ndarray]:
        batch = make_past(panel).windows(LOOKBACK, HORIZON).gather(numbers)
        arrays = [batch.history, batch.future, batch.series, batch.next_step]
        return arrays + list(batch.features or ())

    expected = gathered(whole)
    for found in together(len(sizes), lambda ranks: gathered(held_by(whole, sizes, ranks))):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sizes", SPLITS)
def test_statistics_are_those_of_one_process(sizes):
    whole = uneven()
    cutoff = np.array([120, 60, 200, 0])

    def statistics(panel: Panel) -> list[np.ndarray]:
        past = make_past(panel, cutoff)
        scaling = fit_scaling(past)
        return [*dataclasses.astuple(scaling), past.n_seen, deviations(past), main_season(past)]

    expected = statistics(whole)
    for found in together(len(sizes), lambda ranks: statistics(held_by(whole, sizes, ranks))):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)  # sums in another order
    assert expected[-1] == 24


def test_scaling_is_that_of_doubles():
    whole = uneven()
    (scaling, _) = together(2, lambda ranks: fit_scaling(make_past(held_by(whole, (1, 3), ranks))))
    for series in range(whole.n_series):
        readings = whole.of(series).astype(np.float64)
        low, middle, high = np.nanquantile(readings, (0.25, 0.5, 0.75))
        assert scaling.center[series] == pytest.approx(middle, rel=1e-6)
        assert scaling.scale[series] == pytest.approx((high - low) / 1.349, rel=1e-6)


def test_rows_of_a_series_are_given_to_who_asks_with_all_others():
    whole = sensors()

    def rows(ranks: ThreadRanks) -> tuple[Panel, np.ndarray, np.ndarray]:
        panel = held_by(whole, (2, 2), ranks)
        return (
            panel.gather_from_ranks([3, 0]),
            panel.of(1),
            make_past(panel, panel.lengths - 5).readings(3, 7),
        )

    for panel, first, newest in together(2, rows):
        np.testing.assert_array_equal(first, whole.of(1))
        np.testing.assert_array_equal(newest, whole.of(3)[-12:-5])
        assert panel.is_local.tolist() == [True, False, False, True]
        for series in (0, 3):
            np.testing.assert_array_equal(panel.of(series), whole.of(series))
        at = np.array([0, 3]), np.array([40, 50])
        for one, other in zip(
            panel.covariates.features(*at, lookback=LOOKBACK, horizon=HORIZON),
            whole.covariates.features(*at, lookback=LOOKBACK, horizon=HORIZON),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


def test_the_rows_of_others_cannot_be_taken_for_ones_own():
    def look(ranks: ThreadRanks) -> None:
        make_past(held_by(uneven(), (2, 2), ranks)).history(LOOKBACK)

    with pytest.raises(AssertionError, match="elsewhere"):
        together(2, look)


def test_the_fingerprint_is_that_of_the_readings_and_not_of_who_has_them():
    def fingerprints(panel: Panel) -> set[str]:
        return {
            found
            for sizes in SPLITS
            for found in together(
                len(sizes), lambda ranks, sizes=sizes: held_by(panel, sizes, ranks).fingerprint()
            )
        }

    changed = sensors()
    changed.target[-1] += 1
    beside = sensors()
    beside.covariates.past.values[0, 5] = 7
    others = [uneven(), changed, beside]

    assert len(fingerprints(sensors())) == 1
    assert all(fingerprints(sensors()).isdisjoint(fingerprints(other)) for other in others)


class Wide:
    """A forecaster with bands: the newest reading, and the deviation beside it."""

    def predict(self, past: Past, horizon: int, quantiles: tuple[float, ...]) -> Forecast:
        made = naive().predict(past, horizon, quantiles)
        return dataclasses.replace(made, values=made.values + np.array(quantiles, np.float32) - 0.5)


@pytest.mark.parametrize("sizes", SPLITS)
def test_scores_bands_and_examples_are_those_of_one_process(sizes):
    whole = uneven()

    def measured(panel: Panel) -> tuple[object, ...]:
        every = {"lookback": LOOKBACK, "horizon": HORIZON, "stride": 5}
        origins = Origins.rolling(panel, START_US + 60 * panel.step_us, **every)
        rounds = [Round(origins, {"wide": Wide(), "seasonal": SeasonalNaive(24)})]
        truth = Truth(panel, HORIZON)
        units = ErrorUnits(24, deviations(make_past(panel)))
        tallies = evaluate(rounds, truth, units, lookback=LOOKBACK)
        seen = select_examples(
            Wide(), origins, truth, tallies, method="wide", baseline="seasonal", lookback=LOOKBACK
        )
        found = fit_calibration(Wide(), origins, truth, lookback=LOOKBACK)
        return tallies, found, [(one.kind, one.forecast.names, one.actual) for one in seen]

    tallies, calibration, seen = measured(whole)
    assert calibration is not None
    assert len(seen) == 3
    for ours in together(len(sizes), lambda ranks: measured(held_by(whole, sizes, ranks))):
        for name, tally in tallies.items():
            own, other = (x.metrics().to_json() for x in (ours[0][name], tally))
            assert own == pytest.approx(other, rel=1e-6)  # float32 where there is no base
            np.testing.assert_allclose(ours[0][name].mase_by_series(), tally.mase_by_series())
        np.testing.assert_allclose(ours[1].by_lead, calibration.by_lead, atol=1e-6)
        np.testing.assert_allclose(ours[1].by_series, calibration.by_series, atol=1e-6)
        for (kind, names, actual), other in zip(ours[2], seen, strict=True):
            assert (kind, names) == other[:2]
            np.testing.assert_array_equal(actual, other[2])


def table(names: dict[str, int], *, kind: object = "a", freq: str = "h") -> pa.Table:
    """Long readings: this many rows of each series."""
    frames = [
        pd.DataFrame(
            {
                "time": pd.date_range("2026-01-01", periods=n, freq=freq),
                "sensor": name,
                "value": wave(max(n, 2), seed=n)[:n],
                "kind": kind,
            }
        )
        for name, n in names.items()
    ]
    return pa.Table.from_pandas(pd.concat(frames), preserve_index=False)


def read_parts(*tables: pa.Table, **options: object) -> tuple[list[Panel], list[list[Event]]]:
    """Let one rank read each table."""
    config = DataConfig(time="time", series="sensor", target=("value",), **options)
    heard: list[list[Event]] = [[] for _ in tables]

    def read(ranks: ThreadRanks) -> tuple[Panel, object]:
        source = open_source(tables[ranks.rank], config, ignore)
        schema = infer_schema(source, config, ignore)
        return read_panel(source, schema, config, heard[ranks.rank].append, ranks=ranks)

    found = together(len(tables), read)
    assert len({repr(schema) for _, schema in found}) == 1
    return [panel for panel, _ in found], heard


def test_a_rank_with_one_reading_learns_the_step_from_the_others():
    panels, _ = read_parts(table({"one": 1}), table({"many": 300, "more": 200}, freq="15min"))
    for panel in panels:
        assert panel.step_us == 15 * 60_000_000
        assert panel.names == ("one", "many", "more")


def test_steps_are_counted_over_all_ranks():
    own = [
        StepCounts(np.array([60, 90]), np.array([5, 2])),
        StepCounts(np.array([30, 60]), np.array([4, 3])),
    ]
    for steps in together(2, lambda ranks: merge_step_counts(own[ranks.rank], ranks)):
        assert steps.lengths.tolist() == [30, 60, 90]
        assert steps.counts.tolist() == [4, 8, 2]


def test_a_rank_may_have_nothing_but_series_without_readings():
    silent = table({"silent": 40, "mute": 30}).to_pandas().assign(value=np.nan)
    panels, heard = read_parts(table({"a": 40}), pa.Table.from_pandas(silent))
    for panel in panels:
        assert panel.names == ("a",)
        assert panel.lengths.tolist() == [40]
    assert [len(panel.target) for panel in panels] == [40, 0]
    assert any(
        isinstance(event, WarningEvent) and event.code == "empty-series" for event in heard[1]
    )
    with pytest.raises(DataError, match="has no readings"):
        read_parts(pa.Table.from_pandas(silent), pa.Table.from_pandas(silent[:30]))


def test_texts_are_told_apart_as_often_as_they_occur_on_all_ranks():
    first = table({"a": 40, "b": 30}, kind="pump")
    second = table({"c": 100}, kind="fan")
    panels, heard = read_parts(first, second, known=("kind",), categorical=("kind",))
    for panel in panels:
        assert panel.covariates.known_names == ("kind=fan", "kind=pump", "kind=(other)")
    assert Notice("column 'kind' is one of fan, pump") in heard[0]


def test_a_covariate_is_empty_where_no_rank_has_a_value():
    has = table({"a": 40}, kind=1.0)
    none = table({"b": 40}, kind=np.nan)
    panels, _ = read_parts(has, none, past=("kind",))
    assert [panel.n_series for panel in panels] == [2, 2]
    assert all(panel.covariates.sizes == (0, 1, 0) for panel in panels)
    panels, heard = read_parts(none, table({"c": 30}, kind=np.nan), past=("kind",))
    assert [panel.covariates for panel in panels] == [None, None]
    assert any(
        isinstance(event, WarningEvent) and event.code == "empty-covariate" for event in heard[0]
    )


def test_what_is_missing_is_counted_on_all_ranks():
    first, second = table({"a": 40}).to_pandas(), table({"b": 40}).to_pandas()
    first.loc[5:7, "value"] = np.nan
    second.loc[20:29, "value"] = np.nan
    _, heard = read_parts(pa.Table.from_pandas(first), pa.Table.from_pandas(second))
    said = "13 of 80 readings are missing (longest gap 10 h)"
    assert all(Notice(said) in events for events in heard)


def test_ranks_that_read_other_columns_are_told():
    other = table({"b": 40}, kind="x")
    with pytest.raises(DataError, match="differ") as caught:
        read_parts(table({"a": 40}, kind=1.0), other, static=("kind",))
    assert caught.value.code == "buckets-differ"
