"""`run`: published once, whole, or not at all; what it says in its log and its gauges."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pa_parquet
import pytest

from rnnforecast.workflow.model import forecast
from tests.builders import JOB
from tests.conftest import SMALL, Command, Outcome


@pytest.fixture
def place(workplace: Path) -> Path:
    (workplace / "job.toml").write_text(JOB)
    return workplace


def change(place: Path, before: str, after: str) -> None:
    job = place / "job.toml"
    assert before in job.read_text()
    job.write_text(job.read_text().replace(before, after))


def files(place: Path) -> dict[str, bytes]:
    """Everything but the log and the gauges, which may change with every run."""
    paths = [path for path in sorted(place.rglob("*")) if path.is_file()]
    paths = [path for path in paths if path.name not in ("run.log", "job.prom")]
    return {str(path.relative_to(place)): path.read_bytes() for path in paths}


def log(place: Path) -> list[dict]:
    return [json.loads(line) for line in (place / "run.log").read_text().splitlines()]


def gauges(place: Path) -> dict[str, float]:
    lines = (place / "job.prom").read_text().splitlines()
    pairs = (line.split() for line in lines if not line.startswith("#"))
    return {name.partition("{")[0].removeprefix("rnnforecast_"): float(x) for name, x in pairs}


def run(command: Command, place: Path, *more: object) -> Outcome:
    return command("run", place / "job.toml", "--json", *more)


def stamps_of(place: Path) -> list[str]:
    return pd.read_csv(place / "data.csv")["timestamp"].tolist()


def test_a_run_publishes_what_predict_writes(command: Command, place: Path) -> None:
    outcome = run(command, place)
    assert outcome.code == 0
    document = outcome.document
    assert (document["status"], document["series"]) == ("published", 2)
    command("predict", place / "data.csv", "-m", place / "model", "-q", "-o", "other.csv")
    assert (place / "out/forecast.csv").read_bytes().startswith(b"series,timestamp,forecast,q10")
    ours = pd.read_csv(place / "out/forecast.csv").drop(columns="source")
    assert ours.equals(pd.read_csv("other.csv"))
    assert document["output"] == str(place / "out/forecast.csv")
    assert document["as_of"] == stamps_of(place)[-1].replace(" ", "T")


def test_a_job_may_fall_back_on_the_expert(command: Command, place: Path) -> None:
    change(place, '["seasonal-naive", "naive"]', '["expert"]')
    readings = pd.read_csv(place / "data.csv")
    readings.loc[len(readings) - 60 :, "level"] = None
    readings.to_csv(place / "data.csv", index=False)

    outcome = run(command, place)

    assert outcome.code == 3
    forecast = pd.read_csv(place / "out/forecast.csv").set_index("series")
    assert set(forecast.loc["level", "source"]) == {"expert"}
    assert set(forecast.loc["flow", "source"]) == {"network"}


def test_the_manifest_names_what_was_read_and_what_was_written(
    command: Command, place: Path
) -> None:
    key = run(command, place).document["key"]
    manifest = json.loads((place / "out/run.json").read_text())
    (part,) = (place / "ledger").glob("*.parquet")
    assert manifest["key"] == key
    for name, path in (("output", place / "out/forecast.csv"), ("ledger", part)):
        assert manifest[name]["path"] == str(path)
        assert manifest[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [Path(entry["path"]).name for entry in manifest["inputs"]] == ["data.csv"]
    assert manifest["data"]["newest"] == stamps_of(place)[-1]
    forecast = manifest["config"]["forecast"]
    assert forecast["fallback"]["origin"].endswith("job.toml")
    assert forecast["bounds"] == {"value": [], "origin": "default"}


@pytest.mark.parametrize("how", ["grown", "replaced", "gone", "rewritten"])
def test_the_manifest_names_what_was_read_and_not_what_lies_there_later(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The readings change while the network computes: it named the longer file, or another one."""
    path, content = place / "data.csv", (place / "data.csv").read_bytes()
    (place / "bad.csv").write_text("series,from,to\n,2024-01-02,2024-01-03\n")
    excluded = (place / "bad.csv").read_bytes()
    change(place, "[model]", 'exclude = "bad.csv"\n[model]')

    def forecast_and_change(*arguments: object) -> object:
        if how == "grown":
            path.write_bytes(content + content.splitlines()[-1] + b"\n")
        elif how == "gone":
            path.rename(place / "data.csv.1")
        elif how == "rewritten":
            path.write_bytes(content.replace(b"1", b"2"))
        else:
            (place / "new.csv").write_bytes(content.replace(b"1", b"2"))
            (place / "new.csv").replace(path)
        return forecast(*arguments)

    monkeypatch.setattr("rnnforecast.jobs.run.forecast", forecast_and_change)
    assert run(command, place).code in (0, 3)
    manifest = json.loads((place / "out/run.json").read_text())
    entries = {Path(entry["path"]).name: entry for entry in manifest["inputs"]}
    assert entries.keys() == {"data.csv", "bad.csv"}
    assert entries["data.csv"]["bytes"] == len(content)
    assert entries["data.csv"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert entries["bad.csv"]["sha256"] == hashlib.sha256(excluded).hexdigest()


def test_the_same_run_again_writes_nothing(command: Command, place: Path) -> None:
    run(command, place)
    before = files(place)
    states = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}

    again = run(command, place)

    assert (again.code, again.document["status"]) == (0, "already published")
    assert files(place) == before
    changed = {path.name for path, at in states.items() if path.stat().st_mtime_ns != at}
    assert changed == {"run.log", "job.prom"}
    assert log(place)[-1]["status"] == "already published"


