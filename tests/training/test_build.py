"""The whole build, from corpora to an artifact that the runtime loads, on a small stand-in for the corpora."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from router import Router, Tier, artifact
from router.classifier import Classifier
from tests.training.corpora import write_corpora
from training import curve, dataset, export


def train(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=dataset.ROOT)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpora, out = tmp_path_factory.mktemp("corpora"), tmp_path_factory.mktemp("models")
    write_corpora(corpora)
    done = train("build", "--corpora", str(corpora), "--out", str(out), "--name", "test", "--version", "3")
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
    assert [line["source"] for line in manifest.training_data] == list(dataset.SOURCE_WEIGHT)


def test_card_shows_the_manifests_figures(built: Path) -> None:
    card = (built / "README.md").read_text("utf-8")
    for point in artifact.load(built).manifest.operating_points.values():
        assert f"{point.achieved:.1%}" in card
    assert "prompt length" in card


def test_unfolded_part_is_what_was_folded(built: Path) -> None:
    embedding, model = export.read_unfolded(built)
    texts = ["a short one", "", "日本語", "long " * 3000]
    runtime = Classifier(artifact.load(built))
    folded = np.array([runtime.predict(text).p_suffices for text in texts])
    assert np.abs(model.p_suffices(embedding.features(texts)) - folded).max() <= export.PARITY


def test_evaluate_prints_json_and_a_table(built: Path, tmp_path: Path) -> None:
    write_corpora(tmp_path)
    done = train("evaluate", "--corpora", str(tmp_path), "--model", str(built), "--leave-one-out", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["mean_apgr"]) == {"model", "length", "random"}
    done = train("evaluate", "--corpora", str(tmp_path), "--model", str(built))
    assert "mmlu_pro" in done.stdout


def test_learn_curve_rises_where_words_tell(built: Path) -> None:
    embedding, model = export.read_unfolded(built)
    chance = np.random.default_rng(0)
    hard = chance.random(500) < 0.5
    words = [f"{'derive' if h else 'name'} item{n} of lot{n % 37}" for n, h in enumerate(hard)]
    outcomes = dataset.Outcomes("words", words, np.zeros(500), hard * chance.uniform(0.5, 1, 500))
    report = curve.learning_curve([outcomes], embedding, model, sizes=(20, 150, 400), n_seeds=2)
    scores = report["datasets"]["words"]
    assert list(scores) == ["20", "150"]  # 400 would leave fewer than 300 rows to score
    assert scores["150"]["apgr"] > 0.7
    assert scores["150"]["standard_error"] < 0.05


def test_missing_corpora_exit_two(tmp_path: Path) -> None:
    done = train("build", "--corpora", str(tmp_path))
    assert done.returncode == 2
    assert "--corpora DIR" in done.stderr
    assert "Traceback" not in done.stderr
