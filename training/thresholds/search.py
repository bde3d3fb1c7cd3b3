"""The search for the cheapest operating point that meets a target with a stated confidence.

The rows are split once, at random: on a quarter of them the thresholds are put in order from safe to cheap; on a half
that order is walked by fixed-sequence testing (Learn-then-Test) until a test fails, so that the chosen point misses its
target with probability 1 - confidence at most; what is reported comes from the last quarter, which neither saw.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from router.classifier.artifact import OperatingPoint
from router.simulate import workload as workloads
from router.types import Tier
from training.build.arrays import Array
from training.build.fit import route
from training.thresholds import risk
from training.thresholds.risk import Evidence
from training.thresholds.tradeoff import NEVER, Problem, Refused, frontier

MAX_SHARE_WIDTH = 0.05
"""A share target is refused when unseen rows tell a tier's share less exactly than this, either way."""

MAX_TIE = 0.02
"""A share target is refused, too, when no thresholds divide the rows as wanted to within this."""

NO_SAVING = 0.995
"""A point that costs more than this part of the top tier's is none."""

WORTHWHILE = 0.05
"""How much cheaper a point must be for its labels to be worth asking for."""

_Selected = tuple[tuple[float, float], int | None, float | None]
_TARGET = re.compile(r"(quality|cost|share)\s*(>=|<=|=)\s*(.+)")


@dataclass(frozen=True)
class Target:
    """`kind` is quality (1 - the risk, at least `values[0]`), cost (of the top tier's, at most) or share (by tier)."""

    kind: str
    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Target:
        """Raises ValueError, naming what was expected."""
        found = _TARGET.fullmatch(text.strip())
        operators = {"quality": ">=", "cost": "<=", "share": "="}
        if found is None or operators[found[1]] != found[2]:
            raise ValueError(f"{text!r}: expected quality>=0.97, cost<=0.4 or share=70,20,10")
        if found[1] == "share":
            return cls("share", workloads.shares(found[3]))
        try:
            value = float(found[3])
        except ValueError:
            value = np.nan
        if not 0 < value < 1:
            raise ValueError(f"{text!r}: expected a number between 0 and 1, such as {found[1]}{found[2]}0.9")
        return cls(found[1], (value,))

    def __str__(self) -> str:
        if self.kind == "share":
            return "share = " + ", ".join(f"{value:.0%}" for value in self.values)
        return f"{self.kind} {'>=' if self.kind == 'quality' else '<='} {self.values[0]:g}"


@dataclass(frozen=True)
class Choice:
    """A point with its evidence: risk, interval, shares and cost are of rows that the choice did not see.

    `more_rows` further labels would prove a point at `next_cost`, if its loss stayed; None: more than is worth asking.
    """

    target: Target
    confidence: float
    thresholds: tuple[float, float]
    n_rows: int
    n_proof: int
    n_unseen: int
    risk: float
    interval: tuple[float, float]
    proof_risk: float
    shares: tuple[float, ...]
    share_intervals: tuple[tuple[float, float], ...]
    cost: float
    cost_interval: tuple[float, float]
    more_rows: int | None = None
    next_cost: float | None = None

    @property
    def claim(self) -> str:
        """What was asked for and is now known."""
        known = f", each known to {MAX_SHARE_WIDTH:.0%} either way" if self.target.kind == "share" else ""
        return f"{self.target}{known} with {self.confidence:.0%} confidence"

    def point(self, source: str, artifact: str) -> OperatingPoint:
        """As it is written, for settings or a manifest."""
        return OperatingPoint(
            thresholds={tier: _rounded_up(t) for tier, t in zip(Tier, self.thresholds, strict=False)},
            target=self.claim,
            achieved=round(self.risk, 4),
            interval=(round(self.interval[0], 4), round(self.interval[1], 4)),
            shares={tier: round(share, 4) for tier, share in zip(Tier, self.shares, strict=True)},
            split=f"{source}: proved on {self.n_proof} rows, figures from {self.n_unseen} that tuning did not see",
            confidence=self.confidence,
            n_rows=self.n_rows,
            cost=round(self.cost, 4),
            artifact=artifact,
        )


def _rounded_up(threshold: float) -> float:
    """Six digits, never below: no row more goes down than was proved. NEVER is 1, the most that settings take."""
    return min(ceil(threshold * 1e6 - 1e-6) / 1e6, 1.0)


