"""Traffic -> labels with provenance: from outcomes, models' verdicts or a person; and where labels help most."""

from __future__ import annotations

import datetime as dt
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import cohen_kappa_score

from router.catalog import Model
from router.types import Tier
from training.build.arrays import Array, Ints
from training.build.export import Unfolded
from training.labelling.comparison import ANSWER_TOKENS, Judge, ask, p_required, shortfall, tier_said, verdict
from training.labelling.paid_calls import Caller, Request
from training.retrain import regression
from training.rows import duplicates, traffic
from training.rows.columns import SLICES
from training.rows.errors import LabelError, bad_row
from training.rows.tables import is_empty
from training.rows.targets import METHODS
from training.rows.traffic import TrafficFile

FLOOR = 0.25
"""What a text that is sure and known still weighs in the draw, so that every text may be drawn."""

MIN_SHARED = 10
BLOCK = 200
"""Texts that are judged before their labels are written."""


class Label(msgspec.Struct, omit_defaults=True):
    """One line of a file of labels: `p_required` cheap to strong; `weight`, how many texts of the traffic it stands
    for; `censored`: the middle tier was not seen, and what the cheap one does not do counts as complex.
    """

    text: str
    p_required: tuple[float, float, float]
    method: str
    by: str
    at: dt.datetime
    weight: float = 1.0
    id: str = ""
    conversation: str = ""
    language: str = ""
    category: str = ""
    key: str = ""
    traffic_class: str = msgspec.field(default="", name="class")
    censored: bool = False

    @property
    def tier(self) -> Tier:
        """The most probable required tier."""
        return list(Tier)[int(np.argmax(self.p_required))]


@dataclass(frozen=True)
class Query:
    """A text to label, with what is known of it; `weight` is the number of texts of the traffic that it stands for."""

    text: str
    weight: float
    row: dict[str, Any]

    def label(self, p: Iterable[float], method: str, by: str, *, censored: bool = False) -> Label:
        """Its label."""
        names = ("id", "conversation", *SLICES)
        known: dict[str, Any] = {name: str(self.row[name]) for name in names if not is_empty(self.row.get(name))}
        known["censored"] = censored
        at = dt.datetime.now(dt.UTC).replace(microsecond=0)
        return Label(self.text, _triple(p), method, by, at, round(self.weight, 4), **_fields(known))


