"""Rows -> a calibrated multinomial logistic regression over the required tier, and its operating points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from router.classifier.artifact import OperatingPoint
from router.classifier.features import STRUCTURE
from router.types import Tier
from training.build.arrays import Array, Ints
from training.build.corpora import N_TIERS, Rows

REGULARISATION_C = 1.0
N_FOLDS = 5

TRAFFIC_MIX = (0.70, 0.20, 0.10)
"""Share of traffic by required tier that probabilities are calibrated to and operating points are tuned for: the mix
that the trace studies assume. Retrain, or tune the thresholds, when yours differs."""

TARGETS = {"economy": 0.15, "balanced": 0.08, "quality": 0.03}
"""Operating point -> the largest share of requests that may go below their required tier."""

RELATIVE_PRICE = (1.0, 3.0, 5.0)
"""Price by tier (the `claude` fleet): what the thresholds minimise, within the target."""


STRUCTURE_SCALE = 0.05
"""Weight of a standardised structural float against a text's bag of tokens, whose length is 1; chosen out of fold."""

KNOTS = (-0.8, 0.0, 0.8)
"""Where each standardised float may bend: a very short and a very long request are both less often hard than one
between (AUC on our own queries .865 without, .878 to .889 with).
"""

REACH = 3.0
"""How far a standardised float counts: a longer text than any known is taken as the longest, not extrapolated."""


@dataclass(frozen=True)
class Classifier:
    """Standardised structure, regression and calibration: x -> logits -> calibrated P(required tier).

    `design` turns x, what `Embedding.features` gives, into what the regression sees; then z = design @ coef.T +
    intercept, and p = softmax(z @ a.T + b).
    """

    mean: Array
    scale: Array
    regression: LogisticRegression
    calibration: LogisticRegression

    def logits(self, x: sparse.csr_matrix) -> Array:
        """float64 [n, n_tiers], not calibrated."""
        return np.asarray(self.regression.decision_function(design(x, self.mean, self.scale)))

    def p_required(self, x: sparse.csr_matrix) -> Array:
        """P(required tier = k), float64 [n, n_tiers], by scikit-learn alone: the reference for parity."""
        return np.asarray(self.calibration.predict_proba(self.logits(x)))

    def p_suffices(self, x: sparse.csr_matrix) -> Array:
        """P(tier k suffices), float64 [n, n_tiers]: cumulative, the last exactly 1."""
        return suffices(self.p_required(x))


def suffices(p_required: Array) -> Array:
    """Cumulative sums from the cheap side, written so that the last column is exactly 1."""
    q = np.ones_like(p_required)
    for tier in range(N_TIERS - 1):
        q[:, tier] = 1 - p_required[:, tier + 1 :].sum(axis=1)
    return q


def fit(x: sparse.csr_matrix, rows: Rows, own_logits: Array) -> Classifier:
    """Fit on every row; calibrate on `own_logits` (`out_of_fold_logits`), weighted to TRAFFIC_MIX."""
    own = rows.sources == "tierwise_queries"
    return fit_with(calibrate(own_logits, rows.targets[own]), x, rows)


def fit_with(calibration: LogisticRegression, x: sparse.csr_matrix, rows: Rows) -> Classifier:
    """Fit on every row, with a calibration from elsewhere."""
    return Classifier(*_regress(x, rows.targets, rows.weights), calibration)


def out_of_fold_logits(x: sparse.csr_matrix, rows: Rows) -> Array:
    """Logits of our own queries, each from a fit that saw neither it, nor its variant, nor the rows of its pair."""
    own = np.flatnonzero(rows.sources == "tierwise_queries")
    fold = _folds(rows.groups[own])
    logits = np.zeros((len(own), N_TIERS))
    none = logistic(np.eye(N_TIERS), np.zeros(N_TIERS))  # the logits asked for are those before calibration
    for number in range(N_FOLDS):
        held_out = own[fold == number]
        keep = ~np.isin(rows.groups, rows.groups[held_out])
        model = fit_with(none, x[keep], rows.select(keep))
        logits[fold == number] = model.logits(x[held_out])
    return logits


def operating_points(
    p_suffices: Array,
    targets: Array,
    weights: Array | None = None,
    split: str = "data/queries.jsonl out of fold, weighted to a 70/20/10 mix; tuned on one half, scored on the other",
    floor: float = 0.0,
) -> dict[str, OperatingPoint]:
    """Thresholds for each target, tuned on all rows; `achieved` is from tuning on one half and scoring the other.
    No threshold is below `floor`.

    `targets` are P(required tier) [n, n_tiers]; `weights` [n] default to those of TRAFFIC_MIX.
    """
    rng = np.random.default_rng(0)
    half = rng.permutation(len(targets)) % 2
    given, required = weights, targets.argmax(axis=1)

    def weights_of(rows: npt.NDArray[np.bool_]) -> Array:
        return mix_weights(required[rows]) if given is None else given[rows] / given[rows].sum()

    weights = weights_of(np.ones(len(targets), bool))
    points = {}
    for name, target in TARGETS.items():
        below = np.zeros(len(targets))
        for side in (0, 1):
            tuned = _tune(p_suffices[half == side], targets[half == side], weights_of(half == side), target)
            thresholds = tuple(max(threshold, floor) for threshold in tuned)
            below[half != side] = p_below(route(p_suffices[half != side], thresholds), targets[half != side])
        thresholds = tuple(max(threshold, floor) for threshold in _tune(p_suffices, targets, weights, target))
        chosen = route(p_suffices, thresholds)
        points[name] = OperatingPoint(
            thresholds={tier: round(float(t), 4) for tier, t in zip(Tier, thresholds, strict=False)},
            target=f"at most {target:.0%} of requests below their required tier",
            achieved=round(float(weights @ below), 4),
            interval=interval(below, weights),
            shares={tier: round(float(weights @ (chosen == k)), 4) for k, tier in enumerate(Tier)},
            split=split,
        )
    return points