def choose_point(problem: Problem, target: Target, confidence: float, seed: int = 0) -> Choice:
    """The cheapest point that meets the target with that confidence. Raises Refused, saying what would be needed."""
    thresholds, more_rows, next_cost = choose_thresholds(problem, target, confidence, seed)
    _, proof, unseen = problem.split(seed)
    seen = unseen.evidence(thresholds)
    share_draws = unseen.share_draws(thresholds)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    choice = Choice(
        target, confidence, thresholds, len(problem), len(proof), len(unseen), seen.mean, seen.interval(confidence),
        proof.evidence(thresholds).mean, tuple(unseen.shares(thresholds).tolist()),
        tuple(map(tuple, np.quantile(share_draws, tails, axis=0).T.tolist())),
        problem.costs.at(unseen.shares(thresholds)),
        tuple(np.quantile([problem.costs.at(shares) for shares in share_draws[:200]], tails).tolist()),
        more_rows, next_cost,
    )  # fmt: skip
    if target.kind == "share":
        _check_shares(choice)
    return choice


def choose_thresholds(problem: Problem, target: Target, confidence: float, seed: int = 0) -> _Selected:
    """The thresholds alone; how many more labels would prove a cheaper point, and its cost. Raises Refused."""
    path_rows, proof, unseen = problem.split(seed)
    if min(len(path_rows), len(proof), len(unseen)) < 5:
        raise Refused(f"{len(problem)} labels are too few to split in three; give at least 20")
    pick = {"quality": _for_quality, "cost": _for_cost, "share": _for_share}[target.kind]
    return pick(path_rows, proof, target, 1 - confidence, len(problem))


def walk_frontier(problem: Problem, target: Target, confidence: float, seed: int = 0) -> list[dict[str, Any]]:
    """The test of a quality target, point by point from safe to cheap: loss on the proof's rows, p-value, verdict."""
    path_rows, proof, _ = problem.split(seed)
    limit, steps, proved = 1 - target.values[0], [], True
    for thresholds in frontier(path_rows):
        seen = proof.evidence(thresholds)
        p_value = seen.p_value(limit)
        proved = proved and p_value <= 1 - confidence
        cost = proof.costs.at(proof.shares(thresholds))
        row = {"thresholds": thresholds, "cost": cost, "quality": 1 - seen.mean, "p_value": p_value, "proved": proved}
        steps.append(row)
    return steps


def _for_quality(path_rows: Problem, proof: Problem, target: Target, level: float, n: int) -> _Selected:
    limit = 1 - target.values[0]
    path = frontier(path_rows)
    seen = [proof.evidence(thresholds) for thresholds in path]
    proved = risk.first_failure(seen, limit, level)
    at = [proof.costs.at(proof.shares(thresholds)) for thresholds in path]
    best = min(range(proved), key=at.__getitem__, default=None)
    if best is None or at[best] > NO_SAVING:
        failed = seen[min(proved, len(seen) - 1)]
        raise _refusal(_why_not(target, level, proof, failed, n), target, level, seen, at)
    return path[best], *_next(proved, seen, [limit] * len(path), at, at[best] * (1 - WORTHWHILE), level, n)


def _next(
    first: int, seen: list[Evidence], limits: list[float], at: list[float], wanted: float, level: float, n: int
) -> tuple[int | None, float | None]:
    """The further labels that would prove the points from `first` to one that costs at most `wanted`, and its cost."""
    most = 1.0
    for evidence, limit, cost in zip(seen[first:], limits[first:], at[first:], strict=True):
        factor = risk.rows_needed(evidence, limit, level)
        if factor is None:
            break
        most = max(most, factor)
        if cost <= wanted:
            return round((most - 1) * n), cost
    return None, None


def _refusal(why: str, target: Target, level: float, seen: list[Evidence], at: list[float]) -> Refused:
    """With the highest quality below the target, in hundredths, that the same rows do support and that saves money."""
    for hundredths in range(ceil(100 * target.values[0] - 1e-9) - 1, 49, -1):
        proved = risk.first_failure(seen, 1 - hundredths / 100, level)
        cost = min(at[:proved], default=1.0)
        if cost <= NO_SAVING:
            lower = Target("quality", (hundredths / 100,))
            return Refused(f"{why}; {lower} is supported, at a cost of {cost:.2f}", str(lower))
    return Refused(why)


