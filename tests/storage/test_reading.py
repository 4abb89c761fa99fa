"""Reading from a disk and from a store: one interface, with the same answers for both."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rnnforecast.storage.remote import (
    AnyPath,
    as_path,
    etag_of,
    is_in_folder,
    is_remote,
    read_bounded,
    read_json,
    size_of,
)
from tests.objectstore import Bucket

Put = Callable[[str, bytes], AnyPath]


@pytest.fixture(params=["disk", "store"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Put:
    """Write a file, and return where it is."""
    if request.param == "store":
        bucket: Bucket = request.getfixturevalue("bucket")
        return lambda name, content: as_path(bucket.put(name, content))

    def write(name: str, content: bytes) -> AnyPath:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def test_a_file_is_read_alike_from_disk_and_store(put: Put) -> None:
    location = put("a/x", b"content")

    assert size_of(location) == 7
    assert read_bounded(location, 7) == b"content"
    with location.open("rb") as file:
        assert file.read() == b"content"
    assert str(location.absolute()) == str(location)
    location.unlink()
    with pytest.raises(FileNotFoundError):
        size_of(location)


def test_an_etag_changes_with_the_file_and_goes_with_it(put: Put) -> None:
    location = put("a/x", b"1")
    before = etag_of(location)

    assert before is not None
    assert etag_of(location) == before
    location.unlink()
    assert etag_of(location) is None
    assert etag_of(put("a/x", b"22")) not in (None, before)


def test_what_is_too_large_or_missing_is_a_value_error(put: Put) -> None:
    location = put("a/x", b"content")

    with pytest.raises(ValueError, match="x has 7 bytes; at most 6"):
        read_bounded(location, 6)
    with pytest.raises(ValueError, match="cannot read none"):
        read_bounded(location.parent / "none", 6)


def test_a_file_lies_in_its_folder_and_in_no_folder_of_another_kind(
    put: Put, tmp_path: Path
) -> None:
    location = put("a/x", b"1")

    assert is_in_folder(location, location)
    assert is_in_folder(location, location.parent)
    assert not is_in_folder(location, location.parent / "b")
    strange = tmp_path if is_remote(location) else as_path("s3://b")
    assert not is_in_folder(location, strange)
    assert not is_in_folder(strange, location)


def test_links_lead_into_the_folder_in_which_their_target_lies(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")

    assert is_in_folder(tmp_path / "link" / "x", tmp_path / "a")


def test_a_json_object_comes_back_as_it_was_written(put: Put) -> None:
    payload = {"format": "manifest", "files": [1, 2], "name": "größe"}
    location = put("a/manifest.json", json.dumps(payload).encode())

    assert read_json(location) == payload
    assert read_json(location, expected_format="manifest") == payload
    with pytest.raises(ValueError, match="format is not 'other'"):
        read_json(location, expected_format="other")
    with pytest.raises(ValueError, match="at most 10"):
        read_json(location, max_bytes=10)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b"null", b"1", b"[" * 100_000, b'{"a": ' * 100_000]
)
def test_what_is_no_json_object_is_a_value_error(put: Put, content: bytes) -> None:
    with pytest.raises(ValueError):
        read_json(put("a/x.json", content))


def test_a_json_file_that_cannot_be_read_is_an_error_of_the_system(put: Put) -> None:
    location = put("a/x.json", b"{}")

    with pytest.raises(FileNotFoundError):
        read_json(location.parent / "none.json")


def test_a_larger_json_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.touch()
    os.truncate(path, 1 << 40)

    with pytest.raises(ValueError, match="at most"):
        read_json(path)
