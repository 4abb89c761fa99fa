"""Progress bars: on a terminal alone, and only for what takes its time."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rnnforecast.cli import console
from rnnforecast.cli.console import Screen
from rnnforecast.cli.main import run
from rnnforecast.config.reading import DataConfig
from rnnforecast.events import Event, ProgressEvent, WarningEvent
from rnnforecast.workflow.check import check
from tests.builders import wave, write_wide


class Terminal(io.StringIO):
    """Standard error that people look at."""

    def isatty(self) -> bool:
        return True


def shown(screen: Screen, monkeypatch: pytest.MonkeyPatch, *, seconds: float) -> str:
    """Return what a terminal shows of 10 steps of a task with this duration."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    work(screen, monkeypatch, seconds=seconds)
    return terminal.getvalue()


def work(screen: Screen, monkeypatch: pytest.MonkeyPatch, *, seconds: float) -> None:
    """Report 10 steps of a task with this duration."""
    now = 100.0
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now))
    for done in range(11):
        screen(ProgressEvent("reading", 1000 * done, 10_000, "rows"))
        now += seconds / 10
    screen.close()


def test_what_takes_longer_than_a_second_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(Screen(), monkeypatch, seconds=3)
    assert "reading" in text
    assert "10000/10000 rows" in text


def test_what_is_over_within_a_second_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(Screen(), monkeypatch, seconds=0.9) == ""


@pytest.mark.parametrize("screen", [Screen(is_quiet=True), Screen(is_json=True)])
def test_who_wants_silence_has_no_bar(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(screen, monkeypatch, seconds=60) == ""


def test_a_file_gets_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work(Screen(), monkeypatch, seconds=60)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_reading_says_how_far_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnforecast.sources.csv.BLOCK_BYTES", 1000)
    path = write_wide(tmp_path / name, flow=wave(400), level=wave(400, seed=1))
    heard: list[Event] = []

    check(path, config=DataConfig(), listener=heard.append)

    read = [e for e in heard if isinstance(e, ProgressEvent) and e.task == "reading"]
    assert (read[0].done, read[-1].done, read[-1].total) == (0, 400, 400)
    done = [event.done for event in read]
    assert done == sorted(done) and len(set(done)) > 10
    assert all(200 < event.total < 800 for event in read)
    seasons = [e for e in heard if isinstance(e, ProgressEvent) and e.unit == "series"]
    assert [(event.done, event.total) for event in seasons] == [(0, 2), (2, 2)]


class Utf8(io.StringIO):
    """A stream whose encoding has every letter."""

    encoding = "utf-8"


@pytest.mark.parametrize("name", ["a\u202eb", "a\u2066b", "a\u200bb", "a\U000e0041b", "a\x85b"])
def test_what_turns_the_direction_of_writing_is_escaped_in_json(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stream = Utf8()
    monkeypatch.setattr(sys, "stdout", stream)

    Screen().document({"series": name, "unit": "°C"})

    assert json.loads(stream.getvalue())["series"] == name
    assert name not in stream.getvalue()
    assert "°C" in stream.getvalue()


def test_a_screen_is_not_as_wide_as_the_environment_may_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "1000000000")
    widths = []

    def draw(width: int, _has_color: bool, _is_unicode: bool) -> list[str]:  # noqa: FBT001
        widths.append(width)
        return []

    Screen().picture(draw)
    assert widths == [10_000]


def colored(
    monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool = True, **environment: str
) -> bool:
    """Whether an error, its hint and a warning have colours on a standard error."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    assert run(["train", "no-such-file.csv"]) == 4
    assert run(["train", "x.csv", "--no-such-option"]) == 2
    Screen()(WarningEvent("code", "something is odd"))

    text = stream.getvalue()
    escapes = re.findall(r"\x1b\[([\d;]+)m(error:|   = help:|warning:)\x1b\[0m ", text)
    n_escapes = text.count("\x1b")
    assert "error: " in re.sub(r"\x1b\[[\d;]*m", "", text)
    assert n_escapes == 0 or {label for _, label in escapes} == {
        *("error:", "   = help:", "warning:")
    }
    return n_escapes > 0


def test_a_terminal_shows_errors_and_warnings_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    assert colored(monkeypatch)
    assert not colored(monkeypatch, is_terminal=False)
    assert colored(monkeypatch, is_terminal=False, FORCE_COLOR="1")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colour_gets_none(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    assert not colored(monkeypatch, **environment)
    assert not colored(monkeypatch, **environment, FORCE_COLOR="1")
    assert colored(monkeypatch, NO_COLOR="")


def test_no_color_holds_for_a_usage_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")

    assert run(["train", "x.csv", "--no-such-option", "--no-color"]) == 2
    assert "error: No such option" in stream.getvalue()


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("forecast 'a b.csv' --horizon 3", "rnnforecast predict 'a b.csv' --horizon 3"),
        ("fit x.csv", "rnnforecast train x.csv"),
        ("evaluate x.csv", "rnnforecast backtest x.csv"),
        ("validate x.csv", "rnnforecast check x.csv"),
        ("pedict x.csv", "rnnforecast predict x.csv"),
        ("nonsense", "rnnforecast --help"),
        ("predict x.csv --horizont 3", "did you mean --horizon? All options:  rnnforecast predict"),
        ("train x.csv --no-such-option", "rnnforecast train --help"),
    ],
)
def test_what_was_meant_is_offered(
    typed: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shlex.split(typed)) == 2
    assert f"= help: {hint}" in (text := capsys.readouterr().err)
    assert "--version" not in text
