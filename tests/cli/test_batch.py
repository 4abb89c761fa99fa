"""Forecasts in batches: whoever forecasts which bucket, and when, the bytes are the same."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.cli.main import run
from rnnforecast.sources.shards import bucket_of
from rnnforecast.storage.durable import CRASH_VARIABLE
from tests.builders import wave
from tests.conftest import SMALL, Command
from tests.faults.warm import Warm

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "many-series.md"
N_BUCKETS = 7
N_SERIES = 9


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `long.csv`, `buckets` made of it, and `model`. Not to be changed."""
    folder = tmp_path_factory.mktemp("plant")
    stamps = pd.date_range("2026-01-01", periods=120, freq="h")
    tables = [
        pd.DataFrame({"time": stamps, "sensor": f"s{i}", "value": (i + 1) * wave(120, seed=i)})
        for i in range(N_SERIES)
    ]
    pd.concat(tables).to_csv(folder / "long.csv", index=False)
    for line in (
        ["shard", folder / "long.csv", "--output", folder / "buckets", "--buckets", N_BUCKETS],
        ["train", folder / "buckets", "--model", folder / "model", *SMALL],
    ):
        assert run([*map(str, line), "-q"]) == 0
    return folder


def predicting(plant: Path, output: Path, *more: object) -> list[str]:
    line = ["predict", plant / "buckets", "-m", plant / "model", "-o", output, *more]
    return [str(part) for part in line]


