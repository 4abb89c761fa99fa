"""The model directory on an object store: what counts, what does not, and what is taken away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rnnforecast.errors import ModelError, UsageError
from rnnforecast.events import Event, WarningEvent
from rnnforecast.storage.lock import acquire
from rnnforecast.storage.remote import AnyPath, as_path
from rnnforecast.storage.versions import (
    CURRENT,
    LOCK,
    activate_version,
    active_version,
    list_versions,
    publish_version,
    remove_leftovers,
    resolve_version,
)
from tests.objectstore import Bucket

NOW = datetime.now(UTC)
FILES = {"weights.safetensors": b"w", "manifest.json": b"{}"}


@pytest.fixture
def model(bucket: Bucket) -> AnyPath:
    return as_path(bucket.url("a folder/model"))


def publish(model: AnyPath, content: bytes = b"w") -> str:
    return publish_version(model, {**FILES, "weights.safetensors": content}, now=NOW)


def test_a_version_is_active_once_current_names_it(model: AnyPath, bucket: Bucket) -> None:
    first, second = publish(model), publish(model, b"2")

    assert list_versions(model) == sorted([first, second])
    assert active_version(model) is None
    with pytest.raises(ModelError, match=r"no version of .* is active"):
        resolve_version(model)
    activate_version(model, first)

    assert resolve_version(model).name == active_version(model) == first
    assert resolve_version(model, second).name == second
    assert bucket.get(f"a folder/model/{CURRENT}") == f"{first}\n".encode()


def test_a_version_without_its_manifest_does_not_count(model: AnyPath, bucket: Bucket) -> None:
    name = publish(model)
    activate_version(model, name)
    half = f"{NOW:%Y%m%dT%H%M%SZ}-0123ab"
    bucket.put(f"a folder/model/versions/{half}/weights.safetensors", b"w")

    assert list_versions(model) == [name]
    with pytest.raises(ModelError, match="has no version"):
        resolve_version(model, half)


def test_only_what_was_left_a_day_ago_is_taken_away(model: AnyPath, bucket: Bucket) -> None:
    """There is no lock that says whether somebody still writes it."""
    activate_version(model, publish(model))
    kept = bucket.all()
    recent, old = (f"{NOW - timedelta(hours=h):%Y%m%dT%H%M%SZ}-0123ab" for h in (23, 25))
    for name in (recent, old):
        bucket.put(f"a folder/model/versions/{name}/weights.safetensors", b"w")
    bucket.put("a folder/model/versions/20200101T000000Z-aaaaaa/manifest.json", b"{}")
    bucket.put("a folder/model/versions/notes.txt", b"not ours")

    remove_leftovers(model)

    left = {key for key in bucket.all() if not key.endswith("/")} - kept.keys()
    assert left == {
        f"a folder/model/versions/{recent}/weights.safetensors",
        "a folder/model/versions/20200101T000000Z-aaaaaa/manifest.json",
        "a folder/model/versions/notes.txt",
    }


def test_a_store_has_no_lock(model: AnyPath, bucket: Bucket) -> None:
    with acquire(model / ".lock"), acquire(model / ".lock"):
        pass

    assert bucket.names() == []


def test_what_is_no_model_is_said(bucket: Bucket, model: AnyPath) -> None:
    for url in (bucket.url("none"), "s3://no-such-bucket/model"):
        with pytest.raises(ModelError, match="no model found in 's3://") as found:
            resolve_version(as_path(url))
        assert found.value.exit_code == 6
    publish(model)
    with pytest.raises(UsageError, match="is not a version name"):
        resolve_version(model, "../../other")
    bucket.put(f"a folder/model/{CURRENT}", b"../../other\n")
    with pytest.raises(ModelError, match="does not contain a version name"):
        resolve_version(model)


def test_a_store_that_does_not_answer_is_no_missing_model() -> None:
    unknown = as_path("foo://bucket/model")

    with pytest.raises(ModelError, match="unknown store") as found:
        resolve_version(unknown)
    assert found.value.code == "unreachable-model"


def test_whoever_writes_to_a_store_hears_that_it_has_no_lock(
    model: AnyPath, tmp_path: Path
) -> None:
    heard: list[Event] = []
    for path in (model / LOCK, tmp_path / LOCK):
        with acquire(path, listener=heard.append):
            pass
    (warning,) = heard
    assert isinstance(warning, WarningEvent)
    assert (warning.code, str(model) in warning.message) == ("no-lock", True)
