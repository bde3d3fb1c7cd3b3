"""Labels of the user's own traffic -> a challenger: read, split, fit on top of the base, calibrate, tune, export.

Each step that takes long is cached on disk by its inputs' hashes, so that a run that was killed goes on where it was.
The caches hold token ids and numbers; a text can partly be read back from its ids, so keep them where the labels are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Memory
from threadpoolctl import threadpool_limits

from router.classifier import artifact
from router.types import Tier
from training.build import corpora, export, fit
from training.build.arrays import Array, Ints
from training.build.export import Unfolded
from training.examine import card, measures
from training.examine.gate import HeldOut
from training.retrain import regression
from training.retrain.examples import MIN_LABELS, Examples, Progress, check_examples, merged, read_examples, split
from training.retrain.regression import LinearMap, Shard
from training.rows import traffic
from training.rows.errors import LabelError
from training.rows.targets import METHODS
from training.rows.traffic import TrafficFile

CHOICE_ROWS = 3000
"""Rows on which the penalty is chosen: it is a prior's width, the same for more rows."""

CROSS_FIT_ROWS = 20_000
"""Up to so many rows calibration comes from all folds, above from one."""

TUNING_ROWS = 4000

RECIPE = 3
"""Raise it when regression.encode or regression.fit change: what they gave before is then not taken from the cache."""

REHEARSAL = 0.05
"""Weight of our own queries, as the base answers them, against the user's labels: what keeps the base's manners. At 0,
.05 and .3: 220, 229 and 247 cases of the behavioural suite on bfcl_v1 (the base: 248), 241, 248 and 259 on
routerdc_7models, where it costs APGR, .618, .609 and .588 out of fold (training/EXPERIMENTS.md, row 46).
"""


def learn(
    file: TrafficFile,
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
        return _learn(file, base, folder, Memory(cache, verbose=0), progress, rehearsal)


def _learn(
    file: TrafficFile, base_folder: Path, folder: Path, memory: Memory, progress: Progress, rehearsal: float
) -> tuple[dict[str, Any], HeldOut]:
    base = export.read_unfolded(base_folder)
    identity = f"{RECIPE} {artifact.load(base_folder).manifest.files[export.TRAINING_FILE].sha256}"
    rows, conflicts = merged(read_examples(file, base, identity, memory, progress))
    check_examples(rows, file)
    out = split(rows)
    known, unseen = (np.flatnonzero(side & (rows.weights > 0)) for side in (~out, out))
    progress("fitting", 0, 1)
    data = _Data(rows, base, identity, memory, rehearsal)
    fitted = _fitted(data, rows, known)
    progress("tuning", 0, 1)
    model = regression.classifier(base, fitted.linear, fitted.calibration)
    p_suffices = fit.suffices(regression.softmax(fitted.logits @ fitted.calibration[0] + fitted.calibration[1]))
    at = np.random.default_rng(0).permutation(len(fitted.rows))[:TUNING_ROWS]
    tuned = fitted.rows[at]
    split_text = "the labels' training side, out of fold; tuned on one half, scored on the other"
    # Where labels tell the tiers apart well, a threshold of .02 would keep the promise on them and send all else to the
    # cheap tier: none is below the base's.
    floor = artifact.load(base_folder).manifest.operating_points
    points = fit.operating_points(p_suffices[at], rows.targets[tuned], rows.weights[tuned], split_text, floor)
    name, version = name_of(folder)
    training_data = [
        *artifact.load(base_folder).manifest.training_data,
        {"source": file.path.name, "licence": "the user's own", "n_rows": len(rows), "sha256": file.sha256()},
    ]
    metrics = {
        "base": base_folder.name,
        "n_labels": len(rows),
        "n_training": len(known),
        "n_held_out": len(unseen),
        "n_groups": int(rows.groups.max()) + 1,
        "methods": {m: int((rows.methods == k).sum()) for k, m in enumerate(METHODS) if (rows.methods == k).any()},
        "shares": rounded(dict(zip(Tier, rows.weights @ rows.targets / rows.weights.sum(), strict=True))),
        "n_censored": rows.n_censored,
        "conflicts": conflicts,
        "noise": noise(p_suffices, rows, fitted.rows),
        "penalty": fitted.penalty,
        "rehearsal": rehearsal,
        "out_of_fold": quality(p_suffices, rows, fitted.rows),
    }
    export.write_artifact(
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
        parity_texts=[*corpora.queries()["text"][:300], "", "a" * 100_000],
    )
    progress("written", 1, 1)
    return metrics, _held_out(file, rows, unseen)


@dataclass(frozen=True)
class Fitted:
    """The fit, its calibration, and `logits` [n, n_tiers] out of fold of `rows` before calibration."""

    linear: LinearMap
    calibration: tuple[Array, Array]
    penalty: float
    rows: Ints
    logits: Array


def _fitted(data: _Data, rows: Examples, known: Ints) -> Fitted:
    """Choose the penalty and calibrate out of fold, then fit all `known` rows."""
    folds = folds_of(rows.groups, known)
    chosen = known if len(known) <= CHOICE_ROWS else _sample(rows.groups, known, CHOICE_ROWS)
    losses = [
        regression.log_loss(data.out_of_fold(chosen, folds, penalty), rows.targets[chosen], rows.weights[chosen])
        for penalty in regression.PENALTIES
    ]
    penalty = regression.PENALTIES[int(np.argmin(losses))]
    if len(known) <= CHOICE_ROWS:
        scored, logits = chosen, data.out_of_fold(chosen, folds, penalty)
    elif len(known) <= CROSS_FIT_ROWS:
        scored, logits = known, data.out_of_fold(known, folds, penalty)
    else:
        scored = known[folds[known] == 0]
        logits = data.fit_and_score(np.setdiff1d(known, scored), scored, penalty)[1]
    calibration = regression.calibrate(logits, rows.targets[scored], rows.weights[scored])
    linear, _ = data.fit_and_score(known, known[:0], penalty)
    return Fitted(linear, calibration, penalty, scored, logits)


class _Data:
    """The labels and the rehearsal as the fit takes them; each fit is cached by what goes into it."""

    def __init__(self, rows: Examples, base: Unfolded, identity: str, memory: Memory, rehearsal: float) -> None:
        own = regression.encode(corpora.queries()["text"].tolist(), base)
        self._base, self._identity, self._rehearsal = base, identity, rehearsal
        self._rows, self._own = rows, own
        self._prior = regression.logits(regression.of_base(base), base.embedding, rows.shards)
        self._own_prior = regression.logits(regression.of_base(base), base.embedding, [own])
        self._starts = np.cumsum([0, *(len(shard) for shard in rows.shards)])
        self._fit = memory.cache(_fit, ignore=["base", "shards", "prior", "targets", "weights"])
        self._content = _digest(rows.keys, rows.targets, rows.weights)

    def out_of_fold(self, chosen: Ints, folds: Ints, penalty: float) -> Array:
        logits = np.zeros((len(chosen), len(Tier)))
        for fold in np.unique(folds[chosen]):
            inside = folds[chosen] == fold
            logits[inside] = self.fit_and_score(chosen[~inside], chosen[inside], penalty)[1]
        return logits

    def fit_and_score(self, known: Ints, scored: Ints, penalty: float) -> tuple[LinearMap, Array]:
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
            np.vstack([targets, regression.softmax(self._own_prior)]),
            np.concatenate([weights, rehearsal]),
            penalty,
            self._rehearsal,
            self._identity,
            key,
        )
        scores = (
            regression.logits(fitted, self._base.embedding, [self._gather(scored)]) if len(scored) else np.zeros((0, 3))
        )
        return fitted, scores

    def _gather(self, rows: Ints) -> Shard:
        """These rows of all shards in one."""
        of_shard = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(of_shard, kind="stable")
        parts = [self._rows.shards[s].take(rows[of_shard == s] - self._starts[s]) for s in np.unique(of_shard)]
        back = np.empty(len(rows), int)
        back[order] = np.arange(len(rows))
        return regression.join(parts).take(back)


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


