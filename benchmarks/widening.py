"""How often thresholds that widen by themselves serve more risk than they may, in simulated applications; prints JSON.

    python benchmarks/widening.py [--applications 1000] [--labels 1000] [--target 0.05] [--error 0.05] [--seed 0]

Each application has a mix of needed tiers, and scores that rank its requests well or badly and are calibrated or not,
all drawn. It starts where everything goes to the top tier, and sees one label after the other. Half way, the requests
of each second application become harder: what went down before now goes too low.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from router.types import Tier
from training.build.arrays import Array
from training.thresholds.widening import SHIFTS, Widening, sent_at, thresholds_at

BASE = {Tier.SIMPLE: 0.8, Tier.MODERATE: 0.89}
N_TRUTH = 20_000


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


def losses(needed: Array, scores: Array) -> Array:
    """Whether each request is sent too low at each level [n, n_levels]."""
    sent = []
    for level in range(len(SHIFTS)):
        at = thresholds_at(level, BASE)
        first = scores[:, 0] >= at[Tier.SIMPLE]
        sent.append(np.where(first, 0, np.where(scores[:, 1] >= at[Tier.MODERATE], 1, 2)))
    return (np.stack(sent, axis=1) < needed[:, None]).astype(float)


def run(number: int, arguments: argparse.Namespace) -> dict[str, float | bool]:
    chance = np.random.default_rng((arguments.seed, number))
    application, half = Application(chance), arguments.labels // 2
    drifts = number % 2 == 1
    truth = losses(*application.draw(N_TRUTH, chance)).mean(axis=0)
    later = losses(*application.draw(N_TRUTH, chance, harder=0.25)).mean(axis=0) if drifts else truth
    before = losses(*application.draw(half, chance))
    after = losses(*application.draw(arguments.labels - half, chance, harder=0.25 if drifts else 0.0))
    widening, levels = Widening(0, arguments.target, arguments.error), []
    for row in (*before, *after):
        widening.add(row)
        levels.append(widening.level)
    at = np.array(levels)
    best = int(np.flatnonzero(truth <= arguments.target)[-1])
    bad_later = later[at[half:]] > arguments.target
    first_good = np.flatnonzero(~bad_later)
    return {
        "drifts": drifts,
        "exceeded": bool((truth[at[:half]] > arguments.target).any()),
        "exceeded_after": bool(bad_later.any()),
        "until_back": float(first_good[0]) if drifts and bad_later[0] and len(first_good) else 0.0,
        "bad_when_changed": bool(drifts and bad_later[0]),
        "still_bad": bool(bad_later[-1]),
        **{f"part_of_best_{n}": float(min(at[n - 1], best) / best if best else 1.0) for n in (100, 300, half)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--applications", type=int, default=1000)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--target", type=float, default=0.05)
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
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
                "became_harder_and_too_bold": len(changed),
                "labels_until_back_median": float(np.median([row["until_back"] for row in changed])) if changed else 0,
                "still_too_bold_at_the_end": float(np.mean([row["still_bad"] for row in changed])) if changed else 0,
            },
            indent=2,
        )
    )
    assert sent_at(thresholds_at(0, BASE), (0.999, 0.999)) == 2


if __name__ == "__main__":
    main()
