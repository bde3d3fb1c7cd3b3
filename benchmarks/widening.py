"""How often thresholds that widen by themselves serve more risk than they may, in simulated applications; prints JSON.

    python benchmarks/widening.py [--judged] [--applications 1000] [--labels 1000] [--target 0.05] [--error 0.05]

Each application has a mix of needed tiers, and scores that rank its requests well or badly and are calibrated or not,
all drawn. It starts where everything goes to the top tier, and sees one label after the other; with --judged, labels of
the requests that `tierwise learn --from` has judged. Half way, the requests of each second application become harder:
what went down before now goes too low.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from router.types import Tier
from training.build.arrays import Array
from training.thresholds.widening import SHIFTS, Widening, thresholds_at

BASE = {Tier.SIMPLE: 0.8, Tier.MODERATE: 0.89}
N_TRUTH = 20_000
BLOCK = 20
PER_LABEL = 10
"""With --judged, so many requests are drawn for each label at most."""


class Application:
    """Requests of one application: the tier that each needs, and P(suffices) of the two lower tiers."""

    def __init__(self, chance: np.random.Generator) -> None:
        self.mix = chance.dirichlet((2.0, 1.5, 1.0))
        self.skill = chance.uniform(0.3, 3.0)  # how far the scores of two neighbouring tiers lie apart, in deviations
        self.bias = chance.normal(0.0, 1.0)  # a score that is too sure, or too careful
        self.slope = chance.uniform(0.7, 2.0)

    def draw(self, n: int, chance: np.random.Generator, harder: float = 0.0) -> tuple[Array, Array]:
        needed = chance.choice(3, n, p=self.mix)
        score = -self.skill * needed + chance.normal(size=n)
        needed = np.where(chance.random(n) < harder, np.minimum(needed + 1, 2), needed)
        simple = 1 / (1 + np.exp(-(self.slope * (score + self.skill / 2) + self.bias)))
        moderate = 1 / (1 + np.exp(-(self.slope * (score + 1.5 * self.skill) + self.bias)))
        return needed, np.stack([simple, np.maximum(simple, moderate)], axis=1)


def tiers_at(scores: Array) -> Array:
    """The rank of the tier that each request is sent to at each level [n, n_levels]."""
    sent = []
    for level in range(len(SHIFTS)):
        at = thresholds_at(level, BASE)
        first = scores[:, 0] >= at[Tier.SIMPLE]
        sent.append(np.where(first, 0, np.where(scores[:, 1] >= at[Tier.MODERATE], 1, 2)))
    return np.stack(sent, axis=1)


def losses(needed: Array, scores: Array) -> Array:
    """Whether each request is sent too low at each level [n, n_levels]."""
    return (tiers_at(scores) < needed[:, None]).astype(float)


def learn(widening: Widening, requests: tuple[Array, Array], n_labels: int, is_judged: bool) -> tuple[Array, Array]:
    """The level after each label, up to `n_labels` of them; and all levels that were served.

    `is_judged`: only requests that might go down are labelled, and the levels in question change after 20 labels.
    """
    rows, goes_up, after, served, horizon = losses(*requests), tiers_at(requests[1]) == 2, [], [], None
    for row, up in zip(rows, goes_up, strict=True):
        if is_judged and (horizon is None or len(after) % BLOCK == 0):
            horizon = widening.horizon
        is_labelled = horizon is None or not up[horizon]
        widening.add(row if is_labelled else np.zeros(len(row)), horizon=horizon, is_labelled=is_labelled)
        served.append(widening.level)
        if is_labelled:
            after.append(widening.level)
        if len(after) == n_labels:
            break
    return np.array(after, int), np.array(served, int)


def run(number: int, arguments: argparse.Namespace) -> dict[str, float | bool]:
    chance = np.random.default_rng((arguments.seed, number))
    application, half = Application(chance), arguments.labels // 2
    drifts, harder = number % 2 == 1, 0.25 if number % 2 == 1 else 0.0
    truth = losses(*application.draw(N_TRUTH, chance)).mean(axis=0)
    later = losses(*application.draw(N_TRUTH, chance, harder=0.25)).mean(axis=0) if drifts else truth
    n_drawn = half * (PER_LABEL if arguments.judged else 1)
    widening = Widening(0, arguments.target, arguments.error)
    first, served = learn(widening, application.draw(n_drawn, chance), half, arguments.judged)
    at_change = widening.level
    second, served_later = learn(widening, application.draw(n_drawn, chance, harder), half, arguments.judged)
    best = int(np.flatnonzero(truth <= arguments.target)[-1])
    bad_later = later[second] > arguments.target
    first_good = np.flatnonzero(~bad_later)
    was_bad = bool(drifts and later[at_change] > arguments.target)
    return {
        "drifts": drifts,
        "exceeded": bool((truth[served] > arguments.target).any()),
        "exceeded_after": bool((later[served_later] > arguments.target).any()),
        "until_back": float(first_good[0]) if was_bad and len(first_good) else 0.0,
        "bad_when_changed": was_bad,
        "still_bad": bool(later[widening.level] > arguments.target),
        "requests_a_label": len(served) / max(len(first), 1),
        **{
            f"part_of_best_{n}": float(min(first[min(n, len(first)) - 1], best) / best if best and len(first) else 1.0)
            for n in (100, 300, half)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--applications", type=int, default=1000)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--target", type=float, default=0.05)
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judged", action="store_true", help="label only requests that might go down")
    arguments = parser.parse_args()
    rows = [run(number, arguments) for number in range(arguments.applications)]
    stays, drifts = [row for row in rows if not row["drifts"]], [row for row in rows if row["drifts"]]
    changed = [row for row in drifts if row["bad_when_changed"]]
    print(
        json.dumps(
            {
                "applications": len(rows),
                "target": arguments.target,
                "error": arguments.error,
                "ever_above_target": float(np.mean([row["exceeded"] for row in rows])),
                "ever_above_target_no_change": float(np.mean([r["exceeded"] or r["exceeded_after"] for r in stays])),
                "part_of_the_best_level": {
                    n: float(np.mean([row[f"part_of_best_{n}"] for row in rows]))
                    for n in (100, 300, arguments.labels // 2)
                },
                "requests_a_label_median": float(np.median([row["requests_a_label"] for row in rows])),
                "became_harder_and_too_bold": len(changed),
                "labels_until_back_median": float(np.median([row["until_back"] for row in changed])) if changed else 0,
                "still_too_bold_at_the_end": float(np.mean([row["still_bad"] for row in changed])) if changed else 0,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
