"""What each tier loses on labelled requests, from a file: text and required tier, or a score for each tier or model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from router.catalog import Fleet
from router.classifier.artifact import Manifest
from router.types import Tier
from training.build import export, training_set
from training.build.arrays import Array, Ints
from training.retrain import examples
from training.rows import targets
from training.rows.columns import no_tier
from training.rows.errors import LabelError
from training.rows.tables import Table
from training.rows.targets import Rows

_TIERS = [tier.value for tier in Tier]


@dataclass(frozen=True)
class Losses:
    """`loss` float64 [n, 3]: what sending a row to each tier loses against the top tier, in [0, 1]; NaN if not known.

    With required tiers it is 1 below them, else 0. `frame` holds the other columns (id, language, category, ...), its
    tiers as Tier names them; `numbers` are the rows' numbers in the file. `n_seen` rows were left out, because the
    artifact was trained on them.
    """

    path: Path
    texts: list[str]
    loss: Array
    required: Ints | None
    frame: pd.DataFrame
    numbers: Ints
    n_seen: int = 0

    def __len__(self) -> int:
        return len(self.texts)


def read_losses(source: Path | Table, fleet: Fleet) -> Losses:
    """Labelled rows of a table. Raises LabelError, naming the row or the column and what was expected."""
    table = source if isinstance(source, Table) else Table(source)
    path, names = table.path, {table.text: "text"}
    scored = _score_columns(table.columns, fleet)
    tier = None if "p_required" in table.columns else table.tier(needed=scored is None)
    frame = pd.concat(table.frames(names if tier is None else {**names, tier: "tier"}))
    rows = Rows(path, frame)
    texts, numbers = targets.texts_of(rows), frame.index.to_numpy(int)
    others = frame.reset_index(drop=True)
    if "tier" in frame:
        required = targets.tiers_of(rows)
        loss = (np.arange(len(_TIERS)) < required[:, None]).astype(float)
        return Losses(path, texts, loss, required, others.assign(tier=np.array(_TIERS)[required]), numbers)
    if "p_required" in frame:
        # From `tierwise label`: P(a tier is required), so that a tier loses with the probability that more is.
        loss = np.clip(1 - targets.soft_targets_of(rows).cumsum(axis=1), 0, 1)
        return Losses(path, texts, np.asarray(loss), None, others, numbers)
    if scored is None:
        expected = ", ".join(f"{tier.value} or {fleet.models[tier].id}" for tier in fleet.models)
        raise LabelError(
            f"{no_tier(table.columns, table.values_of, path)}. Scores are expected for the top tier and a cheaper one, "
            f"in columns {expected}"
        )
    return Losses(path, texts, _loss(rows, scored), None, others, numbers)


def read_scores(path: Path, labels: Losses) -> Array:
    """P(suffices) float64 [n, 3] of the labels' rows by `id`, from columns p_simple and p_moderate.

    Raises LabelError when a column or a row is missing.
    """
    frame, columns = pd.concat(Table(path).frames()), [f"p_{tier}" for tier in _TIERS[:-1]]
    missing = [name for name in ("id", *columns) if name not in frame]
    if missing or "id" not in labels.frame:
        where = path if missing else labels.path
        raise LabelError(f"{where} has no column {', '.join(missing) or 'id'}; scores are joined to labels by id")
    found = frame.assign(id=frame["id"].astype(str)).drop_duplicates("id").set_index("id")
    q = found.reindex(labels.frame["id"].astype(str))[columns].to_numpy(float)
    if np.isnan(q).any():
        absent = labels.frame["id"][int(np.isnan(q).any(axis=1).argmax())]
        raise LabelError(f"{path} has no score for {absent!r}; expected every id of {labels.path}")
    return np.column_stack([q, np.ones(len(q))])


def check_unseen(labels: Losses, manifest: Manifest) -> None:
    """Raises LabelError when these are, row by row, a source that the model was trained on."""
    if "id" not in labels.frame:
        return
    digest = training_set.digest(labels.frame["id"].astype(str), labels.texts)
    if any(source.get("sha256") == digest for source in manifest.training_data):
        raise LabelError(
            f"{manifest.name}-v{manifest.version} was trained on {labels.path}: it would look better than it is. Give "
            "other rows, or out-of-fold scores with --scores (`python -m training out-of-fold`)"
        )


def unseen(labels: Losses, folder: Path) -> Losses:
    """The rows that the artifact in `folder` was not fitted on. Raises LabelError when none is left."""
    try:
        seen = np.frombuffer((folder / export.SEEN_FILE).read_bytes(), np.uint64)
    except FileNotFoundError:
        return labels
    keep = ~np.isin(examples.keys_of(labels.texts), seen)
    if keep.all():
        return labels
    if not keep.any():
        raise LabelError(f"{folder.name} was trained on every row of {labels.path}; give rows that it has not seen")
    texts = [text for text, kept in zip(labels.texts, keep, strict=True) if kept]
    required = None if labels.required is None else labels.required[keep]
    frame = labels.frame[keep].reset_index(drop=True)
    return Losses(labels.path, texts, labels.loss[keep], required, frame, labels.numbers[keep], int((~keep).sum()))


def _score_columns(names: list[str], fleet: Fleet) -> dict[str, Tier] | None:
    """The columns with scores of the fleet's tiers; None unless there is the top tier's and another one's."""
    known = {tier: (tier.value, model.id, *model.aliases) for tier, model in fleet.models.items()}
    found = {tier: next((name for name in each if name in names), None) for tier, each in known.items()}
    there = {name: tier for tier, name in found.items() if name is not None}
    return there if Tier.COMPLEX in there.values() and len(there) > 1 else None


def _loss(rows: Rows, models: dict[str, Tier]) -> Array:
    """From scores: how far each tier's answer falls behind the top tier's; a better answer is worth no more."""
    loss = np.full((len(rows.frame), len(_TIERS)), np.nan)
    for tier, scores in targets.scores_of(rows, models).items():
        loss[:, tier.rank] = scores
    return np.asarray(np.clip(loss[:, -1:] - loss, 0, 1))
