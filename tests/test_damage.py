"""Whatever happens to a file: a forecast that is right, or a documented exit code and none."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.conftest import SMALL, Command, Outcome
from tests.damage import SENSORS, Damage, Form, damages, forms
from tests.thorough import often

HORIZON, LIMIT_S = 6, 60
OK, PARTIAL = 0, 3
FAILURES = {4, 5}
"""What a file can do: no data, or not enough of them."""
OLD = b"what was there before\n"

IN_CI = "CI" in os.environ
"""There the same examples every time: what is found anew belongs to who looks for it."""
quick = settings(
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),  # the directory is emptied by the tests themselves
)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Models of a wide table without a zone, and (True) of a long one with one."""
    from rnnforecast.cli.main import run

    found = {}
    for is_long in (False, True):
        folder = tmp_path_factory.mktemp("model")
        form = Form(n_rows=300, is_long=is_long, is_aware=is_long)
        path = form.write(str(folder / "data"))
        assert run(["train", str(path), "-m", str(folder / "model"), "-q", *SMALL]) == OK
        found[is_long] = folder / "model"
    return found


@contextmanager
def limited() -> Iterator[None]:
    """Fail where the block takes longer than a minute."""

    def stop(*_: object) -> None:
        raise AssertionError(f"still running after {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def call(command: Command, *words: object) -> Outcome:
    """Run a command to a code that a file may lead to; what it says is JSON and no trace."""
    with limited():
        outcome = command(*words, "--json")
    assert outcome.code in {OK, PARTIAL, *FAILURES}, outcome.err
    assert "Traceback" not in outcome.err
    if outcome.code in FAILURES:
        assert outcome.out == ""
        assert outcome.error["exit"] == outcome.code
        assert len(outcome.error["message"]) > 10
    else:
        json.loads(outcome.out, parse_constant=pytest.fail)
    return outcome


def forecast_of(outcome: Outcome) -> pd.DataFrame:
    """Check a forecast for all that holds whatever the readings are, and return it."""
    forecast = pd.read_csv("forecast.csv", keep_default_na=False, na_values=[""])
    n_series = outcome.document["series"]
    assert len(forecast) == outcome.document["rows"] == n_series * HORIZON > 0
    assert forecast["series"].nunique() == n_series
    numbers = forecast[["q10", "forecast", "q90"]].to_numpy(np.float64)
    assert np.isfinite(numbers).all()
    assert (np.diff(numbers, axis=1) >= 0).all()
    for _, part in forecast.groupby("series"):
        steps = pd.to_datetime(part["timestamp"], utc=True).diff()[1:]
        assert (steps == pd.Timedelta("1h")).all()
    return forecast


def predict(command: Command, model: Path, form: Form, damages: tuple[Damage, ...]) -> Outcome:
    Path("forecast.csv").write_bytes(OLD)
    outcome = call(command, "predict", form.write("x", damages), "-m", model)
    if outcome.code in FAILURES:
        assert Path("forecast.csv").read_bytes() == OLD
    else:
        forecast_of(outcome)
    assert not [path for path in Path().iterdir() if path.name.startswith(".tmp")]
    return outcome


def check_damaged(command: Command, models: dict[bool, Path], form: Form, damages) -> None:
    predict(command, models[form.is_long], form, damages)


LONG = Form(is_long=True, is_aware=True)
PARQUET = replace(LONG, format="parquet")


@example(replace(PARQUET, n_rows=30), (("flipped", 2),))  # years that Python does not have
@example(replace(PARQUET, n_rows=30), (("flipped", 151),))  # a name that is no UTF-8
@example(PARQUET, (("other series", 1169),))  # a series whose name is empty
@example(replace(LONG, n_rows=130), (("other unit", 2312), ("dropped", 6009)))  # 1e30
@given(form=forms(), damages=damages())
@settings(quick, max_examples=20)
def test_a_damaged_file_gives_a_forecast_or_a_documented_code(
    command: Command, models: dict[bool, Path], form: Form, damages: tuple[Damage, ...]
) -> None:
    check_damaged(command, models, form, damages)


@pytest.mark.slow
@given(form=forms(), damages=damages())
@settings(quick, max_examples=often(150), derandomize=IN_CI)
def test_many_damaged_files_give_a_forecast_or_a_documented_code(
    command: Command, models: dict[bool, Path], form: Form, damages: tuple[Damage, ...]
) -> None:
    check_damaged(command, models, form, damages)


@given(form=forms())
@settings(quick, max_examples=12)
def test_the_same_readings_give_the_same_forecast_however_they_are_written(
    command: Command, models: dict[bool, Path], form: Form
) -> None:
    plain = Form(form.n_rows, form.is_long, form.is_aware)

    outcome = predict(command, models[form.is_long], form, ())
    found = forecast_of(outcome).assign(timestamp=lambda f: pd.to_datetime(f.timestamp, utc=True))
    predict(command, models[form.is_long], plain, ())
    expected = pd.read_csv("forecast.csv").assign(
        timestamp=lambda f: pd.to_datetime(f.timestamp, utc=True)
    )

    assert outcome.code == OK
    assert set(found["series"]) == set(SENSORS)
    order = ["series", "timestamp"]
    pd.testing.assert_frame_equal(
        found.sort_values(order, ignore_index=True), expected.sort_values(order, ignore_index=True)
    )


def look(command: Command, form: Form, damages: tuple[Damage, ...]) -> None:
    outcome = call(command, "check", form.write("x", damages))
    if outcome.code not in FAILURES:
        document = outcome.document
        assert (outcome.code == PARTIAL) == bool(document["findings"])
        assert document["series"]
        assert document["train"].startswith("rnnforecast train x.")


@given(form=forms(), damages=damages(at_least=0))
@settings(quick, max_examples=20)
def test_a_look_at_a_damaged_file_ends_in_a_documented_code(
    command: Command, form: Form, damages: tuple[Damage, ...]
) -> None:
    look(command, form, damages)


@pytest.mark.slow
@given(form=forms(), damages=damages(at_least=0))
@settings(quick, max_examples=often(150), derandomize=IN_CI)
def test_many_looks_at_damaged_files_end_in_documented_codes(
    command: Command, form: Form, damages: tuple[Damage, ...]
) -> None:
    look(command, form, damages)


def learn(command: Command, form: Form, damages: tuple[Damage, ...]) -> None:
    shutil.rmtree("m", ignore_errors=True)
    tiny = ("--hidden", "2", "--steps", "2", "-L", "8", "-H", HORIZON, "--threads", "1")
    outcome = call(command, "train", form.write("x", damages), "-m", "m", *tiny)
    assert Path("m", "CURRENT").exists() == (outcome.code not in FAILURES)
    if outcome.code not in FAILURES:
        Path("forecast.csv").write_bytes(OLD)
        again = call(command, "predict", "-m", "m")
        assert again.code in {OK, PARTIAL}, again.err


@given(form=forms(), damages=damages(at_least=0))
@settings(quick, max_examples=3)
def test_training_on_a_damaged_file_saves_a_model_that_forecasts_or_none(
    command: Command, form: Form, damages: tuple[Damage, ...]
) -> None:
    learn(command, form, damages)


@pytest.mark.slow
@given(form=forms(), damages=damages(at_least=0))
@settings(quick, max_examples=often(25), derandomize=IN_CI)
def test_many_trainings_on_damaged_files_save_a_model_that_forecasts_or_none(
    command: Command, form: Form, damages: tuple[Damage, ...]
) -> None:
    learn(command, form, damages)
