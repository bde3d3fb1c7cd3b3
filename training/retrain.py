"""Labels of the user's own traffic -> a challenger: read, split, fit on top of the base, calibrate, tune, export.

Each step that takes long is cached on disk by its inputs' hashes, so that a run that was killed goes on where it was.
The caches hold token ids and numbers; a text can partly be read back from its ids, so keep them where the labels are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Memory
from threadpoolctl import threadpool_limits

from router import artifact
from router.types import Tier
from training import adapt, card, dataset, duplicates, evaluate, export, fit, traffic
from training.adapt import Array, Shard, Weights
from training.export import Unfolded
from training.gate import HeldOut
from training.traffic import LabelError, Source

MIN_LABELS = 100
MIN_OF_TIER = 5
"""The probability mass that at least two tiers must have among the labels."""

MIN_HELD_OUT, HELD_OUT_SHARE, MAX_HELD_OUT = 500, 0.2, 5000
"""Held out is a fifth, at least 500 rows but never more than a third, never more than 5,000: 300 rows leave an interval
of .08 on a difference of APGR."""

CHOICE_ROWS = 3000
"""Rows on which the penalty is chosen: it is a prior's width, the same for more rows."""

CROSS_FIT_ROWS = 20_000
"""Up to so many rows calibration comes from all folds, above from one."""

TUNING_ROWS = 4000

LEAST_THRESHOLD = 0.5
"""Where labels tell the tiers apart well, a threshold of .02 keeps the promise on them and sends all else to the cheap
tier: 205 cases of the behavioural suite hold then, 249 with this (training/EXPERIMENTS.md, row 48)."""

RECIPE = 1
"""Raise it when adapt.encode or adapt.fit change: what they gave before is then no longer taken from the cache."""

REHEARSAL = 0.05
"""Weight of our own queries, as the base answers them, against the user's labels: what keeps the base's manners. At 0,
.05 and .3: 220, 229 and 247 cases of the behavioural suite on bfcl_v1 (the base: 248), 241, 248 and 259 on
routerdc_7models, where it costs APGR, .618, .609 and .588 out of fold (training/EXPERIMENTS.md, row 46).
"""

Progress = Callable[[str, int, int], None]
"""progress(step, done, total)."""


@dataclass(frozen=True)
class Labelled:
    """Every label as numbers; about 300 bytes a row, and the texts are not kept.

    `keys` identify texts (case and white space aside); `numbers` are the rows' places in the file, from 1; `slices` map
    a name to the values' numbers and the values.
    """

    shards: Sequence[Shard]
    targets: Array
    weights: Array
    methods: npt.NDArray[np.int8]
    keys: npt.NDArray[np.uint64]
    groups: npt.NDArray[np.int_]
    numbers: npt.NDArray[np.int_]
    slices: dict[str, tuple[npt.NDArray[np.int_], list[str]]]
    n_censored: int = 0

    def __len__(self) -> int:
        return len(self.targets)


class Shards(Sequence[Shard]):
    """Shards that are read from the cache when they are asked for."""

    def __init__(self, loaders: list[Callable[[], Shard]]) -> None:
        self._loaders = loaders

    def __len__(self) -> int:
        return len(self._loaders)

    def __getitem__(self, number: Any) -> Any:
        return self._loaders[number]()


def learn(
    source: Source,
    base: Path,
    folder: Path,
    cache: Path,
    progress: Progress = lambda *_: None,
    rehearsal: float = REHEARSAL,
) -> tuple[dict[str, Any], HeldOut]:
    """Write the challenger `folder`; returns its figures and the rows that it was not trained on.

    Deterministic: the same bytes for the same input. Raises LabelError when the labels cannot be learned from.
    """
    with threadpool_limits(1):  # the order of sums, and so the last bits, would depend on the number of cores
        return _learn(source, base, folder, Memory(cache, verbose=0), progress, rehearsal)


