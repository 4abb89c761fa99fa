"""Places on a store: names, reading by ranges, and objects that appear whole or not at all."""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path

import pytest

from rnnforecast.errors import UsageError, WriteError
from rnnforecast.storage import publish, stores
from rnnforecast.storage.remote import (
    RemotePath,
    as_path,
    get_infos,
    list_objects,
    local_path,
    size_of,
)
from rnnforecast.urls import Url
from tests import objectstore
from tests.objectstore import Bucket


def at(text: str) -> RemotePath:
    place = as_path(text)
    assert isinstance(place, RemotePath)
    return place


def test_a_place_is_a_path_or_a_url() -> None:
    assert as_path("a/b.csv") == Path("a/b.csv")
    assert str(as_path("s3://b/a/")) == "s3://b/a"
    assert as_path(at("s3://b/a")) == at("s3://b/a")
    with pytest.raises(UsageError, match="is a URL, but a local path"):
        as_path(Path("s3://b/a"))
    with pytest.raises(UsageError, match="is a local path"):
        as_path("file:///tmp/a")


def test_a_place_has_the_names_of_a_path() -> None:
    place = at("s3://b/a/x.csv.gz?scheme=http")

    assert (place.name, place.suffix) == ("x.csv.gz", ".gz")
    assert str(place.parent) == "s3://b/a?scheme=http"
    assert str(place.parent / "c" / "d") == "s3://b/a/c/d?scheme=http"
    assert str(place.parent.parent) == "s3://b?scheme=http"
    assert place.relative_parts(place.parent.parent) == ("a", "x.csv.gz")
    assert place.is_relative_to(place.parent)
    assert not at("s3://b/ab").is_relative_to(at("s3://b/a"))
    assert not at("s3://c/a/x").is_relative_to(at("s3://b/a"))


def test_what_must_be_here_cannot_be_on_a_store() -> None:
    assert local_path("a", "it") == Path("a")
    with pytest.raises(UsageError, match="it cannot be on an object store: s3://b/a"):
        local_path("s3://b/a", "it")


def test_what_is_published_is_read_again_by_ranges(bucket: Bucket) -> None:
    content = os.urandom(9 << 20)
    place = at(bucket.url("a b/ü+%20#.bin"))

    with publish.publishing_file(place) as file:
        file.write(content)
        assert not place.exists()

    assert bucket.names() == ["a b/ü+%20#.bin"]
    with place.open() as read:
        assert read.seek(-5, os.SEEK_END) == len(content) - 5
        assert read.read() == content[-5:]
        read.seek(4 << 20)
        assert read.read(10) == content[4 << 20 :][:10]
    assert place.read_bytes() == content
    assert size_of(place) == len(content)
    assert place.is_file() and not place.is_dir()
    assert place.parent.is_dir() and not place.parent.is_file()


@pytest.mark.parametrize("how", ["raise", "leave"])
def test_what_is_not_written_to_its_end_is_not_published(bucket: Bucket, how: str) -> None:
    place = at(bucket.put("x", b"old"))

    def write() -> None:
        with publish.publishing_file(place) as file:
            file.write(b"half")
            raise KeyboardInterrupt if how == "raise" else GeneratorExit

    with pytest.raises(KeyboardInterrupt if how == "raise" else GeneratorExit):
        write()
    gc.collect()

    assert bucket.all() == {"x": b"old"}


