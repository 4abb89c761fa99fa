import io
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pyarrow.parquet as pa_parquet
import pytest

from tests.builders import wave, write_wide
from tests.conftest import SMALL, Command


def test_without_arguments_it_forecasts_what_the_model_was_trained_on(
    command: Command, tmp_path: Path
) -> None:
    write_wide(tmp_path / "data.csv", flow=wave(300), level=wave(300, seed=2))
    assert command("train", "data.csv", "-q", *SMALL).code == 0
    assert command("predict").code == 0
    forecast = pd.read_csv("forecast.csv")
    assert list(forecast.columns) == ["series", "timestamp", "forecast", "q10", "q90"]
    assert list(forecast["series"]) == ["flow"] * 6 + ["level"] * 6
    last = pd.Timestamp(pd.read_csv("data.csv")["timestamp"].iloc[-1])
    expected = pd.date_range(last + pd.Timedelta("1h"), periods=6, freq="1h")
    assert list(pd.to_datetime(forecast["timestamp"][:6])) == list(expected)
    assert (forecast["q10"] <= forecast["forecast"]).all()
    assert (forecast["forecast"] <= forecast["q90"]).all()


def test_the_same_model_and_readings_give_the_same_bytes(command: Command, trained: Path) -> None:
    for name in ("a.csv", "b.csv", "a.parquet", "b.parquet", "a.jsonl", "b.jsonl"):
        assert command("predict", "-m", trained / "model", "-q", "-o", name).code == 0
    for ending in ("csv", "parquet", "jsonl"):
        assert Path(f"a.{ending}").read_bytes() == Path(f"b.{ending}").read_bytes()
    csv, parquet = pd.read_csv("a.csv"), pa_parquet.read_table("a.parquet").to_pandas()
    lines = pd.read_json("a.jsonl", lines=True)
    assert np.allclose(csv["forecast"], parquet["forecast"])
    assert np.allclose(csv["forecast"], lines["forecast"])


def test_a_dash_writes_csv_to_standard_output_and_nothing_else(
    command: Command, trained: Path
) -> None:
    outcome = command("predict", "-m", trained / "model", "-o", "-")
    assert list(pd.read_csv(io.StringIO(outcome.out)).columns)[:3] == [
        "series",
        "timestamp",
        "forecast",
    ]
    assert not Path("forecast.csv").exists()


def test_json_says_what_was_written(command: Command, trained: Path) -> None:
    document = command("predict", "-m", trained / "model", "--json").document
    assert document["output"] == "forecast.csv"
    assert (document["series"], document["horizon"], document["rows"]) == (2, 6, 12)


def test_quantiles_are_chosen_and_named(command: Command, trained: Path) -> None:
    command("predict", "-m", trained / "model", "-q", "--quantiles", "0.025,0.5,0.9")
    columns = list(pd.read_csv("forecast.csv").columns)
    assert columns == ["series", "timestamp", "forecast", "q2.5", "q50", "q90"]
    percent = command("predict", "-m", trained / "model", "--quantiles", "10,90")
    assert (percent.code, "write 0.1 for 10 %" in percent.err) == (2, True)
    outcome = command("predict", "-m", trained / "model", "--quantiles", "0.001")
    assert outcome.code == 2 and "0.025" in outcome.err


def test_a_shorter_horizon_is_the_beginning_of_the_whole(command: Command, trained: Path) -> None:
    command("predict", "-m", trained / "model", "-q")
    whole = pd.read_csv("forecast.csv")
    command("predict", "-m", trained / "model", "-q", "--horizon", "2h")
    part = pd.read_csv("forecast.csv")
    assert part.equals(whole.groupby("series").head(2).reset_index(drop=True))
    assert command("predict", "-m", trained / "model", "-H", "7").code == 2


def test_as_of_forecasts_what_the_readings_until_then_give(command: Command, trained: Path) -> None:
    readings = pd.read_csv(trained / "data.csv")
    readings[:300].to_csv("part.csv", index=False)
    moment = readings["timestamp"][299]
    command("predict", "part.csv", "-m", trained / "model", "-q", "-o", "part-forecast.csv")
    command("predict", "-m", trained / "model", "-q", "--as-of", moment)
    assert Path("forecast.csv").read_bytes() == Path("part-forecast.csv").read_bytes()


