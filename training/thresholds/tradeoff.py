"""Thresholds against cost and quality: labelled rows with scores, the frontier, its curve, slices and worst errors."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from router.catalog import Fleet
from router.errors import TierwiseError
from router.simulate import workload as workloads
from router.simulate.workload import Workload
from router.types import Tier
from training.build.arrays import Array, Ints
from training.build.fit import route
from training.rows.errors import LabelError
from training.thresholds.losses import Losses
from training.thresholds.risk import Evidence

PATH_SHARE, PROOF_SHARE = 0.25, 0.5
"""Parts of the rows: thresholds are put in order on the first, proved on the second; the rest is not seen."""

N_LEVELS = 33
NEVER = 1.01
"""A threshold that no probability reaches: the tier is not used."""

DEFAULT_WORKLOAD = Workload(5000, 200, 300, 8.64, (0.0, 0.0, 1.0))
"""What a cost assumes without records: a 5,000-token prompt, 200 tokens in, 300 out, 10,000 calls a day."""

TOP = len(Tier) - 1


class Refused(TierwiseError):
    """The labels cannot support what is asked of them; the message says what would.

    `supported`: a target below the refused one that they do support, if any. It was chosen by a look at the rows that
    prove it, so confirm it on others.
    """

    def __init__(self, message: str, supported: str | None = None) -> None:
        super().__init__(message)
        self.supported = supported


@dataclass(frozen=True)
class Costs:
    """What shares by tier cost beside always taking the top tier, which caches too, at the fleet's prices of a day."""

    fleet: Fleet
    workload: Workload = DEFAULT_WORKLOAD
    n_records: int = 0
    on: dt.date = field(default_factory=lambda: dt.datetime.now(dt.UTC).date())

    def usd(self, shares: Array) -> float:
        """USD of an average call, each model's cache as warm as its share of the calls keeps it."""
        mix = tuple(float(share) for share in shares)
        load = msgspec.structs.replace(self.workload, mix=mix)
        return workloads.usd(workloads.price(self.fleet, load, "best", self.on))

    def at(self, shares: Array) -> float:
        """The shares' cost, 1.0 for the top tier alone."""
        return self.usd(shares) / self._top_usd

    def by_tier(self, shares: Array) -> Array:
        """Relative cost of a call on each tier [3], caches as warm as at these shares."""
        load = msgspec.structs.replace(self.workload, mix=tuple(float(share) for share in np.maximum(shares, 1e-9)))
        of = {
            line.tier: line.input_usd + line.output_usd for line in workloads.price(self.fleet, load, "best", self.on)
        }
        dearest = max(of.values())
        return np.array([of.get(tier, dearest) / self._top_usd for tier in Tier])

    @cached_property
    def _top_usd(self) -> float:
        return self.usd(np.eye(len(Tier))[TOP])


def workload_of(ledger: Path, fleet: Fleet) -> tuple[Workload, int]:
    """The workload that a ledger's records show, and their number: mean tokens, and the gap that explains its hits.

    Calls come in bursts, so the mean time between them would say too little of how warm caches are: the gap taken is
    the one at which random arrivals find the prefix warm as often as the records did. Raises LabelError.
    """
    query = """
        SELECT model, COUNT(*), AVG(fresh_tokens), AVG(cache_read_tokens + cache_write_short_tokens +
          cache_write_long_tokens), AVG(output_tokens), AVG(cache_read_tokens > 0), SUM(cache_write_long_tokens),
          MIN(unixepoch(at)), MAX(unixepoch(at))
        FROM records WHERE usage_reported GROUP BY model
    """
    try:
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
            rows = [row for row in db.execute(query) if fleet.tier_of(row[0])]
    except sqlite3.Error as exc:
        raise LabelError(
            f"{ledger} is no ledger of records: {exc}; give the file that `ledger` in tierwise.toml names"
        ) from exc
    counts = np.array([row[1] for row in rows], float)
    if counts.sum() < 2:
        raise LabelError(f"{ledger} holds {int(counts.sum())} records of the fleet {fleet.name!r}; two are the least")
    share = counts / counts.sum()
    fresh, prefix, output, hit = (float(share @ [row[i] for row in rows]) for i in (2, 3, 4, 5))
    gap_s = max((max(r[8] for r in rows) - min(r[7] for r in rows)) / (counts.sum() - 1), 1e-3)
    if prefix > 0:
        models = [fleet.models[tier] for row in rows if (tier := fleet.tier_of(row[0]))]
        life_s = [
            (m.ttl_long_s or m.ttl_short_s) if row[6] else m.ttl_short_s for m, row in zip(models, rows, strict=True)
        ]
        warm = float(np.clip(hit, 0.001, 0.999))
        gap_s = float(brentq(lambda gap: share @ -np.expm1(-np.array(life_s) * share / gap) - warm, 1e-3, 1e9))
    return Workload(prefix, fresh, output, gap_s, (0.0, 0.0, 1.0)), int(counts.sum())


