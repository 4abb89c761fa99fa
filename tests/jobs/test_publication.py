"""Published runs: what counts as published, where, and what of it goes again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnforecast.config.fields import hash_facts
from rnnforecast.config.job import FROM_HERE, LABEL, OUTPUT, Job, KeepPart, describe_owner, read_job
from rnnforecast.data.axis import format_for_file_name
from rnnforecast.errors import UsageError, WriteError
from rnnforecast.jobs.ledger import write_ledger_owner
from rnnforecast.jobs.publication import (
    check_not_shared,
    list_outputs,
    manifest_path,
    published_manifest,
    read_manifest,
    read_newest_manifest,
    remove_job_leftovers,
    retire_outputs,
    write_manifest,
)
from rnnforecast.storage.publish import describe_input, publish
from tests.builders import HOUR_US, START_US
from tests.data.tables import few

KEY = "a" * 64
STAMPS = [format_for_file_name(START_US + i * HOUR_US, None) for i in range(6)]


def make_job(folder: Path, name: str = "{as_of}.csv", **parts: object) -> Job:
    """Make a job that lies in a folder and publishes below `out` there."""
    return Job(folder / "job.toml", "data.csv", str(folder / "out" / name), **parts)  # type: ignore[arg-type]


def publish_run(job: Job, stamp: str) -> Path:
    """Publish a run as a cycle does; return its output."""
    output = job.output_path(stamp)
    output.parent.mkdir(exist_ok=True)
    manifest: dict[str, object] = {"key": KEY, "job": str(job.path.resolve()), "as_of": stamp}
    if job.ledger is not None:
        Path(job.ledger).mkdir(exist_ok=True)
        (Path(job.ledger) / "part").write_bytes(b"part\n")
        manifest["ledger"] = describe_input(Path(job.ledger) / "part")
    manifest["output"] = publish(output, b"forecast\n")
    write_manifest(manifest_path(job, output), manifest)
    return output


def states_of(folder: Path) -> dict[Path, tuple[int, int, bytes]]:
    """Return each file with its inode, the time of its last change, and its content."""
    states = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {p: (state.st_ino, state.st_mtime_ns, p.read_bytes()) for p, state in states.items()}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return make_job(tmp_path, ledger=str(tmp_path / "ledger"))


def test_a_run_is_published_when_all_that_belongs_to_it_is_there(job: Job) -> None:
    output = publish_run(job, STAMPS[0])

    assert published_manifest(job, output, KEY)
    assert not published_manifest(job, output, "b" * 64)
    assert not published_manifest(job, job.output_path(STAMPS[1]), KEY)


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "changed": lambda path: path.write_bytes(path.read_bytes().swapcase()),
    "gone": lambda path: path.unlink(),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "emptied": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
@pytest.mark.parametrize("which", ["output", "ledger"])
def test_a_run_is_not_published_where_a_file_is_not_what_its_manifest_says(
    job: Job, which: str, tamper: Callable[[Path], object]
) -> None:
    output = publish_run(job, STAMPS[0])
    manifest = read_manifest(manifest_path(job, output))
    assert manifest is not None

    tamper(Path(manifest[which]["path"]))

    assert not published_manifest(job, output, KEY)


DAMAGES = {
    "empty": b"",
    "cut short": b'{"format": "rnnforecast-run", "key": "aa',
    "another document": b'{"key": "%s"}' % KEY.encode(),
    "a list": b"[]",
    "not text": b"\xff\xfe",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_run_is_not_published_without_a_whole_manifest(job: Job, content: bytes) -> None:
    output = publish_run(job, STAMPS[0])
    manifest = manifest_path(job, output)

    manifest.write_bytes(content)

    assert read_manifest(manifest) is None
    assert not published_manifest(job, output, KEY)
    check_not_shared(job, output)
    assert read_newest_manifest(job) is None


@pytest.mark.parametrize("name", ["output", "ledger"])
@pytest.mark.parametrize(
    "entry", [None, "out.csv", [], {}, {"path": 1, "bytes": 1, "sha256": ""}, {"sha256": KEY}]
)
def test_a_run_is_not_published_where_the_manifest_does_not_say_what_belongs_to_it(
    job: Job, name: str, entry: object
) -> None:
    output = publish_run(job, STAMPS[0])
    path = manifest_path(job, output)

    path.write_text(json.dumps({**json.loads(path.read_text()), name: entry}))

    assert not published_manifest(job, output, KEY)
    check_not_shared(job, output)


def test_a_run_without_a_ledger_needs_no_part(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert published_manifest(job, publish_run(job, STAMPS[0]), KEY)


def test_a_run_is_not_published_in_a_ledger_that_came_later(job: Job, tmp_path: Path) -> None:
    output = publish_run(dataclasses.replace(job, ledger=None), STAMPS[0])
    assert not published_manifest(job, output, KEY)

    publish_run(job, STAMPS[0])
    moved = dataclasses.replace(job, ledger=str(tmp_path / "another"))
    assert not published_manifest(moved, output, KEY)


def test_a_forecast_that_stands_elsewhere_is_not_this_one(job: Job) -> None:
    first, second = publish_run(job, STAMPS[0]), job.output_path(STAMPS[1])
    second.write_bytes(first.read_bytes())
    manifest_path(job, second).write_bytes(manifest_path(job, first).read_bytes())

    assert not published_manifest(job, second, KEY)


def test_publishing_the_same_again_writes_nothing(job: Job, tmp_path: Path) -> None:
    publish_run(job, STAMPS[0])
    before = states_of(tmp_path / "out")

    publish_run(job, STAMPS[0])

    assert states_of(tmp_path / "out") == before


@pytest.mark.parametrize("earlier", [b"", b"forecast", b"Forecast\n", b"forecast\n\n"])
def test_publishing_something_else_replaces_the_file(tmp_path: Path, earlier: bytes) -> None:
    path = tmp_path / "forecast.csv"
    path.write_bytes(earlier)
    inode = path.stat().st_ino

    entry = publish(path, b"forecast\n")

    assert path.read_bytes() == b"forecast\n"
    assert path.stat().st_ino != inode
    sha256 = hashlib.sha256(b"forecast\n").hexdigest()
    assert entry == {"path": str(path.resolve()), "bytes": 9, "sha256": sha256}
    assert describe_input(path) == entry


def test_a_manifest_is_json_that_says_its_format(tmp_path: Path) -> None:
    write_manifest(tmp_path / "run.json", {"key": KEY})

    manifest = json.loads((tmp_path / "run.json").read_text())
    assert manifest == {"format": "rnnforecast-run", "format_version": 1, "key": KEY}
    assert read_manifest(tmp_path / "run.json") == manifest


FACTS = {"version": "v", "horizon": 6, "as_of": STAMPS[0], "forecast": {"quantiles": [0.1, 0.9]}}


def test_the_key_is_that_of_the_facts_whatever_their_order() -> None:
    assert hash_facts(FACTS) == hash_facts(dict(reversed(FACTS.items())))
    others = [{**FACTS, name: "another"} for name in FACTS]
    assert len({hash_facts(facts) for facts in (FACTS, *others)}) == 5


def test_each_output_has_a_manifest_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert manifest_path(make_job(tmp_path, "f.csv"), out / "f.csv") == out / "run.json"
    job, name = make_job(tmp_path, "a.b-{as_of}.x.csv"), f"a.b-{STAMPS[0]}.x"
    assert job.output_path(STAMPS[0]) == out / f"{name}.csv"
    assert manifest_path(job, out / f"{name}.csv") == out / f"{name}.run.json"


ODD_NAMES = [
    "{as_of}.csv",
    "flow {as_of}.parquet",
    "[a-z]*?{as_of}.csv",
    "{as_of}(.+)$.csv",
    "{as_of}-{as_of}.csv",
    "Größe 🌊 {as_of}.jsonl",
    "line\nbreak {as_of}.csv",
    r"back\slash{as_of}.csv",
    "{as_of}",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_outputs_of_a_job_are_those_of_its_name_oldest_first(tmp_path: Path, name: str) -> None:
    job = make_job(tmp_path, name)
    stamps = [STAMPS[3], STAMPS[0], STAMPS[5]]
    outputs = [publish_run(job, stamp) for stamp in stamps]
    for foreign in (
        ".lock",
        "forecast.csv",
        f"other-{STAMPS[1]}.csv",
        f"{STAMPS[1]}.csv.bak",
        f".tmp-0123456789ab-{job.output_path(STAMPS[1]).name}",
        job.output_path("2024-01-01").name,
        job.output_path("{as_of}").name,
        job.output_path("latest").name,
    ):
        (tmp_path / "out" / foreign).touch()
    job.output_path(STAMPS[2]).mkdir()

    assert list_outputs(job) == [outputs[i] for i in (1, 0, 2)]


@few
@given(
    st.lists(st.integers(START_US, START_US + 10**7), min_size=1, max_size=6, unique=True),
    st.sampled_from([None, "UTC"]),
)
def test_every_time_that_a_name_can_say_is_found_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], tz: str | None
) -> None:
    job = make_job(tmp_path_factory.mktemp("job"))
    for time in times:
        publish_run(job, format_for_file_name(time, tz))

    assert list_outputs(job) == [
        job.output_path(format_for_file_name(time, tz)) for time in sorted(times)
    ]


def test_a_job_with_one_output_has_it_or_not(tmp_path: Path) -> None:
    job = make_job(tmp_path, "forecast.csv")
    assert list_outputs(job) == list_outputs(make_job(tmp_path)) == []
    publish_run(job, STAMPS[0])
    assert list_outputs(job) == [tmp_path / "out" / "forecast.csv"]


def test_the_newest_manifest_is_that_of_the_newest_output_that_has_one(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert read_newest_manifest(job) is None
    for stamp in (STAMPS[2], STAMPS[0], STAMPS[1]):
        publish_run(job, stamp)
    job.output_path(STAMPS[4]).touch()  # a run that was cut short

    assert read_newest_manifest(job)["as_of"] == STAMPS[2]
    fixed = make_job(tmp_path, "forecast.csv")
    assert read_newest_manifest(fixed) is None
    publish_run(fixed, STAMPS[0])
    assert read_newest_manifest(fixed)["as_of"] == STAMPS[0]


def with_runs(folder: Path, keep: int | None, *, name: str = "{as_of}.csv") -> Job:
    job = make_job(folder, name, keep=KeepPart(forecasts=keep))
    for stamp in STAMPS:
        publish_run(job, stamp)
    return job


@pytest.mark.parametrize("keep", [1, 2, 5, 6, 100])
@pytest.mark.parametrize("spared", [0, 5])
def test_retention_keeps_the_newest_and_the_one_that_is_spared(
    tmp_path: Path, keep: int, spared: int
) -> None:
    job = with_runs(tmp_path, keep)
    (tmp_path / "out" / "forecast.csv").touch()
    kept = sorted({*STAMPS[-keep:], STAMPS[spared]})

    gone = retire_outputs(job, exclude=job.output_path(STAMPS[spared]))

    assert gone == [job.output_path(stamp) for stamp in STAMPS if stamp not in kept]
    expected = [name for stamp in kept for name in (f"{stamp}.csv", f"{stamp}.run.json")]
    assert names_in(tmp_path / "out") == sorted([*expected, "forecast.csv"])


def test_retention_that_nobody_asked_for_removes_nothing(tmp_path: Path) -> None:
    job = with_runs(tmp_path, None)
    assert retire_outputs(job, exclude=job.output_path(STAMPS[5])) == []
    fixed = with_runs(tmp_path, 1, name="forecast.csv")
    assert retire_outputs(fixed, exclude=fixed.output_path(STAMPS[5])) == []
    assert len(names_in(tmp_path / "out")) == 14


def test_retention_that_is_cut_short_goes_on_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever removal fails, the next run leaves nothing of what should have gone."""
    real, n_runs = Path.unlink, 0
    for fails_at in range(1, 20):
        folder = tmp_path / str(fails_at)
        folder.mkdir()
        job, calls = with_runs(folder, 2), 0

        def unlink(path: Path, missing_ok: bool = False, fails_at: int = fails_at) -> None:  # noqa: FBT001, FBT002
            nonlocal calls
            calls += 1
            if calls == fails_at:
                raise OSError(5, "the disk is broken", str(path))
            real(path, missing_ok=missing_ok)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", unlink)
            try:
                retire_outputs(job, exclude=job.output_path(STAMPS[5]))
                n_runs = fails_at
            except WriteError:
                pass
        assert len(list_outputs(job)) >= 2
        retire_outputs(job, exclude=job.output_path(STAMPS[5]))
        assert len(names_in(folder / "out")) == 4
        if n_runs:
            break
    assert n_runs == 9, "four outputs and their manifests were removed, each failed once"


