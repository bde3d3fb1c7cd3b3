"""What labels say of each application (a class of traffic): how far it lies from the base, and what tells inside it.

    logits = slope * base logits + offset + dense @ residual

for each class. The offset is shrunk to the base by empirical Bayes: the covariance between classes comes from the
classes. The base's own weight, the slope, is near 1 where its order holds in the class and near 0 where it does not;
which of the two, and how wide the residual's prior is, is averaged by the evidence of this class and of the others.
A residual is learned from MIN_RESIDUAL labels on. A class without labels is the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.build.arrays import Array, Ints
from training.build.corpora import N_TIERS
from training.retrain.laplace import CONTRASTS, Fit, Prior, Sample, sample, solve

MIN_RESIDUAL = 20
"""From so many labels on a class learns from its texts, too."""

SLOPES = ((1.0, 0.5), (0.0, 0.1))
"""Mean and standard deviation of the base's weight: where it tells, and where it does not."""

LEAST_SLOPE = 0.05
"""A class without a residual keeps at least so much of the base, and with it the base's order of requests: so few
labels cannot say that it is wrong."""

SCALES = (0.05, 0.7, 1.4)
"""Candidates for the standard deviation of the residual's weights; the first is next to none."""

MAX_FEATURES = 100
"""So many principal directions of a class's texts the residual is learned on: 20 classes of 300 labels take seconds."""

BETWEEN = 0.5
"""Standard deviation of the offset in each contrast that is assumed before any class is seen."""

PSEUDO_CLASSES = 2.0
"""How many classes that assumption counts for, against those that are seen; likewise for slopes and scales."""

MAX_ROUNDS = 30


@dataclass(frozen=True)
class ClassModels:
    """What was learned of each class, in the order of `names`, which is sorted.

    `counts` [n] labels of each; `slopes` [n], `offsets` [n, n_tiers] and `residuals` float32 [n, n_dense, n_tiers] (0
    below MIN_RESIDUAL labels) as above. `shifts` [n, n_tiers], sums 0, say how far the class lies from the base, in
    logits of its average request; `covariances` [n, n_tiers, n_tiers] are theirs, `between` that between classes.
    """

    names: tuple[str, ...]
    counts: Ints
    slopes: Array
    offsets: Array
    residuals: npt.NDArray[np.float32]
    shifts: Array
    covariances: Array
    between: Array

    def logits(self, classes: Sequence[str], base: Array, dense: npt.NDArray[np.float32]) -> Array:
        """Logits float64 [n_rows, n_tiers] of rows of these classes; a class that is not known leaves the base's."""
        out = base.astype(np.float64)
        of_row = np.asarray(classes, object)
        for number, name in enumerate(self.names):
            at = np.flatnonzero(of_row == name)
            inside = dense[at].astype(np.float64) @ self.residuals[number]
            out[at] = self.slopes[number] * base[at] + self.offsets[number] + inside
        return out

    @property
    def errors(self) -> Array:
        """Standard errors of the shifts, [n, n_tiers]."""
        return np.sqrt(np.diagonal(self.covariances, axis1=1, axis2=2))


@dataclass(frozen=True)
class _Class:
    """Rows of a class; `x` [n, n_features] is its dense design about `middle` in its principal directions, the columns
    of `turn` [n_dense, n_features]; None without a residual."""

    rows: Sample
    count: int
    x: Array | None
    turn: Array
    middle: Array


def learn(
    classes: Sequence[str], base: Array, dense: npt.NDArray[np.float32], targets: Array, weights: Array
) -> ClassModels:
    """Learn each class of the rows: `classes` [n] ("" for none, which learns nothing), the `base`'s calibrated logits
    [n, n_tiers], out of fold where it was fitted on these rows, `dense` [n, n_dense], `targets` P(required tier)
    [n, n_tiers] and `weights` [n]. Deterministic, and the order of rows does not matter beyond rounding.
    """
    of_row = np.asarray(classes, object)
    parts = {
        name: np.flatnonzero((of_row == name) & (weights > 0))
        for name in sorted(set(of_row[weights > 0].tolist()) - {""})
    }
    known = [_class_of(base[at], dense[at], targets[at], weights[at]) for at in parts.values()]
    between, priors = _learn_priors(known)
    residuals = _learn_residuals(known, between)
    fits = [residuals.get(number, prior) for number, prior in enumerate(priors)]
    learned = [_in_tiers(one, fit) for one, fit in zip(known, fits, strict=True)]
    slopes, offsets, turned = zip(*learned, strict=True) if learned else ((), (), ())
    return ClassModels(
        tuple(parts),
        np.array([one.count for one in known], int),
        np.array(slopes, float),
        np.array(offsets, float).reshape(-1, N_TIERS),
        np.array(turned, np.float32).reshape(-1, dense.shape[1], N_TIERS),
        np.array([CONTRASTS @ fit.shift for fit in fits]).reshape(-1, N_TIERS),
        np.array([CONTRASTS @ fit.covariance @ CONTRASTS.T for fit in fits]).reshape(-1, N_TIERS, N_TIERS),
        CONTRASTS @ between @ CONTRASTS.T,
    )