@pytest.mark.usefixtures("interruptible")
def test_a_signal_while_an_object_is_put_comes_after_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that is left early would be published with what it has, which is nothing."""
    opened = stores._store_of

    class Slow:
        def __init__(self, store: object) -> None:
            self.store = store

        def open_output_stream(self, path: str, **options: object) -> object:
            stream = self.store.open_output_stream(path, **options)  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            return stream

    monkeypatch.setattr(stores, "_store_of", lambda url: Slow(opened(url)))
    with pytest.raises(KeyboardInterrupt):
        publish.replace_pointer(at(bucket.url("CURRENT")), "new")
    gc.collect()

    assert bucket.get("CURRENT") == b"new\n"


def test_what_is_published_is_what_was_written_whatever_it_is_called(bucket: Bucket) -> None:
    for name, content in (("empty.csv", b""), ("x.csv.gz", b"not packed")):
        with publish.publishing_file(at(bucket.url(name))) as file:
            file.write(content)

    assert bucket.all() == {"empty.csv": b"", "x.csv.gz": b"not packed"}


def test_objects_are_listed_in_order_and_looked_at_side_by_side(bucket: Bucket) -> None:
    for key in ("a/z", "a/b/c", "a/b.csv", "ab/c", "d"):
        bucket.put(key, key.encode())
    folder = at(bucket.url("a"))

    assert [str(p.url.key) for p in list_objects(folder)] == ["a/b.csv", "a/b/c", "a/z"]
    assert [p.name for p in list_objects(folder, recursive=False)] == ["b.csv", "z"]
    assert list(list_objects(at(bucket.url("none")))) == []
    found = get_infos([folder / "z", folder / "none", folder])
    assert [state and state.size for state in found] == [3, None, None]
    assert [state is None for state in found] == [False, True, False]


def test_what_is_taken_away_is_gone_and_again_is_no_error(bucket: Bucket) -> None:
    place = at(bucket.put("a/x", b"1"))

    place.unlink()
    place.unlink()

    assert not place.exists()


def test_a_directory_that_somebody_else_changes_meanwhile_does_not_count(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = stores.put

    def put_and_lose(url: Url, content: bytes) -> None:
        put(url, content)
        if url.path.name == "second":
            bucket.remove("v/first")

    monkeypatch.setattr(stores, "put", put_and_lose)
    with pytest.raises(WriteError, match="by another process"):
        publish.publish_directory(at(bucket.url("v")), {"first": b"1", "second": b"2"})


def test_errors_say_what_is_wrong_with_a_store(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failure(url: str) -> OSError:
        with pytest.raises(OSError) as found:
            at(url).read_bytes()
        assert found.value.filename
        return found.value

    assert isinstance(failure(bucket.url("none")), FileNotFoundError)
    monkeypatch.setattr(stores, "ATTEMPTS", 1)
    with objectstore.denying() as port:
        denied = failure(f"s3://b/x?endpoint_override=127.0.0.1:{port}&scheme=http")
    assert isinstance(denied, PermissionError)
    assert denied.strerror == "the store denied access"
    gone = failure(f"s3://b/x?endpoint_override=127.0.0.1:{port}&scheme=http&region=x")
    assert isinstance(gone, TimeoutError)
    assert "does not respond" in str(gone.strerror)
    monkeypatch.setattr(stores, "ANSWER_S", 1.0)
    with objectstore.silent() as port:
        begun = time.monotonic()
        slow = failure(f"s3://b/x?endpoint_override=127.0.0.1:{port}&scheme=http")
        assert time.monotonic() - begun < 10
    assert isinstance(slow, TimeoutError)


@pytest.mark.parametrize("scheme", ["az", "abfss", "memory", "foo"])
def test_nothing_is_published_where_a_part_could_be_seen(scheme: str) -> None:
    place = at(f"{scheme}://c@account/x" if scheme == "abfss" else f"{scheme}://c/x")

    with pytest.raises(WriteError, match="cannot publish to"):
        publish.check_file(place)
    with pytest.raises(WriteError, match="cannot publish to"):
        publish.replace_pointer(place, "x")


def test_there_must_be_a_bucket_and_a_name_that_is_no_folder(bucket: Bucket) -> None:
    bucket.put("a/x", b"")

    publish.check_file(at(bucket.url("new/name.csv")))
    for url, why in (
        ("s3://no-such-bucket/x", "bucket no-such-bucket does not exist"),
        (bucket.url(), "other objects exist below"),
        (bucket.url("a"), "other objects exist below"),
    ):
        with pytest.raises(WriteError, match=why):
            publish.check_file(at(url))


def test_a_store_of_another_scheme_is_read_through_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra fsspec")
    fsspec.filesystem("memory").pipe_file("/c/a/x.csv", b"1,2\n")

    place = at("memory://c/a/x.csv")

    assert place.read_bytes() == b"1,2\n"
    assert list(list_objects(at("memory://c/a"))) == [place]
