"""What do a few labels of each application buy? JSON on stdout: six outcome sets, pooled as six applications of a user.

    python benchmarks/applications.py --corpora DIR [--artifact DIR] [--seeds N] [--labels N ...] [--cache DIR]

At most 1,200 prompts a set. A seed draws n labels of each set to learn from; the other prompts of all sets are ranked
together by how much a strong model is expected to add, 1 - P(simple suffices). `pooled` is APGR of that ranking,
`sources` that inside each set: of
- `classes`: training/retrain/classes.py on top of the base
- `global`: the base alone; `--as-shipped` takes the artifact's own logits, else the base is fitted once more for each
  set without that set's rows, by this commit's recipe, in minutes
- `ridge`: a ridge on the same labels over the same design, from scratch inside each set, penalty by leave-one-out
- `mean` of the labels of the set, and prompt `length`
`over_global` and `over_ridge` are differences with 95 % intervals, over draws of labels and of test prompts; `ece` is
the calibration error of P(simple suffices) inside each set. A label is P(required tier) from the models' scores: what
the strong models add, nothing where they are worse; APGR counts that as a loss. Beside the other corpora it reads
item_difficulty.parquet (query_id, p_cheap, p_mid, p_frontier: a joint Rasch fit over the outcomes).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

from router.classifier import artifact
from training.build import corpora, export, training_set
from training.build.arrays import Array, Ints
from training.build.corpora import Outcomes
from training.build.export import Unfolded
from training.examine import measures
from training.examine.gate_report import sha256
from training.retrain import classes, regression

MOST_PROMPTS = 1200
RIDGE_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
N_DRAWS = 40
"""Of test prompts, for each draw of labels."""


@dataclass(frozen=True)
class Pool:
    """The rows of all sets: `source` says of which, by number in `names`."""

    names: list[str]
    source: Ints
    base: Array
    dense: Array
    targets: Array
    weak: Array
    strong: Array
    length: Array


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True, help=corpora.HOLDS)
    parser.add_argument("--artifact", type=Path, default=None, help="the base (default: the shipped one)")
    parser.add_argument("--as-shipped", action="store_true", help="the artifact's own logits, rows that it saw or not")
    parser.add_argument("--seeds", type=int, default=5, help="draws of labels (default 5)")
    parser.add_argument("--labels", type=int, nargs="+", default=[0, 20, 100, 300], help="labels a set")
    parser.add_argument("--cache", type=Path, default=None, help="keep the base's logits and the design in this folder")
    given = parser.parse_args()
    folder = given.artifact or artifact.find()
    with threadpool_limits(1):
        pool = read_pool(given.corpora, folder, given.as_shipped, given.cache)
        report = {str(n): replayed(pool, n, given.seeds) for n in given.labels}
    print(json.dumps({"artifact": folder.name, "as_shipped": given.as_shipped, "seeds": given.seeds, "labels": report}))


def read_pool(folder: Path, base: Path, as_shipped: bool, cache: Path | None) -> Pool:
    """The six sets as the base sees them."""
    sets = corpora.outcome_sets(folder)
    name = f"applications-{sha256(base)[:16]}-{'shipped' if as_shipped else 'left-out'}.npz"
    kept = None if cache is None else cache / name
    if kept is not None and kept.is_file():
        with np.load(kept) as file:
            logits, dense = file["logits"], file["dense"]
    else:
        logits, dense = seen_by(export.read_unfolded(base), folder, sets, as_shipped)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, logits=logits, dense=dense)
    return Pool(
        [one.dataset for one in sets],
        np.repeat(np.arange(len(sets)), [len(one.texts) for one in sets]),
        logits,
        dense,
        soft_targets(folder, sets),
        np.concatenate([one.weak for one in sets]),
        np.concatenate([one.strong for one in sets]),
        np.concatenate([[float(len(text)) for text in one.texts] for one in sets]),
    )


def soft_targets(folder: Path, sets: list[Outcomes]) -> Array:
    """P(required tier) of all rows, in their order: the measured gain, split by the Rasch fit's middle tier."""
    gain = corpora.read_table(folder, "pair_gain")
    gain = gain[gain["query_id"].isin(corpora.read_table(folder, "prompts")["query_id"])]
    items = corpora.read_table(folder, "item_difficulty").set_index("query_id")
    over_cheap = (items["p_frontier"] - items["p_cheap"]).clip(lower=0)
    over_mid = (items["p_frontier"] - items["p_mid"]).clip(lower=0)
    share_of_top = (over_mid / over_cheap.where(over_cheap > 0)).fillna(0.0).clip(0, 1)
    order = dict(list(gain.groupby("dataset")))
    rows = pd.concat([order[one.dataset] for one in sets])
    needed = rows["gain"].clip(0, 1).to_numpy()
    of_top = share_of_top.reindex(rows["query_id"]).fillna(0.0).to_numpy()
    return np.stack([1 - needed, needed * (1 - of_top), needed * of_top], axis=1)


