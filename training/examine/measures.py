"""How good the decision is: cost-quality curves on outcomes, calibration and confusion on labelled queries.

APGR as RouteLLM defines it (https://arxiv.org/abs/2406.18665, read 2026-11-22): the area under the performance-gap-
recovered curve over 11 budgets (0, 10, ... 100 % of requests to the strong group), .5 for random, ties broken at
random. CPT(x) is the share of strong calls that recovers x of the gap. Prompt length is always reported beside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse, special, stats
from sklearn.linear_model import LogisticRegression

from router import demo
from router.classifier.artifact import OperatingPoint
from router.types import Tier
from training.build import corpora, fit, novelty
from training.build.arrays import Array, Ints
from training.build.corpora import Outcomes
from training.build.embedding import Embedding
from training.build.export import Unfolded
from training.build.training_set import Rows

Points = Mapping[str, OperatingPoint]
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


@dataclass(frozen=True)
class GainCurve:
    """APGR of one scorer, and of each bootstrap draw [N_DRAWS]; those of two scorers of the same rows are paired."""

    apgr: float
    draws: Array

    def interval(self, other: GainCurve | None = None) -> tuple[float, float]:
        """95 % of the draws, or of their difference to `other`'s."""
        draws = self.draws - (0 if other is None else other.draws)
        low, high = np.quantile(draws, (0.025, 0.975))
        return round(float(low), 4), round(float(high), 4)


N_DRAWS = 1000


def gain_curve(score: Array, gain: Array, weights: Array, groups: Ints) -> GainCurve:
    """APGR of weighted rows: `gain` in [0, 1] is what a strong model adds; whole groups are drawn. .5 without gain."""
    rng = np.random.default_rng(0)
    order = np.lexsort((rng.random(len(score)), -score))
    _, group = np.unique(groups, return_inverse=True)
    n_groups = int(group.max()) + 1
    budgets = np.linspace(0, 1, 11)

    def area(weight: Array) -> float:
        taken, gained = (np.append(0.0, np.cumsum(values[order])) for values in (weight, weight * gain))
        if gained[-1] <= 0:
            return 0.5
        return float(np.trapezoid(np.interp(budgets * taken[-1], taken, gained) / gained[-1], budgets))

    draws = [
        area(weights * np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups)[group])
        for _ in range(N_DRAWS)
    ]
    return GainCurve(area(weights), np.array(draws))


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
    """The scorer, prompt length and random on each outcome set, and the mean APGR of each over the sets.

    `scorer` gives P(the simple tier does not suffice); `calibration` compares it with the gain, before and after
    recalibrating it on the other half of the set.
    """
    report: dict[str, Any] = {}
    for outcomes in sets:
        progress(f"{outcomes.dataset}: {len(outcomes.texts)} prompts")
        length = np.array([len(text) for text in outcomes.texts], float)
        score = scorer(outcomes)
        gained = np.clip(outcomes.strong - outcomes.weak, 0, 1)
        even = np.ones(len(score))
        report[outcomes.dataset] = {
            "n": len(outcomes.texts),
            "model": curve_metrics(score, outcomes),
            "length": curve_metrics(length, outcomes),
            "random": curve_metrics(np.zeros(len(length)), outcomes),
            "calibration": calibration_error(1 - score, 1 - gained, even),
            "recalibrated": calibration_error(1 - _platt(score, gained), 1 - gained, even),
        }
    names = ("model", "length", "random")
    mean = {name: round(float(np.mean([r[name]["apgr"] for r in report.values()])), 4) for name in names}
    return {"datasets": report, "mean_apgr": mean}


class LeftOut:
    """The classifier for an outcome set that saw none of its rows, rated or scored; fitted once a set.

    `model` is the fit on all `rows`, whose features are `x`: it serves for the sets that are not among them, and its
    calibration for all.
    """

    def __init__(self, rows: Rows, x: sparse.csr_matrix, model: fit.Classifier) -> None:
        self._rows, self._x, self._model = rows, x, model
        self._fitted: dict[str, fit.Classifier] = {}

    def __call__(self, outcomes: Outcomes) -> fit.Classifier:
        name, rows = outcomes.dataset, self._rows
        if name not in rows.datasets:
            return self._model
        if name not in self._fitted:
            kept = rows.datasets != name
            self._fitted[name] = fit.fit_with(self._model.calibration, self._x[kept], rows.select(kept))
        return self._fitted[name]


def leave_one_out(
    embedding: Embedding, left_out: LeftOut, sets: list[Outcomes], progress: Callable[[str], None]
) -> dict[str, Any]:
    """Each outcome set ranked by a classifier that saw none of it. The estimate that counts."""

    def scorer(outcomes: Outcomes) -> Array:
        return 1 - left_out(outcomes).p_suffices(embedding.features(outcomes.texts))[:, 0]

    return on_outcomes(sets, scorer, progress)


