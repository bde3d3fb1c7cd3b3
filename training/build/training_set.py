"""What the classifier learns from: rows of (text, P(required tier), weight), from data/ and the permissive corpora.

Required tier means: the cheapest tier whose answer is as good as the top tier's. Ratings say it for requests that
somebody read; models' scores say it where many models answered; authors say it of our own queries.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from router.types import Tier
from training.build import corpora, embedding
from training.build.arrays import Array

ROW_WEIGHT = {
    "ratings": 1.0,
    "translations": 0.5,
    "outcomes": 1.0,
    "requests": 1.3,
    "tierwise_queries": 2.5,
    "variants": 1.0,
}
"""A row's weight in the fit by source; chosen on left-out real requests and the behavioural suite (EXPERIMENTS.md).

`ratings` are prompts of the corpora that were rated by reading, `translations` some of them in twelve languages,
`outcomes` prompts that models of 2025 and 2026 answered, `requests` our own, rated alike. `variants` are our queries
and requests once more, with manners, layout, typing mistakes or a pasted passage that must not change the tier.
"""

AS_RATED = {Tier.SIMPLE: (0.94, 0.98), Tier.MODERATE: (0.62, 0.86), Tier.COMPLEX: (0.27, 0.52)}
"""What a rater gives, P(small) and P(middle tier suffices), to a query that its author calls simple, ... : means over
the rated requests of each class."""

PASTED = 0.3
"""Share of the variants that carry a passage of another text."""

_MANNERS = """hi hello hey hiya greetings dear friend assistant everyone team there good morning afternoon evening
day weekend nice lovely great please kindly could would might can you i me my this here it with for
a an help assist wondering whether if need some quick question sorry to bother hope well grateful
appreciate appreciated much very so many thanks thank obliged advance anticipation cheers best kind
regards sincerely have really your time take :) ! , ."""
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")
_SENTENCES = re.compile(r"(?<=[.!?\n])\s+")

MAX_UNRATED = 4200
UNRATED_WEIGHT = (0.15, 0.5)
"""Of the bank's customers and the like (`intents_easy`), which are many and alike; of other texts."""

MIN_EXCERPT = 15
"""Characters."""


@dataclass(frozen=True)
class Rows:
    """`targets` float64 [n, n_tiers], rows sum to 1; `weights` float64 [n]; `groups` keep related rows together.

    `sources` says where the label comes from, `datasets` where the text does (they differ for ratings); `real` which
    rows are rated requests that people typed.
    """

    ids: npt.NDArray[np.str_]
    texts: list[str]
    targets: Array
    weights: Array
    sources: npt.NDArray[np.str_]
    datasets: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    real: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, mask: npt.NDArray[np.bool_]) -> Rows:
        """The rows where `mask` holds."""
        return Rows(
            ids=self.ids[mask],
            texts=[text for text, keep in zip(self.texts, mask, strict=True) if keep],
            targets=self.targets[mask],
            weights=self.weights[mask],
            sources=self.sources[mask],
            datasets=self.datasets[mask],
            groups=self.groups[mask],
            real=self.real[mask],
        )


def training_rows(folder: Path) -> Rows:
    """Every row that may be shipped in a model: data/ and the rows with licence_permissive. Deterministic.

    Raises CorporaMissing where a table is not there.
    """
    prompts = corpora.all_prompts(folder)
    prompts = prompts[prompts["licence_permissive"]].drop_duplicates("prompt").set_index("query_id")
    rated = _rated(prompts, corpora.ratings(folder))
    own = [_query_rows(), _request_rows()]
    frames = [rated, _translated(folder, prompts), _outcome_rows(folder), *own, _variants(pd.concat(own))]
    frame = pd.concat(frames, ignore_index=True).drop_duplicates(["source", "text"])
    return Rows(
        ids=frame["id"].to_numpy(str),
        texts=frame["text"].tolist(),
        targets=_targets(frame["p_small"].to_numpy(float), frame["p_mid"].to_numpy(float)),
        weights=np.array([ROW_WEIGHT[source] for source in frame["source"]]),
        sources=frame["source"].to_numpy(str),
        datasets=frame["dataset"].to_numpy(str),
        groups=frame["group"].to_numpy(str),
        real=frame["real"].to_numpy(bool),
    )


