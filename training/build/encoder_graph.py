"""A fine-tuned BERT encoder -> one ONNX graph in int8: tokens in order in, P(suffices) out.

    vector = mean over tokens of the last layer
    logits = vector @ regression + bias, calibrated
    novelty = sigmoid(vector @ novelty + bias)
    P(suffices)_k = 1 - sum of softmax(logits) above k, moved towards the prior by novelty.

Weights are int8 by output channel, within 7 bits: without VNNI, sums of two products saturate at 8 (onnxruntime,
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, 2026-11-26). Activations are quantised as
they come. The operators of `com.microsoft` are onnxruntime's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.build.arrays import Array
from training.build.corpora import N_TIERS
from training.build.fit import TRAFFIC_MIX

Floats = npt.NDArray[np.float32]
N_HEADS = 12
EPSILON = 1e-12
LEVELS = 63

_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Head:
    """What follows the vector, float64: `coef` [n_dimensions, n_tiers] and `intercept` [n_tiers] of the calibrated
    logits; `novelty` [n_dimensions] and its `novelty_bias`.
    """

    coef: Array
    intercept: Array
    novelty: Array
    novelty_bias: float


class _Graph:
    """Nodes and constants as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}

    def __call__(self, op: str, inputs: list[str], name: str, domain: str = "", n: int = 1, **attributes: Any) -> str:
        outputs = [name] if n == 1 else [f"{name}{i}" for i in range(n)]
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return name

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.constants[name] = value
        return name

    def linear(self, x: str, name: str, weight: Floats, bias: Floats) -> str:
        """x @ weight.T + bias, `weight` [n_outputs, n_inputs] as torch has it."""
        codes, scales = _quantised(weight.T, axis=0)
        inputs = [
            x,
            self.constant(f"{name}.codes", codes),
            self.constant(f"{name}.scales", scales[0]),
            self.constant(f"{name}.zeros", np.zeros(codes.shape[1], np.int8)),
            self.constant(f"{name}.bias", bias),
        ]
        return self("DynamicQuantizeMatMul", inputs, name, _MICROSOFT)


def _quantised(weight: Floats, axis: int) -> tuple[npt.NDArray[np.int8], Floats]:
    scales = np.maximum(np.abs(weight).max(axis=axis, keepdims=True), 1e-9) / LEVELS
    return np.round(weight / scales).astype(np.int8), scales.astype(np.float32)


