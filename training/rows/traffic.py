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
from training.rows import columns, tables, targets
from training.rows.columns import SLICES, Say
from training.rows.errors import LabelError, bad_row
from training.rows.tables import Table
from training.rows.targets import Rows


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

    @cached_property
    def models(self) -> dict[str, Tier]:
        """The columns of scores, with their tiers; none unless the strongest tier's and another one's are there."""
        known = _known_tiers(self.table.columns, self)
        return known if len(set(known.values())) > 1 and Tier.COMPLEX in known.values() else {}

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
    names = {} if file.is_long else _label_columns(file)
    for frame in _rows_by_query(file) if file.is_long else file.table.frames(names):
        models = {tier.value: tier for tier in Tier if tier.value in frame} if file.is_long else file.models
        rows = Rows(file.path, frame)
        yield LabelBatch(
            targets.texts_of(rows),
            targets.targets_of(rows, models),
            targets.weights_of(rows),
            targets.methods_of(rows),
            targets.censored_of(rows, models),
            targets.strings_of(frame, "conversation"),
            {name: targets.strings_of(frame, name) for name in SLICES if name in frame},
            frame.index.to_numpy(int),
        )


def _label_columns(file: TrafficFile) -> dict[str, str]:
    """What the columns of the text and of the tier are renamed to. Raises LabelError where there is no tier at all."""
    table = file.table
    names = {table.text: "text"}
    if "good" in table.columns:
        raise LabelError(f"{file.path} is feedback, not labels; turn it into labels first: tierwise label")
    if "p_required" in table.columns:
        return names
    tier = table.tier(needed=not file.models)
    if tier is None and not file.models:
        if scored := _scored(table.head):
            tiers_of(scored, file)  # says what --tier is for
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
    found = _known_tiers(known, file)
    if len(set(found.values())) < least or (least > 1 and Tier.COMPLEX not in found.values()):
        missing = f"their tiers are known for {sorted(found)}" if found else "none of their tiers is known"
        raise LabelError(
            f"{file.path} has scores of {', '.join(known[:12])}: {missing}; say which models stand for which tier, "
            "the strongest for complex: --tier simple=MODEL,MODEL --tier complex=MODEL. If a column holds tiers: "
            "--tier-column NAME"
        )
    return found


def _known_tiers(names: list[str], file: TrafficFile) -> dict[str, Tier]:
    if file.tiers is not None:
        found = {name: file.tiers[name] for name in names if name in file.tiers}
    else:
        fleets = catalog.shipped().fleets.values()
        by_fleet = ((name, fleet.tier_of(name)) for name in names for fleet in fleets)
        found = {name: tier for name, tier in by_fleet if tier}
    return found | {name: Tier(name) for name in names if name in list(Tier)}


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


def _scored(frame: pd.DataFrame) -> list[str]:
    """The columns that hold scores."""
    return [str(name) for name in frame if name not in ("tier", "text") and _is_score(frame[name])]


def _is_score(values: pd.Series) -> bool:
    return (
        values.name not in ("weight", "id", "censored")
        and values.dtype.kind in "fiub"
        and bool(values.between(0, 1).all())
    )
