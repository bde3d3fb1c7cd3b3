from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from scipy import sparse

from router import Tier
from router.classifier.features import STRUCTURE
from training.build import fit
from training.build.training_set import Rows

Problem = tuple[sparse.csr_matrix, Rows, np.ndarray]


def rows_of(n: int, required: np.ndarray) -> Rows:
    return Rows(
        ids=np.array([str(i) for i in range(n)]),
        texts=[""] * n,
        targets=np.eye(3)[required],
        weights=np.ones(n),
        sources=np.array(["tierwise_queries"] * n),
        datasets=np.array(["arena_a", "arena_b", "oasst_a"] * (n // 3)),
        groups=np.array([str(i // 2) for i in range(n)]),
        real=np.ones(n, bool),
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
    model, logits = fit.fit(x, rows)
    p = model.p_required(x)
    assert np.allclose(p.sum(axis=1), 1)
    means = [p[required == k][:, 2].mean() for k in range(3)]
    assert means == sorted(means)
    # Calibrated on the left-out logits: weighted evenly, the mean probability of a tier is its share.
    weights = fit.even_weights(rows.datasets)
    shares = [np.average(required == k, weights=weights) for k in range(3)]
    assert np.average(model.calibrated(logits), axis=0, weights=weights) == pytest.approx(shares, abs=0.01)


def test_a_family_of_data_sets_is_left_out_whole(problem: Problem) -> None:
    x, rows, _ = problem
    logits = fit.left_out_logits(x, rows)
    arena = np.char.startswith(rows.datasets, "arena")
    changed = dataclasses.replace(
        rows, targets=np.where(arena[:, None], np.roll(rows.targets, 1, axis=1), rows.targets)
    )
    again = fit.left_out_logits(x, changed)
    assert (logits[arena] == again[arena]).all()
    assert np.abs(logits[~arena] - again[~arena]).max() > 0.1


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
    model, _ = fit.fit(x, rows)
    points = fit.operating_points(model.p_suffices(x), np.eye(3)[required], np.ones(len(rows)), "these")
    assert list(points) == ["economy", "balanced", "quality"]
    for name, point in points.items():
        assert point.interval[0] <= point.achieved <= point.interval[1]
        assert point.achieved <= fit.TARGETS[name] + 0.05
        assert sum(point.shares.values()) == pytest.approx(1, abs=1e-3)
    prices = dict(zip(Tier, fit.RELATIVE_PRICE, strict=True))
    costs = [sum(prices[tier] * share for tier, share in point.shares.items()) for point in points.values()]
    assert costs == sorted(costs)


def test_no_threshold_is_below_the_bases(problem: Problem) -> None:
    _, rows, required = problem
    p = 0.1 + 0.2 * np.eye(3)[required].cumsum(axis=1)  # told apart, and all below the bounds
    q, targets, weights = p, np.eye(3)[required], np.ones(len(rows))
    free = fit.operating_points(q, targets, weights, "these")
    least = {Tier.SIMPLE: 0.7, Tier.MODERATE: 0.8}
    base = {name: msgspec.structs.replace(point, thresholds=least) for name, point in free.items()}
    held = fit.operating_points(q, targets, weights, "these", base)
    for name, point in held.items():
        assert all(point.thresholds[tier] >= bound for tier, bound in least.items())
        assert any(free[name].thresholds[tier] < bound for tier, bound in least.items())


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
