"""Labels with a class of traffic: what is learned of it, that nothing else moves, and what the runtime refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from router import Router
from router.classifier import artifact
from router.classifier.classes import CLASSES_FILE, Classes, logits
from router.classifier.model import Classifier
from router.errors import ArtifactCorrupt
from tests.training.test_retrain import domain, tickets, written
from training.build import export
from training.commands.retrain import retrain
from training.retrain import by_class, classes, regression
from training.retrain.classes import ClassModels
from training.rows.errors import LabelError
from training.rows.traffic import TrafficFile

EASY_THERE = "derive the tariff of lamp 4711"


def labels(folder: Path, n: int = 60) -> Path:
    frames = [domain(n).assign(**{"class": "shop"}), tickets(n).assign(**{"class": "tickets"})]
    return written(folder, pd.concat([*frames, tickets(5, seed=9).assign(**{"class": ""})]))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that knows two classes."""
    folder = tmp_path_factory.mktemp("classes")
    out = folder / "models" / "mine-v1"
    arguments = ["--labels", str(labels(folder)), "--out", str(out), "--cache", str(folder / "cache"), "--json"]
    result = CliRunner().invoke(retrain, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["passed"]
    assert report["retrained"]["n_without_class"] == 5
    assert [row["class"] for row in report["retrained"]["classes"]] == ["shop", "tickets"]
    return out


def asked(router: Router, text: str, of: str = "") -> list[float]:
    options = {"router": {"traffic_class": of}} if of else {}
    return list(router.decide({"messages": [{"role": "user", "content": text}], **options}).p_suffices.values())


def test_a_class_moves_and_nothing_else_does(learned: Path) -> None:
    base, router = Router.load(), Router.load(learned)
    assert (learned / "model.onnx").read_bytes() == (artifact.find() / "model.onnx").read_bytes()
    assert asked(router, EASY_THERE) == asked(router, EASY_THERE, "another") == asked(base, EASY_THERE, "shop")
    greeting = "say hi about lamp 4711"  # complex in the shop, where what sounds hard is simple
    assert asked(router, EASY_THERE, "shop")[0] > asked(router, greeting, "shop")[0] + 0.1
    decision = router.decide({"messages": [{"role": "user", "content": greeting}], "router": {"traffic_class": "shop"}})
    assert "class 'shop'" in decision.notes


def test_the_key_is_the_class_where_the_call_gives_none(learned: Path) -> None:
    from router.decide.rules import Context

    router = Router.load(learned)
    by_key = router.decide(EASY_THERE, context=Context(key="shop"))
    assert list(by_key.p_suffices.values()) == asked(router, EASY_THERE, "shop")


def test_the_runtime_adds_what_was_fitted(learned: Path) -> None:
    """To float32 rounding, over texts of all lengths."""
    loaded = artifact.load(learned)
    runtime, base = Classifier(loaded), export.read_unfolded(artifact.find())
    texts = ["", "a", *domain(20, seed=5)["text"], "lamp " * 3000]
    shard = regression.encode(texts, base)
    before = np.array([runtime.predict(text).p_suffices for text in texts], np.float64)
    chance = np.random.default_rng(0)
    residuals = chance.normal(0, 0.1, (2, shard.dense.shape[1], 3)).astype(np.float32)
    residuals[1] = 0
    zeros = np.zeros((2, 3))
    found = ClassModels(
        ("one", "two"), np.array([9, 9]), np.array([0.5, 1.0]), chance.normal(0, 1, (2, 3)), residuals, zeros,
        np.zeros((2, 3, 3)), np.zeros((3, 3)),
    )  # fmt: skip
    served = Classes(by_class.packed(found, base), Path(CLASSES_FILE))
    for name in found.names:
        z = found.logits([name] * len(texts), logits(before), shard.dense)
        expected = np.cumsum(regression.softmax(z), axis=1)
        features = [runtime.encoder.encode(text) for text in texts]
        got = [served.corrected(name, tuple(q), f) for q, f in zip(before.tolist(), features, strict=True)]
        assert np.abs(np.array(got) - expected).max() < 1e-4
    assert classes.MIN_RESIDUAL <= 50


def test_a_text_counts_once_in_each_class(tmp_path: Path) -> None:
    """What one application needs of it, another need not."""
    frame = domain(60)
    frame = pd.concat([frame.assign(**{"class": "one"}), frame.assign(tier="complex", **{"class": "two"})])
    metrics, rows = by_class.learn(
        TrafficFile(written(tmp_path, frame)), artifact.find(), tmp_path / "mine-v1", tmp_path / "cache"
    )
    assert metrics["conflicts"]["conflicting_texts"] == 0
    assert set(rows.names) == {"one", "two"}
    harder = {row["class"]: row["shift"]["complex"] for row in metrics["classes"]}
    assert harder["two"] > harder["one"]


def test_classes_are_learned_anew_from_the_base(learned: Path, tmp_path: Path) -> None:
    file = TrafficFile(labels(tmp_path))
    with pytest.raises(LabelError, match="knows classes already; learn all anew from its base: --base complexity-v3"):
        by_class.learn(file, learned, tmp_path / "mine-v2", tmp_path / "cache")


@pytest.mark.parametrize("change", ["shape", "nan", "text"])
def test_a_damaged_file_is_refused(learned: Path, change: str) -> None:
    data = (learned / CLASSES_FILE).read_bytes()
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if change == "shape":
        arrays["offsets"] = arrays["offsets"][:, :2]
    elif change == "nan":
        arrays["slopes"] = arrays["slopes"] * np.nan
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with pytest.raises(ArtifactCorrupt, match="run `tierwise retrain` again"):
        Classes(b"no archive" if change == "text" else buffer.getvalue(), Path(CLASSES_FILE))
    with pytest.raises(ArtifactCorrupt, match=CLASSES_FILE):
        spoilt = learned.parent / "spoilt"
        spoilt.mkdir(exist_ok=True)
        for path in learned.iterdir():
            if path.is_file():
                (spoilt / path.name).write_bytes(path.read_bytes() + b" " * (path.name == CLASSES_FILE))
        artifact.load(spoilt)
