"""How good the decision is: cost-quality curves on outcomes, calibration and confusion on labelled queries.

APGR as RouteLLM defines it (https://arxiv.org/abs/2406.18665, read 2026-11-22): the area under the performance-gap-
recovered curve over 11 budgets (0, 10, ... 100 % of requests to the strong group), .5 for random, ties broken at
random. CPT(x) is the share of strong calls that recovers x of the gap. Prompt length is always reported beside.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from router import demo
from router.types import Tier
from training import dataset, fit
from training.dataset import Outcomes, Rows
from training.embedding import Embedding

Array = npt.NDArray[np.float64]
N_BOOTSTRAP = 200


def apgr(score: Array, weak: Array, strong: Array, seed: int = 0) -> float:
    """Average performance gap recovered when the highest-scored share of rows goes to the strong group."""
    budgets = np.linspace(0, 1, 11)
    return float(np.trapezoid(_recovered(score, weak, strong, budgets, seed), budgets))


def cpt(score: Array, weak: Array, strong: Array, level: float, seed: int = 0) -> float:
    """The smallest share of strong calls, in [0, 1], that recovers `level` of the gap between the groups."""
    budgets = np.linspace(0, 1, len(score) + 1)
    reached = _recovered(score, weak, strong, budgets, seed) >= level - 1e-9
    return float(budgets[reached.argmax()])


def curve_metrics(score: Array, outcomes: Outcomes) -> dict[str, Any]:
    """APGR with a 95 % bootstrap interval, CPT(50 %) and CPT(80 %) of one scorer on one set."""
    rng = np.random.default_rng(0)
    n = len(score)
    draws = []
    for seed in range(N_BOOTSTRAP):
        rows = rng.integers(0, n, n)
        draws.append(apgr(score[rows], outcomes.weak[rows], outcomes.strong[rows], seed))
    low, high = np.quantile(draws, (0.025, 0.975))
    return {
        "apgr": round(apgr(score, outcomes.weak, outcomes.strong), 4),
        "apgr_interval": [round(float(low), 4), round(float(high), 4)],
        "cpt50": round(cpt(score, outcomes.weak, outcomes.strong, 0.5), 3),
        "cpt80": round(cpt(score, outcomes.weak, outcomes.strong, 0.8), 3),
    }


def on_outcomes(
    sets: list[Outcomes], scorer: Callable[[Outcomes], Array], progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The scorer, prompt length and random on each outcome set, and the mean APGR of each over the sets."""
    report: dict[str, Any] = {}
    for outcomes in sets:
        progress(f"{outcomes.dataset}: {len(outcomes.texts)} prompts")
        length = np.array([len(text) for text in outcomes.texts], float)
        report[outcomes.dataset] = {
            "n": len(outcomes.texts),
            "model": curve_metrics(scorer(outcomes), outcomes),
            "length": curve_metrics(length, outcomes),
            "random": curve_metrics(np.zeros(len(length)), outcomes),
        }
    names = ("model", "length", "random")
    mean = {name: round(float(np.mean([r[name]["apgr"] for r in report.values()])), 4) for name in names}
    return {"datasets": report, "mean_apgr": mean}


def leave_one_out(
    rows: Rows, x: sparse.csr_matrix, embedding: Embedding, sets: list[Outcomes], progress: Callable[[str], None]
) -> dict[str, Any]:
    """For each outcome set: fit without a row of it, rated or scored, then rank it. The estimate that counts."""

    def scorer(outcomes: Outcomes) -> Array:
        kept = rows.datasets != outcomes.dataset
        model = fit.fit_uncalibrated(x[kept], rows.select(kept))
        return 1 - model.p_suffices(embedding.features(outcomes.texts))[:, 0]

    return on_outcomes(sets, scorer, progress)


def calibration_report(p_suffices: Array, required: npt.NDArray[np.int_], weights: Array) -> dict[str, Any]:
    """ECE (10 equal-width bins) and Brier score of P(tier suffices), by tier below the top, weighted."""
    report = {}
    for k, tier in enumerate(list(Tier)[:-1]):
        q, truth = p_suffices[:, k], (required <= k).astype(float)
        bins = np.minimum((q * 10).astype(int), 9)
        gaps = [
            abs(np.average(q[bins == b] - truth[bins == b], weights=weights[bins == b])) * weights[bins == b].sum()
            for b in np.unique(bins)
        ]
        report[tier.value] = {
            "ece": round(float(sum(gaps) / weights.sum()), 4),
            "brier": round(float(np.average((q - truth) ** 2, weights=weights)), 4),
        }
    return report


def labelled_report(p_required: Array, required: npt.NDArray[np.int_], languages: list[str]) -> dict[str, Any]:
    """Confusion (rows: required, columns: most probable tier), accuracy, calibration, and accuracy by language."""
    predicted = p_required.argmax(axis=1)
    confusion = np.zeros((len(Tier), len(Tier)), int)
    np.add.at(confusion, (required, predicted), 1)
    right = predicted == required
    names = np.array(languages)
    return {
        "n": len(required),
        "accuracy": round(float(right.mean()), 4),
        "auc_complex_over_simple": round(auc(p_required[:, -1], required), 4),
        "confusion": confusion.tolist(),
        "calibration": calibration_report(fit.suffices(p_required), required, fit.mix_weights(required)),
        "accuracy_by_language": {str(name): round(float(right[names == name].mean()), 3) for name in np.unique(names)},
    }


def shipped_scorer(path: Path | str | None) -> Callable[[Outcomes], Array]:
    """Scores outcome sets with an artifact, through the runtime. The sets it was trained on flatter it."""
    from router import artifact
    from router.classifier import Classifier

    classifier = Classifier(artifact.load(path))

    def scorer(outcomes: Outcomes) -> Array:
        return np.array([1 - classifier.predict(text).p_suffices[0] for text in outcomes.texts])

    return scorer


def support_messages() -> tuple[list[str], npt.NDArray[np.int_]]:
    """Texts and required tier numbers of the demo's support messages: labelled, and never trained on."""
    calls = [
        json.loads(line) for line in (Path(demo.__file__).parent / "messages.jsonl").read_text("utf-8").splitlines()
    ]
    return [call["text"] for call in calls], np.array([list(Tier).index(call["tier"]) for call in calls])


def own_labels() -> tuple[list[str], npt.NDArray[np.int_], list[str]]:
    """Texts, required tier numbers and languages of data/queries.jsonl."""
    frame = dataset.queries()
    required = frame["tier"].map({tier.value: k for k, tier in enumerate(Tier)}).to_numpy(int)
    return frame["text"].tolist(), required, frame["language"].tolist()


def _recovered(score: Array, weak: Array, strong: Array, budgets: Array, seed: int) -> Array:
    """Share of the gap recovered when the top `budgets` of rows by score go to the strong group."""
    order = np.lexsort((np.random.default_rng(seed).random(len(score)), -score))
    gained = np.append(0.0, np.cumsum((strong - weak)[order]))
    taken = np.round(budgets * len(score)).astype(int)
    return np.asarray(gained[taken] / gained[-1])


def auc(score: Array, required: npt.NDArray[np.int_]) -> float:
    """P(a complex row scores above a simple one), ties half."""
    high, low = score[required == len(Tier) - 1], score[required == 0]
    return float(np.mean((high[:, None] > low).astype(float) + 0.5 * (high[:, None] == low)))
