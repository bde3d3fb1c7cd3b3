"""The encoder's artifact, and those that ask it beside the small model: `large` always, `cascade` where that is unsure.

The encoder passes over the rows twice. The first pass leaves families of real requests out: on these it is calibrated,
the operating points are tuned and the figures told. The second goes on over those families and half of the other rows;
what ships is a little better than the figures.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from sklearn.linear_model import LogisticRegression

from router.classifier import artifact
from router.classifier.artifact import Cascade, Input, Manifest, OperatingPoint, Window
from router.classifier.features import STRUCTURE
from router.types import Tier
from training.build import encoder, encoder_graph, export, fit, novelty
from training.build.arrays import Array, Ints
from training.build.corpora import family_of
from training.build.embedding import HEAD_CHARS, TAIL_CHARS
from training.build.export import Unfolded
from training.build.training_set import Rows

HELD_OUT = ("aider", "arena", "specstory", "wildchat")
"""Families of real requests that the first pass does not see."""

AGAIN = 0.5
"""Share of the first pass's rows that the second sees too."""

WEIGHT = 0.6
"""Of the encoder's word against the small model's: .5 to .7 rank left-out requests alike, each better than either."""

MAX_NON_ASCII = 0.1
"""Share of characters beyond ASCII up to which the encoder, which reads English, is asked: on other texts the small
model alone ranks better (Spearman .36 against .32 on developers' turns, .54 against .51 in Arena)."""

ASKED = 1 / 3
SKIPPED = 0.1
"""The cascade asks about a third of real requests, the hardest tenth aside: those go up whatever the encoder says."""

MAX_NOVELTY = 0.9
SPLIT = "{} rated requests that people typed, of {}, which were left out; tuned on one half, scored on the other"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Fitted:
    """The encoder after both passes, and what follows it; the left-out `real` requests with P(suffices) [n, n_tiers] by
    the encoder (after the first pass) and by the small model without the same families; which of them it is asked about
    (`reads`).
    """

    model: encoder.Transformer
    head: encoder_graph.Head
    real: Rows
    q_encoder: Array
    q_small: Array
    reads: npt.NDArray[np.bool_]

    def asked(self, low: float, high: float) -> float:
        """Share of the left-out requests about which the encoder is asked between `low` and `high`, by even weights."""
        return round(float(np.average(self._asks(low, high), weights=fit.even_weights(self.real.datasets))), 4)

    def _asks(self, low: float, high: float) -> npt.NDArray[np.bool_]:
        return np.asarray(self.reads & (self.q_small[:, 0] >= low) & (self.q_small[:, 0] < high))

    def pooled(self, low: float, high: float) -> Array:
        """P(suffices) [n, n_tiers] where the encoder is asked between `low` and `high`."""
        asked = self._asks(low, high)
        return np.where(asked[:, None], WEIGHT * self.q_encoder + (1 - WEIGHT) * self.q_small, self.q_small)

    def band(self) -> tuple[float, float]:
        """Between which P(simple suffices) of the small model the cascade asks."""
        weights = fit.even_weights(self.real.datasets) * self.reads
        order = np.argsort(self.q_small[:, 0])
        below = np.cumsum(weights[order]) / fit.even_weights(self.real.datasets).sum()
        low, high = (self.q_small[order[np.searchsorted(below, level)], 0] for level in (SKIPPED, SKIPPED + ASKED))
        return round(float(low), 4), round(float(high), 4)

    def points(self, q: Array) -> dict[str, OperatingPoint]:
        """Operating points for P(suffices) `q` of the left-out requests."""
        split = SPLIT.format(len(self.real), ", ".join(HELD_OUT))
        return fit.operating_points(q, self.real.targets, fit.even_weights(self.real.datasets), split)


def learn(rows: Rows, small: Unfolded, cache: Path, progress: Progress) -> Fitted:
    """Both passes. `cache` keeps what a stopped run goes on from."""
    cache.mkdir(parents=True, exist_ok=True)
    model = encoder.Transformer()
    kept = rows.select(rows.sources != "variants")
    progress("cutting texts into tokens")
    ids = model.ids(kept.texts)
    held_out = np.isin(family_of(kept.datasets), HELD_OUT)
    real = held_out & kept.real
    _pass(model, kept, ids, ~held_out, cache / "first.pt", progress)
    vectors_file = cache / "held_out.npy"
    if not vectors_file.is_file():
        progress(f"{real.sum()} left-out requests")
        np.save(vectors_file, encoder.vectors(model, [ids[i] for i in np.flatnonzero(real)]))
    with torch.no_grad():
        logits: Array = model.head(torch.from_numpy(np.load(vectors_file))).double().numpy()
    left_out = kept.select(real)
    calibration = fit.calibrate(logits, left_out.targets, fit.even_weights(left_out.datasets))
    again = np.random.default_rng(0).random(len(kept)) < AGAIN
    _pass(model, kept, ids, held_out | again, cache / "second.pt", progress)
    progress("the small model without the same families")
    x = small.embedding.features(left_out.texts)
    return Fitted(
        model,
        _head(model, calibration, kept, small),
        left_out,
        fit.suffices(special.softmax(calibration(logits), axis=1)),
        _small_without(rows, small).p_suffices(x),
        x[:, [STRUCTURE.index("non_ascii_share")]].toarray().ravel() <= MAX_NON_ASCII,
    )


