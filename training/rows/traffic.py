"""The user's own rows, read in batches: labels, outcomes or plain requests, from a table (training/rows/tables.py).

A label is a text with one of
- `tier`: simple, moderate or complex
- `p_required`: P(required tier), cheap to strong (what `tierwise label` writes for outcomes)
- a score in [0, 1] for each model, in a column of the model's name
- or rows `query_id, model, score`, with `text` beside them or in a file of prompts (`query_id, text`).
Where only the cheap and the top tier were seen (scores of two tiers, a judge's comparison) a label is `censored`: what
the cheap one does not do may need either of the two above, and counts as complex. On five sets with scores of three
tiers, 7 to 11 % then went below their required tier at a promise of 8 %; split between the two as the base has it, 3 to
25 % did (training/EXPERIMENTS.md, row 47).
`weight`, `method`, `conversation`, `language`, `category`, `key` and `class` are read where they are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from router import catalog
from router.decide.task import read_task
from router.errors import RequestError
from router.types import Tier
from training.rows import columns, tables
from training.rows.columns import SLICES, Say
from training.rows.errors import LabelError, bad_row
from training.rows.tables import Table

METHODS = ("by-hand", "given", "outcomes", "judge", "ask")
"""Where a label may come from; where one text has several, the earlier method wins."""


@dataclass(frozen=True)
class TrafficFile:
    """A file of the user's rows. Outcomes may also need a file of their prompts, and the tier of each model.

    The columns of the text and of the tier are found by their names unless they are given; `say` is told of guesses and
    of rows that were left out.
    """

    path: Path
    prompts: Path | None = None
    tiers: Mapping[str, Tier] | None = None
    text_column: str | None = None
    tier_column: str | None = None
    say: Say = lambda _: None

    @cached_property
    def table(self) -> Table:
        """The file itself. Raises LabelError when it is not there."""
        return Table(self.path, None if self.prompts else self.text_column, self.tier_column, self.say)

    @cached_property
    def prompts_table(self) -> Table | None:
        """The file of prompts, if there is one."""
        return None if self.prompts is None else Table(self.prompts, self.text_column, None, self.say)

    @property
    def is_long(self) -> bool:
        """Whether it has a row for each query and model."""
        return {"model", "score"} <= set(self.table.columns)

    def sha256(self) -> str:
        """Of the files' bytes."""
        digest = hashlib.sha256()
        for path in filter(None, (self.path, self.prompts)):
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class LabelBatch:
    """A batch of labels.

    `targets` float64 [n, n_tiers], rows sum to 1; `weights` float64 [n]; `methods` int8 [n] in METHODS; `censored`
    bool [n]: the middle tier was not seen.
    `conversations` and the values of `slices` are "" where unknown; `numbers` are the rows' numbers in the file.
    """

    texts: list[str]
    targets: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    methods: npt.NDArray[np.int8]
    censored: npt.NDArray[np.bool_]
    conversations: list[str]
    slices: dict[str, list[str]]
    numbers: npt.NDArray[np.int_]


def read_labels(file: TrafficFile) -> Iterator[LabelBatch]:
    """The labels of a file, batch by batch, in order. Raises LabelError, naming the row or column and the remedy."""
    for frame in _rows_by_query(file) if file.is_long else file.table.frames(_label_columns(file)):
        texts = texts_of(file.path, frame)
        rows = _Rows(file.path, frame)
        yield LabelBatch(
            texts,
            _targets(rows, file),
            _weights(rows),
            _methods(rows),
            _censored(rows, file),
            _strings(frame, "conversation"),
            {name: _strings(frame, name) for name in SLICES if name in frame},
            frame.index.to_numpy(int),
        )


def texts_of(path: Path, frame: pd.DataFrame) -> list[str]:
    """The column `text` of rows with their numbers as index. Raises LabelError for a row without one."""
    texts: list[Any] = frame["text"].tolist()
    for row, value in zip(frame.index, texts, strict=True):
        if not isinstance(value, str) or not value.strip():
            said = "there is no text" if tables.is_empty(value) else f"the text is {value!r}, expected a string"
            raise LabelError(f"{path}: row {row}: {said}; leave the row out")
    return texts


