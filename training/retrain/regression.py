"""Fit the user's labels with the shipped model as prior, over shards of rows, so that memory does not grow with them.

    logits = base logits @ a + design(text) @ w + b

with w drawn towards 0 and a towards the identity: without labels it is the base. Every part is linear in what the base
reads, so it folds into an artifact of the same form. The gradient is summed over shards of encoded rows: 1,500 rows or
1,000,000 take the same path, the latter from the cache on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize

from router.classifier.features import STRUCTURE
from training.build.arrays import Array, Ints
from training.build.corpora import N_TIERS
from training.build.embedding import EMBEDDING_SCALE, Embedding
from training.build.export import Unfolded
from training.build.fit import KNOTS, Classifier, Linear, design

PENALTIES = (1.0, 3.0, 10.0)
"""Candidates for the pull of w towards 0; the out-of-fold loss chooses."""

PRIOR_PENALTY = 1.0
"""The pull of a towards the identity: weak, since a prior that ranks a domain wrongly must give way (at 100 labels,
APGR .550, .631 and .571 on routerbench_subset, routerdc_7models and bfcl_v1, against .530, .577 and .514 with 10)."""

BIAS_PENALTY = 0.01
"""Keeps b finite where a tier never occurs among the labels."""

MIN_TOKEN_LABELS = 300
"""From so many labels on the tokens' own weights are learned too; the embedding stays as it is."""

N_BENT = len(STRUCTURE) * (1 + len(KNOTS))


@dataclass(frozen=True)
class Shard:
    """Encoded texts: `dense` float32 [n, N_BENT + DIMENSIONS], the design's bent structure and embedded sum; tokens
    `ids` int32 [n_ids], of which row i has ids[ends[i]:ends[i + 1]]; `inverse` float64 [n], 1 over the idf vector's
    length.
    """

    dense: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    inverse: Array

    def __len__(self) -> int:
        return len(self.inverse)

    def bag(self, n_tokens: int) -> sparse.csr_matrix:
        """A 1 for each distinct token, [n, n_tokens]."""
        return sparse.csr_matrix((np.ones(len(self.ids)), self.ids, self.ends), shape=(len(self), n_tokens))

    def take(self, rows: Ints) -> Shard:
        """These rows, in this order."""
        sizes = (self.ends[1:] - self.ends[:-1])[rows]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        at = np.arange(ends[-1]) - np.repeat(ends[:-1] - self.ends[rows], sizes)
        return Shard(self.dense[rows], self.ids[at], ends, self.inverse[rows])


def join(shards: Sequence[Shard]) -> Shard:
    """One shard with the rows of all."""
    offsets = np.cumsum([0, *(len(shard.ids) for shard in shards)])
    ends = [shard.ends[1:] + offset for shard, offset in zip(shards, offsets, strict=False)]
    return Shard(
        np.concatenate([shard.dense for shard in shards]),
        np.concatenate([shard.ids for shard in shards]),
        np.concatenate([[0], *ends]),
        np.concatenate([shard.inverse for shard in shards]),
    )


def encode(texts: list[str], base: Unfolded) -> Shard:
    """What the fit needs of texts: the same numbers as fit.design of Embedding.features, not multiplied out."""
    structure, bag = base.embedding.bag(texts)
    inverse = 1 / np.sqrt(np.maximum(bag @ base.embedding.idf.astype(np.float64) ** 2, 1.0))
    bent = design(sparse.csr_matrix(structure), base.classifier.mean, base.classifier.scale).toarray()
    embedded = EMBEDDING_SCALE * inverse[:, None] * (bag @ base.embedding.table.astype(np.float64))
    dense = np.hstack([bent, embedded]).astype(np.float32)
    return Shard(dense, bag.indices.astype(np.int32), bag.indptr.astype(np.int64), inverse)


@dataclass(frozen=True)
class LinearMap:
    """A linear map from a design to logits: of its dense part, of each token, float64 [.., N_TIERS], and the bias."""

    dense: Array
    tokens: Array
    bias: Array


def of_base(base: Unfolded) -> LinearMap:
    """The base's calibrated logits as a linear map."""
    model, calibration = base.classifier.regression, base.classifier.calibration
    dense, tokens = np.split(model.coef.T @ calibration.coef.T, [N_BENT + base.embedding.codes.shape[1]])
    return LinearMap(dense, tokens, model.intercept @ calibration.coef.T + calibration.intercept)


def logits(linear: LinearMap, embedding: Embedding, shards: Sequence[Shard]) -> Array:
    """float64 [n_rows, N_TIERS] of all rows of the shards."""
    by_token = embedding.idf.astype(np.float64)[:, None] * linear.tokens
    return np.concatenate([np.zeros((0, N_TIERS)), *(_logits(s, linear.dense, by_token, linear.bias) for s in shards)])