def _pass(
    model: encoder.Transformer,
    rows: Rows,
    ids: list[Ints],
    seen: npt.NDArray[np.bool_],
    checkpoint: Path,
    progress: Progress,
) -> None:
    part = rows.select(seen)
    own = [row for row, is_seen in zip(ids, seen, strict=True) if is_seen]
    encoder.fine_tune(model, own, part.targets, part.weights, checkpoint, progress)


def _small_without(rows: Rows, small: Unfolded) -> fit.Classifier:
    part = rows.select(~np.isin(family_of(rows.datasets), HELD_OUT))
    return fit.fit_with(small.classifier.calibration, small.embedding.features(part.texts), part)


def _head(model: encoder.Transformer, calibration: fit.Linear, rows: Rows, small: Unfolded) -> encoder_graph.Head:
    """Regression and calibration as one linear map, and P(out of distribution) learned from made-up texts."""
    natural = [rows.texts[i] for i in np.random.default_rng(0).permutation(len(rows))[: novelty.N_NATURAL]]
    strange = [text for kind in novelty.made_up(small.embedding, 0, 300).values() for text in kind]
    x = encoder.vectors(model, model.ids([*natural, *strange]))
    found = LogisticRegression(C=1.0, max_iter=1000).fit(x, np.repeat((0, 1), (len(natural), len(strange))))
    weight, bias = (p.detach().double().numpy() for p in (model.head.weight, model.head.bias))
    return encoder_graph.Head(
        weight.T @ calibration.coef.T,
        bias @ calibration.coef.T + calibration.intercept,
        found.coef_[0],
        float(found.intercept_[0]),
    )


def write_encoder(
    folder: Path,
    fitted: Fitted,
    version: int,
    metrics: dict[str, Any],
    training_data: Sequence[Mapping[str, object]],
    card: bytes,
) -> None:
    """Write the artifact of the encoder alone, whole or not at all."""
    model, order = fitted.model, fitted.model.order
    weights = {name: value.numpy() for name, value in model.bert.state_dict().items()}
    graph = encoder_graph.graph(weights, model.rows, model.pad_id, fitted.head)
    files = {"model.onnx": graph, "tokenizer.model": model.tokenizer, "README.md": card}
    ids = Input("int64", ("batch", "tokens"), pad_id=model.pad_id, begin_id=order.begin_id, end_id=order.end_id)
    manifest = Manifest(
        schema_version=artifact.SCHEMA_VERSION,
        name="complexity-encoder",
        version=version,
        tiers=tuple(Tier),
        max_novelty=MAX_NOVELTY,
        operating_points=fitted.points(fitted.q_encoder),
        inputs={"ids": ids},
        window=Window(HEAD_CHARS, TAIL_CHARS, order.head_tokens, order.tail_tokens),
        files={name: artifact.entry(content) for name, content in files.items()},
        metrics=metrics,
        training_data=tuple(training_data),
    )
    _write(folder, manifest, files)


def write_cascade(
    folder: Path,
    fitted: Fitted,
    parts: tuple[Path, Path],
    band: tuple[float, float],
    version: int,
    metrics: dict[str, Any],
    card: bytes,
) -> None:
    """Write the artifact that asks the first of `parts`, and within `band` the second; both lie beside it."""
    hashes = [artifact.entry((part / "manifest.json").read_bytes()).sha256 for part in parts]
    manifest = Manifest(
        schema_version=artifact.SCHEMA_VERSION,
        name=folder.name.rpartition("-v")[0],
        version=version,
        tiers=tuple(Tier),
        max_novelty=artifact.load(parts[0]).manifest.max_novelty,
        operating_points=fitted.points(fitted.pooled(*band)),
        files={"README.md": artifact.entry(card)},
        cascade=Cascade(parts[0].name, hashes[0], parts[1].name, hashes[1], *band, WEIGHT, MAX_NON_ASCII),
        metrics=metrics,
    )
    _write(folder, manifest, {"README.md": card})


def _write(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    with export.staged(folder) as part:
        for name, content in {**files, "manifest.json": encoded}.items():
            (part / name).write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
