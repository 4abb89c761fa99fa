"""A model, or options, from somebody else: what they name is neither written nor looked up."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import rnnforecast
from rnnforecast.config.training import Config, NetworkConfig, TrainConfig
from rnnforecast.errors import UsageError
from rnnforecast.storage.remote import as_path
from rnnforecast.workflow.model import training_source
from tests.builders import ONE_FILE_JOB, wave, write_wide
from tests.conftest import SMALL, Command
from tests.strangers import rewrite_manifest

BAD_ROW = "2024-01-17 16:00:00,1,2,ssh-rsa of a stranger\n"


@pytest.fixture
def place(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model that names files to write to, readings with a bad row, and a job."""
    monkeypatch.chdir(workplace)
    with Path("data.csv").open("a") as file:
        file.write(BAD_ROW)
    Path("victim").write_text("not to be written\n")
    Path("victim.csv").write_text("not to be written\n")
    Path("job.toml").write_text(ONE_FILE_JOB)
    rewrite_manifest(
        Path("model"),
        config__data__on_bad_rows="skip",
        config__data__max_bad_rows="50%",
        config__data__rejects=str(Path("victim").absolute()),
    )
    return workplace


@pytest.mark.parametrize(
    "line",
    [
        "check data.csv --model model",
        "predict data.csv",
        "run job.toml --dry-run",
        "run job.toml",
        "anomalies data.csv",
        "memory data.csv",
        "backtest data.csv --model model",
        "plot --data data.csv --model model",
    ],
)
def test_a_file_that_a_model_names_for_rejected_rows_is_not_written(
    command: Command, place: Path, line: str
) -> None:
    os.chdir(place)
    if line.startswith("plot"):
        assert command("predict", "data.csv", "-q").code == 0

    outcome = command(*line.split(), "-q")

    assert Path("victim").read_text() == "not to be written\n"
    assert outcome.code in (0, 3, 5), outcome.err


def test_what_is_saved_names_no_file_of_rejected_rows(command: Command) -> None:
    write_wide(Path("data.csv"), flow=wave(300))
    options = ["--on-bad-rows", "skip", "--rejects", "rejected.txt"]

    assert command("train", "data.csv", *options, "-q", *SMALL).code == 0

    (manifest,) = Path("model/versions").glob("*/manifest.json")
    data = json.loads(manifest.read_bytes())["config"]["data"]
    assert (data["on_bad_rows"], data["rejects"]) == ("skip", None)


BAD_TIMES = "series,from,to\n,2024-01-16 00:00,2025-01-01\n"


def test_bad_times_travel_with_the_model_and_no_file_of_that_name_is_looked_up(
    command: Command, tmp_path: Path
) -> None:
    write_wide(Path("data.csv"), flow=wave(400))
    Path("bad.csv").write_text(BAD_TIMES)
    assert command("train", "data.csv", "--exclude", "bad.csv", "-q", *SMALL).code == 0
    Path("bad.csv").unlink()
    (tmp_path / "elsewhere").mkdir()
    os.chdir("elsewhere")
    line = ["predict", "../data.csv", "-m", "../model", "-q"]

    assert command(*line, "-o", "first.csv").code in (0, 3)
    Path("bad.csv").write_text("series,from,to\n,2024-01-10 00:00,2025-01-01\n")
    assert command(*line, "-o", "second.csv").code in (0, 3)
    assert command(*line, "-o", "third.csv", "--exclude", "bad.csv").code in (0, 3)

    first, second, third = (Path(f"{n}.csv").read_bytes() for n in ("first", "second", "third"))
    assert pd.read_csv("first.csv")["timestamp"][0] == "2024-01-16 00:00:00"
    assert second == first
    assert third != first


def test_an_old_model_that_holds_only_the_name_of_bad_times_says_so(
    command: Command, workplace: Path
) -> None:
    os.chdir(workplace)
    Path("bad.csv").write_text("series,from,to\nsecret,line,of another file\n")
    rewrite_manifest(Path("model"), config__data__exclude="bad.csv")

    outcome = command("predict", "data.csv", "--json")

    assert (outcome.code, outcome.error["code"]) == (2, "exclude-not-stored")
    assert "--exclude bad.csv" in outcome.error["hint"]
    assert "secret" not in outcome.err
    Path("bad.csv").write_text("series,from,to\n")
    assert command("predict", "data.csv", "-q", "--exclude", "bad.csv").code == 0


