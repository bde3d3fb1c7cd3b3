"""The user's own rows, read in batches: labels, outcomes or plain requests, from Parquet, JSONL or CSV.

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
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from router import catalog
from router.decide.task import read_task
from router.errors import RequestError, TierwiseError
from router.types import Tier

BATCH = 16_384
TEXT_COLUMNS = ("text", "prompt", "query")
SLICES = ("language", "category", "key", "class")
METHODS = ("by-hand", "given", "outcomes", "judge", "ask")
"""Where a label may come from; where one text has several, the earlier method wins."""

FORMATS = (".parquet", ".jsonl", ".csv")


class LabelError(TierwiseError):
    """Rows that cannot be used: a wrong file, column or value, or too few of something."""


@dataclass(frozen=True)
class TrafficFile:
    """A file of the user's rows. Outcomes may also need a file of their prompts, and the tier of each model."""

    path: Path
    prompts: Path | None = None
    tiers: Mapping[str, Tier] | None = None

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
    `conversations` and the values of `slices` are "" where unknown; `numbers` are the rows' places in the file, from 1.
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
    number = 0
    batches = read_frames(file.path)
    for frame in _rows_by_query(file, batches) if is_long(file.path) else batches:
        text = column(frame, TEXT_COLUMNS, file.path)
        numbers = np.arange(number + 1, number + len(frame) + 1)
        number += len(frame)
        texts = frame[text].tolist()
        for row, value in zip(numbers, texts, strict=True):
            if not isinstance(value, str) or not value.strip():
                raise LabelError(f"{file.path}: row {row}: {text} is {value!r}, expected a text; leave the row out")
        yield LabelBatch(
            texts,
            _targets(frame, file, numbers),
            _weights(frame, file.path, numbers),
            _methods(frame, file.path, numbers),
            _censored(frame, file, numbers),
            _strings(frame, "conversation"),
            {name: _strings(frame, name) for name in SLICES if name in frame},
            numbers,
        )


def read_frames(path: Path) -> Iterator[pd.DataFrame]:
    """The rows of a file, BATCH at a time. Raises LabelError for another format or a row that cannot be parsed."""
    if not path.is_file():
        raise LabelError(f"{path} is not a file; expected {', '.join(FORMATS)}")
    try:
        if path.suffix == ".parquet":
            yield from (batch.to_pandas() for batch in pq.ParquetFile(path).iter_batches(BATCH))
        elif path.suffix == ".csv":
            yield from pd.read_csv(path, chunksize=BATCH, dtype=dict.fromkeys((*TEXT_COLUMNS, *SLICES), str))
        elif path.suffix == ".jsonl":
            yield from _json_lines(path)
        else:
            raise LabelError(f"{path}: the format {path.suffix!r} is not known; expected {', '.join(FORMATS)}")
    except (OSError, ValueError) as exc:  # pandas and pyarrow raise subclasses of both
        raise LabelError(f"{path}: {exc}") from exc


def count_rows(file: TrafficFile) -> int:
    """About how many labels a file holds: its rows, for a progress bar. Raises LabelError when there is none."""
    columns(file.path)
    if file.path.suffix == ".parquet":
        return int(pq.ParquetFile(file.path).metadata.num_rows)
    with file.path.open("rb") as opened:
        return sum(block.count(b"\n") for block in iter(lambda: opened.read(1 << 20), b""))


def columns(path: Path) -> list[str]:
    """The columns of a file's first rows. Raises LabelError for an empty one."""
    frame = next(read_frames(path), None)
    if frame is None or frame.empty:
        raise LabelError(f"{path} has no rows")
    return [str(name) for name in frame]


def column(frame: pd.DataFrame, names: Iterable[str], path: Path) -> str:
    """The first of `names` that the frame has. Raises LabelError, naming what is there."""
    for name in names:
        if name in frame:
            return name
    there = [str(name) for name in frame]
    near = [match for name in names for match in get_close_matches(name, there, n=1)]
    remedy = f"rename {near[0]!r}?" if near else f"it has {', '.join(there)}"
    raise LabelError(f"{path} has no column {' or '.join(names)}; {remedy}")