def _learn(
    source: Source, base_folder: Path, folder: Path, memory: Memory, progress: Progress, rehearsal: float
) -> tuple[dict[str, Any], HeldOut]:
    base = export.read_unfolded(base_folder)
    identity = f"{RECIPE} {artifact.load(base_folder).manifest.files[export.TRAINING_FILE].sha256}"
    rows, conflicts = merged(read(source, base, identity, memory, progress))
    check(rows)
    out = split(rows)
    known, unseen = (np.flatnonzero(side & (rows.weights > 0)) for side in (~out, out))
    progress("fitting", 0, 1)
    data = _Data(rows, base, identity, memory, rehearsal)
    fitted = _fitted(data, rows, known)
    progress("tuning", 0, 1)
    model = adapt.classifier(base, fitted.weights, fitted.calibration)
    p_suffices = fit.suffices(adapt.softmax(fitted.logits @ fitted.calibration[0] + fitted.calibration[1]))
    at = np.random.default_rng(0).permutation(len(fitted.rows))[:TUNING_ROWS]
    tuned = fitted.rows[at]
    split_text = "the labels' training side, out of fold; tuned on one half, scored on the other"
    points = fit.operating_points(p_suffices[at], rows.targets[tuned], rows.weights[tuned], split_text, LEAST_THRESHOLD)
    name, version = _name(folder)
    training_data = [
        *artifact.load(base_folder).manifest.training_data,
        {"source": source.path.name, "licence": "the user's own", "n_rows": len(rows), "sha256": source.sha256()},
    ]
    metrics = {
        "base": base_folder.name,
        "n_labels": len(rows),
        "n_training": len(known),
        "n_held_out": len(unseen),
        "n_groups": int(rows.groups.max()) + 1,
        "methods": {
            m: int((rows.methods == k).sum()) for k, m in enumerate(traffic.METHODS) if (rows.methods == k).any()
        },
        "shares": _rounded(dict(zip(Tier, rows.weights @ rows.targets / rows.weights.sum(), strict=True))),
        "n_censored": rows.n_censored,
        "conflicts": conflicts,
        "noise": noise(p_suffices, rows, fitted.rows),
        "penalty": fitted.penalty,
        "rehearsal": rehearsal,
        "out_of_fold": _quality(p_suffices, rows, fitted.rows),
    }
    export.write(
        folder,
        Unfolded(base.embedding, model, base.novelty),
        name=name,
        version=version,
        operating_points=points,
        metrics={"retrained": metrics},
        training_data=training_data,
        documents={
            "README.md": card.render_retrained(folder.name, points, metrics, training_data).encode(),
            export.SEEN_FILE: np.unique(rows.keys[known]).tobytes(),
        },
        parity_texts=[*dataset.queries()["text"][:300], "", "a" * 100_000],
    )
    progress("written", 1, 1)
    return metrics, _held_out(source, rows, unseen)


def read(source: Source, base: Unfolded, identity: str, memory: Memory, progress: Progress) -> Labelled:
    """Every label of a source, encoded shard by shard into the cache."""
    encode = memory.cache(_encode, ignore=["texts", "base"])
    hasher = duplicates.Hasher(len(base.embedding.idf))
    loaders: list[Callable[[], Shard]] = []
    parts: list[tuple[Any, ...]] = []
    names: dict[str, dict[str, int]] = {}
    signatures, total, n_censored = [], traffic.count(source), 0
    for batch in traffic.labels(source):
        digest = hashlib.sha256("\0".join(batch.texts).encode("utf-8", "surrogatepass")).hexdigest()
        shard = encode(batch.texts, base, identity, digest)
        loaders.append(lambda digest=digest: encode([], base, identity, digest))
        signatures.append(hasher.sign(shard.ids, shard.ends))
        coded = {}
        for name, values in batch.slices.items():
            number_of = names.setdefault(name, {"": 0})
            coded[name] = np.array([number_of.setdefault(value, len(number_of)) for value in values], np.int32)
        conversations = _keys(batch.conversations)
        n_censored += int(batch.censored.sum())
        parts.append(
            (batch.targets, batch.weights, batch.methods, keys_of(batch.texts), conversations, batch.numbers, coded)
        )
        progress("reading", int(batch.numbers[-1]), total)
    if not parts:
        raise LabelError(f"{source.path} has no rows")
    targets, weights, methods, keys, conversations, numbers, _ = zip(*parts, strict=True)
    n_rows = [len(part) for part in keys]
    return Labelled(
        Shards(loaders),
        np.concatenate(targets),
        np.concatenate(weights),
        np.concatenate(methods),
        np.concatenate(keys),
        duplicates.groups(np.concatenate(signatures), [np.concatenate(keys), np.concatenate(conversations)]),
        np.concatenate(numbers),
        {
            name: (
                np.concatenate([p[-1].get(name, np.zeros(n, np.int32)) for p, n in zip(parts, n_rows, strict=True)]),
                list(number_of),
            )
            for name, number_of in names.items()
        },
        n_censored,
    )