def test_newer_readings_are_forecast_by_the_names_of_their_columns(
    command: Command, trained: Path
) -> None:
    readings = pd.read_csv(trained / "data.csv")
    command("predict", "-m", trained / "model", "-q")
    before = pd.read_csv("forecast.csv")
    readings["extra"] = 1.0
    readings[["extra", "level", "timestamp", "flow"]].to_csv("turned.csv", index=False)
    assert command("predict", "turned.csv", "-m", trained / "model", "-q").code == 0
    after = pd.read_csv("forecast.csv")
    assert after.equals(before)


def test_a_missing_column_names_those_that_look_alike(command: Command, trained: Path) -> None:
    readings = pd.read_csv(trained / "data.csv").rename(columns={"level": "Level "})
    readings.to_csv("renamed.csv", index=False)
    outcome = command("predict", "renamed.csv", "-m", trained / "model", "--json")
    assert outcome.code == 4
    assert outcome.error["code"] == "missing-column"
    assert "'Level '" in outcome.error["hint"]
    assert not Path("forecast.csv").exists()


def test_another_step_is_refused_and_the_offered_fix_works(command: Command, trained: Path) -> None:
    write_wide(Path("fast.csv"), freq="10min", flow=wave(600), level=wave(600))
    outcome = command("predict", "fast.csv", "-m", trained / "model")
    assert outcome.code == 4
    assert "every 1 h" in outcome.err and "--freq 1h --agg mean" in outcome.err
    fixed = command(
        "predict", "fast.csv", "-m", trained / "model", "-q", "--freq", "1h", "--agg", "mean"
    )
    assert fixed.code == 0


def test_a_failure_leaves_the_previous_forecast_byte_for_byte(
    command: Command, trained: Path
) -> None:
    command("predict", "-m", trained / "model", "-q")
    before = Path("forecast.csv").read_bytes()
    Path("bad.csv").write_text("timestamp,flow,level\n")
    assert command("predict", "bad.csv", "-m", trained / "model").code == 4
    assert command("predict", "gone.csv", "-m", trained / "model").code == 4
    assert Path("forecast.csv").read_bytes() == before


def test_a_dead_sensor_is_left_out_and_the_run_is_partial(command: Command, trained: Path) -> None:
    readings = pd.read_csv(trained / "data.csv")
    readings.loc[300:, "level"] = np.nan
    readings.to_csv("dead.csv", index=False)
    outcome = command("predict", "dead.csv", "-m", trained / "model", "--json")
    assert outcome.code == 3
    assert outcome.document["left_out"] == ["level"]
    forecast = pd.read_csv("forecast.csv")
    assert list(forecast["series"].unique()) == ["flow"]
    assert forecast.notna().all().all()


def test_a_fallback_forecasts_it_and_says_so(command: Command, trained: Path) -> None:
    readings = pd.read_csv(trained / "data.csv")
    readings.loc[300:, "level"] = np.nan
    readings.to_csv("dead.csv", index=False)
    options = ["--fallback", "seasonal-naive,naive", "-q"]
    outcome = command("predict", "dead.csv", "-m", trained / "model", *options)
    forecast = pd.read_csv("forecast.csv")
    assert list(forecast.columns)[-1] == "source"
    assert dict(zip(forecast["series"], forecast["source"], strict=True)) == {
        "flow": "network",
        "level": "seasonal_naive",
    }
    assert forecast.notna().all().all()
    assert outcome.code == 3


def test_the_expert_is_a_fallback_that_no_other_series_moves(
    command: Command, trained: Path
) -> None:
    readings = pd.read_csv(trained / "data.csv")
    readings.loc[300:, "level"] = np.nan
    forecasts = []
    for name in ("dead.csv", "again.csv"):
        readings.to_csv(name, index=False)
        outcome = command(
            "predict", name, "-m", trained / "model", "--fallback", "expert", "--json"
        )
        assert outcome.code == 3 and outcome.document["fallback"] == ["level"]
        forecast = pd.read_csv("forecast.csv").set_index("series")
        assert set(forecast.loc["level", "source"]) == {"expert"}
        forecasts.append(forecast.loc["level"])
        readings["flow"] += np.arange(len(readings)) % 7
    pd.testing.assert_frame_equal(*forecasts)
    level = forecasts[0]
    assert (level["q10"] < level["forecast"]).all() and (level["forecast"] < level["q90"]).all()
    seen = readings["level"].dropna()
    assert level["forecast"].between(seen.min(), seen.max()).all()