def fit(
    base: Unfolded, shards: Sequence[Shard], prior: Array, targets: Array, weights: Array, penalty: float
) -> LinearMap:
    """The map that best explains `targets` [n_rows, N_TIERS] with row `weights`; `prior` are the base's logits.

    A row of weight 0 takes no part. The last shard is the rehearsal: its own tokens learn nothing. Deterministic.
    """
    starts = np.cumsum([0, *(len(shard) for shard in shards)])
    n_tokens, n_dimensions = base.embedding.codes.shape
    active = np.unique(np.concatenate([np.unique(shards[number].ids) for number in range(len(shards) - 1)]))
    if np.count_nonzero(weights) < MIN_TOKEN_LABELS:
        active = active[:0]
    idf = base.embedding.idf[active].astype(np.float64)[:, None]
    shapes = [(N_BENT + n_dimensions, N_TIERS), (len(active), N_TIERS), (N_TIERS, N_TIERS), (N_TIERS,)]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    start = np.zeros(ends[-1])
    start[ends[1] : ends[2]] = np.eye(N_TIERS).ravel()
    pull = np.repeat([penalty, penalty, PRIOR_PENALTY, BIAS_PENALTY], np.diff(ends, prepend=0))

    def unpack(theta: Array) -> list[Array]:
        return [part.reshape(shape) for part, shape in zip(np.split(theta, ends[:-1]), shapes, strict=True)]

    def loss(theta: Array) -> tuple[float, Array]:
        dense, tokens, a, b = unpack(theta)
        by_token = np.zeros((n_tokens, N_TIERS))
        by_token[active] = idf * tokens
        total = 0.5 * float(pull @ (theta - start) ** 2)
        slopes = [np.zeros(shape) for shape in (shapes[0], (n_tokens, N_TIERS), *shapes[2:])]
        for number, shard in enumerate(shards):
            part = slice(starts[number], starts[number + 1])
            z = _logits(shard, dense, by_token, b) + prior[part] @ a
            cross_entropy, slope = _softmax_loss(z, targets[part], weights[part])
            total += cross_entropy
            slopes[0] += shard.dense.T @ slope.astype(np.float32)
            slopes[1] += shard.bag(n_tokens).T @ (shard.inverse[:, None] * slope) if len(active) else 0
            slopes[2] += prior[part].T @ slope
            slopes[3] += slope.sum(axis=0)
        slopes[1] = idf * slopes[1][active]
        return total, np.concatenate([slope.ravel() for slope in slopes]) + pull * (theta - start)

    solution = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 60, "ftol": 1e-5})
    dense, tokens, a, b = unpack(solution.x)
    own = of_base(base)
    by_token = own.tokens @ a
    by_token[active] += tokens
    return LinearMap(own.dense @ a + dense, by_token, own.bias @ a + b)


def _logits(shard: Shard, dense: Array, by_token: Array, bias: Array) -> Array:
    of_tokens = shard.inverse[:, None] * (shard.bag(len(by_token)) @ by_token)
    return np.asarray((shard.dense @ dense.astype(np.float32)).astype(np.float64) + of_tokens + bias)


def calibrate(z: Array, targets: Array, weights: Array) -> tuple[Array, Array]:
    """(a, b) such that softmax(z @ a + b) is calibrated on these rows; near the identity on few."""
    start = np.concatenate([np.eye(N_TIERS).ravel(), np.zeros(N_TIERS)])

    def loss(theta: Array) -> tuple[float, Array]:
        a, b = theta[:-N_TIERS].reshape(N_TIERS, N_TIERS), theta[-N_TIERS:]
        cross_entropy, slope = _softmax_loss(z @ a + b, targets, weights)
        to_identity = a - np.eye(N_TIERS)
        penalty = PRIOR_PENALTY / 2 * float((to_identity**2).sum()) + BIAS_PENALTY / 2 * float((b**2).sum())
        gradient = (z.T @ slope + PRIOR_PENALTY * to_identity).ravel(), slope.sum(axis=0) + BIAS_PENALTY * b
        return cross_entropy + penalty, np.concatenate(gradient)

    theta = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return theta[:-N_TIERS].reshape(N_TIERS, N_TIERS), theta[-N_TIERS:]


def classifier(base: Unfolded, linear: LinearMap, calibration: tuple[Array, Array]) -> Classifier:
    """The map and its calibration in the form that artifacts are folded from."""
    coef = np.vstack([linear.dense, linear.tokens]).T
    a, b = calibration
    model = base.classifier
    return Classifier(model.mean, model.scale, Linear(coef, linear.bias), Linear(a.T, b))


def softmax(z: Array) -> Array:
    """Rows of probabilities."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def log_loss(z: Array, targets: Array, weights: Array) -> float:
    """Mean cross-entropy of logits, in nats."""
    return _softmax_loss(z, targets, weights)[0] / float(weights.sum())


def _softmax_loss(z: Array, targets: Array, weights: Array) -> tuple[float, Array]:
    """Weighted cross-entropy of softmax(z), and its slope in z."""
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -float(weights @ (targets * log_p).sum(axis=1))
    return loss, weights[:, None] * (np.exp(log_p) - targets)