def merged(rows: Labelled) -> tuple[Labelled, dict[str, Any]]:
    """Each text once: its first row takes the mean of the labels by its best method, the others the weight 0.

    The report counts repeated texts and those whose labels disagree, with the first few by row number.
    """
    order = np.lexsort((rows.numbers, rows.methods, rows.keys))
    _, start, inverse = np.unique(rows.keys[order], return_index=True, return_inverse=True)
    best = rows.methods[order] == rows.methods[order][start][inverse]
    weight = np.where(best, rows.weights[order], 0.0)
    total = np.bincount(inverse, weight)
    mean = np.column_stack([np.bincount(inverse, weight * target) for target in rows.targets[order].T]) / total[:, None]
    counts = np.bincount(inverse, best)
    targets, weights = rows.targets.copy(), np.zeros(len(rows))
    kept = order[start]
    targets[kept], weights[kept] = mean, total / counts
    apart = np.abs(rows.targets[order] - mean[inverse]).max(axis=1) > 0.01
    disagreeing = np.unique(inverse[apart & best])
    examples = [sorted(rows.numbers[order[(inverse == text) & best]].tolist()) for text in disagreeing[:5]]
    report = {
        "repeated_texts": int((np.bincount(inverse) > 1).sum()),
        "overruled_labels": int((~best).sum()),
        "conflicting_texts": len(disagreeing),
        "decision": "each text counts once, with the mean of its labels; a person's label beats any other method's",
        "examples_by_row": examples,
    }
    changed = {"targets": targets, "weights": weights}
    return Labelled(**{**vars(rows), **changed}), report


def check(rows: Labelled) -> None:
    """Raises LabelError for too few labels, or labels of one tier only."""
    n = int((rows.weights > 0).sum())
    if n < MIN_LABELS:
        raise LabelError(f"{n} labelled texts, at least {MIN_LABELS} are needed (300 start to help); label more")
    mass = rows.targets[rows.weights > 0].sum(axis=0)
    if (mass >= MIN_OF_TIER).sum() < 2:
        only = list(Tier)[int(mass.argmax())]
        raise LabelError(
            f"{n} labels, and all but {n - mass.max():.0f} say {only}: there is nothing to tell apart; label queries "
            f"of other tiers, at least {MIN_OF_TIER} of a second one"
        )
    largest = int(np.bincount(rows.groups[rows.weights > 0]).max())
    if largest > n / 2:
        raise LabelError(
            f"{largest} of {n} texts are near-duplicates or of one conversation: they cannot be split into a training "
            "side and a held-out side; leave repetitions out"
        )


