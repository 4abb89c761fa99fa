"""No file, however wrong or hostile, takes long, fills memory or ends in a trace."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.limited import LIMIT_S, Done, Job, run_all
from tests.test_cases import CASES, FOUND, OK, TEMP, TIMES, Case, lines, long, text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

BAD = 4
MOST_BYTES = 1_500_000_000
TINY = ("--hidden", "2", "--steps", "2", "-L", "8", "-H", "4", "--threads", "1", "-m", "model")


@dataclass(frozen=True)
class Hostile:
    """A file that somebody made to do harm, or a job that went astray."""

    build: Callable[[], str | Path]
    codes: tuple[int, ...]
    """Of `check`."""
    error: str | None = None
    options: tuple[str, ...] = ()
    trained: tuple[int, ...] | None = None
    """The exit codes of `train`; None where they are those of `check`."""


def packed(parts: Callable[[], list[bytes]], times: int) -> Callable[[], Path]:
    """A gzip file of a head, and of one part that comes again and again."""

    def build() -> Path:
        head, part = parts()
        with gzip.open("x.csv.gz", "wb", compresslevel=1) as file:
            file.write(head)
            for _ in range(times):
                file.write(part)
        return Path("x.csv.gz")

    return build


def many_rows() -> Path:
    """A Parquet file of a few kilobytes that holds a hundred million rows."""
    rows = pa.table({"time": pa.array([TIMES[0]] * 10**6), "temp": np.zeros(10**6)})
    with pq.ParquetWriter("x.parquet", rows.schema) as writer:
        for _ in range(100):
            writer.write_table(rows)
    return Path("x.parquet")


def many_columns(n_rows: int) -> Callable[[], Path]:
    def build() -> Path:
        with Path("x.csv").open("w") as file:
            file.write("time," + ",".join(f"s{i}" for i in range(100_000)) + "\n")
            for time in TIMES[:n_rows]:
                file.write(f"{time}" + ",1" * 100_000 + "\n")
        return Path("x.csv")

    return build


def odd_types() -> Path:
    """Extension types, and numbers too large for a double, beside a column that can be used."""
    uuids = pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([os.urandom(16) for _ in TIMES], pa.binary(16))
    )
    large = pa.array([2**64 - 1 - i for i in range(len(TIMES))], pa.uint64())
    pq.write_table(
        pa.table({"time": TIMES, "temp": TEMP, "key": uuids, "large": large}), "x.parquet"
    )
    return Path("x.parquet")


def deep() -> Path:
    type_: pa.DataType = pa.float64()
    for _ in range(30):
        type_ = pa.list_(type_)
    nested = pa.nulls(len(TIMES), type_)
    pq.write_table(pa.table({"time": TIMES, "temp": TEMP, "nested": nested}), "x.parquet")
    return Path("x.parquet")


def long_texts(n_rows: int, n_bytes: int) -> Callable[[], Path]:
    """A Parquet file of some kilobytes with one long text for each row."""

    def build() -> Path:
        values = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(n_rows, np.int32)), pa.array(["x" * n_bytes])
        )
        stamps = pa.array(np.arange(n_rows) * 3_600_000_000 + 1_704_067_200_000_000)
        table = {"time": stamps.cast(pa.timestamp("us")), "temp": np.arange(n_rows) % 7 + 0.5}
        parquet = pa.table({**table, "note": values})
        with pq.ParquetWriter(
            "x.parquet", parquet.schema, compression="zstd", use_dictionary=["note"]
        ) as writer:
            writer.write_table(parquet)
        return Path("x.parquet")

    return build


def with_cell(cell: str, row: int = 150) -> list[str]:
    made = lines()
    stamp, _, flow = made[row].split(",")
    made[row] = f"{stamp},{cell},{flow}"
    return made


ROW = b"2024-03-01 00:00:00,5\n"
HEAD = b"time,temp\n"
NAMES = ("../../x", "\x1b[2Jx", "=cmd('x')", '"a\nb"', "/etc/passwd", "CON", "x" * 3000, "\u202ex")
HOSTILE = {
    "gzip, one row for ever": Hostile(
        packed(lambda: [HEAD, ROW * 50_000], 300),
        (BAD,),
        "input-bytes",
        ("--max-input-bytes", "100M"),
    ),
    "gzip, one row for ever, no limit": Hostile(
        packed(lambda: [HEAD, ROW * 50_000], 200), (BAD, FOUND, 5)
    ),
    "gzip, one line": Hostile(packed(lambda: [HEAD, b"5" * 1_000_000], 1000), (BAD,), "long-line"),
    "gzip, one line of digits far down": Hostile(
        packed(lambda: ["\n".join(["time,temp,flow", *lines(), ""]).encode(), b"5" * 10**6], 300),
        (BAD,),
    ),
    "gzip, zeros": Hostile(packed(lambda: [b"", b"\0" * 1_000_000], 1000), (BAD,), "encoding"),
    "gzip, a quote": Hostile(packed(lambda: [HEAD + ROW * 200 + b'"', ROW * 50_000], 200), (BAD,)),
    "gzip, empty lines": Hostile(packed(lambda: [HEAD, b"\n" * 10**6], 300), (BAD,)),
    "Parquet, a hundred million rows": Hostile(many_rows, (BAD,), "memory", ("--max-memory", "1G")),
    "Parquet, one long name for many rows": Hostile(
        long_texts(200_000, 1 << 20), (BAD,), "long-field", ("--series", "note", "--allow-future")
    ),
    "Parquet, one name for many rows": Hostile(
        long_texts(200_000, 120_000), (OK, FOUND), None, ("--series", "note", "--allow-future")
    ),
    "Parquet, long notes that nobody selects": Hostile(long_texts(300, 8 << 20), (OK, FOUND)),
    "Parquet, other types": Hostile(odd_types, (OK, FOUND)),
    "Parquet, nested deep": Hostile(deep, (OK, FOUND)),
    "100,000 columns": Hostile(many_columns(12), (OK, FOUND), trained=(0, BAD, 5)),
    "a million columns": Hostile(
        text(["2024-01-01 00:00" + ",1" * 10**6] * 3, "time," + ",".join(map(str, range(10**6)))),
        (BAD,),
        "too-many-columns",
    ),
    "a number of 5000 digits": Hostile(text(with_cell("9" * 5000)), (BAD,)),
    "a number of 5000 digits as a stamp": Hostile(text(["9" * 5000 + ",5,5", *lines()]), (BAD,)),
    "a field of 20 million letters": Hostile(text(with_cell("x" * 20_000_000)), (BAD,)),
    "a field of 20 million letters in quotes": Hostile(
        text(with_cell('"' + "x" * 20_000_000 + '"')), (BAD,)
    ),
    "a name of 10 million letters": Hostile(
        text(lines(), "time," + "x" * 10**7 + ",flow"), (BAD, OK)
    ),
    "names": Hostile(text(long(*NAMES), "time,sensor,temp"), (OK, FOUND)),
    "a column with escapes": Hostile(text(lines(), "time,\x1b]0;x\x07,../../x"), (OK, FOUND)),
}


def run_in_folders(
    cases: Mapping[str, Case | Hostile], commands: Mapping[str, Sequence[str]], folder: Path
) -> dict[str, Done]:
    """Run commands on every file, which is built in a folder of its own."""
    jobs = []
    for number, (name, case) in enumerate(cases.items()):
        place = folder / f"{number}"
        place.mkdir()
        with contextlib.chdir(place):
            path = str(case.build())
        for command, options in commands.items():
            line = (command, path, *case.options, *options)
            jobs.append(Job(f"{command} {name}", str(place), line))
    return run_all(jobs, folder)


def check_limits(done: Done) -> None:
    assert done.seconds < LIMIT_S, done.err[-500:]
    assert 0 < done.peak_bytes < MOST_BYTES
    said = done.out + done.err
    assert "Traceback" not in said and "a bug in" not in said
    assert not [c for c in said if not c.isprintable() and c not in "\n\t"]
    assert len(said) < 100_000


def test_files_that_went_wrong_are_soon_refused_or_trained_on(tmp_path: Path) -> None:
    """What `check` says of them is looked at in `tests/test_cases.py`."""
    ended = run_in_folders(CASES, {"train": TINY}, tmp_path)

    for name, case in CASES.items():
        trained = ended[f"train {name}"]
        check_limits(trained)
        expected = 0 if case.exit_code == FOUND else case.exit_code
        assert trained.code == expected, (name, trained.err)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """What came of `check` and of `train`, for every hostile file."""
    return run_in_folders(HOSTILE, {"check": (), "train": TINY}, tmp_path_factory.mktemp("hostile"))


@pytest.mark.timed
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_does_no_harm(ended: dict[str, Done], name: str) -> None:
    case = HOSTILE[name]
    looked, trained = ended[f"check {name}"], ended[f"train {name}"]

    check_limits(looked)
    check_limits(trained)
    assert looked.code in case.codes, looked.err
    after_check = tuple(0 if code == FOUND else code for code in case.codes)
    assert trained.code in (case.trained or after_check), trained.err
