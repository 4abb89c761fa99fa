"""The model directory: versions that never change, and one line that says which is active."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from rnnforecast.errors import ModelError, RnnForecastError, UsageError, WriteError
from rnnforecast.storage.versions import (
    CURRENT,
    activate_version,
    active_version,
    list_versions,
    publish_version,
    remove_leftovers,
    resolve_version,
    retire_versions,
    versions_ahead,
)

NOW = datetime(2026, 11, 22, 8, 45, tzinfo=UTC)
FILES = {"weights.safetensors": b"w", "manifest.json": b"{}"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "some folder" / "model"


def publish(model: Path, *, minute: int = 0, content: bytes = b"w") -> str:
    files = {**FILES, "weights.safetensors": content}
    return publish_version(model, files, now=NOW + timedelta(minutes=minute))


def test_a_version_is_named_by_its_moment_in_utc_and_a_hash(model: Path) -> None:
    assert re.fullmatch(r"20261122T084500Z-[0-9a-f]{6}", publish(model))

    zone = timezone(timedelta(hours=5, minutes=30))
    abroad = publish_version(model, FILES, now=NOW.astimezone(zone))

    assert abroad.startswith("20261122T084500Z-")


def test_a_version_holds_the_files_that_were_published(model: Path) -> None:
    name = publish(model)

    directory = model / "versions" / name
    assert {p.name: p.read_bytes() for p in directory.iterdir()} == FILES
    assert sorted(p.name for p in model.iterdir()) == ["versions"]


def test_other_content_at_the_same_moment_is_another_version(model: Path) -> None:
    names = {publish(model, content=bytes([i])) for i in range(20)}

    assert len(names) == 20
    assert set(list_versions(model)) == names


def test_a_version_is_never_written_over(model: Path) -> None:
    name = publish(model)
    weights = model / "versions" / name / "weights.safetensors"
    weights.write_bytes(b"as it was")

    with pytest.raises(WriteError, match=name):
        publish(model)

    assert weights.read_bytes() == b"as it was"
    assert list_versions(model) == [name]


def test_publishing_does_not_change_what_is_active(model: Path) -> None:
    first = publish(model)
    activate_version(model, first)

    publish(model, minute=1)

    assert resolve_version(model).name == first


def test_current_is_one_line_with_the_name(model: Path) -> None:
    name = publish(model)

    activate_version(model, name)

    assert (model / "CURRENT").read_bytes() == f"{name}\n".encode()
    assert resolve_version(model) == model / "versions" / name


def test_an_older_version_can_be_activated_again(model: Path) -> None:
    first, second = publish(model), publish(model, minute=1)

    activate_version(model, second)
    activate_version(model, first)

    assert resolve_version(model).name == first
    assert resolve_version(model, second).name == second


def test_versions_are_listed_oldest_first_and_nothing_else_is(model: Path) -> None:
    names = [publish(model, minute=minute) for minute in (5, 0, 90)]
    versions = model / "versions"
    (versions / ".tmp-1-abc").mkdir()
    (versions / "notes").mkdir()
    (versions / "20260101T000000Z-aaaaaa").write_text("a file")
    (versions / "20260101T000000Z-bbbbbb").symlink_to(versions / names[0])

    assert list_versions(model) == [names[1], names[0], names[2]]


def test_there_are_no_versions_where_there_is_no_model(model: Path) -> None:
    assert list_versions(model) == []


def test_a_reader_stays_with_the_version_that_it_resolved(model: Path) -> None:
    activate_version(model, publish(model, content=b"first"))

    resolved = resolve_version(model)
    activate_version(model, publish(model, minute=1, content=b"second"))

    assert (resolved / "weights.safetensors").read_bytes() == b"first"


def refusal(model: Path, version: str | None = None) -> RnnForecastError:
    with pytest.raises(RnnForecastError) as caught:
        resolve_version(model, version)
    return caught.value


def test_a_missing_model_is_an_error_that_says_how_to_train_one(model: Path) -> None:
    error = refusal(model)

    assert (type(error), error.exit_code, error.code) == (ModelError, 6, "no-model")
    assert str(model) in error.message
    assert "rnnforecast train" in error.hint


@pytest.mark.parametrize("name", ["a file", "x" * 300, "nul\0", "a file/below"])
def test_a_path_that_holds_no_model_is_an_error_never_a_crash(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("no folder")

    assert refusal(tmp_path / name).code == "no-model"


def test_a_model_without_current_is_an_error_that_names_it(model: Path) -> None:
    version = publish(model)

    error = refusal(model)

    assert (error.exit_code, error.code) == (6, "no-active-version")
    assert version in error.hint
    assert "--version" in error.hint


def test_a_folder_without_versions_is_no_model(model: Path) -> None:
    (model / "versions").mkdir(parents=True)

    error = refusal(model)

    assert (error.exit_code, error.code) == (6, "no-model")
    assert "CURRENT" in error.message
    assert error.hint


DAMAGES = {
    "empty": b"",
    "cut short": b"20261122T0845",
    "two lines": b"20261122T084500Z-3f9c2a\n20261122T084500Z-3f9c2b\n",
    "a path upwards": b"../20261122T084500Z-3f9c2a\n",
    "an absolute path": b"/tmp\n",
    "binary": bytes(range(256)),
    "long": b"20261122T084500Z-3f9c2a" * 1000,
    "a word": b"latest\n",
    "other digits": "２０２６1122T084500Z-3f9c2a\n".encode(),
}


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_current_is_an_error_that_lists_the_versions(model: Path, content: bytes) -> None:
    name = publish(model)
    (model / "CURRENT").write_bytes(content)

    error = refusal(model)

    assert (type(error), error.exit_code, error.code) == (ModelError, 6, "damaged-model")
    assert name in error.hint


def test_a_current_that_is_no_file_is_an_error_at_once(model: Path) -> None:
    publish(model)
    os.mkfifo(model / "CURRENT")
    assert refusal(model).exit_code == 6

    (model / "CURRENT").unlink()
    (model / "CURRENT").mkdir()
    assert refusal(model).exit_code == 6


def test_a_current_that_names_no_saved_version_is_an_error_that_lists_them(model: Path) -> None:
    name = publish(model)
    activate_version(model, "20200101T000000Z-000000")

    error = refusal(model)

    assert (type(error), error.exit_code, error.code) == (ModelError, 6, "no-such-version")
    assert "20200101T000000Z-000000" in error.message
    assert name in error.hint


def test_a_version_that_is_not_saved_is_an_error_that_lists_the_newest(model: Path) -> None:
    names = [publish(model, minute=minute) for minute in range(7)]

    error = refusal(model, "20200101T000000Z-000000")

    assert (type(error), error.exit_code) == (ModelError, 6)
    assert error.hint == f"saved versions: {', '.join(names[2:])}"


@pytest.mark.parametrize("outside", ["../secret", "..", ".", "", "/etc", "a/b", "newest", "\0"])
def test_a_version_that_is_no_name_of_one_is_refused(model: Path, outside: str) -> None:
    name = publish(model)
    activate_version(model, name)
    (model / "secret").mkdir()

    error = refusal(model, outside)

    assert (type(error), error.exit_code) == (UsageError, 2)
    assert name in error.hint


def test_a_version_is_named_by_latest_previous_or_an_unambiguous_prefix(model: Path) -> None:
    first, second, third = (publish(model, minute=minute) for minute in (1, 2, 3))
    activate_version(model, second)

    def named(text: str) -> str:
        return resolve_version(model, text).name

    assert (named("latest"), named("previous")) == (third, first)
    assert named(first[:14]) == first and named(third[:-1]) == third
    assert "ambiguous" in refusal(model, first[:8]).message
    activate_version(model, first)
    assert "no version before" in refusal(model, "previous").message
    assert refusal(model, "").exit_code == refusal(model, "no-such").exit_code == 2


def publish_challenger(model: Path, *, minute: int, promoted: bool) -> str:
    manifest = {"provenance": {"challenge": {"promoted": promoted}}}
    files = {**FILES, "manifest.json": json.dumps(manifest).encode()}
    return publish_version(model, files, now=NOW + timedelta(minutes=minute))


def test_challengers_that_lost_are_no_previous_version(model: Path) -> None:
    champion = publish(model)
    winner = publish_challenger(model, minute=1, promoted=True)
    lost = [publish_challenger(model, minute=minute, promoted=False) for minute in (2, 3)]
    activate_version(model, publish_challenger(model, minute=4, promoted=True))
    assert resolve_version(model, "previous").name == winner
    activate_version(model, winner)
    assert resolve_version(model, "previous").name == champion
    assert resolve_version(model, lost[0]).name == lost[0]


def test_challengers_that_lost_take_the_place_of_no_other_version(model: Path) -> None:
    champion = publish(model)
    lost = [publish_challenger(model, minute=60 * i, promoted=False) for i in range(1, 5)]
    active = publish_challenger(model, minute=60 * 5, promoted=True)
    activate_version(model, active)
    changed_at(model, NOW + timedelta(hours=5))
    assert retired(model, keep=2, hours=12) == lost[:-1]
    assert list_versions(model) == [champion, lost[-1], active]


def test_a_version_that_is_a_link_or_a_file_is_refused(model: Path, tmp_path: Path) -> None:
    name = publish(model)
    activate_version(model, name)
    aside = tmp_path / "aside"
    (model / "versions" / name).rename(aside)
    (model / "versions" / name).symlink_to(aside)
    assert (refusal(model).exit_code, refusal(model, name).code) == (6, "no-such-version")

    (model / "versions" / name).unlink()
    (model / "versions" / name).write_text("a file")
    assert (refusal(model).exit_code, refusal(model, name).code) == (6, "no-such-version")


def test_a_model_behind_a_link_is_found(model: Path, tmp_path: Path) -> None:
    name = publish(model)
    activate_version(model, name)
    (tmp_path / "link").symlink_to(model)

    assert resolve_version(tmp_path / "link").name == name


def test_a_model_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")

    with pytest.raises(WriteError, match="model") as caught:
        publish(tmp_path / "model")

    assert caught.value.exit_code == 7
    assert (tmp_path / "model").read_text() == "a file"


def retired(
    model: Path, *, keep: int = 1, pinned: tuple[str, ...] = (), hours: float = 24
) -> list[str]:
    """Retire versions this long after the first one was made; return what is gone."""
    now = NOW + timedelta(hours=hours)
    return retire_versions(model, keep=keep, pinned=pinned, now=now)


def changed_at(model: Path, moment: datetime) -> None:
    os.utime(model / "CURRENT", (moment.timestamp(), moment.timestamp()))


@pytest.fixture
def versions(model: Path) -> list[str]:
    """Five versions, an hour between two, the second active from the moment of the last on."""
    names = [publish(model, minute=60 * hour) for hour in range(5)]
    activate_version(model, names[1])
    changed_at(model, NOW + timedelta(hours=4))
    return names


@pytest.mark.parametrize("keep", range(1, 7))
def test_retention_leaves_the_newest_versions_and_the_one_active(
    model: Path, versions: list[str], keep: int
) -> None:
    expected = [name for name in versions if name == versions[1] or name in versions[-keep:]]

    gone = retired(model, keep=keep)

    assert list_versions(model) == expected
    assert gone == [name for name in versions if name not in expected]
    assert sorted(path.name for path in (model / "versions").iterdir()) == expected
    assert resolve_version(model).name == versions[1]
    assert retired(model, keep=keep) == []


def test_retention_leaves_what_is_pinned_be_it_there_or_not(
    model: Path, versions: list[str]
) -> None:
    pinned = (versions[0], versions[2], "20200101T000000Z-000000", "no name of a version")
    assert retired(model, pinned=pinned) == [versions[3]]


def test_retention_leaves_versions_of_the_last_hour(model: Path, versions: list[str]) -> None:
    changed_at(model, NOW)
    assert retired(model, hours=4) == [versions[0], versions[2]]
    assert retired(model, hours=4 + 1 / 3600) == [versions[3]]


def test_retention_waits_for_an_hour_after_another_version_came_into_force(
    model: Path, versions: list[str]
) -> None:
    changed = NOW + timedelta(hours=20)
    changed_at(model, changed)
    for late in (timedelta(0), timedelta(minutes=59, seconds=59)):
        assert retire_versions(model, keep=1, pinned=(), now=changed + late) == []
    assert list_versions(model) == versions
    later = changed + timedelta(minutes=60)
    assert retire_versions(model, keep=1, pinned=(), now=later) == [versions[i] for i in (0, 2, 3)]


@pytest.mark.parametrize("hours", [-24 * 365, -1, 0, 3.9])
def test_retention_removes_nothing_while_the_clock_is_behind(
    model: Path, versions: list[str], hours: float
) -> None:
    changed_at(model, NOW - timedelta(days=1000))
    assert retired(model, hours=hours) == []
    changed_at(model, NOW + timedelta(hours=5))
    assert retired(model, hours=4.9) == []
    assert list_versions(model) == versions


def test_a_version_of_a_clock_that_was_wrong_does_not_end_retention(
    model: Path, versions: list[str]
) -> None:
    """A version was made while the clock said 2099, and others after it was put right."""
    ahead = publish(model, minute=60 * 24 * 365 * 73)
    now = NOW + timedelta(hours=24)
    os.utime(model / "versions", (now.timestamp(), now.timestamp() - 60))

    assert versions_ahead(model, now=now) == [ahead]
    assert retired(model, keep=2) == [versions[0], versions[2]]
    assert list_versions(model) == [versions[1], *versions[3:], ahead]


def test_a_current_that_may_not_be_read_is_no_missing_one(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To say that no version is active would have `use` and retention act on it."""
    publish(model)
    activate_version(model, list_versions(model)[0])
    real = Path.open

    def refuse(path: Path, *arguments: Any, **more: Any) -> Any:
        if path.name == "CURRENT":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    for ask in (resolve_version, active_version):
        with pytest.raises(
            ModelError, match=r"cannot read the model: .*CURRENT: Permission"
        ) as caught:
            ask(model)
        assert (caught.value.exit_code, caught.value.code) == (6, "unreadable-model")


