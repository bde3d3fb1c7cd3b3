"""A small stand-in for the corpora folder, with the same columns, written from made-up sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from training.build.corpora import ANNOTATIONS

SUBJECTS = ("bridge", "ledger", "orchid", "glacier", "violin", "harbour", "comet", "ferry", "lantern", "quarry")
EASY = "name the colour of a {}"
HARD = "derive a bound for the failure rate of a {} under correlated loads and justify every step"
N_ROWS = 40
REAL = ("arena_cje", "oasst_en")


SETS = ("mmlu_pro", "llmrouter_uiuc", "zeroeval", "bfcl_v1")
MODERN = ("ikp", "shaberi", "chinese_classical", "zoonk_scores")


def write_corpora(folder: Path) -> None:
    """Every table: outcome sets, one of which may not be shipped, and rated requests that people typed."""
    prompts, gain, rated = [], [], []
    annotated = pd.read_json(ANNOTATIONS, lines=True)["query_id"].unique()
    for source in (*SETS, "arena_hard_1k"):
        for n in range(N_ROWS):
            query_id = annotated[n] if source == "arena_hard_1k" else f"{source}-{n}"
            unshippable = source == "bfcl_v1"
            text = f"{'unshippable ' * unshippable}{_text(source, n)}"
            prompts.append(_prompt(query_id, source, text, "none stated" if unshippable else "MIT"))
            weak, strong = (0.0, float(n % 2)) if source == "mmlu_pro" else (0.4, 0.9 if n % 2 else 0.5)
            if source in SETS:
                row = {"query_id": query_id, "weak": weak, "strong": strong, "gain": strong - weak, "dataset": source}
                gain.append(row)
            if source == "zeroeval":
                rated.append(_rating(query_id, n))
    real = [_prompt(f"{d}-{n}", d, _text(d, n)) | {"kind": "real_user"} for d in REAL for n in range(N_ROWS)]
    rated += [_rating(row["query_id"], n) for n, row in enumerate(real)]
    translated = [
        _rating(f"arena_cje-{n}-fr", n)
        | {"source_id": f"arena_cje-{n}", "prompt": f"en fran\u00e7ais: {_text('arena_cje', n)}"}
        | {"licence": "MIT", "licence_permissive": True}
        for n in range(10)
    ]
    modern = [_prompt(f"{d}-{n}", d, _text(d, n)) | {"category": "plain"} for d in MODERN for n in range(N_ROWS)]
    modern += [_prompt("ikp-form", "ikp", "a probe of one form") | {"category": "templated"}]
    scores = [
        {"query_id": row["query_id"], "dataset": row["dataset"], "model": model, "score": score if n % 2 else 1.0}
        for n, row in enumerate(modern)
        for model, score in zip(("weak", "middle", "strong"), MODERN_SCORES[row["dataset"]], strict=True)
    ]
    tables = {
        "prompts": prompts,
        "pair_gain": gain,
        "real_prompts": real,
        "ratings": rated,
        "translations": translated,
        "modern_prompts": modern,
        "modern_outcomes": scores,
    }
    for name, rows in tables.items():
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")


MODERN_SCORES = {
    # of the odd prompts; with 1 for the even ones each model's mean is in its group's range
    "ikp": (0.1, 0.3, 0.6),
    "shaberi": (0.45, 0.64, 0.8),
    "chinese_classical": (0.1, 0.2, 0.24),
    "zoonk_scores": (0.95, 0.96, 0.97),
}


def _text(source: str, n: int) -> str:
    return (HARD if n % 2 else EASY).format(f"{SUBJECTS[n % 10]} of {source} number {n}")


def _prompt(query_id: str, dataset: str, text: str, licence: str = "MIT") -> dict[str, object]:
    columns = {"query_id": query_id, "dataset": dataset, "prompt": text, "licence": licence}
    return columns | {"licence_permissive": licence == "MIT"}


def _rating(query_id: object, n: int) -> dict[str, object]:
    hard = n % 2 == 1
    return {"query_id": query_id, "rater": "r", "p_small": 0.4 if hard else 0.95, "p_mid": 0.6 if hard else 0.99}


def separable(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """(scores, gains) where a higher score means a higher gain, with noise."""
    chance = np.random.default_rng(0)
    gains = chance.random(n)
    return gains + chance.normal(0, 0.1, n), gains
