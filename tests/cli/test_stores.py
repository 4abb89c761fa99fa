"""Commands whose readings, model and output are on an object store, and what they refuse there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests import objectstore
from tests.builders import wave, write_wide
from tests.conftest import SMALL, Command
from tests.faults.warm import ROOT, plain
from tests.objectstore import ACCESS, Bucket

SECRET = ACCESS["AWS_SECRET_ACCESS_KEY"]


@pytest.fixture
def stocked(bucket: Bucket, trained: Path) -> Bucket:
    """A bucket with readings, and a model that has learnt from them on a disk."""
    bucket.put("in/data.csv", trained / "data.csv")
    bucket.put("model", trained / "model")
    return bucket


def test_a_forecast_is_the_same_wherever_things_are(
    stocked: Bucket, trained: Path, command: Command, tmp_path: Path
) -> None:
    model, data = stocked.url("model"), stocked.url("in/data.csv")
    assert command("predict", trained / "data.csv", "-m", trained / "model", "-q").code == 0
    expected = (tmp_path / "forecast.csv").read_bytes()

    for name in ("f.csv", "f.parquet"):
        done = command("predict", data, "-m", model, "-o", stocked.url(f"out/{name}"))
        assert done.code == 0, done.err
        assert f"written: {stocked.url(f'out/{name}')}" in done.out

    assert stocked.get("out/f.csv") == expected
    (tmp_path / "f.parquet").write_bytes(stocked.get("out/f.parquet"))
    assert pq.read_table(tmp_path / "f.parquet").num_rows == 12
    assert stocked.names("out") == ["out/f.csv", "out/f.parquet"]


def test_who_names_the_store_in_the_url_needs_no_environment_for_it(
    stocked: Bucket, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    where = f"?endpoint_override=127.0.0.1:{stocked.port}&scheme=http"

    done = command(
        "predict",
        f"{stocked.url('in/*.csv')}{where}",
        *("-m", f"{stocked.url('model')}{where}"),
        *("-o", f"{stocked.url('f.csv')}{where}", "--json"),
    )

    assert done.code == 0, done.err
    assert done.document["output"] == f"{stocked.url('f.csv')}{where}"
    assert "f.csv" in stocked.names()


def test_a_model_on_a_store_is_looked_at_and_used(
    stocked: Bucket, command: Command, trained: Path
) -> None:
    model = stocked.url("model")
    version = next((trained / "model" / "versions").iterdir()).name

    assert command("show", "-m", model, "--json").document["model"] == model
    assert version in command("show", "-m", model, "--versions").out
    assert "already active" in command("use", version, "-m", model).out
    stocked.remove("model/CURRENT")
    assert command("show", "-m", model).code == 6
    assert f"now using {version}" in command("use", version, "-m", model).out
    assert stocked.get("model/CURRENT") == f"{version}\n".encode()
    assert command("check", stocked.url("in/data.csv"), "-m", model, "--json").code in (0, 3)


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json", "series.parquet"])
def test_a_damaged_model_is_refused(stocked: Bucket, command: Command, name: str) -> None:
    key = next(key for key in stocked.names("model") if key.endswith(name))
    content = stocked.get(key)

    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damage in (content[:middle], flipped, content + b"\0", b""):
        stocked.put(key, damage)
        assert command("show", "-m", stocked.url("model")).code == 6
    stocked.remove(key)
    assert command("show", "-m", stocked.url("model")).code == 6


def test_readings_on_a_store_are_not_written_over(stocked: Bucket, command: Command) -> None:
    data, model = stocked.url("in/data.csv"), stocked.url("model")
    before = stocked.all()

    for asked, output in ((data, data), (stocked.url("in/*.csv"), stocked.url("in/f.csv"))):
        done = command("predict", asked, "-m", model, "-o", output)
        assert done.code == 2, done.err
    assert stocked.all() == before


def test_a_failed_forecast_leaves_the_one_before(stocked: Bucket, command: Command) -> None:
    stocked.put("out/f.csv", b"the old one")
    stocked.put("in/bad.csv", b"timestamp,flow\n2024-01-01,ERR\n")

    done = command(
        "predict",
        stocked.url("in/bad.csv"),
        "-m",
        stocked.url("model"),
        "-o",
        stocked.url("out/f.csv"),
    )

    assert done.code == 4
    assert stocked.get("out/f.csv") == b"the old one"


REFUSED = [
    (("check", "{none}/x.csv"), 4),
    (("check", "foo://b/x.csv"), 4),
    (("check", "az://c/x.csv"), 4),
    (("show", "-m", "{none}/m"), 6),
    (("show", "-m", "foo://b/m"), 6),
    (("predict", "{data}", "-m", "{model}", "-o", "{none}/f.csv"), 7),
    (("predict", "{data}", "-m", "{model}", "-o", "az://c/f.csv"), 7),
    (("predict", "{data}", "-m", "{model}", "-o", "foo://c/f.csv"), 7),
    (("train", "{data}", "-m", "{none}/m"), 7),
    (("check", "s3:///x.csv"), 2),
    (("check", "s3://me:a-password@b/x.csv"), 2),
    (("check", "s3://b/x.csv?secret_key=a-password"), 2),
    (("shard", "{data}", "--buckets", "2", "--output", "{b}/buckets"), 2),
    (("predict", "{data}", "-m", "{model}", "-o", "{b}/f.txt"), 2),
    (("backtest", "{data}", "-m", "{model}", "--report", "{b}/r.html"), 2),
    (("check", "{data}", "--on-bad-rows", "skip", "--rejects", "{b}/r.txt"), 2),
    (("check", "{data}", "--exclude", "{b}/bad.csv"), 2),
    (("plot", "--forecast", "{b}/f.csv"), 2),
    (("score", "--ledger", "{b}/ledger", "-m", "{model}"), 2),
    (("run", "{b}/job.toml"), 2),
]
"""Command lines, and the code of each."""


def test_what_cannot_be_is_said_with_its_code(stocked: Bucket, command: Command) -> None:
    places = {
        "b": f"s3://{stocked.name}",
        "none": "s3://no-such-bucket",
        "model": stocked.url("model"),
        "data": stocked.url("in/data.csv"),
    }
    before = stocked.all()

    for words, code in REFUSED:
        done = command(*(word.format(**places) for word in words), "--json")

        assert done.code == code, (words, done.err)
        assert done.error["hint"]
        assert "bug" not in done.err and "Traceback" not in done.err
        assert "a-password" not in done.err + done.out and SECRET not in done.err + done.out
    assert stocked.all() == before


def test_a_job_reads_from_a_store_and_publishes_on_a_disk(
    stocked: Bucket, command: Command, tmp_path: Path
) -> None:
    job = tmp_path / "job.toml"
    text = f"""