def graph(weights: Mapping[str, Floats], pad_id: int, head: Head) -> bytes:
    """The graph: ids int64 [batch, tokens] -> p_suffices float32 [batch, n_tiers] and novelty float32 [batch, 1].

    `weights` are a BertModel's by name.
    """
    g = _Graph()
    x = _embedded(g, weights, pad_id)
    for number in range(1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))):
        x = _layer(g, x, weights, f"encoder.layer.{number}.")
    _answered(g, x, head)
    model = helper.make_model(
        helper.make_graph(
            g.nodes,
            "tierwise",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
            [
                helper.make_tensor_value_info("p_suffices", TensorProto.FLOAT, ["batch", N_TIERS]),
                helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch", 1]),
            ],
            [numpy_helper.from_array(value, name) for name, value in g.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(_MICROSOFT, 1)],
        ir_version=9,
        producer_name="tierwise",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _embedded(g: _Graph, weights: Mapping[str, Floats], pad_id: int) -> str:
    """Tokens and positions, normalised; the mask of what is no padding."""
    codes, scales = _quantised(weights["embeddings.word_embeddings.weight"], axis=1)
    g("Gather", [g.constant("words.codes", codes), "ids"], "word_codes")
    g("Gather", [g.constant("words.scales", scales), "ids"], "word_scales")
    g("Cast", ["word_codes"], "word_floats", to=TensorProto.FLOAT)
    g("Mul", ["word_floats", "word_scales"], "words")
    places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    g.constant("places", places.astype(np.float32))
    for name, value in (("zero", [0]), ("first", [1]), ("second", [2])):
        g.constant(name, np.array(value, np.int64))
    g("Shape", ["ids"], "shape")
    g("Slice", ["shape", "first", "second"], "n_tokens")
    g("Slice", ["places", "zero", "n_tokens", "zero"], "places_used")
    g("Add", ["words", "places_used"], "placed")
    norm = [g.constant(f"embeddings.{kind}", weights[f"embeddings.LayerNorm.{kind}"]) for kind in ("weight", "bias")]
    g("Equal", ["ids", g.constant("pad", np.array(pad_id, np.int64))], "is_padding")
    g("Not", ["is_padding"], "is_token")
    g("Cast", ["is_token"], "mask", to=TensorProto.INT32)
    return g("LayerNormalization", ["placed", *norm], "embedded", axis=-1, epsilon=EPSILON)


def _layer(g: _Graph, x: str, weights: Mapping[str, Floats], at: str) -> str:
    """Attention and feed-forward, each added to what came in and normalised."""

    def of(name: str) -> tuple[Floats, Floats]:
        return weights[f"{at}{name}.weight"], weights[f"{at}{name}.bias"]

    parts = [of(f"attention.self.{name}") for name in ("query", "key", "value")]
    joint = np.concatenate([w for w, _ in parts]), np.concatenate([b for _, b in parts])
    qkv = g.linear(x, f"{at}qkv", *joint)
    g("Split", [qkv, g.constant(f"{at}thirds", np.array([x[0].shape[0] for x in parts], np.int64))], qkv, n=3, axis=2)
    attention = [f"{qkv}0", f"{qkv}1", f"{qkv}2", "", "mask"]
    g("MultiHeadAttention", attention, f"{at}attended", _MICROSOFT, num_heads=N_HEADS)
    g.linear(f"{at}attended", f"{at}mixed", *of("attention.output.dense"))
    middle = _added(g, x, f"{at}mixed", f"{at}middle", of("attention.output.LayerNorm"))
    g("Gelu", [g.linear(middle, f"{at}up", *of("intermediate.dense"))], f"{at}bent", _MICROSOFT)
    g.linear(f"{at}bent", f"{at}down", *of("output.dense"))
    return _added(g, middle, f"{at}down", f"{at}out", of("output.LayerNorm"))


def _added(g: _Graph, x: str, y: str, name: str, norm: tuple[Floats, Floats]) -> str:
    inputs = [x, y, g.constant(f"{name}.weight", norm[0]), g.constant(f"{name}.bias", norm[1])]
    return g("SkipLayerNormalization", inputs, name, _MICROSOFT, epsilon=EPSILON)


def _answered(g: _Graph, x: str, head: Head) -> None:
    """The mean over tokens, through the head."""
    for name, value in (
        ("coef", head.coef),
        ("intercept", head.intercept),
        ("novelty_column", head.novelty[:, None]),
        ("novelty_bias", np.array(head.novelty_bias)),
        ("prior", np.cumsum(TRAFFIC_MIX)),
        ("above", np.tril(np.ones((N_TIERS, N_TIERS)), -1)),
        ("one", np.array(1.0)),
    ):
        g.constant(name, np.asarray(value, np.float32))
    g("Cast", ["is_token"], "weights", to=TensorProto.FLOAT)
    g("Unsqueeze", ["weights", "second"], "weights_wide")
    g("Mul", [x, "weights_wide"], "weighted")
    g("ReduceSum", ["weighted", "first"], "sums", keepdims=0)
    g("ReduceSum", ["weights", "first"], "counted", keepdims=1)
    g("Max", ["counted", "one"], "count")
    g("Div", ["sums", "count"], "vector")
    g("Gemm", ["vector", "coef", "intercept"], "logits")
    g("Softmax", ["logits"], "p_required", axis=1)
    g("MatMul", ["p_required", "above"], "p_above")
    g("Sub", ["one", "p_above"], "known")
    g("Gemm", ["vector", "novelty_column", "novelty_bias"], "novelty_logit")
    g("Sigmoid", ["novelty_logit"], "novelty")
    g("Sub", ["prior", "known"], "to_prior")
    g("Mul", ["novelty", "to_prior"], "moved")
    g("Add", ["known", "moved"], "p_suffices")
