"""A simulated year of hourly runs of 100 series: what a score, a run and a status need then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from rnnforecast.cli.main import run
from rnnforecast.data.axis import format_for_file_name
from rnnforecast.jobs.ledger import list_parts
from tests.builders import HOUR_US, START_US, wave
from tests.limited import Job, run_all

pytestmark = [pytest.mark.slow, pytest.mark.timed]
N_SERIES, HORIZON, N_HOURS = 100, 24, 365 * 24
MOST_BYTES = 500_000_000
NAMES = [f"station {n // 10}/sensor {n % 10}" for n in range(N_SERIES)]


def part_as_of(hour: int, start_us: int) -> tuple[pa.Table, str]:
    """Make what one run issues: 24 steps of 100 series, as `issue_table` has them."""
    n = N_SERIES * HORIZON
    lead = np.tile(np.arange(1, HORIZON + 1, dtype=np.int32), N_SERIES)
    cutoff = np.full(n, start_us + hour * HOUR_US)
    columns = {
        "series": np.repeat(NAMES, HORIZON),
        "cutoff": pa.array(cutoff).cast(pa.timestamp("us")),
        "timestamp": pa.array(cutoff + lead.astype(np.int64) * HOUR_US).cast(pa.timestamp("us")),
        "lead": lead,
        "source": pa.repeat("network", n),
        "version": pa.repeat("20240101T000000Z-aaaaaa", n),
        "in_sample": pa.repeat(False, n),
    }
    noise = np.random.default_rng(hour).normal(20, 5, (4, n))
    values = dict(zip(("forecast", "q10", "q90", "seasonal_naive"), noise, strict=True))
    usual = {"scale": np.ones(n), "usual_coverage": np.full(n, 0.8)}
    return pa.table({**columns, **values, **usual}), format_for_file_name(cutoff[0], None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 100 series, a year of their readings, and the ledger of the year."""
    folder = tmp_path_factory.mktemp("year")
    times = pd.date_range("2024-01-01", periods=N_HOURS, freq="1h")
    readings = {name: wave(N_HOURS, seed=n).round(2) for n, name in enumerate(NAMES)}
    table = pd.DataFrame({"time": times, **readings})
    table.to_parquet(folder / "year.parquet", index=False)
    table[:600].to_parquet(folder / "first.parquet", index=False)
    words = ["train", str(folder / "first.parquet"), "--model", str(folder / "model"), "-q"]
    small = ["--hidden", "4", "--steps", "4", "-L", "24", "-H", str(HORIZON), "--threads", "1"]
    assert run([*words, *small]) == 0
    (folder / "ledger").mkdir()
    for hour in range(600, N_HOURS - 1):
        rows, as_of = part_as_of(hour, START_US)
        pa_parquet.write_table(rows, folder / f"ledger/{as_of}_0001_{hour:016x}.parquet")
    (folder / "job.toml").write_text(
        '[data]\nsource = "year.parquet"\n[forecast]\noutput = "out/{as_of}.parquet"\n'
        '[ledger]\npath = "ledger"\n[log]\nfile = "run.log"\nmax_size = "64K"\n'
        '[metrics]\ntextfile = "job.prom"\n[keep]\nforecasts = 2\nledger = "400d"\n'
    )
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_score_of_a_week_needs_no_memory_for_the_year(place: Path) -> None:
    words = ("score", "--job", "job.toml", "--json", "--since")
    jobs = [
        Job("week", str(place), (*words, "7d"), is_alone=True),
        Job("day", str(place), (*words, "1d"), is_alone=True),
        Job("run", str(place), ("run", "job.toml"), is_alone=True),
    ]
    done = run_all(jobs, place)

    for name, ended in done.items():
        sys.stdout.write(f"{name}: {ended.seconds:.1f} s, {ended.peak_bytes / 1e6:.0f} MB\n")
        assert ended.code == 0, ended.err
        assert ended.peak_bytes < MOST_BYTES, name
    assert done["week"].seconds < 60
    assert '"n": 3' in done["week"].out, "thousands of values for each series"


def test_what_a_thousand_runs_write_is_bounded(place: Path) -> None:
    """The log begins anew, old forecasts and parts go, and no descriptor stays open."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from rnnforecast.config.job import read_job\n"
        "from rnnforecast.events import ignore\n"
        "from rnnforecast.jobs.log import RunReporter, RunResult, run_log_of\n"
        "job = read_job(Path('job.toml'))\n"
        "before = len(os.listdir('/proc/self/fd'))\n"
        "for n in range(1000):\n"
        "    reporter = RunReporter(job, ignore, run_log_of(job))\n"
        "    reporter.report_result(RunResult('published', newest_s=1.7e9 + n))\n"
        "    reporter.report_end()\n"
        "assert len(os.listdir('/proc/self/fd')) == before\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=place, check=True)
    logs = {path.name: path.stat().st_size for path in place.glob("run.log*")}
    assert set(logs) == {"run.log", "run.log.1"} and max(logs.values()) <= 1 << 16
    assert (place / "job.prom").stat().st_size < 4096
    assert not list(place.glob(".*.lock"))
    assert len(list_parts(place / "ledger")) <= 400 * 24