def test_force_publishes_again_the_same_bytes(command: Command, place: Path) -> None:
    run(command, place)
    before = files(place)
    again = run(command, place, "--force")
    assert again.document["status"] == "published"
    assert log(place)[-1]["status"] == "published"
    after = files(place)
    assert after.keys() == before.keys()
    # The manifest states the second of publication, which may be the same one.
    assert {name for name in after if after[name] != before[name]} <= {"out/run.json"}


@pytest.mark.parametrize("damage", ["output", "ledger", "manifest"])
def test_what_is_missing_or_damaged_is_made_again(
    damage: str, command: Command, place: Path
) -> None:
    run(command, place)
    before = files(place)
    (part,) = (place / "ledger").glob("*.parquet")
    if damage == "output":
        (place / "out/forecast.csv").write_bytes(b"half")
    else:
        {"ledger": part, "manifest": place / "out/run.json"}[damage].unlink()

    assert run(command, place).document["status"] == "published"

    after = files(place)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {"out/run.json"}
    assert run(command, place).document["status"] == "already published"


def test_new_readings_are_another_run(command: Command, place: Path) -> None:
    first = run(command, place).document
    readings = pd.read_csv(place / "data.csv")
    readings[:-1].to_csv(place / "data.csv", index=False)
    second = run(command, place).document
    assert second["status"] == "published"
    assert second["key"] != first["key"]
    assert len(list((place / "ledger").glob("*.parquet"))) == 2


def test_other_bytes_that_say_the_same_are_the_same_run(command: Command, place: Path) -> None:
    run(command, place)
    content = (place / "data.csv").read_bytes()
    (place / "data.csv").write_bytes(content.replace(b"\n", b"\r\n"))
    assert run(command, place).document["status"] == "already published"


