"""A small stand-in for the corpora folder, with the same columns, written from made-up sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from training.build.corpora import SOURCE_WEIGHT, ratings

SUBJECTS = ("bridge", "ledger", "orchid", "glacier", "violin", "harbour", "comet", "ferry", "lantern", "quarry")
EASY = "name the colour of a {}"
HARD = "derive a bound for the failure rate of a {} under correlated loads and justify every step"
N_ROWS = 40
REAL = ("arena_cje", "oasst_en")


def write_corpora(folder: Path) -> None:
    """Each source of the fit, one that may not be shipped, and rated requests that people typed."""
    prompts, gain, items = [], [], []
    rated = ratings().index
    for source in [*list(SOURCE_WEIGHT)[3:], "arena_hard_1k", "bfcl_v1"]:
        for n in range(N_ROWS):
            hard = n % 2 == 1
            text = (HARD if hard else EASY).format(f"{SUBJECTS[n % 10]} of {source} number {n}")
            query_id = rated[n] if source == "arena_hard_1k" else f"{source}-{n}"
            unshippable = source == "bfcl_v1"
            prompts.append(
                {
                    "query_id": query_id,
                    "dataset": source,
                    "prompt": f"unshippable {text}" if unshippable else text,
                    "tier": ("SIMPLE", "REASONING")[hard] if source == "uncommonroute_tiers" else None,
                    "licence": "none stated" if unshippable else "MIT",
                    "licence_permissive": not unshippable,
                }
            )
            if source in ("mmlu_pro", "llmrouter_uiuc", "zeroeval", "bfcl_v1"):
                weak, strong = (0.0, float(hard)) if source == "mmlu_pro" else (0.4, 0.9 if hard else 0.5)
                row = {"query_id": query_id, "weak": weak, "strong": strong, "gain": strong - weak, "dataset": source}
                gain.append(row)
            if source in ("mmlu_pro", "llmrouter_uiuc", "zeroeval", "simpleqa_250"):
                p = (0.3, 0.5, 0.8) if hard else (0.8, 0.85, 0.9)
                items.append({"query_id": query_id, "dataset": source, **dict(zip(P_NAMES, p, strict=True))})
    real = [
        {
            "query_id": f"{dataset}-{n}",
            "dataset": dataset,
            "prompt": (HARD if n % 2 else EASY).format(f"{SUBJECTS[n % 10]} of {dataset} number {n}"),
            "kind": "real_user",
        }
        for dataset in REAL
        for n in range(N_ROWS)
    ]
    rated = [
        {"query_id": row["query_id"], "rater": "r", "p_small": 0.4 if n % 2 else 0.95, "p_mid": 0.6 if n % 2 else 0.99}
        for n, row in enumerate(real)
    ]
    tables = {"prompts": prompts, "pair_gain": gain, "item_difficulty": items, "real_prompts": real, "ratings": rated}
    for name, rows in tables.items():
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")


P_NAMES = ("p_cheap", "p_mid", "p_frontier")


def separable(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """(scores, gains) where a higher score means a higher gain, with noise."""
    chance = np.random.default_rng(0)
    gains = chance.random(n)
    return gains + chance.normal(0, 0.1, n), gains
