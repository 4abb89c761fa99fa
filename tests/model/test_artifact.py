"""Artifacts: what is packed loads again; whatever is damaged is refused, and no code is run.

The numbers of the rules are those at the top of `artifact`. Damage that a hash would hide is given
right hashes, so that the check behind it is reached.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save

from rnnforecast.config.fields import parse_json
from rnnforecast.config.reading import DataConfig
from rnnforecast.config.training import MAX_MEMBERS, Config, NetworkConfig, TrainConfig
from rnnforecast.data.forecast import Calibration
from rnnforecast.data.limits import Limits
from rnnforecast.errors import ModelError
from rnnforecast.model import artifact as artifacts
from rnnforecast.model.artifact import (
    FORMAT_VERSION,
    Artifact,
    load,
    load_manifest,
)
from rnnforecast.spec import CELLS, MemberSpec, NetworkSpec, expected_shapes
from rnnforecast.storage.durable import publish_directory
from rnnforecast.tables.schema import Schema

MANIFEST, WEIGHTS, SERIES = "manifest.json", "weights.safetensors", "series.parquet"
NAMES = (WEIGHTS, SERIES, "metrics.json", "history.csv")
ALL_NAMES = (*NAMES, MANIFEST)
MEMBERS = (
    MemberSpec("gru", hidden=4, layers=1, segment=2),
    MemberSpec("lstm", hidden=2, layers=2, segment=4, is_trained=False),
)
MEMBER = {"cell": "gru", "hidden": 4, "layers": 1, "segment": 2}
TASK = NetworkSpec(lookback=8, horizon=3, season=4, n_series=2, members=MEMBERS)
NETWORK = NetworkConfig(cell="gru", hidden=4, layers=1, segment=2)

TENSOR = "members.0.blocks.0.expand.weight"

Files = dict[str, bytes]
Change = Callable[[dict[str, Any]], object]


def make_artifact(
    *,
    seed: int = 0,
    spec: NetworkSpec = TASK,
    network: NetworkConfig = NETWORK,
    is_calibrated: bool = True,
) -> Artifact:
    """Make an artifact with random weights, and random moves of its quantiles."""
    rng = np.random.default_rng(seed)
    shapes = expected_shapes(spec)
    return Artifact(
        spec=spec,
        config=Config(
            data=DataConfig(target=("flow", "Höhe"), freq="1h"),
            network=network,
            training=TrainConfig(seed=seed, max_time="2m"),
        ),
        schema=Schema("time", None, ("flow", "Höhe"), step_us=3_600_000_000, tz="Europe/Vienna"),
        names=("flow", f"Höhe\n{seed}"),
        base=(0.0, 1e8 + seed),
        weights={n: rng.normal(size=s).astype(np.float32) for n, s in sorted(shapes.items())},
        metrics={"metrics": {}, "skill": None, "verdict": f"none {seed}"},
        history=f"epoch,loss\n1,0.{seed}5\n",
        trained_until=f"2024-01-0{seed + 1} 00:00:00",
        training_range={"n_rows": 100 + seed, "test_from": None},
        self_test={"tolerance": 0.001, "output": [0.5, -1e-05, float(seed)]},
        provenance={"created": f"2026-01-0{seed + 1}", "warnings": [], "source": "/data/größe.csv"},
        calibration=make_calibration(rng, spec) if is_calibrated else None,
    )


def make_calibration(rng: np.random.Generator, spec: NetworkSpec) -> Calibration:
    """Make one of two groups of leads, with moves that no rounding leaves as they are."""
    by_lead, by_series = (rng.normal(size=(n, 5)).astype(np.float32) for n in (2, spec.n_series))
    return Calibration((1, spec.horizon), by_lead, by_series, n_windows=90, n_stretches=9)


@pytest.fixture(scope="module")
def files() -> Files:
    return make_artifact().pack()


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return tmp_path / "20260101T000000Z-abcdef"


def written(directory: Path, files: Files) -> Path:
    """Write a version as it is, without the checks of publishing."""
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def text_of(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=2) + "\n").encode()


def with_right_hashes(
    files: Files, change: Change = lambda _manifest: None, **content: bytes
) -> Files:
    """Replace files and change the manifest, then make every size and hash right again."""
    names = {"weights": WEIGHTS, "series": SERIES, "metrics": "metrics.json"}
    changed = {**files, **{names[key]: replaced for key, replaced in content.items()}}
    manifest = json.loads(changed[MANIFEST])
    for name in NAMES:
        entry = {"bytes": len(changed[name]), "sha256": digest(changed[name])}
        manifest["files"][name] = entry
    change(manifest)
    manifest.pop("sha256")
    manifest["sha256"] = digest(text_of(manifest))
    return {**changed, MANIFEST: text_of(manifest)}


def refusal(directory: Path) -> ModelError:
    """Load what must be refused; return the error, which must help a user."""
    began = time.process_time()
    with pytest.raises(ModelError) as caught:
        load(directory)
    error = caught.value
    assert time.process_time() - began < 2
    assert error.exit_code == 6
    assert str(directory) in error.message
    assert error.hint
    return error


def assert_same(found: Artifact, expected: Artifact) -> None:
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], weight)
        assert found.weights[name].dtype == np.float32
    assert (found.calibration is None) == (expected.calibration is None)
    if found.calibration is not None:
        assert found.calibration.to_json() == expected.calibration.to_json()
        moves, meant = found.calibration.by_series, expected.calibration.by_series
        assert moves.tobytes() == meant.tobytes()
    assert (found.limits is None) == (expected.limits is None)
    if found.limits is not None:
        assert found.limits.names == expected.limits.names
        np.testing.assert_array_equal(found.limits.low, expected.limits.low)
        np.testing.assert_array_equal(found.limits.high, expected.limits.high)
    plain = {"weights": {}, "calibration": None, "limits": None}
    assert replace(found, **plain) == replace(expected, **plain)


# Round trip


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
def test_what_is_published_loads_as_it_was(version: Path, cell: str, layers: int) -> None:
    member = MemberSpec(cell, hidden=4, layers=layers, segment=2)
    network = replace(NETWORK, cell=cell, layers=layers)
    expected = make_artifact(spec=replace(TASK, members=(member,)), network=network)

    publish_directory(version, expected.pack())

    assert_same(load(version), expected)


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_limits_are_stored_with_the_names_and_leave_other_versions_as_they_were(
    version: Path,
    *,
    is_calibrated: bool,
) -> None:
    without = make_artifact(is_calibrated=is_calibrated)
    limits = Limits(without.names, np.array([0.0, -np.inf]), np.array([np.inf, 100.5]))

    publish_directory(version, replace(without, limits=limits).pack())

    assert_same(load(version), replace(without, limits=limits))
    stored = pa_parquet.read_schema(pa.BufferReader(without.pack()["series.parquet"]))
    assert not {"low", "high"} & set(stored.names)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (np.nan, 0.0), (0.0, np.nan)])
def test_limits_that_are_none_are_refused(version: Path, low: float, high: float) -> None:
    artifact = make_artifact()
    limits = Limits(artifact.names, np.array([0.0, low]), np.array([9.0, high]))

    error = refusal(written(version, replace(artifact, limits=limits).pack()))

    assert "a floor above its ceiling" in error.message


def test_a_version_without_a_calibration_loads_as_it_was(version: Path) -> None:
    expected = make_artifact(is_calibrated=False)

    publish_directory(version, expected.pack())

    assert_same(load(version), expected)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lead_ends", [1, 5], "for another horizon"),
        ("lead_ends", [6, 1], "the groups of leads"),
        ("lead_ends", [], "the groups of leads"),
        ("lead_ends", [0, 6], "the groups of leads"),
        ("lead_ends", [1.0, 6], "in fractions"),
        ("by_lead", [[0.0] * 5], "not for these quantiles"),
        ("by_lead", [[0.0] * 4] * 2, "not for these quantiles"),
        ("by_lead", [[1e39] * 5] * 2, "not finite"),
        ("by_lead", [["a"] * 5] * 2, "does not describe a network"),
        ("n_windows", True, "in fractions"),
        ("method", "another", "the manifest's calibration"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(
    version: Path, files: Files, field: str, value: Any, said: str
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["calibration"][field] = value

    error = refusal(written(version, with_right_hashes(files, change)))

    assert said in error.message


def test_half_a_calibration_is_refused(version: Path, files: Files) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["calibration"] = None

    plain = make_artifact(is_calibrated=False).pack()["series.parquet"]
    for half in (with_right_hashes(files, change), with_right_hashes(files, series=plain)):
        error = refusal(written(version, half))
        assert "only a part of the calibration" in error.message


def test_packing_again_what_was_loaded_gives_the_same_bytes(version: Path, files: Files) -> None:
    assert load(written(version, files)).pack() == files


def test_the_order_in_which_weights_are_given_changes_nothing(files: Files) -> None:
    artifact = make_artifact()
    backwards = dict(sorted(artifact.weights.items(), reverse=True))

    assert replace(artifact, weights=backwards).pack() == files


def test_the_manifest_is_written_last_and_lists_every_other_file(files: Files) -> None:
    manifest = json.loads(files[MANIFEST])

    assert list(files)[-1] == MANIFEST
    assert manifest["files"] == {
        name: {"bytes": len(content), "sha256": digest(content)}
        for name, content in files.items()
        if name != MANIFEST
    }


def test_the_manifest_has_the_fields_that_the_contract_names(files: Files) -> None:
    manifest = json.loads(files[MANIFEST])

    named = (
        "format format_version kind parent config schema season trained_until training_range "
        "calibration self_test provenance files"
    )
    assert set(named.split()) <= manifest.keys()


def test_the_weights_carry_no_metadata(files: Files) -> None:
    length = int.from_bytes(files[WEIGHTS][:8], "little")

    assert "__metadata__" not in json.loads(files[WEIGHTS][8 : 8 + length])


def test_scaling_statistics_do_not_count_as_parameters() -> None:
    artifact = make_artifact()

    everything = sum(weight.size for weight in artifact.weights.values())

    assert artifact.n_parameters == everything - 5 * (TASK.n_series + 1)


def test_hundreds_of_series_come_back_in_their_order(version: Path) -> None:
    spec = replace(TASK, n_series=300)
    expected = replace(
        make_artifact(spec=spec),
        names=tuple(f"s{i % 7}/{i}" for i in range(300)),
        base=tuple(map(float, range(300))),
    )

    loaded = load(written(version, expected.pack()))

    assert loaded.names == expected.names
    assert loaded.base == expected.base


# Rule 1: only the fixed names, regular files, no links


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_missing_file_is_named(version: Path, files: Files, name: str) -> None:
    written(version, files)
    (version / name).unlink()

    assert name in refusal(version).message


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_link_is_refused_even_where_it_leads_to_the_right_content(
    version: Path, files: Files, name: str
) -> None:
    written(version, files)
    (version / name).rename(version.parent / "aside")
    (version / name).symlink_to(version.parent / "aside")

    assert name in refusal(version).message


@pytest.mark.parametrize("name", ALL_NAMES)
def test_what_is_no_regular_file_is_refused_without_waiting(
    version: Path, files: Files, name: str
) -> None:
    written(version, files)
    (version / name).unlink()
    os.mkfifo(version / name)
    assert name in refusal(version).message

    (version / name).unlink()
    (version / name).mkdir()
    assert name in refusal(version).message


def test_a_file_that_cannot_be_read_is_a_refusal(
    version: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    written(version, files)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        error = refusal(version)

    assert "Input/output error" in error.message


def test_other_files_beside_them_are_not_opened(version: Path, files: Files) -> None:
    written(version, files)
    os.mkfifo(version / "report.html")
    (version / "weights.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")

    assert_same(load(version), make_artifact())


def test_names_that_the_manifest_lists_beside_them_are_not_opened(
    version: Path, files: Files
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["../outside"] = {"bytes": 1, "sha256": digest(b"x")}

    assert_same(load(written(version, with_right_hashes(files, change))), make_artifact())


def test_a_folder_without_a_model_is_a_refusal(version: Path) -> None:
    version.mkdir()
    assert MANIFEST in refusal(version).message
    assert MANIFEST in refusal(version / "missing").message


# Rule 2: the manifest is bounded, strict JSON, with known fields and types


BAD_JSON = {
    "empty": b"",
    "no object": b"[1, 2]",
    "a number": b"3",
    "cut short": b'{"a": 1',
    "something behind": b"{} {}",
    "a key twice": b'{"a": 1, "a": 1}',
    "a key twice, deeper": b'{"a": {"b": [{"c": 1, "c": 2}]}}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": [Infinity]}',
    "-Infinity": b'{"a": -Infinity}',
    "a number that overflows": b'{"a": 1e999}',
    "a number of 5000 digits": b'{"a": %s}' % (b"9" * 5000),
    "nested 13 deep": b'{"a":' * 13 + b"1" + b"}" * 13,
    "nested 100,000 deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a comment": b"{} // no",
}


@pytest.mark.parametrize("content", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_json_that_is_not_strict_is_refused(version: Path, files: Files, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(content)

    written(version, {**files, MANIFEST: content})
    assert "manifest" in refusal(version).message

    written(version, with_right_hashes(files, metrics=content))
    refusal(version)


def test_a_manifest_of_a_million_keys_is_refused_before_it_is_hashed(
    version: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_MAX_MANIFEST_KEYS", 60)
    written(version, files)
    load(version)
    content = json.loads(files[MANIFEST])
    content["provenance"] |= {f"k{n}": 1 for n in range(80)}
    written(version, {**files, MANIFEST: json.dumps(content).encode()})
    assert "keys" in refusal(version).message


def test_strict_json_is_read() -> None:
    content = b'{"a": [1, -2.5e3, "x", null, true, {"b": {}}]}'

    assert parse_json(content) == {"a": [1, -2500.0, "x", None, True, {"b": {}}]}


def test_a_manifest_that_is_too_large_is_refused_unread(version: Path, files: Files) -> None:
    written(version, files)
    os.truncate(version / MANIFEST, 1 << 40)

    assert f"{1 << 40} bytes" in refusal(version).message


FIELDS = json.loads(make_artifact().pack()[MANIFEST]).keys()
PARTS = ("spec", "schema", "config", "config.data", "config.window", "config.network")


def part_of(manifest: dict[str, Any], part: str) -> dict[str, Any]:
    for name in part.split(".") if part else ():
        manifest = manifest[name]
    return manifest


@pytest.mark.parametrize("part", ["", *PARTS, "config.training"])
def test_a_field_that_is_not_known_is_named(version: Path, files: Files, part: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        part_of(manifest, part)["run_this"] = "rm"

    error = refusal(written(version, with_right_hashes(files, change)))

    assert "run_this" in error.message or "the manifest's config" in error.message


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_field_that_is_missing_is_refused(version: Path, files: Files, field: str) -> None:
    manifest = json.loads(files[MANIFEST])
    del manifest[field]
    if field != "sha256":
        del manifest["sha256"]
        manifest["sha256"] = digest(text_of(manifest))

    refusal(written(version, {**files, MANIFEST: text_of(manifest)}))


WRONG_TYPES = [
    ("config.network.hidden", 4.0),
    ("config.network.hidden", "4"),
    ("config.network.hidden", True),
    ("config.network.hidden", None),
    ("config.network.cell", ["gru"]),
    ("config.network.cell", "transformer"),
    ("config.training.learning_rate", "0.1"),
    ("config.training.max_time", 5),
    ("config.data.target", "flow"),
    ("config.data.target", [1]),
    ("config.window.horizon", 24),
    ("config.data", []),
    ("config", 7),
    ("spec.lookback", 8.0),
    ("spec.season", False),
    ("spec.members", None),
    ("spec.members", 5),
    ("spec.members", {}),
    ("spec.members", []),
    ("spec.members", [["gru", 4, 1, 2]]),
    ("spec.members", ["gru"]),
    ("spec.members", [{"cell": "gru", "hidden": 4}]),
    ("spec.members", [MEMBER | {"cell": "transformer"}]),
    ("spec.members", [MEMBER | {"cell": None}]),
    ("spec.members", [MEMBER | {"covariates": 0}]),
    ("spec.members", [MEMBER | {"covariates": True}]),
    ("spec.members", [MEMBER | {"is_trained": None}]),
    ("spec.members", [MEMBER | {"segment": 2.0}]),
    ("spec.members", [MEMBER | {"lookback": 8}]),
    ("spec.weights", None),
    ("spec.weights", [1.0]),
    ("spec.weights", [0.5, 0.0]),
    ("spec.weights", [-0.5, 1.5]),
    ("spec.weights", [0.5, 0.6]),
    ("spec.weights", ["0.5", "0.5"]),
    ("spec", ["lookback", "horizon", "season", "n_series", "quantiles"]),
    ("schema.time", 5),
    ("schema.tz", {"zone": "UTC"}),
    ("schema.targets", {"flow": 1}),
    ("trained_until", None),
    ("training_range", []),
    ("provenance", "none"),
    ("parent", 3),
    ("calibration", {"x": 1}),
    ("kind", "pickle"),
    ("season", 5),
    ("format", "torch"),
    ("format_version", "1"),
    ("format_version", True),
    ("format_version", 0),
    ("format_version", 1.0),
    ("self_test.output", []),
    ("self_test.output", 1.0),
    ("self_test.output", [None]),
    ("self_test.output", ["1"]),
    ("self_test.tolerance", "loose"),
    ("self_test", [1]),
    ("files", []),
    ("files.weights\\.safetensors", None),
    ("files.weights\\.safetensors.bytes", -1),
    ("files.weights\\.safetensors.bytes", "10"),
    ("files.weights\\.safetensors.bytes", 1 << 62),
    ("files.weights\\.safetensors.sha256", 5),
]


@pytest.mark.parametrize(("place", "value"), WRONG_TYPES)
def test_a_field_of_another_type_or_value_is_refused(
    version: Path, files: Files, place: str, value: object
) -> None:
    *above, field = [n.replace("\0", ".") for n in place.replace("\\.", "\0").split(".")]

    def change(manifest: dict[str, Any]) -> None:
        for name in above:
            manifest = manifest[name]
        assert field in manifest
        manifest[field] = value

    refusal(written(version, with_right_hashes(files, change)))


def test_a_manifest_that_differs_from_its_own_hash_is_refused(version: Path, files: Files) -> None:
    """A date in it is looked at by no other check."""
    changed = files[MANIFEST].replace(b'"created": "2026-01-01"', b'"created": "2025-01-01"')
    assert changed != files[MANIFEST]

    assert "its hash differs" in refusal(written(version, {**files, MANIFEST: changed})).message


# Rule 3: formats


@pytest.mark.parametrize("format_version", [FORMAT_VERSION + 1, 99])
def test_a_newer_format_is_refused_as_such(
    version: Path, files: Files, format_version: int
) -> None:
    """The rest of it may look like nothing that is known now."""
    manifest = {"format": "rnnforecast-model", "format_version": format_version, "new": {}}

    error = refusal(written(version, {**files, MANIFEST: text_of(manifest)}))

    assert "was written by a newer rnnforecast" in error.message
    assert error.code == "newer-format"
    assert "update" in error.hint


@pytest.mark.parametrize("format_version", range(1, FORMAT_VERSION))
def test_an_older_format_is_refused_as_such(
    version: Path, files: Files, format_version: int
) -> None:
    """Its network is none that this release has, however intact the files are."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["format_version"] = format_version

    error = refusal(written(version, with_right_hashes(files, change)))

    assert f"was written by an earlier rnnforecast (format {format_version})" in error.message
    assert error.code == "older-format"
    assert "train again" in error.hint