@dataclass(frozen=True)
class _Rows:
    """A batch as read: `frame`, whose index are the rows' numbers."""

    path: Path
    frame: pd.DataFrame

    def refuse(self, at: int, why: str) -> LabelError:
        """The error of the row at this place."""
        return bad_row(self.path, int(self.frame.index[at]), self.frame["text"].iloc[at], why)


def _label_columns(file: TrafficFile) -> dict[str, str]:
    """What the columns of the text and of the tier are renamed to. Raises LabelError where there is no tier at all."""
    table = file.table
    names = {table.text: "text"}
    if "good" in table.columns:
        raise LabelError(f"{file.path} is feedback, not labels; turn it into labels first: tierwise label")
    if "p_required" in table.columns:
        return names
    scores = bool(_scored(table.head))
    tier = table.tier(needed=not scores)
    if tier is None and not scores:
        raise columns.no_tier(table.columns, table.values_of, file.path)
    return names if tier is None else {**names, tier: "tier"}


def column(frame: pd.DataFrame, names: Iterable[str], path: Path) -> str:
    """The first of `names` that the frame has. Raises LabelError, naming what is there."""
    for name in names:
        if name in frame:
            return name
    there = [str(name) for name in frame]
    near = [match for name in names for match in get_close_matches(name, there, n=1)]
    remedy = f"rename {near[0]!r}?" if near else f"it has {', '.join(there)}"
    raise LabelError(f"{path} has no column {' or '.join(names)}; {remedy}")


def _rows_by_query(file: TrafficFile) -> Iterator[pd.DataFrame]:
    """Rows `query_id, model, score` -> one row a query: its text, its slices and the mean score of each tier.

    The number of a query is that of its first row.
    """
    parts: list[pd.DataFrame] = []
    queries: dict[str, dict[str, Any]] = {}
    there = file.table.columns
    has_texts = any(name in there for name in columns.TEXT_COLUMNS) or (
        file.prompts is None and columns.has_text(there, file.text_column)
    )
    for frame in file.table.frames({file.table.text: "text"} if has_texts else None):
        ids = _ids(frame[column(frame, ("query_id", "id"), file.path)])
        parts.append(pd.DataFrame({"id": ids, "model": frame["model"], "score": frame["score"]}).dropna())
        if has_texts:
            queries |= _queries(frame, ids)
        elif file.prompts is None:
            raise LabelError(f"{file.path} has scores but no texts; give the prompts' file (query_id, text): --prompts")
    scores = pd.concat(parts)
    wrong = scores[~pd.to_numeric(scores["score"], errors="coerce").between(0, 1)]
    if len(wrong):
        query, model, value = (wrong[name].tolist()[0] for name in ("id", "model", "score"))
        raise LabelError(
            f"{file.path}: row {wrong.index[0]}: query {query}, model {model}: score is {value!r}, expected 0 to 1"
        )
    names = {model: tier.value for model, tier in tiers_of(scores["model"].unique(), file).items()}
    scores = scores.assign(tier=scores["model"].map(names), score=pd.to_numeric(scores["score"])).dropna()
    table = scores.pivot_table(index="id", columns="tier", values="score", aggfunc="mean").dropna()
    if (prompts := file.prompts_table) is not None:
        for frame in prompts.frames({prompts.text: "text"}):
            ids = _ids(frame[column(frame, ("query_id", "id"), prompts.path)])
            queries |= _queries(frame[ids.isin(table.index)], ids)
    table = table[table.index.isin(list(queries))]
    if table.empty:
        raise LabelError(f"{file.path}: no query has a text and a score of each tier; check --prompts and --tier")
    first = scores.index.to_series().groupby(scores["id"].to_numpy()).min()
    table = table.loc[first[table.index].sort_values().index]
    for start in range(0, len(table), tables.BATCH):
        part = table.iloc[start : start + tables.BATCH]
        known = pd.DataFrame([queries[query] for query in part.index], index=part.index)
        yield part.join(known).assign(method="outcomes").set_axis(first[part.index].to_numpy(), axis=0)