def _why_not(target: Target, level: float, proof: Problem, failed: Evidence, n: int) -> str:
    limit = 1 - target.values[0]
    flawless = Evidence(tuple(0.0 for _ in failed.n), failed.n, failed.share, failed.binary)
    if flawless.p_value(limit) > level:
        factor = risk.rows_needed(flawless, limit, level)
        least = f"about {factor * n:,.0f}" if factor else f"more than {risk.MAX_FACTOR * n:,.0f}"
        why = f"even without one loss {len(proof):,} rows of proof could not show it: {least} labels are the least"
    else:
        why = f"sending anything below the top tier already loses {failed.mean:.1%} of {len(proof):,} rows; "
        factor = risk.rows_needed(failed, limit, level)
        more = f"about {(factor - 1) * n:,.0f} more labels would prove that" if factor else ""
        why += more or "better scores or a lower target would help"
    return f"these labels cannot support {target} with {1 - level:.0%} confidence: {why}. The top tier alone meets it"


def _for_cost(path_rows: Problem, proof: Problem, target: Target, level: float, n: int) -> _Selected:
    path = frontier(path_rows)[::-1]
    rows = proof.to_mix()
    seen, limits = [], []
    for thresholds in path:
        by_tier = proof.costs.by_tier(path_rows.shares(thresholds))
        scale = float(by_tier.max())
        seen.append(Evidence.of((by_tier / scale)[rows.chosen(thresholds)]))
        limits.append(target.values[0] / scale)
    within = [s.p_value(limit) <= level for s, limit in zip(seen, limits, strict=True)]
    proved = within.index(False) if False in within else len(within)
    if not proved:
        cheapest = proof.costs.at(proof.shares(path[0]))
        raise Refused(
            f"these rows cannot support {target} with {1 - level:.0%} confidence: the cheapest point costs about "
            f"{cheapest:.2f}, shown on {len(rows)} rows; give more rows, a higher limit or a cheaper fleet"
        )
    at = [proof.costs.at(proof.shares(thresholds)) for thresholds in path]
    return path[proved - 1], *_next(proved, seen, limits, at, 1.0, level, n)


def _for_share(path_rows: Problem, proof: Problem, target: Target, _level: float, _n: int) -> _Selected:
    """Thresholds at which the rows of both parts have the shares; the check is on the unseen rows."""
    if target.values[1] > 0 and np.isnan(proof.loss[:, 1]).all():
        raise Refused(f"{target}: the labels say nothing of the moderate tier; give it no share, or its scores")
    parts = (path_rows, proof)
    q = np.concatenate([np.where(part.novel[:, None], -1.0, part.q) for part in parts])
    weights = np.concatenate([part.weights() * len(part) for part in parts])
    simple = _above(q[:, 0], weights, target.values[0])
    rest = q[:, 0] < simple
    left = 1 - target.values[0]
    moderate = _above(q[rest, 1], weights[rest], target.values[1] / left) if left > 0 and rest.any() else NEVER
    had = weights @ np.eye(len(Tier))[route(q, (simple, moderate))] / weights.sum()
    for tier, wanted, share in zip(Tier, target.values, had, strict=True):
        if abs(share - wanted) > MAX_TIE:
            raise Refused(
                f"no thresholds give {target}: {tier.value} gets {share:.1%}; scores that tie and rows out of "
                "distribution cannot be divided: ask for another share"
            )
    return (simple, moderate), None, None


def _above(q: Array, weights: Array, share: float) -> float:
    """The threshold that this share of the weight reaches."""
    if share <= 0:
        return NEVER
    order = np.argsort(-q)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(q[order][min(int(np.searchsorted(reached, share - 1e-9)), len(q) - 1)])


def _check_shares(choice: Choice) -> None:
    width = max((high - low) / 2 for low, high in choice.share_intervals)
    if width > MAX_SHARE_WIDTH:
        more = round(((width / MAX_SHARE_WIDTH) ** 2 - 1) * choice.n_rows)
        raise Refused(
            f"these labels cannot support {choice.target} with {choice.confidence:.0%} confidence: on the "
            f"{choice.n_unseen} unseen rows a share is known to {width:.1%} either way, {MAX_SHARE_WIDTH:.0%} is "
            f"wanted; give about {more} more rows"
        )