def test_no_series_with_a_reading_in_its_look_back_is_exit_5(
    command: Command, trained: Path
) -> None:
    assert command("predict", "-m", trained / "model", "--as-of", "1999-01-01").code == 5
    readings = pd.read_csv(trained / "data.csv")
    for n, code in ((3, 3), (2, 5), (1, 5)):
        readings.loc[n:, ["flow", "level"]] = np.nan
        readings.to_csv("dead.csv", index=False)
        outcome = command("predict", "dead.csv", "-m", trained / "model")
        assert outcome.code == code, "three readings each are enough, and few"
    assert pd.read_csv("forecast.csv")["timestamp"][0] == "2024-01-01 03:00:00"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-m", "nowhere"], 6),
        (["--version", "../../etc"], 2),
        (["--version", "20200101T000000Z-aaaaaa"], 6),
        (["-o", "forecast.xlsx"], 2),
        (["-o", "no/such/folder/forecast.csv"], 7),
        (["--as-of", "the day before"], 2),
        (["--as-of", "now"], 2),
        (["--as-of", "today"], 2),
        (["--fallback", "oracle"], 2),
    ],
)
def test_what_cannot_be_done_has_its_exit_code(
    command: Command, trained: Path, arguments: list[str], code: int
) -> None:
    model = [] if "-m" in arguments else ["-m", trained / "model"]
    outcome = command("predict", *model, *arguments)
    assert outcome.code == code
    assert "error: " in outcome.err
    assert "Traceback" not in outcome.err


def test_aware_stamps_stay_aware(command: Command) -> None:
    stamps = pd.date_range("2024-01-01", periods=200, freq="1h", tz="Europe/Vienna")
    frame = pd.DataFrame({"time": stamps.strftime("%Y-%m-%dT%H:%M:%S%z"), "flow": wave(200)})
    frame.to_csv("data.csv", index=False)
    assert command("train", "data.csv", "-q", *SMALL).code == 0
    assert command("predict", "-q").code == 0
    first = pd.read_csv("forecast.csv")["timestamp"][0]
    assert first == "2024-01-09 08:00:00+01:00"


