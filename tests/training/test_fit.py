from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from router import Tier
from router.classifier.features import STRUCTURE
from training.build import fit
from training.build.corpora import Rows

Problem = tuple[sparse.csr_matrix, Rows, np.ndarray]


def rows_of(n: int, required: np.ndarray) -> Rows:
    return Rows(
        ids=np.array([str(i) for i in range(n)]),
        texts=[""] * n,
        targets=np.eye(3)[required],
        weights=np.ones(n),
        sources=np.array(["tierwise_queries"] * n),
        datasets=np.array(["tierwise_queries"] * n),
        groups=np.array([str(i // 2) for i in range(n)]),
    )


@pytest.fixture(scope="module")
def problem() -> Problem:
    chance = np.random.default_rng(1)
    required = chance.integers(0, 3, 900)
    structure = chance.normal(5, 2, (900, len(STRUCTURE))) + required[:, None]
    tokens = chance.normal(0, 1, (900, 2)) + required[:, None] * np.array([0.5, 0])
    return sparse.csr_matrix(np.hstack([structure, tokens])), rows_of(900, required), required


def test_learns_and_calibrates(problem: Problem) -> None:
    x, rows, required = problem
    model = fit.fit(x, rows, fit.out_of_fold_logits(x, rows))
    p = model.p_required(x)
    assert np.allclose(p.sum(axis=1), 1)
    means = [p[required == k][:, 2].mean() for k in range(3)]
    assert means == sorted(means)
    # Calibrated to the traffic mix: weighted to it, the mean probability of a tier is its share.
    assert fit.mix_weights(required) @ p == pytest.approx(fit.TRAFFIC_MIX, abs=0.03)


def test_suffices_is_cumulative_and_ends_in_one() -> None:
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 100)
    q = fit.suffices(p)
    assert np.allclose(q[:, :2], p.cumsum(axis=1)[:, :2])
    assert (q[:, 2] == 1.0).all()


def test_folds_keep_groups_together(problem: Problem) -> None:
    _, rows, _ = problem
    fold = fit._folds(rows.groups)
    assert (fold[0::2] == fold[1::2]).all()
    assert set(fold) == set(range(fit.N_FOLDS))


def test_operating_points_meet_their_targets_on_other_rows(problem: Problem) -> None:
    x, rows, required = problem
    model = fit.fit(x, rows, fit.out_of_fold_logits(x, rows))
    points = fit.operating_points(model.p_suffices(x), np.eye(3)[required])
    assert list(points) == ["economy", "balanced", "quality"]
    for name, point in points.items():
        assert point.interval[0] <= point.achieved <= point.interval[1]
        assert point.achieved <= fit.TARGETS[name] + 0.05
        assert sum(point.shares.values()) == pytest.approx(1, abs=1e-3)
    prices = dict(zip(Tier, fit.RELATIVE_PRICE, strict=True))
    costs = [sum(prices[tier] * share for tier, share in point.shares.items()) for point in points.values()]
    assert costs == sorted(costs)


def test_mix_weights_reach_the_mix() -> None:
    required = np.array([0, 1, 1, 2, 2, 2, 2])
    weights = fit.mix_weights(required)
    assert [weights[required == k].sum() for k in range(3)] == pytest.approx(fit.TRAFFIC_MIX)


def test_structure_bends_at_the_knots_and_is_not_extrapolated() -> None:
    n = len(STRUCTURE)
    x = sparse.csr_matrix(np.array([[-1.0], [0.5], [fit.REACH], [50.0]]) * np.ones(n))
    bent = fit.design(x, np.zeros(n), np.ones(n)).toarray()[:, ::n] / fit.STRUCTURE_SCALE
    assert bent[:, 0].tolist() == pytest.approx([-1.0, 0.5, fit.REACH, fit.REACH])
    for column, knot in enumerate(fit.KNOTS, start=1):
        assert bent[:, column] == pytest.approx(np.maximum(bent[:, 0] - knot, 0))