# Rule 4: size before hash before parse


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_too_large_is_refused_unread(version: Path, files: Files, name: str) -> None:
    written(version, files)
    os.truncate(version / name, 1 << 40)

    assert f"{name} has {1 << 40} bytes" in refusal(version).message


@pytest.mark.parametrize("name", NAMES)
def test_a_size_that_no_such_file_has_is_refused_although_the_manifest_says_so(
    version: Path, files: Files, name: str
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name]["bytes"] = 1 << 40

    written(version, with_right_hashes(files, change))
    os.truncate(version / name, 1 << 40)

    assert f"{1 << 40} bytes for {name}" in refusal(version).message


@pytest.mark.parametrize("name", NAMES)
def test_a_hash_that_differs_is_found_before_the_content_is_parsed(
    version: Path, files: Files, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*_arguments: object) -> None:
        raise AssertionError("parsed before the hash was checked")

    content = bytes([files[name][0] ^ 1]) + files[name][1:]
    written(version, {**files, name: content})
    for parser in ("unpack_series", "_unpack_weights"):
        monkeypatch.setattr(artifacts, parser, parse)

    assert f"{name} is not what was written" in refusal(version).message


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_file_that_is_cut_short_is_refused(version: Path, files: Files, name: str) -> None:
    written(version, files)
    content = files[name]

    lengths = {0, 1, len(content) // 2, len(content) - 2, *range(0, len(content) - 1, 1024)}
    for length in sorted(length for length in lengths if length >= 0):
        (version / name).write_bytes(content[:length])
        assert name.removesuffix(".json") in refusal(version).message


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_refused_and_the_file_named(
    version: Path, files: Files, name: str
) -> None:
    written(version, files)
    draw = random.Random(name)
    header = range(0, min(len(files[name]), 400), 8)

    for at in [*header, *(draw.randrange(len(files[name])) for _ in range(40))]:
        (version / name).write_bytes(flipped(files[name], at, draw.randrange(8)))
        assert name in refusal(version).message


def test_a_flipped_bit_of_the_manifest_is_refused(version: Path, files: Files) -> None:
    written(version, files)
    content, draw = files[MANIFEST], random.Random(0)

    for at in range(0, len(content) - 1, 5):
        (version / MANIFEST).write_bytes(flipped(content, at, draw.randrange(8)))
        refusal_unless_same_meaning(version, content)


def refusal_unless_same_meaning(version: Path, content: bytes) -> None:
    """`1e-05` and `1E-05`, or `\\u00df` and `\\u00dF`, say the same."""
    try:
        says_the_same = json.loads((version / MANIFEST).read_bytes()) == json.loads(content)
    except ValueError:
        says_the_same = False
    if says_the_same:
        assert_same(load(version), make_artifact())
    else:
        refusal(version)


def flipped(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_file_of_another_version_is_refused(version: Path, files: Files, name: str) -> None:
    other = make_artifact(seed=1).pack()
    assert other[name] != files[name]

    refusal(written(version, {**files, name: other[name]}))


# Rule 5: bounds, names, shapes and types


@pytest.mark.parametrize(
    ("part", "field", "size"),
    [
        (part, field, size)
        for part, field in (
            ("spec", "lookback"),
            ("spec", "horizon"),
            ("spec", "season"),
            ("spec", "n_series"),
            ("config.network", "segment"),
            ("config.network", "hidden"),
            ("config.network", "layers"),
        )
        for size in (0, -1, 10**12)
    ],
)
def test_sizes_out_of_bounds_are_named_before_anything_is_allocated(
    version: Path, files: Files, part: str, field: str, size: int
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        part_of(manifest, part)[field] = size
        manifest["season"] = manifest["spec"]["season"]

    error = refusal(written(version, with_right_hashes(files, change)))

    assert f"{field} is {size}" in error.message


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("hidden", "width of member 1"),
        ("layers", "number of layers of member 1"),
        ("segment", "segment of member 1"),
    ],
)
@pytest.mark.parametrize("size", [0, -1, 10**12])
def test_a_size_of_a_member_that_is_out_of_bounds_is_named(
    version: Path, files: Files, field: str, words: str, size: int
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["spec"]["members"][1][field] = size

    error = refusal(written(version, with_right_hashes(files, change)))

    assert f"{words} is {size}" in error.message


@pytest.mark.parametrize("n_members", [0, MAX_MEMBERS + 1])
def test_a_ensemble_of_none_or_too_many_is_refused(
    version: Path, files: Files, n_members: int
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["spec"]["members"] = manifest["spec"]["members"][:1] * n_members

    error = refusal(written(version, with_right_hashes(files, change)))

    assert f"number of members is {n_members}" in error.message


@pytest.mark.parametrize("n_members", [1, 3])
def test_a_ensemble_that_does_not_fit_the_weights_is_refused(
    version: Path, files: Files, n_members: int
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["spec"]["members"] = (manifest["spec"]["members"] * 2)[:n_members]

    error = refusal(written(version, with_right_hashes(files, change)))

    assert "tensor members." in error.message


@pytest.mark.parametrize("field", ["lookback", "horizon", "season", "n_series"])
def test_sizes_within_bounds_that_do_not_fit_the_weights_are_refused(
    version: Path, files: Files, field: str
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["spec"][field] = 16_000
        manifest["season"] = manifest["spec"]["season"]

    changed = written(version, with_right_hashes(files, change))

    if field in ("lookback", "season"):  # no tensor has their length
        assert getattr(load(changed).spec, field) == 16_000
    else:
        refusal(changed)


def test_a_missing_tensor_is_named(version: Path, files: Files) -> None:
    for name in load_tensors(files[WEIGHTS]):
        tensors = load_tensors(files[WEIGHTS])
        del tensors[name]

        error = refusal(written(version, with_right_hashes(files, weights=save(tensors))))

        assert f"tensor {name} is missing" in error.message


def test_an_extra_tensor_is_named(version: Path, files: Files) -> None:
    tensors = {**load_tensors(files[WEIGHTS]), "evil.weight": np.zeros(2, np.float32)}

    error = refusal(written(version, with_right_hashes(files, weights=save(tensors))))

    assert "tensor evil.weight does not belong" in error.message


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.T.copy(),
        lambda w: w[:-1],
        lambda w: w.ravel(),
        lambda w: w[None],
        lambda w: np.concatenate([w, w]),
        lambda w: w.astype(np.float64),
        lambda w: w.astype(np.float16),
        lambda w: w.astype(np.int32),
        lambda w: w[:0],
    ],
    ids=["turned", "short", "flat", "deep", "twice", "double", "half", "integer", "empty"],
)
def test_a_tensor_of_another_shape_or_type_is_named(
    version: Path, files: Files, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    tensors = load_tensors(files[WEIGHTS])
    tensors[TENSOR] = change(tensors[TENSOR])

    error = refusal(written(version, with_right_hashes(files, weights=save(tensors))))

    assert f"tensor {TENSOR} is" in error.message
    assert "not float32 (8, 4)" in error.message


@pytest.mark.parametrize(
    "quantiles",
    [
        [],
        [0.1, 0.9],
        [0.9, 0.5, 0.1],
        [0.1, 0.5, 0.5, 0.9],
        [0.0, 0.5],
        [0.5, 1.0],
        [-0.1, 0.5],
        [0.5, 7],
        ["0.5"],
        [k / 1000 for k in range(401, 601)],
    ],
)
def test_quantiles_that_are_no_increasing_levels_around_the_median_are_refused(
    version: Path, files: Files, quantiles: list
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["spec"]["quantiles"] = quantiles

    error = refusal(written(version, with_right_hashes(files, change)))

    assert "the quantiles " in error.message or "quantiles is" in error.message


def series_file(
    names: list, column: str = "series", kind: Any = None, base: float | None = 0.0
) -> bytes:
    buffer = pa.BufferOutputStream()
    bases = pa.array([base] * len(names), pa.float64())
    table = pa.table({column: pa.array(names, kind or pa.string()), "offset": bases})
    pa_parquet.write_table(table, buffer)
    return buffer.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "content",
    [
        series_file(["a"]),
        series_file(["a", "b", "c"]),
        series_file(["a", "a"]),
        series_file(["a", None]),
        series_file(["a", "b"], column="name"),
        series_file([1, 2], kind=pa.int64()),
        series_file([b"a", b"\xff"], kind=pa.binary()),
        b"PAR1",
        b"not parquet at all",
        b"",
    ],
    ids=["fewer", "more", "equal", "null", "column", "numbers", "bytes", "magic", "text", "empty"],
)
def test_series_names_that_do_not_fit_are_refused(
    version: Path, files: Files, content: bytes
) -> None:
    error = refusal(written(version, with_right_hashes(files, series=content)))

    assert "series names" in error.message


@pytest.mark.parametrize("base", [None, np.nan, np.inf])
def test_a_base_that_is_no_number_is_refused(version: Path, files: Files, base: Any) -> None:
    content = series_file(["a", "b"], base=base)

    error = refusal(written(version, with_right_hashes(files, series=content)))

    assert "the base of a series is not finite" in error.message


def test_series_names_are_counted_before_they_are_read(
    version: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = series_file(["a", "b", "c"])
    monkeypatch.delattr(pa_parquet.ParquetFile, "read")

    error = refusal(written(version, with_right_hashes(files, series=content)))

    assert "there are 3 series names, not 2" in error.message


def test_a_damaged_parquet_or_safetensors_file_with_a_right_hash_is_refused_or_harmless(
    version: Path, files: Files
) -> None:
    """What the libraries make of it: never an exception of theirs."""
    draw = random.Random(1)
    n_refused = 0
    for name, key in ((SERIES, "series"), (WEIGHTS, "weights")):
        for _ in range(60):
            at = draw.randrange(min(len(files[name]), 600))
            content = flipped(files[name], at, draw.randrange(8))
            written(version, with_right_hashes(files, **{key: content}))
            try:
                load(version)
            except ModelError as error:
                assert error.exit_code == 6
                n_refused += 1
    assert n_refused > 30


# Rule 6: weights are finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_and_its_tensor_named(
    version: Path, files: Files, value: float
) -> None:
    for name in ("center", "members.1.blocks.0.recurrence.linear_hh.bias"):
        tensors = load_tensors(files[WEIGHTS])
        tensors[name][-1] = value

        error = refusal(written(version, with_right_hashes(files, weights=save(tensors))))

        assert f"tensor {name} holds a value that is not finite" in error.message


# Rule 7: the self-test


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_expected_shapes_are_those_of_the_network(cell: str, layers: int) -> None:
    from tests.model.networks import draw_network

    for segment in (1, 2, 5):
        member = MemberSpec(cell, hidden=6, layers=layers, segment=segment)
        members = (*MEMBERS, member, replace(member, covariates=True))
        spec = replace(TASK, members=members, n_known=2, n_past=1, n_static=3)
        shapes = {name: x.shape for name, x in draw_network(spec, NETWORK).tensors().items()}
        assert expected_shapes(spec) == shapes


def trained_artifact() -> Artifact:
    import torch

    from rnnforecast.model.forecaster import RNNForecaster
    from tests.model.networks import draw_network

    torch.manual_seed(0)
    artifact = make_artifact()
    forecaster = RNNForecaster(draw_network(TASK, NETWORK), artifact.names)
    return replace(artifact, weights=forecaster.tensors(), self_test=forecaster.self_test())


def restored(artifact: Artifact) -> object:
    from rnnforecast.model.forecaster import RNNForecaster

    return RNNForecaster.restore(
        artifact.spec,
        artifact.config.network,
        names=artifact.names,
        weights=artifact.weights,
        self_test=artifact.self_test,
    )


def test_a_network_that_was_saved_passes_its_self_test_and_is_the_same(version: Path) -> None:
    expected = trained_artifact()

    loaded = load(written(version, expected.pack()))

    assert restored(loaded).self_test() == expected.self_test  # type: ignore[attr-defined]


def test_weights_that_were_exchanged_fail_the_self_test(version: Path) -> None:
    expected = trained_artifact()
    name = "members.1.head.bias"
    other = {**expected.weights, name: expected.weights[name] + np.float32(0.1)}

    loaded = load(written(version, replace(expected, weights=other).pack()))

    with pytest.raises(ModelError, match="self-test") as caught:
        restored(loaded)
    assert (caught.value.exit_code, caught.value.code) == (6, "self-test")


# Rule 8: no code


IN_FRESH_INTERPRETER = """
import sys
from pathlib import Path
from rnnforecast.errors import ModelError
from rnnforecast.model.artifact import load

WATCHED = {"exec", "pickle.find_class", "os.system", "os.exec", "os.fork", "os.posix_spawn",
           "subprocess.Popen", "ctypes.dlopen", "marshal.loads"}
good, damaged = map(Path, sys.argv[1:])

def load_all():
    load(good)
    for version in sorted(damaged.iterdir()):
        try:
            load(version)
        except ModelError:
            continue
        raise SystemExit(f"{version} was loaded")

load_all()  # imports fire the event "exec"
seen = []
sys.addaudithook(lambda event, _: event in WATCHED and seen.append(event))
load_all()
during = list(seen)
exec("pass")
print(during, seen[len(during):])
"""


def test_loading_runs_no_code(version: Path, files: Files) -> None:
    damaged = version.parent / "damaged"
    damaged.mkdir()
    payload = (
        b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93."
    )
    for number, name in enumerate(ALL_NAMES):
        written(damaged / f"pickle{number}", {**files, name: payload})
    for number, key in enumerate(("weights", "series", "metrics")):
        written(damaged / f"hashed{number}", with_right_hashes(files, **{key: payload}))

    done = subprocess.run(
        [sys.executable, "-c", IN_FRESH_INTERPRETER, written(version, files), damaged],
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "[] ['exec']\n", "")


REFUSED_EARLY = """
import sys
from rnnforecast.cli.main import run
code = run(sys.argv[1:])
print(code, "torch" in sys.modules)
"""


@pytest.mark.parametrize("command", ["show", "predict"])
def test_a_damaged_model_is_refused_within_two_seconds_and_before_torch_is_imported(
    tmp_path: Path, files: Files, command: str
) -> None:
    name = "20260101T000000Z-abcdef"
    (tmp_path / "model" / "versions").mkdir(parents=True)
    written(
        tmp_path / "model" / "versions" / name,
        {**files, WEIGHTS: flipped(files[WEIGHTS], len(files[WEIGHTS]) - 1, 0)},
    )
    (tmp_path / "model" / "CURRENT").write_text(f"{name}\n")

    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", REFUSED_EARLY, command, "--model", "model"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    after = os.times()

    assert done.stdout == "6 False\n"
    assert "its hash differs" in done.stderr
    assert "Traceback" not in done.stderr
    assert after.children_user + after.children_system - sum(before[2:4]) < 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_the_manifest_alone_can_be_read(version: Path, files: Files) -> None:
    written(version, {MANIFEST: files[MANIFEST]})

    assert load_manifest(version)["trained_until"] == "2024-01-01 00:00:00"


@pytest.mark.parametrize(("n_series", "n_bytes"), [(600, 1_000_000), (50, 12_000_000)])
def test_names_that_unpack_to_more_than_names_do_are_refused_first(
    n_series: int, n_bytes: int
) -> None:
    """Some kilobytes of one long name for many series took gigabytes.

    The writer makes a dictionary of the shorter one only.
    """
    names = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(n_series, np.int32)), pa.array(["x" * n_bytes])
    )
    table = pa.table({"series": names, "offset": np.zeros(n_series)})
    buffer = pa.BufferOutputStream()
    pa_parquet.write_table(
        table, buffer, compression="zstd", use_dictionary=["series"], store_schema=False
    )
    content = buffer.getvalue().to_pybytes()
    assert len(content) < 200_000
    with pytest.raises(ValueError, match="unpack"):
        artifacts.unpack_series(content, n_series)