EASY, HARD = 0.8, 0.7
"""A request is rated simple when the small tier suffices with this probability, complex when the middle one does with
less than that."""


def on_real_requests(real: Rows, score: Array) -> dict[str, Any]:
    """By data set and all: how well a score (higher is harder), and prompt length, agree with the ratings.

    `spearman` is the rank correlation with 1 - P(small suffices), `auc` that of complex over simple, `accuracy` that of
    the three classes at the ratings' own shares.
    """
    p_small = real.targets[:, 0]
    required = rated_class(real)
    length = np.array([len(text) for text in real.texts], float)

    def of(at: npt.NDArray[np.bool_]) -> dict[str, Any]:
        scores = {"model": score[at], "length": length[at]}
        return {
            "n": int(at.sum()),
            "shares": [round(float((required[at] == k).mean()), 3) for k in range(len(Tier))],
            **{name: _agreement(values, p_small[at], required[at]) for name, values in scores.items()},
        }

    names = np.unique(real.datasets)
    return {"all": of(np.ones(len(score), bool)), **{str(name): of(real.datasets == name) for name in names}}


def rated_class(rows: Rows) -> Ints:
    """0, 1 or 2 for rows that are rated simple, moderate or complex (EASY, HARD), int [n]."""
    return np.where(rows.targets[:, 0] >= EASY, 0, np.where(1 - rows.targets[:, 2] < HARD, 2, 1))


def points_on_real_requests(real: Rows, p_suffices: Array, points: Points) -> dict[str, Any]:
    """What each operating point does to them, and always taking one tier: `below` is the share of requests whose answer
    is worse than the top tier's, as rated, with its 95 % interval; `cost` that of always taking the top tier being 1.
    """
    weights = fit.even_weights(real.datasets)
    price = np.array(fit.RELATIVE_PRICE) / fit.RELATIVE_PRICE[-1]
    chosen = {name: fit.route(p_suffices, levels) for name, levels in thresholds_of(points).items()}
    chosen |= {f"always {tier}": np.full(len(real), k) for k, tier in enumerate(Tier)}
    report = {}
    for name, tiers in chosen.items():
        below = fit.p_below(tiers, real.targets)
        report[name] = {
            "below": round(float(np.average(below, weights=weights)), 4),
            "interval": fit.interval(below, weights / weights.sum()),
            "cost": round(float(np.average(price[tiers], weights=weights)), 4),
            "shares": [round(float(np.average(tiers == k, weights=weights)), 4) for k in range(len(Tier))],
        }
    return report


def _agreement(score: Array, p_small: Array, required: Ints) -> dict[str, float | None]:
    counts = np.bincount(required, minlength=len(Tier))
    chosen = np.empty(len(score), int)
    chosen[np.argsort(score, kind="stable")] = np.repeat(range(len(Tier)), counts)
    return {
        "spearman": round(float(stats.spearmanr(score, 1 - p_small)[0]), 3),
        "auc": round(auc(score, required), 3) if counts[0] and counts[-1] else None,
        "accuracy": round(float((chosen == required).mean()), 3),
    }


def calibration_report(p_suffices: Array, required: Ints, weights: Array) -> dict[str, Any]:
    """ECE and Brier score of P(tier suffices), by tier below the top, weighted."""
    return {
        tier.value: calibration_error(p_suffices[:, k], (required <= k).astype(float), weights)
        for k, tier in enumerate(list(Tier)[:-1])
    }


def labelled_report(p_required: Array, required: Ints, languages: list[str]) -> dict[str, Any]:
    """Confusion (rows: required, columns: most probable tier), accuracy and calibration; confusion by language.

    Calibration is weighted to the mix that the probabilities are calibrated to; `recalibrated` is after matrix scaling
    on one half of these rows and scoring the other.
    """
    predicted = p_required.argmax(axis=1)
    names = np.array(languages)
    weights = fit.mix_weights(required)
    return {
        "n": len(required),
        "accuracy": round(float((predicted == required).mean()), 4),
        "auc_complex_over_simple": round(auc(p_required[:, -1], required), 4),
        "confusion": _confusion(required, predicted),
        "calibration": calibration_report(fit.suffices(p_required), required, weights),
        "recalibrated": calibration_report(fit.suffices(recalibrated(p_required, required)), required, weights),
        "confusion_by_language": {
            str(name): _confusion(required[names == name], predicted[names == name]) for name in np.unique(names)
        },
    }


def recalibrated(p_required: Array, required: Ints) -> Array:
    """p_required after recalibrating it on the other half of the rows, float64 [n, n_tiers]."""
    half = np.random.default_rng(0).permutation(len(required)) % 2
    logits, weights = np.log(np.clip(p_required, 1e-9, 1)), fit.mix_weights(required) * len(required)
    out = np.empty_like(p_required)
    for side in (0, 1):
        at = half == side
        model = fit.calibrate(logits[at], np.eye(len(Tier))[required[at]], weights[at])
        out[~at] = special.softmax(model(logits[~at]), axis=1)
    return out


