"""Ways in which sensor files go wrong, through the command line: the verdict, the words, the fix.

Each case is a file, the exit code of `check`, the code of its error or warning (None where nothing
is said), and whether the message offers options that make the file usable.
"""

from __future__ import annotations

import gzip
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rnnforecast
from tests.builders import wave
from tests.conftest import Command

N = 200
TIMES = pd.date_range("2024-03-01", periods=N, freq="1h")
TEMP, FLOW = wave(N), wave(N, seed=1)
HEADER = "time,temp,flow"
OK, FOUND, BAD, SHORT = 0, 3, 4, 5


@dataclass(frozen=True)
class Case:
    """A file, and what is said of it."""

    build: Callable[[], str | Path]
    exit_code: int
    code: str | None = None
    fixed: int | None = None
    """The exit code with the options that are offered; None where none are."""
    also: tuple[str, ...] = ()
    """What else is said."""
    options: tuple[str, ...] = ()


def cells(changes: dict[int, str] | None = None) -> list[str]:
    made = [f"{x:.2f}" for x in TEMP]
    for row, cell in (changes or {}).items():
        made[row] = cell
    return made


def lines(
    temp: list[str] | None = None, form: str = "%Y-%m-%d %H:%M:%S", sep: str = ","
) -> list[str]:
    temp = cells() if temp is None else temp
    columns = zip(TIMES, temp, FLOW, strict=True)
    return [f"{time.strftime(form)}{sep}{a}{sep}{b:.1f}" for time, a, b in columns]


def text(
    rows: list[str], header: str = HEADER, end: str = "\n", encoding: str = "utf-8"
) -> Callable[[], Path]:
    def build() -> Path:
        whole = [header, *rows] if header else rows
        Path("x.csv").write_bytes("".join(line + end for line in whole).encode(encoding))
        return Path("x.csv")

    return build


def comma(rows: list[str]) -> list[str]:
    return [row.replace(",", ";").replace(".", ",") for row in rows]


def with_row(place: int, row: str) -> list[str]:
    return [*lines()[:place], row, *lines()[place + 1 :]]


def parquet(
    name: str = "x.parquet", later: str = "0h", zone: str | None = None, **columns: object
) -> Callable[[], Path]:
    def build() -> Path:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        times = pa.array((TIMES + pd.Timedelta(later)).tz_localize(zone))
        pq.write_table(pa.table({"time": times, **columns}), name)
        return Path(name)

    return build


def cut_gzip() -> Path:
    Path("x.csv.gz").write_bytes(gzip.compress("\n".join([HEADER, *lines()]).encode())[:-400])
    return Path("x.csv.gz")


def cut_parquet() -> Path:
    path = parquet(temp=TEMP)()
    path.write_bytes(path.read_bytes()[:-50])
    return path


def empty() -> Path:
    Path("x.csv").touch()
    return Path("x.csv")


def folder(*parts: Callable[[], Path], stray: tuple[str, ...] = ()) -> Callable[[], str]:
    def build() -> str:
        for part in parts:
            part()
        for name in stray:
            Path("parts", name).write_text("stray")
        return "parts"

    return build


def sharded(table: Callable[[], Path], change: Callable[[Path], object]) -> Callable[[], Path]:
    """Make a folder of two buckets, and change it by hand."""

    def build() -> Path:
        rnnforecast.shard(table(), "buckets", 2)
        change(Path("buckets"))
        return Path("buckets")

    return build


def into_both(buckets: Path) -> None:
    """Write all rows into both buckets, and a manifest that fits."""
    said = json.loads((buckets / "_shards.json").read_bytes())
    paths = [buckets / one["file"] for one in said["files"]]
    rows = pa.concat_tables([pq.read_table(path) for path in paths])
    for one, path in zip(said["files"], paths, strict=True):
        pq.write_table(rows, path)
        one["bytes"] = path.stat().st_size
    (buckets / "_shards.json").write_text(json.dumps(said))


def stamped(times: pd.DatetimeIndex) -> list[str]:
    return [f"{time},{20 + i % 96 / 10:.2f},{i % 50}" for i, time in enumerate(times)]


def local(start: str, end: str, freq: str) -> list[str]:
    """Rows at the wall-clock times of Vienna."""
    return stamped(pd.date_range(start, end, freq=freq, tz="Europe/Vienna").tz_localize(None))


def epoch(scale: float) -> list[str]:
    return [
        f"{t.timestamp() * scale:.0f},{a:.2f},{b:.1f}"
        for t, a, b in zip(TIMES, TEMP, FLOW, strict=True)
    ]


def long(*names: str) -> list[str]:
    return [f"{time},{name},{x:.2f}" for name in names for time, x in zip(TIMES, TEMP, strict=True)]


