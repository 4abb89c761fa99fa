"""The README's commands and lines of Python run as they stand there, on a small network."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Command

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a minute with the defaults takes a second."""
    for option, value in {"EPOCHS": "1", "HIDDEN": "8", "STEPS": "5", "THREADS": "1"}.items():
        monkeypatch.setenv(f"RNNFORECAST_TRAIN_{option}", value)
        monkeypatch.setenv(f"RNNFORECAST_BACKTEST_{option}", value)


@pytest.fixture
def sample_data(tmp_path: Path) -> None:
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")


@pytest.fixture
def two_weeks(tmp_path: Path) -> None:
    """The beginning of the sample, under its name: enough to train on; `make demo` takes it all."""
    sample = ROOT / "sample_data" / "pumping_station.csv"
    lines = sample.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "sample_data").mkdir()
    (tmp_path / "sample_data" / sample.name).write_text("".join(lines[: 1 + 14 * 144]))


@pytest.mark.usefixtures("two_weeks")
def test_the_job_by_hand_ends_with_a_forecast(command: Command) -> None:
    lines = [line for line in blocks("sh")[1].splitlines() if line.startswith("rnnforecast ")]
    words = [shlex.split(line, comments=True)[1:] for line in lines]
    assert [name for name, *_ in words] == ["predict", "train", "predict", "show"]
    for arguments in words:
        assert command(*arguments).code == 0
    assert len(pd.read_csv("forecast.csv")) == 3 * 144


@pytest.mark.usefixtures("sample_data")
def test_the_line_of_the_check_runs_and_ends_with_one_to_train(command: Command) -> None:
    (line,) = (block.strip() for block in blocks("sh") if block.startswith("rnnforecast check"))
    outcome = command(*shlex.split(line)[1:])
    assert outcome.code == 3, "one sensor of the sample stands still for a night"
    assert "rnnforecast train sample_data/pumping_station.csv" in outcome.out


@pytest.mark.usefixtures("two_weeks")
def test_the_line_of_the_backtest_runs(command: Command) -> None:
    (line,) = (block.strip() for block in blocks("sh") if block.startswith("rnnforecast backtest"))
    outcome = command(*shlex.split(line)[1:], "--windows", "3")
    assert outcome.code == 0
    assert "verdict: " in outcome.out


def test_both_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in blocks("sh")[0].splitlines():
        target = line.split()[1]
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.usefixtures("two_weeks", "command")
def test_the_lines_of_python_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import rnnforecast
    from rnnforecast.workflow import backtest, train

    quick = rnnforecast.Config(
        network=rnnforecast.NetworkConfig(hidden=8),
        training=rnnforecast.TrainConfig(epochs=1, steps=5),
    )
    monkeypatch.setattr(train, "Config", lambda: quick)
    monkeypatch.setattr(backtest, "Config", lambda: quick)
    names: dict[str, object] = {}
    exec(blocks("python")[0], names)
    assert isinstance(names["model"], rnnforecast.Model)
    assert len(names["forecast"].to_pandas()) == 3 * 24  # type: ignore[attr-defined]


def test_the_exit_codes_are_those_of_the_error_tree() -> None:
    from rnnforecast import errors

    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and hasattr(k, "exit_code")]
    assert {kind.exit_code for kind in kinds} <= documented


def test_the_files_of_a_version_are_all_described(trained: Path) -> None:
    version = next((trained / "model" / "versions").iterdir())
    for path in version.iterdir():
        assert path.name in README