def test_a_job_is_the_same_from_every_folder(command: Command, workplace: Path) -> None:
    (workplace / "job.toml").write_text(
        ONE_FILE_JOB.replace('"data.csv"', '"data.csv"\nexclude = "bad.csv"')
    )
    (workplace / "bad.csv").write_text(BAD_TIMES)
    (workplace / "elsewhere").mkdir()
    os.chdir(workplace)
    first = command("run", "job.toml", "--json")
    os.chdir("elsewhere")
    Path("bad.csv").write_text("series,from,to\n,2024-01-03 00:00,2025-01-01\n")
    again = command("run", "../job.toml", "--json")

    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert first.document["status"] == "published"
    assert again.document["status"] == "already published"


def test_a_dry_run_writes_no_rejected_rows_either(command: Command, workplace: Path) -> None:
    os.chdir(workplace)
    options = 'on_bad_rows = "skip"\nmax_bad_rows = "9"\nrejects = "rejected.txt"'
    Path("job.toml").write_text(ONE_FILE_JOB.replace('"data.csv"', f'"data.csv"\n{options}'))
    with Path("data.csv").open("a") as file:
        file.write(BAD_ROW)

    assert command("run", "job.toml", "--dry-run", "-q").code == 0
    assert not Path("rejected.txt").exists()
    assert command("run", "job.toml", "-q").code == 0
    assert "stranger" in Path("rejected.txt").read_text()


OUTPUTS = [
    ("check", "rejects = '../victim'\non-bad-rows = 'skip'", "rejects"),
    ("predict", "output = '../victim.csv'", "output"),
    ("predict", "output = 'link.csv'", "output"),
    ("predict", "rejects = '{place}/victim'\non-bad-rows = 'skip'", "rejects"),
    ("anomalies", "output = '../victim.csv'", "output"),
    ("backtest", "report = '../victim.html'", "report"),
    ("plot", "output = '../victim.png'", "output"),
    ("shard", "output = '../victims'\nbuckets = 2", "output"),
    ("train", "model = '../victims'", "model"),
    ("use", "model = '../model'", "model"),
]


@pytest.mark.parametrize(("name", "options", "option"), OUTPUTS)
def test_options_that_lie_in_a_foreign_folder_name_no_output_outside_of_it(
    command: Command, place: Path, name: str, options: str, option: str
) -> None:
    Path("foreign").mkdir()
    os.chdir("foreign")
    Path("link.csv").symlink_to("../victim.csv")
    Path("rnnforecast.toml").write_text(f"[{name}]\n{options.format(place=place)}\n")
    line = {"plot": [], "use": ["latest"]}.get(name, ["../data.csv"])
    before = sorted(path.name for path in place.iterdir())

    outcome = command(name, *line, "--json")

    assert (outcome.code, outcome.error["code"]) == (2, "foreign-options")
    assert f"names {option} = " in outcome.error["message"]
    assert "--config rnnforecast.toml" in outcome.error["hint"]
    assert sorted(path.name for path in place.iterdir()) == before
    assert (place / "victim.csv").read_text() == (place / "victim").read_text()