def p_below(chosen: Ints, targets: Array) -> Array:
    """P(required tier is above the chosen one), float64 [n]."""
    return np.asarray(1 - np.cumsum(targets, axis=1)[np.arange(len(chosen)), chosen]).clip(0, 1)


def mix_weights(required: Ints) -> Array:
    """Weights that sum to 1 and give the required tiers TRAFFIC_MIX's shares."""
    counts = np.bincount(required, minlength=N_TIERS)
    return np.asarray((np.array(TRAFFIC_MIX) / np.maximum(counts, 1))[required])


def logistic(coef: Array, intercept: Array) -> LogisticRegression:
    """A fitted LogisticRegression from its coefficients: [n_tiers, n_features] and [n_tiers]."""
    model = LogisticRegression()
    model.coef_, model.intercept_, model.classes_ = coef, intercept, np.arange(N_TIERS)
    return model


def design(x: sparse.csr_matrix, mean: Array, scale: Array) -> sparse.csr_matrix:
    """x with its first columns, the structure s, as z = (s - mean) / scale and max(z - knot, 0) for each knot.

    z is kept within REACH.
    """
    z = np.clip((x[:, : len(STRUCTURE)].toarray() - mean) / scale, -REACH, REACH)
    bent = np.hstack([z, *(np.maximum(z - knot, 0) for knot in KNOTS)])
    blocks = [sparse.csr_matrix(STRUCTURE_SCALE * bent), x[:, len(STRUCTURE) :]]
    bent_x: sparse.csr_matrix = sparse.hstack(blocks, format="csr")
    return bent_x


def standard(x: sparse.csr_matrix) -> tuple[Array, Array]:
    """Mean and scale of the structural columns of x."""
    structure = x[:, : len(STRUCTURE)].toarray()
    return structure.mean(axis=0), structure.std(axis=0) + 1e-9


def _regress(x: sparse.csr_matrix, targets: Array, weights: Array) -> tuple[Array, Array, LogisticRegression]:
    mean, scale = standard(x)
    return mean, scale, _soft_regression(design(x, mean, scale), targets, weights, REGULARISATION_C)


def _soft_regression(x: sparse.csr_matrix | Array, targets: Array, weights: Array, c: float) -> LogisticRegression:
    """Multinomial regression on soft targets: each row once a tier, weighted by that tier's probability."""
    label = np.repeat(np.arange(N_TIERS), x.shape[0])
    weight = (targets * weights[:, None]).T.ravel()
    kept = weight > 1e-9
    thrice = sparse.vstack([sparse.csr_matrix(x)] * N_TIERS, format="csr")[kept]
    return LogisticRegression(C=c, max_iter=200, tol=1e-3).fit(thrice, label[kept], weight[kept])


def calibrate(logits: Array, targets: Array) -> LogisticRegression:
    """Matrix scaling (a regression on the logits), weighted to TRAFFIC_MIX; C keeps nine numbers from overfitting."""
    required = targets.argmax(axis=1)
    weights = mix_weights(required) * len(required)
    return _soft_regression(logits, targets, weights, c=0.1)


def _folds(groups: npt.NDArray[np.str_]) -> Ints:
    names, number = np.unique(groups, return_inverse=True)
    return (np.random.default_rng(0).permutation(len(names)) % N_FOLDS)[number]


def route(p_suffices: Array, thresholds: tuple[float, ...]) -> Ints:
    """The number of the cheapest tier whose P(suffices) reaches its threshold, else of the top tier, int [n]."""
    reached = np.column_stack(
        [p_suffices[:, k] >= t for k, t in enumerate(thresholds)] + [np.ones(len(p_suffices), bool)]
    )
    return np.asarray(reached.argmax(axis=1))


def _tune(p_suffices: Array, targets: Array, weights: Array, target: float) -> tuple[float, float]:
    """The cheapest thresholds (simple, moderate) whose share below the required tier is within the target."""
    price = np.array(RELATIVE_PRICE)
    above = weights[:, None] * (1 - np.cumsum(targets, axis=1))
    levels = np.linspace(0, 1, 41)
    grids = [np.append(np.quantile(p_suffices[:, k], levels), 1.0) for k in range(N_TIERS - 1)]
    simple, moderate = ((p_suffices[:, [k]] >= grids[k]).astype(float) for k in range(N_TIERS - 1))
    # Every pair at once, [simple, moderate]: a row goes to simple, or else to moderate, or else to the top.
    to_simple = (weights @ simple)[:, None]
    to_moderate = (weights[:, None] * (1 - simple)).T @ moderate
    spent = price[2] - (price[2] - price[0]) * to_simple - (price[2] - price[1]) * to_moderate
    below = (above[:, 0] @ simple)[:, None] + (above[:, [1]] * (1 - simple)).T @ moderate
    spent[below > target + 1e-12] = np.inf
    at = np.unravel_index(spent.argmin(), spent.shape)
    return (float(grids[0][at[0]]), float(grids[1][at[1]])) if np.isfinite(spent[at]) else (1.0, 1.0)


def interval(below: Array, weights: Array) -> tuple[float, float]:
    """95 % bootstrap interval of the weighted mean of `below`."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(below), (2000, len(below)))
    shares = (weights[draws] * below[draws]).sum(axis=1) / weights[draws].sum(axis=1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return round(float(low), 4), round(float(high), 4)
