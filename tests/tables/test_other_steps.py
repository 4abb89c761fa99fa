"""Steps that change, or differ between sensors; irregular stamps; reports of changes alone."""

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.reading import DataConfig
from rnnforecast.errors import DataError
from rnnforecast.events import ignore
from rnnforecast.sources.source import open_source
from rnnforecast.tables.grid import read_panel
from rnnforecast.tables.match import read_for_training
from tests.builders import HOUR_US, wave
from tests.data.tables import failure, read

RNG = np.random.default_rng(0)
NAN = float("nan")


def stamped(minutes: object, **columns: object) -> pd.DataFrame:
    """Make a table of readings at these minutes of 2024."""
    stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.asarray(minutes), unit="min")
    return pd.DataFrame({"ts": stamps, **columns})


def options_of(error: DataError, number: int = 0) -> dict[str, object]:
    """Return the options of a proposal as fields of `DataConfig`."""
    words = error.proposals[number].options
    options: dict[str, object] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        field = name.removeprefix("--").replace("-", "_")
        options[field] = (*options.get(field, ()), value) if field == "agg" else value
    return options


def two_steps(before: int, after: int, n_before: int, n_after: int) -> np.ndarray:
    """Return the minutes of readings whose step changes."""
    first = np.arange(n_before) * before
    return np.append(first, first[-1] + before + np.arange(n_after) * after)


@pytest.mark.parametrize(
    ("before", "after", "n_before", "n_after", "freq"),
    [
        (60, 1, 500, 1500, "1h"),
        (1, 60, 1500, 500, "1h"),
        (30, 15, 900, 400, "30min"),  # the longer one is the commonest
        (10, 15, 400, 400, "15min"),
        (1440, 60, 60, 500, "1d"),
    ],
)
def test_a_step_that_changes_is_an_error_with_the_time_and_a_fix_that_works(
    before, after, n_before, n_after, freq
):
    minutes = two_steps(before, after, n_before, n_after)
    frame = stamped(minutes, temp=20 + RNG.normal(0, 1, len(minutes)))

    error = failure(frame)

    assert (error.code, error.exit_code) == ("step-change", 4)
    at = frame.ts[n_before].strftime("%Y-%m-%d %H:%M")
    assert f"at {at}" in error.message
    assert options_of(error) == {"freq": freq, "agg": ("mean",)}
    panel = read(frame, **options_of(error)).panel
    assert np.isfinite(panel.target).mean() > 0.97


def test_sums_of_each_step_are_summed_and_levels_beside_them_averaged():
    minutes = two_steps(30, 15, 480, 960)
    energy = np.where(np.arange(1440) < 480, 200.0, 100) + RNG.normal(0, 1, 1440)
    frame = stamped(minutes, wh=energy)

    error = failure(frame)
    both = failure(frame.assign(temp=wave(1440)))

    assert options_of(error) == {"freq": "30min", "agg": ("sum",)}
    panel = read(frame, **options_of(error)).panel
    assert panel.of(0).min() > 190
    assert options_of(both)["agg"] == ("mean", "wh=sum")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_readings_lost_at_random_are_no_other_step(share):
    lost = RNG.random(1000) < share
    frame = stamped(np.arange(1000) * 10, v=wave(1000))

    result = read(frame[~lost])
    beside = read(frame.assign(w=np.where(lost, NAN, wave(1000))))

    assert result.panel.step_us == HOUR_US // 6
    assert "other-step" not in beside.warnings


def test_outages_and_nights_without_readings_are_no_other_step():
    hours = np.arange(24 * 60)
    by_day = hours[(hours % 24 >= 6) & (hours % 24 < 18)]
    outage = np.append(np.arange(300), np.arange(900, 1200))
    for rows in (by_day, outage):
        assert read(stamped(60 * rows, v=wave(len(rows)))).panel.step_us == HOUR_US


@pytest.mark.parametrize(("n", "every"), [(3840, 96), (600, 10), (400, 2), (2016, 672)])
def test_a_sensor_that_is_read_rarely_is_named_and_read_by_itself_at_its_own_step(n, every):
    rare = np.where(np.arange(n) % every == 0, 200 + RNG.normal(0, 5, n), NAN)
    if n == 2016:
        n, rare = 4032, np.append(rare, rare)
    frame = stamped(np.arange(n) * 15, power=wave(n), gas=rare)

    result = read(frame)

    warning = result.warnings["other-step"]
    assert warning.message.endswith(": gas")
    assert warning.proposals[0].options == ("--target", "gas")
    trained, schema = read_for_training(frame, DataConfig(), ignore, find_train_end=lambda _: 0)
    assert (trained.names, schema.targets) == (("power",), ("power",))
    alone = read(frame, target=("gas",)).panel
    assert alone.step_us == every * HOUR_US // 4
    assert np.isfinite(alone.target).all()


def test_a_model_of_a_slow_sensor_reads_few_new_readings_at_its_step():
    rare = np.where(np.arange(960) % 96 == 0, 200.0, NAN)
    frame = stamped(np.arange(960) * 15, power=wave(960), gas=rare)
    schema = read(frame, target=("gas",)).schema

    new = open_source(frame[:200], DataConfig())
    panel, _ = read_panel(new, schema, DataConfig(target=("gas",)), ignore)

    assert (panel.step_us, panel.target.tolist()) == (24 * HOUR_US, [200.0] * 3)


