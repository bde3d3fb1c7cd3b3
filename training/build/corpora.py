"""Reads data/ and the corpora: our queries, ratings, outcomes of models, requests that people typed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from router.types import Tier
from training.build.arrays import Array

ROOT = Path(__file__).parents[2]
DATA = next(folder for folder in (Path(__file__).parents[1] / "data", ROOT / "data") if folder.is_dir())
"""In the package when it is installed from a wheel, else beside it."""

QUERIES = DATA / "queries.jsonl"
ANNOTATIONS = DATA / "annotations.jsonl"
RATINGS = DATA / "ratings.csv"
REQUESTS = DATA / "requests.jsonl"
OUT_OF_FOLD = DATA / "queries_out_of_fold.csv"

HOLDS = (
    "a folder with prompts.parquet and pair_gain.parquet, real_prompts.parquet, ratings.parquet and "
    "translations.parquet, modern_prompts.parquet and modern_outcomes.parquet; "
    "docs/training.md says where such data comes from"
)
"""What --corpora names."""

N_TIERS = len(Tier)

ANNOTATION_SHIFT = {"p_small": 0.10, "p_mid": 0.07}
"""How much lower the raters of annotations.jsonl sit than the others: means over the 184 prompts that both rated."""

MODERN = {
    # by mean score over a set's prompts: weak, middle and strong groups of models as today's tiers stand to each other
    "ikp": ((0.48, 0.60), (0.62, 0.70), (0.74, 0.90)),
    "shaberi": ((0.68, 0.76), (0.80, 0.84), (0.88, 1.0)),
    "chinese_classical": ((0.50, 0.57), (0.57, 0.61), (0.60, 1.0)),
    "zoonk_scores": ((0.95, 1.0), (0.95, 1.0), (0.95, 1.0)),
}
MAX_MODERN = 300
"""Prompts of one of these sets in the fit: each is of one kind."""


@dataclass(frozen=True)
class Outcomes:
    """Prompts that a weak and a strong group of models answered: `weak` and `strong` are mean scores in [0, 1]."""

    dataset: str
    texts: list[str]
    weak: Array
    strong: Array


class CorporaMissing(FileNotFoundError):
    """The folder of the corpora, or a file of it, is not there."""


def queries(path: Path = QUERIES) -> pd.DataFrame:
    """Our own labelled queries: id, text, tier, category, language, why, pair. Raises ValueError on a bad row."""
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        row = json.loads(line)
        if row.get("tier") not in list(Tier) or not row.get("text", "").strip():
            raise ValueError(f"{path}:{number}: tier {row.get('tier')!r} and text must be set; tiers: {list(Tier)}")
        rows.append(row)
    return pd.DataFrame(rows)


def requests(path: Path = REQUESTS) -> pd.DataFrame:
    """Our own rated requests: id, text, p_small, p_mid, kind, language, group."""
    return pd.read_json(path, lines=True)


def ratings(folder: Path) -> pd.DataFrame:
    """p_small and p_mid in [0, 1] of every rated prompt by query_id, in data/ or the corpora: means over raters."""
    annotated = pd.read_json(ANNOTATIONS, lines=True)[["query_id", *ANNOTATION_SHIFT]]
    for column, shift in ANNOTATION_SHIFT.items():
        annotated[column] = (annotated[column] + shift).clip(upper=0.99)
    every = pd.concat([annotated, pd.read_csv(RATINGS), read_table(folder, "ratings")])
    mean = every.groupby("query_id")[["p_small", "p_mid"]].mean()
    return mean.assign(p_mid=mean.max(axis=1))


def write_scores(path: Path, ids: list[str], p_suffices: Array) -> None:
    """P(suffices) of the tiers below the top by id, as CSV: id, p_simple, p_moderate."""
    columns = {f"p_{tier.value}": p_suffices[:, k].round(5) for k, tier in enumerate(list(Tier)[:-1])}
    pd.DataFrame({"id": ids, **columns}).to_csv(path, index=False)


def all_prompts(folder: Path) -> pd.DataFrame:
    """query_id, dataset, prompt, kind, licence and licence_permissive of both tables of prompts."""
    columns = ["query_id", "dataset", "prompt", "kind", "licence", "licence_permissive"]
    plain = read_table(folder, "prompts").assign(kind="benchmark")
    both = pd.concat([plain[columns], read_table(folder, "real_prompts")[columns]], ignore_index=True)
    return both.drop_duplicates("query_id")


def licences(folder: Path) -> dict[str, str]:
    """The licence of each data set."""
    modern = read_table(folder, "modern_prompts")[["dataset", "licence"]]
    every = pd.concat([all_prompts(folder)[["dataset", "licence"]], modern]).drop_duplicates("dataset")
    return dict(zip(every["dataset"], every["licence"], strict=True))


def modern_outcomes(folder: Path) -> pd.DataFrame:
    """Prompts by query_id with the mean score of weak, middle and strong models of 2025 and 2026 (MODERN).

    Probes of one form (category `templated`) are left out, and all but MAX_MODERN prompts of a set, at random.
    """
    prompts = read_table(folder, "modern_prompts")
    prompts = prompts[prompts["licence_permissive"] & (prompts["category"] != "templated")]
    scores = read_table(folder, "modern_outcomes").merge(prompts[["query_id"]], on="query_id")
    frames = []
    for dataset, groups in MODERN.items():
        table = scores[scores["dataset"] == dataset].pivot_table(index="query_id", columns="model", values="score")
        ability = table.mean()
        columns = {
            name: table.loc[:, (ability >= low) & (ability <= high)].mean(axis=1)
            for name, (low, high) in zip(("weak", "middle", "strong"), groups, strict=True)
        }
        frame = pd.DataFrame(columns).dropna()
        frames.append(frame.sample(min(len(frame), MAX_MODERN), random_state=0))
    rows = pd.concat(frames)
    return rows.join(prompts.set_index("query_id")[["prompt", "dataset"]])


def outcome_sets(folder: Path) -> list[Outcomes]:
    """The outcome sets for evaluation, permissive or not: none of these numbers ends up in the model."""
    prompts = read_table(folder, "prompts").set_index("query_id")["prompt"]
    gain = read_table(folder, "pair_gain")
    gain = gain[gain["query_id"].isin(prompts.index)]
    return [
        Outcomes(
            str(name),
            prompts.loc[rows["query_id"]].tolist(),
            rows["weak"].to_numpy(float),
            rows["strong"].to_numpy(float),
        )
        for name, rows in gain.groupby("dataset")
    ]


def family_of(datasets: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    """The beginnings of the names of data sets, up to the first underscore."""
    return np.array([name.partition("_")[0] for name in datasets], str)


def samples(folder: Path, n: int = 300) -> dict[str, list[str]]:
    """Up to `n` prompts of each data set, at random but always the same: what natural traffic looks like."""
    prompts = read_table(folder, "prompts")
    chosen = prompts.groupby("dataset").sample(frac=1, random_state=0).groupby("dataset").head(n)
    return {str(name): rows["prompt"].tolist() for name, rows in chosen.groupby("dataset")}


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """A table of the corpora. Raises CorporaMissing."""
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise CorporaMissing(f"{path} is not there; give the corpora with --corpora DIR: {HOLDS}")
    return pd.read_parquet(path)
