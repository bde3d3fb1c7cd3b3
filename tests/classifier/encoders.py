"""A small encoder with random weights, as an artifact: what `large` is in shape, in milliseconds."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from router.classifier import artifact
from router.classifier.artifact import Cascade, Input, Manifest, OperatingPoint, Window
from router.types import Tier
from training.build import encoder_graph, vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"
START = vocabulary.START
WORDS = [START + word for word in (*LETTERS, *"?.,", "prove", "what", "time", "is", "it", "the")] + [*LETTERS, "ing"]
TOKENIZER = vocabulary.written([(word, -10.0 + len(word)) for word in WORDS])
PAD = len(WORDS) + 1
N_TOKENS = PAD + 3
D, N_LAYERS = 24, 2


def weights_of(seed: int = 0) -> dict[str, np.ndarray]:
    """A BertModel's weights by name, float32."""
    chance = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (N_TOKENS, D),
        "embeddings.position_embeddings.weight": (64, D),
        "embeddings.token_type_embeddings.weight": (2, D),
    }
    sizes = {"attention.output.dense": (D, D), "intermediate.dense": (2 * D, D), "output.dense": (D, 2 * D)}
    sizes |= {f"attention.self.{name}": (D, D) for name in ("query", "key", "value")}
    for number in range(N_LAYERS):
        for name, shape in sizes.items():
            shapes[f"encoder.layer.{number}.{name}.weight"] = shape
            shapes[f"encoder.layer.{number}.{name}.bias"] = shape[:1]
    weights = {name: chance.normal(0, 0.3, shape) for name, shape in shapes.items()}
    norms = ["embeddings", *(f"encoder.layer.{n}.{part}output" for n in range(N_LAYERS) for part in ("attention.", ""))]
    for name in norms:
        weights |= {f"{name}.LayerNorm.weight": np.ones(D), f"{name}.LayerNorm.bias": np.zeros(D)}
    return {name: value.astype(np.float32) for name, value in weights.items()}


def head_of(seed: int = 1) -> encoder_graph.Head:
    chance = np.random.default_rng(seed)
    return encoder_graph.Head(chance.normal(0, 0.4, (D, 3)), np.zeros(3), chance.normal(0, 0.1, D), -4.0)


POINT = OperatingPoint({Tier.SIMPLE: 0.6, Tier.MODERATE: 0.8}, "", 0.0, (0.0, 0.0), {}, "")


def write_encoder(folder: Path) -> Path:
    """An artifact that reads up to 12 tokens in their order."""
    graph = encoder_graph.graph(weights_of(), PAD, head_of())
    files = {"model.onnx": graph, "tokenizer.model": TOKENIZER}
    manifest = Manifest(
        schema_version=artifact.SCHEMA_VERSION,
        name="encoder",
        version=1,
        tiers=tuple(Tier),
        max_novelty=0.9,
        operating_points=dict.fromkeys(("economy", "balanced", "quality"), POINT),
        inputs={"ids": Input("int64", ("batch", "tokens"), pad_id=PAD, begin_id=PAD + 1, end_id=PAD + 2)},
        window=Window(200, 200, 8, 4),
        files={name: artifact.entry(content) for name, content in files.items()},
    )
    return _write(folder, manifest, files)


def write_cascade(folder: Path, small: Path, large: Path, low: float, high: float, weight: float = 1.0) -> Path:
    """An artifact of two that lie beside it or are shipped."""
    hashes = [artifact.entry((part / "manifest.json").read_bytes()).sha256 for part in (small, large)]
    manifest = Manifest(
        schema_version=artifact.SCHEMA_VERSION,
        name="cascade",
        version=1,
        tiers=tuple(Tier),
        max_novelty=0.9,
        operating_points=dict.fromkeys(("economy", "balanced", "quality"), POINT),
        cascade=Cascade(small.name, hashes[0], large.name, hashes[1], low, high, weight, 0.1),
    )
    return _write(folder, manifest, {})


def _write(folder: Path, manifest: Manifest, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return folder
