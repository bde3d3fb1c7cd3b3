"""Labels with a class of traffic -> an artifact that knows these applications: the base, and what lies beside it.

The base's own graph is left as it is, byte for byte: requests of other classes, or of none, go where they went. What is
learned of each class (training/retrain/classes.py) is a small file, which the runtime adds to the base's logits. All
labels teach it; the gate judges by predictions out of fold, whole groups of near-duplicates and conversations together.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from joblib import Memory
from threadpoolctl import threadpool_limits

from router.classifier import artifact, model
from router.classifier.classes import CLASSES_FILE, logits
from router.classifier.features import STRUCTURE
from router.types import Tier
from training.build import export
from training.build.arrays import Array
from training.build.embedding import EMBEDDING_SCALE
from training.build.export import Unfolded
from training.build.fit import KNOTS, REACH, STRUCTURE_SCALE, suffices
from training.examine import card
from training.examine.gate import ByClass
from training.retrain import challenger, classes, regression
from training.retrain.classes import ClassModels
from training.retrain.examples import Examples, Progress, check_examples, keys_of, merged, read_examples
from training.rows import traffic
from training.rows.errors import LabelError
from training.rows.traffic import TrafficFile

MIN_LABELS = 40
"""Of all classes together: the gate could not tell fewer from chance."""


def has_classes(file: TrafficFile) -> bool:
    """Whether labels say which class of traffic they are of."""
    return "class" in file.table.columns


def learn(
    file: TrafficFile, base_folder: Path, folder: Path, cache: Path, progress: Progress = lambda *_: None
) -> tuple[dict[str, Any], ByClass]:
    """Write the challenger `folder`; returns its figures and what the gate judges. Deterministic.

    Labels without a class are left out, and those that the base was itself fitted on. Raises LabelError when the others
    cannot be learned from.
    """
    with threadpool_limits(1):  # as in challenger.learn; and Newton steps of 100 features only lose by more threads
        return _learn(file, base_folder, folder, Memory(cache, verbose=0), progress)


def _learn(
    file: TrafficFile, base_folder: Path, folder: Path, memory: Memory, progress: Progress
) -> tuple[dict[str, Any], ByClass]:
    base, manifest = export.read_unfolded(base_folder), artifact.load(base_folder).manifest
    if CLASSES_FILE in manifest.files:
        own: Any = manifest.metrics.get("retrained", {})
        raise LabelError(f"{base_folder} knows classes already; learn all anew from its base: --base {own.get('base')}")
    identity = f"{challenger.RECIPE} {manifest.files[export.TRAINING_FILE].sha256}"
    read = read_examples(file, base, identity, memory, progress)
    of_row = _classes_of(read)
    rows, conflicts = _merged(read, of_row)
    seen = np.isin(rows.keys, _seen(base_folder))
    rows.weights[(of_row == "") | seen] = 0.0
    check_examples(rows, file, MIN_LABELS)
    known = np.flatnonzero(rows.weights > 0)
    names, targets, weights = of_row[known], rows.targets[known], rows.weights[known]
    served, lengths = _as_served(file, base_folder)
    before = served[known]
    dense = np.concatenate([shard.dense for shard in rows.shards])[known]
    after = np.zeros_like(before)
    folds = challenger.folds_of(rows.groups, known)
    for number, fold in enumerate(np.unique(folds[known])):
        progress("fitting", number, len(np.unique(folds[known])) + 1)
        asked = folds[known] == fold
        given = ~asked
        found = classes.learn(
            names[given].tolist(), logits(before[given]), dense[given], targets[given], weights[given]
        )
        after[asked] = _q(found, names[asked], before[asked], dense[asked])
    learned = classes.learn(names.tolist(), logits(before), dense, targets, weights)
    rows_of = ByClass(before, after, targets, weights, rows.groups[known], names, lengths[known])
    metrics = {
        "base": base_folder.name,
        "n_labels": len(rows),
        "n_training": len(known),
        "n_held_out": len(known),
        "n_groups": int(rows.groups.max()) + 1,
        "n_without_class": int((of_row == "").sum()),
        "n_seen_by_base": int(seen.sum()),
        "shares": challenger.rounded(dict(zip(Tier, weights @ targets / weights.sum(), strict=True))),
        "n_censored": rows.n_censored,
        "conflicts": conflicts,
        "noise": challenger.noise(after, rows, known),
        "out_of_fold": challenger.quality(after, rows, known),
        "classes": _described(learned),
    }
    _write(folder, base_folder, base, learned, metrics, file, rows.keys[known])
    progress("written", 1, 1)
    return metrics, rows_of


def _classes_of(rows: Examples) -> np.ndarray[Any, Any]:
    numbers, names = rows.slices["class"]
    return np.array(names, object)[numbers]


def _merged(rows: Examples, of_row: np.ndarray[Any, Any]) -> tuple[Examples, dict[str, Any]]:
    """Each text once in each class: what one application needs of it, another need not."""
    by_class = keys_of([str(name) for name in of_row])
    mixed = rows.keys ^ (by_class * np.uint64(0x9E3779B97F4A7C15))
    found, conflicts = merged(dataclasses.replace(rows, keys=mixed))
    return dataclasses.replace(found, keys=rows.keys), conflicts


def _seen(base: Path) -> np.ndarray[Any, Any]:
    path = base / export.SEEN_FILE
    return np.frombuffer(path.read_bytes(), np.uint64) if path.is_file() else np.zeros(0, np.uint64)


def _as_served(file: TrafficFile, base: Path) -> tuple[Array, Array]:
    """P(suffices) of every row of the file, as the base serves it, and the length of its text."""
    runtime = model.of(artifact.load(base))
    texts = (text for batch in traffic.read_labels(file) for text in batch.texts)
    rows = [(runtime.predict(text).p_suffices, len(text)) for text in texts]
    return np.array([q for q, _ in rows], np.float64), np.array([length for _, length in rows], np.float64)


def _q(found: ClassModels, names: np.ndarray[Any, Any], before: Array, dense: Any) -> Array:
    """P(suffices) float64 [n, n_tiers] of rows of these classes."""
    return suffices(regression.softmax(found.logits(names.tolist(), logits(before), dense)))


def _described(found: ClassModels) -> list[dict[str, Any]]:
    """What a person wants to know of each class."""
    return [
        {
            "class": name,
            "labels": int(count),
            "shift": challenger.rounded(dict(zip(Tier, shift, strict=True))),
            "error": challenger.rounded(dict(zip(Tier, error, strict=True))),
            "slope": round(float(slope), 3),
            "residual": bool(residual.any()),
        }
        for name, count, shift, error, slope, residual in zip(
            found.names, found.counts, found.shifts, found.errors, found.slopes, found.residuals, strict=True
        )
    ]


def packed(found: ClassModels, base: Unfolded) -> bytes:
    """The file that the runtime reads (router/classifier/classes.py). The tokens' vectors only where a residual needs
    them: 8 MB.
    """
    arrays: dict[str, Any] = {
        "names": np.array(found.names, str),
        "counts": np.asarray(found.counts, np.int64),
        "slopes": found.slopes,
        "offsets": found.offsets,
        "shifts": found.shifts,
        "errors": found.errors,
    }
    if found.residuals.any():
        embedding, n_bent = base.embedding, len(STRUCTURE) * (1 + len(KNOTS))
        residuals = found.residuals.copy()
        residuals[:, :n_bent] *= STRUCTURE_SCALE
        arrays |= {
            "residuals": residuals,
            "codes": np.vstack([embedding.codes, np.zeros((1, embedding.codes.shape[1]), np.int8)]),
            "scales": np.append(EMBEDDING_SCALE * embedding.scales, 0).astype(np.float32),
            "squares": np.append(embedding.idf.astype(np.float64) ** 2, 0),
            "mean": base.classifier.mean,
            "scale": base.classifier.scale,
            "knots": np.array(KNOTS),
            "reach": np.array(REACH),
        }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _write(
    folder: Path,
    base_folder: Path,
    base: Unfolded,
    found: ClassModels,
    metrics: dict[str, Any],
    file: TrafficFile,
    keys: Any,
) -> None:
    """The base's files and the classes', whole or not at all."""
    before = artifact.load(base_folder).manifest
    name, version = challenger.name_of(folder)
    training_data = [
        *before.training_data,
        {"source": file.path.name, "licence": "the user's own", "n_rows": len(keys), "sha256": file.sha256()},
    ]
    text = card.render_classes(folder.name, before.operating_points, metrics, training_data)
    files = {
        **{each: (base_folder / each).read_bytes() for each in (*artifact.RUNTIME_FILES, export.TRAINING_FILE)},
        CLASSES_FILE: packed(found, base),
        "README.md": text.encode(),
        export.SEEN_FILE: np.unique(np.concatenate([keys, _seen(base_folder)])).tobytes(),
    }
    manifest = msgspec.structs.replace(
        before,
        name=name,
        version=version,
        files={each: artifact.entry(data) for each, data in files.items()},
        metrics={"retrained": metrics},
        training_data=tuple(training_data),
    )
    with export.staged(folder) as part:
        (part / "training").mkdir(parents=True)
        for each, data in files.items():
            (part / each).write_bytes(data)
        (part / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        export.replace(part, folder)
