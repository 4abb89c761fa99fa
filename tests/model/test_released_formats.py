"""A model of every released format loads and forecasts what it did when it was made."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnforecast.model.artifact import FORMAT_VERSION
from tests.conftest import Command

RELEASED = sorted((Path(__file__).parent.parent / "artifacts").glob("format-*"))


def test_there_is_one_of_every_format() -> None:
    assert [path.name for path in RELEASED] == [f"format-{n + 1}" for n in range(FORMAT_VERSION)]


@pytest.mark.parametrize("folder", RELEASED, ids=lambda path: path.name)
def test_a_released_format_forecasts_what_it_did(command: Command, folder: Path) -> None:
    assert command("predict", folder / "data.csv", "-m", folder / "model", "-q").code == 0
    made, expected = pd.read_csv("forecast.csv"), pd.read_csv(folder / "forecast.csv")
    assert made[["series", "timestamp"]].equals(expected[["series", "timestamp"]])
    figures = ["forecast", "q10", "q90"]
    assert np.allclose(made[figures], expected[figures], rtol=1e-4)
