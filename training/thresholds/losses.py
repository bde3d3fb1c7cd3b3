"""What each tier loses on labelled requests, from a file: text and required tier, or a score for each tier or model."""

from __future__ import annotations

from collections.abc import Callable
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
from training.rows.traffic import LabelError, tier_names

_TIERS = [tier.value for tier in Tier]
_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": lambda path: pd.read_csv(path, dtype={"id": str, "text": str, "tier": str}, keep_default_na=False),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
    ".parquet": pd.read_parquet,
}


@dataclass(frozen=True)
class Losses:
    """`loss` float64 [n, 3]: what sending a row to each tier loses against the top tier, in [0, 1]; NaN if not known.

    With required tiers it is 1 below them, else 0. `frame` holds the other columns (id, language, category, ...).
    `n_seen` rows were left out, because the artifact was trained on them.
    """

    path: Path
    texts: list[str]
    loss: Array
    required: Ints | None
    frame: pd.DataFrame
    n_seen: int = 0

    def __len__(self) -> int:
        return len(self.texts)


def read_losses(path: Path, fleet: Fleet) -> Losses:
    """Labelled rows from CSV, JSONL or Parquet.

    Raises LabelError, naming the row or the column and what was expected.
    """
    frame = _frame(path)
    if "text" not in frame:
        raise LabelError(
            f"{path}: columns are {', '.join(map(str, frame))}; expected text, and tier or a score for each model"
        )
    empty = frame["text"].map(lambda text: not isinstance(text, str) or not text.strip())
    if empty.any():
        raise LabelError(f"{path}: row {int(empty.argmax()) + 1} has no text; remove it")
    texts = frame["text"].tolist()
    if "tier" in frame:
        named = tier_names(frame)
        wrong = ~named.isin(_TIERS)
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise LabelError(f"{path}: row {row + 1} has tier {frame['tier'][row]!r}, expected {', '.join(_TIERS)}")
        required = named.map(_TIERS.index).to_numpy(int)
        loss = (np.arange(len(_TIERS)) < required[:, None]).astype(float)
        return Losses(path, texts, loss, required, frame)
    if "p_required" in frame:
        return Losses(path, texts, _soft_loss(path, frame), None, frame)
    return Losses(path, texts, _loss(path, frame, fleet), None, frame)


def read_scores(path: Path, labels: Losses) -> Array:
    """P(suffices) float64 [n, 3] of the labels' rows by `id`, from columns p_simple and p_moderate.

    Raises LabelError when a column or a row is missing.
    """
    frame, columns = _frame(path), [f"p_{tier}" for tier in _TIERS[:-1]]
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
    return Losses(labels.path, texts, labels.loss[keep], required, frame, int((~keep).sum()))


def _frame(path: Path) -> pd.DataFrame:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise LabelError(f"{path}: expected a file that ends in {', '.join(_READERS)}")
    try:
        frame = reader(path)
    except FileNotFoundError as exc:
        raise LabelError(f"{path} is not there") from exc
    except (ValueError, OSError) as exc:  # pandas and pyarrow: malformed content
        raise LabelError(f"{path} cannot be read: {exc}") from exc
    if frame.empty:
        raise LabelError(f"{path} has no rows")
    return frame.reset_index(drop=True)


def _soft_loss(path: Path, frame: pd.DataFrame) -> Array:
    """From `tierwise label`: P(a tier is required), so that a tier loses with the probability that more is."""
    try:
        p = np.array(frame["p_required"].tolist(), float).reshape(len(frame), len(_TIERS))
    except ValueError as exc:
        raise LabelError(f"{path}: p_required has rows that are not {len(_TIERS)} numbers: {exc}") from exc
    wrong = (p < 0).any(axis=1) | ~np.isclose(p.sum(axis=1), 1, atol=1e-3)
    if wrong.any():
        row = int(wrong.argmax())
        raise LabelError(f"{path}: row {row + 1} has p_required {p[row].tolist()}, expected shares that sum to 1")
    return np.asarray(np.clip(1 - p.cumsum(axis=1), 0, 1))


def _loss(path: Path, frame: pd.DataFrame, fleet: Fleet) -> Array:
    """From scores: how far each tier's answer falls behind the top tier's; a better answer is worth no more."""
    names = {tier: (tier.value, model.id, *model.aliases) for tier, model in fleet.models.items()}
    columns = {tier: next((name for name in known if name in frame), None) for tier, known in names.items()}
    top = columns[Tier.COMPLEX]
    if top is None or sum(column is not None for column in columns.values()) < 2:
        there = ", ".join(map(str, frame))
        expected = ", ".join(f"{tier.value} or {fleet.models[tier].id}" for tier in fleet.models)
        raise LabelError(
            f"{path}: columns are {there}; expected tier, or scores in [0, 1] for the top tier and a "
            f"cheaper one, in columns {expected}"
        )
    loss = np.full((len(frame), len(_TIERS)), np.nan)
    for k, tier in enumerate(Tier):
        column = columns.get(tier)
        if column is not None:
            values = pd.to_numeric(frame[column], errors="coerce").to_numpy(float)
            wrong = ~((values >= 0) & (values <= 1))
            if wrong.any():
                row = int(wrong.argmax())
                raise LabelError(f"{path}: row {row + 1} has {column} {frame[column][row]!r}, expected 0 to 1")
            loss[:, k] = values
    return np.asarray(np.clip(loss[:, -1:] - loss, 0, 1))