def seen_by(base: Unfolded, folder: Path, sets: list[Outcomes], as_shipped: bool) -> tuple[Array, Array]:
    """Calibrated logits and the dense design of all rows."""
    shards = []
    for outcomes in sets:
        say(f"reading {outcomes.dataset}: {len(outcomes.texts)} prompts")
        shards.append(regression.encode(outcomes.texts, base))
    dense = np.concatenate([shard.dense for shard in shards])
    if as_shipped:
        return regression.logits(regression.of_base(base), base.embedding, shards), dense
    rows = training_set.training_rows(folder)
    say(f"fitting without each set, {len(rows)} rows")
    left_out = measures.LeftOut(rows, base.embedding.features(rows.texts), base.classifier)
    logits = []
    for outcomes in sets:
        say(f"without {outcomes.dataset}")
        model = left_out(outcomes)
        logits.append(np.log(model.p_required(base.embedding.features(outcomes.texts))))
    return np.concatenate(logits), dense


def replayed(pool: Pool, n: int, n_seeds: int) -> dict[str, Any]:
    """Everything after n labels a set."""
    values: dict[str, dict[str, list[Array]]] = {}
    ece: dict[str, dict[str, list[float]]] = {}
    for seed in range(n_seeds):
        say(f"{n} labels a set, seed {seed}")
        known, asked = drawn(pool, n, seed)
        scores, p_simple = scored(pool, known)
        everything = np.concatenate(asked)
        for place, at in (("pooled", everything), *zip(pool.names, asked, strict=True)):
            of_place = values.setdefault(place, {})
            for name, areas in with_draws(scores, pool, at, seed).items():
                of_place.setdefault(name, []).append(areas)
        for name, at in zip(pool.names, asked, strict=True):
            for scorer, p in p_simple.items():
                error = measures.calibration_error(p[at], pool.targets[at, 0], np.ones(len(at)))["ece"]
                ece.setdefault(name, {}).setdefault(scorer, []).append(error)
    return {
        "pooled": summary(values.pop("pooled")),
        "sources": {
            name: {**summary(of), "ece": {k: round(float(np.mean(v)), 4) for k, v in ece[name].items()}}
            for name, of in values.items()
        },
    }


def drawn(pool: Pool, n: int, seed: int) -> tuple[list[Ints], list[Ints]]:
    """Rows to learn from and rows to rank, by set."""
    chance = np.random.default_rng(seed)
    orders = [chance.permutation(np.flatnonzero(pool.source == k))[:MOST_PROMPTS] for k in range(len(pool.names))]
    return [order[:n] for order in orders], [order[n:] for order in orders]


def scored(pool: Pool, known: list[Ints]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Scores of every row by scorer (higher: the strong model adds more), and P(simple suffices) of two of them."""
    needs, rows = 1 - pool.targets[:, 0], np.concatenate(known)
    names = np.array(pool.names, object)[pool.source]
    model = classes.learn(
        names[rows].tolist(), pool.base[rows], pool.dense[rows], pool.targets[rows], np.ones(len(rows))
    )
    p = regression.softmax(model.logits(names.tolist(), pool.base, pool.dense))[:, 0]
    of_base = regression.softmax(pool.base)[:, 0]
    scores = {"classes": 1 - p, "global": 1 - of_base, "length": pool.length}
    if len(rows):
        scores |= {"ridge": np.zeros(len(p)), "mean": np.zeros(len(p))}
        for number, at in enumerate(known):
            inside = pool.source == number
            scores["mean"][inside] = needs[at].mean()
            ridge = RidgeCV(RIDGE_PENALTIES).fit(pool.dense[at], needs[at])
            scores["ridge"][inside] = ridge.predict(pool.dense[inside])
    return scores, {"classes": p, "global": of_base}


def with_draws(scores: dict[str, Array], pool: Pool, at: Ints, seed: int) -> dict[str, Array]:
    """APGR of each scorer on the rows, and on draws of them, the same for all scorers."""
    chance = np.random.default_rng(seed)
    draws = [at, *(chance.choice(at, len(at)) for _ in range(N_DRAWS))]
    return {
        name: np.array([measures.apgr(score[rows], pool.weak[rows], pool.strong[rows], seed) for rows in draws])
        for name, score in scores.items()
    }


def summary(areas: dict[str, list[Array]]) -> dict[str, Any]:
    """Means over seeds, and the differences with their intervals."""
    report: dict[str, Any] = {name: round(float(np.mean([a[0] for a in each])), 4) for name, each in areas.items()}
    for other in ("global", "ridge"):
        if other in areas:
            report[f"over_{other}"] = difference(np.array(areas["classes"]) - np.array(areas[other]))
    return report


def difference(areas: Array) -> dict[str, Any]:
    """`areas` [n_seeds, 1 + N_DRAWS]: the mean, and 95 % by the spread over seeds and that over draws of the prompts.

    Test prompts are much the same in all seeds, so theirs does not fall with the number of seeds.
    """
    over_seeds = areas[:, 0].var(ddof=1) / len(areas) if len(areas) > 1 else 0.0
    spread = 1.96 * float(np.sqrt(over_seeds + areas[:, 1:].var(axis=1).mean()))
    mean = float(areas[:, 0].mean())
    return {"mean": round(mean, 4), "interval": [round(mean - spread, 4), round(mean + spread, 4)]}


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