def noise(p_suffices: Array, rows: Examples, scored: Ints) -> dict[str, Any]:
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


def quality(p_suffices: Array, rows: Examples, scored: Ints) -> dict[str, Any]:
    """APGR out of fold with its interval, and calibration of P(simple suffices)."""
    targets, weights = rows.targets[scored], rows.weights[scored]
    gain = measures.gain_curve(1 - p_suffices[:, 0], 1 - targets[:, 0], weights, rows.groups[scored])
    reliability = measures.calibration_error(p_suffices[:, 0], targets[:, 0], weights)
    return {"apgr": round(gain.apgr, 4), "apgr_interval": gain.interval(), **reliability}


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
) -> LinearMap:
    """regression.fit, cached by the last four."""
    return regression.fit(base, shards, prior, targets, weights, penalty)


def folds_of(groups: Ints, known: Ints) -> Ints:
    """A fold for each row, groups together; int [n]."""
    fold_of = np.random.default_rng(0).permutation(int(groups.max()) + 1) % fit.N_FOLDS
    folds = fold_of[groups]
    if len(np.unique(folds[known])) < 2:
        raise LabelError("the texts are nearly all alike: no two folds can be made of them")
    return folds


def _sample(groups: Ints, known: Ints, n: int) -> Ints:
    """About n of the `known` rows, whole groups at random, in order."""
    rank = np.random.default_rng(1).permutation(int(groups.max()) + 1)[groups[known]]
    return np.sort(known[np.argsort(rank, kind="stable")[:n]])


def _digest(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def name_of(folder: Path) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)-v(\d+)", folder.name)
    return (match[1], int(match[2])) if match else (folder.name, 1)


def rounded(values: dict[Any, Any]) -> dict[str, float]:
    return {str(name): round(float(value), 4) for name, value in values.items()}


def _held_out(file: TrafficFile, rows: Examples, at: Ints) -> HeldOut:
    """The rows `at`, with their texts: the file is read once more for them."""
    wanted, texts = set(rows.numbers[at].tolist()), []
    for batch in traffic.read_labels(file):
        texts += [text for number, text in zip(batch.numbers.tolist(), batch.texts, strict=True) if number in wanted]
    slices = {name: np.array(values)[numbers[at]] for name, (numbers, values) in rows.slices.items()}
    return HeldOut(texts, rows.targets[at], rows.weights[at], rows.groups[at], slices)