@dataclass(frozen=True)
class Problem:
    """Rows to tune on: q = P(suffices) float64 [n, 3], loss [n, 3], and the mix that `required` is weighted to, if any.

    `novel` rows go to the top tier whatever the thresholds. NaN losses mark tiers that are not used.
    """

    q: Array
    loss: Array
    costs: Costs
    novel: npt.NDArray[np.bool_]
    required: Ints | None = None
    mix: tuple[float, ...] | None = None

    @classmethod
    def of(
        cls, labels: Losses, q: Array, costs: Costs, novel: npt.NDArray[np.bool_] | None = None,
        mix: tuple[float, ...] | None = None,
    ) -> Problem:  # fmt: skip
        """Raises Refused when a mix is asked of labels without required tiers, or of a tier without a row."""
        required = labels.required
        if mix is not None and required is None:
            raise Refused("a mix weights required tiers, and outcomes have none; leave it out")
        if mix is not None and any(mix[k] > 0 and not np.any(required == k) for k in range(len(mix))):
            raise Refused(f"no row needs one of the tiers of the mix {mix}; label some, or leave the mix out")
        novel = np.zeros(len(labels), bool) if novel is None else novel
        return cls(q, labels.loss, costs, novel, required, mix)

    def __len__(self) -> int:
        return len(self.q)

    def rows(self, kept: npt.NDArray[Any]) -> Problem:
        """The part of the rows that `kept` (mask or numbers) names."""
        required = None if self.required is None else self.required[kept]
        return Problem(self.q[kept], self.loss[kept], self.costs, self.novel[kept], required, self.mix)

    def split(self, seed: int = 0) -> tuple[Problem, Problem, Problem]:
        """Path, proof and unseen rows."""
        order = np.random.default_rng(seed).permutation(len(self))
        cuts = [round(len(self) * share) for share in (PATH_SHARE, PATH_SHARE + PROOF_SHARE)]
        path, proof, unseen = np.split(order, cuts)
        return self.rows(path), self.rows(proof), self.rows(unseen)

    def weights(self) -> Array:
        """One a row, summing to 1: even, or giving the required tiers the mix's shares."""
        if self.mix is None or self.required is None:
            return np.full(len(self), 1 / max(len(self), 1))
        counts = np.bincount(self.required, minlength=len(Tier))
        weights = (np.array(self.mix) / np.maximum(counts, 1))[self.required]
        return np.asarray(weights / weights.sum())

    def chosen(self, thresholds: tuple[float, float]) -> Ints:
        """The tier number of each row [n]."""
        return np.where(self.novel, TOP, route(self.q, thresholds))

    def lost(self, thresholds: tuple[float, float]) -> Array:
        """The loss of each row [n] at these thresholds."""
        return self.loss[np.arange(len(self)), self.chosen(thresholds)]

    def shares(self, thresholds: tuple[float, float]) -> Array:
        """Share of traffic to each tier [3]."""
        return np.asarray(np.bincount(self.chosen(thresholds), self.weights(), minlength=len(Tier)), np.float64)

    def share_draws(self, thresholds: tuple[float, float], n: int = 2000) -> Array:
        """Bootstrap of `shares` [n, 3]: rows drawn again, within each required tier where there is a mix."""
        rng, chosen = np.random.default_rng(0), self.chosen(thresholds)
        strata = np.zeros(len(self), int) if self.mix is None or self.required is None else self.required
        total = np.zeros((n, len(Tier)))
        for k, share in enumerate(self.mix or (1.0,)):
            counts = np.bincount(chosen[strata == k], minlength=len(Tier))
            total += share * rng.multinomial(counts.sum(), counts / counts.sum(), n) / counts.sum() if share else 0
        return total

    def evidence(self, thresholds: tuple[float, float]) -> Evidence:
        """What these rows say of the risk at these thresholds."""
        if self.mix is None:
            return Evidence.of(self.lost(thresholds))
        return Evidence.of(self.lost(thresholds), self.required, self.mix)

    def to_mix(self) -> Problem:
        """The most rows that have the mix exactly, at random; all of them without a mix."""
        if self.mix is None or self.required is None:
            return self
        counts = np.bincount(self.required, minlength=len(Tier))
        n = min(counts[k] / share for k, share in enumerate(self.mix) if share > 0)
        order = np.random.default_rng(1).permutation(len(self))
        kept = [order[self.required[order] == k][: int(n * share)] for k, share in enumerate(self.mix)]
        return self.rows(np.concatenate(kept))


