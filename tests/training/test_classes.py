from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from training.build.arrays import Array
from training.retrain import classes, laplace
from training.retrain.classes import MIN_RESIDUAL, ClassModels
from training.retrain.regression import log_loss, softmax

N_DENSE = 12
BASE = np.array([1.2, -0.2, -1.0])
Rows = tuple[list[str], Array, npt.NDArray[np.float32], Array, Array]


def rows_of(
    sizes: dict[str, int], offsets: dict[str, Array] | None = None, seed: int = 0, pull: float = 0.0
) -> tuple[Rows, Array]:
    """Labels drawn from the base's logits plus each class's offset, and `pull` times the first column of the design;
    and the logits that they were drawn from."""
    chance = np.random.default_rng(seed)
    names = [name for name, size in sizes.items() for _ in range(size)]
    base = BASE + chance.normal(0, 0.7, (len(names), 3))
    dense = chance.normal(0, 1, (len(names), N_DENSE)).astype(np.float32)
    truth = base + np.array([(offsets or {}).get(name, np.zeros(3)) for name in names]).reshape(-1, 3)
    truth = truth + pull * dense[:, :1] * np.array([-1, 0, 1])
    drawn = (softmax(truth).cumsum(axis=1) < chance.random((len(names), 1))).sum(axis=1).clip(max=2)
    return (names, base, dense, np.eye(3)[drawn], np.ones(len(names))), truth


def drawn_offsets(n: int, spread: float, seed: int = 1) -> dict[str, Array]:
    """Offsets of n classes, of that standard deviation in either contrast."""
    drawn = np.random.default_rng(seed).normal(0, spread, (n, 2)) @ laplace.CONTRASTS.T
    return {f"app-{number:03}": offset for number, offset in enumerate(drawn)}


def p_of(model: ClassModels, rows: Rows) -> Array:
    return softmax(model.logits(rows[0], rows[1], rows[2]))


@pytest.mark.parametrize("spread", [0.25, 0.8])
def test_offsets_lie_within_their_stated_errors(spread: float) -> None:
    offsets = drawn_offsets(120, spread)
    rows, _ = rows_of(dict.fromkeys(offsets, 40), offsets)
    model = classes.learn(*rows)
    off = np.array([model.shifts[n] - offsets[name] for n, name in enumerate(model.names)])
    inside = np.abs(off) < 1.96 * model.errors
    assert 0.91 <= inside.mean() <= 0.99
    # shrunk offsets are nearer than none
    assert (off**2).mean() < np.mean([offset**2 for offset in offsets.values()])


@pytest.mark.parametrize(("spread", "least", "most"), [(0.1, 0.0, 0.15), (0.7, 0.5, 1.5), (1.2, 1.5, 3.5)])
def test_the_spread_between_classes_is_found(spread: float, least: float, most: float) -> None:
    """`between` adds up both contrasts, so it is twice the square of the spread."""
    offsets = drawn_offsets(60, spread, seed=4)
    model = classes.learn(*rows_of(dict.fromkeys(offsets, 45), offsets)[0])
    assert least < np.trace(model.between) < most


def test_alike_classes_are_shrunk_more_than_different_ones() -> None:
    """The same five labels move a class less where its neighbours agree with the base."""
    moved = []
    for spread in (0.05, 1.5):
        offsets = drawn_offsets(30, spread)
        known, _ = rows_of(dict.fromkeys(offsets, 45), offsets)
        few = (["new"] * 5, np.tile(BASE, (5, 1)), np.zeros((5, N_DENSE), np.float32), np.eye(3)[[2] * 5], np.ones(5))
        both = [[*known[0], *few[0]], *(np.concatenate([a, b]) for a, b in zip(known[1:], few[1:], strict=True))]
        model = classes.learn(*both)
        moved.append(model.shifts[model.names.index("new"), 2])
    assert 0 < moved[0] < moved[1] / 2


@pytest.mark.parametrize("tier", [0, 1, 2])
def test_one_label_does_not_move_much(tier: int) -> None:
    rows = (["app"], BASE[None], np.zeros((1, N_DENSE), np.float32), np.eye(3)[[tier]], np.ones(1))
    model = classes.learn(*rows)
    moved = p_of(model, rows)[0] - softmax(BASE[None])[0]
    assert 0 < moved[tier] < 0.1
    assert model.errors.min() > 0.2


def test_a_class_without_labels_is_the_base() -> None:
    rows, _ = rows_of({"app": 60, "": 60, "unsaid": 20}, {"app": np.array([-1.0, 0, 1.0])})
    weights = np.where(np.array(rows[0]) == "unsaid", 0.0, 1.0)
    model = classes.learn(*rows[:4], weights)
    assert model.names == ("app",)
    told = model.logits(["unsaid", "", "other", "app"], rows[1][:4], rows[2][:4])
    assert (told[:3] == rows[1][:3]).all()
    assert (told[3] != rows[1][3]).all()