@dataclass(frozen=True)
class Unrated:
    """Texts that no one rated, for an encoder's teachers to speak of: `weights` float64 [n]."""

    texts: list[str]
    datasets: npt.NDArray[np.str_]
    weights: Array


def unrated(folder: Path, rows: Rows) -> Unrated:
    """Permissive prompts beyond `rows`, up to MAX_UNRATED of a data set, and excerpts of rated texts. Deterministic."""
    prompts = corpora.all_prompts(folder)
    prompts = prompts[prompts["licence_permissive"]].drop_duplicates("prompt")
    prompts = prompts[~prompts["query_id"].isin(corpora.ratings(folder).index)]
    prompts = prompts[~prompts["prompt"].isin(set(rows.texts))]
    chosen = prompts.groupby("dataset").sample(frac=1, random_state=0).groupby("dataset").head(MAX_UNRATED)
    rated = rows.select(np.isin(rows.sources, ("ratings", "requests")))
    chance = np.random.default_rng(0)
    excerpts = [_excerpt(text, chance) for text in rated.texts]
    there = np.array([bool(text) for text in excerpts])
    datasets = np.concatenate([chosen["dataset"].to_numpy(str), rated.datasets[there]])
    weights = np.where(datasets == "intents_easy", UNRATED_WEIGHT[0], UNRATED_WEIGHT[1])
    return Unrated([*chosen["prompt"], *filter(None, excerpts)], datasets, weights)


def _excerpt(text: str, chance: np.random.Generator) -> str:
    """Some sentences in a row of a text of three and more; empty for a shorter one, or where little is left."""
    sentences = _SENTENCES.split(text[: embedding.HEAD_CHARS + embedding.TAIL_CHARS])
    if len(sentences) < 3:
        return ""
    first = int(chance.integers(len(sentences) - 1))
    part = " ".join(sentences[first : int(chance.integers(first + 1, len(sentences) + 1))])
    return part if MIN_EXCERPT <= len(part) < len(text) else ""


def _targets(p_small: Array, p_mid: Array) -> Array:
    p_mid = np.maximum(p_small, p_mid)
    return np.stack([p_small, p_mid - p_small, 1 - p_mid], axis=1)


def provenance(rows: Rows, folder: Path) -> list[dict[str, object]]:
    """A line for each source: licence, number of rows, and a hash of its ids and texts."""
    licences = corpora.licences(folder)
    lines: list[dict[str, object]] = []
    for source in ROW_WEIGHT:
        mask = rows.sources == source
        licence = "Apache-2.0 (written for this project)"
        if source in ("ratings", "outcomes", "translations"):
            names = sorted(set(rows.datasets[mask]))
            licence = "prompts of " + "; ".join(f"{name}: {licences.get(name, 'see its source')}" for name in names)
        sha256 = digest(rows.ids[mask], np.array(rows.texts, object)[mask])
        lines.append({"source": source, "licence": licence, "n_rows": int(mask.sum()), "sha256": sha256})
    return lines


def digest(ids: Iterable[str], texts: Iterable[str]) -> str:
    """SHA-256 of rows, in their order."""
    sha256 = hashlib.sha256()
    for row_id, text in zip(ids, texts, strict=True):
        sha256.update(f"{row_id}\0{text}\0".encode("utf-8", "surrogatepass"))
    return sha256.hexdigest()


def _rated(prompts: pd.DataFrame, ratings: pd.DataFrame) -> pd.DataFrame:
    rated = ratings[ratings.index.isin(prompts.index)]
    of = prompts.loc[rated.index]
    return pd.DataFrame(
        {
            "id": rated.index,
            "text": of["prompt"].to_numpy(),
            "source": "ratings",
            "dataset": of["dataset"].to_numpy(),
            "group": rated.index,
            "p_small": rated["p_small"].to_numpy(),
            "p_mid": rated["p_mid"].to_numpy(),
            "real": (of["kind"] == "real_user").to_numpy(),
        }
    )


