"""A simulated year of hourly runs of 100 series: what a score, a run and a status need then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from rnnforecast.cli.main import run
from rnnforecast.config.job import read_job
from rnnforecast.data.axis import format_for_file_name
from rnnforecast.events import ignore
from rnnforecast.jobs.log import RunReporter, RunResult, run_log_of
from tests.builders import HOUR_US, START_US, wave
from tests.limited import ROOT

pytestmark = pytest.mark.slow
N_SERIES, HORIZON, N_HOURS = 100, 24, 365 * 24
N_NEW = 10 * 24
"""Hours at the end whose parts are of their own, more than a score of a week looks at. The parts
before are one file under many names: whoever reads them all has the year in memory all the same."""
MOST_BYTES = 500_000_000
NAMES = [f"station {n // 10}/sensor {n % 10}" for n in range(N_SERIES)]


def part_as_of(hour: int, start_us: int) -> pa.Table:
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
    return pa.table({**columns, **values, **usual})


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
    old = folder / "old.parquet"
    pa_parquet.write_table(part_as_of(600, START_US), old)
    for hour in range(600, N_HOURS - 1):
        as_of = format_for_file_name(START_US + hour * HOUR_US, None)
        path = folder / f"ledger/{as_of}_0001_{hour:016x}.parquet"
        if hour < N_HOURS - N_NEW:
            path.hardlink_to(old)
        else:
            pa_parquet.write_table(part_as_of(hour, START_US), path)
    (folder / "job.toml").write_text(
        '[data]\nsource = "year.parquet"\n[forecast]\noutput = "out/{as_of}.parquet"\n'
        '[ledger]\npath = "ledger"\n[log]\nfile = "run.log"\nmax_size = "64K"\n'
        '[metrics]\ntextfile = "job.prom"\n[keep]\nforecasts = 2\nledger = "400d"\n'
    )
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_score_of_a_week_needs_no_memory_for_the_year(place: Path) -> None:
    """A process of its own tells its peak: the kernel's figure for a child has its parent's."""
    words = ["score", "--job", str(place / "job.toml"), "--json", "--since", "7d"]
    script = f"from rnnforecast.cli.main import run; code = run({words!r}); import sys; "
    script += "sys.stderr.write(open('/proc/self/status').read()); sys.exit(code)"
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.monotonic() - begun
    peak = 1024 * int(done.stderr.partition("VmHWM:")[2].split()[0])
    sys.stdout.write(f"{seconds:.1f} s, {peak / 1e6:.0f} MB\n")

    scores = json.loads(done.stdout)["scores"]
    assert [score["n"] for score in scores] == [7 * 24 * HORIZON] * N_SERIES
    assert peak < MOST_BYTES
    assert seconds < 60


def test_what_a_thousand_runs_write_is_bounded(place: Path) -> None:
    """The log begins anew, the text file keeps its size, and no descriptor stays open."""
    job = read_job(place / "job.toml")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for n in range(1000):
        reporter = RunReporter(job, ignore, run_log_of(job))
        reporter.report_result(RunResult("published", newest_s=1.7e9 + n))
        reporter.report_end()

    assert before == len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    logs = {path.name: path.stat().st_size for path in place.glob("run.log*")}
    assert set(logs) == {"run.log", "run.log.1"} and max(logs.values()) <= 1 << 16
    assert (place / "job.prom").stat().st_size < 4096
    assert not list(place.glob(".*.lock"))