def jittered(most: int) -> list[str]:
    seconds = np.random.default_rng(0).integers(0, most, N)
    return stamped(TIMES + pd.to_timedelta(seconds, unit="s"))


GROUPED = [f"{time};1.{int(10 * x):03d},5" for time, x in zip(TIMES, TEMP, strict=True)]
CALENDAR = [
    f"{t.year},{t.month},{t.day},{t.hour},{x:.2f}" for t, x in zip(TIMES, TEMP, strict=True)
]
DAY_AND_HOUR = [f"{t.date()},{t.time()},{x:.2f}" for t, x in zip(TIMES, TEMP, strict=True)]
STUCK = cells(dict.fromkeys(range(50, 110), "19.50"))
LONG_STUCK = [
    f"{TIMES[0] + pd.Timedelta(n, 'h')},{19.5 if 150 <= n < 190 else TEMP[n % 168] + n // 168:.2f}"
    for n in range(600)
]
"""40 of 600 readings stand still: few enough to be left out."""
SENTINEL = cells(dict.fromkeys((5, 40, 41, 42, 90, 150), "-200"))
SPIKES = cells({50: "65535", 80: "65535"})
ENDLESS = '2024-03-09 07:00:00,"5,3'

CASES = {
    "1 byte order mark": Case(text(lines(), encoding="utf-8-sig"), OK),
    "2 UTF-16": Case(text(lines(), encoding="utf-16"), FOUND, "encoding"),
    "2 UTF-16 without a mark": Case(text(lines(), encoding="utf-16-le"), BAD, "encoding", OK),
    "3 cp1252": Case(text(lines(), "time,temp °C,m³", encoding="cp1252"), FOUND, "encoding"),
    "3 another code page": Case(
        text(lines(), "time,Давление,Б", encoding="cp1251"), BAD, "encoding", OK
    ),
    "4 semicolons": Case(text(lines(sep=";"), "time;temp;flow"), OK),
    "4 tabs": Case(text(lines(sep="\t"), "time\ttemp\tflow"), OK),
    "4 bars": Case(text(lines(sep="|"), "time|temp|flow"), OK),
    "5 decimal comma": Case(text(comma(lines()), "time;temp;flow"), FOUND, "decimal-comma"),
    "6 thousands": Case(text(GROUPED, "time;temp"), BAD, "thousands", OK),
    "7 carriage returns": Case(text(lines(), end="\r"), OK),
    "7 both line ends": Case(text(lines(), end="\r\n"), OK),
    "8 a separator at each end": Case(
        text([x + "," for x in lines()], HEADER + ","), FOUND, "empty-column"
    ),
    "9 a row too short": Case(
        text(with_row(50, "2024-03-03 02:00:00,5")), BAD, "ragged-row", FOUND
    ),
    "9 a row too long": Case(
        text(with_row(50, "2024-03-03 02:00:00,5,6,7")), BAD, "ragged-row", FOUND
    ),
    "10 line ends in quotes": Case(
        text([x + ',"a\n""b"""' for x in lines()], HEADER + ",note"), OK
    ),
    "11 cut off inside of quotes": Case(text([*lines()[:-1], ENDLESS]), BAD, "unclosed-quote"),
    "12 gzip cut off": Case(cut_gzip, BAD, "truncated"),
    "13 Parquet cut off": Case(cut_parquet, BAD, "unreadable"),
    "14 empty": Case(empty, BAD, "empty"),
    "15 header only": Case(text([]), BAD, "header-only"),
    "15 one row": Case(text(lines()[:1]), SHORT, "too-short"),
    "17 no header": Case(text(lines(), ""), BAD, "no-header", OK),
    "18 a name twice": Case(text(lines(), "time,temp,temp"), BAD, "duplicate-column"),
    "19 units": Case(text([",°C,m3/h", *lines()]), BAD, "units-row", OK),
    "20 a preamble": Case(
        text([HEADER, *lines()], "Logger\nSerial 5\n\nStart"), BAD, "one-column", OK
    ),
    "20 comments": Case(text([HEADER, *lines()], "# Logger\n# a,b,c"), BAD, "one-column", OK),
    "21 numbers of rows": Case(
        text([f"{i},{line}" for i, line in enumerate(lines())], f"No,{HEADER}"), OK
    ),
    "21 odd names": Case(text(lines(), "time,Temp ,flöw 🌊"), OK),
    "22 words for missing": Case(text(lines(cells({5: "NaN", 9: "--", 11: "#N/A"}))), OK),
    "22 other words": Case(
        text(lines(cells({5: "ERR", 9: "Bad", 11: "<1.0"}))), BAD, "not-a-number", OK
    ),
    "23 infinite": Case(text(lines(cells({5: "inf", 9: "1e400"}))), BAD, "infinite", OK),
    "24 states among numbers": Case(
        text(lines(cells({5: "ON", 9: "OFF"}))), BAD, "not-a-number", OK
    ),
    "26 no reading at all": Case(text(lines([""] * N)), FOUND, "empty-column"),
    "27 constant": Case(text(lines(["5"] * N)), FOUND, "constant-series"),
    "28 stuck": Case(text(LONG_STUCK, "time,temp"), FOUND, "stuck-sensor", OK),
    "28 stuck for most of the time": Case(text(lines(STUCK)), FOUND, "stuck-sensor"),  # no option
    "29 spikes": Case(text(lines(SPIKES)), FOUND, "sentinel", OK),
    "29 a spike": Case(text(lines(cells({50: "812"}))), FOUND, "spike", OK),
    "29 a unit that changed": Case(
        text(lines([f"{x if i < 120 else 1.8 * x + 32:.2f}" for i, x in enumerate(TEMP)])),
        OK,  # too few readings to tell a change of unit from weather
    ),
    "30 UTC with nanoseconds": Case(text(lines(form="%Y-%m-%dT%H:%M:%S.000000123Z")), OK),
    "30 an offset": Case(text(lines(form="%Y-%m-%dT%H:%M:%S+01:00")), OK),
    "31 seconds": Case(text(epoch(1)), FOUND, "epoch"),
    "31 milliseconds": Case(text(epoch(1e3)), FOUND, "epoch"),
    "32 day or month": Case(
        text(
            stamped(TIMES[:0])
            + [f"0{1 + i // 24}/0{1 + i // 24}/2024 {i % 24}:00,{i},1" for i in range(N)]
        ),
        BAD,
        "ambiguous-date",
    ),
    "33 several formats": Case(
        text([*lines()[:100], *lines(form="%d.%m.%Y %H:%M")[100:]]), BAD, "several-formats"
    ),
    "34 offsets of two kinds": Case(
        text(
            [*lines(form="%Y-%m-%dT%H:%M:%SZ")[:100], *lines(form="%Y-%m-%dT%H:%M:%S+00:00")[100:]]
        ),
        OK,
    ),
    "34 some without an offset": Case(
        text([*lines(form="%Y-%m-%dT%H:%M:%SZ")[:100], *lines()[100:]]), BAD, "mixed-zones"
    ),
    "34 a part with a zone": Case(
        folder(
            parquet("parts/a.parquet", temp=TEMP), parquet("parts/b.parquet", zone="UTC", temp=TEMP)
        ),
        BAD,
        "mixed-zones",
    ),
    "35 the hour that comes twice": Case(
        text(local("2024-10-26", "2024-10-29", "15min")), FOUND, "clock-set-back"
    ),
    "35 once in an hour": Case(
        text(local("2024-10-20", "2024-10-31", "1h")), FOUND, "clock-set-back"
    ),
    "35 not on such a day": Case(
        text(stamped(TIMES[:100].append(TIMES[99:]))), BAD, "duplicate-time", OK
    ),
    "35 with the zone": Case(
        text(local("2024-10-20", "2024-10-31", "1h")), OK, options=("--tz", "Europe/Vienna")
    ),
    "36 with the zone": Case(
        text(local("2024-03-20", "2024-04-05", "1h")), OK, options=("--tz", "Europe/Vienna")
    ),
    "36 an hour that is not": Case(
        text(stamped(pd.date_range("2024-03-20", "2024-04-05", freq="1h"))),
        BAD,
        "nonexistent-time",
        OK,
        options=("--tz", "Europe/Vienna"),
    ),
    "36 without a zone": Case(text(local("2024-03-20", "2024-04-05", "1h")), OK),
    "37 leap second": Case(
        text(with_row(10, "2024-03-01 09:59:60,18,19")), FOUND, "leap-second", also=("jitter",)
    ),
    "37 leap second refused": Case(
        text(with_row(10, "2024-03-01 09:59:60,18,19")),
        BAD,
        "leap-second",
        options=("--leap-second", "error"),
    ),
    "38 30 February": Case(text(with_row(10, "2024-02-30 10:00:00,5,6")), BAD, "not-a-time"),
    "38 24:00": Case(text(with_row(24, "2024-03-01 24:00:00,20,21")), FOUND, "hour-24"),
    "39 year 1": Case(text(["0001-01-01 00:00:00,5,6", *lines()]), BAD, "time-range"),
    "39 year 9999": Case(text([*lines(), "9999-12-31 00:00:00,5,6"]), BAD, "time-range"),
    "40 the same row twice": Case(text([*lines()[:10], *lines()[9:]]), FOUND, "repeated-row"),
    "41 two readings at one time": Case(
        text([*lines()[:10], lines(cells({9: "21.99"}))[9], *lines()[10:]]),
        BAD,
        "duplicate-time",
        OK,
    ),
    "41 two values beside the readings at one time": Case(
        text([*lines()[:10], lines()[9][:-1] + "9", *lines()[10:]]),
        BAD,
        "duplicate-time",
        OK,
        options=("--target", "temp", "--known", "flow"),
    ),
    "42 the time goes back": Case(text([*lines()[100:], *lines()[:100]]), FOUND, "time-goes-back"),
    "43 jitter": Case(text(jittered(60)), FOUND, "jitter"),
    "43 irregular": Case(text(jittered(3000)), BAD, "irregular", OK),
    "44 a gap": Case(text([*lines()[:50], *lines()[90:]]), OK),
    "45 not yet": Case(text([*lines(), "2099-01-01 00:00:00,5,6"]), BAD, "future"),
    "46 names with zeros": Case(text(long("007", "010"), "time,id,temp"), OK),
    "52 hive": Case(
        folder(
            parquet("parts/id=007/a.parquet", temp=TEMP), parquet("parts/id=7/a.parquet", temp=TEMP)
        ),
        OK,
    ),
    "53 whole numbers and others": Case(
        folder(
            parquet("parts/a.parquet", temp=TEMP),
            parquet("parts/b.parquet", f"{N}h", temp=TEMP.astype(int)),
        ),
        OK,
    ),
    "53 a column is missing": Case(
        folder(
            parquet("parts/a.parquet", temp=TEMP, flow=FLOW), parquet("parts/b.parquet", temp=TEMP)
        ),
        BAD,
        "different-columns",
    ),
    "54 stray files": Case(
        folder(parquet("parts/a.parquet", temp=TEMP), stray=("_SUCCESS", ".a.crc")), OK
    ),
    "54 another format": Case(
        folder(parquet("parts/a.parquet", temp=TEMP), stray=("b.csv",)), BAD, "mixed-formats"
    ),
    "55 a whole number too large for a double": Case(
        parquet(temp=pa.array([2**63 + 4096 * i * (i % 7) for i in range(N)], pa.uint64())),
        FOUND,
        "lost-digits",
    ),
    "56 nested": Case(parquet(temp=TEMP, lists=[[1.0]] * N), OK),
    "56 nested, to be forecast": Case(
        parquet(temp=TEMP, lists=[[1.0]] * N), BAD, "nested", options=("--target", "lists")
    ),
    "58 thousands of columns": Case(parquet(**{f"s{i}": TEMP for i in range(2500)}), OK),
    "58 a column that names no series": Case(
        text([f"{line},P7" for line in lines()], "time,temp,flow,tag"), OK
    ),
    "58 a column that names no series, as is said": Case(
        text([f"{line},P7" for line in lines()], "time,temp,flow,tag"),
        OK,
        options=("--id-from-columns",),
    ),
    "60 /dev/null": Case(lambda: "/dev/null", BAD, "not-a-file"),
    "60 no such file": Case(lambda: "none*.csv", BAD, "not-found"),
    "61 year, month, day, hour": Case(text(CALENDAR, "year,month,day,hour,temp"), OK),
    "61 date and time": Case(text(DAY_AND_HOUR, "date,time,temp"), OK),
    "62 a sentinel": Case(text(lines(SENTINEL)), FOUND, "sentinel", OK),
    "63 a series in two buckets": Case(
        sharded(text(long("f", "g"), "time,id,temp"), into_both), BAD, "series-in-two-buckets"
    ),
    "63 a bucket that is missing": Case(
        sharded(text(long("f", "g"), "time,id,temp"), lambda x: next(x.glob("bucket-*")).unlink()),
        BAD,
        "damaged-shards",
    ),
}


def options_in(message: str) -> list[str]:
    """Cut the first options out of a message that offers some, without what they change."""
    offer = message[message.index("--") :].split("  or  ")[0].split(" ; ")[0]
    return shlex.split(offer.split("  (")[0])


@pytest.mark.parametrize("name", CASES)
def test_each_case_has_its_verdict_its_words_and_a_fix_that_works(
    command: Command, name: str
) -> None:
    case = CASES[name]
    path = case.build()

    outcome = command("check", path, *case.options, "--json")

    assert outcome.code == case.exit_code, outcome.err
    assert "Traceback" not in outcome.err
    if outcome.code in (OK, FOUND):
        findings = outcome.document["findings"]
        said = {finding["code"]: finding.get("hint", finding["message"]) for finding in findings}
        assert set(said) == {*({case.code} if case.code else ()), *case.also}
        offer = said.get(str(case.code), "")
    else:
        error = json.loads(outcome.err.splitlines()[-1])["error"]
        assert error["code"] == case.code
        offer = error.get("hint", "")
    if case.fixed is not None:
        fixed = command("check", path, *case.options, *options_in(offer), "--json")
        assert fixed.code == case.fixed, fixed.err
