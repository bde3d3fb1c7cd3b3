"""A fitted classifier -> models/<name>/: one ONNX graph, tokenizer, manifest, card, and the unfolded table.

A sum over tokens followed by linear layers is linear, so embedding, bag of tokens, regression and calibration fold
into one row a token: n_tiers logits and the token's squared idf, instead of 256 dimensions. The graph is
    logits = sum(table[ids]) / sqrt(sum(idf[ids]^2)) + structure @ weights + bias
    P(suffices)_k = 1 - sum of softmax(logits) above k.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load, save

from router import artifact
from router.artifact import Input, Manifest, OperatingPoint, Window
from router.classifier import Classifier as Runtime
from router.features import STRUCTURE
from router.types import Tier
from training.dataset import N_TIERS
from training.embedding import EMBEDDING_SCALE, HEAD_CHARS, TAIL_CHARS, Embedding
from training.fit import Classifier, logistic

PARITY = 1e-5
MAX_UNKNOWN_SHARE = 0.3
TRAINING_FILE = "training/unfolded.safetensors"


@dataclass(frozen=True)
class Folded:
    """`table` float32 [n_tokens + 1, n_tiers + 1]: logits and squared idf by token, the last row (padding) zero;
    `weights` float32 [n_structure, n_tiers]; `bias` float32 [n_tiers].
    """

    table: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def fold(embedding: Embedding, model: Classifier) -> Folded:
    """Multiply embedding, idf, regression, standardisation and calibration into one row a token. In float64."""
    linear = model.regression.coef_.T @ model.calibration.coef_.T
    structure, embedded, tokens = np.split(linear, [len(STRUCTURE), len(STRUCTURE) + embedding.codes.shape[1]])
    idf = embedding.idf.astype(np.float64)[:, None]
    table = np.hstack([EMBEDDING_SCALE * embedding.table.astype(np.float64) @ embedded + idf * tokens, idf**2])
    weights = structure / model.scale[:, None]
    bias = model.regression.intercept_ @ model.calibration.coef_.T + model.calibration.intercept_ - model.mean @ weights
    padded = np.vstack([table, np.zeros((1, N_TIERS + 1))])
    return Folded(padded.astype(np.float32), weights.astype(np.float32), bias.astype(np.float32))


def graph(folded: Folded) -> bytes:
    """The ONNX graph: ids int64 [batch, tokens], structure float32 [batch, n] -> p_suffices [batch, n_tiers]."""
    constants = {
        "table": folded.table,
        "weights": folded.weights,
        "bias": folded.bias,
        "above": np.tril(np.ones((N_TIERS, N_TIERS), np.float32), -1),
        "one": np.array(1, np.float32),
        "axis": np.array([1], np.int64),
        "parts": np.array([N_TIERS, 1], np.int64),
    }
    steps = [
        ("Gather", ["table", "ids"], ["rows"], {}),
        ("ReduceSum", ["rows", "axis"], ["sums"], {"keepdims": 0}),
        ("Split", ["sums", "parts"], ["summed", "squares"], {"axis": 1}),
        ("Max", ["squares", "one"], ["at_least_one"], {}),
        ("Sqrt", ["at_least_one"], ["length"], {}),
        ("Div", ["summed", "length"], ["of_tokens"], {}),
        ("MatMul", ["structure", "weights"], ["of_structure"], {}),
        ("Add", ["of_tokens", "of_structure"], ["unbiased"], {}),
        ("Add", ["unbiased", "bias"], ["logits"], {}),
        ("Softmax", ["logits"], ["p_required"], {"axis": 1}),
        ("MatMul", ["p_required", "above"], ["p_above"], {}),
        ("Sub", ["one", "p_above"], ["p_suffices"], {}),
    ]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, inputs, outputs, **attributes) for op, inputs, outputs, attributes in steps],
            "tierwise",
            [
                helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"]),
                helper.make_tensor_value_info("structure", TensorProto.FLOAT, ["batch", len(STRUCTURE)]),
            ],
            [helper.make_tensor_value_info("p_suffices", TensorProto.FLOAT, ["batch", N_TIERS])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
        producer_name="tierwise",
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def write(
    folder: Path,
    embedding: Embedding,
    model: Classifier,
    *,
    name: str,
    version: int,
    operating_points: dict[str, OperatingPoint],
    metrics: dict[str, Any],
    training_data: list[dict[str, object]],
    card: str,
    parity_texts: list[str],
) -> float:
    """Write the artifact whole or not at all; returns the largest parity gap. Raises AssertionError above PARITY."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        staged = Path(scratch) / folder.name
        (staged / "training").mkdir(parents=True)
        folded = fold(embedding, model)
        (staged / "model.onnx").write_bytes(graph(folded))
        (staged / "tokenizer.json").write_bytes(embedding.tokenizer)
        (staged / "README.md").write_text(card, "utf-8")
        (staged / TRAINING_FILE).write_bytes(save(_unfolded(embedding, model)))
        files = ("model.onnx", "tokenizer.json", "README.md", TRAINING_FILE)
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
            max_unknown_share=MAX_UNKNOWN_SHARE,
            operating_points=operating_points,
            files={file: artifact.entry((staged / file).read_bytes()) for file in files},
            metrics=metrics,
            training_data=tuple(training_data),
        )
        encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        (staged / "manifest.json").write_bytes(encoded + b"\n")
        gap = parity_gap(staged, embedding, model, parity_texts)
        if not gap <= PARITY:
            raise AssertionError(f"ONNX and scikit-learn differ by {gap:.2e}, more than {PARITY:.0e}")
        if folder.exists():
            shutil.rmtree(folder)
        staged.replace(folder)
    return gap


def parity_gap(folder: Path, embedding: Embedding, model: Classifier, texts: list[str]) -> float:
    """The largest difference between the folded graph (single and batched) and unfolded scikit-learn."""
    runtime = Runtime(artifact.load(folder))
    reference = model.p_suffices(embedding.features(texts))
    single = np.array([runtime.predict(text).p_suffices for text in texts])
    return float(max(np.abs(single - reference).max(), np.abs(runtime.predict_batch(texts) - reference).max()))


def read_unfolded(folder: Path) -> tuple[Embedding, Classifier]:
    """The embedding and the classifier that an artifact was folded from, for retraining and for parity tests."""
    tensors = load((folder / TRAINING_FILE).read_bytes())
    embedding = Embedding(tensors["codes"], tensors["scales"], tensors["idf"], (folder / "tokenizer.json").read_bytes())
    classifier = Classifier(
        tensors["mean"],
        tensors["scale"],
        logistic(tensors["coef"], tensors["intercept"]),
        logistic(tensors["calibration_coef"], tensors["calibration_intercept"]),
    )
    return embedding, classifier


def _unfolded(embedding: Embedding, model: Classifier) -> dict[str, npt.NDArray[Any]]:
    arrays = {
        "codes": embedding.codes,
        "scales": embedding.scales,
        "idf": embedding.idf,
        "mean": model.mean,
        "scale": model.scale,
        "coef": model.regression.coef_,
        "intercept": model.regression.intercept_,
        "calibration_coef": model.calibration.coef_,
        "calibration_intercept": model.calibration.intercept_,
    }
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}
