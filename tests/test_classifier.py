from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import artifact
from router.classifier import Classifier
from training.export import PARITY, read_unfolded

CLASSIFIER = Classifier(artifact.load())
TEXTS = [
    "",
    "hi",
    "Prove that the sum of two odd numbers is even.",
    "Fasse diesen Vertrag in drei Sätzen zusammen und nenne die Kündigungsfrist.",
    "写一个函数，判断一个链表有没有环",
    "x = [1, 2, 3]\nprint(x[::-1])" * 30,
    "word " * 4000,
    "\x00\x1f\ufffd",
    "QUJDREVGR0g" * 200,
]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_probabilities_are_a_cumulative_distribution(text: str) -> None:
    q = CLASSIFIER.predict(text).p_suffices
    assert len(q) == 3
    assert all(0 <= p <= 1 for p in q)
    assert list(q) == sorted(q)
    assert q[-1] == 1.0


def test_folded_graph_equals_unfolded_scikit_learn() -> None:
    embedding, model = read_unfolded(artifact.find())
    reference = model.p_suffices(embedding.features(TEXTS))
    folded = np.array([CLASSIFIER.predict(text).p_suffices for text in TEXTS])
    assert np.abs(folded - reference).max() <= PARITY


def test_batch_equals_single() -> None:
    single = np.array([CLASSIFIER.predict(text).p_suffices for text in TEXTS])
    assert CLASSIFIER.predict_batch(TEXTS) == pytest.approx(single, abs=1e-6)
    assert CLASSIFIER.predict_batch([]).shape == (0, 3)


def test_threads_do_not_mix_up_their_buffers() -> None:
    expected = [CLASSIFIER.predict(text) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            assert list(pool.map(CLASSIFIER.predict, TEXTS)) == expected
