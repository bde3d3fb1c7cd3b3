"""What labelled rows say: P(required tier), weight, method, whether the middle tier was seen; each row is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from router.types import Tier
from training.rows.errors import LabelError, bad_row
from training.rows.tables import is_empty

METHODS = ("by-hand", "given", "outcomes", "judge", "ask")
"""Where a label may come from; where one text has several, the earlier method wins."""


@dataclass(frozen=True)
class Rows:
    """A batch as read: `frame`, whose index are the rows' numbers."""

    path: Path
    frame: pd.DataFrame

    def refuse(self, at: int, why: str) -> LabelError:
        """The error of the row at this place."""
        return bad_row(self.path, int(self.frame.index[at]), self.frame["text"].iloc[at], why)


def texts_of(rows: Rows) -> list[str]:
    """The texts. Raises LabelError for a row without one."""
    texts: list[Any] = rows.frame["text"].tolist()
    for number, value in zip(rows.frame.index, texts, strict=True):
        if not isinstance(value, str) or not value.strip():
            said = "there is no text" if is_empty(value) else f"the text is {value!r}, expected a string"
            raise LabelError(f"{rows.path}: row {number}: {said}; leave the row out")
    return texts


def targets_of(rows: Rows, models: Mapping[str, Tier]) -> npt.NDArray[np.float64]:
    """P(required tier) float64 [n, n_tiers], cheap to strong; `models` are the columns of scores. Raises LabelError."""
    if "p_required" in rows.frame:
        return soft_targets_of(rows)
    if "tier" in rows.frame:
        return np.eye(len(Tier))[tiers_of(rows)]
    return required(scores_of(rows, models))


def tiers_of(rows: Rows) -> npt.NDArray[np.int_]:
    """The number of the required tier int [n], whatever the case of its name and the blanks around it.

    Raises LabelError.
    """
    given = rows.frame["tier"].map(lambda value: value.strip().lower() if isinstance(value, str) else value)
    wrong = ~given.isin(list(Tier))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        n_more = int(wrong.sum()) - 1
        more = f" ({n_more} more such rows among the first {rows.frame.index[-1]})" if n_more else ""
        raise rows.refuse(at, f"{_wrong_tier(rows.frame['tier'].tolist()[at])}{more}")
    return np.array(given.map({tier.value: tier.rank for tier in Tier}), np.int_)


def scores_of(rows: Rows, models: Mapping[str, Tier]) -> dict[Tier, npt.NDArray[np.float64]]:
    """The mean score [n] of each tier's models, in [0, 1]. Raises LabelError for another score, or none in a row."""
    scores = {}
    for tier in dict.fromkeys(models.values()):
        given = rows.frame[[model for model, other in models.items() if other is tier]]
        values = given.apply(pd.to_numeric, errors="coerce").astype(float)
        for model in given:
            wrong = np.flatnonzero(~given[model].map(is_empty).to_numpy(bool) & ~values[model].between(0, 1).to_numpy())
            if wrong.size:
                raise rows.refuse(wrong[0], f"{model} is {given[model].tolist()[wrong[0]]!r}, expected 0 to 1")
        scores[tier] = values.mean(axis=1).to_numpy(float)
        lacking = np.flatnonzero(np.isnan(scores[tier]))
        if lacking.size:
            raise rows.refuse(lacking[0], f"it has no score of {' or '.join(map(str, given))}; leave the row out")
    return scores


def required(scores: Mapping[Tier, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """P(required tier) float64 [n, n_tiers] from mean scores by tier: what the strongest gains over each.

    Where no model of the middle tier answered, what the cheap one cannot do counts as complex, and is censored.
    """
    top = np.clip(scores[Tier.COMPLEX], 0, 1)
    lacks = {tier: np.clip(top - scores[tier], 0, 1) for tier in list(Tier)[:-1] if tier in scores}
    simple = 1 - lacks.get(Tier.SIMPLE, np.ones_like(top))
    moderate = np.maximum(simple, 1 - lacks[Tier.MODERATE]) if Tier.MODERATE in lacks else simple
    return np.column_stack([simple, moderate - simple, 1 - moderate])


def _wrong_tier(value: Any) -> str:
    """What is wrong with the tier of a row, and what to do."""
    expected = ", ".join(Tier)
    if is_empty(value):
        return f"it has no tier; expected {expected}, or leave the row out"
    near = get_close_matches(str(value).strip().lower(), [tier.value for tier in Tier], n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "map your labels to these names"
    return f"tier {value!r} is none of {expected}; {remedy}"


def soft_targets_of(rows: Rows) -> npt.NDArray[np.float64]:
    """The column `p_required` as float64 [n, n_tiers]. Raises LabelError."""
    for at, value in enumerate(rows.frame["p_required"]):
        given = np.asarray(value, object)
        if given.shape != (len(Tier),) or not all(isinstance(p, float | int) for p in given):
            raise rows.refuse(at, f"p_required is {value!r}, expected {len(Tier)} numbers")
    table = np.array([list(value) for value in rows.frame["p_required"]], float).reshape(-1, len(Tier))
    off = np.flatnonzero(~((table >= -1e-6).all(axis=1) & (np.abs(table.sum(axis=1) - 1) < 1e-3)))
    if off.size:
        raise rows.refuse(off[0], f"p_required is {table[off[0]].tolist()}, expected a sum of 1")
    clipped = np.clip(table, 0, 1)
    return np.asarray(clipped / clipped.sum(axis=1, keepdims=True))


def weights_of(rows: Rows) -> npt.NDArray[np.float64]:
    """The column `weight` float64 [n], 1 where there is none. Raises LabelError."""
    if "weight" not in rows.frame:
        return np.ones(len(rows.frame))
    given = rows.frame["weight"]
    weights = pd.to_numeric(given.fillna(1.0), errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if wrong.size:
        raise rows.refuse(wrong[0], f"weight is {given.tolist()[wrong[0]]!r}, expected a number above 0")
    return weights


def methods_of(rows: Rows) -> npt.NDArray[np.int8]:
    """The column `method` as numbers in METHODS int8 [n], `given` where there is none. Raises LabelError."""
    if "method" not in rows.frame:
        return np.full(len(rows.frame), METHODS.index("given"), np.int8)
    given = rows.frame["method"]
    wrong = np.flatnonzero(~given.isin(METHODS))
    if wrong.size:
        raise rows.refuse(wrong[0], f"method {given.tolist()[wrong[0]]!r} is none of {', '.join(METHODS)}")
    return given.map(METHODS.index).to_numpy(np.int8)


def censored_of(rows: Rows, models: Mapping[str, Tier]) -> npt.NDArray[np.bool_]:
    """Rows bool [n] that say nothing of the middle tier: marked so, or scores of two tiers. Raises LabelError."""
    frame = rows.frame
    if "p_required" not in frame:
        return np.full(len(frame), "tier" not in frame and Tier.MODERATE not in models.values())
    if "censored" not in frame:
        return np.zeros(len(frame), bool)
    given = frame["censored"].astype(object)
    wrong = np.flatnonzero(~(given.isin([True, False]) | given.isna()))
    if wrong.size:
        raise rows.refuse(wrong[0], f"censored is {given.tolist()[wrong[0]]!r}, expected true or false")
    return given.eq(True).to_numpy(bool)


def strings_of(frame: pd.DataFrame, name: str) -> list[str]:
    """A column [n], "" where there is nothing."""
    if name not in frame:
        return [""] * len(frame)
    return ["" if value is None or value != value else str(value) for value in frame[name]]
