"""An artifact that reads tokens in order, and one that asks it only where a small one is not sure."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from router import ArtifactCorrupt, ArtifactNotFound, Router, Tier
from router.classifier import artifact, model
from tests.classifier.encoders import PAD, write_cascade, write_encoder
from training.build import corpora

LARGE = corpora.ROOT / "deploy" / "large"
TEXTS = [text for text in corpora.queries()["text"].tolist() if text.isascii()][:60]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "encoder-v1")


def test_tokens_are_read_in_their_order_and_bounded(large: Path) -> None:
    classifier = model.Classifier(artifact.load(large))
    ids = classifier.encoder.encode("what time is it what time is it what time is it prove it").ids.tolist()
    assert ids[0] == PAD + 1
    assert ids[-1] == PAD + 2
    assert len(ids) == 8 + 4 + 2
    assert ids[1:5] == ids[5:9]  # a word that comes again is read again
    assert classifier.encoder.encode("").ids.size == 0
    assert classifier.predict("what is it").p_suffices != classifier.predict("it is what").p_suffices


def test_a_text_without_tokens_is_novel(large: Path) -> None:
    classifier = model.Classifier(artifact.load(large))
    assert classifier.predict(" ").novelty == 1.0


def test_batches_agree_with_single_texts(large: Path) -> None:
    classifier = model.Classifier(artifact.load(large))
    single = np.array([classifier.predict(text).p_suffices for text in TEXTS])
    assert np.abs(classifier.predict_batch(TEXTS) - single).max() < 0.02  # activations are quantised by batch


def test_a_cascade_asks_the_large_one_where_the_small_one_is_not_sure(large: Path) -> None:
    small = artifact.find()
    q = model.Classifier(artifact.load(small)).predict_batch(TEXTS)[:, 0]
    low, high = (float(edge) for edge in np.quantile(q, (0.3, 0.6)))
    folder = write_cascade(large.parent / "cascade-v1", small, large, low, high)
    cascade = model.of(artifact.load(folder))
    alone = [model.Classifier(artifact.load(part)) for part in (small, large)]
    asked = 0
    for text, p_simple in zip(TEXTS, q, strict=True):
        unsure = low <= p_simple < high
        asked += unsure
        expected = alone[int(unsure)].predict(text).p_suffices
        assert cascade.predict(text).p_suffices == expected
        assert cascade.predict(text).novelty == alone[0].predict(text).novelty
    assert asked == pytest.approx(0.3 * len(TEXTS), abs=2)
    single = np.array([cascade.predict(text).p_suffices for text in TEXTS])
    assert np.abs(cascade.predict_batch(TEXTS) - single).max() < 0.02


def test_both_words_count_by_weight_and_other_scripts_are_the_small_ones(large: Path) -> None:
    small = artifact.find()
    parts = [model.Classifier(artifact.load(part)) for part in (small, large)]
    cascade = model.of(artifact.load(write_cascade(large.parent / "cascade-v4", small, large, 0.0, 1.01, 0.25)))
    p, q = (part.predict("what time is it").p_suffices for part in parts)
    mean = [0.75 * a + 0.25 * b for a, b in zip(p, q, strict=True)]
    assert cascade.predict("what time is it").p_suffices == pytest.approx(mean)
    assert cascade.predict("今何時ですか").p_suffices == parts[0].predict("今何時ですか").p_suffices
    assert cascade.predict_batch(["what time is it", "今何時ですか"])[1] == pytest.approx(
        parts[0].predict("今何時ですか").p_suffices
    )


def test_a_router_takes_either(large: Path) -> None:
    folder = write_cascade(large.parent / "cascade-v2", artifact.find(), large, 0.0, 1.01)
    for path in (large, folder):
        decision = Router.load(path).decide("what time is it")
        assert decision.artifact == path.name
        assert set(decision.p_suffices) == set(Tier)


def test_a_cascade_of_other_parts_is_refused(large: Path) -> None:
    folder = write_cascade(large.parent / "cascade-v3", artifact.find(), large, 0.0, 1.0)
    manifest = folder / "manifest.json"
    sha256 = artifact.load(folder).manifest.cascade.large_sha256  # type: ignore[union-attr]
    manifest.write_text(manifest.read_text("utf-8").replace(sha256, "0" * 64))
    with pytest.raises(ArtifactCorrupt, match=r"encoder-v1 of manifest sha256 0{12}.*build the cascade again"):
        artifact.load(folder)


@pytest.mark.parametrize("name", ["large", "cascade"])
def test_the_shipped_ones_decide(name: str) -> None:
    router = Router.load(name)
    hard = "Prove that every bounded harmonic function on the plane is constant, without Liouville's theorem."
    easy = "what's the capital of canada"
    p_hard, p_easy = (router.decide(text).p_suffices[Tier.SIMPLE] for text in (hard, easy))
    assert p_hard < 0.7 < 0.9 < p_easy
    for point in ("economy", "balanced", "quality"):
        assert router.decide(hard, operating_point=point).tier is not Tier.SIMPLE


def test_the_shipped_cascade_asks_about_half_of_real_requests() -> None:
    cascade = artifact.load("cascade").manifest
    assert cascade.cascade is not None
    assert 0.45 <= cascade.metrics["asked"] <= 0.55  # type: ignore[operator]
    small, large = (part.path.name for part in artifact.load("large").parts)
    assert (small, large) == (artifact.SHIPPED, cascade.cascade.large)


def test_the_package_of_the_large_ones_names_what_is_there() -> None:
    project = tomllib.loads((LARGE / "pyproject.toml").read_text("utf-8"))
    sources = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {Path(source).name for source in sources} >= set(artifact.OPTIONAL.values())
    assert all((LARGE / source / "manifest.json").is_file() for source in sources)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "_SHIPPED_FOLDERS", ())
    with pytest.raises(ArtifactNotFound, match=r"'cascade': it is in the package tierwise-large"):
        artifact.find("cascade")
