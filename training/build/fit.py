"""Rows -> a calibrated logistic regression over the required tier, and its operating points.

Fitted in log odds: a ridge on those of P(simple suffices) and of P(moderate suffices), as rated. A multinomial
regression on the same targets ranks real requests worse (Spearman .377 against .412 on three left-out sources): it is
all but blind among the easy ones, where most requests are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse, special
from sklearn.linear_model import LogisticRegression, Ridge

from router.classifier.artifact import OperatingPoint
from router.classifier.features import STRUCTURE
from router.types import Tier
from training.build.arrays import Array, Ints
from training.build.corpora import N_TIERS, family_of
from training.build.training_set import Rows

PENALTY = 5.0
"""Of the ridge; 2 and 10 rank left-out real requests as well, within .003."""

MOST_SURE = (0.02, 0.99)
"""Ratings are taken within these, so that their log odds are finite."""

N_FOLDS = 5

MAX_ROWS = 700
"""A data set's weight among the real requests is that of so many at most, so that no source decides alone."""

TRAFFIC_MIX = (0.78, 0.11, 0.11)
"""Share of real requests by required tier: the means of their ratings. What an unknown text is taken for."""

TARGETS = {"economy": 0.15, "balanced": 0.08, "quality": 0.03}
"""Operating point -> the largest share of requests that may go below their required tier."""

RELATIVE_PRICE = (1.0, 5.0, 10.0)
"""Price by tier, about the mean over the shipped fleets (1:3:5 to 1:20:40): what the thresholds minimise, within the
target."""


LEVEL = 1.01
"""Costs within 1 % count as level."""

STRUCTURE_SCALE = 0.05
"""Weight of a standardised structural float against a text's bag of tokens, whose length is 1; chosen out of fold."""

KNOTS = (-0.8, 0.0, 0.8)
"""Where each standardised float may bend: a very short and a very long request are both less often hard than one
between (AUC on our own queries .865 without, .878 to .889 with).
"""

REACH = 3.0
"""How far a standardised float counts: a longer text than any known is taken as the longest, not extrapolated."""


@dataclass(frozen=True)
class Linear:
    """x @ coef.T + intercept: `coef` float64 [n_outputs, n_inputs], `intercept` [n_outputs]."""

    coef: Array
    intercept: Array

    def __call__(self, x: sparse.csr_matrix | Array) -> Array:
        return np.asarray(x @ self.coef.T + self.intercept)


@dataclass(frozen=True)
class Classifier:
    """Standardised structure, regression and calibration: x -> logits -> calibrated P(required tier).

    `design` turns x, what `Embedding.features` gives, into what the regression sees; then z = design @ coef.T +
    intercept, and p = softmax(z @ a.T + b).
    """

    mean: Array
    scale: Array
    regression: Linear
    calibration: Linear

    def logits(self, x: sparse.csr_matrix) -> Array:
        """float64 [n, n_outputs], not calibrated."""
        return self.regression(design(x, self.mean, self.scale))

    def p_required(self, x: sparse.csr_matrix) -> Array:
        """P(required tier = k), float64 [n, n_tiers]: the reference for parity."""
        return self.calibrated(self.logits(x))

    def calibrated(self, logits: Array) -> Array:
        """P(required tier = k), float64 [n, n_tiers], from what `logits` gives."""
        return np.asarray(special.softmax(self.calibration(logits), axis=1))

    def p_suffices(self, x: sparse.csr_matrix) -> Array:
        """P(tier k suffices), float64 [n, n_tiers]: cumulative, the last exactly 1."""
        return suffices(self.p_required(x))


def suffices(p_required: Array) -> Array:
    """Cumulative sums from the cheap side, written so that the last column is exactly 1."""
    q = np.ones_like(p_required)
    for tier in range(N_TIERS - 1):
        q[:, tier] = 1 - p_required[:, tier + 1 :].sum(axis=1)
    return q


def fit(x: sparse.csr_matrix, rows: Rows) -> tuple[Classifier, Array]:
    """Fit on every row, calibrated on real requests; and the logits of those, from `left_out_logits`."""
    logits = left_out_logits(x, rows)
    real = rows.select(rows.real)
    return fit_with(calibrate(logits, real.targets, even_weights(real.datasets)), x, rows), logits


def fit_with(calibration: Linear, x: sparse.csr_matrix, rows: Rows) -> Classifier:
    """Fit on every row, with a calibration from elsewhere."""
    mean, scale = standard(x)
    p = np.cumsum(rows.targets[:, :-1], axis=1).clip(*MOST_SURE)
    model = Ridge(PENALTY, solver="lsqr", tol=1e-5)
    model.fit(design(x, mean, scale), special.logit(p), rows.weights)
    return Classifier(mean, scale, Linear(model.coef_, model.intercept_), calibration)