def parts_of(output: Path) -> dict[str, bytes]:
    """Everything that is published of a forecast, by name."""
    (folder,) = (output / "runs").iterdir()
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def serial(plant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The forecast by one worker."""
    output = tmp_path_factory.mktemp("serial") / "forecast"
    assert run([*predicting(plant, output, "--workers", "1"), "-q"]) == 0
    return output


def test_one_worker_forecasts_every_series_as_one_command_does(
    command: Command, plant: Path, serial: Path
) -> None:
    outcome = command("predict", plant / "long.csv", "-m", plant / "model", "-o", "all.csv")

    assert outcome.code == 0, outcome.err
    whole = pd.read_csv("all.csv", parse_dates=["timestamp"])
    folder = serial / (serial / "CURRENT").read_text().strip()
    batched = pd.read_parquet(folder)
    order = ["series", "timestamp"]
    whole, batched = (t.sort_values(order).reset_index(drop=True) for t in (whole, batched))
    assert list(whole) == list(batched)
    assert (whole["series"] == batched["series"]).all()
    assert (whole["timestamp"] == batched["timestamp"]).all()
    for name in list(whole)[2:]:
        np.testing.assert_allclose(batched[name], whole[name], rtol=1e-5)


def test_a_fallback_forecasts_in_a_bucket_as_it_does_in_one_command(
    command: Command, plant: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(plant / "long.csv")
    is_missing = (table["sensor"] == "s3") & (table.groupby("sensor").cumcount() < 110)
    table[~is_missing].to_csv("new.csv", index=False)  # ten readings of s3
    command("shard", "new.csv", "--output", "new", "--buckets", N_BUCKETS, "-q")
    options = ["-m", plant / "model", "--fallback", "expert"]

    assert command("predict", "new.csv", *options, "-o", "all.csv").code == 3
    assert command("predict", "new", *options, "-o", "out", "--workers", "1").code == 3

    batched = pd.read_parquet(tmp_path / "out" / (tmp_path / "out/CURRENT").read_text().strip())
    tables = pd.read_csv("all.csv"), batched
    whole, part = (t[t["series"] == "s3"].reset_index(drop=True) for t in tables)
    assert set(whole["source"]) == set(part["source"]) == {"expert"}
    for name in ("forecast", "q10", "q90"):
        np.testing.assert_allclose(part[name], whole[name], rtol=1e-5)


def test_a_bucket_imports_nothing_that_was_not_imported_before_workers_are_forked(
    plant: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; from rnnforecast.batch import predict, preload; before = set(sys.modules); "
        "data, model, output = sys.argv[1:]; batch = predict.BatchConfig(shard='0/1'); "
        "predict.predict_batch(data, model=model, output=output, batch=batch); "
        "print(*sorted(set(sys.modules) - before))"
    )
    line = [sys.executable, "-c", program, plant / "buckets", plant / "model", tmp_path / "out"]

    outcome = subprocess.run(line, capture_output=True, text=True)

    assert outcome.returncode == 0, outcome.stderr
    assert set(outcome.stdout.split()) <= {"pyarrow.vendored.version"}


@pytest.fixture
def uneven(plant: Path, tmp_path: Path) -> list[str]:
    """A command on buckets one of which has been silent for three days: its sensors are slow."""
    table = pd.read_csv(plant / "long.csv", parse_dates=["time"])
    silent = table["sensor"].map(lambda name: bucket_of(name, N_BUCKETS)) == bucket_of(
        "s0", N_BUCKETS
    )
    table[~silent | (table["time"] < table["time"].max() - pd.Timedelta("3D"))].to_csv(
        tmp_path / "uneven.csv", index=False
    )
    line = ["shard", tmp_path / "uneven.csv", "--output", tmp_path / "uneven", "--buckets"]
    assert run([*map(str, line), str(N_BUCKETS), "-q"]) == 0
    line = ["predict", tmp_path / "uneven", "-m", plant / "model", "-o", tmp_path / "out"]
    return [*map(str, line), "--json"]


@pytest.mark.parametrize("options", [["--workers", "1"], ["--workers", "2"]])
def test_how_old_readings_are_is_judged_by_the_newest_of_all_buckets(
    options: list[str], uneven: list[str], command: Command, tmp_path: Path
) -> None:
    at = ["--as-of", "2026-01-06 02:00"]  # the newest reading is of 23:00

    stale = command(*uneven, *options, *at, "--max-age", "2h")
    assert not (tmp_path / "out/CURRENT").exists()
    fresh = command(*uneven, *options, *at, "--max-age", "4h", "--warn-age", "2h")
    again = command(*uneven, *options, *at, "--max-age", "2h")

    assert (stale.code, stale.error["code"]) == (5, "stale")
    assert "--max-age 2h" in stale.error["message"]
    assert fresh.code == 0, fresh.err
    assert "stale" in [warning["code"] for warning in fresh.document["warnings"]]
    assert again.code == 5, "what is published already is stale all the same"


def test_who_forecasts_some_buckets_leaves_the_age_to_the_commit_and_says_so(
    uneven: list[str], command: Command
) -> None:
    options = ["--as-of", "2026-01-06 02:00", "--max-age", "2h"]

    some = command(*uneven, *options, "--shard", "0/1")
    commit = command(*uneven, *options, "--commit")

    assert some.code == 0, some.err
    assert "judged-later" in [warning["code"] for warning in some.document["warnings"]]
    assert (commit.code, commit.error["code"]) == (5, "stale")


def test_a_list_of_bad_times_that_changes_between_two_shards_makes_another_forecast(
    command: Command, plant: Path, tmp_path: Path
) -> None:
    def shard(index: int, day: int) -> str:
        text = f"series,from,to\n,2026-01-0{day} 00:00,2026-02-01\n"
        Path("bad.csv").write_text(text)
        line = predicting(plant, tmp_path / "out", "--exclude", "bad.csv", "--json")
        outcome = command(*line, "--shard", f"{index}/2")
        assert outcome.code in (0, 3), outcome.err
        return str(outcome.document["key"])

    first, other, again = shard(0, 4), shard(1, 5), shard(0, 4)
    line = predicting(plant, tmp_path / "out", "--exclude", "bad.csv", "--json")
    commit = command(*line, "--commit")

    assert first == again != other
    assert (commit.code, commit.error["code"]) == (4, "missing-parts")


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_shards_in_any_order_give_the_same_bytes(
    n: int, command: Command, plant: Path, serial: Path, tmp_path: Path
) -> None:
    order = list(range(n))
    random.Random(n).shuffle(order)
    for index in [*order, order[0]]:  # one of them twice
        outcome = command(*predicting(plant, tmp_path / "out", "--shard", f"{index}/{n}"))
        assert outcome.code == 0, outcome.err
    assert not (tmp_path / "out/CURRENT").exists()

    outcome = command(*predicting(plant, tmp_path / "out", "--commit", "--json"))

    assert outcome.code == 0, outcome.err
    assert outcome.document["status"] == "published"
    assert outcome.document["series"] == N_SERIES
    assert outcome.document["rows"] == 6 * N_SERIES
    assert outcome.document["buckets"] == list(range(N_BUCKETS))
    assert parts_of(tmp_path / "out") == parts_of(serial)


def test_two_workers_give_the_same_bytes(
    command: Command, plant: Path, serial: Path, tmp_path: Path
) -> None:
    outcome = command(*predicting(plant, tmp_path / "out", "--workers", "2"))

    assert outcome.code == 0, outcome.err
    assert parts_of(tmp_path / "out") == parts_of(serial)


@pytest.mark.slow
def test_tasks_of_ray_give_the_same_bytes(plant: Path, serial: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    line = predicting(plant, tmp_path / "out", "--engine", "ray", "--workers", "2")

    outcome = subprocess.run(
        [sys.executable, "-m", "rnnforecast", *line], capture_output=True, text=True
    )

    assert outcome.returncode == 0, outcome.stderr
    assert parts_of(tmp_path / "out") == parts_of(serial)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "pyspark"])
def test_the_recipe_for_another_engine_gives_the_same_bytes(
    engine: str, plant: Path, serial: Path, tmp_path: Path
) -> None:
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    dask, spark = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if engine == "pyspark":
        begin = "from pyspark.sql import SparkSession\nspark = SparkSession.builder.getOrCreate()\n"
        _, _, commit = dask.partition('scheduler="processes")\n')
        dask = dask.partition("if __name__")[0].replace("import dask\n", begin)
        dask += spark + textwrap.dedent(commit)
    (tmp_path / "recipe.py").write_text(dask)
    (tmp_path / "plant").symlink_to(plant / "buckets")
    (tmp_path / "model").symlink_to(plant / "model")

    local = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    outcome = subprocess.run(
        [sys.executable, "recipe.py"],
        cwd=tmp_path,
        env={**os.environ, **local},
        capture_output=True,
        text=True,
    )

    assert outcome.returncode == 0, outcome.stderr
    assert parts_of(tmp_path / "forecast") == parts_of(serial)


def test_without_ray_its_engine_says_how_to_install_it(
    command: Command, plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    outcome = command(*predicting(plant, tmp_path / "out", "--engine", "ray", "--json"))

    assert outcome.code == 2
    assert "rnnforecast[ray]" in outcome.error["hint"]


def test_the_same_again_writes_nothing(command: Command, plant: Path, serial: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in serial.rglob("*")}

    outcome = command(*predicting(plant, serial, "--workers", "1", "--json"))

    assert outcome.code == 0, outcome.err
    assert outcome.document["status"] == "already published"
    assert {path: path.stat().st_mtime_ns for path in serial.rglob("*")} == before


def test_what_is_missing_or_damaged_is_not_committed_and_is_done_again(
    command: Command, plant: Path, serial: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    for index in (0, 1):
        command(*predicting(plant, output, "--shard", f"{index}/3"))

    missing = command(*predicting(plant, output, "--commit", "--json"))
    command(*predicting(plant, output, "--shard", "2/3"))
    damaged = next(output.rglob("bucket-*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    refused = command(*predicting(plant, output, "--commit", "--json"))

    damaged.unlink()
    os.mkfifo(damaged)
    waiting = command(*predicting(plant, output, "--commit", "--json"))

    for outcome in (missing, refused, waiting):
        assert outcome.code == 4
        assert outcome.error["code"] == "missing-parts"
    assert "2, 5" in missing.error["message"]
    assert not (output / "CURRENT").exists()
    assert command(*predicting(plant, output, "--workers", "1")).code == 0
    assert parts_of(output) == parts_of(serial)


def test_a_part_with_series_of_another_bucket_is_refused(
    command: Command, plant: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command(*predicting(plant, output, "--shard", "0/1"))
    manifests = [json.loads(path.read_text()) for path in sorted(output.rglob("_bucket-*.json"))]
    replaced, foreign = [part for part in manifests if part["file"] is not None][:2]
    (folder,) = (output / "runs").iterdir()
    content = (folder / foreign["file"]["name"]).read_bytes()
    (folder / replaced["file"]["name"]).write_bytes(content)
    file = {**foreign["file"], "name": replaced["file"]["name"]}
    forged = {**foreign, "bucket": replaced["bucket"], "file": file}
    (folder / f"_bucket-{replaced['bucket']:05d}.json").write_text(json.dumps(forged))

    outcome = command(*predicting(plant, output, "--commit", "--json"))

    assert outcome.code == 4
    assert outcome.error["code"] == "wrong-part"
    assert "of another bucket" in outcome.error["message"]


def test_series_that_the_model_does_not_know_are_forecast_and_said_to_be_new(
    command: Command, plant: Path, tmp_path: Path
) -> None:
    few = pd.read_csv(plant / "long.csv")
    few[few["sensor"] == "s0"].to_csv("few.csv", index=False)
    assert command("train", "few.csv", "-m", "small", *SMALL, "-q").code == 0
    line = ["predict", plant / "buckets", "-m", "small", "-o", tmp_path / "out", "--json"]

    outcome = command(*line, "--workers", "1")
    strict = command(*line, "--workers", "1", "--require-series")

    assert outcome.code == strict.code == 0, outcome.err
    warnings = {warning["code"]: warning["count"] for warning in outcome.document["warnings"]}
    assert warnings["new-series"] == N_SERIES - 1
    assert "vanished-series" not in warnings
    assert outcome.document["series"] == N_SERIES


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_wrong_with_a_bucket_is_said_whoever_reads_it(
    workers: int, command: Command, plant: Path, tmp_path: Path
) -> None:
    shutil.copytree(plant / "buckets", tmp_path / "buckets")
    file = max((tmp_path / "buckets").glob("bucket-*.parquet"))
    file.write_bytes(b"PAR1" + b"?" * (file.stat().st_size - 8) + b"PAR1")
    line = ["predict", tmp_path / "buckets", "-m", plant / "model", "-o", tmp_path / "out"]

    outcome = command(*line, "--workers", str(workers), "--json")

    assert outcome.code == 4
    assert outcome.error["code"] == "unreadable"
    assert file.name in outcome.error["message"]
    assert outcome.error["hint"]


def test_another_model_is_another_forecast_beside_the_one_active(
    command: Command, plant: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command(*predicting(plant, output, "--workers", "1"))
    first = (output / "CURRENT").read_text()

    outcome = command(*predicting(plant, output, "--shard", "0/2", "--quantiles", "0.25"))

    assert outcome.code == 0, outcome.err
    assert len(list((output / "runs").iterdir())) == 2
    assert (output / "CURRENT").read_text() == first


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shard", "3/3"], "is not I/N"),
        (["--shard", "x"], "is not I/N"),
        (["--shard", "0/3", "--commit"], "cannot be combined"),
        (["--workers", "0"], "between 1 and"),
        (["--commit", "--workers", "2"], "already include --commit"),
        (["--commit", "--address", "auto"], "needs --engine ray"),
        (["--commit", "--future", "x.csv"], "cannot be used with buckets"),
        (["--commit", "--plot"], "a folder of Parquet files"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    options: list[str], says: str, command: Command, plant: Path, tmp_path: Path
) -> None:
    outcome = command(*predicting(plant, tmp_path / "out", *options, "--json"))

    assert outcome.code == 2
    assert says in outcome.error["message"]


def test_a_file_is_no_folder_of_buckets(command: Command, plant: Path, tmp_path: Path) -> None:
    line = ["predict", plant / "long.csv", "-m", plant / "model", "--shard", "0/2", "--json"]

    on_a_file = command(*line, "-o", tmp_path / "out")
    to_a_file = command(*predicting(plant, tmp_path / "out.csv", "--shard", "0/2", "--json"))

    assert on_a_file.code == 2
    assert "rnnforecast shard" in on_a_file.error["hint"]
    assert to_a_file.code == 2


KILLS = [
    ("part-forecast", ["--shard", "0/1"]),
    ("file-synced", ["--shard", "0/1"]),
    ("part-file-published:2", ["--shard", "0/1"]),
    ("part-published:3", ["--shard", "0/1"]),
    ("forecast-complete", ["--workers", "1"]),
    ("forecast-activated", ["--workers", "1"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("where", "options"), KILLS)
def test_after_a_kill_the_same_command_gives_the_same_bytes(
    where: str,
    options: list[str],
    command: Command,
    plant: Path,
    serial: Path,
    tmp_path: Path,
    warm: Warm,
) -> None:
    output = tmp_path / "out"
    line = predicting(plant, output, *options)

    killed = warm.run(*line, cwd=tmp_path, env={CRASH_VARIABLE: where})

    assert killed.code == -signal.SIGKILL
    if where != "forecast-activated":
        assert not (output / "CURRENT").exists()
    assert command(*line).code == 0
    assert command(*predicting(plant, output, "--commit")).code == 0
    assert parts_of(output) == parts_of(serial)


@pytest.mark.slow
def test_workers_that_are_killed_again_and_again_lose_nothing_that_is_published(
    plant: Path, serial: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    line = [sys.executable, "-m", "rnnforecast", *predicting(plant, output, "--workers", "2")]
    always = {**os.environ, CRASH_VARIABLE: "part-forecast"}
    once_each = {**os.environ, CRASH_VARIABLE: "part-forecast:3"}

    hopeless = subprocess.run(line, env=always, capture_output=True, text=True)
    hopeful = subprocess.run(line, env=once_each, capture_output=True, text=True)

    assert hopeless.returncode == 10, hopeless.stderr
    assert "worker died" in hopeless.stderr
    assert hopeful.returncode == 0, hopeful.stderr
    assert parts_of(output) == parts_of(serial)


@pytest.mark.slow
def test_two_on_the_same_shard_publish_it_once(
    command: Command, plant: Path, serial: Path, tmp_path: Path, warm: Warm
) -> None:
    output = tmp_path / "out"
    line = predicting(plant, output, "--shard", "0/1")

    both = [warm.start(*line, cwd=tmp_path) for _ in range(2)]

    assert [process.wait().code for process in both] == [0, 0]
    assert command(*predicting(plant, output, "--commit")).code == 0
    assert parts_of(output) == parts_of(serial)


@pytest.mark.skipif(os.getuid() != 0, reason="only root is another user for a while")
def test_a_folder_that_may_not_be_entered_cannot_be_written_to(
    command: Command, plant: Path, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    for folder in (tmp_path, *tmp_path.parents[:-2], plant):
        folder.chmod(folder.stat().st_mode | 0o755)
    os.seteuid(65534)
    try:
        outcome = command(*predicting(plant, tmp_path / "closed" / "out", "--shard", "0/2"))
    finally:
        os.seteuid(0)

    assert outcome.code == 7, outcome.err
    assert "Permission denied" in outcome.err