[data]
source = "{stocked.url("in/data.csv")}"
[model]
path = "{stocked.url("model")}"
[forecast]
output = "out/forecast.csv"
"""
    job.write_text(text)

    assert command("run", "job.toml", "--json").document["status"] == "published"
    assert command("run", "job.toml", "--json").document["status"] == "already published"
    assert command("status", "job.toml").code == 0
    manifest = (tmp_path / "out" / "run.json").read_text()
    assert stocked.url("in/data.csv") in manifest and SECRET not in manifest
    for wrong in (
        text.replace('"out/forecast.csv"', f'"{stocked.url("f.csv")}"'),
        f'{text}[ledger]\npath = "{stocked.url("ledger")}"\n',
        f'{text}[log]\nfile = "{stocked.url("run.log")}"\n',
        f"{text}[keep]\nversions = 3\n",
        f'{text}[retrain]\nevery = "1d"\n',
        f'{text}[metrics]\ntextfile = "{stocked.url("x.prom")}"\n',
    ):
        job.write_text(wrong)
        done = command("run", "job.toml", "--json")
        assert (done.code, done.error["code"]) == (2, "not-on-a-store"), done.err
    job.write_text(text.replace("s3://", "s3://me:a-password@"))
    refused = command("run", "job.toml", "--json")
    assert (refused.code, refused.error["code"]) == (2, "url")
    assert not any(b"a-password" in p.read_bytes() for p in (tmp_path / "out").iterdir())
    assert "a-password" not in refused.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("check", "{}/x.csv"),
        ("show", "-m", "{}/m"),
        ("predict", "data.csv", "-m", "model", "-o", "{}/f.csv"),
    ],
)
def test_a_store_that_denies_is_said_without_a_secret(
    words: tuple[str, ...], trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    shutil.copy(trained / "data.csv", tmp_path)
    with objectstore.denying() as port:
        env = {**ACCESS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        done = plain(*(word.format("s3://bucket") for word in words), cwd=tmp_path, env=env)

    assert done.code == {"check": 4, "show": 6, "predict": 7}[words[0]]
    assert "denied access" in done.err
    assert SECRET not in done.err and "Traceback" not in done.err


def test_what_is_on_a_disk_waits_for_no_store() -> None:
    """Neither the start of a command nor a path needs what talks to stores."""
    code = (
        "import sys, rnnforecast.cli.predict, rnnforecast.workflow\n"
        "from rnnforecast.storage import publish\n"
        "from rnnforecast.storage.remote import as_path\n"
        "publish.make_directory(as_path('.')); as_path('s3://bucket/x')\n"
        "sys.exit(any(name.startswith(('pyarrow', 'fsspec')) for name in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("words", [("check", "s3://b/x.csv"), ("show", "-m", "s3://b/model")])
def test_a_signal_is_answered_while_a_store_is_not(words: tuple[str, ...], tmp_path: Path) -> None:
    with objectstore.silent() as port:
        env = {**os.environ, **ACCESS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        command = [sys.executable, "-m", "rnnforecast", *words]
        running = subprocess.Popen(command, cwd=tmp_path, env={**env, "PYTHONPATH": str(ROOT)})
        try:
            time.sleep(3)
            assert running.poll() is None
            running.send_signal(signal.SIGINT)
            assert running.wait(5) == 130
        finally:
            running.kill()
            running.wait()


@pytest.mark.slow
def test_buckets_on_a_store_are_forecast_in_shards_and_committed(
    bucket: Bucket, command: Command, tmp_path: Path
) -> None:
    write_wide(tmp_path / "data.csv", **{f"s{i}": wave(300, seed=i) for i in range(6)})
    assert command("shard", "data.csv", "--output", "buckets", "--buckets", "3").code == 0
    data, model = bucket.put("buckets", tmp_path / "buckets"), bucket.url("model")
    assert command("train", data, "-m", model, "-q", *SMALL).code == 0
    ask = ("predict", data, "-m", model, "--output")
    assert command(*ask, "here", "--workers", "1").code == 0
    key = (tmp_path / "here" / "CURRENT").read_text().strip()
    expected = {p.name: p.read_bytes() for p in (tmp_path / "here" / key).glob("*.parquet")}

    assert command(*ask, bucket.url("out"), "--shard", "0/2").code == 0
    assert command(*ask, bucket.url("out"), "--commit").code == 4
    assert "out/CURRENT" not in bucket.names()
    assert command(*ask, bucket.url("out"), "--shard", "1/2").code == 0
    assert command(*ask, bucket.url("out"), "--commit", "--json").document["status"] == "published"
    again = command(*ask, bucket.url("out"), "--commit", "--json")
    assert again.document["status"] == "already published"
    assert bucket.get("out/CURRENT").decode().strip() == key
    found = {k.rpartition("/")[2]: v for k, v in bucket.all(f"out/{key}").items()}
    assert {name: v for name, v in found.items() if name.endswith(".parquet")} == expected

    part = next(k for k in bucket.names("out") if k.endswith(".parquet"))
    bucket.put(part, b"damaged")
    assert command(*ask, bucket.url("out"), "--commit").code == 4
    assert command(*ask, bucket.url("out"), "--workers", "2").code == 0
    assert bucket.get(part) == expected[part.rpartition("/")[2]]
    assert command(*ask, f"{data}/out", "--shard", "0/2").code == 2


@pytest.mark.slow
def test_training_with_everything_on_a_store(
    bucket: Bucket, trained: Path, command: Command
) -> None:
    data, model = bucket.put("in/data.csv", trained / "data.csv"), bucket.url("model")

    done = command("train", data, "-m", model, "--json", *SMALL)

    assert done.code == 0, done.err
    version = done.document["version"]
    assert bucket.get("model/CURRENT") == f"{version}\n".encode()
    card = command("show", "-m", model, "--json").document
    assert card["provenance"]["source"] == data
    assert command("predict", "-m", model, "-o", bucket.url("f.csv"), "-q").code == 0
    assert command("memory", "-m", model, "--json").code == 0
    assert command("anomalies", data, "-m", model, "-o", bucket.url("a.csv")).code == 0
    output = bucket.url("bt.parquet")
    assert command("backtest", data, "--output", output, "-q", *SMALL).code == 0
    assert {"f.csv", "a.csv", "bt.parquet"} < set(bucket.names())
    assert not any(SECRET.encode() in content for content in bucket.all().values())