def _fields(known: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a text, by the names of Label's fields: `class` is no name in Python."""
    return {"traffic_class" if name == "class" else name: value for name, value in known.items()}


class Book:
    """A JSONL file of labels, written line by line. A line that a crash cut off is dropped when the file is opened."""

    def __init__(self, path: Path) -> None:
        """Reads what is there. Raises LabelError for a file of something else."""
        self.path = path
        self.labels: list[Label] = []
        decode = msgspec.json.Decoder(Label).decode
        whole = b""
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        for number, line in enumerate(lines, start=1):
            try:
                self.labels.append(decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                if number == len(lines) and not line.endswith(b"\n"):
                    break
                raise LabelError(f"{path}: line {number} is not a label: {exc}; choose another --out") from exc
            whole += line
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if path.is_file() else "w+b")
        self._file.truncate(len(whole))
        self._ends = list(np.cumsum([len(line) for line in lines[: len(self.labels)]]))

    def __enter__(self) -> Book:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def add(self, labels: Iterable[Label]) -> None:
        """Append, and see it on the disk."""
        self._file.seek(0, os.SEEK_END)
        for label in labels:
            self._file.write(msgspec.json.encode(label) + b"\n")
            self.labels.append(label)
            self._ends.append(self._file.tell())
        self._file.flush()
        os.fsync(self._file.fileno())

    def undo(self) -> Label:
        """Take the last label back."""
        self._ends.pop()
        self._file.truncate(int(self._ends[-1]) if self._ends else 0)
        return self.labels.pop()

    def labelled(self, method: str) -> set[str]:
        """The texts that have a label by this method."""
        return {label.text for label in self.labels if label.method == method}


def from_outcomes(file: TrafficFile) -> Iterator[list[Label]]:
    """Labels of scores per model, or of labels that came with the traffic (feedback as tiers), batch by batch."""
    by = "scores" if file.tiers is None else ", ".join(f"{model} = {tier}" for model, tier in file.tiers.items())
    for batch in traffic.read_labels(file):
        at = dt.datetime.now(dt.UTC).replace(microsecond=0)
        yield [
            Label(
                text,
                _triple(round(float(p), 6) for p in target),
                "outcomes",
                by,
                at,
                round(float(weight), 4),
                conversation=conversation,
                censored=bool(batch.censored[n]),
                **_fields({name: values[n] for name, values in batch.slices.items()}),
            )
            for n, (text, target, weight, conversation) in enumerate(
                zip(batch.texts, batch.targets, batch.weights, batch.conversations, strict=True)
            )
        ]


def from_feedback(file: TrafficFile, base: Unfolded) -> Iterator[list[Label]]:
    """Labels of rows with `good` (true or false) and the `tier` or `model` that answered, batch by batch.

    A good answer says that its tier suffices, a bad one that it does not; which tier it is on that side is the base's
    guess. What the strongest tier answered well or badly says nothing of the others, and gives no label.
    """
    table = file.table
    names = {table.text: "text"} | ({} if file.tier_column is None else {table.tier() or "": "tier"})
    for frame in table.frames(names):
        served = traffic.column(frame, ("tier", "model"), file.path)
        tiers = traffic.tiers_of(frame[served].dropna().unique(), file, least=1)
        has_text = ~frame["text"].map(is_empty).to_numpy(bool)
        known = has_text & frame[served].isin(tiers)
        wrong = frame[known & ~frame["good"].isin([True, False])]
        if len(wrong):
            why = f"good is {wrong['good'].iloc[0]!r}, expected true or false"
            raise bad_row(file.path, int(wrong.index[0]), wrong["text"].iloc[0], why)
        rows = [{str(name): value for name, value in row.items()} for row in frame[known].to_dict("records")]
        if not rows:
            continue
        p = np.diff(base.predict([row["text"] for row in rows])[0], axis=1, prepend=0).clip(1e-9, 1)
        labels = []
        for row, required in zip(rows, p, strict=True):
            at = Tier(tiers[row[served]]).rank
            if at == len(Tier) - 1:
                continue
            possible = (np.arange(len(Tier)) <= at) == bool(row["good"])
            guess = required * possible / (required * possible).sum()
            query = Query(row["text"], 1.0, row)
            labels.append(query.label(guess.round(6).tolist(), "outcomes", f"feedback on {tiers[row[served]]}"))
        yield labels


def draw_queries(file: TrafficFile, n: int, base: Unfolded, seed: int = 0) -> list[Query]:
    """About n texts of the traffic, where labels help most: where the base is unsure, what is new, from every corner.

    Near-duplicates count once. A text is drawn in proportion to FLOOR + uncertainty + novelty, over the
    square root of its cluster's size, by a systematic sample along the clusters; its weight is one over that, times its
    near-duplicates, so that weighted labels show the traffic's own mix.
    """
    kept = ("id", "conversation", *SLICES)
    requests = [
        (text, {name: row[name] for name in kept if name in row}) for _, text, row in traffic.read_requests(file)
    ]
    if not requests:
        raise LabelError(f"{file.path} has no rows with a text")
    texts = [text for text, _ in requests]
    _, bag = base.embedding.bag(texts)
    signatures = duplicates.Hasher(len(base.embedding.idf)).sign(
        bag.indices.astype(np.int32), bag.indptr.astype(np.int64)
    )
    _, first, counts = np.unique(duplicates.groups(signatures, []), return_index=True, return_counts=True)
    p = _importance([texts[i] for i in first], base)
    chosen, chance = _systematic(p, min(n, len(first)), np.random.default_rng(seed))
    weight = counts[chosen] / chance
    weight /= weight.mean()
    return [Query(texts[first[i]], float(w), requests[first[i]][1]) for i, w in zip(chosen, weight, strict=True)]


def judge_labels(queries: list[Query], judge: Judge, caller: Caller, missed: Missed | None = None) -> list[Label]:
    """Labels by blind comparison of the cheap and the top tier's answers, in both orders; none without a verdict.

    With a middle tier, its answers are compared where the cheap ones fall behind. `missed` counts why there is none.
    """
    pairs = [judge.answers(query.text) for query in queries]
    cheap, top = (caller.answer([pair[side] for pair in pairs]) for side in (0, 1))
    of_cheap = _shortfalls(queries, cheap, top, judge, caller, Missed() if missed is None else missed)
    behind = [n for n, loss in enumerate(of_cheap) if loss]
    of_middle: dict[int, float | None] = {}
    if judge.middle is not None and behind:
        asked = [queries[n] for n in behind]
        answers = caller.answer([Request(judge.middle, query.text, ANSWER_TOKENS) for query in asked])
        losses = _shortfalls(asked, answers, [top[n] for n in behind], judge, caller, Missed())
        of_middle = dict(zip(behind, losses, strict=True))
    compared = (judge.cheap, *filter(None, [judge.middle]), judge.top)
    by = f"{judge.judge.id} on {' and '.join(model.id for model in compared)}"
    return [
        query.label(p_required(loss, of_middle.get(n)), "judge", by, censored=bool(loss) and of_middle.get(n) is None)
        for n, (query, loss) in enumerate(zip(queries, of_cheap, strict=True))
        if loss is not None
    ]


class Missed(Counter[str]):
    """Why texts have no label, with how many of each."""

    def reply(self, reply: str | None, model: Model, lacks: str) -> None:
        """Count a text whose label a model's reply stands in the way of; `lacks`: what one that is there has not."""
        start = " ".join((reply or "")[:200].split())[:60]
        if reply is None:
            why = f"no reply of {model.id}"
        elif not start:
            why = f"an empty reply of {model.id}"
        else:
            why = f"a reply of {model.id} {lacks}"
            like = next((each for each in self if each.startswith(why)), None)
            why = like or f'{why}, such as "{start}"'
        self[why] += 1

    def __str__(self) -> str:
        return "; ".join(f"{n} for {why}" for why, n in self.most_common())


def _shortfalls(
    queries: list[Query], lower: list[str | None], top: list[str | None], judge: Judge, caller: Caller, missed: Missed
) -> list[float | None]:
    """How far each lower answer falls behind the top one; None where an answer or a verdict is missing."""
    whole: list[tuple[int, str, str]] = []
    for n, (a, b) in enumerate(zip(lower, top, strict=True)):
        if a and b:
            whole.append((n, a, b))
        else:
            missed.reply(*((b, judge.top) if a else (a, judge.cheap)), "")
    replies = caller.answer([request for n, a, b in whole for request in judge.comparisons(queries[n].text, a, b)])
    found: list[float | None] = [None] * len(queries)
    for (n, _, _), first, second in zip(whole, replies[::2], replies[1::2], strict=True):
        found[n] = shortfall(first, second)
        if found[n] is None:
            missed.reply(second if verdict(first) else first, judge.judge, "without A, B or SAME")
    return found


def asked_labels(queries: list[Query], model: Model, caller: Caller, missed: Missed | None = None) -> list[Label]:
    """Labels by asking a model which tier a text needs; `missed` counts why there is none."""
    replies = caller.answer([ask(model, query.text) for query in queries])
    said = [(query, tier_said(reply), reply) for query, reply in zip(queries, replies, strict=True)]
    for _, tier, reply in said if missed is not None else ():
        if tier is None and missed is not None:
            missed.reply(reply, model, "that names no tier")
    return [query.label(_sure(tier), "ask", model.id) for query, tier, _ in said if tier is not None]


def most_usd(queries: list[Query], method: str, judge: Judge, is_batch: bool) -> Decimal:
    """What labelling costs at most, every answer at its full length."""
    requests: list[Request] = []
    for query in queries:
        requests += judge.at_most(query.text) if method == "judge" else [ask(judge.cheap, query.text)]
    return sum((request.most_usd(is_batch) for request in requests), Decimal(0))


def by_hand(
    queries: list[Query], book: Book, who: str, key: Callable[[], str], show: Callable[[Query, int, int], None]
) -> None:
    """Ask a person, one key a query: s, m, c for a tier, space to skip, u to undo, q to stop.

    Every label is on the disk before the next query is shown.
    """
    keys = {tier[0]: tier for tier in Tier}
    trail: list[bool] = []  # of each query passed so far: whether it was labelled
    while len(trail) < len(queries):
        query = queries[len(trail)]
        show(query, len(trail) + 1, len(queries))
        pressed = key().lower()
        if pressed == "q":
            return
        if pressed == "u" and trail:
            if trail.pop():
                book.undo()
        elif pressed == " ":
            trail.append(False)
        elif pressed in keys:
            book.add([query.label(_sure(keys[pressed]), "by-hand", who)])
            trail.append(True)


def agreement(labels: list[Label]) -> list[dict[str, Any]]:
    """For each two methods with texts in common: how often they agree that the simple tier suffices, and kappa."""
    of_method: dict[str, dict[str, bool]] = {}
    for label in labels:
        of_method.setdefault(label.method, {})[label.text] = label.p_required[0] >= 0.5
    rows = []
    for one, other in combinations([method for method in METHODS if method in of_method], 2):
        shared = sorted(of_method[one].keys() & of_method[other].keys())
        if len(shared) < MIN_SHARED:
            continue
        first, second = ([of_method[method][text] for text in shared] for method in (one, other))
        alike = float(np.mean(np.array(first) == np.array(second)))
        varied = len({*first, *second}) > 1
        kappa = round(float(cohen_kappa_score(first, second)), 3) if varied else None
        rows.append({"methods": [one, other], "n": len(shared), "agree": round(alike, 3), "kappa": kappa})
    return rows


def _importance(texts: list[str], base: Unfolded) -> Array:
    """The draw's proportions and each text's cluster, float64 [n, 2]."""
    q, novelty = base.predict(texts)
    p = np.diff(q, axis=1, prepend=0).clip(1e-9, 1)
    uncertainty = -(p * np.log(p)).sum(axis=1) / np.log(len(Tier))
    embedded = regression.encode(texts, base).dense[:, regression.N_BENT :]
    n_clusters = max(min(len(texts) // 20, 50), 1)
    cluster = MiniBatchKMeans(n_clusters, random_state=0, n_init=1).fit_predict(embedded)
    size = np.bincount(cluster, minlength=n_clusters)[cluster]
    return np.column_stack([(FLOOR + uncertainty + novelty) / np.sqrt(size), cluster])


def _systematic(importance: Array, n: int, chance: np.random.Generator) -> tuple[Ints, Array]:
    """n rows in proportion to the first column, spread over the second, and the probability with which each came."""
    share = importance[:, 0].copy()
    p = np.minimum(share * n / share.sum(), 1.0)
    for _ in range(50):  # what is capped at 1 is given to the others
        open_ = p < 1
        if not open_.any() or np.isclose(p.sum(), n):
            break
        p[open_] = np.minimum(share[open_] * (n - (~open_).sum()) / share[open_].sum(), 1.0)
    order = np.lexsort((chance.random(len(p)), importance[:, 1]))
    steps = np.floor(np.cumsum(p[order]) + chance.random() - 1e-9).astype(int)
    drawn = chance.permutation(order[np.diff(steps, prepend=0) > 0])
    return drawn, p[drawn]


def _sure(tier: Tier) -> tuple[float, float, float]:
    return _triple(float(tier is other) for other in Tier)


def _triple(p: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = p
    return first, second, third
