"""Options with extreme values end with a documented exit code: a sample; `extremes` has all."""

from __future__ import annotations

import errno
import io
import multiprocessing.util
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from rnnforecast.cli.main import _remove_traces_of_workers
from tests.conftest import SMALL, Command
from tests.extremes import all_cases, violations
from tests.thorough import often


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="bounds on memory are those of Linux")
def test_extreme_values_of_options_end_with_documented_codes(tmp_path: Path) -> None:
    cases = random.Random(5).sample(all_cases(), often(40))
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


def test_a_batch_that_no_memory_holds_is_refused(command: Command, trained: Path) -> None:
    words = ("train", trained / "data.csv", "-m", "new", *SMALL, "--batch-size", "1000000")
    outcome = command(*words, "--max-memory", "1G", "--json")
    assert (outcome.code, outcome.error["code"]) == (4, "memory")


def test_more_columns_than_memory_holds_are_an_error_of_the_data(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnforecast.sources.columns.MAX_COLUMNS", 2)
    Path("wide.csv").write_bytes((trained / "data.csv").read_bytes())
    outcome = command("check", "wide.csv", "--json")
    assert (outcome.code, outcome.error["code"]) == (4, "too-many-columns")


def test_memory_that_is_not_there_is_said(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise MemoryError("cannot allocate 9 GB")

    monkeypatch.setattr("rnnforecast.tables.grid.to_grid", fail)
    outcome = command("check", trained / "data.csv", "--json")
    assert (outcome.code, outcome.error["code"]) == (4, "memory")


LONG = "9" * 400
"""No file has such a name, and looking for one is an error in itself."""


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (("train", "data.csv", *SMALL, "--model", LONG), 7),
        (("check", f"{LONG}.csv"), 4),
        (("predict", "data.csv", "--model", LONG), 6),
        (("plot", "--forecast", f"{LONG}.csv"), 4),
        (("run", f"{LONG}.toml"), 2),
        (("score", "--ledger", LONG, "--data", "data.csv"), 4),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_name_that_is_too_long_is_no_bug(
    command: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch, line: object, code: int
) -> None:
    monkeypatch.chdir(workplace)
    assert command(*line).code == code


@pytest.mark.parametrize(
    ("entry", "codes"),
    [
        ('forecast.output = "{0}/x.csv"', (0, 7)),
        ('forecast.output = "{0}.csv"', (7,)),
        ('metrics.textfile = "{0}"', (0, 7)),
        ('log.file = "{0}"', (0, 7)),
        ('ledger.path = "{0}"', (0, 7)),
    ],
)
def test_a_job_with_a_name_that_is_too_long_is_no_bug(
    command: Command, workplace: Path, entry: str, codes: tuple[int, ...]
) -> None:
    entries = ['data.source = "data.csv"', 'model.path = "model"', entry.format(LONG)]
    if "output" not in entry:
        entries.append('forecast.output = "out/x.csv"')
    job = workplace / "job.toml"
    job.write_text("\n".join(entries))
    assert command("run", job, "--dry-run").code in codes
    assert command("run", job).code == 7
    assert command("status", job).code in (3, 6)


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
        SystemError("error return without exception set"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_libraries_that_get_no_memory_are_no_bug(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("rnnforecast.tables.grid.to_grid", fail)
    outcome = command("check", trained / "data.csv", "--json")
    assert (outcome.code, outcome.error["code"]) == (4, "memory")


def test_an_end_without_memory_for_a_thread_has_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training under `ulimit -v` ended in a trace, after its error."""

    def fail(_thread: object) -> None:
        raise RuntimeError("can't start new thread")

    multiprocessing.util.get_logger()
    monkeypatch.setattr("threading.Thread.start", fail)
    _remove_traces_of_workers()


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_full_folder_of_temporary_files_is_not_standard_output(
    command: Command, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Errors of files without a name were all said to be those of standard output."""

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"t,x\n1,2\n")))
    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    outcome = command("check", "-", *words)
    assert outcome.code == 7
    assert "standard output" not in outcome.err and "No space left" in outcome.err


@pytest.mark.parametrize("error", [OSError("AF_UNIX path too long"), OSError(5, "Input/output")])
def test_an_error_of_the_system_without_a_file_is_no_bug(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("rnnforecast.tables.grid.to_grid", fail)
    outcome = command("check", trained / "data.csv")
    assert outcome.code == 7
    assert "None" not in outcome.err and "bug" not in outcome.err
    assert "standard output" not in outcome.err


def test_endless_standard_input_ends_at_the_limit(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = SimpleNamespace(read=lambda n_bytes: b"1,2\n" * (n_bytes // 4))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=endless))
    outcome = command("check", "-", "--max-input-bytes", "3M", "--json")
    assert (outcome.code, outcome.error["code"]) == (4, "input-bytes")


def test_warnings_of_libraries_do_not_reach_the_user(trained: Path, tmp_path: Path) -> None:
    program = (
        "import warnings\n"
        "from rnnforecast.cli import check, main\n"
        "real = main.run\n"
        "def run(*arguments):\n"
        "    warnings.warn('of a library', RuntimeWarning)\n"
        "    return real(*arguments)\n"
        "main.run = run\n"
        "main.main()\n"
    )
    line = [sys.executable, "-c", program, "check", str(trained / "data.csv")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode in (0, 3)
    assert "of a library" not in done.stderr
