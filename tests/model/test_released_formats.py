"""A model of every released format loads and forecasts what it did when it was made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.config.training import Config
from rnnforecast.errors import ModelError
from rnnforecast.model.artifact import (
    FORMAT_VERSION,
    MANIFEST,
    load,
    load_manifest,
)
from rnnforecast.spec import expected_shapes
from rnnforecast.storage.publish import digest
from tests.conftest import Command

RELEASED = sorted((Path(__file__).parent.parent / "artifacts").glob("format-*"))
SMALLEST = ["-L", "48", "-H", "6", "--hidden", "4", "--segment", "12", "--epochs", "1"]


def version_in(folder: Path) -> Path:
    """Return the directory of the only version of a released model."""
    (version,) = (folder / "model" / "versions").iterdir()
    return version


def test_there_is_one_of_every_format() -> None:
    assert [path.name for path in RELEASED] == [f"format-{n + 1}" for n in range(FORMAT_VERSION)]
    for number, folder in enumerate(RELEASED, start=1):
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

    config: Config = artifact.config
    assert set(artifact.weights) == set(expected_shapes(artifact.spec, config.network))
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


def test_the_next_training_writes_the_format_of_today(command: Command, tmp_path: Path) -> None:
    shutil.copytree(RELEASED[0] / "model", tmp_path / "model")
    data = RELEASED[0] / "data.csv"

    outcome = command("train", data, "-m", "model", *SMALLEST, "--threads", "1")

    assert outcome.code == 0, outcome.err
    active = tmp_path / "model" / "versions" / (tmp_path / "model" / "CURRENT").read_text().strip()
    assert active.name != version_in(RELEASED[0]).name
    assert json.loads((active / MANIFEST).read_bytes())["format_version"] == FORMAT_VERSION
    assert command("use", version_in(RELEASED[0]).name, "-m", "model").code == 0