def _translated(folder: Path, prompts: pd.DataFrame) -> pd.DataFrame:
    rows = corpora.read_table(folder, "translations")
    rows = rows[rows["licence_permissive"]]
    source = rows["source_id"]
    return pd.DataFrame(
        {
            "id": rows["query_id"],
            "text": rows["prompt"],
            "source": "translations",
            "dataset": source.map(prompts["dataset"]).fillna(source.str.rsplit("-", n=1).str[0]),
            "group": source,
            "p_small": rows["p_small"],
            "p_mid": rows["p_mid"],
            "real": False,
        }
    )


def _outcome_rows(folder: Path) -> pd.DataFrame:
    """What models of 2025 and 2026 scored, by ability: how far the weaker ones fall behind the strongest."""
    rows = corpora.modern_outcomes(folder)
    return pd.DataFrame(
        {
            "id": rows.index,
            "text": rows["prompt"].to_numpy(),
            "source": "outcomes",
            "dataset": rows["dataset"].to_numpy(),
            "group": rows.index,
            "p_small": 1 - (rows["strong"] - rows["weak"]).clip(0, 1).to_numpy(),
            "p_mid": 1 - (rows["strong"] - rows["middle"]).clip(0, 1).to_numpy(),
            "real": False,
        }
    )


def _query_rows() -> pd.DataFrame:
    own = corpora.queries()
    as_rated = [AS_RATED[Tier(tier)] for tier in own["tier"]]
    return _own(own["id"], own["text"], "tierwise_queries", own["pair"].fillna(own["id"]), np.array(as_rated))


def _request_rows() -> pd.DataFrame:
    own = corpora.requests()
    rated = own[["p_small", "p_mid"]].to_numpy(float)
    return _own(own["id"], own["text"], "requests", own["group"].fillna(own["id"]), rated)


def _own(ids: pd.Series[str], texts: pd.Series[str], source: str, groups: pd.Series[str], p: Array) -> pd.DataFrame:
    columns = {"id": ids, "text": texts, "source": source, "dataset": source, "group": groups}
    return pd.DataFrame({**columns, "p_small": p[:, 0], "p_mid": p[:, 1], "real": False})


def _variants(rows: pd.DataFrame) -> pd.DataFrame:
    """Each row once more, polite, laid out otherwise, mistyped or with a pasted passage; same target, same group.

    The polite words are drawn at random, because single phrases teach only themselves: with eighteen fixed ones, other
    polite phrases still moved 23 % of the queries down.
    """
    chance, manners = np.random.default_rng(0), _MANNERS.split()
    every, texts = rows["text"].tolist(), []
    for text in every:
        before, after = (" ".join(chance.choice(manners, chance.integers(1, 11))) for _ in range(2))
        ways = (
            f"{before} {text}",
            f"{text} {after}",
            f"{before} {text} {after}",
            _laid_out(text, chance),
            _mistyped(text, chance),
        )
        way = ways[chance.integers(len(ways))]
        if chance.random() < PASTED:
            passage = every[chance.integers(len(every))]
            way = f"{way}\n\n{passage}" if chance.random() < 0.7 else f"{passage}\n\n{way}"
        texts.append(way)
    return rows.assign(text=texts, source="variants")


def _laid_out(text: str, chance: np.random.Generator) -> str:
    """The same words with line breaks, bullets, bold or a fence."""
    sentences = _SENTENCE_END.sub("\n", text).split("\n")
    words = text.split(" ")
    bold = int(chance.integers(len(words)))
    ways = (
        "\n".join(sentences),
        "\n\n".join(sentences),
        "\n".join(f"- {sentence}" for sentence in sentences),
        " ".join(f"**{word}**" if i == bold else word for i, word in enumerate(words)),
        f"```\n{text}\n```",
        f"# {text}",
    )
    return ways[chance.integers(len(ways))]


def _mistyped(text: str, chance: np.random.Generator) -> str:
    """The text with one to three letters dropped, doubled or swapped with the next."""
    letters = list(text)
    for _ in range(chance.integers(1, 4)):
        at = int(chance.integers(len(letters)))
        mistake = chance.integers(3)
        if mistake == 0 and len(letters) > 1:
            del letters[at]
        elif mistake == 1:
            letters.insert(at, letters[at])
        else:
            letters[at : at + 2] = reversed(letters[at : at + 2])
    return "".join(letters)
