"""What a few labels of the user's own domain buy: the shipped features, frozen, and a ridge on gain over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV

from training.dataset import Outcomes
from training.embedding import Embedding
from training.evaluate import apgr
from training.fit import Classifier, standardised

SIZES = (100, 300, 1000, 3000)
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
MIN_HELD_OUT = 300


def learning_curve(
    sets: list[Outcomes],
    embedding: Embedding,
    model: Classifier,
    sizes: tuple[int, ...] = SIZES,
    n_seeds: int = 4,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Held-out APGR inside each set after learning from n of its rows: the mean and the standard error over seeds.

    Sets with fewer than n + 300 rows are left out at that size. The penalty is chosen by leave-one-out on the n rows.
    """
    report: dict[str, Any] = {}
    for outcomes in sets:
        progress(f"{outcomes.dataset}: {len(outcomes.texts)} prompts")
        x = standardised(embedding.features(outcomes.texts), model.mean, model.scale)
        gain = outcomes.strong - outcomes.weak
        report[outcomes.dataset] = {}
        for size in sizes:
            if len(gain) < size + MIN_HELD_OUT:
                continue
            scores = []
            for seed in range(n_seeds):
                order = np.random.default_rng(seed).permutation(len(gain))
                known, held_out = order[:size], order[size:]
                score = RidgeCV(PENALTIES).fit(x[known], gain[known]).predict(x[held_out])
                scores.append(apgr(score, outcomes.weak[held_out], outcomes.strong[held_out]))
            error = np.std(scores, ddof=1) / np.sqrt(n_seeds)
            report[outcomes.dataset][str(size)] = {
                "apgr": round(float(np.mean(scores)), 4),
                "standard_error": round(float(error), 4),
            }
    return {"datasets": report}
