"""The encoder's graph in int8 against the same layers in float64."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from scipy import special

from tests.classifier.encoders import N_LAYERS, PAD, head_of, weights_of
from training.build import encoder_graph
from training.build.encoder_graph import EPSILON, N_HEADS

Weights = dict[str, np.ndarray]


def norm(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def reference(ids: list[int], weights: Weights, head: encoder_graph.Head) -> np.ndarray:
    """P(suffices) by BERT as its authors describe it, one text, no padding."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], weights, "embeddings.LayerNorm")
    for number in range(N_LAYERS):
        at = f"encoder.layer.{number}"
        q, k, v = (
            linear(x, weights, f"{at}.attention.self.{name}").reshape(len(ids), N_HEADS, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        attention = special.softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]), axis=-1) @ v
        mixed = linear(attention.transpose(1, 0, 2).reshape(len(ids), -1), weights, f"{at}.attention.output.dense")
        x = norm(x + mixed, weights, f"{at}.attention.output.LayerNorm")
        up = linear(x, weights, f"{at}.intermediate.dense")
        bent = up * special.ndtr(up)
        x = norm(x + linear(bent, weights, f"{at}.output.dense"), weights, f"{at}.output.LayerNorm")
    vector = x.mean(axis=0)
    p = special.softmax(vector @ head.coef + head.intercept)
    known = 1 - np.append(p[::-1].cumsum()[::-1][1:], 0)
    novelty = special.expit(vector @ head.novelty + head.novelty_bias)
    return np.append(known + novelty * (np.cumsum(encoder_graph.TRAFFIC_MIX) - known), novelty)


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    graph = encoder_graph.graph(weights_of(), PAD, head_of())
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_the_graph_computes_the_layers(session: ort.InferenceSession, n: int) -> None:
    ids = np.random.default_rng(n).integers(0, PAD, n).tolist()
    q, novelty = session.run(None, {"ids": np.array([ids])})
    assert np.append(q[0], novelty[0]) == pytest.approx(reference(ids, weights_of(), head_of()), abs=0.03)


def test_padding_changes_nothing(session: ort.InferenceSession) -> None:
    ids = [3, 5, 8, 13]
    alone = session.run(None, {"ids": np.array([ids])})[0]
    padded = session.run(None, {"ids": np.array([[*ids, PAD, PAD, PAD], [*ids[::-1], *ids[:3]]])})[0]
    assert padded[0] == pytest.approx(alone[0], abs=0.01)  # activations are quantised for the batch as a whole
    assert np.abs(padded[1] - alone[0]).max() > 0.01


def test_order_counts(session: ort.InferenceSession) -> None:
    one, other = (session.run(None, {"ids": np.array([ids])})[0][0] for ids in ([3, 5, 8, 13], [13, 8, 5, 3]))
    assert np.abs(one - other).max() > 0.01
