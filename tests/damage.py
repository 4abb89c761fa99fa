"""Tables of sensors in many forms, and what happens to them on their way: for properties.

A `Form` says how two sensors are written, a damage what then goes wrong. Both are small values, so
that a case that failed once can stand as an example.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.builders import wave

SENSORS = ("flow", "level")
START = "2024-03-20"
"""A day after the 12th, so that day and month can be told apart."""
Row = list[str]


def readings(n: int) -> np.ndarray:
    """`(sensor, row)`: hourly readings with two digits, some missing in the middle."""
    made = np.array([wave(n), 3 * wave(n, seed=1) - 10], np.float64).round(2)
    made[1, n // 3 : n // 3 + 3] = np.nan
    return made


@dataclass(frozen=True)
class Form:
    """How a table is written; whatever it is, its readings are the same."""

    n_rows: int = 60
    is_long: bool = False
    is_aware: bool = False
    format: str = "csv"
    stamps: str = "%Y-%m-%d %H:%M:%S"
    sep: str = ","
    decimal: str = "."
    end: str = "\n"
    encoding: str = "utf-8"
    missing: str = ""
    tail: str = ""
    """What follows the last row."""
    order: str = "sorted"
    extra: str = ""
    """A further column."""
    is_quoted: bool = False

    def rows(self) -> list[Row]:
        """Return the header and all rows as cells."""
        times = pd.date_range(START, periods=self.n_rows, freq="1h", tz=self._zone)
        if self.stamps in ("s", "ms"):
            stamps = [str(int(t.timestamp() * {"s": 1, "ms": 1000}[self.stamps])) for t in times]
        else:
            stamps = [t.strftime(self.stamps) + self._offset for t in times]
        values = [[self._cell(x) for x in sensor] for sensor in readings(self.n_rows)]
        if self.is_long:
            header = ["time", "sensor", "value"]
            body = [
                [stamps[i], s, v[i]]
                for s, v in zip(SENSORS, values, strict=True)
                for i in range(len(v))
            ]
        else:
            header = ["time", *SENSORS]
            body = [list(row) for row in zip(stamps, *values, strict=True)]
        if self.order == "shuffled":
            Random(0).shuffle(body)
        elif self.order == "twice":
            body = [row for row in body for _ in range(2)]
        if self.extra:
            cell = {"text": "ok °C", "empty": "", "number": "7"}[self.extra]
            header, body = [*header, "note"], [[*row, cell] for row in body]
        return [header, *body]

    @property
    def _zone(self) -> str | None:
        return "UTC" if self.is_aware else None

    @property
    def _offset(self) -> str:
        return "Z" if self.is_aware and "%z" not in self.stamps else ""

    def _cell(self, value: float) -> str:
        return self.missing if np.isnan(value) else f"{value:.2f}".replace(".", self.decimal)

    def text(self, rows: list[Row]) -> bytes:
        """Write rows as the bytes of a CSV file."""
        buffer = io.StringIO()
        style = csv.QUOTE_ALL if self.is_quoted else csv.QUOTE_MINIMAL
        csv.writer(buffer, delimiter=self.sep, lineterminator=self.end, quoting=style).writerows(
            rows
        )
        return (buffer.getvalue() + self.tail).encode(self.encoding, "replace")

    def table(self, rows: list[Row]) -> bytes:
        """Write rows as the bytes of a Parquet file, with types where all cells have one."""
        header, *body = rows
        whole = [row[: len(header)] + [""] * (len(header) - len(row)) for row in body]
        cells = [*zip(*whole, strict=True)]
        arrays = [_typed(column) for column in cells or [()] * len(header)]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_arrays(arrays, names=header), buffer)
        return buffer.getvalue()

    def write(self, stem: str, damages: tuple[Damage, ...] = ()) -> Path:
        """Write the table, with what happens to it on the way."""
        rows = self.rows()
        for name, seed in damages:
            if name in OF_ROWS:
                OF_ROWS[name](rows, Random(seed))
        whole = self.table(rows) if self.format == "parquet" else self.text(rows)
        for name, seed in damages:
            if name in OF_BYTES:
                whole = OF_BYTES[name](whole, Random(seed))
        if self.format == "csv.gz":
            whole = gzip.compress(whole, mtime=0)
        for name, seed in damages:
            if name in OF_FILES:
                whole = OF_FILES[name](whole, Random(seed))
        path = Path(f"{stem}.{self.format}")
        path.write_bytes(whole)
        return path


def _typed(cells: tuple[str, ...]) -> pa.Array:
    try:
        return pa.array([None if c in ("", "NaN", "--") else float(c) for c in cells])
    except ValueError:
        pass
    try:
        return pa.Array.from_pandas(pd.to_datetime(pd.Series(cells), format="ISO8601"))
    except (ValueError, pa.ArrowException):
        return pa.array(cells, pa.string())


Damage = tuple[str, int]
"""What happens, and the seed of where."""
NUMBERS = (
    "ERR", "<1.0", "NaN", "nan", "inf", "-inf", "1e400", "1e31", "1e38", "-", "--", "0x1A", "1,5",
    "1.234,5", "1_000", "١٢", "1e-400", "--5", "5.", ".5", "+5", "5 °C", "TRUE", "-200", "65535",
    "9" * 400, "=cmd()", "\x1b[31m", "12:30", '"', "2024-03-20", " ", "\ufeff5", "٫", "-0", "5\x00",
)  # fmt: skip
TIMES = (
    "", "NaT", "now", "0001-01-01 00:00:00", "9999-12-31 23:59:59", "2024-02-30 10:00:00",
    "2024-03-20 24:00:00", "2024-03-20 10:59:60", "2099-01-01 00:00:00", "2024-03-21T00:00:00Z",
    "2024-03-21 00:00:00+05:30", "1710892800", "1e400", "-5", "99999999999999999999", "20.03.2024",
    "03/04/2024 05:00", "2024-03-21", "2024-03-21 00:00:00.0005", "2024-W12-4", "24:00", "inf",
    "-0001-01-01 00:00:00", "2024-03-21 00:00:00 Europe/Vienna", "1680-01-01", "٢٠٢٤-٠٣-٢١",
    "2024-03-21 00:00:00+99:99", "294247-01-10 04:00:54.775807", "nan", "2024-10-27 02:30:00",
)  # fmt: skip
NAMES = ("", " flow", "FLOW", "level", "time", "1", "\x1b]0;x\x07", "a\nb", "=x", "../../x", "°C")
SHIFTS_S = (3600, -3600, 86_400, -86_400, 37, -1800, 31_536_000, -31_536_000, 10**9, 1)


def _a_row(rows: list[Row], random: Random) -> int:
    return random.randrange(1, len(rows)) if len(rows) > 1 else 0


def _put(rows: list[Row], row: int, column: int, cell: str) -> None:
    if column < len(rows[row]):
        rows[row][column] = cell


def _odd_number(rows: list[Row], random: Random) -> None:
    _put(rows, _a_row(rows, random), len(rows[0]) - 1, random.choice(NUMBERS))


def _odd_numbers(rows: list[Row], random: Random) -> None:
    token, share = random.choice(NUMBERS), random.choice((0.05, 0.4, 0.9, 1.0))
    for i in range(1, len(rows)):
        if random.random() < share:
            _put(rows, i, 2, token)


def _no_end(rows: list[Row], random: Random) -> None:
    """A sensor falls silent."""
    for i in range(_a_row(rows, random), len(rows)):
        _put(rows, i, len(rows[0]) - 1, "")


def _odd_time(rows: list[Row], random: Random) -> None:
    _put(rows, _a_row(rows, random), 0, random.choice(TIMES))


def _odd_times(rows: list[Row], random: Random) -> None:
    token = random.choice(TIMES)
    for i in range(1, len(rows)):
        if random.random() < 0.5:
            _put(rows, i, 0, token)


def _two_zones(rows: list[Row], random: Random) -> None:
    ending = random.choice(("Z", "+01:00", "+00:00", " "))
    for i in range(_a_row(rows, random), len(rows)):
        _put(rows, i, 0, "".join(rows[i][:1]) + ending)


def _swapped_times(rows: list[Row], random: Random) -> None:
    a, b = _a_row(rows, random), _a_row(rows, random)
    rows[a][:1], rows[b][:1] = rows[b][:1], rows[a][:1]


def _jump_of_clock(rows: list[Row], random: Random) -> None:
    shift = pd.Timedelta(random.choice(SHIFTS_S), unit="s")
    for i in range(_a_row(rows, random), len(rows)):
        try:
            stamp = pd.to_datetime(rows[i][0], format="ISO8601") + shift
        except (ValueError, TypeError, IndexError):
            continue
        _put(rows, i, 0, str(stamp))


def _jitter(rows: list[Row], random: Random) -> None:
    most = random.choice((30, 400, 3000))
    for row in rows[1:]:
        try:
            late = pd.Timedelta(random.randrange(most), unit="s")
            row[0] = str(pd.to_datetime(row[0], format="ISO8601") + late)
        except (ValueError, TypeError, IndexError):
            continue


def _repeated(rows: list[Row], random: Random) -> None:
    at = _a_row(rows, random)
    rows[at:at] = [list(row) for row in rows[at : at + random.choice((1, 5, 30))]]


def _conflict(rows: list[Row], random: Random) -> None:
    at = _a_row(rows, random)
    rows.insert(at, [*rows[at][:-1], "77"])


def _dropped(rows: list[Row], random: Random) -> None:
    at = _a_row(rows, random)
    del rows[at : at + random.choice((1, 3, 20, 1000))]


def _thinned(rows: list[Row], random: Random) -> None:
    share = random.choice((0.1, 0.5, 0.9))
    rows[1:] = [row for row in rows[1:] if random.random() < share]


def _shuffled(rows: list[Row], random: Random) -> None:
    body = rows[1:]
    random.shuffle(body)
    rows[1:] = body


def _no_header(rows: list[Row], _random: Random) -> None:
    del rows[0]


def _header_again(rows: list[Row], random: Random) -> None:
    rows.insert(_a_row(rows, random), list(rows[0]))


def _other_name(rows: list[Row], random: Random) -> None:
    _put(rows, 0, random.randrange(len(rows[0])), random.choice(NAMES))


def _shorter(rows: list[Row], random: Random) -> None:
    row = rows[_a_row(rows, random)]
    del row[random.randrange(len(row) + 1) :]


def _longer(rows: list[Row], random: Random) -> None:
    rows[_a_row(rows, random)] += ["", "x", "5"][: random.randrange(1, 4)]


def _line(rows: list[Row], random: Random) -> None:
    lines = ([], [""], ["# Logger"], ["s", "m³/h", "m"], ["", "", ""], ["---"], ["x" * 200_000])
    rows.insert(random.choice((0, 1, _a_row(rows, random))), list(random.choice(lines)))


def _without_column(rows: list[Row], random: Random) -> None:
    at = random.randrange(len(rows[0]))
    for row in rows:
        del row[at : at + 1]


def _stuck(rows: list[Row], random: Random) -> None:
    for i in range(_a_row(rows, random), len(rows)):
        _put(rows, i, 1, random.choice(("5", "5")))


def _other_unit(rows: list[Row], random: Random) -> None:
    factor = random.choice((1e-30, -1, 1000, 1e12, 1e29))
    for i in range(_a_row(rows, random), len(rows)):
        try:
            rows[i][-1] = f"{float(rows[i][-1]) * factor:g}"
        except (ValueError, IndexError):
            continue


def _other_series(rows: list[Row], random: Random) -> None:
    name = random.choice((*NAMES, "x" * 300, "flow "))
    for i in range(_a_row(rows, random), len(rows)):
        _put(rows, i, 1, name)


OF_ROWS: dict[str, Callable[[list[Row], Random], None]] = {
    "odd number": _odd_number, "odd numbers": _odd_numbers, "no end": _no_end,
    "odd time": _odd_time, "odd times": _odd_times, "two zones": _two_zones,
    "swapped times": _swapped_times, "jump of clock": _jump_of_clock, "jitter": _jitter,
    "repeated": _repeated, "conflict": _conflict, "dropped": _dropped, "thinned": _thinned,
    "shuffled": _shuffled, "no header": _no_header, "header again": _header_again,
    "other name": _other_name, "shorter": _shorter, "longer": _longer, "line": _line,
    "without column": _without_column, "stuck": _stuck, "other unit": _other_unit,
    "other series": _other_series,
}  # fmt: skip


def _flipped(whole: bytes, random: Random) -> bytes:
    made = bytearray(whole)
    for _ in range(random.choice((1, 1, 1, 5, 50)) if made else 0):
        made[random.randrange(len(made))] ^= 1 << random.randrange(8)
    return bytes(made)


def _cut(whole: bytes, random: Random) -> bytes:
    return whole[: random.randrange(len(whole) + 1)]


def _beheaded(whole: bytes, random: Random) -> bytes:
    return whole[random.randrange(len(whole) + 1) :]


def _hole(whole: bytes, random: Random) -> bytes:
    at = random.randrange(len(whole) + 1)
    return whole[:at] + whole[at + random.choice((1, 10, 300)) :]


def _inserted(whole: bytes, random: Random) -> bytes:
    parts = (
        b"\x00", b"\x00" * 500, b'"', b"\n", b"\r", b"\xff", b"\xe9", b"\xef\xbb\xbf", b",", b";",
        b"\x1a", b'""', b"\n\n", b"\xc2\xa0", b"'", b"\t", b"\x0c", b"\xe2\x80\xa8", b'"\n',
    )  # fmt: skip
    at = random.randrange(len(whole) + 1)
    return whole[:at] + random.choice(parts) + whole[at:]


def _other_ends(whole: bytes, random: Random) -> bytes:
    at = random.randrange(len(whole) + 1)
    return whole[:at] + whole[at:].replace(b"\n", random.choice((b"\r", b"\r\n", b"", b"\n\n")))


def _joined(whole: bytes, _random: Random) -> bytes:
    return whole + whole


def _zeros(whole: bytes, random: Random) -> bytes:
    """A page that was never written, as after a power cut."""
    at = random.randrange(len(whole) + 1)
    return whole[:at] + b"\x00" * random.choice((1, 512, 4096))


OF_BYTES: dict[str, Callable[[bytes, Random], bytes]] = {
    "inserted": _inserted, "other ends": _other_ends, "joined": _joined, "hole": _hole,
    "flipped": _flipped, "beheaded": _beheaded,
}  # fmt: skip
OF_FILES: dict[str, Callable[[bytes, Random], bytes]] = {
    "file flipped": _flipped, "file cut": _cut, "file ends in zeros": _zeros,
}  # fmt: skip


@st.composite
def forms(draw: st.DrawFn, *, is_long: bool | None = None) -> Form:
    """Draw how a table is written."""
    long = draw(st.booleans()) if is_long is None else is_long
    format_ = draw(st.sampled_from(("csv", "csv", "csv.gz", "parquet")))
    n_rows = draw(st.sampled_from((60, 30, 130)))
    extra = draw(st.sampled_from(("", "", "text", "empty")))
    order = draw(st.sampled_from(("sorted", "sorted", "shuffled", "twice")))
    if format_ == "parquet":
        return Form(n_rows, long, long, format_, extra=extra, order=order)
    if long:
        stamps = (
            "%Y-%m-%d %H:%M:%S",
            "%Y-%m-%dT%H:%M:%S",
            "%Y-%m-%dT%H:%M:%S.000%z",
            "%Y%m%dT%H%M%z",
        )
    else:
        stamps = (
            "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M",
            "%Y/%m/%d %H:%M:%S", "%Y%m%d %H%M", "s", "ms",
        )  # fmt: skip
    sep = draw(st.sampled_from(",;\t|"))
    return Form(
        n_rows,
        long,
        long,
        format_,
        draw(st.sampled_from(stamps)),
        sep,
        draw(st.sampled_from(".," if sep != "," else ".")),
        draw(st.sampled_from(("\n", "\r\n", "\r"))),
        draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "cp1252"))),
        draw(st.sampled_from(("", "NaN", "--"))),
        draw(st.sampled_from(("", "\n", "\r\n\r\n"))),
        order,
        extra,
        draw(st.booleans()),
    )


def damages(*, at_least: int = 1) -> st.SearchStrategy[tuple[Damage, ...]]:
    """Draw what goes wrong, one thing after the other."""
    name = st.sampled_from((*OF_ROWS, *OF_BYTES, *OF_FILES))
    return st.lists(st.tuples(name, st.integers(0, 9999)), min_size=at_least, max_size=3).map(tuple)