def _class_of(base: Array, dense: npt.NDArray[np.float32], targets: Array, weights: Array) -> _Class:
    rows, n_dense = sample(base, targets, weights), dense.shape[1]
    if len(base) < MIN_RESIDUAL:
        return _Class(rows, len(base), None, np.zeros((n_dense, 0)), np.zeros(n_dense))
    middle = np.average(dense.astype(np.float64), axis=0, weights=rows.weights)
    left, size, right = np.linalg.svd(dense - middle, full_matrices=False)
    kept = np.flatnonzero(size > 1e-6 * size[0])[:MAX_FEATURES]
    return _Class(rows, len(base), left[:, kept] * size[kept], right[kept].T, middle)


def _learn_priors(known: list[_Class]) -> tuple[Array, list[Fit]]:
    """The covariance between classes [2, 2], and each class's shift and slope, by expectation and maximisation."""
    assumed = BETWEEN**2 * np.eye(2)
    between, fits = assumed, []
    starts: list[list[Fit | None]] = [[None] * len(SLOPES) for _ in known]
    for _ in range(MAX_ROUNDS):
        tried = [
            [
                solve(one.rows, Prior(between, *slope), start=start)
                for slope, start in zip(SLOPES, of_class, strict=True)
            ]
            for one, of_class in zip(known, starts, strict=True)
        ]
        starts = [list(of_class) for of_class in tried]
        fits = _averaged(tried, np.full(len(SLOPES), 1 / len(SLOPES)))
        squares = sum((np.outer(fit.shift, fit.shift) + fit.covariance for fit in fits), PSEUDO_CLASSES * assumed)
        last, between = between, squares / (PSEUDO_CLASSES + len(fits))
        if np.abs(between - last).max() < 1e-4:
            break
    return between, fits


def _learn_residuals(known: list[_Class], between: Array) -> dict[int, Fit]:
    """The fit with a residual of each class that has labels enough, by its number."""
    learning = [number for number, one in enumerate(known) if one.x is not None]
    tried = []
    for number in learning:
        of_class: list[Fit] = []
        for slope in SLOPES:
            start = None
            for scale in SCALES:
                start = solve(known[number].rows, Prior(between, *slope, scale), known[number].x, start)
                of_class.append(start)
        tried.append(of_class)
    n = len(SLOPES) * len(SCALES)
    return dict(zip(learning, _averaged(tried, np.full(n, 1 / n)), strict=True))


def _averaged(tried: list[list[Fit]], assumed: Array) -> list[Fit]:
    """Each class's fits under several priors in one, weighted by how likely each prior is, given the class's rows and
    how often it holds among the classes (`assumed` is how often it does before any is seen)."""
    if not tried:
        return []
    evidence = np.array([[fit.evidence for fit in fits] for fits in tried])
    likelihood = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    share = assumed
    for _ in range(MAX_ROUNDS):
        chance = share * likelihood
        chance /= chance.sum(axis=1, keepdims=True)
        share = (chance.sum(axis=0) + PSEUDO_CLASSES * assumed) / (len(tried) + PSEUDO_CLASSES)
    return [_mixed(fits, weights) for fits, weights in zip(tried, chance, strict=True)]


def _mixed(fits: list[Fit], chance: Array) -> Fit:
    shifts = np.array([fit.shift for fit in fits])
    mean = chance @ shifts
    within = np.einsum("m,mab->ab", chance, np.array([fit.covariance for fit in fits]))
    covariance = within + (shifts - mean).T @ (chance[:, None] * (shifts - mean))
    residual = np.einsum("m,mda->da", chance, np.array([fit.residual for fit in fits]))
    slope, evidence = (float(chance @ [getattr(fit, name) for fit in fits]) for name in ("slope", "evidence"))
    return Fit(mean, slope, residual, covariance, evidence)


def _in_tiers(one: _Class, fit: Fit) -> tuple[float, Array, Array]:
    """Slope, offset [n_tiers] and residual [n_dense, n_tiers], of the base's logits and the design as they come."""
    slope = fit.slope if one.x is not None else max(fit.slope, LEAST_SLOPE)
    residual = one.turn @ fit.residual @ CONTRASTS.T
    centre = one.rows.centre - one.rows.centre.mean()
    offset = (1 - slope) * centre + CONTRASTS @ fit.shift - one.middle @ residual
    return slope, offset, residual
