"""What the classifier learns from: rows of (text, P(required tier), weight), from data/ and the permissive corpora.

Required tier means: the cheapest tier whose answer is as good as the top tier's. Where people or authors labelled it,
the target is that tier. Where many models answered, it is soft, from the GAIN (strong minus weak): a question that
every model fails does not need a strong one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
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
    "a folder with prompts.parquet, pair_gain.parquet and item_difficulty.parquet, and for real requests "
    "real_prompts.parquet and ratings.parquet; "
    "docs/training.md says where such data comes from"
)
"""What --corpora names."""

N_TIERS = len(Tier)

SOURCE_WEIGHT = {
    "tierwise_queries": 8000.0,
    "annotations": 4000.0,
    "variants": 6000.0,
    "uncommonroute_tiers": 2400.0,
    "mmlu_pro": 1800.0,
    "llmrouter_uiuc": 1800.0,
    "zeroeval": 900.0,
    "simpleqa_250": 120.0,
}
"""A source's whole weight in the fit, however many rows it has; chosen out of fold (training/EXPERIMENTS.md).

`annotations` are prompts of the corpora that were rated by reading; `uncommonroute_tiers` has tier labels in 16
languages, which mostly follow length, but rate proofs as hard; the last four have models' scores. `variants` are our
queries and the rated prompts once more, with manners, layout or typing mistakes that must not change the tier.
"""


_SCORED = tuple(SOURCE_WEIGHT)[4:]
_MANNERS = """hi hello hey hiya greetings dear friend assistant everyone team there good morning afternoon evening
day weekend nice lovely great please kindly could would might can you i me my this here it with for
a an help assist wondering whether if need some quick question sorry to bother hope well grateful
appreciate appreciated much very so many thanks thank obliged advance anticipation cheers best kind
regards sincerely have really your time take :) ! , ."""
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")
_UNCOMMONROUTE_TIERS = {"SIMPLE": 0, "MEDIUM": 1, "COMPLEX": 2, "REASONING": 2}


@dataclass(frozen=True)
class Rows:
    """`targets` float64 [n, n_tiers], rows sum to 1; `weights` float64 [n]; `groups` keep related rows together.

    `sources` says where the label comes from, `datasets` where the text does (they differ for annotations).
    """

    ids: npt.NDArray[np.str_]
    texts: list[str]
    targets: Array
    weights: Array
    sources: npt.NDArray[np.str_]
    datasets: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]

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
        )


@dataclass(frozen=True)
class Outcomes:
    """Prompts that a weak and a strong group of models answered: `weak` and `strong` are mean scores in [0, 1]."""

    dataset: str
    texts: list[str]
    weak: Array
    strong: Array


@dataclass(frozen=True)
class RealRequests:
    """Rated requests that people typed to an assistant, an agent or a support desk, by data set.

    `p_small` and `p_mid`, in [0, 1], are the rated probabilities that the small and the middle tier suffice.
    """

    texts: list[str]
    datasets: npt.NDArray[np.str_]
    p_small: Array
    p_mid: Array

    @property
    def families(self) -> npt.NDArray[np.str_]:
        """What data sets whose names begin alike have in common: arena for arena_cje and arena_convotopo."""
        return family_of(self.datasets)


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


def ratings(path: Path = ANNOTATIONS) -> pd.DataFrame:
    """Ratings of corpus prompts by query_id: p_small and p_mid in [0, 1], the mean over passes."""
    frame = pd.read_json(path, lines=True)
    return frame.groupby("query_id")[["p_small", "p_mid"]].mean()


def write_scores(path: Path, ids: list[str], p_suffices: Array) -> None:
    """P(suffices) of the tiers below the top by id, as CSV: id, p_simple, p_moderate."""
    columns = {f"p_{tier.value}": p_suffices[:, k].round(5) for k, tier in enumerate(list(Tier)[:-1])}
    pd.DataFrame({"id": ids, **columns}).to_csv(path, index=False)


def training_rows(corpora: Path) -> Rows:
    """Every row that may be shipped in a model: data/ and the rows with licence_permissive. Deterministic."""
    prompts = _read_table(corpora, "prompts")
    prompts = prompts[prompts["licence_permissive"]].drop_duplicates("prompt").set_index("query_id")
    labelled = [_query_rows(), _annotation_rows(prompts)]
    frames = [*labelled, _variants(pd.concat(labelled)), _tier_rows(prompts), _outcome_rows(prompts, corpora)]
    frame = pd.concat(frames, ignore_index=True).drop_duplicates(["source", "text"])
    counts = frame["source"].map(frame["source"].value_counts())
    return Rows(
        ids=frame["id"].to_numpy(str),
        texts=frame["text"].tolist(),
        targets=np.array(frame["target"].tolist(), np.float64),
        weights=np.asarray(frame["source"].map(SOURCE_WEIGHT) / counts, np.float64),
        sources=frame["source"].to_numpy(str),
        datasets=frame["dataset"].to_numpy(str),
        groups=frame["group"].to_numpy(str),
    )


def outcome_sets(corpora: Path) -> list[Outcomes]:
    """The outcome sets for evaluation, permissive or not: none of these numbers ends up in the model."""
    prompts = _read_table(corpora, "prompts").set_index("query_id")["prompt"]
    gain = _read_table(corpora, "pair_gain")
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


ANNOTATION_SHIFT = (0.10, 0.07)
"""How much lower the raters of annotations.jsonl sit than the others, p_small and p_mid: means over the 184 prompts
that both rated."""


def real_requests(corpora: Path) -> RealRequests:
    """The rated ones, permissive or not: none of these ratings ends up in the model. Rated in data/ or in the corpora.

    Raises CorporaMissing where real_prompts.parquet or ratings.parquet is not there.
    """
    annotated = pd.read_json(ANNOTATIONS, lines=True)[["query_id", "p_small", "p_mid"]]
    for column, shift in zip(("p_small", "p_mid"), ANNOTATION_SHIFT, strict=True):
        annotated[column] = (annotated[column] + shift).clip(upper=0.99)
    rated = pd.concat([annotated, pd.read_csv(RATINGS), _read_table(corpora, "ratings")])
    mean = rated.groupby("query_id")[["p_small", "p_mid"]].mean()
    prompts = _read_table(corpora, "real_prompts")
    prompts = prompts[(prompts["kind"] == "real_user") & prompts["query_id"].isin(mean.index)].drop_duplicates("prompt")
    mean = mean.loc[prompts["query_id"]]
    return RealRequests(
        prompts["prompt"].tolist(),
        prompts["dataset"].to_numpy(str),
        mean["p_small"].to_numpy(float),
        mean.max(axis=1).to_numpy(float),
    )


def family_of(datasets: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    """The beginnings of the names of data sets, up to the first underscore."""
    return np.array([name.partition("_")[0] for name in datasets], str)


def samples(corpora: Path, n: int = 300) -> dict[str, list[str]]:
    """Up to `n` prompts of each data set, at random but always the same: what natural traffic looks like."""
    prompts = _read_table(corpora, "prompts")
    chosen = prompts.groupby("dataset").sample(frac=1, random_state=0).groupby("dataset").head(n)
    return {str(name): rows["prompt"].tolist() for name, rows in chosen.groupby("dataset")}


def provenance(rows: Rows, corpora: Path) -> list[dict[str, object]]:
    """A line for each source: licence, number of rows, and a hash of its ids and texts."""
    licences = _read_table(corpora, "prompts").drop_duplicates("dataset").set_index("dataset")["licence"]
    lines: list[dict[str, object]] = []
    for source in SOURCE_WEIGHT:
        mask = rows.sources == source
        licence = str(licences.get(source, "Apache-2.0 (written for this project)"))
        if source == "variants":
            licence = "as the two rows above"
        elif source == "annotations":
            rated = "; ".join(f"{name}: {licences[name]}" for name in sorted(set(rows.datasets[mask])))
            licence = f"{licence}; prompts of {rated}"
        lines.append(
            {
                "source": source,
                "licence": licence,
                "n_rows": int(mask.sum()),
                "sha256": digest(rows.ids[mask], np.array(rows.texts, object)[mask]),
            }
        )
    return lines


def digest(ids: Iterable[str], texts: Iterable[str]) -> str:
    """SHA-256 of rows, in their order."""
    sha256 = hashlib.sha256()
    for row_id, text in zip(ids, texts, strict=True):
        sha256.update(f"{row_id}\0{text}\0".encode("utf-8", "surrogatepass"))
    return sha256.hexdigest()


def _query_rows() -> pd.DataFrame:
    own = queries()
    return pd.DataFrame(
        {
            "id": own["id"],
            "text": own["text"],
            "source": "tierwise_queries",
            "dataset": "tierwise_queries",
            "group": own["pair"].fillna(own["id"]),
            "target": [tuple(float(tier == t) for t in Tier) for tier in own["tier"]],
        }
    )


def _annotation_rows(prompts: pd.DataFrame) -> pd.DataFrame:
    rated = ratings()
    rated = rated[rated.index.isin(prompts.index)]
    small, mid = rated["p_small"], rated["p_mid"]
    targets = np.stack([small, mid - small, 1 - mid], axis=1)
    return _corpus_rows(prompts.loc[rated.index], "annotations", targets)


def _variants(rows: pd.DataFrame) -> pd.DataFrame:
    """Each row once more, polite, laid out otherwise or mistyped; same target, same group.

    The polite words are drawn at random, because single phrases teach only themselves: with eighteen fixed ones, other
    polite phrases still moved 23 % of the queries down.
    """
    chance, manners = np.random.default_rng(0), _MANNERS.split()
    texts = []
    for text in rows["text"]:
        before, after = (" ".join(chance.choice(manners, chance.integers(1, 11))) for _ in range(2))
        ways = (
            f"{before} {text}",
            f"{text} {after}",
            f"{before} {text} {after}",
            _laid_out(text, chance),
            _mistyped(text, chance),
        )
        texts.append(ways[chance.integers(len(ways))])
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


def _tier_rows(prompts: pd.DataFrame) -> pd.DataFrame:
    labelled = prompts[prompts["dataset"] == "uncommonroute_tiers"]
    return _corpus_rows(labelled, "uncommonroute_tiers", np.eye(N_TIERS)[labelled["tier"].map(_UNCOMMONROUTE_TIERS)])


def _outcome_rows(prompts: pd.DataFrame, corpora: Path) -> pd.DataFrame:
    targets = _outcome_targets(corpora)
    frames = []
    for source in _SCORED:
        part = prompts[(prompts["dataset"] == source) & prompts.index.isin(list(targets))]
        frames.append(_corpus_rows(part, source, np.array([targets[i] for i in part.index])))
    return pd.concat(frames)


def _corpus_rows(prompts: pd.DataFrame, source: str, targets: Array) -> pd.DataFrame:
    columns = {"id": prompts.index, "text": prompts["prompt"].to_numpy(), "dataset": prompts["dataset"].to_numpy()}
    return pd.DataFrame({**columns, "source": source, "group": prompts.index, "target": list(map(tuple, targets))})


def _outcome_targets(corpora: Path) -> dict[str, tuple[float, ...]]:
    """P(required tier) from outcomes: the measured gain where there is one, split by the Rasch fit's middle tier."""
    items = _read_table(corpora, "item_difficulty").set_index("query_id")
    gain = _read_table(corpora, "pair_gain").set_index("query_id")["gain"]
    over_cheap = (items["p_frontier"] - items["p_cheap"]).clip(lower=0)
    over_mid = (items["p_frontier"] - items["p_mid"]).clip(lower=0)
    share_of_top = (over_mid / over_cheap.where(over_cheap > 0)).fillna(0.0).clip(0, 1)
    needed = gain.reindex(items.index).clip(0, 1).fillna(over_cheap)
    table = np.stack([1 - needed, needed * (1 - share_of_top), needed * share_of_top], axis=1)
    return dict(zip(items.index, map(tuple, table.tolist()), strict=True))


def _read_table(corpora: Path, name: str) -> pd.DataFrame:
    path = corpora / f"{name}.parquet"
    if not path.is_file():
        raise CorporaMissing(f"{path} is not there; give the corpora with --corpora DIR: {HOLDS}")
    return pd.read_parquet(path)
