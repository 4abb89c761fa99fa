"""Hints are followed as a user follows them: what is offered is pasted, and pasted again.

Each kind of table that makes an error or a finding with a hint is made here, with the readings that
are right. All that is offered for it has to lead to one of them in at most three rounds.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rnnforecast
from rnnforecast.config.fields import add_arguments
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import Config
from rnnforecast.data.setup import set_up_training
from rnnforecast.errors import NotEnoughDataError, RnnForecastError
from rnnforecast.events import ignore
from rnnforecast.tables.resample import drop_other_steps
from rnnforecast.units import format_duration
from rnnforecast.workflow.check import Check
from rnnforecast.workflow.model import Model
from tests.conftest import Command
from tests.thorough import THOROUGHLY

MAX_ROUNDS = 3
N = 480
"""Readings of most tables, and hours or other steps."""
STAMPS = pd.date_range("2024-01-08", periods=N, freq="1h")
WAVE = np.array([20 + 5 * np.sin(hour / 24 * 2 * np.pi) + hour % 7 / 10 for hour in range(N)])
WAVE = WAVE.round(3)
HIGHER = (WAVE + 40).round(3)
ROWS = list(zip(STAMPS, WAVE, strict=True))


@dataclass(frozen=True)
class Right:
    """A reading that is right."""

    readings: Mapping[str, Any]
    """The readings of each series, NaN for missing ones; their number and mean are compared."""
    step: str = "1 h"
    tz: str | None = None
    words: str = ""
    """What is said where it is offered, if another reading may be right, too."""


@dataclass(frozen=True)
class Kind:
    """A table, the code of what is said about it, and the readings that are right."""

    code: str
    build: Callable[[], str | bytes]
    right: tuple[Right, ...]
    offers: int = 1
    """How much is offered for it."""
    typed: tuple[str, ...] = ()
    """Options that the user has typed already."""
    suffix: str = ".csv"


def lines(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)


def plain(header: str = "time,flow", row: str = "{time},{value}") -> list[str]:
    return [header, *(row.format(time=t, value=v) for t, v in ROWS)]


def column(values: Sequence[Any], header: str = "time,flow", stamps: Sequence[Any] = STAMPS) -> str:
    """Return a table of one column of cells."""
    return lines(header, *(f"{t},{v}" for t, v in zip(stamps, values, strict=True)))


def but(values: Sequence[Any] = WAVE, **cells: Any) -> list[Any]:
    """Return values with other cells in some rows: `h7="ERR"`."""
    changed = list(values)
    for row, cell in cells.items():
        changed[int(row[1:])] = cell
    return changed


def missing(*rows: int, values: Sequence[float] = WAVE) -> np.ndarray:
    """Return readings some of which are missing."""
    readings = np.array(values, float)
    readings[list(rows)] = np.nan
    return readings


def flow(readings: Sequence[float] = WAVE, **facts: Any) -> Right:
    return Right({"flow": readings}, **facts)


def stamped(stamps: pd.DatetimeIndex, form: Callable[[pd.Timestamp], str] = str) -> str:
    return column(WAVE, stamps=[form(stamp) for stamp in stamps])


def zoned(zone: str, start: str, freq: str = "1h") -> pd.DatetimeIndex:
    return pd.date_range(start, periods=N, freq=freq, tz=zone)


def wall_clock(stamp: pd.Timestamp) -> str:
    return str(stamp.tz_localize(None))


def merged(first: int) -> np.ndarray:
    """Return the readings of a clock that shows one hour twice: it has the mean of both."""
    mean = (WAVE[first] + WAVE[first + 1]) / 2
    return np.concatenate([WAVE[:first], [mean], WAVE[first + 2 :]])


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    pd.DataFrame({"at": STAMPS.astype(str), "flow": WAVE}).to_sql("log", connection, index=False)
    return connection.serialize()


def reports() -> tuple[np.ndarray, np.ndarray]:
    """Return minutes and levels of a sensor that reports each change by one."""
    random = np.random.default_rng(3)
    minutes = 5 * np.cumsum(random.integers(1, 9, 600))
    return minutes, 50.0 + np.cumsum(random.choice([-1, 1], 600))


def held(freq: str) -> np.ndarray:
    """Return the last of these levels at each step."""
    minutes, levels = reports()
    index = STAMPS[0] + pd.to_timedelta(minutes, unit="min")
    return pd.Series(levels, index).resample(freq).last().ffill().to_numpy()


FALL, FALL_US = zoned("Europe/Vienna", "2024-10-20"), zoned("America/Chicago", "2024-10-28")
SPRING = zoned("Europe/Vienna", "2024-03-20")
DAYS = zoned("Europe/Vienna", "2024-01-01", "1D")
FINE = pd.date_range(STAMPS[-1] + pd.Timedelta("1h"), periods=N, freq="15min")
LATE = STAMPS + pd.to_timedelta(np.arange(N) * 37 % 290, unit="s")
MIXED = [f"2024-02-{1 + row // 24 % 12:02d}" for row in range(N)]
COUNTS = np.cumsum(1 + np.random.default_rng(1).exponential(1, N)).round(2)
ANGLES = (355 + 25 * np.sin(np.arange(N) / 5) + np.random.default_rng(2).normal(0, 8, N)) % 360
VALVE = np.repeat(np.arange(N // 60) % 2, 60)
THOUSANDS = np.array([1000 + 17 * row % 900 for row in range(N)])
DAILY = {f"{hour:02d}:00:00": WAVE[hour::24] for hour in range(24)}
MINUTES, LEVELS = reports()

KINDS: dict[str, Kind] = {
    # cells
    "a token": Kind(
        "not-a-number", lambda: column(but(h7="ERR", h9="ERR")), (flow(missing(7, 9)),)
    ),
    "several tokens": Kind(
        "not-a-number",
        lambda: column(but(h7="ERR", h9="OFF", h11="<0.5", h400="?", h401="x")),
        (flow(missing(7, 9, 11, 400, 401)),),
    ),
    "infinite": Kind("infinite", lambda: column(but(h7="inf")), (flow(missing(7)),)),
    "too large": Kind(
        "infinite", lambda: column(but(h7="1e40", h99="2e40")), (flow(missing(7, 99)),)
    ),
    "a token and infinite": Kind(
        "not-a-number", lambda: column(but(h7="ERR", h99="inf")), (flow(missing(7, 99)),)
    ),
    "a text in a named column": Kind(
        "target-not-numeric",
        lambda: column([v if row % 3 == 0 else "off" for row, v in enumerate(WAVE)]),
        (flow(missing(*(row for row in range(N) if row % 3))),),
        typed=("--target", "flow"),
        offers=0,  # two of three cells are lost
    ),
    "names among numbers": Kind(
        "not-a-number",
        lambda: lines(
            "time,flow,gear", *(f"{t},{v},{row % 3 or 'N'}" for row, (t, v) in enumerate(ROWS))
        ),
        (flow(words="are categories"), flow(words="missing")),
        typed=("--past", "gear"),
        offers=2,
    ),
    # marks and encodings
    "thousands": Kind(
        "thousands",
        lambda: lines("time;flow", *(f"{t};1.{n % 900:03d},5" for n, t in enumerate(STAMPS))),
        (flow([1000.5 + n % 900 for n in range(N)]),),
    ),
    "a point that may part thousands": Kind(
        "thousands",
        lambda: lines(
            "time;flow",
            *(f"{t};{n:,}".replace(",", ".") for t, n in zip(STAMPS, THOUSANDS, strict=True)),
        ),
        (flow(THOUSANDS, words="means 1000"), flow(THOUSANDS / 1000, words="means 1.000")),
        offers=2,
    ),
    "a comma that may part thousands": Kind(
        "thousands",
        lambda: lines("time;flow", *(f"{t};{n:,}" for t, n in zip(STAMPS, THOUSANDS, strict=True))),
        (flow(THOUSANDS, words="means 1000"), flow(THOUSANDS / 1000, words="means 1.000")),
        offers=2,
    ),
    "UTF-16 without a mark": Kind(
        "encoding", lambda: lines(*plain()).encode("utf-16-le"), (flow(),)
    ),
    "another code page": Kind(
        "encoding",
        lambda: lines(*plain("time,Давление")).encode("cp1251"),
        (Right({"Давление": WAVE}, words="Cyrillic"),),
    ),
    # lines around the header
    "units": Kind("units-row", lambda: lines("time,flow", ",m3/h", *plain()[1:]), (flow(),)),
    "a preamble": Kind("one-column", lambda: lines("Logger 7", "Site north", *plain()), (flow(),)),
    "comments": Kind("one-column", lambda: lines("# of", "# a, b, c", *plain()), (flow(),)),
    "comments and formats": Kind(
        "one-column",
        lambda: lines(
            "# Gauge", "#  of 7", "time\tflow", "20d\t14n", *plain("", "{time}\t{value}")[1:]
        ),
        (flow(),),
    ),
    "no header": Kind("no-header", lambda: lines(*plain()[1:]), (Right({"sensor1": WAVE}),)),
    "annotated": Kind(
        "annotated-csv",
        lambda: lines(
            "#datatype,string,long,dateTime:RFC3339,double,string",
            "#group,false,false,false,false,true",
            "#default,_result,,,,",
            ",result,table,_time,_value,_field",
            *(f",,0,{t.isoformat()}Z,{v},flow" for t, v in ROWS),
            *(f",,1,{t.isoformat()}Z,{v + 40:.3f},level" for t, v in ROWS),
        ),
        (Right({"flow": WAVE, "level": HIGHER}, tz="UTC"),),
    ),
    "a row with more fields": Kind(
        "ragged-row", lambda: lines(*plain(), "2024-01-30,1,2,3"), (flow(),)
    ),
    "many rows with more fields": Kind(
        "ragged-row",
        lambda: lines(
            "time,flow", *(f"{t},{v}{',9' * (n in (50, 80))}" for n, (t, v) in enumerate(ROWS))
        ),
        (flow(missing(50, 80)),),
    ),
    "decimal commas between commas": Kind(
        "ragged-row",
        lambda: lines("time,flow", *(f"{t},{int(v)},{n % 9}1" for n, (t, v) in enumerate(ROWS))),
        (),
        offers=0,
    ),
    "more fields than are skipped": Kind(
        "bad-rows",
        lambda: lines(
            "time,flow", *(f"{t},{v}{',9' * (n in (50, 80))}" for n, (t, v) in enumerate(ROWS))
        ),
        (flow(missing(50, 80)),),
        typed=("--on-bad-rows", "skip"),
    ),
    # stamps
    "day or month": Kind(
        "ambiguous-date",
        lambda: lines(
            "time,flow",
            *(
                f"{1 + n // 24 % 12:02d}/{1 + n // 288:02d}/2024 {n % 24:02d}:00,{v}"
                for n, v in enumerate(WAVE)
            ),
        ),
        (flow(words="is 2 January"),),
        # as months, they would be a few days of a year
    ),
    "day, month or year": Kind(
        "ambiguous-date",
        lambda: column(WAVE[:12], stamps=[f"{1 + n:02d}.01.10" for n in range(12)]),
        (),
        offers=3,  # and the rows are too few in each
    ),
    "a form that is not the named one": Kind(
        "not-a-time",
        lambda: stamped(STAMPS, lambda t: f"{t:%d.%m.%Y %H:%M}"),
        (flow(),),
        typed=("--time-format", "%Y-%m-%d %H:%M"),
    ),
    "dates or Unix time": Kind(
        "time-unit",
        lambda: lines("t,flow", *(f"{2024010100 + n},{WAVE[n]}" for n in range(24))),
        (flow(WAVE[:24], words="dates"), flow(WAVE[:24], words="seconds", step="1 s")),
        offers=2,
    ),
    "numbers that count": Kind(
        "time-unit",
        lambda: column(WAVE, stamps=[3600 * n for n in range(N)]),
        (
            flow(words="counts seconds"),
            flow(words="counts milliseconds", step="3600 ms"),
            flow(words="counts microseconds", step="3600 us"),
        ),
        typed=("--time", "time"),
        offers=3,
    ),
    "numbers that count, in a column of another name": Kind(
        "no-time-column",
        lambda: column(WAVE, "zeit,flow", [int(t.timestamp()) for t in STAMPS]),
        (flow(),),
    ),
    "a column of no times is named": Kind(
        "not-a-time",
        lambda: lines("at,who,flow", *(f"{t},anna,{v}" for t, v in ROWS)),
        (flow(), Right({"anna": WAVE})),
        typed=("--time", "who"),
    ),
    "date and clock": Kind(
        "split-time",
        lambda: lines("on,at,flow", *(f"{t.date()},{t.time()},{v}" for t, v in ROWS)),
        (flow(words="if it is,"), Right(DAILY, "1 d", words="if it is not")),
        offers=2,
    ),
    "a time for each channel": Kind(
        "several-times",
        lambda: lines(
            "a at,a,b at,b", *(f"{t},{v},{t + pd.Timedelta('17min')},{v + 40:.3f}" for t, v in ROWS)
        ),
        (Right({"a": WAVE}, words="--time 'a at'"), Right({"b": HIGHER}, words="--time 'b at'")),
        offers=2,
    ),
    "a year long ago": Kind(
        "time-range", lambda: stamped(STAMPS, lambda t: str(t).replace("2024", "0024")), (flow(),)
    ),
    "the future": Kind("future", lambda: stamped(STAMPS + pd.Timedelta(days=30_000)), (flow(),)),
    "midnights that end their dates": Kind(
        "time-goes-back",
        lambda: stamped(
            STAMPS + pd.Timedelta("1h"), lambda t: f"{t - pd.Timedelta('1h'):%Y-%m-%d} {t:%H:%M}"
        ),
        (flow(),),
        offers=2,
    ),
    "dates that change in the morning": Kind(
        "time-goes-back",
        lambda: stamped(STAMPS, lambda t: f"{t - pd.Timedelta('3h'):%Y-%m-%d} {t:%H:%M}"),
        (flow(),),
    ),
    "a leap second": Kind(
        "leap-second",
        lambda: column(
            WAVE,
            stamps=["2024-01-27 22:59:60" if n == N - 1 else str(t) for n, t in enumerate(STAMPS)],
        ),
        (flow(),),
        typed=("--leap-second", "error"),
    ),
    # zones
    "several offsets": Kind(
        "several-offsets",
        lambda: stamped(SPRING, pd.Timestamp.isoformat),
        (flow(tz="Europe/Berlin"), flow(tz="UTC")),
    ),
    "days of several offsets": Kind(
        "zone-of-days",
        lambda: stamped(DAYS, pd.Timestamp.isoformat),
        (
            flow(tz="Europe/Berlin", step="1 d", words="in Europe/Berlin"),
            flow(tz="UTC", step="1 d", words="days in UTC"),
        ),
        offers=2,
    ),
    "sums of days of several offsets": Kind(
        "zone-of-days",
        lambda: column(
            np.ones(N * 2),
            stamps=[
                t.isoformat()
                for t in pd.date_range("2024-03-10", periods=2 * N, freq="1h", tz="Europe/Vienna")
            ],
        ),
        (
            flow(
                [*[24] * 21, 23, *[24] * 18], tz="Europe/Berlin", step="1 d", words="Europe/Berlin"
            ),
            flow([24.0] * 39, tz="UTC", step="1 d", words="days in UTC"),
        ),
        typed=("--freq", "1d", "--agg", "sum"),
        offers=2,
    ),
    "a clock that was set back": Kind(
        "clock-set-back",
        lambda: stamped(FALL, wall_clock),
        (flow(merged(170), tz="Europe/Berlin"), flow(np.delete(WAVE, 170))),
    ),
    "a clock that was set back in America": Kind(
        "clock-set-back",
        lambda: stamped(FALL_US, wall_clock),
        (
            *(
                flow(merged(145), tz=f"America/{city}")
                for city in ("New_York", "Chicago", "Denver")
            ),
            flow(np.delete(WAVE, 145)),
        ),
        offers=3,
    ),
    "an hour that clocks skip": Kind(
        "nonexistent-time",
        lambda: stamped(STAMPS + pd.Timedelta(days=70)),
        (
            flow(tz="+01:00", words="no daylight saving time"),
            flow(tz="UTC", words="no daylight saving time"),
        ),
        typed=("--tz", "Europe/Vienna"),
        offers=2,
    ),
    "names of clocks in a column": Kind(
        "zone-column",
        lambda: lines(
            "time,clock,flow",
            *(f"{t.tz_localize(None)},{t.tzname()},{v}" for t, v in zip(FALL, WAVE, strict=True)),
        ),
        (flow(merged(170), tz="Europe/Berlin"),),
    ),
    "a name of several zones": Kind(
        "zone-name",
        lambda: stamped(STAMPS, lambda t: f"{t} BST"),
        (flow(tz="Europe/London"), flow(tz="Asia/Dhaka")),
        offers=2,
    ),
    # rows of one time
    "two readings": Kind(
        "duplicate-time",
        lambda: lines(*plain(), f"{STAMPS[48]},22.5", f"{STAMPS[49]},22.5"),
        (
            flow(but(h48=22.5, h49=22.5), words="last"),
            flow(but(h48=(WAVE[48] + 22.5) / 2, h49=(WAVE[49] + 22.5) / 2), words="mean"),
        ),
        offers=2,
    ),
    "two readings in the hour that comes twice": Kind(
        "duplicate-time",
        lambda: lines(*stamped(FALL, wall_clock).splitlines(), "2024-10-20 00:00:00,20.5"),
        (
            flow(but(np.delete(WAVE, 170), h0=20.5), words="last"),
            flow(but(merged(170), h0=(WAVE[0] + 20.5) / 2), words="mean"),
        ),
        offers=2,
    ),
    "many readings of one time": Kind(
        "duplicate-time", lambda: lines(*plain(), *(f"{t},{v + 40}" for t, v in ROWS)), (), offers=0
    ),
    "a note that may name the series": Kind(
        "ambiguous-roles",
        lambda: lines(
            "time,note,flow",
            *(
                f"{t + pd.Timedelta(minutes=7 * n * n % 50)},{'ab'[n // 3 % 2]},{v + shift}"
                for n, ((t, v), shift) in enumerate(
                    zip(ROWS, 160 * [0, 0, 0, 40, 40, 40], strict=False)
                )
            ),
        ),
        (
            Right({"a": None, "b": None}, "4 h", words="a separate sensor"),
            flow(None, step="2 h", words="a note"),
        ),
        offers=2,
    ),
    "a table of static properties without a key": Kind(
        "usage",
        lambda: lines("time,probe,flow,size", *(f"{t},a,{v},3" for t, v in ROWS)),
        (Right({"a": WAVE}),),
        typed=("--static", "size"),
    ),
    # steps
    "irregular": Kind("irregular", lambda: stamped(LATE), (flow(),)),
    "a step that changes": Kind(
        "step-change",
        lambda: lines(*plain(), *(f"{t},{v}" for t, v in zip(FINE, WAVE, strict=True))),
        (flow([*WAVE, *WAVE.reshape(-1, 4).mean(1)]),),
    ),
    "sums of a step that changes": Kind(
        "step-change",
        lambda: lines(*plain(), *(f"{t},{v / 4}" for t, v in zip(FINE, WAVE, strict=True))),
        (
            flow([*WAVE, *WAVE.reshape(-1, 4).sum(1) / 4], words="the sum of its step"),
            flow([*WAVE, *WAVE.reshape(-1, 4).mean(1) / 4], words="levels"),
        ),
        offers=2,
    ),
    "sums and levels of a step that changes": Kind(
        "step-change",
        lambda: lines(
            *plain("time,kwh,temp", "{time},{value},20.5"),
            *(f"{t},{v / 4},{20 + n % 2}" for n, (t, v) in enumerate(zip(FINE, WAVE, strict=True))),
        ),
        (
            Right(
                {"kwh": [*WAVE, *WAVE.reshape(-1, 4).sum(1) / 4], "temp": [20.5] * 600},
                words="sums",
            ),
            Right(
                {"kwh": [*WAVE, *WAVE.reshape(-1, 4).mean(1) / 4], "temp": [20.5] * 600},
                words="levels",
            ),
        ),
        offers=2,
    ),
    "a slow sensor": Kind(
        "other-step",
        lambda: lines(
            "time,flow,gas",
            *(f"{t},{v},{v if n % 12 == 0 else ''}" for n, (t, v) in enumerate(ROWS)),
        ),
        (Right({"gas": WAVE[::12]}, "12 h"), Right({"flow": WAVE, "gas": WAVE[::12]})),
    ),
    "a slow sensor in a long table": Kind(
        "other-step",
        lambda: lines(
            "time,name,x",
            *(f"{t},flow,{v}" for t, v in ROWS),
            *(f"{t},gas,{v}" for t, v in ROWS[::6]),
        ),
        (
            Right({"flow": WAVE[5::6], "gas": WAVE[::6]}, "6 h"),
            Right({"flow": WAVE, "gas": WAVE[::6]}),
        ),
    ),
    "reports of changes": Kind(
        "irregular",
        lambda: column(LEVELS, stamps=STAMPS[0] + pd.to_timedelta(MINUTES, unit="min")),
        (
            flow(held("30min"), step="30 min", words="send only changes"),
            flow(None, step="30 min", words="resample"),
        ),
        offers=2,
    ),
    "a stamp far from all others": Kind(
        "sparse", lambda: column(WAVE, stamps=but(STAMPS, h77="1970-01-01 00:00:00")), (), offers=0
    ),
    "bursts": Kind(
        "sparse",
        lambda: column(
            np.repeat(WAVE, 3),
            stamps=[t + pd.Timedelta(seconds=10 * n) for t in STAMPS for n in range(3)],
        ),
        (flow(WAVE[:-1]),),  # the last hour is not over
    ),
    "steps that are not over": Kind(
        "no-readings",
        lambda: lines(*plain()[:100]),
        (
            flow(None, step="12 h"),
            flow(None, step="6 h"),
            flow(None, step="4 h"),
            flow(None, step="1 d"),
        ),
        typed=("--freq", "7d", "--agg", "mean"),
        offers=3,
    ),
    # findings
    "sentinels": Kind(
        "sentinel",
        lambda: column([v if n % 60 else -999 for n, v in enumerate(WAVE)]),
        (flow(missing(*range(0, N, 60))),),
    ),
    "sentinels in a sixth of a column": Kind(
        "sentinel", lambda: column([v if n % 6 else -999 for n, v in enumerate(WAVE)]), (), offers=0
    ),
    "spikes": Kind(
        "spike", lambda: column(but(h50=6543.1, h180=6543.1)), (flow(missing(50, 180)),)
    ),
    "a sensor that hangs": Kind(
        "stuck-sensor",
        lambda: column([19.5 if 200 <= n < 240 else v for n, v in enumerate(WAVE)]),
        (flow(missing(*range(200, 240))),),
    ),
    "a sensor that hangs, and a valve": Kind(
        "stuck-sensor",
        lambda: lines(
            "time,flow,valve",
            *(f"{t},{19.5 if 200 <= n < 240 else v},{VALVE[n]}" for n, (t, v) in enumerate(ROWS)),
        ),
        (),
        offers=0,
    ),
    "a counter": Kind("counter", lambda: column(COUNTS), (flow(np.diff(COUNTS)), flow(COUNTS))),
    "a direction": Kind("direction", lambda: column(ANGLES.round(1)), (Right({"flow": None}),)),
    "too short": Kind("too-short", lambda: lines(*plain()[:13]), (), offers=0),
    # other sources
    "a database": Kind("no-query", database, (flow(),), suffix=".db"),
    "too little memory": Kind(
        "memory", lambda: lines(*plain()), (flow(),), typed=("--max-memory", "1K")
    ),
}


def offers(hint: str | None) -> list[tuple[list[str], str]]:
    """Return the options that a hint offers, with the text that offers them."""
    pieces = [piece for piece in (hint or "").split(" ; ") if "add  --" in piece]
    return [(shlex.split(re.split(r"  \(|$", p.partition("add  ")[2])[0]), p) for p in pieces]


@dataclass
class Follower:
    """Follows all that is offered for one table, and collects what is wrong with it."""

    data: str
    right: tuple[Right, ...] | None
    """None where any reading will do."""
    model: Model | None = None
    problems: list[str] = field(default_factory=list)
    ends: set[int] = field(default_factory=set)
    """Numbers of the right readings that were reached."""

    def read(self, options: Sequence[str]) -> Check | RnnForecastError:
        """Read the table with options as a user types them."""
        try:
            return rnnforecast.check(self.data, config=config_of(options).data, model=self.model)
        except RnnForecastError as error:
            return error

    def follow(self, options: tuple[str, ...], words: str, n_rounds: int) -> None:
        """Follow what is offered for the table with these options; `words` were said so far."""
        outcome = self.read(options)
        if isinstance(outcome, RnnForecastError):
            following = offers(outcome.advice)
            if words and (not following or n_rounds == 0):
                self.problems.append(f"{words} leads to {outcome.code}: {outcome.message}")
            self._follow_all(following, options, words, n_rounds)
            return

        refusal = self._refusal(outcome, shlex.split(outcome.train)[3:])
        following = [offer for warning in outcome.warnings for offer in offers(warning.advice)]
        number = self._number_of(outcome, words)
        if refusal is None and number is not None:
            self.ends.add(number)
        elif (refusal is not None and "too few" in words) or (following and n_rounds):
            pass
        else:
            self.problems.append(f"{words} leads to {refusal or _describe(outcome)}")
        if n_rounds:
            self._follow_all(following, options, words, n_rounds)

    def _follow_all(
        self,
        following: Sequence[tuple[list[str], str]],
        options: tuple[str, ...],
        words: str,
        n_rounds: int,
    ) -> None:
        before = config_of(options)
        for more, text in following if n_rounds else ():
            if config_of((*options, *more)) == before:
                self.problems.append(f"{words} leads in a circle: {text}")
            else:
                self.follow((*options, *more), f"{words} | {text}", n_rounds - 1)

    def _refusal(self, outcome: Check, options: Sequence[str]) -> str | None:
        """Return why `train` would refuse a reading; None where it accepts it."""
        if self.model is not None:
            return None
        panel, _ = drop_other_steps(outcome.profile.panel, outcome.schema)
        try:
            set_up_training(panel, config_of(options), ignore)
        except NotEnoughDataError as error:
            return error.code
        return None

    def _number_of(self, outcome: Check, words: str) -> int | None:
        """Return the number of the right reading that this is; None for another one."""
        if self.right is None:
            return 0
        numbers = [
            number
            for number, right in enumerate(self.right)
            if right.words in words and _is_right(outcome, right)
        ]
        return numbers[0] if numbers else None


def _is_right(outcome: Check, right: Right) -> bool:
    panel, profile = outcome.profile.panel, outcome.profile
    if panel.names != tuple(right.readings) or format_duration(panel.step_us) != right.step:
        return False
    if outcome.schema.tz != right.tz:
        return False
    n_readings = panel.count_readings().tolist()
    for readings, n, level in zip(right.readings.values(), n_readings, profile.level, strict=True):
        if readings is None:
            continue
        is_there = np.isfinite(np.asarray(readings, float))
        expected = np.asarray(readings, float)[is_there].mean()
        if n != is_there.sum() or not np.isclose(level, expected, rtol=1e-4):
            return False
    return True


def _describe(outcome: Check) -> str:
    panel, profile = outcome.profile.panel, outcome.profile
    n_readings = panel.count_readings().tolist()
    levels = profile.level.round(3).tolist()
    series = dict(zip(panel.names, zip(n_readings, levels, strict=True), strict=True))
    return f"{format_duration(panel.step_us)}, {outcome.schema.tz}, {series}"


def config_of(options: Sequence[str]) -> Config:
    """Return the options of `train` that these words set."""
    config = Config(DataConfig())
    data, others = add_arguments(config.data, options)
    window, others = add_arguments(config.window, others)
    assert not others, f"{others} are no options of reading or windows"
    return Config(data, window=window)


@pytest.mark.parametrize("name", KINDS)
def test_all_that_is_offered_leads_to_a_right_reading(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    path = tmp_path / f"x{kind.suffix}"
    content = kind.build()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    follower = Follower(f"sqlite:///{path}" if kind.suffix == ".db" else str(path), kind.right)

    outcome = follower.read(kind.typed)
    if isinstance(outcome, RnnForecastError):
        assert outcome.code == kind.code
        first = offers(outcome.advice)
    else:
        findings = {warning.code: warning for warning in outcome.warnings}
        first = offers(findings[kind.code].advice)
    follower.follow(kind.typed, "", MAX_ROUNDS)

    assert len(first) == kind.offers
    if kind.offers:
        assert follower.problems == []
        assert follower.ends >= {n for n, right in enumerate(kind.right) if right.words}


SMALL = ("--steps", 1, "--hidden", 8, "--no-report", "-q")


@pytest.mark.parametrize(
    "name",
    [
        "date and clock",
        pytest.param("infinite", marks=pytest.mark.slow),
        pytest.param("a long look-back", marks=pytest.mark.slow),
    ],
)
def test_what_is_offered_trains(command: Command, name: str) -> None:
    path, typed = Path("x.csv"), []
    if name in KINDS:
        path.write_text(str(KINDS[name].build()))
    else:
        path.write_text(lines(*plain()))
        typed = ["-L", "470"]
    outcome = command("train", path, *typed, *SMALL)
    assert outcome.code in (4, 5)

    hint = " ".join(line for line in outcome.err.splitlines() if "help:" in line)
    options, _ = offers(hint.partition("help: ")[2])[0]

    assert command("train", path, *typed, *options, *SMALL).code == 0


@pytest.mark.parametrize("n_rows", [3, 8, 13, 19, 20, 24, 40])
def test_check_and_train_agree_on_what_is_too_short(command: Command, n_rows: int) -> None:
    path = Path("a.csv")
    path.write_text(lines(*plain()[: n_rows + 1]))

    checked = command("check", path, "--json")
    trained = command("train", path, *SMALL)

    codes = {finding["code"] for finding in checked.document["findings"]}
    assert trained.code == (5 if "too-short" in codes else 0)
    assert checked.code == (3 if codes else 0)


def test_stretches_of_readings_between_gaps_are_enough_to_train_on(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(column([v if n % 60 < 20 else "" for n, v in enumerate(WAVE)]))

    result = rnnforecast.check(str(path))

    assert "too-sparse" not in {warning.code for warning in result.warnings}
    set_up_training(result.profile.panel, config_of(shlex.split(result.train)[3:]), ignore)


@pytest.mark.parametrize(
    ("header", "freq", "offered"),
    [
        ("timestamp,Flow,level", "1h", ["--map", "Flow=flow"]),
        ("timestamp,flow,level", "15min", ["--freq", "1h", "--agg", "mean"]),
    ],
)
def test_what_is_offered_for_a_model_leads_to_its_reading(
    trained: Path, tmp_path: Path, header: str, freq: str, offered: list[str]
) -> None:
    stamps = pd.date_range("2024-03-01", periods=N, freq=freq)
    rows = zip(stamps, WAVE, HIGHER, strict=True)
    path = tmp_path / "x.csv"
    path.write_text(lines(header, *(f"{t},{a},{b}" for t, a, b in rows)))
    n = N if freq == "1h" else N // 4
    right = Right({name: values.reshape(n, -1).mean(1) for name, values in BOTH.items()})
    follower = Follower(str(path), (right,), rnnforecast.load(trained / "model"))

    error = follower.read(())
    follower.follow((), "", MAX_ROUNDS)

    assert isinstance(error, RnnForecastError)
    assert offers(error.advice)[0][0] == offered
    assert follower.problems == []


BOTH = {"flow": WAVE, "level": HIGHER}
FOLDER = Path(os.environ.get("RNNFORECAST_DATA") or "missing").resolve().parent / "cases"
"""Tables of strangers, with `expect.json`, beside the real data."""


def strange_tables() -> list[dict[str, Any]]:
    """Return the entries of tables that `check` reads, and of which something can be read."""
    path = FOLDER / "expect.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [
        entry
        for entry in entries
        if len(entry["steps"]) == 1
        and entry["steps"][0][0] == "check"
        and not entry.keys() & {"wish", "refusal"}
    ]


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason="there are no strange tables beside the real data")
def test_all_that_is_offered_for_strange_tables_leads_to_a_reading_the_first_to_a_right_one() -> (
    None
):
    """CI follows those of every third table; `make thorough` all."""
    problems = {}
    for entry in strange_tables()[:: 1 if THOROUGHLY > 1 else 3]:
        path = str(FOLDER / entry["case"] / entry["file"])
        typed = tuple(word for word in entry["steps"][0][1:] if word not in ("{file}", "--json"))
        follower = Follower(path, None)

        follower.follow(typed, "", MAX_ROUNDS)
        end = first_end(follower, typed, entry)
        if follower.problems or not end:
            problems[f"{entry['case']}/{entry['file']}"] = (end, follower.problems)

    assert problems == {}


def first_end(follower: Follower, options: tuple[str, ...], entry: dict[str, Any]) -> bool:
    """Tell whether what is offered first, and then first again, leads to a reading as expected."""
    truth = entry.get("truth", [])
    conditions = [*(truth if isinstance(truth, list) else [truth]), *entry.get("any_of", [])]
    for _ in range(MAX_ROUNDS + 1):
        outcome = follower.read(options)
        if any(meets(outcome, condition) for condition in conditions):
            return True
        following = offers_of(outcome)
        if not following:
            return False
        options += tuple(following[0][0])
    return False


def offers_of(outcome: Check | RnnForecastError) -> list[tuple[list[str], str]]:
    """Return all that an error, or the findings of a reading, offer."""
    if isinstance(outcome, RnnForecastError):
        return offers(outcome.advice)
    return [offer for warning in outcome.warnings for offer in offers(warning.advice)]


def meets(outcome: Check | RnnForecastError, condition: dict[str, Any]) -> bool:
    """Tell whether a reading, or an error, is as a condition of `expect.json` says."""
    is_error = isinstance(outcome, RnnForecastError)
    code = outcome.exit_code if is_error else 3 * bool(outcome.warnings)
    if code not in condition.get("exit", [0, 3]):
        return False
    texts = [f"{outcome.code} {outcome}"] if is_error else [w.text for w in outcome.warnings]
    texts += [] if is_error else [f"{w.code}" for w in outcome.warnings]
    words = "\n".join((*texts, str(outcome.advice if is_error else outcome.train)))
    patterns = condition.get("code_or_text", [])
    if not all(re.search(pattern, words, re.IGNORECASE) for pattern in patterns):
        return False
    return is_error or _is_as_expected(outcome, condition)


def _is_as_expected(outcome: Check, condition: dict[str, Any]) -> bool:
    """Tell whether series, step, readings and levels lie within what a condition says."""
    panel = outcome.profile.panel
    patterns = [*condition.get("series", []), *condition.get("also", [])]

    def is_like(name: str, pattern: str) -> bool:
        return pattern == "*" or re.search(pattern, name, re.IGNORECASE) is not None

    def are_within(key: str, values: Sequence[float]) -> bool:
        return all(
            (low is None or low <= value) and (high is None or value <= high)
            for pattern, (low, high) in condition.get(key, {}).items()
            for name, value in zip(panel.names, values, strict=True)
            if is_like(name, pattern)
        )

    return (
        condition.get("n_series", panel.n_series) == panel.n_series
        and all(any(is_like(n, p) for p in patterns) for n in panel.names if "series" in condition)
        and format_duration(panel.step_us)
        in condition.get("step", [format_duration(panel.step_us)])
        and are_within("readings", (panel.lengths - outcome.profile.missing).tolist())
        and are_within("level", outcome.profile.level.tolist())
    )
