"""The user's labels as numbers: read shard by shard, each text once, checked, and split into two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from joblib import Memory

from router.types import Tier
from training.build.arrays import Array, Ints
from training.build.export import Unfolded
from training.retrain import regression
from training.retrain.regression import Shard
from training.rows import duplicates, traffic
from training.rows.errors import LabelError, row_of
from training.rows.traffic import TrafficFile

MIN_LABELS = 100
MIN_OF_TIER = 5
"""The probability mass that at least two tiers must have among the labels."""

MIN_HELD_OUT, HELD_OUT_SHARE, MAX_HELD_OUT = 500, 0.2, 5000
"""Held out is a fifth, at least 500 rows but never more than a third, never more than 5,000: 300 rows leave an interval
of .08 on a difference of APGR."""

Progress = Callable[[str, int, int], None]
"""progress(step, done, total)."""


@dataclass(frozen=True)
class Examples:
    """Every label as numbers; about 300 bytes a row, and the texts are not kept.

    `keys` identify texts (case and white space aside); `numbers` are the rows' numbers in the file; `slices` map
    a name to the values' numbers and the values.
    """

    shards: Sequence[Shard]
    targets: Array
    weights: Array
    methods: npt.NDArray[np.int8]
    keys: npt.NDArray[np.uint64]
    groups: Ints
    numbers: Ints
    slices: dict[str, tuple[Ints, list[str]]]
    n_censored: int = 0

    def __len__(self) -> int:
        return len(self.targets)


class _Part(NamedTuple):
    """A batch of labels as numbers, without its texts; `slices` are numbers of values by name."""

    targets: Array
    weights: Array
    methods: npt.NDArray[np.int8]
    keys: npt.NDArray[np.uint64]
    conversations: npt.NDArray[np.uint64]
    numbers: Ints
    slices: dict[str, npt.NDArray[np.int32]]


class Shards(Sequence[Shard]):
    """Shards that are read from the cache when they are asked for."""

    def __init__(self, loaders: list[Callable[[], Shard]]) -> None:
        self._loaders = loaders

    def __len__(self) -> int:
        return len(self._loaders)

    def __getitem__(self, number: Any) -> Any:
        return self._loaders[number]()


def read_examples(file: TrafficFile, base: Unfolded, identity: str, memory: Memory, progress: Progress) -> Examples:
    """Every label of a file, encoded shard by shard into the cache."""
    encode = memory.cache(_encode, ignore=["texts", "base"])
    hasher = duplicates.Hasher(len(base.embedding.idf))
    loaders: list[Callable[[], Shard]] = []
    parts: list[_Part] = []
    names: dict[str, dict[str, int]] = {}
    signatures, total, n_censored = [], file.table.count_rows(), 0
    for batch in traffic.read_labels(file):
        digest = hashlib.sha256("\0".join(batch.texts).encode("utf-8", "surrogatepass")).hexdigest()
        shard = encode(batch.texts, base, identity, digest)
        loaders.append(partial(encode, [], base, identity, digest))
        signatures.append(hasher.sign(shard.ids, shard.ends))
        coded = {}
        for name, values in batch.slices.items():
            number_of = names.setdefault(name, {"": 0})
            coded[name] = np.array([number_of.setdefault(value, len(number_of)) for value in values], np.int32)
        n_censored += int(batch.censored.sum())
        keys, conversations = keys_of(batch.texts), _keys(batch.conversations)
        parts.append(_Part(batch.targets, batch.weights, batch.methods, keys, conversations, batch.numbers, coded))
        progress("reading", int(batch.numbers[-1]), total)
    if not parts:
        raise LabelError(f"{file.path} has no rows")
    keys = np.concatenate([part.keys for part in parts])
    conversations = np.concatenate([part.conversations for part in parts])
    return Examples(
        Shards(loaders),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.methods for part in parts]),
        keys,
        duplicates.groups(np.concatenate(signatures), [keys, conversations]),
        np.concatenate([part.numbers for part in parts]),
        {
            name: (
                np.concatenate([part.slices.get(name, np.zeros(len(part.keys), np.int32)) for part in parts]),
                list(number_of),
            )
            for name, number_of in names.items()
        },
        n_censored,
    )


def merged(rows: Examples) -> tuple[Examples, dict[str, Any]]:
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
    return Examples(**{**vars(rows), **changed}), report


def check_examples(rows: Examples, file: TrafficFile, least: int = MIN_LABELS) -> None:
    """Raises LabelError for too few labels, or labels of one tier only."""
    n = int((rows.weights > 0).sum())
    if n < least:
        raise LabelError(f"{n} labelled texts, at least {least} are needed (300 start to help); label {least - n} more")
    mass = rows.targets[rows.weights > 0].sum(axis=0)
    if (mass >= MIN_OF_TIER).sum() < 2:
        only = list(Tier)[int(mass.argmax())]
        raise LabelError(
            f"{n} labels, and all but {n - mass.max():.0f} say {only}: there is nothing to tell apart; label queries "
            f"of other tiers, at least {MIN_OF_TIER} of a second one"
        )
    sizes = np.bincount(rows.groups[rows.weights > 0])
    if sizes.max() > n / 2:
        alike = rows.numbers[(rows.weights > 0) & (rows.groups == sizes.argmax())][:3].tolist()
        starts = traffic.read_starts(file, alike)
        which = ", ".join(row_of(number, starts.get(number)) for number in alike)
        raise LabelError(
            f"{sizes.max()} of {n} texts are near-duplicates or of one conversation, such as {which}: they cannot be "
            "split into a training side and a held-out side; leave repetitions out"
        )


def split(rows: Examples) -> npt.NDArray[np.bool_]:
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


def _encode(texts: list[str], base: Unfolded, identity: str, digest: str) -> Shard:  # noqa: ARG001
    """regression.encode, cached by the base's and the texts' hash: the texts themselves do not get into the cache."""
    if not texts:
        raise LabelError("a shard is gone from the cache; run the command again")
    return regression.encode(texts, base)


def keys_of(texts: list[str]) -> npt.NDArray[np.uint64]:
    """What identifies each text, case and white space aside, uint64 [n]."""
    return _keys([" ".join(text.split()).lower() for text in texts])


def _keys(values: list[str]) -> npt.NDArray[np.uint64]:
    """A hash of each string, uint64 [n]; 0 for the empty one."""
    hashes = (hashlib.blake2b(v.encode("utf-8", "surrogatepass"), digest_size=8).digest() for v in values)
    keys = np.frombuffer(b"".join(hashes), np.uint64).copy()
    keys[[not value for value in values]] = 0
    return keys
