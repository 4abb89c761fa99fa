"""A model of every format loads and forecasts what it did when made; older ones are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.errors import ModelError
from rnnforecast.model.artifact import (
    FORMAT_VERSION,
    MANIFEST,
    load,
    load_manifest,
)
from rnnforecast.spec import expected_shapes
from rnnforecast.storage.publish import digest
from tests.builders import SMALL_JOB
from tests.conftest import Command
from tests.strangers import rewrite_manifest

RELEASED = sorted((Path(__file__).parent.parent / "artifacts").glob("format-*"))
FIRST_FORMAT = 4
"""Formats 1 to 3 held networks that exist no more."""
SMALLEST = ["-L", "48", "-H", "6", "--hidden", "4", "--layers", "1", "--segment", "8"]


def version_in(folder: Path) -> Path:
    """Return the directory of the only version of a released model."""
    (version,) = (folder / "model" / "versions").iterdir()
    return version


def test_there_is_a_model_of_every_format_that_is_read() -> None:
    formats = range(FIRST_FORMAT, FORMAT_VERSION + 1)
    assert [path.name for path in RELEASED] == [f"format-{n}" for n in formats]
    for number, folder in zip(formats, RELEASED, strict=True):
        assert json.loads((version_in(folder) / MANIFEST).read_bytes())["format_version"] == number


@pytest.mark.parametrize("folder", RELEASED, ids=lambda path: path.name)
def test_a_released_format_forecasts_what_it_did(command: Command, folder: Path) -> None:
    assert command("predict", folder / "data.csv", "-m", folder / "model", "-q").code == 0
    made, expected = pd.read_csv("forecast.csv"), pd.read_csv(folder / "forecast.csv")
    assert made[["series", "timestamp"]].equals(expected[["series", "timestamp"]])
    figures = ["forecast", "q10", "q90"]
    assert np.allclose(made[figures], expected[figures], rtol=1e-4)


@pytest.mark.parametrize("folder", RELEASED, ids=lambda path: path.name)
def test_a_released_format_is_read_with_the_names_of_today(folder: Path) -> None:
    artifact = load(version_in(folder))

    assert set(artifact.weights) == set(expected_shapes(artifact.spec))
    manifest = load_manifest(version_in(folder))
    assert manifest["format_version"] == FORMAT_VERSION
    assert manifest["trained_until"] == artifact.trained_until
    assert {"selected_members", "fine_tune_steps"} <= artifact.provenance.keys()


@pytest.mark.parametrize("folder", RELEASED, ids=lambda path: path.name)
def test_a_released_format_with_another_hash_is_refused(folder: Path, tmp_path: Path) -> None:
    version = tmp_path / "version"
    shutil.copytree(version_in(folder), version)
    manifest = json.loads((version / MANIFEST).read_bytes())
    (version / MANIFEST).write_text(json.dumps({**manifest, "sha256": digest(b"other")}))

    with pytest.raises(ModelError, match="its hash differs"):
        load(version)


@pytest.fixture(params=range(1, FIRST_FORMAT), ids="format {}".format)
def outdated(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with `data.csv` and `model`, whose only version is of an earlier format."""
    shutil.copytree(RELEASED[-1], tmp_path, dirs_exist_ok=True)
    (tmp_path / "forecast.csv").unlink()
    rewrite_manifest(tmp_path / "model", format_version=request.param)
    return tmp_path


def test_an_earlier_format_is_refused_with_what_to_do(command: Command, outdated: Path) -> None:
    (outdated / "job.toml").write_text(SMALL_JOB)
    name = version_in(outdated).name

    for line in (
        ["show"],
        ["memory", "data.csv"],
        ["predict", "data.csv"],
        ["use", name],
        ["run", "job.toml"],
    ):
        outcome = command(*line, "--json")
        assert outcome.code == 6, line
        assert outcome.error["code"] == "older-format"
        assert "retrain" in outcome.error["hint"]
    assert not (outdated / "forecast.csv").exists()
    assert not (outdated / "out").exists()


def test_the_next_training_makes_a_model_of_today_beside_it(
    command: Command, outdated: Path
) -> None:
    name = version_in(outdated).name

    outcome = command("train", "data.csv", *SMALLEST, "--steps", "2", "--threads", "1")

    assert outcome.code == 0, outcome.err
    active = outdated / "model" / "versions" / (outdated / "model" / "CURRENT").read_text().strip()
    assert active.name != name
    assert json.loads((active / MANIFEST).read_bytes())["format_version"] == FORMAT_VERSION
    assert command("use", name).code == 6
    assert command("predict", "data.csv").code == 0
