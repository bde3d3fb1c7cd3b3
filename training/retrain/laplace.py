"""A multinomial regression with Gaussian priors, its most probable weights and its evidence, for a few hundred rows.

    logits = centre + CONTRASTS @ (shift + slope * known + x @ residual)

`known` [n, 2] are the base's logits about `centre`, in contrasts. Shift, slope and residual have independent Gaussian
priors. Newton's method; the evidence is the Laplace approximation of the log marginal likelihood (Rasmussen and
Williams, Gaussian Processes for Machine Learning, section 3.4: https://gaussianprocess.org/gpml/).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from training.build.arrays import Array
from training.retrain import regression

CONTRASTS = np.array([[-1.0, 0.0, 1.0], [1.0, -2.0, 1.0]]).T / np.sqrt([2.0, 6.0])
"""Harder, and away from the middle: the two directions in which logits of three tiers can differ, [n_tiers, 2]."""

DRAWN_ROWS = 5.0
"""How many rows' variance of drawn tiers is assumed before any row is seen."""

MAX_STEPS = 50
TOLERANCE = 1e-8


@dataclass(frozen=True)
class Sample:
    """Rows of one class. `centre` [n_tiers] and `known` [n, 2] as above; `targets` [n, n_tiers]; `weights` [n]."""

    centre: Array
    known: Array
    targets: Array
    weights: Array


@dataclass(frozen=True)
class Prior:
    """`shift` [2, 2] is the covariance of the shift about 0; the slope has `slope` as mean and `slope_error` as
    standard deviation, each weight of the residual 0 and `scale`."""

    shift: Array
    slope: float
    slope_error: float
    scale: float = 1.0


@dataclass(frozen=True)
class Fit:
    """The most probable `shift` [2], `slope` and `residual` [n_features, 2]; `covariance` [2, 2] of the shift, given
    the rows; the logarithm of their probability, the `evidence`."""

    shift: Array
    slope: float
    residual: Array
    covariance: Array
    evidence: float


def sample(logits: Array, targets: Array, weights: Array) -> Sample:
    """Rows as the fit takes them. Raises nothing; at least one weight must be above 0.

    A weight below 1 says that a row is worth less, but weights of 3 do not make three rows of one: their sum is kept
    within Kish's effective number of rows, (sum w)^2 / sum w^2. And where targets are shares, not tiers, their mean is
    known better than from so many draws: the variance of the targets over that of draws divides the weights.
    """
    total = float(weights.sum())
    scaled = weights * min(1.0, total / float((weights**2).sum()))
    centre = np.average(logits, axis=0, weights=scaled)
    mean = np.average(targets, axis=0, weights=scaled)
    drawn = float(scaled.sum() * (1 - (mean**2).sum()))
    seen = float(scaled @ ((targets - mean) ** 2).sum(axis=1))
    dispersion = (seen + DRAWN_ROWS) / (drawn + DRAWN_ROWS)
    return Sample(centre, (logits - centre) @ CONTRASTS, targets, scaled / dispersion)


def solve(rows: Sample, prior: Prior, x: Array | None = None, start: Fit | None = None) -> Fit:
    """The fit; `x` float64 [n, n_features] or None without a residual. `start` saves steps. Deterministic."""
    f = np.ones((len(rows.known), 1)) if x is None else np.hstack([np.ones((len(x), 1)), x])
    of_shift = np.linalg.inv(prior.shift)
    mean, pull, at = _prior_of(prior, f.shape[1])
    theta = mean.copy() if start is None else _joined(start, f.shape[1])

    def pulled(theta: Array) -> Array:
        slope = pull * (theta - mean)
        slope[at] += of_shift @ theta[at]
        return slope

    def loss(theta: Array) -> tuple[float, Array]:
        z = rows.centre + (f @ theta[:-1].reshape(2, -1).T + theta[-1] * rows.known) @ CONTRASTS.T
        cross_entropy = regression.log_loss(z, rows.targets, rows.weights) * float(rows.weights.sum())
        return cross_entropy + 0.5 * float((theta - mean) @ pulled(theta)), regression.softmax(z)

    def factor(p: Array) -> tuple[Array, bool]:
        precision = _curvature(f, rows, p)
        precision[np.diag_indices_from(precision)] += pull
        precision[np.ix_(at, at)] += of_shift
        return cho_factor(precision, lower=True, overwrite_a=True, check_finite=False)

    value, p = loss(theta)
    for _ in range(MAX_STEPS):
        off = rows.weights[:, None] * ((p - rows.targets) @ CONTRASTS)
        gradient = np.append((off.T @ f).ravel(), (off * rows.known).sum()) + pulled(theta)
        step, before = cho_solve(factor(p), gradient), value
        value, p = loss(theta - step)
        while value > before + TOLERANCE and np.abs(step).max() > TOLERANCE:
            step = step / 2
            value, p = loss(theta - step)
        theta = theta - step
        if before - value < TOLERANCE * (1 + abs(value)):
            break
    posterior = factor(p)
    covariance = cho_solve(posterior, np.eye(len(theta))[:, at])[at]
    log_prior = float(np.log(pull[pull > 0]).sum()) + float(np.linalg.slogdet(of_shift)[1])
    evidence = -value - float(np.log(np.diag(posterior[0])).sum()) + 0.5 * log_prior
    weights = theta[:-1].reshape(2, -1)
    return Fit(weights[:, 0], float(theta[-1]), weights[:, 1:].T, covariance, evidence)


def _prior_of(prior: Prior, n_features: int) -> tuple[Array, Array, list[int]]:
    """Mean and pull (0 for the shift, which is pulled together) of all weights, and where the shift is among them.

    The order: the features' weights of the first contrast, the first being the shift, those of the second, the slope.
    """
    mean = np.zeros(2 * n_features + 1)
    mean[-1] = prior.slope
    pull = np.full(2 * n_features + 1, prior.scale**-2)
    pull[-1] = prior.slope_error**-2
    at = [0, n_features]
    pull[at] = 0.0
    return mean, pull, at


def _joined(fit: Fit, n_features: int) -> Array:
    """The weights of an earlier fit, in that order."""
    weights = np.zeros((2, n_features))
    weights[:, 0] = fit.shift
    weights[:, 1:] = fit.residual.T
    return np.append(weights.ravel(), fit.slope)


def _curvature(f: Array, rows: Sample, p: Array) -> Array:
    """The second derivative of the loss, without the prior's."""
    along = p @ CONTRASTS
    of_row = np.einsum("nk,ka,kb->nab", p, CONTRASTS, CONTRASTS) - along[:, :, None] * along[:, None, :]
    of_row *= rows.weights[:, None, None]
    first, second, both = (f.T @ (of_row[:, a, b, None] * f) for a, b in ((0, 0), (1, 1), (0, 1)))
    by_known = np.einsum("nab,nb->na", of_row, rows.known)
    edge = (by_known.T @ f).reshape(-1, 1)
    corner = np.full((1, 1), (by_known * rows.known).sum())
    return np.block([[np.block([[first, both], [both.T, second]]), edge], [edge.T, corner]])
