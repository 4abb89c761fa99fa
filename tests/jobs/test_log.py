"""What a run tells the world: a line in a log, and gauges that Prometheus can read."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.events import Event, WarningEvent, ignore
from rnnforecast.jobs.log import GAUGES, LAST_EXIT, LAST_RUN, LAST_SUCCESS, RunLog
from tests.data.tables import few

ODD = ['a "quoted" job', "back\\slash", "line\nbreak", "tab\tand\rreturn", "Größe 🌊", "{job}", ""]
APPEND = """
import sys
from pathlib import Path
from rnnforecast.events import ignore
from rnnforecast.jobs.log import RunLog
log = RunLog(sys.argv[2], Path(sys.argv[1]), "json", None)
for number in range(200):
    log.append("finished", {"number": number, "filling": sys.argv[2] * 3000}, ignore)
"""


def make_log(folder: Path, *, job: str = "flow", form: str = "json") -> RunLog:
    return RunLog(job, folder / "run.log", form, folder / "rnnforecast.prom")


def lines_of(log: RunLog) -> list[str]:
    assert log.path is not None
    text = log.path.read_bytes().decode("utf-8")
    assert text.endswith("\n")
    return text.split("\n")[:-1]


def parse_exposition(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Read Prometheus' text format 0.0.4 strictly: each sample once, HELP and TYPE before it.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    assert text.endswith("\n"), "the last line must end with a line feed"
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    helped: set[str] = set()
    kinds: dict[str, str] = {}
    name = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
    label = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
    for line in text.split("\n")[:-1]:
        if match := re.fullmatch(rf"# HELP ({name}) (?:[^\\]|\\[\\n])*", line):
            assert match[1] not in helped, "one HELP for each metric"
            helped.add(match[1])
        elif match := re.fullmatch(rf"# TYPE ({name}) (counter|gauge|histogram|summary)", line):
            assert match[1] not in kinds, "one TYPE for each metric, before its samples"
            kinds[match[1]] = match[2]
        else:
            match = re.fullmatch(rf"({name})\{{({label}(?:,{label})*)?\}} (\S+)", line)
            assert match, f"not a sample, or one with a time stamp: {line!r}"
            assert match[1] in helped and kinds[match[1]] == "gauge"
            labels = tuple(
                (key, re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], value))
                for key, value in re.findall(label, match[2] or "")
            )
            assert (match[1], labels) not in samples, "each sample once"
            samples[match[1], labels] = float(match[match.lastindex])
    assert set(kinds) == helped == {name for name, _ in samples}
    return samples


def samples_of(log: RunLog) -> dict[str, float]:
    """Return the gauges as Prometheus reads them, all of this job."""
    assert log.textfile is not None
    samples = parse_exposition(log.textfile.read_bytes().decode("utf-8"))
    assert {labels for _, labels in samples} == {(("job", log.job),)}
    return {name.removeprefix("rnnforecast_"): value for (name, _), value in samples.items()}


def test_each_record_is_one_line_of_json(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    facts = {"number": 1, "text": 'a "b"\n\u2028c\x00', "none": None, "list": ["ä"], "x": 1.5}

    before = datetime.now(UTC)
    log.append("published", facts, ignore)
    log.append("finished", {}, ignore)

    first, second = (json.loads(line) for line in lines_of(log))
    moment = datetime.fromisoformat(first.pop("time"))
    assert -0.001 <= (moment - before).total_seconds() < 60
    assert first == {"job": "flow", "event": "published", **facts}
    assert (second["job"], second["event"]) == ("flow", "finished")


@few
@given(
    st.lists(
        st.dictionaries(
            st.from_regex(r"[a-d_]{1,5}", fullmatch=True),
            st.one_of(st.text(), st.integers(), st.none(), st.lists(st.text(), max_size=3)),
            max_size=4,
        ),
        max_size=5,
    ),
    st.sampled_from([*ODD, "\udcff"]),
    st.sampled_from(["json", "text"]),
)
def test_whatever_is_recorded_is_a_line_each(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], job: str, form: str
) -> None:
    log = make_log(tmp_path_factory.mktemp("log"), job=job, form=form)
    log.append("first", {}, pytest.fail)
    for facts in records:
        log.append("finished", facts, pytest.fail)

    lines = lines_of(log)
    assert len(lines) == len(records) + 1
    if form == "json":
        for line, facts in zip(lines[1:], records, strict=True):
            assert json.loads(line).items() >= facts.items()


def test_text_is_a_line_that_a_person_can_read(tmp_path: Path) -> None:
    log = make_log(tmp_path, form="text")

    log.append("finished", {"exit": 4, "message": "line 3\nis bad", "list": ["a b"]}, ignore)

    (line,) = lines_of(log)
    time, rest = line.split(" ", 1)
    assert datetime.fromisoformat(time).tzinfo is not None
    assert rest == r'flow finished exit=4 message="line 3\nis bad" list=["a b"]'


def test_a_record_that_is_too_long_for_a_line_is_shortened_and_still_json(tmp_path: Path) -> None:
    """Of 20,000 series that have drifted not each is named, but the exit code is still there."""
    for form in ("json", "text"):
        log = make_log(tmp_path, form=form)
        names = [f"series {i}" for i in range(20_000)]
        message = "é" * 100_000
        facts = {"exit": 3, "flagged": names, "message": message, "output": "out.csv"}
        log.append("finished", facts, pytest.fail)
        log.append("finished", {"exit": 0}, pytest.fail)

        *_, first, second = lines_of(log)
        assert len(first) < 1 << 16
        if form == "text":
            assert " exit=3 " in first and second.endswith(" exit=0")
            continue
        entry = json.loads(first)
        assert (entry["event"], entry["exit"], entry["output"]) == ("finished", 3, "out.csv")
        assert entry["flagged"][:5] == names[:5]
        assert entry["message"].startswith("ééé")
        assert json.loads(second)["exit"] == 0


@pytest.mark.slow
def test_records_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, log, name]) for name in "abcd"]
    assert [writer.wait() for writer in writers] == [0] * 4

    entries = [json.loads(line) for line in log.read_text().splitlines()]
    for name in "abcd":
        of_job = [entry for entry in entries if entry["job"] == name]
        assert [entry["number"] for entry in of_job] == list(range(200))
        assert all(entry["filling"] == name * 3000 for entry in of_job)
    assert len(entries) == 800


def test_an_entry_after_a_line_that_was_cut_short_is_found(tmp_path: Path) -> None:
    """A full disk takes a part of a line, and the next one goes on there."""
    log = make_log(tmp_path)
    log.append("finished", {"exit": 4, "message": 'it says {"time": "now"}'}, ignore)
    whole = log.path.read_bytes()
    for n in range(len(whole)):
        log.path.write_bytes(whole + whole[:n])
        log.append("finished", {"exit": n}, ignore)
        assert log.read_last("finished")["exit"] == n


@pytest.mark.parametrize("job", ["flow", *ODD])
def test_entries_of_a_log_in_text_are_found_too(tmp_path: Path, job: str) -> None:
    log = make_log(tmp_path, job=job, form="text")
    facts = {
        "exit": 4,
        "message": "at 2026-11-29T22:00:00.000+00:00 flow finished exit=0",
        "x": [1],
    }
    log.append("warning", {"exit": 1}, ignore)
    log.append("finished", facts, ignore)
    log.append("warning", {"exit": 2}, ignore)
    entry = log.read_last("finished")
    assert {name: entry[name] for name in ("job", *facts)} == {"job": job, **facts}
    whole = log.path.read_bytes()
    for n in range(0, len(whole), 7):
        log.path.write_bytes(whole + whole[:n])
        log.append("finished", {"exit": n}, ignore)
        assert log.read_last("finished")["exit"] == n


DAMAGED = [
    b"",
    b"no json",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"{",
    b'{"event": "finished"',
    b"[" * 99_999,
]


def test_the_newest_entry_is_found_past_what_is_damaged(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    for number in (1, 2):
        log.append("finished", {"number": number}, ignore)
    log.append("published", {"number": 3}, ignore)
    with log.path.open("ab") as file:
        file.write(b"\n".join(DAMAGED))

    assert log.read_last("finished")["number"] == 2
    assert log.read_last("published")["number"] == 3
    assert log.read_last("locked") is None


def test_the_newest_entry_is_that_of_the_job_itself(tmp_path: Path) -> None:
    flow, level = (make_log(tmp_path, job=job) for job in ("flow", "level"))
    flow.append("finished", {"exit": 4}, ignore)
    level.append("finished", {"exit": 0}, ignore)

    assert flow.read_last("finished")["exit"] == 4
    assert level.read_last("finished")["exit"] == 0
    assert make_log(tmp_path, job="another").read_last("finished") is None


def test_a_log_of_any_length_is_read_from_its_end(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.append("first", {}, ignore)
    with log.path.open("ab") as file:
        file.write(b'{"event": "finished", "job": "flow"}\n' * 100_000)
    log.append("finished", {"exit": 7}, ignore)

    assert log.read_last("finished")["exit"] == 7
    assert log.read_last("first") is None, "too long ago"


def test_without_a_log_and_a_text_file_nothing_is_written_or_known(tmp_path: Path) -> None:
    log = RunLog("flow", None, "json", None)
    log.append("finished", {}, pytest.fail)
    log.write_gauges({LAST_EXIT: 0.0}, pytest.fail)
    assert log.read_last("finished") is None
    assert log.read_gauges() == {}
    assert list(tmp_path.iterdir()) == []
    assert make_log(tmp_path).read_last("finished") is None
    assert make_log(tmp_path).read_gauges() == {}


VALUES = st.dictionaries(
    st.sampled_from(list(GAUGES)),
    st.one_of(
        st.none(),
        st.floats(-1e300, 1e300),  # 15 digits of the largest float would be infinite
        st.sampled_from([math.nan, math.inf, -math.inf]),
        st.integers(0, 2**40).map(float),
    ),
)


@few
@given(st.lists(VALUES, min_size=1, max_size=4), st.sampled_from(ODD))
def test_gauges_are_the_newest_values_that_there_were(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[dict[str, float | None]], job: str
) -> None:
    log = make_log(tmp_path_factory.mktemp("gauges"), job=job)
    expected: dict[str, float] = {}
    for values in rounds:
        log.write_gauges(values, pytest.fail)
        expected.update({name: value for name, value in values.items() if value is not None})

    if not expected:
        return
    for gauges in (samples_of(log), log.read_gauges()):
        assert gauges == pytest.approx(expected, rel=1e-14, nan_ok=True)
    assert list(samples_of(log)) == [name for name in GAUGES if name in expected]


def test_a_failure_leaves_the_time_of_the_last_success(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.write_gauges({LAST_SUCCESS: 1.7e9 + 0.25, LAST_RUN: 1.7e9, LAST_EXIT: 0.0}, pytest.fail)
    log.write_gauges({LAST_SUCCESS: None, LAST_RUN: 1.8e9, LAST_EXIT: 4.0}, pytest.fail)

    assert samples_of(log) == {LAST_SUCCESS: 1.7e9 + 0.25, LAST_RUN: 1.8e9, LAST_EXIT: 4.0}
    assert list(tmp_path.iterdir()) == [log.textfile]


@pytest.mark.parametrize("job", [*ODD, 'x"} 1\nrnnforecast_series{job="y', "\udcff.toml"])
def test_a_job_of_any_name_has_gauges(tmp_path: Path, job: str) -> None:
    log = make_log(tmp_path, job=job)
    for exit_code in (0.0, 5.0):
        log.write_gauges({LAST_EXIT: exit_code}, pytest.fail)

        samples = parse_exposition(log.textfile.read_bytes().decode("utf-8"))
        name = job.encode("utf-8", "replace").decode()
        assert samples == {("rnnforecast_last_exit_code", (("job", name),)): exit_code}
        assert log.read_gauges() == {LAST_EXIT: exit_code}


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"rnnforecast_series{", b'rnnforecast_series{job="flow"} many\n']
)
def test_a_text_file_that_is_damaged_is_written_anew(tmp_path: Path, content: bytes) -> None:
    log = make_log(tmp_path)
    log.textfile.write_bytes(content)
    log.write_gauges({LAST_EXIT: 0.0}, pytest.fail)
    assert samples_of(log) == {LAST_EXIT: 0.0}


def test_gauges_that_nobody_knows_any_more_go(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.textfile.write_text('rnnforecast_of_yesterday{job="flow"} 1\n')
    log.write_gauges({LAST_EXIT: 0.0}, pytest.fail)
    assert samples_of(log) == {LAST_EXIT: 0.0}


@pytest.mark.parametrize("what", ["nowhere", "folder", "below a file"])
def test_what_cannot_be_written_is_a_warning_that_names_it(tmp_path: Path, what: str) -> None:
    place = tmp_path / what
    if what == "folder":
        place.mkdir()
    elif what == "below a file":
        (tmp_path / "file").touch()
        place = tmp_path / "file" / "x"
    else:
        place = place / "x"
    log, heard = RunLog("flow", place, "json", place), list[Event]()

    log.append("finished", {}, heard.append)
    log.write_gauges({LAST_EXIT: 0.0}, heard.append)

    assert [event.code for event in heard if isinstance(event, WarningEvent)] == ["log", "textfile"]
    assert all(str(place) in event.message for event in heard if isinstance(event, WarningEvent))
    assert log.read_last("finished") is None
    assert log.read_gauges() == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_disk_that_is_full_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "run.log").symlink_to("/dev/full")
    heard: list[Event] = []
    make_log(tmp_path).append("finished", {}, heard.append)
    (warning,) = heard
    assert isinstance(warning, WarningEvent) and "space" in warning.message


def test_the_log_is_opened_anew_for_each_record_so_that_it_can_be_rotated(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.append("finished", {"number": 1}, ignore)
    os.rename(log.path, tmp_path / "run.log.1")  # noqa: PTH104, TID251
    log.append("finished", {"number": 2}, ignore)
    assert len(lines_of(log)) == 1
    assert log.read_last("finished")["number"] == 2


def test_no_gauge_is_infinite_by_accident() -> None:
    """The parser of this module takes what Prometheus takes."""
    text = "# HELP a b\n# TYPE a gauge\na{} +Inf\n"
    assert parse_exposition(text) == {("a", ()): math.inf}
    for bad in (text[:-1], text + "a{} 1\n", text + "b{} 1\n", text.replace("{} ", "{} 1 ")):
        with pytest.raises((AssertionError, KeyError)):
            parse_exposition(bad)
