from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.classifier import artifact, model
from router.classifier.model import Classifier
from training.build.export import PARITY, read_unfolded
from training.build.fit import TRAFFIC_MIX

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
    reference, novelty = read_unfolded(artifact.find()).predict(TEXTS)
    folded = [CLASSIFIER.predict(text) for text in TEXTS]
    assert np.abs(np.array([p.p_suffices for p in folded]) - reference).max() <= PARITY
    assert np.abs(np.array([p.novelty for p in folded]) - novelty)[1:].max() <= PARITY


def test_novelty_moves_the_probabilities_to_the_prior() -> None:
    strange = CLASSIFIER.predict("QUJDREVGR0g" * 200)
    assert strange.novelty > 0.9
    assert strange.p_suffices == pytest.approx(np.cumsum(TRAFFIC_MIX), abs=0.1)
    assert CLASSIFIER.predict("").novelty == 1.0
    assert CLASSIFIER.predict("What is the capital of Norway?").novelty < 0.1


def test_batch_equals_single() -> None:
    single = np.array([CLASSIFIER.predict(text).p_suffices for text in TEXTS])
    assert CLASSIFIER.predict_batch(TEXTS) == pytest.approx(single, abs=1e-6)
    assert CLASSIFIER.predict_batch([]).shape == (0, 3)


def test_threads_do_not_mix_up_their_buffers() -> None:
    expected = [CLASSIFIER.predict(text) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            assert list(pool.map(CLASSIFIER.predict, TEXTS)) == expected


def test_an_artifact_is_held_once_and_let_go() -> None:
    found = artifact.load()
    other = replace(found, manifest=msgspec.structs.replace(found.manifest, max_novelty=0.123))
    one = model.shared(other)
    assert one is model.shared(other)
    assert one is not model.shared(found)
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None