def test_a_job_does_the_same_from_any_folder(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(command, place)
    monkeypatch.chdir(place)
    assert command("run", "job.toml", "--json").document["status"] == "already published"


def test_a_catch_up_has_one_output_for_each_time(command: Command, place: Path) -> None:
    change(place, "out/forecast.csv", "out/{as_of}.csv")
    stamps = stamps_of(place)
    first, last = (stamps[n].replace(" ", "T") for n in (300, 372))
    outcome = run(command, place, "--from", first, "--to", last, "--every", "1d")
    assert outcome.code == 0
    times = [result["as_of"] for result in outcome.document["runs"]]
    assert times == [stamps[n].replace(" ", "T") for n in (300, 324, 348, 372)]
    for n, time in zip((300, 324, 348, 372), times, strict=True):
        part = pd.read_csv(place / f"out/{time.replace(':', '')}.csv")
        assert part["timestamp"].min() == stamps[n + 1]
    again = run(command, place, "--from", first, "--to", last)
    assert {result["status"] for result in again.document["runs"]} == {"already published"}


def test_a_catch_up_goes_on_after_a_time_that_has_no_readings(
    command: Command, place: Path
) -> None:
    change(place, "out/forecast.csv", "out/{as_of}.csv")
    outcome = run(command, place, "--from", "2023-12-31", "--to", "2024-01-02")
    assert [result["status"] for result in outcome.document["runs"]] == [
        "failed",
        "failed",
        "published",
    ]
    assert (outcome.code, outcome.document["published"], outcome.document["total"]) == (3, 1, 3)
    assert (log(place)[-1]["exit"], gauges(place)["last_exit_code"]) == (3, 3)
    outcome = run(command, place, "--from", "2023-12-30", "--to", "2023-12-31")
    assert (outcome.code, outcome.document["published"]) == (5, 0)


def test_stale_readings_publish_nothing_and_leave_what_is_there(
    command: Command, place: Path
) -> None:
    run(command, place)
    before, success = files(place), gauges(place)["last_success_timestamp_seconds"]
    (place / "job.toml").write_text(JOB + '[fresh]\nmax_age = "2h"\n')
    before["job.toml"] = (place / "job.toml").read_bytes()

    outcome = run(command, place)

    assert outcome.code == 5
    assert outcome.document["status"] == "stale"
    assert outcome.error["code"] == "stale"
    assert outcome.error["message"].endswith("limit max_age = 2h in [fresh] of job.toml")
    assert files(place) == before
    assert log(place)[-1]["exit"] == 5
    values = gauges(place)
    assert (values["last_exit_code"], values["last_success_timestamp_seconds"]) == (5, success)


def test_a_series_that_falls_back_is_partial_and_marked(command: Command, place: Path) -> None:
    readings = pd.read_csv(place / "data.csv")
    readings.loc[370:, "level"] = float("nan")
    readings.to_csv(place / "data.csv", index=False)
    outcome = run(command, place)
    assert outcome.code == 3
    assert outcome.document["degraded"] == 1
    sources = pd.read_csv(place / "out/forecast.csv").groupby("series")["source"].unique()
    assert sources["flow"].tolist() == ["network"]
    assert sources["level"].tolist() == ["seasonal_naive"]
    assert gauges(place)["series_degraded"] == 1
    assert run(command, place, "--force", "--fail-on", "error").code == 0


def test_a_partial_forecast_stays_partial_where_nothing_is_new(
    command: Command, place: Path
) -> None:
    readings = pd.read_csv(place / "data.csv")
    readings.loc[370:, "level"] = float("nan")
    readings.to_csv(place / "data.csv", index=False)
    assert run(command, place).code == 3
    again = run(command, place)
    assert (again.code, again.document["status"]) == (3, "already published")
    assert command("status", place / "job.toml").code == 3
    assert run(command, place, "--fail-on", "error").code == 0


def test_a_series_that_is_silent_or_gone_is_degraded(command: Command, place: Path) -> None:
    wide = pd.read_csv(place / "data.csv")
    long = wide.melt("timestamp", var_name="pump", value_name="value")
    long.to_csv(place / "data.csv", index=False)
    command("train", place / "data.csv", "-m", place / "model", "-q", *SMALL)
    assert run(command, place).code == 0
    is_silent = (long["pump"] == "level") & (long.index % len(wide) > len(wide) - 20)
    for part in (long[~is_silent], long[long["pump"] == "flow"]):
        part.to_csv(place / "data.csv", index=False)
        outcome = run(command, place)
        assert (outcome.code, outcome.document["degraded"]) == (3, 1)
    assert gauges(place)["series_degraded"] == 1


def test_a_forecast_from_older_readings_than_before_is_a_warning(
    command: Command, place: Path
) -> None:
    first = run(command, place).document
    readings = pd.read_csv(place / "data.csv")
    readings[:-24].to_csv(place / "data.csv", index=False)
    outcome = run(command, place)
    messages = {w["code"]: w["message"] for w in outcome.document["warnings"]}
    assert first["as_of"] in messages["older-readings"]
    newest = pd.Timestamp(readings["timestamp"].iloc[-25], tz="UTC")
    age_s = command("status", place / "job.toml", "--json").document["data_age_s"]
    assert age_s == pytest.approx((pd.Timestamp.now("UTC") - newest).total_seconds(), abs=60)


@pytest.mark.parametrize(
    "key", ['valid_range = ["flwo=0:30"]', 'freq = "1h"\nagg = ["mean", "flwo=sum"]']
)
def test_an_option_for_a_series_that_nobody_knows_is_an_error(
    command: Command, place: Path, key: str
) -> None:
    change(place, "[model]", f"{key}\n[model]")
    outcome = run(command, place)
    assert outcome.code == 2 and "'flwo'" in outcome.error["message"]
    assert not (place / "out/forecast.csv").exists()


def test_what_helps_is_named_as_keys_of_the_job_file(command: Command, place: Path) -> None:
    change(place, "[model]", 'na_values = ["x"]\n[model]')
    readings = (place / "data.csv").read_text().splitlines()
    readings[60] = readings[60].split(",")[0] + ",n.m.,1"
    (place / "data.csv").write_text("\n".join(readings))
    error = run(command, place).error
    assert 'na_values = ["x", "n.m."]  in [data] of job.toml' in error["hint"]
    change(place, 'na_values = ["x"]', 'na_values = ["x", "n.m."]')
    (place / "data.csv").write_text("\n".join([*readings, readings[-1].replace(",", ",9")]))
    error = run(command, place).error
    assert 'on_duplicate = "last"  in [data] of job.toml' in error["hint"]
    change(place, '["x", "n.m."]', '["x", "n.m."]\non_duplicate = "last"')
    assert run(command, place).code == 0


def test_a_dry_run_writes_nothing(command: Command, place: Path) -> None:
    before = files(place)
    outcome = run(command, place, "--dry-run")
    assert (outcome.code, outcome.document["status"]) == (0, "planned")
    assert files(place) == before
    assert not (place / "run.log").exists() and not (place / "out").exists()
    run(command, place)
    assert run(command, place, "--dry-run").document["status"] == "already published"


def test_a_failure_is_told(command: Command, place: Path) -> None:
    script = "import os, sys; print(os.environ['RNNFORECAST_EXIT'], sys.stdin.read(), file=open("
    script += f"{str(place / 'notice')!r}, 'w'))"
    words = json.dumps([sys.executable, "-c", script])
    (place / "job.toml").write_text(JOB + f"[notify]\non_failure = {words}\n")
    (place / "data.csv").write_text("no,table\n")
    outcome = run(command, place)
    assert outcome.code == 4
    notice = (place / "notice").read_text()
    assert notice.startswith("4") and "job job failed" in notice
    assert log(place)[-1]["status"] == "failed"


def test_a_command_that_cannot_be_told_is_a_warning(command: Command, place: Path) -> None:
    (place / "job.toml").write_text(JOB + '[notify]\non_failure = ["/no/such/command"]\n')
    (place / "data.csv").write_text("no,table\n")
    outcome = run(command, place)
    assert outcome.code == 4
    assert "/no/such/command" in outcome.err


def test_a_damaged_model_is_exit_6_and_logged(command: Command, place: Path) -> None:
    (weights,) = (place / "model").rglob("weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert run(command, place).code == 6
    assert log(place)[-1]["exit"] == 6
    assert not (place / "out/forecast.csv").exists()


def test_without_a_manifest_the_forecast_stays_as_it_was(command: Command, place: Path) -> None:
    readings = (place / "data.csv").read_text().splitlines(keepends=True)
    (place / "data.csv").write_text("".join(readings[:-6]))
    assert run(command, place).code == 0
    before = (place / "out/forecast.csv").read_bytes()
    (place / "data.csv").write_text("".join(readings))
    (place / "out/run.json").unlink()
    (place / "out/run.json").mkdir()
    outcome = run(command, place)
    assert outcome.code == 7 and "run.json" in outcome.error["message"]
    assert (place / "out/forecast.csv").read_bytes() == before
    (place / "out/run.json").rmdir()
    assert run(command, place).code == 0
    assert (place / "out/forecast.csv").read_bytes() != before
    assert not list(place.rglob(".tmp-*"))


def test_an_output_among_the_readings_is_refused(command: Command, place: Path) -> None:
    change(place, '"data.csv"', '"*.csv"')
    change(place, "out/forecast.csv", "forecast.csv")
    outcome = run(command, place)
    assert outcome.code == 2 and "is inside the folder of" in outcome.err


def test_two_jobs_do_not_share_a_manifest(command: Command, place: Path) -> None:
    run(command, place)
    (place / "other.toml").write_text(JOB.replace("out/forecast.csv", "out/other.csv"))
    outcome = command("run", place / "other.toml", "--json")
    assert (outcome.code, outcome.error["code"]) == (2, "shared-output")


def test_the_ledger_keeps_what_the_forecast_is_held_against(command: Command, place: Path) -> None:
    run(command, place)
    (part,) = (place / "ledger").glob("*.parquet")
    rows = pa_parquet.read_table(part).to_pandas()
    assert list(rows["lead"]) == [1, 2, 3, 4, 5, 6] * 2
    readings = pd.read_csv(place / "data.csv")
    assert rows["seasonal_naive"][:6].tolist() == pytest.approx(
        readings["flow"][-24:-18].tolist(), rel=1e-6
    )
    assert (rows["cutoff"].astype(str).unique() == [stamps_of(place)[-1]]).all()


def test_score_joins_the_ledger_with_what_has_come(command: Command, place: Path) -> None:
    change(place, "out/forecast.csv", "out/{as_of}.csv")
    stamps = [stamp.replace(" ", "T") for stamp in stamps_of(place)]
    run(command, place, "--from", stamps[300], "--to", stamps[372], "--every", "6h")
    model = ["--ledger", place / "ledger", "--data", place / "data.csv", "-m", place / "model"]
    untrained = command("score", *model, "--json")
    assert (untrained.code, untrained.error["code"]) == (5, "nothing-to-score")
    assert "--in-sample" in untrained.error["hint"]
    model.append("--in-sample")
    outcome = command("score", *model, "--json")
    assert outcome.code == 0
    scores = {score["series"]: score for score in outcome.document["scores"]}
    assert list(scores) == ["flow", "level"]
    readings = pd.read_csv(place / "data.csv").set_index("timestamp")
    parts = [pa_parquet.read_table(p) for p in sorted((place / "ledger").glob("*.parquet"))]
    rows = pd.concat(part.to_pandas() for part in parts)
    for name, score in scores.items():
        issued = rows[rows["series"] == name]
        actual = issued["timestamp"].astype(str).map(readings[name])
        seen = actual.notna()
        assert score["n"] == int(seen.sum())
        assert score["mae"] == pytest.approx(
            float((actual - issued["forecast"])[seen].abs().mean())
        )
    by_lead = command("score", *model, "--json", "--by", "lead").document["scores"]
    assert [score["lead"] for score in by_lead] == [1, 2, 3, 4, 5, 6]
    of_job = command("score", "--job", place / "job.toml", "--json", "--in-sample")
    assert of_job.document == outcome.document
    assert command("score", *model, "--since", "2d", "--by", "series,day").code == 0
    pooled = command("score", *model, "--by", "")
    assert pooled.code == 0 and "all" in pooled.out


def test_a_ledger_that_no_memory_holds_is_scored_in_part(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = stamps_of(place)
    for stamp in stamps[-30:-28]:
        assert run(command, place, "--as-of", stamp).code == 0
    words = ("score", "--ledger", place / "ledger", "--data", place / "data.csv", "--in-sample")
    words = (*words, "-m", place / "model", "--json")
    whole = command(*words)
    monkeypatch.setattr("rnnforecast.jobs.ledger._BYTES_PER_ROW", 1 << 40)
    refused = command(*words)
    assert (refused.code, refused.error["code"]) == (4, "memory")
    assert "--since" in refused.error["hint"] and str(place / "ledger") in refused.error["message"]
    assert whole.code == 0


def test_score_without_a_ledger_says_so(command: Command, place: Path) -> None:
    outcome = command("score", "--job", place / "job.toml", "--json")
    assert (outcome.code, outcome.error["code"]) == (4, "no-ledger")


def test_score_without_readings_that_came_is_exit_5(command: Command, place: Path) -> None:
    run(command, place)
    outcome = command("score", "--job", place / "job.toml", "--json")
    assert (outcome.code, outcome.error["code"]) == (5, "nothing-to-score")


def test_a_drift_that_may_not_be_is_exit_8(command: Command, place: Path) -> None:
    change(place, "out/forecast.csv", "out/{as_of}.csv")
    readings = pd.read_csv(place / "data.csv")
    stamps = [stamp.replace(" ", "T") for stamp in readings["timestamp"]]
    run(command, place, "--from", stamps[340], "--to", stamps[390], "--every", "6h")
    arguments = ["score", "--job", place / "job.toml", "--in-sample", "--max-drift", "6"]
    assert command(*arguments).code == 0
    readings.loc[341:, "flow"] += 500
    readings.to_csv(place / "data.csv", index=False)
    outcome = command(*arguments, "--json")
    assert outcome.code == 8 and "flow" in outcome.error["message"]


def test_status_says_how_old_everything_is(command: Command, place: Path) -> None:
    unknown = command("status", place / "job.toml", "--json").document
    assert (unknown["last_exit"], unknown["output"]) == (None, None)
    run(command, place)
    known = command("status", place / "job.toml", "--json").document
    assert known["last_exit"] == 0
    assert known["last_success_age_s"] < 60 and known["forecast_age_s"] < 60
    assert known["data_age_s"] > 86_400 * 365
    assert known["output"] == str(place / "out/forecast.csv")
    (place / "data.csv").write_text("no,table\n")
    run(command, place)
    failed = command("status", place / "job.toml", "--json").document
    assert failed["last_exit"] == 4
    assert failed["last_success_age_s"] < 60
    assert "4" in command("status", place / "job.toml").out.splitlines()[0]


@pytest.mark.parametrize("how", ["text", "none"])
def test_status_says_success_only_of_a_run_that_is_recorded(
    command: Command, place: Path, how: str
) -> None:
    change(place, '[metrics]\ntextfile = "job.prom"\n', "")
    log = '[log]\nfile = "run.log"\n'
    change(place, log, f'{log}format = "text"\n' if how == "text" else "")
    run(command, place)
    (place / "data.csv").write_text("no,table\n")
    assert run(command, place).code == 4
    outcome = command("status", place / "job.toml")
    assert outcome.code == (3 if how == "text" else 0)
    assert "succeeded" not in outcome.out


def test_a_time_limit_is_exit_124_and_publishes_nothing(command: Command, place: Path) -> None:
    outcome = run(command, place, "--max-time", "1ms")
    assert (outcome.code, outcome.error["code"]) == (124, "time-limit")
    assert not (place / "out/forecast.csv").exists()
    assert log(place)[-1]["exit"] == 124


def test_use_puts_another_version_active_and_back(command: Command, place: Path) -> None:
    (first,) = (path.name for path in (place / "model/versions").iterdir())
    command("train", place / "data.csv", "-m", place / "model", "-q", "--seed", "3", *SMALL)
    second = (place / "model/CURRENT").read_text().strip()
    assert second != first
    outcome = command("use", first, "-m", place / "model", "--json")
    assert outcome.document == {"model": str(place / "model"), "version": first, "before": second}
    assert (place / "model/CURRENT").read_text() == f"{first}\n"
    assert command("use", first, "-m", place / "model").out == f"{first} is already active\n"
    outcome = command("use", "latest", "-m", place / "model")
    assert outcome.out == f"now using {second} (was {first})\n"
    assert command("use", "previous", "-m", place / "model", "--json").document["version"] == first
    assert command("use", "20200101T000000Z-000000", "-m", place / "model").code == 6


def test_a_damaged_version_does_not_come_into_force(command: Command, place: Path) -> None:
    (version,) = (place / "model/versions").iterdir()
    (version / "weights.safetensors").write_bytes(b"")
    before = files(place / "model")
    assert command("use", version.name, "-m", place / "model").code == 6
    assert files(place / "model") == before
