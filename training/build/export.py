"""A fitted classifier -> models/<name>/: one ONNX graph, tokenizer, manifest, card, and the unfolded table.

A sum over tokens followed by linear layers is linear, so embedding, bag of tokens, regression, calibration and novelty
fold into one row a token, instead of 128 dimensions. The graph is
    logits = sum(table[ids]) / sqrt(sum(idf[ids]^2)) + bent(structure) @ weights + bias
    novelty = sigmoid(mean(novelty[ids]) + bias)
    P(suffices)_k = 1 - sum of softmax(logits) above k, moved towards the prior by novelty.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load, save

from router.classifier import artifact
from router.classifier.artifact import Input, Manifest, OperatingPoint, Window
from router.classifier.features import STRUCTURE
from router.classifier.model import Classifier as Runtime
from router.errors import ArtifactNotFound
from router.types import Tier
from training.build.corpora import N_TIERS
from training.build.embedding import EMBEDDING_SCALE, HEAD_CHARS, TAIL_CHARS, Embedding
from training.build.fit import KNOTS, REACH, STRUCTURE_SCALE, TRAFFIC_MIX, Classifier, Linear, route
from training.build.novelty import Novelty

PARITY = 1e-5
TRAINING_FILE = "training/unfolded.safetensors"

SEEN_FILE = "training/seen.bin"
"""Of a retrained artifact: keys (uint64, sorted) of the texts that it was fitted on, which `tune` must not test on."""


@dataclass(frozen=True)
class Unfolded:
    """The three fitted parts of an artifact."""

    embedding: Embedding
    classifier: Classifier
    novelty: Novelty

    def predict(self, texts: list[str]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """P(suffices) float64 [n_texts, n_tiers] and novelty float64 [n_texts], by scikit-learn: the reference."""
        _, bag = self.embedding.bag(texts)
        novelty = self.novelty.probability(bag)
        known = self.classifier.p_suffices(self.embedding.features(texts))
        return known + novelty[:, None] * (np.cumsum(TRAFFIC_MIX) - known), novelty

    def route(self, texts: list[str], thresholds: tuple[float, ...]) -> list[int]:
        """The tier number of each text: by threshold, or the top one when the text is out of distribution."""
        q, novelty = self.predict(texts)
        numbers: list[int] = np.where(novelty > self.novelty.threshold, N_TIERS - 1, route(q, thresholds)).tolist()
        return numbers


@dataclass(frozen=True)
class Folded:
    """The numbers of the graph, float32.

    `table` [n_tokens + 1, n_tiers + 3]: logits, squared idf, novelty and a 1 by token, the last row (padding) zero. The
    structure becomes min(max(structure @ spread + offset, low), high) @ weights + bias: `spread` [n_structure, n_bent],
    `offset`, `low` and `high` [n_bent], `weights` [n_bent, n_tiers], `bias` [n_tiers].
    """

    table: npt.NDArray[np.float32]
    spread: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def fold(embedding: Embedding, model: Classifier, novelty: Novelty) -> Folded:
    """Multiply embedding, idf, regression, standardisation and calibration into one row a token. In float64."""
    linear = model.regression.coef.T @ model.calibration.coef.T
    n = len(STRUCTURE)
    n_bent = n * (1 + len(KNOTS))
    bent, embedded, tokens = np.split(linear, [n_bent, n_bent + embedding.codes.shape[1]])
    idf = embedding.idf.astype(np.float64)[:, None]
    columns = [EMBEDDING_SCALE * embedding.table.astype(np.float64) @ embedded + idf * tokens, idf**2]
    table = np.hstack([*columns, novelty.column[:, None], np.ones((len(idf), 1))])
    knots = (0.0, *KNOTS)
    arrays = (
        np.vstack([table, np.zeros(table.shape[1])]),
        np.hstack([np.diag(1 / model.scale)] * len(knots)),
        np.concatenate([-model.mean / model.scale - knot for knot in knots]),
        np.repeat((-REACH, *(0.0 for _ in KNOTS)), n),
        np.repeat([REACH - knot for knot in knots], n),
        STRUCTURE_SCALE * bent,
        model.regression.intercept @ model.calibration.coef.T + model.calibration.intercept,
    )
    return Folded(*(array.astype(np.float32) for array in arrays))


def graph(folded: Folded, novelty: Novelty) -> bytes:
    """The ONNX graph: ids int64 [batch, tokens], structure float32 [batch, n_structure] -> p_suffices float32 [batch,
    n_tiers] and novelty float32 [batch, 1].
    """
    constants = {
        **vars(folded),
        "novelty_bias": np.array(novelty.bias, np.float32),
        "prior": np.cumsum(TRAFFIC_MIX).astype(np.float32),
        "above": np.tril(np.ones((N_TIERS, N_TIERS), np.float32), -1),
        "one": np.array(1, np.float32),
        "axis": np.array([1], np.int64),
        "parts": np.array([N_TIERS, 1, 1, 1], np.int64),
    }
    steps: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("Gather", ["table", "ids"], ["rows"], {}),
        ("ReduceSum", ["rows", "axis"], ["sums"], {"keepdims": 0}),
        ("Split", ["sums", "parts"], ["summed", "squares", "strange", "count"], {"axis": 1}),
        ("Max", ["squares", "one"], ["at_least_one"], {}),
        ("Sqrt", ["at_least_one"], ["length"], {}),
        ("Div", ["summed", "length"], ["of_tokens"], {}),
        ("Gemm", ["structure", "spread", "offset"], ["spread_out"], {}),
        ("Max", ["spread_out", "low"], ["above_low"], {}),
        ("Min", ["above_low", "high"], ["bent"], {}),
        ("Gemm", ["bent", "weights", "bias"], ["of_structure"], {}),
        ("Add", ["of_tokens", "of_structure"], ["logits"], {}),
        ("Softmax", ["logits"], ["p_required"], {"axis": 1}),
        ("MatMul", ["p_required", "above"], ["p_above"], {}),
        ("Sub", ["one", "p_above"], ["known"], {}),
        ("Max", ["count", "one"], ["n_tokens"], {}),
        ("Div", ["strange", "n_tokens"], ["mean_strange"], {}),
        ("Add", ["mean_strange", "novelty_bias"], ["novelty_logit"], {}),
        ("Sigmoid", ["novelty_logit"], ["novelty"], {}),
        ("Sub", ["prior", "known"], ["to_prior"], {}),
        ("Mul", ["novelty", "to_prior"], ["moved"], {}),
        ("Add", ["known", "moved"], ["p_suffices"], {}),
    ]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, inputs, outputs, **attributes) for op, inputs, outputs, attributes in steps],
            "tierwise",
            [
                helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"]),
                helper.make_tensor_value_info("structure", TensorProto.FLOAT, ["batch", len(STRUCTURE)]),
            ],
            [
                helper.make_tensor_value_info("p_suffices", TensorProto.FLOAT, ["batch", N_TIERS]),
                helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch", 1]),
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
        producer_name="tierwise",
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def write_artifact(
    folder: Path,
    unfolded: Unfolded,
    *,
    name: str,
    version: int,
    operating_points: dict[str, OperatingPoint],
    metrics: dict[str, Any],
    training_data: Sequence[Mapping[str, object]],
    documents: Mapping[str, bytes],
    parity_texts: list[str],
) -> float:
    """Write the artifact whole or not at all; returns the largest parity gap. Raises AssertionError above PARITY."""
    with staged(folder) as part:
        (part / "training").mkdir(parents=True)
        folded = fold(unfolded.embedding, unfolded.classifier, unfolded.novelty)
        (part / "model.onnx").write_bytes(graph(folded, unfolded.novelty))
        (part / "tokenizer.model").write_bytes(unfolded.embedding.tokenizer)
        (part / TRAINING_FILE).write_bytes(save(_tensors(unfolded)))
        for file, content in documents.items():
            (part / file).write_bytes(content)
        files = ("model.onnx", "tokenizer.model", TRAINING_FILE, *documents)
        manifest = Manifest(
            schema_version=artifact.SCHEMA_VERSION,
            name=name,
            version=version,
            tiers=tuple(Tier),
            inputs={
                "ids": Input("int64", ("batch", "tokens"), pad_id=len(folded.table) - 1),
                "structure": Input("float32", ("batch", len(STRUCTURE)), names=STRUCTURE),
            },
            window=Window(HEAD_CHARS, TAIL_CHARS),
            max_novelty=unfolded.novelty.threshold,
            operating_points=operating_points,
            files={file: artifact.entry((part / file).read_bytes()) for file in files},
            metrics=metrics,
            training_data=tuple(training_data),
        )
        encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        (part / "manifest.json").write_bytes(encoded + b"\n")
        gap = parity_gap(part, unfolded, parity_texts)
        if not gap <= PARITY:
            raise AssertionError(f"ONNX and scikit-learn differ by {gap:.2e}, more than {PARITY:.0e}")
        replace(part, folder)
    return gap


def replace(part: Path, folder: Path) -> None:
    """Put a finished folder where another may be."""
    if folder.exists():
        shutil.rmtree(folder)
    part.replace(folder)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A hidden folder of the same name on the same disk; what a killed run left there is cleared away."""
    scratch = folder.parent / f".{folder.name}.new"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / folder.name).mkdir(parents=True)
    try:
        yield scratch / folder.name
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def parity_gap(folder: Path, unfolded: Unfolded, texts: list[str]) -> float:
    """The largest difference between the folded graph (single and batched) and unfolded scikit-learn."""
    runtime = Runtime(artifact.load(folder))
    expected, novelty = unfolded.predict(texts)
    reference = np.column_stack([expected, novelty])
    predictions = [runtime.predict(text) for text in texts]
    single = np.array([(*p.p_suffices, p.novelty) for p in predictions])
    # A text without tokens is wholly new, whatever the formula says.
    reference[[runtime.encoder.encode(text).ids.size == 0 for text in texts], -1] = 1.0
    batched = runtime.predict_batch(texts)
    return float(max(np.abs(single - reference).max(), np.abs(batched - reference[:, :-1]).max()))