def test_options_of_another_user_name_no_output_at_all(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chdir(place)
    Path("rnnforecast.toml").write_text("[predict]\noutput = 'victim.csv'\n")
    monkeypatch.setattr(os, "getuid", lambda: Path("job.toml").stat().st_uid + 1)
    monkeypatch.setattr("rnnforecast.cli.app._TRUSTED_OWNERS", ())

    assert command("predict", "data.csv", "--json").error["code"] == "foreign-options"
    assert command("predict", "data.csv", "-q", "-o", "mine.csv").code == 0


def test_outputs_below_the_folder_and_of_a_file_that_is_named_are_written(
    command: Command, place: Path
) -> None:
    os.chdir(place)
    Path("below").mkdir()
    Path("rnnforecast.toml").write_text("[predict]\noutput = 'below/forecast.csv'\n")
    assert command("predict", "data.csv", "-q").code == 0
    assert Path("below/forecast.csv").exists()

    Path("below/mine.toml").write_text("[predict]\nmodel = '../model'\noutput = '../mine.csv'\n")
    assert command("predict", "data.csv", "-q", "--config", "below/mine.toml").code == 0
    assert Path("mine.csv").exists()


def test_paths_in_a_file_of_options_are_relative_to_it(command: Command, workplace: Path) -> None:
    (workplace / "bad.csv").write_text(BAD_TIMES)
    (workplace / "options.toml").write_text(
        "[predict]\nmodel = 'model'\nexclude = 'bad.csv'\noutput = 'forecast.csv'\n"
    )

    outcome = command(
        "predict", workplace / "data.csv", "-q", "--config", workplace / "options.toml"
    )

    assert outcome.code in (0, 3), outcome.err
    assert pd.read_csv(workplace / "forecast.csv")["timestamp"][0] == "2024-01-16 00:00:00"


SOURCES = [
    "{outside}/secret.csv",
    "{outside}/*.csv",
    "{outside}",
    "{place}/link.csv",
    "{place}/linked/*.csv",
    "{place}/*/secret.csv",
    "{place}/../outside/secret.csv",
    "{place}/.ssh/secret.csv",
    "sqlite:///{outside}/secret.csv",
    "s3://bucket/key.csv?endpoint_override=127.0.0.1:{port}&scheme=http",
    "http://127.0.0.1:{port}/key.csv",
]


@pytest.fixture
def port() -> Iterator[int]:
    """A port of this machine to which nobody connects."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_a_model_names_leads_to_no_other_folder_or_host(
    command: Command, workplace: Path, port: int, source: str
) -> None:
    outside, secret = workplace.parent / "outside", "root:x:0:0"
    for folder in (outside, workplace / ".ssh"):
        folder.mkdir()
        (folder / "secret.csv").write_text(f"{secret}\n")
    (workplace / "link.csv").symlink_to(outside / "secret.csv")
    (workplace / "linked").symlink_to(outside)
    named = source.format(outside=outside, place=workplace, port=port)
    rewrite_manifest(workplace / "model", provenance__source=named)
    os.chdir(workplace)
    batch = ["--shard", "0/2", "-o", "batch"]

    for line in (["predict"], ["predict", *batch], ["memory"]):
        outcome = command(*line, "--json")
        assert (outcome.code, outcome.error["code"]) == (2, "untrusted-source")
        assert "--trust-source" in outcome.error["hint"]
        assert secret not in outcome.err
    assert command("predict", "data.csv", "-q").code == 0


def test_a_source_elsewhere_is_read_where_the_user_says_so(
    command: Command, trained: Path, workplace: Path
) -> None:
    os.chdir(workplace)
    other = workplace.parent / "other.csv"
    shutil.copy(trained / "data.csv", other)
    rewrite_manifest(Path("model"), provenance__source=str(other))

    assert command("predict", "-q").code == 2
    assert command("predict", "-q", "--trust-source").code == 0
    assert command("memory", "-q", "--trust-source").code == 0
    assert rnnforecast.predict(model="model", trust_source=True).forecast.names


def test_a_source_that_this_user_has_trained_on_is_read_wherever_it_lies(
    command: Command, trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved readings and moved models included; another user has to say so."""
    os.chdir(workplace)
    copy = workplace.parent / "elsewhere" / "data.csv"
    copy.parent.mkdir()
    shutil.copy(trained / "data.csv", copy)
    assert command("train", copy, *SMALL, "-m", "new", "-q").code == 0
    assert command("predict", "-m", "new", "-q").code == 0

    monkeypatch.setenv("XDG_STATE_HOME", str(workplace.parent / "states"))
    assert command("predict", "-m", "new", "-q").code == 2
    assert not (workplace.parent / "states").exists()  # only a training makes a key
    monkeypatch.setenv("XDG_STATE_HOME", str(copy))  # a file: there can be no key
    assert command("train", copy, *SMALL, "-m", "newer", "-q").code == 0
    assert command("predict", "-m", "newer", "-q").code == 2


def test_nothing_lies_beside_a_model_at_the_root(workplace: Path) -> None:
    rewrite_manifest(workplace / "model", provenance__source_seal=None)
    model = rnnforecast.load(str(workplace / "model"))
    with pytest.raises(UsageError, match="is outside the folder of the model"):
        training_source(replace(model, path=Path("/model")), is_trusted=False)


def test_a_model_in_a_bucket_reads_what_lies_in_it_and_no_local_file(workplace: Path) -> None:
    model = rnnforecast.load(str(workplace / "model"))

    def source_of(path: str, source: str) -> str:
        provenance = {**model.artifact.provenance, "source": source}
        artifact = replace(model.artifact, provenance=provenance)
        stored = replace(model, path=as_path(path), artifact=artifact)
        return training_source(stored, is_trusted=False)

    assert source_of("s3://b/m", "s3://b/other/*.csv") == "s3://b/other/*.csv"
    for path, source in (
        ("s3://b/m", "s3://c/data.csv"),
        ("s3://b/m", "s3://b/data.csv?endpoint_override=evil"),
        ("s3://b/m", "/etc/passwd"),
        (str(workplace / "model"), "s3://b/data.csv"),
    ):
        with pytest.raises(UsageError, match="is outside the folder of the model"):
            source_of(path, source)


def test_who_has_trained_a_model_in_the_same_process_reads_its_source_from_anywhere(
    command: Command, trained: Path
) -> None:
    del command
    config = Config(network=NetworkConfig(hidden=8), training=TrainConfig(steps=4, threads=1))
    data = str(trained / "data.csv")
    model = rnnforecast.train(data, horizon=6, lookback=24, config=config, report=False)
    assert model.predict().forecast.names == ("flow", "level")