def test_a_model_trained_on_a_stream_needs_data_to_predict(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (trained / "data.csv").read_bytes()

    def feed() -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    feed()
    assert command("train", "-", "-q", *SMALL).code == 0
    outcome = command("predict")
    assert outcome.code == 2 and "argument DATA" in outcome.err
    feed()
    assert command("predict", "-", "-q").code == 0


def test_a_training_file_that_was_moved_is_to_be_named(command: Command) -> None:
    write_wide("data.csv", flow=wave(400))
    command("train", "data.csv", "-q", *SMALL)
    Path("data.csv").rename("moved.csv")

    outcome = command("predict", "--json")

    assert (outcome.code, outcome.error["code"]) == (4, "not-found")
    assert "data.csv, which the model was trained on, does not exist" in outcome.error["message"]
    assert outcome.error["hint"] == "pass the data as the argument DATA"
    assert command("predict", "moved.csv", "-q").code == 0


def test_as_of_inside_a_gap_forecasts_what_the_last_reading_before_it_gives(
    command: Command, trained: Path
) -> None:
    readings = pd.read_csv(trained / "data.csv")
    readings[:300].to_csv("part.csv", index=False)
    pd.concat([readings[:300], readings[320:]]).to_csv("gap.csv", index=False)
    command("predict", "part.csv", "-m", trained / "model", "-q", "-o", "part-forecast.csv")
    moment = readings["timestamp"][310]
    command("predict", "gap.csv", "-m", trained / "model", "-q", "--as-of", moment)
    assert Path("forecast.csv").read_bytes() == Path("part-forecast.csv").read_bytes()


def test_a_sensor_that_never_reads_again_is_named_and_can_not_be_forecast(
    command: Command, trained: Path
) -> None:
    readings = pd.read_csv(trained / "data.csv")
    readings["level"] = np.nan
    readings.to_csv("dead.csv", index=False)
    outcome = command("predict", "dead.csv", "-m", trained / "model", "--json")
    assert outcome.code == 3
    assert outcome.document["left_out"] == ["level"]


def test_stamps_without_a_zone_do_not_fit_a_model_that_has_one(command: Command) -> None:
    stamps = pd.date_range("2024-01-01", periods=200, freq="1h", tz="UTC")
    pd.DataFrame({"time": stamps.strftime("%Y-%m-%dT%H:%M:%SZ"), "flow": wave(200)}).to_csv(
        "aware.csv", index=False
    )
    write_wide(Path("naive.csv"), flow=wave(200))
    Path("naive.csv").write_text(Path("naive.csv").read_text().replace("timestamp", "time"))
    assert command("train", "aware.csv", "-q", *SMALL).code == 0
    outcome = command("predict", "naive.csv")
    assert outcome.code == 4 and "--tz UTC" in outcome.err
    assert command("predict", "naive.csv", "-q", "--tz", "UTC").code == 0


def test_quantiles_between_the_trained_ones_lie_between_them(
    command: Command, trained: Path
) -> None:
    command("predict", "-m", trained / "model", "-q", "--quantiles", "0.2,0.25,0.3")
    forecast = pd.read_csv("forecast.csv")
    scores = [NormalDist().inv_cdf(level) for level in (0.2, 0.25, 0.3)]
    share = (scores[1] - scores[0]) / (scores[2] - scores[0])
    expected = forecast["q20"] + share * (forecast["q30"] - forecast["q20"])
    assert np.allclose(forecast["q25"], expected, atol=1e-3)


def test_json_and_csv_do_not_share_standard_output(command: Command, trained: Path) -> None:
    assert command("predict", "-m", trained / "model", "--json", "-o", "-").code == 2


def test_the_readings_are_not_overwritten_by_their_forecast(
    command: Command, workplace: Path
) -> None:
    data = workplace / "data.csv"
    before = data.read_bytes()
    assert command("predict", data, "-m", workplace / "model", "-o", data).code == 2
    assert data.read_bytes() == before


def test_names_like_formulas_are_said_and_can_be_made_text(command: Command) -> None:
    names = ["=cmd()", "-5", "@x", "flow"]
    times = pd.date_range("2024-01-01", periods=300, freq="1h")
    parts = [pd.DataFrame({"time": times, "sensor": n, "v": wave(300)}) for n in names]
    pd.concat(parts).to_csv("data.csv", index=False)
    assert command("train", "data.csv", "-q", *SMALL).code == 0

    plain = command("predict")

    assert plain.code == 0
    assert "--excel-safe" in plain.err
    assert list(pd.read_csv("forecast.csv", dtype=str)["series"].unique()) == names
    safe = command("predict", "--excel-safe")
    assert "formula" not in safe.err
    written = list(pd.read_csv("forecast.csv", dtype=str)["series"].unique())
    assert written == ["'=cmd()", "-5", "'@x", "flow"]
    assert "formula" not in command("predict", "-o", "f.parquet").err
    assert list(pa_parquet.read_table("f.parquet").to_pandas()["series"].unique()) == names


def test_a_history_with_a_longer_gap_than_is_accepted_gets_no_forecast(
    command: Command, trained: Path
) -> None:
    table = pd.read_csv(trained / "data.csv")
    name = next(name for name in table if name != "timestamp")
    table.loc[len(table) - 12 : len(table) - 8, name] = np.nan  # five of them, in the look-back
    table.to_csv("gap.csv", index=False)
    options = ["-m", trained / "model", "-q"]

    assert command("predict", "gap.csv", *options, "--max-gap", "5").code == 0
    outcome = command("predict", "gap.csv", *options, "--max-gap", "4h")

    assert outcome.code == 3
    assert f"a gap longer than --max-gap 4h: {name}" in outcome.err
    assert name not in set(pd.read_csv("forecast.csv")["series"])
    fallback = command("predict", "gap.csv", *options, "--max-gap", "4", "--fallback", "naive")
    assert fallback.code == 3
    assert set(pd.read_csv("forecast.csv").query("source == 'naive'")["series"]) == {name}


def test_an_option_that_is_given_wins_though_it_is_the_default(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rnnforecast

    table = pd.read_csv(write_wide(Path("plain.csv"), flow=wave(300)))
    pd.concat([table, table.tail(1).assign(flow=21)]).to_csv("data.csv", index=False)
    assert command("train", "data.csv", "--on-duplicate", "last", "-q", *SMALL).code == 0
    given = ["--on-duplicate", "error"]

    assert command("predict", "-q").code == 0
    for name in ("predict", "check", "backtest"):
        outcome = command(name, "data.csv", "-m", "model", "--json", *given)
        assert (outcome.code, outcome.error["code"]) == (4, "duplicate-time")
    monkeypatch.setenv("RNNFORECAST_PREDICT_ON_DUPLICATE", "error")
    assert command("predict", "-q").code == 4
    monkeypatch.delenv("RNNFORECAST_PREDICT_ON_DUPLICATE")
    Path("rnnforecast.toml").write_text("[predict]\non-duplicate = 'error'\n")
    assert command("predict", "-q").code == 4
    with pytest.raises(rnnforecast.RnnForecastError) as caught:
        rnnforecast.predict(explicit=("on_duplicate",), reading=rnnforecast.DataConfig())
    assert caught.value.code == "duplicate-time"


def test_lines_that_are_no_longer_to_be_skipped_are_read(command: Command) -> None:
    table = write_wide(Path("plain.csv"), flow=wave(300)).read_text()
    Path("logger.csv").write_text("Logger 7\nNorth\n" + table)
    assert command("train", "logger.csv", "--skip-rows", "2", "-q", *SMALL).code == 0
    assert command("predict", "-q", "-o", "a.csv").code == 0

    assert command("predict", "plain.csv", "-q", "-o", "b.csv").code == 4
    assert command("predict", "plain.csv", "--skip-rows", "0", "-q", "-o", "b.csv").code == 0

    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


@pytest.mark.parametrize("name", ["predict", "check", "backtest"])
def test_a_counter_that_the_model_does_not_forecast_is_a_usage_error(
    command: Command, trained: Path, name: str
) -> None:
    outcome = command(name, trained / "data.csv", "-m", trained / "model", "--counter", "flwo")

    assert (outcome.code, outcome.out) == (2, "")
    assert "--counter flow" in outcome.err


def test_wide_has_a_column_for_each_series_and_the_same_numbers(
    command: Command, trained: Path
) -> None:
    table = pd.read_csv(trained / "data.csv").rename(columns={"level": 'a, "b"'})
    table.loc[len(table) - 2 :, "flow"] = np.nan  # of another series the last rows are missing
    table.to_csv("data.csv", index=False)
    line = ["predict", "data.csv", "-m", trained / "model", "--map", 'a, "b"=level', "-q"]

    for ending, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        assert command(*line, "-o", f"long{ending}").code in (0, 3)
        assert command(*line, "-o", f"wide{ending}", "--wide").code in (0, 3)

        wide, long = read(f"wide{ending}"), read(f"long{ending}")
        pivot = long.pivot_table(index="timestamp", columns="series", values="forecast")
        assert list(wide) == ["timestamp", *long["series"].unique()]
        assert list(wide["timestamp"]) == sorted(long["timestamp"].unique())
        for name in pivot:
            np.testing.assert_array_equal(wide[name], pivot[name])


def test_wide_cannot_hold_more_than_point_forecasts(command: Command, workplace: Path) -> None:
    line = ["predict", workplace / "data.csv", "-m", workplace / "model", "--wide"]
    for more in (["--quantiles", "0.5"], ["--exceed", "flow=9"], ["--shard", "0/2", "-o", "x"]):
        outcome = command(*line, *more)
        assert (outcome.code, "--wide" in outcome.err) == (2, True), outcome.err


def test_a_wide_forecast_has_names_that_are_no_formulas(command: Command) -> None:
    write_wide(Path("data.csv"), **{"=cmd()": wave(300), "flow": wave(300, seed=2)})
    assert command("train", "data.csv", "-q", *SMALL).code == 0

    assert "--excel-safe" in command("predict", "--wide").err
    assert "formula" not in command("predict", "--wide", "--excel-safe").err
    assert list(pd.read_csv("forecast.csv")) == ["timestamp", "'=cmd()", "flow"]
