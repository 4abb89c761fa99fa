"""Options with extreme values end with a documented exit code: a sample; `extremes` has all."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.extremes import all_cases, violations
from tests.thorough import often


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="bounds on memory are those of Linux")
def test_extreme_values_of_options_end_with_documented_codes(tmp_path: Path) -> None:
    cases = random.Random(5).sample(all_cases(), often(60))
    assert list(violations(cases, tmp_path)) == []


@pytest.mark.parametrize("text", ["100%", "%", "%Q", "%Y%Y", "", " ", "%-"])
def test_a_text_that_is_no_format_of_stamps_is_a_usage_error(
    command: Command, trained: Path, text: str
) -> None:
    outcome = command("check", trained / "data.csv", f"--time-format={text}")
    assert outcome.code == 2 and "--time-format" in outcome.err


@pytest.mark.parametrize("digits", [19, 400, 5000])
def test_a_row_with_thousands_of_digits_is_a_usage_error(
    command: Command, trained: Path, digits: int
) -> None:
    words = ("anomalies", trained / "data.csv", "-m", trained / "model")
    assert command(*words, "--since", "9" * digits).code == 2


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The zone of the machine, as TZ names it."""
    with monkeypatch.context() as context:
        context.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


@pytest.mark.parametrize("zone", ["UTC+24", "UTC-24", "XXX+24:59:59"], indirect=True)
def test_a_machine_may_be_a_day_away_from_utc(command: Command, trained: Path, zone: str) -> None:
    """`datetime` refuses such an offset, which the system takes."""
    outcome = command("predict", trained / "data.csv", "-m", trained / "model", "-q")
    assert outcome.code == 0, (zone, outcome.err)


DEEP = "[" * 100_000


@pytest.mark.parametrize("name", ["rnnforecast.toml", "job.toml"])
def test_a_file_of_options_that_is_nested_deep_is_a_usage_error(
    command: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text(f"x = {DEEP}")
    words = ("run", name) if name == "job.toml" else ("check", "data.csv")
    outcome = command(*words)
    assert outcome.code == 2 and name in outcome.err
