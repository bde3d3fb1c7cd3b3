from __future__ import annotations

import numpy as np
import pytest

from router.classifier import artifact
from training.build import corpora, novelty
from training.build.export import read_unfolded

SHIPPED = read_unfolded(artifact.find())


def share_found(texts: list[str]) -> float:
    _, strange = SHIPPED.predict(texts)
    return float(np.mean(strange > SHIPPED.novelty.threshold))


@pytest.mark.parametrize("kind", novelty.made_up(SHIPPED.embedding, seed=7, n=1))
def test_made_up_texts_are_found(kind: str) -> None:
    assert share_found(novelty.made_up(SHIPPED.embedding, seed=7, n=100)[kind]) >= 0.95


def test_natural_requests_are_not_in_any_language() -> None:
    by_language = corpora.queries().groupby("language")["text"].apply(list)
    found = {language: share_found(texts) for language, texts in by_language.items() if len(texts) >= 20}
    assert len(found) >= 17
    assert max(found.values()) <= 0.05, found


def test_fit_separates_and_keeps_false_alarms_down() -> None:
    natural = corpora.queries()["text"].tolist()
    fitted = novelty.fit(SHIPPED.embedding, natural, natural)
    _, bag = SHIPPED.embedding.bag(natural)
    assert np.mean(fitted.probability(bag) > fitted.threshold) <= 0.01
    _, bag = SHIPPED.embedding.bag(["kq0 zzx9 \ufffd\ufffd wjq", "7f" * 60])
    assert (fitted.probability(bag) > fitted.threshold).all()


def test_attributes_are_one_row_a_token() -> None:
    assert novelty.attributes(SHIPPED.embedding).shape[0] == len(SHIPPED.embedding.idf)
