"""Outputs that are no plain files: links, pipes, devices, sockets; modes and owners stay."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from rnnforecast.errors import WriteError
from rnnforecast.storage import durable
from rnnforecast.storage.durable import check_file, publishing_output

OLD, NEW = b"old\n", b"new and longer\n" * 10_000


def publish(path: Path, content: bytes = NEW) -> None:
    check_file(path)
    with publishing_output(path) as file:
        file.write(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "there" / "f.csv").write_bytes(OLD)
    return tmp_path


def test_a_link_stays_and_what_it_leads_to_is_replaced_in_its_own_folder(place: Path) -> None:
    link, target = place / "here" / "f.csv", place / "there" / "f.csv"
    (place / "here" / "between").symlink_to("../there/f.csv")
    link.symlink_to("between")
    before = target.stat().st_ino

    with publishing_output(link) as file:
        file.write(NEW)
        file.flush()
        assert target.read_bytes() == OLD
        assert len(names(place / "there")) == 2, "the temporary file lies beside the target"

    assert link.is_symlink()
    assert target.read_bytes() == link.read_bytes() == NEW
    assert target.stat().st_ino != before
    assert (names(place / "here"), names(place / "there")) == (["between", "f.csv"], ["f.csv"])


def test_a_link_to_what_is_not_there_yet_makes_it(place: Path) -> None:
    (place / "link").symlink_to("there/new.csv")
    publish(place / "link")
    assert (place / "there" / "new.csv").read_bytes() == NEW
    assert (place / "link").is_symlink()


def test_a_link_into_a_missing_folder_and_a_loop_are_errors(place: Path) -> None:
    (place / "lost").symlink_to("nowhere/f.csv")
    (place / "loop").symlink_to("loop")
    for name in ("lost", "loop"):
        for write in (check_file, publish):
            with pytest.raises(WriteError, match=name) as caught:
                write(place / name)
            assert caught.value.exit_code == 7


def test_what_fails_behind_a_link_leaves_both_as_they_were(place: Path) -> None:
    (place / "link").symlink_to("there/f.csv")
    with pytest.raises(KeyError), publishing_output(place / "link") as file:
        file.write(NEW)
        raise KeyError
    assert (place / "link").read_bytes() == OLD
    assert names(place / "there") == ["f.csv"]


def test_a_pipe_is_written_to_and_stays_a_pipe(place: Path) -> None:
    path = place / "pipe.csv"
    os.mkfifo(path)
    parts: list[bytes] = []

    def read() -> None:
        time.sleep(0.05)  # whoever writes waits for the reader
        with path.open("rb") as file:
            while part := file.read(1 << 14):
                parts.append(part)
                time.sleep(0.002)

    reader = threading.Thread(target=read)
    reader.start()
    publish(path)
    reader.join()

    assert b"".join(parts) == NEW
    assert path.is_fifo()
    assert names(place) == ["here", "pipe.csv", "there"]


def test_a_pipe_that_nobody_reads_from_is_given_up(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "pipe"
    os.mkfifo(path)
    monkeypatch.setattr(durable, "_IDLE_S", 0.1)

    with pytest.raises(WriteError, match="nothing has read") as caught:
        publish(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(WriteError, match="nothing has read"):  # once it is full
            publish(path)
    finally:
        os.close(descriptor)

    assert caught.value.exit_code == 7
    assert path.is_fifo()


def test_nothing_goes_into_a_pipe_where_the_content_fails(place: Path) -> None:
    path = place / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(KeyError), publishing_output(path) as file:
            file.write(NEW)
            raise KeyError
        assert os.read(descriptor, 100) == b""
    finally:
        os.close(descriptor)


def make_device(path: Path, minor: int) -> Path:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.open("wb").close()
    except OSError as error:
        pytest.skip(f"this user makes no devices: {error}")
    return path


def test_a_device_is_written_to_and_stays_a_device(place: Path) -> None:
    null, full = make_device(place / "null", 3), make_device(place / "full", 7)
    (place / "link").symlink_to(null)

    publish(null)
    publish(place / "link")
    with pytest.raises(WriteError, match="No space left"):
        publish(full)

    assert null.is_char_device() and full.is_char_device() and (place / "link").is_symlink()


def test_a_folder_and_a_socket_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name, reason in (("socket", "is a socket"), ("there", "is a folder")):
            (place / f"{name}-link").symlink_to(name)
            for path in (place / name, place / f"{name}-link"):
                for write in (check_file, publish):
                    with pytest.raises(WriteError, match=reason):
                        write(path)
        assert (place / "socket").is_socket()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_an_output_keeps_the_mode_of_the_file_before_it(place: Path, mode: int) -> None:
    target = place / "there" / "f.csv"
    target.chmod(mode)
    (place / "link").symlink_to(target)

    for path in (target, place / "link"):
        with publishing_output(path) as file:
            (temporary,) = (place / "there").glob(".tmp-*")
            assert stat.S_IMODE(temporary.stat().st_mode) == mode, "also while it is written"
            file.write(NEW)
        assert stat.S_IMODE(target.stat().st_mode) == mode


@pytest.mark.skipif(os.getuid() != 0, reason="only root writes files of others")
def test_a_file_of_another_user_stays_his(place: Path) -> None:
    target = place / "there" / "f.csv"
    os.chown(target, 65534, 65534)
    target.chmod(0o600)

    publish(target)

    status = target.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 65534, 0o600)