def frontier(rows: Problem) -> list[tuple[float, float]]:
    """Thresholds from the safest to the cheapest: each the cheapest of those that lose no more on these rows."""
    levels = [_levels(rows.q[~rows.novel, k], bool(np.isnan(rows.loss[:, k]).all())) for k in range(TOP)]
    simple = (rows.q[:, :1] >= levels[0]) & ~rows.novel[:, None]
    moderate = (rows.q[:, 1:2] >= levels[1]) & ~rows.novel[:, None]
    weights, loss = rows.weights(), np.nan_to_num(rows.loss)
    unit = rows.costs.by_tier(np.full(len(Tier), 1 / len(Tier)))
    # Sums over rows of every pair of levels, as matrix products: [n_simple, n_moderate]
    passed = (~simple * weights[:, None]).T.astype(float)
    lost = (simple.T @ (weights * loss[:, 0]))[:, None] + passed @ (moderate * loss[:, 1:2])
    share = np.stack(np.broadcast_arrays((simple.T @ weights)[:, None], passed @ moderate), axis=-1)
    cost = share @ unit[:TOP] + (1 - share.sum(axis=-1)) * unit[TOP]
    path, cheapest = [], np.inf
    for flat in np.lexsort((cost.ravel(), lost.ravel().round(12))):
        i, j = np.unravel_index(flat, cost.shape)
        if cost[i, j] < cheapest - 1e-9:
            cheapest = float(cost[i, j])
            path.append((float(levels[0][i]), float(levels[1][j])))
    return path


def _levels(q: Array, unused: bool) -> Array:
    return (
        np.array([NEVER])
        if unused
        else np.append(np.unique(np.quantile(q, np.linspace(0, 1, N_LEVELS), method="nearest")), NEVER)
    )


def cost_quality_curve(
    problem: Problem, confidence: float = 0.95, n_points: int = 25, seed: int = 0
) -> list[dict[str, Any]]:
    """The cost-quality curve: thresholds from a quarter of the rows; quality, interval and cost on the others."""
    path_rows, *_ = problem.split(seed)
    order = np.random.default_rng(seed).permutation(len(problem))
    others = problem.rows(order[len(path_rows) :])
    path = frontier(path_rows)
    picked = sorted({round(i) for i in np.linspace(0, len(path) - 1, n_points)})
    points = []
    for thresholds in (path[i] for i in picked):
        seen, shares = others.evidence(thresholds), others.shares(thresholds)
        low, high = seen.interval(confidence)
        points.append(
            {
                "thresholds": thresholds,
                "cost": others.costs.at(shares),
                "usd_per_call": others.costs.usd(shares),
                "quality": 1 - seen.mean,
                "interval": (1 - high, 1 - low),
                "shares": tuple(shares.tolist()),
            }
        )
    return points


def worst(labels: Losses, problem: Problem, thresholds: tuple[float, float], n: int = 10) -> list[dict[str, Any]]:
    """The rows that lose most, the surest first: number in the file, text, chosen and required tier, P(suffices)."""
    lost, chosen = problem.lost(thresholds), problem.chosen(thresholds)
    sure = problem.q[np.arange(len(problem)), chosen]
    tiers = list(Tier)
    return [
        {
            "row": int(labels.numbers[i]),
            "text": labels.texts[i],
            "chosen": tiers[chosen[i]].value,
            "required": None if labels.required is None else tiers[labels.required[i]].value,
            "p_suffices": float(sure[i]),
            "loss": float(lost[i]),
        }
        for i in np.lexsort((-sure, -lost))[:n]
        if lost[i] > 0
    ]


def slices(labels: Losses, problem: Problem, thresholds: tuple[float, float], column: str) -> list[dict[str, Any]]:
    """Loss, interval, share sent higher than needed, and cost by the values of a column, most frequent first."""
    rows = []
    for name, group in labels.frame.groupby(column, sort=False):
        part = problem.rows(group.index.to_numpy())
        if part.mix is not None and any(not np.any(part.required == k) for k in range(len(Tier)) if part.mix[k] > 0):
            continue
        seen, shares = part.evidence(thresholds), part.shares(thresholds)
        above = None if part.required is None else float(part.weights() @ (part.chosen(thresholds) > part.required))
        row = {"n": len(part), "risk": seen.mean, "interval": seen.interval(0.95), "above": above}
        rows.append({column: str(name), **row, "cost": part.costs.at(shares)})
    return sorted(rows, key=lambda row: -row["n"])


def reliability(problem: Problem, tier: int, n_bins: int = 10, n_draws: int = 400) -> list[dict[str, Any]]:
    """P(the tier suffices) against how often it does, in bins of equally much weight, with 95 % bootstrap intervals."""
    q, truth, weights, rng = problem.q[:, tier], 1 - problem.loss[:, tier], problem.weights(), np.random.default_rng(0)
    order = q.argsort(kind="stable")
    bins = []
    for rows in np.split(order, np.searchsorted(weights[order].cumsum(), np.arange(1, n_bins) / n_bins)):
        if not len(rows):
            continue
        drawn = rows[rng.integers(0, len(rows), (n_draws, len(rows)))]
        low, high = np.quantile((weights * truth)[drawn].sum(axis=1) / weights[drawn].sum(axis=1), (0.025, 0.975))
        mean = np.average(np.column_stack([q, truth])[rows], axis=0, weights=weights[rows])
        bins.append({"said": float(mean[0]), "true": float(mean[1]), "interval": (float(low), float(high))})
    return bins