def test_two_jobs_do_not_share_a_manifest(tmp_path: Path) -> None:
    first = make_job(tmp_path, "a.csv")
    publish_run(first, STAMPS[0])
    second = dataclasses.replace(make_job(tmp_path, "b.csv"), path=tmp_path / "second.toml")

    with pytest.raises(UsageError, match="belongs to another job") as caught:
        check_not_shared(second, Path(second.output))

    assert (caught.value.exit_code, caught.value.code) == (2, "shared-output")
    assert str(first.path) in caught.value.message


def test_a_job_keeps_its_place_under_another_name_or_with_another_output(tmp_path: Path) -> None:
    job = make_job(tmp_path, "a.csv")
    publish_run(job, STAMPS[0])
    renamed = dataclasses.replace(job, path=tmp_path / "renamed.toml")
    for same in (job, renamed, make_job(tmp_path, "b.csv")):
        check_not_shared(same, Path(same.output))


def leftover_of(path: Path) -> Path:
    """Leave what a writer that was killed leaves for this name."""
    path.parent.mkdir(exist_ok=True)
    left = path.parent / f".tmp-0123456789ab-{path.name}"
    left.touch()
    return left


@pytest.mark.parametrize("name", [*ODD_NAMES, "forecast.csv", "[a]*.csv"])
def test_what_a_killed_run_left_is_removed_and_nothing_of_another_jobs(
    tmp_path: Path, name: str
) -> None:
    job = make_job(
        tmp_path, name, ledger=str(tmp_path / "ledger"), textfile=str(tmp_path / "x.prom")
    )
    stale = []
    for stamp in (*STAMPS[:2], f"{STAMPS[0]}Z", f"{STAMPS[0]}_500000", f"{STAMPS[0]}_500000Z"):
        output = job.output_path(stamp)
        stale += [leftover_of(output), leftover_of(manifest_path(job, output))]
    stale += [
        leftover_of(tmp_path / "ledger" / f"{STAMPS[0]}_0001_0123456789abcdef.parquet"),
        leftover_of(tmp_path / "x.prom"),
    ]
    out = tmp_path / "out"
    foreign = [
        leftover_of(out / f"other-{STAMPS[0]}.csv"),
        leftover_of(out / f"other-{STAMPS[0]}.run.json"),
        leftover_of(out / f"{STAMPS[0]}-other.csv"),
        leftover_of(out / "other.csv"),
        leftover_of(out / "aa.csv"),
        leftover_of(tmp_path / "other.prom"),
        leftover_of(tmp_path / "ledger" / "other.csv"),
    ]
    for named in (".tmp-notes", ".tmp-0123456789ab", "forecast.csv", f"{STAMPS[0]}.csv"):
        (out / named).touch()
        foreign.append(out / named)

    remove_job_leftovers(job)

    assert not [path for path in stale if path.exists()]
    assert [path for path in foreign if not path.exists()] == []