def _ids(values: pd.Series) -> pd.Series:
    """Ids that are alike whatever the file: 7, 7.0 and "7"."""

    def plain(value: Any) -> str | None:
        if tables.is_empty(value):
            return None
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    return values.map(plain)


def _queries(frame: pd.DataFrame, ids: pd.Series) -> dict[str, dict[str, Any]]:
    """What is known of each query besides scores."""
    known = [name for name in ("conversation", *SLICES) if name in frame]
    kept = frame[["text", *known]].assign(_id=ids[frame.index]).drop_duplicates("_id")
    return {row.pop("_id"): {str(name): value for name, value in row.items()} for row in kept.to_dict("records")}


def tiers_of(names: Iterable[Any], file: TrafficFile, least: int = 2) -> dict[str, Tier]:
    """The tier of each model that has one: as given, or a tier's own name, or as in the catalog's fleets.

    Raises LabelError when they are models of fewer than `least` tiers, or, of two or more, none is of the strongest.
    """
    known = list(map(str, names))
    if file.tiers is not None:
        found = {name: file.tiers[name] for name in known if name in file.tiers}
    else:
        fleets = catalog.shipped().fleets.values()
        by_fleet = ((name, fleet.tier_of(name)) for name in known for fleet in fleets)
        found = {name: tier for name, tier in by_fleet if tier}
    found |= {name: Tier(name) for name in known if name in list(Tier)}
    if len(set(found.values())) < least or (least > 1 and Tier.COMPLEX not in found.values()):
        missing = f"their tiers are known for {sorted(found)}" if found else "none of their tiers is known"
        raise LabelError(
            f"{file.path} has scores of {', '.join(known[:12])}: {missing}; say which models stand for which tier, "
            "the strongest for complex: --tier simple=MODEL,MODEL --tier complex=MODEL"
        )
    return found


