"""What a few labels of the user's own domain buy: a ridge on gain over the shipped features, the model as prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV

from training.build import fit
from training.build.arrays import Array, Ints
from training.build.corpora import Outcomes
from training.build.embedding import Embedding
from training.examine.measures import apgr

SIZES = (0, 100, 300, 1000, 3000)
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
MIN_HELD_OUT = 300

PRIOR_SCALE = 0.1
"""Weight of the standardised prior score as a feature: a ridge moves it little on few labels, drops it when wrong."""


def learning_curve(
    sets: list[Outcomes],
    embedding: Embedding,
    prior_of: Callable[[Outcomes], fit.Classifier],
    sizes: Sequence[int] = SIZES,
    n_seeds: int = 4,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Held-out APGR inside each set after learning from n of its rows: mean and 95 % interval over seeds.

    `learned` starts from the shipped features and the prior (`prior_of` must not have seen the set); `scratch` is a
    plain ridge over word n-grams, a mean of the static embedding and log length. Size 0 is the prior alone. Sets with
    fewer than n + 300 rows are left out at that size.
    """
    report: dict[str, Any] = {}
    for outcomes in sets:
        x = embedding.features(outcomes.texts)
        prior = prior_score(prior_of(outcomes), x)
        plain = plain_features(embedding, outcomes.texts)
        length = np.array([len(text) for text in outcomes.texts], float)
        report[outcomes.dataset] = {"n": len(outcomes.texts), "sizes": {}}
        for size in sizes:
            if len(prior) < size + MIN_HELD_OUT:
                continue
            progress(f"{outcomes.dataset}: {size} of {len(prior)} rows")
            scores: dict[str, list[float]] = {"learned": [], "scratch": [], "length": []}
            for seed in range(n_seeds):
                order = np.random.default_rng(seed).permutation(len(prior))
                known, held_out = order[:size], order[size:]
                gain = (outcomes.strong - outcomes.weak)[known]
                truth = outcomes.weak[held_out], outcomes.strong[held_out]
                scores["length"].append(apgr(length[held_out], *truth))
                scores["learned"].append(apgr(learned(x, prior, known, gain)[held_out], *truth))
                if size:
                    scores["scratch"].append(apgr(ridge(plain[known], gain).predict(plain[held_out]), *truth))
            report[outcomes.dataset]["sizes"][str(size)] = {k: _summary(v) for k, v in scores.items() if v}
    return {"datasets": report, "mean": _mean(report)}


def learned(x: sparse.csr_matrix, prior: Array, known: Ints, gain: Array) -> Array:
    """Scores of every row of x, float64 [n]: a ridge on the gain of the `known` rows, or the prior without any."""
    if not len(known):
        return prior
    design = with_prior(x, prior, *fit.standard(x[known]))
    return np.asarray(ridge(design[known], gain).predict(design))


def with_prior(x: sparse.csr_matrix, prior: Array, mean: Array, scale: Array) -> sparse.csr_matrix:
    """The classifier's design, its structure standardised on the user's own rows, and the prior as one more column."""
    blocks = [fit.design(x, mean, scale), sparse.coo_matrix(PRIOR_SCALE * prior[:, None])]
    design: sparse.csr_matrix = sparse.hstack(blocks, format="csr")
    return design


def ridge(x: sparse.csr_matrix, y: Array) -> RidgeCV:
    """A ridge whose penalty is chosen by leave-one-out."""
    return RidgeCV(PENALTIES).fit(x, y)


def prior_score(model: fit.Classifier, x: sparse.csr_matrix) -> Array:
    """log odds that the simple tier does not suffice, standardised over x, float64 [n]."""
    need = np.clip(1 - model.p_suffices(x)[:, 0], 1e-9, 1 - 1e-9)
    odds = np.log(need / (1 - need))
    return np.asarray((odds - odds.mean()) / (odds.std() + 1e-9))


def plain_features(embedding: Embedding, texts: list[str]) -> sparse.csr_matrix:
    """What one would write without us: tf-idf of words and word pairs, a mean static embedding, log length."""
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]").fit_transform(texts)
    _, bag = embedding.bag(texts)
    mean = bag @ embedding.table.astype(np.float64)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True) + 1e-9
    length = np.log1p([len(text) for text in texts])
    length = (length - length.mean()) / (length.std() + 1e-9)
    blocks = [words, sparse.coo_matrix(mean), sparse.coo_matrix(0.3 * length[:, None])]
    features: sparse.csr_matrix = sparse.hstack(blocks, format="csr")
    return features


def cell(scores: dict[str, Any] | None) -> str:
    """A size of a set for a table: learned (scratch), or a dash."""
    if scores is None:
        return "-"
    values = {key: value["apgr"] if isinstance(value, dict) else value for key, value in scores.items()}
    return f"{values['learned']:.3f}" + (f" ({values['scratch']:.3f})" if "scratch" in values else "")


def _summary(scores: list[float]) -> dict[str, Any]:
    mean = float(np.mean(scores))
    spread = 1.96 * float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
    return {"apgr": round(mean, 4), "interval": [round(mean - spread, 4), round(mean + spread, 4)]}


def _mean(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Mean APGR by size over the sets that have it."""
    means: dict[str, dict[str, float]] = {}
    for size in {size for row in report.values() for size in row["sizes"]}:
        rows = [row["sizes"][size] for row in report.values() if size in row["sizes"]]
        means[size] = {k: round(float(np.mean([r[k]["apgr"] for r in rows])), 4) for k in rows[0]}
    return dict(sorted(means.items(), key=lambda item: int(item[0])))
