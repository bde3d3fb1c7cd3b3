from __future__ import annotations

import numpy as np
import pytest

from router.classifier import artifact
from training.build import fit
from training.build.corpora import Outcomes
from training.build.export import read_unfolded
from training.examine import card, curve

SHIPPED = read_unfolded(artifact.find())


@pytest.fixture(scope="module")
def words() -> Outcomes:
    """Half of the prompts start with a word that gains; nothing else tells."""
    chance = np.random.default_rng(0)
    hard = chance.random(500) < 0.5
    texts = [f"{'derive' if h else 'recall'} item{n} of lot{n % 37}" for n, h in enumerate(hard)]
    return Outcomes("words", texts, np.zeros(500), hard * chance.uniform(0.5, 1, 500))


def test_rises_where_words_tell_and_leaves_rows_to_score(words: Outcomes) -> None:
    sizes = (0, 20, 150, 400)
    report = curve.learning_curve([words], SHIPPED.embedding, lambda _: SHIPPED.classifier, sizes, n_seeds=2)
    scores = report["datasets"]["words"]["sizes"]
    assert list(scores) == ["0", "20", "150"]  # 400 would leave fewer than 300 rows
    assert scores["150"]["learned"]["apgr"] > 0.7 > scores["150"]["length"]["apgr"]
    low, high = scores["150"]["learned"]["interval"]
    assert low <= scores["150"]["learned"]["apgr"] <= high
    assert "scratch" not in scores["0"]
    assert report["mean"]["20"]["learned"] == scores["20"]["learned"]["apgr"]
    assert card.plot(report) == card.plot(report)
    assert b"plain ridge from scratch" in card.plot(report)


def test_without_labels_it_is_the_prior(words: Outcomes) -> None:
    x = SHIPPED.embedding.features(words.texts)
    prior = curve.prior_score(SHIPPED.classifier, x)
    assert prior.std() == pytest.approx(1)
    assert (curve.learned(x, prior, np.zeros(0, int), np.zeros(0)) == prior).all()


def test_a_right_prior_helps(words: Outcomes) -> None:
    x = SHIPPED.embedding.features(words.texts)
    known = np.arange(10)
    gain = (words.strong - words.weak)[known]
    right = (words.strong - words.strong.mean()) / words.strong.std()
    design = curve.with_prior(x, right, *fit.standard(x[known]))
    assert design.shape[1] == fit.design(x, *fit.standard(x)).shape[1] + 1
    with_it = curve.learned(x, right, known, gain)[10:]
    without = curve.learned(x, np.zeros(500), known, gain)[10:]
    assert np.corrcoef(with_it, words.strong[10:])[0, 1] > np.corrcoef(without, words.strong[10:])[0, 1]