def required(scores: Mapping[Tier, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """P(required tier) float64 [n, n_tiers] from mean scores by tier: what the strongest gains over each.

    Where no model of the middle tier answered, what the cheap one cannot do counts as complex, and is censored.
    """
    top = np.clip(scores[Tier.COMPLEX], 0, 1)
    lacks = {tier: np.clip(top - scores[tier], 0, 1) for tier in list(Tier)[:-1] if tier in scores}
    simple = 1 - lacks.get(Tier.SIMPLE, np.ones_like(top))
    moderate = np.maximum(simple, 1 - lacks[Tier.MODERATE]) if Tier.MODERATE in lacks else simple
    return np.column_stack([simple, moderate - simple, 1 - moderate])


def read_requests(file: TrafficFile) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(row number, the task's text, what the row holds) of plain traffic: a text a row, or `messages` as sent.

    Rows without a text are left out, which is said. Raises LabelError.
    """
    table, n_without = file.table, 0
    as_sent = file.text_column is None and "messages" in table.columns
    for frame in table.frames(None if as_sent else {table.text: "text"}):
        for number, row in zip(frame.index, frame.to_dict("records"), strict=True):
            try:
                task = read_task({"messages": row["messages"]}).text if as_sent else row["text"]
            except RequestError as exc:
                raise bad_row(file.path, int(number), str(row["messages"]), str(exc)) from exc
            if isinstance(task, str) and task.strip():
                known = {str(name): value for name, value in row.items() if not tables.is_empty(value)}
                yield int(number), task, known
            else:
                n_without += 1
    if n_without:
        table.say(f"{n_without} row{'s' if n_without > 1 else ''} without a text skipped")


def read_starts(file: TrafficFile, numbers: Iterable[int]) -> dict[int, str]:
    """The texts of these rows of labels, by number."""
    wanted, found = set(numbers), dict[int, str]()
    for batch in read_labels(file) if wanted else ():
        found |= {n: text for n, text in zip(batch.numbers.tolist(), batch.texts, strict=True) if n in wanted}
        if len(found) == len(wanted):
            break
    return found


def _targets(rows: _Rows, file: TrafficFile) -> npt.NDArray[np.float64]:
    frame = rows.frame
    if "p_required" in frame:
        return _soft_targets(rows)
    if "tier" not in frame:
        tiers = tiers_of(_scored(frame), file)
        of_tier = {t: [model for model, other in tiers.items() if other is t] for t in Tier}
        return required({t: frame[names].mean(axis=1).to_numpy(float) for t, names in of_tier.items() if names})
    named = tier_names(frame)
    wrong = ~named.isin(list(Tier))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        n_more = int(wrong.sum()) - 1
        more = f" ({n_more} more such rows among the first {frame.index[-1]})" if n_more else ""
        raise rows.refuse(at, f"{wrong_tier(frame['tier'].tolist()[at])}{more}")
    return np.eye(len(Tier))[named.map({tier.value: k for k, tier in enumerate(Tier)}).to_numpy(int)]


def wrong_tier(value: Any) -> str:
    """What is wrong with the tier of a row, and what to do."""
    expected = ", ".join(Tier)
    if tables.is_empty(value):
        return f"it has no tier; expected {expected}, or leave the row out"
    near = get_close_matches(str(value).strip().lower(), [tier.value for tier in Tier], n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "map your labels to these names"
    return f"tier {value!r} is none of {expected}; {remedy}"


def tier_names(frame: pd.DataFrame) -> pd.Series:
    """The column `tier`, whatever the case of its names and the blanks around them; other values as they are."""
    return frame["tier"].map(lambda value: value.strip().lower() if isinstance(value, str) else value)


def _soft_targets(rows: _Rows) -> npt.NDArray[np.float64]:
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


def _is_score(values: pd.Series) -> bool:
    return (
        values.name not in ("weight", "id", "censored")
        and values.dtype.kind in "fiub"
        and bool(values.between(0, 1).all())
    )


def _weights(rows: _Rows) -> npt.NDArray[np.float64]:
    if "weight" not in rows.frame:
        return np.ones(len(rows.frame))
    given = rows.frame["weight"]
    weights = pd.to_numeric(given.fillna(1.0), errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if wrong.size:
        raise rows.refuse(wrong[0], f"weight is {given.tolist()[wrong[0]]!r}, expected a number above 0")
    return weights


def _methods(rows: _Rows) -> npt.NDArray[np.int8]:
    if "method" not in rows.frame:
        return np.full(len(rows.frame), METHODS.index("given"), np.int8)
    given = rows.frame["method"]
    wrong = np.flatnonzero(~given.isin(METHODS))
    if wrong.size:
        raise rows.refuse(wrong[0], f"method {given.tolist()[wrong[0]]!r} is none of {', '.join(METHODS)}")
    return given.map(METHODS.index).to_numpy(np.int8)


def _censored(rows: _Rows, file: TrafficFile) -> npt.NDArray[np.bool_]:
    """Rows that say nothing of the middle tier: marked so, or scores of two tiers."""
    frame = rows.frame
    if "p_required" not in frame:
        models = [] if "tier" in frame else _scored(frame)
        return np.full(len(frame), bool(models) and Tier.MODERATE not in tiers_of(models, file).values())
    if "censored" not in frame:
        return np.zeros(len(frame), bool)
    given = frame["censored"].astype(object)
    wrong = np.flatnonzero(~(given.isin([True, False]) | given.isna()))
    if wrong.size:
        raise rows.refuse(wrong[0], f"censored is {given.tolist()[wrong[0]]!r}, expected true or false")
    return given.eq(True).to_numpy(bool)


def _scored(frame: pd.DataFrame) -> list[str]:
    """The columns that hold scores."""
    return [str(name) for name in frame if name not in ("tier", "text") and _is_score(frame[name])]


def _strings(frame: pd.DataFrame, name: str) -> list[str]:
    if name not in frame:
        return [""] * len(frame)
    return ["" if value is None or value != value else str(value) for value in frame[name]]