def read_unfolded(folder: Path) -> Unfolded:
    """What an artifact was folded from, for retraining and for parity tests. Raises ArtifactError as artifact.load."""
    tokenizer = artifact.load(folder).tokenizer
    if not (folder / TRAINING_FILE).is_file():
        raise ArtifactNotFound(
            f"{folder} has no {TRAINING_FILE}: an encoder cannot be refitted here; give {artifact.SHIPPED}, or an "
            "artifact that was retrained from it"
        )
    tensors = load((folder / TRAINING_FILE).read_bytes())
    embedding = Embedding(tensors["codes"], tensors["scales"], tensors["idf"], tokenizer)
    classifier = Classifier(
        tensors["mean"],
        tensors["scale"],
        Linear(tensors["coef"], tensors["intercept"]),
        Linear(tensors["calibration_coef"], tensors["calibration_intercept"]),
    )
    bias, threshold = tensors["novelty"].tolist()
    return Unfolded(embedding, classifier, Novelty(tensors["novelty_column"].astype(np.float64), bias, threshold))


def _tensors(unfolded: Unfolded) -> dict[str, npt.NDArray[Any]]:
    embedding, model, novelty = unfolded.embedding, unfolded.classifier, unfolded.novelty
    arrays = {
        "codes": embedding.codes,
        "scales": embedding.scales,
        "idf": embedding.idf,
        "mean": model.mean,
        "scale": model.scale,
        "coef": model.regression.coef,
        "intercept": model.regression.intercept,
        "calibration_coef": model.calibration.coef,
        "calibration_intercept": model.calibration.intercept,
        "novelty_column": novelty.column.astype(np.float32),
        "novelty": np.array([novelty.bias, novelty.threshold]),
    }
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}