def shares(q: Array, thresholds: dict[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    """Share of rows sent to each tier at each operating point."""
    report = {}
    for name, levels in thresholds.items():
        chosen = fit.route(q, levels)
        report[name] = {tier.value: round(float(np.mean(chosen == k)), 4) for k, tier in enumerate(Tier)}
    return report


def calibration_error(q: Array, truth: Array, weights: Array) -> dict[str, float]:
    """ECE (10 equal-width bins) and Brier score of probabilities q of a truth in [0, 1]."""
    bins = np.minimum((q * 10).astype(int), 9)
    gaps = [
        abs(np.average(q[bins == b] - truth[bins == b], weights=weights[bins == b])) * weights[bins == b].sum()
        for b in np.unique(bins)
    ]
    return {
        "ece": round(float(sum(gaps) / weights.sum()), 4),
        "brier": round(float(np.average((q - truth) ** 2, weights=weights)), 4),
    }


def _platt(p: Array, truth: Array) -> Array:
    """p after a logistic regression on its log odds, fitted on the other half of the rows; truth is in [0, 1]."""
    half = np.random.default_rng(0).permutation(len(p)) % 2
    odds = np.log(np.clip(p, 1e-9, 1) / np.clip(1 - p, 1e-9, 1))[:, None]
    out = np.empty_like(p)
    for side in (0, 1):
        known, weight = odds[half == side], truth[half == side]
        label = np.repeat((1, 0), len(known))
        model = LogisticRegression().fit(np.vstack([known, known]), label, np.concatenate([weight, 1 - weight]))
        out[half != side] = model.predict_proba(odds[half != side])[:, 1]
    return out


def _confusion(required: Ints, predicted: Ints) -> list[list[int]]:
    counts = np.zeros((len(Tier), len(Tier)), int)
    np.add.at(counts, (required, predicted), 1)
    return [list(map(int, row)) for row in counts]


def on_prompts(unfolded: Unfolded, prompts: dict[str, list[str]], points: Points) -> dict[str, Any]:
    """Share by tier at each operating point, and the share called out of distribution, on sets of prompts."""
    report = {}
    for name, texts in prompts.items():
        q, novelty = unfolded.predict(texts)
        report[name] = {
            "n": len(texts),
            "out_of_distribution": round(float(np.mean(novelty > unfolded.novelty.threshold)), 4),
            "shares": shares(q, thresholds_of(points)),
        }
    return report


def detection(unfolded: Unfolded, seed: int = 1) -> dict[str, float]:
    """Share of made-up texts of each kind (other ones than in the fit) that is called out of distribution."""
    kinds = novelty.made_up(unfolded.embedding, seed, n=300)
    return {
        kind: round(float(np.mean(unfolded.predict(texts)[1] > unfolded.novelty.threshold)), 4)
        for kind, texts in kinds.items()
    }


def thresholds_of(points: Points) -> dict[str, tuple[float, ...]]:
    """Thresholds by operating point, cheap to strong."""
    return {name: tuple(point.thresholds[tier] for tier in list(Tier)[:-1]) for name, point in points.items()}


def support_messages() -> tuple[list[str], Ints]:
    """Texts and required tier numbers of the demo's support messages: labelled, and never trained on."""
    calls = [
        json.loads(line) for line in (Path(demo.__file__).parent / "messages.jsonl").read_text("utf-8").splitlines()
    ]
    return [call["text"] for call in calls], np.array([Tier(call["tier"]).rank for call in calls])


def own_labels() -> tuple[list[str], Ints, list[str]]:
    """Texts, required tier numbers and languages of data/queries.jsonl."""
    frame = corpora.queries()
    required = np.asarray(frame["tier"].map({tier.value: k for k, tier in enumerate(Tier)}), int)
    return frame["text"].tolist(), required, frame["language"].tolist()


def _recovered(score: Array, weak: Array, strong: Array, budgets: Array, seed: int) -> Array:
    """Share of the gap recovered when the top `budgets` of rows by score go to the strong group."""
    order = np.lexsort((np.random.default_rng(seed).random(len(score)), -score))
    gained = np.append(0.0, np.cumsum((strong - weak)[order]))
    taken = np.round(budgets * len(score)).astype(int)
    return np.asarray(gained[taken] / gained[-1])


def auc(score: Array, required: Ints) -> float:
    """P(a complex row scores above a simple one), ties half."""
    high, low = score[required == len(Tier) - 1], score[required == 0]
    return float(np.mean((high[:, None] > low).astype(float) + 0.5 * (high[:, None] == low)))
