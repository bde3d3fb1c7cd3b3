"""The encoder's artifact, and those that ask it beside the small model: `large` always, `cascade` where that is unsure.

Teachers, deeper and several, learn from ratings alone. The encoder then learns from the ratings and from what the
teachers say, of rated texts as well as of texts that nobody rated. The teachers see nothing of the families of real
requests in HELD_OUT. The encoder is fitted twice: without these families, for its calibration, its operating points and
every figure; and with them, which ships and is a little better than the figures.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import special
from sklearn.linear_model import LogisticRegression

from router.classifier import artifact
from router.classifier.artifact import Cascade, Input, Manifest, OperatingPoint, Window
from router.types import Tier
from training.build import encoder, encoder_graph, export, fit, novelty
from training.build.arrays import Array, Ints
from training.build.corpora import N_TIERS, family_of
from training.build.embedding import HEAD_CHARS, TAIL_CHARS
from training.build.export import Unfolded
from training.build.training_set import Rows, Unrated

HELD_OUT = ("aider", "arena", "specstory", "wildchat")
"""Families of real requests that the first pass does not see."""

TEACHERS = ((12, 0), (12, 1), (8, 2))
"""Layers and seed of each."""

N_LAYERS = 8
"""Of the encoder: with 6 it ranks left-out requests .04 worse, with 12 no better."""

TAUGHT = 0.5
"""Weight of the teachers' word about a rated text against its rating; about any other text theirs is all there is."""

WEIGHT = 0.7
"""Of the encoder's word against the small model's: .5 to .7 rank left-out requests alike, each better than either."""

MAX_NON_ASCII = 1.0
"""Share of characters beyond ASCII up to which the encoder is asked: about every text, for it reads many languages."""

ASKED = 1 / 2
SKIPPED = 0.1
"""The cascade asks about half of real requests, the hardest tenth aside: those go up whatever the encoder says. What it
gains grows with how many are asked; which ones hardly matters for their order (a third: .549 here, .548 at random)."""

MAX_NOVELTY = 0.9
SPLIT = "{} rated requests that people typed, of {}, which were left out; tuned on one half, scored on the other"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Fitted:
    """The encoder that ships and what follows it; the left-out `real` requests with P(suffices) [n, n_tiers] by the
    encoder and by the small model, both fitted without their families.
    """

    base: encoder.Base
    model: encoder.Transformer
    head: encoder_graph.Head
    real: Rows
    q_encoder: Array
    q_small: Array

    def asked(self, low: float, high: float) -> float:
        """Share of the left-out requests about which the encoder is asked between `low` and `high`, by even weights."""
        return round(float(np.average(self._asks(low, high), weights=fit.even_weights(self.real.datasets))), 4)

    def _asks(self, low: float, high: float) -> npt.NDArray[np.bool_]:
        return np.asarray((self.q_small[:, 0] >= low) & (self.q_small[:, 0] < high))

    def pooled(self, low: float, high: float) -> Array:
        """P(suffices) [n, n_tiers] where the encoder is asked between `low` and `high`."""
        asked = self._asks(low, high)
        return np.where(asked[:, None], WEIGHT * self.q_encoder + (1 - WEIGHT) * self.q_small, self.q_small)

    def band(self) -> tuple[float, float]:
        """Between which P(simple suffices) of the small model the cascade asks."""
        weights = fit.even_weights(self.real.datasets)
        order = np.argsort(self.q_small[:, 0])
        below = np.cumsum(weights[order]) / weights.sum()
        low, high = (self.q_small[order[np.searchsorted(below, level)], 0] for level in (SKIPPED, SKIPPED + ASKED))
        return round(float(low), 4), round(float(high), 4)

    def points(self, q: Array) -> dict[str, OperatingPoint]:
        """Operating points for P(suffices) `q` of the left-out requests."""
        split = SPLIT.format(len(self.real), ", ".join(HELD_OUT))
        return fit.operating_points(q, self.real.targets, fit.even_weights(self.real.datasets), split)


def learn(rows: Rows, unrated: Unrated, small: Unfolded, cache: Path, progress: Progress) -> Fitted:
    """Teachers and encoder; `cache` keeps what a stopped run goes on from."""
    cache.mkdir(parents=True, exist_ok=True)
    texts = [*rows.texts, *unrated.texts]
    progress("cutting texts into tokens")
    base = encoder.Base.of(texts)
    lessons = Lessons.of(base.ids(texts), rows, unrated)
    taught = lessons.taught(base, cache, progress)
    left_out_model = taught.fitted(base, N_LAYERS, 0, ~taught.held_out, cache / "left-out.pt", progress)
    at = np.flatnonzero(taught.held_out[: len(rows)] & rows.real)
    logits = left_out_model.scores([taught.ids[i] for i in at])
    left_out = rows.select(np.isin(np.arange(len(rows)), at))
    calibration = fit.calibrate(logits, left_out.targets, fit.even_weights(left_out.datasets))
    model = taught.fitted(base, N_LAYERS, 0, np.ones(len(texts), bool), cache / "all.pt", progress)
    progress("the small model without the same families")
    return Fitted(
        base,
        model,
        _head(base, model, calibration, rows, small),
        left_out,
        fit.suffices(special.softmax(calibration(logits), axis=1)),
        _small_without(rows, small).p_suffices(small.embedding.features(left_out.texts)),
    )