def test_retention_reads_the_clock_of_any_zone(model: Path, versions: list[str]) -> None:
    now = (NOW + timedelta(days=1)).astimezone(timezone(-timedelta(hours=11)))
    gone = retire_versions(model, keep=1, pinned=(), now=now)
    assert gone == [versions[0], versions[2], versions[3]]


@pytest.mark.parametrize("content", [None, b"", b"../elsewhere\n", b"20200101T000000Z-000000\n"])
def test_retention_removes_nothing_where_nobody_knows_what_is_active(
    model: Path, versions: list[str], content: bytes | None
) -> None:
    (model / "CURRENT").unlink()
    if content is not None:
        (model / "CURRENT").write_bytes(content)
        changed_at(model, NOW)
    assert retired(model) == []
    assert list_versions(model) == versions


def test_retention_of_no_versions_is_none(model: Path) -> None:
    assert retired(model) == []
    (model / "versions").mkdir(parents=True)
    assert retired(model) == []


def test_a_version_that_is_being_removed_is_never_seen_in_part(
    model: Path, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        retired(model)

    assert list_versions(model) == versions[1:]
    for name in list_versions(model):
        assert {p.name for p in resolve_version(model, name).iterdir()} == set(FILES)
    monkeypatch.undo()
    remove_leftovers(model)
    assert sorted(p.name for p in (model / "versions").iterdir()) == versions[1:]


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_a_disk_that_fails_is_not_a_model_without_an_active_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    name = publish_version(tmp_path, {"manifest.json": b"{}"}, now=NOW)
    activate_version(tmp_path, name)

    for failing in (CURRENT, name):
        with monkeypatch.context() as patch:
            for method in ("open", "stat", "lstat"):
                patch.setattr(Path, method, failing_for(failing, getattr(Path, method), error))
            for read in (resolve_version, active_version):
                with pytest.raises(ModelError, match=os.strerror(error)) as caught:
                    read(tmp_path)
                assert caught.value.code == "unreadable-model"

    def fail(_path: Path) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(ModelError, match=os.strerror(error)):
        list_versions(tmp_path)


def failing_for(name: str, real: Callable[..., Any], error: int) -> Callable[..., Any]:
    def call(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == name:
            raise OSError(error, os.strerror(error), str(path))
        return real(path, *arguments, **options)

    return call