def test_an_error_in_a_row_of_a_slow_sensor_names_its_line(tmp_path):
    rare = [f"{i}" if i % 96 == 0 else "" for i in range(3840)]
    frame = stamped(np.arange(3840) * 15, power=wave(3840), gas=rare)
    path = tmp_path / "x.csv"
    frame.loc[960, "ts"] += pd.Timedelta("5h")
    frame.to_csv(path, index=False)

    error = failure(path, target=("gas",))

    assert (error.code, error.location.line) == ("irregular", 962)


def test_a_series_of_a_long_table_with_another_step_is_named():
    fast = stamped(np.arange(960) * 15, id="fast", v=wave(960))
    slow = stamped(np.arange(240) * 60, id="slow", v=wave(240))

    result = read(pd.concat([fast, slow]), series="id")

    assert result.warnings["other-step"].message.endswith(": slow")
    assert result.warnings["other-step"].proposals[0].options == ("--freq", "1h", "--agg", "last")


@pytest.mark.parametrize("mean", [3, 8, 40, 90])
def test_the_step_that_is_offered_for_irregular_stamps_leaves_few_steps_empty(mean):
    seconds = np.cumsum(RNG.exponential(60 * mean, 800)).astype(int)
    frame = stamped(seconds / 60, v=20 + RNG.normal(0, 1, 800))

    error = failure(frame)

    assert error.code == "irregular"
    panel = read(frame, **options_of(error)).panel
    assert np.isfinite(panel.target).mean() > 0.85
    assert panel.n_rows > 200


def test_readings_that_are_rare_get_a_step_that_fits_and_a_wrong_stamp_does_not():
    minutes = np.sort(RNG.choice(2 * 365 * 1440, 400, replace=False))
    minutes[1:60] = minutes[0] + np.arange(1, 60)
    frame = stamped(minutes - minutes[0], v=RNG.normal(0, 1, 400))

    rare = failure(frame)

    assert rare.code == "sparse"
    assert read(frame, **options_of(rare)).panel.n_rows < 400
    frame = stamped(np.arange(600), v=wave(600))
    frame.loc[300, "ts"] = pd.Timestamp("1991-01-01")
    wrong = failure(frame)
    assert (wrong.code, wrong.proposals) == ("sparse", ())


def reports(level: object, least: float, minutes: int = 5) -> pd.DataFrame:
    """Make the reports of a sensor that is looked at every few minutes, and sends changes."""
    values, last, kept = np.asarray(level), np.inf, []
    for i, value in enumerate(values):
        if abs(value - last) >= least:
            kept.append(i)
            last = value
    return stamped(np.array(kept) * minutes, level=np.round(values[kept], 2))


def test_reports_of_changes_are_told_apart_and_held():
    t = np.arange(8000)
    level = 50 + 20 * np.sin(2 * np.pi * t / 288) + np.cumsum(RNG.normal(0, 0.05, 8000))
    frame = reports(level, 1.0)

    error = failure(frame)

    options = options_of(error)
    assert (error.code, set(options)) == ("irregular", {"freq", "agg", "hold"})
    panel = read(frame, **options).panel
    assert np.isfinite(panel.target).mean() > 0.95
    held = read(frame, **{**options, "agg": "mean"}).panel.target
    true = level[: len(held) * 3].reshape(-1, 3).mean(1) if options["freq"] == "15min" else None
    if true is not None:
        assert np.nanmean(np.abs(held - true)) < 1.0


def test_empty_cells_of_a_sensor_that_reports_changes_are_asked_about():
    t = np.arange(3000)
    level = 50 + 15 * np.sin(2 * np.pi * t / 288) + np.cumsum(RNG.normal(0, 0.05, 3000))
    changed = reports(level, 1.0)
    frame = stamped(t * 5, noise=wave(3000)).merge(changed, on="ts", how="left")

    result = read(frame)

    warning = result.warnings["on-change"]
    assert warning.message.endswith(": level")
    name, hold = warning.proposals[0].options
    assert name == "--hold"
    panel = read(frame, hold=hold).panel
    assert np.isfinite(panel.of(1)).mean() > 0.95
    lost = frame.assign(noise=np.where(RNG.random(3000) < 0.6, NAN, frame.noise))
    assert read(lost).warnings["on-change"].count == 1


def test_steps_of_slow_reports_are_no_change_of_the_step():
    level = 50 + 15 * np.sin(2 * np.pi * np.arange(20_000) / 1440)
    assert failure(reports(level, 0.5, minutes=1)).code == "irregular"


def test_irregular_readings_of_something_that_varies_are_no_reports():
    minutes = np.cumsum(RNG.integers(5, 40, 800))
    error = failure(stamped(minutes, v=20 + RNG.normal(0, 1, 800)))

    assert options_of(error).keys() == {"freq", "agg"}


def test_a_user_who_names_the_step_is_not_asked():
    minutes = two_steps(60, 1, 100, 1000)

    panel = read(stamped(minutes, v=wave(1100)), freq="1min").panel

    assert np.isfinite(panel.target).sum() == 1100