_UNCALIBRATED = Linear(np.eye(N_TIERS, N_TIERS - 1), np.zeros(N_TIERS))


def left_out_logits(x: sparse.csr_matrix, rows: Rows) -> Array:
    """Logits of the real requests, each from a fit that saw nothing of its family of data sets."""
    families = family_of(rows.datasets)
    logits = np.zeros((len(rows), N_TIERS - 1))
    for family in np.unique(families[rows.real]):
        keep = families != family
        held_out = np.flatnonzero(rows.real & ~keep)
        logits[held_out] = fit_with(_UNCALIBRATED, x[keep], rows.select(keep)).logits(x[held_out])
    return logits[rows.real]


def out_of_fold_logits(x: sparse.csr_matrix, rows: Rows) -> Array:
    """Logits of our own queries, each from a fit that saw neither it, nor its variant, nor the rows of its pair."""
    own = np.flatnonzero(rows.sources == "tierwise_queries")
    fold = _folds(rows.groups[own])
    logits = np.zeros((len(own), N_TIERS - 1))
    for number in range(N_FOLDS):
        held_out = own[fold == number]
        keep = ~np.isin(rows.groups, rows.groups[held_out])
        logits[fold == number] = fit_with(_UNCALIBRATED, x[keep], rows.select(keep)).logits(x[held_out])
    return logits


def even_weights(datasets: npt.NDArray[np.str_]) -> Array:
    """Weights of real requests, mean 1: a data set counts as MAX_ROWS rows at most."""
    _, at, n = np.unique(datasets, return_inverse=True, return_counts=True)
    weights = np.minimum(1, MAX_ROWS / n)[at]
    return np.asarray(weights / weights.mean())


def operating_points(
    p_suffices: Array, targets: Array, weights: Array, split: str, base: Mapping[str, OperatingPoint] | None = None
) -> dict[str, OperatingPoint]:
    """Thresholds for each target, tuned on all rows; `achieved` is from tuning on one half and scoring the other.
    No threshold is below that of `base`, where it is given.

    `targets` are P(required tier) [n, n_tiers]; `split` says which rows they are.
    """
    rng = np.random.default_rng(0)
    half = rng.permutation(len(targets)) % 2
    weights = weights / weights.sum()
    points = {}
    for name, target in TARGETS.items():
        floor = [base[name].thresholds[tier] if base else 0.0 for tier in list(Tier)[:-1]]
        below = np.zeros(len(targets))
        for side in (0, 1):
            at = half == side
            tuned = _tune(p_suffices[at], targets[at], weights[at] / weights[at].sum(), target)
            below[~at] = p_below(route(p_suffices[~at], _at_least(floor, tuned)), targets[~at])
        thresholds = _at_least(floor, _tune(p_suffices, targets, weights, target))
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


def _at_least(floor: Sequence[float], thresholds: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(max(pair) for pair in zip(floor, thresholds, strict=True))


def p_below(chosen: Ints, targets: Array) -> Array:
    """P(required tier is above the chosen one), float64 [n]."""
    return np.asarray(1 - np.cumsum(targets, axis=1)[np.arange(len(chosen)), chosen]).clip(0, 1)


def mix_weights(required: Ints) -> Array:
    """Weights that sum to 1 and give the required tiers TRAFFIC_MIX's shares."""
    counts = np.bincount(required, minlength=N_TIERS)
    return np.asarray((np.array(TRAFFIC_MIX) / np.maximum(counts, 1))[required])


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


def calibrate(logits: Array, targets: Array, weights: Array) -> Linear:
    """Matrix scaling: a multinomial regression of soft targets on the logits, each row once a tier."""
    label = np.repeat(np.arange(N_TIERS), len(logits))
    weight = (targets * weights[:, None]).T.ravel()
    model = LogisticRegression(C=0.1, max_iter=1000).fit(np.tile(logits, (N_TIERS, 1)), label, weight)
    return Linear(model.coef_, model.intercept_)


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
    if not np.isfinite(spent).any():
        return 1.0, 1.0
    # Prices and ratings leave nearly open how much the moderate tier takes: the lowest threshold of the simple tier,
    # whose models answer fastest, wins where costs are level.
    level = np.argwhere(spent <= LEVEL * spent.min())
    first = level[level[:, 0] == level[0, 0]]
    at = first[spent[first[:, 0], first[:, 1]].argmin()]
    return float(grids[0][at[0]]), float(grids[1][at[1]])


def interval(below: Array, weights: Array) -> tuple[float, float]:
    """95 % bootstrap interval of the weighted mean of `below`."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(below), (2000, len(below)))
    shares = (weights[draws] * below[draws]).sum(axis=1) / weights[draws].sum(axis=1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return round(float(low), 4), round(float(high), 4)