def split(rows: Labelled) -> npt.NDArray[np.bool_]:
    """Which rows are held out, bool [n]: whole groups, by the smallest hash in each.

    A row's side depends on its group's content and on nothing else but the share, which only falls as labels come in:
    what once was trained on is never held out later.
    """
    n = int((rows.weights > 0).sum())
    share = min(max(HELD_OUT_SHARE, min(1 / 3, MIN_HELD_OUT / n)), MAX_HELD_OUT / n)
    smallest = np.full(int(rows.groups.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, rows.groups, rows.keys)
    mixed = (smallest ^ (smallest >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)  # the smallest alone is biased
    return (mixed[rows.groups] / 2**64) < share


@dataclass(frozen=True)
class Fitted:
    """The fit, its calibration, and `logits` [n, n_tiers] out of fold of `rows` before calibration."""

    weights: Weights
    calibration: tuple[Array, Array]
    penalty: float
    rows: npt.NDArray[np.int_]
    logits: Array


def _fitted(data: _Data, rows: Labelled, known: npt.NDArray[np.int_]) -> Fitted:
    """Choose the penalty and calibrate out of fold, then fit all `known` rows."""
    folds = _folds(rows.groups, known)
    chosen = known if len(known) <= CHOICE_ROWS else _sample(rows.groups, known, CHOICE_ROWS)
    losses = [
        adapt.log_loss(data.out_of_fold(chosen, folds, penalty), rows.targets[chosen], rows.weights[chosen])
        for penalty in adapt.PENALTIES
    ]
    penalty = adapt.PENALTIES[int(np.argmin(losses))]
    if len(known) <= CHOICE_ROWS:
        scored, logits = chosen, data.out_of_fold(chosen, folds, penalty)
    elif len(known) <= CROSS_FIT_ROWS:
        scored, logits = known, data.out_of_fold(known, folds, penalty)
    else:
        scored = known[folds[known] == 0]
        logits = data.fit_and_score(np.setdiff1d(known, scored), scored, penalty)[1]
    calibration = adapt.calibrate(logits, rows.targets[scored], rows.weights[scored])
    weights, _ = data.fit_and_score(known, known[:0], penalty)
    return Fitted(weights, calibration, penalty, scored, logits)


class _Data:
    """The labels and the rehearsal as the fit takes them; each fit is cached by what goes into it."""

    def __init__(self, rows: Labelled, base: Unfolded, identity: str, memory: Memory, rehearsal: float) -> None:
        own = adapt.encode(dataset.queries()["text"].tolist(), base)
        self._base, self._identity, self._rehearsal = base, identity, rehearsal
        self._rows, self._own = rows, own
        self._prior = adapt.logits(adapt.of_base(base), base.embedding, rows.shards)
        self._own_prior = adapt.logits(adapt.of_base(base), base.embedding, [own])
        self._starts = np.cumsum([0, *(len(shard) for shard in rows.shards)])
        self._fit = memory.cache(_fit, ignore=["base", "shards", "prior", "targets", "weights"])
        self._content = _digest(rows.keys, rows.targets, rows.weights)

    def out_of_fold(self, chosen: npt.NDArray[np.int_], folds: npt.NDArray[np.int_], penalty: float) -> Array:
        logits = np.zeros((len(chosen), len(Tier)))
        for fold in np.unique(folds[chosen]):
            inside = folds[chosen] == fold
            logits[inside] = self.fit_and_score(chosen[~inside], chosen[inside], penalty)[1]
        return logits

    def fit_and_score(
        self, known: npt.NDArray[np.int_], scored: npt.NDArray[np.int_], penalty: float
    ) -> tuple[Weights, Array]:
        """The fit on `known`, and its logits of `scored`. Few rows are gathered into memory, many stay in the cache."""
        shards: Sequence[Shard]
        if len(known) <= CROSS_FIT_ROWS:
            shards = [self._gather(known)]
            prior, targets, weights = self._prior[known], self._rows.targets[known], self._rows.weights[known]
        else:
            shards, prior, targets = self._rows.shards, self._prior, self._rows.targets
            weights = np.zeros(len(self._rows))
            weights[known] = self._rows.weights[known]
        rehearsal = np.full(len(self._own), self._rehearsal * weights.sum() / len(self._own))
        key = _digest(known) + self._content
        fitted = self._fit(
            self._base,
            _Chained(shards, self._own),
            np.vstack([prior, self._own_prior]),
            np.vstack([targets, adapt.softmax(self._own_prior)]),
            np.concatenate([weights, rehearsal]),
            penalty,
            self._rehearsal,
            self._identity,
            key,
        )
        scores = adapt.logits(fitted, self._base.embedding, [self._gather(scored)]) if len(scored) else np.zeros((0, 3))
        return fitted, scores

    def _gather(self, rows: npt.NDArray[np.int_]) -> Shard:
        """These rows of all shards in one."""
        of_shard = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(of_shard, kind="stable")
        parts = [self._rows.shards[s].take(rows[of_shard == s] - self._starts[s]) for s in np.unique(of_shard)]
        back = np.empty(len(rows), int)
        back[order] = np.arange(len(rows))
        return adapt.join(parts).take(back)


class _Chained(Sequence[Shard]):
    """Shards, and one more."""

    def __init__(self, shards: Sequence[Shard], last: Shard) -> None:
        self._shards, self._last = shards, last

    def __len__(self) -> int:
        return len(self._shards) + 1

    def __getitem__(self, number: Any) -> Any:
        if number == len(self._shards):
            return self._last
        return self._shards[number]


def noise(p_suffices: Array, rows: Labelled, scored: npt.NDArray[np.int_]) -> dict[str, Any]:
    """Labels that look wrong, by confident learning (cleanlab) on out-of-fold probabilities; sure labels only.

    `share` of the sure labels; `rows` are the numbers of the twenty most doubtful.
    """
    from cleanlab.filter import find_label_issues

    p_required = np.diff(p_suffices, axis=1, prepend=0).clip(0, 1)
    sure = rows.targets[scored].max(axis=1) > 0.99
    labels = rows.targets[scored][sure].argmax(axis=1)
    present = np.unique(labels)
    if len(present) < 2 or len(labels) < MIN_LABELS:
        return {"n_sure": int(sure.sum()), "share": None, "rows": []}
    p = p_required[sure][:, present] + 1e-12
    issues = find_label_issues(
        np.searchsorted(present, labels),
        p / p.sum(axis=1, keepdims=True),
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    doubtful = rows.numbers[scored][sure][issues]
    return {"n_sure": len(labels), "share": round(len(issues) / len(labels), 4), "rows": doubtful[:20].tolist()}


def _quality(p_suffices: Array, rows: Labelled, scored: npt.NDArray[np.int_]) -> dict[str, Any]:
    """APGR out of fold with its interval, and calibration of P(simple suffices)."""
    targets, weights = rows.targets[scored], rows.weights[scored]
    gain = evaluate.gain_curve(1 - p_suffices[:, 0], 1 - targets[:, 0], weights, rows.groups[scored])
    reliability = evaluate.reliability(p_suffices[:, 0], targets[:, 0], weights)
    return {"apgr": round(gain.apgr, 4), "apgr_interval": gain.interval(), **reliability}


def _encode(texts: list[str], base: Unfolded, identity: str, digest: str) -> Shard:  # noqa: ARG001
    """adapt.encode, cached by the base's and the texts' hash: the texts themselves do not get into the cache."""
    if not texts:
        raise LabelError("a shard is gone from the cache; run the command again")
    return adapt.encode(texts, base)


def _fit(
    base: Unfolded,
    shards: Sequence[Shard],
    prior: Array,
    targets: Array,
    weights: Array,
    penalty: float,
    rehearsal: float,  # noqa: ARG001
    identity: str,  # noqa: ARG001
    content: str,  # noqa: ARG001
) -> Weights:
    """adapt.fit, cached by the last four."""
    return adapt.fit(base, shards, prior, targets, weights, penalty)


def _folds(groups: npt.NDArray[np.int_], known: npt.NDArray[np.int_]) -> npt.NDArray[np.int_]:
    """A fold for each row, groups together; int [n]."""
    fold_of = np.random.default_rng(0).permutation(int(groups.max()) + 1) % fit.N_FOLDS
    folds = fold_of[groups]
    if len(np.unique(folds[known])) < 2:
        raise LabelError("the texts are nearly all alike: no two folds can be made of them")
    return folds


def _sample(groups: npt.NDArray[np.int_], known: npt.NDArray[np.int_], n: int) -> npt.NDArray[np.int_]:
    """About n of the `known` rows, whole groups at random, in order."""
    rank = np.random.default_rng(1).permutation(int(groups.max()) + 1)[groups[known]]
    return np.sort(known[np.argsort(rank, kind="stable")[:n]])


def keys_of(texts: list[str]) -> npt.NDArray[np.uint64]:
    """What identifies each text, case and white space aside, uint64 [n]."""
    return _keys([" ".join(text.split()).lower() for text in texts])


def _keys(values: list[str]) -> npt.NDArray[np.uint64]:
    """A hash of each string, uint64 [n]; 0 for the empty one."""
    hashes = (hashlib.blake2b(v.encode("utf-8", "surrogatepass"), digest_size=8).digest() for v in values)
    keys = np.frombuffer(b"".join(hashes), np.uint64).copy()
    keys[[not value for value in values]] = 0
    return keys


def _digest(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _name(folder: Path) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)-v(\d+)", folder.name)
    return (match[1], int(match[2])) if match else (folder.name, 1)


def _rounded(values: dict[Any, Any]) -> dict[str, float]:
    return {str(name): round(float(value), 4) for name, value in values.items()}


def _held_out(source: Source, rows: Labelled, at: npt.NDArray[np.int_]) -> HeldOut:
    """The rows `at`, with their texts: the source is read once more for them."""
    wanted, texts = set(rows.numbers[at].tolist()), []
    for batch in traffic.labels(source):
        texts += [text for number, text in zip(batch.numbers.tolist(), batch.texts, strict=True) if number in wanted]
    slices = {name: np.array(values)[numbers[at]] for name, (numbers, values) in rows.slices.items()}
    return HeldOut(texts, rows.targets[at], rows.weights[at], rows.groups[at], slices)
