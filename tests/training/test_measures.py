from __future__ import annotations

import numpy as np
import pytest

from router.classifier.artifact import OperatingPoint
from router.types import Tier
from tests.training.corpora import separable
from training.build import fit
from training.build.corpora import Outcomes
from training.build.training_set import Rows
from training.examine import measures


def test_apgr_of_known_orders() -> None:
    gains = np.linspace(0, 1, 1000)
    weak, strong = np.zeros(1000), gains
    perfect = measures.apgr(gains, weak, strong)
    assert perfect == pytest.approx(2 / 3, abs=0.005)  # the area under 2b - b^2
    assert measures.apgr(-gains, weak, strong) == pytest.approx(1 / 3, abs=0.005)
    ties = [measures.apgr(np.zeros(1000), weak, strong, seed) for seed in range(50)]
    assert np.mean(ties) == pytest.approx(0.5, abs=0.01)


def test_cpt_is_the_share_of_strong_calls() -> None:
    weak, strong = np.zeros(100), np.repeat([1.0, 0.0], 50)
    score = np.arange(100.0)[::-1]
    assert measures.cpt(score, weak, strong, 0.5) == pytest.approx(0.25)
    assert measures.cpt(score, weak, strong, 0.8) == pytest.approx(0.40)


def test_report_puts_length_and_random_beside_the_model() -> None:
    score, gains = separable()
    outcomes = Outcomes("set", ["x" * (1 + n % 7) for n in range(200)], np.zeros(200), gains)
    probability = (score - score.min()) / (score.max() - score.min())
    report = measures.on_outcomes([outcomes], lambda _: probability)
    row = report["datasets"]["set"]
    assert row["model"]["apgr"] > 0.6 > row["length"]["apgr"]
    low, high = row["model"]["apgr_interval"]
    assert low < row["model"]["apgr"] < high
    assert row["model"]["cpt50"] < row["model"]["cpt80"]
    assert report["mean_apgr"]["model"] == row["model"]["apgr"]


def test_calibration_of_known_probabilities() -> None:
    chance = np.random.default_rng(0)
    p = chance.dirichlet([2, 1, 1], 20_000)
    required = (chance.random(20_000)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    q, even = fit.suffices(p), np.ones(20_000)
    good = measures.calibration_report(q, required, even)
    bad = measures.calibration_report(np.sqrt(q), required, even)
    assert good["simple"]["ece"] < 0.02 < 0.1 < bad["simple"]["ece"]
    assert good["simple"]["brier"] < bad["simple"]["brier"]


def test_labelled_report_counts() -> None:
    p = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]] * 10)
    report = measures.labelled_report(p, np.array([0, 1, 2, 2] * 10), ["en", "en", "de", "de"] * 10)
    assert report["confusion"] == [[10, 0, 0], [0, 10, 0], [10, 0, 10]]
    assert report["accuracy"] == 0.75
    assert report["confusion_by_language"] == {
        "de": [[0, 0, 0], [0, 0, 0], [10, 0, 10]],
        "en": [[10, 0, 0], [0, 10, 0], [0, 0, 0]],
    }
    assert report["auc_complex_over_simple"] == 0.75


def test_recalibration_mends_what_is_off() -> None:
    chance = np.random.default_rng(0)
    p = chance.dirichlet([2, 1, 1], 6_000)
    required = (chance.random(6_000)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    sure = p**3 / (p**3).sum(axis=1, keepdims=True)
    report = measures.labelled_report(sure, required, ["en"] * 6_000)
    assert report["recalibrated"]["simple"]["ece"] < 0.05 < report["calibration"]["simple"]["ece"]


def test_shares_by_operating_point() -> None:
    q = np.array([[0.9, 0.95, 1.0], [0.5, 0.9, 1.0], [0.1, 0.2, 1.0], [0.8, 0.9, 1.0]])
    assert measures.shares(q, {"a": (0.8, 0.8), "b": (1.0, 1.0)}) == {
        "a": {"simple": 0.5, "moderate": 0.25, "complex": 0.25},
        "b": {"simple": 0.0, "moderate": 0.0, "complex": 1.0},
    }


def test_a_score_that_follows_the_ratings_agrees_with_them() -> None:
    chance = np.random.default_rng(0)
    p_small = chance.uniform(0.1, 1, 300)
    datasets = ["arena_cje"] * 100 + ["oasst_en"] * 200
    real = _rated(["x" * int(n) for n in chance.integers(1, 200, 300)], datasets, p_small, np.sqrt(p_small))
    report = measures.on_real_requests(real, 1 - p_small)
    assert set(report) == {"all", "arena_cje", "oasst_en"}
    assert report["all"]["n"] == 300
    assert report["all"]["model"] == {"spearman": 1.0, "auc": 1.0, "accuracy": 1.0}
    assert abs(report["all"]["length"]["spearman"]) < 0.2
    easy = _rated(["a", "bb"], ["arena_cje"] * 2, np.array([0.9, 0.95]), np.array([0.99, 0.99]))
    assert measures.on_real_requests(easy, np.array([0.2, 0.1]))["all"]["model"]["auc"] is None


def test_points_on_real_requests_are_told_as_rated() -> None:
    real = _rated(["a", "b"], ["arena_cje"] * 2, np.array([0.9, 0.3]), np.array([1.0, 0.8]))
    thresholds = {Tier.SIMPLE: 0.5, Tier.MODERATE: 0.9}
    point = OperatingPoint(thresholds, "", 0.0, (0.0, 0.0), {}, "")
    report = measures.points_on_real_requests(real, np.array([[0.9, 0.95, 1.0], [0.2, 0.95, 1.0]]), {"balanced": point})
    assert report["balanced"]["below"] == pytest.approx((0.1 + 0.2) / 2)
    assert report["balanced"]["shares"] == [0.5, 0.5, 0.0]
    assert report["balanced"]["cost"] == pytest.approx(sum(fit.RELATIVE_PRICE[:2]) / 2 / fit.RELATIVE_PRICE[2])
    assert report["always complex"]["below"] == 0.0


def _rated(texts: list[str], datasets: list[str], p_small: np.ndarray, p_mid: np.ndarray) -> Rows:
    ids = np.array([str(n) for n in range(len(texts))])
    targets = np.stack([p_small, p_mid - p_small, 1 - p_mid], axis=1)
    ones = np.ones(len(texts))
    return Rows(ids, texts, targets, ones, np.full(len(texts), "ratings"), np.array(datasets), ids, ones.astype(bool))
