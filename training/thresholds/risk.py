"""What a number of observed losses proves: exact binomial tests, and Hoeffding-Bentkus where a loss is not 0 or 1.

Learn-then-Test (https://arxiv.org/abs/2110.01052, read 2026-11-25) needs one valid p-value a threshold and fixed-
sequence testing along an order that was chosen on other rows. Written here rather than taken from MAPIE 1.6, whose risk
control tunes one threshold of a binary decision: here are two thresholds over three tiers, and labels whose mix of
tiers is not the traffic's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, e, exp, log

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr
from scipy.stats import binom

from training.build.arrays import Array, Ints

MAX_FACTOR = 20.0
"""How many times the rows at hand are still worth asking for."""

_GRID = 41
_EPS = 1e-9


@dataclass(frozen=True)
class Evidence:
    """Losses in [0, 1] of independent rows in one stratum or two: sum, number, and the stratum's share of traffic.

    The risk is sum(share * mean loss). Shares need not sum to 1: what is left cannot lose. `binary` says that every
    loss is 0 or 1; two strata must be.
    """

    total: tuple[float, ...]
    n: tuple[int, ...]
    share: tuple[float, ...] = (1.0,)
    binary: bool = True

    @classmethod
    def of(cls, loss: Array, strata: Ints | None = None, mix: tuple[float, ...] = ()) -> Evidence:
        """From losses [n]; with a mix, from losses by required tier, of which the lowest cannot lose."""
        if strata is None:
            return cls((float(loss.sum()),), (len(loss),), (1.0,), bool(np.isin(loss, (0, 1)).all()))
        kept = [k for k in range(1, len(mix)) if mix[k] > 0]
        return cls(
            tuple(float(loss[strata == k].sum()) for k in kept),
            tuple(int((strata == k).sum()) for k in kept),
            tuple(mix[k] for k in kept),
        )

    @property
    def mean(self) -> float:
        """The risk as observed."""
        return sum(s * t / max(n, 1) for s, t, n in zip(self.share, self.total, self.n, strict=True))

    def scaled(self, factor: float) -> Evidence:
        """The same rates on `factor` times as many rows."""
        n = tuple(ceil(n * factor) for n in self.n)
        total = tuple(t * m / max(k, 1) for t, m, k in zip(self.total, n, self.n, strict=True))
        return Evidence(tuple(np.ceil(t - _EPS) if self.binary else t for t in total), n, self.share, self.binary)

    def p_value(self, target: float) -> float:
        """P(losses as few as these, or fewer) were the risk `target` or more: small says that the risk is below it."""
        if target <= 0 or not all(self.n):
            return 1.0
        if target > sum(self.share):
            return 0.0
        if len(self.n) == 1:
            one = target / self.share[0]
            return _binomial(self.total[0], self.n[0], one) if self.binary else _bounded(self.total[0], self.n[0], one)
        return _two_strata(self, target)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided interval of the risk, by inverting the tests."""
        most, level = sum(self.share), (1 - confidence) / 2
        rest = Evidence(tuple(n - t for t, n in zip(self.total, self.n, strict=True)), self.n, self.share, self.binary)
        return most - rest._upper(level), self._upper(level)

    def _upper(self, level: float) -> float:
        most = sum(self.share)
        if self.p_value(most) > level or not all(self.n):
            return most
        low = min(self.mean, most)
        if self.p_value(low + _EPS) <= level:
            return low
        return float(brentq(lambda risk: self.p_value(risk) - level, low + _EPS, most, xtol=1e-5))


def rows_needed(evidence: Evidence, target: float, level: float) -> float | None:
    """How many times these rows would prove a risk below `target`, if the rates stayed; None above MAX_FACTOR."""
    if evidence.mean >= target:
        return None
    factor = 1.0
    while evidence.scaled(factor).p_value(target) > level:
        factor *= 1.05
        if factor > MAX_FACTOR:
            return None
    return factor


def first_failure(evidence: list[Evidence], target: float, level: float) -> int:
    """Fixed-sequence testing: the number of hypotheses rejected, in the given order, before the first that is not."""
    return next((i for i, seen in enumerate(evidence) if seen.p_value(target) > level), len(evidence))


def _binomial(total: float, n: int, target: float) -> float:
    return float(bdtr(round(total), n, min(target, 1.0)))


def _bounded(total: float, n: int, target: float) -> float:
    """Hoeffding-Bentkus, for losses anywhere in [0, 1]."""
    mean, target = total / n, min(target, 1.0)
    if mean >= target:
        return 1.0
    if target == 1:
        return 0.0
    hoeffding = exp(-n * _divergence(mean, target))
    return min(hoeffding, e * float(bdtr(ceil(total - _EPS), n, target)), 1.0)


def _divergence(a: float, b: float) -> float:
    left = a * log(a / b) if a > 0 else 0.0
    right = (1 - a) * log((1 - a) / (1 - b)) if a < 1 and b < 1 else 0.0
    return left + right


def _two_strata(seen: Evidence, target: float) -> float:
    """The largest P(share-weighted mean <= the observed one) over the rates that make the risk `target`.

    Exact but for the grid over the first rate: 41 points, where 401 change it by less than 1e-4.
    """
    (n1, n2), (s1, s2) = seen.n, seen.share
    low, high = max(0.0, (target - s2) / s1), min(1.0, target / s1)
    rate1 = np.linspace(min(low, high), high, _GRID)[:, None]
    rate2 = np.clip((target - s1 * rate1) / s2, 0, 1)
    most = min(n1, int(np.floor(seen.mean * n1 / s1 + _EPS)))
    k1 = np.arange(most + 1)[None, :]
    k2 = np.floor((seen.mean - s1 * k1 / n1) * n2 / s2 + _EPS)
    below = np.where(k2 < 0, 0.0, bdtr(np.clip(k2, 0, n2), n2, rate2))
    return float((binom.pmf(k1, n1, rate1) * below).sum(axis=1).max())
