"""Hints are followed as a user follows them: what is offered is pasted, and pasted again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import Command

MAX_ROUNDS = 3
N = 480
"""Readings of each table, and hours or other steps."""
STAMPS = pd.date_range("2024-01-01", periods=N, freq="1h")
WAVE = [round(20 + 5 * np.sin(hour / 24 * 2 * np.pi) + hour % 7 / 10, 3) for hour in range(N)]

ROWS = list(zip(STAMPS, WAVE, strict=True))


def lines(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)


def plain(header: str = "time,flow", row: str = "{time},{value}") -> list[str]:
    return [header, *(row.format(time=t, value=v) for t, v in ROWS)]


def with_cells(**cells: str) -> str:
    """Return a table in which some hours (`h7="ERR"`) hold other cells."""
    values: list[Any] = list(WAVE)
    for hour, cell in cells.items():
        values[int(hour[1:])] = cell
    return lines("time,flow", *(f"{t},{v}" for t, v in zip(STAMPS, values, strict=True)))


def keyed(header: str, names: list[str]) -> str:
    """Return a long table: each name before `,` and the time has all readings."""
    return lines(header, *(f"{t},{name},{v}" for name in names for t, v in ROWS))


def late_stamps() -> str:
    stamps = STAMPS + pd.to_timedelta(np.arange(N) * 37 % 290, unit="s")
    return lines("time,flow", *(f"{t},{v}" for t, v in zip(stamps, WAVE, strict=True)))


CASES: dict[str, Callable[[], str]] = {
    "a-token": lambda: with_cells(h7="ERR", h9="ERR"),
    "several-tokens": lambda: with_cells(h7="ERR", h9="OFF", h11="<0.5", h400="?", h401="x"),
    "infinite": lambda: with_cells(h7="inf"),
    "too-large": lambda: with_cells(h7="1e40", h99="2e40"),
    "token-and-infinite": lambda: with_cells(h7="ERR", h99="inf"),
    "future": lambda: lines("time,flow", *(
        f"{t + pd.Timedelta(days=30_000)},{v}" for t, v in ROWS
    )),
    "irregular": late_stamps,
    "two-readings": lambda: lines(*plain(), "2024-01-03 00:00:00,7.5"),
    "many-duplicates": lambda: keyed("time,unit,flow", ["1", "2", "3", "4", "5", "6"]),
    "composite-key": lambda: keyed("time,store,item,flow", ["1,1", "1,2", "2,1", "2,2"]),
    "date-and-clock": lambda: lines("on,at,flow", *(
        f"{t.date()},{t.time()},{v}" for t, v in ROWS
    )),
    "ragged": lambda: lines(*plain(), "2024-01-30,1,2,3"),
    "units": lambda: lines("time,flow", ",m3/h", *plain()[1:]),
    "preamble": lambda: lines("Logger 7", "Site: north", *plain()),
    "no-header": lambda: lines(*plain()[1:]),
    "thousands": lambda: lines("time;flow", *(
        f"{t};1.{n % 900:03d},5" for n, t in enumerate(STAMPS)
    )),
    "decimal-comma": lambda: lines("time;flow", *plain("", "{time};{value}")[1:]).replace(".", ","),
    "unit-of-numbers": lambda: lines("time,flow", *(f"{n * 3600},{v}" for n, v in enumerate(WAVE))),
    "two-values": lambda: lines("time,name,flow,level", *(
        f"{t},{name},{v},{v + 1}" for name in "ab" for t, v in ROWS
    )),
    "day-or-month": lambda: lines("time,flow", *(
        f"{1 + n // 24 % 12:02d}/{1 + n // 288:02d}/2024 {n % 24:02d}:00,{v}"
        for n, v in enumerate(WAVE)
    )),
    "short": lambda: lines(*plain()[:13]),
    "rare": lambda: lines("time,flow,level", *(
        f"{t},{v if n % 12 == 0 else ''}," for n, (t, v) in enumerate(ROWS)
    )),
    "rare-and-short-stretches": lambda: lines("time,flow", *(
        f"{t},{v if n % 60 < 20 else ''}" for n, (t, v) in enumerate(ROWS)
    )),
}  # fmt: skip
OFFERING = ("infinite", "too-large", "future", "date-and-clock")
"""Of these something is offered."""


EITHER = ("day-or-month",)
"""Of these one of two is right, and stands first; the other one leads to gaps."""


def offers(hint: str | None) -> list[tuple[list[str], str]]:
    """Return the options that a hint offers, with the text that offers them."""
    pieces = [piece for piece in (hint or "").split(" ; ") if "add  --" in piece]
    return [(shlex.split(re.split(r"  \(|$", p.partition("add  ")[2])[0]), p) for p in pieces]


class Follower:
    """Follows all that is offered for one table, and remembers where it was."""

    def __init__(self, command: Command, path: Path) -> None:
        self.command = command
        self.path = path
        self.ends: dict[tuple[str, ...], bool] = {}

    def leads(self, options: tuple[str, ...], offer: str, round_: int) -> bool:
        """Tell whether options lead to a reading that can be trained on, and harm is said."""
        outcome = self.command("check", self.path, *options, "--json")
        if outcome.code in (0, 3):
            codes = {finding["code"] for finding in outcome.document["findings"]}
            series = outcome.document["series"]
            n_readings = sum(s["length"] - s["missing"] for s in series)
            is_said = re.search(r"drops|changes|become|for missing|too few", offer) is not None
            n_before = sum(1 for line in self.path.read_text().splitlines() if line.strip()) - 3
            assert n_readings >= 0.9 * n_before or is_said, f"{options} loses readings: {offer}"
            return not codes & {"too-short", "too-sparse"} or "too few" in offer

        assert outcome.code in (4, 5), outcome.err
        if round_ == MAX_ROUNDS:
            return False
        following = offers(outcome.error.get("hint"))
        return any(self.leads((*options, *more), text, round_ + 1) for more, text in following)


@pytest.mark.parametrize("case", CASES)
def test_what_is_offered_leads_to_a_reading_that_can_be_trained_on(
    command: Command, case: str
) -> None:
    path = Path(f"{case}.csv")
    path.write_text(CASES[case]())
    outcome = command("check", path, "--json")
    texts = [outcome.error.get("hint")] if outcome.code in (4, 5) else [
        finding.get("hint") for finding in outcome.document["findings"]
        if finding["code"] not in ("too-short", "too-sparse")  # windows are options of train
    ]  # fmt: skip

    follower = Follower(command, path)
    offered = [offer for text in texts for offer in offers(text)]

    leads = [follower.leads(tuple(options), text, 1) for options, text in offered]
    assert all(leads) or (case in EITHER and leads[0])
    assert offered or case not in OFFERING


@pytest.mark.parametrize("case", ["infinite", "date-and-clock", "plain -L 470"])
def test_what_is_offered_trains(command: Command, case: str) -> None:
    case, *typed = case.split()
    path = Path(f"{case}.csv")
    path.write_text(lines(*plain()) if typed else CASES[case]())
    small = ("--steps", 1, "--hidden", 8, "--no-report", "-q")
    outcome = command("train", path, *typed, *small)
    assert outcome.code in (4, 5)

    hint = " ".join(line for line in outcome.err.splitlines() if "help:" in line).partition(
        "help: "
    )[2]
    options, _ = offers(hint)[0]

    assert command("train", path, *typed, *options, *small).code == 0


@pytest.mark.parametrize("n_rows", [3, 8, 13, 19, 20, 24, 40])
def test_check_and_train_agree_on_what_is_too_short(command: Command, n_rows: int) -> None:
    path = Path("a.csv")
    path.write_text(lines(*plain()[: n_rows + 1]))

    checked = command("check", path, "--json")
    trained = command("train", path, "--steps", 1, "--hidden", 8, "--no-report", "-q")

    codes = {finding["code"] for finding in checked.document["findings"]}
    assert trained.code == (5 if "too-short" in codes else 0)
    assert checked.code == (3 if codes else 0)
