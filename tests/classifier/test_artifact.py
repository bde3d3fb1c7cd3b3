from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest

from router import ArtifactCorrupt, ArtifactNotFound, Router
from router.classifier import artifact
from router.classifier.model import Classifier
from router.types import Tier


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A writable copy of the shipped artifact's runtime files."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("manifest.json", *artifact.RUNTIME_FILES):
        shutil.copy(artifact.find() / name, folder)
    return folder


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_shipped_artifact_is_whole() -> None:
    loaded = artifact.load()
    assert loaded.manifest.tiers == tuple(Tier)
    assert set(loaded.manifest.operating_points) == {"economy", "balanced", "quality"}
    for name, entry in loaded.manifest.files.items():
        assert artifact.entry((loaded.path / name).read_bytes()) == entry, name
    assert sum(entry.bytes for entry in loaded.manifest.files.values()) < 30e6
    assert {str(line["licence"]) for line in loaded.manifest.training_data}


def test_loads_by_path_and_says_the_same(copy: Path) -> None:
    text = "Compare two insurance policies"
    decision = Router.load(copy).decide(text)
    assert decision.artifact == copy.name
    assert msgspec.structs.replace(decision, artifact=artifact.SHIPPED) == Router.load().decide(text)


def test_missing_artifact_names_where_it_looked() -> None:
    with pytest.raises(ArtifactNotFound, match=r"no artifact 'nope-v9'.*models"):
        artifact.load("nope-v9")


def test_working_directory_cannot_shadow_the_shipped_artifact(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy.rename(copy.parent / artifact.SHIPPED)
    monkeypatch.chdir(copy.parent)
    assert artifact.find() != Path(artifact.SHIPPED)


@pytest.mark.parametrize("name", artifact.RUNTIME_FILES)
def test_changed_byte_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ArtifactCorrupt, match=rf"{name}.*manifest says"):
        artifact.load(copy)


@pytest.mark.parametrize("name", artifact.RUNTIME_FILES)
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ArtifactNotFound, match=name):
        artifact.load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2, this version reads 3; retrain or rebuild the artifact with this"),
        ({"tiers": ["complex", "simple", "moderate"]}, "expected"),
        ({"tiers": ["tiny"]}, "tiny"),
        ({"files": {}}, "no valid sha256"),
        ({"operating_points": 7}, "operating_points"),
    ],
)
def test_wrong_manifest(copy: Path, changes: dict[str, object], message: str) -> None:
    edit(copy, **changes)
    with pytest.raises(ArtifactCorrupt, match=message):
        artifact.load(copy)


def test_operating_point_without_a_threshold(copy: Path) -> None:
    points = json.loads((copy / "manifest.json").read_text())["operating_points"]
    del points["economy"]["thresholds"]["simple"]
    edit(copy, operating_points=points)
    with pytest.raises(ArtifactCorrupt, match=r"economy.*simple"):
        artifact.load(copy)


def test_malformed_manifest(copy: Path) -> None:
    (copy / "manifest.json").write_text("{")
    with pytest.raises(ArtifactCorrupt, match=r"manifest\.json"):
        artifact.load(copy)


@pytest.mark.parametrize("name", artifact.RUNTIME_FILES)
def test_file_that_is_right_by_hash_but_not_by_content(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"not what it should be")
    files = json.loads((copy / "manifest.json").read_text())["files"]
    entry = artifact.entry(b"not what it should be")
    edit(copy, files=files | {name: {"sha256": entry.sha256, "bytes": entry.bytes}})
    with pytest.raises(ArtifactCorrupt, match=name):
        Router.load(copy)


def test_structural_inputs_of_another_version(copy: Path) -> None:
    inputs = json.loads((copy / "manifest.json").read_text())["inputs"]
    inputs["structure"]["names"] = ["log_chars"]
    edit(copy, inputs=inputs)
    with pytest.raises(ArtifactCorrupt, match="structural inputs"):
        Router.load(copy)


def test_tokenizer_of_another_graph(copy: Path) -> None:
    inputs = json.loads((copy / "manifest.json").read_text())["inputs"]
    inputs["ids"]["pad_id"] = 7
    edit(copy, inputs=inputs)
    with pytest.raises(ArtifactCorrupt, match=r"pad_id is 7, expected \d+, the number of pieces in tokenizer.model"):
        Router.load(copy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_novelty": -0.1}, "max_novelty is -0.1, expected 0 to 1"),
        ({"window": {"head_chars": -1, "tail_chars": 10}}, "no negative size"),
        ({"operating_points": 1.5}, "the threshold of simple is 1.5, expected 0 to 1"),
        ({"operating_points": -0.5}, "the threshold of simple is -0.5, expected 0 to 1"),
    ],
)
def test_numbers_that_nobody_meant_are_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    folder = shutil.copytree(artifact.find(), tmp_path / "wrong-v1")
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, value in change.items():
        if name == "operating_points":
            manifest[name]["economy"]["thresholds"]["simple"] = value
        else:
            manifest[name] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactCorrupt, match=says):
        artifact.load(folder)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(artifact.find(), tmp_path / "outside-v1")
    graph = onnx.load(folder / "model.onnx")
    onnx.save(graph, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "model.onnx").read_bytes()
    manifest["files"]["model.onnx"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactCorrupt, match="keeps weights in other files"):
        Classifier(artifact.load(folder))
