import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import rnnforecast
from tests.builders import wave
from tests.conftest import SMALL, Command

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "pandas", "pyarrow", "sklearn", "numpy", "rich", "matplotlib")


def fresh(*arguments: str, folder: Path | None = None) -> tuple[int, set[str]]:
    """Run the command line in a fresh interpreter; return its code and the modules it loaded."""
    program = (
        "import sys\n"
        "from rnnforecast.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        "print('MODULES', code, *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
    )
    words = done.stdout.splitlines()[-1].split()
    assert words[0] == "MODULES", done.stderr
    return int(words[1]), set(words[2:])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"]])
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    code, modules = fresh(*arguments)
    assert code == 0
    assert modules.isdisjoint(HEAVY)


def test_a_usage_error_loads_nothing_heavy() -> None:
    code, modules = fresh("train", "data.csv", "--no-such-option")
    assert code == 2
    assert modules.isdisjoint(HEAVY)


def test_show_loads_no_torch(trained: Path) -> None:
    code, modules = fresh("show", "--model", str(trained / "model"))
    assert code == 0
    assert "torch" not in modules


def test_bad_data_and_bad_models_are_refused_before_torch_is_loaded(workplace: Path) -> None:
    (workplace / "bad.csv").write_text("timestamp,flow,level\n2024-01-01,x,1\n")
    code, modules = fresh("predict", "bad.csv", folder=workplace)
    assert code == 4 and "torch" not in modules
    weights = next((workplace / "model" / "versions").iterdir()) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    code, modules = fresh("predict", folder=workplace)
    assert code == 6 and "torch" not in modules


def test_the_public_names_are_these() -> None:
    assert sorted(rnnforecast.__all__) == [
        "AnomalyConfig",
        "Backtest",
        "BacktestConfig",
        "BatchConfig",
        "BatchResult",
        "CatchUpError",
        "Check",
        "Config",
        "DataConfig",
        "DataError",
        "DivergedError",
        "LockedError",
        "MemoryReport",
        "Model",
        "ModelError",
        "NetworkConfig",
        "NotEnoughDataError",
        "OutputError",
        "PlotConfig",
        "PredictConfig",
        "Prediction",
        "QualityGateError",
        "RanksConfig",
        "RnnForecastError",
        "RunConfig",
        "RunResult",
        "ScoreConfig",
        "ScoreResult",
        "Search",
        "ShardResult",
        "Status",
        "TimeLimitError",
        "TrainConfig",
        "UsageError",
        "WindowConfig",
        "WorkerError",
        "WriteError",
        "__version__",
        "anomalies",
        "backtest",
        "check",
        "load",
        "memory",
        "plot",
        "predict",
        "predict_batch",
        "run",
        "score",
        "score_job",
        "shard",
        "status",
        "train",
        "use",
        "versions",
    ]
    for name in rnnforecast.__all__:
        assert getattr(rnnforecast, name) is not None
    with pytest.raises(AttributeError):
        _ = rnnforecast.no_such_name


def test_version_is_one_line(command: Command) -> None:
    outcome = command("--version")
    assert (outcome.code, outcome.out) == (0, f"rnnforecast {rnnforecast.__version__}\n")


def test_an_unknown_command_is_a_usage_error(command: Command) -> None:
    assert command("fit", "data.csv").code == 2
    assert command("--version-of", "data.csv").code == 2


def test_show_prints_the_card_and_json_the_whole_of_it(command: Command, trained: Path) -> None:
    card = command("show", "-m", trained / "model").out
    for word in ("GRU", "flow, level", "1 h", "6 steps", "segments of 16", "verdict"):
        assert word in card
    document = command("show", "-m", trained / "model", "--json").document
    assert document["schema"]["targets"] == ["flow", "level"]
    assert document["provenance"]["fingerprint"]
    assert document["config"]["network"]["hidden"] == 8


def test_an_error_as_json_is_one_object_on_standard_error(command: Command) -> None:
    Path("bad.csv").write_text("time,flow\n2024-01-01,1\n2024-01-02,2\n2024-01-03,oops\n")
    outcome = command("train", "bad.csv", "--json")
    assert outcome.code == 4 and outcome.out == ""
    error = json.loads(outcome.err.splitlines()[-1])["error"]
    assert error["exit"] == 4
    assert error["line"] == 4
    assert error["column"] == "flow"
    assert error["file"] == "bad.csv"
    assert "--na-values oops" in error["hint"]


def test_an_error_quotes_the_users_line_with_a_caret(command: Command) -> None:
    Path("bad.csv").write_text("time,flow,level\n2024-01-01,1,1\n2024-01-02,2,oops\n")
    lines = command("train", "bad.csv").err.splitlines()
    quoted = next(i for i, line in enumerate(lines) if "2024-01-02,2,oops" in line)
    assert lines[quoted + 1].index("^") == lines[quoted].index("oops")
    assert lines[quoted + 1].count("^") == 4


def test_text_from_a_file_cannot_steer_the_terminal(command: Command) -> None:
    Path("bad.csv").write_text("time,fl\x1b[31mow\n2024-01-01,1\n2024-01-02,\x1b]0;pwned\x07\n")
    outcome = command("train", "bad.csv")
    assert outcome.code == 4
    assert "\x1b" not in outcome.err and "\x07" not in outcome.err


def test_a_bug_is_short_without_verbose_and_whole_with_it(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnforecast.workflow.model.load", lambda *_, **__: 1 / 0)
    outcome = command("show", "-m", trained / "model")
    assert outcome.code == 1
    assert "a bug in rnnforecast: ZeroDivisionError" in outcome.err
    assert "Traceback" not in outcome.err
    with pytest.raises(ZeroDivisionError):
        command("show", "-m", trained / "model", "--verbose")


def test_a_reader_that_closes_the_pipe_early_is_no_error(trained: Path) -> None:
    program = f"{sys.executable} -m rnnforecast show -m {trained / 'model'} --json | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {program}"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.timed
def test_help_costs_little_over_a_bare_interpreter() -> None:
    def median(*arguments: str) -> float:
        import time

        times = []
        for _ in range(7):
            begin = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, timeout=60)
            times.append(time.perf_counter() - begin)
        return sorted(times)[3]

    assert median("-m", "rnnforecast", "--help") - median("-c", "pass") < 0.150


@pytest.mark.slow
def test_precedence_is_command_line_then_environment_then_file(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rnnforecast.toml").write_text('[train]\nhorizon = "5"\nlookback = "24"\nhidden = 8\n')
    monkeypatch.setenv("RNNFORECAST_TRAIN_EPOCHS", "1")
    monkeypatch.setenv("RNNFORECAST_TRAIN_HORIZON", "4")
    data = trained / "data.csv"
    assert command("train", data, "--json", "-H", "3").document["horizon"] == 3
    assert command("train", data, "--json").document["horizon"] == 4
    monkeypatch.delenv("RNNFORECAST_TRAIN_HORIZON")
    document = command("train", data, "--json").document
    assert (document["horizon"], document["lookback"], document["epochs"]) == (5, 24, 1)


def test_an_unknown_key_in_a_file_names_the_nearest_known_one(
    command: Command, trained: Path
) -> None:
    Path("rnnforecast.toml").write_text("[train]\nhorizn = 5\n")
    outcome = command("train", trained / "data.csv")
    assert outcome.code == 2
    assert re.search(r"'horizn'.*\n.*'horizon'", outcome.err)


@pytest.mark.slow
def test_two_processes_give_the_same_weights_and_forecasts(trained: Path, tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        options = ["--hidden", "16", "--epochs", "2", "-L", "48", "-H", "12", "-q"]
        for arguments in (["train", str(trained / "data.csv"), *options], ["predict", "-q"]):
            subprocess.run(
                [sys.executable, "-m", "rnnforecast", *arguments],
                cwd=folder,
                check=True,
                timeout=120,
                env={**os.environ, "PYTHONHASHSEED": (name == "a" and "1") or "2"},
            )
        version = next((folder / "model" / "versions").iterdir())
        results.append(
            [
                (version / "weights.safetensors").read_bytes(),
                (version / "metrics.json").read_bytes(),
                (version / "history.csv").read_bytes(),
                (folder / "forecast.csv").read_bytes(),
            ]
        )
    assert results[0] == results[1]


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of a shell in which `rnnforecast` is this one."""
    program = f"{sys.executable} -m rnnforecast"
    return subprocess.run(
        ["bash", "-c", command.replace("rnnforecast", program)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_full_disk_behind_standard_output_is_a_write_error(trained: Path) -> None:
    done = shell("rnnforecast show > /dev/full", trained)
    assert done.returncode == 7
    assert "cannot write standard output" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("more", "code"), [("", 9), ("--json", 9), ("-o -", 7)])
def test_a_forecast_that_is_published_is_not_called_a_failure_to_write(
    workplace: Path, more: str, code: int
) -> None:
    done = shell(f"rnnforecast predict {more} > /dev/full", workplace)
    assert done.returncode == code
    assert ("published" in done.stderr) == (workplace / "forecast.csv").exists() == (code == 9)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_process_without_its_streams_works(workplace: Path, closed: str) -> None:
    done = shell(f"rnnforecast predict {closed}", workplace)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    rows = (workplace / "forecast.csv").read_text().splitlines()
    assert len(rows) == 13
    assert all(row.count(",") == 4 for row in rows)


def test_closed_standard_input_holds_no_readings(workplace: Path) -> None:
    done = shell("rnnforecast predict - <&-", workplace)
    assert (done.returncode, "standard input is empty" in done.stderr) == (4, True)


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "--json"])
def test_a_narrow_terminal_gets_names_escaped(workplace: Path, more: str) -> None:
    done = shell(
        f"rnnforecast predict -o 'wörter 🌡.csv' {more}", workplace, PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 0, done.stderr
    assert (workplace / "wörter 🌡.csv").exists()
    if more:
        assert json.loads(done.stdout)["output"] == "wörter 🌡.csv"


def test_standard_input_leaves_no_file_behind_when_it_is_stopped(
    workplace: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "rnnforecast", "predict", "-"],
        cwd=workplace,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert process.stdin is not None
    process.stdin.write(b"timestamp,flow,level\n")
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not list(scratch.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(scratch.iterdir())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    process.stdin.close()
    assert list(scratch.iterdir()) == []


def test_names_from_a_file_cannot_steer_the_terminal_of_show(
    command: Command, tmp_path: Path
) -> None:
    name = "fl\x1b[31mow\nline"
    frame = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=300, freq="1h")})
    frame[name] = wave(300)
    frame.to_parquet(tmp_path / "odd.parquet")
    assert command("train", "odd.parquet", *SMALL).code == 0
    out = command("show").out
    assert "\x1b" not in out
    assert "ow\\nline" in out


def test_no_color_sends_no_escapes_to_a_terminal(trained: Path) -> None:
    import pty

    main, terminal = pty.openpty()
    arguments = ["show", "-m", str(trained / "model"), "--no-color"]
    subprocess.run(
        [sys.executable, "-m", "rnnforecast", *arguments], stdout=terminal, timeout=60, check=True
    )
    os.close(terminal)
    assert b"\x1b" not in os.read(main, 65536)
    os.close(main)


@pytest.mark.slow
@pytest.mark.timed
def test_predict_costs_little_over_importing_its_libraries(trained: Path, tmp_path: Path) -> None:
    import statistics
    import time

    commands = {
        "libraries": ["-c", "import pandas, pyarrow"],
        "predict": ["-m", "rnnforecast", "predict", "-q", "-m", str(trained / "model")],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(5):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, timeout=60)
            times[name].append(time.perf_counter() - begin)
    assert statistics.median(times["predict"]) <= 2.2 * statistics.median(times["libraries"])


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029", "\x9b"])
def test_an_error_is_one_line_of_json_whatever_a_cell_holds(
    command: Command, character: str
) -> None:
    rows = [f"2024-{month:02d}-{day:02d},{day % 5}.5" for month in (1, 2) for day in range(1, 29)]
    Path("x.csv").write_text("\n".join(["time,v", *rows, f"2024-02-29,7{character}"]), "utf-8")

    outcome = command("check", "x.csv", "--json")

    assert (outcome.code, len(outcome.err.splitlines())) == (4, 1)
    assert repr(f"7{character}")[1:-1] in repr(outcome.error["hint"])