def test_without_any_labels_nothing_is_known() -> None:
    model = classes.learn([], np.zeros((0, 3)), np.zeros((0, N_DENSE), np.float32), np.zeros((0, 3)), np.zeros(0))
    assert (model.names, model.residuals.shape, model.offsets.shape) == ((), (0, N_DENSE, 3), (0, 3))
    assert (model.logits(["a"], BASE[None], np.zeros((1, N_DENSE), np.float32)) == BASE).all()


@pytest.mark.parametrize(("n", "learns"), [(MIN_RESIDUAL - 1, False), (MIN_RESIDUAL, True)])
def test_the_residual_starts_at_fifty_labels(n: int, learns: bool) -> None:
    model = classes.learn(*rows_of({"app": n}, pull=2.0)[0])
    assert model.residuals.any() == learns
    assert model.counts.tolist() == [n]
    if not learns:
        assert model.slopes[0] > 0  # the base's order within the class stays


def test_texts_tell_where_the_base_does_not() -> None:
    pull = 2.0
    known, _ = rows_of({"app": 400}, {"app": np.array([-0.5, 0, 0.5])}, pull=pull)
    asked, truth = rows_of({"app": 2000}, {"app": np.array([-0.5, 0, 0.5])}, seed=9, pull=pull)
    model = classes.learn(*known)
    losses = [log_loss(z, asked[3], asked[4]) for z in (asked[1], model.logits(*asked[:3]), truth)]
    assert losses[2] < losses[1] < losses[0] - 0.8 * (losses[0] - losses[2])
    # calibrated within the class: the mean of each tier's probability is its share, in the lower and the upper half
    p = p_of(model, asked)
    for half in (p[:, 0] < np.median(p[:, 0]), p[:, 0] >= np.median(p[:, 0])):
        assert p[half].mean(axis=0) == pytest.approx(asked[3][half].mean(axis=0), abs=0.06)


def test_texts_that_do_not_tell_cost_nothing() -> None:
    """No worse than the base, within noise, where the base is right already and the design is noise."""
    known, _ = rows_of(dict.fromkeys("abcdef", 60))
    asked, _ = rows_of(dict.fromkeys("abcdef", 400), seed=5)
    model = classes.learn(*known)
    lost = log_loss(model.logits(*asked[:3]), asked[3], asked[4]) - log_loss(asked[1], asked[3], asked[4])
    assert lost < 0.03
    assert model.slopes.min() > 0.5


def test_a_base_that_ranks_wrongly_gives_way() -> None:
    names = [name for name in "abcd" for _ in range(200)]
    chance = np.random.default_rng(3)
    base = BASE + chance.normal(0, 1.5, (800, 3))
    dense = np.zeros((800, N_DENSE), np.float32)
    model = classes.learn(names, base, dense, np.eye(3)[chance.integers(0, 3, 800)], np.ones(800))
    assert np.abs(model.slopes).max() < 0.25


def test_shares_are_surer_than_draws_and_weights_do_not_make_rows() -> None:
    (names, base, dense, drawn, ones), truth = rows_of({"app": 40})
    errors = [
        classes.learn(names, base, dense, targets, weights).errors[0, 0]
        for targets, weights in ((drawn, ones), (softmax(truth), ones), (drawn, 5 * ones), (drawn, 0.2 * ones))
    ]
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] == pytest.approx(errors[0])
    assert errors[3] > 1.3 * errors[0]


def test_deterministic_and_rows_may_come_in_any_order() -> None:
    rows, _ = rows_of({"b": 70, "a": 10}, pull=1.0)
    one, same = classes.learn(*rows), classes.learn(*rows)
    for name in ("slopes", "offsets", "residuals", "covariances"):
        assert (getattr(one, name) == getattr(same, name)).all()
    order = np.random.default_rng(0).permutation(80)
    turned = classes.learn([rows[0][i] for i in order], *(part[order] for part in rows[1:]))
    assert turned.names == one.names == ("a", "b")
    np.testing.assert_allclose(turned.offsets, one.offsets, atol=1e-4)


def test_steps_end_at_the_most_probable_weights() -> None:
    """No weight can be moved for a better fit: the penalised loss rises in every direction."""
    (_, base, dense, targets, ones), _ = rows_of({"app": 60}, pull=1.0)
    rows = laplace.sample(base, targets, ones)
    prior, x = laplace.Prior(0.5 * np.eye(2), 1.0, 0.5, 0.7), dense.astype(float)
    fit = laplace.solve(rows, prior, x)

    def loss(shift: Array, slope: float, residual: Array) -> float:
        z = rows.centre + (shift + slope * rows.known + x @ residual) @ laplace.CONTRASTS.T
        pulled = shift @ shift / 0.5 + (slope - 1) ** 2 / 0.25 + (residual**2).sum() / 0.49
        return log_loss(z, targets, rows.weights) * rows.weights.sum() + pulled / 2

    least, chance = loss(fit.shift, fit.slope, fit.residual), np.random.default_rng(0)
    for _ in range(30):
        off = [1e-2 * chance.normal(size=shape) for shape in ((2,), (), fit.residual.shape)]
        assert loss(fit.shift + off[0], fit.slope + float(off[1]), fit.residual + off[2]) > least