@dataclass(frozen=True)
class Lessons:
    """Texts as `ids`, with the log odds [n, 2] that a model should give, and a weight each; rated texts come first.

    A text without an answer weighs nothing. `held_out` says which are of the families in HELD_OUT.
    """

    ids: list[Ints]
    wanted: Array
    weights: Array
    unrated_weights: Array
    held_out: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, ids: list[Ints], rows: Rows, unrated: Unrated) -> Lessons:
        """Of ratings alone."""
        n = len(rows)
        wanted, weights = np.zeros((len(ids), N_TIERS - 1)), np.zeros(len(ids))
        wanted[:n] = special.logit(np.cumsum(rows.targets[:, :-1], axis=1).clip(*fit.MOST_SURE))
        weights[:n] = rows.weights
        families = family_of(np.concatenate([rows.datasets, unrated.datasets]))
        return cls(ids, wanted, weights, unrated.weights, np.isin(families, HELD_OUT))

    def fitted(
        self,
        base: encoder.Base,
        n_layers: int,
        seed: int,
        seen: npt.NDArray[np.bool_],
        checkpoint: Path,
        progress: Progress,
    ) -> encoder.Transformer:
        """A model of the texts in `seen` that weigh something."""
        model = encoder.Transformer(base, n_layers, seed)
        at = np.flatnonzero(seen & (self.weights > 0))
        ids = [self.ids[i] for i in at]
        encoder.fine_tune(model, ids, self.wanted[at], self.weights[at], checkpoint, progress, seed)
        return model

    def taught(self, base: encoder.Base, cache: Path, progress: Progress) -> Lessons:
        """The same texts with what TEACHERS, fitted without HELD_OUT, say of each."""
        scores = np.mean([self._scores(base, *teacher, cache, progress) for teacher in TEACHERS], axis=0)
        n = len(self.ids) - len(self.unrated_weights)
        wanted = np.concatenate([(1 - TAUGHT) * self.wanted[:n] + TAUGHT * scores[:n], scores[n:]])
        return replace(self, wanted=wanted, weights=np.concatenate([self.weights[:n], self.unrated_weights]))

    def _scores(self, base: encoder.Base, n_layers: int, seed: int, cache: Path, progress: Progress) -> Array:
        file = cache / f"teacher-{n_layers}-{seed}.npy"
        if not file.is_file():
            model = self.fitted(base, n_layers, seed, ~self.held_out, file.with_suffix(".pt"), progress)
            progress(f"what the teacher of {n_layers} layers says")
            np.save(file, model.scores(self.ids).astype(np.float32))
        return np.asarray(np.load(file), np.float64)


def _small_without(rows: Rows, small: Unfolded) -> fit.Classifier:
    part = rows.select(~np.isin(family_of(rows.datasets), HELD_OUT))
    return fit.fit_with(small.classifier.calibration, small.embedding.features(part.texts), part)


def _head(
    base: encoder.Base, model: encoder.Transformer, calibration: fit.Linear, rows: Rows, small: Unfolded
) -> encoder_graph.Head:
    """Regression and calibration as one linear map, and P(out of distribution) learned from made-up texts."""
    natural = [rows.texts[i] for i in np.random.default_rng(0).permutation(len(rows))[: novelty.N_NATURAL]]
    strange = [text for kind in novelty.made_up(small.embedding, 0, 300).values() for text in kind]
    x = encoder.vectors(model, base.ids([*natural, *strange]))
    found = LogisticRegression(C=1.0, max_iter=1000).fit(x, np.repeat((0, 1), (len(natural), len(strange))))
    weight, bias = (p.detach().double().cpu().numpy() for p in (model.head.weight, model.head.bias))
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
    base, order = fitted.base, fitted.base.order
    weights = {name: value.cpu().numpy() for name, value in fitted.model.bert.state_dict().items()}
    graph = encoder_graph.graph(weights, base.pad_id, fitted.head)
    files = {"model.onnx": graph, "tokenizer.model": base.tokenizer, "README.md": card}
    ids = Input("int64", ("batch", "tokens"), pad_id=base.pad_id, begin_id=order.begin_id, end_id=order.end_id)
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
