"""Publishing on an object store that is killed: what CURRENT names is always whole, and loads."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rnnforecast.errors import ModelError
from rnnforecast.storage import versions
from rnnforecast.storage.durable import CRASH_VARIABLE
from rnnforecast.storage.remote import as_path
from rnnforecast.workflow.model import load
from tests.conftest import SMALL
from tests.faults.counting import tell
from tests.faults.warm import Done, Warm
from tests.objectstore import Bucket
from tests.thorough import often

KILLED = -signal.SIGKILL
LABELS = ("file-written", "file-published", "part-written", "directory-named")


@pytest.fixture
def place(bucket: Bucket, trained: Path, warm: Warm) -> Bucket:
    """A bucket with readings, a model that is active, and somebody else's object."""
    warm.import_too("torch._dynamo")  # as the first step of a training does
    bucket.put("data.csv", trained / "data.csv")
    bucket.put("model", trained / "model")
    bucket.put("model/notes.txt", b"not ours")
    return bucket


def train(warm: Warm, place: Bucket, folder: Path, **env: str) -> Done:
    words = ("train", place.url("data.csv"), "-m", place.url("model"), "-q", *SMALL, "--steps", "3")
    return warm.run(*words, cwd=folder, env={**place.env, **env})


def check(place: Bucket, before: dict[str, bytes]) -> str:
    """What is active loads, and nothing that was there has changed but CURRENT."""
    now = place.all()
    assert {k: v for k, v in now.items() if k in before and k != "model/CURRENT"} == {
        k: v for k, v in before.items() if k != "model/CURRENT"
    }
    return str(load(place.url("model")).version)


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
def test_a_kill_while_a_version_is_published_leaves_the_old_or_the_new_one_active(
    label: str, place: Bucket, warm: Warm, tmp_path: Path
) -> None:
    """Kill at the first passage of a label, the second, ..., until a training comes through."""
    before, passage = place.all(), 0
    first, at = check(place, before), as_path(place.url("model"))
    seen = [first]

    while (done := train(warm, place, tmp_path, **{CRASH_VARIABLE: f"{label}:{passage + 1}"})).code:
        assert done.code == KILLED, done.err
        passage += 1
        seen.append(check(place, before))
        for name in versions.list_versions(at):
            load(place.url("model"), version=name)

    # A training writes five objects and CURRENT; only after that is the new version active
    assert passage >= {"directory-named": 1, "part-written": 5}.get(label, 6)
    assert set(seen[:-1]) == {first}
    assert (seen[-1] != first) == (label == "file-published")
    assert check(place, before) not in seen
    tell(16, f"killed at {label} of a training on a store", kills=passage, violations=0)


@contextmanager
def readers(place: Bucket, seen: list[str], wrong: list[str]) -> Iterator[None]:
    """Load what is active, again and again, while the block runs."""
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                seen.append(str(load(place.url("model")).version))
            except ModelError as error:
                wrong.append(error.message)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.slow
def test_kills_at_random_moments_are_seen_by_no_reader(
    place: Bucket, warm: Warm, tmp_path: Path
) -> None:
    duration = train(warm, place, tmp_path).seconds
    before, chance = place.all(), random.Random(5)
    seen: list[str] = []
    wrong: list[str] = []
    n_killed = 0

    with readers(place, seen, wrong):
        for _ in range(often(6)):
            words = ("train", place.url("data.csv"), "-m", place.url("model"), "-q", *SMALL)
            running = warm.start(*words, "--steps", "3", cwd=tmp_path, env=place.env)
            time.sleep(chance.uniform(0.2, 1.1) * duration)
            running.kill()
            n_killed += running.wait().code == KILLED
            check(place, before)

    assert wrong == []
    assert n_killed
    assert train(warm, place, tmp_path).code == 0
    assert set(seen) <= set(versions.list_versions(as_path(place.url("model"))))
    tell(16, "killed at random moments", kills=n_killed, reads=len(seen), violations=len(wrong))


@pytest.mark.slow
def test_of_two_who_train_at_once_one_is_active_and_both_are_whole(
    place: Bucket, warm: Warm, tmp_path: Path
) -> None:
    """There is no lock: the last one wins."""
    before = place.all()
    words = ("train", place.url("data.csv"), "-m", place.url("model"), "-q", *SMALL)
    running = [
        warm.start(*words, "--steps", "3", "--seed", seed, cwd=tmp_path, env=place.env)
        for seed in (1, 2)
    ]
    assert [one.wait().code for one in running] == [0, 0]

    names = versions.list_versions(as_path(place.url("model")))
    assert len(names) == 3
    assert check(place, before) in names[1:]
    for name in names:
        load(place.url("model"), version=name)


@pytest.mark.slow
@pytest.mark.parametrize("label", ["file-created", "file-written", "file-published"])
def test_a_kill_while_a_forecast_is_published_leaves_the_old_or_the_new_one(
    label: str, place: Bucket, warm: Warm, tmp_path: Path
) -> None:
    words = (
        "predict",
        place.url("data.csv"),
        "-m",
        place.url("model"),
        "-q",
        "-o",
        place.url("f.csv"),
    )
    assert warm.run(*words, cwd=tmp_path, env=place.env).code == 0
    new = place.get("f.csv")
    place.put("f.csv", b"old")

    done = warm.run(*words, cwd=tmp_path, env={**place.env, CRASH_VARIABLE: f"{label}:1"})

    assert done.code == KILLED
    assert place.get("f.csv") == (new if label == "file-published" else b"old")
    assert warm.run(*words, cwd=tmp_path, env=place.env).code == 0
    assert place.get("f.csv") == new
    assert sorted(tmp_path.iterdir()) == []
