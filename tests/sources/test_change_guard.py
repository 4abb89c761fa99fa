"""Files that change while they are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rnnforecast.errors import DataError
from rnnforecast.events import Event, WarningEvent
from rnnforecast.sources.files import change_guard


def changed_by(path: Path, change) -> list[Event]:
    heard: list[Event] = []
    with change_guard([path], heard.append):
        change()
    return heard


def test_a_file_that_stays_as_it_is_is_not_mentioned(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n")
    assert changed_by(path, path.read_text) == []


def test_a_file_that_grows_is_said(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n")

    def append() -> None:
        with path.open("a") as file:
            file.write("1,2\n")

    (warned,) = changed_by(path, append)
    assert isinstance(warned, WarningEvent) and warned.code == "growing"


@pytest.mark.parametrize("how", ["replaced", "rewritten", "shortened", "removed"])
def test_a_file_that_is_not_the_same_any_more_is_an_error(tmp_path, how):
    path, other = tmp_path / "x.csv", tmp_path / "y.csv"
    path.write_text("a,b\n")
    other.write_text("a,b\n1,2\n")

    def change() -> None:
        if how == "replaced":
            other.replace(path)
        elif how == "rewritten":
            path.write_text("c,d\n")
            os.utime(path, (1, 1))
        elif how == "shortened":
            path.write_text("a")
        else:
            path.unlink()

    with pytest.raises(DataError) as caught:
        changed_by(path, change)
    assert caught.value.exit_code == 4