def is_long(path: Path) -> bool:
    """Whether a file has a row for each query and model."""
    return {"model", "score"} <= set(columns(path))


def _rows_by_query(file: TrafficFile, batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Rows `query_id, model, score` -> one row a query: its text, its slices and the mean score of each tier."""
    parts: list[pd.DataFrame] = []
    queries: dict[Any, dict[str, Any]] = {}
    for frame in batches:
        query = column(frame, ("query_id", "id"), file.path)
        parts.append(pd.DataFrame({"id": frame[query], "model": frame["model"], "score": frame["score"]}).dropna())
        if any(name in frame for name in TEXT_COLUMNS):
            queries |= _queries(frame, query, file.path)
        elif file.prompts is None:
            raise LabelError(f"{file.path} has scores but no texts; give the prompts' file (query_id, text): --prompts")
    scores = pd.concat(parts)
    wrong = scores[~pd.to_numeric(scores["score"], errors="coerce").between(0, 1)]
    if len(wrong):
        query, model, value = wrong.head(1).to_dict("split")["data"][0]
        raise LabelError(f"{file.path}: query {query!r}, model {model!r}: score is {value!r}, expected 0 to 1")
    names = {model: tier.value for model, tier in tiers_of(scores["model"].unique(), file).items()}
    scores = scores.assign(tier=scores["model"].map(names)).dropna()
    table = scores.pivot_table(index="id", columns="tier", values="score", aggfunc="mean").dropna()
    for frame in read_frames(file.prompts) if file.prompts is not None else ():
        query = column(frame, ("query_id", "id"), file.path)
        queries |= _queries(frame[frame[query].isin(table.index)], query, file.prompts or file.path)
    table = table[table.index.isin(list(queries))]
    if table.empty:
        raise LabelError(f"{file.path}: no query has a text and a score of each tier; check --prompts and --tier")
    for start in range(0, len(table), BATCH):
        part = table.iloc[start : start + BATCH]
        known = pd.DataFrame([queries[query] for query in part.index], index=part.index)
        yield part.join(known).assign(method="outcomes")


def _queries(frame: pd.DataFrame, query: str, path: Path) -> dict[Any, dict[str, Any]]:
    """What is known of each query besides scores."""
    text = column(frame, TEXT_COLUMNS, path)
    known = [name for name in ("conversation", *SLICES) if name in frame]
    kept = frame.drop_duplicates(query)[[query, text, *known]].rename(columns={text: "text"})
    return {row.pop(query): {str(name): value for name, value in row.items()} for row in kept.to_dict("records")}


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


def read_requests(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(row number, the task's text, the row) of plain traffic: rows with a text, or with `messages` as sent."""
    number = 0
    for frame in read_frames(path):
        text = None if "messages" in frame else column(frame, TEXT_COLUMNS, path)
        for row in frame.to_dict("records"):
            number += 1
            try:
                task = read_task({"messages": row["messages"]}).text if text is None else row[text]
            except RequestError as exc:
                raise LabelError(f"{path}: row {number}: {exc}") from exc
            if isinstance(task, str) and task.strip():
                yield number, task, {str(name): value for name, value in row.items()}


def _json_lines(path: Path) -> Iterator[pd.DataFrame]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            try:
                rows.append(decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                raise LabelError(f"{path}: line {number}: {exc}; expected one JSON object a line") from exc
            if len(rows) == BATCH:
                yield pd.DataFrame(rows)
                rows = []
    if rows:
        yield pd.DataFrame(rows)


def _targets(frame: pd.DataFrame, file: TrafficFile, numbers: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    if "good" in frame:
        raise LabelError(f"{file.path} is feedback, not labels; turn it into labels first: tierwise label")
    if "p_required" in frame:
        return _soft_targets(frame, file.path, numbers)
    models = _scored(frame)
    if "tier" not in frame and not models:
        column(frame, ("tier",), file.path)
    if "tier" not in frame:
        tiers = tiers_of(models, file)
        of_tier = {t: [model for model, other in tiers.items() if other is t] for t in Tier}
        return required({t: frame[names].mean(axis=1).to_numpy(float) for t, names in of_tier.items() if names})
    named = tier_names(frame)
    wrong = ~named.isin(list(Tier))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        value = frame["tier"].tolist()[at]
        near = get_close_matches(str(value).strip().lower(), [tier.value for tier in Tier], n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "map your labels to these names"
        raise LabelError(
            f"{file.path}: row {numbers[at]}: tier {value!r} is none of {', '.join(Tier)}; {remedy} "
            f"({int(wrong.sum())} such rows among the first {numbers[-1]})"
        )
    return np.eye(len(Tier))[named.map({tier.value: k for k, tier in enumerate(Tier)}).to_numpy(int)]


def tier_names(frame: pd.DataFrame) -> pd.Series:
    """The column `tier`, whatever the case of its names and the blanks around them; other values as they are."""
    return frame["tier"].map(lambda value: value.strip().lower() if isinstance(value, str) else value)


def _soft_targets(frame: pd.DataFrame, path: Path, numbers: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    for number, value in zip(numbers, frame["p_required"], strict=True):
        given = np.asarray(value, object)
        if given.shape != (len(Tier),) or not all(isinstance(p, float | int) for p in given):
            raise LabelError(f"{path}: row {number}: p_required is {value!r}, expected {len(Tier)} numbers")
    table = np.array([list(value) for value in frame["p_required"]], float).reshape(-1, len(Tier))
    off = np.flatnonzero(~((table >= -1e-6).all(axis=1) & (np.abs(table.sum(axis=1) - 1) < 1e-3)))
    if off.size:
        raise LabelError(f"{path}: row {numbers[off[0]]}: p_required is {table[off[0]].tolist()}, expected a sum of 1")
    clipped = np.clip(table, 0, 1)
    return np.asarray(clipped / clipped.sum(axis=1, keepdims=True))


def _is_score(values: pd.Series) -> bool:
    return (
        values.name not in ("weight", "id", "censored")
        and values.dtype.kind in "fiub"
        and bool(values.between(0, 1).all())
    )


def _weights(frame: pd.DataFrame, path: Path, numbers: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    if "weight" not in frame:
        return np.ones(len(frame))
    weights = pd.to_numeric(frame["weight"].fillna(1.0), errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if wrong.size:
        value = frame["weight"].tolist()[wrong[0]]
        raise LabelError(f"{path}: row {numbers[wrong[0]]}: weight is {value!r}, expected a number above 0")
    return weights


def _methods(frame: pd.DataFrame, path: Path, numbers: npt.NDArray[np.int_]) -> npt.NDArray[np.int8]:
    if "method" not in frame:
        return np.full(len(frame), METHODS.index("given"), np.int8)
    wrong = np.flatnonzero(~frame["method"].isin(METHODS))
    if wrong.size:
        value = frame["method"].tolist()[wrong[0]]
        raise LabelError(f"{path}: row {numbers[wrong[0]]}: method {value!r} is none of {', '.join(METHODS)}")
    return frame["method"].map(METHODS.index).to_numpy(np.int8)


def _censored(frame: pd.DataFrame, file: TrafficFile, numbers: npt.NDArray[np.int_]) -> npt.NDArray[np.bool_]:
    """Rows that say nothing of the middle tier: marked so, or scores of two tiers."""
    if "p_required" not in frame:
        models = [] if "tier" in frame else _scored(frame)
        return np.full(len(frame), bool(models) and Tier.MODERATE not in tiers_of(models, file).values())
    if "censored" not in frame:
        return np.zeros(len(frame), bool)
    given = frame["censored"].astype(object)
    wrong = np.flatnonzero(~(given.isin([True, False]) | given.isna()))
    if wrong.size:
        value = given.tolist()[wrong[0]]
        raise LabelError(f"{file.path}: row {numbers[wrong[0]]}: censored is {value!r}, expected true or false")
    return given.eq(True).to_numpy(bool)


def _scored(frame: pd.DataFrame) -> list[str]:
    """The columns that hold scores."""
    return [str(name) for name in frame if name not in ("tier", *TEXT_COLUMNS) and _is_score(frame[name])]


def _strings(frame: pd.DataFrame, name: str) -> list[str]:
    if name not in frame:
        return [""] * len(frame)
    return ["" if value is None or value != value else str(value) for value in frame[name]]
