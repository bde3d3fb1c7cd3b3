"""The whole build, from corpora to an artifact that the runtime loads, on a small stand-in for the corpora."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from router import ArtifactNotFound, Router, Tier
from router.classifier import artifact
from router.classifier.model import Classifier
from tests.classifier.encoders import write_encoder
from tests.training.corpora import write_corpora
from training.build import corpora, export, training_set


def train(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=corpora.ROOT)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, out = tmp_path_factory.mktemp("corpora"), tmp_path_factory.mktemp("models")
    write_corpora(folder)
    command = ["build", "--corpora", str(folder), "--out", str(out), "--name", "test", "--version", "3"]
    done = train(*command, "--base", str(artifact.find()), "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parity"] <= export.PARITY
    assert [path.name for path in out.iterdir()] == ["test-v3"]  # nothing half-done is left beside it
    return out / "test-v3"


def test_build_gives_an_artifact_that_routes(built: Path) -> None:
    router = Router.load(built)
    assert (
        router.decide("hi").p_suffices[Tier.SIMPLE] > router.decide("Prove it for all primes").p_suffices[Tier.SIMPLE]
    )
    manifest = artifact.load(built).manifest
    assert (manifest.name, manifest.version) == ("test", 3)
    assert {"bfcl_v1", "mmlu_pro", "llmrouter_uiuc", "zeroeval"} == set(
        manifest.metrics["leave_one_out"]["datasets"]  # type: ignore[index]
    )
    assert [line["source"] for line in manifest.training_data] == list(training_set.ROW_WEIGHT)


def test_card_shows_the_manifests_figures(built: Path) -> None:
    card = (built / "README.md").read_text("utf-8")
    for point in artifact.load(built).manifest.operating_points.values():
        assert f"{point.achieved:.1%}" in card
    assert "prompt length" in card


def test_unfolded_part_is_what_was_folded(built: Path) -> None:
    texts = ["a short one", "日本語", "long " * 3000]
    reference, _ = export.read_unfolded(built).predict(texts)
    runtime = Classifier(artifact.load(built))
    assert np.abs(reference - [runtime.predict(text).p_suffices for text in texts]).max() <= export.PARITY


def test_evaluate_prints_json_and_tables(built: Path, tmp_path: Path) -> None:
    write_corpora(tmp_path)
    done = train("evaluate", "--corpora", str(tmp_path), "--model", str(built), "--leave-one-out", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["mean_apgr"]) == {"model", "length", "random"}
    assert set(report["real_requests"]) == {"all", "arena_cje", "oasst_en"}
    assert report["real_requests"]["all"]["model"]["auc"] > 0.9
    on_real = report["points_on_real_requests"]
    assert on_real["always complex"] == {"below": 0.0, "interval": [0.0, 0.0], "cost": 1.0, "shares": [0.0, 0.0, 1.0]}
    assert on_real["always simple"]["below"] == pytest.approx(1 - (0.4 + 0.95) / 2, abs=1e-3)
    assert on_real["quality"]["cost"] >= on_real["economy"]["cost"]
    assert report["labelled"]["support_messages"]["n"] == 120
    assert "de" in report["labelled"]["tierwise_queries"]["confusion_by_language"]
    assert set(report["prompts"]["bfcl_v1"]["shares"]) == {"economy", "balanced", "quality"}
    done = train("evaluate", "--corpora", str(tmp_path), "--model", str(built), "--real", "--json")
    assert json.loads(done.stdout) == {key: report[key] for key in ("real_requests", "points_on_real_requests")}
    done = train("evaluate", "--corpora", str(tmp_path), "--model", str(built))
    assert "mmlu_pro" in done.stdout
    assert "cases hold" in done.stdout


def test_an_encoder_cannot_be_refitted_and_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFound, match=r"has no training/unfolded.safetensors.*give complexity-v"):
        export.read_unfolded(write_encoder(tmp_path / "encoder-v1"))


def test_learn_curve_prints_sizes(built: Path, tmp_path: Path) -> None:
    write_corpora(tmp_path)
    done = train("learn-curve", "--corpora", str(tmp_path), "--model", str(built), "--sizes", "0,x")
    assert done.returncode == 2
    assert "'0,x': expected numbers of rows" in done.stderr
    done = train("learn-curve", "--corpora", str(tmp_path), "--model", str(built), "--sizes", "0,10", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["datasets"]) == {"bfcl_v1", "mmlu_pro", "llmrouter_uiuc", "zeroeval"}


@pytest.mark.parametrize("command", ["build", "evaluate", "learn-curve", "out-of-fold"])
def test_corpora_must_be_given(command: str) -> None:
    done = train(command)
    assert done.returncode == 2
    assert "give the corpora with --corpora DIR: a folder with prompts.parquet" in done.stderr
    assert "docs/training.md" in done.stderr


def test_a_folder_without_them_is_named(tmp_path: Path) -> None:
    done = train("build", "--corpora", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path}/prompts.parquet is not there" in done.stderr
    assert "Traceback" not in done.stderr