def test_nothing_to_collect_is_no_error(tmp_path: Path) -> None:
    remove_job_leftovers(make_job(tmp_path, ledger=str(tmp_path / "ledger")))
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def write_job(folder: Path, name: str = "job.toml", output: str = "out/forecast.csv") -> Job:
    """Write a job file with a ledger, and read it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f'[data]\nsource = "d.csv"\n[forecast]\noutput = "{output}"\n[ledger]\npath = "ledger"\n'
    (folder / name).write_text(text)
    return read_job(folder / name)


def publish_as(job: Job, stamp: str = STAMPS[0]) -> Path:
    """Publish what a run of this job does, with the records of its owner."""
    output = job.output_path(stamp)
    ledger = Path(str(job.ledger))
    for folder in (output.parent, ledger):
        folder.mkdir(parents=True, exist_ok=True)
    write_ledger_owner(job, ledger)
    entry = publish(output, b"forecast\n")
    owner = describe_owner(job, output.parent)
    write_manifest(manifest_path(job, output), {"key": KEY, **owner, "output": entry})
    return output


def test_a_job_that_was_moved_with_its_folder_runs_on(tmp_path: Path) -> None:
    job = write_job(tmp_path / "site")
    publish_as(job)
    os.rename(tmp_path / "site", tmp_path / "plant")  # noqa: PTH104, TID251
    moved = read_job(tmp_path / "plant/job.toml")

    check_not_shared(moved, Path(moved.output))
    assert read_newest_manifest(moved) is not None
    write_job(tmp_path / "site")  # and another job comes to where it was
    check_not_shared(moved, Path(moved.output))


def test_a_folder_that_an_older_version_wrote_can_be_moved_too(tmp_path: Path) -> None:
    job = write_job(tmp_path / "site")
    output = publish_as(job)
    path = manifest_path(job, output)
    manifest = json.loads(path.read_text())
    for name in (FROM_HERE, OUTPUT, LABEL):
        del manifest[name]
    path.write_text(json.dumps(manifest))
    os.rename(tmp_path / "site", tmp_path / "plant")  # noqa: PTH104, TID251
    moved = read_job(tmp_path / "plant/job.toml")

    check_not_shared(moved, Path(moved.output))
    assert read_newest_manifest(moved) is not None


def test_a_job_file_that_was_moved_alone_runs_on(tmp_path: Path) -> None:
    """Its output and ledger, which it names by absolute paths, stay where they are."""
    shared = tmp_path / "shared"
    for part, name in (("moved", "job.toml"), ("renamed", "other.toml"), ("both", "third.toml")):
        text = f'[data]\nsource = "d.csv"\n[forecast]\noutput = "{shared / part}.csv"\n'
        text += f'[ledger]\npath = "{shared / part}"\n'
        (tmp_path / part).mkdir()
        (tmp_path / part / "job.toml").write_text(text)
        before = read_job(tmp_path / part / "job.toml")
        publish_as(before)
        place = tmp_path / ("new" + part if part != "renamed" else part)
        place.mkdir(exist_ok=True)
        os.rename(before.path, place / name)  # noqa: PTH104, TID251
        check_not_shared(read_job(place / name), Path(before.output))
        (shared / "run.json").unlink()


@pytest.mark.parametrize("same", ["folder", "name"])
def test_two_jobs_with_one_output_or_one_ledger_are_told_apart(tmp_path: Path, same: str) -> None:
    """Also where both have the same file name, in two folders."""
    first = write_job(tmp_path / "a")
    publish_as(first)
    folder, name = (tmp_path / "a", "b.toml") if same == "folder" else (tmp_path / "b", "job.toml")
    other = write_job(folder, name, "other/forecast.csv")

    with pytest.raises(UsageError, match=r"ledger of another job: .*/a/job\.toml") as caught:
        check_not_shared(dataclasses.replace(other, ledger=first.ledger), Path(other.output))
    assert (caught.value.exit_code, caught.value.code) == (2, "shared-ledger")
    with pytest.raises(UsageError, match="belongs to another job") as caught:
        rival = dataclasses.replace(other, output=first.output, ledger=None)
        check_not_shared(rival, Path(first.output))
    assert (caught.value.exit_code, caught.value.code) == (2, "shared-output")
    assert read_newest_manifest(rival) is None


def test_jobs_that_write_a_file_for_each_time_do_not_share_a_pattern(tmp_path: Path) -> None:
    first = write_job(tmp_path, "a.toml", "out/{as_of}.csv")
    publish_as(first, STAMPS[0])
    second = dataclasses.replace(first, path=tmp_path / "b.toml", ledger=None)

    with pytest.raises(UsageError, match="belongs to another job"):
        check_not_shared(second, second.output_path(STAMPS[3]))


def test_the_names_that_job_files_give_decide_where_paths_do_not(tmp_path: Path) -> None:
    """Two containers see their job at one path, and what both write at another."""
    job = dataclasses.replace(write_job(tmp_path / "data"), label="north")
    publish_as(job)

    with pytest.raises(UsageError, match="another job"):
        check_not_shared(dataclasses.replace(job, label="south"), Path(job.output))
    job.path.unlink()
    elsewhere = dataclasses.replace(job, path=tmp_path / "etc" / "x.toml")
    check_not_shared(elsewhere, Path(job.output))


def test_a_job_file_that_may_not_be_looked_at_is_another_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write_job(tmp_path / "a")
    publish_as(job)
    other = dataclasses.replace(job, path=tmp_path / "b" / "job.toml")
    samefile = Path.samefile

    def refuse(path: Path, other: Path) -> bool:
        if path == job.path:
            raise PermissionError(13, "Permission denied", str(path))
        return samefile(path, other)

    monkeypatch.setattr(Path, "samefile", refuse)
    with pytest.raises(UsageError, match="another job"):
        check_not_shared(other, Path(job.output))
